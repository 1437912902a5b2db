//! What a broker really sends, held against what the documents promise. Objects may have
//! the fields that are described and no others.

use std::collections::BTreeSet;

use fanlight::{
    server::Broker,
    simulator::{Fault, Simulator},
};
use serde_json::Value;

use crate::harness::{
    Stream, WebSocket, ask, broker, events_in, get, publish, publish_line, publish_many,
    quiet_cloud, until,
};

use super::documents::Documents;

/// A broker that has seen all that there is to see: its ring holds a hole, an event too
/// large to keep, and data of every form; a client can miss something.
async fn eventful() -> (Simulator, Broker) {
    let cloud = quiet_cloud().await;
    let flags = ["--upstream-line-bytes-max=1KiB", "--ring-events-max=16"];
    let broker = broker(&cloud, &flags).await;
    publish_many(&cloud, &broker, "old", 20).await;
    cloud.fault("cut".parse::<Fault>().unwrap());
    until("live again", || {
        let history = broker.hub().status().upstream_history;
        let lives = history.iter().filter(|change| change.state.as_str() == "live").count();
        (lives == 2).then_some(())
    })
    .await;
    cloud.streams(1).await;
    publish(&cloud, &broker, "big", &"x".repeat(2_000)).await;
    publish(&cloud, &broker, "door/state", "open").await;
    for json in [
        "just text",
        r#"{"id":1,"data":"its own id"}"#,
        r#"{"data":null,"coreid":"d1"}"#,
        r#"{"data":{"t":21.5},"ttl":"60","more":[1,2]}"#,
    ] {
        publish_line(&cloud, &broker, "odd", json).await;
    }
    (cloud, broker)
}

fn first_position(broker: &Broker) -> String {
    format!("{}-1", broker.hub().status().epoch)
}

const EVERYTHING: [&str; 7] = ["Bye", "Checkpoint", "Event", "Gap", "Hello", "Hole", "Upstream"];

#[tokio::test]
async fn every_object_of_every_stream_is_as_described() {
    let (_cloud, broker) = eventful().await;
    let addr = broker.addr();
    let documents = Documents::of(&broker).await;
    let query = format!("snapshot=true&last_event_id={}", first_position(&broker));
    let mut sse = Stream::open(addr, &format!("/events?{query}"), &[]).await;
    let accept = [("Accept", "application/x-ndjson")];
    let mut ndjson = Stream::open(addr, &format!("/events?{query}"), &accept).await;
    let mut websocket = WebSocket::open(addr, &format!("/ws?{query}")).await;
    // Asked for before the broker ends: the newest record is on its way by then.
    let shutdown = tokio::spawn(broker.shutdown());

    let mut seen = BTreeSet::new();
    for event in sse.rest().await {
        seen.insert(documents.assert_sse(&event.kind, &event.json()));
    }
    let expected: BTreeSet<String> = EVERYTHING
        .iter()
        .map(|name| match *name {
            "Event" => "EventMessage".to_owned(),
            name => format!("{name}Data"),
        })
        .collect();
    assert_eq!(seen, expected);

    let mut seen = BTreeSet::new();
    while let Some(line) = ndjson.line().await {
        if !line.is_empty() {
            seen.insert(documents.assert_object(&serde_json::from_str(&line).unwrap()));
        }
    }
    let everything: BTreeSet<String> = EVERYTHING.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(seen, everything);

    let mut seen = BTreeSet::new();
    while !seen.contains("Bye") {
        seen.insert(documents.assert_object(&websocket.next().await));
    }
    assert_eq!(seen, everything);
    websocket.drained().await;
    shutdown.await.unwrap();
}

#[tokio::test]
async fn every_answer_is_as_described() {
    let (cloud, broker) = eventful().await;
    let addr = broker.addr();
    let documents = Documents::of(&broker).await;
    let (_stream, _) = Stream::live(addr, "/events").await;

    let poll = get(addr, "/poll?since=earliest&timeout=0", &[]).await.json();
    documents.assert_valid("PollAnswer", &poll);
    let forms: BTreeSet<String> =
        poll["events"].as_array().unwrap().iter().map(|one| documents.assert_object(one)).collect();
    assert_eq!(forms.into_iter().collect::<Vec<_>>(), ["Event", "Gap", "Hole", "Upstream"]);
    let missed = format!("/poll?after={}&timeout=0", first_position(&broker));
    let missed = get(addr, &missed, &[]).await.json();
    documents.assert_valid("PollAnswer", &missed);
    assert_eq!(missed["gap"]["reason"], "evicted");
    let nothing = format!("/poll?after={}&timeout=0", poll["next"].as_str().unwrap());
    documents.assert_valid("PollAnswer", &get(addr, &nothing, &[]).await.json());

    let last = get(addr, "/last", &[]).await.json();
    documents.assert_valid("LastAnswer", &last);
    assert!(last.as_array().unwrap().len() > 2, "{last}");
    documents.assert_valid("Status", &get(addr, "/status", &[]).await.json());
    documents.assert_valid("Health", &get(addr, "/healthz", &[]).await.json());
    documents.assert_valid("Readiness", &get(addr, "/readyz", &[]).await.json());
    drop(cloud);
}

#[tokio::test]
async fn the_content_types_are_the_ones_described() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let documents = Documents::of(&broker).await;
    let all = super::operations(&documents.openapi);
    for (path, operation) in all.filter(|(path, _)| !path.contains('{')) {
        let Some(content) = operation["responses"]["200"].get("content") else { continue };
        for kind in content.as_object().unwrap().keys() {
            let answer = ask(broker.addr(), "HEAD", path, &[("Accept", kind)]).await;
            assert_eq!(answer.status, 200, "{path}");
            let found = answer.header("content-type").unwrap();
            let is_same = found == kind || found == format!("{kind}; charset=utf-8");
            assert!(is_same, "{path}: {found}, not {kind}");
        }
    }
}

#[tokio::test]
async fn the_examples_that_only_a_session_can_make_are_like_the_real_ones() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    let documents = Documents::of(&broker).await;
    publish_many(&cloud, &broker, "a", 20).await;
    let path = format!("/events?last_event_id={}", first_position(&broker));
    let mut stream = Stream::open(broker.addr(), &path, &[]).await;
    let real = [stream.next().await, stream.next().await];
    broker.shutdown().await;
    let bye = stream.rest().await.pop().unwrap();
    let operation = &documents.openapi["paths"]["/events"]["get"]["responses"]["200"];
    let shown = &operation["content"]["text/event-stream"]["examples"];
    let gap = events_in(shown["gap"]["value"].as_str().unwrap().as_bytes());
    let messages = &documents.asyncapi["components"]["messages"];
    let shown_bye = &messages["sse.bye"]["examples"][0];
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for (real, shown) in real.iter().zip(&gap) {
        assert_eq!(real.kind, shown.kind);
        assert_eq!(fields(&real.json()), fields(&shown.json()));
    }
    assert_eq!(fields(&bye.json()), fields(&shown_bye["payload"]));
}
