//! The accept loop: from a listening port to requests on the router.
//!
//! Law: every connection has a place, a time for its head, a bound on its buffers and
//! an end. The stock loop has no time for the head, no cap, and never ends while a
//! stream is open.

use std::{
    future::{Future as _, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::Service as _;

use crate::{
    delivery::{
        Handover, HandoverIo, Offer, StallGuard, WebSocketConfig,
        shard::{Arrival, Shards},
        websocket,
    },
    transport::Peer,
};

use super::{
    limits::{Admission, Connections, Permit},
    shutdown::Shutdown,
};

/// Times and bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time in which a request's head must have arrived.
    pub header_timeout: Duration,
    /// Bytes of a request's head, and of hyper's own write buffer.
    pub header_bytes_max: usize,
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
    /// None if what can be is served through hyper.
    pub(super) shards: Option<Arc<Shards<Place>>>,
    /// For WebSockets that no shard takes.
    pub(super) websocket: WebSocketConfig,
}

/// A port that listens, with the settings its connections inherit: on Linux all of these
/// are copied from the listening socket (five calls of the kernel less for each).
pub(super) fn bind(address: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
    TcpListener::from_std(socket.into())
}

/// Accepts connections and serves `router` on them until told to finish.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    exits: Exits,
    config: Config,
    shutdown: Shutdown,
) {
    let mut is_exhausted = false;
    loop {
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
        // Over the reserve the socket is closed unheard, which is all there is room for.
        if let Some((admission, permit)) = connections.admit(address.ip()) {
            let peer = Arc::new(Peer::new(address));
            let handover = Arc::new(Handover::default());
            let connection = Connection { peer, admission, handover };
            let place = Place { _permit: permit, _running: shutdown.token() };
            let io = StallGuard::new(
                stream,
                connection.peer.clone(),
                connections.telemetry().clone(),
                config.write_stall,
            );
            let (router, exits) = (router.clone(), exits.clone());
            let ending = shutdown.clone();
            // Counted by its place, wherever that goes.
            shutdown.spawn_held(async move {
                // HTTP takes some 15 KiB for each connection. In a storm of them most are
                // yet to say something, and until then they take next to nothing.
                let Some(header_timeout) = begins(&io, &config, &ending).await else { return };
                let config = Config { header_timeout, ..config };
                Box::pin(serve(io, connection, place, router, exits, config, ending)).await;
            });
        }
    }
}

/// Waits for the first byte of a request. Returns the time left for the rest of its head.
async fn begins(
    io: &StallGuard<TcpStream>,
    config: &Config,
    shutdown: &Shutdown,
) -> Option<Duration> {
    let accepted = Instant::now();
    tokio::select! {
        begun = tokio::time::timeout(config.header_timeout, io.get_ref().readable()) => {
            begun.ok()?.ok()?;
        }
        () = shutdown.finishing() => return None,
    }
    Some(config.header_timeout.saturating_sub(accepted.elapsed()))
}

async fn serve(
    io: StallGuard<TcpStream>,
    connection: Connection,
    place: Place,
    router: Router,
    exits: Exits,
    config: Config,
    shutdown: Shutdown,
) {
    let address = connection.peer.addr;
    let handover = connection.handover.clone();
    let io = TokioIo::new(HandoverIo::new(io, handover.clone()));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        // On the heap, so that the connection can be taken apart.
        Box::pin(router.clone().call(request))
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.header_bytes_max)
        .serve_connection(io, service);
    let mut finishing = pin!(shutdown.finishing());
    let mut is_finishing = false;
    let ended = poll_fn(|context| {
        if !is_finishing && finishing.as_mut().poll(context).is_ready() {
            is_finishing = true;
            // Idle connections end now, streams with their goodbye.
            Pin::new(&mut serving).graceful_shutdown();
        }
        match Pin::new(&mut serving).poll(context) {
            Poll::Pending if handover.is_ready() => Poll::Ready(Ok(())),
            poll => poll,
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "connection ended");
        return;
    }
    let Some(offer) = handover.take() else { return };
    let parts = serving.into_parts();
    let io = parts.io.into_inner().into_inner();
    leave_http(io, offer, parts.read_buf, place, exits).await;
}

/// Brings a session and its socket to what will drive it.
async fn leave_http(
    io: StallGuard<TcpStream>,
    offer: Offer,
    read_ahead: Bytes,
    place: Place,
    exits: Exits,
) {
    let Some(shards) = exits.shards else {
        websocket::drive(io, read_ahead, offer, exits.websocket).await;
        drop(place);
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
