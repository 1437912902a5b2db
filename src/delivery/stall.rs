//! A connection that is given up when its client takes no bytes for too long.
//!
//! Law: only writing counts. A client that takes a byte now and then is slow, which
//! costs nothing but its lag; one that takes none holds memory of the kernel and is
//! closed after `limits.write_stall`, and what it has not taken by then is dropped.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::{
    telemetry::{Limit, Telemetry},
    transport::Peer,
};

use super::socket::Forsake;

/// Wraps a socket; [`Peer::is_stalled`] is set before writing fails.
#[derive(Debug)]
pub struct StallGuard<S> {
    inner: S,
    peer: Arc<Peer>,
    telemetry: Arc<Telemetry>,
    write_stall: Duration,
    /// Runs while a write waits for the client.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> StallGuard<S> {
    /// Guards `inner`, the connection of `peer`.
    pub fn new(
        inner: S,
        peer: Arc<Peer>,
        telemetry: Arc<Telemetry>,
        write_stall: Duration,
    ) -> StallGuard<S> {
        StallGuard { inner, peer, telemetry, write_stall, timer: None }
    }

    /// The socket itself.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Forsake> StallGuard<S> {
    /// Turns waiting that lasts too long into an error.
    fn guard<T>(
        &mut self,
        poll: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.timer = None;
            return poll;
        }
        let write_stall = self.write_stall;
        let timer = self.timer.get_or_insert_with(|| {
            Box::pin(tokio::time::sleep_until(Instant::now() + write_stall))
        });
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        // Counted here and not with the subscriber: an answer that is no stream can stall too.
        self.inner.forsake();
        if !self.peer.is_stalled.swap(true, Ordering::Relaxed) {
            self.telemetry.limit_reached(Limit::WriteStall);
        }
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client took no bytes for longer than limits.write_stall",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Forsake + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, buffer);
        self.guard(poll, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.guard(poll, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    impl Forsake for tokio::io::DuplexStream {
        fn forsake(&self) {}
    }

    fn guarded(
        bytes: usize,
    ) -> (StallGuard<tokio::io::DuplexStream>, tokio::io::DuplexStream, Arc<Peer>) {
        let (near, far) = tokio::io::duplex(bytes);
        let peer = Arc::new(Peer::new(([127, 0, 0, 1], 1).into()));
        let telemetry = Arc::new(Telemetry::new());
        (StallGuard::new(near, peer.clone(), telemetry, Duration::from_secs(20)), far, peer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (mut near, _far, peer) = guarded(4);
        let started = Instant::now();
        let error = near.write_all(b"more than fits").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed().as_secs(), 20);
        assert!(peer.is_stalled.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_byte_now_and_then_is_only_slow() {
        let (mut near, mut far, peer) = guarded(4);
        let reader = async {
            for _ in 0..14 {
                tokio::time::advance(Duration::from_secs(19)).await;
                far.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(near.write_all(b"more than fits"), reader);
        written.unwrap();
        assert!(!peer.is_stalled.load(Ordering::Relaxed));
    }
}
