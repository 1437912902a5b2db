//! The newest values: `/last`, and the snapshot at the start of a stream.

use serde_json::{Value, json};

use crate::harness::{
    Stream, ask, broker, get, publish, publish_line, publish_many, quiet_cloud, sample,
};

#[tokio::test]
async fn an_empty_broker_has_an_empty_array() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let answer = get(broker.addr(), "/last", &[]).await;
    let mut lines: Vec<&str> =
        answer.head.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines.sort_unstable();
    let expected = [
        "cache-control: no-store",
        "connection: close",
        "content-length: 2",
        "content-type: application/json",
        "cross-origin-resource-policy: same-origin",
        "http/1.1 200 ok",
        "x-content-type-options: nosniff",
    ];
    assert_eq!((lines, answer.body.as_str()), (expected.to_vec(), "[]"));
    broker.shutdown().await;
}

#[tokio::test]
async fn each_name_and_device_has_its_newest_event_in_order_of_position() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let line = |data: u32, device: &str| format!(r#"{{"data":"{data}","coreid":"{device}"}}"#);
    let first = publish_line(&cloud, &broker, "t", &line(1, "d1")).await;
    for (name, data, device) in [("t", 2, "d2"), ("u", 3, "d1"), ("t", 4, "d1")] {
        publish_line(&cloud, &broker, name, &line(data, device)).await;
    }
    publish_line(&cloud, &broker, "t", "no device").await;
    publish_line(&cloud, &broker, "t", r#"{"data":"5","coreid":""}"#).await;
    let epoch = broker.hub().epoch();
    let body =
        format!(
            r#"[{{"id":"{epoch}-{}","name":"t",{}"#,
            first + 1,
            line(2, "d2").trim_start_matches('{')
        ) + &format!(
            r#",{{"id":"{epoch}-{}","name":"u",{}"#,
            first + 2,
            line(3, "d1").trim_start_matches('{')
        ) + &format!(
            r#",{{"id":"{epoch}-{}","name":"t",{}"#,
            first + 3,
            line(4, "d1").trim_start_matches('{')
        ) + &format!(r#",{{"id":"{epoch}-{}","name":"t","data":"5","coreid":""}}]"#, first + 5);
    assert_eq!(get(broker.addr(), "/last", &[]).await.body, body, "an empty device is none");
    let head = ask(broker.addr(), "HEAD", "/last", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some(body.len().to_string().as_str()));
    broker.shutdown().await;
}

#[tokio::test]
async fn prefix_name_and_device_pass_what_they_pass_in_a_stream() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    sample::publish_all(&cloud, &broker).await;
    for (query, expected) in sample::FILTERS {
        let answer = get(broker.addr(), &format!("/last?{query}"), &[]).await.json();
        assert_eq!(sample::places(answer.as_array().unwrap()), *expected, "{query}");
        let path = format!("/events?control=off&snapshot=true&limit=100&{query}");
        let mut stream = Stream::open(broker.addr(), &path, &[]).await;
        let values: Vec<Value> =
            stream.take(expected.len()).await.iter().map(|event| event.json()).collect();
        assert_eq!(sample::places(&values), *expected, "{query}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_value_outlives_the_ring_and_a_snapshot_has_it() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    let seq = publish(&cloud, &broker, "quiet", "1").await;
    publish_many(&cloud, &broker, "loud", 100).await;
    assert!(broker.hub().status().oldest.0 > seq);
    let answer = get(broker.addr(), "/last?name=quiet", &[]).await.json();
    assert_eq!((&answer[0]["data"], answer.as_array().unwrap().len()), (&json!("1"), 1));
    let path = "/events?name=quiet&snapshot=true";
    let (mut stream, hello) = Stream::live(broker.addr(), path).await;
    assert_eq!(hello.seq(), seq - 1, "cut off here, the snapshot must come again");
    assert_eq!(stream.next().await.json()["data"], "1");
    let checkpoint = stream.next().await;
    let head = broker.hub().head().to_string();
    assert_eq!((checkpoint.kind.as_str(), &checkpoint.id), ("fanlight.checkpoint", &head));
    let again = format!("{path}&last_event_id={}", checkpoint.id);
    let mut again = Stream::live(broker.addr(), &again).await.0;
    publish(&cloud, &broker, "quiet", "2").await;
    assert_eq!(again.next().await.json()["data"], "2", "no gap, and no old value");
    broker.shutdown().await;
}

#[tokio::test]
async fn over_the_bound_the_one_updated_longest_ago_is_forgotten() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--latest-entries-max=2"]).await;
    for name in ["a", "b", "a", "c"] {
        publish(&cloud, &broker, name, "1").await;
    }
    let answer = get(broker.addr(), "/last", &[]).await.json();
    let names: Vec<&Value> =
        answer.as_array().unwrap().iter().map(|event| &event["name"]).collect();
    assert_eq!(names, ["a", "c"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_parameter_of_streams_is_refused() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for name in ["last_event_id", "since", "limit", "snapshot"] {
        let answer = get(broker.addr(), &format!("/last?{name}=1"), &[]).await;
        assert_eq!(answer.status, 400);
        let description =
            format!("unknown parameter `{name}`; known here are prefix, name, device");
        let body = json!({"error": "invalid_parameter", "error_description": description});
        assert_eq!(answer.json(), body);
    }
    broker.shutdown().await;
}
