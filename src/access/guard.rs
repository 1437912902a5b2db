//! From the head of a request to who asks.
//!
//! Law: one function, [`Guard::authenticate`], for every route and every kind of credential.
//! What is unknown, wrong, expired or revoked is refused in the same words.

use std::sync::Arc;

use http::HeaderMap;

use super::{
    Claims, Credential, KeyRing, Keys, Place, Principal, TokenKeys, Tokens, key::KEY_PREFIX,
};

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
    known: Option<Known>,
}

/// Whom it lets in.
#[derive(Debug)]
struct Known {
    ring: KeyRing,
    /// None if tokens of others are good for nothing.
    tokens: Option<Tokens>,
}

impl Guard {
    /// Lets everyone in.
    pub fn open() -> Guard {
        Guard { known: None }
    }

    /// Lets in those who have a key, or where there are `tokens` one with these claims, signed
    /// by one of these keys.
    pub fn closed(keys: Keys, tokens: Option<(Claims, TokenKeys)>) -> Guard {
        let tokens = tokens.map(|(claims, keys)| Tokens::new(claims, keys));
        Guard { known: Some(Known { ring: KeyRing::new(keys), tokens }) }
    }

    /// True if it asks who comes.
    pub fn is_on(&self) -> bool {
        self.known.is_some()
    }

    /// Keys that are good at this wall time.
    pub fn keys(&self, wall_ms: u64) -> usize {
        self.known.as_ref().map_or(0, |known| known.ring.good(wall_ms))
    }

    /// Keys that tokens are checked with.
    pub fn token_keys(&self) -> usize {
        self.known.as_ref().and_then(|known| known.tokens.as_ref()).map_or(0, Tokens::keys)
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
        let Some(Known { ring, tokens }) = &self.known else { return Ok(Principal::anyone()) };
        let credential = Credential::find(headers, query, place)?.ok_or(Refused::Missing)?;
        let secret = credential.secret();
        let principal = match secret.expose().starts_with(KEY_PREFIX) {
            true => ring.find(&secret.digest()),
            false => tokens.as_ref().and_then(|tokens| tokens.verify(secret, wall_ms)),
        };
        principal.filter(|principal| !principal.is_over(wall_ms)).ok_or(Refused::Invalid)
    }

    /// Takes other keys. What is served under those that are gone or changed is over: true if
    /// there were any.
    pub fn renew(&mut self, keys: Keys) -> bool {
        self.known.as_mut().is_some_and(|known| known.ring.renew(keys))
    }

    /// Takes other keys for tokens. What is served under tokens of those that are gone is over:
    /// true if there were any.
    pub fn renew_tokens(&mut self, keys: TokenKeys) -> bool {
        let tokens = self.known.as_mut().and_then(|known| known.tokens.as_mut());
        tokens.is_some_and(|tokens| tokens.renew(keys))
    }
}
