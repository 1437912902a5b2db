//! The Particle cloud's addresses and request headers.
//!
//! The law: a device, product, organization or prefix from the configuration ends up as
//! exactly one path segment, whatever characters it has. Pure.

use http::{HeaderMap, HeaderValue, header};
use thiserror::Error;
use url::Url;

use crate::upstream::token::Token;

/// Whose events. The paths are those of the Particle API's stream routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All devices of the token's user: `/v1/devices/events`.
    Mine,
    /// One device, by id or name: `/v1/devices/ID/events`.
    Device {
        /// Id or name.
        device: String,
    },
    /// All devices of a product, claimed or not: `/v1/products/ID/events`.
    Product {
        /// Id or slug.
        product: String,
    },
    /// One device of a product: `/v1/products/ID/devices/ID/events`.
    ProductDevice {
        /// Id or slug.
        product: String,
        /// Id; names are not understood here.
        device: String,
    },
    /// All products of an organization: `/v1/orgs/ID/events`.
    Org {
        /// Id or slug.
        org: String,
    },
    /// Public events and one's own; the cloud wants a prefix: `/v1/events/PREFIX`.
    Public,
}

/// Why there is no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The text of a setting is no URL.
    #[error("upstream.url `{url}` is no URL ({reason}); it looks like https://api.particle.io")]
    NotAUrl {
        /// As given, without its query.
        url: String,
        /// The parser's words.
        reason: String,
    },
    /// Neither http nor https.
    #[error("upstream.url has the scheme `{scheme}`; allowed are https and http")]
    Scheme {
        /// What it has.
        scheme: String,
    },
    /// User or password in the URL: they would end up in logs of others.
    #[error("upstream.url carries a user or password; use upstream.token_file")]
    Credentials,
    /// A query or fragment where a base is wanted.
    #[error(
        "upstream.url has a query or a fragment; for source `particle` it is the base of the API alone"
    )]
    Query,
    /// An empty value, or one a URL parser takes for a path step.
    #[error("upstream.{key} is `{value}`; {allowed}")]
    Segment {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Scope `public` without a prefix.
    #[error("scope `public` needs upstream.prefix: the cloud refuses public events without one")]
    PrefixMissing,
}

/// The URL of a scope's stream under the API's base URL.
///
/// A base with a path keeps it, duplicate slashes collapse.
pub fn events_url(base: &str, scope: &Scope, prefix: Option<&str>) -> Result<Url, AddressError> {
    let mut url = parse_url(base)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(AddressError::Query);
    }
    let mut path: String = url
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .flat_map(|segment| ["/", segment])
        .collect();
    let mut push = |key, value: &str| -> Result<(), AddressError> {
        path.push('/');
        path.push_str(&segment(key, value)?);
        Ok(())
    };
    let fixed = "a fixed part of the path";
    match scope {
        Scope::Mine => ["v1", "devices"].iter().try_for_each(|part| push(fixed, part))?,
        Scope::Device { device } => {
            ["v1", "devices"].iter().try_for_each(|part| push(fixed, part))?;
            push("device", device)?;
        }
        Scope::Product { product } => {
            ["v1", "products"].iter().try_for_each(|part| push(fixed, part))?;
            push("product", product)?;
        }
        Scope::ProductDevice { product, device } => {
            ["v1", "products"].iter().try_for_each(|part| push(fixed, part))?;
            push("product", product)?;
            push(fixed, "devices")?;
            push("device", device)?;
        }
        Scope::Org { org } => {
            ["v1", "orgs"].iter().try_for_each(|part| push(fixed, part))?;
            push("org", org)?;
        }
        Scope::Public => push(fixed, "v1")?,
    }
    push(fixed, "events")?;
    match prefix {
        Some(prefix) if !prefix.is_empty() => push("prefix", prefix)?,
        _ if *scope == Scope::Public => return Err(AddressError::PrefixMissing),
        _ => {}
    }
    url.set_path(&path);
    Ok(url)
}

/// Parses an http or https URL without credentials.
pub fn parse_url(text: &str) -> Result<Url, AddressError> {
    let url = Url::parse(text.trim()).map_err(|error| AddressError::NotAUrl {
        url: text.split(['?', '#']).next().unwrap_or_default().to_owned(),
        reason: error.to_string(),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(AddressError::Scheme { scheme: url.scheme().to_owned() });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Credentials);
    }
    Ok(url)
}

/// `host:port`, the key of the budget and the name used in messages.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{host}:{}", url.port_or_known_default().unwrap_or_default())
}

/// The headers of a stream request. `last_event_id` is left out if empty, or if no header can carry it.
pub fn headers(token: Option<&Token>, last_event_id: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let agent = concat!("fanlight/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    if let Some(token) = token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .expect("a token is visible ASCII");
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
    match HeaderValue::from_bytes(last_event_id.as_bytes()) {
        Ok(id) if !id.is_empty() => {
            headers.insert("last-event-id", id);
        }
        _ => {}
    }
    headers
}

/// One path segment: everything but RFC 3986 unreserved characters is escaped, so a slash
/// arrives as `%2F`, as the cloud's own clients send it.
pub(super) fn segment(key: &'static str, value: &str) -> Result<String, AddressError> {
    let refused = |allowed| AddressError::Segment { key, value: value.to_owned(), allowed };
    if value.is_empty() {
        return Err(refused("it must not be empty"));
    }
    // URL parsers take these for steps in the path even when they are escaped.
    if matches!(value, "." | "..") {
        return Err(refused("`.` and `..` cannot be part of an address"));
    }
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "https://api.particle.io";

    fn path(base: &str, scope: &Scope, prefix: Option<&str>) -> String {
        events_url(base, scope, prefix).unwrap().to_string()
    }

    fn device(device: &str) -> Scope {
        Scope::Device { device: device.into() }
    }

    #[test]
    fn each_scope_has_its_path() {
        let product = || "env-42".to_owned();
        let both = Scope::ProductDevice { product: product(), device: "e00f".into() };
        for (scope, expected) in [
            (Scope::Mine, "/v1/devices/events"),
            (device("e00f"), "/v1/devices/e00f/events"),
            (Scope::Product { product: product() }, "/v1/products/env-42/events"),
            (both, "/v1/products/env-42/devices/e00f/events"),
            (Scope::Org { org: "acme".into() }, "/v1/orgs/acme/events"),
        ] {
            assert_eq!(path(BASE, &scope, None), format!("{BASE}{expected}"));
            assert_eq!(path(BASE, &scope, Some("temp")), format!("{BASE}{expected}/temp"));
        }
        assert_eq!(path(BASE, &Scope::Public, Some("t")), format!("{BASE}/v1/events/t"));
        assert_eq!(events_url(BASE, &Scope::Public, None), Err(AddressError::PrefixMissing));
        assert_eq!(events_url(BASE, &Scope::Public, Some("")), Err(AddressError::PrefixMissing));
    }

    #[test]
    fn values_are_one_segment_and_slashes_collapse() {
        let shown = path(BASE, &Scope::Mine, Some("hook-response/é ?#%2F"));
        assert_eq!(shown, format!("{BASE}/v1/devices/events/hook-response%2F%C3%A9%20%3F%23%252F"));
        for base in ["http://localhost:8081/", "http://localhost:8081", "http://localhost:8081///"]
        {
            assert_eq!(path(base, &Scope::Mine, None), "http://localhost:8081/v1/devices/events");
        }
        let behind = path("https://gate.example//particle//", &Scope::Mine, None);
        assert_eq!(behind, "https://gate.example/particle/v1/devices/events");
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for (base, scope, part) in [
            ("api.particle.io", Scope::Mine, "is no URL"),
            ("ftp://api.particle.io", Scope::Mine, "`ftp`"),
            ("https://user:pw@api.particle.io", Scope::Mine, "token_file"),
            ("https://api.particle.io?access_token=x", Scope::Mine, "query"),
            (BASE, device(""), "upstream.device"),
            (BASE, device(".."), "`..`"),
        ] {
            let error = events_url(base, &scope, None).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("=x"), "{error}");
        }
    }

    #[test]
    fn headers_are_those_of_a_stream_request() {
        let token = Token::new("not-a-real-token").unwrap();
        let headers = headers(Some(&token), "7");
        assert_eq!(headers["authorization"], "Bearer not-a-real-token");
        assert!(headers["authorization"].is_sensitive());
        assert_eq!(headers["accept"], "text/event-stream");
        assert_eq!(headers["accept-encoding"], "identity");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["last-event-id"], "7");
        let bare = super::headers(None, "a\nb");
        assert!(!bare.contains_key("authorization") && !bare.contains_key("last-event-id"));
    }

    proptest! {
        #[test]
        fn any_value_is_one_segment(value in "[^.].*|\\.\\.\\..*", prefix in ".+") {
            prop_assume!(prefix != "." && prefix != "..");
            let url = events_url(BASE, &device(&value), Some(&prefix)).unwrap();
            prop_assert_eq!(url.path_segments().unwrap().count(), 5);
            prop_assert!(url.query().is_none() && url.host_str() == Some("api.particle.io"));
        }
    }
}
