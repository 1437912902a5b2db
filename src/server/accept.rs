//! The accept loop: from a listening port to requests on the router.
//!
//! Law: every connection has a place, a time for its head, a bound on its buffers and
//! an end. The stock loop has no time for the head, no cap, and never ends while a
//! stream is open.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Instant,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    delivery::{
        Framing, Handover, HandoverIo, Listener, Offer, Socket, StallGuard, WebSocketConfig,
        shard::{Arrival, Shards},
        stream, websocket,
    },
    telemetry::Limit,
    transport::Peer,
};

use super::{
    limits::{Admission, Connections, Permit},
    pace::{self, Pace},
    proxies::Proxies,
    routes::Door,
    shutdown::Shutdown,
};

/// Times and bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time in which a request's head must have arrived, counted from the end of the answer
    /// before it or from the connection's beginning.
    pub header_timeout: Duration,
    /// Bytes of a request's head, and of hyper's own write buffer.
    pub header_bytes_max: usize,
    /// Lines of a request's head, but for the first.
    pub headers_max: usize,
    /// How fast connections are taken.
    pub pace: pace::Config,
    /// Time a client may take no bytes while some are waiting for it.
    pub write_stall: Duration,
    /// Kernel send buffer asked for. Linux takes twice as much (socket(7), `SO_SNDBUF`).
    pub send_buffer_bytes: usize,
}

/// Kernel receive buffer asked for: requests are small, and next to nothing is read of
/// what a client sends into a stream.
const RECEIVE_BUFFER_BYTES: usize = 16 << 10;
/// Connections that wait to be accepted; Linux cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long the loop rests when there are no file descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Time after which unacknowledged bytes end a connection (tcp(7)): a peer that
/// vanished without a word.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between the kernel's own questions to a silent peer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes that wake a connection are read this far, outside of HTTP. A request of a program
/// fits; of a longer one HTTP reads the rest.
const FIRST_READ_BYTES_MAX: usize = 2 << 10;

/// What a request knows of its connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The far end.
    pub(super) peer: Arc<Peer>,
    /// What it may do.
    pub(super) admission: Admission,
    /// Where a handler offers a session that is to leave HTTP.
    pub(super) handover: Arc<Handover>,
}

/// What a connection holds to its end, in HTTP or after it.
#[derive(Debug)]
pub(super) struct Place {
    _permit: Permit,
    _running: TaskTrackerToken,
}

/// Where connections go that leave HTTP.
#[derive(Clone, Debug)]
pub(super) struct Exits {
    /// None if each stream has a task of its own.
    pub(super) shards: Option<Arc<Shards<Place>>>,
    /// For WebSockets that no shard takes.
    pub(super) websocket: WebSocketConfig,
}

/// A port that listens, with the settings its connections inherit: on Linux all of these
/// are copied from the listening socket (five calls of the kernel less for each).
pub(super) fn bind(address: SocketAddr, config: &Config) -> io::Result<Listener> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Set before listening, so that the window a client is offered fits the buffer.
    socket.set_send_buffer_size(config.send_buffer_bytes)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new().with_time(USER_TIMEOUT).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Listener::from_std(socket.into())
}

/// What connections of a port come to.
#[derive(Debug)]
pub(super) struct Reception {
    /// The routes.
    pub(super) door: Arc<Door>,
    /// How many there may be.
    pub(super) connections: Arc<Connections>,
    /// Where they go that leave HTTP.
    pub(super) exits: Exits,
    /// Times and bounds.
    pub(super) config: Config,
    /// What ends them.
    pub(super) shutdown: Shutdown,
}

/// Accepts connections and serves them until told to finish. With `proxies` each has to begin with
/// the PROXY protocol, and is taken for one of the client that this names.
pub(super) async fn run(listener: Listener, reception: Reception, proxies: Option<Proxies>) {
    let reception = Arc::new(reception);
    let Reception { connections, config, shutdown, .. } = &*reception;
    let mut is_exhausted = false;
    let pace = Arc::new(Mutex::new(Pace::new(config.pace, Instant::now())));
    loop {
        loop {
            let taken = lock(&pace).next(Instant::now());
            let Err(wait) = taken else { break };
            connections.telemetry().limit_reached(Limit::AcceptRate);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.finishing() => return,
            }
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.finishing() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if is_about_one_connection(&error) {
                    continue;
                }
                if !is_exhausted {
                    tracing::error!(%error, "cannot accept connections; trying on");
                }
                is_exhausted = true;
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        is_exhausted = false;
        let Some(proxies) = &proxies else {
            if let Some(place) = reception.place(&pace, address.ip(), shutdown.token()) {
                let serving = reception.clone().receive(stream, address, Bytes::new(), place);
                // Counted by its place, wherever that goes.
                shutdown.spawn_held(serving);
            }
            continue;
        };
        let Some(turn) = proxies.turn(address.ip(), connections.telemetry()) else { continue };
        let (reception, pace, token) = (reception.clone(), pace.clone(), shutdown.token());
        // Who is behind it has to be known before it can be counted.
        shutdown.spawn_held(async move {
            let (mut stream, ending) = (stream, reception.shutdown.clone());
            let heard = tokio::select! {
                heard = turn.introduced(&mut stream, address) => heard,
                () = ending.finishing() => return,
            };
            let Some((client, ahead)) = heard else {
                return reception.connections.telemetry().limit_reached(Limit::ProxyHeader);
            };
            if let Some(place) = reception.place(&pace, client.ip(), token) {
                Box::pin(reception.receive(stream, client, ahead, place)).await;
            }
        });
    }
}

fn lock(pace: &Mutex<Pace>) -> MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reception {
    /// A place for a connection of `address`. Without one the socket is closed unheard: it came
    /// too fast, or is over the reserve, which is all there is room for.
    fn place(
        &self,
        pace: &Mutex<Pace>,
        address: IpAddr,
        running: TaskTrackerToken,
    ) -> Option<(Admission, Place)> {
        if !lock(pace).admits(address, Instant::now()) {
            self.connections.telemetry().limit_reached(Limit::AcceptRatePerIp);
            return None;
        }
        let (admission, permit) = self.connections.admit(address)?;
        Some((admission, Place { _permit: permit, _running: running }))
    }

    /// Serves a connection of `client` to its end. `ahead` was read of it already.
    async fn receive(
        self: Arc<Self>,
        stream: Socket,
        client: SocketAddr,
        ahead: Bytes,
        (admission, place): (Admission, Place),
    ) {
        let peer = Arc::new(Peer::new(client));
        let telemetry = self.connections.telemetry().clone();
        let mut io = StallGuard::new(stream, peer.clone(), telemetry, self.config.write_stall);
        // HTTP takes some 15 KiB for each connection. In a storm of them most are
        // yet to say something, and until then they take next to nothing.
        let Some(begun) = begins(&mut io, ahead, &self.config, &self.shutdown).await else {
            return;
        };
        let handover = Arc::new(Handover::default());
        let io = HandoverIo::new(io, begun.bytes, handover.clone());
        let connection = Connection { peer, admission, handover: handover.clone() };
        let answer = |request| self.door.clone().answer(request, connection.clone());
        // On the heap, and gone before what comes next.
        let serving = serve(io, &handover, answer, self.config, begun.deadline, &self.shutdown);
        let serving = Box::pin(serving);
        if let Some(left) = serving.await {
            Box::pin(leave_http(left, place, self.exits.clone(), &self.shutdown)).await;
        }
    }
}

/// The beginning of a request.
struct Begun {
    /// What was read of it: at least a byte.
    bytes: Bytes,
    /// When the rest of its head must have arrived.
    deadline: Instant,
}

/// Reads what comes first, unless it is there `ahead`. None if nothing comes in time, or ever.
async fn begins(
    io: &mut (impl AsyncRead + Unpin),
    ahead: Bytes,
    config: &Config,
    shutdown: &Shutdown,
) -> Option<Begun> {
    let deadline = Instant::now() + config.header_timeout;
    if !ahead.is_empty() {
        return Some(Begun { bytes: ahead, deadline });
    }
    let bytes = tokio::select! {
        biased;
        bytes = tokio::time::timeout_at(deadline, first_bytes(io)) => bytes.ok()?.ok()?,
        () = shutdown.finishing() => return None,
    };
    (!bytes.is_empty()).then_some(Begun { bytes, deadline })
}

async fn first_bytes(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    poll_fn(|context| {
        // On the stack of this poll, so that a connection that waits holds none of it.
        let mut bytes = [0; FIRST_READ_BYTES_MAX];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut *io).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
    .await
}

/// A session that leaves HTTP.
struct Left {
    io: StallGuard<Socket>,
    offer: Offer,
    /// What was read after the request.
    read_ahead: Bytes,
}

/// Serves HTTP until the connection ends, or a session leaves with it. The first head must
/// have arrived by `deadline`.
async fn serve<F: Future<Output = Response<Body>>>(
    io: HandoverIo<StallGuard<Socket>>,
    handover: &Handover,
    answer: impl Fn(Request<Body>) -> F,
    config: Config,
    deadline: Instant,
    shutdown: &Shutdown,
) -> Option<Left> {
    let is_heard = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        is_heard.store(true, Ordering::Relaxed);
        // On the heap, so that the connection can be taken apart.
        let answering = answer(request.map(Body::new));
        Box::pin(async { Ok::<_, Infallible>(answering.await) })
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.header_bytes_max)
        .serve_connection(TokioIo::new(io), service);
    let mut finishing = pin!(shutdown.finishing());
    let mut is_finishing = false;
    let mut late = pin!(tokio::time::sleep_until(deadline));
    let ended = poll_fn(|context| {
        loop {
            match Pin::new(&mut serving).poll(context) {
                Poll::Pending if handover.is_ready() => return Poll::Ready(Some(Ok(()))),
                Poll::Pending => {}
                ended => return ended.map(Some),
            }
            // Asked only now: a request that is answered at once has nothing to wait for.
            if is_finishing || finishing.as_mut().poll(context).is_pending() {
                break;
            }
            is_finishing = true;
            // Idle connections end now, streams with their goodbye.
            Pin::new(&mut serving).graceful_shutdown();
        }
        // hyper's own time began with the first byte, and counts anew for each head.
        if is_heard.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        late.as_mut().poll(context).map(|()| None)
    })
    .await;
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            tracing::debug!(%error, "connection ended");
            return None;
        }
        None => {
            tracing::debug!("connection ended: its first head came too late");
            return None;
        }
    }
    let offer = handover.take()?;
    let parts = serving.into_parts();
    let (io, unread) = parts.io.into_inner().into_parts();
    // Copied, since a view of nothing at all would hold hyper's whole buffer.
    let read_ahead = Bytes::from([&parts.read_buf[..], &unread[..]].concat());
    Some(Left { io, offer, read_ahead })
}

/// Brings a session and its socket to what will drive it: a shard, or a task that holds
/// nothing of the request.
async fn leave_http(left: Left, place: Place, exits: Exits, shutdown: &Shutdown) {
    let Left { io, offer, read_ahead } = left;
    let Some(shards) = exits.shards else {
        match offer.framing {
            Framing::WebSocket => shutdown.spawn_held(async move {
                websocket::drive(io, read_ahead, offer, exits.websocket).await;
                drop(place);
            }),
            Framing::Plain | Framing::Chunked => shutdown.spawn_held(async move {
                stream::drive(io, offer).await;
                drop(place);
            }),
        }
        return;
    };
    match io.into_inner().into_std() {
        Ok(socket) => shards.adopt(Arrival { socket, offer, read_ahead, place }).await,
        Err(error) => tracing::error!(%error, "cannot take a connection over: it is closed"),
    }
}

/// Errors of accept(2) that say nothing about the listener.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;
    use crate::telemetry::Telemetry;

    const CONFIG: Config = Config {
        header_timeout: Duration::from_secs(5),
        header_bytes_max: 16 << 10,
        headers_max: 64,
        pace: pace::Config { per_second: None, of_address_per_second: None },
        write_stall: Duration::from_secs(20),
        send_buffer_bytes: 32 << 10,
    };

    async fn pair() -> (TcpStream, Socket) {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), &CONFIG).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// A client that has said nothing yet is not HTTP's business.
    #[tokio::test]
    async fn a_connection_begins_with_its_first_byte() {
        let (mut near, mut far) = pair().await;
        let shutdown = Shutdown::new();
        let mut begun = pin!(begins(&mut far, Bytes::new(), &CONFIG, &shutdown));
        // The second time it has been looked at whether there is something to read.
        for _ in 0..2 {
            let pending = poll_fn(|context| Poll::Ready(begun.as_mut().poll(context).is_pending()));
            assert!(pending.await);
            tokio::task::yield_now().await;
        }
        near.write_all(b"G").await.unwrap();
        let begun = begun.await.unwrap();
        assert_eq!(begun.bytes, "G");
        assert!(begun.deadline <= Instant::now() + CONFIG.header_timeout);
    }

    /// A connection that had used up its time when it said `first`.
    async fn served_late(first: &'static str) -> (TcpStream, impl Future<Output = Option<Left>>) {
        let (near, far) = pair().await;
        let deadline = Instant::now();
        let peer = Arc::new(Peer::new(([127, 0, 0, 1], 1).into()));
        let handover = Arc::new(Handover::default());
        let telemetry = Arc::new(Telemetry::new());
        let io = StallGuard::new(far, peer, telemetry, CONFIG.write_stall);
        let io = HandoverIo::new(io, first.into(), handover.clone());
        let config = Config { header_timeout: Duration::from_secs(3600), ..CONFIG };
        let serving = async move {
            let answer = async |_| Response::new(Body::from("answer"));
            serve(io, &handover, answer, config, deadline, &Shutdown::new()).await
        };
        (near, serving)
    }

    /// The time that the first byte took is not taken from later requests.
    #[tokio::test]
    async fn what_began_late_has_all_its_time_between_requests() {
        const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let (mut near, serving) = served_late(REQUEST).await;
        let asking = async {
            for _ in 0..3 {
                let mut answer = Vec::new();
                while !answer.ends_with(b"answer") {
                    assert!(near.read_buf(&mut answer).await.unwrap() > 0, "still open");
                }
                near.write_all(REQUEST.as_bytes()).await.unwrap();
            }
            near
        };
        tokio::select! {
            _ = serving => panic!("the connection was ended"),
            _ = asking => {}
        }
    }

    #[tokio::test]
    async fn the_first_head_has_no_more_time_than_was_left() {
        let (near, serving) = served_late("GET / HTTP/1.1\r\nHos").await;
        assert!(serving.await.is_none());
        drop(near);
    }

    #[tokio::test]
    async fn a_connection_that_ends_unheard_does_not_begin() {
        let (near, mut far) = pair().await;
        drop(near);
        assert!(begins(&mut far, Bytes::new(), &CONFIG, &Shutdown::new()).await.is_none());
        let (_near, mut far) = pair().await;
        let shutdown = Shutdown::new();
        tokio::join!(shutdown.run(Duration::ZERO, || ()), async {
            assert!(begins(&mut far, Bytes::new(), &CONFIG, &shutdown).await.is_none());
        });
    }
}
