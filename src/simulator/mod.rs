//! A Particle cloud in a box: simulated devices behind the real cloud's HTTP routes, with failures
//! on request.
//!
//! The demo, `fanlight simulate` and the tests use it as the upstream, always through a real
//! socket. What goes over that socket is what the real cloud sends, byte for byte in its form:
//! `:ok` first, one data line an event, a bare line feed as keep-alive. Of this
//! crate it knows `clock` alone.
//!
//! ```text
//! device    what the devices publish            ┐ pure; the same seed gives the same events
//! wire      an event as bytes                   │
//! route     paths, and who hears whom           │
//! fault     failures and their text form        │
//! agenda    which is due when                   │
//! refusal   what an open gets instead           ┘
//! cloud     streams, events, faults, limits: one lock, time comes in
//! stream    one stream's mailbox and writer
//! server    the port, connections, clocks
//! api       requests and their answers
//! ```
//!
//! Control, without a token: `GET /sim` tells the state, `GET /sim/devices` the account, `POST
//! /sim/faults` takes faults (see [`Fault`]), `DELETE /sim/faults` clears them. Whoever reaches the
//! port controls the simulation.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

pub use fault::{
    BURST_MAX, FAULT_COUNT_MAX, FAULT_PERIOD_MIN, FAULT_TIME_MAX, Fault, FaultError, FaultKind,
    OVERSIZE_BYTES_MAX, REFUSAL_STATUSES, RetryAfter,
};
pub use state::{Open, State, fingerprint};

use cloud::Cloud;
use device::Account;
use route::Origin;
use server::Shared;

mod agenda;
mod api;
mod cloud;
mod device;
mod fault;
mod picture;
mod refusal;
mod route;
mod server;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

/// The most devices.
pub const DEVICES_MAX: usize = 10_000;
/// The most events per second of all devices together.
pub const EVENTS_PER_SECOND_MAX: f64 = 100_000.0;

/// How the cloud is simulated.
#[derive(Clone)]
pub struct Config {
    /// Where to listen. Default: loopback, a free port.
    pub listen: SocketAddr,
    /// How many devices: 1 to [`DEVICES_MAX`]. Default 12.
    pub devices: usize,
    /// Events per second of all devices together: 0 (none) to [`EVENTS_PER_SECOND_MAX`]. Default 2.
    pub events_per_second: f64,
    /// The same seed gives the same devices and the same sequence of events. Default 1.
    pub seed: u64,
    /// The only token accepted, as a bearer or as `access_token`. Default none: any token is, and
    /// so is no token.
    pub token: Option<String>,
    /// A silent stream gets a line feed this long after its last byte, and up to a third later: 1
    /// ms to 1 h. Default 9 s, as the real cloud.
    pub keepalive: Duration,
    /// Whether the real cloud's limits hold: 100 opens in 300 s (refused ones count) and 100
    /// streams, else 529. They are for all addresses together. Default true. Without them 1,000
    /// streams can be open.
    pub limits: bool,
    /// Faults asked for at the start.
    pub faults: Vec<Fault>,
    /// The clock that stamps `published_at`.
    pub wall: fn() -> Timestamp,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            devices: 12,
            events_per_second: 2.0,
            seed: 1,
            token: None,
            keepalive: Duration::from_secs(9),
            limits: true,
            faults: Vec::new(),
            wall: wall_now,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("devices", &self.devices)
            .field("events_per_second", &self.events_per_second)
            .field("seed", &self.seed)
            .field("token", &self.token.as_deref().map(fingerprint))
            .field("keepalive", &self.keepalive)
            .field("limits", &self.limits)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// A running simulation. Clones are handles to the same one; it ends when the last is dropped, or
/// at [`stop`](Simulator::stop).
#[derive(Clone)]
#[must_use = "the simulation ends when its last handle is dropped"]
pub struct Simulator {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").field("addr", &self.inner.addr).finish_non_exhaustive()
    }
}

impl Simulator {
    /// Binds and runs; returns when listening. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] names the setting that is out of bounds; else the address
    /// cannot be bound.
    pub async fn start(config: Config) -> io::Result<Simulator> {
        check(&config)?;
        let listener = server::listen(config.listen)?;
        let addr = listener.local_addr()?;
        let account = Account::new(config.devices, config.seed);
        let cloud = Cloud::new(account, config.token, config.limits, Instant::now());
        let shared = Arc::new(Shared::new(cloud, config.wall, config.keepalive));
        let (stop, stopping) = watch::channel(false);
        let (done_sender, done) = watch::channel(false);
        tokio::spawn(server::conduct(shared.clone(), config.events_per_second, stopping.clone()));
        tokio::spawn(server::accept(listener, shared.clone(), stopping, done_sender));
        let simulator = Simulator { inner: Arc::new(Inner { shared, addr, stop, done }) };
        config.faults.into_iter().for_each(|fault| simulator.fault(fault));
        Ok(simulator)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// The base of its addresses, without a slash at the end: `http://127.0.0.1:8081`.
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.addr)
    }

    /// The first device publishes this. It is claimed and on the product, so every stream gets it
    /// but those of other devices and those with another prefix. When this returns, the bytes are
    /// queued on each.
    ///
    /// The name is written as it is; `data` is JSON-escaped, and `null` if absent.
    pub fn publish(&self, name: &str, data: Option<&str>) {
        self.inner.shared.with(|cloud, now, wall| cloud.device_publishes(name, data, now, wall));
    }

    /// An event with exactly this data line, for every stream whose prefix it has.
    pub fn publish_line(&self, name: &str, json: &str) {
        let bytes = wire::event_bytes(name, json);
        self.inner
            .shared
            .with(|cloud, now, _| cloud.publish_bytes(name, &bytes, Origin::Everywhere, now));
    }

    /// The next `count` events of the devices' sequence, at once: what the clock does at its rate.
    pub fn devices_publish(&self, count: u32) {
        self.inner.shared.with(|cloud, now, wall| cloud.devices_publish(count, now, wall));
    }

    /// Bytes to every open stream, as they are, as one HTTP chunk.
    pub fn raw(&self, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.inner.shared.with(|cloud, now, _| cloud.raw(&bytes, now));
    }

    /// Asks for a fault. One that is due has happened when this returns, unless it waits for a
    /// stream or an open. With 256 pending, it is not taken on but counted
    /// ([`State::faults_refused`]).
    pub fn fault(&self, fault: impl Into<Fault>) {
        let fault = fault.into();
        self.inner.shared.with(|cloud, now, wall| cloud.arm(fault, now, wall));
    }

    /// Forgets all faults, those at work too: the deaf hear again, the drip flows.
    pub fn clear_faults(&self) {
        self.inner.shared.with(|cloud, _, _| cloud.clear_faults());
    }

    /// What has happened so far.
    pub fn state(&self) -> State {
        self.inner.shared.with(|cloud, now, _| cloud.state(now))
    }

    /// The account as JSON, as under `GET /sim/devices`: user, product, organization, devices.
    pub fn account(&self) -> serde_json::Value {
        self.inner.shared.with(|cloud, _, _| state::account_json(cloud.account()))
    }

    /// Waits until exactly so many streams are open.
    pub async fn streams(&self, count: usize) {
        // The sender lives as long as `self`.
        let _ = self.inner.shared.streams_open.subscribe().wait_for(|open| *open == count).await;
    }

    /// Waits until at least so many opens were asked for, refused ones included.
    pub async fn opens(&self, count: u64) {
        let _ = self.inner.shared.opens_total.subscribe().wait_for(|total| *total >= count).await;
    }

    /// Closes the port and resets every connection; returns when that is done. The same address can
    /// then be listened on again.
    pub async fn stop(&self) {
        self.inner.stop.send_replace(true);
        let _ = self.inner.done.clone().wait_for(|done| *done).await;
    }
}

fn check(config: &Config) -> io::Result<()> {
    let wrong = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if !(1..=DEVICES_MAX).contains(&config.devices) {
        return wrong(format!("devices is {}, allowed is 1 to {DEVICES_MAX}", config.devices));
    }
    if !(0.0..=EVENTS_PER_SECOND_MAX).contains(&config.events_per_second) {
        let rate = config.events_per_second;
        return wrong(format!(
            "events_per_second is {rate}, allowed is 0 to {EVENTS_PER_SECOND_MAX}"
        ));
    }
    if !(Duration::from_millis(1)..=Duration::from_secs(3_600)).contains(&config.keepalive) {
        return wrong(format!("keepalive is {:?}, allowed is 1ms to 1h", config.keepalive));
    }
    Ok(())
}

fn wall_now() -> Timestamp {
    let ms = i64::try_from(crate::clock::wall_ms()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}
