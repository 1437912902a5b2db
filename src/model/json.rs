//! A JSON object written field by field, in the order given.
//!
//! Law: what comes out is one line of valid JSON, whatever goes in.

use std::fmt;

/// Room to begin with: the fields of a hello without a filter.
const CAPACITY_BYTES: usize = 192;

/// Writes one JSON object. Field names are ours; values may be anyone's.
#[derive(Debug)]
pub struct Object {
    text: String,
}

impl Default for Object {
    fn default() -> Object {
        Object::new()
    }
}

impl Object {
    /// An object without fields.
    pub fn new() -> Object {
        let mut text = String::with_capacity(CAPACITY_BYTES);
        text.push('{');
        Object { text }
    }

    /// A string field.
    pub fn text(mut self, name: &str, value: &str) -> Object {
        self.name(name);
        push_string(&mut self.text, value);
        self
    }

    /// A string field of something that prints itself.
    pub fn shown(self, name: &str, value: impl fmt::Display) -> Object {
        self.text(name, &value.to_string())
    }

    /// A number.
    pub fn number(mut self, name: &str, value: u64) -> Object {
        self.name(name);
        self.text.push_str(&value.to_string());
        self
    }

    /// A number or null.
    pub fn number_or_null(self, name: &str, value: Option<u64>) -> Object {
        match value {
            Some(value) => self.number(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// A string or null.
    pub fn text_or_null(self, name: &str, value: Option<&str>) -> Object {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// An array of strings.
    pub fn texts<'a>(mut self, name: &str, values: impl Iterator<Item = &'a str>) -> Object {
        self.name(name);
        self.text.push('[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            push_string(&mut self.text, value);
        }
        self.text.push(']');
        self
    }

    /// A value that is JSON already.
    pub fn raw(mut self, name: &str, json: &str) -> Object {
        self.name(name);
        self.text.push_str(json);
        self
    }

    /// The finished object.
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }

    fn name(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        // Ours, and so nothing in it is to be escaped.
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }
}

/// Appends `value` as a JSON string, quotes included.
pub fn push_string(text: &mut String, value: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        text.push('"');
        text.push_str(value);
        text.push('"');
        return;
    }
    text.push_str(&serde_json::to_string(value).expect("a string is always valid JSON"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order() {
        let text = Object::new()
            .text("b", "x\"y\n")
            .number("a", 7)
            .number_or_null("n", None)
            .texts("l", ["p", "q"].into_iter())
            .text_or_null("t", Some("u"))
            .finish();
        assert_eq!(text, r#"{"b":"x\"y\n","a":7,"n":null,"l":["p","q"],"t":"u"}"#);
        assert_eq!(Object::new().finish(), "{}");
    }
}
