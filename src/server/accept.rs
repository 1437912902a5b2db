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
        Framing, Handover, HandoverIo, Offer, StallGuard, WebSocketConfig,
        shard::{Arrival, Shards},
        stream, websocket,
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
            let place = Place { _permit: permit, _running: shutdown.token() };
            let io = StallGuard::new(
                stream,
                peer.clone(),
                connections.telemetry().clone(),
                config.write_stall,
            );
            let (router, exits) = (router.clone(), exits.clone());
            let ending = shutdown.clone();
            // Counted by its place, wherever that goes.
            shutdown.spawn_held(async move {
                // HTTP takes some 15 KiB for each connection. In a storm of them most are
                // yet to say something, and until then they take next to nothing.
                let Some(begun) = begins(io.get_ref(), &config, &ending).await else { return };
                let config = Config { header_timeout: begun.time_left, ..config };
                let handover = Arc::new(Handover::default());
                let io = HandoverIo::new(io, begun.bytes, handover.clone());
                let connection = Connection { peer, admission, handover };
                // On the heap, and gone before what comes next.
                let serving = Box::pin(serve(io, connection, router, config, &ending));
                if let Some(left) = serving.await {
                    Box::pin(leave_http(left, place, exits, &ending)).await;
                }
            });
        }
    }
}

/// The beginning of a request.
struct Begun {
    /// What was read of it: at least a byte.
    bytes: Bytes,
    /// Time left for the rest of its head.
    time_left: Duration,
}

/// Reads what comes first. None if nothing comes in time, or ever.
async fn begins(stream: &TcpStream, config: &Config, shutdown: &Shutdown) -> Option<Begun> {
    let accepted = Instant::now();
    let bytes = tokio::select! {
        bytes = tokio::time::timeout(config.header_timeout, first_bytes(stream)) => bytes.ok()?.ok()?,
        () = shutdown.finishing() => return None,
    };
    let time_left = config.header_timeout.saturating_sub(accepted.elapsed());
    (!bytes.is_empty()).then_some(Begun { bytes, time_left })
}

/// Reads, and does not ask whether there is something to read: tokio takes a socket that
/// was just accepted for readable until a read has found nothing.
async fn first_bytes(stream: &TcpStream) -> io::Result<Bytes> {
    loop {
        stream.readable().await?;
        // On the stack, so that a connection that waits holds none of it.
        let mut buffer = [0; FIRST_READ_BYTES_MAX];
        match stream.try_read(&mut buffer) {
            Ok(read) => return Ok(Bytes::copy_from_slice(&buffer[..read])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A session that leaves HTTP.
struct Left {
    io: StallGuard<TcpStream>,
    offer: Offer,
    /// What was read after the request.
    read_ahead: Bytes,
}

/// Serves HTTP until the connection ends, or a session leaves with it.
async fn serve(
    io: HandoverIo<StallGuard<TcpStream>>,
    connection: Connection,
    router: Router,
    config: Config,
    shutdown: &Shutdown,
) -> Option<Left> {
    let address = connection.peer.addr;
    let handover = connection.handover.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        // On the heap, so that the connection can be taken apart.
        Box::pin(router.clone().call(request))
    });
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.header_bytes_max)
        .serve_connection(TokioIo::new(io), service);
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
        return None;
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

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const CONFIG: Config = Config {
        header_timeout: Duration::from_secs(5),
        header_bytes_max: 16 << 10,
        write_stall: Duration::from_secs(20),
        send_buffer_bytes: 32 << 10,
    };

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), &CONFIG).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// A client that has said nothing yet is not HTTP's business.
    #[tokio::test]
    async fn a_connection_begins_with_its_first_byte() {
        let (mut near, far) = pair().await;
        let shutdown = Shutdown::new();
        let mut begun = pin!(begins(&far, &CONFIG, &shutdown));
        // The second time it has been looked at whether there is something to read.
        for _ in 0..2 {
            let pending = poll_fn(|context| Poll::Ready(begun.as_mut().poll(context).is_pending()));
            assert!(pending.await);
            tokio::task::yield_now().await;
        }
        near.write_all(b"G").await.unwrap();
        let begun = begun.await.unwrap();
        assert_eq!(begun.bytes, "G");
        assert!(begun.time_left <= CONFIG.header_timeout);
    }

    #[tokio::test]
    async fn a_connection_that_ends_unheard_does_not_begin() {
        let (near, far) = pair().await;
        drop(near);
        assert!(begins(&far, &CONFIG, &Shutdown::new()).await.is_none());
        let (_near, far) = pair().await;
        let shutdown = Shutdown::new();
        tokio::join!(shutdown.run(Duration::ZERO, || ()), async {
            assert!(begins(&far, &CONFIG, &shutdown).await.is_none());
        });
    }
}
