//! `fanlight simulate`: the simulated Particle cloud alone, with faults on request.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::{
    config::parse_duration,
    server::listen_advice,
    simulator::{Config, DEVICES_MAX, EVENTS_PER_SECOND_MAX, Fault, Simulator},
};

use super::{Failure, serve::Signals, settings::reachable};

pub(super) fn command() -> Command {
    Command::new("simulate")
        .about("Run the simulated Particle cloud alone, with faults on request")
        .long_about(
            "Run the simulated Particle cloud alone, on its own port, with faults on request: for tests and \
             for developing dashboards.\n\nExample: fanlight simulate --listen 127.0.0.1:9000 --fault 'cut every=30s'\n\
             then:    fanlight serve --upstream-url http://127.0.0.1:9000\n\n\
             While it runs: GET /sim shows its state, GET /sim/devices its devices, POST /sim/faults takes \
             a fault (the same text, or JSON), DELETE /sim/faults ends them.",
        )
        .args([
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS")
                .default_value("127.0.0.1:9000")
                .value_parser(value_parser!(SocketAddr))
                .help("Where to listen; port 0 takes any free one"),
            Arg::new("devices")
                .long("devices")
                .value_name("COUNT")
                .default_value("12")
                .value_parser(value_parser!(u64).range(1..=DEVICES_MAX as u64))
                .help("Simulated devices"),
            Arg::new("rate")
                .long("rate")
                .value_name("NUMBER")
                .default_value("2")
                .value_parser(parse_rate)
                .help("Events per second of all devices together; 0 for none"),
            Arg::new("seed")
                .long("seed")
                .value_name("NUMBER")
                .default_value("1")
                .value_parser(value_parser!(u64))
                .help("Same seed, same devices and events"),
            Arg::new("token")
                .long("token")
                .value_name("TEXT")
                .help("The only token accepted; without it any is, and none is"),
            Arg::new("keepalive")
                .long("keepalive")
                .value_name("DURATION")
                .default_value("9s")
                .value_parser(parse_keepalive)
                .help("Silence after which a stream gets a line feed"),
            Arg::new("no-limits")
                .long("no-limits")
                .action(ArgAction::SetTrue)
                .help("Do not limit opens and streams as the real cloud does (100 in 300 s, 100 at a time)"),
            Arg::new("fault")
                .long("fault")
                .value_name("FAULT")
                .action(ArgAction::Append)
                .value_parser(|text: &str| text.parse::<Fault>())
                .help("A fault from the start, such as 'stall after=30s' or 'status=529 retry-after=30 count=3'; may be repeated"),
        ])
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let config = Config {
        listen: *required(matches, "listen"),
        devices: usize::try_from(*required::<u64>(matches, "devices")).unwrap_or(DEVICES_MAX),
        events_per_second: *required(matches, "rate"),
        seed: *required(matches, "seed"),
        token: matches.get_one::<String>("token").cloned(),
        keepalive: *required(matches, "keepalive"),
        limits: !matches.get_flag("no-limits"),
        faults: matches.get_many::<Fault>("fault").into_iter().flatten().cloned().collect(),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(simulate(config))
}

async fn simulate(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let listen = config.listen;
    let simulator = Simulator::start(config).await.map_err(|error| {
        let advice = listen_advice(&error);
        anyhow!("the simulated cloud cannot listen on {listen} (--listen): {error}; {advice}")
    })?;
    let url = format!("http://{}", reachable(simulator.addr()));
    super::print(&format!(
        "The simulated Particle cloud listens on {url}\n\n  \
         Its stream    curl -N {url}/v1/devices/events\n  \
         A broker      fanlight serve --upstream-url {url}\n  \
         Its state     curl {url}/sim\n  \
         A fault       curl -d 'cut mid-event' {url}/sim/faults\n  \
         No faults     curl -X DELETE {url}/sim/faults\n\n\
         Ctrl-C ends it.\n"
    ))?;
    signals.next().await;
    simulator.stop().await;
    Ok(())
}

fn required<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, name: &str) -> &'a T {
    matches.get_one(name).expect("the definition gives it a default")
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=EVENTS_PER_SECOND_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("a number from 0 to {EVENTS_PER_SECOND_MAX}")),
    }
}

fn parse_keepalive(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(duration)
            if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&duration) =>
        {
            Ok(duration)
        }
        Ok(_) => Err("from 1ms to 1h".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
