//! What is asked of every request before a route is: the name it is meant for, and the page it
//! comes from.

use crate::{
    description::routed,
    harness::{answer_in, broker, quiet_cloud, raw_until_closed},
};

/// One request for each route and method, from the router's own source, so that a new route
/// cannot be forgotten; and some that no route has.
fn every_request() -> Vec<(&'static str, String)> {
    let named = routed().into_iter().map(|path| match path.as_str() {
        "/v1/{path}" => "/v1/devices/events".to_owned(),
        path => path.replace("{name}", "main.js"),
    });
    let paths: Vec<String> =
        named.chain(["//v1/devices/events", "/nothing", "/"].map(str::to_owned)).collect();
    assert!(paths.len() > 14, "{paths:?}");
    let methods = ["GET", "HEAD", "POST", "OPTIONS", "BREW"];
    paths.iter().flat_map(|path| methods.map(|method| (method, path.clone()))).collect()
}

/// Status and body of a request with these header lines, each with its line end.
async fn asked(
    addr: std::net::SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
) -> (u16, String, String) {
    let text = format!("{method} {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    let answer = raw_until_closed(addr, text.as_bytes()).await;
    let (head, body) = answer_in(answer.as_bytes());
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn no_route_answers_to_the_name_of_a_stranger() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--publish-enabled=true", "--particle-cors=true"]).await;
    let handshake = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAccept: text/event-stream\r\n";
    for (method, path) in every_request() {
        let absolute = format!("http://evil.example{path}");
        for (target, headers, status, error) in [
            (&path, "Host: evil.example:8080\r\n", 421, "unknown_host"),
            (&absolute, "Host: localhost\r\n", 421, "unknown_host"),
            (&path, "Host: localhost\r\nHost: localhost\r\n", 400, "invalid_host"),
            (&path, "Host: evil.example/localhost\r\n", 400, "invalid_host"),
        ] {
            let headers = format!("{headers}{handshake}Origin: http://evil.example:8080\r\n");
            let (answered, head, body) = asked(broker.addr(), method, target, &headers).await;
            assert_eq!(answered, status, "{method} {target}: {head}{body}");
            assert!(!head.contains("access-control-"), "{head}");
            assert!(head.contains("x-content-type-options: nosniff"), "{head}");
            if method != "HEAD" {
                let body: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert_eq!(body["error"], error);
            }
        }
    }
    assert_eq!(broker.hub().subscribers(), 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_refused_name_is_told_with_the_remedy() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--server-hosts=a.example", "--server-hosts=*.b.example"]).await;
    let status = async |host: &str| {
        asked(broker.addr(), "GET", "/healthz", &format!("Host: {host}\r\n")).await.0
    };
    for host in ["A.example:99", "x.b.example", "127.0.0.1", "[::1]:80", "broker", "x.localhost"] {
        assert_eq!(status(host).await, 200, "{host}");
    }
    for host in ["b.example", "x.y.b.example", "example"] {
        let expected = if host.contains('.') { 421 } else { 200 };
        assert_eq!(status(host).await, expected, "{host}");
    }
    let (_, _, body) = asked(broker.addr(), "GET", "/", "Host: evil.example\r\n").await;
    assert!(body.contains("evil.example") && body.contains("server.hosts"), "{body}");
    let long = format!("Host: {}.example\r\n", "a".repeat(200));
    let (_, _, body) = asked(broker.addr(), "GET", "/", &long).await;
    assert!(body.len() < 400, "{body}");
    // Programs of old name none.
    let answer = raw_until_closed(broker.addr(), b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    let answer =
        raw_until_closed(broker.addr(), b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    broker.shutdown().await;
}
