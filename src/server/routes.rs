//! From a path to what answers it.
//!
//! Law: a handler reads the request, opens what is asked for and hands it to a
//! driver. It decides nothing about content.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Extension, RawQuery, Request as HttpRequest, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tower::{Layer as _, Service as _};
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer};

use crate::{
    delivery::{Framing, HandoverBody},
    model::{CloseReason, Format, Transport},
    transport::{
        Session, Wire,
        poll::{self, Filled},
        request::{Request, Route, accepts_event_stream, accepts_ndjson},
        sse,
        websocket::SUBPROTOCOL,
    },
};

use super::{
    App, accept::Connection, admin, assets, description, error::Error, limits::Admission,
    origin::Page, particle,
};

/// Reconnection time told when there is no room, in milliseconds: long and spread, so
/// that those turned away do not come back together.
const FULL_RETRY_MS: std::ops::RangeInclusive<u64> = 15_000..=60_000;
/// The same while shutting down: something is likely to listen again soon.
const CLOSING_RETRY_MS: std::ops::RangeInclusive<u64> = 1_000..=30_000;

/// What all requests come in by and all answers go out by: what holds for every route, around
/// the router and not in it, where each layer would be boxed again for each request.
#[derive(Clone, Debug)]
pub(super) struct Door {
    app: App,
    router: CatchPanic<Router, fn(Panic) -> Response>,
}

/// What a panic says.
type Panic = Box<dyn std::any::Any + Send>;

/// What browsers are told with every answer: it is what it says it is, and no page of another origin may
/// put it into itself (one that is listed asks for it with CORS, which goes before this).
const EVERYWHERE: [(HeaderName, HeaderValue); 2] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Paths that are answered however full the broker is: what is asked then is how it is.
const ANSWERED_ALWAYS: [&str; 4] = ["/metrics", "/healthz", "/readyz", "/status"];

impl Door {
    /// To every route of a port.
    pub(super) fn new(app: App, port: Port) -> Door {
        let panicked: fn(Panic) -> Response = |_| Error::Internal.into_response();
        let router = CatchPanicLayer::custom(panicked).layer(router(app.clone(), port));
        Door { app, router }
    }

    /// Answers a request, and counts the answer by class of status.
    pub(super) async fn answer(
        self: Arc<Self>,
        mut request: HttpRequest,
        connection: Connection,
    ) -> Response {
        let mut response = match self.ask(&request) {
            Ok(page) => {
                let early =
                    page.preflight(&request).or_else(|| self.turn_away(&request, &connection));
                let mut response = match early {
                    Some(response) => response,
                    None => {
                        request.extensions_mut().insert(connection);
                        self.pass(request).await
                    }
                };
                self.app.origins.mark(page, response.headers_mut());
                response
            }
            Err(error) => error.into_response(),
        };
        response.headers_mut().extend(EVERYWHERE);
        self.app.telemetry.request(response.status().as_u16());
        response
    }

    async fn pass(&self, request: HttpRequest) -> Response {
        match self.router.clone().call(request).await {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        }
    }

    /// By which name the broker is called, and by the page of whom; refuses what is not for it.
    fn ask(&self, request: &HttpRequest) -> Result<Page, Error> {
        self.app.hosts.admit(request.uri(), request.headers())?;
        self.app.origins.admit(request)
    }

    /// Turns away what there is no room for, in the words that suit the client.
    fn turn_away(&self, request: &HttpRequest, connection: &Connection) -> Option<Response> {
        let path = request.uri().path();
        // Errors of the cloud's routes are JSON for all: they see by themselves.
        if ANSWERED_ALWAYS.contains(&path) || particle::is_for(path) {
            return None;
        }
        let error = turned_away(&self.app, connection)?;
        let mut response = refuse(error, request.headers());
        // The place is wanted for someone else.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Some(response)
    }
}

/// Which part of the routes a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// All of them: there is no other port.
    Only,
    /// Those for clients.
    Public,
    /// Those for operators and their machines.
    Admin,
}

/// Every route of a port.
fn router(app: App, port: Port) -> Router {
    let health =
        Router::new().route("/healthz", get(admin::healthz)).route("/readyz", get(admin::readyz));
    let admin =
        Router::new().route("/metrics", get(admin::metrics)).route("/status", get(admin::status));
    let router = match port {
        Port::Only => health.merge(admin).merge(for_clients()),
        Port::Public => health.merge(for_clients()),
        Port::Admin => health.merge(admin).fallback(nowhere),
    };
    router.method_not_allowed_fallback(method_not_allowed).with_state(app)
}

fn for_clients() -> Router<App> {
    Router::new()
        .route("/events", get(events))
        .route("/ws", get(websocket_upgrade))
        .route("/poll", get(poll_once))
        .route("/last", get(last))
        .route("/", get(assets::index))
        .route("/fanlight.js", get(assets::client))
        .route("/app/{*name}", get(assets::app_file))
        .route("/openapi.json", get(description::openapi))
        .route("/asyncapi.json", get(description::asyncapi))
        .route("/v1/{*path}", any(particle::answer))
        .fallback(elsewhere)
}

/// Why there is no room for the client of a connection; none if there is.
pub(super) fn turned_away(app: &App, connection: &Connection) -> Option<Error> {
    let (full_ms, closing_ms) = (fastrand::u64(FULL_RETRY_MS), fastrand::u64(CLOSING_RETRY_MS));
    match connection.admission {
        _ if app.hub.closing().is_some() => {
            Some(Error::Closing { retry_secs: closing_ms.div_ceil(1000) })
        }
        Admission::Admitted => None,
        Admission::Full => Some(Error::Full { retry_secs: full_ms.div_ceil(1000) }),
        Admission::TooMany => Some(Error::TooMany { retry_secs: full_ms.div_ceil(1000) }),
    }
}

/// A browser that asks for an event stream gives up for good on any status but 200,
/// so it gets one, with the reason and the time to come back.
fn refuse(error: Error, headers: &HeaderMap) -> Response {
    match (error.close_reason(), error.retry_secs()) {
        (Some(reason), Some(retry_secs)) if accepts_event_stream(headers) => {
            (sse::head(), sse::refusal(reason, retry_secs * 1000)).into_response()
        }
        _ => error.into_response(),
    }
}

/// `GET /events`: SSE, or NDJSON for those who ask for it.
async fn events(
    State(app): State<App>,
    Extension(connection): Extension<Connection>,
    method: Method,
    version: Version,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let request = Request::parse(Route::Events, query.as_deref(), &headers)?;
    let is_ndjson = accepts_ndjson(&headers) && !accepts_event_stream(&headers);
    let (wire, transport, head) = if is_ndjson {
        (Wire::Ndjson, Transport::Ndjson, sse::ndjson_head())
    } else {
        (Wire::Sse(request.format), Transport::Sse, sse::head())
    };
    let session = open(&app, &connection, &request, wire, transport);
    let framing = match version {
        Version::HTTP_11 => Framing::Chunked,
        _ => Framing::Plain,
    };
    let body = Body::new(HandoverBody::new(session, framing, connection.handover.clone()));
    let mut response = Response::new(body);
    *response.headers_mut() = head;
    // A head alone hands nothing over: the connection stays. Else no second request can follow:
    // the socket has left HTTP by then.
    if method != Method::HEAD {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// `GET /ws`: the WebSocket handshake. The library checks it and makes the answer.
async fn websocket_upgrade(
    State(app): State<App>,
    Extension(connection): Extension<Connection>,
    request: HttpRequest,
) -> Result<Response, Error> {
    let wishes = Request::parse(Route::WebSocket, request.uri().query(), request.headers())?;
    let mut response = create_response_with_body(&request, Body::empty)
        .map_err(|error| Error::UpgradeRequired { detail: error.to_string() })?;
    if offers_subprotocol(request.headers()) {
        let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    let session = open(&app, &connection, &wishes, Wire::WebSocket, Transport::WebSocket);
    connection.handover.offer_upgrade(session);
    Ok(response)
}

/// True if the client names the subprotocol; one that names none is served as well.
fn offers_subprotocol(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL)
}

pub(super) fn open(
    app: &App,
    connection: &Connection,
    request: &Request,
    wire: Wire,
    transport: Transport,
) -> Session {
    let format = match wire {
        Wire::Sse(format) => format,
        Wire::Ndjson | Wire::WebSocket => Format::Json,
        Wire::Particle { .. } => Format::Particle,
    };
    let (subscription, gap) =
        app.hub.subscribe(request.filter.clone(), &request.start, transport, app.clock.now());
    let account = app.account(connection, transport, format);
    let now = Instant::now().into_std();
    Session::new(subscription, account, app.stream.clone(), wire, request, gap, now)
}

/// `GET /poll`: everything after a position, at once or as soon as there is something.
async fn poll_once(
    State(app): State<App>,
    Extension(connection): Extension<Connection>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let request = Request::parse(Route::Poll, query.as_deref(), &headers)?;
    let timeout = match method {
        // Its answer has no body, so there is nothing to wait for.
        Method::HEAD => Duration::ZERO,
        _ => request.timeout.unwrap_or(poll::TIMEOUT_DEFAULT).min(app.poll.timeout_max),
    };
    let events_max = request.limit.unwrap_or(poll::EVENTS_DEFAULT).min(app.poll.events_max);
    let (mut subscription, gap) =
        app.hub.subscribe(request.filter.clone(), &request.start, Transport::Poll, app.clock.now());
    let mut account = app.account(&connection, Transport::Poll, Format::Json);
    if let Some(from) = request.snapshot_from(gap.as_ref()) {
        subscription.request_snapshot(from);
    }
    let mut answer = poll::Answer::new(gap, events_max, app.poll.bytes_max, request.control);
    let deadline = Instant::now() + timeout;
    let mut is_over = false;
    loop {
        match answer.fill(&mut subscription) {
            Filled::Ready => break,
            Filled::More => tokio::task::yield_now().await,
            // Looked at once more after the timeout: `next` is then past what did not
            // concern the filter, and so not soon out of the ring.
            Filled::Empty if is_over || subscription.closing().is_some() => break,
            Filled::Empty => {
                is_over = tokio::select! {
                    () = subscription.woken() => false,
                    () = tokio::time::sleep_until(deadline) => true,
                };
            }
        }
    }
    let text = answer.finish(&subscription, &mut account);
    account.close(CloseReason::Answered);
    Ok((JSON_HEAD, text).into_response())
}

/// `GET /last`: the newest event of each (name, device). The body is put together piece
/// by piece as the client takes it, from the bytes that everyone shares.
async fn last(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let request = Request::parse(Route::Last, query.as_deref(), &headers)?;
    let frames = app.hub.latest(&request.filter, Format::Json);
    // Each object has a bracket or a comma in front in place of the line feed behind it.
    let length = frames.iter().map(|frame| frame.len()).sum::<usize>() + 1;
    let length = HeaderValue::from(length.max("[]".len()));
    let mut frames = frames.into_iter().peekable();
    let (mut separator, mut is_ended) = (b'[', false);
    let pieces = std::iter::from_fn(move || {
        let mut piece = Vec::new();
        while piece.len() < LAST_PIECE_BYTES
            && let Some(frame) = frames.next()
        {
            piece.push(separator);
            separator = b',';
            // A frame is an object and a line feed.
            piece.extend_from_slice(frame.trim_ascii_end());
        }
        if frames.peek().is_none() && !is_ended {
            is_ended = true;
            piece.extend_from_slice(if separator == b'[' { b"[]" } else { b"]" });
        }
        (!piece.is_empty()).then_some(Ok::<_, Infallible>(piece))
    });
    let body = Body::from_stream(tokio_stream::iter(pieces));
    Ok((JSON_HEAD, [(header::CONTENT_LENGTH, length)], body).into_response())
}

/// Bytes of `/last` put together at a time. One event may be larger.
const LAST_PIECE_BYTES: usize = 16 << 10;

const JSON_HEAD: [(HeaderName, HeaderValue); 2] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// What has no route; or has one, but for slashes in front of it, as clients of the cloud
/// send them that were given an address with a slash at its end.
async fn elsewhere(
    app: State<App>,
    connection: Extension<Connection>,
    request: HttpRequest,
) -> Response {
    if particle::is_for(request.uri().path()) {
        return particle::answer(app, connection, request).await;
    }
    Error::not_found(request.uri()).into_response()
}

async fn nowhere(uri: Uri) -> Error {
    Error::not_found(&uri)
}

async fn method_not_allowed(method: Method) -> Error {
    Error::not_allowed(&method, "GET, HEAD")
}
