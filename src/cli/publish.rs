//! `fanlight publish`: one event, through a running broker.
//!
//! Law: it says published only of an answer that says so. What cannot be published is refused
//! before anything is sent, and nothing is sent twice.

use std::{
    io::{Read as _, stdin},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::{Arg, ArgMatches, Command, value_parser};
use reqwest::{
    Client, Response, StatusCode,
    header::{self, HeaderValue},
    redirect,
};
use serde_json::Value;
use url::Url;

use crate::{
    config::Environment,
    upstream::publish::{DATA_URL_BYTES_MAX, Draft, Sender},
};

use super::{Failure, credential};

/// For the broker's answer: longer than it waits for the cloud's (`publish.timeout`).
const TIMEOUT: Duration = Duration::from_secs(75);
/// The cloud's answers are far shorter.
const ANSWER_BYTES_MAX: usize = 64 << 10;

pub(super) fn command() -> Command {
    Command::new("publish")
        .about("Publish an event through a running broker")
        .long_about(
            "Publish an event: the broker passes it on to the Particle cloud with its own token, and it \
             comes back on the event stream. The broker must allow it (publish.enabled; fanlight demo \
             does).\n\n\
             Ends with 0 (the cloud has taken it), 1 (it has not, or nobody knows; the reason is on \
             standard error) or 2 (wrong usage, or an event that no cloud would take).\n\n\
             Example: fanlight publish greenhouse/setpoint 21.5\n\
             Example: date | fanlight publish --product 12345 clock -\n\
             Example: fanlight publish --url http://192.0.2.10:8080 hello",
        )
        .args([
            Arg::new("name").value_name("NAME").required(true).help(
                "Name of the event: 1 to 64 visible ASCII characters, not beginning with particle or spark",
            ),
            Arg::new("data")
                .value_name("DATA")
                .allow_hyphen_values(true)
                .help("Its data, as it stands; - reads it from standard input, without the last line feed"),
            Arg::new("url")
                .long("url")
                .value_name("URL")
                .default_value("http://127.0.0.1:8080")
                .value_parser(parse_base)
                .help("The broker's address"),
            Arg::new("product")
                .long("product")
                .value_name("PRODUCT")
                .help("Publish as this product, which the broker must read (upstream.scope)"),
            Arg::new("ttl")
                .long("ttl")
                .value_name("SECONDS")
                .value_parser(value_parser!(u32))
                .help("Passed on; the cloud has no use for it any more"),
            credential::arg(),
        ])
}

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let base: &Url = matches.get_one("url").expect("the definition gives it a default");
    // Not left to the parser, whose errors repeat what they refuse.
    if !base.username().is_empty() || base.password().is_some() {
        let text = "--url: without user name and password, which would be printed";
        return Err(Failure::Usage(text.to_owned()));
    }
    let name: &String = matches.get_one("name").expect("the definition requires it");
    let data = match matches.get_one::<String>("data").map(String::as_str) {
        Some("-") => Some(piped()?),
        data => data.map(str::to_owned),
    };
    let draft = Draft::new(name, data.as_deref(), matches.get_one("ttl").copied());
    let draft = draft.map_err(|error| Failure::Usage(error.to_string()))?;
    let sender = match matches.get_one::<String>("product") {
        Some(product) => Sender::Product(product.clone()),
        None => Sender::User,
    };
    let url = address(base, &sender);
    let bearer = credential::bearer(matches, environment)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| anyhow!("cannot start the runtime: {error}"))?;
    let published = runtime.block_on(publish(&url, &draft, bearer));
    // A name look-up cannot be cancelled, and is not waited for.
    runtime.shutdown_background();
    published?;
    super::print(&format!("published {name}\n"))
}

/// Standard input, up to what an event can hold.
fn piped() -> Result<String, Failure> {
    let mut text = String::new();
    // A little more, so that too much is seen to be that.
    let bytes_max = DATA_URL_BYTES_MAX as u64 + 2;
    stdin()
        .lock()
        .take(bytes_max)
        .read_to_string(&mut text)
        .context("cannot read the data from standard input as UTF-8")?;
    let without = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text));
    Ok(without.map(str::to_owned).unwrap_or(text))
}

/// Below the path of `base`, for a broker behind a prefix.
fn address(base: &Url, sender: &Sender) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(sender.path());
    }
    url
}

async fn publish(url: &Url, draft: &Draft, bearer: Option<HeaderValue>) -> Result<(), Failure> {
    let failed = |error: reqwest::Error| match error.is_timeout() {
        true => anyhow!(
            "{url} gave no answer within {} s; nobody knows whether it is published",
            TIMEOUT.as_secs()
        ),
        false => anyhow!(error.without_url())
            .context(format!("{url} cannot be reached; is a broker there?")),
    };
    let mut client =
        Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(TIMEOUT);
    client = client.retry(reqwest::retry::never());
    if url.scheme() == "http" {
        // No root certificates are needed, so a bare container need not have any.
        client = client.tls_certs_only([]);
    }
    let client = client.build().map_err(failed)?;
    let mut request = client
        .post(url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .body(draft.to_json());
    if let Some(bearer) = bearer {
        request = request.header(header::AUTHORIZATION, bearer);
    }
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    let answer: Value =
        serde_json::from_slice(&read(&mut response).await.map_err(failed)?).unwrap_or_default();
    if status == StatusCode::OK && answer["ok"] == true {
        return Ok(());
    }
    let reason = answer["error_description"].as_str().or(answer["error"].as_str());
    let said = match reason {
        Some(reason) => format!("answered {}: {}", status.as_u16(), printable(reason)),
        None => format!("answered {}, but not as Fanlight does; who is it?", status.as_u16()),
    };
    let text = format!("not published: {url} {said}");
    match status {
        StatusCode::BAD_REQUEST => Err(Failure::Usage(text)),
        StatusCode::UNAUTHORIZED => Err(Failure::Failed(anyhow!("{text}; {}", credential::ADVICE))),
        _ => Err(Failure::Failed(anyhow!(text))),
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

/// One line, and nothing that moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn parse_base(text: &str) -> Result<Url, String> {
    let advice = "such as http://127.0.0.1:8080";
    let url = Url::parse(text).map_err(|error| format!("{error}; {advice}"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() && url.query().is_none() && url.fragment().is_none() => {
            Ok(url)
        }
        _ => Err(format!("the broker's address alone, http or https, {advice}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_below_that_of_the_broker() {
        let shown =
            |base: &str, sender: &Sender| address(&parse_base(base).unwrap(), sender).to_string();
        let user = "http://127.0.0.1:8080/v1/devices/events";
        assert_eq!(shown("http://127.0.0.1:8080", &Sender::User), user);
        let product = Sender::Product("a/b".to_owned());
        let expected = "https://gate.example/fanlight/v1/products/a%2Fb/events";
        assert_eq!(shown("https://gate.example/fanlight/", &product), expected);
        for wrong in ["127.0.0.1:8080", "ftp://gate.example", "http://gate.example/?x=1", ""] {
            assert!(parse_base(wrong).is_err(), "{wrong}");
        }
    }
}
