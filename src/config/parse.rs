//! Text and kind in, a checked value out, or what is wrong with the text in words.
//!
//! A fault never repeats a secret: what it quotes is a unit or a level, no more.

use std::{net::Ipv6Addr, path::PathBuf, time::Duration};

use tracing_subscriber::EnvFilter;
use url::Url;

use super::{
    element::{parse_list, toml_array},
    settings::Kind,
    suggest,
    units::{UnitError, duration_text, parse_duration, parse_size, size_text},
    value::{MASK, Parsed, Secret, Shape, Value, cut, toml_string, url_masked},
};

/// tracing-subscriber's own levels.
const TRACE_LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// What is wrong with a value, to be read after the value itself; and how to mend it where there
/// is something better to say than what is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) remedy: Option<String>,
}

/// Checks a text against a kind.
pub(super) fn parse(kind: &Kind, shape: Shape, text: &str) -> Result<Parsed, Fault> {
    check_shape(kind, shape, text)?;
    let value = parse_text(kind, text)?;
    let (literal, is_masked) = match &value {
        Value::Count(count) => (count.to_string(), false),
        Value::Number(number) => (number.to_string(), false),
        Value::Switch(switch) => (switch.to_string(), false),
        Value::List(values) => (toml_array(values), false),
        Value::Secret(_) => (toml_string(MASK), true),
        Value::Url(url) if url.query().is_some() => (toml_string(&url_masked(text)), true),
        _ => (toml_string(text), false),
    };
    Ok(Parsed { value, literal, is_masked })
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None }
    }

    pub(super) fn with_remedy(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: Some(remedy.into()) }
    }
}

fn check_shape(kind: &Kind, shape: Shape, text: &str) -> Result<(), Fault> {
    let fits = match shape {
        // Quotes around a number do no harm, and `"auto"` needs them.
        Shape::Text => true,
        // A product's number is an id, not a quantity. A bare port, duration or size goes on to be
        // told what it lacks.
        Shape::Integer => matches!(
            kind,
            Kind::Address
                | Kind::Count { .. }
                | Kind::CountOrAuto { .. }
                | Kind::Number { .. }
                | Kind::Text { .. }
                | Kind::Duration { .. }
                | Kind::Size { .. }
                | Kind::SizeOrAuto { .. }
        ),
        Shape::Float => matches!(kind, Kind::Number { .. }),
        Shape::Boolean => matches!(kind, Kind::Switch),
        Shape::Other(noun) => {
            let remedy = match kind {
                Kind::List { .. } => "give it texts, as in [\"a\", \"b\"]",
                _ => "give it a single value",
            };
            return Err(Fault::with_remedy(format!("is {noun}"), remedy));
        }
    };
    if fits {
        return Ok(());
    }
    let noun = match shape {
        Shape::Integer => "a number",
        Shape::Float => "a number with a fraction",
        _ => "true or false",
    };
    let what = format!("is {noun}");
    match kind {
        Kind::Secret { .. } => Err(Fault::with_remedy(what, "put it in quotes")),
        Kind::Duration { .. } | Kind::Size { .. } | Kind::SizeOrAuto { .. } => {
            Err(Fault::with_remedy(what, "write whole numbers with their units, in quotes"))
        }
        Kind::Text { .. } | Kind::Path => {
            Err(Fault::with_remedy(what, format!("write {}", toml_string(&cut(text)))))
        }
        _ => Err(Fault::new(what)),
    }
}

fn parse_text(kind: &Kind, text: &str) -> Result<Value, Fault> {
    match kind {
        Kind::Address => text.parse().map(Value::Address).map_err(|_| address_fault(text)),
        Kind::Duration { min, max } => {
            let duration = parse_duration(text)
                .map_err(|error| unit_fault(&error, || duration_example(text, *min, *max)))?;
            within(&duration, min, max, |bound| duration_text(*bound))?;
            Ok(Value::Duration(duration))
        }
        Kind::SizeOrAuto { .. } if text == "auto" => Ok(Value::Auto),
        Kind::Size { min, max } | Kind::SizeOrAuto { min, max } => {
            let size = parse_size(text)
                .map_err(|error| unit_fault(&error, || size_example(text, *min, *max)))?;
            // On a machine of 32 bits the table's bound is more than can be addressed.
            let max = (*max).min(usize::MAX as u64);
            within(&size, min, &max, |bound| size_text(*bound))?;
            Ok(Value::Size(size))
        }
        Kind::Count { min, max } => parse_count(text, *min, *max),
        Kind::CountOrAuto { .. } if text == "auto" => Ok(Value::Auto),
        Kind::CountOrAuto { min, max } => parse_count(text, *min, *max),
        Kind::Number { min, max } => {
            let number: f64 = text.parse().map_err(|_| Fault::new("is not a number"))?;
            if !number.is_finite() {
                return Err(Fault::new("is not a number"));
            }
            within(&number, min, max, f64::to_string)?;
            Ok(Value::Number(number))
        }
        Kind::Text { bytes_max } => {
            check_text(text, *bytes_max)?;
            Ok(Value::Text(text.to_owned()))
        }
        Kind::Path => parse_path(text),
        Kind::Url => parse_url(text),
        Kind::Choice(words) => match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Value::Choice(word)),
            None => Err(Fault {
                what: "is not one of the choices".to_owned(),
                remedy: suggest::nearest(text, words.iter().copied())
                    .map(|word| format!("did you mean {word}?")),
            }),
        },
        Kind::Switch => match text {
            "true" => Ok(Value::Switch(true)),
            "false" => Ok(Value::Switch(false)),
            _ => Err(Fault::new("is neither true nor false")),
        },
        Kind::Secret { bytes_max } => parse_secret(text, *bytes_max),
        Kind::TraceFilter => parse_trace_filter(text),
        Kind::List { element, count_max } => {
            parse_list(*element, *count_max, text).map(Value::List)
        }
    }
}

fn parse_count(text: &str, min: u64, max: u64) -> Result<Value, Fault> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new("is not a whole number"));
    }
    // All digits, so the one way to fail is to be too large.
    let count = digits.parse().map_err(|_| Fault::new(format!("is more than {max}")))?;
    within(&count, &min, &max, u64::to_string)?;
    Ok(Value::Count(count))
}

fn parse_path(text: &str) -> Result<Value, Fault> {
    check_text(text, usize::MAX)?;
    if text == "~" || text.starts_with("~/") {
        return Err(Fault::with_remedy(
            "begins with ~, which only a shell understands",
            "write the path in full",
        ));
    }
    Ok(Value::Path(PathBuf::from(text)))
}

fn parse_url(text: &str) -> Result<Value, Fault> {
    check_text(text, usize::MAX)?;
    let url = Url::parse(text).map_err(|error| Fault::new(format!("is no address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        // `localhost:9090` reads as the scheme `localhost`.
        return Err(Fault::with_remedy(
            "begins with neither http:// nor https://",
            "begin it with https://, or with http:// in a network you trust",
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Fault::with_remedy(
            "has a user name or password in it",
            "take it out of the address; a token belongs in upstream.token_file",
        ));
    }
    if url.query_pairs().any(|(key, _)| key.eq_ignore_ascii_case("access_token")) {
        return Err(Fault::with_remedy(
            "has an access token in it",
            "take it out of the address and put it in upstream.token_file",
        ));
    }
    if url.fragment().is_some() {
        return Err(Fault::with_remedy("has a fragment", "leave out # and what follows"));
    }
    Ok(Value::Url(url))
}

fn parse_secret(text: &str, bytes_max: usize) -> Result<Value, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty"));
    }
    if text.len() > bytes_max {
        return Err(Fault::new(format!("is {} bytes long", text.len())));
    }
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return Err(Fault::with_remedy("contains a space or line break", "take it out"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::new("contains a character no token has"));
    }
    Ok(Value::Secret(Secret::new(text)))
}

/// tracing-subscriber reads any single word as a target, so that `inof` would quietly mean
/// "everything of the module inof". A word that is no level is refused here.
fn parse_trace_filter(text: &str) -> Result<Value, Fault> {
    check_text(text, usize::MAX)?;
    for part in text.split(',').map(str::trim) {
        let is_word = part.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c));
        if is_word && !TRACE_LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
            return Err(Fault {
                what: format!("has {}, which is no level", toml_string(&cut(part))),
                remedy: suggest::nearest(part, TRACE_LEVELS.iter().copied())
                    .map(|level| format!("did you mean {level}?")),
            });
        }
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| Fault::new(format!("is no filter: {error}")))?;
    Ok(Value::Text(text.to_owned()))
}

fn check_text(text: &str, bytes_max: usize) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty"));
    }
    if text.len() > bytes_max {
        return Err(Fault::new(format!("is {} bytes long", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::new("contains a control character"));
    }
    Ok(())
}

fn within<T: PartialOrd>(
    value: &T,
    min: &T,
    max: &T,
    print: impl Fn(&T) -> String,
) -> Result<(), Fault> {
    if value < min {
        Err(Fault::new(format!("is less than {}", print(min))))
    } else if value > max {
        Err(Fault::new(format!("is more than {}", print(max))))
    } else {
        Ok(())
    }
}

fn address_fault(text: &str) -> Fault {
    let has_port = |rest: &str| rest.parse::<u16>().is_ok();
    let remedy = match text.rsplit_once(':') {
        _ if has_port(text) => Some(format!("write 127.0.0.1:{text}, or 0.0.0.0:{text} for all")),
        Some(("" | "*", port)) if has_port(port) => {
            Some(format!("write 127.0.0.1:{port}, or 0.0.0.0:{port} for all"))
        }
        Some(("localhost", port)) if has_port(port) => Some(format!("write 127.0.0.1:{port}")),
        Some((host, port)) if has_port(port) && host.parse::<Ipv6Addr>().is_ok() => {
            Some(format!("put brackets around the IPv6 address: [{host}]:{port}"))
        }
        _ => Some("names are not looked up: write an IP address and a port".to_owned()),
    };
    Fault { what: "is not an IP address and a port".to_owned(), remedy }
}

fn unit_fault(error: &UnitError, example: impl Fn() -> String) -> Fault {
    let remedy = match error {
        UnitError::UnitMissing => {
            Some(format!("write the unit with it, for example {}", example()))
        }
        UnitError::UnitUnknown { meant: Some(meant), .. } => Some(format!("did you mean {meant}?")),
        UnitError::Order => Some("write it like 1m30s".to_owned()),
        _ => None,
    };
    Fault { what: error.to_string(), remedy }
}

/// A duration without its last unit, with the first unit that puts it within bounds.
fn duration_example(text: &str, min: Duration, max: Duration) -> String {
    let with_unit = ["s", "ms", "m"].iter().map(|unit| format!("{text}{unit}"));
    let fits = |text: &String| parse_duration(text).is_ok_and(|value| value >= min && value <= max);
    with_unit.into_iter().find(fits).unwrap_or_else(|| duration_text(min))
}

/// A size without its unit, read as bytes where that is within bounds, else as MiB or KiB.
fn size_example(text: &str, min: u64, max: u64) -> String {
    let sizes =
        ["B", "MiB", "KiB"].iter().filter_map(|unit| parse_size(&format!("{text}{unit}")).ok());
    let bytes = sizes.into_iter().find(|bytes| (min..=max).contains(bytes));
    size_text(bytes.unwrap_or(min))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::value::shown;

    fn fault(kind: Kind, text: &str) -> String {
        match parse(&kind, Shape::Text, text) {
            Ok(parsed) => panic!("{text:?} was read as {}", parsed.literal),
            Err(Fault { what, remedy: Some(remedy) }) => format!("{what}; {remedy}"),
            Err(Fault { what, remedy: None }) => what,
        }
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:80"] {
            assert!(parse(&Kind::Address, Shape::Text, text).is_ok(), "{text}");
        }
        assert_eq!(
            fault(Kind::Address, ":8080"),
            "is not an IP address and a port; write 127.0.0.1:8080, or 0.0.0.0:8080 for all"
        );
        assert!(
            fault(Kind::Address, "8080").ends_with("write 127.0.0.1:8080, or 0.0.0.0:8080 for all")
        );
        assert!(fault(Kind::Address, "localhost:80").ends_with("write 127.0.0.1:80"));
        assert!(fault(Kind::Address, "::1:80").ends_with("[::1]:80"));
        assert!(fault(Kind::Address, "example.org:80").contains("names are not looked up"));
        assert!(fault(Kind::Address, "127.0.0.1:70000").contains("write an IP address and a port"));
    }

    #[test]
    fn counts() {
        let kind = Kind::Count { min: 1, max: 90 };
        assert!(matches!(
            parse(&kind, Shape::Text, "9_0"),
            Ok(Parsed { value: Value::Count(90), .. })
        ));
        assert_eq!(fault(kind, "91"), "is more than 90");
        assert_eq!(fault(kind, "0"), "is less than 1");
        assert_eq!(fault(kind, "-1"), "is not a whole number");
        assert_eq!(fault(kind, "99999999999999999999"), "is more than 90");
        assert_eq!(fault(kind, "auto"), "is not a whole number");
        let auto = Kind::CountOrAuto { min: 1, max: 90 };
        assert!(matches!(parse(&auto, Shape::Text, "auto"), Ok(Parsed { value: Value::Auto, .. })));
    }

    #[test]
    fn numbers() {
        let kind = Kind::Number { min: 0.01, max: 10.0 };
        assert_eq!(fault(kind, "0"), "is less than 0.01");
        assert_eq!(fault(kind, "NaN"), "is not a number");
        assert_eq!(fault(kind, "inf"), "is not a number");
        assert_eq!(fault(kind, "1,5"), "is not a number");
    }

    #[test]
    fn addresses_of_the_web() {
        assert_eq!(
            fault(Kind::Url, "localhost:9090"),
            "begins with neither http:// nor https://; \
             begin it with https://, or with http:// in a network you trust"
        );
        assert_eq!(fault(Kind::Url, "https://"), "is no address: empty host");
        assert!(fault(Kind::Url, "https://a:b@example.org").starts_with("has a user name"));
        assert!(
            fault(Kind::Url, "https://example.org/?access_token=x")
                .starts_with("has an access token")
        );
        assert!(fault(Kind::Url, "https://example.org/#a").starts_with("has a fragment"));
    }

    #[test]
    fn a_query_is_masked_in_print() {
        let parsed = parse(&Kind::Url, Shape::Text, "https://example.org/s?key=hunter2").unwrap();
        assert_eq!(parsed.literal, "\"https://example.org/s?***\"");
        assert!(parsed.is_masked);
    }

    #[test]
    fn secrets() {
        let kind = Kind::Secret { bytes_max: 8 };
        assert_eq!(fault(kind, ""), "is empty");
        assert_eq!(fault(kind, "a b"), "contains a space or line break; take it out");
        assert_eq!(fault(kind, "123456789"), "is 9 bytes long");
        assert_eq!(fault(kind, "é"), "contains a character no token has");
        let parsed = parse(&kind, Shape::Text, "hunter2").unwrap();
        assert_eq!((parsed.literal.as_str(), parsed.is_masked), ("\"***\"", true));
        let Value::Secret(secret) = parsed.value else { panic!("a secret") };
        assert_eq!((secret.expose(), format!("{secret:?}")), ("hunter2", "***".to_owned()));
        assert_eq!(shown(&kind, Shape::Integer, "12345"), "***");
    }

    #[test]
    fn trace_filters() {
        for text in
            ["info", "WARN", "info,fanlight=debug", "fanlight::upstream=trace", "info,a=off"]
        {
            assert!(parse(&Kind::TraceFilter, Shape::Text, text).is_ok(), "{text}");
        }
        assert_eq!(
            fault(Kind::TraceFilter, "inof"),
            "has \"inof\", which is no level; did you mean info?"
        );
        assert!(fault(Kind::TraceFilter, "fanlight=loud").starts_with("is no filter"));
        assert!(fault(Kind::TraceFilter, "info,").contains("no level"));
    }

    #[test]
    fn paths_and_words() {
        assert!(fault(Kind::Path, "~/token").starts_with("begins with ~"));
        assert_eq!(fault(Kind::Path, ""), "is empty");
        assert_eq!(
            fault(Kind::Choice(&["particle", "sse"]), "Particle"),
            "is not one of the choices; did you mean particle?"
        );
        assert_eq!(fault(Kind::Text { bytes_max: 3 }, "abcd"), "is 4 bytes long");
        assert_eq!(fault(Kind::Text { bytes_max: 3 }, "a\u{1b}"), "contains a control character");
        assert_eq!(fault(Kind::Switch, "yes"), "is neither true nor false");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            for setting in crate::config::Settings::table() {
                if let Err(fault) = parse(&setting.kind, Shape::Text, &text) {
                    prop_assert!(!fault.what.is_empty());
                }
            }
        }
    }
}
