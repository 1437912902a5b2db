//! What a run is told: which peers, which scenarios, how much of each.

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context as _, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::{
    event,
    peer::{Kind, Transport},
    report::Scenario,
};

/// Sockets one process may have here; the load and each server are processes of their own.
const SUBSCRIBERS_MAX: usize = 19_000;

/// A run, bounded in everything.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) peers: Vec<Kind>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) transports: Vec<Transport>,
    pub(crate) rounds: u32,
    pub(crate) event_bytes: usize,
    pub(crate) sizes: Sizes,
    pub(crate) fanlight: PathBuf,
    pub(crate) out: PathBuf,
}

/// How much of everything.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// Subscribers of connect, memory, spaced, burst and shards.
    pub(crate) subscribers: usize,
    /// Events published one at a time.
    pub(crate) spaced: usize,
    /// Bursts, and events in each.
    pub(crate) bursts: usize,
    pub(crate) burst_events: usize,
    /// Healthy subscribers beside stalled ones, the stalled ones, and what is published to fill
    /// these up.
    pub(crate) healthy: usize,
    pub(crate) stalled: usize,
    pub(crate) stalled_fill: usize,
    /// Events held, clients that come back for them at once, and the live ones beside them.
    pub(crate) held: usize,
    pub(crate) returning: usize,
    pub(crate) live: usize,
    /// Filters in the small and the large case, and events published past them.
    pub(crate) filters: [usize; 2],
    pub(crate) filter_events: usize,
}

const FULL: Sizes = Sizes {
    subscribers: 5_000,
    spaced: 40,
    bursts: 20,
    burst_events: 50,
    healthy: 9_000,
    stalled: 1_000,
    stalled_fill: 64,
    held: 20_000,
    returning: 500,
    live: 1_000,
    filters: [1_000, 15_000],
    filter_events: 20_000,
};

const QUICK: Sizes = Sizes {
    subscribers: 200,
    spaced: 10,
    bursts: 4,
    burst_events: 50,
    healthy: 180,
    stalled: 20,
    stalled_fill: 64,
    held: 2_000,
    returning: 20,
    live: 50,
    filters: [50, 500],
    filter_events: 2_000,
};

/// The command line.
pub(crate) fn command() -> Command {
    let list = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_delimiter(',').value_name("LIST").help(help)
    };
    let count = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_parser(value_parser!(usize)).value_name("N").help(help)
    };
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_parser(value_parser!(PathBuf)).value_name("PATH").help(help)
    };
    Command::new("peers")
        .about("Fanlight beside other brokers and the kernel's own price, on loopback")
        .arg(list(
            "peers",
            "floor, fanlight, fanlight:SHARDS (0 is a task each), nchan, pushpin, centrifugo, mercure \
             [default: all that are installed, with one shard]",
        ))
        .arg(list(
            "scenarios",
            "connect, memory, spaced, burst, stalled, replay, filters, reach, shards [default: all]",
        ))
        .arg(list("transports", "sse, ws [default: both]"))
        .arg(count("rounds", "Rounds of each; medians are shown [default: 3]"))
        .arg(count("subscribers", "Subscribers [default: 5000]"))
        .arg(count("events", "Events published one at a time in a round [default: 40]"))
        .arg(count("bursts", "Bursts of 50 events in a round [default: 20]"))
        .arg(count("event-bytes", "Size of an event's JSON [default: 200]"))
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("One small round of everything, to see that it runs"),
        )
        .arg(path("fanlight", "The broker to measure [default: the one built with this program]"))
        .arg(path(
            "out",
            "Where the results go [default: docs/performance, or target/peers if quick]",
        ))
        // What `cargo bench` says to every benchmark.
        .arg(Arg::new("bench").long("bench").action(ArgAction::SetTrue).hide(true))
}

/// Reads the command line.
pub(crate) fn read(matches: &ArgMatches) -> Result<Options> {
    let quick = matches.get_flag("quick");
    let count = |name: &str| matches.get_one::<usize>(name).copied();
    let path = |name: &str, default: &str| {
        matches.get_one::<PathBuf>(name).cloned().unwrap_or_else(|| PathBuf::from(default))
    };
    let mut sizes = if quick { QUICK } else { FULL };
    sizes.subscribers = count("subscribers").unwrap_or(sizes.subscribers);
    sizes.spaced = count("events").unwrap_or(sizes.spaced);
    sizes.bursts = count("bursts").unwrap_or(sizes.bursts);
    ensure!(
        (1..=SUBSCRIBERS_MAX).contains(&sizes.subscribers),
        "between 1 and {SUBSCRIBERS_MAX} subscribers"
    );
    let event_bytes = count("event-bytes").unwrap_or(200);
    ensure!(
        (event::BYTES_MIN..=60_000).contains(&event_bytes),
        "an event is {} to 60000 bytes",
        event::BYTES_MIN
    );
    let rounds = count("rounds").unwrap_or(if quick { 1 } else { 3 });
    Ok(Options {
        peers: list(matches, "peers", "floor,fanlight,nchan,pushpin,centrifugo,mercure")?,
        scenarios: list(matches, "scenarios", &Scenario::ALL.map(Scenario::name).join(","))?,
        transports: list(matches, "transports", "sse,ws")?,
        rounds: u32::try_from(rounds.clamp(1, 100))?,
        event_bytes,
        sizes,
        fanlight: std::path::absolute(path("fanlight", env!("CARGO_BIN_EXE_fanlight")))?,
        out: path("out", if quick { "target/peers" } else { "docs/performance" }),
    })
}

fn list<T: FromStr<Err = anyhow::Error>>(
    matches: &ArgMatches,
    name: &str,
    default: &str,
) -> Result<Vec<T>> {
    let given: Vec<String> =
        matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
    let words =
        if given.is_empty() { default.split(',').map(str::to_owned).collect() } else { given };
    words.iter().map(|word| word.parse().with_context(|| format!("--{name}"))).collect()
}
