//! `fanlight demo`: the broker with a simulated Particle cloud. No token, no network.
//!
//! The simulated cloud speaks HTTP on a port of its own, so that a demo runs the very
//! code that `serve` runs.

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command};

use crate::{
    config::{self, Environment, Loaded, Origin, Override},
    simulator::{self, Simulator},
};

use super::{Failure, serve::serve, settings::reachable};

/// Short forms of the demo's settings: flag, setting, what it means.
const SHORT_FORMS: [(&str, &str, &str); 3] = [
    ("devices", "demo.devices", "Simulated devices (short for --demo-devices)"),
    (
        "rate",
        "demo.events_per_second",
        "Events per second of all devices together (short for --demo-events-per-second)",
    ),
    ("seed", "demo.seed", "Same seed, same devices and events (short for --demo-seed)"),
];

pub(super) fn command() -> Command {
    let mut command = Command::new("demo").about("Run the broker with simulated devices: no token, no network").long_about(
        "Run the broker with a built-in simulated Particle cloud and a few simulated devices: no token, \
         no network. It prints the addresses to open.\n\nEverything else is as with fanlight serve.",
    );
    for (flag, _, help) in SHORT_FORMS {
        command = command.arg(Arg::new(flag).long(flag).value_name("NUMBER").help(help));
    }
    config::flags(command)
}

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let mut overrides = vec![Override {
        name: "upstream.source",
        text: "demo".to_owned(),
        origin: Origin::Command("fanlight demo"),
    }];
    for (flag, name, _) in SHORT_FORMS {
        if let Some(text) = matches.get_one::<String>(flag) {
            let origin = Origin::Flag(format!("--{flag}"));
            overrides.push(Override { name, text: text.clone(), origin });
        }
    }
    let loaded = config::load_with(matches, environment, &overrides)?;
    serve(&loaded, |broker, cloud| {
        let url = format!("http://{}", reachable(broker.addr()));
        let cloud = cloud.map(Simulator::url).unwrap_or_default();
        tracing::info!(url = cloud, "simulated cloud");
        super::print(&format!(
            "Fanlight is running with simulated devices.\n\n  \
             In a browser    {url}/\n  \
             As SSE          curl -N {url}/events\n  \
             One name prefix curl -N '{url}/events?prefix=greenhouse/&since=5m'\n  \
             As JSON lines   curl -N -H 'Accept: application/x-ndjson' {url}/events\n  \
             Newest values   curl {url}/last\n  \
             Status          curl {url}/status\n\n  \
             The simulated cloud is {cloud}; break it on purpose with\n  \
             curl -d 'stall for=60s' {cloud}/sim/faults\n\n\
             Ctrl-C ends it.\n"
        ))
    })
}

/// The simulated cloud with the devices of the settings.
pub(super) async fn simulate(loaded: &Loaded) -> Result<Simulator, Failure> {
    let defaults = simulator::Config::default();
    let config = simulator::Config {
        devices: loaded.count("demo.devices"),
        events_per_second: loaded.number("demo.events_per_second"),
        seed: loaded.count_opt("demo.seed").unwrap_or_else(|| fastrand::u64(..)),
        ..defaults
    };
    let simulator = Simulator::start(config).await.context("the simulated cloud cannot listen")?;
    Ok(simulator)
}
