//! Any token, signed well or not: who comes in has one of the one algorithm, signed by the key, for
//! here and for now, and what it grants is what it says.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use fanlight::access::{Claims, Grants, Guard, Keys, Place, TokenKeys};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::numbers;

const SECRET: &[u8; 32] = b"an obviously fake shared secret.";
/// The time of every try, Unix seconds: 2026-11-22T01:02:03Z.
const NOW: u64 = 1_795_309_323;

static GUARD: LazyLock<Guard> = LazyLock::new(|| {
    let set = json!({ "keys": [{ "kty": "oct", "kid": "k", "k": base64(SECRET) }] }).to_string();
    let claims = Claims { audience: "fanlight".to_owned(), issuer: Some("issuer".to_owned()) };
    let keys = TokenKeys::parse(set.as_bytes()).expect("a set of one");
    Guard::closed(Keys::default(), Some((claims, keys)))
});

pub(super) fn token(input: &[u8]) {
    let Some(([tamper, at], rest)) = numbers(input) else { return };
    // A line is the header, one the claims; what follows is a set of keys.
    let mut lines = rest.splitn(3, |byte| *byte == b'\n');
    let (head, claims) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if let Ok(keys) = TokenKeys::parse(lines.next().unwrap_or_default()) {
        assert!(keys.count() > 0 && keys.count() + keys.skipped <= 32);
    }
    let mut message = format!("{}.{}", base64(head), base64(claims)).into_bytes();
    let key = if tamper % 4 == 1 { &[7; 32] } else { SECRET };
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message);
    let mut signature = tag.as_ref().to_vec();
    match tamper % 4 {
        2 => signature[at % 32] ^= 1,
        3 => {
            let at = at % message.len();
            message[at] = if message[at] == b'A' { b'B' } else { b'A' };
        }
        _ => {}
    }
    let message = String::from_utf8_lossy(&message).into_owned();
    let value = format!("Bearer {message}.{}", base64(&signature));
    let Ok(value) = HeaderValue::from_str(&value) else { return };
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
    let granted = granted(head, claims).filter(|_| tamper % 4 == 0);
    match GUARD.authenticate(&headers, None, Place::Header, NOW * 1000) {
        Ok(principal) => {
            let granted = granted.expect("it is right in every part");
            assert_eq!(principal.may_read().is_ok(), granted.read.is_some());
            assert_eq!(principal.may_publish(None).is_ok(), granted.publish.is_some());
            assert_eq!(principal.may_administer().is_ok(), granted.admin);
            assert!(principal.time_left(NOW * 1000).is_some_and(|left| !left.is_zero()));
        }
        // A reader that takes the last of two equal names would take more.
        Err(_) => assert!(granted.is_none() || !(is_plain(head) && is_plain(claims))),
    }
}

/// What a well-signed token grants by the words of docs/protocol.md; none if it is not good.
fn granted(head: &[u8], claims: &[u8]) -> Option<Grants> {
    let head: Value = serde_json::from_slice(head).ok()?;
    let claims: Value = serde_json::from_slice(claims).ok()?;
    let (head, claims) = (head.as_object()?, claims.as_object()?);
    let is_one_of = |value: &Value, known: &[&str]| {
        value.as_str().is_some_and(|text| known.contains(&text.to_ascii_lowercase().as_str()))
    };
    let is_signed = head.get("alg")? == "HS256"
        && head.get("kid").is_none_or(|id| id == "k")
        && head.get("typ").is_none_or(|kind| is_one_of(kind, &["jwt", "at+jwt"]))
        && ["crit", "jku", "jwk", "x5u", "x5c", "b64", "enc", "zip"]
            .iter()
            .all(|name| !head.contains_key(*name));
    // Half a minute is granted to clocks. Times are numbers, not texts, and not before 1970.
    let time = |name: &str| claims.get(name).map(|time| time.as_f64().filter(|time| *time >= 0.0));
    let now = NOW as f64;
    let is_now = time("exp")??.floor() + 30.0 > now
        && time("nbf").is_none_or(|from| from.is_some_and(|from| from.floor() <= now + 30.0))
        && time("iat").is_none_or(|at| at.is_some());
    let is_here = match claims.get("aud")? {
        Value::Array(all) => {
            all.iter().all(Value::is_string) && all.contains(&Value::from("fanlight"))
        }
        one => one == "fanlight",
    };
    let is_theirs = claims.get("iss")? == "issuer";
    let grants = claims.get("fanlight").map(Grants::from_json);
    let grants = grants.unwrap_or(Ok(Grants::default())).ok()?;
    (is_signed && is_now && is_here && is_theirs).then_some(grants)
}

/// True if it is written as a printer writes it: then no name stands twice.
fn is_plain(json: &[u8]) -> bool {
    serde_json::from_slice::<Value>(json).is_ok_and(|value| value.to_string().as_bytes() == json)
}

/// Base64 for addresses (RFC 4648, section 5), without padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let held = (0..3).fold(0, |held, at| held << 8 | u32::from(*part.get(at).unwrap_or(&0)));
        for at in 0..=part.len() {
            text.push(char::from(LETTERS[(held >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}
