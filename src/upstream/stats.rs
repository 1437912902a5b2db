//! What the upstream counts: the one place where its numbers change.
//!
//! The driver bumps, the status page and the metrics read. Every number is a total since
//! the process start unless its name says otherwise.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    model::{Hole, Moment, UpstreamState},
    upstream::{merge::Counts, paths},
};

/// What became of an open; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A stream.
    Live,
    /// 429, 503 or 529.
    RateLimited,
    /// 401.
    Unauthorized,
    /// Another 4xx, or a redirect that is not followed.
    Misconfigured,
    /// Another 5xx.
    ServerError,
    /// An answer that is no event stream: other status, content type or encoding.
    NotAStream,
    /// The name has no address.
    Dns,
    /// No TCP connection, or one that broke before the head.
    Connect,
    /// TLS could not be agreed upon.
    Tls,
    /// No head in time.
    Timeout,
    /// A redirect within the origin; the request that follows is counted on its own.
    Redirected,
}

/// All of them, in the order of [`Outcome`].
pub const OUTCOMES: [Outcome; 11] = [
    Outcome::Live,
    Outcome::RateLimited,
    Outcome::Unauthorized,
    Outcome::Misconfigured,
    Outcome::ServerError,
    Outcome::NotAStream,
    Outcome::Dns,
    Outcome::Connect,
    Outcome::Tls,
    Outcome::Timeout,
    Outcome::Redirected,
];

/// The counters. Shared as `Arc<Stats>`.
#[derive(Debug, Default)]
pub struct Stats {
    outcomes: [AtomicU64; OUTCOMES.len()],
    opens_held: AtomicU64,
    opens_in_window: AtomicU64,
    bytes: AtomicU64,
    events: AtomicU64,
    comments: AtomicU64,
    oversize: AtomicU64,
    partials: AtomicU64,
    streams: AtomicU64,
    copies: AtomicU64,
    twins: AtomicU64,
    overflows: AtomicU64,
    webhook_copies_of_stream: AtomicU64,
    webhook_copies: AtomicU64,
    webhook_overflows: AtomicU64,
    holes: AtomicU64,
    hole_ms: AtomicU64,
    silence_max_us: AtomicU64,
    /// Zero while there was none; a byte at the very origin counts as one microsecond later.
    last_byte_us: AtomicU64,
    last_byte_wall_ms: AtomicU64,
    shown: Mutex<Shown>,
}

/// The exact state, repeated attempts within an outage included.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// The state.
    pub state: UpstreamState,
    /// Since when.
    pub since: Moment,
}

#[derive(Debug, Default)]
struct Shown {
    attempt: Option<Attempt>,
    next_open_us: Option<u64>,
    holes: VecDeque<Hole>,
}

/// Holes that are remembered: those of a night of trouble.
const HOLES_SHOWN_MAX: usize = 100;

/// The counters at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The exact state; `None` before the upstream runs.
    pub attempt: Option<Attempt>,
    /// When the next attempt is due, in monotonic microseconds; `None` while one runs or the
    /// stream is live.
    pub next_open_us: Option<u64>,
    /// Opens by outcome.
    pub opens: [(Outcome, u64); OUTCOMES.len()],
    /// Times our own budget held an open back.
    pub opens_held: u64,
    /// Opens in the budget's window now (those of other processes included).
    pub opens_in_window: u64,
    /// Body bytes of live streams.
    pub bytes: u64,
    /// Events handed to the hub.
    pub events: u64,
    /// Comment lines of the decoder.
    pub comments: u64,
    /// Events or lines too large to keep.
    pub oversize: u64,
    /// Partial events discarded at a disconnect.
    pub partials: u64,
    /// Streams open now.
    pub streams: u64,
    /// What was decided where two streams were merged.
    pub merged: Counts,
    /// What was decided where stream and webhooks were made one.
    pub by_webhook: paths::Counts,
    /// Holes told.
    pub holes: u64,
    /// Their length together, in milliseconds.
    pub hole_ms: u64,
    /// The newest of them, oldest first, at most 100.
    pub holes_newest: Vec<Hole>,
    /// Longest silence within a live stream, stalls included, in microseconds.
    pub silence_max_us: u64,
    /// When the last byte came.
    pub last_byte: Option<Moment>,
}

// === impl Outcome ===

impl Outcome {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Live => "live",
            Outcome::RateLimited => "rate-limited",
            Outcome::Unauthorized => "unauthorized",
            Outcome::Misconfigured => "misconfigured",
            Outcome::ServerError => "server-error",
            Outcome::NotAStream => "not-a-stream",
            Outcome::Dns => "dns",
            Outcome::Connect => "connect",
            Outcome::Tls => "tls",
            Outcome::Timeout => "timeout",
            Outcome::Redirected => "redirected",
        }
    }
}

// === impl Stats ===

impl Stats {
    /// The counters now. Each is read on its own; they are not one instant.
    pub fn snapshot(&self) -> Snapshot {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let last_byte_us = self.last_byte_us.load(Relaxed);
        let wall_ms = self.last_byte_wall_ms.load(Relaxed);
        Snapshot {
            attempt: shown.attempt,
            next_open_us: shown.next_open_us,
            opens: OUTCOMES.map(|outcome| (outcome, self.outcomes[outcome as usize].load(Relaxed))),
            opens_held: self.opens_held.load(Relaxed),
            opens_in_window: self.opens_in_window.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            events: self.events.load(Relaxed),
            comments: self.comments.load(Relaxed),
            oversize: self.oversize.load(Relaxed),
            partials: self.partials.load(Relaxed),
            streams: self.streams.load(Relaxed),
            merged: Counts {
                copies: self.copies.load(Relaxed),
                twins: self.twins.load(Relaxed),
                overflows: self.overflows.load(Relaxed),
            },
            by_webhook: paths::Counts {
                of_stream: self.webhook_copies_of_stream.load(Relaxed),
                of_webhooks: self.webhook_copies.load(Relaxed),
                overflows: self.webhook_overflows.load(Relaxed),
            },
            holes: self.holes.load(Relaxed),
            hole_ms: self.hole_ms.load(Relaxed),
            holes_newest: shown.holes.iter().copied().collect(),
            silence_max_us: self.silence_max_us.load(Relaxed),
            last_byte: (last_byte_us > 0).then_some(Moment { wall_ms, mono_us: last_byte_us }),
        }
    }

    pub(crate) fn opened(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn held(&self) {
        self.opens_held.fetch_add(1, Relaxed);
    }

    pub(crate) fn window(&self, opens: usize) {
        self.opens_in_window.store(opens as u64, Relaxed);
    }

    /// Bytes of a live stream, after `silence_us` without any.
    pub(crate) fn received(&self, bytes: u64, silence_us: u64, now: Moment) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.silent(silence_us);
        self.last_byte_us.store(now.mono_us.max(1), Relaxed);
        self.last_byte_wall_ms.store(now.wall_ms, Relaxed);
    }

    pub(crate) fn silent(&self, silence_us: u64) {
        self.silence_max_us.fetch_max(silence_us, Relaxed);
    }

    pub(crate) fn events(&self, count: u64) {
        self.events.fetch_add(count, Relaxed);
    }

    pub(crate) fn comments(&self, total: u64) {
        self.comments.store(total, Relaxed);
    }

    pub(crate) fn oversize(&self) {
        self.oversize.fetch_add(1, Relaxed);
    }

    pub(crate) fn partial(&self) {
        self.partials.fetch_add(1, Relaxed);
    }

    pub(crate) fn streams(&self, open: u64) {
        self.streams.store(open, Relaxed);
    }

    pub(crate) fn merged(&self, total: Counts) {
        self.copies.store(total.copies, Relaxed);
        self.twins.store(total.twins, Relaxed);
        self.overflows.store(total.overflows, Relaxed);
    }

    pub(crate) fn by_webhook(&self, total: paths::Counts) {
        self.webhook_copies_of_stream.store(total.of_stream, Relaxed);
        self.webhook_copies.store(total.of_webhooks, Relaxed);
        self.webhook_overflows.store(total.overflows, Relaxed);
    }

    pub(crate) fn hole(&self, hole: &Hole) {
        self.holes.fetch_add(1, Relaxed);
        self.hole_ms.fetch_add(hole.until_ms.saturating_sub(hole.since_ms), Relaxed);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.holes.len() == HOLES_SHOWN_MAX {
            shown.holes.pop_front();
        }
        shown.holes.push_back(*hole);
    }

    pub(crate) fn attempt(&self, attempt: Attempt) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.attempt = Some(attempt);
    }

    pub(crate) fn next_open(&self, next_open_us: Option<u64>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.next_open_us = next_open_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_listed_in_their_order() {
        for (index, outcome) in OUTCOMES.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }
}
