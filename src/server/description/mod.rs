//! The broker's interface, for machines: `/openapi.json` and `/asyncapi.json`.
//!
//! Law: made from the code that does the work. Parameters come from the parser's table,
//! errors from the error table, words from the enums, examples from the renderers; what is
//! left is held against real traffic in `tests/it/description.rs`.

mod asyncapi;
mod examples;
mod openapi;
mod schemas;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::LazyLock,
};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

/// A document as it is sent. It depends on the build alone, not on the configuration.
struct Document {
    text: Bytes,
    tag: HeaderValue,
}

static OPENAPI: LazyLock<Document> = LazyLock::new(|| Document::new(&openapi::document()));
static ASYNCAPI: LazyLock<Document> = LazyLock::new(|| Document::new(&asyncapi::document()));

/// `GET /openapi.json`: every route.
pub(super) async fn openapi(headers: HeaderMap) -> Response {
    OPENAPI.answer(&headers)
}

/// `GET /asyncapi.json`: the streams.
pub(super) async fn asyncapi(headers: HeaderMap) -> Response {
    ASYNCAPI.answer(&headers)
}

// === impl Document ===

impl Document {
    fn new(document: &Value) -> Document {
        let text = format!("{document:#}\n");
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let tag = HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()))
            .expect("a quoted number is a header value");
        Document { text: Bytes::from(text), tag }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::ETAG, self.tag.clone()),
        ];
        match self.is_known(asked) {
            true => (StatusCode::NOT_MODIFIED, headers).into_response(),
            false => (headers, self.text.clone()).into_response(),
        }
    }

    /// True if the client holds this document (RFC 9110, section 13.1.2).
    fn is_known(&self, asked: &HeaderMap) -> bool {
        asked
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .any(|known| known == b"*" || self.tag == known.strip_prefix(b"W/").unwrap_or(known))
    }
}

/// What the documents say of themselves.
const TITLE: &str = "Fanlight";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const LICENCE: &str = env!("CARGO_PKG_LICENSE");
