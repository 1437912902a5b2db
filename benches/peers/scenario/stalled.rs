//! Subscribers that never read: what they take from those that do, and what they cost.

use anyhow::Result;

use super::{About, Bench, session};
use crate::{event, report::Scenario};

/// Events with which sockets are filled. Together they are more than the kernel takes for a
/// connection whose send buffer is bounded, and few, so that a peer that is dear a delivery is
/// done with them too. Each fits, framed, into a buffer of 4 KiB, which is what Pushpin has here.
const FILL_BYTES: usize = 3000;
const FILL_BATCH: usize = 4;

/// Healthy subscribers alone, then beside stalled ones.
pub(super) fn stalled(bench: &mut Bench, about: About<'_>) -> Result<()> {
    let sizes = bench.options.sizes.clone();
    let mut peer = bench.start(about, &[])?;
    let (mut events, transport) = (bench.events(), about.transport);
    let mut crowd = session::open(&mut peer, transport, "", sizes.healthy, 0)?;
    let bytes = bench.options.event_bytes;
    let mut run = |peer: &mut _, batches: usize, of: usize, bytes: usize| {
        events.resize(bytes);
        session::publish(peer, &mut crowd, &mut events, event::NAME, batches, of)
    };
    let fills = sizes.stalled_fill / FILL_BATCH;
    // The second fill costs what the peer keeps of the events themselves; the third has the
    // stalled ones on top.
    run(&mut peer, fills, FILL_BATCH, FILL_BYTES)?;
    let first = peer.memory_bytes();
    run(&mut peer, fills, FILL_BATCH, FILL_BYTES)?;
    let second = peer.memory_bytes();
    let alone = run(&mut peer, sizes.spaced, 1, bytes)?;

    let stalled = sizes.stalled;
    let others = session::open(&mut peer, transport, "", stalled, stalled)?;
    run(&mut peer, fills, FILL_BATCH, FILL_BYTES)?;
    let third = peer.memory_bytes();
    let beside = run(&mut peer, sizes.spaced, 1, bytes)?;

    let kept = second.saturating_sub(first);
    let figures = [
        ("alone_p99_ms", alone.quantile_ms(0.99)),
        ("beside_p99_ms", beside.quantile_ms(0.99)),
        ("alone_us", alone.cpu_us()),
        ("beside_us", beside.cpu_us()),
        ("stalled_kib", session::kib_each(third, second + kept, stalled)),
    ];
    let case = format!("{stalled} beside {}", sizes.healthy);
    bench.add(about, Scenario::Stalled, &case, &figures, alone.faults + beside.faults);
    drop(others);
    Ok(())
}
