//! Outages of the cloud, as subscribers see them: they stay connected, and are told once
//! what was lost, why and when, before anything that came after it.

use std::time::Duration;

use fanlight::{
    clock::wall_ms,
    model::UpstreamState,
    server::{self, Broker},
    simulator::{self, Fault, Simulator, fingerprint},
};
use serde_json::Value;

use crate::harness::{
    Event, Process, Stream, Stub, WebSocket, broker_with, cloud, folder, get, metric, quiet_cloud,
    subscribers, until,
};

/// How far two readings of the wall clock may be apart for rounding's sake, in milliseconds.
const ROUNDING_MS: u64 = 2;

/// One thing a subscriber was told, in whatever format.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    /// Name and data of an event.
    Event(String, String),
    /// Kind and fields of a control event.
    Control(String, Value),
}

impl From<&Event> for Seen {
    fn from(event: &Event) -> Seen {
        let json = event.json();
        let text = |field: &str| json[field].as_str().map(str::to_owned);
        match event.kind.strip_prefix("fanlight.") {
            Some(kind) => Seen::Control(kind.to_owned(), json),
            None => Seen::Event(
                text("name").unwrap_or_else(|| event.kind.clone()),
                text("data").unwrap_or_default(),
            ),
        }
    }
}

impl Seen {
    /// `hole`, `live` or `backing-off` for control events, the data of an event.
    fn word(&self) -> &str {
        match self {
            Seen::Event(_, data) => data,
            Seen::Control(kind, fields) if kind == "upstream" => fields["state"].as_str().unwrap(),
            Seen::Control(kind, _) => kind,
        }
    }
}

/// A cloud, a broker that is live on it, and subscribers that stay from before an outage
/// until after it.
struct Scene {
    cloud: Simulator,
    broker: Broker,
    /// In both SSE formats, and one whose filter is narrow.
    witnesses: [Stream; 3],
    seq: u64,
    ticks: u64,
}

/// An outage, as all subscribers were told of it.
#[derive(Debug)]
struct Outage {
    /// The states within it, `live` left out.
    states: Vec<String>,
    reason: String,
    since_ms: u64,
    until_ms: u64,
    /// When the first subscriber saw that the upstream was no longer live.
    noticed_ms: u64,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(quiet_cloud().await, &[], |_| {}).await
    }

    async fn with(
        cloud: Simulator,
        flags: &[&str],
        adjust: impl FnOnce(&mut server::Config),
    ) -> Scene {
        let url = format!("--upstream-url={}", cloud.url());
        let flags: Vec<&str> = flags.iter().copied().chain([url.as_str()]).collect();
        let broker = broker_with(&flags, adjust).await;
        live(&broker).await;
        let addr = broker.addr();
        let (first, hello) = Stream::live(addr, "/events").await;
        let (second, _) = Stream::live(addr, "/events?format=particle").await;
        let (third, _) = Stream::live(addr, "/events?prefix=live/").await;
        Scene { cloud, broker, witnesses: [first, second, third], seq: hello.seq(), ticks: 0 }
    }

    /// Publishes events and waits until every witness has each of them and nothing else.
    async fn tick(&mut self, count: u64) {
        let ticks: Vec<String> = (self.ticks..self.ticks + count).map(|n| n.to_string()).collect();
        self.ticks += count;
        for tick in &ticks {
            self.cloud.publish("live/tick", Some(tick));
        }
        let seen = self.all_see(ticks.len()).await;
        let expected: Vec<Seen> =
            ticks.into_iter().map(|tick| Seen::Event("live/tick".to_owned(), tick)).collect();
        assert_eq!(seen, expected);
    }

    /// The next `count` events, which are the same for every witness and leave no seq out.
    async fn all_see(&mut self, count: usize) -> Vec<Seen> {
        let [first, second, third] = &mut self.witnesses;
        let events = first.take(count).await;
        let seen: Vec<Seen> = events.iter().map(Seen::from).collect();
        for other in [second, third] {
            let events: Vec<Seen> = other.take(count).await.iter().map(Seen::from).collect();
            assert_eq!(events, seen);
        }
        for event in &events {
            assert_eq!(event.seq(), self.seq + 1, "{event:?}");
            self.seq += 1;
        }
        seen
    }

    /// Lets `fault` happen to the live cloud and be mended; returns what subscribers were told
    /// of it, after checking all that holds for every outage.
    async fn outage(&mut self, fault: impl AsyncFnOnce(&mut Simulator, &Broker)) -> Outage {
        let began_ms = wall_ms();
        self.tick(3).await;
        fault(&mut self.cloud, &self.broker).await;
        let (mut seen, mut noticed_ms) = (Vec::new(), 0);
        while seen.last().is_none_or(|last: &Seen| last.word() != "live") {
            seen.extend(self.all_see(1).await);
            if seen.len() == 1 {
                noticed_ms = wall_ms();
            }
        }
        let over_ms = wall_ms();
        self.tick(3).await;
        let words: Vec<&str> = seen.iter().map(Seen::word).collect();
        let (states, end) = words.split_at(words.len() - 2);
        assert_eq!(end, ["hole", "live"], "{words:?}");
        assert!(!states.contains(&"hole"), "one hole for one outage: {words:?}");
        let [.., Seen::Control(_, hole), _] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(hole["count"], Value::Null);
        let time = |field: &str| {
            let time: jiff::Timestamp = hole[field].as_str().unwrap().parse().unwrap();
            time.as_millisecond().unsigned_abs()
        };
        let outage = Outage {
            states: states.iter().map(|state| (*state).to_owned()).collect(),
            reason: hole["reason"].as_str().unwrap().to_owned(),
            since_ms: time("since"),
            until_ms: time("until"),
            noticed_ms,
        };
        let Outage { since_ms, until_ms, .. } = outage;
        assert!(began_ms <= since_ms + ROUNDING_MS, "{began_ms} {outage:?}");
        assert!(since_ms <= noticed_ms + ROUNDING_MS, "{outage:?}");
        assert!(since_ms <= until_ms, "{outage:?}");
        assert!(until_ms <= over_ms + ROUNDING_MS, "{over_ms} {outage:?}");
        outage
    }

    /// Checks that the broker opened as often as expected, and ends it.
    async fn over(self, opens: u64) {
        assert_eq!(self.cloud.state().opens_total, opens);
        self.broker.shutdown().await;
    }
}

impl Outage {
    fn was(&self, reason: &str, states: &[&str]) {
        assert_eq!((self.reason.as_str(), &self.states[..]), (reason, &owned(states)[..]));
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn fault(text: &str) -> Fault {
    text.parse().unwrap()
}

async fn live(broker: &Broker) {
    until("the upstream is live", || {
        (broker.hub().upstream_state() == UpstreamState::Live).then_some(())
    })
    .await;
}

/// Waits until the broker's own words about its upstream hold `text`.
async fn detail(broker: &Broker, text: &str) {
    until(text, || broker.hub().status().upstream.detail.contains(text).then_some(())).await;
}

// === outages ===

#[tokio::test]
async fn a_clean_end() {
    let mut scene = Scene::new().await;
    let outage = scene.outage(async |cloud, _| cloud.fault(fault("cut"))).await;
    outage.was("ended", &["backing-off", "connecting"]);
    scene.over(2).await;
}

#[tokio::test]
async fn a_cut_within_an_event() {
    let mut scene = Scene::new().await;
    for text in ["cut mid-event", "cut mid-event at=3"] {
        let outage = scene.outage(async |cloud, _| cloud.fault(fault(text))).await;
        outage.was("reset", &["backing-off", "connecting"]);
    }
    // All is there but the blank line.
    let almost = async |cloud: &mut Simulator, _: &Broker| {
        cloud.raw(b"event: sim/torn\ndata: {\"data\":\"never whole\"}\n");
        cloud.fault(fault("cut"));
    };
    scene.outage(almost).await.was("ended", &["backing-off", "connecting"]);
    for witness in &scene.witnesses {
        let body = String::from_utf8_lossy(&witness.body);
        assert!(!body.contains("torn") && !body.contains("never whole"), "{body}");
    }
    scene.over(4).await;
}

#[tokio::test]
async fn a_reset() {
    let mut scene = Scene::new().await;
    let outage = scene.outage(async |cloud, _| cloud.fault(fault("reset"))).await;
    outage.was("reset", &["backing-off", "connecting"]);
    scene.over(2).await;
}

#[tokio::test]
async fn a_silent_stall() {
    let config =
        simulator::Config { keepalive: Duration::from_millis(100), ..simulator::Config::default() };
    let mut scene = Scene::with(cloud(config).await, &["--upstream-stale-after=1s"], |_| {}).await;
    let stall = async |cloud: &mut Simulator, _: &Broker| {
        cloud.fault(fault("stall"));
        cloud.publish("live/lost", Some("nobody hears it"));
    };
    let outage = scene.outage(stall).await;
    outage.was("stalled", &["stalled", "connecting"]);
    // Lost since the last byte, not since it was noticed.
    assert!(outage.since_ms + 1000 <= outage.noticed_ms + ROUNDING_MS, "{outage:?}");
    scene.over(2).await;
}

#[tokio::test]
async fn a_rate_limit_is_waited_out() {
    let mut scene = Scene::new().await;
    let refused = async |cloud: &mut Simulator, _: &Broker| {
        cloud.fault(fault("status=529 retry-after=1"));
        cloud.fault(fault("cut"));
    };
    let outage = scene.outage(refused).await;
    outage.was("ended", &["backing-off", "connecting", "rate-limited"]);
    assert!(outage.until_ms >= outage.since_ms + 1000 - ROUNDING_MS, "{outage:?}");
    let opens = scene.cloud.state().opens;
    assert_eq!(opens[1].status, Some(529));
    assert!(opens[2].at - opens[1].at >= Duration::from_secs(1), "{opens:?}");
    scene.over(3).await;
}

#[tokio::test]
async fn a_server_error() {
    let mut scene = Scene::new().await;
    let failing = async |cloud: &mut Simulator, _: &Broker| {
        cloud.fault(fault("status=500"));
        cloud.fault(fault("cut"));
    };
    scene.outage(failing).await.was("ended", &["backing-off", "connecting", "backing-off"]);
    scene.over(3).await;
}

#[tokio::test]
async fn a_page_in_place_of_the_stream() {
    let mut scene = Scene::new().await;
    let portal = async |cloud: &mut Simulator, _: &Broker| {
        cloud.fault(fault("html count=3"));
        cloud.fault(fault("cut"));
    };
    // Its repeats are for the status page alone.
    scene.outage(portal).await.was("ended", &["backing-off", "connecting", "backing-off"]);
    scene.over(5).await;
}

#[tokio::test]
async fn no_answer_at_all() {
    let cloud = quiet_cloud().await;
    let mut scene = Scene::with(cloud, &["--upstream-connect-timeout=500ms"], |_| {}).await;
    let hanging = async |cloud: &mut Simulator, broker: &Broker| {
        cloud.fault(fault("hang"));
        cloud.fault(fault("cut"));
        detail(broker, "sent no answer within 0.5 s").await;
    };
    let outage = scene.outage(hanging).await;
    outage.was("ended", &["backing-off", "connecting", "backing-off"]);
    assert!(outage.until_ms >= outage.since_ms + 500 - ROUNDING_MS, "{outage:?}");
    scene.over(3).await;
}

#[tokio::test]
async fn a_token_that_is_refused_until_the_file_has_another() {
    let file = folder("upstream-token").join("token");
    std::fs::write(&file, "first-not-a-real-token\n").unwrap();
    let flag = format!("--upstream-token-file={}", file.display());
    let mut scene = Scene::with(quiet_cloud().await, &[&flag], |_| {}).await;
    let revoked = async |cloud: &mut Simulator, broker: &Broker| {
        cloud.fault(fault("status=401 count=1000"));
        cloud.fault(fault("cut"));
        // Once more with the old one, in case that was a hiccup, and then no more.
        cloud.opens(3).await;
        detail(broker, "answered 401").await;
        cloud.clear_faults();
        std::fs::write(&file, "second-not-a-real-token\n").unwrap();
    };
    scene.outage(revoked).await.was("ended", &["backing-off", "connecting", "unauthorized"]);
    let tokens: Vec<_> = scene.cloud.state().opens.into_iter().map(|open| open.token).collect();
    let [first, second] =
        ["first", "second"].map(|which| Some(fingerprint(&format!("{which}-not-a-real-token"))));
    assert_eq!(tokens, [first.clone(), first.clone(), first, second]);
    for witness in &scene.witnesses {
        let body = String::from_utf8_lossy(&witness.body);
        assert!(body.contains("put a valid token into upstream.token_file"), "{body}");
        assert!(!body.contains(file.to_str().unwrap()), "where it is kept is nobody's business");
    }
    scene.over(4).await;
}

#[tokio::test]
async fn a_cloud_that_restarts() {
    let mut scene = Scene::new().await;
    let mut healed_ms = 0;
    let restart = async |cloud: &mut Simulator, broker: &Broker| {
        cloud.stop().await;
        detail(broker, "refuses connections").await;
        healed_ms = wall_ms();
        let listen = cloud.addr();
        *cloud = crate::harness::cloud(simulator::Config { listen, ..Default::default() }).await;
    };
    let outage = scene.outage(restart).await;
    outage.was("reset", &["backing-off", "connecting", "backing-off"]);
    assert!(outage.until_ms >= healed_ms, "{healed_ms} {outage:?}");
    scene.over(1).await;
}

#[tokio::test]
async fn a_stormy_day() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");
    let mut scene = Scene::new().await;
    for _ in 0..30 {
        let (text, reason) = random
            .choice([("cut", "ended"), ("cut mid-event", "reset"), ("reset", "reset")])
            .unwrap();
        let outage = scene.outage(async |cloud, _| cloud.fault(fault(text))).await;
        outage.was(reason, &["backing-off", "connecting"]);
    }
    let (addr, holes) = (scene.broker.addr(), 30);
    let status = get(addr, "/status", &[]).await.json();
    assert_eq!(status["upstream"]["holes"], holes);
    scene.over(31).await;
}

// === starts ===

#[tokio::test]
async fn a_start_that_fails_is_one_hole() {
    let listen = {
        let cloud = quiet_cloud().await;
        cloud.stop().await;
        cloud.addr()
    };
    let url = format!("--upstream-url=http://{listen}");
    let began_ms = wall_ms();
    let broker = broker_with(&[&url], |_| {}).await;
    let started_ms = wall_ms();
    detail(&broker, "refuses connections").await;
    let (mut early, hello) = Stream::live(broker.addr(), "/events").await;
    assert_ne!(hello.json()["upstream"], "live");
    let healed_ms = wall_ms();
    let config =
        simulator::Config { listen, faults: vec![fault("html count=2")], ..Default::default() };
    let cloud = cloud(config).await;
    live(&broker).await;
    cloud.publish("a", Some("1"));
    let mut late = Stream::open(broker.addr(), "/events?since=earliest", &[]).await;
    assert_eq!(late.next().await.kind, "fanlight.hello");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last: &Seen| last.word() != "1") {
        seen.push(Seen::from(&late.next().await));
    }
    let words: Vec<&str> = seen.iter().map(Seen::word).collect();
    let expected = ["connecting", "backing-off", "backing-off", "hole", "live", "1"];
    assert_eq!(words, expected);
    let Seen::Control(_, hole) = &seen[3] else { panic!("{seen:?}") };
    assert_eq!(hole["reason"], "startup");
    let time = |field: &str| -> u64 {
        let time: jiff::Timestamp = hole[field].as_str().unwrap().parse().unwrap();
        time.as_millisecond().unsigned_abs()
    };
    assert!((began_ms..=started_ms + ROUNDING_MS).contains(&time("since")), "{hole}");
    assert!((healed_ms..=wall_ms()).contains(&time("until")), "{hole}");
    // Who was there all along was told the same.
    let told: Vec<Seen> = early.take(4).await.iter().map(Seen::from).collect();
    assert!(seen.ends_with(&told), "{told:?}");
    broker.shutdown().await;
}

#[tokio::test]
async fn no_window_holds_more_opens_than_the_budget() {
    const OPENS_MAX: usize = 4;
    const WINDOW: Duration = Duration::from_secs(1);
    let cloud = quiet_cloud().await;
    let mut scene = Scene::with(cloud, &[], |config| {
        config.upstream.opens_max = OPENS_MAX;
        config.upstream.opens_window = WINDOW;
    })
    .await;
    // No stream lives longer than this, and each attempt follows within 50 ms.
    scene.cloud.fault(fault("cut every=10ms"));
    scene.cloud.opens(3 * OPENS_MAX as u64 + 1).await;
    scene.cloud.clear_faults();
    let opens = scene.cloud.state().opens;
    for window in opens.windows(OPENS_MAX + 1) {
        let took = window[OPENS_MAX].at - window[0].at;
        assert!(took >= WINDOW, "{} opens within {took:?}", OPENS_MAX + 1);
    }
    let mut words = Vec::new();
    while !words.ends_with(&owned(&["rate-limited", "hole", "live"])) {
        words.push(Seen::from(&scene.witnesses[0].next().await).word().to_owned());
    }
    let status = get(scene.broker.addr(), "/status", &[]).await.json();
    assert_eq!(status["upstream"]["opens_max"], OPENS_MAX);
    let body = String::from_utf8_lossy(&scene.witnesses[0].body);
    assert!(body.contains("our own limit of 4 connection attempts in 1 s is used up"), "{body}");
    scene.broker.shutdown().await;
}

// === what is not passed on ===

#[tokio::test]
async fn a_line_that_is_too_long_is_a_gap_of_one() {
    let flags = ["--upstream-line-bytes-max=1KiB"];
    let mut scene = Scene::with(quiet_cloud().await, &flags, |_| {}).await;
    for bytes in [1025, 5_000, 100_000] {
        scene.tick(1).await;
        scene.cloud.fault(fault(&format!("oversize bytes={bytes}")));
        let seen = scene.all_see(1).await;
        let [Seen::Control(kind, gap)] = &seen[..] else { panic!("{seen:?}") };
        let (from, to) = (scene.seq, scene.seq + 1);
        assert_eq!((kind.as_str(), &gap["reason"]), ("gap", &"oversize".into()));
        assert_eq!(
            (&gap["from"], &gap["to"], &gap["count"]),
            (&from.into(), &to.into(), &1.into())
        );
        assert_eq!((&gap["requested"], &gap["next"]), (&Value::Null, &to.into()));
        scene.tick(1).await;
    }
    // To the byte.
    scene.cloud.fault(fault("oversize bytes=1024"));
    let [first, second, _] = &mut scene.witnesses;
    assert_eq!(first.next().await.json()["name"], "sim/oversize");
    assert_eq!(second.next().await.data.len(), 1024 - "data: ".len());
    let refused = "fanlight_upstream_events_refused_total{reason=\"oversize\"}";
    assert_eq!(metric(scene.broker.addr(), refused).await, 3.0);
    scene.over(1).await;
}

#[tokio::test]
async fn reserved_names_are_dropped_and_counted() {
    let mut scene = Scene::new().await;
    for name in ["fanlight.gap", "fanlight.hello", "fanlight.", "fanlight.bye"] {
        scene.cloud.publish(name, Some("forged"));
        scene.cloud.publish_line(name, r#"{"reason":"shutdown"}"#);
    }
    // Nothing of it takes a place in the sequence.
    scene.tick(1).await;
    let refused = "fanlight_upstream_events_refused_total{reason=\"reserved\"}";
    assert_eq!(metric(scene.broker.addr(), refused).await, 8.0);
    scene.over(1).await;
}

// === any event stream ===

#[tokio::test]
async fn any_stream_is_resumed_where_it_ended() {
    let stub = Stub::listen().await;
    let url = format!("--upstream-url={}", stub.url("/stream?key=1"));
    let broker = broker_with(&["--upstream-source=sse", &url], |_| {}).await;
    let mut asked = stub.asked().await;
    assert_eq!(asked.path(), "/stream?key=1");
    assert_eq!(asked.header("accept"), Some("text/event-stream"));
    assert_eq!((asked.header("last-event-id"), asked.header("authorization")), (None, None));
    let mut stream = Stream::open(broker.addr(), "/events?control=off", &[]).await;
    subscribers(&broker, 1).await;
    asked.stream().await;
    asked
        .send("retry: 50\r\nid: a-1\r\nevent: x\r\ndata: one\r\n\r\nid: a-2\rdata: {\"n\":2}\r\r")
        .await;
    assert_eq!(stream.next().await.data, r#"{"name":"x","raw":"one"}"#);
    let second = stream.next().await;
    assert_eq!(second.data, r#"{"name":"message","n":2}"#);
    // An id counts once its event is whole.
    asked.send("id: a-3\ndata: thr").await;
    drop(asked);
    let mut asked = stub.asked().await;
    assert_eq!(asked.header("last-event-id"), Some("a-2"));
    asked.stream().await;
    asked.send("id: a-3\ndata: three\n\nid\ndata: four\n\n").await;
    assert_eq!(stream.next().await.data, r#"{"name":"message","raw":"three"}"#);
    assert_eq!(stream.next().await.data, r#"{"name":"message","raw":"four"}"#);
    drop(asked);
    assert_eq!(stub.asked().await.header("last-event-id"), None, "the stream took its id back");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_broker_behind_a_broker_loses_nothing() {
    let cloud = quiet_cloud().await;
    let near =
        Scene::with(cloud, &["--stream-retry-min=100ms", "--stream-retry-max=100ms"], |config| {
            // Each of its streams ends after 0.4 to 0.6 s.
            config.stream.age_max = Some(Duration::from_millis(500));
        })
        .await;
    let url = format!("--upstream-url=http://{}/events?format=particle", near.broker.addr());
    let far = broker_with(&["--upstream-source=sse", &url], |_| {}).await;
    live(&far).await;
    let (mut stream, _) = Stream::live(far.addr(), "/events").await;
    let (mut published, mut received, mut holes) = (0, Vec::new(), 0);
    while holes < 3 || received.len() < published {
        // In outages too: whatever comes from the far broker calls for more.
        for _ in 0..if holes < 3 { 5 } else { 0 } {
            near.cloud.publish("live/tick", Some(&published.to_string()));
            published += 1;
        }
        match Seen::from(&stream.next().await) {
            Seen::Event(_, data) => received.push(data),
            Seen::Control(kind, fields) => {
                holes += usize::from(kind == "hole");
                assert_ne!(kind, "gap", "{fields}");
            }
        }
    }
    let all: Vec<String> = (0..published).map(|tick| tick.to_string()).collect();
    assert_eq!(received, all);
    far.shutdown().await;
}

// === the token ===

#[tokio::test]
async fn redirects_are_followed_at_home_and_nowhere_else() {
    let (stub, elsewhere) = (Stub::listen().await, quiet_cloud().await);
    let url = format!("--upstream-url={}", stub.url("/api"));
    let broker = broker_with(&[&url, "--upstream-token=canary-not-a-real-token"], |_| {}).await;
    let bearer = Some("Bearer canary-not-a-real-token");
    let asked = stub.asked().await;
    assert_eq!((asked.path(), asked.header("authorization")), ("/api/v1/devices/events", bearer));
    asked.answer("307 Temporary Redirect", "Location: /moved?x=1\r\n", "").await;
    let asked = stub.asked().await;
    assert_eq!((asked.path(), asked.header("authorization")), ("/moved?x=1", bearer));
    let location = format!("Location: {}/v1/devices/events\r\n", elsewhere.url());
    asked.answer("302 Found", &location, "").await;
    detail(&broker, "is not followed so that the token stays here").await;
    assert_eq!(broker.hub().upstream_state(), UpstreamState::Misconfigured);
    assert_eq!(elsewhere.state().opens_total, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn the_token_is_shown_nowhere() {
    const CANARY: &str = "canary1-0123456789abcdef-not-a-real-token";
    const SECOND: &str = "canary2-0123456789abcdef-not-a-real-token";
    let folder = folder("upstream-secret");
    let file = folder.join("token");
    std::fs::write(&file, CANARY).unwrap();
    let stub = Stub::listen().await;
    let state = format!("--state-dir={}", folder.display());
    let token = format!("--upstream-token-file={}", file.display());
    let flags = [state.as_str(), &token, "--trace-level=trace", "--upstream-backoff-min=100ms"];
    let (mut process, addr) = Process::serve(&stub.url(""), &flags).await;
    let mut shown: Vec<String> = Vec::new();
    let (mut stream, _) = Stream::live(addr, "/events").await;
    // A server that repeats the token wherever it can.
    let asked = stub.asked().await;
    assert_eq!(asked.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    let body =
        format!(r#"{{"error":"{CANARY}","error_description":"bad {CANARY}","info":"{CANARY}"}}"#);
    asked.answer("401 Unauthorized", &format!("X: {CANARY}\r\n"), &body).await;
    let elsewhere = format!("Location: http://{CANARY}:1/?access_token={CANARY}\r\n");
    stub.asked().await.answer("302 Found", &elsewhere, CANARY).await;
    // That is a matter of configuration; another token is reason enough to try again.
    while stream.next().await.json()["state"] != "misconfigured" {}
    for path in ["/status", "/metrics", "/readyz", "/healthz", "/last", "/poll?since=earliest"] {
        shown.push(get(addr, path, &[]).await.body);
    }
    std::fs::write(&file, SECOND).unwrap();
    let asked = stub.asked().await;
    assert_eq!(asked.header("authorization"), Some(format!("Bearer {SECOND}").as_str()));
    asked.answer("200 OK", &format!("Content-Type: text/{SECOND}\r\n"), SECOND).await;
    let encoded = format!("Content-Type: text/event-stream\r\nContent-Encoding: {SECOND}\r\n");
    stub.asked().await.answer("200 OK", &encoded, SECOND).await;
    let mut asked = stub.asked().await;
    asked.stream().await;
    asked.send("event: a\ndata: 1\n\n").await;
    while stream.next().await.json()["name"] != "a" {}
    for path in
        ["/status", "/metrics", "/readyz", "/events?x=1", "/nothing", "/poll?since=earliest"]
    {
        shown.push(get(addr, path, &[]).await.body);
    }
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    shown.push(String::from_utf8(stream.body.clone()).unwrap());
    let trace = process.trace.join("\n");
    assert!(trace.contains("\"TRACE\""), "of libraries too");
    assert!(trace.contains("answered 401 (bad ***: ***)"), "the server's words, masked");
    for text in shown.iter().chain([&trace]) {
        let at =
            text.find("canary").map(|at| &text[at.saturating_sub(200)..(at + 50).min(text.len())]);
        assert_eq!(at, None);
    }
}

// === the bytes ===

/// Name and data line of each event of the samples.
fn samples() -> Vec<(String, String)> {
    let text = std::str::from_utf8(SAMPLES).unwrap();
    let field = |block: &str, name: &str| -> Option<String> {
        block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    let blocks = text.split("\n\n");
    blocks.filter_map(|block| Some((field(block, "event: ")?, field(block, "data: ")?))).collect()
}

const SAMPLES: &[u8] = include_bytes!("../data/particle-wire-samples.txt");

#[tokio::test]
async fn every_sample_arrives_byte_for_byte() {
    let samples = samples();
    assert_eq!(samples.len(), 20);
    let cloud = quiet_cloud().await;
    let broker = broker_with(&[&format!("--upstream-url={}", cloud.url())], |_| {}).await;
    live(&broker).await;
    let addr = broker.addr();
    let (mut message, hello) = Stream::live(addr, "/events").await;
    let (mut particle, _) = Stream::live(addr, "/events?format=particle").await;
    let mut ndjson = Stream::open(addr, "/events", &[("Accept", "application/x-ndjson")]).await;
    ndjson.full_line().await;
    let mut websocket = WebSocket::open(addr, "/ws").await;
    websocket.next().await;
    subscribers(&broker, 4).await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");
    let mut after = hello.id;
    for round in 0..4 {
        let mut rest = SAMPLES;
        while !rest.is_empty() {
            // First all at once, then torn anywhere.
            let bytes_max = if round == 0 { rest.len() } else { rest.len().min(40) };
            let (piece, more) = rest.split_at(random.usize(1..=bytes_max));
            cloud.raw(if round == 0 { rest } else { piece });
            rest = if round == 0 { &[] } else { more };
        }
        let (mut lines, mut next) = (Vec::new(), String::new());
        for (name, data) in &samples {
            let event = particle.next().await;
            assert_eq!((&event.kind, &event.data), (name, data));
            let event = message.next().await;
            let named = format!("{{\"name\":\"{name}\",{}", &data[1..]);
            assert_eq!((event.kind.as_str(), &event.data), ("message", &named));
            let mut json = event.json();
            assert_eq!(json.as_object_mut().unwrap().remove("name"), Some(name.as_str().into()));
            assert_eq!(json, serde_json::from_str::<Value>(data).unwrap());
            let line = format!("{{\"id\":\"{}\",{}", event.id, &named[1..]);
            assert_eq!(ndjson.full_line().await, line);
            assert_eq!(websocket.text().await, line);
            lines.push(line);
            next = event.id;
        }
        let poll = get(addr, &format!("/poll?after={after}"), &[]).await;
        let lines = lines.join(",");
        assert_eq!(poll.body, format!("{{\"events\":[{lines}],\"next\":\"{next}\",\"gap\":null}}"));
        after = next;
    }
    // Nor is there anything in between that a parser would forgive.
    let body = String::from_utf8(particle.body.clone()).unwrap();
    let sent: Vec<&str> =
        body.lines().filter_map(|line| line.strip_prefix("data: ")).skip(1).collect();
    let expected: Vec<&str> = samples.iter().map(|(_, data)| data.as_str()).collect();
    assert_eq!(sent, expected.repeat(4));
    broker.shutdown().await;
}
