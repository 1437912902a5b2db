//! An event as the Particle cloud puts it on the wire. Pure.
//!
//! The law here: line feeds only, one data line, no `id:`, no `retry:`; fields in the order
//! recorded from the real cloud: data, ttl, published_at, coreid, then for a product's device
//! userid, version, public, productID. The cloud stamps `published_at` on receipt, so it is part of
//! the event and not of its rendering.

use bytes::Bytes;
use jiff::Timestamp;

use super::route::Origin;

/// What a stream begins with.
pub(super) const OK: &[u8] = b":ok\n\n";
/// What a silent stream gets: one bare line feed, no comment.
pub(super) const KEEPALIVE: &[u8] = b"\n";

/// An event, as the cloud knows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Option<String>,
    pub(super) ttl: Ttl,
    pub(super) published_at: Timestamp,
    pub(super) coreid: String,
    pub(super) product: Option<ProductFields>,
    /// Who published it; decides which streams get it, and is not on the wire.
    pub(super) origin: Origin,
}

/// The cloud writes `60` today, and still `"60"` in some places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ttl {
    Number,
    Text,
}

/// What the events of a product's devices carry besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProductFields {
    /// Empty for a device nobody has claimed.
    pub(super) userid: String,
    pub(super) version: u32,
    pub(super) product_id: u32,
}

impl Event {
    /// The JSON of the data line.
    pub(super) fn json(&self) -> String {
        let mut json = String::with_capacity(
            160 + self.data.as_ref().map_or(4, |data| data.len() + data.len() / 8),
        );
        json.push_str("{\"data\":");
        match &self.data {
            Some(data) => push_text(&mut json, data),
            None => json.push_str("null"),
        }
        json.push_str(match self.ttl {
            Ttl::Number => ",\"ttl\":60,\"published_at\":\"",
            Ttl::Text => ",\"ttl\":\"60\",\"published_at\":\"",
        });
        json.push_str(&stamp(self.published_at));
        json.push_str("\",\"coreid\":");
        push_text(&mut json, &self.coreid);
        if let Some(ProductFields { userid, version, product_id }) = &self.product {
            json.push_str(",\"userid\":");
            push_text(&mut json, userid);
            json.push_str(&format!(
                ",\"version\":{version},\"public\":false,\"productID\":{product_id}"
            ));
        }
        json.push('}');
        json
    }

    /// The event on the wire.
    pub(super) fn bytes(&self) -> Bytes {
        event_bytes(&self.name, &self.json())
    }
}

/// An event on the wire: `event: NAME`, `data: JSON`, an empty line. Both are written as they are.
pub(super) fn event_bytes(name: &str, json: &str) -> Bytes {
    let mut bytes = Vec::with_capacity(name.len() + json.len() + 16);
    for part in [b"event: ", name.as_bytes(), b"\ndata: ", json.as_bytes(), b"\n\n"] {
        bytes.extend_from_slice(part);
    }
    Bytes::from(bytes)
}

/// ISO 8601 in UTC with exactly three decimals, as `2026-05-04T09:00:01.104Z`.
pub(super) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// As in an HTTP header: `Mon, 04 May 2026 09:00:01 GMT`.
pub(super) fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn push_text(json: &mut String, text: &str) {
    // A string always serializes; an empty one is the harmless answer if that should ever change.
    json.push_str(&serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            name: "greenhouse/bay-2/temperature".to_owned(),
            data: Some("21.50".to_owned()),
            ttl: Ttl::Number,
            published_at: "2026-05-04T09:00:01.104Z".parse().unwrap(),
            coreid: "e00fce680000000000000001".to_owned(),
            product: None,
            origin: Origin::Device(0),
        }
    }

    // The expected bytes are those of recorded events with their ids made up.

    #[test]
    fn a_developers_event() {
        let expected = "event: greenhouse/bay-2/temperature\ndata: {\"data\":\"21.50\",\"ttl\":60,\
            \"published_at\":\"2026-05-04T09:00:01.104Z\",\"coreid\":\"e00fce680000000000000001\"}\n\n";
        assert_eq!(event().bytes(), expected);
    }

    #[test]
    fn a_products_event() {
        let product = ProductFields { userid: String::new(), version: 3, product_id: 40_123 };
        let event = Event {
            name: "env/reading".to_owned(),
            data: Some(r#"{"t":18.9,"rh":63,"seq":1}"#.to_owned()),
            published_at: "2026-05-04T09:00:03.951Z".parse().unwrap(),
            coreid: "0a10aced2021940000000003".to_owned(),
            product: Some(product),
            ..event()
        };
        let expected = r#"{"data":"{\"t\":18.9,\"rh\":63,\"seq\":1}","ttl":60,"published_at":"2026-05-04T09:00:03.951Z","coreid":"0a10aced2021940000000003","userid":"","version":3,"public":false,"productID":40123}"#;
        assert_eq!(event.json(), expected);
    }

    #[test]
    fn texts_are_escaped_as_recorded() {
        let json = |data: Option<&str>| Event { data: data.map(str::to_owned), ..event() }.json();
        assert!(json(None).starts_with(r#"{"data":null,"ttl":60,"#));
        assert!(json(Some("")).starts_with(r#"{"data":"","ttl":60,"#));
        let raw = " 5101:0821\t\"quoted\" back\\slash\r\nsecond line\n\n";
        let escaped =
            r#"{"data":" 5101:0821\t\"quoted\" back\\slash\r\nsecond line\n\n","ttl":60,"#;
        assert!(json(Some(raw)).starts_with(escaped));
        assert!(
            json(Some("Zürich 21 °C – 温度 ok"))
                .starts_with(r#"{"data":"Zürich 21 °C – 温度 ok","#)
        );
        assert!(Event { ttl: Ttl::Text, ..event() }.json().contains(r#","ttl":"60","#));
    }

    #[test]
    fn stamps_have_three_decimals_always() {
        for (at, expected) in [
            ("2026-05-04T09:00:06Z", "2026-05-04T09:00:06.000Z"),
            ("2026-05-04T09:00:06.1239Z", "2026-05-04T09:00:06.123Z"),
        ] {
            assert_eq!(stamp(at.parse().unwrap()), expected);
        }
        assert_eq!(
            http_date("2026-05-04T09:00:06Z".parse().unwrap()),
            "Mon, 04 May 2026 09:00:06 GMT"
        );
    }
}
