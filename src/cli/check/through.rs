//! `fanlight check --through URL`: does a reverse proxy pass streams on as the broker sends them?
//!
//! Law: the proxy is compared with the broker itself, asked directly at the same time. Some eight
//! requests are made, and nothing is changed.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use anyhow::anyhow;
use reqwest::{
    Client, StatusCode,
    header::{self, HeaderName, HeaderValue},
    redirect,
};
use tokio::{
    io::AsyncReadExt as _,
    time::{Instant, timeout},
};
use url::Url;

use crate::cli::{
    Failure,
    tail::{chain, is_loopback},
};

use super::{
    finding::Finding,
    judge::{Seen, Upgraded, judge},
    progress::Progress,
    watch::{Ask, Watched, watch},
};

/// For one short question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A key that the handshake wants; what it is does not matter.
const WEBSOCKET_KEY: &str = "ZmFubGlnaHQtY2hlY2stMQ==";
const REFUSAL_BYTES_MAX: usize = 4096;

/// What is compared.
pub(super) struct Through {
    pub(super) proxy: Url,
    pub(super) direct: Url,
    pub(super) watch_for: Duration,
    /// For the proxy alone.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// What the broker asks for, on both ways.
    pub(super) bearer: Option<HeaderValue>,
}

impl Through {
    /// What the broker is told on both ways.
    fn common(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.bearer.clone().map(|bearer| (header::AUTHORIZATION, bearer)).into_iter()
    }
}

/// The broker as this machine reaches it.
pub(super) fn direct_url(listen: SocketAddr) -> Result<Url, Failure> {
    Url::parse(&format!("http://{listen}"))
        .map_err(|error| Failure::Failed(anyhow!("no address in listen: {error}")))
}

/// Watches both ways and judges.
pub(super) async fn check(through: &Through) -> Result<Vec<Finding>, Failure> {
    let progress = Progress::new();
    let direct_client = client(&through.direct)?;
    let client = client(&through.proxy)?;
    let start = Instant::now();
    let until = start + through.watch_for;
    let events = |base: &Url, takes_compression| Ask {
        url: below(base, "events"),
        takes_compression,
        headers: through.common().collect(),
    };
    let of_proxy = |takes_compression| Ask {
        headers: through.headers.iter().cloned().chain(through.common()).collect(),
        ..events(&through.proxy, takes_compression)
    };
    let (direct_ask, plain_ask, browser_ask) =
        (events(&through.direct, false), of_proxy(false), of_proxy(true));
    // Enough to know that there is a broker to compare with, before half a minute goes by.
    let soon = start + ANSWER_TIMEOUT.min(through.watch_for);
    let first = watch(&direct_client, &direct_ask, start, soon, true).await;
    let Some((_, position)) = first.hello else {
        return Err(no_broker(&through.direct, &first));
    };
    let streams = async {
        tokio::join!(
            watch(&direct_client, &direct_ask, start, until, false),
            watch(&client, &plain_ask, start, until, false),
            watch(&client, &browser_ask, start, until, false),
        )
    };
    let questions = async {
        let before_all = format!("{}-0", position.epoch);
        // Short ones, which end after an event: then even what is held back comes.
        let mut short_ask = of_proxy(true);
        short_ask.url.set_query(Some(&format!("limit=1&last_event_id={before_all}")));
        let mut resume_ask = of_proxy(false);
        resume_ask.url.set_query(Some("limit=1"));
        if let Ok(value) = HeaderValue::try_from(before_all) {
            resume_ask.headers.push((HeaderName::from_static("last-event-id"), value));
        }
        let until = Instant::now() + ANSWER_TIMEOUT;
        let upgrades = async {
            match upgrade(&client, through, true).await {
                Upgraded::ForeignOrigin => {
                    (Upgraded::ForeignOrigin, Some(upgrade(&client, through, false).await))
                }
                upgraded => (upgraded, None),
            }
        };
        let (resumed, short, (websocket, websocket_of_program), metrics_status) = tokio::join!(
            watch(&client, &resume_ask, start, until, true),
            watch(&client, &short_ask, start, until, true),
            upgrades,
            status(&client, through, "metrics"),
        );
        (resumed, short, websocket, websocket_of_program, metrics_status)
    };
    let (
        (direct, plain, browser),
        (resumed, short, websocket, websocket_of_program, metrics_status),
    ) = tokio::select! {
        seen = async { tokio::join!(streams, questions) } => seen,
        never = ticks(&progress, start, through.watch_for) => match never {},
    };
    drop(progress);
    Ok(judge(&Seen {
        direct,
        plain,
        browser,
        resumed,
        short,
        websocket,
        websocket_of_program,
        metrics_status,
        watched_for: through.watch_for,
    }))
}

async fn ticks(progress: &Progress, start: Instant, all: Duration) -> Infallible {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let (passed, all) = (start.elapsed().as_secs(), all.as_secs());
        progress.tell(&format!("watching both streams: {passed} of {all} s"));
    }
}

fn no_broker(direct: &Url, first: &Watched) -> Failure {
    let why = match &first.failure {
        Some(failure) => failure.clone(),
        None if first.bye_at.is_some() => "it says goodbye: it is full, or ends".to_owned(),
        None if first.is_held => "no answer in time".to_owned(),
        None if first.status == 401 => {
            format!("it asks who comes: {}", crate::cli::credential::ADVICE)
        }
        None => format!("it answered {}, but not as Fanlight does", first.status),
    };
    Failure::Failed(anyhow!(
        "no broker to compare with at {direct}: {why}; name the broker's own address with --direct"
    ))
}

fn client(url: &Url) -> Result<Client, Failure> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(ANSWER_TIMEOUT)
        .user_agent(concat!("fanlight/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) {
        builder = builder.no_proxy();
    }
    if url.scheme() == "http" {
        // No root certificates are needed, so a bare container need not have any.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        Failure::Failed(anyhow!("cannot set up the HTTP client: {}", chain(&error)))
    })
}

fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let root = base.path().trim_end_matches('/').trim_end_matches("/events");
    url.set_path(&format!("{root}/{path}"));
    url
}

/// A WebSocket's handshake through the proxy, and whether anything comes.
async fn upgrade(client: &Client, through: &Through, has_origin: bool) -> Upgraded {
    let mut request = client
        .get(below(&through.proxy, "ws"))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "fanlight.v1")
        .header("sec-websocket-key", WEBSOCKET_KEY);
    for (name, value) in through.headers.iter().cloned().chain(through.common()) {
        request = request.header(name, value);
    }
    if has_origin {
        request = request.header(header::ORIGIN, through.proxy.origin().ascii_serialization());
    }
    let mut response = match timeout(ANSWER_TIMEOUT, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Upgraded::Failed(chain(&error.without_url())),
        Err(_) => return Upgraded::Failed("not in time".to_owned()),
    };
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
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
        let _ = timeout(ANSWER_TIMEOUT, read).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        return match (status, body["error"].as_str()) {
            (StatusCode::FORBIDDEN, Some("foreign_origin")) => Upgraded::ForeignOrigin,
            _ => Upgraded::Refused(status.as_u16()),
        };
    }
    let hello = async {
        let mut socket = response.upgrade().await.ok()?;
        // The first byte of a whole text frame.
        (socket.read_u8().await.ok()? == 0x81).then_some(())
    };
    match timeout(ANSWER_TIMEOUT, hello).await {
        Ok(Some(())) => Upgraded::Open,
        _ => Upgraded::Mute,
    }
}

/// As everyone who comes is answered: without what the broker asks for.
async fn status(client: &Client, through: &Through, path: &str) -> Option<u16> {
    let mut request = client.get(below(&through.proxy, path));
    for (name, value) in &through.headers {
        request = request.header(name, value);
    }
    let response = timeout(ANSWER_TIMEOUT, request.send()).await.ok()?.ok()?;
    Some(response.status().as_u16())
}
