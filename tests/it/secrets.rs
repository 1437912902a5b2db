//! What nobody is to read afterwards: credentials, wherever they stood in a request, and what was
//! asked for. Everything is traced that can be, and nothing of them is found.

use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::{
    description::routed,
    harness::{Process, answer_in, eventually, get, quiet_cloud, raw, raw_until_closed, within},
};

/// In no other text.
const CANARY: &str = "canary-7f3a-obviously-fake";
/// The broker's own.
const TOKEN: &str = "canary-2b9c-the-brokers-own-fake";

/// Where a program or a browser may have put a secret.
fn requests() -> Vec<String> {
    let query = format!("access_token={CANARY}&prefix={CANARY}");
    let headers = format!(
        "Host: localhost\r\nAuthorization: Bearer {CANARY}\r\nCookie: session={CANARY}\r\n\
         Proxy-Authorization: Basic {CANARY}\r\nReferer: http://localhost/?token={CANARY}\r\n\
         X-Forwarded-For: {CANARY}\r\nUser-Agent: {CANARY}\r\nConnection: close\r\n"
    );
    let handshake = format!(
        "{headers}Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {CANARY}\r\n\
         Sec-WebSocket-Protocol: fanlight.v1, bearer.{CANARY}\r\n"
    );
    let mut requests = Vec::new();
    for path in routed() {
        let path = path.replace("{name}", "main.js").replace("{path}", "devices/events");
        // Only a poll takes a time to wait, and has to be given none.
        let more = if path == "/poll" { "&timeout=0" } else { "" };
        for query in [&query, &format!("prefix={CANARY}{more}"), &format!("limit={CANARY}")] {
            requests.push(format!("GET {path}?{query} HTTP/1.1\r\n{headers}\r\n"));
            requests.push(format!("GET {path}?{query} HTTP/1.1\r\n{handshake}\r\n"));
            requests.push(format!("HEAD http://localhost{path}?{query} HTTP/1.1\r\n{headers}\r\n"));
        }
        let body = format!("name={CANARY}&data={CANARY}&access_token={CANARY}");
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let length = format!("Content-Length: {}\r\n", body.len());
        requests.push(format!("POST {path}?{query} HTTP/1.1\r\n{headers}{form}{length}\r\n{body}"));
    }
    // What is no request at all, and what is for someone else.
    requests.push(format!("GET /events?{query} HTTP/1.1\r\nHost: evil.example\r\n{headers}\r\n"));
    requests.push(format!("GET /events?{query} HTTP/1.1\r\nBroken header {CANARY}\r\n\r\n"));
    requests.push(format!("{CANARY}\r\n\r\n"));
    requests
}

#[tokio::test]
async fn nothing_of_a_secret_is_kept_whatever_is_traced() {
    let cloud = quiet_cloud().await;
    let token = format!("--upstream-token={TOKEN}");
    let flags = [token.as_str(), "--trace-level=trace", "--publish-enabled=true"];
    let (mut process, addr) = Process::serve_live(&cloud.url(), &flags).await;
    for request in requests() {
        // A stream has no end: its head and first block are enough.
        let mut socket = raw(addr, request.as_bytes()).await;
        let mut bytes = Vec::new();
        let is_stream = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            text.starts_with("HTTP/1.1 101")
                || (text.contains("text/event-stream") && text.contains("\r\n\r\n"))
        };
        while !is_stream(&bytes)
            && matches!(within("an answer", socket.read_buf(&mut bytes)).await, Ok(1..))
        {}
        // Nor is a value handed back that was meant as a credential.
        let (_, body) = match bytes.is_empty() {
            true => (String::new(), Vec::new()),
            false => answer_in(&bytes),
        };
        let answer = String::from_utf8_lossy(&body);
        let echoed = answer.contains(CANARY) && request.contains("?access_token=");
        assert!(!echoed && !answer.contains(TOKEN), "{request}\n{answer}");
    }
    let gone = async || {
        let status = get(addr, "/status", &[]).await.json();
        (status["subscribers"]["total"] == 0).then_some(())
    };
    eventually("all have left", gone).await;
    for path in ["/status", "/metrics"] {
        let answer =
            raw_until_closed(addr, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
        assert!(!answer.contains("canary"), "{path}: {answer}");
    }
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    assert!(process.trace.len() > 20, "{:?}", process.trace);
    for line in &process.trace {
        let is_trace = serde_json::from_str::<Value>(line).is_ok();
        assert!(is_trace && !line.contains("canary"), "{line}");
    }
}
