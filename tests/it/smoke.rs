//! One event, from the cloud to every kind of subscriber.

use crate::harness::{Stream, WebSocket, broker, get, publish, quiet_cloud};

#[tokio::test]
async fn one_event_reaches_every_transport() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let (mut sse, hello) = Stream::live(broker.addr(), "/events").await;
    assert_eq!(hello.json()["upstream"], "live");
    let mut ws = WebSocket::open(broker.addr(), "/ws").await;
    assert_eq!(ws.next().await["fanlight"], "hello");
    let seq = publish(&cloud, &broker, "greenhouse/temp", "21.5").await;
    let event = sse.next().await;
    assert_eq!((event.kind.as_str(), event.seq()), ("message", seq));
    assert_eq!(event.json()["name"], "greenhouse/temp");
    assert_eq!(event.json()["data"], "21.5");
    let message = ws.next().await;
    assert_eq!((&message["id"], &message["data"]), (&event.id.clone().into(), &"21.5".into()));
    let after = hello.id;
    let poll = get(broker.addr(), &format!("/poll?after={after}"), &[]).await;
    assert_eq!(poll.json()["events"][0], message);
    assert_eq!(poll.json()["next"], event.id);
    assert_eq!(get(broker.addr(), "/last", &[]).await.json()[0], message);
    broker.shutdown().await;
}
