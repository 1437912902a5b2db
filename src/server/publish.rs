//! What clients publish, on its way to the cloud: who may, how much, and how long it takes.
//!
//! Law: the broker's own token is at stake. So nothing is passed on unless the operator
//! switched it on, and where access is on, the key allows it; no page of another origin can publish
//! through its visitors' browsers, and every client and all together have a bound.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;

use crate::{
    model::Moment,
    telemetry::PublishOutcome,
    upstream::publish::{Answer, Api, Draft, FunctionCall, PublishError, Sender},
};

use super::{allowance::Allowance, body, error::Error};

/// What of publishing is switched on, and its bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Events are passed on.
    pub enabled: bool,
    /// Function calls are passed on.
    pub functions: bool,
    /// Longest time for the cloud to answer.
    pub timeout: Duration,
    /// Requests passed on at the same time, those whose body is still on its way included.
    pub in_flight_max: usize,
    /// Requests a second of one address (IPv6: of one /64).
    pub per_second: f64,
    /// Requests of one address at once.
    pub burst: u32,
}

/// Where requests to publish are handed in.
#[derive(Debug)]
pub(super) struct Desk {
    config: Config,
    /// None if the upstream has nowhere to publish to.
    api: Option<Api>,
    allowance: Mutex<Allowance>,
    in_flight: Semaphore,
}

/// What is to be passed on.
#[derive(Debug)]
pub(super) enum Wish {
    /// An event.
    Event(Sender),
    /// A function of a device.
    Function {
        /// Its id or name.
        device: String,
        /// The function's name.
        function: String,
    },
}

impl Desk {
    pub(super) fn new(config: Config, api: Option<Api>, now: Moment) -> Desk {
        let allowance = Allowance::new(config.per_second, config.burst, now);
        let in_flight = Semaphore::new(config.in_flight_max);
        Desk { config, api, allowance: Mutex::new(allowance), in_flight }
    }

    /// True if events are passed on.
    pub(super) fn passes_events(&self) -> bool {
        self.api.is_some() && self.config.enabled
    }

    /// True if function calls are passed on.
    pub(super) fn passes_functions(&self) -> bool {
        self.api.is_some() && self.config.functions
    }

    /// Passes one request on. `may` says whether an event of a name may be published.
    ///
    /// # Errors
    /// If it is refused here, or the cloud gave no answer.
    pub(super) async fn hand_in(
        &self,
        wish: Wish,
        may: impl FnOnce(&str) -> Result<(), Error>,
        headers: &HeaderMap,
        body: Body,
        address: IpAddr,
        now: Moment,
    ) -> Result<Answer, Error> {
        let is_on = match wish {
            Wish::Event(_) => self.config.enabled,
            Wish::Function { .. } => self.config.functions,
        };
        let setting = match wish {
            Wish::Event(_) => "publish.enabled",
            Wish::Function { .. } => "publish.functions",
        };
        let Some(api) = self.api.as_ref().filter(|_| is_on) else {
            return Err(Error::PublishOff { setting });
        };
        self.allow(address, now)?;
        // Held while the body comes, so that bodies are bounded with it.
        let Ok(_place) = self.in_flight.try_acquire() else {
            return Err(Error::PublishBusy { retry_secs: 1 });
        };
        let body = body::read(body).await?;
        let answer = match wish {
            Wish::Event(sender) => {
                let draft = Draft::parse(headers, &body).map_err(Error::Draft)?;
                may(draft.name())?;
                api.publish(&sender, &draft).await
            }
            Wish::Function { device, function } => {
                let call = FunctionCall::parse(device, function, headers, &body);
                api.call(&call.map_err(Error::Draft)?).await
            }
        };
        answer.map_err(|error| {
            tracing::warn!(%error, "a request to publish was not answered by the cloud");
            Error::Publish(error)
        })
    }

    fn allow(&self, address: IpAddr, now: Moment) -> Result<(), Error> {
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        allowance.take(address, now).map_err(|wait| {
            // Rounded up: who comes when told is not told again.
            let retry_secs = wait.as_secs_f64().ceil().max(1.0) as u64;
            Error::PublishTooOften { retry_secs }
        })
    }
}

/// What came of a request to publish.
pub(super) fn outcome(answered: &Result<Answer, Error>) -> PublishOutcome {
    match answered {
        Ok(answer) if answer.status.is_success() => PublishOutcome::Accepted,
        Ok(_) => PublishOutcome::Refused,
        Err(error) => error.publish_outcome(),
    }
}

/// The cloud's answer as it goes to the client.
pub(super) fn response(answer: Answer) -> http::Response<Body> {
    let mut response = http::Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(retry_after) = answer.retry_after {
        headers.insert(header::RETRY_AFTER, retry_after);
    }
    response
}

/// The status for a cloud that gave no answer.
pub(super) fn status_of(error: &PublishError) -> StatusCode {
    match error {
        PublishError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        PublishError::Token(_) | PublishError::Unreachable(_) | PublishError::Answer { .. } => {
            StatusCode::BAD_GATEWAY
        }
    }
}
