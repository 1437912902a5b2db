//! How a WebSocket ends.

use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::harness::{WebSocket, broker, get, quiet_cloud, subscribers, until};

#[tokio::test]
async fn a_client_that_closes_gets_its_answer() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let mut ws = WebSocket::open(broker.addr(), "/ws").await;
    ws.next().await;
    let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    ws.send(Message::Close(Some(frame))).await;
    assert_eq!(ws.closed().await.0, 1000);
    subscribers(&broker, 0).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_gone_and_broke_no_protocol() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let mut ws = WebSocket::open(broker.addr(), "/ws").await;
    ws.next().await;
    drop(ws);
    until("it is noticed", || (broker.hub().subscribers() == 0).then_some(())).await;
    let metrics = get(broker.addr(), "/metrics", &[]).await.body;
    assert!(metrics.contains("fanlight_subscribers_closed_total{reason=\"gone\"} 1"), "{metrics}");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_flood_of_filters_is_ended() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let mut ws = WebSocket::open(broker.addr(), "/ws").await;
    ws.next().await;
    for _ in 0..150 {
        ws.send(Message::Text(r#"{"subscribe":{}}"#.into())).await;
        assert_eq!(ws.next().await["fanlight"], "hello");
    }
    for _ in 0..100 {
        ws.send(Message::Text(r#"{"subscribe":{}}"#.into())).await;
    }
    let (code, reason) = loop {
        if let Message::Close(Some(frame)) = ws.message().await {
            break (u16::from(frame.code), frame.reason.to_string());
        }
    };
    assert_eq!((code, reason.as_str()), (1008, "too many messages"));
    broker.shutdown().await;
}
