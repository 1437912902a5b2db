//! One stream, watched: what its head said, and when what of it came.
//!
//! Law: nothing is judged here. At most [`EVENTS_MAX`] events are remembered.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{
    Client, Version,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::{
    cli::tail::{chain, quoted},
    model::Position,
    upstream::decode::{Decoder, Item, Limits},
};

const EVENTS_MAX: usize = 50_000;
/// Of a body that is no stream, for its first words.
const BODY_BYTES_MAX: usize = 2048;

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) url: Url,
    /// As browsers do, unlike programs: `Accept-Encoding: gzip`.
    pub(super) takes_compression: bool,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// What came. Times count from the common start of all that are watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Why there was no answer.
    pub(super) failure: Option<String>,
    /// The request went out, and not even a head came back in time.
    pub(super) is_held: bool,
    pub(super) status: u16,
    pub(super) is_http_1_0: bool,
    /// Lower-case names; values made visible.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) head_at: Option<Duration>,
    /// The first byte of the body.
    pub(super) first_at: Option<Duration>,
    pub(super) last_at: Option<Duration>,
    /// The longest time between two bytes of the body.
    pub(super) silence_max: Duration,
    /// Where the stream begins, as its hello says.
    pub(super) hello: Option<(Duration, Position)>,
    /// A goodbye in the place of a stream, or at its end.
    pub(super) bye_at: Option<Duration>,
    /// Everything with a position but the hello.
    pub(super) events: BTreeMap<u64, Duration>,
    pub(super) keepalives: u64,
    pub(super) ended: Option<(Duration, String)>,
    /// The beginning of a body that is no stream.
    pub(super) body: String,
}

impl Watched {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn is_stream(&self) -> bool {
        let essence = self.header("content-type").split(';').next().unwrap_or_default().trim();
        self.status == 200 && essence.eq_ignore_ascii_case("text/event-stream")
    }

    /// Compressed, by what name; empty if it is not.
    pub(super) fn encoding(&self) -> &str {
        match self.header("content-encoding") {
            "identity" => "",
            encoding => encoding,
        }
    }
}

/// Asks and watches until `until`, or with `hello_is_all` until the stream has begun.
pub(super) async fn watch(
    client: &Client,
    ask: &Ask,
    start: Instant,
    until: Instant,
    hello_is_all: bool,
) -> Watched {
    let mut watched = Watched::default();
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    let encoding = if ask.takes_compression { "gzip, deflate, br, zstd" } else { "identity" };
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.extend(ask.headers.iter().cloned().map(|(name, value)| (Some(name), value)));
    let request = client.get(ask.url.clone()).headers(headers);
    let mut response = match timeout_at(until, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            watched.failure = Some(chain(&error.without_url()));
            return watched;
        }
        Err(_) => {
            watched.is_held = true;
            return watched;
        }
    };
    watched.head_at = Some(start.elapsed());
    watched.status = response.status().as_u16();
    watched.is_http_1_0 = response.version() < Version::HTTP_11;
    for (name, value) in response.headers() {
        let value = quoted(value.to_str().unwrap_or("?"));
        watched.headers.insert(name.as_str().to_owned(), value);
    }
    let mut reading = Reading { decoder: Decoder::new(Limits::default()), is_begun: false };
    let is_text = watched.is_stream() && watched.encoding().is_empty();
    loop {
        let chunk = match timeout_at(until, response.chunk()).await {
            Err(_) => return watched,
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => {
                watched.ended = Some((start.elapsed(), "in good order".to_owned()));
                return watched;
            }
            Ok(Err(error)) => {
                watched.ended = Some((start.elapsed(), chain(&error.without_url())));
                return watched;
            }
        };
        let now = start.elapsed();
        watched.first_at.get_or_insert(now);
        if let Some(last) = watched.last_at.replace(now) {
            watched.silence_max = watched.silence_max.max(now.saturating_sub(last));
        }
        if is_text {
            reading.feed(&chunk, now, &mut watched);
        } else if watched.body.len() < BODY_BYTES_MAX {
            watched.body.push_str(&String::from_utf8_lossy(&chunk));
        }
        if hello_is_all && watched.hello.is_some() {
            return watched;
        }
    }
}

struct Reading {
    decoder: Decoder,
    is_begun: bool,
}

impl Reading {
    fn feed(&mut self, bytes: &[u8], now: Duration, watched: &mut Watched) {
        // Line by line: so the id the decoder has is that of the event it gave.
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut name = None;
            self.decoder.feed(piece, |item| {
                if let Item::Event { name: one, .. } = item {
                    name = Some(one.to_owned());
                }
            });
            let Some(name) = name else { continue };
            let id: Option<Position> = self.decoder.last_event_id().parse().ok();
            match (name.as_str(), id) {
                ("fanlight.bye", _) => watched.bye_at = Some(now),
                ("fanlight.hello", Some(id)) if !self.is_begun => {
                    self.is_begun = true;
                    watched.hello = Some((now, id));
                }
                (_, Some(id)) if watched.events.len() < EVENTS_MAX => {
                    watched.events.entry(id.seq.0).or_insert(now);
                }
                _ => {}
            }
        }
        watched.keepalives = self.decoder.comments();
    }
}
