//! From what went wrong to what the client reads.
//!
//! Law: one table. Every error body of the broker is
//! `{"error":"…","error_description":"…"}`, whole, with its length. Those of the Particle
//! routes have the cloud's names, and its further fields.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};

use crate::{
    access::{Denied, Refused},
    model::{CloseReason, json::Object},
    telemetry::PublishOutcome,
    transport::request::{InvalidParameter, Request, Route},
    upstream::{
        publish::{BODY_BYTES_MAX, DraftError, PublishError},
        webhook::WebhookError,
    },
};

use super::publish::status_of;

/// A request that is not served as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A parameter cannot be understood.
    #[error(transparent)]
    InvalidParameter(#[from] InvalidParameter),
    /// There is nothing at that path.
    #[error("there is nothing at {path}; see / for what there is")]
    NotFound {
        /// The path asked for, cut.
        path: String,
    },
    /// The path is there, but not for this method.
    #[error("{method} is not allowed here; use {}", allowed.split(',').next().unwrap_or_default())]
    MethodNotAllowed {
        /// The method used, cut.
        method: String,
        /// Those that are, the best first.
        allowed: &'static str,
    },
    /// `/ws` was asked for without a WebSocket handshake.
    #[error("this path speaks WebSocket: {detail}")]
    UpgradeRequired {
        /// What is missing.
        detail: String,
    },
    /// The request says in no way that can be relied on for whom it is meant.
    #[error("the request must name its host once, as `Host: name` or `Host: name:port`")]
    HostUnclear,
    /// The request is meant for a name that the broker does not answer to.
    #[error(
        "this broker does not answer to the name {host}: whoever owns a name can point it at any \
         address. If it is a name of the broker, list it in server.hosts; by its address it can be \
         asked in any case"
    )]
    HostUnknown {
        /// The name, cut.
        host: String,
    },
    /// A web page of another origin asks, which is not listed.
    #[error(
        "pages of {origin} may neither read from here nor publish: list their origin in \
         server.origins, or serve them from the broker's own, where a proxy in between keeps the Host \
         header; particle.cors lets all pages read the streams below /v1"
    )]
    ForeignOrigin {
        /// The page's origin, cut.
        origin: String,
    },
    /// The broker has as many connections as it may.
    #[error(
        "the broker has as many connections as it may ({setting}); try again in {retry_secs} s"
    )]
    Full {
        /// What is reached.
        setting: &'static str,
        /// When to try again.
        retry_secs: u64,
    },
    /// The client's address has as many connections as it may.
    #[error(
        "your address has as many connections as it may (limits.connections_per_ip_max); try again in {retry_secs} s"
    )]
    TooMany {
        /// When to try again.
        retry_secs: u64,
    },
    /// The broker is shutting down.
    #[error("the broker is shutting down; try again in {retry_secs} s")]
    Closing {
        /// When to try again.
        retry_secs: u64,
    },
    /// `/v1/events` without a prefix, which the cloud refuses too.
    #[error("the stream of public events needs an event name prefix: /v1/events/PREFIX")]
    PrefixMissing,
    /// A stream below `/v1`, or a device, that the upstream does not contain.
    #[error("{detail}")]
    PermissionDenied {
        /// What is read.
        detail: String,
    },
    /// A product that the upstream does not read.
    #[error("this broker knows no such product: it reads {reads}")]
    ProductNotFound {
        /// What is read.
        reads: String,
    },
    /// An organization that the upstream does not read.
    #[error("this broker knows no such organization: it reads {reads}")]
    OrgNotFound {
        /// What is read.
        reads: String,
    },
    /// Publishing is not switched on.
    #[error(
        "nothing is passed on to the cloud here unless the operator sets {setting} = true, since it is \
         done with the broker's own token; with upstream.source sse there is nowhere to pass it on to"
    )]
    PublishOff {
        /// What would switch it on.
        setting: &'static str,
    },
    /// Events do not come by webhook here.
    #[error(
        "no webhook is taken in here: set ingest.secret_file to a file with a secret of your own, and have \
         the webhook show it"
    )]
    IngestOff,
    /// A webhook that does not show the secret.
    #[error(
        "the webhook's secret is missing or wrong: it goes into the header Authorization: Bearer SECRET or \
         X-Webhook-Secret, or the query as secret="
    )]
    WebhookSecret,
    /// A webhook's request that is none.
    #[error(transparent)]
    Webhook(WebhookError),
    /// As many webhooks are being taken in as may be.
    #[error(
        "as many webhooks are being taken in as may be at a time (ingest.in_flight_max); try again in \
         {retry_secs} s"
    )]
    IngestBusy {
        /// When to try again.
        retry_secs: u64,
    },
    /// What is to be published cannot be.
    #[error(transparent)]
    Draft(DraftError),
    /// Its body is too long.
    #[error("the body is too long; at most {bytes_max} bytes are read")]
    TooLarge {
        /// How much would be read.
        bytes_max: usize,
    },
    /// A request that is to read has a body.
    #[error("a request by GET or HEAD has no body here; what it asks for stands in its address")]
    BodyUnwanted,
    /// The request has more headers than may be.
    #[error("the request has more than {headers_max} headers (limits.headers_max)")]
    HeadersTooMany {
        /// How many may be.
        headers_max: usize,
    },
    /// Its body did not come.
    #[error("the body did not arrive within {secs} s")]
    BodyMissing {
        /// How long it was waited for.
        secs: u64,
    },
    /// The client's address, or all together, publish too much.
    #[error(
        "too much is published from your address (publish.per_second, publish.burst), or by all \
         together; try again in {retry_secs} s"
    )]
    PublishTooOften {
        /// When to try again.
        retry_secs: u64,
    },
    /// As much is being passed on as may be.
    #[error(
        "as much is being passed on to the cloud as may be at a time (publish.in_flight_max); try again \
         in {retry_secs} s"
    )]
    PublishBusy {
        /// When to try again.
        retry_secs: u64,
    },
    /// The cloud has not answered.
    #[error(transparent)]
    Publish(PublishError),
    /// It is not known who asks.
    #[error(transparent)]
    Refused(Refused),
    /// Who asks may not.
    #[error(transparent)]
    Denied(Denied),
    /// The broker is not ready to serve.
    #[error("{reason}")]
    NotReady {
        /// Why.
        reason: String,
    },
    /// A bug of the broker.
    #[error("the broker made a mistake; its log says more")]
    Internal,
}

impl Error {
    /// There is nothing at this address.
    pub(super) fn not_found(uri: &Uri) -> Error {
        // CONNECT asks for an authority, which has no path.
        let asked = if uri.path().is_empty() { uri.to_string() } else { uri.path().to_owned() };
        Error::NotFound { path: asked.chars().take(100).collect() }
    }

    /// Status, name, and when it happens.
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Error::InvalidParameter(_) => (
                StatusCode::BAD_REQUEST,
                "invalid_parameter",
                "A parameter cannot be understood; the text names it and says what is allowed",
            ),
            Error::HostUnclear => (
                StatusCode::BAD_REQUEST,
                "invalid_host",
                "The `Host` header is malformed, or there is more than one",
            ),
            Error::HostUnknown { .. } => (
                StatusCode::MISDIRECTED_REQUEST,
                "unknown_host",
                "The request names a host that is neither an address nor listed in `server.hosts`",
            ),
            Error::Refused(Refused::Query | Refused::Twice) => (
                StatusCode::BAD_REQUEST,
                "misplaced_token",
                "A credential stands where none may, or there is more than one",
            ),
            Error::Refused(_) => (
                StatusCode::UNAUTHORIZED,
                "invalid_token",
                "Access is on, and the request has no credential, or none that is valid",
            ),
            Error::Denied(_) => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "The credential does not allow what is asked for",
            ),
            Error::ForeignOrigin { .. } => (
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "Asked for by a web page of another origin that is not listed in `server.origins`",
            ),
            Error::NotFound { .. } => {
                (StatusCode::NOT_FOUND, "not_found", "There is nothing at that path")
            }
            Error::MethodNotAllowed { .. } => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "A method that the path does not know",
            ),
            Error::PrefixMissing => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "The stream of public events is asked for without a prefix",
            ),
            Error::Draft(_) => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "What is to be published cannot be read, or is over the cloud's limits",
            ),
            Error::PermissionDenied { .. } => (
                StatusCode::FORBIDDEN,
                "Permission Denied",
                "The upstream does not contain that stream, or the device is asked for by its name",
            ),
            Error::ProductNotFound { .. } => (
                StatusCode::NOT_FOUND,
                "Product not found",
                "The upstream does not read that product",
            ),
            Error::OrgNotFound { .. } => (
                StatusCode::NOT_FOUND,
                "Organization not found",
                "The upstream does not read that organization",
            ),
            Error::PublishOff { .. } => {
                (StatusCode::FORBIDDEN, "publish_off", "Publishing is not switched on")
            }
            Error::BodyUnwanted => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "unwanted_body",
                "A request by GET or HEAD has a body",
            ),
            Error::HeadersTooMany { .. } => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_many_headers",
                "The request has more headers than `limits.headers_max`",
            ),
            Error::IngestOff => {
                (StatusCode::FORBIDDEN, "ingest_off", "Events do not come by webhook here")
            }
            Error::WebhookSecret => (
                StatusCode::UNAUTHORIZED,
                "invalid_secret",
                "The webhook's secret is missing or wrong",
            ),
            Error::Webhook(_) => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "The webhook's request cannot be read, or does not say which event it is",
            ),
            Error::IngestBusy { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "As many webhooks are being taken in as may be at a time",
            ),
            Error::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too long")
            }
            Error::BodyMissing { .. } => {
                (StatusCode::REQUEST_TIMEOUT, "timeout", "The body did not arrive in time")
            }
            Error::PublishTooOften { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "The client's address, or all together, publish more than they may",
            ),
            Error::PublishBusy { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "As much is being passed on to the cloud as may be at a time",
            ),
            Error::Publish(error) if status_of(error) == StatusCode::GATEWAY_TIMEOUT => (
                StatusCode::GATEWAY_TIMEOUT,
                "cloud_timeout",
                "The cloud gave no answer in time; the event may have been published all the same",
            ),
            Error::Publish(_) => (
                StatusCode::BAD_GATEWAY,
                "cloud_unreachable",
                "The cloud cannot be reached, or does not answer as it should",
            ),
            Error::UpgradeRequired { .. } => (
                StatusCode::UPGRADE_REQUIRED,
                "upgrade_required",
                "Asked for without a WebSocket handshake",
            ),
            Error::TooMany { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_connections",
                "The client's address has as many connections as it may",
            ),
            Error::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "A bug of the broker")
            }
            Error::Full { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "full",
                "The broker has as many connections as it may",
            ),
            Error::Closing { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "shutdown", "The broker is shutting down")
            }
            Error::NotReady { .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not_ready",
                "The upstream has been away for too long",
            ),
        }
    }

    /// The status it is answered with.
    pub(super) fn status(&self) -> StatusCode {
        self.row().0
    }

    /// Its name, for programs.
    pub(super) fn name(&self) -> &'static str {
        self.row().1
    }

    /// When it happens, for people.
    pub(super) fn when(&self) -> &'static str {
        self.row().2
    }

    /// The body.
    pub(super) fn body(&self) -> String {
        let object =
            Object::new().text("error", self.name()).text("error_description", &self.to_string());
        // As the cloud has it, for programs that look there.
        match self {
            Error::ProductNotFound { .. } | Error::OrgNotFound { .. } => object.raw("ok", "false"),
            Error::PermissionDenied { detail } => object.text("info", detail),
            _ => object,
        }
        .finish()
    }

    /// What came of a request to publish that ends with this.
    pub(super) fn publish_outcome(&self) -> PublishOutcome {
        match self {
            Error::PublishTooOften { .. } | Error::PublishBusy { .. } => PublishOutcome::Limited,
            Error::Publish(_) => PublishOutcome::Unanswered,
            _ => PublishOutcome::Invalid,
        }
    }

    /// A method that a path does not know.
    pub(super) fn not_allowed(method: &Method, allowed: &'static str) -> Error {
        Error::MethodNotAllowed { method: method.as_str().chars().take(20).collect(), allowed }
    }

    /// One of each, by status: what the descriptions of the interface show.
    pub(super) fn samples() -> [Error; 33] {
        let invalid = Request::parse(Route::Poll, Some("limit=0"), &HeaderMap::new());
        [
            invalid.map_or_else(Error::InvalidParameter, |_| Error::Internal),
            Error::HostUnclear,
            Error::PrefixMissing,
            Error::Draft(DraftError::NameMissing),
            Error::Refused(Refused::Query),
            Error::Refused(Refused::Missing),
            Error::Denied(Denied::ReadThis),
            Error::ForeignOrigin { origin: "https://elsewhere.example".to_owned() },
            Error::PermissionDenied {
                detail:
                    "this broker reads a product, at /v1/products/12345/events, and nothing else"
                        .to_owned(),
            },
            Error::PublishOff { setting: "publish.enabled" },
            Error::Webhook(WebhookError::Time),
            Error::WebhookSecret,
            Error::IngestOff,
            Error::IngestBusy { retry_secs: 1 },
            Error::NotFound { path: "/event".to_owned() },
            Error::ProductNotFound {
                reads: "the token's own devices, at /v1/devices/events".to_owned(),
            },
            Error::OrgNotFound {
                reads: "the token's own devices, at /v1/devices/events".to_owned(),
            },
            Error::not_allowed(&Method::POST, "GET, HEAD"),
            Error::BodyMissing { secs: 5 },
            Error::TooLarge { bytes_max: BODY_BYTES_MAX },
            Error::BodyUnwanted,
            Error::HostUnknown { host: "elsewhere.example".to_owned() },
            Error::UpgradeRequired {
                detail: "WebSocket protocol error: No \"Connection: upgrade\" header".to_owned(),
            },
            Error::TooMany { retry_secs: 31 },
            Error::PublishTooOften { retry_secs: 1 },
            Error::HeadersTooMany { headers_max: 64 },
            Error::Internal,
            Error::Publish(PublishError::Unreachable("dns error".to_owned())),
            Error::Full { setting: "limits.connections_max", retry_secs: 16 },
            Error::PublishBusy { retry_secs: 1 },
            Error::Closing { retry_secs: 8 },
            Error::Publish(PublishError::Timeout(Duration::from_secs(15))),
            Error::NotReady {
                reason:
                    "the upstream has not been live for 75 s and server.ready_after allows 60 s; \
                         it is unauthorized: the cloud refused the access token"
                        .to_owned(),
            },
        ]
    }

    /// The reason a browser is told in `fanlight.bye`, for errors that pass with time.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        match self {
            Error::Full { .. } | Error::TooMany { .. } => Some(CloseReason::Full),
            Error::Closing { .. } => Some(CloseReason::Shutdown),
            _ => None,
        }
    }

    /// When to try again, for errors that pass with time.
    pub(super) fn retry_secs(&self) -> Option<u64> {
        match self {
            Error::Full { retry_secs, .. }
            | Error::TooMany { retry_secs }
            | Error::Closing { retry_secs }
            | Error::PublishTooOften { retry_secs }
            | Error::IngestBusy { retry_secs }
            | Error::PublishBusy { retry_secs } => Some(*retry_secs),
            _ => None,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(secs) = self.retry_secs() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        match self {
            Error::MethodNotAllowed { allowed, .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            // Where one request was unclear, the next cannot be told from it for certain. And what is
            // not read of one would stand before the next.
            Error::HostUnclear | Error::BodyUnwanted | Error::HeadersTooMany { .. } => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Error::WebhookSecret => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Error::UpgradeRequired { .. } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                // RFC 6455, section 4.4: what a client of another version needs to know.
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            // RFC 6750, section 3: the error is told to those who sent something.
            Error::Refused(_) if response.status() == StatusCode::UNAUTHORIZED => {
                let challenge = match self {
                    Error::Refused(Refused::Missing) => "Bearer realm=\"fanlight\"",
                    _ => "Bearer realm=\"fanlight\", error=\"invalid_token\"",
                };
                let challenge = HeaderValue::from_static(challenge);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            _ => {}
        }
        response
    }
}
