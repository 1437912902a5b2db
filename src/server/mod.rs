//! The broker, put together: the picture of the crate, built from its configuration.

mod accept;
mod admin;
mod allowance;
mod assets;
mod body;
mod description;
mod error;
mod gate;
mod hosts;
mod ingest;
mod key_set;
pub mod keys_file;
mod limits;
mod memory;
mod origin;
mod pace;
mod particle;
mod proxies;
mod publish;
mod routes;
mod shutdown;
mod validator;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    clock::Clock,
    delivery::{
        Listener, WebSocketConfig,
        shard::{self, Shards},
    },
    edge::network::Network,
    hub::{self, Hub},
    log::Log,
    model::{Epoch, Format, Moment, Transport},
    telemetry::Telemetry,
    transport::{self, Account, Ledger, poll},
    upstream::{self, Source, Upstream, publish::Api, token::TokenSource},
};

pub use accept::Config as AcceptConfig;
pub use assets::Config as WebConfig;
pub use gate::{Config as AccessConfig, Need, TokenKeysSource, TokensConfig};
pub use hosts::Hosts;
pub use ingest::Config as IngestConfig;
pub use limits::{Config as LimitsConfig, connections_max_auto, open_files_max};
pub use memory::{Config as MemoryConfig, memory_max_auto};
pub use origin::Origins;
pub use pace::Config as PaceConfig;
pub use publish::Config as PublishConfig;
pub use routes::needs;
pub use shutdown::Shutdown;

use accept::{Connection, Exits, Place, Reception};
use gate::Gate;
use key_set::KeySet;
use limits::Connections;
use proxies::Proxies;
use publish::Desk;
use routes::{Door, Port};

/// Everything a broker is made of.
#[derive(Debug)]
pub struct Config {
    /// Where it listens. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where `/metrics` and `/status` are served, and nowhere else; none for with all the rest.
    pub admin_listen: Option<SocketAddr>,
    /// The proxies that say whose connections they pass on, by the PROXY protocol, with which all
    /// connections to `listen` begin then; none where they begin with HTTP.
    pub proxy_protocol: Option<Vec<Network>>,
    /// The names it answers to.
    pub hosts: Hosts,
    /// The pages that may use it.
    pub origins: Origins,
    /// Times and bounds of connections.
    pub accept: AcceptConfig,
    /// How many connections.
    pub limits: LimitsConfig,
    /// How much memory.
    pub memory: MemoryConfig,
    /// Who may come in.
    pub access: AccessConfig,
    /// Times and bounds of streams.
    pub stream: transport::Config,
    /// Times and bounds of WebSockets.
    pub websocket: WebSocketConfig,
    /// Threads that own sockets and write to them, at most 64; 0 for none, so that each
    /// stream has a task of its own.
    pub shards: usize,
    /// Bounds of polls.
    pub poll: poll::Config,
    /// Where the page comes from.
    pub web: WebConfig,
    /// Bounds of the ring and the newest values.
    pub hub: hub::Config,
    /// Where events come from.
    pub upstream: upstream::Config,
    /// What goes the other way.
    pub publish: PublishConfig,
    /// Webhooks as a second way in.
    pub ingest: IngestConfig,
    /// The source's name in `/status`.
    pub source: &'static str,
    /// How long the end may take.
    pub drain_window: Duration,
    /// How long the upstream may be away before `/readyz` says 503.
    pub ready_after: Duration,
}

/// The broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (setting {setting}): {error}; {}", listen_advice(error))]
    Listen {
        /// The setting that says so.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The system has no room for a thread.
    #[error("cannot start the threads that deliver (setting delivery.shards): {error}")]
    Shards {
        /// Why.
        error: io::Error,
    },
    /// There can be no client for the keys of tokens.
    #[error("cannot ask for access.jwt_jwks_url: {0}")]
    KeySet(reqwest::Error),
    /// The upstream's settings cannot work.
    #[error(transparent)]
    Upstream(#[from] upstream::ConfigError),
}

/// What to do about an address that cannot be listened on.
pub fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it: stop that one, or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: 0.0.0.0 means all it has"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose one above",
        _ => "choose another address",
    }
}

/// What every handler can reach. Clones share it: each request makes a few.
#[derive(Clone, Debug)]
struct App(Arc<Parts>);

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

#[derive(Debug)]
struct Parts {
    hosts: Hosts,
    origins: Origins,
    headers_max: usize,
    memory: MemoryConfig,
    hub: Hub,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    ledger: Arc<Ledger>,
    stream: Arc<transport::Config>,
    shards: Option<Arc<Shards<Place>>>,
    poll: poll::Config,
    web: WebConfig,
    connections: Arc<Connections>,
    gate: Gate,
    upstream: Arc<upstream::Stats>,
    opens_max: u64,
    stale_after: Duration,
    source: &'static str,
    reads: Source,
    publish: Desk,
    ingest: ingest::Desk,
    started: Moment,
    ready_after: Duration,
    shutdown: Shutdown,
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    app: App,
    drain_window: Duration,
}

/// Connections to the port of `server.admin_listen`, beside those that [`limits`] keeps for answers.
const ADMIN_CONNECTIONS_MAX: usize = 16;

/// How often recorded samples are folded into their buckets, and the memory is looked at.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Time between goodbyes, on average: a broker with a few streams ends at once, one
/// with thousands spreads them over the drain window.
const GOODBYE_SPACING: Duration = Duration::from_millis(2);

impl Broker {
    /// Listens, connects upstream and serves, until [`Broker::shutdown`].
    ///
    /// # Errors
    /// If the address cannot be listened on, or the upstream's settings cannot work.
    pub async fn start(config: Config, clock: Clock) -> Result<Broker, StartError> {
        let (listener, addr) = listening("listen", config.listen, &config.accept)?;
        let admin = match config.admin_listen {
            Some(address) => Some(listening("server.admin_listen", address, &config.accept)?),
            None => None,
        };
        let started = clock.now();
        let telemetry = Arc::new(Telemetry::new());
        let log = Log::memory(Epoch::from_bits(fastrand::u64(..)));
        let (hub, publisher) = Hub::new(config.hub, log, telemetry.clone(), started);
        let shutdown = Shutdown::new();
        let upstream = Arc::new(upstream::Stats::default());
        let ledger = Arc::new(Ledger { telemetry: telemetry.clone(), clock: clock.clone() });
        let shards = match config.shards {
            0 => None,
            count => {
                let config = shard::Config {
                    count,
                    write_stall: config.accept.write_stall,
                    websocket: config.websocket.clone(),
                };
                let shards = Shards::start(&config, &hub, &ledger)
                    .map_err(|error| StartError::Shards { error })?;
                Some(Arc::new(shards))
            }
        };
        let upstream_config = &config.upstream;
        let api = match &upstream_config.source {
            Source::Particle { url, .. } => {
                Some(Api::new(url, upstream_config.token.clone(), config.publish.timeout)?)
            }
            Source::Sse { .. } => None,
        };
        let (ingress, deliveries) = match config.ingest.secret {
            TokenSource::None => (None, None),
            TokenSource::Fixed(_) | TokenSource::File(_) => {
                let (ingress, deliveries) = upstream::ingress::ingress();
                (Some(ingress), Some(deliveries))
            }
        };
        let (token_keys_source, tokens) = match config.access.tokens {
            Some(tokens) => (Some(tokens.source), Some((tokens.claims, tokens.keys))),
            None => (None, None),
        };
        let exits = Exits { shards: shards.clone(), websocket: config.websocket };
        let app = App(Arc::new(Parts {
            hosts: config.hosts,
            origins: config.origins,
            headers_max: config.accept.headers_max,
            memory: config.memory,
            hub,
            telemetry: telemetry.clone(),
            clock: clock.clone(),
            ledger,
            stream: Arc::new(config.stream),
            shards,
            poll: config.poll,
            web: config.web,
            connections: Arc::new(Connections::new(config.limits, telemetry.clone())),
            gate: Gate::new(config.access.keys, tokens, telemetry.clone()),
            upstream: upstream.clone(),
            opens_max: config.upstream.opens_max as u64,
            stale_after: config.upstream.stale_after,
            source: config.source,
            reads: config.upstream.source.clone(),
            publish: Desk::new(config.publish, api, started),
            ingest: ingest::Desk::new(config.ingest, ingress),
            started,
            ready_after: config.ready_after,
            shutdown: shutdown.clone(),
        }));
        let upstream =
            Upstream::new(config.upstream, publisher, clock, upstream, deliveries).await?;
        shutdown.spawn(upstream.run(shutdown.finish_token()));
        shutdown.spawn(upkeep(app.clone(), shutdown.clone()));
        if let Some(path) = config.access.keys_file {
            shutdown.spawn(gate::watch(app.clone(), gate::Kind::Api, path, shutdown.clone()));
        }
        match token_keys_source {
            Some(TokenKeysSource::File(path)) => {
                shutdown.spawn(gate::watch(app.clone(), gate::Kind::Token, path, shutdown.clone()));
            }
            Some(TokenKeysSource::Url(url)) => {
                let key_set = KeySet::new(url).map_err(StartError::KeySet)?;
                shutdown.spawn(gate::ask_again(app.clone(), key_set, shutdown.clone()));
            }
            None => {}
        }
        let port = if admin.is_some() { Port::Public } else { Port::Only };
        shutdown.spawn(accept::run(
            listener,
            Reception {
                door: Arc::new(Door::new(app.clone(), port)),
                connections: app.connections.clone(),
                exits: exits.clone(),
                config: config.accept,
                shutdown: shutdown.clone(),
            },
            config.proxy_protocol.map(Proxies::new),
        ));
        let admin_addr = admin.as_ref().map(|(_, addr)| *addr);
        if let Some((listener, _)) = admin {
            // Places of its own: who looks at a broker that is full must not be turned away.
            let limits = LimitsConfig {
                connections_max: ADMIN_CONNECTIONS_MAX,
                connections_per_ip_max: None,
            };
            shutdown.spawn(accept::run(
                listener,
                Reception {
                    door: Arc::new(Door::new(app.clone(), Port::Admin)),
                    connections: Arc::new(Connections::new(limits, app.telemetry.clone())),
                    exits,
                    config: AcceptConfig { pace: PaceConfig::default(), ..config.accept },
                    shutdown: shutdown.clone(),
                },
                None,
            ));
        }
        Ok(Broker { addr, admin_addr, app, drain_window: config.drain_window })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where `/metrics` and `/status` are, if they have a port of their own.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The shared state, to look at.
    pub fn hub(&self) -> &Hub {
        &self.app.hub
    }

    /// The broker's numbers.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.app.telemetry
    }

    /// Says goodbye to every subscriber, each at its own time, and ends within the
    /// drain window. Returns how many connections had to be cut.
    pub async fn shutdown(self) -> usize {
        let subscribers = u32::try_from(self.app.hub.subscribers()).unwrap_or(u32::MAX);
        let stagger = GOODBYE_SPACING.saturating_mul(subscribers).min(self.drain_window);
        self.app.hub.close(self.app.clock.now(), stagger);
        let cut_rest = || self.app.shards.iter().for_each(|shards| shards.stop());
        self.app.shutdown.run(self.drain_window, cut_rest).await
    }
}

fn listening(
    setting: &'static str,
    address: SocketAddr,
    config: &AcceptConfig,
) -> Result<(Listener, SocketAddr), StartError> {
    let bound = accept::bind(address, config)
        .and_then(|listener| listener.local_addr().map(|addr| (listener, addr)));
    bound.map_err(|error| StartError::Listen { setting, address, error })
}

async fn upkeep(app: App, shutdown: Shutdown) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {
                app.telemetry.upkeep();
                app.mind_memory();
            }
            () = shutdown.finishing() => return,
        }
    }
}

impl App {
    /// Turns new connections away and ends those that take nothing, where the memory is short.
    fn mind_memory(&self) {
        let verdict = self.memory_verdict();
        self.connections.memory_is_short(verdict.is_full);
        if let (1.., Some(shards)) = (verdict.surplus, &self.shards) {
            tracing::warn!(
                bytes = verdict.bytes,
                ending = verdict.surplus,
                "the memory is short (limits.memory_max): subscribers that take nothing are ended"
            );
            shards.relieve(verdict.surplus);
        }
    }

    /// What the memory is taken by.
    fn memory_verdict(&self) -> memory::Verdict {
        let status = self.hub.status();
        let streams = self.shards.as_ref().map_or(0, |shards| shards.connections());
        self.memory.judge(memory::Load {
            shared_bytes: status.ring_bytes + status.latest_bytes,
            streams,
            blocked: self.shards.as_ref().map_or(0, |shards| shards.blocked()),
            in_http: self.connections.open().saturating_sub(streams),
        })
    }

    fn account(&self, connection: &Connection, transport: Transport, format: Format) -> Account {
        Account::open(self.ledger.clone(), connection.peer.clone(), transport, format)
    }
}
