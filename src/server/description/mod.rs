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

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use super::validator;

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
        let tag = validator::tag(&hasher.finish().to_be_bytes());
        Document { text: Bytes::from(text), tag }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ]);
        validator::answer(asked, self.tag.clone(), headers, self.text.clone())
    }
}

/// What the documents say of themselves.
const TITLE: &str = "Fanlight";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const LICENCE: &str = env!("CARGO_PKG_LICENSE");
