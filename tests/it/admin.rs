//! What operators and their machines look at, and the form of errors.

use std::collections::HashMap;

use fanlight::{
    simulator::Fault,
    telemetry::{METRICS, MetricKind},
};
use serde_json::{Value, json};

use crate::{
    description::routed,
    harness::{
        Process, Stream, WebSocket, ask, broker, eventually, get, metric, publish, publish_many,
        quiet_cloud, starting_broker,
    },
};

/// One sample: its name with its labels, and its value.
type Samples = HashMap<String, f64>;

/// Reads the text format line by line; every line must be known.
fn parse(text: &str) -> (Samples, HashMap<String, String>) {
    let (mut samples, mut types) = (Samples::new(), HashMap::new());
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(name) && !words.is_empty(), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            let again = types.insert(name.to_owned(), kind.to_owned());
            assert_eq!(again, None, "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let name = sample.split('{').next().unwrap();
            assert!(is_name(name) && name.starts_with("fanlight_"), "{line}");
            if let Some((_, labels)) = sample.split_once('{') {
                let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
                for label in labels.split(',') {
                    let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
                    assert!(is_name(name), "{line}");
                    assert!(
                        value.len() > 2 && value.starts_with('"') && value.ends_with('"'),
                        "{line}"
                    );
                }
            }
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert_eq!(samples.insert(sample.to_owned(), value), None, "twice: {line}");
        }
    }
    (samples, types)
}

#[tokio::test]
async fn metrics_have_every_name_with_help_type_and_a_sample() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let answer = get(broker.addr(), "/metrics", &[]).await;
    assert_eq!(answer.status, 200);
    let content_type = answer.header("content-type");
    assert_eq!(content_type, Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let (samples, types) = parse(&answer.body);
    for metric in METRICS {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        assert_eq!(types.get(metric.name).map(String::as_str), Some(kind), "{}", metric.name);
        assert!(answer.body.contains(&format!("# HELP {} {}\n", metric.name, metric.help)));
        let has = |name: &str| samples.keys().any(|key| key.split('{').next() == Some(name));
        assert!(has(metric.name) || has(&format!("{}_count", metric.name)), "{}", metric.name);
    }
    for name in ["resident_memory_bytes", "cpu_seconds_total", "open_fds", "max_fds"] {
        assert!(samples.contains_key(&format!("fanlight_process_{name}")), "{name}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn deliveries_are_counted_right_on_every_transport() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let addr = broker.addr();
    let after = broker.hub().head();
    let (mut message, _) = Stream::live(addr, "/events").await;
    let (mut particle, _) = Stream::live(addr, "/events?format=particle&name=b").await;
    let mut ndjson = Stream::open(addr, "/events", &[("Accept", "application/x-ndjson")]).await;
    let mut socket = WebSocket::open(addr, "/ws?name=b").await;
    ndjson.object().await;
    socket.next().await;
    publish_many(&cloud, &broker, "a", 20).await;
    publish_many(&cloud, &broker, "b", 10).await;
    message.take(30).await;
    particle.take(10).await;
    for _ in 0..30 {
        ndjson.object().await;
    }
    for _ in 0..10 {
        socket.next().await;
    }
    get(addr, &format!("/poll?after={after}&limit=25"), &[]).await;
    let bytes = message.text().split_once("\n\n").unwrap().1.len()
        + particle.text().split_once("\n\n").unwrap().1.len();
    let text = eventually("samples are in their buckets", async || {
        let text = get(addr, "/metrics", &[]).await.body;
        text.contains("fanlight_delivery_latency_seconds_count").then_some(text)
    })
    .await;
    let (samples, _) = parse(&text);
    let sample = |name: &str| samples.get(name).copied().unwrap_or_else(|| panic!("{name}"));
    let of = |name: &str, transport: &str| sample(&format!("{name}{{transport=\"{transport}\"}}"));
    for (transport, events, opened) in
        [("sse", 40.0, 2.0), ("ndjson", 30.0, 1.0), ("websocket", 10.0, 1.0), ("poll", 25.0, 1.0)]
    {
        assert_eq!(of("fanlight_deliveries_total", transport), events, "{transport}");
        assert_eq!(of("fanlight_subscribers_opened_total", transport), opened, "{transport}");
        let batches = of("fanlight_batches_total", transport);
        assert!((opened..=events).contains(&batches), "{transport}: {batches}");
    }
    assert_eq!(of("fanlight_delivered_bytes_total", "sse"), bytes as f64);
    for (labels, count) in [
        ("transport=\"sse\",format=\"message\"", 1.0),
        ("transport=\"sse\",format=\"particle\"", 1.0),
        ("transport=\"ndjson\",format=\"json\"", 1.0),
        ("transport=\"websocket\",format=\"json\"", 1.0),
        ("transport=\"poll\",format=\"json\"", 0.0),
    ] {
        assert_eq!(sample(&format!("fanlight_subscribers{{{labels}}}")), count, "{labels}");
    }
    assert_eq!(sample("fanlight_upstream_events_total"), 30.0);
    assert_eq!(sample("fanlight_records_appended_total{kind=\"event\"}"), 30.0);
    assert_eq!(sample("fanlight_groups"), 2.0);
    assert_eq!(sample("fanlight_upstream_state{state=\"live\"}"), 1.0);
    assert_eq!(sample("fanlight_upstream_opens_total{outcome=\"live\"}"), 1.0);
    assert!(sample("fanlight_connections_accepted_total") >= 6.0);
    assert_eq!(sample("fanlight_connections"), 5.0);

    let mut buckets: Vec<(f64, f64)> = samples
        .iter()
        .filter_map(|(name, count)| {
            let bound = name.strip_prefix("fanlight_delivery_latency_seconds_bucket{le=\"")?;
            Some((bound.strip_suffix("\"}")?.parse().unwrap(), *count))
        })
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert_eq!(buckets.len(), 15);
    assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
    let count = sample("fanlight_delivery_latency_seconds_count");
    assert_eq!(buckets[14], (f64::INFINITY, count));
    assert!(count > 0.0 && sample("fanlight_delivery_latency_seconds_sum") > 0.0);
    socket.close().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn readyz_says_503_with_the_reason_once_the_cloud_has_refused_for_too_long() {
    let cloud = quiet_cloud().await;
    cloud.fault("status=401 count=1000000".parse::<Fault>().unwrap());
    let broker = starting_broker(&cloud, &["--server-ready-after=1s"]).await;
    let addr = broker.addr();
    let answer = eventually("not ready", async || {
        let answer = get(addr, "/readyz", &[]).await;
        if answer.status == 200 {
            assert_eq!(answer.json()["status"], "ready");
            return None;
        }
        Some(answer)
    })
    .await;
    assert_eq!((answer.status, &answer.json()["error"]), (503, &json!("not_ready")));
    let reason = answer.json()["error_description"].as_str().unwrap().to_owned();
    let start = "the upstream has not been live for ";
    assert!(reason.starts_with(start), "{reason}");
    assert!(reason.contains("server.ready_after allows 1 s; it is unauthorized: "), "{reason}");
    assert_eq!(get(addr, "/healthz", &[]).await.body, r#"{"status":"ok"}"#, "alive all the same");
    let status = get(addr, "/status", &[]).await.json();
    assert_eq!(status["upstream"]["state"], "unauthorized");
    assert!(status["upstream"]["live_last"].is_null());
    assert_eq!(metric(addr, "fanlight_upstream_state{state=\"unauthorized\"}").await, 1.0);
    let (_, hello) = Stream::live(addr, "/events").await;
    assert_eq!(hello.json()["upstream"], "unauthorized", "subscribers are served all the same");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_live_broker_is_ready() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let answer = get(broker.addr(), "/readyz", &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"status":"ready"}"#));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    broker.shutdown().await;
}

/// The paths of every field, depth first.
fn paths(value: &Value, prefix: &str) -> Vec<String> {
    match value {
        Value::Object(fields) if !fields.is_empty() => fields
            .iter()
            .flat_map(|(name, value)| paths(value, &format!("{prefix}.{name}")))
            .collect(),
        _ => vec![prefix.trim_start_matches('.').to_owned()],
    }
}

#[tokio::test]
async fn status_has_every_field() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    publish(&cloud, &broker, "a", "1").await;
    let _stream = Stream::live(broker.addr(), "/events").await;
    let answer = get(broker.addr(), "/status", &[]).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status = answer.json();
    let mut found = paths(&status, "");
    let is_by_reason = |path: &String| {
        ["upstream.opens.", "subscribers.closed.", "subscribers.gaps."]
            .iter()
            .any(|group| path.starts_with(group))
    };
    found.retain(|path| !is_by_reason(path));
    found.sort();
    let expected = [
        "access.keys",
        "access.mode",
        "access.token_keys",
        "closing",
        "ingest.copies",
        "ingest.copies_of_stream",
        "ingest.enabled",
        "latest.bytes",
        "latest.entries",
        "latest.evicted",
        "limits.connections",
        "limits.connections_max",
        "limits.connections_per_ip_max",
        "limits.memory_bytes",
        "limits.memory_bytes_max",
        "now",
        "publish.enabled",
        "publish.functions",
        "ring.bytes",
        "ring.bytes_max",
        "ring.epoch",
        "ring.events",
        "ring.events_max",
        "ring.evicted",
        "ring.newest_age_seconds",
        "ring.oldest",
        "ring.oldest_age_seconds",
        "ring.tail",
        "subscribers.by_transport.ndjson",
        "subscribers.by_transport.particle",
        "subscribers.by_transport.poll",
        "subscribers.by_transport.sse",
        "subscribers.by_transport.websocket",
        "subscribers.delivered_bytes",
        "subscribers.deliveries",
        "subscribers.groups",
        "subscribers.opened",
        "subscribers.slowest",
        "subscribers.total",
        "upstream.bytes",
        "upstream.copies",
        "upstream.detail",
        "upstream.events",
        "upstream.history",
        "upstream.hole_seconds",
        "upstream.holes",
        "upstream.holes_newest",
        "upstream.last_byte_age_seconds",
        "upstream.live_last",
        "upstream.next_open_in_seconds",
        "upstream.opens_in_window",
        "upstream.opens_max",
        "upstream.silence_max_seconds",
        "upstream.since",
        "upstream.source",
        "upstream.stale_after_seconds",
        "upstream.state",
        "upstream.streams",
        "upstream.twins",
        "upstream.window_overflows",
        "uptime_seconds",
        "version",
    ];
    assert_eq!(found, expected);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["ring"]["epoch"], broker.hub().epoch().to_string());
    assert_eq!((&status["ring"]["tail"], &status["ring"]["events"]), (&json!(4), &json!(3)));
    assert_eq!(status["ring"]["events_max"], 16);
    assert_eq!(status["upstream"]["source"], "particle");
    assert_eq!(status["upstream"]["events"], 1);
    let states: Vec<&Value> = status["upstream"]["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| &change["state"])
        .collect();
    assert_eq!(states, ["connecting", "live"]);
    assert_eq!(status["subscribers"]["by_transport"]["sse"], 1);
    let slowest = &status["subscribers"]["slowest"][0];
    assert_eq!((&slowest["transport"], &slowest["lag_events"]), (&json!("sse"), &json!(0)));
    broker.shutdown().await;
}

const PATHS: [&str; 9] =
    ["/", "/events", "/ws", "/poll", "/last", "/metrics", "/healthz", "/readyz", "/status"];

#[tokio::test]
async fn another_method_is_answered_405_with_what_is_allowed() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for path in PATHS {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let answer = ask(broker.addr(), method, path, &[]).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            let allows: Vec<&str> =
                answer.head.lines().filter(|line| line.starts_with("allow:")).collect();
            assert_eq!(allows, ["allow: get, head"], "{method} {path}");
            let body = json!({
                "error": "method_not_allowed",
                "error_description": format!("{method} is not allowed here; use GET"),
            });
            assert_eq!(answer.json(), body);
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn an_unknown_path_is_answered_404_whatever_the_method() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let long = format!("/{}", "x".repeat(5_000));
    let cases = [
        ("/nothing", "/nothing"),
        ("/events/", "/events/"),
        ("/Events", "/Events"),
        ("//events", "//events"),
        ("/%3Cscript%3E?a=b", "/%3Cscript%3E"),
        ("/v2/events", "/v2/events"),
        (long.as_str(), &long[..100]),
    ];
    for (path, shown) in cases {
        for method in ["GET", "POST"] {
            let answer = ask(broker.addr(), method, path, &[]).await;
            assert_eq!(answer.status, 404, "{method} {path}");
            let description = format!("there is nothing at {shown}; see / for what there is");
            let body = json!({"error": "not_found", "error_description": description});
            assert_eq!(answer.json(), body);
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn every_answer_forbids_sniffing_and_says_its_length() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for path in PATHS.iter().filter(|path| !["/events", "/poll"].contains(path)) {
        let answer = get(broker.addr(), path, &[]).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let length = answer.body.len().to_string();
        assert_eq!(answer.header("content-length"), Some(length.as_str()), "{path}");
        let head = ask(broker.addr(), "HEAD", path, &[]).await;
        assert_eq!((head.status, head.body.as_str()), (answer.status, ""), "{path}");
    }
    broker.shutdown().await;
}

/// What only operators look at.
const INSIDE: [&str; 2] = ["/metrics", "/status"];

#[tokio::test]
async fn what_operators_look_at_can_have_a_port_of_its_own() {
    let cloud = quiet_cloud().await;
    let flags = ["--server-admin-listen=127.0.0.1:0", "--limits-connections-max=1"];
    let broker = broker(&cloud, &flags).await;
    let admin = broker.admin_addr().unwrap();
    let routes: Vec<String> = routed().into_iter().filter(|path| !path.contains('{')).collect();
    for path in &routes {
        let is_inside = INSIDE.contains(&path.as_str());
        let is_health = path.ends_with('z');
        let found = async |addr| ask(addr, "HEAD", path, &[]).await.status != 404;
        assert_eq!(found(broker.addr()).await, !is_inside, "{path}");
        assert_eq!(found(admin).await, is_inside || is_health, "{path}");
    }
    for path in ["/v1/devices/events", "//v1/devices/events", "/app/main.js"] {
        assert_eq!(get(admin, path, &[]).await.status, 404, "{path}");
    }
    let evil = [("Host", "evil.example")];
    assert_ne!(get(admin, "/metrics", &evil).await.status, 200, "asked by name as anywhere");
    // Full, and its reserve used up as well: that is when it is looked at.
    let mut held = Vec::new();
    let is_full =
        async || metric(admin, "fanlight_limits_reached_total{limit=\"accept\"}").await > 0.0;
    eventually("the port for clients takes nobody", async || {
        held.push(tokio::net::TcpStream::connect(broker.addr()).await.unwrap());
        is_full().await.then_some(())
    })
    .await;
    for path in ["/metrics", "/status", "/healthz", "/readyz"] {
        assert_eq!(get(admin, path, &[]).await.status, 200, "{path}");
    }
    broker.shutdown().await;
}

/// A port scan from inside: what the process itself listens on.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn there_is_no_port_but_those_that_are_configured() {
    let cloud = quiet_cloud().await;
    for (flags, count) in [(&[][..], 1), (&["--server-admin-listen=127.0.0.1:0"], 2)] {
        let (process, addr) = Process::serve(&cloud.url(), flags).await;
        let folder = format!("/proc/{}", process.pid());
        let sockets: Vec<String> = std::fs::read_dir(format!("{folder}/fd"))
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter_map(|link| {
                Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
            })
            .collect();
        let listening: Vec<String> = ["tcp", "tcp6", "udp", "udp6"]
            .iter()
            .flat_map(|kind| {
                let table =
                    std::fs::read_to_string(format!("{folder}/net/{kind}")).unwrap_or_default();
                let rows: Vec<String> = table.lines().skip(1).map(str::to_owned).collect();
                rows
            })
            .filter(|row| {
                let cells: Vec<&str> = row.split_whitespace().collect();
                // 0A: it listens; 07: it takes datagrams of anyone.
                matches!(cells[3], "0A" | "07") && sockets.iter().any(|inode| inode == cells[9])
            })
            .collect();
        assert_eq!(listening.len(), count, "{flags:?}: {listening:?}");
        let port = format!(":{:04X} ", addr.port());
        assert!(listening.iter().any(|row| row.contains(&port)), "{listening:?}");
    }
}
