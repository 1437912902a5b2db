//! Reads what subscribers receive, and counts it.
//!
//! Law: one buffer for all, so that a subscriber costs its few bytes only. The clock is read
//! once a read.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    mem,
    ops::Range,
};

use super::{
    Plan,
    chunks::Chunks,
    clock,
    first_seen::{FirstSeen, Seen},
    frames::{self, Control},
    member::{Framing, Member},
    order::Step,
    scan::{Scanner, Sight, TAIL_BYTES_MAX},
    tally::Tally,
};

/// One read takes at most this.
pub(super) const READ_BYTES_MAX: usize = 128 << 10;
/// Reads of one subscriber before the others have their turn.
const READS_MAX: usize = 16;

/// How a subscriber's reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// There is no more for now.
    Drained,
    /// There may be more.
    More,
    /// The connection is over.
    Closed,
}

/// The buffer and the counts.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Room for a tail, then for a read.
    buffer: Box<[u8]>,
    scanner: Scanner,
    first_seen: FirstSeen,
    pub(super) tally: Tally,
}

impl Receiver {
    pub(super) fn new(plan: &Plan) -> Receiver {
        Receiver {
            buffer: vec![0; TAIL_BYTES_MAX + READ_BYTES_MAX].into_boxed_slice(),
            scanner: Scanner::new(plan.watch, plan.protocol),
            first_seen: FirstSeen::default(),
            tally: Tally::new(clock::now()),
        }
    }

    /// Reads what there is. `ends`: the far end has closed, so that a short read does not
    /// mean that it was the last.
    pub(super) fn read(&mut self, member: &mut Member, ends: bool) -> Reading {
        for _ in 0..READS_MAX {
            match member.socket.read(&mut self.buffer[TAIL_BYTES_MAX..]) {
                Ok(0) => return Reading::Closed,
                Ok(bytes) => {
                    if self.take(member, bytes) == Reading::Closed {
                        return Reading::Closed;
                    }
                    // A short read has emptied the socket: the next byte wakes us again.
                    if bytes < READ_BYTES_MAX && !ends {
                        return Reading::Drained;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Reading::Drained,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Reading::Closed,
            }
        }
        Reading::More
    }

    /// Counts what came behind the head of the answer, at most [`READ_BYTES_MAX`].
    pub(super) fn begin(&mut self, member: &mut Member, body: &[u8]) -> Reading {
        self.buffer[TAIL_BYTES_MAX..][..body.len()].copy_from_slice(body);
        self.take(member, body.len())
    }

    /// Counts what was read into the buffer.
    fn take(&mut self, member: &mut Member, bytes: usize) -> Reading {
        self.tally.bytes += bytes as u64;
        self.tally.reads += 1;
        let mut reading = Reading::Drained;
        let mut body_bytes = bytes;
        if let Framing::Chunks(chunks) = &mut member.framing {
            body_bytes = chunks.strip(&mut self.buffer[TAIL_BYTES_MAX..][..bytes]);
            // The answer is over, even if the connection were kept for another.
            if *chunks == Chunks::Over {
                reading = Reading::Closed;
            }
        }
        let tail_bytes = member.tail().len();
        let window = TAIL_BYTES_MAX - tail_bytes..TAIL_BYTES_MAX + body_bytes;
        self.buffer[window.start..TAIL_BYTES_MAX].copy_from_slice(member.tail());
        self.count(member, window.clone(), tail_bytes);
        let window = &self.buffer[window];
        if let Framing::Frames(walk) = &mut member.framing {
            let socket = &mut member.socket;
            walk.advance(window, tail_bytes, |control| match control {
                // One that does not fit is not worth waiting for: the next ping comes.
                Control::Ping(payload) => _ = socket.write(&frames::pong(payload)),
                Control::Close => reading = Reading::Closed,
            });
        }
        member.keep(window);
        reading
    }

    /// Counts what ends in the new part of this window of the buffer.
    fn count(&mut self, member: &mut Member, window: Range<usize>, new_from: usize) {
        let now = clock::wall_nanos();
        let Receiver { buffer, scanner, first_seen, tally } = self;
        scanner.scan(&buffer[window], new_from, |sight| match sight {
            Sight::Stamp(stamp) => {
                let step = member.order.take(stamp.seq);
                tally.delivery(step, mem::take(&mut member.gap_told));
                if !matches!(step, Step::Repeated | Step::Stale) {
                    tally.latency.saturating_record(now.saturating_sub(stamp.nanos));
                }
            }
            Sight::Event(seq) => {
                let before = member.order.last();
                let step = match member.order.take(seq) {
                    Step::Ahead { .. } if before == 0 => Step::Ahead { skipped: 0 },
                    // Positions may skip; what counts is what others had.
                    Step::Ahead { .. } => Step::Ahead { skipped: first_seen.between(before, seq) },
                    step => step,
                };
                tally.delivery(step, mem::take(&mut member.gap_told));
                match first_seen.see(seq, now) {
                    Seen::First => tally.first_of_all(),
                    Seen::After { nanos } if step != Step::Repeated => {
                        tally.latency.saturating_record(nanos);
                    }
                    Seen::After { .. } | Seen::Forgotten => {}
                }
            }
            Sight::Gap => {
                member.gap_told = true;
                tally.gaps += 1;
            }
            Sight::Bye => tally.byes += 1,
        });
    }
}
