//! One request to the stream, and what its answer means.
//!
//! The law: a request goes to the configured origin and nowhere else, so the token cannot
//! leave it; and every answer that is no stream has a `detail` that a person can act upon,
//! without the token and without the query of an address.

use std::{error::Error, future::Future, io, net::IpAddr, time::Duration};

use http::{HeaderMap, StatusCode, header};
use reqwest::{Client, Response, redirect};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Url};

use crate::{
    clock::Clock,
    upstream::{
        particle,
        schedule::retry_after,
        stats::Outcome,
        supervise::{End, FailureKind},
        token::Token,
    },
};

/// Redirects followed within the origin before giving up.
pub(crate) const REDIRECTS_MAX: u32 = 3;
/// A longer `connect_timeout` is read as this; it keeps the sum with the clock in range.
const HEAD_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// How much of a refusal's body is read for its error text, in bytes.
const REFUSAL_BYTES_MAX: usize = 4096;
/// How long a refusal's body may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of a server's own words goes into a detail, in characters.
const QUOTE_CHARS_MAX: usize = 200;

// A peer that is gone is noticed by the system within 10 + 3 × 5 s even if the byte watchdog
// is set to more; what was sent (only the request) may stay unacknowledged for 30 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens streams at one origin.
#[derive(Debug)]
pub(crate) struct Connector {
    client: Client,
    url: Url,
    connect_timeout: Duration,
    token_advice: String,
    clock: Clock,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Status 200 and the right content type.
    Live(Response),
    /// A redirect within the origin; to be followed if the budget allows.
    Redirected(Url),
    /// A status that is no stream.
    Refused { outcome: Outcome, status: u16, retry_after: Option<Duration>, detail: String },
    /// No answer that counts.
    Failed { outcome: Outcome, kind: FailureKind, detail: String },
}

impl Connector {
    /// The client for a stream at `url`. `token_advice` is what to do about a refused token.
    pub(crate) fn new(
        url: Url,
        connect_timeout: Duration,
        token_advice: String,
        clock: Clock,
    ) -> reqwest::Result<Connector> {
        let mut builder = Client::builder()
            // Redirects and retries are ours: each is an open that the budget must grant.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Each open resolves and connects afresh.
            .pool_max_idle_per_host(0)
            .connect_timeout(connect_timeout)
            .tcp_keepalive(KEEPALIVE_IDLE)
            .tcp_keepalive_interval(KEEPALIVE_INTERVAL)
            .tcp_keepalive_retries(KEEPALIVE_PROBES);
        #[cfg(target_os = "linux")]
        {
            builder = builder.tcp_user_timeout(USER_TIMEOUT);
        }
        if is_loopback(&url) {
            builder = builder.no_proxy();
            if url.scheme() == "http" {
                // No root certificates are needed, so a bare container need not have any.
                builder = builder.tls_certs_only([]);
            }
        }
        Ok(Connector { client: builder.build()?, url, connect_timeout, token_advice, clock })
    }

    /// The configured address.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// When the head of an open that begins now must be there, redirects included.
    pub(crate) fn deadline(&self) -> Instant {
        self.clock.instant(self.clock.now().mono_us) + self.connect_timeout.min(HEAD_TIMEOUT_MAX)
    }

    /// One request and its head, by `deadline`.
    pub(crate) fn open(
        &self,
        to: Url,
        token: Option<Token>,
        last_event_id: &str,
        deadline: Instant,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let headers = particle::headers(token.as_ref(), last_event_id);
        let sent = self.client.get(to.clone()).headers(headers).send();
        let asked = Asked {
            to,
            origin: self.url.clone(),
            token,
            token_advice: self.token_advice.clone(),
            clock: self.clock.clone(),
        };
        let limit = self.connect_timeout;
        async move {
            match timeout_at(deadline, sent).await {
                Ok(Ok(response)) => asked.answer(response).await,
                Ok(Err(error)) => asked.failed(&error.without_url()),
                Err(_) => asked.too_slow(limit),
            }
        }
    }
}

/// How a live stream broke, from the error of its body.
pub(crate) fn broken(url: &Url, error: reqwest::Error) -> (End, String) {
    let error = error.without_url();
    let host = particle::authority(url);
    let chain = chain(&error);
    if io_kind(&error) == Some(io::ErrorKind::TimedOut) {
        return (End::Silent, format!("{host} does not answer any more ({chain})"));
    }
    (End::Reset, format!("the connection to {host} broke ({chain})"))
}

/// The parts of a request that its answer is judged by.
struct Asked {
    to: Url,
    origin: Url,
    token: Option<Token>,
    token_advice: String,
    clock: Clock,
}

impl Asked {
    async fn answer(&self, response: Response) -> Answer {
        let status = response.status();
        if status.is_redirection() && response.headers().contains_key(header::LOCATION) {
            return self.redirected(status, response.headers());
        }
        if status != StatusCode::OK {
            return self.refused(response).await;
        }
        let host = particle::authority(&self.to);
        let not_a_stream = |detail| Answer::Failed {
            outcome: Outcome::NotAStream,
            kind: FailureKind::Network,
            detail,
        };
        let content_type = text(response.headers(), header::CONTENT_TYPE);
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return not_a_stream(format!(
                "{host} answered 200 with content type `{}` in place of text/event-stream; \
                 a login page or a proxy may be in between, or upstream.url is not a stream",
                self.quotable(&content_type)
            ));
        }
        let encoding = text(response.headers(), header::CONTENT_ENCODING);
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            return not_a_stream(format!(
                "{host} sends the stream with content encoding `{}` although none was asked for; \
                 switch compression off in the server or proxy for text/event-stream",
                self.quotable(&encoding)
            ));
        }
        Answer::Live(response)
    }

    fn redirected(&self, status: StatusCode, headers: &HeaderMap) -> Answer {
        let misled = |detail| Answer::Failed {
            outcome: Outcome::Misconfigured,
            kind: FailureKind::Redirect,
            detail,
        };
        let from = shown_origin(&self.to);
        let Ok(to) = self.to.join(&text(headers, header::LOCATION)) else {
            return misled(format!(
                "{from} answered {} with a Location that is no address; check upstream.url",
                status.as_u16()
            ));
        };
        if to.origin() != self.origin.origin() {
            return misled(format!(
                "{from} redirects to {}, which is not followed so that the token stays here; \
                 if that is the right server, set upstream.url to it",
                self.quotable(&shown_origin(&to))
            ));
        }
        Answer::Redirected(to)
    }

    async fn refused(&self, mut response: Response) -> Answer {
        let status = response.status();
        let headers = response.headers();
        let now_ms = self.clock.now().wall_ms;
        let date = text(headers, header::DATE);
        let retry_after =
            retry_after(&text(headers, header::RETRY_AFTER), Some(date.as_str()), now_ms);
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                body.extend_from_slice(&chunk[..chunk.len().min(REFUSAL_BYTES_MAX - body.len())]);
                if body.len() == REFUSAL_BYTES_MAX {
                    break;
                }
            }
        };
        // A body that does not come in time is used as far as it came.
        let _ = timeout(REFUSAL_TIMEOUT, read).await;
        let words = self.quotable(&error_words(&body));
        let said = if words.is_empty() { String::new() } else { format!(" ({words})") };
        let (outcome, advice) = match status.as_u16() {
            401 => (Outcome::Unauthorized, self.token_advice.as_str()),
            429 | 503 | 529 => (
                Outcome::RateLimited,
                "waiting as long as it wants; other programs behind the same address count too",
            ),
            400 => (Outcome::Misconfigured, "check upstream.scope, upstream.prefix and the token"),
            403 => (
                Outcome::Misconfigured,
                "the token may not read this: check upstream.device, .product and .org, and whose \
                 token it is",
            ),
            404 => (
                Outcome::Misconfigured,
                "nothing is at this address: check upstream.url, .scope, .product and .org",
            ),
            408 | 425 => (Outcome::Timeout, "trying again"),
            402..=499 => (Outcome::Misconfigured, "check upstream.url"),
            500..=599 => (Outcome::ServerError, "the server has trouble; trying again"),
            _ => (Outcome::NotAStream, "a stream begins with 200; check upstream.url"),
        };
        let host = particle::authority(&self.to);
        let detail = format!("{host} answered {}{said}; {advice}", status.as_u16());
        Answer::Refused { outcome, status: status.as_u16(), retry_after, detail }
    }

    fn failed(&self, error: &reqwest::Error) -> Answer {
        let host = particle::authority(&self.to);
        let chain = self.quotable(&chain(error));
        let kind = io_kind(error);
        let (outcome, detail) = if chain.contains("dns error") {
            let name = self.to.host_str().unwrap_or_default();
            let advice = "check upstream.url and the name resolution of this machine";
            (Outcome::Dns, format!("cannot resolve {name}; {advice} ({chain})"))
        } else if kind == Some(io::ErrorKind::ConnectionRefused) {
            let advice = "check that the server runs and that upstream.url has the right port";
            (Outcome::Connect, format!("{host} refuses connections; {advice}"))
        } else if error.is_timeout() || kind == Some(io::ErrorKind::TimedOut) {
            let advice = "check the network, firewalls and proxies in between";
            (Outcome::Timeout, format!("{host} does not answer; {advice} ({chain})"))
        } else if matches!(
            kind,
            Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable)
        ) {
            let advice = "check the network of this machine";
            (Outcome::Connect, format!("there is no way to {host}; {advice} ({chain})"))
        } else if self.to.scheme() == "https" && error.is_connect() && is_tls(&chain) {
            let advice = "check the certificate of the server, the clock and the root certificates \
                          of this machine, and that this port speaks https";
            (Outcome::Tls, format!("no TLS with {host}; {advice} ({chain})"))
        } else {
            let advice = "check upstream.url, and proxies in between";
            (Outcome::Connect, format!("{host} did not answer the request; {advice} ({chain})"))
        };
        Answer::Failed { outcome, kind: FailureKind::Network, detail }
    }

    fn too_slow(&self, limit: Duration) -> Answer {
        let host = particle::authority(&self.to);
        Answer::Failed {
            outcome: Outcome::Timeout,
            kind: FailureKind::Network,
            detail: format!(
                "{host} sent no answer within {} s; check the network and proxies in between, or \
                 raise upstream.connect_timeout",
                limit.as_secs_f64()
            ),
        }
    }

    /// Someone else's words: without control characters and without the token, and short.
    fn quotable(&self, words: &str) -> String {
        let plain: String = words.chars().filter(|c| !c.is_control()).collect();
        // Masked after stripping, else a stripped character could join the token's halves.
        let masked = self.token.as_ref().map_or_else(|| plain.clone(), |token| token.mask(&plain));
        masked.trim().chars().take(QUOTE_CHARS_MAX).collect()
    }
}

/// The error text of a JSON body: Particle's fields. Empty for anything else, HTML above all.
fn error_words(body: &[u8]) -> String {
    let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(body) else {
        return String::new();
    };
    let field = |name| object.get(name).and_then(serde_json::Value::as_str).map(str::trim);
    let what = field("error_description").or_else(|| field("error"));
    let words: Vec<_> =
        [what, field("info")].into_iter().flatten().filter(|words| !words.is_empty()).collect();
    words.join(": ")
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().trim().to_owned()
}

fn shown_origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), particle::authority(url))
}

/// The messages of an error and its causes, without the outermost ("error sending request").
pub(super) fn chain(error: &dyn Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.last().is_some_and(|last| last.contains(&text)) {
            words.push(text);
        }
        cause = error.source();
    }
    if words.is_empty() { error.to_string() } else { words.join(": ") }
}

/// The kind of the innermost I/O error.
fn io_kind(error: &dyn Error) -> Option<io::ErrorKind> {
    let mut kind = None;
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            kind = Some(error.kind());
        }
        cause = error.source();
    }
    kind
}

/// The TLS library is not among our dependencies, so its errors are known by their words.
fn is_tls(chain: &str) -> bool {
    ["certificate", "corrupt message", "handshake", "TLS", "tls", "alert", "incompatible"]
        .iter()
        .any(|word| chain.contains(word))
}

/// Proxies of the environment are never asked for these.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(token: &str) -> Asked {
        let url = Url::parse("https://cloud.example/v1/devices/events").unwrap();
        Asked {
            to: url.clone(),
            origin: url,
            token: Some(Token::new(token).unwrap()),
            token_advice: String::new(),
            clock: Clock::system(),
        }
    }

    #[test]
    fn error_words_are_those_of_particle() {
        let words = |body: &str| error_words(body.as_bytes());
        let expired = r#"{"error":"invalid_token","error_description":"The access token expired"}"#;
        assert_eq!(words(expired), "The access token expired");
        let denied = r#"{"ok":false,"error":"Permission Denied","info":"unknown device"}"#;
        assert_eq!(words(denied), "Permission Denied: unknown device");
        for other in ["<html>", "", "[1]", r#"{"error":7}"#, r#"{"error":""}"#] {
            assert_eq!(words(other), "", "{other}");
        }
    }

    #[test]
    fn quotes_are_plain_short_and_without_the_token() {
        let asked = asked("not-a-real-token");
        assert_eq!(asked.quotable("a\u{1b}[31m\r\nb"), "a[31mb");
        assert_eq!(asked.quotable("x not-a-\u{7}real-token y"), "x *** y");
        assert_eq!(asked.quotable(&"é".repeat(500)).chars().count(), QUOTE_CHARS_MAX);
    }

    #[test]
    fn redirects_stay_within_the_origin() {
        let asked = asked("t");
        let redirected = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, location.parse().unwrap());
            asked.redirected(StatusCode::FOUND, &headers)
        };
        for within in ["/v2", "https://cloud.example:443/v2", "//cloud.example/v2"] {
            assert!(matches!(redirected(within), Answer::Redirected(_)), "{within}");
        }
        for outside in [
            "http://cloud.example/v1",
            "https://cloud.example:444/v1",
            "https://evil.example/?access_token=secret",
            "//evil.example/secret",
        ] {
            let Answer::Failed { kind: FailureKind::Redirect, detail, .. } = redirected(outside)
            else {
                panic!("{outside}");
            };
            assert!(detail.contains("https://cloud.example:443 redirects to"), "{detail}");
            assert!(!detail.contains("secret"), "{detail}");
        }
    }

    #[test]
    fn loopback_is_known_in_each_spelling() {
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://a.localhost", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:8", true),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
