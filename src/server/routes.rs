//! From a path to what answers it.
//!
//! Law: a handler reads the request, opens what is asked for and hands it to a
//! driver. It decides nothing about content.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    extract::{Extension, RawQuery, Request as HttpRequest, State},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tower::{Layer as _, Service as _};
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer};

use crate::{
    access::{Principal, Refused},
    delivery::{Framing, HandoverBody},
    model::{CloseReason, Filter, Format, Transport},
    telemetry::Limit,
    transport::{
        Session, Wire,
        poll::{self, Filled},
        request::{Request, Route, accepts_event_stream, accepts_ndjson},
        sse,
        websocket::SUBPROTOCOL,
    },
};

use super::{
    App,
    accept::Connection,
    admin, assets, description,
    error::Error,
    gate::{self, Need},
    ingest,
    limits::Admission,
    origin::Page,
    particle,
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
                let early = match self.measure(&request) {
                    Ok(()) => {
                        page.preflight(&request).or_else(|| self.turn_away(&request, &connection))
                    }
                    Err(error) => Some(error.into_response()),
                };
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
        let App(parts) = &self.app;
        parts.hosts.admit(request.uri(), request.headers())?;
        parts.origins.admit(request)
    }

    /// Refuses what has more to it than a request may have.
    fn measure(&self, request: &HttpRequest) -> Result<(), Error> {
        let App(parts) = &self.app;
        if request.headers().len() > parts.headers_max {
            parts.telemetry.limit_reached(Limit::Headers);
            return Err(Error::HeadersTooMany { headers_max: parts.headers_max });
        }
        if matches!(*request.method(), Method::GET | Method::HEAD)
            && !request.body().is_end_stream()
        {
            parts.telemetry.limit_reached(Limit::Body);
            return Err(Error::BodyUnwanted);
        }
        Ok(())
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

/// A route.
struct Row {
    path: &'static str,
    need: Need,
    side: Side,
    methods: MethodRouter<App>,
}

/// Whom a route is for, where there are two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Clients,
    Operators,
    Both,
}

impl Row {
    fn at(path: &'static str, need: Need, side: Side, methods: MethodRouter<App>) -> Row {
        Row { path, need, side, methods }
    }
}

/// The table: every route, with what it asks of those who come.
fn rows() -> Vec<Row> {
    use Side::{Both, Clients, Operators};
    vec![
        Row::at("/events", Need::Read, Clients, get(events)),
        Row::at("/ws", Need::Read, Clients, get(websocket_upgrade)),
        Row::at("/poll", Need::Read, Clients, get(poll_once)),
        Row::at("/last", Need::Read, Clients, get(last)),
        Row::at("/", Need::Nothing, Clients, get(assets::index)),
        Row::at("/fanlight.js", Need::Nothing, Clients, get(assets::client)),
        Row::at("/app/{*name}", Need::Nothing, Clients, get(assets::app_file)),
        Row::at("/openapi.json", Need::Nothing, Clients, get(description::openapi)),
        Row::at("/asyncapi.json", Need::Nothing, Clients, get(description::asyncapi)),
        Row::at("/metrics", Need::Admin, Operators, get(admin::metrics)),
        Row::at("/status", Need::Admin, Operators, get(admin::status)),
        Row::at("/healthz", Need::Nothing, Both, get(admin::healthz)),
        Row::at("/readyz", Need::Nothing, Both, get(admin::readyz)),
        Row::at("/ingest/particle", Need::Secret, Clients, any(ingest::particle)),
        // What it asks depends on method and path, and a browser's preflight is asked nothing.
        Row::at("/v1/{*path}", Need::Within, Clients, any(particle::answer)),
    ]
}

/// Every route with what it asks of those who come.
pub fn needs() -> Vec<(&'static str, Need)> {
    rows().into_iter().map(|row| (row.path, row.need)).collect()
}

/// Every route of a port.
fn router(app: App, port: Port) -> Router {
    let mut router = Router::new();
    for Row { path, need, side, methods } in rows() {
        let is_here = match port {
            Port::Only => true,
            Port::Public => side != Side::Operators,
            Port::Admin => side != Side::Clients,
        };
        if is_here {
            router = router.route(path, gate::guarded(&app, need, methods));
        }
    }
    let router = match port {
        Port::Only | Port::Public => router.fallback(elsewhere),
        Port::Admin => router.fallback(nowhere),
    };
    router.method_not_allowed_fallback(method_not_allowed).with_state(app)
}

/// Why there is no room for the client of a connection; none if there is.
pub(super) fn turned_away(app: &App, connection: &Connection) -> Option<Error> {
    let (full_ms, closing_ms) = (fastrand::u64(FULL_RETRY_MS), fastrand::u64(CLOSING_RETRY_MS));
    let full = |setting| Error::Full { setting, retry_secs: full_ms.div_ceil(1000) };
    match connection.admission {
        _ if app.hub.closing().is_some() => {
            Some(Error::Closing { retry_secs: closing_ms.div_ceil(1000) })
        }
        Admission::Admitted => None,
        Admission::Full => Some(full("limits.connections_max")),
        Admission::MemoryShort => Some(full("limits.memory_max")),
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
    Extension(principal): Extension<Arc<Principal>>,
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
    let session = open(&app, &connection, principal, request, wire, transport)?;
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
    Extension(principal): Extension<Arc<Principal>>,
    request: HttpRequest,
) -> Result<Response, Error> {
    let wishes = Request::parse(Route::WebSocket, request.uri().query(), request.headers())?;
    let mut response = create_response_with_body(&request, Body::empty)
        .map_err(|error| Error::UpgradeRequired { detail: error.to_string() })?;
    if offers_subprotocol(request.headers()) {
        let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    let session =
        open(&app, &connection, principal, wishes, Wire::WebSocket, Transport::WebSocket)?;
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

/// A session for what is asked for and may be read.
pub(super) fn open(
    app: &App,
    connection: &Connection,
    principal: Arc<Principal>,
    mut request: Request,
    wire: Wire,
    transport: Transport,
) -> Result<Session, Error> {
    request.filter = narrowed(app, &principal, &request)?;
    let format = match wire {
        Wire::Sse(format) => format,
        Wire::Ndjson | Wire::WebSocket => Format::Json,
        Wire::Particle { .. } => Format::Particle,
    };
    let subscribed =
        app.hub.subscribe(request.filter.clone(), &request.start, transport, app.clock.now());
    let account = app.account(connection, transport, format);
    let now = Instant::now().into_std();
    let config = app.stream.clone();
    Ok(Session::new(subscribed, account, config, wire, &request, principal, now))
}

/// What of the events asked for may be read.
fn narrowed(app: &App, principal: &Principal, request: &Request) -> Result<Filter, Error> {
    principal.narrow(&request.filter).map_err(|denied| app.gate.deny(denied))
}

/// `GET /poll`: everything after a position, at once or as soon as there is something.
async fn poll_once(
    State(app): State<App>,
    Extension(connection): Extension<Connection>,
    Extension(principal): Extension<Arc<Principal>>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let request = Request::parse(Route::Poll, query.as_deref(), &headers)?;
    let filter = narrowed(&app, &principal, &request)?;
    let timeout = match method {
        // Its answer has no body, so there is nothing to wait for.
        Method::HEAD => Duration::ZERO,
        _ => request.timeout.unwrap_or(poll::TIMEOUT_DEFAULT).min(app.poll.timeout_max),
    };
    let events_max = request.limit.unwrap_or(poll::EVENTS_DEFAULT).min(app.poll.events_max);
    let (mut subscription, gap) =
        app.hub.subscribe(filter, &request.start, Transport::Poll, app.clock.now());
    let mut account = app.account(&connection, Transport::Poll, Format::Json);
    if let Some(from) = request.snapshot_from(gap.as_ref()) {
        subscription.request_snapshot(from);
    }
    let mut answer = poll::Answer::new(gap, events_max, app.poll.bytes_max, request.control);
    let deadline = Instant::now() + timeout;
    let ends_at = principal
        .time_left(app.clock.now().wall_ms)
        .and_then(|left| Instant::now().checked_add(left));
    let mut is_over = false;
    loop {
        let has_expired = ends_at.is_some_and(|ends| Instant::now() >= ends);
        if has_expired || principal.is_revoked() {
            account.close(if has_expired { CloseReason::Expired } else { CloseReason::Revoked });
            return Err(Error::Refused(Refused::Invalid));
        }
        match answer.fill(&mut subscription) {
            Filled::Ready => break,
            Filled::More => tokio::task::yield_now().await,
            // Looked at once more after the timeout: `next` is then past what did not
            // concern the filter, and so not soon out of the ring.
            Filled::Empty if is_over || subscription.closing().is_some() => break,
            Filled::Empty => {
                let until = ends_at.map_or(deadline, |ends| ends.min(deadline));
                is_over = tokio::select! {
                    () = subscription.woken() => false,
                    () = tokio::time::sleep_until(until) => true,
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
    Extension(principal): Extension<Arc<Principal>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let request = Request::parse(Route::Last, query.as_deref(), &headers)?;
    let filter = narrowed(&app, &principal, &request)?;
    let frames = app.hub.latest(&filter, Format::Json);
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

pub(super) const JSON_HEAD: [(HeaderName, HeaderValue); 2] = [
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
