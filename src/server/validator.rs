//! Strong validators: an answer that the client holds already is not sent again.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// The answer, or 304 if the client holds what has this tag (RFC 9110, section 13.1.2).
pub(super) fn answer(
    asked: &HeaderMap,
    tag: HeaderValue,
    mut headers: HeaderMap,
    body: impl IntoResponse,
) -> Response {
    let is_known = is_known(asked, &tag);
    headers.insert(header::ETAG, tag);
    match is_known {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => {
            let mut response = body.into_response();
            response.headers_mut().extend(headers);
            response
        }
    }
}

/// A strong tag (RFC 9110, section 8.8.3) of a hash, or of as much of one as is wanted.
pub(super) fn tag(hash: &[u8]) -> HeaderValue {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).expect("quoted hex digits are a header value")
}

/// A proxy that compresses weakens the tag: it is the same content all the same.
fn is_known(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|known| known == b"*" || tag == known.strip_prefix(b"W/").unwrap_or(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_tag_is_found_among_others() {
        let asks = |text: &'static str| {
            let asked =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(text))]);
            is_known(&asked, &tag(&[0x1f]))
        };
        assert!(asks("\"1f\""));
        assert!(asks("\"1e\", \"1f\""));
        assert!(asks("W/\"1f\""));
        assert!(asks("*"));
        assert!(!asks("\"1e\""));
        assert!(!asks("1f"));
    }
}
