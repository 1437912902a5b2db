//! Any body of a request to publish or to call a function: what goes on to the cloud is JSON of
//! the known fields alone, within the cloud's limits, and reads as what it was.

use fanlight::upstream::publish::{
    DATA_URL_BYTES_MAX, Draft, DraftError, FUNCTION_BYTES_MAX, FunctionCall, NAME_BYTES_MAX,
};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value};

use super::{numbers, split};

/// What a client may say of its body.
const KINDS: [&str; 5] = [
    "",
    "application/json",
    "application/x-www-form-urlencoded",
    "Application/JSON; charset=utf-8",
    "text/plain",
];

pub(super) fn publish(input: &[u8]) {
    let Some(([kind, function_bytes], body)) = numbers(input) else { return };
    let mut headers = HeaderMap::new();
    let kind = KINDS[kind % KINDS.len()];
    if !kind.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    match Draft::parse(&headers, body) {
        Ok(draft) => is_fit_for_the_cloud(&draft),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            // The reverse of what is said of the name.
            if let DraftError::Name { bytes } = error {
                assert!(bytes > 0);
            }
        }
    }
    let (function, body) = split(body, function_bytes % 80);
    let function = String::from_utf8_lossy(function).into_owned();
    let is_function = (1..=FUNCTION_BYTES_MAX).contains(&function.len())
        && function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if FunctionCall::parse("e00fce68".to_owned(), function, &headers, body).is_ok() {
        assert!(is_function);
    }
}

fn is_fit_for_the_cloud(draft: &Draft) {
    let json = draft.to_json();
    let fields: Map<String, Value> = serde_json::from_str(&json).expect("an object");
    assert!(fields.keys().all(|key| ["name", "data", "private", "ttl"].contains(&key.as_str())));
    let name = fields["name"].as_str().expect("a text");
    assert!((1..=NAME_BYTES_MAX).contains(&name.len()));
    assert!(name.chars().all(|c| ('!'..='~').contains(&c)));
    let lower = name.to_ascii_lowercase();
    assert!(!["particle", "spark"].iter().any(|prefix| lower.starts_with(prefix)));
    assert!(!name.starts_with("fanlight."));
    if let Some(Value::String(data)) = fields.get("data") {
        assert!(data.len() <= DATA_URL_BYTES_MAX);
    }
    // What the broker says is what it would understand.
    let json_kind = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json_kind)]);
    assert_eq!(Draft::parse(&headers, json.as_bytes()).as_ref(), Ok(draft));
}
