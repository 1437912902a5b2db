//! Every metric of the broker; nothing else names one.
//!
//! Law: no label comes from the network, every histogram has buckets, and each
//! broker has a registry of its own, so that two in one process do not mix.
//! [`METRICS`] is the list that docs/metrics.md is checked against.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::model::{
    CloseReason, Format, GapReason, HoleReason, Transport, UpstreamState, event::EventError,
};

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

/// A metric's entry in the list.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: MetricKind,
    /// The name of its label, if it has one or two.
    pub labels: &'static [&'static str],
    /// One line, as shown by `/metrics`.
    pub help: &'static str,
}

macro_rules! metrics_list {
    ($($kind:ident $constant:ident = $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(const $constant: &str = $name;)*
        /// Every metric the broker itself registers, by name. Those of the process
        /// (`fanlight_process_…`) come from the `metrics-process` crate.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

metrics_list! {
    Gauge BUILD_INFO = "fanlight_build_info" ["version"] "Always 1; the label says which version runs";
    Gauge UPSTREAM_STATE = "fanlight_upstream_state" ["state"] "1 for the state the upstream connection is in, 0 for the others";
    Gauge UPSTREAM_LAST_BYTE_AGE = "fanlight_upstream_last_byte_age_seconds" [] "Seconds since the last byte from upstream";
    Gauge UPSTREAM_SILENCE_MAX = "fanlight_upstream_silence_max_seconds" [] "Longest silence seen on a connection that went on";
    Gauge UPSTREAM_OPENS_IN_WINDOW = "fanlight_upstream_opens_in_window" [] "Opens counted against the budget now";
    Gauge UPSTREAM_OPENS_MAX = "fanlight_upstream_opens_max" [] "Opens the budget allows in its window";
    Gauge UPSTREAM_STREAMS = "fanlight_upstream_streams" [] "Upstream streams open now";
    Counter UPSTREAM_COPIES = "fanlight_upstream_copies_total" [] "Events dropped because another stream had brought them";
    Counter UPSTREAM_TWINS = "fanlight_upstream_twins_total" [] "Events passed on that equal another one, while streams were compared";
    Counter UPSTREAM_OVERFLOWS = "fanlight_upstream_window_overflows_total" [] "Events that a second stream had not brought when they were forgotten";
    Counter UPSTREAM_EVENTS = "fanlight_upstream_events_total" [] "Events received from upstream";
    Counter UPSTREAM_BYTES = "fanlight_upstream_bytes_total" [] "Bytes received from upstream";
    Counter UPSTREAM_OPENS = "fanlight_upstream_opens_total" ["outcome"] "Attempts to open the upstream stream";
    Counter UPSTREAM_HOLES = "fanlight_upstream_holes_total" ["reason"] "Windows without a healthy upstream connection";
    Counter UPSTREAM_HOLE_SECONDS = "fanlight_upstream_hole_seconds_total" ["reason"] "Seconds without a healthy upstream connection";
    Counter UPSTREAM_REFUSED = "fanlight_upstream_events_refused_total" ["reason"] "Upstream events not passed on";
    Counter RECORDS_APPENDED = "fanlight_records_appended_total" ["kind"] "Records given a position";
    Gauge RING_EVENTS = "fanlight_ring_events" [] "Records held by the ring";
    Gauge RING_BYTES = "fanlight_ring_bytes" [] "Bytes held by the ring";
    Gauge RING_OLDEST_AGE = "fanlight_ring_oldest_age_seconds" [] "Age of the oldest record held";
    Counter RING_EVICTIONS = "fanlight_ring_evictions_total" [] "Records evicted from the ring";
    Gauge LATEST_ENTRIES = "fanlight_latest_entries" [] "Newest values held, one per event name and device";
    Gauge LATEST_BYTES = "fanlight_latest_bytes" [] "Bytes held by the newest values";
    Counter LATEST_EVICTIONS = "fanlight_latest_evictions_total" [] "Newest values forgotten because there were too many";
    Gauge GROUPS = "fanlight_groups" [] "Different filters in use";
    Gauge SUBSCRIBERS = "fanlight_subscribers" ["transport", "format"] "Subscribers connected";
    Counter SUBSCRIBERS_OPENED = "fanlight_subscribers_opened_total" ["transport"] "Subscriptions begun";
    Counter SUBSCRIBERS_CLOSED = "fanlight_subscribers_closed_total" ["reason"] "Subscriptions ended";
    Gauge SUBSCRIBER_LAG_MAX = "fanlight_subscriber_lag_max_events" [] "Records the slowest subscriber is behind";
    Counter DELIVERIES = "fanlight_deliveries_total" ["transport"] "Events handed to subscribers' connections";
    Counter DELIVERED_BYTES = "fanlight_delivered_bytes_total" ["transport"] "Bytes of the writes that carried events";
    Counter BATCHES = "fanlight_batches_total" ["transport"] "Writes to subscribers' connections that carried events";
    Counter GAPS = "fanlight_gaps_total" ["reason"] "Gaps told to a subscriber of its own; those of upstream events are records, see fanlight_upstream_events_refused_total";
    Histogram DELIVERY_LATENCY = "fanlight_delivery_latency_seconds" [] "From taking an event in to handing it to a subscriber's connection, live events only, one sample a write";
    Gauge CONNECTIONS = "fanlight_connections" [] "Client connections open";
    Gauge CONNECTIONS_MAX = "fanlight_connections_max" [] "Client connections allowed";
    Gauge MEMORY_ACCOUNTED = "fanlight_memory_accounted_bytes" [] "Memory of the ring, the newest values and all connections, as limits.memory_max counts it";
    Gauge MEMORY_MAX = "fanlight_memory_max_bytes" [] "Memory that these may take";
    Counter CONNECTIONS_ACCEPTED = "fanlight_connections_accepted_total" [] "Client connections accepted";
    Counter REQUESTS = "fanlight_requests_total" ["status"] "Requests answered, by class of status";
    Counter LIMITS_REACHED = "fanlight_limits_reached_total" ["limit"] "Times a limit turned something away";
    Counter PUBLISHES = "fanlight_publishes_total" ["outcome"] "Requests to publish or to call a function, by what came of them";
    Counter ACCESSES = "fanlight_accesses_total" ["outcome"] "Requests that had to say who asks, by what came of it; none while access is off";
    Counter WEBHOOKS = "fanlight_webhooks_total" ["outcome"] "Requests of webhooks, by what came of them";
    Counter WEBHOOK_STREAM_COPIES = "fanlight_webhook_stream_copies_total" [] "Events of the stream dropped because a webhook had brought them";
    Counter WEBHOOK_OVERFLOWS = "fanlight_webhook_overflows_total" [] "Events forgotten before a webhook could bring them, because there were too many";
    Counter PANICS = "fanlight_panics_total" [] "Panics: each is a bug of the broker";
}

/// Bounds of the latency buckets: from a quiet loopback (about 50 µs) to the
/// longest stall allowed by default (20 s).
const LATENCY_BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0];

/// Why an upstream event was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its name cannot be passed on.
    Name,
    /// Its name is reserved.
    Reserved,
    /// Its data cannot be passed on.
    Data,
    /// It was too large.
    Oversize,
}

impl Refusal {
    const ALL: [Refusal; 4] = [Refusal::Name, Refusal::Reserved, Refusal::Data, Refusal::Oversize];

    fn as_str(self) -> &'static str {
        match self {
            Refusal::Name => "name",
            Refusal::Reserved => "reserved",
            Refusal::Data => "data",
            Refusal::Oversize => "oversize",
        }
    }
}

impl From<EventError> for Refusal {
    fn from(error: EventError) -> Refusal {
        match error {
            EventError::Name => Refusal::Name,
            EventError::Reserved => Refusal::Reserved,
            EventError::Data => Refusal::Data,
        }
    }
}

/// A limit that can turn something away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `limits.connections_max`.
    Connections,
    /// `limits.connections_per_ip_max`.
    ConnectionsPerIp,
    /// Connections over `limits.connections_max` and the reserve for refusals.
    Accept,
    /// `limits.write_stall`.
    WriteStall,
    /// `limits.accepts_per_second`.
    AcceptRate,
    /// `limits.accepts_per_ip_per_second`.
    AcceptRatePerIp,
    /// A connection without a good PROXY header, or of none of `server.trusted_proxies`.
    ProxyHeader,
    /// `limits.headers_max`.
    Headers,
    /// A body where none is read.
    Body,
    /// `limits.memory_max`.
    Memory,
}

impl Limit {
    const ALL: [Limit; 10] = [
        Limit::Connections,
        Limit::ConnectionsPerIp,
        Limit::Accept,
        Limit::WriteStall,
        Limit::AcceptRate,
        Limit::AcceptRatePerIp,
        Limit::ProxyHeader,
        Limit::Headers,
        Limit::Body,
        Limit::Memory,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Limit::Connections => "connections",
            Limit::ConnectionsPerIp => "connections-per-ip",
            Limit::Accept => "accept",
            Limit::WriteStall => "write-stall",
            Limit::AcceptRate => "accept-rate",
            Limit::AcceptRatePerIp => "accept-rate-per-ip",
            Limit::ProxyHeader => "proxy-header",
            Limit::Headers => "headers",
            Limit::Body => "body",
            Limit::Memory => "memory",
        }
    }
}

/// What came of a request to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The cloud took it.
    Accepted,
    /// The cloud refused it.
    Refused,
    /// The cloud could not be reached or gave no answer.
    Unanswered,
    /// The broker refused it: too much at a time.
    Limited,
    /// The broker refused it: not switched on, or nothing that the cloud would take.
    Invalid,
}

impl PublishOutcome {
    const ALL: [PublishOutcome; 5] = [
        PublishOutcome::Accepted,
        PublishOutcome::Refused,
        PublishOutcome::Unanswered,
        PublishOutcome::Limited,
        PublishOutcome::Invalid,
    ];

    fn as_str(self) -> &'static str {
        match self {
            PublishOutcome::Accepted => "accepted",
            PublishOutcome::Refused => "refused",
            PublishOutcome::Unanswered => "unanswered",
            PublishOutcome::Limited => "limited",
            PublishOutcome::Invalid => "invalid",
        }
    }
}

/// What came of a request that had to say who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessOutcome {
    /// It was let in.
    Accepted,
    /// It came without a credential.
    Missing,
    /// Its credential was not good, or stood where none may.
    Refused,
    /// Its credential does not allow what it asked for.
    Denied,
}

impl AccessOutcome {
    const ALL: [AccessOutcome; 4] = [
        AccessOutcome::Accepted,
        AccessOutcome::Missing,
        AccessOutcome::Refused,
        AccessOutcome::Denied,
    ];

    fn as_str(self) -> &'static str {
        match self {
            AccessOutcome::Accepted => "accepted",
            AccessOutcome::Missing => "missing",
            AccessOutcome::Refused => "refused",
            AccessOutcome::Denied => "denied",
        }
    }
}

/// What came of a webhook's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// Its event was passed on.
    Accepted,
    /// Its event was there already.
    Copy,
    /// It did not show the secret, or there is none.
    Unauthorized,
    /// It was none, or did not say which event it is.
    Invalid,
    /// There was no room for it.
    Limited,
}

impl WebhookOutcome {
    const ALL: [WebhookOutcome; 5] = [
        WebhookOutcome::Accepted,
        WebhookOutcome::Copy,
        WebhookOutcome::Unauthorized,
        WebhookOutcome::Invalid,
        WebhookOutcome::Limited,
    ];

    fn as_str(self) -> &'static str {
        match self {
            WebhookOutcome::Accepted => "accepted",
            WebhookOutcome::Copy => "copy",
            WebhookOutcome::Unauthorized => "unauthorized",
            WebhookOutcome::Invalid => "invalid",
            WebhookOutcome::Limited => "limited",
        }
    }
}

/// The broker's numbers.
pub struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    process: metrics_process::Collector,

    /// Events received from upstream.
    pub upstream_events: Counter,
    upstream_streams: Gauge,
    upstream_copies: Counter,
    upstream_twins: Counter,
    upstream_overflows: Counter,
    upstream_bytes: Counter,
    upstream_state: [Gauge; UpstreamState::ALL.len()],
    upstream_last_byte_age: Gauge,
    upstream_silence_max: Gauge,
    upstream_opens_in_window: Gauge,
    upstream_opens_max: Gauge,
    upstream_holes: [Counter; HoleReason::ALL.len()],
    upstream_hole_seconds: [Counter; HoleReason::ALL.len()],
    /// Exact lengths, of which the counters show whole seconds.
    upstream_hole_ms: [AtomicU64; HoleReason::ALL.len()],
    upstream_refused: [Counter; Refusal::ALL.len()],

    /// Events given a position.
    pub events_appended: Counter,
    /// Control records given a position.
    pub controls_appended: Counter,
    ring_events: Gauge,
    ring_bytes: Gauge,
    ring_oldest_age: Gauge,
    ring_evictions: Counter,
    latest_entries: Gauge,
    latest_bytes: Gauge,
    latest_evictions: Counter,
    groups: Gauge,

    subscribers: [[Gauge; Format::ALL.len()]; Transport::ALL.len()],
    subscribers_opened: [Counter; Transport::ALL.len()],
    subscribers_closed: [Counter; CloseReason::ALL.len()],
    subscriber_lag_max: Gauge,
    deliveries: [Counter; Transport::ALL.len()],
    delivered_bytes: [Counter; Transport::ALL.len()],
    batches: [Counter; Transport::ALL.len()],
    gaps: [Counter; GapReason::ALL.len()],
    delivery_latency: Histogram,
    totals: Mirrored,

    /// Client connections open.
    pub connections: Gauge,
    connections_max: Gauge,
    memory_accounted: Gauge,
    memory_max: Gauge,
    /// Client connections accepted.
    pub connections_accepted: Counter,
    requests: [Counter; 5],
    limits_reached: [Counter; Limit::ALL.len()],
    publishes: [Counter; PublishOutcome::ALL.len()],
    accesses: [Counter; AccessOutcome::ALL.len()],
    webhooks: [Counter; WebhookOutcome::ALL.len()],
    webhook_stream_copies: Counter,
    webhook_overflows: Counter,
    /// Panics of the broker.
    pub panics: Counter,
}

/// The counters that are also shown elsewhere: a recorder's own cannot be read back.
#[derive(Debug, Default)]
struct Mirrored {
    opened: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    gaps: [AtomicU64; GapReason::ALL.len()],
    deliveries: AtomicU64,
    delivered_bytes: AtomicU64,
}

/// What subscribers came, left and got since the start.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Subscriptions begun.
    pub opened: u64,
    /// Subscriptions ended, by reason.
    pub closed: [(CloseReason, u64); CloseReason::ALL.len()],
    /// Gaps told, by reason.
    pub gaps: [(GapReason, u64); GapReason::ALL.len()],
    /// Events handed to connections.
    pub deliveries: u64,
    /// Bytes of the writes that carried them.
    pub delivered_bytes: u64,
}

/// Numbers that are read when someone asks, not counted as they come.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// Records held by the ring.
    pub ring_events: usize,
    /// Bytes held by the ring.
    pub ring_bytes: usize,
    /// Age of the oldest record.
    pub ring_oldest_age: Duration,
    /// Records evicted since the start.
    pub ring_evictions: u64,
    /// Newest values held.
    pub latest_entries: usize,
    /// Bytes of the newest values.
    pub latest_bytes: usize,
    /// Newest values forgotten since the start.
    pub latest_evictions: u64,
    /// Different filters in use.
    pub groups: usize,
    /// Records the slowest subscriber is behind.
    pub lag_max: u64,
    /// State of the upstream connection.
    pub upstream_state: Option<UpstreamState>,
    /// Time since the last byte; none if there was none yet.
    pub upstream_last_byte_age: Option<Duration>,
    /// Longest silence on a connection that went on.
    pub upstream_silence_max: Duration,
    /// Upstream streams open.
    pub upstream_streams: u64,
    /// Events dropped because another stream had brought them.
    pub upstream_copies: u64,
    /// Equal events passed on while streams were compared.
    pub upstream_twins: u64,
    /// Events that a second stream had not brought when they were forgotten.
    pub upstream_overflows: u64,
    /// Events of the stream dropped because a webhook had brought them.
    pub webhook_stream_copies: u64,
    /// Events forgotten before a webhook could bring them.
    pub webhook_overflows: u64,
    /// Bytes received from upstream.
    pub upstream_bytes: u64,
    /// Attempts to open the upstream stream, by outcome.
    pub upstream_opens: Vec<(&'static str, u64)>,
    /// Opens counted against the budget now.
    pub upstream_opens_in_window: u64,
    /// Opens the budget allows.
    pub upstream_opens_max: u64,
    /// Client connections allowed.
    pub connections_max: usize,
    /// Memory of the ring, the newest values and all connections.
    pub memory_accounted: usize,
    /// Memory that these may take.
    pub memory_max: usize,
}

// === impl Telemetry ===

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry::new()
    }
}

impl Telemetry {
    /// A registry with every metric at zero.
    pub fn new() -> Telemetry {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&LATENCY_BUCKETS)
            .expect("the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        for metric in METRICS {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                MetricKind::Counter => recorder.describe_counter(name, None, help),
                MetricKind::Gauge => recorder.describe_gauge(name, None, help),
                MetricKind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
        let process = metrics_process::Collector::new("fanlight_");
        metrics::with_local_recorder(&recorder, || process.describe());

        let gauge = |name, labels: &[(&'static str, &'static str)]| {
            recorder.register_gauge(&key(name, labels), &METADATA)
        };
        let counter = |name, labels: &[(&'static str, &'static str)]| {
            recorder.register_counter(&key(name, labels), &METADATA)
        };
        gauge(BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        Telemetry {
            upstream_events: counter(UPSTREAM_EVENTS, &[]),
            upstream_streams: gauge(UPSTREAM_STREAMS, &[]),
            upstream_copies: counter(UPSTREAM_COPIES, &[]),
            upstream_twins: counter(UPSTREAM_TWINS, &[]),
            upstream_overflows: counter(UPSTREAM_OVERFLOWS, &[]),
            upstream_bytes: counter(UPSTREAM_BYTES, &[]),
            upstream_state: UpstreamState::ALL
                .map(|state| gauge(UPSTREAM_STATE, &[("state", state.as_str())])),
            upstream_last_byte_age: gauge(UPSTREAM_LAST_BYTE_AGE, &[]),
            upstream_silence_max: gauge(UPSTREAM_SILENCE_MAX, &[]),
            upstream_opens_in_window: gauge(UPSTREAM_OPENS_IN_WINDOW, &[]),
            upstream_opens_max: gauge(UPSTREAM_OPENS_MAX, &[]),
            upstream_holes: HoleReason::ALL
                .map(|reason| counter(UPSTREAM_HOLES, &[("reason", reason.as_str())])),
            upstream_hole_seconds: HoleReason::ALL
                .map(|reason| counter(UPSTREAM_HOLE_SECONDS, &[("reason", reason.as_str())])),
            upstream_hole_ms: HoleReason::ALL.map(|_| AtomicU64::new(0)),
            upstream_refused: Refusal::ALL
                .map(|reason| counter(UPSTREAM_REFUSED, &[("reason", reason.as_str())])),
            events_appended: counter(RECORDS_APPENDED, &[("kind", "event")]),
            controls_appended: counter(RECORDS_APPENDED, &[("kind", "control")]),
            ring_events: gauge(RING_EVENTS, &[]),
            ring_bytes: gauge(RING_BYTES, &[]),
            ring_oldest_age: gauge(RING_OLDEST_AGE, &[]),
            ring_evictions: counter(RING_EVICTIONS, &[]),
            latest_entries: gauge(LATEST_ENTRIES, &[]),
            latest_bytes: gauge(LATEST_BYTES, &[]),
            latest_evictions: counter(LATEST_EVICTIONS, &[]),
            groups: gauge(GROUPS, &[]),
            subscribers: Transport::ALL.map(|transport| {
                Format::ALL.map(|format| {
                    let labels = [("transport", transport.as_str()), ("format", format.as_str())];
                    // Only pairs that exist are registered; the rest count into the void.
                    let exists = match transport {
                        Transport::Sse => format != Format::Json,
                        Transport::Particle => format == Format::Particle,
                        Transport::Ndjson | Transport::WebSocket | Transport::Poll => {
                            format == Format::Json
                        }
                    };
                    if exists { gauge(SUBSCRIBERS, &labels) } else { Gauge::noop() }
                })
            }),
            subscribers_opened: Transport::ALL
                .map(|transport| counter(SUBSCRIBERS_OPENED, &[("transport", transport.as_str())])),
            subscribers_closed: CloseReason::ALL.map(|reason| {
                // Who is turned away because the broker is full was never a subscriber.
                let labels = [("reason", reason.as_str())];
                let exists = reason != CloseReason::Full;
                if exists { counter(SUBSCRIBERS_CLOSED, &labels) } else { Counter::noop() }
            }),
            subscriber_lag_max: gauge(SUBSCRIBER_LAG_MAX, &[]),
            deliveries: Transport::ALL
                .map(|transport| counter(DELIVERIES, &[("transport", transport.as_str())])),
            delivered_bytes: Transport::ALL
                .map(|transport| counter(DELIVERED_BYTES, &[("transport", transport.as_str())])),
            batches: Transport::ALL
                .map(|transport| counter(BATCHES, &[("transport", transport.as_str())])),
            gaps: GapReason::ALL.map(|reason| {
                // Gaps of upstream events are records: they are told to everyone alike.
                let exists = !matches!(reason, GapReason::Oversize | GapReason::Refused);
                let labels = [("reason", reason.as_str())];
                if exists { counter(GAPS, &labels) } else { Counter::noop() }
            }),
            delivery_latency: recorder.register_histogram(&key(DELIVERY_LATENCY, &[]), &METADATA),
            connections: gauge(CONNECTIONS, &[]),
            connections_max: gauge(CONNECTIONS_MAX, &[]),
            memory_accounted: gauge(MEMORY_ACCOUNTED, &[]),
            memory_max: gauge(MEMORY_MAX, &[]),
            connections_accepted: counter(CONNECTIONS_ACCEPTED, &[]),
            requests: ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| counter(REQUESTS, &[("status", class)])),
            publishes: PublishOutcome::ALL
                .map(|outcome| counter(PUBLISHES, &[("outcome", outcome.as_str())])),
            accesses: AccessOutcome::ALL
                .map(|outcome| counter(ACCESSES, &[("outcome", outcome.as_str())])),
            webhooks: WebhookOutcome::ALL
                .map(|outcome| counter(WEBHOOKS, &[("outcome", outcome.as_str())])),
            webhook_stream_copies: counter(WEBHOOK_STREAM_COPIES, &[]),
            webhook_overflows: counter(WEBHOOK_OVERFLOWS, &[]),
            limits_reached: Limit::ALL
                .map(|limit| counter(LIMITS_REACHED, &[("limit", limit.as_str())])),
            panics: counter(PANICS, &[]),
            recorder,
            handle,
            totals: Mirrored::default(),
            process,
        }
    }

    /// A hole was declared.
    pub fn hole(&self, reason: HoleReason, window: Duration) {
        self.upstream_holes[reason as usize].increment(1);
        let ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let total_ms = self.upstream_hole_ms[reason as usize].fetch_add(ms, Ordering::Relaxed) + ms;
        self.upstream_hole_seconds[reason as usize].absolute(total_ms / 1000);
    }

    /// An upstream event was not passed on.
    pub fn refused(&self, reason: Refusal) {
        self.upstream_refused[reason as usize].increment(1);
    }

    /// A subscriber came; the guard's end is its leaving.
    pub fn subscriber_opened(&self, transport: Transport, format: Format) {
        self.subscribers_opened[transport as usize].increment(1);
        self.totals.opened.fetch_add(1, Ordering::Relaxed);
        self.subscribers[transport as usize][format as usize].increment(1);
    }

    /// A subscriber left.
    pub fn subscriber_closed(&self, transport: Transport, format: Format, reason: CloseReason) {
        self.subscribers_closed[reason as usize].increment(1);
        self.totals.closed[reason as usize].fetch_add(1, Ordering::Relaxed);
        self.subscribers[transport as usize][format as usize].decrement(1);
    }

    /// Writes with events in them were handed to connections.
    pub fn delivered(&self, transport: Transport, writes: u64, events: u64, bytes: u64) {
        self.deliveries[transport as usize].increment(events);
        self.delivered_bytes[transport as usize].increment(bytes);
        self.batches[transport as usize].increment(writes);
        self.totals.deliveries.fetch_add(events, Ordering::Relaxed);
        self.totals.delivered_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// From taking a live event in to handing it to a connection, the same for `writes`.
    pub fn delivery_latency(&self, latency: Duration, writes: usize) {
        self.delivery_latency.record_many(latency.as_secs_f64(), writes);
    }

    /// A subscriber was told of a gap.
    pub fn gap(&self, reason: GapReason) {
        self.gaps[reason as usize].increment(1);
        self.totals.gaps[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The totals of subscribers now. Each is read on its own; they are not one instant.
    pub fn totals(&self) -> Totals {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Totals {
            opened: read(&self.totals.opened),
            closed: CloseReason::ALL
                .map(|reason| (reason, read(&self.totals.closed[reason as usize]))),
            gaps: GapReason::ALL.map(|reason| (reason, read(&self.totals.gaps[reason as usize]))),
            deliveries: read(&self.totals.deliveries),
            delivered_bytes: read(&self.totals.delivered_bytes),
        }
    }

    /// A limit turned something away.
    pub fn limit_reached(&self, limit: Limit) {
        self.limits_reached[limit as usize].increment(1);
    }

    /// A request to publish has come to an end.
    pub fn publish(&self, outcome: PublishOutcome) {
        self.publishes[outcome as usize].increment(1);
    }

    /// A request was let in or not.
    pub fn access(&self, outcome: AccessOutcome) {
        self.accesses[outcome as usize].increment(1);
    }

    /// A webhook's request has come to an end.
    pub fn webhook(&self, outcome: WebhookOutcome) {
        self.webhooks[outcome as usize].increment(1);
    }

    /// A request was answered with an HTTP status.
    pub fn request(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.requests[class].increment(1);
    }

    /// The text of `/metrics`, with the given readings.
    pub fn render(&self, readings: &Readings) -> String {
        self.ring_events.set(readings.ring_events as f64);
        self.ring_bytes.set(readings.ring_bytes as f64);
        self.ring_oldest_age.set(readings.ring_oldest_age.as_secs_f64());
        self.ring_evictions.absolute(readings.ring_evictions);
        self.latest_entries.set(readings.latest_entries as f64);
        self.latest_bytes.set(readings.latest_bytes as f64);
        self.latest_evictions.absolute(readings.latest_evictions);
        self.groups.set(readings.groups as f64);
        self.subscriber_lag_max.set(readings.lag_max as f64);
        for (state, gauge) in UpstreamState::ALL.iter().zip(&self.upstream_state) {
            gauge.set(if readings.upstream_state == Some(*state) { 1.0 } else { 0.0 });
        }
        let age = readings.upstream_last_byte_age.map_or(f64::NAN, |age| age.as_secs_f64());
        self.upstream_last_byte_age.set(age);
        self.upstream_silence_max.set(readings.upstream_silence_max.as_secs_f64());
        self.upstream_streams.set(readings.upstream_streams as f64);
        self.upstream_copies.absolute(readings.upstream_copies);
        self.upstream_twins.absolute(readings.upstream_twins);
        self.upstream_overflows.absolute(readings.upstream_overflows);
        self.webhook_stream_copies.absolute(readings.webhook_stream_copies);
        self.webhook_overflows.absolute(readings.webhook_overflows);
        self.upstream_bytes.absolute(readings.upstream_bytes);
        for (outcome, count) in &readings.upstream_opens {
            let key = key(UPSTREAM_OPENS, &[("outcome", outcome)]);
            self.recorder.register_counter(&key, &METADATA).absolute(*count);
        }
        self.upstream_opens_in_window.set(readings.upstream_opens_in_window as f64);
        self.upstream_opens_max.set(readings.upstream_opens_max as f64);
        self.connections_max.set(readings.connections_max as f64);
        self.memory_accounted.set(readings.memory_accounted as f64);
        self.memory_max.set(readings.memory_max as f64);
        metrics::with_local_recorder(&self.recorder, || self.process.collect());
        self.handle.render()
    }

    /// Folds recorded samples into their buckets. Call it every second or so: between
    /// calls each sample takes 8 bytes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

const METADATA: Metadata<'static> = Metadata::new("fanlight", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
    Key::from_parts(name, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there_from_the_start_with_its_labels() {
        let readings = Readings { upstream_opens: vec![("live", 0)], ..Readings::default() };
        let text = Telemetry::new().render(&readings);
        for metric in METRICS {
            assert!(text.contains(&format!("# HELP {} ", metric.name)), "{}", metric.name);
            let sample = text
                .lines()
                .find(|line| {
                    let name = line.split(['{', ' ']).next().unwrap_or_default();
                    name == metric.name || name == format!("{}_count", metric.name)
                })
                .unwrap_or_else(|| panic!("no sample of {}", metric.name));
            for label in metric.labels {
                assert!(sample.contains(&format!("{label}=\"")), "{sample}");
            }
        }
        assert!(text.contains("fanlight_process_"), "the process's own numbers:\n{text}");
    }

    #[test]
    fn names_follow_the_conventions() {
        for metric in METRICS {
            assert!(metric.name.starts_with("fanlight_"), "{}", metric.name);
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == MetricKind::Counter, "{}", metric.name);
        }
    }

    #[test]
    fn latency_has_buckets() {
        let telemetry = Telemetry::new();
        telemetry.delivery_latency(Duration::from_millis(3), 1);
        telemetry.upkeep();
        let text = telemetry.render(&Readings::default());
        assert!(
            text.contains("fanlight_delivery_latency_seconds_bucket{le=\"0.005\"} 1"),
            "{text}"
        );
    }
}
