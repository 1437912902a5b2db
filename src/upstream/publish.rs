//! What goes the other way: events and function calls, passed on to the Particle cloud.
//!
//! The law: only what is checked here is sent, as JSON made here, to the configured origin
//! and with the broker's own token; a client's token goes nowhere. What the cloud answers
//! is handed back, but for a body that is no JSON, which its clients cannot read.

use std::{borrow::Cow, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Response, redirect};
use serde_json::{Map, Value};
use thiserror::Error;
use url::{Url, form_urlencoded};

use crate::model::{event::RESERVED_PREFIX, json::Object};

use super::{
    ConfigError, connection,
    particle::{self, AddressError},
    token::TokenSource,
};

/// Longest event name, in bytes: the cloud's own limit for devices.
pub const NAME_BYTES_MAX: usize = 64;
/// Most data, in bytes of text: what Device OS 6.3 and later may publish.
pub const DATA_BYTES_MAX: usize = 16_384;
/// The same as a data URL: base64 makes 21,848 characters of it, and the rest is for the
/// media type in front.
pub const DATA_URL_BYTES_MAX: usize = 21_848 + 256;
/// Longest name of a function, and longest argument, in bytes.
pub const FUNCTION_BYTES_MAX: usize = 64;
/// See [`FUNCTION_BYTES_MAX`]; the limit of Device OS 0.8 and later is 622 to 1,024.
pub const ARGUMENT_BYTES_MAX: usize = 1024;
/// Longest body of a request: the most data, each byte of it as a six-byte escape, and room
/// for the rest.
pub const BODY_BYTES_MAX: usize = 160 << 10;
/// Longest body of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The cloud keeps these names for itself, in any case of letters.
const CLOUD_PREFIXES: [&str; 2] = ["particle", "spark"];
/// Connections to the cloud kept for the next one; each is some 50 KiB with its TLS.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// Why something is not passed on: it is the caller's mistake.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DraftError {
    /// The body is neither a JSON object nor a form.
    #[error("the body is neither a JSON object nor a form with `name` and `data`: {reason}")]
    Body {
        /// The parser's words.
        reason: String,
    },
    /// No name.
    #[error("an event needs a `name`")]
    NameMissing,
    /// The name is too long, or has characters that are not visible ASCII.
    #[error(
        "the event name has {bytes} bytes; allowed are 1 to {NAME_BYTES_MAX} visible ASCII characters, \
         best of letters, digits, `_`, `-` and `/`"
    )]
    Name {
        /// Its length.
        bytes: usize,
    },
    /// The name is kept for others.
    #[error("event names that begin with `{prefix}` are kept for {owner}")]
    Reserved {
        /// What it begins with.
        prefix: &'static str,
        /// Whose they are.
        owner: &'static str,
    },
    /// Too much data.
    #[error(
        "the data has {bytes} bytes; allowed are {DATA_BYTES_MAX}, and {DATA_URL_BYTES_MAX} as a data URL \
         in base64"
    )]
    Data {
        /// Its length.
        bytes: usize,
    },
    /// A function's name that no device can have.
    #[error(
        "a function is called by 1 to {FUNCTION_BYTES_MAX} letters, digits, `_` or `-`, and a device by \
         its id or name"
    )]
    Function,
    /// Too long an argument.
    #[error("the argument has {bytes} bytes; allowed are {ARGUMENT_BYTES_MAX}")]
    Argument {
        /// Its length.
        bytes: usize,
    },
}

/// Why there is no answer to hand back.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The broker has no token to show.
    #[error("the broker cannot read its access token: {0}")]
    Token(String),
    /// The cloud cannot be reached.
    #[error("the cloud cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time, so nobody knows whether the event was taken.
    #[error(
        "the cloud gave no answer within {} s (publish.timeout); the event may have been published all \
         the same",
        .0.as_secs_f64()
    )]
    Timeout(Duration),
    /// It answered something that is neither yes nor no.
    #[error("the cloud answered {status}, and not as the Particle API does; check upstream.url")]
    Answer {
        /// Its status.
        status: StatusCode,
    },
}

/// Who is to be the publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The token's user.
    User,
    /// A product, by id or slug.
    Product(String),
    /// An organization, by id or slug.
    Org(String),
}

/// An event to be published, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    fields: Map<String, Value>,
}

/// A function call, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionCall {
    device: String,
    function: String,
    argument: String,
}

/// What the cloud said.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// When to try again, in its words.
    pub retry_after: Option<HeaderValue>,
    /// JSON.
    pub body: Bytes,
}

/// The cloud's API, as far as things are passed on to it.
pub struct Api {
    client: Client,
    base: String,
    token: TokenSource,
    timeout: Duration,
}

// === impl Draft ===

impl Draft {
    /// The event's name.
    pub fn name(&self) -> &str {
        self.fields.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Reads and checks the body of a request to publish. Fields that are none of an event's
    /// are left out, `access_token` among them.
    ///
    /// # Errors
    /// If the body cannot be read, or what it asks for is over the cloud's limits.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Draft, DraftError> {
        let mut given = fields(headers, body)?;
        let mut fields = Map::new();
        for name in ["name", "data", "private", "ttl"] {
            if let Some(value) = given.remove(name) {
                fields.insert(name.to_owned(), value);
            }
        }
        match fields.get("name") {
            Some(Value::String(name)) => check_name(name)?,
            _ => return Err(DraftError::NameMissing),
        }
        if let Some(data) = fields.get("data") {
            check_data(&text_of(data))?;
        }
        // A form has nothing but texts.
        if let Some(Value::String(private)) = fields.get("private") {
            let private = matches!(private.as_str(), "true" | "1" | "on");
            fields.insert("private".to_owned(), private.into());
        }
        Ok(Draft { fields })
    }

    /// An event of these parts.
    ///
    /// # Errors
    /// If one of them is over the cloud's limits.
    pub fn new(name: &str, data: Option<&str>, ttl: Option<u32>) -> Result<Draft, DraftError> {
        check_name(name)?;
        check_data(data.unwrap_or_default())?;
        let mut fields = Map::from_iter([("name".to_owned(), name.into())]);
        fields.extend(data.map(|data| ("data".to_owned(), data.into())));
        fields.extend(ttl.map(|ttl| ("ttl".to_owned(), ttl.into())));
        Ok(Draft { fields })
    }

    /// The body that says so.
    pub fn to_json(&self) -> String {
        Value::Object(self.fields.clone()).to_string()
    }
}

impl Sender {
    /// The path of its route.
    pub fn path(&self) -> Vec<&str> {
        match self {
            Sender::User => vec!["v1", "devices", "events"],
            Sender::Product(product) => vec!["v1", "products", product, "events"],
            Sender::Org(org) => vec!["v1", "orgs", org, "events"],
        }
    }
}

// === impl FunctionCall ===

impl FunctionCall {
    /// Reads and checks a function call: `arg`, or `args` as older clients have it.
    ///
    /// # Errors
    /// If the body cannot be read, or no device can have such a function.
    pub fn parse(
        device: String,
        function: String,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<FunctionCall, DraftError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let is_named = (1..=FUNCTION_BYTES_MAX).contains(&function.len());
        let is_device = (1..=NAME_BYTES_MAX).contains(&device.len());
        if !is_named || !is_device || !function.chars().all(is_name) {
            return Err(DraftError::Function);
        }
        let mut given = if body.is_empty() { Map::new() } else { fields(headers, body)? };
        let argument = given.remove("arg").or_else(|| given.remove("args"));
        let argument = argument.as_ref().map(text_of).unwrap_or_default().into_owned();
        if argument.len() > ARGUMENT_BYTES_MAX {
            return Err(DraftError::Argument { bytes: argument.len() });
        }
        Ok(FunctionCall { device, function, argument })
    }
}

fn check_name(name: &str) -> Result<(), DraftError> {
    if name.is_empty() {
        return Err(DraftError::NameMissing);
    }
    if name.len() > NAME_BYTES_MAX || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(DraftError::Name { bytes: name.len() });
    }
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if let Some(prefix) = CLOUD_PREFIXES.into_iter().find(|prefix| begins(prefix)) {
        return Err(DraftError::Reserved { prefix, owner: "the cloud" });
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(DraftError::Reserved { prefix: RESERVED_PREFIX, owner: "the broker" });
    }
    Ok(())
}

fn check_data(data: &str) -> Result<(), DraftError> {
    let is_url = data.starts_with("data:");
    let bytes_max = if is_url { DATA_URL_BYTES_MAX } else { DATA_BYTES_MAX };
    match data.len() {
        bytes if bytes > bytes_max => Err(DraftError::Data { bytes }),
        _ => Ok(()),
    }
}

/// A value as the text that devices get.
pub(super) fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        Value::Null => "".into(),
        other => other.to_string().into(),
    }
}

/// The fields of a body, from JSON or a form. What says nothing of itself is JSON if it
/// begins like it.
pub(super) fn fields(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, DraftError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    // `curl -d '{…}'` calls everything a form.
    if kind.eq_ignore_ascii_case("application/json") || body.trim_ascii_start().starts_with(b"{") {
        return match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(DraftError::Body { reason: "it is another kind of JSON".to_owned() }),
            Err(error) => Err(DraftError::Body { reason: error.to_string() }),
        };
    }
    if !is_form && !kind.is_empty() {
        let reason = "its content type is neither application/json nor \
                      application/x-www-form-urlencoded";
        return Err(DraftError::Body { reason: reason.to_owned() });
    }
    let pairs = form_urlencoded::parse(body);
    Ok(pairs.map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect())
}

// === impl Api ===

impl Api {
    /// A client for the API at `base`. Nothing is connected yet.
    ///
    /// # Errors
    /// If the address is none, or the HTTP client cannot be set up.
    pub fn new(base: &str, token: TokenSource, timeout: Duration) -> Result<Api, ConfigError> {
        let url = particle::parse_url(base)?;
        let mut builder = Client::builder()
            // To publish twice is worse than not at all, which the caller is told.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .timeout(timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        if connection::is_loopback(&url) {
            builder = builder.no_proxy();
            if url.scheme() == "http" {
                // No root certificates are needed, so a bare container need not have any.
                builder = builder.tls_certs_only([]);
            }
        }
        let client = builder.build().map_err(ConfigError::Client)?;
        // The whole path is checked once, so that a call can only fail by its own parts.
        address(base, &Sender::User.path())?;
        Ok(Api { client, base: base.to_owned(), token, timeout })
    }

    /// Publishes an event.
    ///
    /// # Errors
    /// If there is no answer to hand back.
    pub async fn publish(&self, sender: &Sender, draft: &Draft) -> Result<Answer, PublishError> {
        self.post(&sender.path(), draft.to_json()).await
    }

    /// Calls a function.
    ///
    /// # Errors
    /// If there is no answer to hand back.
    pub async fn call(&self, call: &FunctionCall) -> Result<Answer, PublishError> {
        let body = Map::from_iter([("arg".to_owned(), Value::from(call.argument.as_str()))]);
        let path = ["v1", "devices", &call.device, &call.function];
        self.post(&path, Value::Object(body).to_string()).await
    }

    async fn post(&self, path: &[&str], body: String) -> Result<Answer, PublishError> {
        let url = address(&self.base, path)
            .map_err(|error| PublishError::Unreachable(error.to_string()))?;
        let source = self.token.clone();
        let hidden = |text: &str| PublishError::Token(self.token.hidden(text));
        // Read anew each time, as for each open: it may have been replaced.
        let token = tokio::task::spawn_blocking(move || source.read()).await;
        let token = match token {
            Ok(token) => token.map_err(|error| hidden(&error.to_string()))?,
            Err(error) => return Err(hidden(&error.to_string())),
        };
        let mut headers = particle::headers(token.as_ref(), "");
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let failed = |error: reqwest::Error| match error.is_timeout() {
            true => PublishError::Timeout(self.timeout),
            false => {
                let text = connection::chain(&error.without_url());
                let masked = token.as_ref().map(|token| token.mask(&text));
                PublishError::Unreachable(masked.unwrap_or(text))
            }
        };
        let sent = self.client.post(url).headers(headers).body(body).send().await;
        let mut response = sent.map_err(failed)?;
        let (status, body) = (response.status(), read(&mut response).await.map_err(failed)?);
        let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
        let text = body.as_deref().and_then(|body| std::str::from_utf8(body).ok());
        let json = text.filter(|text| serde_json::from_str::<Value>(text).is_ok());
        let is_refusal = status.is_client_error() || status.is_server_error();
        let body = match json {
            Some(json) if is_refusal || status.is_success() => match &token {
                Some(token) => token.mask(json),
                None => json.to_owned(),
            },
            // A proxy's page, most likely. The status and the time to wait are still news.
            _ if is_refusal => {
                let what = format!("the cloud answered {status}, in a form that is no JSON");
                Object::new().text("error", "cloud_error").text("error_description", &what).finish()
            }
            _ => return Err(PublishError::Answer { status }),
        };
        Ok(Answer { status, retry_after, body: body.into() })
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// The body; none if it is over the bound.
async fn read(response: &mut Response) -> reqwest::Result<Option<Bytes>> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// An address of the API below its base, each part of the path as one segment.
fn address(base: &str, path: &[&str]) -> Result<Url, AddressError> {
    let mut url = particle::parse_url(base)?;
    let mut whole = url.path().trim_end_matches('/').to_owned();
    for part in path {
        whole.push('/');
        whole.push_str(&particle::segment("url", part)?);
    }
    url.set_path(&whole);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(kind: &'static str, body: &str) -> Result<String, DraftError> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Draft::parse(&headers, body.as_bytes()).map(|draft| draft.to_json())
    }

    const JSON: &str = "application/json; charset=utf-8";
    const FORM: &str = "application/x-www-form-urlencoded";

    #[test]
    fn json_and_forms_become_the_same_json() {
        let plain = Ok(r#"{"name":"a/b","data":"1 °","private":true}"#.to_owned());
        assert_eq!(draft(JSON, r#"{"data":"1 °","name":"a/b","private":true}"#), plain);
        let form = "name=a%2Fb&data=1+%C2%B0&private=true&access_token=not-a-token&x=y";
        assert_eq!(draft(FORM, form), plain);
        assert_eq!(draft("", form), plain);
        // What `curl -d` calls a form.
        assert_eq!(draft(FORM, r#"{"name":"a"}"#), Ok(r#"{"name":"a"}"#.to_owned()));
        let odd = r#"{"name":"a","data":{"t":1},"ttl":"60","requestType":"x"}"#;
        assert_eq!(draft(JSON, odd).unwrap(), r#"{"name":"a","data":{"t":1},"ttl":"60"}"#);
        assert!(draft(JSON, r#"{"name":"a","data":null}"#).is_ok());
    }

    #[test]
    fn what_is_no_event_is_named() {
        for (kind, body, part) in [
            (JSON, "", "neither a JSON object"),
            (JSON, "[1]", "another kind of JSON"),
            (JSON, "name=a", "neither a JSON object"),
            (JSON, "{}", "needs a `name`"),
            (JSON, r#"{"name":1}"#, "needs a `name`"),
            (FORM, "name=", "needs a `name`"),
            (FORM, "data=1", "needs a `name`"),
            ("text/plain", "name=a", "its content type"),
            (FORM, "name=a+b", "visible ASCII"),
            (JSON, r#"{"name":"a\nb"}"#, "visible ASCII"),
            (JSON, r#"{"name":"gänse"}"#, "visible ASCII"),
            (FORM, "name=Spark%2Fstatus", "kept for the cloud"),
            (FORM, "name=PARTICLEs", "kept for the cloud"),
            (FORM, "name=fanlight.gap", "kept for the broker"),
        ] {
            let error = draft(kind, body).unwrap_err().to_string();
            assert!(error.contains(part), "{kind} {body}: {error}");
        }
    }

    #[test]
    fn the_clouds_limits() {
        let check = |name: usize, data: String| {
            Draft::new(&"n".repeat(name), Some(&data), None).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(check(64, "x".repeat(16_384)), Ok(()));
        assert!(check(65, String::new()).unwrap_err().contains("65 bytes"));
        assert!(check(1, "x".repeat(16_385)).unwrap_err().contains("16385 bytes"));
        let url = |bytes: usize| format!("data:image/png;base64,{}", "A".repeat(bytes));
        assert_eq!(check(1, url(21_848)), Ok(()));
        assert!(check(1, url(22_104)).is_err());
        let escaped = "\\u0001".repeat(DATA_BYTES_MAX);
        let body = format!("{{\"name\":\"{}\",\"data\":\"{escaped}\"}}", "n".repeat(64));
        assert!(body.len() < BODY_BYTES_MAX && draft(JSON, &body).is_ok());
    }

    #[test]
    fn function_calls() {
        let call = |device: &str, function: &str, body: &str| {
            FunctionCall::parse(device.into(), function.into(), &HeaderMap::new(), body.as_bytes())
        };
        for body in ["arg=on", "args=on", r#"{"arg":"on"}"#, "arg=on&args=off&access_token=x"] {
            assert_eq!(call("e00f", "relay", body).unwrap().argument, "on", "{body}");
        }
        assert_eq!(call("my van", "relay-2", "").unwrap().argument, "");
        assert_eq!(call("d", "set it", ""), Err(DraftError::Function));
        assert_eq!(call("d", "..", ""), Err(DraftError::Function));
        assert_eq!(call("", "f", ""), Err(DraftError::Function));
        let long = format!("arg={}", "x".repeat(1025));
        assert_eq!(call("d", "f", &long), Err(DraftError::Argument { bytes: 1025 }));
    }

    #[test]
    fn addresses_are_below_the_base() {
        let product = Sender::Product("a/b?".to_owned());
        let shown = address("https://gate.example/particle/", &product.path()).unwrap();
        let expected = "https://gate.example/particle/v1/products/a%2Fb%3F/events";
        assert_eq!(shown.as_str(), expected);
        assert!(address("https://gate.example", &Sender::Org("..".into()).path()).is_err());
    }
}
