//! What sessions have in common that are stepped in one go.
//!
//! Law: a turn is short. Sessions of one group that stand at the same place share one
//! prepared write, made by the first of them; what has come since is for the next turn,
//! for which the hub wakes the driver again. What was delivered is added up here and told
//! to the broker's numbers once, since two threads that count in the same place wait for
//! each other.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    hub::{Examined, GroupId},
    model::{Moment, Seq, Transport},
};

use super::{Ledger, Wire, Write};

/// Prepared writes held in a turn. In a turn all members of a group usually stand at one
/// place; a few more are the slices of those that are catching up.
const PREPARED_MAX: usize = 16;

/// Writes whose latency is told by one look at the clock: about half a millisecond of
/// them.
const SAMPLED_WRITES: usize = 32;

/// A prepared write up to this size is copied for the thread when it is used again.
const OWN_BYTES_MAX: usize = 16 << 10;

/// What the sessions that a driver steps in one go have in common.
pub struct Turn {
    ledger: Arc<Ledger>,
    prepared: Vec<(Place, Prepared)>,
    /// The oldest of `prepared` once there are [`PREPARED_MAX`].
    oldest: usize,
    delivered: [Delivered; Transport::ALL.len()],
    /// Writes not yet sampled, which all carry an event taken in then.
    unsampled: Option<(Moment, usize)>,
}

/// Where a session stands: from the same place the same follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: GroupId,
    pub(super) cursor: Seq,
    pub(super) wire: Wire,
    /// Control events are wanted.
    pub(super) control: bool,
    /// What comes from the cursor on came while the subscriber was connected.
    pub(super) is_live: bool,
}

/// What an examination brought.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) write: Option<Write>,
    /// A record over the bound of a write, which goes after it by itself.
    pub(super) large: Option<Write>,
    /// The last record in the write.
    pub(super) last: Option<Seq>,
    /// Where the examination ended.
    pub(super) cursor: Seq,
    pub(super) examined: Examined,
    /// The write's bytes are this turn's own, or too many to be copied.
    pub(super) is_own: bool,
}

/// Totals of one transport.
#[derive(Clone, Copy, Debug, Default)]
struct Delivered {
    writes: u64,
    events: u64,
    bytes: u64,
}

// === impl Turn ===

impl Turn {
    /// A turn in which nothing has happened yet.
    pub fn new(ledger: Arc<Ledger>) -> Turn {
        Turn {
            ledger,
            prepared: Vec::new(),
            oldest: 0,
            delivered: Default::default(),
            unsampled: None,
        }
    }

    /// Ends the turn, and begins the next.
    pub fn finish(&mut self) {
        self.prepared.clear();
        self.oldest = 0;
        self.sample();
        for (transport, delivered) in Transport::ALL.into_iter().zip(&mut self.delivered) {
            if delivered.writes > 0 {
                let Delivered { writes, events, bytes } = std::mem::take(delivered);
                self.ledger.telemetry.delivered(transport, writes, events, bytes);
            }
        }
    }

    /// What followed from `place` earlier in this turn.
    pub(super) fn prepared(&mut self, place: &Place) -> Option<Prepared> {
        // The newest first: the rest of the group stands where the last one stood.
        let mut prepared = self.prepared.iter_mut().rev();
        let (_, prepared) = prepared.find(|(known, _)| known == place)?;
        if let Some(write) = prepared.write.as_mut().filter(|_| !prepared.is_own) {
            // The bytes of one record are the ring's: each use of them is counted where
            // all threads count, and would have to wait for the others.
            if write.bytes.len() <= OWN_BYTES_MAX {
                write.bytes = Bytes::copy_from_slice(&write.bytes);
            }
            prepared.is_own = true;
        }
        Some(prepared.clone())
    }

    /// Keeps what follows from `place` for the rest of the turn, or until there are too many.
    pub(super) fn prepare(&mut self, place: Place, prepared: Prepared) {
        if self.prepared.len() < PREPARED_MAX {
            self.prepared.push((place, prepared));
        } else {
            self.prepared[self.oldest] = (place, prepared);
            self.oldest = (self.oldest + 1) % PREPARED_MAX;
        }
    }

    /// A write with events was handed to a connection.
    pub(super) fn delivered(
        &mut self,
        transport: Transport,
        events: u64,
        bytes: usize,
        ingested: Option<Moment>,
    ) {
        let total = &mut self.delivered[transport as usize];
        total.writes += 1;
        total.events += events;
        total.bytes += bytes as u64;
        let Some(ingested) = ingested else { return };
        match &mut self.unsampled {
            Some((same, writes)) if *same == ingested => *writes += 1,
            _ => {
                self.sample();
                self.unsampled = Some((ingested, 1));
            }
        }
        if self.unsampled.is_some_and(|(_, writes)| writes >= SAMPLED_WRITES) {
            self.sample();
        }
    }

    fn sample(&mut self) {
        if let Some((ingested, writes)) = self.unsampled.take() {
            let latency = self.ledger.clock.now().since(ingested);
            self.ledger.telemetry.delivery_latency(latency, writes);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("prepared", &self.prepared.len()).finish_non_exhaustive()
    }
}
