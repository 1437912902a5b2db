//! What assigns positions and keeps records.
//!
//! Law: taking an event in and giving it its position are one act, so the order of
//! seqs is the order of events for everyone. Another life of the log is another epoch.

mod memory;

pub use memory::Memory;

use crate::model::{Epoch, Position};

/// A log. Closed on purpose: adding an engine makes the compiler list the places.
#[derive(Debug)]
pub enum Log {
    /// Keeps nothing itself: the hub's ring is all there is, and a restart forgets it.
    Memory(Memory),
}

impl Log {
    /// A memory log of the given epoch.
    pub fn memory(epoch: Epoch) -> Log {
        Log::Memory(Memory::new(epoch))
    }

    /// The life of this log.
    pub fn epoch(&self) -> Epoch {
        match self {
            Log::Memory(memory) => memory.epoch(),
        }
    }

    /// The position of the next record, given out once.
    pub fn append(&mut self) -> Position {
        match self {
            Log::Memory(memory) => memory.append(),
        }
    }
}
