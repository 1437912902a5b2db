//! How a WebSocket ends.

use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::harness::{WebSocket, broker, quiet_cloud, subscribers};

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
