//! Requests that are none, and requests that are odd. What becomes of each is what the client
//! gets: a status, or the end of the connection.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Scene;
use crate::harness::{broker, get, quiet_cloud, raw, raw_until_closed};

#[tokio::test]
async fn requests_that_are_none_are_refused_and_closed() {
    let mut scene = Scene::new().await;
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let get = |target: &str, rest: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{rest}\r\n");
    let h2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let tls = "\x16\x03\x01\0\u{7f}\x01\0\0\x7b\x03\x03";
    let cases: [(&str, String, Option<u16>); 18] = [
        ("garbage", "\0\x01\x02garbage\r\n\r\n".to_owned(), Some(400)),
        ("TLS", format!("{tls}{}", "x".repeat(100)), Some(400)),
        ("HTTP/2", h2.to_owned(), None),
        ("HTTP/0.9", "GET /healthz\r\n\r\n".to_owned(), Some(400)),
        ("HTTP/3.7", "GET /healthz HTTP/3.7\r\n\r\n".to_owned(), Some(400)),
        ("NUL in the path", get("/hea\0lthz", ""), Some(400)),
        ("a space in the path", get("/events /x", ""), Some(400)),
        ("a folded header", get("/healthz", "A: b\r\n c\r\n"), Some(400)),
        ("a header without a name", get("/healthz", ": b\r\n"), Some(400)),
        ("two lengths", get("/healthz", "Content-Length: 5\r\nContent-Length: 6\r\n"), Some(400)),
        ("a length below zero", get("/healthz", "Content-Length: -1\r\n"), Some(400)),
        ("an unknown encoding", get("/healthz", "Transfer-Encoding: xchunked\r\n"), Some(400)),
        ("a space before the colon", get("/healthz", "Transfer-Encoding : chunked\r\n"), Some(400)),
        ("headers without end", format!("GET /healthz HTTP/1.1\r\n{}", many(50_000)), Some(431)),
        ("200 headers", get("/healthz", &many(200)), Some(431)),
        (
            "500 KB of Last-Event-ID",
            get("/events", &format!("Last-Event-ID: {}\r\n", "a".repeat(500_000))),
            Some(431),
        ),
        ("10,000 parameters", get(&format!("/poll?{}", "prefix=a&".repeat(10_000)), ""), Some(431)),
        ("a path of 1 MiB", get(&"/x".repeat(1 << 19), ""), Some(431)),
    ];
    for (what, bytes, status) in cases {
        let answer = raw_until_closed(scene.addr, bytes.as_bytes()).await;
        let expected = status.map_or(String::new(), |status| format!("HTTP/1.1 {status} "));
        assert!(answer.starts_with(&expected), "{what}: {answer}");
        match status {
            // These are hyper's own, without a body, and tell the client not to go on.
            Some(_) => assert!(
                answer.contains("connection: close\r\ncontent-length: 0"),
                "{what}: {answer}"
            ),
            None => assert_eq!(answer, "", "{what}"),
        }
        scene.lives(what).await;
    }
    scene.unharmed().await;
}

#[tokio::test]
async fn odd_requests_are_answered_in_good_order() {
    let mut scene = Scene::new().await;
    let cases = [
        ("GET /poll?timeout=0&prefix=%zz%&name=%ff%fe HTTP/1.1", "", 200, r#"{"events":[]"#),
        ("GET /poll?timeout=0&&&&=& HTTP/1.1", "", 400, "unknown parameter ``"),
        ("GET /poll?%zz%=1 HTTP/1.1", "", 400, "unknown parameter `%zz%`"),
        ("GET /poll?timeout=0%00 HTTP/1.1", "", 400, "`timeout` is `0\\u0000`"),
        (
            "GET /poll?timeout=0 HTTP/1.1",
            "Last-Event-ID: \u{80}\u{1f9ea}\r\n",
            200,
            r#""reason":"malformed""#,
        ),
        ("GET http://other:99/healthz HTTP/1.1", "", 200, r#"{"status":"ok"}"#),
        ("GET http://other.example:99/healthz HTTP/1.1", "", 421, "unknown_host"),
        ("GET /healthz HTTP/1.0", "", 200, r#"{"status":"ok"}"#),
        ("GET /healthz HTTP/1.1", "Content-Length: 0\r\n", 200, r#"{"status":"ok"}"#),
        ("GET /healthz HTTP/1.1", "Content-Length: 5\r\n", 413, "unwanted_body"),
        ("GET /events HTTP/1.1", "Content-Length: 999999999\r\n", 413, "unwanted_body"),
        ("GET /healthz HTTP/1.1", "Transfer-Encoding: chunked\r\n", 413, "unwanted_body"),
        (
            "GET /healthz HTTP/1.1",
            "Expect: 100-continue\r\nContent-Length: 5\r\n",
            413,
            "unwanted_body",
        ),
        ("GET //healthz HTTP/1.1", "", 404, "not_found"),
        ("GET /hea%00lthz HTTP/1.1", "", 404, "not_found"),
        ("GET /app/a%00.js HTTP/1.1", "", 404, "not_found"),
        ("GET /app/a%ff.js HTTP/1.1", "", 404, "not_found"),
        ("GET /../../etc/passwd HTTP/1.1", "", 404, "not_found"),
        ("CONNECT other:443 HTTP/1.1", "", 404, "nothing at other:443;"),
        ("OPTIONS * HTTP/1.1", "", 404, "not_found"),
        ("BREW /events HTTP/1.1", "", 405, "BREW is not allowed here; use GET"),
        ("POST /events HTTP/1.1", "Content-Length: 999999999\r\n", 405, "method_not_allowed"),
        ("GET /ws HTTP/1.1", "", 426, "upgrade_required"),
        (
            "GET /ws HTTP/1.1",
            "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 7\r\n",
            426,
            "upgrade_required",
        ),
    ];
    for (line, headers, status, part) in cases {
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n{headers}\r\nhello");
        let answer = raw_until_closed(scene.addr, request.as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{line}: {answer}");
        assert!(answer.contains(part), "{line}: {answer}");
        if status >= 400 {
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert!(body["error"].is_string() && body["error_description"].is_string(), "{body}");
        }
        scene.lives(line).await;
    }
    // As many parameters as fit into a head.
    for (parameter, count, status) in
        [("&", 10_000, 200), ("&name=a", 2_000, 400), ("&x", 5_000, 400)]
    {
        let answer =
            get(scene.addr, &format!("/poll?timeout=0{}", parameter.repeat(count)), &[]).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    scene.unharmed().await;
}

#[tokio::test]
async fn a_request_cannot_be_hidden_in_another() {
    let mut scene = Scene::new().await;
    let hidden = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for (first, second) in [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 5"),
    ] {
        // Whoever in front counted by length would have passed the second on as its body.
        let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{first}\r\n{second}\r\n\r\n");
        let answer =
            raw_until_closed(scene.addr, format!("{head}0\r\n\r\n{hidden}").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(
            answer.contains("\r\nconnection: close\r\n") && !answer.contains("fanlight_"),
            "{answer}"
        );
        scene.lives(first).await;
    }
    scene.unharmed().await;
}

/// Length and encoding in every combination that two machines in a row could read differently. What
/// follows is a request of its own to the one that reads it wrong.
#[tokio::test]
async fn length_and_encoding_cannot_be_read_in_two_ways() {
    let mut scene = Scene::new().await;
    let hidden = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let cases: [(&str, &[&str], &str, u16); 24] = [
        ("1.1", &["Content-Length: 5", "Transfer-Encoding: chunked"], "0\r\n\r\n", 403),
        ("1.1", &["Transfer-Encoding: chunked", "Content-Length: 5"], "0\r\n\r\n", 403),
        ("1.1", &["Content-Length: 0", "Transfer-Encoding: chunked"], "", 403),
        ("1.1", &["Content-Length: 5", "Content-Length: 0"], "", 400),
        ("1.1", &["Content-Length: 0", "Content-Length: 5"], "", 400),
        ("1.1", &["Content-Length: 0, 5"], "", 400),
        ("1.1", &["Content-Length: +0"], "", 400),
        ("1.1", &["Content-Length: -0"], "", 400),
        ("1.1", &["Content-Length: 0x0"], "", 400),
        ("1.1", &["Content-Length: 0 0"], "", 400),
        ("1.1", &["Content-Length: "], "", 400),
        ("1.1", &["Content-Length: 99999999999999999999"], "", 400),
        ("1.1", &["Content-Length : 0"], "", 400),
        ("1.1", &["Transfer-Encoding: identity"], "", 400),
        ("1.1", &["Transfer-Encoding: xchunked"], "", 400),
        ("1.1", &["Transfer-Encoding: chunked, identity"], "", 400),
        ("1.1", &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], "", 400),
        ("1.1", &["Transfer-Encoding: \"chunked\""], "", 400),
        ("1.1", &["Transfer-Encoding : chunked"], "", 400),
        ("1.1", &["Transfer-Encoding:\x0bchunked"], "", 400),
        ("1.1", &["X: y\r\n Transfer-Encoding: chunked"], "", 400),
        ("1.0", &["Transfer-Encoding: chunked"], "0\r\n\r\n", 400),
        ("1.0", &["Content-Length: 5", "Transfer-Encoding: chunked"], "", 400),
        ("1.1", &["Transfer-Encoding: chunked"], "x\r\n\r\n", 403),
    ];
    for (version, lines, body, status) in cases {
        let lines = lines.join("\r\n");
        let head = format!("POST /v1/devices/events HTTP/{version}\r\nHost: x\r\n{lines}\r\n\r\n");
        let answer = raw_until_closed(scene.addr, format!("{head}{body}{hidden}").as_bytes()).await;
        // Publishing is off, so what is read as a request at all is 403.
        let expected = format!("HTTP/{version} {status} ");
        let expected = if status == 400 { "HTTP/1.".to_owned() } else { expected };
        assert!(answer.starts_with(&expected), "{lines:?}: {answer}");
        assert!(answer[9..].starts_with(&status.to_string()), "{lines:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{lines:?}: {answer}");
        assert!(!answer.contains("fanlight_"), "{lines:?}: {answer}");
        scene.lives(&lines).await;
    }
    scene.unharmed().await;
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-header-timeout=500ms"]).await;
    for head in
        [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: and so on and so on and so on"]
    {
        let mut socket = raw(broker.addr(), b"").await;
        let (mut sent, mut answer) = (0, Vec::new());
        let started = tokio::time::Instant::now();
        loop {
            let patience = std::time::Duration::from_millis(50);
            match tokio::time::timeout(patience, socket.read_buf(&mut answer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(_)) => panic!("{answer:?}"),
                // Nothing yet: the next byte.
                Err(_) if sent < head.len() => {
                    let _ = socket.write_all(&head[sent..=sent]).await;
                    sent += 1;
                }
                Err(_) => assert!(started.elapsed().as_secs() < 30, "still open"),
            }
        }
        assert_eq!(answer, b"", "closed without a word");
        assert!(
            sent < head.len() || head.is_empty(),
            "closed before the {} bytes were there",
            head.len()
        );
    }
    assert_eq!(get(broker.addr(), "/healthz", &[]).await.status, 200);
    broker.shutdown().await;
}
