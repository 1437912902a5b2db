//! An upstream whose every byte the test writes itself: for what the simulated cloud would
//! not say.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::within;

/// A port that waits for the broker.
pub struct Stub {
    listener: TcpListener,
}

/// A request of the broker; the test answers it.
pub struct Asked {
    /// Its head, as it came.
    pub head: String,
    /// What came of its body with the head.
    ahead: Vec<u8>,
    socket: TcpStream,
}

impl Stub {
    /// Listens on a free port.
    pub async fn listen() -> Stub {
        Stub { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Its address with a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr())
    }

    /// The next request.
    pub async fn asked(&self) -> Asked {
        match self.accepted().await {
            Ok(asked) => asked,
            Err(head) => panic!("left after {:?}", String::from_utf8_lossy(&head)),
        }
    }

    /// The next request, of a client that may open connections only to see whether it can.
    pub async fn next_request(&self) -> Asked {
        loop {
            if let Ok(asked) = self.accepted().await {
                return asked;
            }
        }
    }

    async fn accepted(&self) -> Result<Asked, Vec<u8>> {
        let (mut socket, _) = within("a request", self.listener.accept()).await.unwrap();
        let mut head = Vec::new();
        let end = loop {
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if within("its head", socket.read_buf(&mut head)).await.unwrap() == 0 {
                return Err(head);
            }
        };
        let ahead = head.split_off(end);
        Ok(Asked { head: String::from_utf8(head).unwrap(), ahead, socket })
    }
}

impl Asked {
    /// The value of a header of the request, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The path asked for.
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// Its body.
    pub async fn body(&mut self) -> String {
        let length = self.header("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = std::mem::take(&mut self.ahead);
        while body.len() < length {
            let read = within("its body", self.socket.read_buf(&mut body)).await.unwrap();
            assert!(read > 0, "left within its body");
        }
        String::from_utf8(body).unwrap()
    }

    /// Completes once the far end has left.
    pub async fn hung_up(mut self) {
        while matches!(self.socket.read(&mut [0; 512]).await, Ok(1..)) {}
    }

    /// Answers with a whole response, and closes.
    pub async fn answer(mut self, status: &str, headers: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n", body.len());
        self.send(&format!("{head}Connection: close\r\n\r\n{body}")).await;
    }

    /// Begins an event stream that lasts until this is dropped, which ends it in good order.
    pub async fn stream(&mut self) {
        self.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, text: &str) {
        within("send", self.socket.write_all(text.as_bytes())).await.unwrap();
    }
}
