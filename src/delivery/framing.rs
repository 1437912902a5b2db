//! How a write of a session is wrapped for its connection.
//!
//! Law: wrapped once for all who get the same bytes the same way. What a chunk or a
//! WebSocket frame adds is a few bytes, but to copy them together for each subscriber
//! would be the greater part of delivering. Large records are not copied at all: what is
//! added goes before and after the bytes that everyone shares, so that a crowd of clients
//! that do not read holds them once.

use bytes::Bytes;
use memchr::memchr_iter;

use crate::transport::websocket::text_head;

/// What stands between the bytes of a session and the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: HTTP/1.0, where the end of the connection is the end of the body.
    Plain,
    /// HTTP/1.1 chunks, one for each write (RFC 9112, section 7.1).
    Chunked,
    /// A WebSocket text frame for each line.
    WebSocket,
}

/// A write over this size is one record, or a few: its bytes are not copied.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// Bytes as they go to a socket, in pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct Wrapped {
    /// What goes first, usually all of it.
    pub(super) first: Bytes,
    /// What follows, last piece first.
    pub(super) later: Vec<Bytes>,
}

/// Writes wrapped lately. In a turn most subscribers get the same one.
const WRAPPED_MAX: usize = 4;

/// The last writes, wrapped.
#[derive(Debug, Default)]
pub(super) struct Wrapper {
    /// Each with the bytes it was made of, which are held so that their address names
    /// them and nothing else.
    wrapped: Vec<(Bytes, Framing, Wrapped)>,
    oldest: usize,
}

// === impl Framing ===

impl Framing {
    /// The end of a body.
    pub(super) fn end(self) -> &'static [u8] {
        match self {
            Framing::Plain | Framing::WebSocket => b"",
            Framing::Chunked => b"0\r\n\r\n",
        }
    }
}

// === impl Wrapper ===

impl Wrapper {
    /// `bytes` as they go to a socket.
    pub(super) fn wrap(&mut self, bytes: Bytes, framing: Framing) -> Wrapped {
        if framing == Framing::Plain || bytes.is_empty() {
            return bytes.into();
        }
        let same =
            |made_of: &Bytes| made_of.as_ptr() == bytes.as_ptr() && made_of.len() == bytes.len();
        let mut known = self.wrapped.iter();
        if let Some((_, _, wrapped)) =
            known.find(|(made_of, with, _)| *with == framing && same(made_of))
        {
            return wrapped.clone();
        }
        let wrapped = match framing {
            Framing::Plain => bytes.clone().into(),
            Framing::Chunked if bytes.len() > COPIED_BYTES_MAX => large_chunk(&bytes),
            Framing::Chunked => chunk(&bytes).into(),
            Framing::WebSocket if bytes.len() > COPIED_BYTES_MAX => large_messages(&bytes),
            Framing::WebSocket => messages(&bytes).into(),
        };
        let entry = (bytes, framing, wrapped.clone());
        if self.wrapped.len() < WRAPPED_MAX {
            self.wrapped.push(entry);
        } else {
            self.wrapped[self.oldest] = entry;
            self.oldest = (self.oldest + 1) % WRAPPED_MAX;
        }
        wrapped
    }

    /// Forgets everything: between turns no bytes are held.
    pub(super) fn clear(&mut self) {
        self.wrapped.clear();
        self.oldest = 0;
    }
}

impl From<Bytes> for Wrapped {
    fn from(first: Bytes) -> Wrapped {
        Wrapped { first, later: Vec::new() }
    }
}

impl From<Vec<Bytes>> for Wrapped {
    fn from(mut pieces: Vec<Bytes>) -> Wrapped {
        pieces.reverse();
        Wrapped { first: pieces.pop().unwrap_or_default(), later: pieces }
    }
}

fn large_chunk(bytes: &Bytes) -> Wrapped {
    let size = format!("{:X}\r\n", bytes.len());
    vec![Bytes::from(size), bytes.clone(), Bytes::from_static(b"\r\n")].into()
}

fn large_messages(lines: &Bytes) -> Wrapped {
    let parted = parted(lines).flat_map(|line| {
        let head = Bytes::copy_from_slice(text_head(line.len()).as_slice());
        [head, lines.slice_ref(line)]
    });
    parted.collect::<Vec<_>>().into()
}

fn chunk(bytes: &[u8]) -> Bytes {
    let size = format!("{:X}\r\n", bytes.len());
    let mut chunk = Vec::with_capacity(size.len() + bytes.len() + 2);
    chunk.extend_from_slice(size.as_bytes());
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    Bytes::from(chunk)
}

/// Each line as a text frame, without its line feed.
fn messages(lines: &[u8]) -> Bytes {
    let heads_bytes: usize = parted(lines).map(|line| text_head(line.len()).as_slice().len()).sum();
    // To the byte: each line feed goes, each head comes.
    let count = memchr_iter(b'\n', lines).count();
    let mut messages = Vec::with_capacity(lines.len() - count + heads_bytes);
    for line in parted(lines) {
        messages.extend_from_slice(text_head(line.len()).as_slice());
        messages.extend_from_slice(line);
    }
    Bytes::from(messages)
}

/// Each line, without its line feed.
pub(super) fn parted(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(b'\n', lines).map(move |end| {
        let line = &lines[start..end];
        start = end + 1;
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_wrapped_once_for_all() {
        let mut wrapper = Wrapper::default();
        let bytes = Bytes::from_static(b"{1}\n{22}\n");
        let mut wrap = |bytes: Bytes, framing| wrapper.wrap(bytes, framing).first;
        let chunked = wrap(bytes.clone(), Framing::Chunked);
        assert_eq!(chunked, "9\r\n{1}\n{22}\n\r\n");
        let messages = wrap(bytes.clone(), Framing::WebSocket);
        assert_eq!(messages, b"\x81\x03{1}\x81\x04{22}"[..]);
        assert_eq!(wrap(bytes.clone(), Framing::Chunked).as_ptr(), chunked.as_ptr());
        assert_eq!(wrap(bytes.clone(), Framing::WebSocket).as_ptr(), messages.as_ptr());
        assert_eq!(wrap(bytes.clone(), Framing::Plain).as_ptr(), bytes.as_ptr());
        // The same address, but not the same bytes.
        assert_eq!(wrap(bytes.slice(..4), Framing::Chunked), "4\r\n{1}\n\r\n");
    }

    #[test]
    fn no_more_is_held_than_the_last_few() {
        let mut wrapper = Wrapper::default();
        for number in 0..20 {
            let bytes = Bytes::from(format!("{number}\n"));
            wrapper.wrap(bytes, Framing::Chunked);
        }
        assert_eq!(wrapper.wrapped.len(), WRAPPED_MAX);
        wrapper.clear();
        assert!(wrapper.wrapped.is_empty());
    }

    #[test]
    fn an_empty_write_does_not_end_the_body() {
        assert_eq!(Wrapper::default().wrap(Bytes::new(), Framing::Chunked).first, "");
    }

    #[test]
    fn a_large_record_is_the_same_bytes_for_all() {
        let line = "x".repeat(COPIED_BYTES_MAX);
        let bytes = Bytes::from(format!("{line}\n"));
        for (framing, before, after) in [
            (Framing::Chunked, &b"10001\r\n"[..], &b"\n\r\n"[..]),
            (Framing::WebSocket, b"\x81\x7f\0\0\0\0\0\x01\0\0", b""),
        ] {
            let Wrapped { first, mut later } = Wrapper::default().wrap(bytes.clone(), framing);
            assert_eq!(first, before);
            assert_eq!(later.last().unwrap().as_ptr(), bytes.as_ptr(), "not copied");
            later.reverse();
            assert_eq!(later.concat(), [line.as_bytes(), after].concat());
        }
    }
}
