//! A connection on its way to be a subscriber: connect, ask, read the head of the answer.
//!
//! Law: a failure says what the server said, or what the system said.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use memchr::memmem;
use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

use super::{Plan, Protocol, chunks::Chunks, frames::Walk, member::Framing};

/// A head longer than this is none.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// One read while the head comes. What stands behind the head is less than this and counts.
const READ_BYTES_MAX: usize = 16 << 10;
/// Of a status line.
const REASON_CHARS_MAX: usize = 100;
/// `SO_RCVBUF` of those that never read: the least that Linux gives, about.
const STALLED_BUFFER_BYTES: usize = 4 << 10;

/// The connection so far.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) socket: TcpStream,
    pub(super) started: Instant,
    /// Bytes of the request that are written.
    written: usize,
    head: Vec<u8>,
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Advance {
    /// Something has to come first.
    Waiting,
    /// The head is there; behind it came this much of the body.
    Open { framing: Framing, body: Vec<u8> },
    /// It will not become a subscriber.
    Failed(String),
}

impl Opening {
    /// Begins to connect subscriber `number`.
    pub(super) fn begin(plan: &Plan, number: usize, now: Instant) -> io::Result<Opening> {
        let target = plan.targets[number % plan.targets.len()];
        let source = plan.sources.get(number % plan.sources.len().max(1));
        let buffer = match number < plan.stalled {
            true => Some(STALLED_BUFFER_BYTES),
            false => plan.receive_buffer_bytes,
        };
        let socket = connect(target, source.copied(), buffer)?;
        Ok(Opening { socket, started: now, written: 0, head: Vec::new() })
    }

    /// Goes on after the socket became ready.
    pub(super) fn advance(&mut self, request: &[u8], protocol: Protocol) -> Advance {
        match self.try_advance(request, protocol) {
            Ok(advance) => advance,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::NotConnected => Advance::Waiting,
                _ => Advance::Failed(error.to_string()),
            },
        }
    }

    fn try_advance(&mut self, request: &[u8], protocol: Protocol) -> io::Result<Advance> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        while self.written < request.len() {
            self.written += self.socket.write(&request[self.written..])?;
        }
        loop {
            let before = self.head.len();
            self.head.resize(before + READ_BYTES_MAX, 0);
            let read = self.socket.read(&mut self.head[before..]);
            self.head.truncate(before + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(Advance::Failed("closed before the head of the answer".to_owned()));
            }
            // The end of the head may be split over two reads.
            let from = before.saturating_sub(3);
            if let Some(at) = memmem::find(&self.head[from..], b"\r\n\r\n") {
                let (head, body) = self.head.split_at(from + at + 4);
                return Ok(match framing(&String::from_utf8_lossy(head), protocol) {
                    Ok(framing) => Advance::Open { framing, body: body.to_vec() },
                    Err(reason) => Advance::Failed(reason),
                });
            }
            if self.head.len() > HEAD_BYTES_MAX {
                return Ok(Advance::Failed(format!("a head longer than {HEAD_BYTES_MAX} bytes")));
            }
        }
    }
}

/// The request that every subscriber sends.
pub(super) fn request(plan: &Plan) -> Vec<u8> {
    let mut lines = vec![format!("GET {} HTTP/1.1", plan.path), format!("Host: {}", plan.host)];
    let own: &[&str] = match plan.protocol {
        Protocol::Sse => &["Accept: text/event-stream"],
        // The key of RFC 6455's example: what the server makes of it is not checked.
        Protocol::WebSocket => &[
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ],
    };
    lines.extend(own.iter().map(|line| (*line).to_owned()));
    lines.extend(plan.headers.iter().cloned());
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

/// How the body of a subscriber is framed, or why this head makes none.
fn framing(head: &str, protocol: Protocol) -> Result<Framing, String> {
    let (status_line, headers) = head.split_once("\r\n").unwrap_or_default();
    let status = status_line.split(' ').nth(1).unwrap_or_default();
    let headers = headers.to_ascii_lowercase();
    let has = |name: &str, value: &str| {
        let mut values =
            headers.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.any(|found| found.contains(value))
    };
    match (protocol, status) {
        (Protocol::WebSocket, "101") => Ok(Framing::Frames(Walk::default())),
        (Protocol::Sse, "200") if !has("content-type", "text/event-stream") => {
            Err(format!("{status_line}, but no event stream"))
        }
        (Protocol::Sse, "200") if has("transfer-encoding", "chunked") => {
            Ok(Framing::Chunks(Chunks::BEGIN))
        }
        (Protocol::Sse, "200") => Ok(Framing::Plain),
        (_, "401") => Err(format!(
            "{}: it asks who comes; say it with --token-file or FANLIGHT_TOKEN",
            status_line.chars().take(REASON_CHARS_MAX).collect::<String>()
        )),
        _ => Err(status_line.chars().take(REASON_CHARS_MAX).collect()),
    }
}

fn connect(
    target: SocketAddr,
    source: Option<IpAddr>,
    receive_buffer_bytes: Option<usize>,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&target.into()) {
        Err(error) if !is_under_way(&error) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

fn is_under_way(error: &io::Error) -> bool {
    let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(in_progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_makes_no_subscriber_is_the_reason() {
        let refused = |head, protocol| framing(head, protocol).unwrap_err();
        let stream = "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream\r\n\r\n";
        assert_eq!(refused(stream, Protocol::WebSocket), "HTTP/1.1 200 OK");
        let full = refused("HTTP/1.1 503 Service Unavailable\r\n\r\n", Protocol::Sse);
        assert_eq!(full, "HTTP/1.1 503 Service Unavailable");
        let page = refused("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", Protocol::Sse);
        assert_eq!(page, "HTTP/1.1 200 OK, but no event stream");
    }

    #[test]
    fn the_head_says_what_stands_around_the_events() {
        let stream = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
        let chunked = format!("{stream}Transfer-Encoding: chunked\r\n\r\n");
        assert!(matches!(framing(&chunked, Protocol::Sse), Ok(Framing::Chunks(_))));
        let plain = format!("{stream}\r\n");
        assert!(matches!(framing(&plain, Protocol::Sse), Ok(Framing::Plain)));
        let upgraded = framing("HTTP/1.1 101 Switching Protocols\r\n\r\n", Protocol::WebSocket);
        assert!(matches!(upgraded, Ok(Framing::Frames(_))));
    }

    #[test]
    fn the_request_ends_with_the_headers_asked_for() {
        let mut plan = Plan::new(([127, 0, 0, 1], 80).into(), "/events?x=1", 1);
        plan.headers = vec!["A: b".to_owned()];
        let text = String::from_utf8(request(&plan)).unwrap();
        let expected = "GET /events?x=1 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\
            Accept: text/event-stream\r\nA: b\r\n\r\n";
        assert_eq!(text, expected);
    }
}
