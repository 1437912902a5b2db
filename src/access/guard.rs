//! From the head of a request to who asks.
//!
//! Law: one function, [`Guard::authenticate`], for every route and every kind of credential.
//! What is unknown, wrong, expired or revoked is refused in the same words.

use std::sync::Arc;

use http::HeaderMap;

use super::{Credential, KeyRing, Keys, Place, Principal, key::KEY_PREFIX};

/// A request that is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It came without a credential.
    #[error(
        "this broker wants to know who asks: send the header `Authorization: Bearer KEY`; `fanlight token \
         new` makes a key"
    )]
    Missing,
    /// It is unknown or wrong, expired or revoked.
    #[error("the credential is not valid: it is unknown, expired or revoked")]
    Invalid,
    /// Another scheme than `Bearer`.
    #[error("the header has another form: write `Authorization: Bearer KEY`")]
    Scheme,
    /// More than one.
    #[error("there is more than one credential; send one")]
    Twice,
    /// It stands in the query.
    #[error(
        "a credential in the query lies in logs and histories, and is taken there only below /v1: send \
         the header `Authorization: Bearer KEY`"
    )]
    Query,
}

/// Everything that a request is held against. Cheap to make anew when something changes.
#[derive(Debug)]
pub struct Guard {
    /// None where access is off.
    ring: Option<KeyRing>,
}

impl Guard {
    /// Lets everyone in.
    pub fn open() -> Guard {
        Guard { ring: None }
    }

    /// Lets in those who have a key.
    pub fn with_keys(keys: Keys) -> Guard {
        Guard { ring: Some(KeyRing::new(keys)) }
    }

    /// True if it asks who comes.
    pub fn is_on(&self) -> bool {
        self.ring.is_some()
    }

    /// Keys that are good at this wall time.
    pub fn keys(&self, wall_ms: u64) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.good(wall_ms))
    }

    /// Who asks.
    ///
    /// # Errors
    /// If that is not known.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        place: Place,
        wall_ms: u64,
    ) -> Result<Arc<Principal>, Refused> {
        let Some(ring) = &self.ring else { return Ok(Principal::anyone()) };
        let credential = Credential::find(headers, query, place)?.ok_or(Refused::Missing)?;
        let secret = credential.secret();
        let principal = match secret.expose().starts_with(KEY_PREFIX) {
            true => ring.find(&secret.digest()),
            false => None,
        };
        principal.filter(|principal| !principal.is_over(wall_ms)).ok_or(Refused::Invalid)
    }

    /// Takes other keys. What is served under those that are gone or changed is over: true if
    /// there were any.
    pub fn renew(&mut self, keys: Keys) -> bool {
        self.ring.as_mut().is_some_and(|ring| ring.renew(keys))
    }
}
