//! One subscriber with an open connection.
//!
//! Law: it is small, since there are tens of thousands of them.

use mio::net::TcpStream;

use super::{chunks::Chunks, frames::Walk, order::Order, scan::TAIL_BYTES_MAX};

const _: () = assert!(size_of::<Option<Member>>() <= 128);

/// What stands around the events of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Framing {
    /// Nothing.
    Plain,
    /// Chunks of HTTP/1.1.
    Chunks(Chunks),
    /// WebSocket frames.
    Frames(Walk),
}

/// A subscriber.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) socket: TcpStream,
    pub(super) order: Order,
    pub(super) framing: Framing,
    /// The end of what came before: its last `tail_bytes` bytes are in use.
    pub(super) tail: [u8; TAIL_BYTES_MAX],
    pub(super) tail_bytes: u8,
    /// False for one that stalls on purpose.
    pub(super) reads: bool,
    /// A gap was told after the last event.
    pub(super) gap_told: bool,
}

impl Member {
    /// One whose answer has begun.
    pub(super) fn new(socket: TcpStream, reads: bool, framing: Framing) -> Member {
        let mut member = Member {
            socket,
            order: Order::default(),
            framing,
            tail: [0; TAIL_BYTES_MAX],
            tail_bytes: 0,
            reads,
            gap_told: false,
        };
        // An event begins after a line feed, as if one stood before the first.
        if !matches!(framing, Framing::Frames(_)) {
            member.keep(b"\n");
        }
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
