//! The accept loop: from a listening port to requests on the router.
//!
//! Law: every connection has a place, a time for its head, a bound on its buffers and
//! an end. The stock loop has no time for the head, no cap, and never ends while a
//! stream is open.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tower::Service as _;

use crate::{delivery::StallGuard, transport::Peer};

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

/// Kernel receive buffer asked for: requests are small, and what a client sends into
/// a stream is never read.
const RECEIVE_BUFFER_BYTES: usize = 16 << 10;
/// Connections that wait to be accepted; Linux cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long the loop rests when there are no file descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Time after which unacknowledged bytes end a connection (tcp(7)): a peer that
/// vanished without a word.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a request knows of its connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The far end.
    pub(super) peer: Arc<Peer>,
    /// What it may do.
    pub(super) admission: Admission,
    /// Its place, held for as long as anyone knows the connection: a WebSocket lives on
    /// after the end of HTTP.
    _permit: Arc<Permit>,
}

/// A port that listens, with the buffers its connections inherit.
pub(super) fn bind(address: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Set before listening, so that the window a client is offered fits the buffer.
    socket.set_send_buffer_size(config.send_buffer_bytes)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections and serves `router` on them until told to finish.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
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
            if let Err(error) = prepare(&stream) {
                tracing::debug!(peer = %address, %error, "connection lost before it began");
                continue;
            }
            let peer = Arc::new(Peer::new(address));
            let connection = Connection { peer, admission, _permit: Arc::new(permit) };
            let io = StallGuard::new(
                stream,
                connection.peer.clone(),
                connections.telemetry().clone(),
                config.write_stall,
            );
            shutdown.spawn(serve(io, connection, router.clone(), config, shutdown.clone()));
        }
    }
}

async fn serve(
    io: StallGuard<TcpStream>,
    connection: Connection,
    router: Router,
    config: Config,
    shutdown: Shutdown,
) {
    let address = connection.peer.addr;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.clone().call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.header_bytes_max)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.finishing() => {
            // Idle connections end now, streams with their goodbye.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "connection ended");
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &socket2::TcpKeepalive::new()
            .with_time(USER_TIMEOUT)
            .with_interval(Duration::from_secs(10)),
    )
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
