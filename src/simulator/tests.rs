//! The simulated cloud through real sockets, read byte for byte.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use super::*;
use client::*;

mod client;
mod faults;

#[tokio::test]
async fn a_stream_begins_as_the_real_one() {
    let simulator = start(quiet()).await;
    let mut client = Client::open(&simulator, MINE).await;
    assert_eq!(client.status(), 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("connection", "keep-alive"),
    ] {
        assert_eq!(client.header(name), Some(value));
    }
    assert_eq!(client.body_of(5).await, ":ok\n\n");
}

#[tokio::test]
async fn what_is_published_is_queued_to_every_stream_in_order_one_chunk_each() {
    let simulator = start(quiet()).await;
    let mut clients =
        [Client::open(&simulator, MINE).await, Client::open(&simulator, "/v1/events/g").await];
    simulator.publish("greenhouse/a", Some("21.5"));
    simulator.publish_line("greenhouse/b", r#"{"data":"x","coreid":"api"}"#);
    simulator.publish("greenhouse/c", None);
    let account = simulator.account();
    let (id, user) =
        (account["devices"][0]["id"].as_str().unwrap(), account["userid"].as_str().unwrap());
    let rest = format!(
        r#""ttl":60,"published_at":"2026-05-04T09:00:01.104Z","coreid":"{id}","userid":"{user}","version":"#
    );
    for client in &mut clients {
        let body = client.body_with("greenhouse/c\ndata: {\"data\":null").await;
        assert!(
            body.starts_with(&format!(
                ":ok\n\nevent: greenhouse/a\ndata: {{\"data\":\"21.5\",{rest}"
            )),
            "{body}"
        );
        assert!(body.contains("}\n\nevent: greenhouse/b\ndata: {\"data\":\"x\",\"coreid\":\"api\"}\n\nevent: greenhouse/c"));
        assert_eq!(client.chunks.len(), 4);
    }
    assert_eq!((simulator.state().events_published, simulator.state().events_sent), (3, 6));
}

#[tokio::test]
async fn the_prefix_filters_raw_or_encoded() {
    let simulator = start(quiet()).await;
    for path in [
        "/v1/devices/events/a/b",
        "//v1//devices/events/a%2Fb?nonce=0.5",
        "/v1/products/greenhouse-kit/events/a/b",
    ] {
        let mut client = Client::open(&simulator, path).await;
        simulator.publish("a", Some("other"));
        simulator.publish("A/b", Some("other"));
        simulator.publish("a/bc", Some("mine"));
        let body = client.body_with("mine").await;
        assert!(!body.contains("other"), "{path}: {body}");
    }
}

#[tokio::test]
async fn devices_products_and_orgs_are_found_and_strangers_refused() {
    let simulator = start(quiet()).await;
    let account = simulator.account();
    let product = account["product"]["id"].as_u64().unwrap();
    let id = account["devices"][0]["id"].as_str().unwrap();
    let unclaimed = account["devices"][9]["id"].as_str().unwrap();
    for (path, status, error) in [
        (format!("/v1/devices/{id}/events"), 200, ""),
        ("/v1/devices/greenhouse-1/events/".to_owned(), 200, ""),
        (format!("/v1/products/{product}/events"), 200, ""),
        (format!("/v1/products/{product}/devices/{unclaimed}/events/x"), 200, ""),
        ("/v1/orgs/acme-growers/events".to_owned(), 200, ""),
        ("/v1/events".to_owned(), 400, "invalid_request"),
        (format!("/v1/devices/{unclaimed}/events"), 403, "Permission Denied"),
        ("/v1/devices/nobody/events".to_owned(), 403, "Permission Denied"),
        ("/v1/products/nothing/events".to_owned(), 404, "Product not found"),
        ("/v1/orgs/nobody/events".to_owned(), 404, "Organization not found"),
        ("/v1/user".to_owned(), 404, "not_found"),
    ] {
        let mut client = Client::open(&simulator, &path).await;
        assert_eq!(client.status(), status, "{path}");
        if status != 200 {
            assert_eq!(client.json().await["error"], error, "{path}");
        }
    }
}

#[tokio::test]
async fn a_token_is_asked_for_where_there_is_one() {
    let simulator = start(Config { token: Some("not-a-token".to_owned()), ..quiet() }).await;
    let with_query = format!("{MINE}?access_token=not-a-token");
    for (path, headers, status) in [
        (MINE, "Authorization: Bearer not-a-token\r\n", 200),
        (MINE, "authorization: bearer not-a-token\r\nLast-Event-ID: 7\r\n", 200),
        (with_query.as_str(), "", 200),
        (MINE, "Authorization: Bearer wrong\r\n", 401),
        (MINE, "", 401),
    ] {
        let mut client = Client::open_with(&simulator, path, headers).await;
        assert_eq!(client.status(), status, "{path} {headers}");
        if status == 401 {
            assert_eq!(client.json().await["error"], "invalid_token");
        }
    }
    let opens = simulator.state().opens;
    assert_eq!(opens[0].token, Some(fingerprint("not-a-token")));
    assert_eq!((opens[1].last_event_id.as_deref(), opens[2].route.as_str()), (Some("7"), MINE));
    assert_eq!((opens[3].status, opens[4].token.as_deref()), (Some(401), None));
    let state = Client::open(&simulator, "/sim").await.text().await;
    assert!(
        state.contains(&fingerprint("not-a-token")) && !state.contains("not-a-token"),
        "{state}"
    );
}

#[tokio::test]
async fn publishing_through_the_api_comes_back_on_the_stream() {
    let simulator = start(quiet()).await;
    let mut mine = Client::open(&simulator, MINE).await;
    let mut product = Client::open(&simulator, "/v1/products/greenhouse-kit/events").await;
    let json = r#"{"name":"lamp","data":"on","private":true,"ttl":60}"#;
    let mut answer = post(&simulator, MINE, "application/json", json).await;
    assert_eq!((answer.status(), answer.text().await.as_str()), (200, r#"{"ok":true}"#));
    let form = "name=lamp%2Foff&data=a+b";
    let org =
        post(&simulator, "/v1/orgs/acme-growers/events", "application/x-www-form-urlencoded", form)
            .await;
    assert_eq!(org.status(), 200);
    let expected = "event: lamp\ndata: {\"data\":\"on\",\"ttl\":60,\"published_at\":\"2026-05-04T09:00:01.104Z\",\"coreid\":\"api\"}\n\n";
    assert_eq!(mine.body_with("}\n\n").await, format!(":ok\n\n{expected}"));
    let body = product.body_with("}\n\n").await;
    assert!(
        body.starts_with(":ok\n\nevent: lamp/off\ndata: {\"data\":\"a b\",")
            && body.contains("\"coreid\":\"api\"")
    );
    for (path, body, status) in [
        (MINE, r#"{"data":"x"}"#, 400),
        (MINE, r#"{"name":"a\nb"}"#, 400),
        (MINE, "{", 400),
        ("/v1/products/nothing/events", r#"{"name":"x"}"#, 404),
        (MINE, &"x".repeat(70_000), 413),
    ] {
        assert_eq!(
            post(&simulator, path, "application/json", body).await.status(),
            status,
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_gets_a_line_feed_after_nine_to_twelve_seconds() {
    let simulator = start(quiet()).await;
    let mut client = Client::open(&simulator, MINE).await;
    client.body_of(5).await;
    for length in 6..10 {
        let since = Instant::now();
        assert!(client.body_of(length).await.ends_with('\n'));
        let waited = since.elapsed().as_secs_f64();
        assert!((8.9..12.1).contains(&waited), "{waited}");
    }
    assert_eq!(client.body, b":ok\n\n\n\n\n\n");
}

#[tokio::test(start_paused = true)]
async fn devices_publish_at_their_rate() {
    let simulator = start(Config { events_per_second: 2.0, ..quiet() }).await;
    sleep(Duration::from_millis(10_250)).await;
    assert_eq!(simulator.state().events_published, 20);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bytes() {
    let mut bodies = Vec::new();
    for seed in [3, 3, 4] {
        let simulator = start(Config { seed, ..quiet() }).await;
        let mut client = Client::open(&simulator, "/v1/products/greenhouse-kit/events").await;
        simulator.devices_publish(300);
        simulator.fault(FaultKind::Cut);
        assert_eq!(client.end().await, Ended::Clean);
        bodies.push(client.body);
    }
    assert!(bodies[0].len() > 10_000 && bodies[0] == bodies[1] && bodies[0] != bodies[2]);
}

#[tokio::test]
async fn a_stop_resets_and_the_port_can_be_used_again() {
    let simulator = start(quiet()).await;
    let mut client = Client::open(&simulator, MINE).await;
    let mut idle = Client::open(&simulator, "/sim").await;
    idle.text().await;
    simulator.stop().await;
    assert_eq!((client.end().await, idle.end().await), (Ended::Reset, Ended::Reset));
    assert!(TcpStream::connect(simulator.addr()).await.is_err());
    let again = start(Config { listen: simulator.addr(), ..quiet() }).await;
    assert_eq!((again.addr(), Client::open(&again, MINE).await.status()), (simulator.addr(), 200));
}

#[tokio::test]
async fn the_last_handle_ends_it() {
    let simulator = start(quiet()).await;
    let mut client = Client::open(&simulator, MINE).await;
    drop(simulator.clone());
    simulator.publish("x", None);
    client.body_with("event: x").await;
    drop(simulator);
    assert_eq!(client.end().await, Ended::Reset);
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let simulator = start(quiet()).await;
    let mut client = Client::send(&simulator, &format!("GET {MINE} HTTP/1.0\r\n\r\n")).await;
    client.read_head().await;
    simulator.publish_line("a", "{}");
    simulator.fault(FaultKind::Cut);
    while client.read().await.unwrap() > 0 {}
    assert_eq!(client.raw, b":ok\n\nevent: a\ndata: {}\n\n");
}

#[tokio::test]
async fn an_ordinary_client_tells_an_end_from_a_break() {
    let simulator = start(quiet()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let address = format!("{}{MINE}", simulator.url());
    for (kind, clean) in [
        (FaultKind::Cut, true),
        (FaultKind::CutMidEvent { at: Some(9) }, false),
        (FaultKind::Cut, true),
        (FaultKind::Reset, false),
    ] {
        let mut response = client.get(&address).bearer_auth("not-a-token").send().await.unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), ":ok\n\n");
        simulator.publish_line("a", "{}");
        assert_eq!(response.chunk().await.unwrap().unwrap(), "event: a\ndata: {}\n\n");
        simulator.fault(kind.clone());
        let ended = loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert_eq!(ended, clean, "{kind:?}");
    }
    assert_eq!(simulator.state().streams_opened, 4);
}

#[tokio::test]
async fn settings_out_of_bounds_are_named() {
    for (config, name) in [
        (Config { devices: 0, ..quiet() }, "devices is 0"),
        (Config { events_per_second: f64::NAN, ..quiet() }, "events_per_second is NaN"),
        (Config { keepalive: Duration::ZERO, ..quiet() }, "keepalive"),
    ] {
        let error = Simulator::start(config).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("allowed"), "{error}");
    }
    let config = Config { token: Some("not-a-token".to_owned()), ..quiet() };
    assert!(!format!("{config:?}").contains("not-a-token"));
    let simulator = start(config).await;
    assert!(!format!("{simulator:?}").contains("not-a-token"));
}
