//! The events of a run: Particle's JSON of one size, with a stamp in its text.
//!
//! The stamp is `fl1:SEQ:NANOS:` with 20 digits each. `SEQ` is dense from 1 within a session, so
//! that losses and disorder are counted exactly; `NANOS` is the wall clock when it was rendered,
//! right before it is sent.

use crate::clock;

/// Name of events in scenarios without filters.
pub(crate) const NAME: &str = "bench/spaced";
/// What stands around an event's text.
const AROUND: [&str; 2] = [
    "{\"data\":\"",
    "\",\"ttl\":60,\"published_at\":\"2026-11-22T01:02:03.004Z\",\
     \"coreid\":\"e00fce68e8ec2200392752db\"}",
];
const STAMP_BYTES: usize = 46;

/// Least size of an event's JSON.
pub(crate) const BYTES_MIN: usize = AROUND[0].len() + AROUND[1].len() + STAMP_BYTES;

/// One event to publish.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    /// The JSON, on one line.
    pub(crate) data: String,
    pub(crate) seq: u64,
}

/// Gives out the events of one session.
#[derive(Debug)]
pub(crate) struct Events {
    bytes: usize,
    last: u64,
}

impl Events {
    /// Events whose JSON is `bytes` long.
    pub(crate) fn new(bytes: usize) -> Events {
        assert!(bytes >= BYTES_MIN, "an event is at least {BYTES_MIN} bytes");
        Events { bytes, last: 0 }
    }

    /// The next event, stamped now.
    pub(crate) fn next(&mut self, name: &str) -> Event {
        self.last += 1;
        self.event(name, "fl1", self.last)
    }

    /// An event that no subscriber looks for: it has no number.
    pub(crate) fn unnumbered(&self, name: &str) -> Event {
        self.event(name, "fl0", 0)
    }

    /// Changes the size of those to come.
    pub(crate) fn resize(&mut self, bytes: usize) {
        assert!(bytes >= BYTES_MIN, "an event is at least {BYTES_MIN} bytes");
        self.bytes = bytes;
    }

    fn event(&self, name: &str, mark: &str, seq: u64) -> Event {
        let filler = "x".repeat(self.bytes - BYTES_MIN);
        let stamp = format!("{mark}:{seq:020}:{:020}:", clock::wall_nanos());
        let data = format!("{}{stamp}{filler}{}", AROUND[0], AROUND[1]);
        debug_assert_eq!(data.len(), self.bytes);
        Event { name: name.to_owned(), data, seq }
    }

    /// The next `count` events.
    pub(crate) fn take(&mut self, name: &str, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.next(name)).collect()
    }

    /// Seq of the last event given out; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }
}
