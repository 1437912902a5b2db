//! What a command says to a broker that asks who comes: a key or a token, from a file or from the
//! environment.
//!
//! Law: never from a flag, which others can read in the list of processes; sent to the broker that
//! was named and to nobody else, and shown nowhere.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, value_parser};
use reqwest::header::HeaderValue;

use crate::{
    config::Environment,
    upstream::token::{Token, TokenSource},
};

use super::Failure;

/// What to do about a broker that asks.
pub(super) const ADVICE: &str =
    "say who you are with --token-file or FANLIGHT_TOKEN (`fanlight token new` makes a key)";

/// The flag.
pub(super) fn arg() -> Arg {
    Arg::new("token-file")
        .long("token-file")
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help("File with the key or token that the broker asks for [env: FANLIGHT_TOKEN, the key itself]")
}

/// The value of the `Authorization` header; none if there is nothing to say.
///
/// # Errors
/// If the file cannot be read, or what is given is no token.
pub(super) fn bearer(
    matches: &ArgMatches,
    environment: &Environment,
) -> Result<Option<HeaderValue>, Failure> {
    let token = match (matches.get_one::<PathBuf>("token-file"), environment.broker_token()) {
        (Some(path), _) => TokenSource::File(path.clone())
            .read()
            .map_err(|error| Failure::Usage(format!("--token-file: {error}")))?,
        (None, Some(text)) => {
            let token = Token::new(text);
            Some(token.map_err(|error| Failure::Usage(format!("FANLIGHT_TOKEN: {error}")))?)
        }
        (None, None) => None,
    };
    Ok(token.map(|token| {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .expect("a token is visible ASCII");
        value.set_sensitive(true);
        value
    }))
}
