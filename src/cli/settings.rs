//! From the effective configuration to each module's own `Config`.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    access::{Claims, Keys, TokenKeys},
    config::Loaded,
    delivery::WebSocketConfig,
    hub,
    model::ring,
    server::{
        AcceptConfig, AccessConfig, Config, Hosts, IngestConfig, LimitsConfig, MemoryConfig,
        Origins, PaceConfig, PublishConfig, TokenKeysSource, TokensConfig, WebConfig,
        connections_max_auto, keys_file, memory_max_auto,
    },
    transport::{self, poll},
    upstream::{
        self, Source,
        particle::Scope,
        token::{Token, TokenSource},
    },
};

use super::Failure;

/// Bound of `delivery.shards`: bits in a group's set of doorbells.
pub const SHARDS_MAX: usize = 64;

/// Time a WebSocket's closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything the broker is made of.
///
/// # Errors
/// For a token that no header can carry, keys that cannot be read, and an address that is open
/// to others while nobody is asked who comes and nobody has said that it is to be so.
pub fn broker(loaded: &Loaded) -> Result<Config, Failure> {
    let age_max = loaded.duration("stream.age_max");
    // Raises the limit of open files, which is needed for a number of one's own too.
    let connections_auto = connections_max_auto();
    let connections_max = loaded.count_opt("limits.connections_max").unwrap_or(connections_auto);
    if connections_max > connections_auto {
        tracing::warn!(
            connections_max,
            connections_auto,
            "limits.connections_max is more than the limit of open files allows (ulimit -n)"
        );
    }
    let per_ip = loaded.count::<usize>("limits.connections_per_ip_max");
    let listen = loaded.address("listen");
    for name in ["publish.enabled", "publish.functions"] {
        if loaded.switch(name) && !listen.ip().is_loopback() {
            tracing::warn!(
                %listen,
                "{name} is on: whoever reaches this port can use the broker's token for it; keep others \
                 out by a proxy or a firewall"
            );
        }
    }
    let access = access(loaded, listen)?;
    Ok(Config {
        listen,
        access,
        admin_listen: loaded.address_opt("server.admin_listen"),
        proxy_protocol: (loaded.choice("server.proxy_protocol") == "on").then(|| {
            let networks = loaded.list("server.trusted_proxies").iter();
            networks.filter_map(|network| network.parse().ok()).collect()
        }),
        hosts: Hosts::new(loaded.list("server.hosts").iter().map(String::as_str)),
        origins: Origins::new(
            loaded.list("server.origins").iter().map(String::as_str),
            loaded.switch("particle.cors"),
        ),
        accept: AcceptConfig {
            header_timeout: loaded.duration("limits.header_timeout"),
            header_bytes_max: loaded.size("limits.header_bytes_max"),
            headers_max: loaded.count("limits.headers_max"),
            pace: PaceConfig {
                per_second: Some(loaded.count("limits.accepts_per_second"))
                    .filter(|count| *count > 0),
                of_address_per_second: Some(loaded.count("limits.accepts_per_ip_per_second"))
                    .filter(|count| *count > 0),
            },
            write_stall: loaded.duration("limits.write_stall"),
            send_buffer_bytes: loaded.size("limits.send_buffer"),
        },
        limits: LimitsConfig {
            connections_max,
            connections_per_ip_max: (per_ip > 0).then_some(per_ip),
        },
        memory: MemoryConfig {
            bytes_max: loaded.size_opt("limits.memory_max").unwrap_or_else(memory_max_auto),
            // Linux takes twice what it is asked for.
            kernel_bytes: 2 * loaded.size::<usize>("limits.send_buffer"),
            unsent_bytes: 2 * loaded.size::<usize>("stream.batch_bytes_max"),
            head_bytes: loaded.size("limits.header_bytes_max"),
        },
        stream: transport::Config {
            keepalive: loaded.duration("stream.keepalive"),
            retry_min: loaded.duration("stream.retry_min"),
            retry_max: loaded.duration("stream.retry_max"),
            batch_bytes_max: loaded.size("stream.batch_bytes_max"),
            checkpoint_after: loaded.duration("stream.checkpoint_after"),
            age_max: (age_max > Duration::ZERO).then_some(age_max),
        },
        websocket: WebSocketConfig {
            ping_interval: loaded.duration("websocket.ping_interval"),
            pong_timeout: loaded.duration("websocket.pong_timeout"),
            message_bytes_max: loaded.size("websocket.message_bytes_max"),
            close_timeout: CLOSE_TIMEOUT,
        },
        shards: loaded.count_opt("delivery.shards").unwrap_or_else(cores),
        poll: poll::Config {
            timeout_max: loaded.duration("poll.timeout_max"),
            events_max: loaded.count("poll.events_max"),
            bytes_max: loaded.size("poll.bytes_max"),
        },
        web: WebConfig { dir: loaded.path_opt("server.web_dir").map(Into::into) },
        hub: hub::Config {
            ring: ring::Limits {
                events_max: loaded.count("ring.events_max"),
                bytes_max: loaded.size("ring.bytes_max"),
            },
            latest_entries_max: loaded.count("latest.entries_max"),
            latest_bytes_max: loaded.size("latest.bytes_max"),
        },
        upstream: upstream(loaded)?,
        publish: PublishConfig {
            enabled: loaded.switch("publish.enabled"),
            functions: loaded.switch("publish.functions"),
            timeout: loaded.duration("publish.timeout"),
            in_flight_max: loaded.count("publish.in_flight_max"),
            per_second: loaded.number("publish.per_second"),
            burst: loaded.count("publish.burst"),
        },
        ingest: IngestConfig {
            secret: secret_of(loaded, "ingest.secret", "ingest.secret_file")?,
            in_flight_max: loaded.count("ingest.in_flight_max"),
        },
        source: loaded.choice("upstream.source"),
        drain_window: loaded.duration("server.drain_window"),
        ready_after: loaded.duration("server.ready_after"),
    })
}

/// Where the keys are kept; none if there is no place for what outlives a restart.
pub(super) fn keys_path(loaded: &Loaded) -> Option<PathBuf> {
    match loaded.path_opt("access.keys_file") {
        Some(path) => Some(path.to_owned()),
        None => loaded.path_opt("state.dir").map(|dir| dir.join("keys.json")),
    }
}

/// Who may come in.
///
/// # Errors
/// If keys cannot be read, or the port would be open to others while nobody is asked.
pub(super) fn access(loaded: &Loaded, listen: SocketAddr) -> Result<AccessConfig, Failure> {
    let mode = loaded.choice("access.mode");
    let is_private = listen.ip().is_loopback();
    if mode == "off" {
        if !is_private {
            tracing::warn!(%listen, "access is off: whoever reaches this port may read every event");
        }
        return Ok(AccessConfig::default());
    }
    let wrong = |error: keys_file::KeysFileError| Failure::Usage(error.to_string());
    let keys_file = keys_path(loaded);
    let keys = keys_file.as_deref().map(keys_file::read).transpose().map_err(wrong)?.flatten();
    let has_keys = keys.as_ref().is_some_and(|keys| !keys.is_empty());
    let tokens = tokens(loaded).map_err(wrong)?;
    if mode == "auto" && !has_keys && tokens.is_none() {
        if is_private {
            return Ok(AccessConfig::default());
        }
        return Err(Failure::Usage(open_to_others(loaded, listen, keys_file.as_deref())));
    }
    if !has_keys && tokens.is_none() {
        tracing::warn!(
            "access is on and there is no key yet: `fanlight token new NAME --read` makes one"
        );
    }
    Ok(AccessConfig { keys: Some(keys.unwrap_or_else(Keys::default)), keys_file, tokens })
}

/// Tokens of others that are good here; none if none are.
fn tokens(loaded: &Loaded) -> Result<Option<TokensConfig>, keys_file::KeysFileError> {
    let (source, keys) = match loaded.path_opt("access.jwt_keys_file") {
        Some(path) => {
            let keys = keys_file::read_token_keys(path)?;
            if keys.skipped > 0 {
                tracing::warn!(
                    path = %path.display(), skipped = keys.skipped,
                    "keys of a kind that is not used here are skipped"
                );
            }
            (TokenKeysSource::File(path.to_owned()), keys)
        }
        None => match loaded.url_opt("access.jwt_jwks_url") {
            Some(url) => (TokenKeysSource::Url(url.clone()), TokenKeys::default()),
            None => return Ok(None),
        },
    };
    let audience = loaded.text("access.jwt_audience").to_owned();
    let issuer = loaded.text_opt("access.jwt_issuer").map(str::to_owned);
    Ok(Some(TokensConfig { source, keys, claims: Claims { audience, issuer } }))
}

/// Why a broker that others can reach does not start as it is.
fn open_to_others(loaded: &Loaded, listen: SocketAddr, path: Option<&Path>) -> String {
    let place = match path {
        Some(path) => format!("it goes into {}", path.display()),
        None => "with --access-keys-file PATH, since state.dir is not set".to_owned(),
    };
    format!(
        "listen = {listen} ({}) can be reached by others, and nobody is asked who comes, since there is no \
         key yet: all of them could read every event\n  either make a key: fanlight token new NAME --read \
         ({place})\n  or, if everyone who reaches the port may read: set access.mode = \"off\" \
         (FANLIGHT_ACCESS_MODE=off, --access-mode=off), or listen on 127.0.0.1",
        loaded.origin("listen")
    )
}

/// Shards where none are configured: one for each core.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS_MAX)
}

/// A secret that is set as `name`, or in the file of `file`.
fn secret_of(loaded: &Loaded, name: &str, file: &str) -> Result<TokenSource, Failure> {
    Ok(match (loaded.secret_opt(name), loaded.path_opt(file)) {
        (Some(secret), _) => TokenSource::Fixed(Token::new(secret.expose()).map_err(|error| {
            Failure::Usage(format!("{name} ({}): {error}", loaded.origin(name)))
        })?),
        (None, Some(path)) => TokenSource::File(path.to_owned()),
        (None, None) => TokenSource::None,
    })
}

/// The upstream's part. For source `demo` the address is filled in once the simulation
/// listens.
pub(super) fn upstream(loaded: &Loaded) -> Result<upstream::Config, Failure> {
    let url = loaded.url("upstream.url").to_string();
    let part = |name: &str| loaded.text_opt(name).unwrap_or_default().to_owned();
    let source = match loaded.choice("upstream.source") {
        "sse" => Source::Sse { url },
        "demo" => Source::Particle { url, scope: Scope::Mine },
        _ => Source::Particle {
            url,
            scope: match loaded.choice("upstream.scope") {
                "device" => Scope::Device { device: part("upstream.device") },
                "product" => Scope::Product { product: part("upstream.product") },
                "product-device" => Scope::ProductDevice {
                    product: part("upstream.product"),
                    device: part("upstream.device"),
                },
                "org" => Scope::Org { org: part("upstream.org") },
                "public" => Scope::Public,
                _ => Scope::Mine,
            },
        },
    };
    let is_demo = loaded.choice("upstream.source") == "demo";
    let token = match is_demo {
        true => TokenSource::None,
        false => secret_of(loaded, "upstream.token", "upstream.token_file")?,
    };
    let state_dir = loaded.path_opt("state.dir").map(std::path::Path::to_owned);
    if state_dir.is_none() && !is_demo {
        tracing::warn!(
            "state.dir is not set and there is no home directory: a restart forgets the connection \
             attempts already made"
        );
    }
    Ok(upstream::Config {
        token,
        prefix: loaded.text_opt("upstream.prefix").filter(|_| !is_demo).map(str::to_owned),
        connect_timeout: loaded.duration("upstream.connect_timeout"),
        stale_after: loaded.duration("upstream.stale_after"),
        probe_after: loaded.duration("upstream.probe_after"),
        age_max: Some(loaded.duration("upstream.age_max")).filter(|age| *age > Duration::ZERO),
        streams: loaded.count("upstream.streams"),
        backoff_min: loaded.duration("upstream.backoff_min"),
        backoff_max: loaded.duration("upstream.backoff_max"),
        opens_max: loaded.count("upstream.opens_max"),
        opens_window: loaded.duration("upstream.opens_window"),
        line_bytes_max: loaded.size("upstream.line_bytes_max"),
        // The simulated cloud locks nobody out, and its port is another each time.
        state_dir: state_dir.filter(|_| !is_demo),
        ..upstream::Config::new(source)
    })
}

/// An address to open in a browser: an address that means "all" is none to connect to.
pub(super) fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}
