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
        Session::new(subscription, account, Arc::new(config), wire, &request, gap, now)
    }

    /// hyper on one end of a pipe, answering with a session, or upgrading to one.
    fn serve(
        io: DuplexStream,
        is_upgrade: bool,
    ) -> (Arc<Handover>, impl Future<Output = Option<(Offer, DuplexStream, Bytes)>> + use<>) {
        let handover = Arc::new(Handover::default());
        let (offering, ready) = (handover.clone(), handover.clone());
        let io = TokioIo::new(HandoverIo::new(io, handover.clone()));
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let framing = match request.version() {
                http::Version::HTTP_11 => Framing::Chunked,
                _ => Framing::Plain,
            };
            let mut response = Response::new(HandoverBody {
                offer: (!is_upgrade).then(|| Offer { session: session(), framing }),
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
            Some((offer, parts.io.into_inner().into_inner(), parts.read_buf))
        };
        (handover, taken)
    }

    /// Through a pipe of 16 bytes the head takes many writes. Not a byte of it may be
    /// missing, and none come after it.
    async fn head_through_a_narrow_pipe(version: &str, is_upgrade: bool) -> (String, Offer) {
        let (mut near, far) = tokio::io::duplex(16);
        let (handover, taken) = serve(far, is_upgrade);
        let taken = tokio::spawn(taken);
        let upgrade = if is_upgrade { "Connection: upgrade\r\nUpgrade: websocket\r\n" } else { "" };
        let request = format!("GET / HTTP/{version}\r\nHost: x\r\n{upgrade}\r\n");
        near.write_all(request.as_bytes()).await.unwrap();
        let (mut head, mut ready_after) = (Vec::new(), None);
        while !head.ends_with(b"\r\n\r\n") {
            head.push(near.read_u8().await.unwrap());
            // Whatever can go on now does: hyper fills the pipe again, or has written all.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            ready_after = ready_after.or(handover.is_ready().then_some(head.len()));
        }
        let ready_after = ready_after.unwrap_or(head.len());
        assert!(
            head.len() - ready_after <= 16,
            "{} bytes were still to come",
            head.len() - ready_after
        );
        let (offer, mut io, _) = taken.await.unwrap().expect("the head is out");
        io.write_all(b"ours").await.unwrap();
        drop(io);
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ours");
        (String::from_utf8(head).unwrap(), offer)
    }

    #[tokio::test]
    async fn the_head_has_left_before_the_socket_is_taken() {
        let (head, offer) = head_through_a_narrow_pipe("1.1", false).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"), "{head}");
        assert_eq!(offer.framing, Framing::Chunked);
        let (head, offer) = head_through_a_narrow_pipe("1.0", false).await;
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && !head.contains("chunked"), "{head}");
        assert_eq!(offer.framing, Framing::Plain);
        let (head, offer) = head_through_a_narrow_pipe("1.1", true).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(offer.framing, Framing::WebSocket);
    }

    #[tokio::test]
    async fn what_was_read_ahead_goes_along() {
        let (mut near, far) = tokio::io::duplex(4096);
        let (_, taken) = serve(far, false);
        near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nwhat follows").await.unwrap();
        let (_, _, read_ahead) = taken.await.unwrap();
        assert_eq!(read_ahead, "what follows");
    }

    #[tokio::test]
    async fn an_answer_without_a_body_offers_nothing() {
        let (mut near, far) = tokio::io::duplex(4096);
        let (handover, taken) = serve(far, false);
        let taken = tokio::spawn(taken);
        near.write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut head = String::new();
        near.read_to_string(&mut head).await.unwrap();
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        assert!(taken.await.unwrap().is_none() && !handover.is_ready());
    }
}
