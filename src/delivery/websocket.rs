//! A session on a WebSocket.
//!
//! Law: one message a record; what is pending goes out in one write. The library reads,
//! and writes what answers the client (pongs, the closing handshake); events are written
//! by us, around it, since its write buffer never shrinks: one event of 900 KB left 900
//! KB with each of 200 clients for good. The client is pinged, and one that does not
//! answer is closed.

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::SinkExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt as _, time::Instant};
use tokio_stream::StreamExt as _;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::ProtocolError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    model::CloseReason,
    transport::{
        Session, Step,
        websocket::{close_code, parse, text_head},
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

/// Read buffer of a WebSocket. The library's default of 128 KiB is made for large
/// messages; clients of ours send a filter at most (133 KiB an idle socket became 5.5
/// KiB, measured with tungstenite 0.29).
const READ_BUFFER_BYTES: usize = 4 << 10;
/// A record up to this size is copied into the one write of its batch; a larger one is
/// written from the bytes that everyone shares.
const COPIED_BYTES_MAX: usize = 16 << 10;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Serves one subscriber to its end, on a connection that has left HTTP.
pub async fn drive(upgraded: Upgraded, mut session: Session, config: Config) {
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(config.message_bytes_max))
        .max_frame_size(Some(config.message_bytes_max));
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await;
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
    let code = CloseCode::from(close_code(reason));
    let frame = CloseFrame { code, reason: Utf8Bytes::from(short(&detail)) };
    let farewell = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A client that does not answer the handshake is left behind.
    let _ = tokio::time::timeout(config.close_timeout, farewell).await;
}

async fn serve(
    socket: &mut Socket,
    session: &mut Session,
    config: &Config,
) -> Result<CloseReason, (CloseReason, String)> {
    let gone = |_: Error| (CloseReason::Gone, String::new());
    let mut ping_at = Instant::now() + config.ping_interval;
    let mut pong_due: Option<Instant> = None;
    let (mut messages, mut messages_since) = (0, Instant::now());
    loop {
        let now = Instant::now();
        let mut turn = session.turn();
        let step = session.step(now.into_std(), &mut turn);
        drop(turn);
        let until = match step {
            Step::Write(write) => {
                // What the library has begun to write must be whole before we write.
                socket.flush().await.map_err(gone)?;
                let written = write_messages(socket.get_mut(), &write.bytes).await;
                written.map_err(|_| (CloseReason::Gone, String::new()))?;
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
            message = socket.next() => {
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
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_))) | None => return Ok(CloseReason::Gone),
                    Some(Err(error)) => return Err(broken(&error, config)),
                }
            }
            () = session.subscription_mut().woken() => {}
            () = rest => {}
        }
    }
}

/// Writes each line of `bytes` as a text message. Small ones go out in one write.
async fn write_messages(
    io: &mut (impl tokio::io::AsyncWrite + Unpin),
    bytes: &Bytes,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(bytes.len().min(2 * COPIED_BYTES_MAX));
    for line in lines(bytes) {
        batch.extend_from_slice(text_head(line.len()).as_slice());
        if line.len() <= COPIED_BYTES_MAX {
            batch.extend_from_slice(&line);
        } else {
            io.write_all(&batch).await?;
            batch.clear();
            io.write_all(&line).await?;
        }
    }
    io.write_all(&batch).await?;
    io.flush().await
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
fn broken(error: &Error, config: &Config) -> (CloseReason, String) {
    match error {
        Error::Capacity(_) => {
            let text = format!("messages have at most {} bytes", config.message_bytes_max);
            (CloseReason::TooBig, text)
        }
        // The client vanished without a closing handshake, which breaks nothing.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            (CloseReason::Gone, String::new())
        }
        Error::Protocol(_) | Error::Utf8(_) => {
            (CloseReason::Protocol, "this is not the WebSocket protocol".to_owned())
        }
        _ => (CloseReason::Gone, String::new()),
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

    #[test]
    fn lines_are_slices() {
        let bytes = Bytes::from_static(b"{1}\n{2}\n");
        let lines: Vec<Bytes> = lines(&bytes).collect();
        assert_eq!(lines, ["{1}", "{2}"]);
        assert_eq!(lines[0].as_ptr(), bytes.as_ptr());
    }

    #[tokio::test]
    async fn each_line_is_a_message() {
        let large = "x".repeat(COPIED_BYTES_MAX + 1);
        let bytes = Bytes::from(format!("{{1}}\n{large}\n{{2}}\n"));
        let mut written = Vec::new();
        write_messages(&mut written, &bytes).await.unwrap();
        let mut expected = b"\x81\x03{1}\x81\x7e\x40\x01".to_vec();
        expected.extend_from_slice(large.as_bytes());
        expected.extend_from_slice(b"\x81\x03{2}");
        assert_eq!(written, expected);
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(short(&"é".repeat(100)).len(), 122);
        assert_eq!(short("ok"), "ok");
    }
}
