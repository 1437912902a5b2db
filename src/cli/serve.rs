//! `fanlight serve`: the broker.

use std::backtrace::{Backtrace, BacktraceStatus};

use anyhow::Context as _;
use clap::{ArgMatches, Command};

use crate::{
    clock::Clock,
    config::{self, Environment, Loaded},
    server::{Broker, Config, StartError},
    simulator::Simulator,
    upstream::{Source, particle::Scope},
};

use super::{Failure, demo, settings, trace};

pub(super) fn command() -> Command {
    config::flags(
        Command::new("serve")
            .about("Run the broker")
            .long_about(
                "Run the broker against the Particle cloud, or any SSE stream.\n\nEvery setting is a flag, \
                 an environment variable and a key of fanlight.toml, in that order of rank.\n\n\
                 Example: PARTICLE_ACCESS_TOKEN=… fanlight serve\n\
                 Example: fanlight serve --upstream-token-file /etc/fanlight/token --listen 0.0.0.0:8080",
            ),
    )
}

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let loaded = config::load(matches, environment)?;
    serve(&loaded, |_, _| Ok(()))
}

/// Runs the broker until a signal ends it. `announce` is told of the broker, and of the
/// simulated cloud where there is one, once both listen.
pub(super) fn serve(
    loaded: &Loaded,
    announce: impl FnOnce(&Broker, Option<&Simulator>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    trace::begin(loaded)?;
    for warning in loaded.warnings() {
        tracing::warn!("{warning}");
    }
    let config = settings::broker(loaded)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    let served = runtime.block_on(serve_until_signal(loaded, config, announce));
    // Nothing is left that is worth waiting for: a name look-up cannot be cancelled.
    runtime.shutdown_background();
    served
}

async fn serve_until_signal(
    loaded: &Loaded,
    mut config: Config,
    announce: impl FnOnce(&Broker, Option<&Simulator>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let simulator = match loaded.choice("upstream.source") {
        "demo" => {
            let simulator = demo::simulate(loaded).await?;
            config.upstream.source = Source::Particle { url: simulator.url(), scope: Scope::Mine };
            // There is no token at stake, and something to try.
            config.publish.enabled |= !loaded.is_given("publish.enabled");
            Some(simulator)
        }
        _ => None,
    };
    let broker = Broker::start(config, Clock::system()).await.map_err(|error| match error {
        StartError::Upstream(error) => Failure::Usage(error.to_string()),
        error @ (StartError::Listen { .. } | StartError::Shards { .. } | StartError::KeySet(_)) => {
            Failure::Failed(error.into())
        }
    })?;
    count_panics(&broker);
    if let Some(address) = broker.admin_addr() {
        tracing::info!(%address, "listening for operators");
    }
    tracing::info!(
        address = %broker.addr(), epoch = %broker.hub().epoch(), version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    announce(&broker, simulator.as_ref())?;
    let signal = signals.next().await;
    let (subscribers, window) =
        (broker.hub().subscribers(), loaded.duration("server.drain_window"));
    tracing::info!(signal, subscribers, window_seconds = window.as_secs(), "shutting down");
    tokio::select! {
        cut = broker.shutdown() => tracing::info!(cut, "shut down"),
        signal = signals.next() => tracing::warn!(signal, "signalled again: ending at once"),
    }
    if let Some(simulator) = simulator {
        simulator.stop().await;
    }
    Ok(())
}

/// Each panic is a bug of ours: it is counted and traced, and the rest goes on. In place of the
/// standard hook, which would print what the panic is about: that can be part of a request.
fn count_panics(broker: &Broker) {
    let telemetry = broker.telemetry().clone();
    std::panic::set_hook(Box::new(move |panic| {
        telemetry.panics.increment(1);
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let what = text.or(payload.downcast_ref::<&str>().copied()).map_or("", without_data);
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::capture();
        let backtrace = match backtrace.status() {
            BacktraceStatus::Captured => Some(backtrace.to_string()),
            _ => None,
        };
        tracing::error!(what, place, backtrace, "a bug of Fanlight: please report it");
    }));
}

/// What a panic says of the mistake, without what it says of the data. The standard library's own
/// and those of `expect` put that behind a colon, on further lines, or (of a text that is cut where
/// no character ends) behind what is meant by it.
fn without_data(panic: &str) -> &str {
    let ends = [": ", "\n", "; it is inside", " of `", " of \""];
    let end = ends.iter().filter_map(|end| panic.find(end)).min();
    &panic[..end.unwrap_or(panic.len())]
}

/// The signals that end the broker.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next one's name. Cancel-safe.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_panic_is_told_without_its_data() {
        fn told(panic: impl FnOnce() + std::panic::UnwindSafe) -> String {
            let payload = catch_unwind(panic).unwrap_err();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default();
            let told = without_data(text).to_owned();
            assert!(!told.contains("hunter2"), "{told}");
            told
        }
        let text = std::hint::black_box("hunter2é".to_owned());
        let number: Result<u8, _> = "hunter2".parse::<url::Url>().map(|_| 1);
        assert!(!told(move || drop(text[..8].to_owned())).is_empty());
        let failed: Result<u8, String> = std::hint::black_box(Err("hunter2".to_owned()));
        assert_eq!(told(move || assert_eq!(failed.expect("a name of ours"), 0)), "a name of ours");
        assert_eq!(told(move || assert_eq!(number.expect("an address"), 0)), "an address");
        assert_eq!(
            told(|| assert_eq!("hunter2", std::hint::black_box("x"))),
            "assertion `left == right` failed"
        );
        assert_eq!(told(|| panic!("a literal")), "a literal");
    }
}
