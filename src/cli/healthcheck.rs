//! `fanlight healthcheck`: one question to a broker, for containers and cron.
//!
//! Law: it says healthy only of an answer that a Fanlight gave. It changes nothing, follows no
//! redirect, uses no proxy, and is over within its time whatever the other side does.

use std::{error::Error as _, time::Duration};

use anyhow::anyhow;
use clap::{Arg, ArgAction, ArgMatches, Command};
use reqwest::{Client, Response, StatusCode, redirect};
use serde_json::Value;
use url::Url;

use crate::config::{self, Environment, Origin, Override, duration_text, parse_duration};

use super::{Failure, settings::reachable};

/// Settings that say where the broker listens; the others are of no use here.
const FLAGS: [&str; 2] = ["config", "listen"];
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Both answers are far shorter, but for the reason of a refusal.
const ANSWER_BYTES_MAX: usize = 4096;

pub(super) fn command() -> Command {
    let command = Command::new("healthcheck")
        .about("Ask a running broker whether it is healthy: for containers and cron")
        .long_about(
            "Ask the broker of this machine whether it is healthy, and print the answer in one line. \
             Without a URL it asks where the settings say that the broker listens (listen, from the flag, \
             the environment or the file); 0.0.0.0 and [::] are asked on loopback.\n\n\
             It asks /healthz: does the process answer? That is the question for whoever restarts what is \
             unhealthy. A broker without its upstream is healthy: a restart would not bring the upstream \
             back, and cost an open and the history. With --ready it asks /readyz: is the upstream live, \
             or was it until a moment ago (server.ready_after)? That is for whoever sends clients \
             elsewhere.\n\n\
             Ends with 0 (healthy), 1 (not, or no answer; the reason is on standard error) or 2 (wrong \
             usage or configuration).\n\n\
             In a Dockerfile: HEALTHCHECK CMD [\"fanlight\", \"healthcheck\"]\n\
             In a crontab:    * * * * * fanlight healthcheck >/dev/null\n\
             Another machine: fanlight healthcheck --ready http://192.0.2.10:8080",
        )
        .args([
            Arg::new("url")
                .value_name("URL")
                .value_parser(parse_base)
                .conflicts_with_all(FLAGS)
                .help("The broker's address, such as http://127.0.0.1:8080; the settings are not read then"),
            Arg::new("ready")
                .long("ready")
                .action(ArgAction::SetTrue)
                .help("Ask /readyz in the place of /healthz"),
            Arg::new("timeout")
                .long("timeout")
                .value_name("DURATION")
                .default_value("3s")
                .value_parser(parse_timeout)
                .help("Longest time for the whole answer, 100ms to 1m"),
        ]);
    let all = config::flags(Command::new("all"));
    let of_use = all.get_arguments().filter(|flag| FLAGS.contains(&flag.get_id().as_str()));
    let of_use = of_use.map(|flag| flag.clone().help_heading(None));
    command.args(of_use)
}

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let base = match matches.get_one::<Url>("url") {
        // Not left to the parser, whose errors repeat what they refuse.
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            let text = "URL: without user name and password, which would be printed";
            return Err(Failure::Usage(text.to_owned()));
        }
        Some(url) => url.clone(),
        None => configured(matches, environment)?,
    };
    let question = if matches.get_flag("ready") { READY } else { ALIVE };
    let timeout = *matches.get_one("timeout").expect("the definition gives it a default");
    let url = question.url(&base);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| anyhow!("cannot start the runtime: {error}"))?;
    let asked = runtime.block_on(ask(&url, question, timeout));
    // A name look-up cannot be cancelled, and is not waited for.
    runtime.shutdown_background();
    match asked {
        Ok(()) => super::print(&format!("{}: {url} says so\n", question.yes)),
        Err(reason) => Err(Failure::Failed(anyhow!("not {}: {url} {reason}", question.yes))),
    }
}

/// What can be asked.
#[derive(Clone, Copy, Debug)]
struct Question {
    path: &'static str,
    /// What the broker is if the answer is yes.
    yes: &'static str,
    /// `status` in the answer that says yes.
    status: &'static str,
}

const ALIVE: Question = Question { path: "healthz", yes: "healthy", status: "ok" };
const READY: Question = Question { path: "readyz", yes: "ready", status: "ready" };

impl Question {
    /// Below the path of `base`, for a broker behind a prefix.
    fn url(self, base: &Url) -> Url {
        let mut url = base.clone();
        url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), self.path));
        url
    }
}

/// Where the broker of these settings is reached from this machine.
fn configured(matches: &ArgMatches, environment: &Environment) -> Result<Url, Failure> {
    // The token is the broker's business: who asks need not have one.
    let overrides = [Override {
        name: "upstream.source",
        text: "demo".to_owned(),
        origin: Origin::Command("fanlight healthcheck"),
    }];
    let loaded = config::load_with(matches, environment, &overrides)?;
    let listen = reachable(loaded.address("listen"));
    if listen.port() == 0 {
        return Err(Failure::Usage(format!(
            "listen = \"{listen}\" ({}) lets the system choose the port: give the broker's URL, which \
             it traced when it started",
            loaded.origin("listen")
        )));
    }
    Ok(Url::parse(&format!("http://{listen}")).expect("an address makes a URL"))
}

/// Asks. The error says what happened in the place of a yes.
async fn ask(url: &Url, question: Question, timeout: Duration) -> Result<(), String> {
    let failed = |error: reqwest::Error| match error.is_timeout() {
        true => format!("gave no answer within {}", duration_text(timeout)),
        false => format!("cannot be asked: {}", innermost(&error)),
    };
    let mut client =
        Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(timeout);
    if url.scheme() == "http" {
        // No root certificates are needed, so a bare container need not have any.
        client = client.tls_certs_only([]);
    }
    let client = client.build().map_err(failed)?;
    let mut response = client.get(url.clone()).send().await.map_err(failed)?;
    let answer = read(&mut response).await.map_err(failed)?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let status = response.status();
    match answer["error_description"].as_str() {
        _ if status == StatusCode::OK && answer["status"] == question.status => Ok(()),
        Some(reason) => Err(format!("answered {}: {}", status.as_u16(), printable(reason))),
        None => Err(format!("answered {}, but not as Fanlight does; who is it?", status.as_u16())),
    }
}

/// The body, as far as it is of use.
async fn read(response: &mut Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())]);
        if body.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(body)
}

/// What the system said, without the layers above it.
fn innermost(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

/// One line, and nothing that moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn parse_base(text: &str) -> Result<Url, String> {
    let advice = "such as http://127.0.0.1:8080";
    let url = Url::parse(text).map_err(|error| format!("{error}; {advice}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("an http or https address is needed, {advice}"));
    }
    let ends_with_question = [ALIVE, READY].iter().any(|one| url.path().ends_with(one.path));
    if ends_with_question || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("the broker's address alone, {advice}; --ready asks /readyz"));
    }
    Ok(url)
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(duration) if (TIMEOUT_MIN..=TIMEOUT_MAX).contains(&duration) => Ok(duration),
        Ok(_) => Err("from 100ms to 1m".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
