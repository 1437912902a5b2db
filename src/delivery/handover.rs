//! How a session leaves HTTP: the head of its answer is hyper's, the rest is ours.
//!
//! Law: a connection is handed over only when its head has verifiably left hyper. hyper
//! flushes the connection once its own buffer is empty and not before, so a flush that
//! comes after the head was made says so. What the client sent ahead goes with it.
//!
//! ```text
//!  handler ─ answer with a HandoverBody ─▶ hyper writes the head, asks the body: the offer is made
//!            hyper flushes ─▶ HandoverIo notes it ─▶ is_ready: the connection is taken apart
//! ```

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Session;

use super::Framing;

/// A session and how its bytes are wrapped.
#[derive(Debug)]
pub struct Offer {
    /// The session.
    pub session: Session,
    /// What stands between its bytes and the socket.
    pub framing: Framing,
}

/// What a connection's handler, body and socket tell each other. One for each connection.
#[derive(Debug, Default)]
pub struct Handover {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    offer: Option<Offer>,
    /// Nothing but the rest of the head can be written any more.
    is_head_made: bool,
    /// Something was written since the offer.
    is_written: bool,
    /// hyper's buffer was seen empty after that.
    is_out: bool,
}

// === impl Handover ===

impl Handover {
    /// Offers a session whose head is yet to be made: an upgrade, after which HTTP ends by
    /// itself.
    pub fn offer_upgrade(&self, session: Session) {
        let offer = Some(Offer { session, framing: Framing::WebSocket });
        *self.state() = State { offer, ..State::default() };
    }

    /// True once the connection may be taken from hyper.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.offer.is_some() && state.is_out
    }

    /// The session, if the head is out. Without it an offer is given up: what hyper still
    /// held of the head is lost, and with it the connection.
    pub fn take(&self) -> Option<Offer> {
        let mut state = self.state();
        let offer = state.offer.take();
        offer.filter(|_| state.is_out)
    }

    fn offer_body(&self, offer: Offer) {
        *self.state() = State { offer: Some(offer), is_head_made: true, ..State::default() };
    }

    fn wrote(&self) {
        let mut state = self.state();
        state.is_written = true;
        state.is_out = false;
    }

    fn flushed(&self) {
        let mut state = self.state();
        state.is_out = state.is_head_made || state.is_written;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer that hyper only makes the head of. Asked for the first time, it
/// offers its session; dropped before that, as for `HEAD`, it ends it.
#[derive(Debug)]
pub struct HandoverBody {
    offer: Option<Offer>,
    handover: Arc<Handover>,
}

impl HandoverBody {
    /// A body that will offer `session` on the connection of `handover`.
    pub fn new(session: Session, framing: Framing, handover: Arc<Handover>) -> HandoverBody {
        HandoverBody { offer: Some(Offer { session, framing }), handover }
    }
}

impl Body for HandoverBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Some(offer) = this.offer.take() {
            this.handover.offer_body(offer);
        }
        Poll::Pending
    }
}

/// A socket that notes what hyper does with it.
#[derive(Debug)]
pub struct HandoverIo<S> {
    inner: S,
    handover: Arc<Handover>,
}

impl<S> HandoverIo<S> {
    /// Notes on `handover` what is done with `inner`.
    pub fn new(inner: S, handover: Arc<Handover>) -> HandoverIo<S> {
        HandoverIo { inner, handover }
    }

    /// The socket itself.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HandoverIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HandoverIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.handover.wrote();
        Pin::new(&mut self.inner).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.handover.wrote();
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        if matches!(poll, Poll::Ready(Ok(()))) {
            self.handover.flushed();
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
