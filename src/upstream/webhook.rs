//! An event as one of Particle's webhooks posts it: from a request to a name and a data line.
//!
//! Law: what is taken in is an event that the stream could have brought. The line has the
//! cloud's fields in the cloud's order; a request that does not say which event it is about, by
//! name, time and device, is refused, since nobody could tell it from a copy.

use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Map, Value};
use thiserror::Error;
use url::form_urlencoded;

use crate::model::{
    event::{Event, EventError},
    json::Object,
};

use super::publish::{DraftError, fields, text_of};

/// Longest value of a field other than the data, in bytes: ids have 24, times 24.
pub const FIELD_BYTES_MAX: usize = 256;

/// Why a webhook's request is refused: it is the template's mistake.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WebhookError {
    /// The body is neither a JSON object nor a form.
    #[error(transparent)]
    Body(#[from] DraftError),
    /// A field is missing.
    #[error(
        "`{field}` is missing; the webhook's data has to have event, data, published_at and coreid, as \
         Particle's default has: with a template of your own, add \"{field}\": \"{{{{{variable}}}}}\""
    )]
    Missing {
        /// The field.
        field: &'static str,
        /// Particle's name of its value.
        variable: &'static str,
    },
    /// A field is too long.
    #[error("`{field}` has {bytes} bytes; at most {FIELD_BYTES_MAX} are allowed")]
    Long {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// The time is none.
    #[error(
        "`published_at` is no time such as 2026-11-22T01:02:03.004Z; use {{{{PARTICLE_PUBLISHED_AT}}}}"
    )]
    Time,
    /// The event is none that the stream could bring.
    #[error(transparent)]
    Event(#[from] EventError),
}

/// An event that came by webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The event's name.
    pub name: String,
    /// The data line, as the stream would have brought it.
    pub line: String,
    /// Which event it is.
    pub identity: Identity,
}

/// Which event it is, whichever way it came: what is the same on both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    name: String,
    data: String,
    published_ms: i64,
    device: String,
}

// === impl Delivery ===

impl Delivery {
    /// Reads a webhook's request. Fields come from the query, and from a JSON object or a form in
    /// the body, which goes before it.
    ///
    /// # Errors
    /// If it cannot be read, or does not say which event it is about.
    pub fn parse(
        query: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Delivery, WebhookError> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let mut given: Map<String, Value> =
            pairs.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
        if !body.trim_ascii().is_empty() {
            given.extend(fields(headers, body)?);
        }
        let name = required(&given, &["event", "name"], "PARTICLE_EVENT_NAME")?;
        let published_at = required(&given, &["published_at"], "PARTICLE_PUBLISHED_AT")?;
        let device = required(&given, &["coreid", "device_id", "deviceid"], "PARTICLE_DEVICE_ID")?;
        let data = given.get("data").filter(|data| !data.is_null());
        let text = data.map(text_of);
        let published: Timestamp = published_at.parse().map_err(|_| WebhookError::Time)?;
        let identity =
            Identity::new(&name, text.as_deref().unwrap_or_default(), published, &device);

        let mut line = Object::new().text_or_null("data", text.as_deref());
        if let Some(ttl) = number(&given, &["ttl"]) {
            line = line.number("ttl", ttl);
        }
        line = line.text("published_at", &published_at).text("coreid", &device);
        if let Some(user) = optional(&given, &["userid", "user_id"])? {
            line = line.text("userid", &user);
        }
        if let Some(version) = number(&given, &["fw_version", "version"]) {
            line = line.number("version", version);
        }
        if let Some(public) = given.get("public").and_then(switch) {
            line = line.raw("public", if public { "true" } else { "false" });
        }
        if let Some(product) = number(&given, &["productID", "product_id"]) {
            line = line.number("productID", product);
        }
        let line = line.finish();
        Event::parse(&name, &line)?;
        Ok(Delivery { name, line, identity })
    }
}

// === impl Identity ===

impl Identity {
    fn new(name: &str, data: &str, published: Timestamp, device: &str) -> Identity {
        Identity {
            name: name.to_owned(),
            data: canonical(data),
            published_ms: published.as_millisecond(),
            device: device.to_ascii_lowercase(),
        }
    }

    /// That of an event as the stream brought it; none if its line does not say which it is, and
    /// then no webhook can have brought it.
    pub fn of_line(name: &str, line: &str) -> Option<Identity> {
        let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
        let published = fields.get("published_at")?.as_str()?.parse().ok()?;
        let device = fields.get("coreid")?.as_str()?;
        let data = fields.get("data").map(text_of).unwrap_or_default();
        Some(Identity::new(name, &data, published, device))
    }
}

/// The data in one form of several: a template may put what is a text on the stream as the JSON
/// it holds, `{"t": 21.50}` for `"{\"t\":21.50}"`, and there it loses its blanks and zeros.
fn canonical(data: &str) -> String {
    match serde_json::from_str::<Value>(data) {
        Ok(Value::String(_)) | Err(_) => data.to_owned(),
        Ok(value) => value.to_string(),
    }
}

fn required(
    given: &Map<String, Value>,
    names: &[&'static str],
    variable: &'static str,
) -> Result<String, WebhookError> {
    optional(given, names)?.ok_or(WebhookError::Missing { field: names[0], variable })
}

/// The first of these fields that says something.
fn optional(
    given: &Map<String, Value>,
    names: &[&'static str],
) -> Result<Option<String>, WebhookError> {
    for field in names {
        let Some(text) = given.get(*field).map(text_of).filter(|text| !text.is_empty()) else {
            continue;
        };
        if text.len() > FIELD_BYTES_MAX {
            return Err(WebhookError::Long { field, bytes: text.len() });
        }
        return Ok(Some(text.into_owned()));
    }
    Ok(None)
}

/// A number, or a text that is one. Anything else is left out: it is not what the event is.
fn number(given: &Map<String, Value>, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| text_of(given.get(*name)?).parse().ok())
}

fn switch(value: &Value) -> Option<bool> {
    text_of(value).parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    fn parse(kind: &'static str, body: &str) -> Result<Delivery, WebhookError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Delivery::parse(None, &headers, body.as_bytes())
    }

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";
    const LINE: &str = r#"{"data":"21.50","published_at":"2026-05-04T09:00:01.104Z","coreid":"e00fce680000000000000001"}"#;

    /// Particle's default webhook, in each of its forms.
    #[test]
    fn the_default_of_each_form_is_the_line_of_the_stream() {
        let json = r#"{"event":"greenhouse/t","data":"21.50","published_at":"2026-05-04T09:00:01.104Z","coreid":"e00fce680000000000000001"}"#;
        let form = "event=greenhouse%2Ft&data=21.50&published_at=2026-05-04T09%3A00%3A01.104Z&coreid=e00fce680000000000000001";
        let of_json = parse(JSON, json).unwrap();
        assert_eq!((of_json.name.as_str(), of_json.line.as_str()), ("greenhouse/t", LINE));
        assert_eq!(parse(FORM, form), Ok(of_json.clone()));
        let of_query = Delivery::parse(Some(form), &HeaderMap::new(), b"");
        assert_eq!(of_query, Ok(of_json.clone()));
        // The body goes before the query.
        let both =
            Delivery::parse(Some("event=other&secret=x"), &HeaderMap::new(), json.as_bytes());
        assert_eq!(both, Ok(of_json.clone()));
        assert_eq!(Identity::of_line("greenhouse/t", LINE), Some(of_json.identity));
    }

    #[test]
    fn more_fields_stand_where_the_cloud_has_them() {
        let body = r#"{"name":"a","device_id":"E00F","data":null,"published_at":"2026-05-04T09:00:01Z",
            "user_id":"5f00","fw_version":"7","public":"false","product_id":40123,"ttl":"60","x":1}"#;
        let delivery = parse(JSON, body).unwrap();
        let expected = r#"{"data":null,"ttl":60,"published_at":"2026-05-04T09:00:01Z","coreid":"E00F","userid":"5f00","version":7,"public":false,"productID":40123}"#;
        assert_eq!(delivery.line, expected);
        // The stream may write the same time and device in its own way.
        let line =
            r#"{"data":"","ttl":60,"published_at":"2026-05-04T09:00:01.000Z","coreid":"e00f"}"#;
        assert_eq!(Identity::of_line("a", line), Some(delivery.identity));
    }

    /// A template that puts the data in as JSON, where the stream has a text.
    #[test]
    fn data_that_is_json_is_the_text_that_holds_it() {
        for (given, on_stream) in [
            (r#"{"t": 21.50, "n": [1, null]}"#, r#"{\"t\":21.50,\"n\":[1,null]}"#),
            ("21.50", "21.50"),
            ("true", "true"),
            (r#""plain text""#, "plain text"),
        ] {
            let rest = r#""published_at":"2026-05-04T09:00:01.104Z","coreid":"e00f""#;
            let delivery = parse(JSON, &format!(r#"{{"event":"a","data":{given},{rest}}}"#));
            let delivery = delivery.unwrap();
            let line = format!(r#"{{"data":"{on_stream}","ttl":60,{rest}}}"#);
            assert_eq!(Identity::of_line("a", &line), Some(delivery.identity), "{given}");
            let fields: Value = serde_json::from_str(&delivery.line).unwrap();
            assert!(fields["data"].is_string(), "{}", delivery.line);
        }
    }

    #[test]
    fn events_that_differ_are_different() {
        let identity = |name: &str, data: &str, ms: &str, device: &str| {
            let at = format!("2026-05-04T09:00:01.{ms}Z");
            let line = format!(r#"{{"data":"{data}","published_at":"{at}","coreid":"{device}"}}"#);
            Identity::of_line(name, &line).unwrap()
        };
        let one = identity("a", "1", "104", "e00f");
        for other in [
            identity("b", "1", "104", "e00f"),
            identity("a", "2", "104", "e00f"),
            identity("a", "1", "105", "e00f"),
            identity("a", "1", "104", "e00e"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn what_does_not_say_which_event_it_is_is_refused_with_the_remedy() {
        let cases = [
            (r#"{"data":"1"}"#, "`event` is missing"),
            (r#"{"event":"a","data":"1","coreid":"x"}"#, "{{PARTICLE_PUBLISHED_AT}}"),
            (r#"{"event":"a","published_at":"2026-05-04T09:00:01Z"}"#, "{{PARTICLE_DEVICE_ID}}"),
            (r#"{"event":"a","published_at":"today","coreid":"x"}"#, "no time such as"),
            (
                r#"{"event":"fanlight.gap","published_at":"2026-05-04T09:00:01Z","coreid":"x"}"#,
                "reserved",
            ),
            (r#"{"event":"a\n","published_at":"2026-05-04T09:00:01Z","coreid":"x"}"#, "control"),
            ("[1]", "another kind of JSON"),
            ("{", "neither a JSON object nor a form"),
        ];
        for (body, expected) in cases {
            let error = parse(JSON, body).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
        let long = format!(r#"{{"event":"a","published_at":"x","coreid":"{}"}}"#, "c".repeat(257));
        assert!(matches!(parse(JSON, &long), Err(WebhookError::Long { bytes: 257, .. })));
    }

    /// No line of the stream makes it panic, and most say which event they are.
    #[test]
    fn lines_that_do_not_say_which_event_they_are_have_no_copy() {
        for line in ["", "text", "{}", r#"{"published_at":1,"coreid":"x"}"#, "[]"] {
            assert_eq!(Identity::of_line("a", line), None);
        }
    }
}
