//! A session on a socket of its own task: SSE and NDJSON where no shard takes them.
//!
//! Law: what waits holds its session and nothing else. No buffer stands between the session
//! and the socket: a write is what everyone shares, with its chunk's size before it, and
//! the session is asked no further until the socket has taken it. A client's leaving is
//! heard; what else it says is not wanted.

use std::{
    future::poll_fn,
    io::{self, Write as _},
    pin::Pin,
    task::{Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::Instant,
};

use crate::{
    model::CloseReason,
    transport::{Session, Step},
};

use super::{Framing, Offer};

/// What a client may send into a stream that takes nothing: a request or two that it
/// hurried to send ahead. Beyond that nothing is read, and the kernel holds it up.
const DISCARDED_BYTES_MAX: usize = 64 << 10;

/// Read at a time of what is not wanted.
const SCRATCH_BYTES: usize = 4 << 10;

/// The size of a chunk in hex, and the end of its line.
const SIZE_BYTES_MAX: usize = 2 * size_of::<usize>() + 2;

/// Serves one subscriber to its end, on a connection that has left HTTP.
pub async fn drive(mut io: impl AsyncRead + AsyncWrite + Unpin, offer: Offer) {
    let Offer { mut session, framing, head } = offer;
    let mut discarded_bytes = 0;
    let served = serve(&mut io, &mut session, framing, head.into(), &mut discarded_bytes).await;
    // Of a client that has gone, the session's account says so unless told otherwise.
    let Ok(reason) = served else { return };
    session.close(reason);
    drop(session);
    if io.write_all(framing.end()).await.is_ok() {
        // With something unread, closing would reset the connection, and what is on its way
        // would be lost.
        let _ = left(&mut io, &mut discarded_bytes).now_or_never();
        let _ = io.shutdown().await;
    }
}

async fn serve(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    session: &mut Session,
    framing: Framing,
    mut head: Bytes,
    discarded_bytes: &mut usize,
) -> io::Result<CloseReason> {
    loop {
        match step(session) {
            // The head goes out with the first bytes of the stream.
            Step::Write(write) => {
                send(io, std::mem::take(&mut head), write.bytes, framing).await?;
            }
            Step::Yield => tokio::task::yield_now().await,
            Step::Wait { until } => tokio::select! {
                biased;
                error = left(io, discarded_bytes) => return Err(error),
                () = session.subscription_mut().woken() => {}
                () = tokio::time::sleep_until(Instant::from_std(until)) => {}
            },
            Step::End(reason) => {
                io.write_all(&head).await?;
                return Ok(reason);
            }
        }
    }
}

/// One step in a turn of its own. Not in the loop above, where the turn would count as
/// something that waits.
fn step(session: &mut Session) -> Step {
    let mut turn = session.turn();
    session.step(Instant::now().into_std(), &mut turn)
}

/// Writes `head` and `bytes` at once where the socket can, and copies neither.
async fn send(
    io: &mut (impl AsyncWrite + Unpin),
    head: Bytes,
    bytes: Bytes,
    framing: Framing,
) -> io::Result<()> {
    let mut size = [0; SIZE_BYTES_MAX];
    let (size_bytes, end) = match framing {
        Framing::Chunked if !bytes.is_empty() => {
            let mut rest = &mut size[..];
            write!(rest, "{:X}\r\n", bytes.len())?;
            (SIZE_BYTES_MAX - rest.len(), "\r\n")
        }
        _ => (0, ""),
    };
    let mut whole = head.chain(&size[..size_bytes]).chain(bytes).chain(end.as_bytes());
    io.write_all_buf(&mut whole).await?;
    io.flush().await
}

/// Completes once the client has left. What it sends meanwhile is taken, up to a bound; a
/// client that sends more is heard to leave when a write fails.
async fn left(io: &mut (impl AsyncRead + Unpin), discarded_bytes: &mut usize) -> io::Error {
    poll_fn(|context| {
        // On the stack, so that a connection that waits holds none of it.
        let mut scratch = [0; SCRATCH_BYTES];
        while *discarded_bytes <= DISCARDED_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *io).poll_read(context, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(()) => *discarded_bytes += buffer.filled().len(),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_is_a_chunk_and_the_first_has_the_head() {
        for (framing, expected) in [
            (Framing::Chunked, "head\r\n\r\nB\r\ndata: {1}\n\n\r\nB\r\ndata: {2}\n\n\r\n"),
            (Framing::Plain, "head\r\n\r\ndata: {1}\n\ndata: {2}\n\n"),
        ] {
            let mut written = Vec::new();
            send(&mut written, "head\r\n\r\n".into(), "data: {1}\n\n".into(), framing)
                .await
                .unwrap();
            send(&mut written, Bytes::new(), "data: {2}\n\n".into(), framing).await.unwrap();
            // An empty chunk would be the end.
            send(&mut written, Bytes::new(), Bytes::new(), framing).await.unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn what_a_client_says_is_not_wanted_but_that_it_leaves() {
        let (mut near, mut far) = tokio::io::duplex(DISCARDED_BYTES_MAX * 2);
        let mut discarded_bytes = 0;
        near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(left(&mut far, &mut discarded_bytes).now_or_never().is_none());
        assert_eq!(discarded_bytes, 18);
        near.write_all(&vec![b'x'; DISCARDED_BYTES_MAX * 2]).await.unwrap();
        assert!(left(&mut far, &mut discarded_bytes).now_or_never().is_none());
        let most = DISCARDED_BYTES_MAX + 1..=DISCARDED_BYTES_MAX + SCRATCH_BYTES;
        assert!(most.contains(&discarded_bytes), "{discarded_bytes}");

        let (near, mut far) = tokio::io::duplex(64);
        drop(near);
        let error = left(&mut far, &mut 0).now_or_never().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
