//! Clients that show exactly what they got. The event stream is read by `sse-parse`, so
//! that the broker is not tested against its own reading of the standard.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest as _};

use super::within;

/// A whole HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, lower case, as it came.
    pub head: String,
    /// The body, without its chunk framing.
    pub body: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// `GET path` on a connection of its own.
pub async fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = request(path, headers, "close");
    let text = raw_until_closed(addr, request.as_bytes()).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let head = head.to_lowercase();
    let body = match header(&head, "transfer-encoding") {
        Some("chunked") => {
            let mut dechunker = Dechunker::default();
            String::from_utf8(dechunker.feed(body.as_bytes())).unwrap()
        }
        _ => body.to_owned(),
    };
    Answer { status: status(&head), head, body }
}

fn request(path: &str, headers: &[(&str, &str)], connection: &str) -> String {
    let mut text = format!("GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: {connection}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n"
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{head}"))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Sends bytes and returns the open connection.
pub async fn raw(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = within("connect", TcpStream::connect(addr)).await.unwrap();
    within("send", socket.write_all(bytes)).await.unwrap();
    socket
}

/// Sends bytes and returns everything that comes until the far end closes.
pub async fn raw_until_closed(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = within("connect", TcpStream::connect(addr)).await.unwrap();
    // The far end may close before it has read all.
    let _ = within("send", socket.write_all(bytes)).await;
    let mut answer = Vec::new();
    let _ = within("answer", socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The event type: `message` if none was given.
    pub kind: String,
    /// The data.
    pub data: String,
    /// The last event id after this event.
    pub id: String,
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The seq of the id.
    pub fn seq(&self) -> u64 {
        self.id
            .split_once('-')
            .and_then(|(_, seq)| seq.parse().ok())
            .unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// An open event stream.
pub struct Stream {
    socket: TcpStream,
    /// The head, lower case.
    pub head: String,
    dechunker: Dechunker,
    parser: sse_parse::SseParser,
    events: std::collections::VecDeque<Event>,
    /// Body bytes so far, without chunk framing.
    pub body: Vec<u8>,
    ended: bool,
}

impl Stream {
    /// Opens `path` as a browser does; the hello is not yet read.
    pub async fn open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Stream {
        Stream::open_with(addr, path, headers, None).await
    }

    /// The same with a small receive buffer, for a client that will not read.
    pub async fn open_with(
        addr: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        receive_buffer: Option<u32>,
    ) -> Stream {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let mut socket = within("connect", socket.connect(addr)).await.unwrap();
        let mut all = vec![("Accept", "text/event-stream")];
        if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            all.clear();
        }
        all.extend(headers);
        within("send", socket.write_all(request(path, &all, "keep-alive").as_bytes()))
            .await
            .unwrap();
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            let read = within("head", socket.read_buf(&mut bytes)).await.unwrap();
            assert!(
                read > 0,
                "closed before the head was whole: {:?}",
                String::from_utf8_lossy(&bytes)
            );
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap().to_lowercase();
        assert_eq!(status(&head), 200, "{head}");
        let is_chunked = header(&head, "transfer-encoding") == Some("chunked");
        let mut stream = Stream {
            socket,
            head,
            dechunker: Dechunker { is_plain: !is_chunked, ..Dechunker::default() },
            parser: sse_parse::SseParser::new(),
            events: std::collections::VecDeque::new(),
            body: Vec::new(),
            ended: false,
        };
        stream.feed(&bytes[head_end + 4..]);
        stream
    }

    /// Opens `path` and reads its hello.
    pub async fn live(addr: SocketAddr, path: &str) -> (Stream, Event) {
        let mut stream = Stream::open(addr, path, &[]).await;
        let hello = stream.next().await;
        assert_eq!(hello.kind, "fanlight.hello");
        (stream, hello)
    }

    /// The next event; fails if the stream ends.
    pub async fn next(&mut self) -> Event {
        // As a whole too: keep-alives would renew the patience for ever.
        match within("an event", self.try_next()).await {
            Some(event) => event,
            None => panic!("the stream ended after {:?}", String::from_utf8_lossy(&self.body)),
        }
    }

    /// The next event, or none if the stream ends before.
    pub async fn try_next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            self.read().await;
        }
    }

    /// The next `count` events.
    pub async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }

    /// Every event until the stream ends.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.try_next().await {
            events.push(event);
        }
        events
    }

    /// Waits until the body holds `text`.
    pub async fn body_holds(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.body).contains(text) {
            assert!(
                !self.ended,
                "ended without {text:?}: {:?}",
                String::from_utf8_lossy(&self.body)
            );
            self.read().await;
        }
    }

    /// True if the body ended as HTTP wants it, not in a broken connection.
    pub fn ended_cleanly(&self) -> bool {
        self.ended && self.dechunker.is_finished
    }

    /// The socket, for tests of what lies below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    async fn read(&mut self) {
        let mut bytes = Vec::with_capacity(16 << 10);
        let read = within("more of the stream", self.socket.read_buf(&mut bytes)).await;
        match read {
            Ok(0) | Err(_) => self.ended = true,
            Ok(_) => self.feed(&bytes),
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let body = self.dechunker.feed(bytes);
        self.ended |= self.dechunker.is_finished;
        self.body.extend_from_slice(&body);
        self.parser.feed(&body);
        while let Some(event) = self.parser.next_event() {
            self.events.push_back(Event { kind: event.event, data: event.data, id: event.id });
        }
    }
}

/// Takes HTTP/1.1 chunk framing off.
#[derive(Default)]
struct Dechunker {
    is_plain: bool,
    pending: Vec<u8>,
    left: usize,
    is_finished: bool,
}

impl Dechunker {
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.is_plain {
            return bytes.to_vec();
        }
        self.pending.extend_from_slice(bytes);
        let mut body = Vec::new();
        loop {
            if self.left > 0 {
                // The chunk's own end, CR LF, is counted into `left`.
                let take = self.left.min(self.pending.len());
                let data = take.min(self.left.saturating_sub(2));
                body.extend_from_slice(&self.pending[..data]);
                self.pending.drain(..take);
                self.left -= take;
                if self.left > 0 {
                    return body;
                }
            }
            let Some(end) = self.pending.windows(2).position(|window| window == b"\r\n") else {
                return body;
            };
            let size = std::str::from_utf8(&self.pending[..end]).unwrap();
            let size =
                usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {size:?}"));
            self.pending.drain(..end + 2);
            if size == 0 {
                self.is_finished = true;
                return body;
            }
            self.left = size + 2;
        }
    }
}

/// An open WebSocket.
pub struct WebSocket {
    inner: tokio_tungstenite::WebSocketStream<TcpStream>,
}

impl WebSocket {
    /// Opens `path` with the subprotocol.
    pub async fn open(addr: SocketAddr, path: &str) -> WebSocket {
        let socket = within("connect", TcpStream::connect(addr)).await.unwrap();
        let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "fanlight.v1".parse().unwrap());
        let opened = within("handshake", tokio_tungstenite::client_async(request, socket)).await;
        let (inner, response) = opened.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "fanlight.v1");
        WebSocket { inner }
    }

    /// The next message as JSON.
    pub async fn next(&mut self) -> Value {
        match self.message().await {
            tungstenite::Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The next message of any kind but pings and pongs.
    pub async fn message(&mut self) -> tungstenite::Message {
        use futures_util::StreamExt as _;
        loop {
            let message = within("a message", self.inner.next()).await;
            match message.expect("the socket ended without a close frame").unwrap() {
                tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// Sends a message.
    pub async fn send(&mut self, message: tungstenite::Message) {
        use futures_util::SinkExt as _;
        within("send", self.inner.send(message)).await.unwrap();
    }

    /// The close code and reason with which the broker ends it.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let tungstenite::Message::Close(Some(frame)) = self.message().await {
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }
}

impl Stream {
    /// The next line of an NDJSON body, taken out of it; blank ones are passed over.
    pub async fn line(&mut self) -> String {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.body) {
                let line: Vec<u8> = self.body.drain(..=end).take(end).collect();
                if !line.is_empty() {
                    return String::from_utf8(line).unwrap();
                }
                continue;
            }
            assert!(!self.ended, "ended within {:?}", String::from_utf8_lossy(&self.body));
            self.read().await;
        }
    }
}

impl WebSocket {
    /// The next message as text.
    pub async fn text(&mut self) -> String {
        match self.message().await {
            tungstenite::Message::Text(text) => text.as_str().to_owned(),
            other => panic!("{other:?}"),
        }
    }
}
