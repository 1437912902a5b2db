//! Publishing through the broker, and `fanlight publish`: what the cloud is asked, and what
//! the client is told.

use std::{net::SocketAddr, process::Stdio};

use fanlight::{server::Broker, simulator};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{
    Answer, Process, Stream, Stub, answer_in, broker, broker_with, cloud, get, metric, quiet_cloud,
    raw_until_closed, within,
};

const ON: &str = "--publish-enabled=true";
const TOKEN: &str = "--upstream-token=not-a-real-token-of-the-broker";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

async fn post(addr: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut text = format!("POST {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let answer = raw_until_closed(addr, text.as_bytes()).await;
    let (head, body) = answer_in(answer.as_bytes());
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no head: {answer:?}"));
    Answer { status, head, body: String::from_utf8(body).unwrap() }
}

async fn outcome(broker: &Broker, outcome: &str) -> f64 {
    metric(broker.addr(), &format!("fanlight_publishes_total{{outcome=\"{outcome}\"}}")).await
}

#[tokio::test]
async fn what_is_published_comes_back_on_the_stream() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[ON]).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
    let bodies = [
        ("/v1/devices/events", JSON, r#"{"name":"a/b","data":"1 °","private":true,"ttl":60}"#),
        ("/v1/devices/events/", FORM, "name=a%2Fb&data=1+%C2%B0&access_token=x"),
        ("//v1/devices/mine/events?access_token=x", FORM, r#"{"name":"a/b","data":"1 °"}"#),
    ];
    for (path, kind, body) in bodies {
        let answer = post(broker.addr(), path, &[kind], body).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "ok": true })), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let event = stream.next().await.json();
        assert_eq!((&event["name"], &event["data"]), (&json!("a/b"), &json!("1 °")), "{path}");
        assert_eq!(event["coreid"], "api");
    }
    assert_eq!(outcome(&broker, "accepted").await, 3.0);
    let status = get(broker.addr(), "/status", &[]).await.json();
    assert_eq!(status["publish"], json!({ "enabled": true, "functions": false }));
    broker.shutdown().await;
}

#[tokio::test]
async fn a_product_publishes_where_the_upstream_reads_it() {
    let cloud = quiet_cloud().await;
    let product = get(cloud.addr(), "/sim/devices", &[]).await.json()["product"]["id"].to_string();
    let flags = ["--upstream-scope=product", "--upstream-product", &product, ON];
    let broker = broker(&cloud, &flags).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
    let path = format!("/v1/products/{product}/events");
    let answer = post(broker.addr(), &path, &[JSON], r#"{"name":"a"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stream.next().await.json()["name"], "a");
    let other = post(broker.addr(), "/v1/products/other/events", &[JSON], r#"{"name":"a"}"#).await;
    assert_eq!((other.status, &other.json()["error"]), (404, &json!("Product not found")));
    let org = post(broker.addr(), "/v1/orgs/acme/events", &[JSON], r#"{"name":"a"}"#).await;
    assert_eq!((org.status, &org.json()["error"]), (404, &json!("Organization not found")));
    broker.shutdown().await;
}

#[tokio::test]
async fn it_is_off_unless_switched_on() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for (path, setting) in [
        ("/v1/devices/events", "publish.enabled = true"),
        ("/v1/devices/e00f/relay", "publish.functions = true"),
    ] {
        let answer = post(broker.addr(), path, &[JSON], r#"{"name":"a"}"#).await;
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("publish_off")));
        assert!(answer.body.contains(setting), "{answer:?}");
    }
    assert_eq!(outcome(&broker, "invalid").await, 2.0);
    let status = get(broker.addr(), "/status", &[]).await.json();
    assert_eq!(status["publish"], json!({ "enabled": false, "functions": false }));
    broker.shutdown().await;
}

#[tokio::test]
async fn no_page_of_another_origin_publishes_through_a_browser() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[ON, "--particle-cors=true"]).await;
    let form = "name=a&data=1";
    for (name, value) in [
        ("Origin", "https://elsewhere.example"),
        ("Origin", "null"),
        ("Origin", "http://broker:8081"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let answer = post(broker.addr(), "/v1/devices/events", &[FORM, (name, value)], form).await;
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("foreign_origin")));
    }
    let own = [FORM, ("Origin", "http://broker"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(post(broker.addr(), "/v1/devices/events", &own, form).await.status, 200);
    broker.shutdown().await;
}

#[tokio::test]
async fn what_the_cloud_would_not_take_is_refused_before_it_is_asked() {
    let stub = Stub::listen().await;
    let flags = ["--upstream-url", &stub.url("/"), ON, "--publish-burst=100"];
    let broker = broker_with(&flags, |_| {}).await;
    let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(65));
    let much = format!(r#"{{"name":"a","data":"{}"}}"#, "x".repeat(16_385));
    for (kind, body, part) in [
        (JSON, "{", "neither a JSON object"),
        (FORM, "data=1", "needs a `name`"),
        (JSON, &long, "65 bytes"),
        (JSON, &much, "16385 bytes"),
        (FORM, "name=spark/x", "kept for the cloud"),
    ] {
        let answer = post(broker.addr(), "/v1/devices/events", &[kind], body).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")));
        let text = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert!(text.contains(part), "{text}");
    }
    let huge = "x".repeat(200 << 10);
    let answer = post(broker.addr(), "/v1/devices/events", &[JSON], &huge).await;
    assert_eq!((answer.status, &answer.json()["error"]), (413, &json!("too_large")));
    for path in ["/v1/events", "/v1/devices/e00fce680000000000000001/events"] {
        assert_eq!(post(broker.addr(), path, &[JSON], "{}").await.status, 405, "{path}");
    }
    assert_eq!(post(broker.addr(), "/v1/devices/events/a", &[JSON], "{}").await.status, 405);
    assert_eq!(outcome(&broker, "invalid").await, 6.0);
    broker.shutdown().await;
}

/// A broker with functions on, whose cloud is `stub`; its stream is open.
async fn stubbed(stub: &Stub, flags: &[&str]) -> (Broker, crate::harness::Asked) {
    let url = stub.url("/base/");
    let mut all = vec!["--upstream-url", &url, ON, "--publish-functions=true", TOKEN];
    all.extend(flags);
    let broker = broker_with(&all, |_| {}).await;
    let mut stream = stub.asked().await;
    stream.stream().await;
    (broker, stream)
}

#[tokio::test]
async fn the_cloud_is_asked_with_the_brokers_token_and_its_answer_is_handed_back() {
    let stub = Stub::listen().await;
    let (broker, _stream) = stubbed(&stub, &["--publish-burst=100"]).await;
    let addr = broker.addr();
    let own = [JSON, ("Authorization", "Bearer a-token-of-the-client"), ("Cookie", "a=b")];
    let cases = [
        ("200 OK", "", r#"{"ok":true}"#, 200),
        ("401 Unauthorized", "", r#"{"error":"invalid_token","error_description":"expired"}"#, 401),
        ("403 Forbidden", "Retry-After: 7\r\n", r#"{"ok":false,"error":"no"}"#, 403),
        ("429 Too Many Requests", "Retry-After: 30\r\n", r#"{"error":"slow down"}"#, 429),
        ("500 Internal Server Error", "Content-Type: text/html\r\n", r#"{"ok":false}"#, 500),
    ];
    for (status, headers, body, expected) in cases {
        let asks = post(
            addr,
            "/v1/devices/events?access_token=q",
            &own,
            r#"{"name":"a","data":"b","access_token":"c"}"#,
        );
        let answers = async {
            let mut asked = stub.asked().await;
            assert_eq!(asked.path(), "/base/v1/devices/events");
            assert!(asked.head.starts_with("POST "), "{}", asked.head);
            assert_eq!(
                asked.header("authorization"),
                Some("Bearer not-a-real-token-of-the-broker")
            );
            assert_eq!(asked.header("content-type"), Some("application/json"));
            assert_eq!(asked.header("cookie"), None);
            assert_eq!(asked.body().await, r#"{"name":"a","data":"b"}"#);
            asked.answer(status, headers, body).await;
        };
        let (answer, ()) = tokio::join!(asks, answers);
        assert_eq!((answer.status, answer.body.as_str()), (expected, body));
        let wait = headers.strip_prefix("Retry-After: ").map(str::trim);
        assert_eq!(answer.header("retry-after"), wait);
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(outcome(&broker, "accepted").await, 1.0);
    assert_eq!(outcome(&broker, "refused").await, 4.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn an_answer_that_is_none_of_the_api_is_told_as_that() {
    let stub = Stub::listen().await;
    let (broker, _stream) = stubbed(&stub, &["--publish-burst=100"]).await;
    let echo = r#"{"error":"bad token not-a-real-token-of-the-broker"}"#;
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(70 << 10));
    let cases = [
        ("200 OK", "", "<html>sign in</html>", 502, "cloud_unreachable"),
        ("302 Found", "Location: https://elsewhere.example/\r\n", "{}", 502, "cloud_unreachable"),
        ("503 Service Unavailable", "Retry-After: 9\r\n", "<html>", 503, "cloud_error"),
        ("400 Bad Request", "", &long, 400, "cloud_error"),
        ("401 Unauthorized", "", echo, 401, "bad token ***"),
    ];
    for (status, headers, body, expected, error) in cases {
        let asks = post(broker.addr(), "/v1/devices/events", &[JSON], r#"{"name":"a"}"#);
        let answers = async { stub.asked().await.answer(status, headers, body).await };
        let (answer, ()) = tokio::join!(asks, answers);
        assert_eq!((answer.status, &answer.json()["error"]), (expected, &json!(error)), "{status}");
        assert_eq!(answer.header("retry-after").is_some(), headers.starts_with("Retry-After"));
    }
    // One that leaves without a word.
    let asks = post(broker.addr(), "/v1/devices/events", &[JSON], r#"{"name":"a"}"#);
    let (answer, _) = tokio::join!(asks, async { drop(stub.asked().await) });
    assert_eq!((answer.status, &answer.json()["error"]), (502, &json!("cloud_unreachable")));
    assert_eq!(outcome(&broker, "unanswered").await, 3.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_cloud_that_does_not_answer_is_waited_for_so_long() {
    let stub = Stub::listen().await;
    let (broker, _stream) =
        stubbed(&stub, &["--publish-timeout=1s", "--publish-in-flight-max=1"]).await;
    let first = post(broker.addr(), "/v1/devices/events", &[JSON], r#"{"name":"a"}"#);
    let meanwhile = async {
        // Held open, and not answered.
        let asked = stub.asked().await;
        let second = post(broker.addr(), "/v1/devices/events", &[JSON], r#"{"name":"b"}"#).await;
        assert_eq!((second.status, &second.json()["error"]), (503, &json!("busy")));
        assert_eq!(second.header("retry-after"), Some("1"));
        within("the time is over", asked.hung_up()).await;
    };
    let (answer, ()) = tokio::join!(first, meanwhile);
    assert_eq!((answer.status, &answer.json()["error"]), (504, &json!("cloud_timeout")));
    assert_eq!(outcome(&broker, "unanswered").await, 1.0);
    assert_eq!(outcome(&broker, "limited").await, 1.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn an_address_has_its_rate() {
    let cloud = quiet_cloud().await;
    let flags = [ON, "--publish-burst=3", "--publish-per-second=0.01"];
    let broker = broker(&cloud, &flags).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = post(broker.addr(), "/v1/devices/events", &[FORM], "name=a").await;
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!(answer.json()["error"], "too_many_requests");
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=100).contains(&wait), "{wait}");
        }
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(outcome(&broker, "limited").await, 2.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_function_is_called_where_that_is_switched_on() {
    let stub = Stub::listen().await;
    let (broker, _stream) = stubbed(&stub, &[]).await;
    let answer_text = r#"{"id":"e00f","return_value":1}"#;
    for (kind, body) in [(FORM, "args=on&access_token=x"), (JSON, r#"{"arg":"on"}"#)] {
        let kind = [kind];
        let asks = post(broker.addr(), "/v1/devices/my%20van/relay", &kind, body);
        let answers = async {
            let mut asked = stub.asked().await;
            assert_eq!(asked.path(), "/base/v1/devices/my%20van/relay");
            assert_eq!(asked.body().await, r#"{"arg":"on"}"#);
            asked.answer("200 OK", "", answer_text).await;
        };
        let (answer, ()) = tokio::join!(asks, answers);
        assert_eq!((answer.status, answer.body.as_str()), (200, answer_text));
    }
    let odd = post(broker.addr(), "/v1/devices/e00f/a%2Fb", &[FORM], "").await;
    assert_eq!((odd.status, &odd.json()["error"]), (400, &json!("invalid_request")));
    let read = get(broker.addr(), "/v1/devices/e00f/relay", &[]).await;
    assert_eq!(read.status, 404, "variables are not passed on");
    broker.shutdown().await;
}

// === fanlight publish ===

async fn command(arguments: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let mut command = Process::command(&[&["publish"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may end before it has read all.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = within("the command ends", child.wait_with_output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn the_command_publishes() {
    let cloud = cloud(simulator::Config::default()).await;
    let broker = broker(&cloud, &[ON]).await;
    let url = format!("http://{}/", broker.addr());
    let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
    for (arguments, stdin, data) in [
        (&["a/b", "21.5", "--ttl=60"][..], "", json!("21.5")),
        (&["a/b", "-1"], "", json!("-1")),
        (&["a/b", "-"], "x\ny\n", json!("x\ny")),
        (&["a/b", "-"], "", json!("")),
        (&["a/b"], "not read", json!(null)),
    ] {
        let (code, out, err) = command(&[arguments, &["--url", &url]].concat(), stdin).await;
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "published a/b\n", ""));
        let event = stream.next().await.json();
        assert_eq!((&event["name"], &event["data"]), (&json!("a/b"), &data), "{arguments:?}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn the_command_says_what_is_wrong() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let url = format!("http://{}", broker.addr());
    let large = "x".repeat(30_000);
    let cases: &[(&[&str], &str, i32, &str)] = &[
        (&["a", "1"], "", 1, "publish.enabled = true"),
        (&["a", "--product=p"], "", 1, "/v1/products/p/events answered 404"),
        (&["spark/a"], "", 2, "kept for the cloud"),
        (&[""], "", 2, "needs a `name`"),
        (&["a", "-"], &large, 2, "allowed are 16384"),
        (&["a", "1", "2"], "", 2, "unexpected argument"),
        (&["a", "--ttl=x"], "", 2, "--ttl"),
        (&[], "", 2, "NAME"),
    ];
    for (arguments, stdin, code, part) in cases {
        let all = [arguments, &["--url", &url][..]].concat();
        let (found, out, err) = command(&all, stdin).await;
        assert_eq!((found, out.as_str()), (Some(*code), ""), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
    }
    broker.shutdown().await;
    let (code, _, err) = command(&["a", "--url", &url], "").await;
    assert!(code == Some(1) && err.contains("is a broker there?"), "{err}");
    for (wrong, part) in [
        ("127.0.0.1:8080", "such as http://127.0.0.1:8080"),
        ("http://u:secret@127.0.0.1", "user name and password"),
    ] {
        let (code, _, err) = command(&["a", "--url", wrong], "").await;
        assert!(code == Some(2) && err.contains(part) && !err.contains("secret"), "{err}");
    }
}
