//! Subscribers at one running peer, and the two ways to send them events.
//!
//! The law: what is published is waited for; what did not come is a fault and is shown.

use std::{ops::ControlFlow, time::Duration};

use anyhow::{Result, bail, ensure};
use fanlight::load::{Crowd, Ended, Plan, Protocol, Tally};
use hdrhistogram::Histogram;

use crate::{
    clock,
    event::Events,
    interrupt,
    peer::{Peer, Transport},
    report::Faults,
};

/// A batch reaches everybody within this time, or counts as late, which ends the phase.
const BATCH_MAX: Duration = Duration::from_secs(20);
/// A phase begins no further batch after this time.
const PHASE_MAX: Duration = Duration::from_secs(15);
/// Between two batches, so that each finds the server idle.
const PAUSE: Duration = Duration::from_millis(4);
const OPEN_MAX: Duration = Duration::from_secs(120);

/// What one phase of a session came to.
#[derive(Debug)]
pub(crate) struct Phase {
    pub(crate) deliveries: u64,
    pub(crate) cpu: Duration,
    pub(crate) latency: Histogram<u64>,
    /// Of each batch: the first and the last delivery.
    first: Histogram<u64>,
    last: Histogram<u64>,
    /// Time in which something was on its way.
    busy: Duration,
    pub(crate) faults: Faults,
}

/// Whether the load sleeps while there is nothing to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// It never does: to wake it would be the server's expense.
    Wakeful,
    /// It does, since it shares its processor with another load or with a shard.
    Patient,
}

/// A crowd on `count` connections to a peer, of which `stalled` never read.
pub(crate) fn open(
    peer: &mut Peer,
    transport: Transport,
    query: &str,
    count: usize,
    stalled: usize,
) -> Result<Crowd> {
    let crowd = self::crowd(peer, transport, query, count, stalled, Load::Wakeful)?;
    opened(peer, crowd, count)
}

/// The same by a load that shares its processor.
pub(crate) fn open_beside(peer: &mut Peer, transport: Transport, count: usize) -> Result<Crowd> {
    let crowd = self::crowd(peer, transport, "", count, 0, Load::Patient)?;
    opened(peer, crowd, count)
}

fn opened(peer: &mut Peer, mut crowd: Crowd, count: usize) -> Result<Crowd> {
    let deadline = clock::now() + OPEN_MAX;
    let ended =
        crowd.open(&mut |_| match interrupt::check().is_err() || clock::now() > deadline {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?;
    interrupt::check()?;
    peer.check()?;
    let opened = crowd.opened();
    ensure!(
        ended == Ended::Done && opened.failed == 0,
        "{} of {count} were refused: {:?}",
        opened.failed,
        opened.reasons
    );
    Ok(crowd)
}

/// The same crowd before it has opened anything.
pub(crate) fn crowd(
    peer: &Peer,
    transport: Transport,
    query: &str,
    count: usize,
    stalled: usize,
    load: Load,
) -> Result<Crowd> {
    let path = format!("{}{query}", peer.kind().target(transport));
    let mut plan = Plan::new(peer.address(), &path, count);
    plan.protocol = match transport {
        Transport::Sse => Protocol::Sse,
        Transport::WebSocket => Protocol::WebSocket,
    };
    plan.stalled = stalled;
    // Two shards have the load's processor as well, and are not to be kept from it.
    plan.never_sleeps = load == Load::Wakeful;
    plan.connects_per_second = peer.kind().opens_per_second();
    Ok(Crowd::new(plan)?)
}

/// Publishes batches, each waited for until all have it.
pub(crate) fn publish(
    peer: &mut Peer,
    crowd: &mut Crowd,
    events: &mut Events,
    name: &str,
    batches: usize,
    batch: usize,
) -> Result<Phase> {
    let mut phase = Phase::new();
    let deadline = clock::now() + PHASE_MAX;
    let before = peer.cpu();
    for _ in 0..batches {
        if clock::now() > deadline {
            break;
        }
        crowd.reset();
        let started = clock::now();
        let sent = events.take(name, batch);
        peer.publisher().publish(&sent)?;
        let ended = wait(crowd, events.last(), BATCH_MAX)?;
        phase.busy += started.elapsed();
        phase.add(crowd.tally());
        if ended == Ended::TimedOut {
            phase.faults.late += crowd.missing(events.last()).deliveries;
            peer.publisher().forget();
            break;
        }
        peer.publisher().settle()?;
        pause(crowd, PAUSE)?;
    }
    phase.cpu = peer.cpu() - before;
    peer.check()?;
    ensure!(crowd.tally().closed == 0, "{} subscribers were dropped", crowd.tally().closed);
    Ok(phase)
}

/// Lets a crowd receive until all have `seq`.
pub(crate) fn wait(crowd: &mut Crowd, seq: u64, most: Duration) -> Result<Ended> {
    let ended = crowd.wait_for(seq, clock::now() + most, &mut until_interrupted)?;
    if ended == Ended::Stopped {
        interrupt::check()?;
        bail!("stopped");
    }
    Ok(ended)
}

/// Lets a crowd receive for a while.
pub(crate) fn pause(crowd: &mut Crowd, length: Duration) -> Result<()> {
    crowd.run(clock::now() + length, &mut until_interrupted)?;
    interrupt::check()
}

fn until_interrupted(_: &Crowd) -> ControlFlow<()> {
    match interrupt::check() {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// Losses on the way and disorder, as a tally has them. A gap that was told is a loss here.
pub(crate) fn faults(tally: &Tally) -> Faults {
    Faults {
        lost: tally.lost + tally.told,
        late: 0,
        disordered: tally.out_of_order + tally.repeated,
    }
}

/// Nanoseconds as milliseconds.
pub(crate) fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

pub(crate) fn us_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// KiB each.
pub(crate) fn kib_each(bytes: u64, before: u64, count: usize) -> f64 {
    (bytes as f64 - before as f64) / 1024.0 / count.max(1) as f64
}

// === impl Phase ===

impl Phase {
    fn new() -> Phase {
        Phase {
            deliveries: 0,
            cpu: Duration::ZERO,
            latency: nanoseconds(),
            first: nanoseconds(),
            last: nanoseconds(),
            busy: Duration::ZERO,
            faults: Faults::default(),
        }
    }

    fn add(&mut self, tally: &Tally) {
        self.deliveries += tally.deliveries;
        self.latency.add(&tally.latency).expect("one range for all");
        if tally.deliveries > 0 {
            self.first.saturating_record(tally.latency.min());
            self.last.saturating_record(tally.latency.max());
        }
        self.faults = self.faults + faults(tally);
    }

    pub(crate) fn cpu_us(&self) -> f64 {
        us_each(self.cpu, self.deliveries)
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        ms(self.latency.value_at_quantile(quantile))
    }

    /// The median over the batches of the first delivery.
    pub(crate) fn first_ms(&self) -> f64 {
        ms(self.first.value_at_quantile(0.5))
    }

    /// The same of the last.
    pub(crate) fn last_ms(&self) -> f64 {
        ms(self.last.value_at_quantile(0.5))
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.deliveries as f64 / self.busy.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// An empty histogram like that of a crowd.
pub(crate) fn nanoseconds() -> Histogram<u64> {
    Histogram::new_with_max(600_000_000_000, 3).expect("a range that histograms have")
}
