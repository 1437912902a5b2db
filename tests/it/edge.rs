//! What is asked of every request before a route is: the name it is meant for, and the page it
//! comes from.

use crate::{
    description::routed,
    harness::{Stream, answer_in, broker, quiet_cloud, raw, raw_until_closed, read_head},
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

const APP: &str = "https://app.example";
const FOREIGN: [&str; 4] =
    ["https://evil.example", "null", "http://app.example", "https://app.example.evil.example"];

#[tokio::test]
async fn no_route_answers_to_the_page_of_a_stranger() {
    let cloud = quiet_cloud().await;
    let flags = ["--publish-enabled=true", "--server-origins=https://app.example"];
    let broker = broker(&cloud, &flags).await;
    for (method, path) in every_request() {
        for origin in FOREIGN {
            let headers = format!("Host: localhost\r\nOrigin: {origin}\r\n");
            let (status, head, _) = asked(broker.addr(), method, &path, &headers).await;
            assert_eq!(status, 403, "{method} {path}: {head}");
            assert!(!head.contains("access-control-"), "{head}");
        }
        // A frame of that page, for which browsers name no origin.
        let headers = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: iframe\r\n";
        let (status, head, _) = asked(broker.addr(), method, &path, headers).await;
        assert_eq!(status, 403, "{method} {path}: {head}");
    }
    assert_eq!(broker.hub().subscribers(), 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_listed_page_is_answered_by_its_name_on_every_route() {
    let cloud = quiet_cloud().await;
    let flags = [
        "--publish-enabled=true",
        "--ingest-secret=not-a-real-secret",
        "--server-origins=http://localhost:1,https://app.example",
    ];
    let broker = broker(&cloud, &flags).await;
    let marks = [
        format!("access-control-allow-origin: {APP}"),
        "access-control-allow-credentials: true".to_owned(),
        "vary: origin".to_owned(),
    ];
    for (method, path) in every_request() {
        let headers = format!("Host: localhost\r\nOrigin: {APP}\r\n");
        let text = format!("{method} {path} HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n");
        let mut socket = raw(broker.addr(), text.as_bytes()).await;
        let mut bytes = Vec::new();
        let end = read_head(&mut socket, &mut bytes).await;
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        assert!(!head.starts_with("http/1.1 403"), "{method} {path}: {head}");
        for mark in &marks {
            assert!(head.lines().any(|line| line == mark), "{method} {path}: {mark}\n{head}");
        }
        let headers = format!("{headers}Access-Control-Request-Method: POST\r\n");
        let (status, head, body) = asked(broker.addr(), "OPTIONS", &path, &headers).await;
        assert_eq!((status, body.as_str()), (204, ""), "{path}: {head}");
        for mark in marks
            .iter()
            .map(String::as_str)
            .chain(["access-control-allow-methods: get, head, post", "access-control-max-age: 600"])
        {
            assert!(head.lines().any(|line| line == mark), "{path}: {mark}\n{head}");
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_listed_page_reads_opens_websockets_and_publishes() {
    let cloud = quiet_cloud().await;
    let flags = ["--publish-enabled=true", "--server-origins=https://app.example"];
    let broker = broker(&cloud, &flags).await;
    let page = [("Origin", APP)];
    let mut stream = Stream::open(broker.addr(), "/events", &page).await;
    // What is refused for what it is can be read too.
    let wrong = format!("Host: localhost\r\nOrigin: {APP}\r\nContent-Length: 1\r\n");
    let (status, head, _) = asked(broker.addr(), "GET", "/last", &wrong).await;
    assert!(status == 413 && head.contains("access-control-allow-origin"), "{head}");
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nOrigin: {APP}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut socket = raw(broker.addr(), handshake.as_bytes()).await;
    let mut bytes = Vec::new();
    let end = read_head(&mut socket, &mut bytes).await;
    assert!(bytes[..end].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&bytes));
    let form = "name=greeting&data=hello";
    let text = format!(
        "POST /v1/devices/events HTTP/1.1\r\nHost: localhost\r\nOrigin: {APP}\r\n\
         Sec-Fetch-Site: cross-site\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{form}",
        form.len()
    );
    let answer = raw_until_closed(broker.addr(), text.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream.body_holds("greeting").await;
    broker.shutdown().await;
}

#[tokio::test]
async fn browsers_are_told_what_an_answer_is_not_for() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for (method, path) in every_request() {
        let method = if method == "GET" { "HEAD" } else { method };
        let (_, head, _) = asked(broker.addr(), method, &path, "Host: localhost\r\n").await;
        for line in ["x-content-type-options: nosniff", "cross-origin-resource-policy: same-origin"]
        {
            assert_eq!(
                head.lines().filter(|have| *have == line).count(),
                1,
                "{method} {path}: {head}"
            );
        }
    }
    let (_, head, _) = asked(broker.addr(), "GET", "/", "Host: localhost\r\n").await;
    for part in [
        "content-security-policy: default-src 'none'; ",
        "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        "cross-origin-opener-policy: same-origin",
        "referrer-policy: no-referrer",
        "permissions-policy: accelerometer=(), camera=()",
    ] {
        assert!(head.contains(part), "{part}\n{head}");
    }
    broker.shutdown().await;
}
