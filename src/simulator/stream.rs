//! One open stream: the mailbox others put bytes into, and the loop that writes them to the socket.
//!
//! The law here: what is put in goes out in that order, the end last. The mailbox is bounded by
//! bytes; a reader that lets it fill up is reset. Bytes become HTTP chunks only when they are
//! written, one chunk an event, so that a body can end or break at any byte.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::wire::KEEPALIVE;

/// The most bytes that wait for a reader: room for a burst of 100,000 ordinary events.
pub(super) const MAILBOX_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Written at a time, so that what waits is not copied whole.
const WRITE_BYTES: usize = 256 * 1024;

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The body ends as it should.
    Clean,
    /// The connection closes in mid-body.
    Severed,
    /// TCP reset, once written out or the reader takes no more.
    Reset,
    /// TCP reset at once: the reader did not keep up.
    Overrun,
}

/// Until when a stream is deaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deaf {
    No,
    Until(Instant),
    Always,
}

impl Deaf {
    pub(super) fn at(self, now: Instant) -> bool {
        match self {
            Deaf::No => false,
            Deaf::Until(until) => now < until,
            Deaf::Always => true,
        }
    }
}

/// A few bytes at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) bytes: usize,
    pub(super) every: Duration,
    pub(super) until: Option<Instant>,
    /// When the next bytes may go.
    pub(super) next: Instant,
}

/// What became of bytes put into a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Queued,
    /// Lost: the stream is deaf.
    Lost,
    /// The mailbox was full; the stream ends.
    Overrun,
}

/// What waits for one stream.
#[derive(Debug)]
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
    /// Level-triggered: the writer looks into the mailbox after it has marked the bell as heard.
    bell: watch::Sender<()>,
}

#[derive(Debug)]
struct Letters {
    /// No piece is empty: an empty chunk would end the body.
    queue: VecDeque<Bytes>,
    /// Of all pieces together.
    bytes: usize,
    end: Option<End>,
    deaf: Deaf,
    pace: Option<Pace>,
}

impl Mailbox {
    pub(super) fn new() -> Mailbox {
        let letters =
            Letters { queue: VecDeque::new(), bytes: 0, end: None, deaf: Deaf::No, pace: None };
        Mailbox { letters: Mutex::new(letters), bell: watch::Sender::new(()) }
    }

    /// Puts these in, in order, and wakes the writer once. The answer is that to the last.
    pub(super) fn put(&self, pieces: impl IntoIterator<Item = Bytes>, now: Instant) -> Put {
        self.change(|letters| {
            if letters.deaf.at(now) {
                return Put::Lost;
            }
            for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                if letters.bytes + piece.len() > MAILBOX_BYTES_MAX {
                    letters.queue.clear();
                    letters.bytes = 0;
                    letters.end = Some(End::Overrun);
                    return Put::Overrun;
                }
                letters.bytes += piece.len();
                letters.queue.push_back(piece);
            }
            Put::Queued
        })
    }

    /// Puts bytes in even where the stream is deaf: what comes before an end.
    pub(super) fn end(&self, last: Option<Bytes>, end: End) {
        self.change(|letters| {
            if let Some(last) = last.filter(|last| !last.is_empty()) {
                letters.bytes += last.len();
                letters.queue.push_back(last);
            }
            letters.end = Some(end);
            // An end that dripped would not be one.
            letters.pace = None;
        });
    }

    pub(super) fn deafen(&self, deaf: Deaf) {
        self.change(|letters| letters.deaf = deaf);
    }

    pub(super) fn pace(&self, pace: Option<Pace>) {
        self.change(|letters| letters.pace = pace);
    }

    fn change<T>(&self, change: impl FnOnce(&mut Letters) -> T) -> T {
        let changed = change(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.send_replace(());
        changed
    }

    fn fill(&self, out: &mut Vec<u8>, framing: Framing, now: Instant) -> Due {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).fill(out, framing, now)
    }

    fn end_asked(&self) -> Option<End> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).end
    }
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Something was put into the buffer.
    Write,
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing to write: keep alive.
    Idle,
    /// Nothing to write, and no keep-alive either.
    Silence,
    End(End),
}

impl Letters {
    fn fill(&mut self, out: &mut Vec<u8>, framing: Framing, now: Instant) -> Due {
        self.pace = self.pace.filter(|pace| pace.until.is_none_or(|until| now < until));
        if self.queue.is_empty() {
            return match (self.end, self.deaf) {
                (Some(end), _) => Due::End(end),
                (None, Deaf::Until(until)) if now < until => Due::Wait(until),
                (None, Deaf::Always) => Due::Silence,
                (None, _) => Due::Idle,
            };
        }
        match &mut self.pace {
            Some(pace) if now < pace.next => return Due::Wait(pace.next),
            Some(pace) => {
                pace.next = now + pace.every;
                if let Some(first) = self.queue.front_mut() {
                    let piece = first.split_to(pace.bytes.min(first.len()));
                    framing.push(out, &piece);
                    self.bytes -= piece.len();
                }
                if self.queue.front().is_some_and(Bytes::is_empty) {
                    self.queue.pop_front();
                }
            }
            None => {
                while out.len() < WRITE_BYTES
                    && let Some(piece) = self.queue.pop_front()
                {
                    framing.push(out, &piece);
                    self.bytes -= piece.len();
                }
            }
        }
        Due::Write
    }
}

/// How a body is put on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// HTTP/1.1: one chunk a piece.
    Chunked,
    /// HTTP/1.0: as it is; the end of the connection is the end of the body.
    Plain,
}

impl Framing {
    fn push(self, out: &mut Vec<u8>, piece: &[u8]) {
        match self {
            Framing::Chunked => {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            Framing::Plain => out.extend_from_slice(piece),
        }
    }
}

/// What became of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The body ended; the connection can carry another request.
    Reusable,
    /// To be closed.
    Close,
    /// To be reset.
    Reset,
}

/// Writes `head` and then what comes through the mailbox, until the stream ends or the reader
/// leaves.
///
/// `keepalive` after the last byte, and up to a third later (the real cloud looks every 3 s for 9 s
/// of silence), a bare line feed goes out.
pub(super) async fn write(
    socket: &mut TcpStream,
    head: Vec<u8>,
    framing: Framing,
    mailbox: &Mailbox,
    keepalive: Duration,
) -> io::Result<After> {
    let (mut reader, mut writer) = socket.split();
    let mut bell = mailbox.bell.subscribe();
    let mut scrap = [0_u8; 512];
    let mut out = head;
    let mut written = 0;
    let mut ending = None;
    let mut pipelined = false;
    let mut keepalive_at = Instant::now() + keepalive_delay(keepalive);
    loop {
        bell.borrow_and_update();
        if mailbox.end_asked() == Some(End::Overrun) {
            return Ok(After::Reset);
        }
        let mut wake_at = None;
        if written == out.len() {
            if let Some(after) = ending {
                return Ok(after);
            }
            out.clear();
            written = 0;
            let now = Instant::now();
            match mailbox.fill(&mut out, framing, now) {
                Due::Write => {}
                Due::Wait(until) => wake_at = Some(until),
                Due::Silence => {}
                Due::Idle if now >= keepalive_at => framing.push(&mut out, KEEPALIVE),
                Due::Idle => wake_at = Some(keepalive_at),
                Due::End(End::Clean) if framing == Framing::Chunked => {
                    out.extend_from_slice(b"0\r\n\r\n");
                    // What was asked for before this body ended was read and dropped; such a
                    // connection cannot go on.
                    ending = Some(if pipelined { After::Close } else { After::Reusable });
                }
                Due::End(End::Clean | End::Severed) => return Ok(After::Close),
                Due::End(End::Reset | End::Overrun) => return Ok(After::Reset),
            }
        }
        let resetting = mailbox.end_asked() == Some(End::Reset);
        // Each branch is cancel-safe: a read or a write that is dropped has not happened, the bell
        // is level-triggered. In this order, so that a reset comes at once where the reader takes
        // no more.
        tokio::select! {
            biased;
            result = writer.write(&out[written..]), if written < out.len() => {
                written += result?;
                keepalive_at = Instant::now() + keepalive_delay(keepalive);
            }
            () = std::future::ready(()), if resetting && written < out.len() => return Ok(After::Reset),
            result = reader.read(&mut scrap) => match result? {
                0 => return Ok(After::Close),
                _ => {
                    pipelined = true;
                    ending = ending.map(|_| After::Close);
                }
            },
            _ = bell.changed() => {}
            () = sleep_until(wake_at.unwrap_or(keepalive_at)), if wake_at.is_some() => {}
        }
    }
}

fn keepalive_delay(keepalive: Duration) -> Duration {
    keepalive + keepalive.mul_f64(fastrand::f64() / 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn filled(mailbox: &Mailbox, framing: Framing, now: Instant) -> (Due, String) {
        let mut out = Vec::new();
        let due = mailbox.fill(&mut out, framing, now);
        (due, String::from_utf8(out).unwrap())
    }

    #[test]
    fn one_chunk_a_piece_and_the_end_last() {
        let (mailbox, now) = (Mailbox::new(), now());
        assert_eq!(
            mailbox.put(["ab".into(), "".into(), "0123456789abcdef".into()], now),
            Put::Queued
        );
        mailbox.end(None, End::Clean);
        let chunks = "2\r\nab\r\n10\r\n0123456789abcdef\r\n".to_owned();
        assert_eq!(filled(&mailbox, Framing::Chunked, now), (Due::Write, chunks));
        assert_eq!(filled(&mailbox, Framing::Chunked, now).0, Due::End(End::Clean));
    }

    #[test]
    fn a_deaf_stream_loses_what_comes_and_waits() {
        let start = now();
        let until = start + Duration::from_secs(5);
        let mailbox = Mailbox::new();
        mailbox.deafen(Deaf::Until(until));
        assert_eq!(mailbox.put(["lost".into()], start), Put::Lost);
        assert_eq!(filled(&mailbox, Framing::Plain, start).0, Due::Wait(until));
        assert_eq!(mailbox.put(["heard".into()], until), Put::Queued);
        assert_eq!(filled(&mailbox, Framing::Plain, until), (Due::Write, "heard".to_owned()));
        mailbox.deafen(Deaf::Always);
        assert_eq!(filled(&mailbox, Framing::Plain, until).0, Due::Silence);
    }

    #[test]
    fn a_drip_is_so_many_bytes_a_time() {
        let (mailbox, start, every) = (Mailbox::new(), now(), Duration::from_secs(1));
        let until = Some(start + 3 * every);
        mailbox.put(["abcde".into(), "fghi".into()], start);
        mailbox.pace(Some(Pace { bytes: 2, every, until, next: start }));
        assert_eq!(filled(&mailbox, Framing::Plain, start), (Due::Write, "ab".to_owned()));
        assert_eq!(filled(&mailbox, Framing::Plain, start).0, Due::Wait(start + every));
        assert_eq!(filled(&mailbox, Framing::Plain, start + every), (Due::Write, "cd".to_owned()));
        assert_eq!(
            filled(&mailbox, Framing::Plain, start + 2 * every),
            (Due::Write, "e".to_owned())
        );
        assert_eq!(
            filled(&mailbox, Framing::Plain, start + 3 * every),
            (Due::Write, "fghi".to_owned())
        );
    }

    #[test]
    fn a_full_mailbox_ends_the_stream() {
        let (mailbox, now) = (Mailbox::new(), now());
        let piece = Bytes::from(vec![b'x'; MAILBOX_BYTES_MAX / 2]);
        assert_eq!(mailbox.put([piece.clone(), piece.clone()], now), Put::Queued);
        assert_eq!(mailbox.put([piece], now), Put::Overrun);
        assert_eq!(mailbox.end_asked(), Some(End::Overrun));
    }
}
