//! How a session leaves HTTP: hyper reads the request and makes the head of the answer,
//! everything after that is ours.
//!
//! Law: not a byte of the head is lost and none is sent twice. From the moment a session
//! is offered, what hyper writes is not sent but caught: it is the head, or the end of it.
//! hyper flushes once its own buffer is empty and not before, so at that flush all of the
//! head has been caught; whoever takes the connection sends it in one write with the first
//! bytes of the stream. What the client sent ahead goes along.
//!
//! ```text
//!  handler ─ answer with a HandoverBody ─▶ hyper makes the head, asks the body: the offer is made
//!            hyper writes and flushes ───▶ HandoverIo catches it: the connection is taken apart
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
    /// What is to be sent before anything else: the head of the answer.
    pub head: Vec<u8>,
}

/// What a connection's handler, body and socket tell each other. One for each connection.
#[derive(Debug, Default)]
pub struct Handover {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    offer: Option<Offer>,
    /// hyper's buffer was seen empty after the head was made.
    is_caught: bool,
}

// === impl Offer ===

impl Offer {
    fn new(session: Session, framing: Framing) -> Offer {
        Offer { session, framing, head: Vec::new() }
    }
}

// === impl Handover ===

impl Handover {
    /// Offers a session whose head is yet to be made: an upgrade, after which HTTP ends by
    /// itself.
    pub fn offer_upgrade(&self, session: Session) {
        self.offer(Offer::new(session, Framing::WebSocket));
    }

    /// True once the connection may be taken from hyper, which would go on for ever. After
    /// an upgrade it ends by itself.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        let is_upgrade = |offer: &Offer| offer.framing == Framing::WebSocket;
        state.is_caught && !state.offer.as_ref().is_some_and(is_upgrade)
    }

    /// The session with its head, once hyper is ready or has ended.
    pub fn take(&self) -> Option<Offer> {
        let mut state = self.state();
        if state.is_caught { state.offer.take() } else { None }
    }

    fn offer(&self, offer: Offer) {
        *self.state() = State { offer: Some(offer), is_caught: false };
    }

    /// True if the bytes are kept and not to be sent.
    fn catches(&self, buffers: &[io::IoSlice<'_>]) -> bool {
        let mut state = self.state();
        let Some(offer) = &mut state.offer else { return false };
        buffers.iter().for_each(|buffer| offer.head.extend_from_slice(buffer));
        true
    }

    fn flushed(&self) {
        let mut state = self.state();
        // An upgrade is offered before its head is made, and a flush before that says nothing.
        // A body is asked after: nothing caught means that all of the head was sent.
        let is_made = |offer: &Offer| offer.framing != Framing::WebSocket || !offer.head.is_empty();
        state.is_caught = state.offer.as_ref().is_some_and(is_made);
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
        HandoverBody { offer: Some(Offer::new(session, framing)), handover }
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
            this.handover.offer(offer);
        }
        Poll::Pending
    }
}

/// A socket that catches what hyper writes after a session was offered. hyper first reads
/// what was read before it had the socket.
///
/// Once hyper has a request it asks whether there is more, to learn of a client that leaves.
/// Where a session is about to be offered the socket would be asked for nothing, so the first
/// time it is put off until hyper has done what else it can.
#[derive(Debug)]
pub struct HandoverIo<S> {
    inner: S,
    /// Read already, and not yet given to hyper.
    ahead: Bytes,
    is_put_off: bool,
    handover: Arc<Handover>,
}

impl<S> HandoverIo<S> {
    /// Passes everything on to `inner` until `handover` has an offer. `ahead` was read from
    /// `inner` already.
    pub fn new(inner: S, ahead: Bytes, handover: Arc<Handover>) -> HandoverIo<S> {
        HandoverIo { inner, ahead, is_put_off: false, handover }
    }

    /// The socket itself, and what of `ahead` hyper has not taken.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.inner, self.ahead)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HandoverIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            if !std::mem::replace(&mut self.is_put_off, true) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let taken = buffer.remaining().min(self.ahead.len());
        buffer.put_slice(&self.ahead[..taken]);
        // Dropped once it is empty: a view of nothing would hold all of it.
        self.ahead =
            if taken < self.ahead.len() { self.ahead.slice(taken..) } else { Bytes::new() };
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HandoverIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.handover.catches(&[io::IoSlice::new(buffer)]) {
            return Poll::Ready(Ok(buffer.len()));
        }
        Pin::new(&mut self.inner).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.handover.catches(buffers) {
            return Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()));
        }
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

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use http::{HeaderMap, Response};
    use hyper::{server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        time::Instant,
    };

    use super::*;
    use crate::{
        access::Principal,
        clock::Clock,
        hub::{self, Hub},
        log::Log,
        model::{Epoch, Filter, Format, Moment, Transport, resume::Start, ring},
        telemetry::Telemetry,
        transport::{
            Account, Config, Ledger, Peer, Wire,
            request::{Request, Route},
        },
    };

    fn session() -> Session {
        let telemetry = Arc::new(Telemetry::new());
        let limits = ring::Limits { events_max: 8, bytes_max: 1 << 20 };
        let config = hub::Config { ring: limits, latest_entries_max: 8, latest_bytes_max: 1 << 20 };
        let log = Log::memory(Epoch::from_bits(1));
        let (hub, _) = Hub::new(config, log, telemetry.clone(), Moment::default());
        let (subscription, gap) =
            hub.subscribe(Filter::all(), &Start::Live, Transport::Sse, Moment::default());
        let ledger = Arc::new(Ledger { telemetry, clock: Clock::anchored(0) });
        let peer = Arc::new(Peer::new(([127, 0, 0, 1], 1).into()));
        let account = Account::open(ledger, peer, Transport::Sse, Format::Message);
        let config = Config {
            keepalive: Duration::from_secs(15),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(1),
            batch_bytes_max: 1 << 14,
            checkpoint_after: Duration::from_secs(300),
            age_max: None,
        };
        let request = Request::parse(Route::Events, None, &HeaderMap::new()).unwrap();
        let (wire, now) = (Wire::Sse(Format::Message), Instant::now().into_std());
        Session::new(
            (subscription, gap),
            account,
            Arc::new(config),
            wire,
            &request,
            Principal::anyone(),
            now,
        )
    }

    /// hyper on one end of a pipe, answering with a session, or upgrading to one.
    fn serve(
        io: DuplexStream,
        ahead: Bytes,
        is_upgrade: bool,
    ) -> (Arc<Handover>, impl Future<Output = Option<(Offer, DuplexStream, Bytes)>> + use<>) {
        let handover = Arc::new(Handover::default());
        let (offering, ready) = (handover.clone(), handover.clone());
        let io = TokioIo::new(HandoverIo::new(io, ahead, handover.clone()));
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let framing = match request.version() {
                http::Version::HTTP_11 => Framing::Chunked,
                _ => Framing::Plain,
            };
            let mut response = Response::new(HandoverBody {
                offer: (!is_upgrade).then(|| Offer::new(session(), framing)),
                handover: offering.clone(),
            });
            if is_upgrade {
                offering.offer_upgrade(session());
                *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(http::header::CONNECTION, "upgrade".parse().unwrap());
                headers.insert(http::header::UPGRADE, "websocket".parse().unwrap());
            }
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let mut serving = http1::Builder::new().serve_connection(io, service);
        let taken = async move {
            poll_fn(|context| match Pin::new(&mut serving).poll(context) {
                Poll::Pending if ready.is_ready() => Poll::Ready(()),
                poll => poll.map(|ended| ended.unwrap()),
            })
            .await;
            let offer = ready.take()?;
            let parts = serving.into_parts();
            let (io, unread) = parts.io.into_inner().into_parts();
            Some((offer, io, [&parts.read_buf[..], &unread[..]].concat().into()))
        };
        (handover, taken)
    }

    /// The head as it was caught, and what was sent past it.
    async fn caught(version: &str, is_upgrade: bool, pipe_bytes: usize) -> (String, Framing) {
        let (mut near, far) = tokio::io::duplex(pipe_bytes);
        let (_, taken) = serve(far, Bytes::new(), is_upgrade);
        let taken = tokio::spawn(taken);
        let upgrade = if is_upgrade { "Connection: upgrade\r\nUpgrade: websocket\r\n" } else { "" };
        let request = format!("GET / HTTP/{version}\r\nHost: x\r\n{upgrade}\r\n");
        near.write_all(request.as_bytes()).await.unwrap();
        let (offer, mut io, read_ahead) = taken.await.unwrap().expect("the head was caught");
        assert!(read_ahead.is_empty());
        let written = tokio::spawn(async move { io.write_all(b"ours").await.unwrap() });
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        written.await.unwrap();
        assert_eq!(rest, "ours", "nothing of the head was sent");
        (String::from_utf8(offer.head).unwrap(), offer.framing)
    }

    /// Even through a pipe of 16 bytes, which the head would have to pass in many pieces.
    #[tokio::test]
    async fn all_of_the_head_is_caught_and_nothing_else() {
        for pipe_bytes in [16, 1 << 16] {
            let (head, framing) = caught("1.1", false, pipe_bytes).await;
            assert!(
                head.starts_with("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"),
                "{head}"
            );
            assert!(head.ends_with("\r\n\r\n"), "{head}");
            assert_eq!((head.matches("\r\n\r\n").count(), framing), (1, Framing::Chunked));
            let (head, framing) = caught("1.0", false, pipe_bytes).await;
            assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && !head.contains("chunked"), "{head}");
            assert!(head.ends_with("\r\n\r\n"), "{head}");
            assert_eq!(framing, Framing::Plain);
            let (head, framing) = caught("1.1", true, pipe_bytes).await;
            assert!(head.starts_with("HTTP/1.1 101 ") && head.ends_with("\r\n\r\n"), "{head}");
            assert_eq!(framing, Framing::WebSocket);
        }
    }

    #[tokio::test]
    async fn answers_before_the_stream_are_sent_by_hyper() {
        let (mut near, far) = tokio::io::duplex(4096);
        let (_, taken) = serve(far, Bytes::new(), false);
        let taken = tokio::spawn(taken);
        let both = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
        near.write_all(both.as_bytes()).await.unwrap();
        let (offer, io, _) = taken.await.unwrap().expect("the second head was caught");
        drop(io);
        let mut first = String::new();
        near.read_to_string(&mut first).await.unwrap();
        assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with("\r\n\r\n"), "{first}");
        assert!(offer.head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }

    #[tokio::test]
    async fn what_was_read_ahead_goes_along() {
        let (mut near, far) = tokio::io::duplex(4096);
        let (_, taken) = serve(far, Bytes::new(), false);
        near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nwhat follows").await.unwrap();
        let (_, _, read_ahead) = taken.await.unwrap();
        assert_eq!(read_ahead, "what follows");
    }

    /// However little of it hyper takes at a time.
    #[tokio::test]
    async fn what_was_read_before_hyper_comes_first() {
        let (mut near, far) = tokio::io::duplex(4096);
        let (_, taken) = serve(far, "GET / HTTP/1.1\r\nHo".into(), false);
        near.write_all(b"st: x\r\n\r\nwhat follows").await.unwrap();
        let (offer, _, read_ahead) = taken.await.unwrap();
        assert!(offer.head.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert_eq!(read_ahead, "what follows");

        let (_near, far) = tokio::io::duplex(4096);
        let mut io = HandoverIo::new(far, "abcde".into(), Arc::new(Handover::default()));
        let mut taken = [0; 2];
        io.read_exact(&mut taken).await.unwrap();
        assert_eq!((&taken, io.into_parts().1), (b"ab", "cde".into()));
    }

    /// hyper sends at once what does not fit its buffer.
    #[tokio::test]
    async fn a_head_that_was_sent_before_the_offer_is_not_waited_for() {
        let handover = Handover::default();
        handover.offer(Offer::new(session(), Framing::Chunked));
        handover.flushed();
        assert!(handover.is_ready());
        assert!(handover.take().unwrap().head.is_empty());
        handover.offer_upgrade(session());
        handover.flushed();
        assert!(handover.take().is_none(), "its head is yet to be made");
    }

    #[tokio::test]
    async fn an_answer_without_a_body_offers_nothing() {
        let (mut near, far) = tokio::io::duplex(4096);
        let (handover, taken) = serve(far, Bytes::new(), false);
        let taken = tokio::spawn(taken);
        near.write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut head = String::new();
        near.read_to_string(&mut head).await.unwrap();
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        assert!(taken.await.unwrap().is_none() && !handover.is_ready());
    }
}
