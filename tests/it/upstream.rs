//! Outages of the cloud, as subscribers see them: they stay connected, and are told once
//! what was lost, why and when, before anything that came after it.

mod bytes;
mod renewal;
mod source;
mod token;

use std::time::Duration;

use fanlight::{
    clock::wall_ms,
    model::UpstreamState,
    server::{self, Broker},
    simulator::{self, Fault, Simulator, fingerprint},
};
use serde_json::Value;

use crate::harness::{Event, Stream, broker_with, cloud, folder, get, metric, quiet_cloud, until};

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
