//! `fanlight bench`: what an installation does with so many subscribers.
//!
//! Law: it says what it saw and nothing else. What was lost and not told of is a failure.

mod address;
mod plan;
mod progress;
mod publish;
mod report;

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::ArgMatches;

use crate::{
    config::Environment,
    load::{self, Crowd, Ended, Missing, Tally},
};

use self::{plan::Bench, progress::Progress, publish::Publisher, report::Report};
use super::{Failure, credential, serve::Signals};

pub(super) use plan::command;

/// For the last events to arrive after the publishing has ended.
const SETTLE: Duration = Duration::from_secs(10);

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let bench = Bench::of(matches, credential::bearer(matches, environment)?.as_ref())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = {
        let _guard = runtime.enter();
        Signals::new()?
    };
    runtime.spawn({
        let stop = stop.clone();
        async move {
            signals.next().await;
            stop.store(true, Ordering::Relaxed);
            signals.next().await;
            // Asked twice: not even a report.
            std::process::exit(1);
        }
    });
    let report = measure(&bench, &stop)?;
    super::print(&if bench.json { report.json() } else { report.text() })?;
    match report.failure() {
        Some(reason) => Err(Failure::Failed(anyhow!(reason))),
        None => Ok(()),
    }
}

/// Opens the subscribers, lets events come, and counts. `stop` ends each of these early.
fn measure(bench: &Bench, stop: &AtomicBool) -> Result<Report, Failure> {
    let mut progress = Progress::new(load::now());
    let mut crowd = Crowd::new(bench.plan.clone()).context("cannot watch connections")?;
    let turned = "cannot wait for connections";
    let mut tick = |crowd: &Crowd| {
        progress.opening(crowd, bench.plan.subscribers, load::now());
        goes_on(stop)
    };
    let mut ended = crowd.open(&mut tick).context(turned)?;
    // A full broker says goodbye at once: those came in the door and out again.
    let at_the_door = (crowd.tally().closed, crowd.tally().byes);
    crowd.reset();
    let mut missing = Missing { subscribers: 0, deliveries: 0 };
    let mut published = None;
    let mut counted_until = crowd.tally().since;
    if ended == Ended::Done && crowd.reading() > 0 {
        let publisher = bench.publishing.clone().map(Publisher::start).transpose()?;
        let until = crowd.tally().since + bench.duration;
        let mut tick = |crowd: &Crowd| {
            progress.running(crowd, bench.duration, load::now());
            let is_over = crowd.reading() == 0
                || publisher.as_ref().is_some_and(|publisher| publisher.has_failed());
            if is_over { ControlFlow::Break(()) } else { goes_on(stop) }
        };
        ended = crowd.run(until, &mut tick).context(turned)?;
        counted_until = load::now();
        if let Some(publisher) = publisher {
            let last = publisher.stop()?;
            let until = load::now() + SETTLE;
            // A second signal ends the process; the first must not make losses of what is
            // on its way.
            let settled = crowd.wait_for(last, until, &mut load::go_on).context(turned)?;
            // The time that a loss was waited for is not part of the rates.
            if settled == Ended::Done {
                counted_until = load::now();
            }
            (missing, published) = (crowd.missing(last), Some(last));
        }
    }
    Ok(Report {
        url: bench.url.clone(),
        transport: bench.plan.protocol,
        subscribers: bench.plan.subscribers,
        opened: crowd.opened().clone(),
        elapsed: counted_until - crowd.tally().since,
        published,
        tally: Tally {
            closed: crowd.tally().closed + at_the_door.0,
            byes: crowd.tally().byes + at_the_door.1,
            ..crowd.tally().clone()
        },
        missing,
        is_interrupted: ended == Ended::Stopped && stop.load(Ordering::Relaxed),
    })
}

fn goes_on(stop: &AtomicBool) -> ControlFlow<()> {
    match stop.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}
