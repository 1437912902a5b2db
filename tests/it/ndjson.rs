//! Newline-delimited JSON on `/events`.

use serde_json::json;

use crate::harness::{
    Stream, broker, publish, publish_line, publish_many, quiet_cloud, raw_until_closed, request,
    sample,
};

const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

async fn open(addr: std::net::SocketAddr, path: &str) -> Stream {
    Stream::open(addr, path, &[NDJSON]).await
}

#[tokio::test]
async fn the_head_is_that_of_a_stream_and_the_hello_is_the_first_line() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let mut stream = open(broker.addr(), "/events?prefix=a").await;
    let mut lines: Vec<&str> =
        stream.head.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines.sort_unstable();
    let expected = [
        "cache-control: no-store, no-transform",
        "connection: close",
        "content-type: application/x-ndjson",
        "cross-origin-resource-policy: same-origin",
        "http/1.1 200 ok",
        "transfer-encoding: chunked",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
    ];
    assert_eq!(lines, expected);
    let hello = format!(
        r#"{{"fanlight":"hello","id":"{}","version":"{}","upstream":"live","filter":{{"prefix":["a"],"name":[],"device":[]}}}}"#,
        broker.hub().head(),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(stream.line().await.unwrap(), hello);
    broker.shutdown().await;
}

#[tokio::test]
async fn an_event_is_one_object_with_id_and_name_in_front_of_the_clouds_own_bytes() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let mut stream = open(broker.addr(), "/events?control=off").await;
    let data = r#"{"data":"2° \n",  "ttl":60,"coreid":"28c8"}"#;
    let seq = publish_line(&cloud, &broker, "greenhouse/temp", data).await;
    publish_line(&cloud, &broker, "text", "21.5").await;
    let epoch = broker.hub().epoch();
    let rest = data.strip_prefix('{').unwrap();
    let expected = format!(r#"{{"id":"{epoch}-{seq}","name":"greenhouse/temp",{rest}"#);
    assert_eq!(stream.line().await.unwrap(), expected, "the first line, since control is off");
    let expected = format!(r#"{{"id":"{epoch}-{}","name":"text","raw":"21.5"}}"#, seq + 1);
    assert_eq!(stream.line().await.unwrap(), expected);
    broker.shutdown().await;
}

#[tokio::test]
async fn prefix_name_and_device_pass_the_same_events_live_and_in_replay() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let mut streams = Vec::new();
    let mut begin = async |extra: &str| {
        for (query, expected) in sample::FILTERS {
            let path = format!("/events?{extra}{query}");
            let mut stream = open(broker.addr(), &path).await;
            assert_eq!(stream.object().await["fanlight"], "hello");
            streams.push((path, stream, *expected));
        }
    };
    begin("").await;
    sample::publish_all(&cloud, &broker).await;
    begin("since=earliest&").await;
    broker.shutdown().await;
    for (path, mut stream, expected) in streams {
        let mut events = Vec::new();
        let bye = loop {
            let object = stream.object().await;
            match object["fanlight"].as_str() {
                Some("bye") => break object,
                Some(_) => {}
                None => events.push(object),
            }
        };
        assert_eq!(sample::places(&events), expected, "{path}");
        assert_eq!(bye["reason"], "shutdown");
        assert_eq!(stream.line().await, None);
        assert!(stream.ended_cleanly());
    }
}

#[tokio::test]
async fn control_objects_have_the_fields_of_the_events() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    publish_many(&cloud, &broker, "other", 40).await;
    let epoch = broker.hub().epoch();
    let oldest = broker.hub().status().oldest.0;
    let tail = broker.hub().status().tail.0;
    let path = format!("/events?name=mine&last_event_id={epoch}-3");
    let mut stream = open(broker.addr(), &path).await;
    let hello = stream.object().await;
    assert_eq!(hello["id"], format!("{epoch}-3"), "cut off here, it must be told again");
    let gap = format!(
        r#"{{"fanlight":"gap","id":"{epoch}-{}","reason":"evicted","requested":"{epoch}-3","from":4,"to":{oldest},"count":{},"oldest":{oldest},"next":{oldest}}}"#,
        oldest - 1,
        oldest - 4
    );
    assert_eq!(stream.line().await.unwrap(), gap);
    let checkpoint = format!(r#"{{"fanlight":"checkpoint","id":"{epoch}-{}"}}"#, tail - 1);
    assert_eq!(stream.line().await.unwrap(), checkpoint);
    let head = broker.hub().head().to_string();
    broker.shutdown().await;
    let bye = stream.object().await;
    let retry = bye["retry_ms"].as_u64().unwrap();
    assert_eq!(
        bye,
        json!({"fanlight": "bye", "id": head, "reason": "shutdown", "retry_ms": retry})
    );
}

#[tokio::test]
async fn the_keep_alive_is_a_blank_line() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--stream-keepalive=1s"]).await;
    let mut stream = open(broker.addr(), "/events").await;
    stream.object().await;
    assert_eq!(stream.line().await.unwrap(), "");
    assert_eq!(stream.line().await.unwrap(), "");
    publish(&cloud, &broker, "a", "1").await;
    assert_eq!(stream.object().await["data"], "1");
    broker.shutdown().await;
}

#[tokio::test]
async fn snapshot_limit_and_resumption_work_as_in_sse() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish_many(&cloud, &broker, "a", 4).await;
    publish_many(&cloud, &broker, "b", 2).await;
    let mut stream = open(broker.addr(), "/events?snapshot=true&control=off").await;
    let newest = [stream.object().await, stream.object().await];
    assert_eq!(sample::places(&newest), [3, 1]);
    assert_eq!((&newest[0]["name"], &newest[1]["name"]), (&json!("a"), &json!("b")));
    let id = newest[0]["id"].as_str().unwrap();
    let headers = [NDJSON, ("Last-Event-ID", id)];
    let mut resumed = Stream::open(broker.addr(), "/events?limit=1&control=off", &headers).await;
    assert_eq!(resumed.object().await["name"], "b");
    assert_eq!(resumed.line().await, None);
    assert!(resumed.ended_cleanly());
    broker.shutdown().await;
}

#[tokio::test]
async fn format_has_no_say_and_an_http_1_0_client_gets_bare_lines() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish_many(&cloud, &broker, "a", 1).await;
    let path = "/events?format=particle&since=earliest&limit=1&control=off";
    let text = request("GET", path, &[NDJSON], "close").replace("HTTP/1.1", "HTTP/1.0");
    let answer = raw_until_closed(broker.addr(), text.as_bytes()).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let object: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&object["name"], &object["data"]), (&json!("a"), &json!("0")));
    assert!(body.ends_with("}\n") && body.lines().count() == 1);
    broker.shutdown().await;
}
