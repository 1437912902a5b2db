//! API keys: what is given out once, what is kept of it, and the file that holds them.
//!
//! Law: a key is 256 random bits, and what is kept is its SHA-256: whoever reads the file
//! cannot come in with it. Digests are compared in constant time. A file that is not
//! understood in every part is refused as a whole.
//!
//! ```json
//! {"version":1,"keys":[{"id":"q5wj3d2a","name":"wall","sha256":"9f86…","grants":{"read":true,…},
//!   "created":"2026-11-22T01:02:03.004Z","expires":null,"revoked":null}]}
//! ```

use std::{fmt, sync::Arc};

use aws_lc_rs::digest;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::model::moment::WallTime;

use super::{Grants, GrantsError, Lease, Principal, json};

/// What every key begins with, so that people and scanners recognise one.
pub const KEY_PREFIX: &str = "fl_";
/// Random bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Random bytes of an id.
pub const ID_BYTES: usize = 5;
/// Keys in a file. Each request with a key is compared with all of them: about 10 µs.
pub const KEYS_MAX: usize = 1_000;
/// Bytes of a file: more than [`KEYS_MAX`] usual keys take.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a key's name.
pub const NAME_BYTES_MAX: usize = 64;

/// The form of the file.
const FILE_VERSION: u64 = 1;

/// A secret text. It is shown nowhere and compared by its digest alone.
#[derive(Clone)]
pub struct Secret(Box<str>);

/// The SHA-256 of a secret.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

/// A key, without its secret.
#[derive(Clone, Debug)]
pub struct Key {
    /// A short name by which it is told apart for good.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its secret's digest.
    pub digest: Digest,
    /// What it allows.
    pub grants: Grants,
    /// When it was made, Unix milliseconds.
    pub created_ms: u64,
    /// When it ends by itself, if it does.
    pub expires_ms: Option<u64>,
    /// When it was revoked, if it was.
    pub revoked_ms: Option<u64>,
}

/// The keys of a file, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
}

/// A file of keys cannot be used, or a key cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is no JSON, or a name stands twice.
    #[error("{0}")]
    Json(String),
    /// A later version wrote it, or it is something else.
    #[error(
        "`version` is not {FILE_VERSION}: the file is none of this program's, or of a later one's"
    )]
    Version,
    /// A part is missing, unknown or of another form.
    #[error("key {number}: {what}")]
    Key {
        /// Its number in the file, from 1.
        number: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Something beside `version` and `keys`.
    #[error("the file is an object with `version` and `keys`, a list, and nothing else")]
    Shape,
    /// Too many.
    #[error("{0} keys, at most {KEYS_MAX} are allowed")]
    Count(usize),
    /// The name of a key that can still be used.
    #[error("there is a key called {0:?} already: choose another name, or revoke that one first")]
    Taken(String),
    /// A name that cannot be shown.
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// Nothing of that name.
    #[error(
        "there is no key with the name or id {0:?} that is not revoked; see `fanlight token list`"
    )]
    Unknown(String),
}

/// The keys of a running broker, each with what is served under it.
#[derive(Debug)]
pub struct KeyRing {
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    key: Key,
    lease: Lease,
    principal: Arc<Principal>,
}

// === impl Secret ===

impl Secret {
    /// A text that is a secret from now on.
    pub fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// The key that these random bytes make.
    pub fn key(random: &[u8; KEY_BYTES]) -> Secret {
        Secret(format!("{KEY_PREFIX}{}", base32(random)).into())
    }

    /// The text itself, to be shown once to the one who asked for it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        Digest::from(digest::digest(&digest::SHA256, self.0.as_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Five bits a letter, the most significant first.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut text, mut held, mut bits) = (String::new(), 0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(LETTERS[(held >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(LETTERS[(held << (5 - bits) & 31) as usize]));
    }
    text
}

// === impl Digest ===

impl Digest {
    /// True if both are of the same secret, found out in a time that does not tell how much of
    /// them is equal.
    pub fn is(&self, other: &Digest) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    fn parse(text: &str) -> Option<Digest> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(bytes))
    }

    fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<digest::Digest> for Digest {
    fn from(digest: digest::Digest) -> Digest {
        Digest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(***)")
    }
}

// === impl Key ===

impl Key {
    /// A key that has just been made; `id` are random bytes.
    ///
    /// # Errors
    /// For a name that cannot be shown.
    pub fn new(
        id: [u8; ID_BYTES],
        name: &str,
        secret: &Secret,
        grants: Grants,
        created_ms: u64,
        expires_ms: Option<u64>,
    ) -> Result<Key, KeysError> {
        if !is_name(name) {
            return Err(KeysError::Name);
        }
        Ok(Key {
            id: base32(&id),
            name: name.to_owned(),
            digest: secret.digest(),
            grants,
            created_ms,
            expires_ms,
            revoked_ms: None,
        })
    }

    /// True while it lets anyone in.
    pub fn is_good(&self, wall_ms: u64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|expires| wall_ms < expires)
    }

    /// True if nothing that is served under one changes with the other.
    fn is_same(&self, other: &Key) -> bool {
        self.id == other.id
            && self.name == other.name
            && self.digest.is(&other.digest)
            && self.grants == other.grants
            && self.expires_ms == other.expires_ms
            && self.revoked_ms == other.revoked_ms
    }

    fn from_json(value: &Value) -> Result<Key, String> {
        let Value::Object(parts) = value else { return Err("not an object".to_owned()) };
        const PARTS: [&str; 7] =
            ["id", "name", "sha256", "grants", "created", "expires", "revoked"];
        if let Some(unknown) = parts.keys().find(|part| !PARTS.contains(&part.as_str())) {
            let unknown: String = unknown.chars().take(40).collect();
            return Err(format!("unknown part {unknown:?}; known are {}", PARTS.join(", ")));
        }
        let text = |part: &str| match parts.get(part) {
            Some(Value::String(text)) => Ok(text.as_str()),
            _ => Err(format!("`{part}` is missing or no text")),
        };
        let time = |part: &str| match parts.get(part) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => text
                .parse::<jiff::Timestamp>()
                .ok()
                .and_then(|time| u64::try_from(time.as_millisecond()).ok())
                .map(Some)
                .ok_or_else(|| format!("`{part}` is no time such as 2026-11-22T01:02:03.004Z")),
            Some(_) => Err(format!("`{part}` is neither null nor a time")),
        };
        let (id, name) = (text("id")?, text("name")?);
        let is_id = (1..=NAME_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_id {
            return Err("`id` has 1 to 64 letters and digits".to_owned());
        }
        if !is_name(name) {
            return Err(format!("`name`: {}", KeysError::Name));
        }
        let digest = Digest::parse(text("sha256")?).ok_or("`sha256` is not 64 hex digits")?;
        let grants = parts.get("grants").ok_or("`grants` is missing")?;
        let grants = Grants::from_json(grants).map_err(|error: GrantsError| error.to_string())?;
        Ok(Key {
            id: id.to_owned(),
            name: name.to_owned(),
            digest,
            grants,
            created_ms: time("created")?.ok_or("`created` is missing")?,
            expires_ms: time("expires")?,
            revoked_ms: time("revoked")?,
        })
    }

    fn to_json(&self) -> Value {
        let time = |ms: u64| WallTime(ms).to_string();
        json!({
            "id": self.id,
            "name": self.name,
            "sha256": self.digest.hex(),
            "grants": self.grants.to_json(),
            "created": time(self.created_ms),
            "expires": self.expires_ms.map(time),
            "revoked": self.revoked_ms.map(time),
        })
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

// === impl Keys ===

impl Keys {
    /// Reads a file.
    ///
    /// # Errors
    /// If anything in it is not understood.
    pub fn parse(text: &[u8]) -> Result<Keys, KeysError> {
        let value = json::parse(text).map_err(KeysError::Json)?;
        let Value::Object(file) = value else { return Err(KeysError::Shape) };
        if file.get("version").and_then(Value::as_u64) != Some(FILE_VERSION) {
            return Err(KeysError::Version);
        }
        let (Some(Value::Array(list)), 2) = (file.get("keys"), file.len()) else {
            return Err(KeysError::Shape);
        };
        if list.len() > KEYS_MAX {
            return Err(KeysError::Count(list.len()));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(list.len());
        for (number, value) in (1..).zip(list) {
            let key = Key::from_json(value).map_err(|what| KeysError::Key { number, what })?;
            if keys.iter().any(|other| other.id == key.id || other.digest.is(&key.digest)) {
                let what = "its `id` or `sha256` is another key's".to_owned();
                return Err(KeysError::Key { number, what });
            }
            keys.push(key);
        }
        Ok(Keys { keys })
    }

    /// The file's text.
    pub fn print(&self) -> String {
        let keys: Vec<Value> = self.keys.iter().map(Key::to_json).collect();
        let file = json!({ "version": FILE_VERSION, "keys": keys });
        format!("{file:#}\n")
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    /// True if there is none, good or not.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a key. Where there is no room, the oldest that is of no use any more makes some.
    ///
    /// # Errors
    /// If another that is good has its name, or all are good and there are too many.
    pub fn add(&mut self, key: Key, wall_ms: u64) -> Result<(), KeysError> {
        if self.keys.iter().any(|other| other.name == key.name && other.is_good(wall_ms)) {
            return Err(KeysError::Taken(key.name));
        }
        if self.keys.len() >= KEYS_MAX {
            let useless = self.keys.iter().position(|other| !other.is_good(wall_ms));
            self.keys.remove(useless.ok_or(KeysError::Count(self.keys.len() + 1))?);
        }
        self.keys.push(key);
        Ok(())
    }

    /// Revokes the key with this id, or those with this name, and says which.
    ///
    /// # Errors
    /// If there is none that is not revoked already.
    pub fn revoke(&mut self, called: &str, wall_ms: u64) -> Result<Vec<Key>, KeysError> {
        let open = |key: &&mut Key| key.revoked_ms.is_none();
        let is_id = self.keys.iter().any(|key| key.id == called && key.revoked_ms.is_none());
        let mut revoked = Vec::new();
        for key in self.keys.iter_mut().filter(open) {
            if key.id == called || (!is_id && key.name == called) {
                key.revoked_ms = Some(wall_ms);
                revoked.push(key.clone());
            }
        }
        if revoked.is_empty() {
            return Err(KeysError::Unknown(called.chars().take(NAME_BYTES_MAX).collect()));
        }
        Ok(revoked)
    }
}

// === impl KeyRing ===

impl KeyRing {
    /// A ring of these keys.
    pub fn new(keys: Keys) -> KeyRing {
        KeyRing { held: keys.keys.into_iter().map(Held::new).collect() }
    }

    /// Who has the key of this digest. All are compared, whichever it is.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Principal>> {
        let mut found = None;
        for held in &self.held {
            if held.key.digest.is(digest) {
                found = Some(held);
            }
        }
        found.filter(|held| held.key.revoked_ms.is_none()).map(|held| held.principal.clone())
    }

    /// How many let anyone in.
    pub(super) fn good(&self, wall_ms: u64) -> usize {
        self.held.iter().filter(|held| held.key.is_good(wall_ms)).count()
    }

    /// Goes over to other keys. Those that stay as they are keep what is served under them;
    /// the leases of the rest end: true if there were any.
    pub(super) fn renew(&mut self, keys: Keys) -> bool {
        let mut before = std::mem::take(&mut self.held);
        for key in keys.keys {
            let same = before.iter().position(|held| held.key.is_same(&key));
            self.held.push(match same {
                Some(index) => before.swap_remove(index),
                None => Held::new(key),
            });
        }
        before.iter().for_each(|held| held.lease.end());
        !before.is_empty()
    }
}

impl Held {
    fn new(key: Key) -> Held {
        let lease = Lease::default();
        let grants = key.grants.clone();
        let principal = Principal::new(&key.name, grants, key.expires_ms, lease.clone());
        Held { key, lease, principal: Arc::new(principal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::grants::tests::any_grants;
    use proptest::{collection::vec, prelude::*};

    fn secret(number: u8) -> Secret {
        Secret::key(&[number; KEY_BYTES])
    }

    fn key(number: u8, name: &str) -> Key {
        Key::new([number; ID_BYTES], name, &secret(number), Grants::all(), 5, None).unwrap()
    }

    fn keys(names: &[&str]) -> Keys {
        let mut keys = Keys::default();
        for (number, name) in (1..).zip(names) {
            keys.add(key(number, name), 10).unwrap();
        }
        keys
    }

    #[test]
    fn a_key_is_recognised_and_shown_nowhere() {
        let secret = secret(0xa5);
        assert!(secret.expose().starts_with("fl_") && secret.expose().len() == 3 + 52);
        assert_eq!(format!("{secret:?} {:?}", secret.digest()), "*** Digest(***)");
        assert_eq!(base32(b"foobar"), "mzxw6ytboi", "RFC 4648, section 10");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Secret::new("abc").digest().hex(), abc, "FIPS 180-2, appendix B.1");
        let text = keys(&["a"]).print();
        assert!(!text.contains(self::secret(1).expose()), "{text}");
    }

    proptest! {
        #[test]
        fn a_file_reads_back(
            all in vec((any_grants(), 0..1_u64 << 40, proptest::option::of(0..1_u64 << 40), any::<bool>()), 0..5),
        ) {
            let mut keys = Keys::default();
            for (number, (grants, created, expires, is_revoked)) in (1..).zip(all) {
                let name = format!("key {number} \u{e9}\"\\");
                let mut key =
                    Key::new([number; ID_BYTES], &name, &secret(number), grants, created, expires).unwrap();
                key.revoked_ms = is_revoked.then_some(7);
                keys.add(key, 0).unwrap();
            }
            let again = Keys::parse(keys.print().as_bytes()).unwrap();
            prop_assert_eq!(again.keys.len(), keys.keys.len());
            for (one, other) in keys.iter().zip(again.iter()) {
                prop_assert!(one.is_same(other) && one.created_ms == other.created_ms);
            }
        }

        /// However a file is damaged, it is read as it was or refused.
        #[test]
        fn a_damaged_file_grants_nothing_more(at in 0..1_000_usize, byte in any::<u8>()) {
            let mut file = Keys::default();
            let grants = Grants::from_json(&json!({"read":{"prefix":["a/"]}})).unwrap();
            file.add(Key::new([1; ID_BYTES], "a", &secret(1), grants, 5, Some(9)).unwrap(), 0).unwrap();
            let mut text = file.print().into_bytes();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(keys) = Keys::parse(&text) {
                for key in keys.iter() {
                    prop_assert!(!key.grants.admin && key.grants.publish.is_none());
                    prop_assert!(key.grants.read != Some(crate::model::Filter::all()));
                }
            }
        }
    }

    #[test]
    fn a_file_that_is_not_understood_is_refused() {
        let good = keys(&["a", "b"]).print();
        assert!(Keys::parse(good.as_bytes()).is_ok());
        let error = |from: &str, to: &str| {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            Keys::parse(text.as_bytes()).unwrap_err().to_string()
        };
        for (from, to, expected) in [
            ("{", "[", "not JSON"),
            ("\"version\": 1", "\"version\": 2", "`version` is not 1"),
            ("\"version\": 1", "\"version\": \"1\"", "`version` is not 1"),
            ("\"version\": 1", "\"version\": 1, \"x\": 1", "and nothing else"),
            ("\"name\": \"a\"", "\"name\": \"\"", "key 1: `name`"),
            ("\"name\": \"a\"", "\"name\": \"a\", \"role\": 1", "unknown part \"role\""),
            ("\"name\": \"a\"", "\"name\": \"a\", \"name\": \"a\"", "stands twice"),
            ("\"expires\": null", "\"expires\": 17", "`expires` is neither null nor a time"),
            ("\"expires\": null", "\"expires\": \"soon\"", "`expires` is no time"),
            ("\"created\":", "\"createt\":", "unknown part \"createt\""),
            ("\"read\": true", "\"read\": {}", "a grant without values"),
            ("\"sha256\": \"", "\"sha256\": \"z", "`sha256` is not 64 hex digits"),
        ] {
            let error = error(from, to);
            assert!(error.contains(expected), "{to}: {error}");
        }
        let twice = good.replace(&key(2, "b").id, &key(1, "a").id);
        assert!(Keys::parse(twice.as_bytes()).unwrap_err().to_string().contains("another key's"));
    }

    #[test]
    fn a_name_is_taken_until_its_key_is_of_no_use() {
        let mut keys = keys(&["a"]);
        assert_eq!(keys.add(key(2, "a"), 10), Err(KeysError::Taken("a".into())));
        assert_eq!(keys.revoke("b", 20).unwrap_err(), KeysError::Unknown("b".into()));
        assert_eq!(keys.revoke("a", 20).unwrap().len(), 1);
        assert!(keys.revoke("a", 20).is_err(), "already");
        keys.add(key(2, "a"), 21).unwrap();
        let id = key(2, "a").id;
        assert_eq!(keys.revoke(&id, 22).unwrap()[0].id, id);
    }

    #[test]
    fn a_ring_ends_the_leases_of_what_is_gone_or_changed() {
        let mut ring = KeyRing::new(keys(&["a", "b", "c"]));
        let [a, b, c] = [1, 2, 3].map(|number| ring.find(&secret(number).digest()).unwrap());
        assert!(ring.find(&secret(4).digest()).is_none());
        assert!(!ring.renew(keys(&["a", "b", "c"])), "nothing has changed");
        let mut less = keys(&["a", "b", "c"]);
        less.revoke("b", 30).unwrap();
        less.keys[2].grants.admin = false;
        assert!(ring.renew(less));
        assert_eq!([&a, &b, &c].map(|principal| principal.is_revoked()), [false, true, true]);
        assert!(ring.find(&secret(2).digest()).is_none());
        let changed = ring.find(&secret(3).digest()).unwrap();
        assert!(changed.may_administer().is_err() && !changed.is_revoked());
        assert!(ring.renew(Keys::default()) && a.is_revoked() && changed.is_revoked());
        assert_eq!(ring.good(40), 0);
    }
}
