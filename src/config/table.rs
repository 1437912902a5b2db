//! The rows: every setting there is. Bounds are justified in docs/configuration.md, whose tables
//! a test compares with these.

use std::time::Duration;

use super::element::Element;
use super::settings::{DefaultValue, Kind, Section, Setting};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Longest name of a device, product, organization or event prefix. Particle's own names are at
/// most 64 bytes; twice that leaves room for other streams.
const NAME_BYTES_MAX: usize = 128;
/// Longest token. Particle's are 40 bytes; signed ones of other streams run to a few thousand, and
/// the whole request head has to fit what servers commonly read, 8 KiB.
const TOKEN_BYTES_MAX: usize = 4096;

/// Most names of the broker; each request is compared with all of them.
const HOSTS_MAX: usize = 64;

/// Most origins of pages; each request of a page is compared with all of them.
const ORIGINS_MAX: usize = 64;

/// Most networks of proxies; each connection is compared with all of them.
const TRUSTED_PROXIES_MAX: usize = 64;

/// The sections in the order of the file, the help and the documentation.
pub(super) const SECTIONS: &[Section] = &[
    Section { name: "", help: "General" },
    Section { name: "upstream", help: "Upstream (where events come from)" },
    Section { name: "ring", help: "Ring (the newest events, kept for those who return)" },
    Section { name: "latest", help: "Latest (the newest event of each name and device)" },
    Section { name: "stream", help: "Stream (every subscriber's stream)" },
    Section { name: "websocket", help: "WebSocket" },
    Section { name: "poll", help: "Poll (long polling)" },
    Section { name: "particle", help: "Particle (the cloud's own routes, for its clients)" },
    Section { name: "publish", help: "Publish (what is passed on to the cloud)" },
    Section { name: "access", help: "Access (who may read, publish and administer)" },
    Section { name: "ingest", help: "Ingest (webhooks, a second way in)" },
    Section { name: "limits", help: "Limits (what one client and all clients may use)" },
    Section { name: "delivery", help: "Delivery (how bytes reach sockets)" },
    Section { name: "server", help: "Server (start and end)" },
    Section { name: "state", help: "State (what outlives a restart)" },
    Section { name: "log", help: "Log (where positions are assigned)" },
    Section { name: "trace", help: "Trace (what the broker says about itself)" },
    Section { name: "demo", help: "Demo (the simulated devices)" },
];

/// Builds the table.
pub(super) fn rows() -> Vec<Setting> {
    use DefaultValue::{Derived, Text, Unset};
    use Kind::{
        Address, Choice, Count, CountOrAuto, Number, Path, Secret, Switch, TraceFilter, Url,
    };

    let row = Setting::new;
    let name = Kind::Text { bytes_max: NAME_BYTES_MAX };
    vec![
        row("", "listen", Address, Text("127.0.0.1:8080"), "Address and port to serve on"),
        row(
            "upstream",
            "source",
            Choice(&["particle", "sse", "demo"]),
            Text("particle"),
            "What events come from: the Particle cloud, any event stream, or simulated devices",
        ),
        row(
            "upstream",
            "url",
            Url,
            Text("https://api.particle.io"),
            "Base address of the Particle API, or the event stream with source sse",
        ),
        row(
            "upstream",
            "token",
            Secret { bytes_max: TOKEN_BYTES_MAX },
            Unset,
            "Access token; other users of the machine can see flags, so prefer token_file",
        ),
        row("upstream", "token_file", Path, Unset, "File that holds the access token"),
        row(
            "upstream",
            "scope",
            Choice(&["mine", "device", "product", "product-device", "org", "public"]),
            Text("mine"),
            "Which of Particle's streams to read",
        ),
        row("upstream", "device", name, Unset, "Device of scope device or product-device"),
        row("upstream", "product", name, Unset, "Product of scope product or product-device"),
        row("upstream", "org", name, Unset, "Organization of scope org"),
        row("upstream", "prefix", name, Unset, "Ask only for event names that begin with this"),
        row(
            "upstream",
            "connect_timeout",
            duration(ms(100), secs(120)),
            Text("15s"),
            "Longest wait for the response head",
        ),
        row(
            "upstream",
            "stale_after",
            duration(secs(1), secs(600)),
            Text("20s"),
            "Silence after which the connection counts as dead; 15s to 90s is advised",
        ),
        row(
            "upstream",
            "probe_after",
            duration(secs(1), secs(600)),
            Text("15s"),
            "Silence after which a second stream is opened, in case the first is dead",
        ),
        row(
            "upstream",
            "age_max",
            duration(Duration::ZERO, secs(7 * 86_400)),
            Text("0s"),
            "Age at which a stream is replaced, the new one first; 0s is never",
        ),
        row(
            "upstream",
            "streams",
            Count { min: 1, max: 2 },
            Text("1"),
            "Streams at all times; with 2 one goes on where the other fails",
        ),
        row(
            "upstream",
            "backoff_min",
            duration(ms(100), secs(600)),
            Text("1s"),
            "First upper bound of the random wait before a new attempt",
        ),
        row(
            "upstream",
            "backoff_max",
            duration(secs(1), secs(3600)),
            Text("60s"),
            "Last upper bound of the random wait before a new attempt",
        ),
        row(
            "upstream",
            "opens_max",
            Count { min: 1, max: 90 },
            Text("40"),
            "Most connections opened within opens_window, restarts included",
        ),
        row(
            "upstream",
            "opens_window",
            duration(secs(300), secs(3600)),
            Text("300s"),
            "Window in which opens_max holds",
        ),
        row(
            "upstream",
            "line_bytes_max",
            size(KIB, 16 * MIB),
            Text("1MiB"),
            "Longest line read; an event with a longer one is dropped and declared as a gap",
        ),
        row(
            "ring",
            "events_max",
            Count { min: 16, max: 10_000_000 },
            Text("100000"),
            "Most events kept",
        ),
        row("ring", "bytes_max", size(64 * KIB, 64 * GIB), Text("64MiB"), "Most bytes kept"),
        row(
            "latest",
            "entries_max",
            Count { min: 1, max: 1_000_000 },
            Text("10000"),
            "Most pairs of event name and device kept",
        ),
        row("latest", "bytes_max", size(64 * KIB, 16 * GIB), Text("16MiB"), "Most bytes kept"),
        row(
            "stream",
            "keepalive",
            duration(secs(1), secs(600)),
            Text("15s"),
            "Silence after which a subscriber gets a keep-alive, give or take a fifth",
        ),
        row(
            "stream",
            "retry_min",
            duration(ms(100), secs(600)),
            Text("1s"),
            "Least wait a client is told to keep before it returns",
        ),
        row(
            "stream",
            "retry_max",
            duration(ms(100), secs(600)),
            Text("5s"),
            "Most wait a client is told to keep before it returns",
        ),
        row(
            "stream",
            "batch_bytes_max",
            size(KIB, MIB),
            Text("16KiB"),
            "Most bytes prepared for one write to one subscriber",
        ),
        row(
            "stream",
            "checkpoint_after",
            duration(secs(1), secs(3600)),
            Text("5m"),
            "Longest time that passes unseen before a narrow filter's position is moved along",
        ),
        row(
            "stream",
            "age_max",
            duration(Duration::ZERO, secs(7 * 86_400)),
            Text("0s"),
            "Age at which a stream is ended so that its client returns; 0s is no limit",
        ),
        row(
            "websocket",
            "ping_interval",
            duration(secs(1), secs(600)),
            Text("25s"),
            "Time between pings",
        ),
        row(
            "websocket",
            "pong_timeout",
            duration(secs(1), secs(120)),
            Text("10s"),
            "Longest wait for the answer to a ping",
        ),
        row(
            "websocket",
            "message_bytes_max",
            size(KIB, MIB),
            Text("16KiB"),
            "Longest message a client may send",
        ),
        row(
            "poll",
            "timeout_max",
            duration(secs(1), secs(600)),
            Text("60s"),
            "Longest wait a client may ask for",
        ),
        row(
            "poll",
            "events_max",
            Count { min: 1, max: 100_000 },
            Text("1000"),
            "Most events in one answer",
        ),
        row(
            "poll",
            "bytes_max",
            size(4 * KIB, 16 * MIB),
            Text("256KiB"),
            "Most bytes in one answer; a single larger event still goes out",
        ),
        row(
            "particle",
            "cors",
            Switch,
            Text("false"),
            "Let web pages of every origin read the streams below /v1",
        ),
        row(
            "publish",
            "enabled",
            Switch,
            Text("false"),
            "Pass events on to the cloud, with the broker's own token, for whoever reaches the port (the demo does)",
        ),
        row(
            "publish",
            "functions",
            Switch,
            Text("false"),
            "Pass calls of devices' functions on to the cloud in the same way",
        ),
        row(
            "publish",
            "timeout",
            duration(secs(1), secs(60)),
            Text("15s"),
            "Longest wait for the cloud's answer",
        ),
        row(
            "publish",
            "in_flight_max",
            Count { min: 1, max: 1000 },
            Text("64"),
            "Most requests passed on at a time",
        ),
        row(
            "publish",
            "per_second",
            Number { min: 0.01, max: 20.0 },
            Text("2"),
            "Requests a second that one IP address may have passed on",
        ),
        row(
            "publish",
            "burst",
            Count { min: 1, max: 200 },
            Text("10"),
            "Requests that one IP address may have passed on at once",
        ),
        row(
            "access",
            "mode",
            Choice(&["auto", "on", "off"]),
            Text("auto"),
            "Ask who comes; auto does once there are keys, and refuses to open a port of others without",
        ),
        row(
            "access",
            "keys_file",
            Path,
            Unset,
            "File of the API keys; keys.json in state.dir if not set",
        ),
        row(
            "access",
            "jwt_keys_file",
            Path,
            Unset,
            "File of the keys that sign JSON Web Tokens: a JSON Web Key Set, or public keys in PEM",
        ),
        row(
            "access",
            "jwt_jwks_url",
            Url,
            Unset,
            "Address of the JSON Web Key Set; https, or http on this machine",
        ),
        row(
            "access",
            "jwt_audience",
            Kind::Text { bytes_max: NAME_BYTES_MAX },
            Unset,
            "What aud of a token must hold",
        ),
        row(
            "access",
            "jwt_issuer",
            Kind::Text { bytes_max: NAME_BYTES_MAX },
            Unset,
            "What iss of a token must be; any if not set",
        ),
        row(
            "ingest",
            "secret",
            Secret { bytes_max: TOKEN_BYTES_MAX },
            Unset,
            "What webhooks show to have their events taken in; prefer secret_file",
        ),
        row(
            "ingest",
            "secret_file",
            Path,
            Unset,
            "File that holds that secret; read again when it changes",
        ),
        row(
            "ingest",
            "in_flight_max",
            Count { min: 1, max: 1000 },
            Text("64"),
            "Most requests of webhooks at a time",
        ),
        row(
            "limits",
            "connections_max",
            CountOrAuto { min: 1, max: 10_000_000 },
            Text("auto"),
            "Most connections at a time; auto follows the limit of open files",
        ),
        row(
            "limits",
            "connections_per_ip_max",
            Count { min: 0, max: 10_000_000 },
            Text("0"),
            "Most connections of one IP address; 0 is no limit of its own",
        ),
        row(
            "limits",
            "memory_max",
            Kind::SizeOrAuto { min: 32 * MIB, max: 1024 * GIB },
            Text("auto"),
            "Most memory of all connections, the ring and the newest values; auto is half of what there is",
        ),
        row(
            "limits",
            "write_stall",
            duration(secs(1), secs(600)),
            Text("20s"),
            "Longest time a subscriber may take no bytes while some wait for it",
        ),
        row(
            "limits",
            "header_timeout",
            duration(ms(100), secs(120)),
            Text("5s"),
            "Longest time a request head may take to arrive",
        ),
        row(
            "limits",
            "header_bytes_max",
            size(8 * KIB, MIB),
            Text("16KiB"),
            "Longest request head",
        ),
        row(
            "limits",
            "headers_max",
            Count { min: 8, max: 100 },
            Text("64"),
            "Most headers of a request",
        ),
        row(
            "limits",
            "accepts_per_second",
            Count { min: 0, max: 1_000_000 },
            Text("10000"),
            "Connections taken a second, and as many at once; the others wait; 0 is no limit",
        ),
        row(
            "limits",
            "accepts_per_ip_per_second",
            Count { min: 0, max: 1_000_000 },
            Text("0"),
            "Connections a second of one IP address, thrice as many at once; 0 is no limit of its own",
        ),
        row(
            "limits",
            "send_buffer",
            size(4 * KIB, 4 * MIB),
            Text("32KiB"),
            "Send buffer asked of the kernel for each connection",
        ),
        row(
            "delivery",
            "shards",
            CountOrAuto { min: 0, max: 64 },
            Text("auto"),
            "Threads that own subscribers' sockets; auto is the number of cores",
        ),
        row(
            "server",
            "drain_window",
            duration(Duration::ZERO, secs(600)),
            Text("10s"),
            "Time over which goodbyes are spread at shutdown",
        ),
        row(
            "server",
            "ready_after",
            duration(secs(1), secs(3600)),
            Text("60s"),
            "Time without a live upstream after which /readyz answers 503",
        ),
        row(
            "server",
            "hosts",
            Kind::List { element: Element::Host, count_max: HOSTS_MAX },
            Unset,
            "Names the broker answers to, beside addresses and names without a dot",
        ),
        row(
            "server",
            "origins",
            Kind::List { element: Element::Origin, count_max: ORIGINS_MAX },
            Unset,
            "Origins whose web pages may use the broker, beside its own",
        ),
        row(
            "server",
            "admin_listen",
            Address,
            Unset,
            "Address and port of /metrics and /status, which are then nowhere else",
        ),
        row(
            "server",
            "trusted_proxies",
            Kind::List { element: Element::Network, count_max: TRUSTED_PROXIES_MAX },
            Unset,
            "Networks of the proxies that may say whose connections they pass on",
        ),
        row(
            "server",
            "proxy_protocol",
            Choice(&["off", "on"]),
            Text("off"),
            "Connections to listen begin with the PROXY protocol, and only those are served",
        ),
        row(
            "server",
            "web_dir",
            Path,
            Unset,
            "Folder to serve the page from in place of the built-in one; for working on the page",
        ),
        row(
            "state",
            "dir",
            Path,
            Derived(
                "$STATE_DIRECTORY, else $XDG_STATE_HOME/fanlight, else $HOME/.local/state/fanlight",
            ),
            "Directory for what outlives a restart, such as the count of upstream opens",
        ),
        row("log", "engine", Choice(&["memory"]), Text("memory"), "What keeps the log"),
        row(
            "trace",
            "format",
            Choice(&["auto", "text", "json"]),
            Text("auto"),
            "Form of the trace; auto is text on a terminal and JSON elsewhere",
        ),
        row("trace", "level", TraceFilter, Text("info"), "What to trace: a level or directives"),
        row("demo", "devices", Count { min: 1, max: 10_000 }, Text("12"), "Simulated devices"),
        row(
            "demo",
            "events_per_second",
            Number { min: 0.01, max: 10_000.0 },
            Text("2"),
            "Events a second, of all devices together",
        ),
        row(
            "demo",
            "seed",
            Count { min: 0, max: u64::MAX },
            Unset,
            "Seed that makes the simulation repeatable",
        ),
    ]
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn duration(min: Duration, max: Duration) -> Kind {
    Kind::Duration { min, max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}
