//! From what went wrong to what the client reads.
//!
//! Law: one table. Every error body of the broker is
//! `{"error":"…","error_description":"…"}`, whole, with its length.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use crate::{
    model::{CloseReason, json::Object},
    transport::request::{InvalidParameter, Request, Route},
};

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
    #[error("{method} is not allowed here; use GET")]
    MethodNotAllowed {
        /// The method used, cut.
        method: String,
    },
    /// `/ws` was asked for without a WebSocket handshake.
    #[error("this path speaks WebSocket: {detail}")]
    UpgradeRequired {
        /// What is missing.
        detail: String,
    },
    /// A web page of another origin asks for a WebSocket, which no browser rule prevents.
    #[error(
        "pages of {origin} may not read from here: serve them from the broker's own origin, \
         and let a proxy in between keep the Host header"
    )]
    ForeignOrigin {
        /// The page's origin, cut.
        origin: String,
    },
    /// The broker has as many connections as it may.
    #[error(
        "the broker has as many connections as it may (limits.connections_max); try again in {retry_secs} s"
    )]
    Full {
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
            Error::ForeignOrigin { .. } => (
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "Asked for by a web page of another origin",
            ),
            Error::NotFound { .. } => {
                (StatusCode::NOT_FOUND, "not_found", "There is nothing at that path")
            }
            Error::MethodNotAllowed { .. } => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Another method than GET or HEAD",
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
        Object::new()
            .text("error", self.name())
            .text("error_description", &self.to_string())
            .finish()
    }

    /// One of each, by status: what the descriptions of the interface show.
    pub(super) fn samples() -> [Error; 10] {
        let invalid = Request::parse(Route::Poll, Some("limit=0"), &HeaderMap::new());
        [
            invalid.map_or_else(Error::InvalidParameter, |_| Error::Internal),
            Error::ForeignOrigin { origin: "https://elsewhere.example".to_owned() },
            Error::NotFound { path: "/event".to_owned() },
            Error::MethodNotAllowed { method: "POST".to_owned() },
            Error::UpgradeRequired {
                detail: "WebSocket protocol error: No \"Connection: upgrade\" header".to_owned(),
            },
            Error::TooMany { retry_secs: 31 },
            Error::Internal,
            Error::Full { retry_secs: 16 },
            Error::Closing { retry_secs: 8 },
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
            Error::Full { retry_secs }
            | Error::TooMany { retry_secs }
            | Error::Closing { retry_secs } => Some(*retry_secs),
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
            Error::MethodNotAllowed { .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Error::UpgradeRequired { .. } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                // RFC 6455, section 4.4: what a client of another version needs to know.
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        response
    }
}
