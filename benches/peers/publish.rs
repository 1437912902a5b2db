//! How events get into each peer.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    event::Event,
    peer::Transport,
    upstream::{Backend, Upstream},
};

/// Longest wait for the answer to a publish. nchan answers after its own fan-out.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A token for a key of no secrecy, `peers-bench-not-a-secret-0123456789`, that may publish all.
const MERCURE_TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJtZXJjdXJlIjp7InB1Ymxpc2giOlsiKiJdfX0.hhcdWeZPIKxqV7WvH7zhPt9NnAIUZpWEPBtH0PU_-oA";

/// Where events go in.
#[derive(Debug)]
pub(crate) enum Publisher {
    /// Bytes of the stream, to the broker that reads it.
    Upstream(Upstream),
    /// What the floor passes on, already rendered.
    Floor { stream: TcpStream, transport: Transport },
    /// A request for each event, or one for all.
    Http(Http),
}

/// A publisher over HTTP.
#[derive(Debug)]
pub(crate) struct Http {
    address: SocketAddr,
    api: Api,
    connection: Option<TcpStream>,
    /// Requests sent whose answer was not read.
    unanswered: usize,
}

/// What a publish request looks like.
#[derive(Debug)]
pub(crate) enum Api {
    /// One POST an event, all pipelined on one connection.
    Nchan,
    /// One POST for all events, on a connection of its own: the server closes each.
    Pushpin { _backend: Backend },
    /// One POST for all events.
    Centrifugo,
    /// One POST an event, pipelined.
    Mercure,
}

impl Publisher {
    /// Sends events and does not wait: an answer may come only after the fan-out.
    pub(crate) fn publish(&mut self, events: &[Event]) -> Result<()> {
        match self {
            Publisher::Upstream(upstream) => {
                upstream.write(events.iter().map(upstream_bytes).collect::<String>().as_bytes())
            }
            Publisher::Floor { stream, transport } => {
                let chunk: Vec<u8> =
                    events.iter().flat_map(|event| floor_bytes(event, *transport)).collect();
                stream.write_all(&chunk).context("the floor takes no events")
            }
            Publisher::Http(http) => http.publish(events),
        }
    }

    /// Gives up on answers that are missing: what was sent last did not come through.
    pub(crate) fn forget(&mut self) {
        if let Publisher::Http(http) = self {
            http.connection = None;
            http.unanswered = 0;
        }
    }

    /// Waits for the answers that are missing, and fails if one is no success.
    pub(crate) fn settle(&mut self) -> Result<()> {
        match self {
            Publisher::Upstream(_) | Publisher::Floor { .. } => Ok(()),
            Publisher::Http(http) => http.settle(),
        }
    }
}

/// An event as the cloud sends it.
fn upstream_bytes(event: &Event) -> String {
    format!("event: {}\ndata: {}\n\n", event.name, event.data)
}

/// An event as a broker would frame it: about the bytes that Fanlight sends for it.
fn floor_bytes(event: &Event, transport: Transport) -> Vec<u8> {
    let Event { name, data, seq } = event;
    let fields = &data[1..];
    match transport {
        Transport::Sse => {
            format!("id: 6n3k2ahq-{seq}\ndata: {{\"name\":\"{name}\",{fields}\n\n").into_bytes()
        }
        Transport::WebSocket => {
            let text = format!("{{\"id\":\"6n3k2ahq-{seq}\",\"name\":\"{name}\",{fields}");
            ws_frame(text.as_bytes())
        }
    }
}

/// A text frame as a server sends it, unmasked.
fn ws_frame(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(bytes @ 0..126) => frame.push(bytes.to_le_bytes()[0]),
        Ok(bytes) => {
            frame.push(126);
            frame.extend_from_slice(&bytes.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(text);
    frame
}

// === impl Http ===

impl Http {
    pub(crate) fn new(address: SocketAddr, api: Api) -> Http {
        Http { address, api, connection: None, unanswered: 0 }
    }

    fn publish(&mut self, events: &[Event]) -> Result<()> {
        let requests = self.api.requests(events);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let stream = TcpStream::connect(self.address).context("cannot publish")?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_MAX))?;
                stream.set_write_timeout(Some(ANSWER_MAX))?;
                none.insert(stream)
            }
        };
        self.unanswered += requests.len();
        connection.write_all(&requests.concat()).context("the peer takes no events")
    }

    fn settle(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        while self.unanswered > 0 {
            let stream = self.connection.as_mut().context("a connection with requests on it")?;
            let answer = read_answer(stream, &mut bytes)?;
            ensure!((200..300).contains(&answer.status), "a publish was answered {answer:?}");
            self.unanswered -= 1;
            if answer.closes {
                ensure!(self.unanswered == 0, "the peer closed with answers missing");
                self.connection = None;
            }
        }
        ensure!(bytes.is_empty(), "an answer to nothing");
        Ok(())
    }
}

impl Api {
    fn requests(&self, events: &[Event]) -> Vec<Vec<u8>> {
        let json = "application/json";
        match self {
            Api::Nchan => {
                events.iter().map(|event| post("/pub", json, "", event.data.as_bytes())).collect()
            }
            Api::Pushpin { .. } => {
                let item = |event: &Event| {
                    let frame = format!("id: {}\ndata: {}\n\n", event.seq, event.data);
                    json!({
                        "channel": "bench",
                        "formats": {
                            "http-stream": { "content": frame },
                            "ws-message": { "content": event.data },
                        },
                    })
                };
                let items: Vec<_> = events.iter().map(item).collect();
                let body = json!({ "items": items }).to_string();
                vec![post("/publish/", json, "Connection: close\r\n", body.as_bytes())]
            }
            Api::Centrifugo => {
                let publish = |event: &Event| {
                    let data: serde_json::Value =
                        serde_json::from_str(&event.data).unwrap_or_default();
                    json!({ "publish": { "channel": "bench", "data": data } })
                };
                let commands: Vec<_> = events.iter().map(publish).collect();
                let body = json!({ "commands": commands }).to_string();
                vec![post("/api/batch", json, "", body.as_bytes())]
            }
            Api::Mercure => {
                let form = "application/x-www-form-urlencoded";
                let token = format!("Authorization: Bearer {MERCURE_TOKEN}\r\n");
                let request = |event: &Event| {
                    let body = url::form_urlencoded::Serializer::new(String::new())
                        .append_pair("topic", "bench")
                        .append_pair("data", &event.data)
                        .finish();
                    post("/.well-known/mercure", form, &token, body.as_bytes())
                };
                events.iter().map(request).collect()
            }
        }
    }
}

fn post(path: &str, content_type: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n{headers}\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// What matters of an answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    closes: bool,
}

/// Reads one answer and leaves in `bytes` what came behind it.
fn read_answer(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<Answer> {
    let mut more = |bytes: &mut Vec<u8>| -> Result<usize> {
        let mut chunk = [0; 8192];
        let read = stream.read(&mut chunk).context("no answer to a publish")?;
        bytes.extend_from_slice(&chunk[..read]);
        ensure!(bytes.len() <= ANSWER_BYTES_MAX, "an answer without end");
        Ok(read)
    };
    let head_end = loop {
        match find(bytes, b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => ensure!(more(bytes)? > 0, "the peer closed instead of answering"),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let header = |name: &str| {
        head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    };
    let status: u16 = head.get(9..12).unwrap_or_default().parse().context("no status")?;
    let closes = header("connection") == Some("close");
    let end = if let Some(length) = header("content-length") {
        head_end + length.parse::<usize>()?
    } else if header("transfer-encoding") == Some("chunked") {
        // The bodies are small and hold no such line of their own.
        loop {
            match find(&bytes[head_end..], b"0\r\n\r\n") {
                Some(at) => break head_end + at + 5,
                None => ensure!(more(bytes)? > 0, "the peer closed within an answer"),
            }
        }
    } else if closes {
        while more(bytes)? > 0 {}
        bytes.len()
    } else {
        head_end
    };
    while bytes.len() < end {
        ensure!(more(bytes)? > 0, "the peer closed within an answer");
    }
    bytes.drain(..end);
    Ok(Answer { status, closes })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}
