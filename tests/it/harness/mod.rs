//! What every test here needs: a simulated cloud, a broker in this process, a broker as a
//! process of its own, and clients that show exactly what they got.
//!
//! Law: nothing sleeps to wait. Every wait is for a condition, and ends after
//! [`PATIENCE`] with what was seen until then.
// The part of it that one file needs is not what another needs.
#![allow(dead_code, unreachable_pub)]

mod client;
mod process;
pub mod sample;
mod stub;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use fanlight::{
    cli,
    clock::Clock,
    config::{self, Environment},
    model::UpstreamState,
    server::{self, Broker},
    simulator::{self, Simulator},
};

pub use client::{
    Answer, Event, Stream, WebSocket, answer_in, ask, events_in, get, raw, raw_until_closed,
    read_head, request,
};
pub use process::Process;
pub use stub::{Asked, Stub};

/// How long a condition may take before the test fails. Far above anything expected, so
/// that a slow machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Waits until `condition` gives a value, looking again after every turn of the runtime.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Waits until asking gives a value. Each question is a request or the like, so the
/// asking itself takes its time.
pub async fn eventually<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(value) = question().await {
                return value;
            }
        }
    })
    .await
}

/// The value of one sample of `/metrics`, such as `fanlight_gaps_total{reason="evicted"}`.
pub async fn metric(addr: SocketAddr, sample: &str) -> f64 {
    let text = get(addr, "/metrics", &[]).await.body;
    let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {sample} in {text}"))
}

/// A random generator whose seed is printed, so that a failure can be repeated with
/// `FANLIGHT_TEST_SEED`.
pub fn seeded() -> fastrand::Rng {
    let given = std::env::var("FANLIGHT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("FANLIGHT_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// A simulated cloud that says nothing by itself and limits nobody.
pub async fn quiet_cloud() -> Simulator {
    cloud(simulator::Config::default()).await
}

/// A simulated cloud; `config`'s event rate and limits are switched off.
pub async fn cloud(config: simulator::Config) -> Simulator {
    let config = simulator::Config { events_per_second: 0.0, limits: false, ..config };
    Simulator::start(config).await.unwrap()
}

/// A broker in this process on a free port, live on `cloud`. `flags` are those of
/// `fanlight serve`, such as `--ring-events-max=10`.
pub async fn broker(cloud: &Simulator, flags: &[&str]) -> Broker {
    let broker = starting_broker(cloud, flags).await;
    until("the upstream is live", || {
        (broker.hub().upstream_state() == UpstreamState::Live).then_some(())
    })
    .await;
    cloud.streams(1).await;
    broker
}

/// The same, as soon as it listens.
pub async fn starting_broker(cloud: &Simulator, flags: &[&str]) -> Broker {
    let url = format!("--upstream-url={}", cloud.url());
    let flags: Vec<&str> = [url.as_str()].into_iter().chain(flags.iter().copied()).collect();
    broker_with(&flags, |_| {}).await
}

/// Publishes at the cloud and waits until the broker has taken it in.
pub async fn publish(cloud: &Simulator, broker: &Broker, name: &str, data: &str) -> u64 {
    let tail = broker.hub().status().tail;
    cloud.publish(name, Some(data));
    until("the event is taken in", || {
        let now = broker.hub().status().tail;
        (now > tail).then_some(now.0 - 1)
    })
    .await
}

/// Publishes `count` events called `name` with data `0`, `1`, …
pub async fn publish_many(cloud: &Simulator, broker: &Broker, name: &str, count: u64) {
    let tail = broker.hub().status().tail;
    for number in 0..count {
        cloud.publish(name, Some(&number.to_string()));
    }
    until("the events are taken in", || {
        (broker.hub().status().tail.0 >= tail.0 + count).then_some(())
    })
    .await;
}

/// Publishes an event whose data is exactly `json`, and waits until the broker has taken
/// it in.
pub async fn publish_line(cloud: &Simulator, broker: &Broker, name: &str, json: &str) -> u64 {
    let tail = broker.hub().status().tail;
    cloud.publish_line(name, json);
    until("the event is taken in", || {
        let now = broker.hub().status().tail;
        (now > tail).then_some(now.0 - 1)
    })
    .await
}

/// Waits until the broker has `count` subscribers.
pub async fn subscribers(broker: &Broker, count: usize) {
    until(&format!("{count} subscribers"), || (broker.hub().subscribers() == count).then_some(()))
        .await;
}

/// A broker in this process on a free port, as soon as it listens, with these flags of
/// `fanlight serve` alone; `adjust` can go beyond what the settings allow.
pub async fn broker_with(flags: &[&str], adjust: impl FnOnce(&mut server::Config)) -> Broker {
    let flags = ["serve", "--listen=127.0.0.1:0"].iter().chain(flags);
    let matches = config::flags(clap::Command::new("serve")).get_matches_from(flags);
    let loaded = config::load(&matches, &Environment::default()).unwrap();
    let mut config = cli::settings::broker(&loaded).unwrap();
    // Below what the settings allow: the tests' cloud is not to be spared.
    config.upstream.backoff_min = Duration::from_millis(20);
    config.upstream.backoff_max = Duration::from_millis(50);
    adjust(&mut config);
    Broker::start(config, Clock::system()).await.unwrap()
}

/// A folder of a test's own, empty.
pub fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}
