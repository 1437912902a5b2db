//! What operators and their machines look at: metrics, health, readiness, status.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use serde_json::{Value, json};

use crate::{
    hub::UpstreamChange,
    model::{Hole, Moment, Transport, UpstreamState, moment::WallTime},
    telemetry::Readings,
};

use super::{App, error::Error};

/// Subscribers that `/status` names: the ones furthest behind.
pub(super) const SLOWEST_SHOWN: usize = 10;

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let now = app.clock.now();
    let status = app.hub.status();
    let slowest = app.hub.subscriber_statuses().into_iter().map(|one| one.lag_events).max();
    let upstream = app.upstream.snapshot();
    let age = |at: Moment| now.since(at);
    let readings = Readings {
        ring_events: status.ring_events,
        ring_bytes: status.ring_bytes,
        ring_oldest_age: status.oldest_at.map_or(Duration::ZERO, age),
        ring_evictions: status.evicted,
        latest_entries: status.latest_entries,
        latest_bytes: status.latest_bytes,
        latest_evictions: status.latest_evicted,
        groups: status.groups,
        lag_max: slowest.unwrap_or(0),
        upstream_state: Some(status.upstream.state),
        upstream_last_byte_age: upstream.last_byte.map(age),
        upstream_silence_max: Duration::from_micros(upstream.silence_max_us),
        upstream_streams: upstream.streams,
        upstream_copies: upstream.merged.copies,
        upstream_twins: upstream.merged.twins,
        upstream_overflows: upstream.merged.overflows,
        webhook_stream_copies: upstream.by_webhook.of_stream,
        webhook_overflows: upstream.by_webhook.overflows,
        upstream_bytes: upstream.bytes,
        upstream_opens: upstream
            .opens
            .iter()
            .map(|(outcome, count)| (outcome.as_str(), *count))
            .collect(),
        upstream_opens_in_window: upstream.opens_in_window,
        upstream_opens_max: app.opens_max,
        connections_max: app.connections.config().connections_max,
        memory_accounted: app.memory_verdict().bytes,
        memory_max: app.memory.bytes_max,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, app.telemetry.render(&readings)).into_response()
}

/// `GET /healthz`: the process is alive.
pub(super) async fn healthz() -> Response {
    json_response(&json!({ "status": "ok" }))
}

/// `GET /readyz`: ready to serve, or why not.
pub(super) async fn readyz(State(app): State<App>) -> Result<Response, Error> {
    if app.hub.closing().is_some() {
        return Err(Error::NotReady { reason: "the broker is shutting down".to_owned() });
    }
    let now = app.clock.now();
    let status = app.hub.status();
    if status.upstream.state == UpstreamState::Live {
        return Ok(json_response(&json!({ "status": "ready" })));
    }
    let away = now.since(status.upstream_live_last.unwrap_or(app.started));
    if away <= app.ready_after {
        return Ok(json_response(&json!({
            "status": "ready",
            "upstream": status.upstream.state.as_str(),
        })));
    }
    let UpstreamChange { state, detail, .. } = status.upstream;
    let separator = if detail.is_empty() { "" } else { ": " };
    let (away, limit) = (away.as_secs(), app.ready_after.as_secs());
    let reason = format!(
        "the upstream has not been live for {away} s and server.ready_after allows {limit} s; \
         it is {state}{separator}{detail}"
    );
    Err(Error::NotReady { reason })
}

/// `GET /status`: everything at a glance, as JSON.
pub(super) async fn status(State(app): State<App>) -> Response {
    let now = app.clock.now();
    let status = app.hub.status();
    let upstream = app.upstream.snapshot();
    let mut subscribers = app.hub.subscriber_statuses();
    subscribers.sort_by_key(|one| std::cmp::Reverse(one.lag_events));
    let count = |transport| subscribers.iter().filter(|one| one.transport == transport).count();
    let by_transport: serde_json::Map<String, Value> = Transport::ALL
        .iter()
        .map(|transport| (transport.as_str().to_owned(), json!(count(*transport))))
        .collect();
    let slowest: Vec<Value> = subscribers
        .iter()
        .take(SLOWEST_SHOWN)
        .map(|one| {
            json!({
                "id": one.id,
                "transport": one.transport.as_str(),
                "seconds": now.since(one.since).as_secs(),
                "lag_events": one.lag_events,
            })
        })
        .collect();
    let totals = app.telemetry.totals();
    let limits = app.connections.config();
    let access = app.gate.status(now.wall_ms);
    let opens: serde_json::Map<String, Value> = upstream
        .opens
        .iter()
        .map(|(outcome, count)| (outcome.as_str().to_owned(), json!(count)))
        .collect();
    json_response(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": now.since(app.started).as_secs(),
        "now": shown(now),
        "closing": app.hub.closing().is_some(),
        "upstream": {
            "source": app.source,
            "state": status.upstream.state.as_str(),
            "since": shown(status.upstream.since),
            "detail": status.upstream.detail,
            "live_last": status.upstream_live_last.map(shown),
            "last_byte_age_seconds": upstream.last_byte.map(|at| now.since(at).as_secs_f64()),
            "silence_max_seconds": Duration::from_micros(upstream.silence_max_us).as_secs_f64(),
            "streams": upstream.streams,
            "events": upstream.events,
            "bytes": upstream.bytes,
            "copies": upstream.merged.copies,
            "twins": upstream.merged.twins,
            "window_overflows": upstream.merged.overflows,
            "holes": upstream.holes,
            "hole_seconds": upstream.hole_ms as f64 / 1000.0,
            "opens": opens,
            "opens_in_window": upstream.opens_in_window,
            "opens_max": app.opens_max,
            "next_open_in_seconds": upstream.next_open_us.map(|at| at.saturating_sub(now.mono_us) as f64 / 1e6),
            "stale_after_seconds": app.stale_after.as_secs_f64(),
            "history": status.upstream_history.iter().map(change).collect::<Vec<_>>(),
            "holes_newest": upstream.holes_newest.iter().map(hole).collect::<Vec<_>>(),
        },
        "ring": {
            "epoch": status.epoch.as_str(),
            "oldest": status.oldest.0,
            "tail": status.tail.0,
            "events": status.ring_events,
            "events_max": status.ring_limits.events_max,
            "bytes": status.ring_bytes,
            "bytes_max": status.ring_limits.bytes_max,
            "oldest_age_seconds": status.oldest_at.map(|at| now.since(at).as_secs_f64()),
            "newest_age_seconds": status.newest_at.map(|at| now.since(at).as_secs_f64()),
            "evicted": status.evicted,
        },
        "latest": {
            "entries": status.latest_entries,
            "bytes": status.latest_bytes,
            "evicted": status.latest_evicted,
        },
        "subscribers": {
            "total": subscribers.len(),
            "groups": status.groups,
            "by_transport": by_transport,
            "slowest": slowest,
            "opened": totals.opened,
            "closed": totals.closed.map(|(reason, count)| (reason.as_str(), count)).into_iter().collect::<BTreeMap<_, _>>(),
            "gaps": totals.gaps.map(|(reason, count)| (reason.as_str(), count)).into_iter().collect::<BTreeMap<_, _>>(),
            "deliveries": totals.deliveries,
            "delivered_bytes": totals.delivered_bytes,
        },
        "publish": {
            "enabled": app.publish.passes_events(),
            "functions": app.publish.passes_functions(),
        },
        "access": {
            "mode": if access.is_on { "on" } else { "off" },
            "keys": access.keys,
            "token_keys": access.token_keys,
        },
        "ingest": {
            "enabled": app.ingest.is_on(),
            "copies": upstream.by_webhook.of_webhooks,
            "copies_of_stream": upstream.by_webhook.of_stream,
        },
        "limits": {
            "connections": app.connections.open(),
            "connections_max": limits.connections_max,
            "connections_per_ip_max": limits.connections_per_ip_max,
            "memory_bytes": app.memory_verdict().bytes,
            "memory_bytes_max": app.memory.bytes_max,
        },
    }))
}

fn change(change: &UpstreamChange) -> Value {
    json!({
        "state": change.state.as_str(),
        "since": shown(change.since),
        "detail": change.detail,
    })
}

fn hole(hole: &Hole) -> Value {
    json!({
        "reason": hole.reason.as_str(),
        "since": WallTime(hole.since_ms).to_string(),
        "until": WallTime(hole.until_ms).to_string(),
    })
}

fn shown(moment: Moment) -> String {
    WallTime(moment.wall_ms).to_string()
}

fn json_response(value: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, value.to_string()).into_response()
}
