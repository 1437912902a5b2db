//! Follows a broker: one stream after the other, each from where the last one got to.
//!
//! Law: only what a person has to mend ends it, and only as long as nothing has ever come; then
//! it says what. All else is waited for and tried again, no sooner than the broker asks, within
//! the wait that the user allows.

use std::{error::Error as _, fmt::Write as _, time::Duration};

use anyhow::anyhow;
use reqwest::{
    Client, Response, StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use crate::{
    clock::Clock,
    config::duration_text,
    upstream::schedule::{Backoff, Trouble, retry_after},
};

use super::{
    super::credential,
    output::{Output, Over},
    reader::{Hello, Line, Reader, Said},
    show::visible,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the head of the answer; the broker sends it at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// How much of a refusal is read for its reason.
const REFUSAL_BYTES_MAX: usize = 4096;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Characters of somebody else's words that are quoted.
const QUOTE_CHARS_MAX: usize = 200;

/// What to follow.
#[derive(Debug)]
pub(super) struct Follow {
    /// The broker's base address.
    pub(super) base: Url,
    /// `prefix`, `name`, `device` and `since`, as they go into the query.
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) snapshot: bool,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) retry_max: Duration,
    pub(super) stale_after: Duration,
}

/// How an attempt or a stream ended.
#[derive(Debug)]
enum End {
    /// Nothing more is to be written.
    Over(Over),
    /// It can be tried again.
    Again {
        trouble: Trouble,
        /// No sooner than this.
        wait_min: Duration,
        reason: String,
    },
    /// Somebody has to mend it.
    Mend(String),
}

/// Follows until the output is over.
///
/// # Errors
/// What has to be mended, if nothing has ever come.
pub(super) async fn follow(
    plan: &Follow,
    reader: &mut Reader,
    output: &mut Output,
    clock: &Clock,
) -> anyhow::Result<Over> {
    let mut follower = Follower {
        client: client(plan)?,
        plan,
        clock,
        backoff: Backoff::new(BACKOFF_MIN.min(plan.retry_max), plan.retry_max),
        has_begun: false,
        told: None,
    };
    let mut rng = fastrand::Rng::new();
    loop {
        let end = follower.attempt(reader, output).await;
        reader.cut();
        let (trouble, wait_min, reason) = match end {
            End::Over(over) => return Ok(over),
            End::Mend(reason) if !follower.has_begun => {
                return Err(anyhow!("{}: {reason}", follower.place()));
            }
            End::Mend(reason) => (Trouble::Network, Duration::ZERO, reason),
            End::Again { trouble, wait_min, reason } => (trouble, wait_min, reason),
        };
        let delay = follower.backoff.delay(trouble, &mut rng).max(wait_min).min(plan.retry_max);
        follower.trouble(&reason, delay);
        tokio::time::sleep(delay).await;
    }
}

struct Follower<'a> {
    client: Client,
    plan: &'a Follow,
    clock: &'a Clock,
    backoff: Backoff,
    /// A broker has answered at least once.
    has_begun: bool,
    /// The trouble told since then.
    told: Option<String>,
}

impl Follower<'_> {
    /// One request and its stream, to its end.
    async fn attempt(&mut self, reader: &mut Reader, output: &mut Output) -> End {
        let request = self.request(reader, output);
        let response = match timeout(HEAD_TIMEOUT, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return self.failed(&error.without_url()),
            Err(_) => {
                return again(format!("no answer within {}", duration_text(HEAD_TIMEOUT)));
            }
        };
        if let Some(end) = self.refusal(&response) {
            return match end {
                Refusal::Judged(end) => end,
                Refusal::Status => self.refused(response).await,
            };
        }
        let since = self.clock.now();
        let end = self.stream(response, reader, output).await;
        let lived_us = self.clock.now().mono_us.saturating_sub(since.mono_us);
        self.backoff.stream_over(Duration::from_micros(lived_us));
        end
    }

    fn request(&self, reader: &Reader, output: &Output) -> reqwest::RequestBuilder {
        let mut url = self.plan.base.clone();
        if !url.path().ends_with("/events") {
            url.set_path(&format!("{}/events", url.path().trim_end_matches('/')));
        }
        let position = reader.position().map(|position| position.to_string());
        {
            let mut query = url.query_pairs_mut();
            for (name, value) in &self.plan.query {
                // A position says it better, and has the same effect on the broker.
                if *name != "since" || position.is_none() {
                    query.append_pair(name, value);
                }
            }
            if self.plan.snapshot && reader.wants_snapshot() {
                query.append_pair("snapshot", "true");
            }
            if let Some(events) = output.events_left() {
                query.append_pair("limit", &events.to_string());
            }
            // Beside the header, which a proxy may drop.
            if let Some(position) = &position {
                query.append_pair("last_event_id", position);
            }
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(id) = position.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert("last-event-id", id);
        }
        for (name, value) in &self.plan.headers {
            headers.append(name, value.clone());
        }
        self.client.get(url).headers(headers)
    }

    async fn stream(
        &mut self,
        mut response: Response,
        reader: &mut Reader,
        output: &mut Output,
    ) -> End {
        let mut wait_min = Duration::ZERO;
        let mut goodbye = None;
        loop {
            let chunk = match timeout(self.plan.stale_after, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => {
                    let reason = goodbye.unwrap_or_else(|| "the stream ended".to_owned());
                    return End::Again { trouble: Trouble::Network, wait_min, reason };
                }
                Ok(Err(error)) => {
                    let reason = match goodbye {
                        Some(goodbye) => goodbye,
                        None => format!("the connection broke ({})", chain(&error.without_url())),
                    };
                    return End::Again { trouble: Trouble::Network, wait_min, reason };
                }
                Err(_) => {
                    let silence = duration_text(self.plan.stale_after);
                    return again(format!("nothing came for {silence}, not even a keep-alive"));
                }
            };
            let mut lines = Vec::new();
            let mut is_strange = false;
            reader.feed(&chunk, |said| match said {
                Said::Hello(hello) => self.greeted(&hello),
                Said::Line(line) => lines.push(line),
                Said::Reached(position) => lines.push(reached(position)),
                Said::Retry(ms) => {
                    self.backoff.floor(Duration::from_millis(ms).min(self.plan.retry_max));
                }
                Said::Bye { reason, retry_ms } => {
                    wait_min = Duration::from_millis(retry_ms);
                    goodbye = Some(format!("the broker said goodbye ({})", quoted(&reason)));
                }
                Said::Oversize { bytes } => {
                    note(&format!("an event of {bytes} bytes is too large and was left out"));
                }
                Said::Stranger => is_strange = true,
            });
            if let Err(over) = output.write(lines).await {
                return End::Over(over);
            }
            if is_strange {
                let reason = "an event stream is there, but not a Fanlight broker's; for the Particle cloud \
                              there is --cloud";
                return End::Mend(reason.to_owned());
            }
        }
    }

    fn greeted(&mut self, hello: &Hello) {
        let trouble = self.told.take();
        if !self.has_begun || trouble.is_some() {
            let version = quoted(&hello.version);
            let again = if self.has_begun { " again" } else { "" };
            let upstream = match hello.upstream.as_str() {
                "live" => String::new(),
                state => format!("; its upstream is {}", quoted(state)),
            };
            // Without trouble before, only a person wants to know.
            if trouble.is_some() || is_watched() {
                note(&format!(
                    "connected{again} to {}, Fanlight {version}{upstream}",
                    self.place()
                ));
            }
        }
        self.has_begun = true;
        if let Some(id) = hello.elsewhere {
            note(&format!(
                "the stream begins at {id} and not where it was asked to: a proxy in between drops \
                 Last-Event-ID, and what lies between may be missing"
            ));
        }
    }

    /// Tells a trouble once.
    fn trouble(&mut self, reason: &str, delay: Duration) {
        if self.told.as_deref() == Some(reason) {
            return;
        }
        note(&format!("{}: {reason}; trying again in {:.1} s", self.place(), delay.as_secs_f64()));
        self.told = Some(reason.to_owned());
    }

    fn place(&self) -> String {
        let base = &self.plan.base;
        let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
        let path = base.path().trim_end_matches('/');
        format!("{}://{}{port}{path}", base.scheme(), base.host_str().unwrap_or_default())
    }

    /// What the head says against a stream, if anything.
    fn refusal(&self, response: &Response) -> Option<Refusal> {
        let status = response.status();
        let text = |name: HeaderName| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().trim().to_owned()
        };
        if status.is_redirection() {
            let to = quoted(&text(header::LOCATION));
            return Some(Refusal::Judged(End::Mend(format!(
                "it answered {} and points at {to}; if that is the broker, give its address",
                status.as_u16()
            ))));
        }
        if status != StatusCode::OK {
            return Some(Refusal::Status);
        }
        let kind = text(header::CONTENT_TYPE);
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Some(Refusal::Judged(End::Mend(format!(
                "it answered with content type `{}` in place of text/event-stream; is a broker there?",
                quoted(&kind)
            ))));
        }
        let encoding = text(header::CONTENT_ENCODING);
        (!encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")).then(|| {
            Refusal::Judged(End::Mend(format!(
                "a proxy in between compresses the stream (`{}`); fanlight check --through says what to do",
                quoted(&encoding)
            )))
        })
    }

    /// Judges a status by what can be done about it.
    async fn refused(&self, mut response: Response) -> End {
        let status = response.status().as_u16();
        let headers = response.headers();
        let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let told = header(header::RETRY_AFTER)
            .and_then(|text| retry_after(text, header(header::DATE), self.clock.now().wall_ms));
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
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut reason = format!("it answered {status}");
        if let Some(words) = body["error_description"].as_str() {
            let _ = write!(reason, ": {}", quoted(words));
        }
        match status {
            408 | 425 | 429 | 500..=599 => {
                let trouble = match told {
                    Some(_) => Trouble::RateLimited { retry_after: told },
                    None => Trouble::Network,
                };
                End::Again { trouble, wait_min: Duration::ZERO, reason }
            }
            401 | 403 | 407 => End::Mend(format!(
                "{reason}; {}, and to a proxy in front of it with --header",
                credential::ADVICE
            )),
            404 => End::Mend(format!("{reason}; is this the broker's own address, path included?")),
            _ => End::Mend(reason),
        }
    }

    fn failed(&self, error: &reqwest::Error) -> End {
        let chain = chain(error);
        // The TLS library is not among our dependencies, so its errors are known by their words.
        if self.plan.base.scheme() == "https" && chain.contains("certificate") {
            return End::Mend(format!(
                "its certificate does not hold ({chain}); check its name, and the clock and root \
                 certificates of this machine"
            ));
        }
        again(format!("cannot connect ({chain})"))
    }
}

enum Refusal {
    Judged(End),
    /// The status and the body have to be looked at.
    Status,
}

fn again(reason: String) -> End {
    End::Again { trouble: Trouble::Network, wait_min: Duration::ZERO, reason }
}

/// A place that was reached, for the file that keeps it.
fn reached(position: crate::model::Position) -> Line {
    let control = Some("checkpoint".to_owned());
    Line { json: String::new(), control, position: Some(position) }
}

fn client(plan: &Follow) -> anyhow::Result<Client> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("fanlight/", env!("CARGO_PKG_VERSION")));
    if is_loopback(&plan.base) {
        builder = builder.no_proxy();
    }
    if plan.base.scheme() == "http" {
        // No root certificates are needed, so a bare container need not have any.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| anyhow!("cannot set up the HTTP client: {}", chain(&error)))
}

/// Proxies of the environment are never asked for these.
pub(in crate::cli) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The messages of an error's causes, without the layers above them.
pub(in crate::cli) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    quoted(&text)
}

/// Somebody else's words: short, and without what moves a cursor.
pub(in crate::cli) fn quoted(words: &str) -> String {
    visible(words.trim()).chars().take(QUOTE_CHARS_MAX).collect()
}

/// Trouble goes to standard error: what is printed stays what was asked for.
pub(super) fn note(text: &str) {
    use std::io::Write as _;
    // That nobody reads it is no failure.
    let _ = writeln!(std::io::stderr().lock(), "fanlight: {text}");
}

fn is_watched() -> bool {
    use std::io::IsTerminal as _;
    std::io::stderr().is_terminal()
}
