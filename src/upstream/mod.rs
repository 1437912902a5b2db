//! How events come in: a connection to the Particle cloud, or to any event stream; for a while, or
//! always, two.
//!
//! ```text
//!  schedule   when to try again, and how often at most      pure
//!  supervise  the life of the connections, holes            pure
//!  merge      two streams made one: copies and twins        pure
//!  particle   addresses and headers                         pure
//!  decode     bytes to events                               pure
//!  token      where the secret is kept                      reads a file
//!  budget     the opens of earlier processes                keeps a file
//!  connection one request and what its answer means         HTTP client
//!  driver     carries out what `supervise` decides          the one task
//!  publish    what goes the other way                       HTTP client
//!  webhook    an event as a webhook posts it                pure
//!  paths      stream and webhooks made one                  pure
//!  ingress    the queue of webhooks to the driver
//!  stats      what all of that counts
//! ```
//!
//! The law: what the stream brings is published in its order; a time without a healthy
//! connection is told as a hole, once; and no server is asked more often than it allows.

pub mod merge;
pub mod schedule;
pub mod supervise;

pub mod decode;
pub mod particle;

pub mod budget;
pub mod token;

mod connection;
mod driver;
pub mod ingress;
pub mod paths;
pub mod publish;
#[cfg(test)]
mod simulation;
pub mod stats;
pub mod webhook;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use url::Url;

use crate::{
    clock::Clock,
    hub::Publisher,
    upstream::{
        budget::Ledger,
        connection::Connector,
        decode::{Decoder, Limits},
        driver::{Driver, Outlet},
        ingress::Deliveries,
        merge::{Lane, Merge},
        particle::{AddressError, Scope},
        supervise::{Policy, Supervision},
        token::TokenSource,
    },
};

pub use driver::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
pub use stats::{OUTCOMES, Stats};

/// Where the Particle cloud is.
pub const PARTICLE_URL: &str = "https://api.particle.io";

/// What to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The Particle cloud.
    Particle {
        /// Base of the API, such as [`PARTICLE_URL`].
        url: String,
        /// Whose events.
        scope: Scope,
    },
    /// Any URL that speaks `text/event-stream`. Its `id:` is handed back on reconnect, its
    /// `retry:` is a floor for the backoff.
    Sse {
        /// The stream itself.
        url: String,
    },
}

/// The upstream's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// What to connect to.
    pub source: Source,
    /// What to show there.
    pub token: TokenSource,
    /// Event-name prefix asked of the Particle cloud; `None` or empty for all.
    pub prefix: Option<String>,
    /// Most time from the connection attempt to the head of the answer, redirects included.
    pub connect_timeout: Duration,
    /// A connection without a byte for this long is dead. The cloud sends one each 9–13 s.
    pub stale_after: Duration,
    /// Streams kept open at all times: 1, or 2 for one to go on where the other fails. Two cost
    /// twice the traffic and opens.
    pub streams: usize,
    /// A silence after which a single stream has a second one opened beside it, in case it is dead.
    /// Not below `stale_after`: never. Above the 13 s of the cloud's keep-alives.
    pub probe_after: Duration,
    /// Age at which a stream is replaced, with an overlap; `None`: never.
    pub age_max: Option<Duration>,
    /// How long both are read when a stream is replaced: [`supervise::OVERLAP`], less in tests.
    pub overlap: Duration,
    /// First ceiling of the backoff after a cut or failure.
    pub backoff_min: Duration,
    /// Last ceiling of that backoff.
    pub backoff_max: Duration,
    /// Most opens in `opens_window`. The cloud allows 100 to one public address, shared with
    /// everything else behind it.
    pub opens_max: usize,
    /// The window of `opens_max`.
    pub opens_window: Duration,
    /// Longest line kept, in bytes; an event may have twice as much. Longer ones are declared.
    pub line_bytes_max: usize,
    /// Where the record of opens lives; `None` keeps it in memory.
    pub state_dir: Option<PathBuf>,
}

/// Why the upstream cannot start. Each message names the setting.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A prefix where nothing understands it.
    #[error("upstream.prefix is `{0}`, but only source `particle` has one; subscribers can filter")]
    Prefix(String),
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client; are root certificates installed on this machine?")]
    Client(#[source] reqwest::Error),
}

impl Config {
    /// A configuration with the defaults of the interface.
    pub fn new(source: Source) -> Config {
        Config {
            source,
            token: TokenSource::None,
            prefix: None,
            connect_timeout: Duration::from_secs(15),
            stale_after: Duration::from_secs(20),
            streams: 1,
            probe_after: Duration::from_secs(15),
            age_max: None,
            overlap: supervise::OVERLAP,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            opens_max: 40,
            opens_window: Duration::from_secs(300),
            line_bytes_max: 1 << 20,
            state_dir: None,
        }
    }

    /// The address of the stream, or what is wrong with the settings that make it.
    pub fn address(&self) -> Result<Url, ConfigError> {
        let prefix = self.prefix.as_deref().filter(|prefix| !prefix.is_empty());
        match (&self.source, prefix) {
            (Source::Particle { url, scope }, prefix) => {
                Ok(particle::events_url(url, scope, prefix)?)
            }
            (Source::Sse { .. }, Some(prefix)) => Err(ConfigError::Prefix(prefix.to_owned())),
            (Source::Sse { url }, None) => Ok(particle::parse_url(url)?),
        }
    }
}

/// The upstream, ready to run.
pub struct Upstream {
    driver: Driver<Publisher>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

impl Upstream {
    /// Checks the configuration; nothing is connected yet. `webhooks` is where events come from
    /// beside the stream, if they do.
    ///
    /// # Errors
    /// For a configuration that cannot work.
    pub async fn new(
        config: Config,
        publisher: Publisher,
        clock: Clock,
        stats: Arc<Stats>,
        webhooks: Option<Deliveries>,
    ) -> Result<Upstream, ConfigError> {
        let mut driver = driver(config, publisher, clock, stats).await?;
        driver.webhooks = webhooks;
        Ok(Upstream { driver })
    }

    /// Keeps the connection and publishes what it brings, until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        self.driver.drive(stop).await;
    }
}

async fn driver<O: Outlet>(
    config: Config,
    outlet: O,
    clock: Clock,
    stats: Arc<Stats>,
) -> Result<Driver<O>, ConfigError> {
    let now = clock.now();
    let url = config.address()?;
    let authority = particle::authority(&url);
    if url.scheme() == "http" && config.token != TokenSource::None && !connection::is_loopback(&url)
    {
        warn!(%authority, "upstream.url is plain http: the token travels unencrypted");
    }
    let advice = config.token.advice();
    let connector = Connector::new(url, config.connect_timeout, advice, clock.clone())
        .map_err(ConfigError::Client)?;
    let policy = Policy {
        backoff_min: config.backoff_min,
        backoff_max: config.backoff_max,
        stale_after: config.stale_after,
        probe_after: config.probe_after,
        age_max: config.age_max,
        streams: config.streams,
        overlap: config.overlap,
    };
    let held_detail = format!(
        "our own limit of {} connection attempts in {} s is used up (attempts before a restart \
         count); waiting so that {authority} does not lock this address",
        config.opens_max,
        config.opens_window.as_secs()
    );
    let (opens_max, window) = (config.opens_max, config.opens_window);
    Ok(Driver {
        outlet,
        stats,
        supervision: Supervision::new(policy, fastrand::Rng::new(), now),
        ledger: Ledger::open(config.state_dir, authority, opens_max, window, now).await,
        connector,
        decoders: Lane::ALL.map(|_| {
            Decoder::new(Limits {
                line_bytes_max: config.line_bytes_max,
                event_bytes_max: config.line_bytes_max.saturating_mul(2),
            })
        }),
        merge: Merge::new(),
        merging: false,
        webhooks: None,
        newest: Lane::A,
        token_source: config.token,
        resumes: matches!(config.source, Source::Sse { .. }),
        held_detail,
        staged: 0,
        clock,
    })
}
