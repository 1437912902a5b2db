//! The driver that owns its sockets: what hyper would have done for it, and what many
//! connections on one thread must not do to each other.

use fanlight::server::Broker;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{
    Stream, WebSocket, answer_in, broker, events_in, metric, publish, publish_many, quiet_cloud,
    raw, raw_until_closed, read_head, request, sample, seeded, subscribers, until, within,
};

/// Every number of shards that makes a difference; with 0 each stream has a task.
const SHARDS: [&str; 3] = ["--delivery-shards=0", "--delivery-shards=1", "--delivery-shards=2"];

const CLOSED_GONE: &str = r#"fanlight_subscribers_closed_total{reason="gone"}"#;

fn seq(object: &Value) -> u64 {
    let id = object["id"].as_str().unwrap_or_else(|| panic!("no id: {object}"));
    id.split_once('-').unwrap().1.parse().unwrap()
}

/// Each transport under each driver: the same events by the same filters, in replay and
/// live, and a goodbye.
#[tokio::test]
async fn every_driver_serves_every_transport_the_same() {
    for shards in SHARDS {
        let cloud = quiet_cloud().await;
        let broker = broker(&cloud, &[shards]).await;
        let addr = broker.addr();
        sample::publish_all(&cloud, &broker).await;
        let count = sample::EVENTS.len();
        let (mut streams, mut lines, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        for (query, places) in sample::FILTERS {
            let query = format!("since=earliest&{query}");
            let path = format!("/events?{query}");
            streams.push((Stream::open(addr, &path, &[]).await, places));
            let accept = [("Accept", "application/x-ndjson")];
            lines.push((Stream::open(addr, &path, &accept).await, places));
            sockets.push((WebSocket::open(addr, &format!("/ws?{query}")).await, places));
        }
        subscribers(&broker, 3 * sample::FILTERS.len()).await;
        sample::publish_all(&cloud, &broker).await;
        let ending = tokio::spawn(broker.shutdown());
        let twice = |places: &&[usize]| [*places, *places].concat();
        let own = |object: &Value| object["fanlight"].is_null();
        for (mut stream, places) in streams {
            let events = stream.rest().await;
            assert!(stream.ended_cleanly(), "{shards}: {}", stream.text());
            assert_eq!(events.first().unwrap().kind, "fanlight.hello");
            assert_eq!(events.last().unwrap().kind, "fanlight.bye");
            let is_event = |kind: &str| !kind.starts_with("fanlight.");
            let got: Vec<Value> =
                events.iter().filter(|it| is_event(&it.kind)).map(|it| it.json()).collect();
            assert_eq!(sample::places(&got), twice(places), "{shards}: SSE");
        }
        for (mut stream, places) in lines {
            let mut got = Vec::new();
            while let Some(line) = stream.line().await {
                if !line.is_empty() {
                    got.push(serde_json::from_str::<Value>(&line).unwrap());
                }
            }
            assert!(stream.ended_cleanly(), "{shards}: {}", stream.text());
            assert_eq!(got.last().unwrap()["fanlight"], "bye");
            got.retain(own);
            assert_eq!(sample::places(&got), twice(places), "{shards}: NDJSON");
        }
        for (mut socket, places) in sockets {
            let mut got = Vec::new();
            let code = loop {
                match socket.message().await {
                    Message::Text(text) => got.push(serde_json::from_str(&text).unwrap()),
                    Message::Close(frame) => break u16::from(frame.unwrap().code),
                    other => panic!("{other:?}"),
                }
            };
            socket.drained().await;
            got.retain(own);
            assert_eq!((sample::places(&got), code), (twice(places), 1001), "{shards}: {count}");
        }
        assert_eq!(ending.await.unwrap(), 0, "{shards}: none had to be cut");
    }
}

/// A body would stand between the request and what follows it, on a socket that leaves HTTP.
#[tokio::test]
async fn a_request_for_a_stream_has_no_body_but_may_say_so() {
    for shards in SHARDS {
        let cloud = quiet_cloud().await;
        let broker = broker(&cloud, &[shards]).await;
        publish_many(&cloud, &broker, "a", 1).await;
        let path = "/events?since=earliest&limit=1";
        let bodies = [
            (vec![("Content-Length", "5")], "hello"),
            (vec![("Content-Length", "50")], "not all of it"),
            (vec![("Transfer-Encoding", "chunked")], "5\r\nhello\r\n0\r\n\r\n"),
            (vec![("Expect", "100-continue"), ("Content-Length", "5")], ""),
        ];
        for (headers, body) in bodies {
            for connection in ["keep-alive", "close"] {
                let text = request("GET", path, &headers, connection) + body;
                let answer = raw_until_closed(broker.addr(), text.as_bytes()).await;
                let case = format!("{shards}, {headers:?}, {connection}: {answer:?}");
                assert!(answer.starts_with("HTTP/1.1 413 "), "{case}");
                assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{case}");
            }
        }
        let cases = [
            (vec![("Content-Length", "0")], ""),
            (vec![("Expect", "100-continue"), ("Content-Length", "0")], ""),
        ];
        for (headers, body) in cases {
            for connection in ["keep-alive", "close"] {
                let text = request("GET", path, &headers, connection) + body;
                let answer = raw_until_closed(broker.addr(), text.as_bytes()).await;
                let case = format!("{shards}, {headers:?}, {connection}: {answer:?}");
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{case}");
                assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{case}");
                let (_, stream) = answer_in(answer.as_bytes());
                let mut kinds: Vec<String> =
                    events_in(&stream).into_iter().map(|it| it.kind).collect();
                // From the beginning of the ring, which tells of the upstream too.
                kinds.retain(|kind| kind != "fanlight.upstream");
                assert_eq!(kinds, ["fanlight.hello", "message"], "{case}");
                assert!(answer.ends_with("\r\n0\r\n\r\n"), "{case}");
            }
        }
        subscribers(&broker, 0).await;
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_megabytes_into_a_stream_is_held_up_and_nobody_else() {
    for shards in &SHARDS[1..] {
        let cloud = quiet_cloud().await;
        let broker = broker(&cloud, &[shards, "--stream-keepalive=1s"]).await;
        let (mut other, hello) = Stream::live(broker.addr(), "/events").await;
        let text = request("GET", "/events", &[("Accept", "text/event-stream")], "keep-alive");
        let mut flooding = raw(broker.addr(), text.as_bytes()).await;
        read_head(&mut flooding, &mut Vec::new()).await;
        let (mut reader, mut writer) = flooding.into_split();
        let flood = tokio::spawn(async move { writer.write_all(&vec![b'x'; 10 << 20]).await });
        publish_many(&cloud, &broker, "a", 200).await;
        let last = other.take(200).await.pop().unwrap();
        assert_eq!(last.seq(), hello.seq() + 200, "{shards}");
        // It gets its events too.
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(r#""data":"199""#) {
            assert!(within("its events", reader.read_buf(&mut bytes)).await.unwrap() > 0);
        }
        assert!(!flood.is_finished(), "what it sends is not read");
        flood.abort();
        let _ = flood.await;
        drop(reader);
        subscribers(&broker, 1).await;
        assert_eq!(metric(broker.addr(), CLOSED_GONE).await, 1.0);
        broker.shutdown().await;
    }
}

/// More of it than is read may hide its end, which then shows at the next write at the
/// latest.
#[tokio::test]
async fn a_client_that_sent_too_much_and_leaves_is_noticed() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--delivery-shards=1", "--stream-keepalive=1s"]).await;
    let text = request("GET", "/events", &[], "keep-alive");
    let mut sockets = Vec::new();
    // Around the bound of 64 KiB, where the end may come together with what is read last.
    for kib in [60, 62, 63, 64, 65, 66, 67, 68, 70, 72] {
        let mut socket = raw(broker.addr(), text.as_bytes()).await;
        read_head(&mut socket, &mut Vec::new()).await;
        within("send", socket.write_all(&vec![b'x'; kib << 10])).await.unwrap();
        sockets.push(socket);
    }
    subscribers(&broker, sockets.len()).await;
    drop(sockets);
    subscribers(&broker, 0).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_client_that_closes_its_half_has_left() {
    for shards in SHARDS {
        let cloud = quiet_cloud().await;
        let broker = broker(&cloud, &[shards]).await;
        for path in ["/events", "/events?since=earliest&name=none"] {
            let text = request("GET", path, &[], "keep-alive");
            // At once, so that the end may come with the request; and later.
            for at_once in [true, false] {
                let mut socket = raw(broker.addr(), text.as_bytes()).await;
                if !at_once {
                    read_head(&mut socket, &mut Vec::new()).await;
                }
                within("half of the end", socket.shutdown()).await.unwrap();
                within("the end", socket.read_to_end(&mut Vec::new())).await.ok();
                subscribers(&broker, 0).await;
            }
        }
        assert_eq!(broker.shutdown().await, 0, "{shards}");
    }
}

/// Counted, not timed: each of many silent streams gets a third keep-alive.
#[tokio::test]
async fn keep_alives_keep_coming_to_all_that_are_idle() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--delivery-shards=2", "--stream-keepalive=1s"]).await;
    let mut idle = JoinSet::new();
    for _ in 0..200 {
        let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
        idle.spawn(async move { stream.body_holds("\n\n:\n:\n:\n").await });
    }
    while let Some(third) = within("a third keep-alive", idle.join_next()).await {
        third.unwrap();
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn places_and_groups_come_back_when_all_have_left() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--delivery-shards=2"]).await;
    for _ in 0..5 {
        let mut streams = Vec::new();
        for number in 0..50 {
            let path = format!("/events?name=a&name=b{number}");
            streams.push(Stream::live(broker.addr(), &path).await.0);
        }
        publish(&cloud, &broker, "a", "0").await;
        for stream in &mut streams {
            assert_eq!(stream.next().await.kind, "message");
        }
        drop(streams);
        subscribers(&broker, 0).await;
        assert_eq!(broker.hub().status().groups, 0);
    }
    broker.shutdown().await;
}

/// A stream that reads nothing, with more waiting for it than the kernel holds.
async fn blocked(broker: &Broker) -> Stream {
    Stream::open_with(broker.addr(), "/events?since=earliest", &[], Some(4 << 10)).await
}

#[tokio::test]
async fn what_is_blocked_or_behind_does_not_hold_the_end() {
    for shards in SHARDS {
        let cloud = quiet_cloud().await;
        let flags = [shards, "--server-drain-window=1s", "--stream-batch-bytes-max=4KiB"];
        let broker = broker(&cloud, &flags).await;
        let data = "x".repeat(600);
        for _ in 0..400 {
            publish(&cloud, &broker, "a", &data).await;
        }
        let mut stuck = Vec::new();
        for _ in 0..20 {
            stuck.push(blocked(&broker).await);
        }
        let mut behind = JoinSet::new();
        for _ in 0..50 {
            let mut stream = Stream::open(broker.addr(), "/events?since=earliest", &[]).await;
            behind.spawn(async move {
                let events = stream.rest().await;
                (events, stream.ended_cleanly())
            });
        }
        subscribers(&broker, 70).await;
        let cut = within("the end", broker.shutdown()).await;
        assert_eq!(cut, 20, "{shards}: had to be cut");
        while let Some(read) = behind.join_next().await {
            let (events, is_clean) = read.unwrap();
            assert!(is_clean, "{shards}");
            assert_eq!(events.last().unwrap().kind, "fanlight.bye", "{shards}");
            let count = events.iter().filter(|event| event.kind == "message").count();
            assert_eq!(count, 400, "{shards}: none is missed for the goodbye");
        }
        for mut stream in stuck {
            assert!(!stream.rest().await.iter().any(|event| event.kind == "fanlight.bye"));
        }
    }
}

/// What a client of the storm knows: from which seq on which names passed, and what came.
#[derive(Default)]
struct Seen {
    filters: Vec<(u64, Vec<&'static str>)>,
    events: Vec<(u64, String)>,
}

impl Seen {
    /// A hello says where the stream goes on, and with which filter.
    fn hello(&mut self, message: &Value, names: &[&'static str]) {
        assert_eq!(message["filter"]["name"], json!(names));
        self.filters.push((seq(message) + 1, names.to_vec()));
    }

    /// Holds what came against what was published from `first` on.
    fn check(&self, first: u64, published: &[String]) {
        let mut events = self.events.iter().peekable();
        let mut filters = self.filters.iter().peekable();
        let mut names: &[&str] = &[];
        for (seq, name) in (first..).zip(published) {
            while let Some((_, next)) = filters.next_if(|(from, _)| *from <= seq) {
                names = next;
            }
            let passes = names.contains(&name.as_str());
            let came = events.next_if(|(at, _)| *at == seq).is_some();
            assert_eq!(came, passes, "{seq} is {name}, the filter {names:?}");
            if name == "end" && came {
                break;
            }
        }
        assert_eq!(events.next(), None, "repeated, or out of order");
    }
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Changes its filter with each message it gets, leaves without a word now and then, and
/// comes back where it was; until the end.
async fn storm(addr: std::net::SocketAddr, mut random: fastrand::Rng) -> Seen {
    let (mut seen, mut after) = (Seen::default(), None::<String>);
    loop {
        let mut asked = vec![random.choice(NAMES).unwrap(), "end"];
        let path = format!("/ws?name={}&name=end", asked[0]);
        let resume = after.as_ref().map(|id| format!("&last_event_id={id}")).unwrap_or_default();
        let mut socket = WebSocket::open(addr, &(path + &resume)).await;
        let mut is_asked = true;
        for _ in 0..random.usize(2..100) {
            let message = socket.next().await;
            match message["fanlight"].as_str() {
                Some("hello") => {
                    asked.sort_unstable();
                    seen.hello(&message, &asked);
                    is_asked = false;
                }
                Some("checkpoint") => {}
                Some(other) => panic!("{other}: {message}"),
                None => {
                    let name = message["name"].as_str().unwrap().to_owned();
                    seen.events.push((seq(&message), name.clone()));
                    if name == "end" {
                        socket.close().await;
                        return seen;
                    }
                }
            }
            after = message["id"].as_str().map(str::to_owned).or(after);
            if !is_asked {
                asked = vec![random.choice(NAMES).unwrap(), "end"];
                let subscribe = json!({"subscribe": {"name": asked}});
                socket.send(Message::text(subscribe.to_string())).await;
                is_asked = true;
            }
        }
    }
}

/// Filters change all the time among few, so that groups end, begin and take each other's
/// numbers, while events flow and clients come and go. Each event is held against the
/// filter in force: nothing lost, repeated or wrongly passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_that_change_in_a_storm_pass_exactly_what_they_say() {
    const EVENTS: u64 = 2_000;
    const CLIENTS: usize = 16;
    let mut random = seeded();
    for shards in SHARDS {
        let cloud = quiet_cloud().await;
        let broker = broker(&cloud, &[shards]).await;
        let addr = broker.addr();
        let first = broker.hub().status().tail.0;
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(storm(addr, random.fork()));
        }
        until("some are there", || (broker.hub().subscribers() > CLIENTS / 2).then_some(())).await;
        let mut published = Vec::new();
        for number in 0..EVENTS {
            let name = random.choice(NAMES).unwrap();
            cloud.publish(name, Some("0"));
            published.push(name.to_owned());
            if number % 10 == 0 {
                let wanted = first + number;
                until("taken in", || (broker.hub().status().tail.0 > wanted).then_some(())).await;
            }
        }
        cloud.publish("end", Some("0"));
        published.push("end".to_owned());
        while let Some(seen) = within("all get the end", clients.join_next()).await {
            seen.unwrap().check(first, &published);
        }
        broker.shutdown().await;
    }
}

/// Many clients with random filters, pauses and disconnects; each accounts for every event
/// that its filter passes: received once and in order, or declared in a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_received_or_declared_missed() {
    const KINDS: usize = 4;
    const EVENTS: u64 = 3_000;
    let mut random = seeded();
    let cloud = quiet_cloud().await;
    // A small ring, so that who pauses is overtaken now and then.
    let flags = ["--delivery-shards=2", "--ring-events-max=256", "--stream-batch-bytes-max=4KiB"];
    let broker = broker(&cloud, &flags).await;
    let addr = broker.addr();
    let first = broker.hub().status().tail.0;
    let last = first + EVENTS;
    let mut clients = JoinSet::new();
    for number in 0..40 {
        let (mut random, hub) = (random.fork(), broker.hub().clone());
        clients.spawn(async move {
            let kinds: Vec<usize> = (0..KINDS).filter(|_| random.bool()).collect();
            let names = kinds.iter().map(|kind| format!("&name=k{kind}")).collect::<String>();
            let path = format!("/events?name=end{names}");
            // What is accounted for: everything up to here.
            let mut events = Vec::new();
            let mut gaps: Vec<(u64, u64)> = Vec::new();
            let mut from = None;
            let mut last_id = String::new();
            loop {
                let headers = [("Last-Event-ID", last_id.as_str())];
                let headers = if last_id.is_empty() { &headers[..0] } else { &headers[..] };
                let mut stream = Stream::open_with(addr, &path, headers, Some(4 << 10)).await;
                let leaves_after = random.usize(1..400);
                for _ in 0..leaves_after {
                    if random.u32(..200) == 0 {
                        // Long enough to be overtaken, if the kernel holds little.
                        let until_seq = (hub.head().seq.0 + random.u64(..600)).min(last);
                        until("more is published", || {
                            (hub.head().seq.0 >= until_seq).then_some(())
                        })
                        .await;
                    }
                    let event = stream.next().await;
                    match event.kind.as_str() {
                        "fanlight.hello" => _ = from.get_or_insert(event.seq()),
                        "fanlight.gap" => {
                            let gap = event.json();
                            let seq = |key: &str| {
                                gap[key].as_str().map_or_else(
                                    || gap[key].as_u64().unwrap(),
                                    |id| id.split_once('-').unwrap().1.parse().unwrap(),
                                )
                            };
                            gaps.push((seq("from"), seq("to")));
                        }
                        "fanlight.checkpoint" => {}
                        "message" => {
                            let object = event.json();
                            let name = object["name"].as_str().unwrap().to_owned();
                            events.push((event.seq(), name.clone()));
                            if name == "end" {
                                return (number, kinds, from.unwrap(), events, gaps);
                            }
                        }
                        other => panic!("{other}"),
                    }
                    last_id = event.id;
                }
            }
        });
    }
    until("some are there", || (broker.hub().subscribers() > 20).then_some(())).await;
    let data = "x".repeat(300);
    let mut names = Vec::new();
    for number in 0..EVENTS {
        let name = format!("k{}", random.usize(..KINDS));
        cloud.publish(&name, Some(&data));
        names.push(name);
        if number % 20 == 0 {
            until("taken in", || (broker.hub().status().tail.0 > first + number).then_some(()))
                .await;
        }
    }
    cloud.publish("end", Some("0"));
    names.push("end".to_owned());
    let mut missed = 0;
    while let Some(client) = within("all get the end", clients.join_next()).await {
        let (number, kinds, from, events, gaps) = client.unwrap();
        let is_wanted =
            |name: &str| name == "end" || kinds.iter().any(|kind| name == format!("k{kind}"));
        let mut received = events.iter().peekable();
        for (seq, name) in (first..).zip(&names) {
            if received.next_if(|(at, _)| *at == seq).is_some() {
                assert!(is_wanted(name), "client {number}: {seq} is {name}, asked for {kinds:?}");
            } else if is_wanted(name) && seq > from {
                let is_told = gaps.iter().any(|(from, to)| (*from..=*to).contains(&seq));
                assert!(is_told, "client {number} of {kinds:?}: {seq} is missing, gaps {gaps:?}");
                missed += 1;
            }
        }
        assert_eq!(received.next(), None, "client {number}: repeated, or out of order");
    }
    println!("{missed} events were declared missed");
    broker.shutdown().await;
}
