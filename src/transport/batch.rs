//! The frames that go out in one write.
//!
//! Law: one record goes out as the very bytes that every subscriber shares. Several are
//! joined, within a bound; one that is over the bound itself goes alone.

use bytes::Bytes;

use crate::model::{Format, Moment, Record, Seq, record::Kind};

use super::Wire;

/// Bytes to be written.
#[derive(Clone, Debug)]
pub struct Write {
    /// The bytes, shared with other subscribers where it is one record.
    pub bytes: Bytes,
    /// Events in it.
    pub events: u64,
    /// When the oldest live event in it was taken in.
    pub ingested: Option<Moment>,
}

/// The frames of one examination, on their way into a write.
#[derive(Default)]
pub(super) struct Batch {
    bytes_max: usize,
    /// What passed, in order; joined once all is there.
    frames: Vec<Bytes>,
    bytes: usize,
    /// A record over the bound that came after others. Joined to them it would be copied
    /// for each subscriber; by itself it goes out as the bytes that everyone shares.
    pub(super) large: Option<Write>,
    events: u64,
    pub(super) last: Option<Seq>,
    ingested: Option<Moment>,
}

// === impl Batch ===

impl Batch {
    pub(super) fn new(bytes_max: usize) -> Batch {
        Batch { bytes_max, ..Batch::default() }
    }

    /// Adds a record and says how many bytes it is. Past the limit of events nothing
    /// is added: the session is about to end.
    pub(super) fn take(
        &mut self,
        record: &Record,
        wire: Wire,
        events_left: &mut Option<u64>,
        is_live: bool,
    ) -> usize {
        if *events_left == Some(0) {
            return 0;
        }
        let frame = match wire {
            Wire::Sse(format) => record.frame(format),
            Wire::Ndjson | Wire::WebSocket => record.frame(Format::Json),
            Wire::Particle { ids: true } => record.frame(Format::Particle),
            Wire::Particle { ids: false } => record.block(),
        };
        let bytes = frame.len();
        self.last = Some(record.seq());
        let is_event = record.kind() == Kind::Event;
        if let Some(left) = events_left.as_mut().filter(|_| is_event) {
            *left -= 1;
        }
        let ingested = (is_event && is_live).then(|| record.at());
        if bytes > self.bytes_max && !self.frames.is_empty() {
            self.large = Some(Write { bytes: frame, events: u64::from(is_event), ingested });
            return bytes;
        }
        self.frames.push(frame);
        self.bytes += bytes;
        self.events += u64::from(is_event);
        self.ingested = self.ingested.or(ingested);
        bytes
    }

    /// True if the write will be more than one record.
    pub(super) fn is_joined(&self) -> bool {
        self.frames.len() > 1
    }

    /// One record goes out as the very bytes that everyone shares. More are joined, after
    /// the hub's lock is given back and to the byte: a client that does not read holds one
    /// such buffer, and spare room in it would be held as well.
    pub(super) fn finish(mut self) -> Option<Write> {
        let bytes = match self.frames.as_slice() {
            [] => return None,
            [_] => self.frames.swap_remove(0),
            frames => {
                let mut joined = Vec::with_capacity(self.bytes);
                frames.iter().for_each(|frame| joined.extend_from_slice(frame));
                Bytes::from(joined)
            }
        };
        Some(Write { bytes, events: self.events, ingested: self.ingested })
    }
}
