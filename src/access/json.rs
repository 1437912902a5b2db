//! JSON in which no name stands twice.
//!
//! Law: two readers of the same text must not see different things. Of a name that is given
//! twice, some take the first value and some the last; here it is an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads one JSON text.
///
/// # Errors
/// What is wrong, in words that do not repeat the text.
pub(super) fn parse(text: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice::<Strict>(text) {
        Ok(Strict(value)) => Ok(value),
        // Its own message may hold a part of the text.
        Err(error) if error.is_data() => Err("a name stands twice in one object".to_owned()),
        Err(error) => Err(format!("not JSON, at line {} column {}", error.line(), error.column())),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(Reader).map(Strict)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_stands_once() {
        assert!(parse(br#"{"a":1,"b":{"a":[{"a":null}]}}"#).is_ok());
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"b":2,"\u0061":3}}]"#] {
            assert_eq!(parse(text.as_bytes()), Err("a name stands twice in one object".to_owned()));
        }
        let error = parse(b"{\"secret\": hunter2}").unwrap_err();
        assert_eq!(error, "not JSON, at line 1 column 12");
        assert!(parse(b"1 2").is_err(), "one text");
        assert!(parse("[".repeat(10_000).as_bytes()).is_err(), "of a bounded depth");
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_any_reader_reads(text in "[\\[\\]{}:,\"a1.e\\-ntrue ]{0,24}") {
            let any = serde_json::from_str::<Value>(&text).ok();
            let strict = parse(text.as_bytes()).ok();
            prop_assert!(strict.is_none() || strict == any, "{:?} {:?}", strict, any);
        }
    }
}
