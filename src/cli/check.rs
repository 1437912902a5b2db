//! `fanlight check`: is the configuration usable? Nothing is connected.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::{
    config::{self, Environment, Origin, Override},
    upstream::token::TokenSource,
};

use super::{Failure, settings};

pub(super) fn command() -> Command {
    let print = Arg::new("print")
        .long("print")
        .action(ArgAction::SetTrue)
        .help("Print the effective configuration, secrets masked, each value with its origin");
    let command = Command::new("check").about("Check the configuration").long_about(
        "Check the configuration, as fanlight serve would read it, and say what to mend. Nothing is \
         connected and nothing is changed. Ends with 0 if the broker would start, with 2 if not.",
    );
    config::flags(command.arg(print))
}

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let none: [Override; 0] = [];
    let loaded = config::load_with(matches, environment, &none)?;
    // Apart from what is printed, which may go into a file.
    for warning in loaded.warnings() {
        eprintln!("fanlight: warning: {warning}");
    }
    if matches.get_flag("print") {
        super::print(&loaded.print())?;
    }
    let upstream = settings::upstream(&loaded)?;
    let address = match loaded.choice("upstream.source") {
        "demo" => "the simulated cloud".to_owned(),
        _ => {
            let address = upstream.address().map_err(|error| Failure::Usage(error.to_string()))?;
            without_query(address).to_string()
        }
    };
    if let Err(error) = upstream.token.read() {
        let origin: &Origin = loaded.origin(match upstream.token {
            TokenSource::File(_) => "upstream.token_file",
            TokenSource::Fixed(_) | TokenSource::None => "upstream.token",
        });
        return Err(Failure::Usage(format!("upstream.token_file ({origin}): {error}")));
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

/// A query may hold a secret.
fn without_query(mut url: url::Url) -> url::Url {
    url.set_query(None);
    url
}
