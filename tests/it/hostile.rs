//! Bytes that no well-meaning cloud and no well-meaning client would send. Each test says what
//! comes of them, that the next event still comes, and that the broker is none the worse.

use std::net::SocketAddr;

use fanlight::simulator::Simulator;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{
    Process, Stream, WebSocket, broker, get, metric, quiet_cloud, raw, raw_until_closed, within,
};

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

// === from upstream ===

#[tokio::test]
async fn names_that_cannot_be_passed_on_are_gaps() {
    let mut scene = Scene::new().await;
    let long = "n".repeat(257);
    let cases: [&[u8]; 8] = [
        b"a\0b",
        b"\x1b[31mred",
        b"tab\there",
        b"del\x7f",
        b"c1\xc2\x85",
        b"c1\xc2\x9b31m",
        long.as_bytes(),
        &[b'x'; 300],
    ];
    for name in cases {
        let bytes = [b"event: ", name, b"\ndata: {\"a\":1}\n\n"].concat();
        scene.gets(&bytes, vec![Gap("refused")]).await;
    }
    let refused = "fanlight_upstream_events_refused_total{reason=\"name\"}";
    assert_eq!(metric(scene.addr, refused).await, 8.0);
    scene.unharmed().await;
}

#[tokio::test]
async fn names_that_look_odd_are_passed_on() {
    let mut scene = Scene::new().await;
    // Particle's own names and ours, one letter off; names that mean something elsewhere.
    for name in [
        "Fanlight.gap",
        "fanlight",
        "error",
        "open",
        "message",
        "__proto__",
        " a ",
        "a\"b\\c",
        "</script>",
        "näme",
        "\u{1f9ea}",
        "x\u{2028}y",
        "%00",
        "id: 7",
        ":",
        &"n".repeat(256),
    ] {
        scene.gets(&wire(name, r#"{"a":1}"#), vec![object(name, r#"{"a":1}"#)]).await;
    }
    // No name, or an empty one, is the standard's default.
    scene.gets(b"data: {\"a\":1}\n\n", vec![object("message", r#"{"a":1}"#)]).await;
    scene.gets(b"event:\ndata: 1\n\n", vec![text("message", "1")]).await;
    let bytes = b"event: \xff\xfe\xc0\xafx\ndata: 1\n\n";
    scene.gets(bytes, vec![text("\u{fffd}\u{fffd}\u{fffd}\u{fffd}x", "1")]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn line_ends_divide_lines_and_nothing_else() {
    let mut scene = Scene::new().await;
    for (bytes, becomes) in [
        // A carriage return is a line end, so none gets into a name or into data.
        (&b"event: a\rb\ndata: 1\n\n"[..], vec![text("a", "1")]),
        (b"event: a\ndata: x\ry\n\n", vec![text("a", "x")]),
        (b"event: a\rdata: x\r\r", vec![text("a", "x")]),
        (b"event: a\r\ndata: x\r\n\r\n", vec![text("a", "x")]),
        (b"event: a\ndata: x\r\n\rdata: y\n\r", vec![text("a", "x"), text("message", "y")]),
        (b"event: a\ndata: x\ndata: y\n\n", vec![text("a", "x\ny")]),
        (b"event: a\nevent: b\ndata:x\n\n", vec![text("b", "x")]),
        (b"event: a\n\ndata: x\n\n", vec![text("message", "x")]),
        // Fields that are the broker's own are not taken over from a Particle cloud.
        (b"id: forged-7\nretry: 86400000\nevent: a\ndata: x\n\n", vec![text("a", "x")]),
        (b"id: a\0b\n: comment\nnonsense\nevent: a\n:\ndata: x\n\n", vec![text("a", "x")]),
        // A byte order mark counts at the very beginning of a stream alone.
        (b"\xef\xbb\xbfevent: a\ndata: x\n\n", vec![text("message", "x")]),
        (b"event: a\ndata: \xef\xbb\xbf{\"a\":1}\n\n", vec![text("a", "\u{feff}{\"a\":1}")]),
        (b"\n\n\n\r\r\n:\n:\n\n", vec![]),
        (b"event: only a name\n\nretry: 1\n\nid: 1\n\n", vec![]),
    ] {
        scene.gets(bytes, becomes).await;
    }
    // An object over several lines stays one, on one line.
    let becomes = Event("a".into(), "{\n\"b\":\n1}".into(), "\"b\": 1}".into());
    scene.gets(b"event: a\ndata: {\ndata: \"b\":\ndata: 1}\n\n", vec![becomes]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn data_of_every_kind_is_passed_on() {
    let mut scene = Scene::new().await;
    // Untouched, whatever a stricter reader may think of it.
    for data in [
        r#"{"data":null}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"data":"\ud800"}"#,
        r#"{"n":1e999999}"#,
        r#"{"":""}"#,
        r#"{"a":{"id":1,"name":2,"fanlight":3}}"#,
        r#"{"coreid":"x\u0000y"}"#,
        r#"{"coreid":["d",{}]}"#,
        "{\"data\":\"\u{fffd}\u{7f}\u{85}\u{2028}\"}",
        r#"{"a":1} "#,
    ] {
        scene.gets(&wire("a", data), vec![object("a", data)]).await;
    }
    // Fields that would forge a position, a name or a control event; and what is no object.
    for data in [
        r#"{"id":"00000000-7","data":"x"}"#,
        r#"{"name":"fanlight.bye","data":"x"}"#,
        r#"{"fanlight":"bye","reason":"shutdown"}"#,
        r#"{"\u0069d":"00000000-7"}"#,
        "",
        "null",
        "7",
        "[1,2]",
        "\"x\"",
        "undefined",
        "{",
        "{}}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":NaN}",
        "{\"a\":1}{\"b\":2}",
        "{\"\\ud800\":1}",
        "\0",
        "a\0b",
        "\u{1b}[31m",
        "{\"a\":\"\0\"}",
        "<html>",
        "  x",
        "\u{85}",
    ] {
        scene.gets(&wire("a", data), vec![text("a", data)]).await;
    }
    // What is no UTF-8 is marked as such.
    let becomes = object("a", "{\"data\":\"\u{fffd}(\u{fffd}\"}");
    scene.gets(b"event: a\ndata: {\"data\":\"\xff(\xf0\x9f\"}\n\n", vec![becomes]).await;
    // Deeper than any stack.
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    scene.gets(&wire("a", &deep), vec![object("a", &deep)]).await;
    let deep = format!("{{\"coreid\":{}1{}}}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    scene.gets(&wire("a", &deep), vec![object("a", &deep)]).await;
    let open = format!("{{\"a\":{}", "[{\"b\":".repeat(100_000));
    scene.gets(&wire("a", &open), vec![text("a", &open)]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn lines_are_passed_on_to_the_byte_and_no_further() {
    const LINE_BYTES_MAX: usize = 1 << 20;
    let mut scene = Scene::new().await;
    let data = |line_bytes: usize| {
        let around = "data: {\"data\":\"\"}".len();
        format!("{{\"data\":\"{}\"}}", "x".repeat(line_bytes - around))
    };
    let longest = data(LINE_BYTES_MAX);
    scene.gets(&wire("a", &longest), vec![object("a", &longest)]).await;
    for bytes in [LINE_BYTES_MAX + 1, 3 * LINE_BYTES_MAX] {
        scene.gets(&wire("a", &data(bytes)), vec![Gap("oversize")]).await;
    }
    // In all that the lines of one event may hold together.
    let line = format!("data: {}\n", "y".repeat(LINE_BYTES_MAX - 6));
    let bytes = format!("event: a\n{}\n", line.repeat(3));
    scene.gets(bytes.as_bytes(), vec![Gap("oversize")]).await;
    // A name as long as a line; without data it would have been no event.
    let name = "n".repeat(2 * LINE_BYTES_MAX);
    scene.gets(&wire(&name, "1"), vec![Gap("oversize")]).await;
    scene.gets(format!("event: {name}\n\n").as_bytes(), vec![]).await;
    // Lines that mean nothing are not held at all.
    let nothing = format!(":{name}\nnonsense{name}\nid: {name}\n\n");
    scene.gets(nothing.as_bytes(), vec![]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn an_endless_line_takes_no_more_memory_than_a_long_one() {
    const MIB: usize = 1 << 20;
    let mut scene = Scene::new().await;
    let received = "fanlight_upstream_bytes_total";
    let memory = "fanlight_process_resident_memory_bytes";
    scene.cloud.raw(b"event: a\ndata: ");
    let mut before = 0.0;
    let piece = vec![b'x'; MIB];
    for sent in 1..=48 {
        scene.cloud.raw(&piece);
        // One at a time, so that the cloud's own buffer does not matter.
        while metric(scene.addr, received).await < (sent * MIB) as f64 {}
        if sent == 8 {
            before = metric(scene.addr, memory).await;
        }
    }
    let grown = metric(scene.addr, memory).await - before;
    assert!(grown < (8 * MIB) as f64, "40 MiB more of one line took {grown} bytes");
    scene.gets(b"\n\n", vec![Gap("oversize")]).await;
    scene.unharmed().await;
}

#[tokio::test]
async fn an_event_a_byte_at_a_time_is_whole() {
    let mut scene = Scene::new().await;
    scene.cloud.fault("drip bytes=1 every=10ms".parse::<fanlight::simulator::Fault>().unwrap());
    scene
        .gets("event: ä\ndata: {\"a\":\"…\"}\n\n".as_bytes(), vec![object("ä", "{\"a\":\"…\"}")])
        .await;
    scene.unharmed().await;
}

// === from clients ===

#[tokio::test]
async fn requests_that_are_none_are_refused_and_closed() {
    let mut scene = Scene::new().await;
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let get = |target: &str, rest: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{rest}\r\n");
    let h2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let tls = "\x16\x03\x01\0\u{7f}\x01\0\0\x7b\x03\x03";
    let cases: [(&str, String, Option<u16>); 18] = [
        ("garbage", "\0\x01\x02garbage\r\n\r\n".to_owned(), Some(400)),
        ("TLS", format!("{tls}{}", "x".repeat(100)), Some(400)),
        ("HTTP/2", h2.to_owned(), None),
        ("HTTP/0.9", "GET /healthz\r\n\r\n".to_owned(), Some(400)),
        ("HTTP/3.7", "GET /healthz HTTP/3.7\r\n\r\n".to_owned(), Some(400)),
        ("NUL in the path", get("/hea\0lthz", ""), Some(400)),
        ("a space in the path", get("/events /x", ""), Some(400)),
        ("a folded header", get("/healthz", "A: b\r\n c\r\n"), Some(400)),
        ("a header without a name", get("/healthz", ": b\r\n"), Some(400)),
        ("two lengths", get("/healthz", "Content-Length: 5\r\nContent-Length: 6\r\n"), Some(400)),
        ("a length below zero", get("/healthz", "Content-Length: -1\r\n"), Some(400)),
        ("an unknown encoding", get("/healthz", "Transfer-Encoding: xchunked\r\n"), Some(400)),
        ("a space before the colon", get("/healthz", "Transfer-Encoding : chunked\r\n"), Some(400)),
        ("headers without end", format!("GET /healthz HTTP/1.1\r\n{}", many(50_000)), Some(431)),
        ("200 headers", get("/healthz", &many(200)), Some(431)),
        (
            "500 KB of Last-Event-ID",
            get("/events", &format!("Last-Event-ID: {}\r\n", "a".repeat(500_000))),
            Some(431),
        ),
        ("10,000 parameters", get(&format!("/poll?{}", "prefix=a&".repeat(10_000)), ""), Some(431)),
        ("a path of 1 MiB", get(&"/x".repeat(1 << 19), ""), Some(431)),
    ];
    for (what, bytes, status) in cases {
        let answer = raw_until_closed(scene.addr, bytes.as_bytes()).await;
        let expected = status.map_or(String::new(), |status| format!("HTTP/1.1 {status} "));
        assert!(answer.starts_with(&expected), "{what}: {answer}");
        match status {
            // These are hyper's own, without a body, and tell the client not to go on.
            Some(_) => assert!(
                answer.contains("connection: close\r\ncontent-length: 0"),
                "{what}: {answer}"
            ),
            None => assert_eq!(answer, "", "{what}"),
        }
        scene.lives(what).await;
    }
    scene.unharmed().await;
}

#[tokio::test]
async fn odd_requests_are_answered_in_good_order() {
    let mut scene = Scene::new().await;
    let cases = [
        ("GET /poll?timeout=0&prefix=%zz%&name=%ff%fe HTTP/1.1", "", 200, r#"{"events":[]"#),
        ("GET /poll?timeout=0&&&&=& HTTP/1.1", "", 400, "unknown parameter ``"),
        ("GET /poll?%zz%=1 HTTP/1.1", "", 400, "unknown parameter `%zz%`"),
        ("GET /poll?timeout=0%00 HTTP/1.1", "", 400, "`timeout` is `0\\u0000`"),
        (
            "GET /poll?timeout=0 HTTP/1.1",
            "Last-Event-ID: \u{80}\u{1f9ea}\r\n",
            200,
            r#""reason":"malformed""#,
        ),
        ("GET http://other.example:99/healthz HTTP/1.1", "", 200, r#"{"status":"ok"}"#),
        ("GET /healthz HTTP/1.0", "", 200, r#"{"status":"ok"}"#),
        ("GET /healthz HTTP/1.1", "Content-Length: 5\r\n", 200, r#"{"status":"ok"}"#),
        ("GET /healthz HTTP/1.1", "Transfer-Encoding: chunked\r\n", 200, r#"{"status":"ok"}"#),
        (
            "GET /healthz HTTP/1.1",
            "Expect: 100-continue\r\nContent-Length: 5\r\n",
            200,
            r#"{"status":"ok"}"#,
        ),
        ("GET //healthz HTTP/1.1", "", 404, "not_found"),
        ("GET /hea%00lthz HTTP/1.1", "", 404, "not_found"),
        ("GET /../../etc/passwd HTTP/1.1", "", 404, "not_found"),
        ("CONNECT other.example:443 HTTP/1.1", "", 404, "not_found"),
        ("OPTIONS * HTTP/1.1", "", 404, "not_found"),
        ("BREW /events HTTP/1.1", "", 405, "BREW is not allowed here; use GET"),
        ("POST /events HTTP/1.1", "Content-Length: 999999999\r\n", 405, "method_not_allowed"),
        ("GET /ws HTTP/1.1", "", 426, "upgrade_required"),
        (
            "GET /ws HTTP/1.1",
            "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 7\r\n",
            426,
            "upgrade_required",
        ),
    ];
    for (line, headers, status, part) in cases {
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n{headers}\r\nhello");
        let answer = raw_until_closed(scene.addr, request.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{line}: {answer}");
        assert!(answer.contains(part), "{line}: {answer}");
        if status >= 400 {
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert!(body["error"].is_string() && body["error_description"].is_string(), "{body}");
        }
        scene.lives(line).await;
    }
    // As many parameters as fit into a head.
    for (parameter, count, status) in
        [("&", 10_000, 200), ("&name=a", 2_000, 400), ("&x", 5_000, 400)]
    {
        let answer =
            get(scene.addr, &format!("/poll?timeout=0{}", parameter.repeat(count)), &[]).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    scene.unharmed().await;
}

#[tokio::test]
async fn a_request_cannot_be_hidden_in_another() {
    let mut scene = Scene::new().await;
    let hidden = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for (first, second) in [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
    ] {
        // Whoever in front counted by length would have passed the second on as its body.
        let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{first}\r\n{second}\r\n\r\n");
        let answer =
            raw_until_closed(scene.addr, format!("{head}0\r\n\r\n{hidden}").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(
            answer.contains("\r\nconnection: close\r\n") && !answer.contains("fanlight_"),
            "{answer}"
        );
        scene.lives(first).await;
    }
    scene.unharmed().await;
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-header-timeout=500ms"]).await;
    for head in
        [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: and so on and so on and so on"]
    {
        let mut socket = raw(broker.addr(), b"").await;
        let (mut sent, mut answer) = (0, Vec::new());
        let started = tokio::time::Instant::now();
        loop {
            let patience = std::time::Duration::from_millis(50);
            match tokio::time::timeout(patience, socket.read_buf(&mut answer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(_)) => panic!("{answer:?}"),
                // Nothing yet: the next byte.
                Err(_) if sent < head.len() => {
                    let _ = socket.write_all(&head[sent..=sent]).await;
                    sent += 1;
                }
                Err(_) => assert!(started.elapsed().as_secs() < 30, "still open"),
            }
        }
        assert_eq!(answer, b"", "closed without a word");
        assert!(
            sent < head.len() || head.is_empty(),
            "closed before the {} bytes were there",
            head.len()
        );
    }
    assert_eq!(get(broker.addr(), "/healthz", &[]).await.status, 200);
    broker.shutdown().await;
}

// === WebSocket ===

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
    // A message of 100,000 empty parts is an empty message.
    let mut parts = Raw::open(scene.addr).await;
    parts.send(&frame(0x01, b"")).await;
    for _ in 0..10 {
        parts.send(&frame(0x00, b"").repeat(10_000)).await;
        scene.lives("10,000 empty parts").await;
    }
    parts.send(&frame(0x80, b"")).await;
    assert_eq!(parts.closed().await, 1008);
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
    drop((parts, pings, filters));
    let subscribers = async || -> f64 {
        metric(scene.addr, "fanlight_subscribers{transport=\"websocket\",format=\"json\"}").await
    };
    within("they are gone", async { while subscribers().await > 1.0 {} }).await;
    scene.lives("all of them").await;
    scene.unharmed().await;
}
