//! Requests and their answers: streams, publishing, control.
//!
//! The law here: a request for a stream is decided under the cloud's lock, so that the stream is
//! registered, and gets every event from then on, before its head is written.

use std::{convert::Infallible, future::pending, pin::pin, sync::Arc, time::Duration};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use url::form_urlencoded;

use super::{
    cloud::{Answer, OpenRequest},
    fault::{Fault, FaultError},
    refusal::Refused,
    route::{Route, Target, route},
    server::{Lease, Shared, Takeover},
    state::account_json,
    stream::Framing,
};

/// Bodies of `POST` requests.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// For a body to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// A path is remembered up to here, and so is a `Last-Event-ID`.
const REMEMBERED_CHARS_MAX: usize = 256;

type Answered = Result<Response<Body>, Refused>;

/// Answers a request. Where the connection becomes something else than a plain answer, that is put
/// into `taken`, and this never returns.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    taken: mpsc::Sender<Takeover>,
) -> Result<Response<Body>, Infallible> {
    let answered = match route(request.method(), request.uri().path()) {
        Route::Stream(target) => open(&shared, &request, target, &taken).await,
        Route::Publish(target) => publish(&shared, request, &target).await,
        Route::State => Ok(json_response(&shared.with(|cloud, now, _| cloud.state(now)).to_json())),
        Route::Devices => {
            Ok(json_response(&shared.with(|cloud, _, _| account_json(cloud.account()))))
        }
        Route::ArmFaults => arm_faults(&shared, request).await,
        Route::ClearFaults => {
            shared.with(|cloud, _, _| cloud.clear_faults());
            Ok(json_response(&json!({ "ok": true })))
        }
        Route::Unknown if request.method() == Method::OPTIONS => Ok(preflight()),
        Route::Unknown => {
            Err(refused(404, "not_found", "no such route; GET /sim tells what there is"))
        }
    };
    Ok(answered.unwrap_or_else(refusal_response))
}

async fn open(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    target: Target,
    taken: &mpsc::Sender<Takeover>,
) -> Answered {
    let remembered = |text: &str| text.chars().take(REMEMBERED_CHARS_MAX).collect::<String>();
    let last_event_id = request.headers().get("last-event-id");
    let asked = OpenRequest {
        target,
        path: remembered(request.uri().path()),
        token: token(request.headers(), request.uri().query()),
        last_event_id: last_event_id.map(|id| remembered(&String::from_utf8_lossy(id.as_bytes()))),
    };
    let framing =
        if request.version() == Version::HTTP_10 { Framing::Plain } else { Framing::Chunked };
    let takeover = match shared.with(|cloud, now, wall| cloud.open(&asked, now, wall)) {
        Answer::Refused(refused) => return Err(refused),
        Answer::Hang => Takeover::Hang,
        Answer::Stream { number, mailbox } => {
            Takeover::Stream { mailbox, framing, lease: Lease { shared: shared.clone(), number } }
        }
    };
    // There is room for one, and a connection has one request at a time.
    let _ = taken.try_send(takeover);
    pending().await
}

async fn publish(shared: &Shared, request: Request<Incoming>, target: &Target) -> Answered {
    let from_head = token(request.headers(), request.uri().query());
    let fields = fields(&request.headers().clone(), &body(request).await?)?;
    let field =
        |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let token = from_head.or_else(|| field("access_token").flatten());
    let name = field("name").flatten().unwrap_or_default();
    shared.with(|cloud, now, wall| {
        cloud.authorize(token.as_deref())?;
        let audience = cloud.audience(target)?;
        if name.is_empty() || name.contains(['\r', '\n', '\0']) {
            return Err(refused(
                400,
                "invalid_request",
                "an event needs a name, without line breaks",
            ));
        }
        cloud.api_publishes(audience, &name, field("data").flatten(), now, wall);
        Ok(json_response(&json!({ "ok": true })))
    })
}

async fn arm_faults(shared: &Shared, request: Request<Incoming>) -> Answered {
    let body = body(request).await?;
    let text = std::str::from_utf8(&body)
        .map_err(|_| refused(400, "invalid_fault", "the body is not UTF-8"))?;
    let faults = faults(text).map_err(|reason| refused(400, "invalid_fault", &reason))?;
    let texts: Vec<String> = faults.iter().map(Fault::to_string).collect();
    let armed =
        shared.with(|cloud, now, wall| faults.into_iter().all(|fault| cloud.arm(fault, now, wall)));
    match armed {
        true => Ok(json_response(&json!({ "ok": true, "faults": texts }))),
        false => Err(refused(
            429,
            "too_many_faults",
            "256 faults are pending already; DELETE /sim/faults clears them",
        )),
    }
}

/// One fault a line, or JSON: an object of words, a text, or an array of these.
fn faults(text: &str) -> Result<Vec<Fault>, String> {
    if !text.trim_start().starts_with(['{', '[', '"']) {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let faults: Vec<Fault> = lines
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|error: FaultError| error.to_string())?;
        return if faults.is_empty() {
            "".parse().map(|fault| vec![fault]).map_err(|error: FaultError| error.to_string())
        } else {
            Ok(faults)
        };
    }
    match serde_json::from_str(text).map_err(|error| format!("the body is not JSON: {error}"))? {
        Value::Array(faults) => faults.iter().map(fault_of_json).collect(),
        fault => Ok(vec![fault_of_json(&fault)?]),
    }
}

fn fault_of_json(json: &Value) -> Result<Fault, String> {
    let words = match json {
        Value::String(text) => {
            return text.parse().map_err(|error: FaultError| error.to_string());
        }
        Value::Object(words) => words,
        _ => return Err("a fault is an object of words or a text".to_owned()),
    };
    let mut pairs = Vec::new();
    for (key, value) in words {
        match value {
            Value::Null | Value::Bool(false) => {}
            Value::Bool(true) => pairs.push((key.as_str(), None)),
            Value::String(text) => pairs.push((key.as_str(), Some(text.clone()))),
            Value::Number(number) => pairs.push((key.as_str(), Some(number.to_string()))),
            _ => return Err(format!("{key:?} is neither text, number nor boolean")),
        }
    }
    let words = pairs.iter().map(|(key, value)| (*key, value.as_deref()));
    Fault::from_words(words).map_err(|error| error.to_string())
}

/// The fields of an event, from JSON or a form.
fn fields(headers: &HeaderMap, body: &[u8]) -> Result<Vec<(String, Option<String>)>, Refused> {
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.contains("json") && !body.trim_ascii_start().starts_with(b"{") {
        let fields = form_urlencoded::parse(body);
        return Ok(fields
            .map(|(key, value)| (key.into_owned(), Some(value.into_owned())))
            .collect());
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
        return Err(refused(400, "invalid_request", "the body is not a JSON object"));
    };
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    Ok(object.into_iter().map(|(key, value)| (key, text(value))).collect())
}

async fn body(request: Request<Incoming>) -> Result<Bytes, Refused> {
    let read = pin!(to_bytes(Body::new(request.into_body()), BODY_BYTES_MAX));
    match timeout(BODY_TIME_MAX, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(refused(413, "too_large", "a body has at most 64 KiB")),
        Err(_) => Err(refused(408, "timeout", "the body did not arrive within 10 s")),
    }
}

/// From the header, else from the query.
fn token(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if let Some((_, token)) = bearer {
        return Some(token.trim().to_owned());
    }
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(key, _)| key == "access_token").map(|(_, token)| token.into_owned())
}

// === responses ===

fn refused(status: u16, error: &str, description: &str) -> Refused {
    Refused::json(status, &json!({ "error": error, "error_description": description }).to_string())
}

fn json_response(json: &Value) -> Response<Body> {
    refusal_response(Refused::json(200, &json.to_string()))
}

fn refusal_response(refused: Refused) -> Response<Body> {
    let mut response = Response::new(Body::from(refused.body));
    *response.status_mut() =
        StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(refused.content_type));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    for (name, value) in
        [(header::RETRY_AFTER, refused.retry_after), (header::LOCATION, refused.location)]
    {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

fn preflight() -> Response<Body> {
    let mut response = refusal_response(Refused { status: 204, ..Refused::json(204, "") });
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, cache-control, content-type, last-event-id, x-particle-tool, x-particle-project",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_from_the_header_or_the_query() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))])
        };
        assert_eq!(token(&headers("bEaReR not-a-token"), None).as_deref(), Some("not-a-token"));
        assert_eq!(token(&headers("Basic abc"), Some("access_token=q")).as_deref(), Some("q"));
        assert_eq!(
            token(&HeaderMap::new(), Some("nonce=1&access_token=a%20b")).as_deref(),
            Some("a b")
        );
        assert_eq!(token(&HeaderMap::new(), None), None);
    }

    #[test]
    fn faults_are_lines_or_json() {
        let parsed = |text: &str| {
            faults(text).map(|faults| faults.iter().map(Fault::to_string).collect::<Vec<_>>())
        };
        let both =
            Ok(vec!["after=1s cut".to_owned(), "status=529 retry-after=30 count=3".to_owned()]);
        assert_eq!(parsed("cut after=1s\n\nstatus=529 retry-after=30 count=3\n"), both);
        assert_eq!(
            parsed(r#"["cut after=1s", {"status": 529, "retry-after": 30, "count": 3}]"#),
            both
        );
        assert_eq!(
            parsed(r#"{"kind": "stall", "sticky": true, "for": null}"#),
            Ok(vec!["stall sticky".to_owned()])
        );
        assert_eq!(parsed(r#"{"stall": true}"#), Ok(vec!["stall".to_owned()]));
        for wrong in ["", "nonsense", "{", "[1]", r#"{"stall": []}"#, "cut\nnonsense"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
