//! Every failure the simulated cloud can have, as a client meets it.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::{super::*, client::*};

#[tokio::test]
async fn a_cut_ends_the_body_and_the_connection_goes_on() {
    let simulator = start(quiet()).await;
    let mut client = Client::open(&simulator, MINE).await;
    simulator.publish("last", Some("x"));
    simulator.fault(FaultKind::Cut);
    assert_eq!(simulator.state().streams_open, 0);
    simulator.publish("lost", Some("x"));
    assert_eq!(client.end().await, Ended::Clean);
    let body = String::from_utf8(client.body.clone()).unwrap();
    assert!(body.contains("last") && body.ends_with("\n\n") && !body.contains("lost"));
    client
        .socket
        .write_all(format!("GET {MINE} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    client.read_head().await;
    assert_eq!((client.status(), simulator.state().streams_opened), (200, 2));
}

#[tokio::test]
async fn a_cut_in_mid_event_is_at_the_byte_asked_for() {
    let simulator = start(quiet()).await;
    for at in [0, 1, 7, 15, 16, 30] {
        let mut client = Client::open(&simulator, MINE).await;
        simulator.fault(fault(&format!("cut mid-event at={at}")));
        assert_eq!(client.end().await, Ended::Severed);
        let whole = ":ok\n\nevent: sim/torn\ndata: {\"data\":\"never whole\"";
        assert_eq!(client.body, whole.as_bytes()[..5 + at]);
    }
    let mut client = Client::open(&simulator, MINE).await;
    simulator.fault(fault("cut mid-event"));
    assert_eq!(client.end().await, Ended::Severed);
    assert!(client.body.len() > 50 && !client.body.ends_with(b"\n\n"));
}

#[tokio::test]
async fn a_reset_is_one_after_what_was_published() {
    let simulator = start(quiet()).await;
    let mut client = Client::open(&simulator, MINE).await;
    simulator.publish("last", Some("x"));
    client.body_with("last").await;
    simulator.fault(FaultKind::Reset);
    assert_eq!(client.end().await, Ended::Reset);
    simulator.streams(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_silent_and_new_opens_are_healthy_unless_sticky() {
    let simulator = start(quiet()).await;
    let mut deaf = Client::open(&simulator, MINE).await;
    deaf.body_of(5).await;
    simulator.fault(fault("stall after=30s for=60s"));
    // Due from 30 s to 90 s; the keep-alives before it are at 9 to 12 s each.
    sleep(Duration::from_secs(31)).await;
    let before = deaf.body_of(7).await.len();
    simulator.publish("lost", Some("x"));
    let mut healthy = Client::open(&simulator, MINE).await;
    simulator.publish("heard", Some("x"));
    healthy.body_with("heard").await;
    sleep(Duration::from_secs(58)).await;
    assert_eq!(deaf.body_of(before).await.len(), before);
    sleep(Duration::from_secs(2)).await;
    simulator.publish("again", Some("x"));
    let body = deaf.body_with("again").await;
    assert!(!body.contains("lost") && !body.contains("heard"), "{body}");

    simulator.fault(fault("stall sticky"));
    assert_eq!(simulator.state().faults_pending, ["stall sticky"]);
    let mut deaf = Client::open(&simulator, MINE).await;
    simulator.publish("lost", Some("x"));
    assert_eq!(deaf.body_of(5).await, ":ok\n\n");
    simulator.clear_faults();
    simulator.publish("again", Some("x"));
    assert!(deaf.body_with("again").await.starts_with(":ok\n\nevent: again"));
}

#[tokio::test]
async fn opens_are_refused_as_asked_for_and_then_no_more() {
    let simulator = start(quiet()).await;
    simulator.fault(fault("status=529 retry-after=30 count=2"));
    simulator.fault(fault("status=503 retry-after=date+90"));
    simulator.fault(fault("status=401"));
    simulator.fault(fault("redirect=http://127.0.0.1:9/elsewhere"));
    simulator.fault(fault("html"));
    assert_eq!(simulator.state().faults_pending.len(), 5);
    for (status, retry_after) in [
        (529, Some("30")),
        (529, Some("30")),
        (503, Some("Mon, 04 May 2026 09:01:31 GMT")),
        (401, None),
    ] {
        let mut client = Client::open(&simulator, MINE).await;
        assert_eq!((client.status(), client.header("retry-after")), (status, retry_after));
        assert!(client.json().await["error"].is_string());
    }
    let redirect = Client::open(&simulator, MINE).await;
    assert_eq!(
        (redirect.status(), redirect.header("location")),
        (302, Some("http://127.0.0.1:9/elsewhere"))
    );
    let mut portal = Client::open(&simulator, MINE).await;
    assert_eq!(
        (portal.status(), portal.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    assert!(portal.text().await.contains("Sign in"));
    let healthy = Client::open(&simulator, MINE).await;
    assert_eq!(healthy.header("content-type"), Some("text/event-stream"));
    assert_eq!((simulator.state().opens_total, simulator.state().streams_opened), (7, 1));
    for status in REFUSAL_STATUSES {
        simulator.fault(fault(&format!("status={status}")));
        assert_eq!(Client::open(&simulator, MINE).await.status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hang_never_answers() {
    let simulator = start(quiet()).await;
    simulator.fault(FaultKind::Hang { count: 1 });
    let mut client =
        Client::send(&simulator, &format!("GET {MINE} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    simulator.opens(1).await;
    assert!(
        timeout(Duration::from_secs(600), client.socket.read_buf(&mut client.raw)).await.is_err()
    );
    assert_eq!(simulator.state().opens[0].status, None);
    assert_eq!(Client::open(&simulator, MINE).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_drip_takes_its_time() {
    let simulator = start(quiet()).await;
    let mut client = Client::open(&simulator, MINE).await;
    client.body_of(5).await;
    simulator.fault(fault("drip bytes=1 every=1s"));
    simulator.publish_line("a", "{}");
    let since = Instant::now();
    // "event: a\ndata: {}\n\n" has 19 bytes: one at once, 18 after a second each.
    assert!(client.body_with("\ndata: {}\n\n").await.ends_with("event: a\ndata: {}\n\n"));
    assert!(client.chunks[1..].iter().all(|size| *size == 1));
    assert!((17.9..18.2).contains(&since.elapsed().as_secs_f64()), "{:?}", since.elapsed());
}

#[tokio::test]
async fn duplicates_bursts_long_lines_and_any_bytes() {
    let simulator = start(quiet()).await;
    let mut client = Client::open(&simulator, MINE).await;
    simulator.fault(fault("duplicate count=2"));
    for name in ["one", "two", "three"] {
        simulator.publish(name, Some("x"));
    }
    let body = client.body_with("three").await;
    let count = |name: &str| body.matches(&format!("event: {name}\n")).count();
    assert_eq!((count("one"), count("two"), count("three")), (2, 2, 1));

    simulator.fault(fault("burst count=1000"));
    assert_eq!(simulator.state().events_published, 1_003);

    simulator.fault(fault("oversize bytes=1048577"));
    simulator.fault(fault(r"raw=event:\x20nul\0\xff\r\rdata: no json\r\n\n"));
    simulator.fault(FaultKind::Cut);
    assert_eq!(client.end().await, Ended::Clean);
    let longest = client.body.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
    assert_eq!(longest, Some(1_048_577));
    assert!(client.body.ends_with(b"event: nul\0\xff\r\rdata: no json\r\n\n"));
}

#[tokio::test]
async fn faults_come_over_http_too() {
    let simulator = start(quiet()).await;
    let mut answer = post(
        &simulator,
        "/sim/faults",
        "text/plain",
        "stall after=30s for=60s\ncut mid-event every=2m\n",
    )
    .await;
    assert_eq!(answer.status(), 200);
    let texts = json!(["after=30s stall for=60s", "every=120s cut mid-event"]);
    assert_eq!(answer.json().await["faults"], texts);
    assert_eq!(Client::open(&simulator, "/sim").await.json().await["faults_pending"], texts);
    let mut wrong = post(&simulator, "/sim/faults", "application/json", r#"{"kind":"stal"}"#).await;
    let description = wrong.json().await["error_description"].as_str().unwrap().to_owned();
    assert!(
        wrong.status() == 400
            && description.contains("stal")
            && description.contains("allowed are stall")
    );
    let cleared = Client::send(&simulator, "DELETE /sim/faults HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut cleared = cleared;
    cleared.read_head().await;
    assert_eq!((cleared.status(), simulator.state().faults_pending.len()), (200, 0));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_streams_waits_for_one_and_a_repeated_one_returns() {
    let simulator = start(Config { faults: vec![fault("cut every=2m")], ..quiet() }).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(simulator.state().faults_fired, 0);
    assert_eq!(Client::open(&simulator, MINE).await.end().await, Ended::Clean);
    let mut second = Client::open(&simulator, MINE).await;
    let since = Instant::now();
    assert_eq!(second.end().await, Ended::Clean);
    assert!((119.0..121.0).contains(&since.elapsed().as_secs_f64()), "{:?}", since.elapsed());
    assert_eq!(simulator.state().faults_fired, 2);
}

#[tokio::test(start_paused = true)]
async fn the_real_clouds_limits_hold_until_they_are_switched_off() {
    let simulator = start(quiet()).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Client::open(&simulator, MINE).await);
    }
    assert_eq!(Client::open(&simulator, MINE).await.status(), 529);
    clients.pop();
    simulator.streams(99).await;
    // A place is free, but the opens of the last 300 s are used up.
    assert_eq!(Client::open(&simulator, MINE).await.status(), 529);
    sleep(Duration::from_secs(301)).await;
    clients.push(Client::open(&simulator, MINE).await);
    assert_eq!(clients.last().unwrap().status(), 200);
    assert_eq!(Client::open(&simulator, MINE).await.status(), 529);

    let simulator = start(Config { limits: false, ..quiet() }).await;
    for _ in 0..120 {
        clients.push(Client::open(&simulator, MINE).await);
    }
    assert!(clients[100..].iter().all(|client| client.status() == 200));
}

#[tokio::test]
async fn a_reader_that_does_not_keep_up_is_reset_and_counted() {
    let simulator = start(quiet()).await;
    let mut idle = Client::open(&simulator, MINE).await;
    idle.body_of(5).await;
    let megabyte = vec![b'\n'; 1024 * 1024];
    for _ in 0..64 {
        simulator.raw(&megabyte);
    }
    assert_eq!((simulator.state().streams_overrun, simulator.state().streams_open), (1, 0));
    assert_eq!(idle.end().await, Ended::Reset);
}
