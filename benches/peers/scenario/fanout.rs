//! One event to many: what a connect, a connection and a delivery cost, one event at a time and
//! in bursts; and the same on one core and on two.

use anyhow::Result;

use super::{About, Bench, session, spaced_figures};
use crate::{
    clock, event,
    peer::Kind,
    report::{Faults, Scenario},
};

/// Events before anything is measured: first deliveries allocate what later ones use again.
const WARM: usize = 5;

/// Connect, memory, spaced and burst, in one session.
pub(super) fn fanout(bench: &mut Bench, about: About<'_>) -> Result<()> {
    let sizes = bench.options.sizes.clone();
    let count = sizes.subscribers;
    let with_memory = bench.wants(Scenario::Memory);
    let mut peer = bench.start(about, &[])?;
    let mut events = bench.events();
    let empty = if with_memory { peer.memory_bytes() } else { 0 };
    let (before, started) = (peer.cpu(), clock::now());
    let mut crowd = session::open(&mut peer, about.transport, "", count, 0)?;
    let opened_ms = started.elapsed().as_secs_f64() * 1e3;
    let cpu_us = session::us_each(peer.cpu() - before, count as u64);
    if bench.wants(Scenario::Connect) {
        let figures = [("cpu_us", cpu_us), ("opened_ms", opened_ms)];
        bench.add(about, Scenario::Connect, "", &figures, Faults::default());
    }
    let idle = if with_memory { peer.memory_bytes() } else { 0 };
    let further = match with_memory {
        // What a server holds once for all shows in the first number and not in this one.
        true => {
            let _more = session::open(&mut peer, about.transport, "", count / 2, 0)?;
            session::kib_each(peer.memory_bytes(), idle, count / 2)
        }
        false => 0.0,
    };
    let warm = session::publish(&mut peer, &mut crowd, &mut events, event::NAME, WARM, 1)?;
    if with_memory {
        let figures = [
            ("idle_kib", session::kib_each(idle, empty, count)),
            ("further_kib", further),
            ("used_kib", session::kib_each(peer.memory_bytes(), empty, count)),
        ];
        bench.add(about, Scenario::Memory, "", &figures, warm.faults);
    }
    if bench.wants(Scenario::Spaced) {
        let phase =
            session::publish(&mut peer, &mut crowd, &mut events, event::NAME, sizes.spaced, 1)?;
        bench.add(about, Scenario::Spaced, "", &spaced_figures(&phase), phase.faults);
    }
    if bench.wants(Scenario::Burst) {
        let (bursts, of) = (sizes.bursts, sizes.burst_events);
        let phase = session::publish(&mut peer, &mut crowd, &mut events, event::NAME, bursts, of)?;
        let figures = [
            ("cpu_us", phase.cpu_us()),
            ("median_ms", phase.quantile_ms(0.5)),
            ("p99_ms", phase.quantile_ms(0.99)),
            ("per_second", phase.per_second()),
        ];
        bench.add(about, Scenario::Burst, "", &figures, phase.faults);
    }
    Ok(())
}

/// One shard on one core, and two on two.
pub(super) fn shards(bench: &mut Bench, about: About<'_>) -> Result<()> {
    let sizes = bench.options.sizes.clone();
    for shards in [1, 2] {
        let kind = Kind::Fanlight { shards };
        let mut peer = bench.start(About { kind: &kind, ..about }, &[])?;
        let mut events = bench.events();
        // The second shard has the load's processor: the load lets go of it, in both cases.
        let mut crowd = session::open_beside(&mut peer, about.transport, sizes.subscribers)?;
        let mut run = |batches, of| {
            session::publish(&mut peer, &mut crowd, &mut events, event::NAME, batches, of)
        };
        run(WARM, 1)?;
        let spaced = run(sizes.spaced, 1)?;
        let burst = run(sizes.bursts, sizes.burst_events)?;
        let figures = [
            ("spaced_us", spaced.cpu_us()),
            ("spaced_last_ms", spaced.last_ms()),
            ("burst_us", burst.cpu_us()),
            ("burst_per_second", burst.per_second()),
        ];
        let case = match shards {
            1 => "1 shard, 1 core".to_owned(),
            _ => format!("{shards} shards, {shards} cores"),
        };
        let faults = spaced.faults + burst.faults;
        bench.add(about, Scenario::Shards, &case, &figures, faults);
    }
    Ok(())
}
