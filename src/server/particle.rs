//! The Particle cloud's own routes, `/v1/…`: which of its streams the broker can stand for.
//!
//! Law: a stream is either the one that was asked for or an error that the cloud could have
//! given, with what to do about it. It is never another device's, and never part of what was
//! asked for but by settings that hold for everyone (`upstream.prefix`).

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Extension, Request as HttpRequest, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, StatusCode, Version, header};

use crate::{
    access::{Place, Principal},
    delivery::{Framing, HandoverBody},
    model::{Filter, Transport},
    transport::{
        Wire,
        particle::{self, Address, Whose},
    },
    upstream::{Source, particle::Scope, publish::Sender},
};

use super::{
    App,
    accept::Connection,
    error::Error,
    publish::{self, Wish},
    routes::{open, turned_away},
};

/// True for paths below `/v1`, also with more slashes in front: clients of the cloud send them
/// that were given an address with a slash at its end.
pub(super) fn is_for(path: &str) -> bool {
    path.trim_start_matches('/').starts_with("v1/")
}

/// Answers every path below `/v1`. Errors are whole JSON, for all clients: those of the cloud
/// know no other form.
pub(super) async fn answer(
    State(app): State<App>,
    Extension(connection): Extension<Connection>,
    request: HttpRequest,
) -> Response {
    match turned_away(&app, &connection) {
        Some(error) => {
            let mut response = error.into_response();
            // The place is wanted for someone else.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        None => respond(&app, &connection, request).await.unwrap_or_else(Error::into_response),
    }
}

async fn respond(
    app: &App,
    connection: &Connection,
    request: HttpRequest,
) -> Result<Response, Error> {
    let principal = match *request.method() {
        // A browser asks before it may send a credential.
        Method::OPTIONS => Principal::anyone(),
        _ => {
            let (headers, query) = (request.headers(), request.uri().query());
            app.gate.ask(headers, query, Place::HeaderOrQuery, app.clock.now().wall_ms)?
        }
    };
    let Some(address) = Address::parse(request.uri().path()) else {
        return Err(Error::not_found(request.uri()));
    };
    match (request.method().clone(), address) {
        (Method::GET | Method::HEAD, Address::Events { whose, prefix }) => {
            principal.may_read().map_err(|denied| app.gate.deny(denied))?;
            let filter = filter(&app.reads, &whose, prefix)?;
            stream(app, connection, principal, &request, filter)
        }
        (Method::POST, Address::Events { whose, prefix }) if prefix.is_empty() => {
            principal.may_publish(None).map_err(|denied| app.gate.deny(denied))?;
            let sender = sender(&app.reads, whose);
            pass_on(app, connection, &principal, request, sender.map(Wish::Event)).await
        }
        (Method::POST, Address::Function { device, function }) => {
            principal.may_administer().map_err(|denied| app.gate.deny(denied))?;
            let wish = reaches(&app.reads, &device).map(|()| Wish::Function { device, function });
            pass_on(app, connection, &principal, request, wish).await
        }
        (Method::OPTIONS, _) => {
            Ok((StatusCode::NO_CONTENT, [(header::ALLOW, STREAM_METHODS)]).into_response())
        }
        (Method::GET | Method::HEAD, Address::Function { .. }) => {
            Err(Error::not_found(request.uri()))
        }
        (method, Address::Events { .. }) => Err(Error::not_allowed(&method, STREAM_METHODS)),
        (method, Address::Function { .. }) => Err(Error::not_allowed(&method, "POST, OPTIONS")),
    }
}

/// Methods of the routes of streams.
const STREAM_METHODS: &str = "GET, HEAD, POST, OPTIONS";

fn stream(
    app: &App,
    connection: &Connection,
    principal: Arc<Principal>,
    request: &HttpRequest,
    filter: Filter,
) -> Result<Response, Error> {
    let wishes = particle::request(filter, request.uri().query(), request.headers());
    let wire = Wire::Particle { ids: particle::wants_ids(request.headers()) };
    let session = open(app, connection, principal, wishes, wire, Transport::Particle)?;
    let framing = match request.version() {
        Version::HTTP_11 => Framing::Chunked,
        _ => Framing::Plain,
    };
    let body = Body::new(HandoverBody::new(session, framing, connection.handover.clone()));
    let mut response = (particle::head(), body).into_response();
    if request.method() != Method::HEAD {
        // No second request can follow: the socket has left HTTP by then.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

async fn pass_on(
    app: &App,
    connection: &Connection,
    principal: &Principal,
    request: HttpRequest,
    wish: Result<Wish, Error>,
) -> Result<Response, Error> {
    let wish = wish?;
    let (head, body) = request.into_parts();
    let address = connection.peer.addr.ip();
    let now = app.clock.now();
    let may = |name: &str| match principal.may_publish(Some(name)) {
        Ok(()) => Ok(()),
        Err(denied) => Err(app.gate.deny(denied)),
    };
    let answered = app.publish.hand_in(wish, may, &head.headers, body, address, now).await;
    app.telemetry.publish(publish::outcome(&answered));
    let answer = answered?;
    Ok(publish::response(answer))
}

/// The events asked for, as a filter on what the upstream reads; or the error that the cloud
/// has for a stream that is not there.
fn filter(reads: &Source, whose: &Whose, prefix: String) -> Result<Filter, Error> {
    if whose.is_public && prefix.is_empty() {
        return Err(Error::PrefixMissing);
    }
    let device = narrowed(reads, whose)?;
    let prefixes = if prefix.is_empty() { Vec::new() } else { vec![prefix] };
    let filter = Filter::new(prefixes, Vec::new(), device.into_iter().collect());
    filter.map_err(|error| Error::InvalidParameter(error.into()))
}

/// The device to which the upstream's events are to be narrowed; none for all of them.
fn narrowed(reads: &Source, whose: &Whose) -> Result<Option<String>, Error> {
    let scope = match reads {
        Source::Particle { scope, .. } => scope,
        // Whatever it is, it has no products; its devices are called as they like.
        Source::Sse { .. } => {
            let Whose { org, product, device, .. } = whose;
            return match (org, product, device) {
                (Some(_), ..) => Err(Error::OrgNotFound { reads: reads_in_words(reads) }),
                (None, Some(_), _) => Err(Error::ProductNotFound { reads: reads_in_words(reads) }),
                (None, None, Some(device)) if device.is_empty() => Err(unknown_device(reads)),
                (None, None, device) => Ok(device.clone()),
            };
        }
    };
    let org = match scope {
        Scope::Org { org } => Some(org),
        _ => None,
    };
    let product = match scope {
        Scope::Product { product } | Scope::ProductDevice { product, .. } => Some(product),
        _ => None,
    };
    let one_device = match scope {
        Scope::Device { device } | Scope::ProductDevice { device, .. } => Some(device),
        _ => None,
    };
    if whose.org.is_some() && whose.org.as_ref() != org {
        return Err(Error::OrgNotFound { reads: reads_in_words(reads) });
    }
    // An organization's product cannot be told from its others.
    if whose.product.is_some() && whose.product.as_ref() != product {
        return Err(Error::ProductNotFound { reads: reads_in_words(reads) });
    }
    let elsewhere = || {
        let reads = reads_in_words(reads);
        Error::PermissionDenied { detail: format!("this broker reads {reads}, and nothing else") }
    };
    let is_plain = whose.org.is_none() && whose.product.is_none();
    match (&whose.device, one_device) {
        // All there is of the one device, or of it by the name it is configured with.
        (Some(asked), Some(device)) if asked == device => Ok(None),
        (Some(asked), Some(device)) if is_id(device) => match asked.eq_ignore_ascii_case(device) {
            true => Ok(None),
            false => Err(unknown_device(reads)),
        },
        // What is configured is a name, of a device whose id only the cloud knows; or all
        // devices are read, and the id will pass or not.
        (Some(asked), _) if is_id(asked) => Ok(Some(asked.to_ascii_lowercase())),
        (Some(_), _) => Err(unknown_device(reads)),
        (None, Some(_)) => Err(elsewhere()),
        (None, None) => match scope {
            Scope::Mine if is_plain => Ok(None),
            Scope::Public if whose.is_public => Ok(None),
            Scope::Product { .. } | Scope::Org { .. } if !is_plain => Ok(None),
            _ => Err(elsewhere()),
        },
    }
}

/// Who publishes: whoever the upstream reads, and the token's user in any case.
fn sender(reads: &Source, whose: Whose) -> Result<Sender, Error> {
    let Source::Particle { scope, .. } = reads else {
        return Err(Error::PublishOff { setting: "publish.enabled" });
    };
    match (whose, scope) {
        (Whose { is_public: true, .. } | Whose { device: Some(_), .. }, _) => {
            Err(Error::not_allowed(&Method::POST, "GET, HEAD, OPTIONS"))
        }
        (Whose { org: None, product: None, .. }, _) => Ok(Sender::User),
        (
            Whose { org: None, product: Some(asked), .. },
            Scope::Product { product } | Scope::ProductDevice { product, .. },
        ) if asked == *product => Ok(Sender::Product(asked)),
        (Whose { org: None, product: Some(_), .. }, _) => {
            Err(Error::ProductNotFound { reads: reads_in_words(reads) })
        }
        (Whose { org: Some(asked), product: None, .. }, Scope::Org { org }) if asked == *org => {
            Ok(Sender::Org(asked))
        }
        (Whose { org: Some(_), .. }, _) => Err(Error::OrgNotFound { reads: reads_in_words(reads) }),
    }
}

/// Functions are called on devices of the token's user, or on the one that is read.
fn reaches(reads: &Source, asked: &str) -> Result<(), Error> {
    match reads {
        Source::Particle { scope: Scope::Mine, .. } => Ok(()),
        Source::Particle { scope: Scope::Device { device }, .. }
            if asked.eq_ignore_ascii_case(device) =>
        {
            Ok(())
        }
        _ => Err(unknown_device(reads)),
    }
}

/// A device id as Particle has them. Names can hold other letters, and none is this long
/// and all hex.
fn is_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn unknown_device(reads: &Source) -> Error {
    let reads = reads_in_words(reads);
    let detail = format!(
        "I didn't recognize that device name or ID: ask by the id of 24 hex digits, since names are known \
         to the cloud alone; this broker reads {reads}"
    );
    Error::PermissionDenied { detail }
}

/// What the upstream reads, with the route where all of it is.
fn reads_in_words(reads: &Source) -> String {
    match reads {
        Source::Sse { .. } => "another event stream, all of it at /v1/devices/events".to_owned(),
        Source::Particle { scope, .. } => match scope {
            Scope::Mine => "the token's own devices, at /v1/devices/events".to_owned(),
            Scope::Device { device } => format!("one device, at /v1/devices/{device}/events"),
            Scope::Product { product } => format!("a product, at /v1/products/{product}/events"),
            Scope::ProductDevice { product, device } => {
                format!("one device, at /v1/products/{product}/devices/{device}/events")
            }
            Scope::Org { org } => format!("an organization, at /v1/orgs/{org}/events"),
            Scope::Public => "public events, at /v1/events/PREFIX".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
