//! Takes the chunk framing of HTTP/1.1 away, so that an event is found even where a proxy
//! cuts its chunks in the middle of it.
//!
//! Law: in place, without a buffer; what is no chunk ends the stream.

/// Where a connection is in its chunks (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunks {
    /// In the digits of a size, after these.
    Size(u64),
    /// Behind the digits, before the line feed.
    Line(u64),
    /// In the data, of which so much is left.
    Data(u64),
    /// In the line end after the data.
    Behind,
    /// After the last chunk, or after what is none.
    Over,
}

impl Chunks {
    /// Before the first chunk.
    pub(super) const BEGIN: Chunks = Chunks::Size(0);

    /// Moves the data among `bytes` to their front, and says how much it is.
    pub(super) fn strip(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            let byte = bytes[at];
            *self = match *self {
                Chunks::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    bytes.copy_within(at..at + here, kept);
                    (at, kept) = (at + here, kept + here);
                    match left - here as u64 {
                        0 => Chunks::Behind,
                        left => Chunks::Data(left),
                    }
                }
                Chunks::Over => return kept,
                state => {
                    at += 1;
                    state.after(byte)
                }
            };
        }
        kept
    }

    /// The state after a byte that is no data.
    fn after(self, byte: u8) -> Chunks {
        match (self, byte) {
            (Chunks::Size(size), byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                // One that overflows is none.
                size.checked_mul(16)
                    .map_or(Chunks::Over, |size| Chunks::Size(size | u64::from(digit)))
            }
            (Chunks::Size(0) | Chunks::Line(0), b'\n') => Chunks::Over,
            (Chunks::Size(size) | Chunks::Line(size), b'\n') => Chunks::Data(size),
            (Chunks::Size(size), b'\r' | b';' | b' ') | (Chunks::Line(size), _) => {
                Chunks::Line(size)
            }
            (Chunks::Behind, b'\r') => Chunks::Behind,
            (Chunks::Behind, b'\n') => Chunks::BEGIN,
            _ => Chunks::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data if the bytes come `step` at a time, and the state after.
    fn stripped(bytes: &str, step: usize) -> (String, Chunks) {
        let (mut chunks, mut data) = (Chunks::BEGIN, Vec::new());
        for piece in bytes.as_bytes().chunks(step) {
            let mut piece = piece.to_vec();
            let kept = chunks.strip(&mut piece);
            data.extend_from_slice(&piece[..kept]);
        }
        (String::from_utf8(data).unwrap(), chunks)
    }

    #[test]
    fn data_without_its_framing_however_it_is_cut() {
        let text =
            "4\r\nid: \r\n1a;name=x\r\nabcdefghijklmnopqrstuvwxyz\r\n3\n\r\n1\r\n2\r\n0A\r\n";
        for step in 1..=text.len() {
            let (data, chunks) = stripped(text, step);
            assert_eq!(data, "id: abcdefghijklmnopqrstuvwxyz\r\n10A", "{step} at a time");
            assert_eq!(chunks, Chunks::BEGIN);
        }
        assert_eq!(stripped("2\r\nab\r\n1f\r\nab", 3), ("abab".to_owned(), Chunks::Data(29)));
    }

    #[test]
    fn the_end_and_what_is_no_chunk() {
        for end in [
            "1\r\na\r\n0\r\n\r\n",
            "1\r\na\r\n000;x\r\nTrailer: b\r\n\r\n",
            "1\r\nab",
            "1\r\na\r\nx",
        ] {
            assert_eq!(stripped(end, 1), ("a".to_owned(), Chunks::Over), "{end:?}");
        }
        assert_eq!(stripped("fffffffffffffffff\r\n", 4).1, Chunks::Over);
    }
}
