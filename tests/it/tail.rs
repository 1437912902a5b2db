//! `fanlight tail` as a process: what it prints through restarts, cuts and refusals, and how it
//! ends.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use fanlight::simulator::{self, Fault, Simulator};
use serde_json::Value;
use socket2::SockRef;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::harness::{
    Process, Stub, broker, cloud, eventually, folder, get, publish, publish_many, quiet_cloud,
    request, seeded, subscribers, until, within,
};

const RESTARTS: usize = 50;
const CUTS_EVENTS: u64 = 600;

fn tail(arguments: &[&str]) -> Command {
    Process::command(&[&["tail"], arguments].concat())
}

/// What a run left behind.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn done(mut command: Command) -> Done {
    let output = within("its end", command.stdin(Stdio::null()).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

async fn run(arguments: &[&str]) -> Done {
    done(tail(arguments)).await
}

impl Done {
    fn succeeds(&self) -> Vec<&str> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.lines().collect()
    }

    fn ends_with(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in\n{}", self.stderr);
        }
    }
}

/// The number an event carries; none for a control object.
fn number(line: &Value) -> Option<u64> {
    line["data"].as_str()?.parse().ok()
}

// === nothing lost, nothing twice ===

/// What a run printed, and whether each thing that is missing was declared where it is missing.
#[derive(Default)]
struct Checker {
    numbers: Vec<u64>,
    /// Something was declared since the last event.
    is_declared: bool,
    id: Option<(String, u64)>,
    gaps: usize,
}

impl Checker {
    fn take(&mut self, line: &str) {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let (epoch, seq) = line["id"].as_str().unwrap().split_once('-').unwrap();
        let id = (epoch.to_owned(), seq.parse::<u64>().unwrap());
        match line["fanlight"].as_str() {
            Some("gap") => {
                self.is_declared = true;
                self.gaps += 1;
            }
            other => {
                // Within an epoch every record is printed, or lies in a gap.
                if let Some(last) = &self.id {
                    assert_eq!((&last.0, last.1 + 1), (&id.0, id.1), "{line}");
                }
                self.is_declared |= other == Some("hole");
            }
        }
        self.id = Some(id);
        let Some(number) = number(&line) else { return };
        let last = self.numbers.last().copied().unwrap_or(0);
        assert!(number > last, "{number} after {last}: {line}");
        assert!(number == last + 1 || self.is_declared, "between {last} and {number}");
        self.is_declared = false;
        self.numbers.push(number);
    }
}

#[tokio::test]
async fn fifty_restarts_and_each_event_is_printed_once_or_declared() {
    let mut random = seeded();
    let cloud = quiet_cloud().await;
    let (mut broker, addr) = Process::serve(&cloud.url(), &[]).await;
    let url = format!("http://{addr}");
    let mut tail = Process::start(tail(&["--json", "--since=earliest", "--retry-max=30ms", &url]));
    let mut checker = Checker::default();
    let mut published = 0;
    let mut publish = || {
        published += 1;
        cloud.publish("count", Some(&published.to_string()));
        published
    };
    let mut promised = Vec::new();
    for restart in 0..RESTARTS {
        broker.upstream(&["live"]).await;
        cloud.streams(1).await;
        let is_orderly = restart % 2 == 0;
        if is_orderly || random.bool() {
            // Once this is printed, the subscriber is there.
            eventually("an event is printed", async || {
                let number = publish().to_string();
                eventually("it is taken in", async || {
                    let last = get(addr, "/last", &[]).await.json();
                    (last[0]["data"] == number.as_str()).then_some(())
                })
                .await;
                let status = get(addr, "/status", &[]).await.json();
                (status["subscribers"]["by_transport"]["sse"] == 1).then_some(())
            })
            .await;
        }
        let burst: Vec<u64> = (0..random.usize(1..60)).map(|_| publish()).collect();
        if is_orderly {
            let last = burst.last().unwrap().to_string();
            eventually("the events are taken in", async || {
                let newest = get(addr, "/last", &[]).await.json();
                (newest[0]["data"] == last.as_str()).then_some(())
            })
            .await;
            promised.extend(burst);
            broker.signal("TERM");
            assert_eq!(broker.ended().await, Some(0));
        } else {
            broker.kill().await;
        }
        let listen = format!("--listen={addr}");
        let command = Process::command(&["serve", &listen, "--upstream-url", &cloud.url()]);
        broker = Process::start(command);
    }
    broker.upstream(&["live"]).await;
    cloud.streams(1).await;
    eventually("the last event is printed", async || {
        publish();
        let status = get(addr, "/status", &[]).await.json();
        (status["subscribers"]["by_transport"]["sse"] == 1).then_some(())
    })
    .await;
    let last = publish();
    while checker.numbers.last() != Some(&last) {
        checker.take(&tail.printed("").await);
    }
    for number in &promised {
        assert!(checker.numbers.binary_search(number).is_ok(), "{number} was read, and not told");
    }
    assert!(checker.gaps >= RESTARTS / 2, "{} gaps", checker.gaps);
    println!(
        "{RESTARTS} restarts: {last} published, {} printed, {} promised, {} gaps",
        checker.numbers.len(),
        promised.len(),
        checker.gaps
    );
    tail.signal("INT");
    assert_eq!(tail.ended().await, Some(0));
    let trace = tail.trace.join("\n");
    assert!(trace.contains("connected again to") && !trace.contains("not where it was"), "{trace}");
}

/// Passes connections on to `addr`, and cuts each after so many bytes of the answer.
async fn cutting_proxy(addr: SocketAddr, mut random: fastrand::Rng) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(addr).await.unwrap();
            let (mut left, is_reset) = (random.usize(100..4000), random.bool());
            tokio::spawn(async move {
                let (mut up, mut down) = (vec![0; 4096], vec![0; 4096]);
                while left > 0 {
                    tokio::select! {
                        read = near.read(&mut up) => match read {
                            Ok(read) if read > 0 => far.write_all(&up[..read]).await.unwrap(),
                            _ => return,
                        },
                        read = far.read(&mut down) => {
                            let Ok(read @ 1..) = read else { return };
                            let passed = read.min(left);
                            left -= passed;
                            if near.write_all(&down[..passed]).await.is_err() {
                                return;
                            }
                        }
                    }
                }
                if is_reset {
                    SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
                }
            });
        }
    });
    proxy
}

#[tokio::test]
async fn cuts_in_between_lose_and_repeat_nothing() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--stream-keepalive=1s"]).await;
    let proxy = cutting_proxy(broker.addr(), seeded()).await;
    let url = format!("http://{proxy}");
    let limit = format!("-n{CUTS_EVENTS}");
    let arguments =
        ["--json", "--since=earliest", "--retry-max=10ms", "--name=count", &limit, &url];
    let mut tail = Process::start(tail(&arguments));
    let mut printed = Vec::new();
    for number in 1..=CUTS_EVENTS {
        cloud.publish("count", Some(&number.to_string()));
        cloud.publish("other", Some("x"));
        // Some come live, most are replayed.
        if number % 20 == 0 {
            while printed.last() != Some(&number) {
                let line: Value = serde_json::from_str(&tail.printed("").await).unwrap();
                assert!(!matches!(line["fanlight"].as_str(), Some("gap" | "hole")), "{line}");
                printed.extend(self::number(&line));
            }
        }
    }
    assert_eq!(tail.ended().await, Some(0));
    assert_eq!(printed, (1..=CUTS_EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_position_is_kept_from_run_to_run() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let url = format!("http://{}", broker.addr());
    publish_many(&cloud, &broker, "count", 20).await;
    let file = folder("tail-state").join("position");
    let state = format!("--state={}", file.display());
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let arguments = ["--json", "--since=earliest", "--no-control", "-n5", &state, &url];
        let done = run(&arguments).await;
        for line in done.succeeds() {
            numbers.extend(number(&serde_json::from_str(line).unwrap()));
        }
    }
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    std::fs::write(&file, "nonsense").unwrap();
    run(&[&state, &url]).await.ends_with(2, &["--state", "is no position", "remove it"]);
}

#[tokio::test]
async fn what_falls_out_while_nobody_reads_is_a_gap() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16", "--limits-send-buffer=4KiB"]).await;
    let url = format!("http://{}", broker.addr());
    let mut command = tail(&["--json", "--retry-max=10ms", &url]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    subscribers(&broker, 1).await;
    // More than pipe, sockets and ring hold together.
    let large = "x".repeat(16 << 10);
    for _ in 0..2000 {
        publish(&cloud, &broker, "large", &large).await;
    }
    let last = publish(&cloud, &broker, "last", "1").await;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut next, mut missing) = (None, 0);
    loop {
        let line = within("a line", lines.next_line()).await.unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["fanlight"] == "gap" {
            assert_eq!(Some(line["from"].as_u64().unwrap()), next, "{line}");
            missing += line["count"].as_u64().unwrap();
            next = line["to"].as_u64();
            continue;
        }
        let seq: u64 = line["id"].as_str().unwrap().split_once('-').unwrap().1.parse().unwrap();
        assert_eq!(seq, next.unwrap_or(seq), "{line}");
        next = Some(seq + 1);
        if seq == last {
            break;
        }
    }
    assert!(missing > 0, "nothing was ever held up");
    within("it is killed", child.kill()).await.unwrap();
}

// === what is printed ===

#[tokio::test]
async fn json_is_what_ndjson_has() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish(&cloud, &broker, "a/\"quoted\"", "1").await;
    crate::harness::publish_line(&cloud, &broker, "own", r#"{"name":"x","v":1}"#).await;
    crate::harness::publish_line(&cloud, &broker, "empty", "{}").await;
    publish(&cloud, &broker, "b", "\u{1b}[31m").await;
    let path = "/events?since=earliest&limit=4";
    let ndjson = get(broker.addr(), path, &[("Accept", "application/x-ndjson")]).await.body;
    let expected: Vec<&str> =
        ndjson.lines().filter(|line| !line.contains("\"fanlight\":\"hello\"")).collect();
    let url = format!("http://{}/events", broker.addr());
    let done = run(&["--json", "--since=earliest", "-n4", &url]).await;
    assert_eq!(done.succeeds(), expected);
    assert_eq!(done.stderr, "");
    let done = run(&["--json", "--no-control", "--snapshot", "--prefix=a/", "-n1", &url]).await;
    assert_eq!(done.succeeds(), [expected[expected.len() - 4]]);
}

#[tokio::test]
async fn text_is_for_people_and_moves_no_cursor() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let url = format!("http://{}", broker.addr());
    publish(&cloud, &broker, "door/state", "open\u{1b}]0;title\u{7}\u{202e}").await;
    let done = run(&["--since=earliest", "-n1", &url]).await;
    let lines = done.succeeds();
    let row = lines.last().unwrap();
    assert!(row.contains("door/state"), "{row}");
    assert!(row.ends_with("open\\u{1b}]0;title\\u{7}\\u{202e}"), "{row}");
    assert!(lines.iter().any(|line| line.starts_with("-- upstream: live")), "{lines:?}");
    let done = run(&["--since=earliest", "-n1", "--color=always", "--no-control", &url]).await;
    assert!(done.stdout.contains("\u{1b}[2m") && !done.stdout.contains("upstream"), "{done:?}");
    let mut command = tail(&["--since=earliest", "-n1", "--color=auto", &url]);
    command.env("NO_COLOR", "1");
    assert!(!self::done(command).await.stdout.contains('\u{1b}'));
}

// === how it ends ===

#[tokio::test]
async fn a_reader_that_leaves_is_an_end_like_any_other() {
    let cloud = cloud(simulator::Config::default()).await;
    let broker = broker(&cloud, &[]).await;
    let url = format!("http://{}", broker.addr());
    let mut command = tail(&["--json", "--no-control", &url]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    subscribers(&broker, 1).await;
    publish(&cloud, &broker, "a", "1").await;
    within("a byte", child.stdout.take().unwrap().read_u8()).await.unwrap();
    let end = child.wait_with_output();
    tokio::pin!(end);
    // It notices when it writes.
    let output = loop {
        tokio::select! {
            biased;
            output = &mut end => break output.unwrap(),
            _ = publish(&cloud, &broker, "a", "2") => {}
        }
    };
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

/// What was asked for is owed to a reader that takes its time.
#[tokio::test]
async fn a_slow_reader_gets_all_up_to_the_limit() {
    let cloud = cloud(simulator::Config::default()).await;
    let broker = broker(&cloud, &[]).await;
    let url = format!("http://{}", broker.addr());
    // More than a pipe holds, and less than pipe and program hold together.
    let large = "x".repeat(1 << 10);
    for _ in 0..80 {
        publish(&cloud, &broker, "large", &large).await;
    }
    let mut command = tail(&["--json", "--no-control", "--name=large", "--since=earliest", "-n80"]);
    let mut child = command.arg(&url).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    // It has come, it has all, and has left.
    until("all is sent", || (broker.telemetry().totals().deliveries >= 80).then_some(())).await;
    subscribers(&broker, 0).await;
    // Longer than it would wait for nobody.
    let unread = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
    assert!(unread.is_err(), "it ended with lines unread: {unread:?}");
    let output = within("its end", child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 80);
    assert!(output.stdout.ends_with(b"\n"));
}

#[tokio::test]
async fn what_has_to_be_mended_ends_it() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let url = format!("http://{}", broker.addr());
    run(&["--since=nonsense", &url]).await.ends_with(1, &["it answered 400: `since`"]);
    let elsewhere = format!("{url}/elsewhere");
    run(&[&elsewhere]).await.ends_with(1, &["/elsewhere: it answered 404", "path included?"]);
    run(&[&cloud.url()]).await.ends_with(1, &["it answered 404"]);

    let stub = Stub::listen().await;
    let url = stub.url("");
    let arguments = [url.as_str()];
    let answer = async |status: &'static str, headers: &'static str, body: &'static str| {
        stub.asked().await.answer(status, headers, body).await;
    };
    let (done, ()) = tokio::join!(run(&arguments), answer("200 OK", "", "<h1>Hello</h1>"));
    done.ends_with(1, &["in place of text/event-stream"]);
    let stranger = "Content-Type: text/event-stream\r\n";
    let (done, ()) =
        tokio::join!(run(&arguments), answer("200 OK", stranger, "event: x\ndata: {}\n\n"));
    done.ends_with(1, &["not a Fanlight broker's", "--cloud"]);
    let moved = "Location: https://elsewhere.example/\r\n";
    let (done, ()) = tokio::join!(run(&arguments), answer("301 Moved", moved, ""));
    done.ends_with(1, &["it answered 301 and points at"]);
    assert!(!done.stderr.contains('\u{1b}'), "{done:?}");
    let (done, ()) = tokio::join!(run(&arguments), answer("401 Unauthorized", "", "no"));
    done.ends_with(1, &["it answered 401", "--header"]);
    let gzip = "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n";
    let (done, ()) = tokio::join!(run(&arguments), answer("200 OK", gzip, ""));
    done.ends_with(1, &["compresses the stream", "check --through"]);
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let stub = Stub::listen().await;
    let arguments = ["--json", "--retry-max=10ms", "--header=X-Key: canary", &stub.url("")];
    let mut tail = Process::start(tail(&arguments));
    stub.asked().await.answer("502 Bad Gateway", "", "<h1>502</h1>").await;
    stub.asked().await.answer("503 Service Unavailable", "Retry-After: 30\r\n", "").await;
    let bye = "retry: 5000\nevent: fanlight.bye\ndata: {\"reason\":\"full\",\"retry_ms\":5000}\n\n";
    stub.asked().await.answer("200 OK", "Content-Type: text/event-stream\r\n", bye).await;
    let mut asked = stub.asked().await;
    assert_eq!(asked.header("x-key"), Some("canary"));
    asked.stream().await;
    let hello = "id: 6n3k2ahq-4\nevent: fanlight.hello\ndata: {\"upstream\":\"live\",\"version\":\"x\"}\n\n";
    asked.send(hello).await;
    asked.send("id: 6n3k2ahq-5\ndata: {\"name\":\"a\",\"data\":\"1\"}\n\n").await;
    let line = tail.printed("").await;
    assert_eq!(line, r#"{"id":"6n3k2ahq-5","name":"a","data":"1"}"#);
    // A checkpoint moves the position without a word; so does nothing else.
    asked.send("id: 6n3k2ahq-9\nevent: fanlight.checkpoint\ndata: {}\n\n").await;
    asked.send("id: 6n3k2ahq-10\ndata: {\"name\":\"cut").await;
    drop(asked);
    let asked = stub.asked().await;
    assert_eq!(asked.header("last-event-id"), Some("6n3k2ahq-9"));
    assert!(asked.path().contains("last_event_id=6n3k2ahq-9"), "{}", asked.path());
    asked.answer("404 Not Found", "", "").await;
    drop(stub.asked().await);
    tail.signal("TERM");
    assert_eq!(tail.ended().await, Some(0));
    let trace = tail.trace.join("\n");
    for part in ["it answered 502", "it answered 503", "said goodbye (full)", "connected to"] {
        assert!(trace.contains(part), "{part} is not in\n{trace}");
    }
}

#[tokio::test]
async fn a_deaf_stream_is_opened_anew() {
    let stub = Stub::listen().await;
    let arguments = ["--json", "--retry-max=10ms", "--stale-after=100ms", &stub.url("")];
    let tail = Process::start(tail(&arguments));
    let mut deaf = stub.asked().await;
    deaf.stream().await;
    let _again = stub.asked().await;
    drop(tail);
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    for (arguments, part) in [
        (&["ftp://x"][..], "http or https"),
        (&["http://127.0.0.1:1?prefix=x"], "filters are flags"),
        (&["--last-event-id=nonsense"], "not a position"),
        (&["--last-event-id=6n3k2ahq-1", "--since=5m"], "cannot be used with"),
        (&["--cloud", "--since=5m"], "cannot be used with"),
        (&["-n0"], "--limit"),
        (&["--name="], "empty `name`"),
        (&["--header=nonsense"], "Name: value"),
        (&["--upstream-scope=org"], "--upstream-scope is for --cloud"),
        (&["https://api.particle.io", "--since=5m"], "--since is for a broker"),
        (&["--cloud"], "needs upstream.token_file"),
    ] {
        run(arguments).await.ends_with(2, &[part]);
    }
    let done = run(&["http://name:canary@127.0.0.1:1"]).await;
    done.ends_with(2, &["without user name and password"]);
    assert!(!done.stderr.contains("canary"));
}

// === straight from the cloud ===

async fn cloud_with_token() -> Simulator {
    cloud(simulator::Config {
        token: Some("canary-not-a-real-token".to_owned()),
        ..simulator::Config::default()
    })
    .await
}

#[tokio::test]
async fn straight_from_the_cloud() {
    let cloud = cloud_with_token().await;
    let mut command = tail(&["--cloud", "--json", "--prefix=a/", "-n2", &cloud.url()]);
    command.env("PARTICLE_ACCESS_TOKEN", "canary-not-a-real-token");
    let mut tail = Process::start(command);
    cloud.streams(1).await;
    tail.printed("\"state\":\"live\"").await;
    cloud.publish("b/other", Some("x"));
    cloud.publish("a/1", Some("1"));
    cloud.fault("cut".parse::<Fault>().unwrap());
    cloud.streams(0).await;
    let line: Value = serde_json::from_str(&tail.printed("\"name\"").await).unwrap();
    assert_eq!((&line["name"], &line["data"]), (&"a/1".into(), &"1".into()));
    let hole: Value = serde_json::from_str(&tail.printed("\"hole\"").await).unwrap();
    assert_eq!((&hole["fanlight"], &hole["reason"]), (&"hole".into(), &"ended".into()));
    cloud.streams(1).await;
    cloud.publish("a/2", Some("2"));
    assert_eq!(tail.ended().await, Some(0));
    assert!(!tail.trace.join("\n").contains("canary"), "{:?}", tail.trace);
}

#[tokio::test]
async fn a_token_the_cloud_refuses_ends_it() {
    let cloud = cloud_with_token().await;
    let file = folder("tail-token").join("token");
    std::fs::write(&file, "canary-of-another").unwrap();
    let token = format!("--upstream-token-file={}", file.display());
    let done = run(&["--cloud", "--json", &token, &cloud.url()]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stdout.contains("\"state\":\"unauthorized\""), "{done:?}");
    assert!(done.stderr.contains("answered 401"), "{done:?}");
    assert!(!format!("{done:?}").contains("canary"), "{done:?}");
}

/// The head of a request that asks for a stream, to see that the test's own proxy passes it on.
#[tokio::test]
async fn the_cutting_proxy_passes_on_what_it_does_not_cut() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let proxy = cutting_proxy(broker.addr(), seeded()).await;
    let head = request("GET", "/healthz", &[], "close");
    let answer = crate::harness::raw_until_closed(proxy, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
