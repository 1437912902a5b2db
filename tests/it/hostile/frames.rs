//! WebSocket frames that break the protocol, and floods of such as do not.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Scene;
use crate::harness::{broker, metric, quiet_cloud, raw, within};

/// A WebSocket whose frames the test makes itself.
struct Raw {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Raw {
    async fn open(addr: SocketAddr) -> Raw {
        let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut raw = Raw { socket: raw(addr, request.as_bytes()).await, bytes: Vec::new() };
        let head = b"\r\n\r\n";
        while !raw.bytes.windows(4).any(|window| window == head) {
            assert!(raw.read().await, "{:?}", String::from_utf8_lossy(&raw.bytes));
        }
        let end = raw.bytes.windows(4).position(|window| window == head).unwrap();
        assert!(raw.bytes.starts_with(b"HTTP/1.1 101 "));
        raw.bytes.drain(..end + 4);
        let (_, hello) = raw.frame().await.unwrap();
        assert!(hello.starts_with(b"{\"fanlight\":\"hello\""));
        raw
    }

    async fn read(&mut self) -> bool {
        matches!(within("bytes", self.socket.read_buf(&mut self.bytes)).await, Ok(1..))
    }

    /// Opcode and payload of the next frame; none if the connection ends.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [first, length, ..] = self.bytes[..] {
                let (head, length) = match length {
                    126 if self.bytes.len() < 4 => (4, usize::MAX - 4),
                    126 => (4, usize::from(u16::from_be_bytes([self.bytes[2], self.bytes[3]]))),
                    127.. => panic!("no message here is that long"),
                    length => (2, usize::from(length)),
                };
                if self.bytes.len() >= head + length {
                    let payload = self.bytes[head..head + length].to_vec();
                    self.bytes.drain(..head + length);
                    return Some((first & 0x0f, payload));
                }
            }
            if !self.read().await {
                return None;
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The far end may have closed before it has read all.
        let _ = within("send", self.socket.write_all(bytes)).await;
    }

    /// The close code with which the broker ends it.
    async fn closed(&mut self) -> u16 {
        loop {
            match self.frame().await.expect("a close frame before the end") {
                (8, payload) => return u16::from_be_bytes([payload[0], payload[1]]),
                (1, payload) => assert!(payload.starts_with(b"{\"id\":"), "{payload:?}"),
                (10, _) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A frame of a client: masked, with a key that changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        0..=125 => bytes.push(0x80 | payload.len() as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

#[tokio::test]
async fn frames_that_break_the_protocol_are_told_so() {
    const TEXT: u8 = 0x81;
    const FRAGMENT: u8 = 0x01;
    let mut scene = Scene::new().await;
    let subscribe = br#"{"subscribe":{}}"#;
    let cases: [(&str, Vec<u8>, u16); 15] = [
        ("unmasked", [&[TEXT, subscribe.len() as u8][..], subscribe].concat(), 1008),
        ("garbage", vec![0xff; 64], 1008),
        ("an unknown opcode", frame(0x83, b""), 1008),
        ("a reserved bit", frame(0xc1, subscribe), 1008),
        ("a long ping", frame(0x89, &[b'x'; 126]), 1008),
        ("a ping in parts", frame(0x09, b"x"), 1008),
        ("the rest of nothing", frame(0x80, b"x"), 1008),
        ("no UTF-8", frame(TEXT, b"\xff"), 1008),
        ("binary", frame(0x82, subscribe), 1008),
        ("no JSON", frame(TEXT, b"subscribe"), 1008),
        ("a deep message", frame(TEXT, "[".repeat(10_000).as_bytes()), 1008),
        ("a message of 17 KiB", frame(TEXT, &[b' '; 17 << 10]), 1009),
        ("a length of 8 EiB", [&[TEXT, 0xff][..], &[0x7f; 8], &[0; 4]].concat(), 1009),
        (
            "17 KiB in parts",
            [frame(FRAGMENT, b" "), frame(0x00, &[b' '; 1024]).repeat(17)].concat(),
            1009,
        ),
        (
            "a message in the middle of one",
            [frame(FRAGMENT, b"x"), frame(TEXT, b"y")].concat(),
            1008,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut raw = Raw::open(scene.addr).await;
        raw.send(&bytes).await;
        assert_eq!(raw.closed().await, code, "{what}");
        assert_eq!(raw.frame().await, None, "{what}: closed");
        scene.lives(what).await;
    }
    scene.unharmed().await;
}

#[tokio::test]
async fn floods_of_frames_hold_nobody_up() {
    let mut scene = Scene::new().await;
    // A message of empty parts without end never becomes too long; it is ended for their number.
    let mut parts = Raw::open(scene.addr).await;
    parts.send(&frame(0x01, b"")).await;
    for _ in 0..10 {
        parts.send(&frame(0x00, b"").repeat(10_000)).await;
        scene.lives("10,000 empty parts").await;
    }
    assert_eq!(parts.closed().await, 1009);
    // A hundred parts are not too many, and neither is a hundred such messages.
    let mut few = Raw::open(scene.addr).await;
    for _ in 0..50 {
        let body = [frame(0x00, br#""#).repeat(50), frame(0x80, b"\"subscribe\":{}}")].concat();
        few.send(&[frame(0x01, b"{"), body].concat()).await;
        let (_, payload) = few.frame().await.unwrap();
        let said: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(said["fanlight"], "hello", "{said}");
    }
    // A hundred pings are answered; ten thousand are more than any client needs.
    let mut pings = Raw::open(scene.addr).await;
    pings.send(&frame(0x89, b"x").repeat(100)).await;
    let answer = loop {
        match pings.frame().await.unwrap() {
            (1, _) => {}
            answer => break answer,
        }
    };
    assert_eq!(answer, (10, b"x".to_vec()), "a pong");
    pings.send(&frame(0x89, b"x").repeat(10_000)).await;
    assert_eq!(pings.closed().await, 1008);
    scene.lives("10,000 pings").await;
    // A filter is confirmed, each with its hello.
    let mut filters = Raw::open(scene.addr).await;
    for round in 0..150 {
        let filter = format!(r#"{{"subscribe":{{"name":["{round}"]}}}}"#);
        filters.send(&frame(0x81, filter.as_bytes())).await;
    }
    let last = loop {
        let (_, payload) = filters.frame().await.unwrap();
        let hello: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(hello["fanlight"], "hello");
        if hello["filter"]["name"][0] == "149" {
            break hello;
        }
    };
    assert_eq!(last["filter"]["name"].as_array().unwrap().len(), 1);
    // Handshakes that are never finished, and clients that leave without a word.
    for _ in 0..50 {
        drop(Raw::open(scene.addr).await);
        drop(raw(scene.addr, b"GET /ws HTTP/1.1\r\nUpgrade: webso").await);
    }
    drop((parts, few, pings, filters));
    let subscribers = async || -> f64 {
        metric(scene.addr, "fanlight_subscribers{transport=\"websocket\",format=\"json\"}").await
    };
    within("they are gone", async { while subscribers().await > 1.0 {} }).await;
    scene.lives("all of them").await;
    scene.unharmed().await;
}

#[tokio::test]
async fn parts_without_end_are_ended_without_shards_too() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--delivery-shards=0"]).await;
    let mut parts = Raw::open(broker.addr()).await;
    parts.send(&frame(0x01, b"")).await;
    parts.send(&frame(0x00, b"").repeat(10_000)).await;
    assert_eq!(parts.closed().await, 1009);
    broker.shutdown().await;
}
