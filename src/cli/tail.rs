//! `fanlight tail`: events as they come, on a terminal or into a pipe.
//!
//! Law: what a broker told is printed once and in order, through its restarts and the network's
//! cuts; what is missing is printed where it is missing. Standard output has events and control
//! objects and nothing else.

mod broker;
mod cloud;
mod output;
mod reader;
mod show;
mod state;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::{
    Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, parser::ValueSource,
    value_parser,
};
use reqwest::header::{self, HeaderName, HeaderValue};
use url::Url;

use crate::{
    clock::Clock,
    config::{self, Environment, Loaded, Origin, Override, duration_text, parse_duration},
    model::{Filter, Position},
    upstream::{self, PARTICLE_URL},
};

use self::{
    broker::Follow,
    output::{Form, Output, Over},
    reader::Reader,
    show::Look,
    state::StateFile,
};
use super::{Failure, credential, serve::Signals, settings};

pub(super) use broker::{chain, is_loopback, quoted};

/// For the last lines to be written after an interruption, where somebody reads them.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
const BROKER_URL: &str = "http://127.0.0.1:8080";
/// Settings that count for `--cloud`: `config`, and these sections.
const CLOUD_SECTIONS: [&str; 2] = ["upstream.", "state."];
const RETRY_MAX_BOUNDS: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_secs(3600));
const STALE_AFTER_BOUNDS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3600));

pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let several = |name, value, help| text(name, value, help).action(ArgAction::Append);
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let command = Command::new("tail")
        .about("Print events as they come, from a broker or from the Particle cloud")
        .long_about(
            "Subscribe to a broker, or straight to the Particle cloud, and print events: readable lines on a \
             terminal, and with --json one object a line, as the broker's NDJSON has it.\n\n\
             It comes back by itself after whatever happens, from where it was, and prints no event twice. \
             What is missing is printed where it is missing: a gap (the broker no longer had it) or a hole \
             (the cloud was away). Trouble of the connection is told on standard error. After a restart the \
             broker has a new history: the gap is told, and what the new one replays is printed.\n\n\
             Example: fanlight tail\n\
             Example: fanlight tail http://broker:8080 --prefix greenhouse/ --since 5m\n\
             Example: fanlight tail --json --no-control | jq -r '[.published_at, .name, .data] | @tsv'\n\
             Example: fanlight tail --json --state /var/lib/me/position | my-importer\n\
             Example: PARTICLE_ACCESS_TOKEN=… fanlight tail --cloud\n\n\
             Ends with 0 (interrupted, the limit reached, or the pipe closed), 1 (what it was pointed at \
             refuses it for a reason that does not pass) or 2 (wrong usage or configuration).",
        )
        .args([
            Arg::new("url")
                .value_name("URL")
                .value_parser(parse_base)
                .help("The broker's address [default: http://127.0.0.1:8080]; that of the Particle API means --cloud"),
            several("prefix", "TEXT", "Only events whose name begins so; may be repeated"),
            several("name", "TEXT", "Only events of this name; may be repeated"),
            several("device", "ID", "Only events of this device; may be repeated"),
            text("since", "TIME", "Begin in the past: a duration back (5m), an RFC 3339 time, or earliest"),
            text("last-event-id", "POSITION", "Continue after this position, such as 6n3k2ahq-1042")
                .value_parser(value_parser!(Position))
                .conflicts_with_all(["since", "snapshot"]),
            switch("snapshot", "First the newest event of each name and device"),
            text("state", "FILE", "Keep the position in this file, and continue from it; killed in between, \
                 the last lines come again, and none is lost")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("last-event-id"),
            text("limit", "COUNT", "End after so many events")
                .short('n')
                .value_parser(value_parser!(u64).range(1..)),
            switch("json", "One JSON object a line, control objects included"),
            switch("no-control", "Leave out gaps, holes and upstream states"),
            switch("full", "Do not cut lines to the terminal's width").conflicts_with("json"),
            text("color", "WHEN", "Colours; auto is on a terminal, unless NO_COLOR is set")
                .default_value("auto")
                .value_parser(PossibleValuesParser::new(["auto", "always", "never"])),
            several("header", "LINE", "A further request header, 'Name: value', for a proxy in front of the \
                 broker; may be repeated")
                .value_parser(parse_header),
            credential::arg().conflicts_with("cloud"),
            text("retry-max", "DURATION", "Longest wait between two attempts, also where the broker asks for more")
                .default_value("30s")
                .value_parser(|text: &str| parse_bounded(text, RETRY_MAX_BOUNDS)),
            text("stale-after", "DURATION", "A broker's stream without a byte for so long is opened anew; the \
                 broker's stream.keepalive must be well below")
                .default_value("45s")
                .value_parser(|text: &str| parse_bounded(text, STALE_AFTER_BOUNDS)),
            switch("cloud", "Straight from the Particle cloud, without a broker: the settings say which events. \
                 It counts against the budget of opens, and nothing is replayed")
                .conflicts_with_all(["since", "last-event-id", "snapshot", "state", "header", "stale-after", "retry-max"]),
        ]);
    let all = config::flags(Command::new("all"));
    let of_use = all.get_arguments().filter(|flag| is_of_cloud(flag.get_id().as_str()));
    let of_use = of_use.map(|flag| flag.clone().hide_short_help(true));
    command.next_help_heading("With --cloud").args(of_use)
}

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let url = matches.get_one::<Url>("url");
    // Not left to the parser, whose errors repeat what they refuse.
    if url.is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        let text =
            "URL: without user name and password, which others could read in the list of processes";
        return Err(Failure::Usage(text.to_owned()));
    }
    let particle = Url::parse(PARTICLE_URL).ok();
    let is_cloud = matches.get_flag("cloud")
        || url.is_some_and(|url| url.host_str() == particle.as_ref().and_then(Url::host_str));
    let values =
        |name| -> Vec<String> { matches.get_many(name).into_iter().flatten().cloned().collect() };
    let filter = Filter::new(values("prefix"), values("name"), values("device"))
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let (state, kept) = match matches.get_one::<PathBuf>("state") {
        Some(path) => {
            let (file, kept) = StateFile::open(path)?;
            (Some(file), kept)
        }
        None => (None, None),
    };
    let source = match is_cloud {
        true => Source::Cloud(Box::new(cloud(matches, environment, url)?), filter),
        false => Source::Broker(plan(matches, environment, url)?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let followed = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let form = form(matches, environment);
        let limit = matches.get_one("limit").copied();
        let mut output = Output::start(form, !matches.get_flag("no-control"), limit, state)?;
        let position = matches.get_one("last-event-id").copied().or(kept);
        let followed = tokio::select! {
            followed = follow(source, position, &mut output) => followed.map(Some),
            _ = signals.next() => Ok(None),
        };
        let enough = async {
            match followed {
                // All of it is owed, however slowly it is read.
                Ok(Some(Over::Limit)) => drop(signals.next().await),
                // What nobody reads is not waited for.
                _ => tokio::time::sleep(FLUSH_TIMEOUT).await,
            }
        };
        let written = tokio::select! {
            written = output.finish() => written,
            () = enough => Ok(()),
        };
        followed.and(written)
    });
    // A name look-up cannot be cancelled, and is not waited for.
    runtime.shutdown_background();
    Ok(followed?)
}

/// Where events come from.
enum Source {
    Broker(Follow),
    Cloud(Box<upstream::Config>, Filter),
}

async fn follow(
    source: Source,
    position: Option<Position>,
    output: &mut Output,
) -> anyhow::Result<Over> {
    let clock = Clock::system();
    match source {
        Source::Broker(plan) => {
            broker::follow(&plan, &mut Reader::new(position), output, &clock).await
        }
        Source::Cloud(config, filter) => cloud::follow(*config, filter, output, &clock).await,
    }
}

fn plan(
    matches: &ArgMatches,
    environment: &Environment,
    url: Option<&Url>,
) -> Result<Follow, Failure> {
    let given = matches
        .ids()
        .map(clap::Id::as_str)
        .find(|id| is_of_cloud(id) && matches.value_source(id) == Some(ValueSource::CommandLine));
    if let Some(id) = given {
        let flag = id.replace(['.', '_'], "-");
        return Err(Failure::Usage(format!(
            "--{flag} is for --cloud; a broker has its own settings"
        )));
    }
    let mut query = Vec::new();
    for name in ["prefix", "name", "device", "since"] {
        let values = matches.get_many::<String>(name).into_iter().flatten();
        query.extend(values.map(|value| (name, value.clone())));
    }
    let headers = matches.get_many::<(HeaderName, HeaderValue)>("header").into_iter().flatten();
    let mut headers: Vec<(HeaderName, HeaderValue)> = headers.cloned().collect();
    if let Some(bearer) = credential::bearer(matches, environment)? {
        headers.push((header::AUTHORIZATION, bearer));
    }
    Ok(Follow {
        base: match url {
            Some(url) => url.clone(),
            None => Url::parse(BROKER_URL).context("the default is an address")?,
        },
        query,
        snapshot: matches.get_flag("snapshot"),
        headers,
        retry_max: *matches.get_one("retry-max").expect("the definition gives it a default"),
        stale_after: *matches.get_one("stale-after").expect("the definition gives it a default"),
    })
}

/// The upstream of the settings, at `url` if one is given.
fn cloud(
    matches: &ArgMatches,
    environment: &Environment,
    url: Option<&Url>,
) -> Result<upstream::Config, Failure> {
    let wrong = [
        "since",
        "last-event-id",
        "snapshot",
        "state",
        "header",
        "token-file",
        "retry-max",
        "stale-after",
    ];
    let given =
        wrong.iter().find(|name| matches.value_source(name) == Some(ValueSource::CommandLine));
    if let Some(name) = given {
        return Err(Failure::Usage(format!(
            "--{name} is for a broker: the cloud has no history, and upstream.* says how it is treated"
        )));
    }
    let origin = Origin::Command("fanlight tail URL");
    let overrides: Vec<Override> = url
        .map(|url| Override { name: "upstream.url", text: url.to_string(), origin })
        .into_iter()
        .collect();
    let loaded: Loaded = config::load_with(matches, environment, &overrides)?;
    for warning in loaded.warnings() {
        broker::note(&format!("warning: {warning}"));
    }
    if loaded.choice("upstream.source") == "demo" {
        let text =
            "upstream.source is `demo`: there is no cloud to read; fanlight demo has devices";
        return Err(Failure::Usage(text.to_owned()));
    }
    if loaded.path_opt("state.dir").is_none() {
        broker::note(
            "state.dir is not set: the next run forgets the connection attempts of this one",
        );
    }
    let config = settings::upstream(&loaded)?;
    config.address().map_err(|error| Failure::Usage(error.to_string()))?;
    config.token.read().map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(config)
}

fn form(matches: &ArgMatches, environment: &Environment) -> Form {
    if matches.get_flag("json") {
        return Form::Json;
    }
    let has_colour = match matches.get_one::<String>("color").map(String::as_str) {
        Some("always") => true,
        Some("never") => false,
        _ => io::stdout().is_terminal() && !environment.refuses_colour(),
    };
    Form::Text(Look { has_colour, is_cut: !matches.get_flag("full") })
}

fn is_of_cloud(id: &str) -> bool {
    id == "config" || CLOUD_SECTIONS.iter().any(|section| id.starts_with(section))
}

pub(super) fn parse_base(text: &str) -> Result<Url, String> {
    let advice = "such as http://127.0.0.1:8080";
    let url = Url::parse(text).map_err(|error| format!("{error}; {advice}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("an http or https address is needed, {advice}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("an address without a query, {advice}; filters are flags"));
    }
    Ok(url)
}

pub(super) fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || "a header looks like 'Name: value'".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
    let mut value = HeaderValue::try_from(value.trim()).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn parse_bounded(text: &str, (min, max): (Duration, Duration)) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(duration) if (min..=max).contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("from {} to {}", duration_text(min), duration_text(max))),
        Err(error) => Err(error.to_string()),
    }
}
