//! One subscriber with an open connection.
//!
//! Law: it is small, since there are tens of thousands of them.

use mio::net::TcpStream;

use super::{frames::Walk, order::Order, scan::TAIL_BYTES_MAX};

const _: () = assert!(size_of::<Option<Member>>() <= 120);

/// A subscriber.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) socket: TcpStream,
    pub(super) order: Order,
    pub(super) walk: Walk,
    /// The end of what came before: its last `tail_bytes` bytes are in use.
    pub(super) tail: [u8; TAIL_BYTES_MAX],
    pub(super) tail_bytes: u8,
    /// False for one that stalls on purpose.
    pub(super) reads: bool,
    /// A gap was told after the last event.
    pub(super) gap_told: bool,
}

impl Member {
    /// One whose answer has begun; `before` is what stood right before its body, as far as
    /// that may belong to an event.
    pub(super) fn new(socket: TcpStream, reads: bool, before: &[u8]) -> Member {
        let mut member = Member {
            socket,
            order: Order::default(),
            walk: Walk::default(),
            tail: [0; TAIL_BYTES_MAX],
            tail_bytes: 0,
            reads,
            gap_told: false,
        };
        member.keep(before);
        member
    }

    /// What is kept of the bytes before.
    pub(super) fn tail(&self) -> &[u8] {
        &self.tail[TAIL_BYTES_MAX - usize::from(self.tail_bytes)..]
    }

    /// Keeps the end of what has come so far.
    pub(super) fn keep(&mut self, so_far: &[u8]) {
        let kept = &so_far[so_far.len().saturating_sub(TAIL_BYTES_MAX)..];
        self.tail[TAIL_BYTES_MAX - kept.len()..].copy_from_slice(kept);
        self.tail_bytes = kept.len() as u8;
    }
}
