//! What one client and all clients may use, and how they are turned away.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::harness::{
    Answer, Process, Stream, WebSocket, answer_in, broker, broker_with, eventually, get, metric,
    publish, publish_many, quiet_cloud, raw, raw_until_closed, request, subscribers, within,
};

const SSE: (&str, &str) = ("Accept", "text/event-stream");

/// What a browser that asks for an event stream is told when there is no room.
async fn assert_turned_away_as_a_browser(addr: SocketAddr) {
    let text = request("GET", "/events", &[SSE], "keep-alive");
    let answer = raw_until_closed(addr, text.as_bytes()).await;
    let (head, body) = answer_in(answer.as_bytes());
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    for line in ["content-type: text/event-stream", "connection: close"] {
        assert!(head.lines().any(|have| have == line), "{line}: {head}");
    }
    let body = String::from_utf8(body).unwrap();
    let retry = body.strip_prefix("retry: ").and_then(|rest| rest.split('\n').next()).unwrap();
    let retry: u64 = retry.parse().unwrap();
    assert!((15_000..=60_000).contains(&retry), "{retry}");
    let whole = format!(
        "retry: {retry}\nevent: fanlight.bye\ndata: {{\"reason\":\"full\",\"retry_ms\":{retry}}}\n\n"
    );
    assert_eq!(body, whole);
}

fn assert_turned_away(answer: &Answer, status: u16, error: &str, setting: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"));
    let retry: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=60).contains(&retry), "{retry}");
    let body = answer.json();
    assert_eq!(body["error"], error);
    let description = body["error_description"].as_str().unwrap();
    assert!(description.contains(setting), "{description}");
    assert!(description.ends_with(&format!("try again in {retry} s")), "{description}");
}

/// Those who take nothing hold most of the memory: near its bound nobody new comes in, and over it
/// they are ended, as many as it takes. Who keeps up notices nothing.
#[tokio::test]
async fn short_memory_is_taken_from_those_that_take_nothing() {
    const STUCK: usize = 40;
    let cloud = quiet_cloud().await;
    let url = format!("--upstream-url={}", cloud.url());
    let flags = ["--limits-send-buffer=4KiB", "--ring-bytes-max=64KiB", url.as_str()];
    let broker = broker_with(&flags, |config| config.memory.bytes_max = 1500 << 10).await;
    let addr = broker.addr();
    let (mut reader, _) = Stream::live(addr, "/events").await;
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        stuck.push(Stream::open_with(addr, "/events", &[], Some(4096)).await);
    }
    subscribers(&broker, STUCK + 1).await;
    let ended = r#"fanlight_subscribers_closed_total{reason="slow"}"#;
    let reached = r#"fanlight_limits_reached_total{limit="memory"}"#;
    // 44 KiB each are more than 1500 KiB; at 90 % of that some 30 are left.
    let data = "x".repeat(1000);
    let count = eventually("as many are ended as it takes", async || {
        let last = publish(&cloud, &broker, "a", &data).await;
        while reader.next().await.seq() < last {}
        Some(metric(addr, ended).await).filter(|count| *count > 0.0)
    })
    .await;
    assert!((5.0..25.0).contains(&count), "{count}");
    assert!(metric(addr, reached).await >= count);
    let status = get(addr, "/status", &[]).await.json();
    let share = status["limits"]["memory_bytes"].as_f64().unwrap()
        / status["limits"]["memory_bytes_max"].as_f64().unwrap();
    assert!(share < 0.96, "{share}");
    eventually("nobody new comes in", async || {
        let answer = get(addr, "/last", &[]).await;
        (answer.status == 503)
            .then(|| assert_turned_away(&answer, 503, "full", "limits.memory_max"))
    })
    .await;
    assert_turned_away_as_a_browser(addr).await;
    drop(stuck);
    eventually("there is room again", async || {
        (get(addr, "/last", &[]).await.status == 200).then_some(())
    })
    .await;
    let last = publish(&cloud, &broker, "a", "the last").await;
    while reader.next().await.seq() < last {}
    broker.shutdown().await;
}

#[tokio::test]
async fn those_who_come_too_fast_wait_and_none_is_refused() {
    let cloud = quiet_cloud().await;
    let flags = ["--limits-accepts-per-second=50", "--server-admin-listen=127.0.0.1:0"];
    let broker = broker(&cloud, &flags).await;
    let mut sockets = Vec::new();
    for _ in 0..70 {
        sockets.push(raw(broker.addr(), b"GET /healthz HTTP/1.0\r\n\r\n").await);
    }
    for mut socket in sockets {
        let mut answer = String::new();
        within("an answer", socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    }
    let sample = r#"fanlight_limits_reached_total{limit="accept-rate"}"#;
    assert!(metric(broker.admin_addr().unwrap(), sample).await > 0.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn one_address_that_comes_too_fast_is_not_heard() {
    let cloud = quiet_cloud().await;
    let flags = ["--limits-accepts-per-ip-per-second=2", "--server-admin-listen=127.0.0.1:0"];
    let broker = broker(&cloud, &flags).await;
    let mut heard = 0;
    for _ in 0..20 {
        let answer = raw_until_closed(broker.addr(), b"GET /healthz HTTP/1.0\r\n\r\n").await;
        heard += usize::from(!answer.is_empty());
    }
    assert!((6..20).contains(&heard), "{heard}");
    // Who looks at it is not of that pace.
    let sample = r#"fanlight_limits_reached_total{limit="accept-rate-per-ip"}"#;
    assert_eq!(metric(broker.admin_addr().unwrap(), sample).await, (20 - heard) as f64);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_request_has_so_many_headers_and_no_more() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for (count, status) in [(63, 200), (64, 431), (99, 431)] {
        let names: Vec<String> = (0..count - 1).map(|number| format!("X-{number}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "y")).collect();
        // With `Host` and `Connection` one more.
        let answer = get(broker.addr(), "/healthz", &headers).await;
        assert_eq!(answer.status, status, "{count}");
        if status != 200 {
            assert_eq!(answer.json()["error"], "too_many_headers");
            assert_eq!(answer.header("connection"), Some("close"));
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_full_broker_says_so_in_the_words_that_suit_the_client() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-connections-max=2"]).await;
    let addr = broker.addr();
    let (first, _) = Stream::live(addr, "/events").await;
    let _second = Stream::live(addr, "/events").await;
    assert_turned_away_as_a_browser(addr).await;
    let handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let ndjson = [("Accept", "application/x-ndjson")];
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("/events", &[]),
        ("/events", &ndjson),
        ("/ws", &handshake),
        ("/poll", &[]),
        ("/last", &[]),
        ("/", &[("Accept", "text/html")]),
    ];
    for (path, headers) in cases {
        let answer = get(addr, path, headers).await;
        assert_turned_away(&answer, 503, "full", "limits.connections_max");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert_eq!(get(addr, path, &[]).await.status, 200, "{path}");
    }
    let status = get(addr, "/status", &[]).await.json();
    let mut limits = status["limits"].clone();
    limits.as_object_mut().unwrap().retain(|name, _| name.starts_with("connections"));
    let expected = json!({"connections": 3, "connections_max": 2, "connections_per_ip_max": null});
    assert_eq!(limits, expected);
    let sample = r#"fanlight_limits_reached_total{limit="connections"}"#;
    assert!(metric(addr, sample).await >= 7.0);
    drop(first);
    eventually("there is room again", async || {
        (get(addr, "/last", &[]).await.status == 200).then_some(())
    })
    .await;
    broker.shutdown().await;
}

#[tokio::test]
async fn an_address_with_too_many_is_turned_away_and_others_are_served() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-connections-per-ip-max=1"]).await;
    let addr = broker.addr();
    let (first, _) = Stream::live(addr, "/events").await;
    assert_turned_away_as_a_browser(addr).await;
    let answer = get(addr, "/poll?timeout=0", &[]).await;
    let setting = "limits.connections_per_ip_max";
    assert_turned_away(&answer, 429, "too_many_connections", setting);
    let sample = r#"fanlight_limits_reached_total{limit="connections-per-ip"}"#;
    assert_eq!(metric(addr, sample).await, 3.0, "the one that asks for this too");
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = within("connect", socket.connect(addr)).await.unwrap();
    other.write_all(request("GET", "/last", &[], "close").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the answer", other.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop(first);
    eventually("there is room again", async || {
        (get(addr, "/last", &[]).await.status == 200).then_some(())
    })
    .await;
    broker.shutdown().await;
}

#[tokio::test]
async fn every_place_comes_back_when_its_client_leaves() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-connections-max=1"]).await;
    let addr = broker.addr();
    for _ in 0..5 {
        eventually("a place for a stream", async || {
            let mut stream = Stream::open(addr, "/events", &[]).await;
            (stream.next().await.kind == "fanlight.hello").then_some(())
        })
        .await;
        eventually("a place for a poll", async || {
            (get(addr, "/poll?timeout=0", &[]).await.status == 200).then_some(())
        })
        .await;
        // The handshake waits for the poll's place; a place it finds it gives back.
        eventually("the poll's place", async || {
            (broker_connections(addr).await == 1.0).then_some(())
        })
        .await;
        let mut socket = WebSocket::open(addr, "/ws").await;
        assert_eq!(socket.next().await["fanlight"], "hello");
        assert_turned_away_as_a_browser(addr).await;
        socket.close().await;
    }
    eventually("all are given back", async || {
        (broker_connections(addr).await == 1.0).then_some(())
    })
    .await;
    broker.shutdown().await;
}

/// Connections open, the asking one included.
async fn broker_connections(addr: SocketAddr) -> f64 {
    metric(addr, "fanlight_connections").await
}

#[tokio::test]
async fn beyond_the_reserve_for_refusals_a_connection_is_closed_unheard() {
    let cloud = quiet_cloud().await;
    let flags = ["--limits-connections-max=1", "--limits-header-timeout=2m"];
    let broker = broker(&cloud, &flags).await;
    let mut idle = Vec::new();
    for _ in 0..1 + 64 {
        idle.push(raw(broker.addr(), b"").await);
    }
    let mut over = raw(broker.addr(), b"").await;
    let mut answer = Vec::new();
    let _ = within("the end", over.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
    drop(idle.pop());
    let status = eventually("a place in the reserve", async || {
        let text = request("GET", "/metrics", &[], "close");
        let answer = raw_until_closed(broker.addr(), text.as_bytes()).await;
        (!answer.is_empty()).then_some(answer)
    })
    .await;
    assert!(status.contains("fanlight_limits_reached_total{limit=\"accept\"}"), "{status}");
    drop(idle);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_head_that_does_not_arrive_in_time_ends_the_connection() {
    let cloud = quiet_cloud().await;
    let flags = ["--limits-header-timeout=100ms", "--stream-keepalive=1s"];
    let broker = broker(&cloud, &flags).await;
    let mut stream = Stream::open(broker.addr(), "/events", &[]).await;
    let mut sockets = [
        raw(broker.addr(), b"").await,
        raw(broker.addr(), b"GET /healthz HTTP/1.1\r\nHost: bro").await,
        raw(broker.addr(), request("GET", "/healthz", &[], "keep-alive").as_bytes()).await,
    ];
    for (case, socket) in sockets.iter_mut().enumerate() {
        let mut answer = Vec::new();
        let _ = within("the end", socket.read_to_end(&mut answer)).await;
        let answer = String::from_utf8(answer).unwrap();
        let has_answer = answer.starts_with("HTTP/1.1 200 OK\r\n");
        assert_eq!(has_answer, case == 2, "{case}: {answer}");
    }
    // A byte now and then does not keep it open.
    let (mut reader, mut writer) = raw(broker.addr(), b"GET / HTTP/1.1\r\nA: ").await.into_split();
    let dripping = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while writer.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    });
    let _ = within("the end", reader.read_to_end(&mut Vec::new())).await;
    within("a write fails", dripping).await.unwrap();
    stream.body_holds("\n\n:\n:\n").await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_subscriber_that_takes_nothing_is_closed_and_counted_as_slow() {
    for shards in ["--delivery-shards=1", "--delivery-shards=0"] {
        takes_nothing(shards).await;
    }
}

async fn takes_nothing(shards: &str) {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-write-stall=1s", shards]).await;
    let addr = broker.addr();
    let mut stalled = Stream::open_with(addr, "/events", &[], Some(4 << 10)).await;
    let mut stalled_socket = small(addr, &handshake()).await;
    let (mut reading, hello) = Stream::live(addr, "/events").await;
    subscribers(&broker, 3).await;
    let data = "x".repeat(600);
    for number in 1..=400 {
        publish(&cloud, &broker, "a", &data).await;
        // Who reads is not concerned.
        assert_eq!(reading.next().await.seq(), hello.seq() + number);
    }
    subscribers(&broker, 1).await;
    // What the client's kernel had taken is still there, then the connection is gone.
    let partial = stalled.rest().await;
    assert!(partial.len() < 400 && !stalled.ended_cleanly());
    let mut bytes = Vec::new();
    let end = within("the end", stalled_socket.read_to_end(&mut bytes)).await.unwrap_err();
    // Closed in good order, the kernel would hold on to the rest for half a minute.
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(bytes.len() < 400 * 600);
    let slow = r#"fanlight_subscribers_closed_total{reason="slow"}"#;
    assert_eq!(metric(addr, slow).await, 2.0);
    let reached = r#"fanlight_limits_reached_total{limit="write-stall"}"#;
    assert_eq!(metric(addr, reached).await, 2.0);
    broker.shutdown().await;
}

fn handshake() -> String {
    "GET /ws HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_owned()
}

/// A connection with a receive buffer of next to nothing, after sending a request.
async fn small(addr: SocketAddr, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2 << 10).unwrap();
    let mut socket = within("connect", socket.connect(addr)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

/// Kernel memory of each connection on the broker's side, by the client's port. `ss`
/// says what the kernel has allocated; without it there is the length of the queue.
fn kernel_bytes(addr: SocketAddr) -> HashMap<u16, u64> {
    let filter = format!("sport = :{}", addr.port());
    let output = std::process::Command::new("ss").args(["-tmnH", &filter]).output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).unwrap();
            let joined = text.replace("\n\t", " ");
            joined.lines().filter_map(allocated).collect()
        }
        _ => queued(addr),
    }
}

/// `ESTAB 0 36864 127.0.0.1:8080 127.0.0.1:51234 skmem:(r0,rb32768,t0,tb65536,f1792,w63744,o0,bl0,d0)`
fn allocated(line: &str) -> Option<(u16, u64)> {
    let mut words = line.split_whitespace();
    let peer = words.nth(4)?;
    let memory = line.split_once("skmem:(")?.1.split_once(')')?.0;
    let bytes = memory
        .split(',')
        .filter(|part| {
            part.split(|c: char| c.is_ascii_digit())
                .next()
                .is_some_and(|name| ["r", "f", "w", "o", "bl"].contains(&name))
        })
        .filter_map(|part| part.trim_start_matches(char::is_alphabetic).parse::<u64>().ok())
        .sum();
    Some((peer.rsplit_once(':')?.1.parse().ok()?, bytes))
}

fn queued(addr: SocketAddr) -> HashMap<u16, u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let queue = u64::from_str_radix(fields[4].split_once(':')?.0, 16).ok()?;
            (port(fields[1])? == addr.port()).then_some((port(fields[2])?, queue))
        })
        .collect()
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// The bound on what one stalled subscriber holds, kernel and process together.
const PINNED_BYTES_MAX: u64 = 128 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_takes_nothing_holds_less_than_128_kib() {
    const STALLED: u64 = 200;
    let stream = request("GET", "/events", &[SSE], "keep-alive");
    for (transport, request) in [("sse", stream), ("websocket", handshake())] {
        let cloud = quiet_cloud().await;
        let flags = [
            "--trace-level=warn,fanlight::cli=info",
            "--ring-bytes-max=1MiB",
            "--limits-write-stall=10m",
            "--websocket-ping-interval=10m",
        ];
        let (process, addr) = Process::serve_live(&cloud.url(), &flags).await;
        let data = "x".repeat(600);
        let flood = async |count: u64| {
            let tail =
                async || get(addr, "/status", &[]).await.json()["ring"]["tail"].as_u64().unwrap();
            let until = tail().await + count;
            (0..count).for_each(|_| cloud.publish("a", Some(&data)));
            eventually("taken in", async || (tail().await >= until).then_some(())).await;
        };
        flood(4_000).await;
        let before = resident_bytes(process.pid());
        let mut sockets = Vec::new();
        for _ in 0..STALLED {
            sockets.push(small(addr, &request).await);
        }
        eventually("all are subscribed", async || {
            let status = get(addr, "/status", &[]).await.json();
            (status["subscribers"]["total"] == STALLED).then_some(())
        })
        .await;
        for _ in 0..8 {
            flood(500).await;
        }
        let sample = format!("fanlight_batches_total{{transport=\"{transport}\"}}");
        let mut written = 0.0;
        eventually("nothing more is written", async || {
            let now = metric(addr, &sample).await;
            let is_settled = now == std::mem::replace(&mut written, now);
            is_settled.then_some(())
        })
        .await;
        let lag = get(addr, "/status", &[]).await.json()["subscribers"]["slowest"].clone();
        assert!(lag[9]["lag_events"].as_u64().unwrap() > 1_000, "they are not stalled: {lag}");
        let after = resident_bytes(process.pid());
        let kernel = kernel_bytes(addr);
        let kernel: Vec<u64> =
            sockets.iter().map(|socket| kernel[&socket.local_addr().unwrap().port()]).collect();
        let (kernel_max, kernel_mean) =
            (*kernel.iter().max().unwrap(), kernel.iter().sum::<u64>() / STALLED);
        let resident = after.saturating_sub(before) / STALLED;
        println!(
            "{transport}: each holds {} KiB of the process and {} KiB (at most {}) of the kernel",
            resident >> 10,
            kernel_mean >> 10,
            kernel_max >> 10
        );
        assert!(kernel_mean > 8 << 10, "the kernel's share was not measured: {kernel:?}");
        assert!(resident + kernel_max <= PINNED_BYTES_MAX, "{resident} + {kernel_max}");
    }
}

#[tokio::test]
async fn a_slow_reader_keeps_its_place_as_long_as_it_takes_something() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-write-stall=1s"]).await;
    let mut slow = Stream::open_with(broker.addr(), "/events", &[], Some(4 << 10)).await;
    let hello = slow.next().await;
    let data = "x".repeat(600);
    for _ in 0..4 {
        for _ in 0..100 {
            cloud.publish("a", Some(&data));
        }
        publish_many(&cloud, &broker, "a", 1).await;
    }
    // It takes an event now and then, over more than the time allowed without any.
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for number in 1..=15 {
        pace.tick().await;
        assert_eq!(slow.next().await.seq(), hello.seq() + number);
    }
    let mut seqs = Vec::new();
    while seqs.len() < 4 * 101 - 15 {
        seqs.push(slow.next().await.seq());
    }
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
    let status: Value = get(broker.addr(), "/status", &[]).await.json();
    assert_eq!(status["subscribers"]["by_transport"]["sse"], 1);
    broker.shutdown().await;
}
