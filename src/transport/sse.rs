//! What is particular to `text/event-stream`: the head and the bytes between events.
//!
//! Law: between events stands nothing but a comment line without a blank line after
//! it. A comment followed by a blank line, or a block of only `id:` or only
//! `retry:`, makes several widespread clients report a false event (measured with
//! httpx-sse 0.4.3, fetch-event-source 2.0.1 and r3labs/sse v2).

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::model::{CloseReason, frame::control_sse, json::Object};

/// Sent when the stream has been silent for a while.
pub const KEEPALIVE: &[u8] = b":\n";

/// The head of every SSE answer.
pub fn head() -> HeaderMap {
    static HEAD: LazyLock<HeaderMap> = LazyLock::new(|| stream_head("text/event-stream"));
    HEAD.clone()
}

/// The head of an NDJSON answer: the same, but for the type.
pub fn ndjson_head() -> HeaderMap {
    static HEAD: LazyLock<HeaderMap> = LazyLock::new(|| stream_head("application/x-ndjson"));
    HEAD.clone()
}

/// No cache and no proxy on the way may keep, change or hold back a stream.
fn stream_head(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ])
}

/// The whole body for a browser that cannot be served now. A status other than 200
/// would make it give up for good.
pub fn refusal(reason: CloseReason, retry_ms: u64) -> String {
    let fields = Object::new().text("reason", reason.as_str()).number("retry_ms", retry_ms);
    control_sse("bye", None, Some(retry_ms), &fields.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_block() {
        let expected =
            "retry: 20000\nevent: fanlight.bye\ndata: {\"reason\":\"full\",\"retry_ms\":20000}\n\n";
        assert_eq!(refusal(CloseReason::Full, 20_000), expected);
    }
}
