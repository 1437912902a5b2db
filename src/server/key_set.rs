//! The keys that tokens are checked with, asked for where their issuer publishes them.
//!
//! Law: never in the way of a request, never more than a bound, and never from anywhere but the
//! address that was configured: no redirect is followed, no proxy used but the system's. A set that
//! does not come leaves the last good one in force.

use std::{error::Error as _, time::Duration};

use reqwest::{Client, StatusCode, redirect};
use url::Url;

use crate::access::{TokenKeys, jwt::KEYS_BYTES_MAX};

/// Longest time for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An address of keys.
#[derive(Debug)]
pub(super) struct KeySet {
    client: Client,
    url: Url,
}

impl KeySet {
    /// Time from one answer to the next question. Issuers publish a key well before they use it.
    pub(super) const INTERVAL: Duration = Duration::from_secs(300);
    /// The same after a failure.
    pub(super) const RETRY: Duration = Duration::from_secs(15);

    /// The set at an address.
    ///
    /// # Errors
    /// If there can be no client.
    pub(super) fn new(url: Url) -> Result<KeySet, reqwest::Error> {
        let client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none());
        Ok(KeySet { client: client.build()?, url })
    }

    /// Asks for it once.
    ///
    /// # Errors
    /// Why it did not come, in words.
    pub(super) async fn ask(&self) -> Result<TokenKeys, String> {
        let mut answer = self.client.get(self.url.clone()).send().await.map_err(shown)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("access.jwt_jwks_url is answered {}", answer.status()));
        }
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(shown)? {
            if text.len() + chunk.len() > KEYS_BYTES_MAX {
                return Err(format!("access.jwt_jwks_url: more than {KEYS_BYTES_MAX} bytes"));
            }
            text.extend_from_slice(&chunk);
        }
        let keys = TokenKeys::parse(&text);
        let keys = keys.map_err(|error| format!("access.jwt_jwks_url: {error}"))?;
        // Whoever can read the set could sign with it.
        if keys.has_shared() {
            return Err("access.jwt_jwks_url publishes a shared secret (kty oct)".to_owned());
        }
        Ok(keys)
    }
}

/// An error without the address, which may hold a secret.
fn shown(error: reqwest::Error) -> String {
    let error = error.without_url();
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("access.jwt_jwks_url cannot be asked: {error}{cause}")
}
