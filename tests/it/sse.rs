//! Server-sent events on `/events`, in both formats.

use fanlight::simulator::Fault;
use serde_json::{Value, json};

use crate::harness::{
    Event, Stream, broker, get, metric, publish, publish_line, publish_many, quiet_cloud, raw,
    raw_until_closed, read_head, request, sample, subscribers, until,
};

const FORMATS: [&str; 2] = ["format=message", "format=particle"];

/// The messages of a stream that has ended: what is no control event.
fn messages(events: &[Event]) -> Vec<Value> {
    events.iter().filter(|event| !event.kind.starts_with("fanlight.")).map(Event::json).collect()
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

#[tokio::test]
async fn the_head_says_that_it_is_a_stream_to_be_passed_on_unchanged_and_nothing_else() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for path in ["/events", "/events?format=particle", "/events?control=off&prefix=x"] {
        let stream = Stream::open(broker.addr(), path, &[]).await;
        let mut lines: Vec<&str> =
            stream.head.lines().filter(|line| !line.starts_with("date: ")).collect();
        lines.sort_unstable();
        let expected = [
            "cache-control: no-store, no-transform",
            "connection: close",
            "content-type: text/event-stream",
            "cross-origin-resource-policy: same-origin",
            "http/1.1 200 ok",
            "transfer-encoding: chunked",
            "x-accel-buffering: no",
            "x-content-type-options: nosniff",
        ];
        assert_eq!(lines, expected, "{path}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn the_hello_comes_at_once_with_retry_and_id_and_says_what_was_understood() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let seq = publish(&cloud, &broker, "before", "1").await;
    let mut retries = Vec::new();
    for format in FORMATS {
        for _ in 0..8 {
            let path = format!("/events?{format}&prefix=b&prefix=a&name=c&device=d");
            let (stream, hello) = Stream::live(broker.addr(), &path).await;
            let body = stream.text();
            let (retry, rest) = body.split_once('\n').unwrap();
            let retry: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
            assert!((1000..=5000).contains(&retry), "{retry}");
            retries.push(retry);
            let id = format!("{}-{seq}", broker.hub().epoch());
            let version = env!("CARGO_PKG_VERSION");
            let data = format!(
                r#"{{"id":"{id}","version":"{version}","upstream":"live","filter":{{"prefix":["a","b"],"name":["c"],"device":["d"]}}}}"#
            );
            assert_eq!(rest, format!("id: {id}\nevent: fanlight.hello\ndata: {data}\n\n"));
            assert_eq!(hello.id, id);
        }
    }
    retries.dedup();
    assert!(retries.len() > 1, "clients are not to come back together: {retries:?}");
    broker.shutdown().await;
}

#[tokio::test]
async fn message_format_puts_the_name_in_front_of_the_clouds_own_bytes() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events").await;
    let before = stream.body.len();
    let spaced = r#"{ "data" : "2\u00b0 ° \ud83d\ude00",  "ttl":60 ,"published_at":"2026-11-22T01:02:03.004Z","coreid":"28c8"}"#;
    let first = publish_line(&cloud, &broker, "greenhouse/temp", spaced).await;
    publish_line(&cloud, &broker, r#"q"uote\"#, "21.5").await;
    publish_line(&cloud, &broker, "forged", r#"{"id":"1","data":"x"}"#).await;
    stream.take(3).await;
    let epoch = broker.hub().epoch();
    let inside = spaced.strip_prefix("{ ").unwrap();
    let expected = [
        format!("id: {epoch}-{first}\ndata: {{\"name\":\"greenhouse/temp\",{inside}\n\n"),
        format!(
            "id: {epoch}-{}\ndata: {{\"name\":\"q\\\"uote\\\\\",\"raw\":\"21.5\"}}\n\n",
            first + 1
        ),
        format!(
            "id: {epoch}-{}\ndata: {{\"name\":\"forged\",\"raw\":\"{{\\\"id\\\":\\\"1\\\",\\\"data\\\":\\\"x\\\"}}\"}}\n\n",
            first + 2
        ),
    ];
    assert_eq!(String::from_utf8_lossy(&stream.body[before..]), expected.concat());
    broker.shutdown().await;
}

#[tokio::test]
async fn particle_format_is_the_clouds_own_block_with_an_id() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events?format=particle").await;
    let before = stream.body.len();
    let spaced = r#"{ "data" : "2°",  "ttl":60 ,"coreid":"28c8"}"#;
    let first = publish_line(&cloud, &broker, "greenhouse/temp", spaced).await;
    publish_line(&cloud, &broker, "text", "21.5").await;
    stream.take(2).await;
    let epoch = broker.hub().epoch();
    let expected = format!(
        "id: {epoch}-{first}\nevent: greenhouse/temp\ndata: {spaced}\n\nid: {epoch}-{}\nevent: text\ndata: 21.5\n\n",
        first + 1
    );
    assert_eq!(String::from_utf8_lossy(&stream.body[before..]), expected);
    broker.shutdown().await;
}

#[tokio::test]
async fn prefix_name_and_device_pass_the_same_events_live_and_in_replay() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let mut streams = Vec::new();
    let mut open = async |extra: &str| {
        for format in FORMATS {
            for (query, expected) in sample::FILTERS {
                let path = format!("/events?{format}&{extra}{query}");
                let (stream, _) = Stream::live(broker.addr(), &path).await;
                streams.push((path, stream, *expected));
            }
        }
    };
    open("").await;
    sample::publish_all(&cloud, &broker).await;
    open("since=earliest&").await;
    broker.shutdown().await;
    for (path, mut stream, expected) in streams {
        let events = stream.rest().await;
        assert_eq!(sample::places(&messages(&events)), expected, "{path}");
        assert_eq!(events.last().unwrap().kind, "fanlight.bye", "{path}");
    }
}

#[tokio::test]
async fn since_is_earliest_a_duration_back_or_a_time() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    sample::publish_all(&cloud, &broker).await;
    let all: Vec<usize> = (0..sample::EVENTS.len()).collect();
    let later = "since=2126-11-22T01:02:03%2B01:00";
    let cases = [
        ("since=earliest", &all[..]),
        ("since=1h", &all),
        ("since=90s500ms", &all),
        ("since=2020-11-22T01:02:03Z", &all),
        ("since=2020-11-22T01:02:03.5+01:00", &all),
        ("since=0s", &[]),
        (later, &[]),
    ];
    let mut streams = Vec::new();
    for (query, expected) in cases {
        let (stream, _) = Stream::live(broker.addr(), &format!("/events?{query}")).await;
        streams.push((query, stream, expected));
    }
    broker.shutdown().await;
    for (query, mut stream, expected) in streams {
        let events = stream.rest().await;
        assert_eq!(sample::places(&messages(&events)), expected, "{query}");
        assert!(!kinds(&events).contains(&"fanlight.gap"), "{query}: {events:?}");
    }
}

#[tokio::test]
async fn a_time_that_fell_out_of_the_ring_begins_with_a_gap() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    publish_many(&cloud, &broker, "a", 100).await;
    let oldest = broker.hub().status().oldest.0;
    for since in ["1h", "2020-11-22T01:02:03Z"] {
        let path = format!("/events?since={since}&limit=16");
        let events = Stream::open(broker.addr(), &path, &[]).await.rest().await;
        let gap = json!({
            "reason": "evicted", "requested": null, "from": 1, "to": oldest, "count": null,
            "oldest": oldest, "next": oldest,
        });
        assert_eq!((events[1].kind.as_str(), events[1].json()), ("fanlight.gap", gap));
        assert_eq!(events[2].seq(), oldest);
        assert_eq!(events.len(), 2 + 16);
    }
    let path = "/events?since=earliest&limit=16";
    let events = Stream::open(broker.addr(), path, &[]).await.rest().await;
    assert_eq!(events[1].seq(), oldest, "all there is was asked for, and all there is comes");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_is_the_newest_of_each_name_and_device_then_the_position_then_live() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for (name, device, data) in
        [("t", "d1", 1), ("t", "d2", 2), ("u", "d1", 3), ("t", "d1", 4), ("x", "d1", 5)]
    {
        let json = format!(r#"{{"data":"{data}","coreid":"{device}"}}"#);
        publish_line(&cloud, &broker, name, &json).await;
    }
    let path = "/events?snapshot=true&prefix=t&name=u";
    let (mut stream, hello) = Stream::live(broker.addr(), path).await;
    let events = stream.take(4).await;
    assert_eq!(sample::places(&messages(&events)), [2, 3, 4]);
    let head = broker.hub().head();
    let checkpoint = format!("id: {head}\nevent: fanlight.checkpoint\ndata: {{}}\n\n");
    assert!(stream.text().ends_with(&checkpoint), "{}", stream.text());
    publish(&cloud, &broker, "t", "6").await;
    assert_eq!(stream.next().await.json()["data"], "6");

    let cut_off = format!("{path}&limit=4&last_event_id={}", hello.id);
    let events = Stream::open(broker.addr(), &cut_off, &[]).await.rest().await;
    let all = sample::places(&messages(&events));
    assert_eq!(all, [2, 3, 4, 6], "who saw the hello alone gets all of it");
    let resumed = format!("{path}&limit=1&last_event_id={head}");
    let events = Stream::open(broker.addr(), &resumed, &[]).await.rest().await;
    assert_eq!(sample::places(&messages(&events)), [6], "who resumes has the older ones");
    let restarted = format!("{path}&limit=3&last_event_id=00000000-1");
    let events = Stream::open(broker.addr(), &restarted, &[]).await.rest().await;
    assert_eq!(kinds(&events[..2]), ["fanlight.hello", "fanlight.gap"]);
    assert_eq!(sample::places(&messages(&events)).len(), 3);
    let limited = format!("{path}&limit=2");
    let events = Stream::open(broker.addr(), &limited, &[]).await.rest().await;
    assert_eq!(kinds(&events), ["fanlight.hello", "message", "message"]);
    broker.shutdown().await;
}

#[tokio::test]
async fn control_off_leaves_retry_and_events_alone() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=64"]).await;
    let (mut with, _) = Stream::live(broker.addr(), "/events?name=a").await;
    let mut without = Stream::open(broker.addr(), "/events?name=a&control=off", &[]).await;
    subscribers(&broker, 2).await;
    cloud.fault("cut".parse::<Fault>().unwrap());
    let live = with.next().await;
    assert_eq!(live.kind, "fanlight.upstream");
    until("live again", || {
        let history = broker.hub().status().upstream_history;
        let lives = history.iter().filter(|change| change.state.as_str() == "live").count();
        (lives == 2).then_some(())
    })
    .await;
    cloud.streams(1).await;
    publish_many(&cloud, &broker, "other", 30).await;
    with.body_holds("fanlight.checkpoint").await;
    publish(&cloud, &broker, "a", "1").await;
    without.body_holds("\n\n").await;
    broker.shutdown().await;
    without.rest().await;
    let body = without.text();
    let lines: Vec<&str> = body.lines().collect();
    assert!(lines[0].starts_with("retry: "), "{body}");
    assert!(
        lines[1].starts_with("id: ") && lines[2].starts_with("data: {\"name\":\"a\","),
        "{body}"
    );
    assert!(lines[4].starts_with("retry: "), "the bye's, so that the client knows when: {body}");
    assert_eq!(lines.len(), 5, "{body}");
    let events = with.rest().await;
    for kind in ["upstream", "hole", "checkpoint", "bye"] {
        assert!(
            kinds(&events).contains(&format!("fanlight.{kind}").as_str()),
            "{kind}: {events:?}"
        );
    }
}

#[tokio::test]
async fn upstream_and_hole_say_what_happened_in_their_place() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events?name=nothing").await;
    cloud.fault("cut".parse::<Fault>().unwrap());
    let mut events = vec![stream.next().await];
    while events.last().unwrap().json()["state"] != "live" {
        events.push(stream.next().await);
    }
    let hole = events.iter().find(|event| event.kind == "fanlight.hole");
    let hole = match hole {
        Some(hole) => hole.clone(),
        None => stream.next().await,
    };
    let fields = hole.json();
    let keys: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["reason", "since", "until", "count"]);
    assert_eq!((&fields["reason"], &fields["count"]), (&json!("ended"), &Value::Null));
    assert!(fields["since"].as_str() < fields["until"].as_str(), "{fields}");
    for event in events.iter().filter(|event| event.kind == "fanlight.upstream") {
        let fields = event.json();
        let keys: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["state", "since", "detail"]);
    }
    let first = events[0].seq();
    let path = format!("/events?name=nothing&last_event_id={}-{}", broker.hub().epoch(), first - 1);
    let mut again = Stream::live(broker.addr(), &path).await.0;
    for event in &events {
        assert_eq!(&again.next().await, event, "replayed in its place");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn limit_ends_the_stream_in_good_order_after_exactly_so_many_events() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish_many(&cloud, &broker, "a", 5).await;
    let mut replayed = Stream::open(broker.addr(), "/events?since=earliest&limit=3", &[]).await;
    assert_eq!(sample::places(&messages(&replayed.rest().await)), [0, 1, 2]);
    assert!(replayed.ended_cleanly());
    let (mut live, _) = Stream::live(broker.addr(), "/events?limit=2&name=b").await;
    publish_many(&cloud, &broker, "a", 5).await;
    publish_many(&cloud, &broker, "b", 5).await;
    let events = live.rest().await;
    assert_eq!(sample::places(&messages(&events)), [0, 1]);
    assert_eq!(kinds(&events), ["message", "message"], "no bye: it was asked for");
    assert!(live.ended_cleanly());
    broker.shutdown().await;
}

#[tokio::test]
async fn the_header_wins_over_the_parameter_and_an_empty_one_is_none() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish_many(&cloud, &broker, "a", 6).await;
    let epoch = broker.hub().epoch();
    let tail = broker.hub().status().tail.0;
    let id = |back: u64| format!("{epoch}-{}", tail - 1 - back);
    let first = async |path: &str, header: Option<&str>| {
        let header = header.map(|id| ("Last-Event-ID", id));
        let events = Stream::open(broker.addr(), path, header.as_slice()).await.rest().await;
        tail - events.iter().find(|event| event.kind == "message").unwrap().seq()
    };
    let by_parameter = format!("/events?limit=1&since=earliest&last_event_id={}", id(2));
    assert_eq!(first(&by_parameter, None).await, 2, "parameter over since");
    assert_eq!(first(&by_parameter, Some(&id(4))).await, 4, "header over parameter");
    assert_eq!(first(&by_parameter, Some("")).await, 2, "empty header");
    let only_since = "/events?limit=1&since=earliest&last_event_id=";
    assert_eq!(first(only_since, Some(&id(3))).await, 3, "header over since");
    assert_eq!(first(only_since, None).await, 6, "empty parameter");
    let camel = format!("/events?limit=1&lastEventId={}", id(5));
    assert_eq!(first(&camel, None).await, 5, "as the widespread polyfill spells it");
    let added = format!("{camel}&last_event_id={}&lastEventId=", id(1));
    assert_eq!(first(&added, None).await, 1, "the last one given");
    broker.shutdown().await;
}

#[tokio::test]
async fn the_keep_alive_is_a_colon_and_a_line_feed_and_nothing_else() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--stream-keepalive=1s"]).await;
    let mut message = Stream::live(broker.addr(), "/events").await.0;
    let mut particle = Stream::live(broker.addr(), "/events?format=particle").await.0;
    let mut bare = Stream::open(broker.addr(), "/events?control=off", &[]).await;
    for stream in [&mut message, &mut particle] {
        stream.body_holds("\n\n:\n:\n").await;
        let body = stream.text();
        let (_, rest) = body.split_once("\n\n").unwrap();
        assert!(rest.split_terminator('\n').all(|line| line == ":"), "{body:?}");
    }
    bare.body_holds("\n:\n:\n").await;
    let seq = publish(&cloud, &broker, "a", "1").await;
    for stream in [&mut message, &mut particle, &mut bare] {
        assert_eq!(stream.next().await.seq(), seq, "the event after it is whole");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_checkpoint_comes_after_a_quarter_of_the_ring_without_a_delivery() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    let (mut stream, hello) = Stream::live(broker.addr(), "/events?name=mine").await;
    publish_many(&cloud, &broker, "other", 16).await;
    let checkpoint = stream.next().await;
    let block = format!("id: {}\nevent: fanlight.checkpoint\ndata: {{}}\n\n", checkpoint.id);
    assert!(stream.text().contains(&format!("\n\n{block}")), "{}", stream.text());
    assert!(checkpoint.seq() >= hello.seq() + 4, "{checkpoint:?}");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_checkpoint_comes_after_a_time_without_a_delivery() {
    let cloud = quiet_cloud().await;
    let flags = ["--stream-checkpoint-after=1s", "--stream-keepalive=1s"];
    let broker = broker(&cloud, &flags).await;
    let (mut stream, _) = Stream::live(broker.addr(), "/events?name=mine").await;
    let seq = publish(&cloud, &broker, "other", "1").await;
    let checkpoint = stream.next().await;
    assert_eq!((checkpoint.kind.as_str(), checkpoint.seq()), ("fanlight.checkpoint", seq));
    broker.shutdown().await;
}

#[tokio::test]
async fn an_old_stream_says_expired_and_ends_in_good_order() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--stream-age-max=1s"]).await;
    let (mut stream, hello) = Stream::live(broker.addr(), "/events").await;
    let bye = stream.rest().await.pop().unwrap();
    let retry = bye.json()["retry_ms"].as_u64().unwrap();
    assert!((1000..=5000).contains(&retry));
    let block = format!(
        "retry: {retry}\nid: {}\nevent: fanlight.bye\ndata: {{\"reason\":\"expired\",\"retry_ms\":{retry}}}\n\n",
        hello.id
    );
    assert!(stream.text().ends_with(&block), "{}", stream.text());
    assert!(stream.ended_cleanly());
    broker.shutdown().await;
}

#[tokio::test]
async fn an_http_1_0_client_gets_the_bare_body_and_the_end_of_the_connection() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish_many(&cloud, &broker, "a", 2).await;
    let request = "GET /events?since=earliest&limit=2&control=off HTTP/1.0\r\n\r\n";
    let answer = raw_until_closed(broker.addr(), request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    let lines: Vec<&str> = body.lines().collect();
    assert!(lines[0].starts_with("retry: "), "{body}");
    assert!(lines[1].starts_with("id: ") && lines[2].starts_with("data: "), "{body}");
    assert_eq!(body.lines().count(), 1 + 2 * 3, "no chunk sizes: {body}");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_head_request_gets_the_head_alone_and_the_connection_goes_on() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let both =
        request("HEAD", "/events", &[], "keep-alive") + &request("GET", "/healthz", &[], "close");
    let answer = raw_until_closed(broker.addr(), both.as_bytes()).await;
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{head}");
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{rest}");
    assert!(rest.ends_with(r#"{"status":"ok"}"#), "{rest}");
    subscribers(&broker, 0).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish_many(&cloud, &broker, "a", 1).await;
    // A stream is the last: its socket leaves HTTP, which its head says.
    let paths = ["/healthz", "/last", "/nothing", "/poll?timeout=0", "/readyz"];
    let mut text: String =
        paths.iter().map(|path| request("GET", path, &[], "keep-alive")).collect();
    text += &request("GET", "/events?since=earliest&limit=1", &[], "keep-alive");
    text += &request("GET", "/status", &[], "keep-alive");
    let answer = raw_until_closed(broker.addr(), text.as_bytes()).await;
    let mut from = 0;
    let signs = ["ok", "[{", "not_found", "\"next\"", "ready", "fanlight.hello", "\r\n0\r\n\r\n"];
    for sign in signs {
        let at =
            answer[from..].find(sign).unwrap_or_else(|| panic!("{sign} after {from}: {answer}"));
        from += at + sign.len();
    }
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 6, "{answer}");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_client_that_pipelines_behind_a_stream_and_leaves_is_noticed() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--stream-keepalive=1s"]).await;
    let text = request("GET", "/events", &[], "keep-alive")
        + &request("GET", "/healthz", &[], "keep-alive");
    let mut socket = raw(broker.addr(), text.as_bytes()).await;
    read_head(&mut socket, &mut Vec::new()).await;
    subscribers(&broker, 1).await;
    drop(socket);
    subscribers(&broker, 0).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn accept_decides_between_sse_and_ndjson() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let (sse, ndjson) = ("text/event-stream", "application/x-ndjson");
    let cases = [
        ("", sse),
        ("*/*", sse),
        ("text/event-stream", sse),
        ("text/html,application/xhtml+xml,*/*;q=0.8", sse),
        ("application/x-ndjson", ndjson),
        ("Application/X-NDJSON; q=0.9, */*", ndjson),
        ("application/ndjson", ndjson),
        ("application/jsonl", ndjson),
        ("application/x-ndjson, text/event-stream", sse),
    ];
    for (accept, expected) in cases {
        let stream = Stream::open(broker.addr(), "/events", &[("Accept", accept)]).await;
        let content_type = format!("content-type: {expected}");
        assert!(stream.head.lines().any(|line| line == content_type), "{accept}: {}", stream.head);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_wrong_parameter_is_named_with_what_is_allowed() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let known = "known here are prefix, name, device, last_event_id, since, snapshot, control, limit, format";
    let long = format!("device={}", "x".repeat(129));
    let many = "name=a&".repeat(33);
    let cases = [
        ("prefx=a", format!("unknown parameter `prefx`; {known}")),
        ("Prefix=a", format!("unknown parameter `Prefix`; {known}")),
        ("limit=0", "`limit` is `0`; it must be a whole number from 1".to_owned()),
        ("limit=x", "`limit` is `x`; it must be a whole number from 1".to_owned()),
        ("limit=1&limit=1", "`limit` is given more than once".to_owned()),
        ("snapshot=1", "`snapshot` is `1`; allowed are true, false".to_owned()),
        ("control=", "`control` is ``; allowed are on, off".to_owned()),
        ("format=xml", "`format` is `xml`; allowed are message, particle".to_owned()),
        ("name=", "an empty `name`, which no event can have; leave the parameter out to get all".to_owned()),
        (&long, "a `device` of 129 bytes, at most 128 are allowed".to_owned()),
        (&many, "33 values of `name`, at most 32 are allowed".to_owned()),
        (
            "since=%3Cnow%3E",
            "`since` is `<now>`; it must be an RFC 3339 time such as 2026-11-22T01:02:03Z, a duration back such as 30s, 5m or 2h, or `earliest`".to_owned(),
        ),
    ];
    for (query, description) in cases {
        let accept = [("Accept", "text/event-stream")];
        let answer = get(broker.addr(), &format!("/events?{query}"), &accept).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let body = json!({"error": "invalid_parameter", "error_description": description});
        assert_eq!(answer.json(), body);
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    }
    assert_eq!(broker.hub().subscribers(), 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn an_upstream_event_with_a_reserved_name_reaches_nobody_and_is_counted() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let (mut stream, hello) = Stream::live(broker.addr(), "/events?format=particle").await;
    cloud.publish("fanlight.bye", Some("forged"));
    let seq = publish(&cloud, &broker, "fanlight", "not reserved").await;
    assert_eq!(seq, hello.seq() + 1, "it has no place in the sequence");
    let event = stream.next().await;
    assert_eq!((event.kind.as_str(), event.seq()), ("fanlight", seq));
    let refused = r#"fanlight_upstream_events_refused_total{reason="reserved"}"#;
    assert_eq!(metric(broker.addr(), refused).await, 1.0);
    broker.shutdown().await;
}
