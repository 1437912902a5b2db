//! Bytes that no well-meaning cloud and no well-meaning client would send. Each test says what
//! comes of them, that the next event still comes, and that the broker is none the worse.

mod cloud;
mod frames;
mod requests;

use std::net::SocketAddr;

use fanlight::simulator::Simulator;
use serde_json::Value;

use crate::harness::{Process, Stream, WebSocket, get, metric, quiet_cloud};

/// A broker as a process of its own (only there are panics counted), live on a cloud, and one
/// subscriber on each way out.
struct Scene {
    cloud: Simulator,
    process: Process,
    addr: SocketAddr,
    message: Stream,
    particle: Stream,
    ndjson: Stream,
    websocket: WebSocket,
    /// Where the next poll goes on.
    after: String,
    healthy: u64,
}

/// What becomes of hostile bytes.
enum Becomes {
    /// An event: its name, its data, and what follows the name in JSON forms.
    Event(String, String, String),
    /// A gap of one, for this reason.
    Gap(&'static str),
}

use Becomes::{Event, Gap};

impl Scene {
    async fn new() -> Scene {
        let cloud = quiet_cloud().await;
        let (mut process, addr) = Process::serve(&cloud.url(), &[]).await;
        process.upstream(&["live"]).await;
        let (message, hello) = Stream::live(addr, "/events").await;
        let (particle, _) = Stream::live(addr, "/events?format=particle").await;
        let mut ndjson = Stream::open(addr, "/events", &[("Accept", "application/x-ndjson")]).await;
        ndjson.full_line().await;
        let mut websocket = WebSocket::open(addr, "/ws").await;
        websocket.next().await;
        let after = hello.id;
        Scene { cloud, process, addr, message, particle, ndjson, websocket, after, healthy: 0 }
    }

    /// The cloud sends `bytes`; every subscriber gets what they become, and then the next event.
    async fn gets(&mut self, bytes: &[u8], mut becomes: Vec<Becomes>) {
        self.cloud.raw(bytes);
        self.cloud.publish_line("next", r#"{"n":1}"#);
        becomes.push(object("next", r#"{"n":1}"#));
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let mut lines = Vec::new();
        for outcome in &becomes {
            let event = self.message.next().await;
            let other = self.particle.next().await;
            assert_eq!(event.id, other.id, "{shown:?}");
            let seq = event.seq();
            let line = match outcome {
                Event(name, data, rest) => {
                    let named = format!("{{\"name\":{},{rest}", Value::from(name.as_str()));
                    assert_eq!(
                        (event.kind.as_str(), &event.data),
                        ("message", &named),
                        "{shown:?}"
                    );
                    assert_eq!((&other.kind, &other.data), (name, data), "{shown:?}");
                    format!("{{\"id\":\"{}\",{}", event.id, &named[1..])
                }
                Gap(reason) => {
                    assert_eq!(event, other, "{shown:?}");
                    assert_eq!(event.kind, "fanlight.gap", "{shown:?}: {event:?}");
                    let gap = event.json();
                    assert_eq!(gap["reason"], *reason, "{shown:?}");
                    let range = [&gap["from"], &gap["to"], &gap["count"], &gap["next"]];
                    assert_eq!(range, [seq, seq + 1, 1, seq + 1].map(Value::from).each_ref());
                    format!("{{\"fanlight\":\"gap\",\"id\":\"{}\",{}", event.id, &event.data[1..])
                }
            };
            assert!(self.ndjson.full_line().await == line, "{shown:?}");
            assert!(self.websocket.text().await == line, "{shown:?}");
            lines.push(line);
        }
        // Polls have a bound on bytes, so large events come in several.
        let mut polled = Vec::new();
        while polled.join(",").len() < lines.join(",").len() {
            let poll = get(self.addr, &format!("/poll?after={}&limit=1", self.after), &[]).await;
            let events = poll.body.strip_prefix("{\"events\":[").unwrap();
            let (event, next) = events.rsplit_once("],\"next\":\"").unwrap();
            let (next, gap) = next.split_once('"').unwrap();
            assert_eq!(gap, ",\"gap\":null}");
            self.after = next.to_owned();
            polled.push(event.to_owned());
        }
        assert!(polled.join(",") == lines.join(","), "{shown:?}");
    }

    /// Another event comes through on the SSE stream, with nothing before it.
    async fn lives(&mut self, what: &str) {
        self.healthy += 1;
        self.cloud.publish("healthy", Some(&self.healthy.to_string()));
        let event = self.message.next().await.json();
        assert_eq!(event["data"], self.healthy.to_string(), "after {what}");
    }

    /// Nothing of all that has left a trace.
    async fn unharmed(mut self) {
        let health = get(self.addr, "/healthz", &[]).await;
        assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
        assert_eq!(metric(self.addr, "fanlight_panics_total").await, 0.0);
        assert_eq!(self.cloud.state().opens_total, 1, "the upstream was never lost");
        drop(self.websocket);
        self.process.signal("TERM");
        assert_eq!(self.process.ended().await, Some(0));
        let errors = self.process.trace.iter().filter(|line| line.contains("\"ERROR\""));
        assert_eq!(errors.count(), 0);
    }
}

/// An event whose data is a JSON object, passed on as it is.
fn object(name: &str, data: &str) -> Becomes {
    Event(name.to_owned(), data.to_owned(), data[1..].to_owned())
}

/// An event whose data is anything else.
fn text(name: &str, data: &str) -> Becomes {
    let rest = format!("\"raw\":{}}}", Value::from(data));
    Event(name.to_owned(), data.to_owned(), rest)
}

/// The wire form of an event.
fn wire(name: &str, data: &str) -> Vec<u8> {
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}
