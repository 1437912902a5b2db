//! Webhooks as a second way in: who may post, what is understood, and that an event which comes
//! both ways is passed on once.

use std::net::SocketAddr;

use fanlight::simulator::Simulator;
use serde_json::json;

use crate::harness::{
    Answer, Stream, answer_in, broker, eventually, folder, get, metric, quiet_cloud,
    raw_until_closed, seeded,
};

const SECRET: &str = "--ingest-secret=not-a-real-secret";
const BEARER: (&str, &str) = ("Authorization", "Bearer not-a-real-secret");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

async fn post(addr: SocketAddr, query: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut text = format!("POST /ingest/particle{query} HTTP/1.1\r\nHost: broker\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = raw_until_closed(addr, text.as_bytes()).await;
    let (head, body) = answer_in(answer.as_bytes());
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no head: {answer:?}"));
    Answer { status, head, body: String::from_utf8(body).unwrap() }
}

/// The `number`th event: its line on the stream, and as a form and as JSON by webhook.
fn event(number: usize) -> (String, String, String) {
    let at = format!("2026-05-04T09:{:02}:{:02}.104Z", number / 60 % 60, number % 60);
    let line = format!(
        r#"{{"data":"{number}","ttl":60,"published_at":"{at}","coreid":"e00fce680000000000000001"}}"#
    );
    let form = format!(
        "event=n&data={number}&published_at={}&coreid=e00fce680000000000000001",
        at.replace(':', "%3A")
    );
    let json = json!({
        "event": "n", "data": number.to_string(), "published_at": at,
        "coreid": "e00fce680000000000000001",
    });
    (line, form, json.to_string())
}

async fn outcome(addr: SocketAddr, outcome: &str) -> f64 {
    metric(addr, &format!("fanlight_webhooks_total{{outcome=\"{outcome}\"}}")).await
}

#[tokio::test]
async fn each_form_of_a_webhook_is_the_event_that_the_stream_would_have_brought() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[SECRET]).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events?format=particle").await;
    let (_, form, json) = event(7);
    let with_secret = format!("?secret=not-a-real-secret&{}", event(9).1);
    let own = ("X-Webhook-Secret", "not-a-real-secret");
    let basic = ("Authorization", "Basic cGFydGljbGU6bm90LWEtcmVhbC1zZWNyZXQ=");
    let answers = [
        post(broker.addr(), "", &[BEARER, FORM], &form).await,
        post(broker.addr(), "", &[own, JSON], &event(8).2).await,
        post(broker.addr(), &with_secret, &[], "").await,
        post(broker.addr(), "", &[basic, JSON], &event(10).2).await,
    ];
    for (answer, number) in answers.into_iter().zip(7..) {
        assert_eq!((answer.status, answer.json()), (200, json!({ "ok": true, "copy": false })));
        let heard = stream.next().await;
        let expected = event(number).0.replace(r#""ttl":60,"#, "");
        assert_eq!((heard.kind.as_str(), heard.data), ("n", expected));
    }
    // The first one again, in another form.
    let again = post(broker.addr(), "", &[BEARER, JSON], &json).await;
    assert!(again.status == 200, "a twin within 2 s, or a copy after: {again:?}");
    assert_eq!(
        outcome(broker.addr(), "accepted").await + outcome(broker.addr(), "copy").await,
        5.0
    );
    broker.shutdown().await;
}

#[tokio::test]
async fn nobody_posts_without_the_secret() {
    let cloud = quiet_cloud().await;
    let off = broker(&cloud, &[]).await;
    let (_, form, _) = event(1);
    let answer = post(off.addr(), "", &[BEARER, FORM], &form).await;
    assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("ingest_off")));
    assert!(answer.body.contains("ingest.secret_file"), "{answer:?}");
    off.shutdown().await;
    let broker = broker(&cloud, &[SECRET]).await;
    let tail = broker.hub().status().tail;
    for headers in [
        vec![FORM],
        vec![FORM, ("Authorization", "Bearer not-a-real-secre")],
        vec![FORM, ("Authorization", "not-a-real-secret")],
        vec![FORM, ("X-Webhook-Secret", "")],
    ] {
        let answer = post(broker.addr(), "", &headers, &form).await;
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("invalid_secret")));
        assert_eq!(answer.header("www-authenticate"), Some("bearer"));
    }
    assert_eq!(outcome(broker.addr(), "unauthorized").await, 4.0);
    assert_eq!(broker.hub().status().tail, tail);
    let status = get(broker.addr(), "/status", &[]).await;
    assert_eq!(status.json()["ingest"]["enabled"], true);
    let metrics = get(broker.addr(), "/metrics", &[]).await;
    assert!(!status.body.contains("not-a-real") && !metrics.body.contains("not-a-real"));
    broker.shutdown().await;
}

#[tokio::test]
async fn the_secret_file_is_read_again() {
    let folder = folder("ingest-secret");
    let path = folder.join("secret");
    std::fs::write(&path, "not-a-real-first\n").unwrap();
    let flag = format!("--ingest-secret-file={}", path.display());
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[&flag]).await;
    let asks = async |secret: &str, number| {
        let header = format!("Bearer {secret}");
        post(broker.addr(), "", &[("Authorization", &header), FORM], &event(number).1).await.status
    };
    assert_eq!(asks("not-a-real-first", 1).await, 200);
    assert_eq!(asks("not-a-real-second", 2).await, 401);
    std::fs::write(&path, "not-a-real-second").unwrap();
    eventually("the new secret holds", async || {
        (asks("not-a-real-second", 2).await == 200).then_some(())
    })
    .await;
    assert_eq!(asks("not-a-real-first", 3).await, 401);
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_no_webhook_is_refused_with_the_remedy() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[SECRET]).await;
    for (kind, body, expected) in [
        (JSON, r#"{"event":"a","data":"1"}"#.to_owned(), "published_at"),
        (JSON, "{".to_owned(), "neither a JSON object nor a form"),
        (("Content-Type", "text/xml"), "<a/>".to_owned(), "content type"),
        (FORM, String::new(), "`event` is missing"),
        (JSON, event(1).2.replace("\"n\"", "\"fanlight.gap\""), "reserved"),
    ] {
        let answer = post(broker.addr(), "", &[BEARER, kind], &body).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")));
        assert!(answer.body.contains(expected), "{answer:?}");
    }
    let long = format!(r#"{{"event":"a","data":"{}"}}"#, "x".repeat(160 << 10));
    assert_eq!(post(broker.addr(), "", &[BEARER, JSON], &long).await.status, 413);
    assert_eq!(outcome(broker.addr(), "invalid").await, 6.0);
    broker.shutdown().await;
}

/// The data of the events that come before the one of this name.
async fn numbers_until(name: &str, stream: &mut Stream) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        let event = stream.next().await;
        if event.kind.starts_with("fanlight.") {
            continue;
        }
        let event = event.json();
        if event["name"] == name {
            return numbers;
        }
        numbers.push(event["data"].as_str().unwrap().parse().unwrap());
    }
}

/// Each event by the stream, by webhook, or by both in either order; by webhook also when there is
/// no stream. Whatever the way, it is passed on once.
#[tokio::test]
async fn what_comes_both_ways_is_passed_on_once_and_what_the_stream_missed_arrives() {
    const EVENTS: usize = 300;
    let mut random = seeded();
    let mut cloud: Simulator = quiet_cloud().await;
    let broker = broker(&cloud, &[SECRET]).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
    let (mut missed, mut heard) = (0, Vec::new());
    for number in 0..EVENTS {
        let (line, form, json) = event(number);
        let way = random.u8(0..4);
        let mut by_webhook = async |is_copy: Option<bool>| {
            let (kind, body) = if random.bool() { (FORM, &form) } else { (JSON, &json) };
            let answer = post(broker.addr(), "", &[BEARER, kind], body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            if let Some(is_copy) = is_copy {
                assert_eq!(answer.json()["copy"], is_copy, "{number}");
            }
        };
        match way {
            0 => {
                missed += 1;
                by_webhook(Some(false)).await;
            }
            1 => cloud.publish_line("n", &line),
            2 => {
                by_webhook(Some(false)).await;
                cloud.publish_line("n", &line);
            }
            _ => {
                cloud.publish_line("n", &line);
                by_webhook(None).await;
            }
        }
        if number == EVENTS / 2 {
            // The stream is gone, after all that it brought is there; what comes by webhook
            // meanwhile is passed on.
            cloud.publish("middle", None);
            heard.extend(numbers_until("middle", &mut stream).await);
            cloud.stop().await;
            let (_, form, _) = event(EVENTS);
            let answer = post(broker.addr(), "", &[BEARER, FORM], &form).await;
            assert_eq!((answer.status, &answer.json()["copy"]), (200, &json!(false)));
            cloud = Simulator::start(fanlight::simulator::Config {
                listen: cloud.addr(),
                events_per_second: 0.0,
                limits: false,
                ..fanlight::simulator::Config::default()
            })
            .await
            .unwrap();
            cloud.streams(1).await;
        }
    }
    println!("{missed} of {EVENTS} by webhook alone");
    cloud.publish("end", None);
    heard.extend(numbers_until("end", &mut stream).await);
    heard.sort_unstable();
    assert_eq!(heard, (0..=EVENTS).collect::<Vec<_>>());
    broker.shutdown().await;
}
