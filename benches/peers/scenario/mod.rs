//! The scenarios. Each runs one peer once and adds a row; rounds and peers are the caller's, so
//! that peers take turns and a slow minute of the machine hits all of them.

mod fanout;
mod filters;
mod replay;
mod stalled;

use anyhow::Result;

use crate::{
    event, interrupt,
    options::Options,
    peer::{Kind, Peer, Setup, Transport},
    report::{Faults, Report, Row, Scenario},
    session::{self, Phase},
};

/// A reason is cut to this: what a peer printed is in it.
const SKIPPED_CHARS_MAX: usize = 600;

/// A run in progress.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) report: Report,
    /// The processors there are; none if nothing can be bound.
    pub(crate) cpus: Vec<usize>,
}

/// What a row is about.
#[derive(Clone, Copy, Debug)]
struct About<'a> {
    kind: &'a Kind,
    transport: Transport,
    round: u32,
}

impl Bench {
    /// Everything that was asked for.
    pub(crate) fn run(&mut self) -> Result<()> {
        let mut kinds = self.installed()?;
        let transports = self.options.transports.clone();
        for round in 1..=self.options.rounds {
            for &transport in &transports {
                for kind in &kinds {
                    if kind.speaks(transport) {
                        self.one(About { kind, transport, round })?;
                    }
                }
            }
            // Another one begins the next round: who runs first has no advantage over all.
            let by = kinds.len().min(1);
            kinds.rotate_left(by);
        }
        Ok(())
    }

    fn one(&mut self, about: About<'_>) -> Result<()> {
        let fanlight = matches!(about.kind, Kind::Fanlight { .. });
        let sse = about.transport == Transport::Sse;
        let basic = [Scenario::Connect, Scenario::Memory, Scenario::Spaced, Scenario::Burst];
        if basic.iter().any(|scenario| self.wants(*scenario)) {
            self.attempt(about, "fan-out", fanout::fanout)?;
        }
        if self.wants(Scenario::Stalled) && *about.kind != Kind::Floor {
            self.attempt(about, "stalled", stalled::stalled)?;
        }
        if self.wants(Scenario::Replay) && fanlight {
            self.attempt(about, "replay", replay::replay)?;
        }
        if self.wants(Scenario::Filters) && fanlight && sse {
            self.attempt(about, "filters", filters::filters)?;
        }
        if self.wants(Scenario::Reach) && (fanlight || *about.kind == Kind::Floor) && sse {
            self.attempt(about, "reach", filters::reach)?;
        }
        // Once a round, with shard counts of its own.
        if self.wants(Scenario::Shards) && *about.kind == (Kind::Fanlight { shards: 1 }) {
            self.attempt(about, "shards", fanout::shards)?;
        }
        Ok(())
    }

    /// A scenario that fails is told and left out; only an interruption ends the run.
    fn attempt(
        &mut self,
        about: About<'_>,
        what: &str,
        scenario: fn(&mut Bench, About<'_>) -> Result<()>,
    ) -> Result<()> {
        let Err(error) = scenario(self, about) else { return Ok(()) };
        interrupt::check()?;
        let About { kind, transport, round } = about;
        self.skip(&format!("{kind}, {what} over {transport}, round {round}: {error:#}"));
        Ok(())
    }

    /// The peers that are there and that start.
    fn installed(&mut self) -> Result<Vec<Kind>> {
        let mut kinds = Vec::new();
        for kind in self.options.peers.clone() {
            let about = About { kind: &kind, transport: Transport::Sse, round: 0 };
            let why = match kind.missing() {
                Some(why) => Some(why),
                None => self.start(about, &[]).err().map(|error| format!("{error:#}")),
            };
            interrupt::check()?;
            match why {
                Some(why) => self.skip(&format!("{kind}: {why}")),
                None => kinds.push(kind),
            }
        }
        Ok(kinds)
    }

    /// Says what is left out and why, on one line.
    fn skip(&mut self, why: &str) {
        let lines: Vec<&str> = why.lines().map(str::trim).collect();
        let line: String = lines.join("; ").chars().take(SKIPPED_CHARS_MAX).collect();
        eprintln!("left out: {line}");
        self.report.skipped.push(line);
    }

    fn wants(&self, scenario: Scenario) -> bool {
        self.options.scenarios.contains(&scenario)
    }

    fn add(
        &mut self,
        about: About<'_>,
        scenario: Scenario,
        case: &str,
        figures: &[(&'static str, f64)],
        faults: Faults,
    ) {
        let row = Row {
            scenario,
            transport: about.transport,
            peer: about.kind.to_string(),
            case: case.to_owned(),
            round: about.round,
            figures: figures.to_vec(),
            faults,
        };
        eprintln!("{}", row.line());
        self.report.rows.push(row);
    }

    fn start(&self, about: About<'_>, flags: &[&'static str]) -> Result<Peer> {
        let shards = match about.kind {
            Kind::Fanlight { shards } => (*shards).max(1) as usize,
            _ => 1,
        };
        let cpus = self.cpus.iter().copied().take(shards).collect();
        let setup = Setup { fanlight: self.options.fanlight.clone(), cpus, flags: flags.to_vec() };
        about.kind.start(&setup, about.transport)
    }

    fn events(&self) -> event::Events {
        event::Events::new(self.options.event_bytes)
    }
}

/// The figures of events one at a time.
fn spaced_figures(phase: &Phase) -> [(&'static str, f64); 5] {
    [
        ("cpu_us", phase.cpu_us()),
        ("first_ms", phase.first_ms()),
        ("median_ms", phase.quantile_ms(0.5)),
        ("p99_ms", phase.quantile_ms(0.99)),
        ("last_ms", phase.last_ms()),
    ]
}
