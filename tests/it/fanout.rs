//! Many subscribers at once, through the whole path, with the real program.

use std::{net::SocketAddr, time::Duration};

use tokio::{io::AsyncReadExt as _, net::TcpStream, task::JoinSet};

use crate::harness::{Process, get, metric, quiet_cloud, raw, read_head, request, within};

const SUBSCRIBERS: u64 = 1_000;
const EVENTS: u64 = 500;
/// 50 events a second: the pace at which they are offered, not a wait for anything.
const PACE: Duration = Duration::from_millis(20);

/// A subscriber that looks at nothing but the ids, so that a thousand of them are not
/// what is measured.
struct Lean {
    socket: TcpStream,
    bytes: Vec<u8>,
    /// The last seq seen.
    seq: u64,
}

impl Lean {
    async fn open(addr: SocketAddr) -> Lean {
        let accept = [("Accept", "text/event-stream")];
        let text = request("GET", "/events", &accept, "keep-alive");
        let mut socket = raw(addr, text.as_bytes()).await;
        let mut bytes = Vec::with_capacity(8 << 10);
        let end = read_head(&mut socket, &mut bytes).await;
        bytes.drain(..end + 4);
        let mut lean = Lean { socket, bytes, seq: 0 };
        while lean.seq == 0 {
            lean.ids(|_, seq| Some(seq));
            if lean.seq == 0 {
                lean.read().await;
            }
        }
        lean
    }

    async fn read(&mut self) {
        let read = within("more", self.socket.read_buf(&mut self.bytes)).await.unwrap();
        assert!(read > 0, "ended at {}", self.seq);
    }

    /// Reads until `last`; every id must be the one after that before.
    async fn follow(mut self, last: u64) -> u64 {
        while self.seq < last {
            self.read().await;
            self.ids(|before, seq| (seq == before + 1).then_some(seq));
        }
        self.seq
    }

    /// Takes the whole lines read so far. Chunk sizes stand on lines of their own.
    fn ids(&mut self, accept: impl Fn(u64, u64) -> Option<u64>) {
        let Some(end) = self.bytes.iter().rposition(|byte| *byte == b'\n') else { return };
        let text = std::str::from_utf8(&self.bytes[..=end]).unwrap();
        for line in text.split('\n') {
            let Some(id) = line.strip_prefix("id: ") else { continue };
            let seq = id.split_once('-').unwrap().1.parse().unwrap();
            self.seq =
                accept(self.seq, seq).unwrap_or_else(|| panic!("{seq} after {}: {text}", self.seq));
        }
        self.bytes.drain(..=end);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscribers_get_every_event_in_order() {
    let cloud = quiet_cloud().await;
    let flags = ["--trace-level=warn,fanlight::cli=info"];
    let (_process, addr) = Process::serve_live(&cloud.url(), &flags).await;
    let mut followers = JoinSet::new();
    let mut last = 0;
    for _ in 0..SUBSCRIBERS {
        let lean = Lean::open(addr).await;
        last = lean.seq + EVENTS;
        followers.spawn(lean.follow(last));
    }
    let mut pace = tokio::time::interval(PACE);
    for number in 0..EVENTS {
        pace.tick().await;
        cloud.publish("greenhouse/temp", Some(&number.to_string()));
    }
    while let Some(seq) = followers.join_next().await {
        assert_eq!(seq.unwrap(), last);
    }
    let deliveries = metric(addr, "fanlight_deliveries_total{transport=\"sse\"}").await;
    assert_eq!(deliveries, (SUBSCRIBERS * EVENTS) as f64);
    let opens = get(addr, "/status", &[]).await.json()["upstream"]["opens"]["live"].clone();
    assert_eq!(opens, 1, "one connection upstream serves them all");
}
