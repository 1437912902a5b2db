//! The Particle cloud's own routes, for its unmodified clients, to the byte: each row of the
//! table in docs/protocol.md, with shards and without.

use fanlight::{server::Broker, simulator::Fault};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::harness::{
    Answer, Stream, Stub, answer_in, ask, broker, broker_with, cloud, get, metric, publish,
    publish_line, publish_many, quiet_cloud, raw, raw_until_closed, read_head, request,
    subscribers, until, within,
};

const SAMPLES: &str = include_str!("../data/particle-wire-samples.txt");
const DEVICE: &str = "e00fce680000000000000001";
const WAYS: [&str; 2] = ["--delivery-shards=2", "--delivery-shards=0"];

/// A connection as the cloud's clients open it: no `Accept`, a Bearer token.
struct Client {
    socket: TcpStream,
    head: String,
    /// What came after the head, framing included.
    bytes: Vec<u8>,
}

impl Client {
    async fn open(broker: &Broker, path: &str, headers: &[(&str, &str)]) -> Client {
        let mut all = vec![("Authorization", "bearer not-a-real-token")];
        all.extend(headers);
        Client::ask(broker, &request("GET", path, &all, "keep-alive")).await
    }

    async fn ask(broker: &Broker, request: &str) -> Client {
        let mut socket = raw(broker.addr(), request.as_bytes()).await;
        let mut bytes = Vec::new();
        let end = read_head(&mut socket, &mut bytes).await;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        Client { socket, head, bytes: bytes.split_off(end + 4) }
    }

    /// Reads until what came ends with `end`.
    async fn until(&mut self, end: &str) -> &str {
        within(&format!("{end:?}"), async {
            while !self.bytes.ends_with(end.as_bytes()) {
                let read = self.socket.read_buf(&mut self.bytes).await.unwrap();
                assert!(read > 0, "ended after {:?}", String::from_utf8_lossy(&self.bytes));
            }
        })
        .await;
        std::str::from_utf8(&self.bytes).unwrap()
    }

    /// Everything up to the end of the connection.
    async fn rest(mut self) -> Vec<u8> {
        within("the end", self.socket.read_to_end(&mut self.bytes)).await.unwrap();
        self.bytes
    }
}

/// The chunks of a body, one by one.
fn chunks(mut bytes: &[u8]) -> Vec<String> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let chunk = &bytes[end + 2..end + 2 + size];
        assert_eq!(&bytes[end + 2 + size..end + 4 + size], b"\r\n");
        chunks.push(String::from_utf8(chunk.to_vec()).unwrap());
        bytes = &bytes[end + 4 + size..];
    }
    chunks
}

fn chunk(text: &str) -> String {
    format!("{:X}\r\n{text}\r\n", text.len())
}

/// The events of the sample file, each with its blank line, as the cloud wrote them.
fn samples() -> Vec<String> {
    let blocks = SAMPLES.strip_prefix(":ok\n\n").unwrap().split("\n\n");
    let blocks: Vec<String> = blocks
        .map(|block| block.trim_start_matches('\n'))
        .filter(|block| !block.is_empty())
        .map(|block| format!("{block}\n\n"))
        .collect();
    assert_eq!(blocks.len(), 20);
    blocks
}

#[tokio::test]
async fn what_the_cloud_sent_goes_on_byte_for_byte_one_event_a_chunk() {
    for way in WAYS {
        let stub = Stub::listen().await;
        let broker = broker_with(&["--upstream-url", &stub.url("/"), way], |_| {}).await;
        let mut asked = stub.asked().await;
        asked.stream().await;
        let mut client = Client::open(&broker, "/v1/devices/events", &[]).await;
        let http = "GET /v1/devices/events HTTP/1.0\r\n\r\n";
        let mut old = Client::ask(&broker, http).await;
        subscribers(&broker, 2).await;
        asked.send(SAMPLES).await;
        let last = samples().pop().unwrap();
        client.until(&chunk(&last)).await;
        let expected: Vec<String> =
            std::iter::once(":ok\n\n".to_owned()).chain(samples()).collect();
        assert_eq!(chunks(&client.bytes), expected, "{way}");
        // Without chunks, the same bytes.
        old.until(&last).await;
        assert_eq!(String::from_utf8_lossy(&old.bytes), expected.concat(), "{way}");
        assert!(!old.head.contains("transfer-encoding"), "{}", old.head);
        assert!(!SAMPLES.contains("fanlight"));
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn the_head_is_the_clouds_and_is_there_at_once_whatever_the_upstream_does() {
    // Nobody answers there.
    let stub = Stub::listen().await;
    for way in WAYS {
        let broker = broker_with(&["--upstream-url", &stub.url("/"), way], |_| {}).await;
        let mut client = Client::open(&broker, "/v1/devices/events", &[]).await;
        let mut lines: Vec<&str> =
            client.head.lines().filter(|line| !line.starts_with("date: ")).collect();
        lines.sort_unstable();
        let expected = [
            "cache-control: no-cache",
            "connection: close",
            "content-type: text/event-stream",
            "cross-origin-resource-policy: same-origin",
            "http/1.1 200 ok",
            "transfer-encoding: chunked",
            "x-accel-buffering: no",
            "x-content-type-options: nosniff",
        ];
        assert_eq!(lines, expected, "{way}");
        assert_eq!(client.until("\n\n\r\n").await, chunk(":ok\n\n"));
        let head = ask(broker.addr(), "HEAD", "/v1/devices/events", &[]).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn every_address_leads_to_its_stream() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let device = format!("/v1/devices/{DEVICE}/events");
    let other = "/v1/devices/e00fce680000000000000002/events";
    let paths: &[(&str, &[&str])] = &[
        ("/v1/devices/events", &["a/b", "a/c", "b"]),
        ("/v1/devices/events/", &["a/b", "a/c", "b"]),
        ("//v1//devices/events", &["a/b", "a/c", "b"]),
        ("/v1/devices/mine/events?nonce=0.5&x=1&limit=0", &["a/b", "a/c", "b"]),
        ("/v1/devices/events/a", &["a/b", "a/c"]),
        ("/v1/devices/events/a/b?access_token=not-a-real-token", &["a/b"]),
        ("/v1/devices/events/a%2Fb", &["a/b"]),
        ("//v1/devices/events/a%2fb?history_limit=30", &["a/b"]),
        ("/v1/events/a", &["a/b", "a/c"]),
        (&device, &["a/b", "a/c", "b"]),
        (other, &[]),
    ];
    let mut clients = Vec::new();
    for (path, _) in paths {
        clients.push(Client::open(&broker, path, &[]).await);
    }
    subscribers(&broker, paths.len()).await;
    for name in ["a/b", "a/c", "b"] {
        let json = format!(r#"{{"data":"1","coreid":"{DEVICE}"}}"#);
        publish_line(&cloud, &broker, name, &json).await;
    }
    let delivered: usize = paths.iter().map(|(_, names)| names.len()).sum();
    let sample = "fanlight_deliveries_total{transport=\"particle\"}";
    until_metric(&broker, sample, delivered).await;
    let format = "fanlight_subscribers{transport=\"particle\",format=\"particle\"}";
    assert_eq!(metric(broker.addr(), format).await, paths.len() as f64);
    broker.shutdown().await;
    for (client, (path, names)) in clients.into_iter().zip(paths) {
        let (_, body) = answer_in(
            &[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &client.rest().await[..]]
                .concat(),
        );
        let body = String::from_utf8(body).unwrap();
        let found: Vec<&str> =
            body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        assert_eq!(found, *names, "{path}");
    }
}

async fn until_metric(broker: &Broker, sample: &str, value: usize) {
    crate::harness::eventually(sample, async || {
        (metric(broker.addr(), sample).await == value as f64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_address_without_a_device_of_its_own_is_refused_in_the_clouds_words() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let cases = [
        ("/v1/events", 400, "invalid_request"),
        ("/v1/events/", 400, "invalid_request"),
        ("/v1/devices/blue/events", 403, "Permission Denied"),
        ("/v1/products/12345/events", 404, "Product not found"),
        ("/v1/products/12345/devices/e00f/events/x%2Fy", 404, "Product not found"),
        ("/v1/orgs/acme/events", 404, "Organization not found"),
        ("/v1/orgs/acme/products/p/devices/d/events", 404, "Organization not found"),
        ("/v1/user", 404, "not_found"),
        ("/v1/", 404, "not_found"),
        ("//v2/devices/events", 404, "not_found"),
    ];
    // `EventSource` gets the same: it asks for a stream of the cloud, which does so.
    for headers in [&[][..], &[("Accept", "text/event-stream")]] {
        for (path, status, error) in cases {
            let answer = get(broker.addr(), path, headers).await;
            assert_eq!(answer.status, status, "{path}: {answer:?}");
            assert_is_error(&answer, error);
        }
    }
    let long = format!("/v1/devices/events/{}", "x".repeat(129));
    assert_is_error(&get(broker.addr(), &long, &[]).await, "invalid_parameter");
    for method in ["PUT", "DELETE", "PATCH"] {
        let answer = ask(broker.addr(), method, "/v1/devices/events", &[]).await;
        assert_eq!(answer.status, 405);
        assert_is_error(&answer, "method_not_allowed");
    }
    broker.shutdown().await;
}

/// Whole JSON with its length: api-js waits for the end of the body, and its 6.x ends the
/// process on anything that is no JSON.
fn assert_is_error(answer: &Answer, error: &str) {
    let body = answer.json();
    assert_eq!(body["error"], error, "{answer:?}");
    assert!(body["error_description"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert_eq!(length, answer.body.len());
}

#[tokio::test]
async fn a_product_stream_is_served_where_the_upstream_reads_it() {
    let cloud = quiet_cloud().await;
    let product = get(cloud.addr(), "/sim/devices", &[]).await.json()["product"]["id"].to_string();
    let flags = ["--upstream-scope=product", "--upstream-product", &product];
    let broker = broker(&cloud, &flags).await;
    let path = format!("/v1/products/{product}/events");
    let mut client = Client::open(&broker, &path, &[]).await;
    subscribers(&broker, 1).await;
    publish_line(&cloud, &broker, "x", "{}").await;
    client.until(&chunk("event: x\ndata: {}\n\n")).await;
    let mine = get(broker.addr(), "/v1/devices/events", &[]).await;
    assert_eq!(mine.status, 403);
    let text = mine.json()["error_description"].as_str().unwrap().to_owned();
    assert!(text.contains(&path), "{text}");
    broker.shutdown().await;
}

#[tokio::test]
async fn ids_are_for_those_who_ask_for_an_event_stream_by_name_and_replay_for_all() {
    for way in WAYS {
        let cloud = quiet_cloud().await;
        let broker = broker(&cloud, &[way]).await;
        let first = publish_line(&cloud, &broker, "a", r#"{"data":"1"}"#).await;
        let epoch = broker.hub().epoch();
        let id = |seq: u64| format!("{epoch}-{seq}");
        publish_line(&cloud, &broker, "b", r#"{"data":"2"}"#).await;
        let accept = ("Accept", "text/html, Text/Event-Stream;q=0.9");
        let from = id(first);
        let last_id = [accept, ("Last-Event-ID", from.as_str())];
        let mut with_ids = Client::open(&broker, "/v1/devices/events", &last_id).await;
        let block = "event: b\ndata: {\"data\":\"2\"}\n\n";
        let expected = chunk(&format!("id: {}\n{block}", id(first + 1)));
        let bytes = with_ids.until(&expected).await;
        assert_eq!(bytes, chunk(":ok\n\n") + &expected);
        // The Android SDK hands the id back in the query.
        let path = format!("/v1/devices/events?access_token=x&.ka={from}");
        for (path, headers) in [
            (path.as_str(), &[][..]),
            ("/v1/devices/events", &last_id[1..]),
            (&path, &[("Accept", "*/*")]),
        ] {
            let mut bare = Client::open(&broker, path, headers).await;
            assert_eq!(bare.until(&chunk(block)).await, chunk(":ok\n\n") + &chunk(block));
        }
        // What is no position of ours means nothing, as at the cloud: no replay.
        let foreign = [("Last-Event-ID", "42"), ("Cache-Control", "no-cache")];
        let mut live = Client::open(&broker, "/v1/devices/events", &foreign).await;
        // With the first; the others have left.
        subscribers(&broker, 2).await;
        publish_line(&cloud, &broker, "c", "{}").await;
        let expected = chunk(":ok\n\n") + &chunk("event: c\ndata: {}\n\n");
        assert_eq!(live.until("{}\n\n\r\n").await, expected);
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn a_replay_is_one_chunk_an_event_and_ends_clean() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish_many(&cloud, &broker, "a", 300).await;
    let path = format!("/v1/devices/events?.ka={}-0", broker.hub().epoch());
    let client = Client::open(&broker, &path, &[]).await;
    until_metric(&broker, "fanlight_deliveries_total{transport=\"particle\"}", 300).await;
    broker.shutdown().await;
    let rest = client.rest().await;
    let rest = rest.strip_suffix(b"0\r\n\r\n").expect("a clean end of the body");
    let chunks = chunks(rest);
    assert_eq!(chunks.len(), 301);
    for (number, chunk) in chunks[1..].iter().enumerate() {
        assert!(chunk.starts_with("event: a\ndata: {\"data\":\""), "{chunk}");
        assert!(chunk.contains(&format!("\"data\":\"{number}\"")), "{chunk}");
        assert_eq!(chunk.matches("\n\n").count(), 1);
    }
}

#[tokio::test]
async fn silence_is_broken_by_a_bare_line_feed_and_by_a_comment_where_there_are_ids() {
    for way in WAYS {
        let cloud = quiet_cloud().await;
        let broker = broker(&cloud, &["--stream-keepalive=1s", way]).await;
        let mut bare = Client::open(&broker, "/v1/devices/events", &[]).await;
        let accept = [("Accept", "text/event-stream")];
        let mut with_ids = Client::open(&broker, "/v1/devices/events", &accept).await;
        let twice = chunk("\n") + &chunk("\n");
        assert_eq!(bare.until(&twice).await, chunk(":ok\n\n") + &twice, "{way}");
        let twice = chunk(":\n") + &chunk(":\n");
        assert_eq!(with_ids.until(&twice).await, chunk(":ok\n\n") + &twice, "{way}");
        publish_line(&cloud, &broker, "a", "{}").await;
        bare.until(&chunk("event: a\ndata: {}\n\n")).await;
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn nothing_but_the_clouds_own_bytes_is_sent_through_cuts_gaps_and_the_end() {
    for way in WAYS {
        let cloud = quiet_cloud().await;
        let broker = broker(&cloud, &["--ring-events-max=16", way]).await;
        let mut client = Client::open(&broker, "/v1/devices/events", &[]).await;
        publish_line(&cloud, &broker, "a", "{}").await;
        client.until(&chunk("event: a\ndata: {}\n\n")).await;
        cloud.fault("cut".parse::<Fault>().unwrap());
        until("it was away", || {
            let history = broker.hub().status().upstream_history;
            (history.iter().filter(|one| one.state.as_str() == "live").count() == 2).then_some(())
        })
        .await;
        cloud.streams(1).await;
        publish_many(&cloud, &broker, "old", 40).await;
        let evicted = format!("/v1/devices/events?.ka={}-1", broker.hub().epoch());
        let late = Client::open(&broker, &evicted, &[("Accept", "text/event-stream")]).await;
        until_metric(&broker, "fanlight_gaps_total{reason=\"evicted\"}", 1).await;
        publish_line(&cloud, &broker, "last", "{}").await;
        client.until(&chunk("event: last\ndata: {}\n\n")).await;
        broker.shutdown().await;
        for client in [client, late] {
            let bytes = client.rest().await;
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.ends_with("event: last\ndata: {}\n\n\r\n0\r\n\r\n"), "{way}: {text}");
            assert!(!text.contains("fanlight") && !text.contains("retry"), "{way}: {text}");
        }
    }
}

#[tokio::test]
async fn there_being_no_room_is_an_error_for_everyone() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-connections-per-ip-max=1"]).await;
    let (_held, _) = Stream::live(broker.addr(), "/events").await;
    for path in ["/v1/devices/events", "//v1/devices/events"] {
        for headers in [&[][..], &[("Accept", "text/event-stream")]] {
            let answer = get(broker.addr(), path, headers).await;
            assert_eq!(answer.status, 429);
            assert_is_error(&answer, "too_many_connections");
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((15..=60).contains(&wait), "{wait}");
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn pages_of_other_origins_read_only_where_that_is_switched_on() {
    let cloud = quiet_cloud().await;
    let page = [("Origin", "https://elsewhere.example")];
    let own = [("Origin", "http://broker")];
    let closed = broker(&cloud, &[]).await;
    for (method, path) in [("GET", "/v1/devices/events"), ("OPTIONS", "/v1/devices/events")] {
        let answer = ask(closed.addr(), method, path, &page).await;
        assert_eq!(answer.status, 403, "{method}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_is_error(&answer, "foreign_origin");
        assert!(answer.body.contains("particle.cors"), "{answer:?}");
    }
    let head = ask(closed.addr(), "HEAD", "/v1/devices/events", &own).await;
    assert_eq!(head.status, 200);
    closed.shutdown().await;

    let open = broker(&cloud, &["--particle-cors=true"]).await;
    let client = Client::open(&open, "/v1/devices/events", &page).await;
    assert!(client.head.contains("access-control-allow-origin: *"), "{}", client.head);
    let refused = get(open.addr(), "/v1/products/1/events", &page).await;
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"), "so that it can be read");
    let asks = [
        page[0],
        ("Access-Control-Request-Method", "GET"),
        ("Access-Control-Request-Headers", "authorization,x-particle-tool"),
    ];
    let preflight = ask(open.addr(), "OPTIONS", "/v1/devices/events/x", &asks).await;
    assert_eq!((preflight.status, preflight.body.as_str()), (204, ""));
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("get, head"));
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    for name in [
        "authorization",
        "content-type",
        "cache-control",
        "last-event-id",
        "user-agent",
        "x-particle-tool",
        "x-particle-project",
    ] {
        assert!(allowed.split(", ").any(|one| one == name), "{name}: {allowed}");
    }
    // To publish is another matter.
    let publishes = ask(open.addr(), "POST", "/v1/devices/events", &page).await;
    assert_eq!(publishes.status, 403);
    assert_eq!(publishes.header("access-control-allow-origin"), None);
    // Nor does it open the broker's own routes.
    let events = get(open.addr(), "/events", &page).await;
    assert_eq!(events.status, 403);
    assert_eq!(events.header("access-control-allow-origin"), None);
    open.shutdown().await;
}

#[tokio::test]
async fn a_burst_is_one_chunk_an_event_for_every_client() {
    let cloud = cloud(Default::default()).await;
    let broker = broker(&cloud, &[]).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::open(&broker, "/v1/devices/events", &[]).await);
    }
    subscribers(&broker, 20).await;
    for number in 0..200 {
        cloud.publish_line("n", &format!("{{\"data\":\"{number}\"}}"));
    }
    for mut client in clients {
        client.until(&chunk("event: n\ndata: {\"data\":\"199\"}\n\n")).await;
        let expected: Vec<String> = std::iter::once(":ok\n\n".to_owned())
            .chain((0..200).map(|n| format!("event: n\ndata: {{\"data\":\"{n}\"}}\n\n")))
            .collect();
        assert_eq!(chunks(&client.bytes), expected);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn the_status_knows_them() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let _client = Client::open(&broker, "/v1/devices/events", &[]).await;
    subscribers(&broker, 1).await;
    let status: Value = get(broker.addr(), "/status", &[]).await.json();
    assert_eq!(status["subscribers"]["by_transport"]["particle"], 1);
    publish(&cloud, &broker, "a", "1").await;
    let garbage =
        raw_until_closed(broker.addr(), b"GET /v1/%00%zz/../events HTTP/1.0\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.0 404"), "{garbage}");
    broker.shutdown().await;
}
