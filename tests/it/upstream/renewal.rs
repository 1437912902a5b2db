//! A second stream beside the first: when one is replaced, when one is silent, and always. What
//! subscribers get is each event once, true twins twice, and no hole while a stream was up.

use std::time::Duration;

use fanlight::{model::UpstreamState, server::Broker, simulator};

use super::{Scene, Seen, detail, fault, live};
use crate::harness::{Stream, Stub, broker_with, cloud, eventually, folder, get, until};

/// A cloud that shows its life often.
async fn lively_cloud() -> simulator::Simulator {
    let keepalive = Duration::from_millis(100);
    cloud(simulator::Config { keepalive, ..simulator::Config::default() }).await
}

/// The number of streams `/status` says are open, once it is that.
async fn streams(broker: &Broker, count: u64) {
    eventually("so many streams are open", async || {
        let status = get(broker.addr(), "/status", &[]).await.json();
        (status["upstream"]["streams"] == count).then_some(())
    })
    .await;
}

/// A broker on a stub, and a subscriber with what it was told so far left out.
async fn on_stub(stub: &Stub, adjust: impl FnOnce(&mut fanlight::server::Config)) -> Broker {
    broker_with(&[&format!("--upstream-url={}", stub.url(""))], adjust).await
}

/// An event as the cloud would send it.
fn event(number: u64) -> String {
    format!("event: n\ndata: {{\"data\":\"{number}\"}}\n\n")
}

/// The data of the next event, which nothing but events precedes.
async fn number(stream: &mut Stream) -> u64 {
    match Seen::from(&stream.next().await) {
        Seen::Event(_, data) => data.parse().unwrap(),
        Seen::Control(kind, fields) => panic!("{kind} {fields}"),
    }
}

#[tokio::test]
async fn streams_are_replaced_under_load_and_nobody_notices() {
    for streams in [1, 2] {
        let mut scene = Scene::with(lively_cloud().await, &[], |config| {
            config.upstream.age_max = Some(Duration::from_millis(700));
            config.upstream.overlap = Duration::from_millis(200);
            config.upstream.streams = streams;
        })
        .await;
        while scene.cloud.state().opens_total < 7 {
            scene.tick(20).await;
        }
        let status = get(scene.broker.addr(), "/status", &[]).await.json();
        assert_eq!(status["upstream"]["holes"], 0);
        assert!(status["upstream"]["copies"].as_u64() > Some(0), "{status}");
        scene.broker.shutdown().await;
    }
}

#[tokio::test]
async fn another_token_is_used_without_a_hole() {
    let file = folder("upstream-renewal").join("token");
    std::fs::write(&file, "first-not-a-real-token").unwrap();
    let flag = format!("--upstream-token-file={}", file.display());
    let mut scene = Scene::with(lively_cloud().await, &[&flag], |config| {
        config.upstream.overlap = Duration::from_millis(200);
    })
    .await;
    scene.tick(3).await;
    std::fs::write(&file, "second-not-a-real-token").unwrap();
    while scene.cloud.state().opens_total < 2 {
        scene.tick(1).await;
    }
    let mut open = 2;
    while open > 1 {
        scene.tick(1).await;
        let status = get(scene.broker.addr(), "/status", &[]).await.json();
        open = status["upstream"]["streams"].as_u64().unwrap();
    }
    let opens = scene.cloud.state().opens;
    assert_ne!(opens[0].token, opens[1].token);
    scene.tick(3).await;
    scene.over(2).await;
}

#[tokio::test]
async fn true_twins_survive_two_streams_and_copies_do_not() {
    let stub = Stub::listen().await;
    let broker = on_stub(&stub, |config| config.upstream.streams = 2).await;
    let mut first = stub.asked().await;
    first.stream().await;
    first.send(":ok\n\n").await;
    live(&broker).await;
    let mut second = stub.asked().await;
    second.stream().await;
    streams(&broker, 2).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
    // The second stream is in the middle of something that it never had the beginning of.
    for chunk in [event(1), event(1), event(2)] {
        first.send(&chunk).await;
    }
    for expected in [1, 1, 2] {
        assert_eq!(number(&mut stream).await, expected);
    }
    // In another order, and one more.
    for chunk in [event(2), event(1), event(3), event(1)] {
        second.send(&chunk).await;
    }
    assert_eq!(number(&mut stream).await, 3);
    // One breaks; the other goes on, and what it owes comes no more.
    drop(first);
    let mut third = stub.asked().await;
    third.stream().await;
    streams(&broker, 2).await;
    second.send(&event(4)).await;
    assert_eq!(number(&mut stream).await, 4);
    for chunk in [event(4), event(5)] {
        third.send(&chunk).await;
    }
    assert_eq!(number(&mut stream).await, 5);
    drop(second);
    third.send(&event(6)).await;
    assert_eq!(number(&mut stream).await, 6);
    let status = get(broker.addr(), "/status", &[]).await.json();
    let counts = ["copies", "twins", "holes"].map(|field| status["upstream"][field].clone());
    assert_eq!(counts, [4, 1, 0], "{status}");
    broker.shutdown().await;
}

#[tokio::test]
async fn each_of_two_streams_may_break_at_any_time() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");
    let stub = Stub::listen().await;
    let broker = on_stub(&stub, |config| {
        config.upstream.streams = 2;
        config.upstream.backoff_min = Duration::from_millis(1);
        config.upstream.backoff_max = Duration::from_millis(1);
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut asked = stub.asked().await;
        asked.stream().await;
        asked.send(":ok\n\n").await;
        open.push((asked, 0));
    }
    streams(&broker, 2).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
    let (mut published, mut seen) = (0, 0);
    for _ in 0..12 {
        // Each stream gets all of it, one of them a part at a time.
        published += random.u64(1..50);
        let slow = random.usize(0..2);
        for lane in [1 - slow, slow] {
            let (asked, sent) = &mut open[lane];
            while *sent < published {
                let upto = if lane == slow { *sent + 1 } else { published };
                let chunk: String = (*sent..upto).map(event).collect();
                asked.send(&chunk).await;
                *sent = upto;
            }
        }
        while seen < published {
            assert_eq!(number(&mut stream).await, seen, "seed {seed}");
            seen += 1;
        }
        // One goes, in the middle of an event; the other has what comes meanwhile.
        let (mut broken, _) = open.remove(random.usize(0..2));
        broken.send("event: n\ndata: {\"da").await;
        drop(broken);
        let (other, sent) = &mut open[0];
        other.send(&event(published)).await;
        published += 1;
        *sent = published;
        let mut asked = stub.asked().await;
        asked.stream().await;
        asked.send(":ok\n\n").await;
        open.push((asked, published));
        streams(&broker, 2).await;
    }
    let status = get(broker.addr(), "/status", &[]).await.json();
    assert_eq!(
        (&status["upstream"]["holes"], &status["upstream"]["state"]),
        (&0.into(), &"live".into())
    );
    broker.shutdown().await;
}

#[tokio::test]
async fn a_dead_stream_is_replaced_before_it_counts_as_dead() {
    let mut scene = Scene::with(lively_cloud().await, &[], |config| {
        config.upstream.stale_after = Duration::from_secs(2);
        config.upstream.probe_after = Duration::from_secs(1);
    })
    .await;
    scene.tick(3).await;
    scene.cloud.fault(fault("stall"));
    // The second one is open before it is known that the first is dead.
    scene.cloud.opens(2).await;
    scene.cloud.publish("live/tick", Some("kept"));
    let seen = scene.all_see(2).await;
    let [Seen::Control(kind, hole), Seen::Event(_, data)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(
        (kind.as_str(), hole["reason"].as_str(), data.as_str()),
        ("hole", Some("stalled"), "kept")
    );
    assert_eq!(scene.broker.hub().upstream_state(), UpstreamState::Live);
    scene.tick(3).await;
    scene.over(2).await;
}

#[tokio::test]
async fn a_stream_that_was_only_late_leaves_no_hole() {
    let stub = Stub::listen().await;
    let broker =
        on_stub(&stub, |config| config.upstream.probe_after = Duration::from_secs(1)).await;
    let mut first = stub.asked().await;
    first.stream().await;
    first.send(&event(0)).await;
    live(&broker).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
    let mut second = stub.asked().await;
    second.stream().await;
    streams(&broker, 2).await;
    second.send(&event(1)).await;
    first.send(&event(1)).await;
    assert_eq!(number(&mut stream).await, 1);
    streams(&broker, 1).await;
    first.send(&event(2)).await;
    assert_eq!(number(&mut stream).await, 2);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_cloud_that_only_greets_is_not_live_for_ever() {
    let mut scene = Scene::with(lively_cloud().await, &["--upstream-stale-after=1s"], |_| {}).await;
    scene.tick(3).await;
    scene.cloud.fault(fault("stall sticky"));
    detail(&scene.broker, "answers and then sends nothing").await;
    assert_eq!(scene.broker.hub().upstream_state(), UpstreamState::Stalled);
    let opens = scene.cloud.state().opens_total;
    scene.cloud.opens(opens + 2).await;
    assert_eq!(scene.broker.hub().upstream_state(), UpstreamState::Stalled);
    scene.cloud.clear_faults();
    until("the upstream is live", || {
        (scene.broker.hub().upstream_state() == UpstreamState::Live).then_some(())
    })
    .await;
    let mut words = Vec::new();
    while !words.ends_with(&["hole".to_owned(), "live".to_owned()])
        || scene.broker.hub().status().tail.0 > scene.seq + 1
    {
        words.push(scene.all_see(1).await[0].word().to_owned());
    }
    let expected = [
        "stalled",
        "connecting",
        "hole",
        "live",
        "stalled",
        "connecting",
        "stalled",
        "hole",
        "live",
    ];
    assert_eq!(words, expected);
    scene.tick(3).await;
    scene.broker.shutdown().await;
}
