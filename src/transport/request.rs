//! What a client asks for, read from its query and headers.
//!
//! Law: everything is checked here, once. A wrong parameter is named, with what is
//! allowed. A position is never wrong: what cannot be honoured becomes a gap.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, header};
use url::form_urlencoded;

use crate::model::{
    Filter, Format, Gap, Seq,
    filter::{FilterError, VALUE_BYTES_MAX, VALUES_MAX},
    resume::{Requested, Since, Start},
};

use super::parameter::{self, Parameter, Values};

pub use super::parameter::Route;

/// A client's wishes, checked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which events.
    pub filter: Filter,
    /// From where on.
    pub start: Start,
    /// First the newest event of each (name, device).
    pub snapshot: bool,
    /// With `fanlight.*` events.
    pub control: bool,
    /// End after that many events.
    pub limit: Option<u64>,
    /// How SSE events look.
    pub format: Format,
    /// How long a poll waits.
    pub timeout: Option<Duration>,
}

/// A parameter that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidParameter(String);

impl From<FilterError> for InvalidParameter {
    fn from(error: FilterError) -> InvalidParameter {
        InvalidParameter(error.to_string())
    }
}

/// True if the client wants newline-delimited JSON.
pub fn accepts_ndjson(headers: &HeaderMap) -> bool {
    accepts(headers, &["application/x-ndjson", "application/ndjson", "application/jsonl"])
}

/// True if the client asks for an event stream by name, as `EventSource` does.
pub fn accepts_event_stream(headers: &HeaderMap) -> bool {
    accepts(headers, &["text/event-stream"])
}

fn accepts(headers: &HeaderMap, types: &[&str]) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| item.split(';').next())
        .any(|item| types.iter().any(|kind| item.trim().eq_ignore_ascii_case(kind)))
}

impl Request {
    /// Reads a query string, and the `Last-Event-ID` header, which wins over the
    /// parameter of that name.
    pub fn parse(
        route: Route,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Request, InvalidParameter> {
        let fields = Fields::collect(route, query.unwrap_or_default())?;
        let [prefixes, names, devices] =
            [&parameter::PREFIX, &parameter::NAME, &parameter::DEVICE].map(|part| fields.all(part));
        let filter = Filter::new(prefixes, names, devices)?;
        let after = fields.one(&parameter::AFTER)?;
        let requested = fields.last(&parameter::LAST_EVENT_ID);
        let since = fields.one(&parameter::SINCE)?.map(|text| parse_since(&text)).transpose()?;
        // An empty id is what a client has that never saw one.
        let header = headers.get("last-event-id").map(http::HeaderValue::as_bytes);
        let requested = header
            .filter(|bytes| !bytes.is_empty())
            .or(requested.as_deref().map(str::as_bytes))
            .or(after.as_deref().map(str::as_bytes).filter(|bytes| !bytes.is_empty()))
            .map(Requested::parse);
        let start = match (requested, since) {
            (Some(requested), _) => Start::After(requested),
            (None, Some(since)) => Start::Since(since),
            (None, None) => Start::Live,
        };
        let format = match fields.choice(&parameter::FORMAT)? {
            Some("particle") => Format::Particle,
            _ => Format::Message,
        };
        Ok(Request {
            filter,
            start,
            snapshot: fields.choice(&parameter::SNAPSHOT)? == Some("true"),
            control: fields.choice(&parameter::CONTROL)? != Some("off"),
            limit: fields.number(&parameter::LIMIT)?,
            format,
            timeout: fields.number(&parameter::TIMEOUT)?.map(Duration::from_secs),
        })
    }
}

impl Request {
    /// The seq from which on the newest values are to come first; none if they are not.
    /// A client whose position was honoured has them already, and one that missed a range
    /// has those from before it.
    pub fn snapshot_from(&self, gap: Option<&Gap>) -> Option<Seq> {
        match (gap, &self.start) {
            _ if !self.snapshot => None,
            (Some(gap), _) => Some(gap.from),
            (None, Start::After(_)) => None,
            (None, Start::Live | Start::Since(_)) => Some(Seq(0)),
        }
    }
}

/// The query's fields, each known to the route.
struct Fields<'a> {
    fields: Vec<(&'static Parameter, Cow<'a, str>)>,
}

impl<'a> Fields<'a> {
    fn collect(route: Route, query: &'a str) -> Result<Fields<'a>, InvalidParameter> {
        let mut fields = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(parameter) = route.parameters().find(|known| known.is_called(&name)) else {
                let known: Vec<&str> = route.parameters().map(|known| known.name).collect();
                return Err(InvalidParameter(format!(
                    "unknown parameter `{}`; known here are {}",
                    shown(&name),
                    known.join(", ")
                )));
            };
            fields.push((parameter, value));
        }
        Ok(Fields { fields })
    }

    fn values(
        &self,
        parameter: &Parameter,
    ) -> impl DoubleEndedIterator<Item = &Cow<'a, str>> + use<'_, 'a> {
        let name = parameter.name;
        self.fields.iter().filter(move |(field, _)| field.name == name).map(|(_, value)| value)
    }

    /// Every value of a parameter that may be repeated.
    fn all(&self, parameter: &Parameter) -> Vec<String> {
        // One over the bound is enough to be refused with the right words.
        let values = self.values(parameter).take(VALUES_MAX + 1);
        values.map(|value| value.clone().into_owned()).collect()
    }

    /// The value of a parameter that may be given once.
    fn one(&self, parameter: &Parameter) -> Result<Option<String>, InvalidParameter> {
        let mut values = self.values(parameter);
        let value = values.next().map(|value| value.clone().into_owned());
        match values.next() {
            Some(_) => {
                Err(InvalidParameter(format!("`{}` is given more than once", parameter.name)))
            }
            None => Ok(value),
        }
    }

    /// The last value of a parameter that is not empty. Clients that cannot set headers
    /// add the id they have got to an address that may hold an older one.
    fn last(&self, parameter: &Parameter) -> Option<String> {
        let mut values = self.values(parameter).filter(|value| !value.is_empty());
        values.next_back().map(|value| value.clone().into_owned())
    }

    fn choice(&self, parameter: &Parameter) -> Result<Option<&'static str>, InvalidParameter> {
        let Values::Choice { choices, .. } = parameter.values else { return Ok(None) };
        let Some(value) = self.one(parameter)? else { return Ok(None) };
        let choice = choices.iter().copied().find(|choice| *choice == value);
        choice.map(Some).ok_or_else(|| {
            InvalidParameter(format!(
                "`{}` is `{}`; allowed are {}",
                parameter.name,
                shown(&value),
                choices.join(", ")
            ))
        })
    }

    fn number(&self, parameter: &Parameter) -> Result<Option<u64>, InvalidParameter> {
        let Values::Number { min, max, .. } = parameter.values else { return Ok(None) };
        let Some(value) = self.one(parameter)? else { return Ok(None) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| value.parse().ok()).flatten();
        number.filter(|number| (min..=max).contains(number)).map(Some).ok_or_else(|| {
            let range = if max == u64::MAX {
                format!("a whole number from {min}")
            } else {
                format!("a whole number from {min} to {max}")
            };
            InvalidParameter(format!(
                "`{}` is `{}`; it must be {range}",
                parameter.name,
                shown(&value)
            ))
        })
    }
}

fn parse_since(text: &str) -> Result<Since, InvalidParameter> {
    if text == "earliest" {
        return Ok(Since::Earliest);
    }
    if let Some(ago) = parse_ago(text) {
        return Ok(Since::Ago(ago));
    }
    // A plus sign in a query is a space by the rules of forms, and people forget to encode it.
    let time = text.replace(' ', "+");
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Since::Wall(u64::try_from(time.as_millisecond()).unwrap_or(0))),
        Err(_) => Err(InvalidParameter(format!(
            "`since` is `{}`; it must be an RFC 3339 time such as 2026-11-22T01:02:03Z, a duration back \
             such as 30s, 5m or 2h, or `earliest`",
            shown(text)
        ))),
    }
}

/// `5m`, `1h30m`: numbers, each with a unit of `ms s m h d`.
fn parse_ago(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(Duration::from_millis(number.checked_mul(unit_ms)?))?;
    }
    (!text.is_empty()).then_some(total)
}

/// A client's text in an error message: enough to recognise it.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(VALUE_BYTES_MAX / 2).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn parse(query: &str) -> Result<Request, InvalidParameter> {
        Request::parse(Route::Events, Some(query), &HeaderMap::new())
    }

    fn error(route: Route, query: &str) -> String {
        Request::parse(route, Some(query), &HeaderMap::new()).unwrap_err().to_string()
    }

    #[test]
    fn defaults() {
        let request = Request::parse(Route::Events, None, &HeaderMap::new()).unwrap();
        assert_eq!(request.filter, Filter::all());
        assert_eq!(request.start, Start::Live);
        assert_eq!((request.snapshot, request.control, request.limit), (false, true, None));
        assert_eq!(request.format, Format::Message);
    }

    #[test]
    fn what_the_table_says_is_the_default_is_the_default() {
        for parameter in parameter::PARAMETERS {
            let Values::Choice { choices, default } = parameter.values else { continue };
            for route in parameter.routes {
                let with = |query: &str| {
                    let request = Request::parse(*route, Some(query), &HeaderMap::new());
                    format!("{:?}", request.unwrap())
                };
                for choice in choices {
                    let is_default = with(&format!("{}={choice}", parameter.name)) == with("");
                    assert_eq!(is_default, *choice == default, "{}={choice}", parameter.name);
                }
            }
        }
    }

    #[test]
    fn everything_given() {
        let query = "prefix=a%2Fb&prefix=c&name=d+e&device=28c8&since=5m&snapshot=true&control=off&limit=3&format=particle";
        let request = parse(query).unwrap();
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let filter = Filter::new(owned(&["a/b", "c"]), owned(&["d e"]), owned(&["28c8"])).unwrap();
        assert_eq!(request.filter, filter);
        assert_eq!(request.start, Start::Since(Since::Ago(Duration::from_secs(300))));
        assert_eq!((request.snapshot, request.control, request.limit), (true, false, Some(3)));
        assert_eq!(request.format, Format::Particle);
    }

    #[test]
    fn the_header_wins_over_the_parameter_and_both_over_since() {
        let requested = |text: &str| Start::After(Requested::parse(text.as_bytes()));
        let query = "last_event_id=6n3k2ahq-1&since=earliest";
        assert_eq!(parse(query).unwrap().start, requested("6n3k2ahq-1"));
        assert_eq!(parse("lastEventId=6n3k2ahq-1").unwrap().start, requested("6n3k2ahq-1"));
        let both = "last_event_id=6n3k2ahq-1&lastEventId=6n3k2ahq-2&last_event_id=";
        assert_eq!(parse(both).unwrap().start, requested("6n3k2ahq-2"), "the last one given");
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", HeaderValue::from_static("6n3k2ahq-2"));
        let request = Request::parse(Route::Events, Some(query), &headers).unwrap();
        assert_eq!(request.start, requested("6n3k2ahq-2"));
        headers.insert("last-event-id", HeaderValue::from_static(""));
        let request = Request::parse(Route::Events, Some(query), &headers).unwrap();
        assert_eq!(request.start, requested("6n3k2ahq-1"), "an empty id is none");
        headers.insert("last-event-id", HeaderValue::from_bytes(b"\xe2\x80\xa6").unwrap());
        let request = Request::parse(Route::Events, None, &headers).unwrap();
        assert_eq!(request.start, requested("…"));
    }

    #[test]
    fn since_has_three_forms() {
        let start = |text: &str| parse(&format!("since={text}")).unwrap().start;
        assert_eq!(start("earliest"), Start::Since(Since::Earliest));
        assert_eq!(start("1h30m"), Start::Since(Since::Ago(Duration::from_secs(5400))));
        let wall = Start::Since(Since::Wall(1_795_309_323_004));
        assert_eq!(start("2026-11-22T01:02:03.004Z"), wall);
        assert_eq!(start("2026-11-22T03:02:03.004%2B02:00"), wall);
        assert_eq!(start("2026-11-22T03:02:03.004+02:00"), wall);
    }

    #[test]
    fn wrong_parameters_are_named() {
        let cases = [
            ("prefx=a", "unknown parameter `prefx`; known here are prefix, name,"),
            ("since=yesterday", "`since` is `yesterday`; it must be an RFC 3339 time"),
            ("since=5", "`since` is `5`"),
            ("since=", "`since` is ``"),
            ("since=99999999999999999999d", "`since` is"),
            ("limit=0", "`limit` is `0`; it must be a whole number from 1"),
            ("limit=-1", "`limit` is `-1`"),
            ("limit=1&limit=2", "`limit` is given more than once"),
            ("snapshot=yes", "`snapshot` is `yes`; allowed are true, false"),
            ("control=no", "`control` is `no`; allowed are on, off"),
            ("format=xml", "`format` is `xml`; allowed are message, particle"),
            ("name=", "an empty `name`"),
            ("timeout=3", "unknown parameter `timeout`"),
        ];
        for (query, expected) in cases {
            let message = error(Route::Events, query);
            assert!(message.starts_with(expected), "{query}: {message}");
        }
        assert!(error(Route::Poll, "timeout=9999").contains("0 to 3600"));
        assert!(error(Route::Poll, "format=message").starts_with("unknown parameter `format`"));
        let many = "device=d&".repeat(33);
        assert!(error(Route::Last, &many).starts_with("33 values of `device`, at most 32"));
        let long = error(Route::Events, &format!("prefix={}", "x".repeat(129)));
        assert_eq!(long, "a `prefix` of 129 bytes, at most 128 are allowed");
        assert!(error(Route::Events, &format!("{}=1", "x".repeat(9000))).len() < 300);
    }

    #[test]
    fn accept() {
        let accepting = |value: &'static str| {
            HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])
        };
        assert!(accepts_ndjson(&accepting("text/html, Application/X-NDJSON;q=0.9")));
        assert!(!accepts_ndjson(&accepting("application/json")));
        assert!(accepts_event_stream(&accepting("text/event-stream")));
        assert!(!accepts_event_stream(&accepting("*/*")));
        assert!(!accepts_event_stream(&HeaderMap::new()));
    }
}
