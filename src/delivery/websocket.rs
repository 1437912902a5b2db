//! A session on a WebSocket.
//!
//! Law: one message a record; what is pending goes out in one write. The library reads,
//! and writes what answers the client (pongs, the closing handshake); events are written
//! by us, around it, since its write buffer never shrinks: one event of 900 KB left 900
//! KB with each of 200 clients for good. The client is pinged, and one that does not
//! answer is closed.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::Instant,
};
use tokio_stream::StreamExt as _;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, protocol::Role},
};

use crate::{
    model::CloseReason,
    transport::{Session, Step, websocket::text_head},
};

use super::{
    Offer, WebSocketConfig as Config,
    conversation::{Conversation, Due, End},
    framing::parted,
};

/// A record up to this size is copied into the one write of its batch; a larger one is
/// written from the bytes that everyone shares.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// Serves one subscriber to its end, on a connection that has left HTTP. `read_ahead` is
/// what was read after the request.
pub async fn drive(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    read_ahead: Bytes,
    offer: Offer,
    config: Config,
) {
    let Offer { mut session, head, .. } = offer;
    if io.write_all(&head).await.is_err() {
        return;
    }
    let (limits, read_ahead) = (Some(config.limits()), read_ahead.into());
    let io = Heard { io, unfinished_bytes: 0, bytes_max: config.unfinished_bytes_max() };
    let mut socket =
        WebSocketStream::from_partially_read(io, read_ahead, Role::Server, limits).await;
    let end = match serve(&mut socket, &mut session, &config).await {
        Ok(reason) => End::because(reason),
        Err(end) => end,
    };
    session.close(end.reason);
    // Dropping the session first frees its place while the handshake goes on.
    drop(session);
    if end.reason == CloseReason::Gone {
        // A client that closed in good order is owed the answer, which the library has
        // queued but not sent (RFC 6455, section 5.5.1). On a broken socket this fails.
        let _ = tokio::time::timeout(config.close_timeout, socket.flush()).await;
        return;
    }
    let farewell = async {
        if socket.send(Message::Close(Some(end.frame()))).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A client that does not answer the handshake is left behind.
    let _ = tokio::time::timeout(config.close_timeout, farewell).await;
}

async fn serve(
    socket: &mut WebSocketStream<Heard<impl AsyncRead + AsyncWrite + Unpin>>,
    session: &mut Session,
    config: &Config,
) -> Result<CloseReason, End> {
    let gone = |_: Error| End::because(CloseReason::Gone);
    let mut conversation = Conversation::new(config, Instant::now().into_std());
    loop {
        let now = Instant::now().into_std();
        let mut turn = session.turn();
        let step = session.step(now, &mut turn);
        drop(turn);
        let until = match step {
            Step::Write(write) => {
                // What the library has begun to write must be whole before we write.
                socket.flush().await.map_err(gone)?;
                let written = write_messages(socket.get_mut(), &write.bytes).await;
                written.map_err(|_| End::because(CloseReason::Gone))?;
                None
            }
            Step::Yield => {
                tokio::task::yield_now().await;
                None
            }
            Step::Wait { until } => Some(until),
            Step::End(reason) => return Ok(reason),
        };
        let until = match conversation.due(config, now) {
            Due::Silent => return Err(Due::silent()),
            Due::Ping => {
                socket.send(Message::Ping(Bytes::new())).await.map_err(gone)?;
                None
            }
            Due::Wait(due) => until.map(|until| until.min(due)),
        };
        let rest = async {
            // With more to write there is only a look at what the client says: a timer,
            // even one that is due, would cost up to a millisecond a write.
            if let Some(until) = until {
                tokio::time::sleep_until(Instant::from_std(until)).await;
            }
        };
        tokio::select! {
            biased;
            // Cancel-safe: a message is either returned or still in the socket's buffer.
            message = socket.next() => match message {
                Some(Ok(message)) => {
                    socket.get_mut().unfinished_bytes = 0;
                    let heard = conversation.heard(message, Instant::now().into_std())?;
                    if let Some(filter) = heard {
                        session.refilter(&filter).map_err(|_| End::denied())?;
                    }
                }
                Some(Err(Error::Io(error))) if error.kind() == io::ErrorKind::FileTooLarge => {
                    return Err(End::in_parts());
                }
                Some(Err(error)) => return Err(End::broken(&error, config)),
                None => return Ok(CloseReason::Gone),
            },
            () = session.subscription_mut().woken() => {}
            () = rest => {}
        }
    }
}

/// A connection that is read no further than a message may take.
struct Heard<Io> {
    io: Io,
    /// Since the end of the last message.
    unfinished_bytes: usize,
    bytes_max: usize,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Heard<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unfinished_bytes > self.bytes_max {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        self.unfinished_bytes += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Heard<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Writes each line of `bytes` as a text message. Small ones go out in one write.
async fn write_messages(io: &mut (impl AsyncWrite + Unpin), bytes: &Bytes) -> io::Result<()> {
    let mut batch = Vec::with_capacity(bytes.len().min(2 * COPIED_BYTES_MAX));
    for line in parted(bytes) {
        batch.extend_from_slice(text_head(line.len()).as_slice());
        if line.len() <= COPIED_BYTES_MAX {
            batch.extend_from_slice(line);
        } else {
            io.write_all(&batch).await?;
            batch.clear();
            io.write_all(line).await?;
        }
    }
    io.write_all(&batch).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
