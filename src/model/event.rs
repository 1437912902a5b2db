//! What a device published, checked once at the door.
//!
//! Law: an [`Event`] can be written in every format without further checks. Its
//! name holds no control character, its data no carriage return, and whether the
//! data is a JSON object that can take a field in front is already known.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Longest event name. Particle's own are up to 64 bytes; hook responses put a
/// device id, `/hook-response/` and a number around one, and custom topics are
/// free text, so four times that.
pub const NAME_BYTES_MAX: usize = 256;

/// Names that begin so are the broker's own control events.
pub const RESERVED_PREFIX: &str = "fanlight.";

/// Top-level fields the broker puts into JSON forms itself. Data that has one of
/// its own is passed on as `raw` text there, so that no device can forge a
/// position or a control object.
const RESERVED_FIELDS: [&str; 3] = ["id", "name", "fanlight"];

/// Why an upstream event is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EventError {
    /// The name is empty, too long, or holds a control character.
    #[error(
        "the event name is empty, longer than {NAME_BYTES_MAX} bytes, or holds a control character"
    )]
    Name,
    /// The name begins with `fanlight.`.
    #[error("the event name begins with the reserved `{RESERVED_PREFIX}`")]
    Reserved,
    /// The data holds a carriage return, which no event stream can carry.
    #[error("the event data holds a carriage return")]
    Data,
}

/// A name and a data line, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    name: &'a str,
    data: &'a str,
    shape: Shape<'a>,
}

/// What the data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// A JSON object without reserved fields. `inside` is everything after its
    /// opening brace, from the first byte that is no white space.
    Object {
        /// The rest of the object, closing brace included.
        inside: &'a str,
        /// The value of `coreid`, where it is a string without escapes.
        device: Option<&'a str>,
    },
    /// Anything else, and objects with reserved fields.
    Text {
        /// As above, of an object with reserved fields.
        device: Option<&'a str>,
    },
}

impl<'a> Event<'a> {
    /// Checks an event as it came from upstream.
    pub fn parse(name: &'a str, data: &'a str) -> Result<Event<'a>, EventError> {
        let well_formed = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.bytes().any(|byte| byte < 0x20 || byte == 0x7f)
            && (name.is_ascii() || !name.chars().any(char::is_control));
        if !well_formed {
            return Err(EventError::Name);
        }
        if name.starts_with(RESERVED_PREFIX) {
            return Err(EventError::Reserved);
        }
        if memchr::memchr(b'\r', data.as_bytes()).is_some() {
            return Err(EventError::Data);
        }
        Ok(Event { name, data, shape: Shape::of(data) })
    }

    /// The event's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The data, byte for byte as the cloud sent it. Lines are joined by LF.
    pub fn data(&self) -> &'a str {
        self.data
    }

    /// What the data is.
    pub fn shape(&self) -> Shape<'a> {
        self.shape
    }

    /// The device the event came from (`coreid`), if the data names one.
    pub fn device(&self) -> Option<&'a str> {
        match self.shape {
            Shape::Object { device, .. } | Shape::Text { device } => device,
        }
    }
}

impl<'a> Shape<'a> {
    fn of(data: &'a str) -> Shape<'a> {
        let Some(inside) = data.trim_start_matches(JSON_SPACE).strip_prefix('{') else {
            return Shape::Text { device: None };
        };
        match serde_json::from_str::<Fields<'a>>(data) {
            Ok(Fields { reserved: false, device }) => {
                Shape::Object { inside: inside.trim_start_matches(JSON_SPACE), device }
            }
            Ok(Fields { reserved: true, device }) => Shape::Text { device },
            Err(_) => Shape::Text { device: None },
        }
    }
}

/// White space as JSON has it (RFC 8259, section 2).
const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// What one pass over the top level of a JSON object finds.
struct Fields<'a> {
    reserved: bool,
    device: Option<&'a str>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields { reserved: false, device: None };
        while let Some(key) = map.next_key()? {
            match key {
                Key::Device => fields.device = map.next_value::<Device<'de>>()?.0,
                Key::Reserved => {
                    fields.reserved = true;
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

enum Key {
    Device,
    Reserved,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "coreid" => Key::Device,
                    key if RESERVED_FIELDS.contains(&key) => Key::Reserved,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A value that may be a string without escapes; anything else counts as none.
struct Device<'a>(Option<&'a str>);

impl<'de> Deserialize<'de> for Device<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DeviceVisitor;
        impl<'de> Visitor<'de> for DeviceVisitor {
            type Value = Device<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a device id")
            }

            fn visit_borrowed_str<E>(self, device: &'de str) -> Result<Self::Value, E> {
                Ok(Device(Some(device)))
            }

            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Device(None))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Device(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Device(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Device(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Device(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Device(None))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Device(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Device(None))
            }
        }
        deserializer.deserialize_any(DeviceVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(data: &str) -> Shape<'_> {
        Event::parse("a", data).unwrap().shape()
    }

    #[test]
    fn names() {
        for name in ["a", "greenhouse/temp", "spark/status", "näme", "with space", "x\u{2028}y"] {
            assert!(Event::parse(name, "{}").is_ok(), "{name:?}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "a\nb", "a\rb", "a\0b", "\u{1b}[31m", "a\u{7f}", "a\u{85}b", &long] {
            assert_eq!(Event::parse(name, "{}"), Err(EventError::Name), "{name:?}");
        }
        assert_eq!(Event::parse("fanlight.gap", "{}"), Err(EventError::Reserved));
        assert!(Event::parse("fanlight", "{}").is_ok());
    }

    #[test]
    fn data() {
        assert_eq!(Event::parse("a", "x\ry"), Err(EventError::Data));
        assert!(Event::parse("a", "").is_ok());
        assert!(Event::parse("a", "two\nlines \0").is_ok());
    }

    #[test]
    fn shapes() {
        let object = |inside, device| Shape::Object { inside, device };
        assert_eq!(
            shape(r#"{"data":"1","coreid":"e0"}"#),
            object(r#""data":"1","coreid":"e0"}"#, Some("e0"))
        );
        assert_eq!(shape(" \n{ \"a\":1} "), object("\"a\":1} ", None));
        assert_eq!(shape("{}"), object("}", None));
        for coreid in ["null", "7", "-7", "1.5", "true", "[1,{}]", "{\"a\":[2]}", r#""\u0065""#] {
            let data = format!(r#"{{"coreid":{coreid},"b":2}}"#);
            assert!(matches!(shape(&data), Shape::Object { device: None, .. }), "{data}");
        }
        for data in [
            "",
            "null",
            "1",
            "\"x\"",
            "[]",
            "{",
            "{}}",
            "{\"a\":1,}",
            "{\"a\":\"\0\"}",
            "undefined",
        ] {
            assert_eq!(shape(data), Shape::Text { device: None }, "{data:?}");
        }
    }

    #[test]
    fn data_with_a_reserved_field_is_text() {
        for field in ["id", "name", "fanlight", "\\u0069d"] {
            let data = format!(r#"{{"a":1,"{field}":"6n3k2ahq-7","coreid":"e0"}}"#);
            assert_eq!(shape(&data), Shape::Text { device: Some("e0") }, "{data}");
        }
        assert!(
            matches!(shape(r#"{"a":{"id":1}}"#), Shape::Object { .. }),
            "only the top level counts"
        );
    }

    #[test]
    fn deep_nesting_is_text_not_a_stack_overflow() {
        let data = format!("{{\"a\":{}", "[".repeat(1 << 20));
        assert_eq!(shape(&data), Shape::Text { device: None });
    }
}
