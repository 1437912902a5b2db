//! The only state that is shared and changes: the ring, who is interested, and the
//! newest values, behind one handle.
//!
//! Law: one writer ([`Publisher`]), any number of readers ([`Subscription`]), each a
//! cursor and a filter. What a reader missed is decided under the same lock that
//! moves its cursor, so there is no seam to lose an event in.
//!
//! ```text
//!  Publisher ─ stage ─▶ render ─ commit ─▶ ┌ window (one lock) ─────────┐
//!                                          │ ring · interest · latest   │──▶ Subscription::examine
//!                                          └──────────┬─────────────────┘
//!                                                     └ wakes the groups concerned
//! ```

mod doorbell;
mod group;
mod ingest;
mod latest;
mod subscription;

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dashmap::DashMap;

use crate::{
    log::Log,
    model::{
        Epoch, Filter, Format, Gap, Moment, Position, Ring, Seq, Transport, UpstreamState,
        resume::Start, ring,
    },
    telemetry::Telemetry,
};

pub use doorbell::{Doorbell, News};
pub use group::GroupId;
pub use ingest::Publisher;
pub use subscription::{Budget, Examined, Subscription};

use group::Groups;
use latest::Latest;
use subscription::Presence;

/// Bounds of the shared state.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bounds of the ring.
    pub ring: ring::Limits,
    /// Newest values held, one per event name and device.
    pub latest_entries_max: usize,
    /// Bytes of the newest values.
    pub latest_bytes_max: usize,
}

/// Changes of the upstream's state that `/status` shows.
const UPSTREAM_HISTORY_MAX: usize = 100;

/// Subscribers whose lag is looked up under one lock: about 0.1 ms.
const STATUSES_AT_ONCE: usize = 1024;

/// The handle to the shared state. Clones share it.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    window: RwLock<Window>,
    subscribers: DashMap<u64, Arc<Presence>>,
    subscribers_next: AtomicU64,
    closing: OnceLock<Closing>,
    epoch: Epoch,
    telemetry: Arc<Telemetry>,
}

/// What the one lock guards.
#[derive(Debug)]
struct Window {
    ring: Ring,
    groups: Groups,
    latest: Latest,
    upstream: UpstreamChange,
    upstream_history: VecDeque<UpstreamChange>,
    upstream_live_last: Option<Moment>,
}

/// The broker is shutting down: streams end within `window` from `since`.
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    /// When it began.
    pub since: Moment,
    /// How long the last stream may stay.
    pub window: Duration,
}

/// A state the upstream connection came to.
#[derive(Clone, Debug)]
pub struct UpstreamChange {
    /// The state.
    pub state: UpstreamState,
    /// When it came to it.
    pub since: Moment,
    /// Why, in words; may be empty.
    pub detail: String,
}

/// What `/status`, `/readyz` and `/metrics` show of the shared state.
#[derive(Clone, Debug)]
pub struct Status {
    /// The log's epoch.
    pub epoch: Epoch,
    /// Records held.
    pub ring_events: usize,
    /// Bytes held.
    pub ring_bytes: usize,
    /// Bounds of the ring.
    pub ring_limits: ring::Limits,
    /// First seq held.
    pub oldest: Seq,
    /// First seq not yet given out.
    pub tail: Seq,
    /// When the oldest record held was taken in.
    pub oldest_at: Option<Moment>,
    /// When the newest record was taken in.
    pub newest_at: Option<Moment>,
    /// Records evicted.
    pub evicted: u64,
    /// Newest values held.
    pub latest_entries: usize,
    /// Bytes of the newest values.
    pub latest_bytes: usize,
    /// Newest values forgotten.
    pub latest_evicted: u64,
    /// Different filters in use.
    pub groups: usize,
    /// State of the upstream connection.
    pub upstream: UpstreamChange,
    /// Its earlier states, oldest first, the present one included.
    pub upstream_history: Vec<UpstreamChange>,
    /// When the upstream was last known to be live; none if it never was.
    pub upstream_live_last: Option<Moment>,
}

/// A connected subscriber, as `/status` shows it.
#[derive(Clone, Copy, Debug)]
pub struct SubscriberStatus {
    /// A number of its own, counted from the start.
    pub id: u64,
    /// How it is served.
    pub transport: Transport,
    /// When it subscribed.
    pub since: Moment,
    /// Records it has yet to examine; 0 if none of them concerns it.
    pub lag_events: u64,
}

// === impl Hub ===

impl Hub {
    /// An empty hub on `log`, and the handle of its one writer.
    pub fn new(
        config: Config,
        log: Log,
        telemetry: Arc<Telemetry>,
        now: Moment,
    ) -> (Hub, Publisher) {
        let epoch = log.epoch();
        let upstream =
            UpstreamChange { state: UpstreamState::Connecting, since: now, detail: String::new() };
        let window = Window {
            ring: Ring::new(epoch, config.ring),
            groups: Groups::default(),
            latest: Latest::new(config.latest_entries_max, config.latest_bytes_max),
            upstream: upstream.clone(),
            upstream_history: VecDeque::from([upstream]),
            upstream_live_last: None,
        };
        let shared = Arc::new(Shared {
            window: RwLock::new(window),
            subscribers: DashMap::new(),
            subscribers_next: AtomicU64::new(1),
            closing: OnceLock::new(),
            epoch,
            telemetry,
        });
        (Hub { shared: shared.clone() }, Publisher::new(shared, log))
    }

    /// The life of the log.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// The position before the next record: resuming from it delivers all that comes.
    pub fn head(&self) -> Position {
        Position { epoch: self.shared.epoch, seq: self.shared.read().ring.tail().previous() }
    }

    /// State of the upstream connection.
    pub fn upstream_state(&self) -> UpstreamState {
        self.shared.read().upstream.state
    }

    /// Subscribes from `start` on, and says what was missed by then.
    pub fn subscribe(
        &self,
        filter: Filter,
        start: &Start,
        transport: Transport,
        now: Moment,
    ) -> (Subscription, Option<Gap>) {
        Subscription::open(self.shared.clone(), filter, start, transport, now)
    }

    /// A doorbell for a driver of many subscriptions; `wake` wakes it, from any thread.
    ///
    /// # Panics
    /// If there are 64 already.
    pub fn doorbell(&self, wake: impl Fn() + Send + Sync + 'static) -> Doorbell {
        Doorbell::new(self.shared.clone(), Box::new(wake))
    }

    /// The newest event of each (name, device) that passes, in order of position.
    pub fn latest(&self, filter: &Filter, format: Format) -> Vec<Bytes> {
        let window = self.shared.read();
        window
            .latest
            .range(Seq(0), window.ring.tail())
            .filter(|record| filter.passes(record.name(), record.device()))
            .map(|record| record.frame(format))
            .collect()
    }

    /// Tells every subscription to end within `window`; said once, later calls change nothing.
    pub fn close(&self, now: Moment, window: Duration) {
        if self.shared.closing.set(Closing { since: now, window }).is_ok() {
            self.wake_all();
        }
    }

    /// Wakes every subscription to look at what it is served under, as news for all would.
    /// Whatever has changed must have changed before.
    pub fn wake_all(&self) {
        let window = self.shared.read();
        let (wakes, tail) = (window.groups.wakes_of_all(), window.ring.tail());
        drop(window);
        wakes.wake(tail);
    }

    /// Set once the broker is shutting down.
    pub fn closing(&self) -> Option<Closing> {
        self.shared.closing.get().copied()
    }

    /// Subscribers connected.
    pub fn subscribers(&self) -> usize {
        self.shared.subscribers.len()
    }

    /// Every connected subscriber, in no order.
    pub fn subscriber_statuses(&self) -> Vec<SubscriberStatus> {
        let present = self.shared.subscribers.iter();
        let present: Vec<_> = present.map(|entry| (*entry.key(), entry.value().clone())).collect();
        let mut statuses = Vec::with_capacity(present.len());
        // In parts, so that the writer need not wait for all of a great many.
        for part in present.chunks(STATUSES_AT_ONCE) {
            let window = self.shared.read();
            statuses.extend(part.iter().map(|(id, presence)| SubscriberStatus {
                id: *id,
                transport: presence.transport,
                since: presence.since,
                lag_events: presence.lag_events(&window),
            }));
        }
        statuses
    }

    /// What there is to show.
    pub fn status(&self) -> Status {
        let window = self.shared.read();
        Status {
            epoch: self.shared.epoch,
            ring_events: window.ring.len(),
            ring_bytes: window.ring.bytes(),
            ring_limits: window.ring.limits(),
            oldest: window.ring.oldest(),
            tail: window.ring.tail(),
            oldest_at: window.ring.front().map(crate::model::Record::at),
            newest_at: window.ring.back().map(crate::model::Record::at),
            evicted: window.ring.evicted(),
            latest_entries: window.latest.len(),
            latest_bytes: window.latest.bytes(),
            latest_evicted: window.latest.evicted(),
            groups: window.groups.len(),
            upstream: window.upstream.clone(),
            upstream_history: window.upstream_history.iter().cloned().collect(),
            upstream_live_last: window.upstream_live_last,
        }
    }
}

// === impl Shared ===

/// A panic while the lock is held would be a bug of ours; the state behind it is
/// still whole, since it is changed in steps that keep it so.
impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Window> {
        self.window.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Window> {
        self.window.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn next_subscriber(&self) -> u64 {
        self.subscribers_next.fetch_add(1, Ordering::Relaxed)
    }
}

// === impl Window ===

impl Window {
    fn upstream_changed(&mut self, change: UpstreamChange) {
        if self.upstream.state == UpstreamState::Live || change.state == UpstreamState::Live {
            self.upstream_live_last = Some(change.since);
        }
        if change.state == self.upstream.state && change.detail == self.upstream.detail {
            return;
        }
        if self.upstream_history.len() == UPSTREAM_HISTORY_MAX {
            self.upstream_history.pop_front();
        }
        self.upstream_history.push_back(change.clone());
        self.upstream = change;
    }
}
