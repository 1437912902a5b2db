//! The flags of `fanlight bench`, and what they come to.

use std::{net::IpAddr, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use reqwest::header::HeaderValue;
use url::{Url, form_urlencoded};

use crate::{
    cli::{Failure, credential},
    config::parse_duration,
    load::{Plan, Protocol, Watch},
};

use super::{
    address::{fits, host, parse_http, reach},
    publish::Publishing,
};

/// More than one machine can hold anyway.
const SUBSCRIBERS_MAX: u64 = 1_000_000;
/// Events published in a second, or connections begun, and events at once.
const RATE_MAX: f64 = 100_000.0;
const RATE_MIN: f64 = 0.001;
const BURST_MAX: u64 = 10_000;

/// A measurement.
pub(super) struct Bench {
    /// As given.
    pub(super) url: String,
    pub(super) plan: Plan,
    pub(super) duration: Duration,
    pub(super) publishing: Option<Publishing>,
    pub(super) json: bool,
}

pub(in crate::cli) fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let several = |name, value, help| text(name, value, help).action(ArgAction::Append);
    Command::new("bench")
        .about("Measure a running broker with many subscribers")
        .long_about(
            "Open many subscribers to a running broker, let events come for a while, and report what \
             arrived, how fast, and whether anything was lost.\n\n\
             Without --publish it watches what comes: what one subscriber misses and another got counts as \
             lost, and latency is the time after the first that got it. With --publish it sends numbered \
             events of its own through a simulated cloud: then losses and latency are exact.\n\n\
             Example: fanlight simulate --rate 0\n\
             and:     fanlight serve --upstream-url http://127.0.0.1:9000\n\
             then:    fanlight bench http://127.0.0.1:8080 --subscribers 1000 --publish http://127.0.0.1:9000\n\n\
             Ctrl-C ends it early, with the report. It ends with 1 if anything was lost or cut off \
             untold, or if no subscriber could connect.",
        )
        .args([
            Arg::new("url")
                .value_name("URL")
                .required(true)
                .value_parser(parse_http)
                .help("The broker, such as http://127.0.0.1:8080"),
            text("subscribers", "COUNT", "Subscribers to open")
                .default_value("100")
                .value_parser(value_parser!(u64).range(1..=SUBSCRIBERS_MAX)),
            text("connect-rate", "NUMBER", "Connections to begin in a second; without it as many as go")
                .value_parser(parse_rate),
            text("duration", "DURATION", "How long to measure once they are open")
                .default_value("30s")
                .value_parser(parse_time),
            text("transport", "NAME", "How the subscribers connect")
                .default_value("sse")
                .value_parser(PossibleValuesParser::new(["sse", "websocket"])),
            several("prefix", "TEXT", "Only events whose name begins so; may be repeated"),
            several("name", "TEXT", "Only events of this name; may be repeated"),
            several("device", "ID", "Only events of this device; may be repeated")
                .conflicts_with("publish"),
            several("header", "LINE", "A further request header, 'Name: value'; may be repeated")
                .value_parser(parse_header),
            several("source", "ADDRESS", "An address of this machine to connect from; may be repeated: each \
                 has some 28,000 ports")
                .value_parser(value_parser!(IpAddr)),
            credential::arg(),
            text("publish", "URL", "Publish through the simulated cloud at this address, which the broker \
                 reads from")
                .value_parser(parse_http),
            text("rate", "NUMBER", "Events to publish in a second")
                .default_value("10")
                .value_parser(parse_rate),
            text("burst", "COUNT", "Events to publish at once, at the same rate on the whole")
                .default_value("1")
                .value_parser(value_parser!(u64).range(1..=BURST_MAX)),
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print the report as one JSON object"),
        ])
}

impl Bench {
    /// What the flags come to. Looks whether broker and cloud can be reached.
    pub(super) fn of(matches: &ArgMatches, bearer: Option<&HeaderValue>) -> Result<Bench, Failure> {
        let url: &Url = required(matches, "url");
        let count = |name| usize::try_from(*required::<u64>(matches, name)).unwrap_or(usize::MAX);
        let sources: Vec<IpAddr> = all(matches, "source");
        if sources.iter().any(|source| source.is_ipv4() != sources[0].is_ipv4()) {
            return Err(Failure::Usage("--source: all of IPv4, or all of IPv6".to_owned()));
        }
        let subscribers = count("subscribers");
        fits(subscribers, sources.len())?;
        let protocol = match required::<String>(matches, "transport").as_str() {
            "websocket" => Protocol::WebSocket,
            _ => Protocol::Sse,
        };
        let publish_at = matches.get_one::<Url>("publish");
        let watch = if publish_at.is_some() { Watch::Stamps } else { Watch::Positions };
        let target = reach(url, sources.first().copied())?;
        let mut headers: Vec<String> = all(matches, "header");
        if let Some(bearer) = bearer.and_then(|value| value.to_str().ok()) {
            headers.push(format!("Authorization: {bearer}"));
        }
        let plan = Plan {
            sources,
            host: host(url),
            protocol,
            watch,
            headers,
            connects_per_second: matches.get_one("connect-rate").copied(),
            ..Plan::new(target, &path(url, protocol, matches), subscribers)
        };
        let publishing = match publish_at {
            None => None,
            Some(cloud) => Some(Publishing {
                target: reach(cloud, None)?,
                url: cloud.clone(),
                name: event_name(matches),
                rate: *required(matches, "rate"),
                burst: *required(matches, "burst"),
            }),
        };
        let duration = *required(matches, "duration");
        Ok(Bench {
            url: url.to_string(),
            plan,
            duration,
            publishing,
            json: matches.get_flag("json"),
        })
    }
}

/// Path and query of the stream; an address that already names it is as good.
fn path(url: &Url, protocol: Protocol, matches: &ArgMatches) -> String {
    let base = url.path().trim_end_matches('/');
    let base = ["/events", "/ws"].iter().find_map(|end| base.strip_suffix(end)).unwrap_or(base);
    let mut query = form_urlencoded::Serializer::new(url.query().unwrap_or_default().to_owned());
    for name in ["prefix", "name", "device"] {
        query.extend_pairs(all::<String>(matches, name).iter().map(|value| (name, value)));
    }
    let stream = match protocol {
        Protocol::Sse => "events",
        Protocol::WebSocket => "ws",
    };
    match query.finish() {
        none if none.is_empty() => format!("{base}/{stream}"),
        query => format!("{base}/{stream}?{query}"),
    }
}

/// A name that passes the filter.
fn event_name(matches: &ArgMatches) -> String {
    let first = |name| all::<String>(matches, name).into_iter().next();
    let prefixed = || first("prefix").map(|prefix| prefix + "bench");
    first("name").or_else(prefixed).unwrap_or_else(|| "bench".to_owned())
}

fn required<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, name: &str) -> &'a T {
    matches.get_one(name).expect("the definition requires it or gives it a default")
}

fn all<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<T> {
    matches.get_many(name).into_iter().flatten().cloned().collect()
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (RATE_MIN..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!("a number from {RATE_MIN} to {RATE_MAX}")),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    match parse_duration(text) {
        Ok(time) if (Duration::from_millis(100)..=DAY).contains(&time) => Ok(time),
        Ok(_) => Err("from 100ms to 1d".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_header(text: &str) -> Result<String, String> {
    let is_line = text.split_once(':').is_some_and(|(name, _)| !name.trim().is_empty())
        && !text.contains(char::is_control);
    if is_line { Ok(text.to_owned()) } else { Err("a line such as 'Name: value'".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(arguments: &[&str]) -> (String, String) {
        let arguments = ["bench"].iter().chain(arguments);
        let matches = command().get_matches_from(arguments);
        let url: &Url = required(&matches, "url");
        (path(url, Protocol::Sse, &matches), event_name(&matches))
    }

    #[test]
    fn the_path_follows_the_address_and_the_filter() {
        assert_eq!(paths(&["http://h"]), ("/events".to_owned(), "bench".to_owned()));
        assert_eq!(paths(&["http://h/events"]).0, "/events");
        assert_eq!(paths(&["http://h/base/ws?control=off"]).0, "/base/events?control=off");
        let filtered = paths(&["http://h", "--prefix=a/", "--name=b c", "--prefix=d"]);
        let expected = ("/events?prefix=a%2F&prefix=d&name=b+c".to_owned(), "b c".to_owned());
        assert_eq!(filtered, expected);
        assert_eq!(paths(&["http://h", "--prefix=a/"]).1, "a/bench");
    }
}
