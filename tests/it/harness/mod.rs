//! What every test here needs: a simulated cloud, a broker in this process, a broker as a
//! process of its own, and clients that show exactly what they got.
//!
//! Law: nothing sleeps to wait. Every wait is for a condition, and ends after
//! [`PATIENCE`] with what was seen until then.

mod client;
mod process;
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

pub use client::{Answer, Event, Stream, WebSocket, get, raw, raw_until_closed};
pub use process::Process;
pub use stub::Stub;

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

/// Waits until the broker has `count` subscribers.
pub async fn subscribers(broker: &Broker, count: usize) {
    until(&format!("{count} subscribers"), || (broker.hub().subscribers() == count).then_some(()))
        .await;
}

/// Where a test's broker listens, as text.
pub fn host(addr: SocketAddr) -> String {
    addr.to_string()
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

/// The value of a metric, labels included in its name, such as `a_total{reason="x"}`.
pub async fn metric(addr: SocketAddr, name: &str) -> f64 {
    let text = get(addr, "/metrics", &[]).await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// A folder of a test's own, empty.
pub fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}
