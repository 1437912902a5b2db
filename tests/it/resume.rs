//! Coming back: nothing missing, nothing twice, or a gap that says what.

use std::net::SocketAddr;

use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;

use crate::harness::{
    Event, Stream, answer_in, broker, events_in, get, metric, publish, publish_many, quiet_cloud,
    raw, request, seeded, until, within,
};

/// Reads so many bytes of the answer, head included, and cuts the connection: in the
/// middle of a line, of an event, of a chunk, wherever that is.
async fn read_and_cut(addr: SocketAddr, request: &str, bytes: usize, is_reset: bool) -> Vec<u8> {
    let mut socket = raw(addr, request.as_bytes()).await;
    let mut answer = vec![0; bytes];
    within("bytes to cut after", socket.read_exact(&mut answer)).await.unwrap();
    if is_reset {
        SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
    answer
}

/// A client as the standard has it: it goes on from the last id it has seen whole.
struct Client {
    path: String,
    is_ndjson: bool,
    last_id: Option<String>,
    seqs: Vec<u64>,
}

impl Client {
    fn new(path: &str, is_ndjson: bool) -> Client {
        Client { path: path.to_owned(), is_ndjson, last_id: None, seqs: Vec::new() }
    }

    fn request(&self) -> String {
        let accept = if self.is_ndjson { "application/x-ndjson" } else { "text/event-stream" };
        let mut headers = vec![("Accept", accept)];
        headers.extend(self.last_id.as_deref().map(|id| ("Last-Event-ID", id)));
        request("GET", &self.path, &headers, "keep-alive")
    }

    /// Takes what came, and says whether the last event was among it.
    fn take(&mut self, answer: &[u8]) -> bool {
        let (head, body) = answer_in(answer);
        assert!(head.is_empty() || head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        let events = if self.is_ndjson { objects_in(&body) } else { events_in(&body) };
        let mut is_over = false;
        for event in events {
            assert_ne!(event.kind, "fanlight.gap", "{event:?}");
            if !event.kind.starts_with("fanlight.") {
                self.seqs.push(event.seq());
                is_over |= event.kind == "end" || event.json()["name"] == "end";
            }
            self.last_id = Some(event.id);
        }
        is_over
    }
}

/// The whole lines of NDJSON, in the shape of events.
fn objects_in(body: &[u8]) -> Vec<Event> {
    let whole = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let text = std::str::from_utf8(&body[..whole]).unwrap();
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            let kind = value["fanlight"].as_str().map(|name| format!("fanlight.{name}"));
            Event {
                kind: kind.unwrap_or_default(),
                data: line.to_owned(),
                id: value["id"].as_str().unwrap().to_owned(),
            }
        })
        .collect()
}

type Passes = fn(&str) -> bool;

#[tokio::test]
async fn after_any_cut_the_ids_are_exactly_those_published() {
    const CUTS: usize = 40;
    let mut random = seeded();
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let addr = broker.addr();
    let filters: [(&str, Passes); 4] = [
        ("", |_| true),
        ("&prefix=a", |name| name.starts_with('a') || name == "end"),
        ("&name=b&name=c", |name| ["b", "c", "end"].contains(&name)),
        ("&prefix=a&prefix=b&name=c", |_| true),
    ];
    let mut clients = Vec::new();
    for (filter, passes) in filters {
        for (form, is_ndjson) in [("message", false), ("particle", false), ("message", true)] {
            let path = format!("/events?since=earliest&name=end&format={form}{filter}");
            let path = if filter.is_empty() { path.replace("&name=end", "") } else { path };
            let mut random = random.fork();
            clients.push(tokio::spawn(async move {
                let mut client = Client::new(&path, is_ndjson);
                for _ in 0..CUTS {
                    let bytes = random.usize(1..3_000);
                    let answer = read_and_cut(addr, &client.request(), bytes, random.bool()).await;
                    assert!(!client.take(&answer), "over before the cuts were");
                }
                (client, passes)
            }));
        }
    }
    let mut published = Vec::new();
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        let name = ["a", "b", "c", "ab"][random.usize(0..4)];
        published.push((publish(&cloud, &broker, name, "x").await, name));
    }
    published.push((publish(&cloud, &broker, "end", "x").await, "end"));
    assert_eq!(broker.hub().status().evicted, 0, "the ring is large enough for the test");
    for client in clients {
        let (mut client, passes) = client.await.unwrap();
        let mut socket = raw(addr, client.request().as_bytes()).await;
        let mut answer = Vec::new();
        let before = (client.last_id.clone(), client.seqs.len());
        loop {
            within("the rest", socket.read_buf(&mut answer)).await.unwrap();
            (client.last_id, _) = (before.0.clone(), client.seqs.truncate(before.1));
            if client.take(&answer) {
                break;
            }
        }
        let expected: Vec<u64> =
            published.iter().filter(|(_, name)| passes(name)).map(|(seq, _)| *seq).collect();
        assert_eq!(client.seqs, expected, "{}", client.path);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_position_that_cannot_be_honoured_opens_with_200_and_the_exact_gap() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    publish_many(&cloud, &broker, "a", 40).await;
    let epoch = broker.hub().epoch().to_string();
    let (oldest, tail) = (broker.hub().status().oldest.0, broker.hub().status().tail.0);
    let evicted = format!("{epoch}-4");
    let future = format!("{epoch}-{tail}");
    let long = "9".repeat(10 << 10);
    let unknown = Value::Null;
    // As a header, byte for byte; what it is, where the gap begins, how many, as shown.
    let cases: Vec<(Vec<u8>, &str, u64, Value, String)> = vec![
        (evicted.clone().into(), "evicted", 5, json!(oldest - 5), evicted.clone()),
        (future.clone().into(), "future", 1, unknown.clone(), future.clone()),
        (b"00000000-3".to_vec(), "restart", 1, unknown.clone(), "00000000-3".to_owned()),
        (b"null".to_vec(), "malformed", 1, unknown.clone(), "null".to_owned()),
        (format!("{epoch}-007").into(), "malformed", 1, unknown.clone(), format!("{epoch}-007")),
        (b"\xff\xfe\x80".to_vec(), "malformed", 1, unknown.clone(), "\u{fffd}".repeat(3)),
        ("é…<\">".into(), "malformed", 1, unknown.clone(), "é…<\">".to_owned()),
        (b"a\tb".to_vec(), "malformed", 1, unknown.clone(), "a\tb".to_owned()),
        (long.clone().into(), "malformed", 1, unknown.clone(), long[..64].to_owned()),
    ];
    for (id, reason, from, count, shown) in &cases {
        let mut text =
            b"GET /events?limit=16 HTTP/1.1\r\nHost: broker\r\nAccept: text/event-stream\r\nConnection: close\r\nLast-Event-ID: "
                .to_vec();
        text.extend_from_slice(id);
        text.extend_from_slice(b"\r\n\r\n");
        let mut socket = raw(broker.addr(), &text).await;
        let mut answer = Vec::new();
        within("the answer", socket.read_to_end(&mut answer)).await.unwrap();
        let (head, body) = answer_in(&answer);
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{shown}: {head}");
        let events = events_in(&body);
        let fields = json!({
            "reason": reason, "requested": shown, "from": from, "to": oldest, "count": count,
            "oldest": oldest, "next": oldest,
        });
        assert_eq!((events[1].kind.as_str(), events[1].json()), ("fanlight.gap", fields));
        assert_eq!(events[1].id, format!("{epoch}-{}", oldest - 1));
        let seqs: Vec<u64> = events[2..].iter().map(Event::seq).collect();
        assert_eq!(seqs, (oldest..tail).collect::<Vec<u64>>(), "all that is held follows");
        // Who is cut off between the two must be told again.
        let hello = match *reason {
            "evicted" | "future" | "restart" => shown.clone(),
            _ => format!("{epoch}-0"),
        };
        assert_eq!(events[0].id, hello);
    }
    // Control characters cannot stand in a header; in a parameter they can.
    for (query, shown) in [("%00%1b%0d%0a", "\0\u{1b}\r\n"), ("%FF%fe", "\u{fffd}\u{fffd}")] {
        let path = format!("/events?limit=16&last_event_id={query}");
        let events = Stream::open(broker.addr(), &path, &[]).await.rest().await;
        assert_eq!(events[1].json()["reason"], "malformed");
        assert_eq!(events[1].json()["requested"], shown);
        assert_eq!(events.len(), 2 + 16);
    }
    for (reason, count) in [("evicted", 1.0), ("future", 1.0), ("restart", 1.0), ("malformed", 8.0)]
    {
        let sample = format!("fanlight_gaps_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(broker.addr(), &sample).await, count, "{reason}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_gets_its_gaps_in_place_and_goes_on() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    for format in ["message", "particle"] {
        let path = format!("/events?format={format}");
        let mut stream = Stream::open_with(broker.addr(), &path, &[], Some(4 << 10)).await;
        let hello = stream.next().await;
        let data = "x".repeat(600);
        for _ in 0..40 {
            let tail = broker.hub().status().tail.0;
            for _ in 0..100 {
                cloud.publish("a", Some(&data));
            }
            until("taken in", || (broker.hub().status().tail.0 >= tail + 100).then_some(())).await;
        }
        let last = broker.hub().head().seq.0;
        let (mut next, mut gaps) = (hello.seq() + 1, 0);
        while next <= last {
            let event = stream.next().await;
            match event.kind.as_str() {
                "fanlight.gap" => {
                    gaps += 1;
                    let gap = event.json();
                    let to = gap["to"].as_u64().unwrap();
                    let oldest = gap["oldest"].as_u64().unwrap();
                    let requested = format!("{}-{}", broker.hub().epoch(), next - 1);
                    let fields = json!({
                        "reason": "overtaken", "requested": requested, "from": next, "to": to,
                        "count": to - next, "oldest": oldest, "next": to,
                    });
                    assert_eq!((gap, event.seq()), (fields, to - 1));
                    next = to;
                }
                "message" | "a" => {
                    assert_eq!(event.seq(), next, "after {gaps} gaps");
                    next += 1;
                }
                other => panic!("{other}"),
            }
        }
        assert!(gaps > 0, "it did not fall behind");
        publish(&cloud, &broker, "a", "on").await;
        assert_eq!(stream.next().await.json()["data"], "on");
    }
    let slowest = get(broker.addr(), "/status", &[]).await.json();
    assert!(slowest["subscribers"]["slowest"].is_array());
    broker.shutdown().await;
}

#[tokio::test]
async fn a_sleeping_narrow_filter_is_told_of_no_gap_that_lost_nothing() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    let path = "/events?name=mine";
    let (mut stream, _) = Stream::live(broker.addr(), path).await;
    let mut seen = Vec::new();
    let mut checkpoints = 0;
    // More at once than the ring holds, again and again: it sleeps through all of it.
    for round in 0..20 {
        publish_many(&cloud, &broker, "other", 3 + 17 * round).await;
        if round % 5 > 0 {
            continue;
        }
        publish(&cloud, &broker, "mine", &round.to_string()).await;
        // Taken before more comes: on a busy machine it could be evicted, and that is a gap.
        let before = seen.len();
        while seen.len() == before {
            let event = stream.next().await;
            match event.kind.as_str() {
                "fanlight.checkpoint" => checkpoints += 1,
                "message" => seen.push(event.json()["data"].clone()),
                other => panic!("{other}: {event:?}"),
            }
        }
    }
    assert_eq!(seen, ["0", "5", "10", "15"]);
    assert!(checkpoints > 0);

    // What was published since the last delivery has left the ring, but the checkpoint
    // has moved the position along.
    publish_many(&cloud, &broker, "other", 40).await;
    let mut last = stream.next().await;
    while last.seq() + 4 < broker.hub().head().seq.0 {
        last = stream.next().await;
        assert_eq!(last.kind, "fanlight.checkpoint");
    }
    drop(stream);
    publish_many(&cloud, &broker, "other", 8).await;
    publish(&cloud, &broker, "mine", "back").await;
    let header = [("Last-Event-ID", last.id.as_str())];
    let mut back = Stream::open(broker.addr(), path, &header).await;
    assert_eq!(back.next().await.id, last.id);
    let event = back.next().await;
    assert_eq!((event.kind.as_str(), &event.json()["data"]), ("message", &json!("back")));
    for reason in ["evicted", "overtaken"] {
        let sample = format!("fanlight_gaps_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(broker.addr(), &sample).await, 0.0, "{reason}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn another_broker_in_the_same_place_says_restart_and_gives_what_it_has() {
    let cloud = quiet_cloud().await;
    let first = broker(&cloud, &[]).await;
    let seq = publish(&cloud, &first, "a", "1").await;
    let before = format!("{}-{seq}", first.hub().epoch());
    first.shutdown().await;
    let second = broker(&cloud, &[]).await;
    let now = publish(&cloud, &second, "a", "2").await;
    assert_eq!(seq, now, "the same number of another life");
    let header = [("Last-Event-ID", before.as_str())];
    let mut stream = Stream::open(second.addr(), "/events?name=a", &header).await;
    assert_eq!(stream.next().await.id, before);
    let gap = stream.next().await;
    let fields = json!({
        "reason": "restart", "requested": before, "from": 1, "to": 1, "count": null,
        "oldest": 1, "next": 1,
    });
    assert_eq!((gap.kind.as_str(), gap.json()), ("fanlight.gap", fields));
    let rest = stream.take(3).await;
    let kinds: Vec<&str> = rest.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["fanlight.upstream", "fanlight.upstream", "message"]);
    second.shutdown().await;
}

#[tokio::test]
async fn an_event_too_large_to_keep_is_a_gap_in_its_place_for_everyone() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--upstream-line-bytes-max=1KiB"]).await;
    let (mut live, _) = Stream::live(broker.addr(), "/events?name=mine").await;
    publish(&cloud, &broker, "mine", "before").await;
    let seq = publish(&cloud, &broker, "other", &"x".repeat(2_000)).await;
    publish(&cloud, &broker, "mine", "after").await;
    let replay = format!("/events?name=mine&last_event_id={}", live.next().await.id);
    let (mut replayed, _) = Stream::live(broker.addr(), &replay).await;
    for stream in [&mut live, &mut replayed] {
        let gap = stream.next().await;
        let fields = json!({
            "reason": "oversize", "requested": null, "from": seq, "to": seq + 1, "count": 1,
            "oldest": 1, "next": seq + 1,
        });
        assert_eq!((gap.kind.as_str(), gap.seq(), gap.json()), ("fanlight.gap", seq, fields));
        assert_eq!(stream.next().await.json()["data"], "after");
    }
    broker.shutdown().await;
}
