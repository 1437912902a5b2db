//! How a write of a session is wrapped for its connection.
//!
//! Law: wrapped once for all who get the same bytes the same way. What a chunk or a
//! WebSocket frame adds is a few bytes, but to copy them together for each subscriber
//! would be the greater part of delivering.

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

/// Writes wrapped lately. In a turn most subscribers get the same one.
const WRAPPED_MAX: usize = 4;

/// The last writes, wrapped.
#[derive(Debug, Default)]
pub(super) struct Wrapper {
    /// Each with the bytes it was made of, which are held so that their address names
    /// them and nothing else.
    wrapped: Vec<(Bytes, Framing, Bytes)>,
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
    pub(super) fn wrap(&mut self, bytes: Bytes, framing: Framing) -> Bytes {
        if framing == Framing::Plain || bytes.is_empty() {
            return bytes;
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
            Framing::Plain => bytes.clone(),
            Framing::Chunked => chunk(&bytes),
            Framing::WebSocket => messages(&bytes),
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
        let chunked = wrapper.wrap(bytes.clone(), Framing::Chunked);
        assert_eq!(chunked, "9\r\n{1}\n{22}\n\r\n");
        let messages = wrapper.wrap(bytes.clone(), Framing::WebSocket);
        assert_eq!(messages, b"\x81\x03{1}\x81\x04{22}"[..]);
        assert_eq!(wrapper.wrap(bytes.clone(), Framing::Chunked).as_ptr(), chunked.as_ptr());
        assert_eq!(wrapper.wrap(bytes.clone(), Framing::WebSocket).as_ptr(), messages.as_ptr());
        assert_eq!(wrapper.wrap(bytes.clone(), Framing::Plain).as_ptr(), bytes.as_ptr());
        // The same address, but not the same bytes.
        assert_eq!(wrapper.wrap(bytes.slice(..4), Framing::Chunked), "4\r\n{1}\n\r\n");
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
        assert_eq!(Wrapper::default().wrap(Bytes::new(), Framing::Chunked), "");
    }
}
