//! What an open gets instead of a stream. Pure.
//!
//! The law here: every refusal has a JSON body with an `error`, but for the two that stand for
//! somebody else's server: a sign-in page and a redirect.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    fault::{FaultKind, RetryAfter},
    wire::http_date,
};

/// A response that is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) retry_after: Option<String>,
    pub(super) location: Option<String>,
    pub(super) body: String,
}

impl Refused {
    pub(super) fn json(status: u16, body: &str) -> Refused {
        let content_type = "application/json; charset=utf-8";
        Refused { status, content_type, retry_after: None, location: None, body: body.to_owned() }
    }

    /// What a fault of the next opens makes of one; none is no answer at all.
    pub(super) fn by_fault(kind: &FaultKind, wall: Timestamp) -> Option<Refused> {
        let retry_after_text = |retry_after: &RetryAfter| match retry_after {
            RetryAfter::Seconds(seconds) => seconds.to_string(),
            RetryAfter::Date(seconds) => http_date(wall + Duration::from_secs((*seconds).into())),
        };
        Some(match kind {
            FaultKind::Refuse { status, retry_after, .. } => Refused {
                retry_after: retry_after.as_ref().map(retry_after_text),
                ..Refused::json(*status, refusal_body(*status))
            },
            FaultKind::Redirect { url, .. } => Refused {
                location: Some(url.clone()),
                content_type: "text/plain; charset=utf-8",
                ..Refused::json(302, "Found")
            },
            FaultKind::Html { .. } => {
                Refused { content_type: "text/html; charset=utf-8", ..Refused::json(200, PORTAL) }
            }
            _ => return None,
        })
    }
}

/// The JSON body of a refusal. 400 to 404 as recorded from the real cloud; it documents the others
/// without a body.
pub(super) fn refusal_body(status: u16) -> &'static str {
    match status {
        400 => {
            r#"{"error":"invalid_request","error_description":"The access token was not found"}"#
        }
        401 => {
            r#"{"error":"invalid_token","error_description":"The access token provided is invalid."}"#
        }
        403 => UNKNOWN_DEVICE,
        404 => UNKNOWN_PRODUCT,
        408 => r#"{"ok":false,"error":"Timed out."}"#,
        429 => r#"{"error":"Too many requests","error_description":"The rate limit was exceeded"}"#,
        500 => {
            r#"{"error":"Internal server error","error_description":"Something went wrong on the server"}"#
        }
        503 => {
            r#"{"error":"Service unavailable","error_description":"The service is unavailable at the moment"}"#
        }
        _ => {
            r#"{"error":"Too many connections","error_description":"Too many event streams were opened from this address"}"#
        }
    }
}

/// 403, as recorded: somebody else's device and no device look the same.
pub(super) const UNKNOWN_DEVICE: &str = r#"{"error":"Permission Denied","info":"I didn't recognize that device name or ID, try opening https://api.particle.io/v1/devices?access_token=undefined"}"#;
/// 404, as recorded.
pub(super) const UNKNOWN_PRODUCT: &str = r#"{"ok":false,"error":"Product not found"}"#;
/// 404; after the recorded one, since no answer about an organization is known.
pub(super) const UNKNOWN_ORG: &str = r#"{"ok":false,"error":"Organization not found"}"#;
/// 400; the status is documented, the words are ours.
pub(super) const NO_PREFIX: &str = r#"{"error":"invalid_request","error_description":"The stream of public events needs an event name prefix"}"#;
/// What a network's sign-in page looks like to a client that wanted events.
const PORTAL: &str = "<!doctype html>\n<html><head><title>Sign in to the network</title></head>\n\
    <body><form method=\"post\"><button>Connect</button></form></body></html>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_json_body_with_an_error() {
        let statuses = super::super::fault::REFUSAL_STATUSES.map(refusal_body);
        for body in statuses.into_iter().chain([NO_PREFIX, UNKNOWN_ORG]) {
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(json["error"].is_string(), "{body}");
        }
    }
}
