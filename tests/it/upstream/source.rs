//! Source `sse`: any event stream is read, and resumed where it ended.

use std::time::Duration;

use super::{Scene, Seen, live};
use crate::harness::{Stream, Stub, broker_with, quiet_cloud, subscribers};

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
        .send("\u{feff}retry: 50\r\nid: a-1\r\nevent: x\r\ndata: one\r\n\r\nid: a-2\rdata: {\"n\":2}\r\r")
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
