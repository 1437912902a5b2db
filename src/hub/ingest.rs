//! The one writer: event → position → frames → ring → the groups concerned.
//!
//! Law: what is ready is taken in as one batch. Rendering happens before the lock,
//! waking after it; each group concerned is woken once a batch.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    log::Log,
    model::{
        Event, GapReason, Hole, Moment, Record, UpstreamState, event::EventError, record::Kind,
    },
    telemetry::{Refusal, Telemetry},
};

use super::{Shared, UpstreamChange};

/// Records staged before they are taken in without being asked to.
const STAGED_EVENTS_MAX: usize = 1024;
/// Bytes staged before they are taken in without being asked to.
const STAGED_BYTES_MAX: usize = 4 << 20;

/// The handle of the hub's one writer. There is no second: it cannot be cloned.
pub struct Publisher {
    shared: Arc<Shared>,
    log: Log,
    staged: Vec<Record>,
    staged_bytes: usize,
    staged_changes: Vec<UpstreamChange>,
    /// Records since every group was woken.
    unslept: u64,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("staged", &self.staged.len()).finish_non_exhaustive()
    }
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, log: Log) -> Publisher {
        Publisher {
            shared,
            log,
            staged: Vec::new(),
            staged_bytes: 0,
            staged_changes: Vec::new(),
            unslept: 0,
        }
    }

    /// Stages an event. One that cannot be passed on is counted and declared as a
    /// gap in its place; one with a reserved name is only counted.
    pub fn event(&mut self, name: &str, data: &str, now: Moment) {
        self.telemetry().upstream_events.increment(1);
        match Event::parse(name, data) {
            Ok(event) => {
                let position = self.log.append();
                self.stage(Record::event(&event, position, now));
            }
            Err(error) => {
                self.telemetry().refused(Refusal::from(error));
                tracing::debug!(%error, name = ?shortened(name), "upstream event not passed on");
                if error != EventError::Reserved {
                    self.lost(GapReason::Refused, now);
                }
            }
        }
    }

    /// Stages the gap of an upstream event that was too large to keep.
    pub fn oversize(&mut self, bytes: u64, now: Moment) {
        self.telemetry().upstream_events.increment(1);
        self.telemetry().refused(Refusal::Oversize);
        tracing::warn!(bytes, "upstream event too large to keep; subscribers get a gap");
        self.lost(GapReason::Oversize, now);
    }

    /// Stages a window in which events may have been lost.
    pub fn hole(&mut self, hole: &Hole, now: Moment) {
        let window = Duration::from_millis(hole.until_ms.saturating_sub(hole.since_ms));
        self.telemetry().hole(hole.reason, window);
        let position = self.log.append();
        self.stage(Record::hole(hole, position, now));
    }

    /// Stages a change of the upstream connection's state.
    pub fn upstream(&mut self, state: UpstreamState, detail: &str, now: Moment) {
        let position = self.log.append();
        self.stage(Record::upstream(state, detail, position, now));
        self.staged_changes.push(UpstreamChange { state, since: now, detail: detail.to_owned() });
    }

    /// Takes in what is staged and wakes the groups concerned, each once.
    pub fn commit(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let (mut events, mut controls) = (0, 0);
        let (wakes, tail) = {
            let mut window = self.shared.write();
            for change in self.staged_changes.drain(..) {
                window.upstream_changed(change);
            }
            for record in self.staged.drain(..) {
                window.groups.concern(&record);
                match record.kind() {
                    Kind::Event => {
                        events += 1;
                        window.latest.update(&record);
                    }
                    Kind::Control => controls += 1,
                }
                window.ring.append(record);
            }
            let tail = window.ring.tail();
            // Sleepers wake each quarter of the ring all the same, to tell their
            // clients how far they are before that falls out of the ring.
            self.unslept += events + controls;
            if self.unslept >= window.ring.quarter() {
                self.unslept = 0;
                window.groups.concern_all();
            }
            (window.groups.take_concerned(), tail)
        };
        self.staged_bytes = 0;
        self.telemetry().events_appended.increment(events);
        self.telemetry().controls_appended.increment(controls);
        wakes.wake(tail);
    }

    fn lost(&mut self, reason: GapReason, now: Moment) {
        let oldest = self.shared.read().ring.oldest();
        let position = self.log.append();
        self.stage(Record::lost(reason, position, oldest, now));
    }

    fn stage(&mut self, record: Record) {
        self.staged_bytes += record.bytes();
        self.staged.push(record);
        if self.staged.len() >= STAGED_EVENTS_MAX || self.staged_bytes >= STAGED_BYTES_MAX {
            self.commit();
        }
    }

    fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }
}

/// Enough of a hostile name to recognise it by.
fn shortened(name: &str) -> String {
    name.chars().take(80).collect()
}
