//! `fanlight check`: is the configuration usable? With `--online`, does the cloud let this machine
//! read; with `--through`, does a proxy pass streams on?
//!
//! Law: without these two nothing is connected.

mod directives;
mod finding;
mod judge;
mod online;
mod progress;
mod through;
mod watch;

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use crate::{
    clock::Clock,
    config::{self, Environment, Loaded, Origin, Override, duration_text, parse_duration},
    upstream::token::{Token, TokenSource},
};

use self::{
    finding::{Finding, State},
    online::Online,
    through::Through,
};
use super::{
    Failure, credential, settings,
    settings::reachable,
    tail::{parse_base, parse_header},
};

/// Below it no keep-alive can be seen, and little else.
const WATCH_MIN: Duration = Duration::from_millis(500);
const WATCH_MAX: Duration = Duration::from_secs(3600);

pub(super) fn command() -> Command {
    let print = Arg::new("print")
        .long("print")
        .action(ArgAction::SetTrue)
        .help("Print the effective configuration, secrets masked, each value with its origin");
    let online = Arg::new("online")
        .long("online")
        .action(ArgAction::SetTrue)
        .conflicts_with("print")
        .help("Then ask the cloud, step by step: name, network, TLS, clock, token, scope, first bytes, keep-alive");
    let through = Arg::new("through")
        .long("through")
        .value_name("URL")
        .value_parser(parse_base)
        .conflicts_with_all(["print", "online"])
        .help("Compare a running broker with itself behind a reverse proxy at this address");
    let direct = Arg::new("direct")
        .long("direct")
        .value_name("URL")
        .requires("through")
        .value_parser(parse_base)
        .help("The broker's own address, for --through [default: where listen says]");
    let watch_for = Arg::new("for")
        .long("for")
        .value_name("DURATION")
        .default_value("30s")
        .value_parser(parse_watch)
        .help("How long --through watches, 500ms to 1h; what a proxy cuts later is not seen");
    let header = Arg::new("header")
        .long("header")
        .value_name("LINE")
        .requires("through")
        .action(ArgAction::Append)
        .value_parser(parse_header)
        .help("A further request header for the proxy, 'Name: value'; may be repeated");
    let token_file = credential::arg().requires("through");
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("With --online or --through: one JSON object");
    let command = Command::new("check")
        .about("Check the configuration, the cloud (--online) or a proxy (--through)")
        .long_about(
            "Check the configuration, as fanlight serve would read it, and say what to mend. Nothing is \
             connected and nothing is changed. Ends with 0 if the broker would start, with 2 if not.\n\n\
             With --online it then goes to the cloud, as the broker would, and tells each step in a line: ok, \
             warning or failed, and what to do. It opens one stream for up to half a minute, counted in the \
             budget of opens in state.dir. The token is not shown.\n\n\
             With --through it watches a running broker directly and through a reverse proxy at the same \
             time, and says what the proxy does to streams: buffering, compression, cuts, headers, WebSocket, \
             Last-Event-ID; and the lines of nginx, Caddy or HAProxy that mend it. Events are needed to see \
             delays; without any, hello and keep-alives are judged. The settings say where the broker \
             listens, and are not checked otherwise.\n\n\
             Example: fanlight check --online --upstream-token-file /etc/fanlight/token\n\
             Example: fanlight check --through https://events.example.org\n\
             Example: fanlight check --through https://events.example.org --direct http://10.0.0.5:8080 --for 2m\n\n\
             These two end with 0 if nothing has failed (warnings are told), with 1 if anything has.",
        );
    config::flags(
        command.args([print, online, through, direct, watch_for, header, token_file, json]),
    )
}

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let is_asking = matches.get_flag("online") || matches.contains_id("through");
    if matches.get_flag("json") && !is_asking {
        return Err(Failure::Usage("--json is for --online and --through".to_owned()));
    }
    if let Some(proxy) = matches.get_one::<Url>("through") {
        return compare(matches, environment, proxy);
    }
    let none: [Override; 0] = [];
    let loaded = config::load_with(matches, environment, &none)?;
    // Apart from what is printed, which may go into a file.
    for warning in loaded.warnings() {
        eprintln!("fanlight: warning: {warning}");
    }
    if matches.get_flag("print") {
        super::print(&loaded.print())?;
    }
    settings::access(&loaded, loaded.address("listen"))?;
    let upstream = settings::upstream(&loaded)?;
    let address = match loaded.choice("upstream.source") {
        "demo" => "the simulated cloud".to_owned(),
        _ => {
            let address = upstream.address().map_err(|error| Failure::Usage(error.to_string()))?;
            without_query(address).to_string()
        }
    };
    let token = upstream.token.read();
    if let Err(error) = &token {
        let origin: &Origin = loaded.origin(match upstream.token {
            TokenSource::File(_) => "upstream.token_file",
            TokenSource::Fixed(_) | TokenSource::None => "upstream.token",
        });
        return Err(Failure::Usage(format!("upstream.token_file ({origin}): {error}")));
    }
    if matches.get_flag("online") {
        return go_online(matches, &loaded, upstream, token.ok().flatten());
    }
    if !matches.get_flag("print") {
        let file = loaded.file().map(|file| file.display().to_string());
        super::print(&format!(
            "The configuration is usable.\n  file      {}\n  listen    {}\n  upstream  {address}\n\
             See every value and where it is from: fanlight check --print\n",
            file.as_deref().unwrap_or("none"),
            loaded.address("listen"),
        ))?;
    }
    Ok(())
}

/// Asks the cloud, as the broker would.
fn go_online(
    matches: &ArgMatches,
    loaded: &Loaded,
    config: crate::upstream::Config,
    token: Option<Token>,
) -> Result<(), Failure> {
    if loaded.choice("upstream.source") == "demo" {
        let text = "upstream.source is `demo`: there is no cloud to ask";
        return Err(Failure::Usage(text.to_owned()));
    }
    let url = config.address().map_err(|error| Failure::Usage(error.to_string()))?;
    let online = Online { config, url, token };
    let clock = Clock::system();
    let findings = run_on(online::check(&online, &clock))?;
    tell(matches, &findings, "the broker would not get its events")
}

/// Compares a proxy with the broker behind it.
fn compare(matches: &ArgMatches, environment: &Environment, proxy: &Url) -> Result<(), Failure> {
    let direct = match matches.get_one::<Url>("direct") {
        Some(url) => url.clone(),
        None => {
            // The token is the broker's business: who asks need not have one.
            let overrides = [Override {
                name: "upstream.source",
                text: "demo".to_owned(),
                origin: Origin::Command("fanlight check --through"),
            }];
            let loaded = config::load_with(matches, environment, &overrides)?;
            let listen = reachable(loaded.address("listen"));
            if listen.port() == 0 {
                let text = "listen lets the system choose the port: name the broker's address with --direct";
                return Err(Failure::Usage(text.to_owned()));
            }
            through::direct_url(listen)?
        }
    };
    for url in [proxy, &direct] {
        if !url.username().is_empty() || url.password().is_some() {
            let text = "URL: without user name and password; --header 'Authorization: …' says them";
            return Err(Failure::Usage(text.to_owned()));
        }
    }
    let headers = matches.get_many::<(HeaderName, HeaderValue)>("header").into_iter().flatten();
    let through = Through {
        proxy: proxy.clone(),
        direct,
        watch_for: *matches.get_one("for").expect("the definition gives it a default"),
        headers: headers.cloned().collect(),
        bearer: credential::bearer(matches, environment)?,
    };
    let findings = run_on(through::check(&through))?;
    tell(matches, &findings, "the proxy does not pass streams on as they are")
}

fn run_on<T>(check: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let checked = runtime.block_on(check);
    // A name look-up cannot be cancelled, and is not waited for.
    runtime.shutdown_background();
    checked
}

fn tell(matches: &ArgMatches, findings: &[Finding], failure: &'static str) -> Result<(), Failure> {
    super::print(&finding::report(findings, matches.get_flag("json")))?;
    match finding::worst(findings) {
        State::Ok | State::Warning => Ok(()),
        State::Failed => Err(Failure::Failed(anyhow!(failure))),
    }
}

fn parse_watch(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(duration) if (WATCH_MIN..=WATCH_MAX).contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("from {} to {}", duration_text(WATCH_MIN), duration_text(WATCH_MAX))),
        Err(error) => Err(error.to_string()),
    }
}

/// A query may hold a secret.
fn without_query(mut url: url::Url) -> url::Url {
    url.set_query(None);
    url
}
