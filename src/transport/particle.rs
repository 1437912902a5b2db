//! The Particle cloud's own routes, for its unmodified clients: addresses, head, and the
//! bytes between events.
//!
//! Law: what the cloud would send, and nothing else. Its clients differ in what they bear:
//! one aborts on a comment, one keeps a single event of each chunk, one loses what comes
//! together with the head. So events go out one by one, byte for byte, and ids only to
//! those who ask for an event stream by name.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::form_urlencoded;

use crate::model::{
    Filter, Format,
    resume::{Requested, Start},
};

use super::request::{Request, accepts_event_stream};

/// The first bytes of a stream.
pub const OPENING: &[u8] = b":ok\n\n";

/// Sent after silence, to those who get no ids.
pub const KEEPALIVE: &[u8] = b"\n";

/// Silence after which it is sent, unless `stream.keepalive` is shorter: the cloud's own
/// nine seconds. Its clients give a stream up after 13 s.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(9);

/// So much later at most, so that the keep-alives of many do not come together.
pub const KEEPALIVE_SPREAD: Duration = Duration::from_secs(1);

/// How long the first event is held after the head: particle-api-js begins to listen only
/// once it has seen the head. It lost all that came with the head, and nothing that came
/// 20 ms later (measured on loopback).
pub const FIRST_EVENT_HOLD: Duration = Duration::from_millis(100);

/// Under which name the Android SDK hands the last id back.
const ANDROID_LAST_ID: &str = ".ka";

/// What a path below `/v1` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Events: to read them, or to publish one.
    Events {
        /// Whose.
        whose: Whose,
        /// What their names begin with; empty for all.
        prefix: String,
    },
    /// A function of a device.
    Function {
        /// The device, by id or name.
        device: String,
        /// The function.
        function: String,
    },
}

/// Whose events, by the names in the path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Public events and one's own, `/v1/events`; without any of the others.
    pub is_public: bool,
    /// An organization's.
    pub org: Option<String>,
    /// A product's.
    pub product: Option<String>,
    /// A device's.
    pub device: Option<String>,
}

impl Address {
    /// Reads a path as it was sent, without its query. Slashes in a row are one; each part
    /// is percent-decoded once; the prefix is all that follows `events/`, slashes included.
    pub fn parse(path: &str) -> Option<Address> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let ["v1", parts @ ..] = parts.as_slice() else { return None };
        let named = |part: &&str| Some(decoded(part));
        let mine = Whose::default();
        let (whose, tail) = match parts {
            ["events", tail @ ..] => (Whose { is_public: true, ..mine }, tail),
            // Before the devices, so that none is called "events".
            ["devices", "events", tail @ ..] | ["devices", "mine", "events", tail @ ..] => {
                (mine, tail)
            }
            ["devices", device, "events", tail @ ..] => {
                (Whose { device: named(device), ..mine }, tail)
            }
            ["devices", device, function] => {
                let [device, function] = [device, function].map(|part| decoded(part));
                return Some(Address::Function { device, function });
            }
            ["products", product, "events", tail @ ..]
            | ["orgs", "products", product, "events", tail @ ..] => {
                (Whose { product: named(product), ..mine }, tail)
            }
            ["products", product, "devices", device, "events", tail @ ..] => {
                (Whose { product: named(product), device: named(device), ..mine }, tail)
            }
            ["orgs", org, "events", tail @ ..] => (Whose { org: named(org), ..mine }, tail),
            ["orgs", org, "devices", device, "events", tail @ ..] => {
                (Whose { org: named(org), device: named(device), ..mine }, tail)
            }
            ["orgs", org, "products", product, "events", tail @ ..] => {
                (Whose { org: named(org), product: named(product), ..mine }, tail)
            }
            ["orgs", org, "products", product, "devices", device, "events", tail @ ..] => {
                let [org, product, device] = [org, product, device].map(named);
                (Whose { org, product, device, ..mine }, tail)
            }
            _ => return None,
        };
        let mut prefix = decoded(&tail.join("/"));
        // A slash after a prefix is part of it; after none it is a habit.
        if path.ends_with('/') && !tail.is_empty() {
            prefix.push('/');
        }
        Some(Address::Events { whose, prefix })
    }
}

/// What a client of a stream wants, beside the filter. Whatever else its query has is passed
/// over, as the cloud does: tokens, nonces, the number of events to repeat.
pub fn request(filter: Filter, query: Option<&str>, headers: &HeaderMap) -> Request {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let in_query = pairs.filter(|(name, _)| name == ANDROID_LAST_ID).last();
    let in_header = headers.get("last-event-id").map(HeaderValue::as_bytes);
    let handed_back = in_header
        .filter(|bytes| !bytes.is_empty())
        .or(in_query.as_ref().map(|(_, value)| value.as_bytes()));
    // The cloud has no ids, so what is none of ours means nothing.
    let position = handed_back.map(Requested::parse).filter(Requested::is_position);
    Request {
        filter,
        start: position.map_or(Start::Live, Start::After),
        snapshot: false,
        control: false,
        limit: None,
        format: Format::Particle,
        timeout: None,
    }
}

/// True if the stream is to carry ids.
pub fn wants_ids(headers: &HeaderMap) -> bool {
    accepts_event_stream(headers)
}

/// The head of a stream. The cloud's own, and a word to nginx not to hold it back.
pub fn head() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ])
}

/// Percent-decoded once; what is no escape stays, what is no UTF-8 becomes the replacement
/// character.
fn decoded(text: &str) -> String {
    let hex = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let [byte, after @ ..] = rest {
        rest = after;
        bytes.push(*byte);
        if *byte == b'%'
            && let [high, low, after @ ..] = rest
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            bytes.pop();
            bytes.push(high * 16 + low);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(path: &str) -> (Whose, String) {
        match Address::parse(path) {
            Some(Address::Events { whose, prefix }) => (whose, prefix),
            other => panic!("{path}: {other:?}"),
        }
    }

    fn whose(org: &str, product: &str, device: &str) -> Whose {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Whose { is_public: false, org: some(org), product: some(product), device: some(device) }
    }

    #[test]
    fn every_address_of_a_stream() {
        for (path, org, product, device) in [
            ("/v1/devices/events", "", "", ""),
            ("/v1/devices/mine/events", "", "", ""),
            ("/v1/devices/my%20van/events", "", "", "my van"),
            ("/v1/products/12/events", "", "12", ""),
            ("/v1/orgs/products/12/events", "", "12", ""),
            ("/v1/products/12/devices/e00f/events", "", "12", "e00f"),
            ("/v1/orgs/acme/events", "acme", "", ""),
            ("/v1/orgs/acme/devices/e00f/events", "acme", "", "e00f"),
            ("/v1/orgs/acme/products/12/events", "acme", "12", ""),
            ("/v1/orgs/acme/products/12/devices/e00f/events", "acme", "12", "e00f"),
        ] {
            let expected = whose(org, product, device);
            for (tail, prefix) in [("", ""), ("/", ""), ("//", ""), ("/a%2Fb", "a/b")] {
                assert_eq!(events(&format!("{path}{tail}")), (expected.clone(), prefix.into()));
                let doubled = format!("/{path}{tail}").replace("/events", "//events");
                assert_eq!(events(&doubled), (expected.clone(), prefix.into()), "{doubled}");
            }
        }
        let public = Whose { is_public: true, ..Whose::default() };
        assert_eq!(events("/v1/events"), (public.clone(), String::new()));
        assert_eq!(events("/v1/events/temp"), (public, "temp".to_owned()));
    }

    #[test]
    fn no_device_is_called_events() {
        assert_eq!(events("/v1/devices/events/events"), (Whose::default(), "events".to_owned()));
        let called = events("/v1/devices/%65vents/events").0;
        assert_eq!(called.device.as_deref(), Some("events"), "but by an escape");
    }

    #[test]
    fn a_prefix_is_the_same_raw_or_encoded() {
        for (tail, prefix) in [
            ("greenhouse/bay-2", "greenhouse/bay-2"),
            ("greenhouse%2Fbay-2", "greenhouse/bay-2"),
            ("greenhouse%2f", "greenhouse/"),
            ("greenhouse/", "greenhouse/"),
            ("//greenhouse", "greenhouse"),
            ("a//b", "a/b"),
            ("a%252Fb", "a%2Fb"),
            ("a+b", "a+b"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%%41", "%A"),
            ("%C3%BC", "ü"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(events(&format!("/v1/devices/events/{tail}")).1, prefix, "{tail}");
        }
    }

    #[test]
    fn the_rest_is_functions_or_nothing() {
        let called = Address::parse("/v1/devices/e00f/set%20it/");
        let (device, function) = ("e00f".to_owned(), "set it".to_owned());
        assert_eq!(called, Some(Address::Function { device, function }));
        for path in ["/", "/v1", "/v1/", "/v1/devices", "/v1/devices/d", "/v2/devices/events"] {
            assert_eq!(Address::parse(path), None, "{path}");
        }
        for path in ["/v1/user", "/v1/products/12", "/v1/devices/a/b/c", "/v1/orgs/acme", ""] {
            assert_eq!(Address::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_position_is_taken_from_wherever_it_stands_and_all_else_is_passed_over() {
        let start = |query: &str, header: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("last-event-id", HeaderValue::from_static(header));
            }
            request(Filter::all(), Some(query), &headers).start
        };
        let after = |text: &str| Start::After(Requested::parse(text.as_bytes()));
        for query in ["", "nonce=0.5&history_limit=30&access_token=x&limit=0&x", ".ka=", "%ff=%"] {
            assert_eq!(start(query, None), Start::Live, "{query}");
        }
        assert_eq!(start(".ka=6n3k2ahq-1&.ka=6n3k2ahq-2", None), after("6n3k2ahq-2"));
        assert_eq!(start(".ka=6n3k2ahq-1", Some("6n3k2ahq-3")), after("6n3k2ahq-3"));
        assert_eq!(start(".ka=6n3k2ahq-1", Some("")), after("6n3k2ahq-1"));
        assert_eq!(start("", Some("42")), Start::Live, "someone else's id");
    }
}
