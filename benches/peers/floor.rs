//! The floor: what the kernel alone asks for a delivery.
//!
//! One thread, one epoll: accepts, answers each request with a head, and passes every chunk that
//! comes from the publisher to all sockets, one `send` each. The chunk is already rendered, and
//! nothing is allocated or looked up for a delivery: a loop over sockets. No broker can be
//! cheaper a delivery without fewer system calls.
//!
//! It keeps nothing for a client that does not read: what does not fit into its socket is lost.
//! So it has no place in scenarios with slow clients.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
};

use anyhow::{Context as _, Result};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const SUBSCRIBERS: Token = Token(0);
const PUBLISHERS: Token = Token(1);
const PUBLISHER: Token = Token(2);
/// Tokens of clients begin here.
const CLIENTS: usize = 3;
/// Most bytes passed on in one turn: a burst of 50 events of 250 bytes fits.
const CHUNK_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted: a rush of them must not wait for TCP to try again.
const BACKLOG: i32 = 4096;
const CLIENTS_MAX: usize = 1 << 16;
const HEAD_BYTES_MAX: usize = 8 << 10;
const SSE_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n:ok\n\n";

/// A socket and where it stands.
struct Client {
    stream: TcpStream,
    /// The head so far; None once it was answered.
    head: Option<Vec<u8>>,
}

/// Serves subscribers on one address and one publisher on another until it is killed.
pub(crate) fn serve(subscribers: SocketAddr, publishers: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let (mut listener, mut entrance) = (listen(subscribers)?, listen(publishers)?);
    poll.registry().register(&mut listener, SUBSCRIBERS, Interest::READABLE)?;
    poll.registry().register(&mut entrance, PUBLISHERS, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut publisher: Option<TcpStream> = None;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                SUBSCRIBERS => accept(&poll, &listener, &mut clients)?,
                PUBLISHERS => {
                    let (mut stream, _) = entrance.accept()?;
                    poll.registry().register(&mut stream, PUBLISHER, Interest::READABLE)?;
                    publisher = Some(stream);
                }
                PUBLISHER => {
                    let from = publisher.as_mut().context("a publisher")?;
                    while let Ok(bytes @ 1..) = from.read(&mut chunk) {
                        deliver(&clients, &chunk[..bytes]);
                    }
                }
                Token(token) => {
                    let slot = &mut clients[token - CLIENTS];
                    if slot.as_mut().is_some_and(|client| answer(client).is_err()) {
                        *slot = None;
                    }
                }
            }
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The loop that is measured.
fn deliver(clients: &[Option<Client>], chunk: &[u8]) {
    for client in clients.iter().flatten() {
        if client.head.is_none() {
            // A client that is gone is noticed when its socket becomes readable.
            let _ = (&client.stream).write(chunk);
        }
    }
}

fn accept(poll: &Poll, listener: &TcpListener, clients: &mut Vec<Option<Client>>) -> Result<()> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("cannot accept"),
        };
        anyhow::ensure!(clients.len() < CLIENTS_MAX, "more clients than the floor has room for");
        stream.set_nodelay(true)?;
        let token = Token(CLIENTS + clients.len());
        poll.registry().register(&mut stream, token, Interest::READABLE)?;
        clients.push(Some(Client { stream, head: Some(Vec::new()) }));
    }
}

/// Reads what came. An error means that the client is gone.
fn answer(client: &mut Client) -> Result<()> {
    let mut bytes = [0; 2048];
    loop {
        let read = match client.stream.read(&mut bytes) {
            Ok(0) => anyhow::bail!("gone"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // What comes after the head (a pong, say) is of no interest.
        let Some(head) = &mut client.head else { continue };
        anyhow::ensure!(head.len() + read <= HEAD_BYTES_MAX, "no head");
        head.extend_from_slice(&bytes[..read]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(head);
        let key = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
        });
        let answer = key.map_or_else(
            || SSE_HEAD.to_vec(),
            |key| {
                let accept = derive_accept_key(key.as_bytes());
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                )
                .into_bytes()
            },
        );
        client.stream.write_all(&answer)?;
        client.head = None;
    }
}
