//! The driver against a scripted server on loopback: real sockets, real HTTP client.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::upstream::{Config, Source, driver, particle::Scope, stats::Snapshot};

const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n:ok\n\n";
const SECRET: &str = "not-a-real-token-0001";
/// Only against hanging for ever; nothing is measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server does on one connection, after it has read the request's head.
#[derive(Debug, Clone)]
enum Step {
    Send(String),
    /// Until the client closes.
    Hold,
}

fn stream(rest: &str) -> Vec<Step> {
    vec![Step::Send(format!("{STREAM}{rest}"))]
}

fn held(rest: &str) -> Vec<Step> {
    vec![Step::Send(format!("{STREAM}{rest}")), Step::Hold]
}

fn reply(head: &str, body: &str) -> Vec<Step> {
    vec![Step::Send(format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))]
}

/// Connections get the scripts in turn; after the last, each gets a stream that only lives.
struct Server {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(scripts: Vec<Vec<Step>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let mut scripts = VecDeque::from(scripts);
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let script = scripts.pop_front().unwrap_or_else(|| held(""));
                tokio::spawn(serve(socket, script, seen.clone()));
            }
        });
        Server { port, heads, task }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut socket: TcpStream, script: Vec<Step>, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
        if head.len() == 1 && head[0] == 0x16 {
            break; // a TLS hello; answer it in plain text
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    for step in script {
        match step {
            Step::Send(text) => drop(socket.write_all(text.as_bytes()).await),
            Step::Hold => drop(socket.read(&mut byte).await),
        }
    }
}

/// What the driver says, one line a call.
struct Recorder {
    lines: watch::Sender<Vec<String>>,
    staged: usize,
    staged_max: usize,
}

impl Recorder {
    fn push(&mut self, line: String) {
        self.staged += 1;
        self.staged_max = self.staged_max.max(self.staged);
        assert!(self.staged_max as u64 <= BATCH_EVENTS_MAX, "a bounded commit");
        self.lines.send_modify(|lines| lines.push(line));
    }
}

impl Outlet for Recorder {
    fn event(&mut self, name: &str, data: &str, _now: Moment) {
        self.push(format!("event {name} {data}"));
    }

    fn oversize(&mut self, _bytes: u64, _now: Moment) {
        self.push("oversize".into());
    }

    fn hole(&mut self, hole: &Hole, _now: Moment) {
        assert!(hole.since_ms <= hole.until_ms);
        self.push(format!("hole {}", hole.reason.as_str()));
    }

    fn upstream(&mut self, state: UpstreamState, detail: &str, _now: Moment) {
        assert!(!detail.contains(SECRET) && !detail.contains('?'), "{detail}");
        self.push(format!("{} {detail}", state.as_str()));
    }

    fn commit(&mut self) {
        self.staged = 0;
    }
}

struct Running {
    lines: watch::Receiver<Vec<String>>,
    stats: Arc<Stats>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(config: Config) -> Running {
        let (sender, lines) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        let stats = Arc::new(Stats::default());
        let recorder = Recorder { lines: sender, staged: 0, staged_max: 0 };
        let driver = driver(config, recorder, Clock::system(), stats.clone()).await.unwrap();
        let task = tokio::spawn(driver.drive(stop.clone()));
        Running { lines, stats, stop, task }
    }

    /// Waits for a line that begins so, and returns all up to it.
    async fn until(&mut self, start: &str) -> Vec<String> {
        let found = |lines: &Vec<String>| lines.iter().any(|line| line.starts_with(start));
        let found = timeout(PATIENCE, self.lines.wait_for(found)).await.is_ok();
        let lines = self.lines.borrow().clone();
        assert!(found, "no {start:?} in {lines:#?}");
        let at = lines.iter().position(|line| line.starts_with(start)).unwrap();
        lines[..=at].to_vec()
    }

    async fn detail(&mut self, state: &str) -> String {
        self.until(state).await.pop().unwrap()
    }

    async fn stop(self) -> Snapshot {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
        self.stats.snapshot()
    }
}

/// The first words of the lines: states, holes, events.
fn words(lines: &[String]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| match line.split_once(' ') {
            Some(("event" | "hole", _)) => line.as_str(),
            Some((state, _)) => state,
            None => line.as_str(),
        })
        .collect()
}

fn config(url: String) -> Config {
    Config {
        token: TokenSource::Fixed(Token::new(SECRET).unwrap()),
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        ..Config::new(Source::Particle { url, scope: Scope::Mine })
    }
}

fn opens(snapshot: &Snapshot, outcome: Outcome) -> u64 {
    snapshot.opens[outcome as usize].1
}

fn temp(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fanlight-driver-{name}-{}", std::process::id()))
}

#[tokio::test]
async fn an_end_is_a_hole_and_the_partial_event_is_gone() {
    let server = Server::start(vec![
        stream("event: a\ndata: 1\n\nevent: half\ndata: 2\n"),
        held("data: 3\n\nid: 9\nevent: b\ndata: 4\n\n"),
    ])
    .await;
    let mut running = Running::start(config(server.url())).await;
    let lines = running.until("event b").await;
    assert_eq!(
        words(&lines),
        [
            "connecting",
            "live",
            "event a 1",
            "backing-off",
            "connecting",
            "hole ended",
            "live",
            "event message 3",
            "event b 4"
        ]
    );
    let snapshot = running.stop().await;
    assert_eq!((snapshot.events, snapshot.partials, snapshot.holes), (3, 1, 1));
    assert_eq!(opens(&snapshot, Outcome::Live), 2);
    assert_eq!(snapshot.opens_in_window, 2);
    let head = &server.heads()[1];
    assert!(head.starts_with("get /v1/devices/events http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("authorization: bearer {SECRET}\r\n")), "{head}");
    assert!(head.contains("accept: text/event-stream\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    assert!(head.contains("user-agent: fanlight/"), "{head}");
    assert!(!head.contains("last-event-id"), "Particle knows none: {head}");
}

#[tokio::test]
async fn a_cut_in_mid_chunk_is_a_reset() {
    let cut = "HTTP/1.1 200 OK\r\nContent-Type: TEXT/Event-Stream\r\n\
               Transfer-Encoding: chunked\r\n\r\n40\r\nevent: a\ndata: 1\n\n";
    let server = Server::start(vec![vec![Step::Send(cut.into())]]).await;
    let mut running = Running::start(config(server.url())).await;
    let lines = running.until("hole").await;
    assert_eq!(lines.last().unwrap(), "hole reset");
    assert!(lines.contains(&"event a 1".to_owned()));
    let backing_off = lines.iter().find(|line| line.starts_with("backing-off")).unwrap();
    assert!(backing_off.contains("broke"), "{backing_off}");
    running.stop().await;
}

#[tokio::test]
async fn a_stall_is_closed_and_the_next_connection_works() {
    let server = Server::start(vec![held("data: 1\n\n"), held("data: 2\n\n")]).await;
    let config = Config { stale_after: Duration::from_millis(400), ..config(server.url()) };
    let mut running = Running::start(config).await;
    let lines = running.until("event message 2").await;
    assert_eq!(
        words(&lines),
        [
            "connecting",
            "live",
            "event message 1",
            "stalled",
            "connecting",
            "hole stalled",
            "live",
            "event message 2"
        ]
    );
    assert!(running.stop().await.silence_max_us >= 400_000);
}

#[tokio::test]
async fn a_redirect_to_another_port_is_not_followed() {
    let other = Server::start(vec![]).await;
    let location = format!("302 Found\r\nLocation: {}x?token={SECRET}", other.url());
    let server = Server::start(vec![reply(&location, "")]).await;
    let mut running = Running::start(config(server.url())).await;
    let detail = running.detail("misconfigured").await;
    assert!(detail.contains(&format!("127.0.0.1:{} redirects", server.port)), "{detail}");
    assert!(detail.contains(&format!("127.0.0.1:{}, which", other.port)), "{detail}");
    assert_eq!(opens(&running.stop().await, Outcome::Misconfigured), 1);
    assert!(other.heads().is_empty(), "the token stays");
}

#[tokio::test]
async fn redirects_within_the_origin_are_followed_three_times_and_counted() {
    let again = || reply("307 Temporary Redirect\r\nLocation: /elsewhere", "");
    let server = Server::start(vec![again(), again(), again()]).await;
    let mut running = Running::start(config(server.url())).await;
    running.until("live").await;
    let snapshot = running.stop().await;
    assert_eq!(opens(&snapshot, Outcome::Redirected), 3);
    assert_eq!(snapshot.opens_in_window, 4);
    assert!(server.heads()[3].starts_with("get /elsewhere "));
    assert!(server.heads()[3].contains(SECRET));

    let server = Server::start(vec![again(), again(), again(), again()]).await;
    let mut running = Running::start(config(server.url())).await;
    assert!(running.detail("misconfigured").await.contains("more than 3 times"));
    running.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_no_stream_brings_no_events() {
    let html = "<html>\n\nevent: a\ndata: 1\n\n</html>";
    let gzip = format!("{}\n", STREAM.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n"));
    let server = Server::start(vec![
        reply("200 OK\r\nContent-Type: text/html", html),
        vec![Step::Send(gzip)],
        reply("204 No Content", ""),
        reply("500 Oops\r\nContent-Type: text/html", html),
    ])
    .await;
    let config = Config { backoff_min: Duration::ZERO, ..config(server.url()) };
    let mut running = Running::start(config).await;
    let lines = running.until("hole startup").await;
    assert!(lines[1].contains("content type `text/html`"), "{lines:?}");
    assert!(lines[2].contains("content encoding `gzip`"), "{lines:?}");
    assert!(lines[3].contains("answered 204"), "{lines:?}");
    assert!(lines[4].contains("answered 500"), "{lines:?}");
    assert_eq!(lines.len(), 6, "one line each: {lines:?}");
    let snapshot = running.stop().await;
    assert_eq!((snapshot.events, opens(&snapshot, Outcome::NotAStream)), (0, 3));
    assert_eq!(opens(&snapshot, Outcome::ServerError), 1);
}

#[tokio::test]
async fn a_new_token_in_the_file_ends_unauthorized() {
    let path = temp("token");
    std::fs::write(&path, SECRET).unwrap();
    let body = format!(r#"{{"error":"invalid_token","error_description":"{SECRET} expired"}}"#);
    let refusal = || reply("401 Unauthorized\r\nContent-Type: application/json", &body);
    let server = Server::start(vec![refusal(), refusal()]).await;
    let config = Config { token: TokenSource::File(path.clone()), ..config(server.url()) };
    let mut running = Running::start(config).await;
    let detail = running.detail("unauthorized").await;
    assert!(detail.contains("(*** expired)"), "{detail}");
    assert!(detail.contains("upstream.token_file"), "subscribers read this: no path, {detail}");
    assert!(!detail.contains(path.to_str().unwrap()), "{detail}");
    while running.stats.snapshot().opens[Outcome::Unauthorized as usize].1 < 2 {
        tokio::task::yield_now().await;
    }
    std::fs::write(&path, "another-one-0002\n").unwrap();
    running.until("live").await;
    assert_eq!(server.heads().len(), 3, "one quick retry, then only the new token");
    assert!(server.heads()[2].contains("bearer another-one-0002"));
    running.stop().await;
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn without_a_readable_token_nothing_is_sent() {
    let path = temp("missing");
    let server = Server::start(vec![]).await;
    let config = Config { token: TokenSource::File(path.clone()), ..config(server.url()) };
    let mut running = Running::start(config).await;
    let detail = running.detail("unauthorized").await;
    assert!(detail.contains("upstream.token_file"), "subscribers read this: no path, {detail}");
    assert!(!detail.contains(path.to_str().unwrap()), "{detail}");
    std::fs::write(&path, SECRET).unwrap();
    let lines = running.until("live").await;
    assert!(lines.contains(&"hole startup".to_owned()));
    assert_eq!(running.stop().await.opens_in_window, 1);
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let server = Server::start(vec![vec![Step::Hold]]).await;
    let config = Config { connect_timeout: Duration::from_millis(200), ..config(server.url()) };
    let mut running = Running::start(config).await;
    let detail = running.detail("backing-off").await;
    assert!(detail.contains("no answer within 0.2 s"), "{detail}");
    running.until("live").await;
    assert!(opens(&running.stop().await, Outcome::Timeout) >= 1);
}

#[tokio::test]
async fn a_rate_limit_is_waited_out() {
    let server = Server::start(vec![reply("529 Busy\r\nRetry-After: 1", "")]).await;
    let mut running = Running::start(config(server.url())).await;
    assert!(running.detail("rate-limited").await.contains("answered 529"));
    let since = running.stats.snapshot().attempt.unwrap().since.mono_us;
    running.until("live").await;
    let until = running.stats.snapshot().attempt.unwrap().since.mono_us;
    assert!(until - since >= 1_000_000, "never earlier than told");
    running.stop().await;
}

/// A label of 64 characters is no name at all (RFC 1035, section 2.3.4), so this fails
/// without asking anyone.
#[tokio::test]
async fn a_name_without_an_address_is_said_so() {
    let name = format!("{}.invalid", "x".repeat(64));
    let mut running = Running::start(config(format!("http://{name}"))).await;
    let detail = running.detail("backing-off").await;
    assert!(detail.contains(&format!("cannot resolve {name}; check")), "{detail}");
    assert!(opens(&running.stop().await, Outcome::Dns) >= 1);
}

#[tokio::test]
async fn a_closed_port_and_a_port_without_tls_are_told_apart() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let mut running = Running::start(config(format!("http://127.0.0.1:{closed}"))).await;
    let detail = running.detail("backing-off").await;
    assert!(detail.contains("refuses connections; check that the server runs"), "{detail}");
    running.stop().await;

    let plain = Server::start(vec![reply("400 Bad Request", "this port speaks http")]).await;
    let url = plain.url().replace("http:", "https:");
    let mut running = Running::start(config(url)).await;
    let detail = running.detail("backing-off").await;
    assert!(detail.contains("no TLS with 127.0.0.1"), "{detail}");
    running.stop().await;
    assert!(plain.heads().iter().all(|head| !head.contains(SECRET)));
}

#[tokio::test]
async fn another_sse_source_is_resumed() {
    let server = Server::start(vec![stream("retry: 30\nid: 41\ndata: 1\n\n")]).await;
    let config = Config {
        token: TokenSource::None,
        ..Config::new(Source::Sse { url: format!("{}any?x=1", server.url()) })
    };
    let mut running = Running::start(config).await;
    running.until("hole ended").await;
    let heads = server.heads();
    assert!(heads[1].starts_with("get /any?x=1 "), "{}", heads[1]);
    assert!(heads[1].contains("last-event-id: 41\r\n"), "{}", heads[1]);
    assert!(!heads[0].contains("last-event-id") && !heads[0].contains("authorization"));
    running.stop().await;
}

#[tokio::test]
async fn a_burst_arrives_whole_and_in_order() {
    const EVENTS: usize = 20_000;
    let burst: String = (0..EVENTS).map(|n| format!("event: n\ndata: {n}\n\n")).collect();
    let server = Server::start(vec![held(&burst)]).await;
    let mut running = Running::start(config(server.url())).await;
    let lines = running.until(&format!("event n {}", EVENTS - 1)).await;
    let events = lines.iter().filter_map(|line| line.strip_prefix("event n "));
    assert!(events.eq((0..EVENTS).map(|n| n.to_string())));
    running.stop().await;
}

#[tokio::test]
async fn our_own_limit_holds_and_survives_a_restart() {
    let dir = temp("state");
    let server = Server::start(vec![stream(""), stream(""), stream(""), stream("")]).await;
    let config = Config { opens_max: 3, state_dir: Some(dir.clone()), ..config(server.url()) };
    let mut running = Running::start(config.clone()).await;
    let detail = running.detail("rate-limited").await;
    assert!(detail.contains("limit of 3 connection attempts in 300 s"), "{detail}");
    running.stop().await;
    let mut running = Running::start(config).await;
    assert_eq!(words(&running.until("rate-limited").await), ["connecting", "rate-limited"]);
    assert_eq!(running.stop().await.opens_held, 1);
    assert_eq!(server.heads().len(), 3);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn an_address_that_cannot_work_stops_the_start() {
    let config = Config::new(Source::Sse { url: "localhost".into() });
    let (sender, _lines) = watch::channel(Vec::new());
    let recorder = Recorder { lines: sender, staged: 0, staged_max: 0 };
    let error = driver(config, recorder, Clock::system(), Arc::default()).await.err().unwrap();
    assert!(error.to_string().contains("upstream.url"), "{error}");
}
