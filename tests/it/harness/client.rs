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
    ask(addr, "GET", path, headers).await
}

/// `method path` on a connection of its own.
pub async fn ask(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = request(method, path, headers, "close");
    let answer = raw_until_closed(addr, request.as_bytes()).await;
    let (head, body) = answer_in(answer.as_bytes());
    assert!(!head.is_empty(), "no head: {answer:?}");
    Answer { status: status(&head), head, body: String::from_utf8(body).unwrap() }
}

/// Head, in lower case, and body, without its chunk framing, of an answer that may end
/// anywhere. The head is empty unless it is whole.
pub fn answer_in(bytes: &[u8]) -> (String, Vec<u8>) {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return (String::new(), Vec::new());
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let is_plain = header(&head, "transfer-encoding") != Some("chunked");
    let mut dechunker = Dechunker { is_plain, ..Dechunker::default() };
    let body = dechunker.feed(&bytes[end + 4..]);
    (head, body)
}

/// The whole events in the body of an event stream that may end anywhere.
pub fn events_in(body: &[u8]) -> Vec<Event> {
    let mut parser = sse_parse::SseParser::new();
    parser.feed(body);
    std::iter::from_fn(|| parser.next_event())
        .map(|event| Event { kind: event.event, data: event.data, id: event.id })
        .collect()
}

/// The head of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], connection: &str) -> String {
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nHost: broker\r\nConnection: {connection}\r\n");
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

/// Reads until `bytes` holds a whole head, and says where it ends.
pub async fn read_head(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> usize {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            return end;
        }
        let read = within("head", socket.read_buf(bytes)).await.unwrap();
        let so_far = String::from_utf8_lossy(bytes);
        assert!(read > 0, "closed before the head was whole: {so_far:?}");
    }
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
    /// Of them, how many [`Stream::line`] has returned.
    lined: usize,
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
        within("send", socket.write_all(request("GET", path, &all, "keep-alive").as_bytes()))
            .await
            .unwrap();
        let mut bytes = Vec::new();
        let head_end = read_head(&mut socket, &mut bytes).await;
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
            lined: 0,
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

    /// The next line of the body, without its line feed; none if it ends before.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            let rest = &self.body[self.lined..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8(rest[..end].to_vec()).unwrap();
                self.lined += end + 1;
                return Some(line);
            }
            if self.ended {
                assert!(rest.is_empty(), "half a line: {:?}", String::from_utf8_lossy(rest));
                return None;
            }
            self.read().await;
        }
    }

    /// The next line that is not blank; fails if the body ends before.
    pub async fn full_line(&mut self) -> String {
        loop {
            match self.line().await {
                Some(line) if line.is_empty() => {}
                Some(line) => return line,
                None => panic!("ended after {:?}", String::from_utf8_lossy(&self.body)),
            }
        }
    }

    /// The same, as JSON.
    pub async fn object(&mut self) -> Value {
        serde_json::from_str(&self.full_line().await).unwrap()
    }

    /// The body so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
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
        WebSocket::open_with(addr, path, &[]).await
    }

    /// The same, with further headers, their names in lower case.
    pub async fn open_with(
        addr: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> WebSocket {
        let socket = within("connect", TcpStream::connect(addr)).await.unwrap();
        let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "fanlight.v1".parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
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
        // Over all of them: pings that keep coming are no sign of the message.
        within("a message", async {
            loop {
                match self.frame().await {
                    tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_) => {}
                    message => return message,
                }
            }
        })
        .await
    }

    /// The next message of any kind.
    pub async fn frame(&mut self) -> tungstenite::Message {
        use futures_util::StreamExt as _;
        let message = within("a message", self.inner.next()).await;
        message.expect("the socket ended without a close frame").unwrap()
    }

    /// Closes it, and waits until the broker has answered.
    pub async fn close(mut self) {
        self.send(tungstenite::Message::Close(None)).await;
        self.drained().await;
    }

    /// Reads until the connection ends, which also answers a close of the broker.
    pub async fn drained(mut self) {
        use futures_util::StreamExt as _;
        while let Some(Ok(_)) = within("the end", self.inner.next()).await {}
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

impl WebSocket {
    /// The next message as text.
    pub async fn text(&mut self) -> String {
        match self.message().await {
            tungstenite::Message::Text(text) => text.as_str().to_owned(),
            other => panic!("{other:?}"),
        }
    }
}
