//! Long poll on `/poll`.

use fanlight::{server::Broker, simulator::Fault};
use serde_json::{Value, json};

use crate::harness::{
    Answer, ask, broker, get, metric, publish, publish_line, publish_many, quiet_cloud, sample,
    seeded, subscribers, until,
};

async fn poll(broker: &Broker, query: &str) -> Value {
    let answer = get(broker.addr(), &format!("/poll?{query}"), &[]).await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()
}

fn events(answer: &Value) -> &[Value] {
    answer["events"].as_array().unwrap()
}

/// A poll under way: it is a subscriber when this returns.
async fn waiting(broker: &Broker, query: &str) -> tokio::task::JoinHandle<Answer> {
    let (addr, path) = (broker.addr(), format!("/poll?{query}"));
    let before = broker.hub().subscribers();
    let poll = tokio::spawn(async move { get(addr, &path, &[]).await });
    subscribers(broker, before + 1).await;
    poll
}

#[tokio::test]
async fn the_answer_is_whole_json_with_its_length_and_is_not_to_be_kept() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let answer = get(broker.addr(), "/poll?timeout=0", &[]).await;
    let mut lines: Vec<&str> =
        answer.head.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines.sort_unstable();
    let length = format!("content-length: {}", answer.body.len());
    let expected = [
        "cache-control: no-store",
        "connection: close",
        length.as_str(),
        "content-type: application/json",
        "cross-origin-resource-policy: same-origin",
        "http/1.1 200 ok",
        "x-content-type-options: nosniff",
    ];
    assert_eq!(lines, expected);
    let head = broker.hub().head();
    assert_eq!(answer.body, format!(r#"{{"events":[],"next":"{head}","gap":null}}"#));
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_there_is_answered_at_once() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let after = broker.hub().head();
    let first = publish_line(&cloud, &broker, "t", r#"{"data":"2°",  "ttl":60}"#).await;
    publish_line(&cloud, &broker, "u", "21.5").await;
    let answer = get(broker.addr(), &format!("/poll?after={after}&timeout=60"), &[]).await;
    let epoch = broker.hub().epoch();
    let last = first + 1;
    let body = format!(
        r#"{{"events":[{{"id":"{epoch}-{first}","name":"t","data":"2°",  "ttl":60}},{{"id":"{epoch}-{last}","name":"u","raw":"21.5"}}],"next":"{epoch}-{last}","gap":null}}"#
    );
    assert_eq!(answer.body, body);
    broker.shutdown().await;
}

#[tokio::test]
async fn without_anything_it_waits_for_the_next_event_that_passes() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish(&cloud, &broker, "a", "before").await;
    let after = format!("name=a&timeout=60&after={}", broker.hub().head());
    let polls = [waiting(&broker, "name=a&timeout=60").await, waiting(&broker, &after).await];
    publish(&cloud, &broker, "b", "other").await;
    let seq = publish(&cloud, &broker, "a", "now").await;
    for poll in polls {
        let answer = poll.await.unwrap().json();
        assert_eq!(events(&answer).len(), 1, "{answer}");
        assert_eq!(events(&answer)[0]["data"], "now");
        assert_eq!(answer["next"], format!("{}-{seq}", broker.hub().epoch()));
    }
    subscribers(&broker, 0).await;
    let answered = r#"fanlight_subscribers_closed_total{reason="answered"}"#;
    assert_eq!(metric(broker.addr(), answered).await, 2.0);
    broker.shutdown().await;
}

#[tokio::test]
async fn after_the_timeout_the_answer_is_empty_and_next_may_have_advanced() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let poll = waiting(&broker, "name=mine&timeout=1").await;
    publish_many(&cloud, &broker, "other", 5).await;
    let answer = poll.await.unwrap().json();
    let head = broker.hub().head().to_string();
    assert_eq!(answer, json!({"events": [], "next": head, "gap": null}));
    broker.shutdown().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_is_noticed() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let poll = waiting(&broker, "timeout=60").await;
    poll.abort();
    subscribers(&broker, 0).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn prefix_name_and_device_pass_the_same_events() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let after = broker.hub().head();
    let mut polls = Vec::new();
    for (query, expected) in sample::FILTERS {
        let poll = waiting(&broker, &format!("timeout=60&limit=1&{query}")).await;
        polls.push((query, *expected, poll));
    }
    sample::publish_all(&cloud, &broker).await;
    for (query, expected) in sample::FILTERS {
        let answer = poll(&broker, &format!("after={after}&timeout=0&{query}")).await;
        assert_eq!(sample::places(events(&answer)), *expected, "{query}");
        let since = poll(&broker, &format!("since=earliest&control=off&timeout=0&{query}")).await;
        assert_eq!(sample::places(events(&since)), *expected, "{query}");
    }
    for (query, expected, poll) in polls {
        match expected.first() {
            Some(first) => {
                let answer = poll.await.unwrap().json();
                assert_eq!(sample::places(events(&answer)), [*first], "{query}");
            }
            None => assert!(!poll.is_finished(), "{query}"),
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn next_chained_over_many_polls_while_events_come_misses_nothing_and_repeats_nothing() {
    let mut random = seeded();
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let addr = broker.addr();
    let start = broker.hub().head();
    let total = 600;
    let chain = |filter: &'static str, limits: Vec<u64>| {
        tokio::spawn(async move {
            let (mut next, mut received) = (start.to_string(), Vec::new());
            for limit in limits.iter().cycle() {
                let path = format!("/poll?after={next}&limit={limit}&timeout=60&{filter}");
                let answer = get(addr, &path, &[]).await.json();
                assert_eq!(answer["gap"], Value::Null);
                assert!(events(&answer).len() as u64 <= *limit);
                for event in events(&answer) {
                    received.push((event["name"].clone(), event["data"].clone()));
                }
                if received.last().is_some_and(|(name, _)| name == "end") {
                    break;
                }
                next = answer["next"].as_str().unwrap().to_owned();
            }
            received
        })
    };
    let mut limits = || (0..20).map(|_| random.u64(1..40)).collect::<Vec<u64>>();
    let filters = ["", "prefix=a&name=end", "name=b&name=end"];
    let chains = filters.map(|filter| chain(filter, limits()));
    let mut published = Vec::new();
    for number in 0..total {
        let name = ["a", "b", "ab"][random.usize(0..3)];
        publish(&cloud, &broker, name, &number.to_string()).await;
        published.push((json!(name), json!(number.to_string())));
    }
    publish(&cloud, &broker, "end", "end").await;
    published.push((json!("end"), json!("end")));
    for (filter, chain) in filters.into_iter().zip(chains) {
        let mut expected = published.clone();
        match filter.as_bytes().first() {
            Some(b'p') => expected.retain(|(name, _)| name != "b"),
            Some(b'n') => expected.retain(|(name, _)| name == "b" || name == "end"),
            _ => {}
        }
        assert_eq!(chain.await.unwrap(), expected, "{filter}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn limit_and_the_brokers_own_bounds_hold() {
    let cloud = quiet_cloud().await;
    let flags = ["--poll-events-max=5", "--poll-bytes-max=4KiB"];
    let broker = broker(&cloud, &flags).await;
    let epoch = broker.hub().epoch();
    let after = broker.hub().head();
    publish_many(&cloud, &broker, "a", 8).await;
    let first = after.seq.0 + 1;
    let three = poll(&broker, &format!("after={after}&limit=3")).await;
    assert_eq!(sample::places(events(&three)), [0, 1, 2]);
    assert_eq!(three["next"], format!("{epoch}-{}", first + 2));
    let capped = poll(&broker, &format!("after={after}&limit=1000")).await;
    assert_eq!(sample::places(events(&capped)), [0, 1, 2, 3, 4]);

    let after = broker.hub().head();
    for size in [1500, 1500, 9000, 1500] {
        publish_line(&cloud, &broker, "big", &"x".repeat(size)).await;
    }
    let mut sizes = Vec::new();
    let mut next = after.to_string();
    while sizes.iter().map(Vec::len).sum::<usize>() < 4 {
        let answer = poll(&broker, &format!("after={next}")).await;
        sizes.push(
            events(&answer).iter().map(|event| event["raw"].as_str().unwrap().len()).collect(),
        );
        next = answer["next"].as_str().unwrap().to_owned();
    }
    assert_eq!(sizes, [vec![1500, 1500], vec![9000], vec![1500]], "a large one goes alone");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_position_that_cannot_be_honoured_is_answered_with_a_gap_and_a_way_on() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16"]).await;
    publish_many(&cloud, &broker, "a", 40).await;
    let epoch = broker.hub().epoch();
    let (oldest, tail) = (broker.hub().status().oldest.0, broker.hub().status().tail.0);
    let (evicted, future) = (format!("{epoch}-4"), format!("{epoch}-{tail}"));
    let cases = [
        ("evicted", evicted.as_str(), 5, json!(oldest - 5)),
        ("future", &future, 1, Value::Null),
        ("restart", "00000000-3", 1, Value::Null),
        ("malformed", "nonsense", 1, Value::Null),
    ];
    for (reason, requested, from, count) in cases {
        let answer = poll(&broker, &format!("after={requested}&timeout=60")).await;
        let gap = json!({
            "fanlight": "gap", "id": format!("{epoch}-{}", oldest - 1), "reason": reason,
            "requested": requested, "from": from, "to": oldest, "count": count,
            "oldest": oldest, "next": oldest,
        });
        assert_eq!(answer["gap"], gap);
        assert_eq!(events(&answer).len(), 16);
        assert_eq!(answer["next"], format!("{epoch}-{}", tail - 1));
        let narrow = poll(&broker, &format!("after={requested}&timeout=60&name=b")).await;
        assert_eq!((&narrow["gap"], events(&narrow).len()), (&gap, 0), "told at once");
        let next = narrow["next"].as_str().unwrap();
        let on = poll(&broker, &format!("after={next}&timeout=0")).await;
        assert_eq!(on, json!({"events": [], "next": next, "gap": null}));
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn the_header_wins_over_last_event_id_and_that_over_after() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let seq = publish(&cloud, &broker, "a", "0").await;
    publish_many(&cloud, &broker, "a", 3).await;
    let epoch = broker.hub().epoch();
    let id = |past: u64| format!("{epoch}-{}", seq + past);
    let both = format!("/poll?after={}&last_event_id={}", id(2), id(1));
    let count = async |path: &str, header: &str| {
        let headers = [("Last-Event-ID", header)];
        events(&get(broker.addr(), path, &headers).await.json()).len()
    };
    assert_eq!(count(&both, "").await, 2);
    assert_eq!(count(&both, &id(0)).await, 3);
    assert_eq!(count(&format!("/poll?after={}&last_event_id=", id(2)), "").await, 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn control_objects_stand_among_the_events_unless_they_are_not_wanted() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let after = broker.hub().head();
    cloud.fault("cut".parse::<Fault>().unwrap());
    until("live again", || {
        let history = broker.hub().status().upstream_history;
        (history.iter().filter(|change| change.state.as_str() == "live").count() == 2).then_some(())
    })
    .await;
    cloud.streams(1).await;
    publish(&cloud, &broker, "a", "1").await;
    let query = format!("after={after}&timeout=0&name=a");
    let answer = poll(&broker, &query).await;
    let kinds: Vec<&str> =
        events(&answer).iter().map(|event| event["fanlight"].as_str().unwrap_or("event")).collect();
    assert!(kinds.contains(&"upstream") && kinds.contains(&"hole"), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"event"));
    let hole = events(&answer).iter().find(|event| event["fanlight"] == "hole").unwrap();
    let fields: Vec<&str> = hole.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["fanlight", "id", "reason", "since", "until", "count"]);
    let answer = poll(&broker, &(query + "&control=off")).await;
    assert_eq!(events(&answer).len(), 1, "{answer}");
    assert_eq!(answer["next"], broker.hub().head().to_string());
    broker.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_comes_first_and_next_goes_on_behind_it() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    publish_many(&cloud, &broker, "a", 4).await;
    publish_many(&cloud, &broker, "b", 2).await;
    let answer = poll(&broker, "snapshot=true").await;
    assert_eq!(sample::places(events(&answer)), [3, 1]);
    let next = answer["next"].as_str().unwrap();
    assert_eq!(next, broker.hub().head().to_string());
    publish(&cloud, &broker, "a", "9").await;
    let answer = poll(&broker, &format!("snapshot=true&after={next}")).await;
    assert_eq!(sample::places(events(&answer)), [9], "who has a position has the older ones");
    broker.shutdown().await;
}

#[tokio::test]
async fn the_shutdown_answers_at_once() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let head = broker.hub().head().to_string();
    let poll = waiting(&broker, "timeout=60").await;
    assert_eq!(broker.shutdown().await, 0, "nothing had to be cut");
    let answer = poll.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"events": [], "next": head, "gap": null}));
}

#[tokio::test]
async fn a_wrong_parameter_is_named_with_what_is_allowed() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let range = "it must be a whole number from 0 to 3600";
    let known = "known here are prefix, name, device, after, last_event_id, since, snapshot, control, limit, timeout";
    let cases = [
        ("timeout=3601", format!("`timeout` is `3601`; {range}")),
        ("timeout=-1", format!("`timeout` is `-1`; {range}")),
        ("timeout=1.5", format!("`timeout` is `1.5`; {range}")),
        ("timeout=5s", format!("`timeout` is `5s`; {range}")),
        ("timeout=", format!("`timeout` is ``; {range}")),
        ("format=particle", format!("unknown parameter `format`; {known}")),
        ("after=1&after=2", "`after` is given more than once".to_owned()),
    ];
    for (query, description) in cases {
        let answer = get(broker.addr(), &format!("/poll?{query}"), &[]).await;
        assert_eq!(answer.status, 400, "{query}");
        let body = json!({"error": "invalid_parameter", "error_description": description});
        assert_eq!(answer.json(), body);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_timeout_over_the_brokers_own_is_cut_and_a_head_request_does_not_wait() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--poll-timeout-max=1s"]).await;
    let answer = poll(&broker, "timeout=3600").await;
    assert_eq!(events(&answer).len(), 0);
    broker.shutdown().await;
    let broker = crate::harness::broker(&cloud, &[]).await;
    let answer = ask(broker.addr(), "HEAD", "/poll?timeout=600", &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    broker.shutdown().await;
}
