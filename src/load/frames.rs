//! Walks over WebSocket frames, only to answer pings and to see a close.
//!
//! Law: no payload is looked at but that of pings; everything else is skipped by its length.

/// Where a connection is in its frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    /// Bytes until the next frame begins.
    skip: u64,
    /// Bytes at the end of the last read that begin a frame and do not show it yet.
    pending: u8,
}

/// A control frame that asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control<'a> {
    /// To be answered with the same bytes.
    Ping(&'a [u8]),
    /// The server has said its last.
    Close,
}

/// A frame whose bytes the connection keeps at most, over reads. A longer ping that is
/// split is answered without its bytes.
const PENDING_BYTES_MAX: usize = super::scan::TAIL_BYTES_MAX;
/// The largest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

impl Walk {
    /// Walks over what is new, `window[new_from..]`; before it stands the end of the last
    /// read.
    pub(super) fn advance<'a>(
        &mut self,
        window: &'a [u8],
        new_from: usize,
        mut see: impl FnMut(Control<'a>),
    ) {
        let mut rest = &window[new_from - usize::from(self.pending)..];
        self.pending = 0;
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(rest.len());
            self.skip -= skipped as u64;
            rest = &rest[skipped..];
            if rest.is_empty() {
                return;
            }
            let Some(frame) = Frame::read(rest) else {
                self.pending = rest.len() as u8;
                return;
            };
            self.skip = frame.head_bytes as u64 + frame.payload_bytes;
            if frame.kind == Kind::Data {
                continue;
            }
            let bytes = frame.head_bytes + frame.payload_bytes as usize;
            let payload = match rest.get(frame.head_bytes..bytes) {
                Some(payload) => payload,
                None if bytes <= PENDING_BYTES_MAX => {
                    (self.skip, self.pending) = (0, rest.len() as u8);
                    return;
                }
                None => &[],
            };
            match frame.kind {
                Kind::Ping => see(Control::Ping(payload)),
                Kind::Close => see(Control::Close),
                Kind::Data => {}
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whatever asks for nothing.
    Data,
    Ping,
    Close,
}

struct Frame {
    kind: Kind,
    head_bytes: usize,
    payload_bytes: u64,
}

impl Frame {
    /// The frame that begins here; none if its head is not whole. A server does not mask.
    fn read(bytes: &[u8]) -> Option<Frame> {
        let (first, length) = (*bytes.first()?, *bytes.get(1)? & 0x7f);
        let (head_bytes, payload_bytes) = match length {
            126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
            length => (2, u64::from(length)),
        };
        let kind = match first & 0x0f {
            9 if payload_bytes <= CONTROL_BYTES_MAX as u64 => Kind::Ping,
            8 if payload_bytes <= CONTROL_BYTES_MAX as u64 => Kind::Close,
            _ => Kind::Data,
        };
        // No frame is that long; the sum below must not overflow.
        Some(Frame { kind, head_bytes, payload_bytes: payload_bytes.min(u64::MAX >> 1) })
    }
}

/// A pong with this payload, at most 125 bytes. Its mask is zero, which the standard
/// advises against for secrecy only.
pub(super) fn pong(payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    let mut frame = vec![0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::scan::TAIL_BYTES_MAX;

    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..126 => bytes.push(length as u8),
            length @ 126..0x1_0000 => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    /// What is seen if the bytes come `step` at a time.
    fn seen(bytes: &[u8], step: usize) -> Vec<Option<Vec<u8>>> {
        let (mut walk, mut sights, mut from) = (Walk::default(), Vec::new(), 0);
        while from < bytes.len() {
            let to = (from + step).min(bytes.len());
            let kept = from - from.min(TAIL_BYTES_MAX);
            walk.advance(&bytes[kept..to], from - kept, |control| match control {
                Control::Ping(payload) => sights.push(Some(payload.to_vec())),
                Control::Close => sights.push(None),
            });
            from = to;
        }
        sights
    }

    #[test]
    fn pings_are_seen_between_frames_of_every_length() {
        let parts = [
            frame(1, b"{}"),
            frame(9, b""),
            frame(1, &[0x89; 300]),
            frame(9, b"beat 1"),
            frame(1, &[0x88; 70_000]),
            frame(9, &[7; 61]),
            frame(2, b""),
            frame(8, &[3, 233]),
        ];
        let bytes = parts.concat();
        let expected =
            [Some(Vec::new()), Some(b"beat 1".to_vec()), Some(vec![7; 61]), None].to_vec();
        for step in [1, 2, 3, 7, 64, 1_000, bytes.len()] {
            assert_eq!(seen(&bytes, step), expected, "{step} at a time");
        }
    }

    #[test]
    fn a_long_ping_that_is_split_is_answered_without_its_bytes() {
        let bytes = [frame(9, &[7; 100]), frame(9, b"x")].concat();
        assert_eq!(seen(&bytes, 10), [Some(Vec::new()), Some(b"x".to_vec())]);
        assert_eq!(seen(&bytes, 1_000), [Some(vec![7; 100]), Some(b"x".to_vec())]);
    }

    #[test]
    fn a_pong_is_masked_and_bears_the_payload() {
        assert_eq!(pong(b"ab"), [0x8a, 0x82, 0, 0, 0, 0, b'a', b'b']);
        assert_eq!(pong(&[1; 500]).len(), 6 + 125);
    }
}
