//! A client that hides nothing: it knows how a body ended and what its chunks were.

use std::{io, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::super::*;

pub(super) const MINE: &str = "/v1/devices/events";

pub(super) fn fixed() -> Timestamp {
    "2026-05-04T09:00:01.104Z".parse().unwrap()
}

/// Without devices' events, at a fixed wall clock.
pub(super) fn quiet() -> Config {
    Config { events_per_second: 0.0, wall: fixed, ..Config::default() }
}

pub(super) async fn start(config: Config) -> Simulator {
    Simulator::start(config).await.unwrap()
}

pub(super) fn fault(text: &str) -> Fault {
    text.parse().unwrap()
}

/// How a body ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Clean,
    Severed,
    Reset,
}

pub(super) struct Client {
    pub(super) socket: TcpStream,
    /// Read and not yet understood.
    pub(super) raw: Vec<u8>,
    pub(super) head: String,
    /// The body so far, out of its chunks.
    pub(super) body: Vec<u8>,
    pub(super) chunks: Vec<usize>,
    clean: bool,
}

impl Client {
    pub(super) async fn send(simulator: &Simulator, request: &str) -> Client {
        let mut socket = TcpStream::connect(simulator.addr()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        Client {
            socket,
            raw: vec![],
            head: String::new(),
            body: vec![],
            chunks: vec![],
            clean: false,
        }
    }

    /// Asks for a path and reads the head of the answer.
    pub(super) async fn open(simulator: &Simulator, path: &str) -> Client {
        Client::open_with(simulator, path, "").await
    }

    pub(super) async fn open_with(simulator: &Simulator, path: &str, headers: &str) -> Client {
        let mut client =
            Client::send(simulator, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"))
                .await;
        client.read_head().await;
        client
    }

    pub(super) async fn read_head(&mut self) {
        loop {
            if let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.raw.drain(..end + 4).collect();
                self.head = String::from_utf8(head).unwrap();
                return;
            }
            assert_ne!(self.read().await.unwrap(), 0, "no head");
        }
    }

    pub(super) async fn read(&mut self) -> io::Result<usize> {
        // A guard against hanging; no test depends on how long it is.
        timeout(Duration::from_secs(20), self.socket.read_buf(&mut self.raw))
            .await
            .expect("nothing to read")
    }

    fn unchunk(&mut self) {
        while let Some(line) = self.raw.windows(2).position(|two| two == b"\r\n") {
            let size =
                usize::from_str_radix(std::str::from_utf8(&self.raw[..line]).unwrap(), 16).unwrap();
            if self.raw.len() < line + 2 + size + 2 {
                return;
            }
            self.body.extend_from_slice(&self.raw[line + 2..line + 2 + size]);
            assert_eq!(&self.raw[line + 2 + size..line + 4 + size], b"\r\n");
            self.raw.drain(..line + 4 + size);
            self.chunks.push(size);
            if size == 0 {
                self.clean = true;
                return;
            }
        }
    }

    /// The body once it has at least so many bytes.
    pub(super) async fn body_of(&mut self, length: usize) -> String {
        self.unchunk();
        while self.body.len() < length {
            assert_ne!(
                self.read().await.unwrap(),
                0,
                "ended after {:?}",
                String::from_utf8_lossy(&self.body)
            );
            self.unchunk();
        }
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body once it contains this.
    pub(super) async fn body_with(&mut self, text: &str) -> String {
        loop {
            let body = self.body_of(self.body.len()).await;
            match body.contains(text) {
                true => return body,
                false => drop(self.body_of(self.body.len() + 1).await),
            }
        }
    }

    pub(super) async fn end(&mut self) -> Ended {
        loop {
            self.unchunk();
            if self.clean {
                return Ended::Clean;
            }
            match self.read().await {
                Ok(0) => return Ended::Severed,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ended::Reset;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.head["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// A body with a length, whole.
    pub(super) async fn text(&mut self) -> String {
        let length: usize = self.header("content-length").unwrap().parse().unwrap();
        while self.raw.len() < length {
            assert_ne!(self.read().await.unwrap(), 0);
        }
        String::from_utf8(self.raw.drain(..length).collect()).unwrap()
    }

    pub(super) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }
}

pub(super) async fn post(
    simulator: &Simulator,
    path: &str,
    content_type: &str,
    body: &str,
) -> Client {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {length}"
    );
    let mut client = Client::send(simulator, &format!("{head}\r\n\r\n{body}")).await;
    client.read_head().await;
    client
}
