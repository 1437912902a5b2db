//! Webhooks of the cloud on their way in: who may post, how much at a time, and what they are told.
//!
//! Law: nobody posts without the secret. What is answered well has its position; what there is no
//! room for is told to come again, which the cloud does.

use std::sync::{Mutex, PoisonError};

use axum::{
    body::Body,
    extract::{Request as HttpRequest, State},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, Method, header};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use url::form_urlencoded;

use crate::{
    model::{Moment, json::Object},
    telemetry::WebhookOutcome,
    upstream::{
        ingress::Ingress,
        token::{Token, TokenError, TokenSource},
        webhook::Delivery,
    },
};

use super::{App, body, error::Error, routes::JSON_HEAD};

/// Age at which a secret that was read from a file is read again, in microseconds.
const SECRET_AGE_MAX_US: u64 = 2_000_000;
/// A header for the secret, for templates that have no use for `Authorization`.
const SECRET_HEADER: HeaderName = HeaderName::from_static("x-webhook-secret");

/// Who may post, and how much.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the cloud shows. [`TokenSource::None`]: nobody may post.
    pub secret: TokenSource,
    /// Requests at the same time, those whose body is still on its way included.
    pub in_flight_max: usize,
}

/// Where webhooks are handed in.
#[derive(Debug)]
pub(super) struct Desk {
    config: Config,
    /// None if there is no secret.
    ingress: Option<Ingress>,
    in_flight: Semaphore,
    /// The secret as it was last read, and when.
    read: Mutex<Option<(Token, Moment)>>,
}

impl Desk {
    pub(super) fn new(config: Config, ingress: Option<Ingress>) -> Desk {
        let in_flight = Semaphore::new(config.in_flight_max);
        Desk { config, ingress, in_flight, read: Mutex::new(None) }
    }

    /// True if events may come by webhook.
    pub(super) fn is_on(&self) -> bool {
        self.ingress.is_some()
    }

    /// Takes one webhook's event in. True if it was passed on, false if it was there already.
    async fn hand_in(&self, request: HttpRequest, now: Moment) -> Result<bool, Error> {
        let Some(ingress) = &self.ingress else { return Err(Error::IngestOff) };
        // Held while the body comes, so that bodies are bounded with it.
        let Ok(_place) = self.in_flight.try_acquire() else { return Err(BUSY) };
        let (head, body) = request.into_parts();
        let query = head.uri.query();
        let secret = self.secret(now).await?;
        if !shows(&head.headers, query, &secret) {
            return Err(Error::WebhookSecret);
        }
        let body = body::read(body).await?;
        let delivery = Delivery::parse(query, &head.headers, &body).map_err(Error::Webhook)?;
        ingress.hand_in(delivery).await.map_err(|_| BUSY)
    }

    async fn secret(&self, now: Moment) -> Result<Token, Error> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((secret, at)) = read
            && (!self.config.secret.can_change()
                || now.mono_us < at.mono_us.saturating_add(SECRET_AGE_MAX_US))
        {
            return Ok(secret);
        }
        let source = self.config.secret.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let secret = match read {
            Ok(Ok(Some(secret))) => Ok(secret),
            Ok(Ok(None)) => return Err(Error::IngestOff),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TokenError::Empty), // the runtime is going down
        };
        let secret = secret.map_err(|error| {
            tracing::error!(%error, "the secret of webhooks cannot be read (setting ingest.secret_file)");
            BUSY
        })?;
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((secret.clone(), now));
        Ok(secret)
    }
}

/// The cloud is to post it again.
const BUSY: Error = Error::IngestBusy { retry_secs: 1 };

/// `POST /ingest/particle`: an event, as a webhook of the Particle cloud posts it.
pub(super) async fn particle(
    State(app): State<App>,
    request: HttpRequest<Body>,
) -> Result<Response, Error> {
    if request.method() != Method::POST {
        return Err(Error::not_allowed(request.method(), "POST"));
    }
    let taken = app.ingest.hand_in(request, app.clock.now()).await;
    app.telemetry.webhook(match &taken {
        Ok(true) => WebhookOutcome::Accepted,
        Ok(false) => WebhookOutcome::Copy,
        Err(Error::WebhookSecret | Error::IngestOff) => WebhookOutcome::Unauthorized,
        Err(Error::IngestBusy { .. }) => WebhookOutcome::Limited,
        Err(_) => WebhookOutcome::Invalid,
    });
    let copy = if taken? { "false" } else { "true" };
    let answer = Object::new().raw("ok", "true").raw("copy", copy).finish();
    Ok((JSON_HEAD, answer).into_response())
}

/// True if a request shows the secret, in one of the places that webhooks can put it.
fn shows(headers: &HeaderMap, query: Option<&str>, secret: &Token) -> bool {
    let header = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header(&header::AUTHORIZATION).unwrap_or_default();
    let (scheme, shown) = authorization.split_once(' ').unwrap_or_default();
    let bearer = scheme.eq_ignore_ascii_case("bearer").then_some(shown.trim());
    let basic = scheme.eq_ignore_ascii_case("basic").then(|| password(shown.trim())).flatten();
    let own = header(&SECRET_HEADER).map(str::trim);
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let in_query = pairs.into_iter().find(|(name, _)| name == "secret").map(|(_, value)| value);
    [bearer, basic.as_deref(), own, in_query.as_deref()]
        .into_iter()
        .flatten()
        // Of what is wrong only the length shows in the time it takes.
        .any(|shown| shown.as_bytes().ct_eq(secret.expose().as_bytes()).into())
}

/// The password of `user:password` in Base64 (RFC 7617): webhooks have fields for both.
fn password(encoded: &str) -> Option<String> {
    let text = String::from_utf8(BASE64.decode(encoded.as_bytes()).ok()?).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_secret_is_seen_in_each_of_its_places_and_nothing_else_is() {
        let secret = Token::new("not-a-real-secret").unwrap();
        let with = |name: HeaderName, value: &'static str| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            shows(&headers, None, &secret)
        };
        assert!(with(header::AUTHORIZATION, "Bearer not-a-real-secret"));
        assert!(with(header::AUTHORIZATION, "bearer  not-a-real-secret"));
        // particle:not-a-real-secret
        assert!(with(header::AUTHORIZATION, "Basic cGFydGljbGU6bm90LWEtcmVhbC1zZWNyZXQ="));
        assert!(with(SECRET_HEADER, "not-a-real-secret"));
        let query = |query| shows(&HeaderMap::new(), Some(query), &secret);
        assert!(query("event=a&secret=not%2Da-real-secret"));
        assert!(!query("secret=") && !query("secret=not-a-real-secre") && !query("x"));
        for wrong in ["Bearer", "Bearer ", "Bearer x", "not-a-real-secret", "Basic !", "Basic eDp5"]
        {
            assert!(!with(header::AUTHORIZATION, wrong), "{wrong}");
        }
        assert!(!shows(&HeaderMap::new(), None, &secret));
    }
}
