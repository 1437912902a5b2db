//! What is particular to WebSocket: what the client may say, and how the end is told.

use serde_json::Value;

use crate::model::{CloseReason, Filter, filter::FilterError};

/// The subprotocol spoken on `/ws`.
pub const SUBPROTOCOL: &str = "fanlight.v1";

/// A message of the client cannot be understood. The text is sent as the reason of
/// the closing handshake, which holds at most 123 bytes (RFC 6455, section 5.5).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is no JSON object with `subscribe` alone.
    #[error("expected {{\"subscribe\":{{\"prefix\":[…],\"name\":[…],\"device\":[…]}}}}")]
    Shape,
    /// A part of the filter is unknown or no list of strings.
    #[error("subscribe takes prefix, name and device, each a list of strings")]
    Part,
    /// The filter is out of bounds.
    #[error("{0}")]
    Filter(#[from] FilterError),
}

/// Reads the one message there is: `{"subscribe":{…}}`.
pub fn parse(text: &str) -> Result<Filter, MessageError> {
    let Ok(Value::Object(mut message)) = serde_json::from_str(text) else {
        return Err(MessageError::Shape);
    };
    let (Some(Value::Object(parts)), true) = (message.remove("subscribe"), message.is_empty())
    else {
        return Err(MessageError::Shape);
    };
    let (mut prefixes, mut names, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for (part, values) in parts {
        let list = match part.as_str() {
            "prefix" => &mut prefixes,
            "name" => &mut names,
            "device" => &mut devices,
            _ => return Err(MessageError::Part),
        };
        let Value::Array(values) = values else { return Err(MessageError::Part) };
        for value in values {
            let Value::String(value) = value else { return Err(MessageError::Part) };
            list.push(value);
        }
    }
    Ok(Filter::new(prefixes, names, devices)?)
}

/// The head of an unmasked, unfragmented text frame (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextHead {
    bytes: [u8; 10],
    len: usize,
}

impl TextHead {
    /// The 2, 4 or 10 bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The head of a text frame whose payload has `payload_bytes`.
pub fn text_head(payload_bytes: usize) -> TextHead {
    let mut bytes = [0; 10];
    // The last frame of its message (0x80), text (0x1).
    bytes[0] = 0x81;
    let len = match payload_bytes {
        0..=125 => {
            bytes[1] = payload_bytes as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    };
    TextHead { bytes, len }
}

/// The close code that says why (RFC 6455, section 7.4.1).
pub fn close_code(reason: CloseReason) -> u16 {
    match reason {
        CloseReason::Gone | CloseReason::Answered | CloseReason::Limit => 1000,
        CloseReason::Shutdown | CloseReason::Expired | CloseReason::Revoked => 1001,
        CloseReason::Protocol => 1008,
        CloseReason::TooBig => 1009,
        CloseReason::Full | CloseReason::Slow => 1013,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::filter::tests::filter;

    #[test]
    fn messages() {
        let parsed = parse(r#"{"subscribe":{"prefix":["a"],"name":["b"],"device":["c"]}}"#);
        assert_eq!(parsed, Ok(filter(&["a"], &["b"], &["c"])));
        assert_eq!(parse(r#"{"subscribe":{}}"#), Ok(Filter::all()));
        for text in
            ["", "[]", "{}", "null", r#"{"subscribe":1}"#, r#"{"subscribe":{},"x":1}"#, "{\"a\":"]
        {
            assert_eq!(parse(text), Err(MessageError::Shape), "{text}");
        }
        for text in [
            r#"{"subscribe":{"prefix":"a"}}"#,
            r#"{"subscribe":{"name":[1]}}"#,
            r#"{"subscribe":{"x":[]}}"#,
        ] {
            assert_eq!(parse(text), Err(MessageError::Part), "{text}");
        }
        assert!(matches!(parse(r#"{"subscribe":{"name":[""]}}"#), Err(MessageError::Filter(_))));
    }

    #[test]
    fn heads_have_three_lengths() {
        assert_eq!(text_head(0).as_slice(), [0x81, 0]);
        assert_eq!(text_head(125).as_slice(), [0x81, 125]);
        assert_eq!(text_head(126).as_slice(), [0x81, 126, 0, 126]);
        assert_eq!(text_head(0xffff).as_slice(), [0x81, 126, 0xff, 0xff]);
        assert_eq!(text_head(0x1_0000).as_slice(), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn reasons_fit_into_a_close_frame() {
        for error in [MessageError::Shape, MessageError::Part] {
            assert!(error.to_string().len() <= 123, "{error}");
        }
    }
}
