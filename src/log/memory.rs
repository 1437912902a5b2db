//! The memory engine: dense seqs from 1, a new epoch each start.

use crate::model::{Epoch, Position, Seq};

/// A log that forgets at the end of the process, and says so by its epoch.
#[derive(Debug)]
pub struct Memory {
    epoch: Epoch,
    next: Seq,
}

impl Memory {
    /// An empty log.
    pub fn new(epoch: Epoch) -> Memory {
        Memory { epoch, next: Seq::FIRST }
    }

    /// The life of this log.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The position of the next record: one above the last.
    pub fn append(&mut self) -> Position {
        let seq = self.next;
        self.next = seq.next();
        Position { epoch: self.epoch, seq }
    }
}
