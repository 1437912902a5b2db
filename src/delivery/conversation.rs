//! What a WebSocket's client says, and whether it is still there.
//!
//! Law: pure; the time is an argument. The client is pinged, and one that does not answer
//! is closed; one that says too much, or what cannot be understood, is closed as well.

use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::{
    Error, Message, Utf8Bytes,
    error::ProtocolError,
    protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
};

use crate::{
    model::{CloseReason, Filter},
    transport::websocket::{close_code, parse},
};

/// Times and bounds of a WebSocket.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between pings.
    pub ping_interval: Duration,
    /// Time in which a ping must be answered, by any sign of life.
    pub pong_timeout: Duration,
    /// Bytes of one message of the client.
    pub message_bytes_max: usize,
    /// Time the closing handshake may take.
    pub close_timeout: Duration,
}

/// Messages that a client may send in [`MESSAGES_WINDOW`]. Each new filter takes the hub's
/// lock for writing; a person at a search field sends some ten a second.
const MESSAGES_MAX: u32 = 200;
/// Time in which [`MESSAGES_MAX`] holds.
const MESSAGES_WINDOW: Duration = Duration::from_secs(10);

/// What the frames of one message may take beside what they carry. A frame's head has 6 to 14 bytes,
/// so that is room for a hundred parts; browsers send one. Without it a message without content could
/// come in parts without end.
const HEADS_BYTES_MAX: usize = 1 << 10;

/// Read buffer of a WebSocket. The library's default of 128 KiB is made for large
/// messages; clients of ours send a pong now and then, and a filter at most.
const READ_BUFFER_BYTES: usize = 512;

/// Why a WebSocket is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Told in the close code and counted.
    pub reason: CloseReason,
    /// Told in words.
    pub detail: String,
}

/// What is to be done by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing, until then at the latest.
    Wait(Instant),
    /// A ping is to be sent.
    Ping,
    /// The client has not answered.
    Silent,
}

/// The client's side of a WebSocket.
#[derive(Debug)]
pub(super) struct Conversation {
    ping_at: Instant,
    pong_due: Option<Instant>,
    messages: u32,
    messages_since: Instant,
}

// === impl Config ===

impl Config {
    /// The library's settings for a server that only reads through it.
    pub(super) fn limits(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(self.message_bytes_max))
            .max_frame_size(Some(self.message_bytes_max))
    }

    /// Bytes in which a client must have brought a message to its end.
    pub(super) fn unfinished_bytes_max(&self) -> usize {
        self.message_bytes_max + HEADS_BYTES_MAX
    }
}

// === impl End ===

impl End {
    /// An end without more words than its reason's.
    pub(super) fn because(reason: CloseReason) -> End {
        End { reason, detail: reason.told().to_owned() }
    }

    fn protocol(detail: impl Into<String>) -> End {
        End { reason: CloseReason::Protocol, detail: detail.into() }
    }

    /// Nothing of a new filter may be read.
    pub(super) fn denied() -> End {
        End::protocol("your credential may read nothing of what this filter asks for")
    }

    /// A message that came in too many parts.
    pub(super) fn in_parts() -> End {
        End { reason: CloseReason::TooBig, detail: "a message came in too many parts".to_owned() }
    }

    /// What the library says of a message it could not read.
    pub(super) fn broken(error: &Error, config: &Config) -> End {
        match error {
            Error::Capacity(_) => End {
                reason: CloseReason::TooBig,
                detail: format!("messages have at most {} bytes", config.message_bytes_max),
            },
            // The client vanished without a closing handshake, which breaks nothing.
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                End::because(CloseReason::Gone)
            }
            Error::Protocol(_) | Error::Utf8(_) => {
                End::protocol("this is not the WebSocket protocol")
            }
            _ => End::because(CloseReason::Gone),
        }
    }

    /// The close frame that tells it.
    pub(super) fn frame(&self) -> CloseFrame {
        let code = CloseCode::from(close_code(self.reason));
        CloseFrame { code, reason: Utf8Bytes::from(short(&self.detail)) }
    }
}

// === impl Conversation ===

impl Conversation {
    /// A conversation that has just begun.
    pub(super) fn new(config: &Config, now: Instant) -> Conversation {
        Conversation {
            ping_at: now + config.ping_interval,
            pong_due: None,
            messages: 0,
            messages_since: now,
        }
    }

    /// The client said something: a filter to go on with, if it was one.
    pub(super) fn heard(&mut self, message: Message, now: Instant) -> Result<Option<Filter>, End> {
        self.pong_due = None;
        if now >= self.messages_since + MESSAGES_WINDOW {
            (self.messages, self.messages_since) = (0, now);
        }
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return Err(End::protocol("too many messages"));
        }
        match message {
            Message::Text(text) => {
                parse(&text).map(Some).map_err(|error| End::protocol(error.to_string()))
            }
            Message::Binary(_) => Err(End::protocol("only text messages are understood")),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
            Message::Close(_) => Err(End::because(CloseReason::Gone)),
        }
    }

    /// What is to be done now. A ping that is asked for counts as sent.
    pub(super) fn due(&mut self, config: &Config, now: Instant) -> Due {
        if self.pong_due.is_some_and(|due| now >= due) {
            return Due::Silent;
        }
        if now >= self.ping_at {
            self.ping_at = now + config.ping_interval;
            self.pong_due = self.pong_due.or(Some(now + config.pong_timeout));
            return Due::Ping;
        }
        Due::Wait(self.ping_at.min(self.pong_due.unwrap_or(self.ping_at)))
    }
}

impl Due {
    /// The end of a client that has not answered.
    pub(super) fn silent() -> End {
        End { reason: CloseReason::Slow, detail: "no answer to a ping".to_owned() }
    }
}

/// A reason for a close frame: at most 123 bytes (RFC 6455, section 5.5).
fn short(text: &str) -> String {
    let mut end = text.len().min(123);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const CONFIG: Config = Config {
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(10),
        message_bytes_max: 1 << 14,
        close_timeout: Duration::from_secs(2),
    };

    fn begin() -> (Conversation, Instant) {
        let now = Clock::anchored(0).instant(0).into_std();
        (Conversation::new(&CONFIG, now), now)
    }

    #[test]
    fn a_client_that_does_not_answer_is_closed() {
        let (mut conversation, now) = begin();
        let at = |secs| now + Duration::from_secs(secs);
        assert_eq!(conversation.due(&CONFIG, now), Due::Wait(at(25)));
        assert_eq!(conversation.due(&CONFIG, at(25)), Due::Ping);
        assert_eq!(conversation.due(&CONFIG, at(25)), Due::Wait(at(35)));
        assert_eq!(conversation.due(&CONFIG, at(35)), Due::Silent);
        // Any sign of life will do.
        conversation.heard(Message::Ping("".into()), at(34)).unwrap();
        assert_eq!(conversation.due(&CONFIG, at(35)), Due::Wait(at(50)));
    }

    #[test]
    fn a_flood_of_messages_ends_it() {
        let (mut conversation, now) = begin();
        let say = |conversation: &mut Conversation, now| {
            conversation.heard(Message::Text(r#"{"subscribe":{}}"#.into()), now)
        };
        for _ in 0..MESSAGES_MAX {
            assert!(say(&mut conversation, now).unwrap().is_some());
        }
        let end = say(&mut conversation, now).unwrap_err();
        assert_eq!((end.reason, end.detail.as_str()), (CloseReason::Protocol, "too many messages"));
        assert!(say(&mut conversation, now + MESSAGES_WINDOW).is_ok());
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(short(&"é".repeat(100)).len(), 122);
        assert_eq!(short("ok"), "ok");
    }
}
