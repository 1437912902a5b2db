//! A broker that dies and comes back on the same port: nobody goes on as if nothing had
//! happened, and the cloud is not asked more often for it.

use std::{net::SocketAddr, path::Path};

use fanlight::simulator::Simulator;
use serde_json::Value;

use crate::harness::{Process, Stream, WebSocket, folder, get, metric, quiet_cloud};

/// Clients that return after the restart.
const CLIENTS: usize = 50;
/// Starts of the crash loop. More than the budget of 40 allows.
const STARTS: usize = 60;

/// A client that comes back with what it remembers.
enum Client {
    SseHeader(Stream),
    SseParameter(Stream),
    WebSocket(WebSocket),
    /// What the next call would ask for.
    Poll(String),
}

impl Client {
    async fn connect(number: usize, addr: SocketAddr) -> (Client, String) {
        let sse = async |path| {
            let (stream, hello) = Stream::live(addr, path).await;
            (stream, hello.id)
        };
        match number % 4 {
            0 => {
                let (stream, id) = sse("/events").await;
                (Client::SseHeader(stream), id)
            }
            1 => {
                let (stream, id) = sse("/events?format=particle").await;
                (Client::SseParameter(stream), id)
            }
            2 => {
                let mut socket = WebSocket::open(addr, "/ws").await;
                let hello = socket.next().await;
                (Client::WebSocket(socket), text(&hello["id"]))
            }
            _ => {
                let answer = get(addr, "/poll?timeout=0&since=earliest", &[]).await.json();
                let next = text(&answer["next"]);
                (Client::Poll(next.clone()), next)
            }
        }
    }

    /// The position of the next event.
    async fn position(&mut self, addr: SocketAddr) -> String {
        match self {
            Client::SseHeader(stream) | Client::SseParameter(stream) => stream.next().await.id,
            Client::WebSocket(socket) => text(&socket.next().await["id"]),
            Client::Poll(after) => {
                let path = format!("/poll?after={after}");
                text(&get(addr, &path, &[]).await.json()["next"])
            }
        }
    }

    /// Comes back with `position`: what it is told first, and the name of the event after that.
    async fn resume(self, addr: SocketAddr, position: &str) -> (Value, Returned) {
        match self {
            Client::SseHeader(_) => {
                let header = [("Last-Event-ID", position)];
                let mut stream = Stream::open(addr, "/events", &header).await;
                assert_eq!(stream.next().await.kind, "fanlight.hello");
                let gap = stream.next().await;
                assert_eq!(gap.kind, "fanlight.gap");
                (gap.json(), Returned::Stream(stream))
            }
            Client::SseParameter(_) => {
                let path = format!("/events?last_event_id={position}");
                let mut stream = Stream::open(addr, &path, &[]).await;
                assert_eq!(stream.next().await.kind, "fanlight.hello");
                let gap = stream.next().await;
                assert_eq!(gap.kind, "fanlight.gap");
                (gap.json(), Returned::Stream(stream))
            }
            Client::WebSocket(_) => {
                let path = format!("/ws?last_event_id={position}");
                let mut socket = WebSocket::open(addr, &path).await;
                assert_eq!(socket.next().await["fanlight"], "hello");
                let gap = socket.next().await;
                assert_eq!(gap["fanlight"], "gap");
                (gap, Returned::WebSocket(socket))
            }
            Client::Poll(_) => {
                let path = format!("/poll?after={position}");
                let answer = get(addr, &path, &[]).await.json();
                (answer["gap"].clone(), Returned::Poll(text(&answer["next"])))
            }
        }
    }
}

/// A client that is back.
enum Returned {
    Stream(Stream),
    WebSocket(WebSocket),
    Poll(String),
}

impl Returned {
    /// The data of the next event; other control events than a gap are passed over.
    async fn event(&mut self, addr: SocketAddr) -> String {
        loop {
            let seen = match self {
                Returned::Stream(stream) => {
                    let event = stream.next().await;
                    assert_ne!(event.kind, "fanlight.gap");
                    event.json()
                }
                Returned::WebSocket(socket) => socket.next().await,
                Returned::Poll(after) => {
                    let path = format!("/poll?after={after}&limit=1");
                    let answer = get(addr, &path, &[]).await.json();
                    assert_eq!(answer["gap"], Value::Null);
                    *after = text(&answer["next"]);
                    answer["events"][0].clone()
                }
            };
            assert_ne!(seen["fanlight"], "gap");
            if let Value::String(data) = &seen["data"] {
                return data.clone();
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

async fn serve(cloud: &Simulator, state: &Path, flags: &[&str]) -> (Process, SocketAddr) {
    let state = format!("--state-dir={}", state.display());
    let flags: Vec<&str> = flags.iter().copied().chain([state.as_str()]).collect();
    Process::serve(&cloud.url(), &flags).await
}

#[tokio::test]
async fn every_client_that_returns_is_told_of_the_restart() {
    let (cloud, state) = (quiet_cloud().await, folder("restart-clients"));
    let (mut first, addr) = serve(&cloud, &state, &[]).await;
    first.upstream(&["live"]).await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let (client, position) = Client::connect(number, addr).await;
        clients.push((client, position));
        // Each stands somewhere else, and a few have seen no event at all.
        if number % 5 > 0 {
            cloud.publish("before", Some(&number.to_string()));
            let (client, position) = clients.last_mut().unwrap();
            *position = client.position(addr).await;
        }
    }
    first.kill().await;
    let listen = format!("--listen={addr}");
    let mut process =
        Process::start(Process::command(&["serve", &listen, "--upstream-url", &cloud.url()]));
    let epoch = text(&process.traced("listening").await["epoch"]);
    process.upstream(&["live"]).await;
    let mut returned = Vec::new();
    for (client, position) in clients {
        assert!(!position.starts_with(&epoch), "{position}");
        let (gap, client) = client.resume(addr, &position).await;
        assert_eq!((&gap["reason"], &gap["requested"]), (&"restart".into(), &position.into()));
        assert_eq!((&gap["from"], &gap["count"]), (&1.into(), &Value::Null));
        returned.push(client);
    }
    cloud.publish("after", Some("restarted"));
    for client in &mut returned {
        assert_eq!(client.event(addr).await, "restarted");
    }
    let gaps = metric(addr, "fanlight_gaps_total{reason=\"restart\"}").await;
    assert_eq!(gaps, CLIENTS as f64);
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
}

#[tokio::test]
async fn a_crash_loop_stays_within_the_budget() {
    const OPENS_MAX: usize = 40;
    let (cloud, state) = (quiet_cloud().await, folder("restart-loop"));
    for start in 0..STARTS {
        let (mut process, _) = serve(&cloud, &state, &[]).await;
        // Killed as soon as it has done what it would do; every third in the middle of it.
        if start % 3 > 0 {
            process.upstream(&["live", "rate-limited"]).await;
        }
        process.kill().await;
    }
    // Fewer where the end came between booking an open and making it; never more.
    let opens = cloud.state().opens_total;
    assert!(opens <= OPENS_MAX as u64 && opens >= OPENS_MAX as u64 / 2, "{opens}");
    // What it says of itself while it waits.
    let (mut process, addr) = serve(&cloud, &state, &[]).await;
    process.upstream(&["rate-limited"]).await;
    let status = get(addr, "/status", &[]).await.json();
    let upstream = &status["upstream"];
    assert_eq!(
        (&upstream["state"], &upstream["opens_in_window"]),
        (&"rate-limited".into(), &OPENS_MAX.into())
    );
    let detail = text(&upstream["detail"]);
    assert!(detail.contains("attempts before a restart count"), "{detail}");
    // Another cloud has a budget of its own.
    let other = quiet_cloud().await;
    let (mut process, _) = serve(&other, &state, &[]).await;
    process.upstream(&["live"]).await;
}

#[tokio::test]
async fn an_end_within_an_outage_is_in_good_order() {
    let (cloud, state) = (quiet_cloud().await, folder("restart-outage"));
    let (mut process, addr) = serve(&cloud, &state, &[]).await;
    process.upstream(&["live"]).await;
    let (mut stream, _) = Stream::live(addr, "/events").await;
    cloud.stop().await;
    process.upstream(&["backing-off"]).await;
    process.signal("TERM");
    let rest = stream.rest().await;
    let bye = rest.last().unwrap();
    assert_eq!((bye.kind.as_str(), &bye.json()["reason"]), ("fanlight.bye", &"shutdown".into()));
    assert!(stream.ended_cleanly());
    assert_eq!(process.ended().await, Some(0));
}
