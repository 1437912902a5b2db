//! A session on a WebSocket.
//!
//! Law: one message a record; what is pending is fed first and flushed once. The
//! client is pinged, and one that does not answer is closed.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::time::Instant;

use crate::{
    model::CloseReason,
    transport::{
        Session, Step,
        websocket::{close_code, parse},
    },
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

/// Serves one subscriber to its end.
pub async fn drive(mut socket: WebSocket, mut session: Session, config: Config) {
    let (reason, detail) = match serve(&mut socket, &mut session, &config).await {
        Ok(reason) => (reason, reason.as_str().to_owned()),
        Err(end) => end,
    };
    session.close(reason);
    // Dropping the session first frees its place while the handshake goes on.
    drop(session);
    if reason == CloseReason::Gone {
        // A client that closed in good order is owed the answer, which the library has
        // queued but not sent (RFC 6455, section 5.5.1). On a broken socket this fails.
        let _ = tokio::time::timeout(config.close_timeout, socket.flush()).await;
        return;
    }
    let frame = CloseFrame { code: close_code(reason), reason: Utf8Bytes::from(short(&detail)) };
    let farewell = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    // A client that does not answer the handshake is left behind.
    let _ = tokio::time::timeout(config.close_timeout, farewell).await;
}

async fn serve(
    socket: &mut WebSocket,
    session: &mut Session,
    config: &Config,
) -> Result<CloseReason, (CloseReason, String)> {
    let gone = |_| (CloseReason::Gone, String::new());
    let mut ping_at = Instant::now() + config.ping_interval;
    let mut pong_due: Option<Instant> = None;
    let (mut messages, mut messages_since) = (0, Instant::now());
    loop {
        let now = Instant::now();
        let until = match session.step(now.into_std()) {
            Step::Write(write) => {
                for line in lines(&write.bytes) {
                    let text = Utf8Bytes::try_from(line).expect("frames are text");
                    socket.feed(Message::Text(text)).await.map_err(gone)?;
                }
                // The library's own buffer holds one write of the session, no more.
                socket.flush().await.map_err(gone)?;
                None
            }
            Step::Yield => {
                tokio::task::yield_now().await;
                None
            }
            Step::Wait { until } => Some(Instant::from_std(until)),
            Step::End(reason) => return Ok(reason),
        };
        if pong_due.is_some_and(|due| now >= due) {
            return Err((CloseReason::Slow, "no answer to a ping".to_owned()));
        }
        if now >= ping_at {
            socket.send(Message::Ping(Bytes::new())).await.map_err(gone)?;
            ping_at = now + config.ping_interval;
            pong_due = pong_due.or(Some(now + config.pong_timeout));
        }
        let until = until.map(|until| until.min(ping_at).min(pong_due.unwrap_or(ping_at)));
        let rest = async {
            // With more to write there is only a look at what the client says: a timer,
            // even one that is due, would cost up to a millisecond a write.
            if let Some(until) = until {
                tokio::time::sleep_until(until).await;
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: a message is either returned or still in the socket's buffer.
            message = socket.recv() => {
                pong_due = None;
                if now >= messages_since + MESSAGES_WINDOW {
                    (messages, messages_since) = (0, now);
                }
                messages += 1;
                if messages > MESSAGES_MAX {
                    return Err((CloseReason::Protocol, "too many messages".to_owned()));
                }
                match message {
                    Some(Ok(Message::Text(text))) => match parse(&text) {
                        Ok(filter) => session.refilter(filter),
                        Err(error) => return Err((CloseReason::Protocol, error.to_string())),
                    },
                    Some(Ok(Message::Binary(_))) => {
                        return Err((CloseReason::Protocol, "only text messages are understood".to_owned()));
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_))) | None => return Ok(CloseReason::Gone),
                    Some(Err(error)) => return Err(broken(&error, config)),
                }
            }
            () = session.subscription_mut().woken() => {}
            () = rest => {}
        }
    }
}

/// Each line as a slice of the same bytes, without its line feed.
fn lines(bytes: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut start = 0;
    memchr::memchr_iter(b'\n', bytes).map(move |end| {
        let line = bytes.slice(start..end);
        start = end + 1;
        line
    })
}

/// What the library says of a message it could not read.
fn broken(error: &axum::Error, config: &Config) -> (CloseReason, String) {
    use tungstenite::{Error, error::ProtocolError};
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = source {
        match error.downcast_ref::<Error>() {
            Some(Error::Capacity(_)) => {
                let text = format!("messages have at most {} bytes", config.message_bytes_max);
                return (CloseReason::TooBig, text);
            }
            // Gone without a goodbye is no broken protocol: networks do that.
            Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => break,
            Some(Error::Protocol(_) | Error::Utf8(_)) => {
                return (CloseReason::Protocol, "this is not the WebSocket protocol".to_owned());
            }
            _ => source = error.source(),
        }
    }
    (CloseReason::Gone, String::new())
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

    #[test]
    fn lines_are_slices() {
        let bytes = Bytes::from_static(b"{1}\n{2}\n");
        let lines: Vec<Bytes> = lines(&bytes).collect();
        assert_eq!(lines, ["{1}", "{2}"]);
        assert_eq!(lines[0].as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(short(&"é".repeat(100)).len(), 122);
        assert_eq!(short("ok"), "ok");
    }
}
