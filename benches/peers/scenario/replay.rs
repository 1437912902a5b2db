//! Clients that come back at once for all that is held, beside live ones.

use std::{
    ops::ControlFlow,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use fanlight::load::{Crowd, Ended, Missing};
use hdrhistogram::Histogram;

use super::{About, Bench, session};
use crate::{
    clock, event,
    event::Events,
    interrupt,
    peer::Peer,
    report::{Faults, Scenario},
};

/// One event to the live ones each.
const STEP: Duration = Duration::from_millis(50);
/// Of the time before the others return.
const STEPS_ALONE: usize = 60;
/// The others are complete within this.
const REPLAY_MAX: Duration = Duration::from_secs(90);
/// The held events go in by so many.
const HELD_BATCH: usize = 500;
const QUERY: &str = "?since=earliest";

/// What the returning clients found.
struct Returned {
    took: Duration,
    deliveries: u64,
    missing: Missing,
    clients: usize,
    faults: Faults,
}

/// Live ones alone, then while the others are served.
pub(super) fn replay(bench: &mut Bench, about: About<'_>) -> Result<()> {
    let sizes = bench.options.sizes.clone();
    let mut peer = bench.start(about, &[])?;
    let (mut events, transport) = (bench.events(), about.transport);
    hold(&mut peer, about, &mut events, sizes.held)?;
    let mut live = session::open_beside(&mut peer, transport, sizes.live)?;
    // Their stamps begin where the held ones end, which counts as a loss once.
    session::publish(&mut peer, &mut live, &mut events, event::NAME, 2, 1)?;

    let mut alone = Live::new();
    for _ in 0..STEPS_ALONE {
        alone.step(&mut peer, &mut live, &mut events)?;
    }
    let before = peer.cpu();
    let mut meanwhile = Live::new();
    let crowd =
        session::crowd(&peer, transport, QUERY, sizes.returning, 0, session::Load::Patient)?;
    let held = sizes.held as u64;
    let others = thread::Builder::new()
        .name("returning".to_owned())
        .spawn(move || come_back(crowd, held))?;
    while !others.is_finished() {
        meanwhile.step(&mut peer, &mut live, &mut events)?;
    }
    let cpu = peer.cpu() - before;
    let returned = join(others)?;
    peer.check()?;

    let complete = returned.clients - returned.missing.subscribers;
    let figures = [
        ("alone_p99_ms", session::ms(alone.latency.value_at_quantile(0.99))),
        ("meanwhile_p99_ms", session::ms(meanwhile.latency.value_at_quantile(0.99))),
        ("cpu_us", session::us_each(cpu, returned.deliveries + meanwhile.latency.len())),
        ("replayed_ms", returned.took.as_secs_f64() * 1e3),
        ("live_deliveries", meanwhile.latency.len() as f64),
        ("complete", 100.0 * complete as f64 / sizes.returning as f64),
    ];
    let mut faults = alone.faults + meanwhile.faults + returned.faults;
    faults.late += returned.missing.deliveries;
    let case = format!("{} × {} beside {}", sizes.returning, sizes.held, sizes.live);
    bench.add(about, Scenario::Replay, &case, &figures, faults);
    Ok(())
}

/// Publishes what will be asked for, and waits until it is held.
fn hold(peer: &mut Peer, about: About<'_>, events: &mut Events, count: usize) -> Result<()> {
    let mut probe = session::open(peer, about.transport, "", 1, 0)?;
    for _ in 0..count / HELD_BATCH {
        let batch = events.take(event::NAME, HELD_BATCH);
        peer.publisher().publish(&batch)?;
        session::pause(&mut probe, Duration::from_millis(1))?;
    }
    match session::wait(&mut probe, events.last(), REPLAY_MAX)? {
        Ended::Done => Ok(()),
        _ => bail!("what was published first did not come through"),
    }
}

/// Runs on a thread of its own that gives way to the live one: both share a processor, and the
/// live latency is what is asked for.
fn come_back(mut crowd: Crowd, held: u64) -> Result<Returned> {
    let _ = rustix::process::setpriority_process(None, 19);
    let started = clock::now();
    let deadline = started + REPLAY_MAX;
    let mut go_on = |_: &Crowd| match interrupt::check().is_err() || clock::now() > deadline {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    crowd.open(&mut go_on)?;
    let opened = crowd.opened();
    if opened.failed > 0 {
        bail!("{} were refused: {:?}", opened.failed, opened.reasons);
    }
    crowd.wait_for(held, deadline, &mut go_on)?;
    let took = started.elapsed();
    Ok(Returned {
        took,
        deliveries: crowd.tally().deliveries,
        missing: crowd.missing(held),
        clients: crowd.reading(),
        faults: session::faults(crowd.tally()),
    })
}

fn join(others: JoinHandle<Result<Returned>>) -> Result<Returned> {
    others.join().map_err(|_| anyhow!("the returning clients panicked"))?
}

/// What live subscribers saw.
struct Live {
    latency: Histogram<u64>,
    faults: Faults,
}

impl Live {
    fn new() -> Live {
        Live { latency: session::nanoseconds(), faults: Faults::default() }
    }

    /// One event, and the time until the next is due.
    fn step(&mut self, peer: &mut Peer, live: &mut Crowd, events: &mut Events) -> Result<()> {
        let next: Instant = clock::now() + STEP;
        live.reset();
        peer.publisher().publish(&events.take(event::NAME, 1))?;
        if session::wait(live, events.last(), REPLAY_MAX)? == Ended::TimedOut {
            bail!("live subscribers got nothing any more");
        }
        self.latency.add(&live.tally().latency)?;
        self.faults = self.faults + session::faults(live.tally());
        session::pause(live, next.saturating_duration_since(clock::now()))
    }
}
