//! The OpenAPI 3.1 document: every route, what it takes and what it answers.
//!
//! Law: one row a route. `tests/it/description.rs` holds the rows against the router.

use serde_json::{Map, Value, json};

use crate::transport::{
    parameter::{Parameter, Route, Values},
    websocket::SUBPROTOCOL,
};

use super::{
    super::{error::Error, gate::Need, routes::needs},
    LICENCE, TITLE, VERSION, examples,
    schemas::{schema, schemas},
};

/// A route, as the document shows it.
struct Operation {
    path: &'static str,
    /// In lower case, as the document has it.
    method: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    /// Whose parameters it takes.
    route: Option<Route>,
    /// Headers it reads and parts of its path, by their name among the components.
    headers: &'static [&'static str],
    /// What it takes as body, if anything.
    body: Option<fn() -> Value>,
    /// What it answers when all is well: status and response.
    answers: fn() -> Vec<(&'static str, Value)>,
    /// The errors it answers beside those of [`EVERYWHERE`].
    errors: &'static [&'static str],
}

/// Errors that every route can answer.
const EVERYWHERE: &[&str] = &[
    "foreign_origin",
    "internal",
    "invalid_host",
    "too_many_headers",
    "unknown_host",
    "unwanted_body",
];
/// Errors of routes that want a place among the connections.
const STREAM_ERRORS: &[&str] = &["invalid_parameter", "too_many_connections", "full", "shutdown"];
const FILE_ERRORS: &[&str] = &["too_many_connections", "full", "shutdown"];
const PAGE_ERRORS: &[&str] = &["not_found", "too_many_connections", "full", "shutdown"];

/// Errors of the Particle routes, and of those of them that publish.
const PARTICLE_ERRORS: &[&str] = &[
    "invalid_parameter",
    "invalid_request",
    "Permission Denied",
    "Product not found",
    "Organization not found",
    "too_many_connections",
    "full",
    "shutdown",
];
const PUBLISH_ERRORS: &[&str] = &[
    "invalid_request",
    "Permission Denied",
    "publish_off",
    "Product not found",
    "Organization not found",
    "timeout",
    "too_large",
    "too_many_connections",
    "too_many_requests",
    "cloud_unreachable",
    "cloud_timeout",
    "full",
    "busy",
    "shutdown",
];

const INGEST_ERRORS: &[&str] = &[
    "invalid_request",
    "invalid_secret",
    "ingest_off",
    "timeout",
    "too_large",
    "too_many_connections",
    "full",
    "busy",
    "shutdown",
];

const PARTICLE_STREAM: &str = "For unmodified clients of the Particle cloud: its own bytes, one event a chunk, \
     without control events. An event-name prefix can follow the path, `/v1/…/events/PREFIX`, with slashes \
     raw or as `%2F`. Ids only with `Accept: text/event-stream`; a position of this broker is honoured in any \
     case. Whatever the query has is passed over, tokens included, but for `.ka`, under which Particle's \
     Android SDK hands back the last id. A stream that the upstream does not contain is refused.";
const PARTICLE_PUBLISH: &str = "Only where `publish.enabled` is on. Checked against the cloud's limits, then \
     passed on with the broker's own token. The cloud's answer is handed back: status, body and \
     `Retry-After`; any status of its own can come.";

const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/events",
        method: "get",
        id: "streamEvents",
        tag: "streams",
        summary: "Events as they come, as SSE or NDJSON",
        description: "An endless stream: events that pass the filter, and control events that tell what is \
                      missing. SSE unless `Accept` names `application/x-ndjson` (or `application/ndjson`, \
                      `application/jsonl`) and not `text/event-stream`. What each event says is described \
                      in [asyncapi.json](asyncapi.json).\n\n\
                      A browser that asks for `text/event-stream` and finds no room gets a `200` whose \
                      whole body is `fanlight.bye`, since it would give up for good on any other status.",
        route: Some(Route::Events),
        headers: &["LastEventId"],
        body: None,
        answers: events_answer,
        errors: STREAM_ERRORS,
    },
    Operation {
        path: "/ws",
        method: "get",
        id: "openWebSocket",
        tag: "streams",
        summary: "Events as they come, over a WebSocket",
        description: "The handshake (RFC 6455, version 13). One JSON object a text message; the client may \
                      send `{\"subscribe\":{…}}` to replace its filter. Messages and close codes are \
                      described in [asyncapi.json](asyncapi.json). Browsers cannot set `Last-Event-ID` \
                      here: use `last_event_id`.",
        route: Some(Route::WebSocket),
        headers: &["LastEventId", "WebSocketProtocol"],
        body: None,
        answers: websocket_answer,
        errors: &[
            "invalid_parameter",
            "upgrade_required",
            "too_many_connections",
            "full",
            "shutdown",
        ],
    },
    Operation {
        path: "/poll",
        method: "get",
        id: "poll",
        tag: "streams",
        summary: "Everything after a position, at once or as soon as there is something",
        description: "Answers at once if there is something after the position, else when there is, or after \
                      `timeout` with nothing. `next` always goes into the next call's `after`. Without a \
                      position it waits for the next event.",
        route: Some(Route::Poll),
        headers: &["LastEventId"],
        body: None,
        answers: || {
            let shown = examples_of(&[
                ("event", "One event", examples::poll_answer()),
                ("gap", "Something was missed", examples::poll_answer_gap()),
            ]);
            vec![("200", json_answer("What there is.", "PollAnswer", &shown))]
        },
        errors: STREAM_ERRORS,
    },
    Operation {
        path: "/last",
        method: "get",
        id: "lastEvents",
        tag: "values",
        summary: "The newest event of each name and device",
        description: "In order of position. What was published before the broker started is not known.",
        route: Some(Route::Last),
        headers: &[],
        body: None,
        answers: || {
            let shown = examples_of(&[("events", "Three events", examples::last_answer())]);
            vec![("200", json_answer("The newest events.", "LastAnswer", &shown))]
        },
        errors: STREAM_ERRORS,
    },
    Operation {
        path: "/status",
        method: "get",
        id: "status",
        tag: "operations",
        summary: "Everything at a glance",
        description: "Upstream and its history, ring, subscribers, limits. Fields may be added. With \
                      `server.admin_listen`, on that port alone.",
        route: None,
        headers: &[],
        body: None,
        answers: || {
            let shown = examples_of(&[("demo", "A few seconds of a demo", examples::status())]);
            vec![("200", json_answer("How the broker is.", "Status", &shown))]
        },
        errors: &[],
    },
    Operation {
        path: "/healthz",
        method: "get",
        id: "health",
        tag: "operations",
        summary: "Whether the process is alive",
        description: "Answered even when there is no room for streams.",
        route: None,
        headers: &[],
        body: None,
        answers: || {
            let shown = examples_of(&[("ok", "It is", json!({ "status": "ok" }))]);
            vec![("200", json_answer("It is.", "Health", &shown))]
        },
        errors: &[],
    },
    Operation {
        path: "/readyz",
        method: "get",
        id: "readiness",
        tag: "operations",
        summary: "Whether it is ready to serve",
        description: "Not if it is shutting down, or if the upstream has been away for longer than \
                      `server.ready_after`.",
        route: None,
        headers: &[],
        body: None,
        answers: || {
            let away = json!({ "status": "ready", "upstream": "backing-off" });
            let shown = examples_of(&[
                ("ready", "It is", json!({ "status": "ready" })),
                ("away", "It is, and the upstream is away, not for long yet", away),
            ]);
            vec![("200", json_answer("It is.", "Readiness", &shown))]
        },
        errors: &["not_ready"],
    },
    Operation {
        path: "/metrics",
        method: "get",
        id: "metrics",
        tag: "operations",
        summary: "Metrics for Prometheus",
        description: "In the text format 0.0.4. With `server.admin_listen`, on that port alone.",
        route: None,
        headers: &[],
        body: None,
        answers: || {
            let shown = examples_of(&[("build", "The first lines", json!(examples::metrics()))]);
            let content =
                text_content("text/plain; version=0.0.4", "Prometheus text format.", &shown);
            vec![("200", json!({ "description": "Every metric.", "content": content }))]
        },
        errors: &[],
    },
    Operation {
        path: "/",
        method: "get",
        id: "page",
        tag: "pages",
        summary: "The dashboard",
        description: "For people.",
        route: None,
        headers: &["IfNoneMatch"],
        body: None,
        answers: || file_answer("text/html"),
        errors: FILE_ERRORS,
    },
    Operation {
        path: "/fanlight.js",
        method: "get",
        id: "browserClient",
        tag: "pages",
        summary: "The browser client",
        description: "A module for pages.",
        route: None,
        headers: &["IfNoneMatch"],
        body: None,
        answers: || file_answer("text/javascript"),
        errors: PAGE_ERRORS,
    },
    Operation {
        path: "/app/{name}",
        method: "get",
        id: "pageFile",
        tag: "pages",
        summary: "What the dashboard is made of",
        description: "Its modules and styles; which there are depends on the version.",
        route: None,
        headers: &["FileName", "IfNoneMatch"],
        body: None,
        answers: || file_answer("*/*"),
        errors: PAGE_ERRORS,
    },
    Operation {
        path: "/openapi.json",
        method: "get",
        id: "openapi",
        tag: "descriptions",
        summary: "Every route, as OpenAPI 3.1",
        description: "This document. It is the same for every broker of a version.",
        route: None,
        headers: &["IfNoneMatch"],
        body: None,
        answers: description_answer,
        errors: FILE_ERRORS,
    },
    Operation {
        path: "/asyncapi.json",
        method: "get",
        id: "asyncapi",
        tag: "descriptions",
        summary: "The streams, as AsyncAPI 3.0",
        description: "What comes and goes on `/events` and `/ws`, message by message.",
        route: None,
        headers: &["IfNoneMatch"],
        body: None,
        answers: description_answer,
        errors: FILE_ERRORS,
    },
    Operation {
        path: "/v1/devices/events",
        method: "get",
        id: "particleEvents",
        tag: "particle",
        summary: "Events of the token's own devices, as the Particle cloud streams them",
        description: PARTICLE_STREAM,
        route: None,
        headers: &["LastEventId"],
        body: None,
        answers: particle_stream_answer,
        errors: PARTICLE_ERRORS,
    },
    Operation {
        path: "/v1/devices/events",
        method: "post",
        id: "particlePublish",
        tag: "particle",
        summary: "Publish an event, passed on to the Particle cloud",
        description: PARTICLE_PUBLISH,
        route: None,
        headers: &[],
        body: Some(publish_body),
        answers: passed_on_answer,
        errors: PUBLISH_ERRORS,
    },
    Operation {
        path: "/v1/events/{prefix}",
        method: "get",
        id: "particlePublicEvents",
        tag: "particle",
        summary: "The stream of public events, as the Particle cloud streams them",
        description: "The caller's own events that begin with the prefix, or the public ones with \
                      `upstream.scope = \"public\"`. Without a prefix it is answered `400`, as by the cloud.",
        route: None,
        headers: &["EventPrefix", "LastEventId"],
        body: None,
        answers: particle_stream_answer,
        errors: PARTICLE_ERRORS,
    },
    Operation {
        path: "/v1/devices/{device}/events",
        method: "get",
        id: "particleDeviceEvents",
        tag: "particle",
        summary: "Events of one device, as the Particle cloud streams them",
        description: PARTICLE_STREAM,
        route: None,
        headers: &["DeviceId", "LastEventId"],
        body: None,
        answers: particle_stream_answer,
        errors: PARTICLE_ERRORS,
    },
    Operation {
        path: "/ingest/particle",
        method: "post",
        id: "ingestWebhook",
        tag: "particle",
        summary: "Take in an event that a webhook of the Particle cloud posts",
        description: "Only where `ingest.secret_file` is set. The secret goes into `Authorization: Bearer`, \
                      into the password of `Authorization: Basic`, into `X-Webhook-Secret`, or into the \
                      query as `secret`. Fields may stand in the query as well. An event that the stream \
                      has brought already, or brings later, is passed on once.",
        route: None,
        headers: &[],
        body: Some(webhook_body),
        answers: webhook_answer,
        errors: INGEST_ERRORS,
    },
    Operation {
        path: "/v1/devices/{device}/{function}",
        method: "post",
        id: "particleCallFunction",
        tag: "particle",
        summary: "Call a function of a device, passed on to the Particle cloud",
        description: "Only where `publish.functions` is on; otherwise as for publishing.",
        route: None,
        headers: &["DeviceId", "FunctionName"],
        body: Some(call_body),
        answers: passed_on_answer,
        errors: PUBLISH_ERRORS,
    },
    Operation {
        path: "/v1/products/{product}/events",
        method: "get",
        id: "particleProductEvents",
        tag: "particle",
        summary: "Events of a product, as the Particle cloud streams them",
        description: PARTICLE_STREAM,
        route: None,
        headers: &["ProductId", "LastEventId"],
        body: None,
        answers: particle_stream_answer,
        errors: PARTICLE_ERRORS,
    },
    Operation {
        path: "/v1/products/{product}/events",
        method: "post",
        id: "particleProductPublish",
        tag: "particle",
        summary: "Publish an event as a product, passed on to the Particle cloud",
        description: PARTICLE_PUBLISH,
        route: None,
        headers: &["ProductId"],
        body: Some(publish_body),
        answers: passed_on_answer,
        errors: PUBLISH_ERRORS,
    },
    Operation {
        path: "/v1/products/{product}/devices/{device}/events",
        method: "get",
        id: "particleProductDeviceEvents",
        tag: "particle",
        summary: "Events of one device of a product, as the Particle cloud streams them",
        description: PARTICLE_STREAM,
        route: None,
        headers: &["ProductId", "DeviceId", "LastEventId"],
        body: None,
        answers: particle_stream_answer,
        errors: PARTICLE_ERRORS,
    },
    Operation {
        path: "/v1/orgs/{org}/events",
        method: "get",
        id: "particleOrgEvents",
        tag: "particle",
        summary: "Events of an organization, as the Particle cloud streams them",
        description: PARTICLE_STREAM,
        route: None,
        headers: &["OrgId", "LastEventId"],
        body: None,
        answers: particle_stream_answer,
        errors: PARTICLE_ERRORS,
    },
    Operation {
        path: "/v1/orgs/{org}/events",
        method: "post",
        id: "particleOrgPublish",
        tag: "particle",
        summary: "Publish an event as an organization, passed on to the Particle cloud",
        description: PARTICLE_PUBLISH,
        route: None,
        headers: &["OrgId"],
        body: Some(publish_body),
        answers: passed_on_answer,
        errors: PUBLISH_ERRORS,
    },
];

/// The document.
pub(super) fn document() -> Value {
    let mut responses = Map::new();
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let rendered = operation.render(&mut responses);
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = rendered;
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": TITLE,
            "version": VERSION,
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "description": "`HEAD` works wherever `GET` does; any other method is answered `405`, any other \
                            path `404`, both with the error body. An unknown parameter, or one that may be \
                            given once and is given twice, is answered `400`, but for the Particle routes, \
                            which pass over what they do not know. Those answer `OPTIONS` too.",
            "license": { "name": LICENCE, "identifier": LICENCE },
        },
        // Beside the document itself, wherever a proxy has put it.
        "servers": [{ "url": ".", "description": "The broker that sent this document" }],
        // Each route says by itself what it asks for.
        "security": [],
        "tags": [
            { "name": "streams", "description": "Events as they come, with replay." },
            { "name": "values", "description": "The newest values." },
            { "name": "particle", "description": "The Particle cloud's own routes, for its clients." },
            { "name": "operations", "description": "What operators and their machines look at." },
            { "name": "pages", "description": "For people." },
            { "name": "descriptions", "description": "The interface, for machines." },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": responses,
            "parameters": header_parameters(),
            "headers": response_headers(),
            "securitySchemes": security_schemes(),
        },
    })
}

/// Errors of routes that ask who comes.
const ACCESS_ERRORS: &[&str] = &["misplaced_token", "invalid_token", "forbidden"];

fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, which `fanlight token new` makes, or a JSON Web Token. Asked for where \
                            access is on (`access.mode`).",
        },
        "accessToken": {
            "type": "apiKey",
            "in": "query",
            "name": "access_token",
            "description": "The same, for clients of the Particle cloud, which send it so.",
        },
    })
}

/// The schema of one parameter's value.
pub(super) fn parameter_schema(parameter: &Parameter, route: Route) -> Value {
    match parameter.values {
        Values::Texts { count_max, bytes_max, may_be_empty } => json!({
            "type": "array",
            "items": {
                "type": "string",
                "minLength": u8::from(!may_be_empty),
                // Of bytes: what is longer in characters is longer in bytes.
                "maxLength": bytes_max,
            },
            "maxItems": count_max,
        }),
        Values::Position { .. } => json!({ "type": "string" }),
        Values::Since => json!({
            "type": "string",
            "anyOf": [
                { "const": "earliest" },
                { "pattern": "^([0-9]+(ms|s|m|h|d))+$" },
                { "format": "date-time" },
            ],
        }),
        Values::Choice { choices, default } => {
            json!({ "type": "string", "enum": choices, "default": default })
        }
        Values::Number { min, max, default } => {
            let mut schema = json!({ "type": "integer", "minimum": min, "maximum": max });
            if let Some((_, default)) = default.filter(|(on, _)| *on == route) {
                schema["default"] = json!(default);
            }
            schema
        }
    }
}

/// What a parameter means, its bounds in bytes included, which no schema can say.
pub(super) fn parameter_meaning(parameter: &Parameter) -> String {
    match parameter.values {
        Values::Texts { count_max, bytes_max, .. } => {
            let meaning = parameter.meaning;
            format!("{meaning} At most {count_max} values of at most {bytes_max} bytes (UTF-8).")
        }
        _ => parameter.meaning.to_owned(),
    }
}

// === impl Operation ===

impl Operation {
    fn render(&self, responses: &mut Map<String, Value>) -> Value {
        let headers = self.headers.iter().map(|name| component("parameters", name));
        let parameters: Vec<Value> = self
            .route
            .into_iter()
            .flat_map(|route| route.parameters().flat_map(move |one| query_parameters(one, route)))
            .chain(headers)
            .collect();
        let mut answers: Map<String, Value> = (self.answers)()
            .into_iter()
            .map(|(status, answer)| (status.to_owned(), answer))
            .collect();
        let need = self.need();
        let errors = match need {
            Need::Nothing | Need::Secret => self.errors.to_vec(),
            Need::Read | Need::Admin | Need::Within => [self.errors, ACCESS_ERRORS].concat(),
        };
        answers.extend(error_answers(&errors, responses));
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "description": self.description,
        });
        if !parameters.is_empty() {
            operation["parameters"] = json!(parameters);
        }
        if let Some(body) = self.body {
            operation["requestBody"] = body();
        }
        // With nothing as a choice of its own: access can be off.
        match need {
            Need::Nothing | Need::Secret => {}
            Need::Read | Need::Admin => operation["security"] = json!([{ "bearer": [] }, {}]),
            Need::Within => {
                operation["security"] = json!([{ "bearer": [] }, { "accessToken": [] }, {}]);
            }
        }
        operation["responses"] = Value::Object(answers);
        operation
    }

    /// What its row in the router's table asks of those who come.
    fn need(&self) -> Need {
        if self.path.starts_with("/v1/") {
            return Need::Within;
        }
        // The router writes `{*name}` for a name with slashes.
        let row = needs().into_iter().find(|(path, _)| path.replace("{*", "{") == self.path);
        row.map_or(Need::Within, |(_, need)| need)
    }
}

/// One response a status, shared by the routes with the same errors of it.
fn error_answers(names: &[&str], responses: &mut Map<String, Value>) -> Map<String, Value> {
    let mut by_status: Vec<(u16, Vec<Error>)> = Vec::new();
    for error in Error::samples() {
        if !names.contains(&error.name()) && !EVERYWHERE.contains(&error.name()) {
            continue;
        }
        let status = error.status().as_u16();
        match by_status.iter_mut().find(|(known, _)| *known == status) {
            Some((_, errors)) => errors.push(error),
            None => by_status.push((status, vec![error])),
        }
    }
    let mut answers = Map::new();
    for (status, errors) in by_status {
        let names: Vec<&str> = errors.iter().map(Error::name).collect();
        let name = names.join("_or_").replace(' ', "_");
        answers.insert(status.to_string(), component("responses", &name));
        responses.entry(name).or_insert_with(|| error_response(&errors));
    }
    answers
}

fn error_response(errors: &[Error]) -> Value {
    let all: Vec<String> =
        errors.iter().map(|error| format!("`{}`: {}.", error.name(), error.when())).collect();
    let shown: Map<String, Value> = errors
        .iter()
        .map(|error| {
            let body: Value = serde_json::from_str(&error.body()).unwrap_or_default();
            (error.name().replace(' ', "_"), json!({ "summary": error.when(), "value": body }))
        })
        .collect();
    let mut response = json!({
        "description": all.join(" "),
        "content": { "application/json": { "schema": schema("Error"), "examples": shown } },
    });
    if errors.iter().any(|error| error.retry_secs().is_some()) {
        response["headers"] = json!({ "Retry-After": component("headers", "RetryAfter") });
    }
    response
}

/// A parameter, and each other spelling of it.
fn query_parameters(parameter: &'static Parameter, route: Route) -> impl Iterator<Item = Value> {
    let one = move |name: &str, meaning: String| {
        let mut rendered = json!({
            "name": name,
            "in": "query",
            "description": meaning,
            "schema": parameter_schema(parameter, route),
        });
        match parameter.values {
            Values::Texts { .. } => {
                rendered["explode"] = json!(true);
                rendered["example"] = json!([parameter.example]);
            }
            Values::Number { .. } => {
                rendered["example"] = json!(parameter.example.parse::<u64>().ok());
            }
            Values::Position { .. } | Values::Since | Values::Choice { .. } => {
                rendered["example"] = json!(parameter.example);
            }
        }
        rendered
    };
    let others = parameter.spellings.iter().map(move |spelling| {
        let meaning = format!("Another spelling of `{}`, for clients that use it.", parameter.name);
        one(spelling, meaning)
    });
    std::iter::once(one(parameter.name, parameter_meaning(parameter))).chain(others)
}

fn component(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn header_parameters() -> Value {
    json!({
        "LastEventId": {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "Resume after this position, as `EventSource` asks by itself. Wins over every \
                            parameter; an empty one counts as none. Never an error: what cannot be honoured \
                            becomes a gap.",
            "schema": { "type": "string" },
            "example": examples::event().sse_field("id"),
        },
        "WebSocketProtocol": {
            "name": "Sec-WebSocket-Protocol",
            "in": "header",
            "description": "A client that names no subprotocol is served as well.",
            "schema": { "type": "string" },
            "example": SUBPROTOCOL,
        },
        "FileName": {
            "name": "name",
            "in": "path",
            "required": true,
            "description": "The file's path.",
            "schema": { "type": "string" },
        },
        "EventPrefix": path_part("prefix", "What event names begin with; slashes raw or as `%2F`."),
        "DeviceId": path_part("device", "The device's id, 24 hex digits, or as the broker is configured."),
        "FunctionName": path_part("function", "The function's name."),
        "ProductId": path_part("product", "The product, as the broker is configured (`upstream.product`)."),
        "OrgId": path_part("org", "The organization, as the broker is configured (`upstream.org`)."),
        "IfNoneMatch": {
            "name": "If-None-Match",
            "in": "header",
            "description": "The `ETag` of what the client holds.",
            "schema": { "type": "string" },
        },
    })
}

fn path_part(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "description": description,
        "schema": { "type": "string", "minLength": 1 },
    })
}

fn response_headers() -> Value {
    json!({
        "RetryAfter": {
            "description": "Seconds after which to try again, spread at random.",
            "required": true,
            "schema": { "type": "integer", "minimum": 1 },
        },
        "ETag": {
            "description": "A strong validator. The page has none while `server.web_dir` is set.",
            "schema": { "type": "string" },
        },
    })
}

fn examples_of(all: &[(&str, &str, Value)]) -> Value {
    all.iter()
        .map(|(name, summary, value)| {
            ((*name).to_owned(), json!({ "summary": summary, "value": value }))
        })
        .collect::<Map<String, Value>>()
        .into()
}

fn json_answer(description: &str, name: &str, shown: &Value) -> Value {
    json!({
        "description": description,
        "content": { "application/json": { "schema": schema(name), "examples": shown } },
    })
}

fn text_content(kind: &str, description: &str, shown: &Value) -> Value {
    let mut content = json!({ "schema": { "type": "string", "description": description } });
    if shown.as_object().is_some_and(|shown| !shown.is_empty()) {
        content["examples"] = shown.clone();
    }
    json!({ kind: content })
}

fn events_answer() -> Vec<(&'static str, Value)> {
    let sse = examples_of(&[
        ("message", "The beginning of a stream", json!(examples::sse_message())),
        ("particle", "An event with `format=particle`", json!(examples::sse_particle())),
        ("gap", "The client was away for too long", json!(examples::sse_gap())),
        ("refusal", "There is no room", json!(examples::sse_refusal())),
    ]);
    let lines = examples_of(&[("lines", "The beginning of a stream", json!(examples::ndjson()))]);
    // Some tools read the schema as that of the whole body, others as that of one event.
    let either = |whole: &str, one: &str| json!({ "anyOf": [{ "type": "string", "description": whole }, schema(one)] });
    let answer = json!({
        "description": "The stream. With `format=message` an event of a device has no `event:` line and \
                        its data is an `EventMessage`; a control event is called `fanlight.NAME`, and its \
                        data is `HelloData`, `GapData` and so on. An NDJSON line is a `StreamObject`; an \
                        empty one is a keep-alive.",
        "content": {
            "text/event-stream": {
                "schema": either("The whole stream.", "ServerSentEvent"),
                "examples": sse,
            },
            "application/x-ndjson": {
                "schema": either("The whole stream.", "StreamObject"),
                "examples": lines,
            },
        },
    });
    vec![("200", answer)]
}

fn particle_stream_answer() -> Vec<(&'static str, Value)> {
    let shown =
        examples_of(&[("event", "The beginning of a stream", json!(examples::sse_cloud()))]);
    let content = text_content("text/event-stream", "The whole stream.", &shown);
    vec![("200", json!({ "description": "The stream.", "content": content }))]
}

/// One body in both its forms.
fn body_of(name: &str) -> Value {
    json!({
        "required": true,
        "content": {
            "application/json": { "schema": schema(name) },
            "application/x-www-form-urlencoded": { "schema": schema(name) },
        },
    })
}

fn publish_body() -> Value {
    body_of("Publish")
}

fn call_body() -> Value {
    body_of("FunctionCall")
}

fn webhook_body() -> Value {
    body_of("Webhook")
}

fn webhook_answer() -> Vec<(&'static str, Value)> {
    let fields = json!({
        "ok": { "const": true },
        "copy": { "type": "boolean", "description": "The event was there already." },
    });
    let schema = json!({ "type": "object", "required": ["ok", "copy"], "properties": fields });
    let content = json!({ "application/json": { "schema": schema } });
    vec![("200", json!({ "description": "The event has its position.", "content": content }))]
}

fn passed_on_answer() -> Vec<(&'static str, Value)> {
    let content = json!({ "application/json": { "schema": { "type": "object" } } });
    vec![("200", json!({ "description": "The cloud's answer.", "content": content }))]
}

fn websocket_answer() -> Vec<(&'static str, Value)> {
    let protocol = json!({
        "description": "The subprotocol, if the client asked for it.",
        "schema": { "const": SUBPROTOCOL },
    });
    let answer = json!({
        "description": "The connection is a WebSocket from here on.",
        "headers": { "Sec-WebSocket-Protocol": protocol },
    });
    vec![("101", answer)]
}

fn file_answer(kind: &'static str) -> Vec<(&'static str, Value)> {
    let headers = json!({ "ETag": component("headers", "ETag") });
    let found = json!({
        "description": "The file.",
        "headers": headers,
        "content": { kind: { "schema": { "type": "string" } } },
    });
    let known = json!({ "description": "The client holds it already.", "headers": headers });
    vec![("200", found), ("304", known)]
}

fn description_answer() -> Vec<(&'static str, Value)> {
    let headers = json!({ "ETag": component("headers", "ETag") });
    let found = json!({
        "description": "The document.",
        "headers": headers,
        "content": { "application/json": { "schema": { "type": "object" } } },
    });
    let known = json!({ "description": "The client holds it already.", "headers": headers });
    vec![("200", found), ("304", known)]
}
