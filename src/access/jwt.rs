//! JSON Web Tokens that others sign (RFC 7519), as far as they are trusted here.
//!
//! Law: the key decides how a signature is checked, never the token. A key has one algorithm; a
//! header that names another, or brings a key or the address of one, is refused. What is not
//! understood in every part that matters is refused: no name stands twice, numbers are numbers,
//! base64 has one form, `exp` and `aud` are there.
//!
//! ```json
//! {"aud":"fanlight","exp":1795309323,"fanlight":{"read":{"prefix":["greenhouse/"]},"admin":false}}
//! ```

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    digest, hmac,
    signature::{
        self, ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    },
};
use serde_json::{Map, Value};

use super::{Grants, Lease, Principal, Secret, json, key::Digest};

/// How far the clocks of those who sign and of the broker may be apart, in seconds.
pub const LEEWAY_SECS: u64 = 30;
/// Keys of one set: an issuer has two or three, while it changes them.
pub const KEYS_MAX: usize = 32;
/// Bytes of a set of keys.
pub const KEYS_BYTES_MAX: usize = 64 << 10;
/// Bytes of a shared secret (RFC 7518, section 3.2: as many as the hash has).
const SHARED_BYTES_MIN: usize = 32;

/// Bytes of an RSA key's modulus: less is not safe, and is never verified.
const RSA_BYTES_MIN: usize = 256;

/// What a token must say beside its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// In `aud`.
    pub audience: String,
    /// In `iss`; none for any.
    pub issuer: Option<String>,
}

/// Keys that tokens are checked with.
#[derive(Debug, Default)]
pub struct TokenKeys {
    keys: Vec<TokenKey>,
    /// Keys of a kind that is not used here.
    pub skipped: usize,
}

#[derive(Debug)]
struct TokenKey {
    id: Option<String>,
    algorithm: Algorithm,
    check: Check,
    /// Of what the key is made, to know it again.
    digest: Digest,
    lease: Lease,
}

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

/// The one way a key checks. No `Debug` of a shared secret.
enum Check {
    Shared(Box<hmac::Key>),
    Public(Box<ParsedPublicKey>),
}

/// A set of keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeysError {
    /// Neither JSON nor PEM.
    #[error("neither a JSON Web Key Set nor a public key in PEM: {0}")]
    Form(String),
    /// A key is broken.
    #[error("key {number}: {what}")]
    Key {
        /// Its number in the set, from 1.
        number: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Too many.
    #[error("{0} keys, at most {KEYS_MAX} are allowed")]
    Count(usize),
    /// None of them is of a kind that is used here.
    #[error("no key for HS256, RS256, ES256 or EdDSA (Ed25519) is in it")]
    None,
}

/// Tokens and what they are held against.
#[derive(Debug)]
pub struct Tokens {
    keys: TokenKeys,
    claims: Claims,
}

// === impl Algorithm ===

impl Algorithm {
    fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    fn verification(self) -> Option<&'static dyn signature::VerificationAlgorithm> {
        match self {
            Algorithm::Hs256 => None,
            Algorithm::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Es256 => Some(&ECDSA_P256_SHA256_FIXED),
            Algorithm::EdDsa => Some(&ED25519),
        }
    }
}

// === impl Check ===

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Check::Shared(_) => "Shared(***)",
            Check::Public(_) => "Public",
        })
    }
}

// === impl TokenKeys ===

impl TokenKeys {
    /// Reads a JSON Web Key Set (RFC 7517), or public keys in PEM, which have no ids.
    ///
    /// # Errors
    /// If it is none, or nothing in it can be used. Keys of other kinds are skipped.
    pub fn parse(text: &[u8]) -> Result<TokenKeys, TokenKeysError> {
        let keys = match text.trim_ascii_start().first() {
            Some(b'{') => TokenKeys::of_set(text)?,
            _ => TokenKeys::of_pem(text)?,
        };
        match keys.keys.is_empty() {
            true => Err(TokenKeysError::None),
            false => Ok(keys),
        }
    }

    /// How many can be used.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// True if one of them is a secret that both sides know.
    pub fn has_shared(&self) -> bool {
        self.keys.iter().any(|key| key.algorithm == Algorithm::Hs256)
    }

    fn of_set(text: &[u8]) -> Result<TokenKeys, TokenKeysError> {
        let set = json::parse(text).map_err(TokenKeysError::Form)?;
        let Some(Value::Array(list)) = set.get("keys") else {
            return Err(TokenKeysError::Form("`keys` is no list".to_owned()));
        };
        if list.len() > KEYS_MAX {
            return Err(TokenKeysError::Count(list.len()));
        }
        let mut keys = TokenKeys::default();
        for (number, key) in (1..).zip(list) {
            let Value::Object(key) = key else {
                return Err(TokenKeysError::Key { number, what: "not an object" });
            };
            match TokenKey::of_json(key).map_err(|what| TokenKeysError::Key { number, what })? {
                Some(key) => keys.keys.push(key),
                None => keys.skipped += 1,
            }
        }
        Ok(keys)
    }

    fn of_pem(text: &[u8]) -> Result<TokenKeys, TokenKeysError> {
        let form = |what: &str| TokenKeysError::Form(what.to_owned());
        let text = std::str::from_utf8(text).map_err(|_| form("not text"))?;
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        const END: &str = "-----END PUBLIC KEY-----";
        if text.contains("PRIVATE KEY") {
            return Err(form("it holds a private key, which belongs to those who sign alone"));
        }
        let mut keys = TokenKeys::default();
        for (number, part) in (1..).zip(text.split(BEGIN).skip(1)) {
            if number > KEYS_MAX {
                return Err(TokenKeysError::Count(number));
            }
            let key = |what| TokenKeysError::Key { number, what };
            let body = part.split(END).next().unwrap_or_default();
            let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let der = base64(body.trim_end_matches('='), b"+/").ok_or(key("not base64"))?;
            match algorithm_of(&der) {
                Some(algorithm) => {
                    keys.keys.push(TokenKey::public(None, algorithm, &der).map_err(key)?);
                }
                None => keys.skipped += 1,
            }
        }
        match keys.keys.len() + keys.skipped {
            0 => Err(form("there is no -----BEGIN PUBLIC KEY-----")),
            _ => Ok(keys),
        }
    }
}

/// The algorithm of a SubjectPublicKeyInfo (RFC 5280), told by its object identifiers.
fn algorithm_of(der: &[u8]) -> Option<Algorithm> {
    const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    const P256: &[u8] =
        b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";
    // A sequence, whose length takes one to three bytes; the algorithm is the first in it.
    let inner = match der {
        [0x30, 0x82, _, _, inner @ ..] | [0x30, 0x81, _, inner @ ..] => inner,
        [0x30, length, inner @ ..] if *length < 0x80 => inner,
        _ => return None,
    };
    let known = [(RSA, Algorithm::Rs256), (P256, Algorithm::Es256), (ED25519, Algorithm::EdDsa)];
    known.into_iter().find(|(head, _)| inner.starts_with(head)).map(|(_, algorithm)| algorithm)
}

// === impl TokenKey ===

impl TokenKey {
    /// A key of a set; none if it is of a kind that is not used here.
    fn of_json(key: &Map<String, Value>) -> Result<Option<TokenKey>, &'static str> {
        let text = |name: &str| match key.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err("a part of another form"),
        };
        let bytes = |name: &str| {
            let text = text(name)?.ok_or("a part of the key is missing")?;
            base64(text, b"-_").ok_or("a part of the key is not base64url")
        };
        let kind = (text("kty")?.ok_or("`kty` is missing")?, text("crv")?);
        let algorithm = match kind {
            ("oct", _) => Algorithm::Hs256,
            ("RSA", _) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            _ => return Ok(None),
        };
        // RFC 9864 has a name of its own for the curve.
        let is_its = |named: &str| {
            named == algorithm.as_str() || (algorithm, named) == (Algorithm::EdDsa, "Ed25519")
        };
        if text("alg")?.is_some_and(|named| !is_its(named))
            || text("use")?.is_some_and(|use_for| use_for != "sig")
        {
            return Ok(None);
        }
        if algorithm != Algorithm::Hs256 && key.contains_key("d") {
            return Err("it is a private key, which belongs to those who sign alone");
        }
        let id = text("kid")?.map(str::to_owned);
        match algorithm {
            Algorithm::Hs256 => {
                let secret = bytes("k")?;
                if secret.len() < SHARED_BYTES_MIN {
                    return Err("a shared secret of less than 32 bytes");
                }
                let check = Check::Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
                Ok(Some(TokenKey::new(id, algorithm, check, &secret)))
            }
            Algorithm::Rs256 => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                if modulus.iter().skip_while(|byte| **byte == 0).count() < RSA_BYTES_MIN {
                    return Err("an RSA key of less than 2048 bits is too weak");
                }
                TokenKey::public(id, algorithm, &rsa_der(&modulus, &exponent)).map(Some)
            }
            Algorithm::Es256 => {
                let point = [&[4][..], &bytes("x")?, &bytes("y")?].concat();
                TokenKey::public(id, algorithm, &point).map(Some)
            }
            Algorithm::EdDsa => TokenKey::public(id, algorithm, &bytes("x")?).map(Some),
        }
    }

    fn public(
        id: Option<String>,
        algorithm: Algorithm,
        bytes: &[u8],
    ) -> Result<TokenKey, &'static str> {
        let verification = algorithm.verification().expect("not for shared secrets");
        let key = ParsedPublicKey::new(verification, bytes)
            .map_err(|_| "it is no key of its kind, or too weak a one")?;
        Ok(TokenKey::new(id, algorithm, Check::Public(Box::new(key)), bytes))
    }

    fn new(id: Option<String>, algorithm: Algorithm, check: Check, made_of: &[u8]) -> TokenKey {
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(algorithm.as_str().as_bytes());
        digest.update(made_of);
        TokenKey {
            id,
            algorithm,
            check,
            digest: Digest::from(digest.finish()),
            lease: Lease::default(),
        }
    }

    fn is_same(&self, other: &TokenKey) -> bool {
        self.id == other.id && self.digest.is(&other.digest)
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.check {
            Check::Shared(key) => hmac::verify(key, message, signature).is_ok(),
            Check::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// An RSAPublicKey (RFC 8017, appendix A.1.1).
fn rsa_der(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    fn length(bytes: usize, der: &mut Vec<u8>) {
        match bytes {
            0..=0x7f => der.push(bytes as u8),
            0x80..=0xff => der.extend([0x81, bytes as u8]),
            // A set has less than 64 KiB in all.
            _ => der.extend([0x82, (bytes >> 8) as u8, bytes as u8]),
        }
    }
    let mut inner = Vec::new();
    for number in [modulus, exponent] {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = &number[zeros..];
        let is_padded = number.first().is_none_or(|byte| *byte >= 0x80);
        inner.push(0x02);
        length(number.len() + usize::from(is_padded), &mut inner);
        inner.extend(is_padded.then_some(0));
        inner.extend_from_slice(number);
    }
    let mut der = vec![0x30];
    length(inner.len(), &mut der);
    der.extend(inner);
    der
}

// === impl Tokens ===

impl Tokens {
    /// Holds tokens against these claims and keys.
    pub fn new(claims: Claims, keys: TokenKeys) -> Tokens {
        Tokens { keys, claims }
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keys.count()
    }

    /// Goes over to other keys. What is served under tokens of keys that are gone is over: true
    /// if there were such keys.
    pub(super) fn renew(&mut self, keys: TokenKeys) -> bool {
        let mut before = std::mem::take(&mut self.keys).keys;
        for key in keys.keys {
            let same = before.iter().position(|held| held.is_same(&key));
            self.keys.keys.push(match same {
                Some(index) => before.swap_remove(index),
                None => key,
            });
        }
        before.iter().for_each(|key| key.lease.end());
        !before.is_empty()
    }

    /// Who has this token; none unless everything about it is right.
    pub(super) fn verify(&self, token: &Secret, wall_ms: u64) -> Option<Arc<Principal>> {
        let token = token.expose();
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header = object(header)?;
        let signature = base64(signature, b"-_")?;
        let key = self.key(&header, message.as_bytes(), &signature)?;
        let claims = object(claims)?;
        let expires_secs = self.claims.hold(&claims, wall_ms / 1000)?;
        let grants = match claims.get("fanlight") {
            Some(grants) => Grants::from_json(grants).ok()?,
            None => Grants::default(),
        };
        let expires_ms = expires_secs.saturating_add(LEEWAY_SECS).saturating_mul(1000);
        let lease = key.lease.clone();
        Some(Arc::new(Principal::new("a token", grants, Some(expires_ms), lease)))
    }

    /// The key that made the signature.
    fn key(
        &self,
        header: &Map<String, Value>,
        message: &[u8],
        signature: &[u8],
    ) -> Option<&TokenKey> {
        // Keys that a token brings, or the address of one; what must be understood and is not;
        // and what would change what is signed.
        const REFUSED: [&str; 8] = ["crit", "jku", "jwk", "x5u", "x5c", "b64", "enc", "zip"];
        if REFUSED.iter().any(|name| header.contains_key(*name)) {
            return None;
        }
        let is_jwt = match header.get("typ") {
            None => true,
            Some(Value::String(kind)) => {
                ["jwt", "at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known))
            }
            Some(_) => false,
        };
        let Some(Value::String(algorithm)) = header.get("alg").filter(|_| is_jwt) else {
            return None;
        };
        let id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id),
            Some(_) => return None,
        };
        self.keys.keys.iter().find(|key| {
            let is_meant = id.is_none() || key.id.is_none() || key.id.as_ref() == id;
            is_meant && *algorithm == key.algorithm.as_str() && key.verifies(message, signature)
        })
    }
}

// === impl Claims ===

impl Claims {
    /// When the token ends, in Unix seconds; none if it is not for now or not for here.
    fn hold(&self, claims: &Map<String, Value>, now_secs: u64) -> Option<u64> {
        let number = |name: &str| match claims.get(name) {
            None => Some(None),
            Some(Value::Number(number)) => seconds(number).map(Some),
            Some(_) => None,
        };
        let (expires, not_before) = (number("exp")??, number("nbf")?);
        number("iat")?;
        if expires.saturating_add(LEEWAY_SECS) <= now_secs
            || not_before.is_some_and(|from| from > now_secs.saturating_add(LEEWAY_SECS))
        {
            return None;
        }
        let is_ours = |value: &Value| *value == self.audience;
        let is_for_us = match claims.get("aud")? {
            Value::Array(all) => all.iter().all(Value::is_string) && all.iter().any(is_ours),
            one => is_ours(one),
        };
        let is_theirs = match (&self.issuer, claims.get("iss")) {
            (None, None | Some(Value::String(_))) => true,
            (Some(issuer), Some(named)) => *named == *issuer,
            _ => false,
        };
        (is_for_us && is_theirs).then_some(expires)
    }
}

/// A NumericDate (RFC 7519, section 2) in whole seconds; none before 1970.
fn seconds(number: &serde_json::Number) -> Option<u64> {
    match (number.as_u64(), number.as_f64()) {
        (Some(seconds), _) => Some(seconds),
        // Down, as one that ends within a second ends before it is over.
        (None, Some(seconds)) if seconds >= 0.0 => Some(seconds as u64),
        _ => None,
    }
}

/// One of the two objects of a token.
fn object(text: &str) -> Option<Map<String, Value>> {
    match json::parse(&base64(text, b"-_")?) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// Base64 without padding, in its one form: bits beyond the last byte are zero. `last` are the
/// letters for 62 and 63.
fn base64(text: &str, last: &[u8; 2]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            _ if letter == last[0] => 62,
            _ if letter == last[1] => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // Six bits over are a letter that belongs to no byte.
    (bits < 6 && held == 0).then_some(bytes)
}

#[cfg(test)]
mod tests;
