//! Follows the Particle cloud directly: the broker's own upstream, log and hub in this process,
//! with one reader and no port.
//!
//! Law: the cloud is treated as a broker treats it (staleness, backoff, budget of opens), and a
//! reader that is too slow is told what it missed; the cloud's stream never waits for it. What
//! only a person can mend ends it, as long as the stream was never live.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    hub::{self, Budget, Examined, Hub, Subscription},
    log::Log,
    model::{
        Epoch, Filter, Format, Position, Transport, frame::control_json, record::Kind,
        resume::Start, ring,
    },
    telemetry::Telemetry,
    upstream::{self, Stats, Upstream},
};

use super::{
    output::{Output, Over},
    reader::Line,
};

/// What a reader may be behind before it misses something.
const RING: ring::Limits = ring::Limits { events_max: 10_000, bytes_max: 32 << 20 };
/// Newest values serve nobody here.
const LATEST_ENTRIES_MAX: usize = 1;
const LATEST_BYTES_MAX: usize = 1;
/// What is looked at and handed over at a time.
const AT_ONCE: Budget = Budget { records: 256, bytes: 64 << 10 };

/// Follows until the output is over.
///
/// # Errors
/// For a configuration that cannot work, and for a refusal before the stream was ever live.
pub(super) async fn follow(
    config: upstream::Config,
    filter: Filter,
    output: &mut Output,
    clock: &Clock,
) -> anyhow::Result<Over> {
    let now = clock.now();
    let log = Log::memory(Epoch::from_bits(fastrand::u64(..)));
    let limits = hub::Config {
        ring: RING,
        latest_entries_max: LATEST_ENTRIES_MAX,
        latest_bytes_max: LATEST_BYTES_MAX,
    };
    let (hub, publisher) = Hub::new(limits, log, Arc::new(Telemetry::new()), now);
    let (subscription, _) = hub.subscribe(filter, &Start::Live, Transport::Ndjson, now);
    let stats = Arc::new(Stats::default());
    let upstream = Upstream::new(config, publisher, clock.clone(), stats, None);
    let upstream = upstream.await.context("cannot connect to the cloud")?;
    tokio::select! {
        over = read(subscription, output) => over,
        () = upstream.run(CancellationToken::new()) => Ok(Over::Closed),
    }
}

async fn read(mut subscription: Subscription, output: &mut Output) -> anyhow::Result<Over> {
    let epoch = subscription.epoch();
    let mut was_live = false;
    loop {
        let mut lines = Vec::new();
        let examined = subscription.examine(AT_ONCE, |record| {
            let frame = record.frame(Format::Json);
            let json = String::from_utf8_lossy(&frame).trim_end().to_owned();
            let control = (record.kind() == Kind::Control).then(|| control_of(&json));
            lines.push(Line { json, control, position: Some(record.position(epoch)) });
            frame.len()
        });
        if let Examined::Gap(gap) = &examined {
            let id: Position = gap.id(epoch);
            let json = control_json("gap", Some(&id.to_string()), |object| gap.fields(object));
            let json = json.trim_end().to_owned();
            lines.push(Line { json, control: Some("gap".to_owned()), position: Some(id) });
        }
        let refused = lines.iter().find_map(|line| refusal(line, &mut was_live));
        if let Err(over) = output.write(lines).await {
            return Ok(over);
        }
        if let Some(detail) = refused {
            return Err(anyhow!(detail));
        }
        if examined == Examined::All {
            subscription.woken().await;
        }
    }
}

/// The detail of a state that only a person can mend, up to the first live one.
fn refusal(line: &Line, was_live: &mut bool) -> Option<String> {
    if *was_live || line.control.as_deref() != Some("upstream") {
        return None;
    }
    let fields: serde_json::Value = serde_json::from_str(&line.json).unwrap_or_default();
    match fields["state"].as_str() {
        Some("live") => *was_live = true,
        Some("unauthorized" | "misconfigured") => {
            return Some(fields["detail"].as_str().unwrap_or_default().to_owned());
        }
        _ => {}
    }
    None
}

/// The name in `{"fanlight":"NAME",…`.
fn control_of(json: &str) -> String {
    json.split('"').nth(3).unwrap_or_default().to_owned()
}
