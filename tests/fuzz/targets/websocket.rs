//! Any bytes of a WebSocket's client, torn anywhere: what is heard is what a naive reader of
//! RFC 6455 hears, and what is answered and held is bounded.

use std::{
    io::{self, Read},
    time::Duration,
};

use fanlight::{
    clock::Clock,
    delivery::{WebSocketConfig, shard::Talk},
    model::Filter,
    transport::websocket::parse,
};

use super::numbers;

/// Small, so that the bound is met often.
const MESSAGE_BYTES_MAX: usize = 200;
/// As `conversation.rs` has it.
const MESSAGES_MAX: usize = 200;

const CONFIG: WebSocketConfig = WebSocketConfig {
    ping_interval: Duration::from_secs(25),
    pong_timeout: Duration::from_secs(10),
    message_bytes_max: MESSAGE_BYTES_MAX,
    close_timeout: Duration::from_secs(2),
};

pub(super) fn websocket(input: &[u8]) {
    let Some(([piece_bytes, ahead_bytes], bytes)) = numbers(input) else { return };
    let whole = heard(bytes, bytes.len().max(1), 0);
    let torn = heard(bytes, piece_bytes + 1, ahead_bytes);
    assert_eq!(torn, whole, "however it is torn");
    let expected = naive(bytes);
    assert_eq!(whole.filters, expected.filters);
    if let Some(is_over) = expected.is_over {
        assert_eq!(whole.is_over, is_over, "{expected:?}");
    }
}

/// What came of the bytes.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    filters: Vec<Filter>,
    is_over: bool,
}

/// The same from the frames. `is_over` is none where the last one breaks a rule but has not come
/// whole: it may be refused now or then.
#[derive(Debug, PartialEq)]
struct Expected {
    filters: Vec<Filter>,
    is_over: Option<bool>,
}

/// A socket that gives a piece at each reading and then has nothing more.
struct Pieces<'a> {
    rest: &'a [u8],
    piece_bytes: usize,
    is_paused: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_paused = !self.is_paused;
        if self.rest.is_empty() || self.is_paused {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = buffer.len().min(self.piece_bytes).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(bytes);
        buffer[..bytes].copy_from_slice(piece);
        self.rest = rest;
        Ok(bytes)
    }
}

fn heard(bytes: &[u8], piece_bytes: usize, ahead_bytes: usize) -> Outcome {
    let now = Clock::anchored(0).instant(0).into_std();
    let (ahead, rest) = super::split(bytes, ahead_bytes);
    let mut talk = Talk::new(&CONFIG, ahead, now);
    let mut socket = Pieces { rest, piece_bytes, is_paused: false };
    let mut outcome = Outcome::default();
    loop {
        let was_empty = socket.rest.is_empty();
        let heard = talk.hear(&mut socket, &CONFIG, now, false);
        // A pong for each ping, which is no larger; and a closing handshake.
        assert!(heard.answers.len() <= bytes.len() + 2 + 125 + 4);
        let is_news = heard.new_filter.is_some();
        outcome.filters.extend(heard.new_filter);
        if heard.end.is_some() {
            outcome.is_over = true;
            return outcome;
        }
        if was_empty && !is_news {
            return outcome;
        }
    }
}

/// The frames one after the other, as RFC 6455, section 5, has them.
fn naive(mut bytes: &[u8]) -> Expected {
    let mut expected = Expected { filters: Vec::new(), is_over: Some(true) };
    let mut message: Option<(u8, Vec<u8>)> = None;
    let mut messages = 0;
    loop {
        let frame = match Frame::read(&mut bytes) {
            Ok(frame) => frame,
            Err(is_over) => return Expected { is_over, ..expected },
        };
        let is_control = frame.opcode >= 8;
        let complete = match (frame.opcode, &mut message) {
            (8..=10, _) => (frame.opcode, frame.payload),
            (1 | 2, None) if frame.is_final => (frame.opcode, frame.payload),
            (1 | 2, None) => {
                message = Some((frame.opcode, frame.payload));
                (0, Vec::new())
            }
            (0, Some((_, begun))) => {
                begun.extend(frame.payload);
                if begun.len() > MESSAGE_BYTES_MAX {
                    return expected;
                }
                match frame.is_final {
                    true => message.take().expect("it has begun"),
                    false => (0, Vec::new()),
                }
            }
            _ => return expected,
        };
        // Text has to be text as far as it has come.
        if let (false, Some((1, begun))) = (is_control, &message)
            && std::str::from_utf8(begun).is_err_and(|error| error.error_len().is_some())
        {
            return expected;
        }
        let (opcode, payload) = complete;
        if opcode == 0 {
            continue;
        }
        messages += 1;
        match opcode {
            _ if messages > MESSAGES_MAX && opcode != 8 => return expected,
            1 => match std::str::from_utf8(&payload).ok().and_then(|text| parse(text).ok()) {
                Some(filter) => expected.filters.push(filter),
                None => return expected,
            },
            9 | 10 => {}
            _ => return expected,
        }
    }
}

struct Frame {
    is_final: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl Frame {
    /// The next frame, or what is over where there is none.
    fn read(bytes: &mut &[u8]) -> Result<Frame, Option<bool>> {
        const NOT_YET: Option<bool> = Some(false);
        let &[first, second, ..] = *bytes else { return Err(NOT_YET) };
        let rest = &bytes[2..];
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let extended = rest.get(..length_bytes).ok_or(NOT_YET)?;
        let length = match length_bytes {
            0 => u64::from(second & 0x7f),
            _ => extended.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let (is_final, opcode) = (first & 0x80 != 0, first & 15);
        let is_masked = second & 0x80 != 0;
        let is_allowed = first & 0x70 == 0
            && is_masked
            && matches!(opcode, 0..=2 | 8..=10)
            && length <= MESSAGE_BYTES_MAX as u64
            && (opcode < 8 || (is_final && length <= 125));
        let rest = &rest[length_bytes..];
        let mask_bytes = if is_masked { 4 } else { 0 };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let body = rest.get(..length.saturating_add(mask_bytes));
        let body = match (body, is_allowed) {
            (Some(body), true) => body,
            (Some(_), false) => return Err(Some(true)),
            (None, true) => return Err(NOT_YET),
            (None, false) => return Err(None),
        };
        let (mask, masked) = body.split_at(4);
        let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        *bytes = &rest[body.len()..];
        Ok(Frame { is_final, opcode, payload: payload.collect() })
    }
}
