//! The token goes to the configured server, in one header, and nowhere else.

use fanlight::model::UpstreamState;

use super::detail;
use crate::harness::{Process, Stream, Stub, broker_with, folder, get, quiet_cloud};

#[tokio::test]
async fn redirects_are_followed_at_home_and_nowhere_else() {
    let (stub, elsewhere) = (Stub::listen().await, quiet_cloud().await);
    let url = format!("--upstream-url={}", stub.url("/api"));
    let broker = broker_with(&[&url, "--upstream-token=canary-not-a-real-token"], |_| {}).await;
    let bearer = Some("Bearer canary-not-a-real-token");
    let asked = stub.asked().await;
    assert_eq!((asked.path(), asked.header("authorization")), ("/api/v1/devices/events", bearer));
    asked.answer("307 Temporary Redirect", "Location: /moved?x=1\r\n", "").await;
    let asked = stub.asked().await;
    assert_eq!((asked.path(), asked.header("authorization")), ("/moved?x=1", bearer));
    let location = format!("Location: {}/v1/devices/events\r\n", elsewhere.url());
    asked.answer("302 Found", &location, "").await;
    detail(&broker, "is not followed so that the token stays here").await;
    assert_eq!(broker.hub().upstream_state(), UpstreamState::Misconfigured);
    assert_eq!(elsewhere.state().opens_total, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn the_token_is_shown_nowhere() {
    const CANARY: &str = "canary1-0123456789abcdef-not-a-real-token";
    const SECOND: &str = "canary2-0123456789abcdef-not-a-real-token";
    let folder = folder("upstream-secret");
    let file = folder.join("token");
    std::fs::write(&file, CANARY).unwrap();
    let stub = Stub::listen().await;
    let state = format!("--state-dir={}", folder.display());
    let token = format!("--upstream-token-file={}", file.display());
    let flags = [state.as_str(), &token, "--trace-level=trace", "--upstream-backoff-min=100ms"];
    let (mut process, addr) = Process::serve(&stub.url(""), &flags).await;
    let mut shown: Vec<String> = Vec::new();
    let (mut stream, _) = Stream::live(addr, "/events").await;
    // A server that repeats the token wherever it can.
    let asked = stub.asked().await;
    assert_eq!(asked.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    let body =
        format!(r#"{{"error":"{CANARY}","error_description":"bad {CANARY}","info":"{CANARY}"}}"#);
    asked.answer("401 Unauthorized", &format!("X: {CANARY}\r\n"), &body).await;
    let elsewhere = format!("Location: http://{CANARY}:1/?access_token={CANARY}\r\n");
    stub.asked().await.answer("302 Found", &elsewhere, CANARY).await;
    // That is a matter of configuration; another token is reason enough to try again.
    while stream.next().await.json()["state"] != "misconfigured" {}
    for path in ["/status", "/metrics", "/readyz", "/healthz", "/last", "/poll?since=earliest"] {
        shown.push(get(addr, path, &[]).await.body);
    }
    std::fs::write(&file, SECOND).unwrap();
    let asked = stub.asked().await;
    assert_eq!(asked.header("authorization"), Some(format!("Bearer {SECOND}").as_str()));
    asked.answer("200 OK", &format!("Content-Type: text/{SECOND}\r\n"), SECOND).await;
    let encoded = format!("Content-Type: text/event-stream\r\nContent-Encoding: {SECOND}\r\n");
    stub.asked().await.answer("200 OK", &encoded, SECOND).await;
    let mut asked = stub.asked().await;
    asked.stream().await;
    asked.send("event: a\ndata: 1\n\n").await;
    while stream.next().await.json()["name"] != "a" {}
    for path in
        ["/status", "/metrics", "/readyz", "/events?x=1", "/nothing", "/poll?since=earliest"]
    {
        shown.push(get(addr, path, &[]).await.body);
    }
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    shown.push(String::from_utf8(stream.body.clone()).unwrap());
    let trace = process.trace.join("\n");
    assert!(trace.contains("\"TRACE\""), "of libraries too");
    assert!(trace.contains("answered 401 (bad ***: ***)"), "the server's words, masked");
    for text in shown.iter().chain([&trace]) {
        let at =
            text.find("canary").map(|at| &text[at.saturating_sub(200)..(at + 50).min(text.len())]);
        assert_eq!(at, None);
    }
}
