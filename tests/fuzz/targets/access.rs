//! Any `Authorization` and query: whoever comes in has shown a key that is good, whole, once, and
//! where it may stand.

use std::sync::LazyLock;

use fanlight::access::{Grants, Guard, Key, Keys, Place, Secret};
use http::{HeaderMap, HeaderValue, header};
use url::form_urlencoded;

use super::numbers;

/// When the second key ends.
const EXPIRES_MS: u64 = 100;

/// Three keys and their guard: one is good, one ends, one is revoked.
static KEYS: LazyLock<([String; 3], Guard)> = LazyLock::new(|| {
    let mut keys = Keys::default();
    let secrets = [1, 2, 3].map(|number| {
        let secret = Secret::key(&[number; 32]);
        let expires = (number == 2).then_some(EXPIRES_MS);
        let name = number.to_string();
        let key = Key::new([number; 5], &name, &secret, Grants::all(), 0, expires);
        keys.add(key.expect("a good name"), 0).expect("another name");
        secret.expose().to_owned()
    });
    keys.revoke("3", 0).expect("it is there");
    (secrets, Guard::closed(keys, None))
});

pub(super) fn access(input: &[u8]) {
    let Some(([place, wall_ms], rest)) = numbers(input) else { return };
    let (secrets, guard) = &*KEYS;
    // Nobody finds a key by chance: a byte stands for each.
    let mut text = String::from_utf8_lossy(rest).into_owned();
    for (byte, secret) in ["\u{1}", "\u{2}", "\u{3}"].into_iter().zip(secrets) {
        text = text.replace(byte, secret);
    }
    // The first line is the query, each other one a header.
    let mut lines = text.split('\n');
    let query = lines.next();
    let mut headers = HeaderMap::new();
    for line in lines.take(3) {
        if let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) {
            headers.append(header::AUTHORIZATION, value);
        }
    }
    let place = if place % 2 == 0 { Place::Header } else { Place::HeaderOrQuery };
    let shown = shown(&headers, query.unwrap_or_default(), place);
    let good = match shown.and_then(|shown| secrets.iter().position(|secret| *secret == shown)) {
        Some(0) => Some("1"),
        Some(1) if (wall_ms as u64) < EXPIRES_MS => Some("2"),
        _ => None,
    };
    match guard.authenticate(&headers, query, place, wall_ms as u64) {
        Ok(principal) => assert_eq!(Some(principal.label()), good),
        Err(refused) => {
            assert_eq!(good, None, "{refused}");
            let told = format!("{refused} {refused:?}");
            assert!(!secrets.iter().any(|secret| told.contains(secret)));
        }
    }
}

/// The one credential that is shown where it may be.
fn shown(headers: &HeaderMap, query: &str, place: Place) -> Option<String> {
    let values: Vec<&HeaderValue> = headers.get_all(header::AUTHORIZATION).iter().collect();
    let tokens: Vec<String> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "access_token")
        .map(|(_, value)| value.into_owned())
        .collect();
    match (&values[..], &tokens[..], place) {
        ([value], ..) => {
            let text = std::str::from_utf8(value.as_bytes()).ok()?;
            let is_bearer = text.get(..7)?.eq_ignore_ascii_case("bearer ");
            is_bearer.then(|| text[7..].trim().to_owned())
        }
        ([], [token], Place::HeaderOrQuery) => Some(token.clone()),
        _ => None,
    }
}
