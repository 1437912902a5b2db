//! `fanlight bench` as a user meets it.

use std::sync::Arc;

use fanlight::simulator::{Config, Simulator};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::harness::{Process, broker, quiet_cloud, subscribers, until, within};

/// What `fanlight bench` left behind.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It ended with this, and said all of this on standard error.
    fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in\n{}", self.stderr);
        }
    }
}

async fn bench(arguments: &[&str]) -> Done {
    let arguments = [&["bench"], arguments].concat();
    let output = within("its end", Process::command(&arguments).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_events_reach_every_subscriber() {
    let cloud = quiet_cloud().await;
    let (_broker, addr) = Process::serve_live(&cloud.url(), &[]).await;
    let (url, publish) = (format!("http://{addr}"), format!("--publish={}", cloud.url()));
    for transport in ["sse", "websocket"] {
        let (transport_flag, rate) = (format!("--transport={transport}"), "--rate=200");
        let flags = [&url, "--json", "--subscribers=40", "--duration=300ms", &publish, rate];
        let more = [&transport_flag, "--burst=5", "--source=127.0.0.1", "--source=127.0.0.2"];
        let done = bench(&[&flags[..], &more[..], &["--prefix=load/"]].concat()).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        let report = done.json();
        let published = report["published"].as_u64().unwrap();
        assert!(published > 0 && published.is_multiple_of(5), "{report}");
        assert_eq!(report["deliveries"], published * 40, "{report}");
        for (field, expected) in [("connected", 40), ("subscribers", 40), ("events", published)] {
            assert_eq!(report[field], expected, "{field}: {report}");
        }
        let none = ["failed", "lost", "out_of_order", "repeated", "gaps_told", "closed"];
        for field in none {
            assert_eq!(report[field], 0, "{field}: {report}");
        }
        assert_eq!(
            (&report["transport"], &report["interrupted"]),
            (&transport.into(), &false.into())
        );
        for times in [&report["latency"], &report["connect"]] {
            let time = |name: &str| times[name].as_f64().unwrap();
            let all = ["min_ms", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms"].map(time);
            assert!(all[0] > 0.0 && all.is_sorted(), "{report}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_publishing_it_watches_what_comes() {
    let config = Config { events_per_second: 100.0, limits: false, ..Config::default() };
    let cloud = Simulator::start(config).await.unwrap();
    let (_broker, addr) = Process::serve_live(&cloud.url(), &[]).await;
    let url = format!("http://{addr}/events");
    let rate = "--connect-rate=200";
    let done = bench(&[&url, "--subscribers=20", "--duration=1s", rate]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let rest = |name: &str| {
        let line = done.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {done:?}")).trim().to_owned()
    };
    assert_eq!(rest("subscribers"), "20 of 20 connected, over sse");
    assert_eq!(
        (rest("lost"), rest("out of order")),
        ("0".to_owned(), "0, and 0 repeated".to_owned())
    );
    assert!(
        rest("events").contains(" seen, ") && !rest("deliveries").starts_with("0,"),
        "{done:?}"
    );
    assert!(done.stdout.contains("after the first subscriber that got it"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_reported_with_its_reason() {
    let cloud = quiet_cloud().await;
    let flags = ["--limits-connections-max=5"];
    let (_broker, addr) = Process::serve_live(&cloud.url(), &flags).await;
    let (url, publish) = (format!("http://{addr}"), format!("--publish={}", cloud.url()));
    let flags = [&url, "--subscribers=20", "--duration=200ms", "--json"];
    let done = bench(&[&flags[..], &[&publish, "--transport=websocket"]].concat()).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = done.json();
    // The look whether anybody is there may still take a place.
    let connected = report["connected"].as_u64().unwrap();
    assert!((1..=5).contains(&connected), "{report}");
    assert_eq!(report["failed"], 20 - connected);
    assert_eq!(report["reasons"]["HTTP/1.1 503 Service Unavailable"], 20 - connected, "{report}");
    // An event stream is told politely, after a 200.
    let done = bench(&[&flags[..], &[&publish]].concat()).await;
    let report = done.json();
    assert_eq!(report["connected"], 20);
    // The broker may not have noticed yet that those before are gone.
    assert!(report["closed"].as_u64() >= Some(15), "{report}");
    assert_eq!(report["closed"], report["goodbyes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_it_with_the_report() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let url = format!("http://{}", broker.addr());
    let arguments = ["bench", &url, "--subscribers=10", "--duration=1d", "--json"];
    let mut process = Process::start(Process::command(&arguments));
    subscribers(&broker, 10).await;
    process.signal("INT");
    let report: Value = serde_json::from_str(&process.printed("{").await).unwrap();
    assert_eq!(report["interrupted"], true, "{report}");
    assert_eq!(process.ended().await, Some(0));
}

/// A broker of which everyone gets this, once something has been published at `cloud`.
async fn scripted(cloud: Arc<Simulator>, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 4096];
            if matches!(socket.read(&mut head).await, Ok(1..)) {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                socket.write_all(head.as_bytes()).await.unwrap();
                let has_begun = || (cloud.state().events_published > 0).then_some(());
                until("the measurement has begun", has_begun).await;
                socket.write_all(body.as_bytes()).await.unwrap();
                let _ = socket.read(&mut [0; 16]).await;
            }
        }
    });
    url
}

#[tokio::test]
async fn losses_end_with_1() {
    // Far more than can be published: the end is not waited for.
    let skips = "data: fl1:00000000000000000001:00000000000000000001:\n\n\
        data: fl1:00000000001000000000:00000000000000000001:\n\n";
    let cloud = Arc::new(quiet_cloud().await);
    let publish = format!("--publish={}", cloud.url());
    let flags = ["--subscribers=1", "--duration=200ms", "--json", &publish];
    let url = scripted(cloud.clone(), skips).await;
    let done = bench(&[&[url.as_str()], &flags[..]].concat()).await;
    done.fails(1, &["999,999,998 deliveries were lost, and nothing told of it"]);
    assert_eq!(done.json()["lost"], 999_999_998);
    // The same is no loss if the broker tells of it.
    let told = "data: fl1:00000000000000000001:00000000000000000001:\n\n\
        event: fanlight.gap\ndata: {}\n\n\
        data: fl1:00000000001000000000:00000000000000000001:\n\n";
    let cloud = Arc::new(quiet_cloud().await);
    let publish = format!("--publish={}", cloud.url());
    let url = scripted(cloud, told).await;
    let done = bench(&[&[url.as_str(), publish.as_str()], &flags[..3]].concat()).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.json()["deliveries_told_missing"], 999_999_998);
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused() {
    let nobody = "http://127.0.0.1:1";
    bench(&[nobody]).await.fails(1, &["cannot connect to 127.0.0.1:1", "refused"]);
    let cloud = quiet_cloud().await;
    let url = cloud.url();
    let fast = ["--duration=100ms", "--subscribers=3"];
    let done = bench(&[&[url.as_str()], &fast[..]].concat()).await;
    done.fails(1, &["no subscriber could connect"]);
    assert!(done.stdout.contains("failed      3: HTTP/1.1 404"), "{done:?}");
    let broker = broker(&cloud, &[]).await;
    let own = format!("http://{}", broker.addr());
    let wrong = format!("--publish={own}");
    let done = bench(&[&[own.as_str(), wrong.as_str()], &fast[..]].concat()).await;
    done.fails(1, &["cannot publish at ", "HTTP/1.1 403", "is that a simulated cloud?"]);
    bench(&["https://broker.example"]).await.fails(2, &["https is not spoken here"]);
    bench(&[&own, "--subscribers=1000000"]).await.fails(2, &["--subscribers 1000000", "--"]);
    bench(&[&own, "--rate=0"]).await.fails(2, &["--rate", "a number from 0.001"]);
    bench(&[&own, "--source=::1", "--source=127.0.0.1"]).await.fails(2, &["all of IPv4"]);
    bench(&[&own, &wrong, "--device=x"]).await.fails(2, &["cannot be used with"]);
    bench(&[]).await.fails(2, &["<URL>", "--help"]);
}
