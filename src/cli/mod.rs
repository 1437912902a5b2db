//! The command line: one file a command. Flags of settings come from `config`.
//!
//! Law: a command says what went wrong and what to do, on standard error, and ends with
//! 0 (done), 1 (failed) or 2 (wrong usage or configuration).

mod bench;
mod check;
mod credential;
mod demo;
mod documents;
mod healthcheck;
mod publish;
mod serve;
pub mod settings;
mod simulate;
mod tail;
mod token;
mod trace;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{ArgMatches, Command};

use crate::config::{Environment, Problems};

/// How a command can fail.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot be used.
    #[error("{0}")]
    Configuration(#[from] Problems),
    /// A flag that is no setting cannot be used.
    #[error("{0}")]
    Usage(String),
    /// It did not work.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    /// 2 for what the caller can mend by calling otherwise, 1 for the rest.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Configuration(_) | Failure::Usage(_) => ExitCode::from(2),
            Failure::Failed(_) => ExitCode::from(1),
        }
    }
}

/// The definition of the whole command line; completions and the man page come from it.
pub fn command() -> Command {
    Command::new("fanlight")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A self-hosted fan-out broker for Particle devices")
        .long_about(
            "One connection to the Particle cloud's event stream comes in; any number of browsers and \
             services get it over SSE, WebSocket and long poll, with replay and exact reports of what \
             was missed.\n\nTry it without an account: fanlight demo",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(100)
        .subcommand(serve::command())
        .subcommand(demo::command())
        .subcommand(simulate::command())
        .subcommand(tail::command())
        .subcommand(publish::command())
        .subcommand(token::command())
        .subcommand(check::command())
        .subcommand(bench::command())
        .subcommand(healthcheck::command())
        .subcommand(documents::completions())
        .subcommand(documents::man())
}

/// Runs what was asked for.
pub fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("serve", matches)) => serve::run(matches, environment),
        Some(("demo", matches)) => demo::run(matches, environment),
        Some(("simulate", matches)) => simulate::run(matches),
        Some(("tail", matches)) => tail::run(matches, environment),
        Some(("publish", matches)) => publish::run(matches, environment),
        Some(("token", matches)) => token::run(matches, environment),
        Some(("check", matches)) => check::run(matches, environment),
        Some(("bench", matches)) => bench::run(matches, environment),
        Some(("healthcheck", matches)) => healthcheck::run(matches, environment),
        Some(("completions", matches)) => documents::print_completions(matches),
        Some(("man", _)) => documents::print_man(),
        _ => Err(Failure::Usage("no such command; see fanlight --help".to_owned())),
    }
}

/// Prints to standard output. That its reader has left, as `head` does, is no failure and
/// ends no broker: the macros of the standard library would panic.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed.context("cannot print")?),
    }
}
