//! A reader: a cursor, a filter and a place in a group. It has no queue.
//!
//! Law: every record from the cursor's start on is examined once, in order, or lies
//! in a gap that [`Subscription::examine`] returns in its place. Replay and live
//! tail are the same loop.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tokio::sync::watch;

use crate::model::{
    Epoch, Filter, Gap, GapReason, Moment, Position, Record, Seq, Transport, UpstreamState,
    record::Kind,
    resume::{self, Resumption, Start},
};

use super::{
    Closing, Shared, Window,
    group::{GroupId, Known},
};

/// How much one [`Subscription::examine`] may do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Records looked at, whether they pass or not. Bounds the time the lock is held.
    pub records: usize,
    /// Bytes delivered; the record that goes over is still delivered.
    pub bytes: usize,
}

/// How an examination ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Examined {
    /// Everything there is has been examined: wait to be woken.
    All,
    /// The budget is used up: there is more.
    More,
    /// Records up to the gap's end were evicted before they could be examined.
    Gap(Gap),
}

/// A subscriber's place in the sequence. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    id: u64,
    group: GroupId,
    filter: Arc<Filter>,
    wakes: Wakes,
    cursor: Seq,
    /// The newest values yet to be delivered before the records: `[next, end)`.
    snapshot: Option<(Seq, Seq)>,
    presence: Arc<Presence>,
}

/// How a subscription learns of news.
#[derive(Debug)]
enum Wakes {
    /// By itself, with its group.
    Own(watch::Receiver<Seq>),
    /// With many others, by the doorbell of this number.
    Doorbell(usize),
}

/// What others may see of a subscription.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) transport: Transport,
    pub(super) since: Moment,
    cursor: AtomicU64,
    group: AtomicU32,
}

// === impl Subscription ===

impl Subscription {
    pub(super) fn open(
        shared: Arc<Shared>,
        filter: Filter,
        start: &Start,
        transport: Transport,
        now: Moment,
    ) -> (Subscription, Option<Gap>) {
        // One lock for both: nothing can be appended between the decision where to
        // start and the joining of the group that will be woken.
        let mut window = shared.write();
        let Resumption { cursor, gap } = start.resolve(&window.ring, now);
        let tail = window.ring.tail();
        let (group, filter, woken) = window.groups.join(filter, tail);
        drop(window);
        let presence = Arc::new(Presence {
            transport,
            since: now,
            cursor: AtomicU64::new(cursor.0),
            group: AtomicU32::new(group.number()),
        });
        let id = shared.next_subscriber();
        shared.subscribers.insert(id, presence.clone());
        let wakes = Wakes::Own(woken);
        let subscription =
            Subscription { shared, id, group, filter, wakes, cursor, snapshot: None, presence };
        (subscription, gap)
    }

    /// A number of its own, counted from the broker's start.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The life of the log.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// The last position examined: resuming from it continues right here.
    pub fn position(&self) -> Position {
        Position { epoch: self.shared.epoch, seq: self.cursor.previous() }
    }

    /// The filter, as understood.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// How it is served.
    pub fn transport(&self) -> Transport {
        self.presence.transport
    }

    /// State of the upstream connection.
    pub fn upstream_state(&self) -> UpstreamState {
        self.shared.read().upstream.state
    }

    /// Set once the broker is shutting down.
    pub fn closing(&self) -> Option<Closing> {
        self.shared.closing.get().copied()
    }

    /// First seq not yet given out.
    pub fn tail(&self) -> Seq {
        self.shared.read().ring.tail()
    }

    /// How far, in records, a cursor may run ahead of what the client knows before it
    /// should be told: a quarter of the ring.
    pub fn checkpoint_events(&self) -> u64 {
        self.shared.read().ring.quarter()
    }

    /// From now on other events pass. The cursor stays.
    pub fn refilter(&mut self, filter: Filter) {
        let mut window = self.shared.write();
        let tail = window.ring.tail();
        // Joined before the old group is left: if both are the same, it lives on.
        let (group, filter, woken) = window.groups.join(filter, tail);
        window.groups.leave(self.group);
        match &mut self.wakes {
            Wakes::Own(own) => *own = woken,
            Wakes::Doorbell(number) => window.groups.set_doorbell(group, *number, true),
        }
        drop(window);
        self.group = group;
        self.filter = filter;
        self.presence.group.store(group.number(), Ordering::Relaxed);
    }

    /// The group of all subscriptions with an equal filter.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// News ring at a doorbell from now on.
    pub(super) fn ring_at(&mut self, number: usize) {
        self.wakes = Wakes::Doorbell(number);
    }

    /// Asks for the newest event of each (name, device) that was taken in at `from` or
    /// later and before the cursor. They come by [`Subscription::examine_snapshot`].
    pub fn request_snapshot(&mut self, from: Seq) {
        self.snapshot = Some((from, self.cursor));
    }

    /// The position before the first value of the snapshot that is still to come; none if
    /// there is none. Who resumes from here gets all of it, as a snapshot or in replay.
    pub fn snapshot_position(&self) -> Option<Position> {
        let (next, end) = self.snapshot?;
        let window = self.shared.read();
        let mut values = window.latest.range(next, end);
        let first = values.find(|record| self.filter.passes(record.name(), record.device()))?;
        Some(Position { epoch: self.shared.epoch, seq: first.seq().previous() })
    }

    /// Hands over the next part of the snapshot; `false` once there is no more of it.
    ///
    /// A value that is replaced while the snapshot is on its way is not in it: the
    /// event that replaced it comes with the records.
    pub fn examine_snapshot(
        &mut self,
        budget: Budget,
        mut deliver: impl FnMut(&Record) -> usize,
    ) -> bool {
        let Some((next, end)) = self.snapshot else { return false };
        let window = self.shared.read();
        let (mut records, mut bytes) = (0, 0);
        for record in window.latest.range(next, end) {
            if records >= budget.records || bytes >= budget.bytes {
                self.snapshot = Some((record.seq(), end));
                return true;
            }
            records += 1;
            if self.filter.passes(record.name(), record.device()) {
                bytes += deliver(record);
            }
        }
        self.snapshot = None;
        false
    }

    /// Examines records from the cursor on and hands over those that pass; `deliver`
    /// says how many bytes it took. Control records always pass.
    pub fn examine(
        &mut self,
        budget: Budget,
        mut deliver: impl FnMut(&Record) -> usize,
    ) -> Examined {
        let window = self.shared.read();
        let tail = window.ring.tail();
        let (mut records, mut bytes) = (0, 0);
        let examined = loop {
            if let Known::SkipTo(seq) = window.groups.known(self.group, self.cursor, tail) {
                self.cursor = seq;
            }
            if self.cursor >= tail {
                self.cursor = tail;
                break Examined::All;
            }
            if self.cursor < window.ring.oldest() {
                let requested = self.position().to_string();
                let gap = resume::missed(
                    GapReason::Overtaken,
                    Some(requested),
                    self.cursor,
                    &window.ring,
                );
                self.cursor = gap.next;
                break Examined::Gap(gap);
            }
            // Record by record until the group knows more again, or the budget ends.
            let mut is_over = false;
            for record in window.ring.from(self.cursor) {
                is_over = records >= budget.records || bytes >= budget.bytes;
                if is_over {
                    break;
                }
                records += 1;
                self.cursor = record.seq().next();
                let passes = record.kind() == Kind::Control
                    || self.filter.passes(record.name(), record.device());
                if passes {
                    bytes += deliver(record);
                    if let Known::SkipTo(seq) = window.groups.known(self.group, self.cursor, tail)
                        && seq > self.cursor
                    {
                        break;
                    }
                }
            }
            if is_over {
                break Examined::More;
            }
        };
        drop(window);
        self.presence.cursor.store(self.cursor.0, Ordering::Relaxed);
        examined
    }

    /// Goes on from `cursor`, with what comes before it examined by another member of the
    /// group from the same cursor on.
    pub fn advance(&mut self, cursor: Seq) {
        self.cursor = cursor;
        self.presence.cursor.store(cursor.0, Ordering::Relaxed);
    }

    /// The next seq to examine.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Completes when records came that concern the filter, or the broker is
    /// closing; at once if that was so since the last call. Cancel-safe. Never for a
    /// subscription that is attached to a doorbell.
    pub async fn woken(&mut self) {
        if let Wakes::Own(woken) = &mut self.wakes
            && woken.changed().await.is_ok()
        {
            return;
        }
        // The sender lives as long as the group, and the group as long as we are in it.
        std::future::pending::<()>().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.subscribers.remove(&self.id);
        self.shared.write().groups.leave(self.group);
    }
}

// === impl Presence ===

impl Presence {
    /// Records that may concern the subscriber and are not yet examined.
    pub(super) fn lag_events(&self, window: &Window) -> u64 {
        let cursor = Seq(self.cursor.load(Ordering::Relaxed));
        let tail = window.ring.tail();
        let group = GroupId::from_number(self.group.load(Ordering::Relaxed));
        match window.groups.known_if_present(group, cursor, tail) {
            Some(Known::SkipTo(seq)) => tail.distance_from(seq.max(cursor)),
            Some(Known::Nothing) => tail.distance_from(cursor),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests;
