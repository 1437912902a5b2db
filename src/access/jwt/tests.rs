use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use proptest::prelude::*;
use serde_json::json;
use std::sync::LazyLock;

use super::*;
use crate::model::Filter;

/// A time: 2026-11-22T01:02:03Z.
const NOW: u64 = 1_795_309_323;
const SHARED: &[u8] = b"an obviously fake shared secret of 40 by";

/// Everyone who signs, and the set of their keys.
struct Issuers {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

static ISSUERS: LazyLock<Issuers> = LazyLock::new(|| Issuers {
    rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
    ec: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    ed: Ed25519KeyPair::generate().unwrap(),
});

fn encoded(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let held = part.iter().fold(0_u32, |held, byte| held << 8 | u32::from(*byte));
        let bits = part.len() * 8;
        let held = held << ((6 - bits % 6) % 6);
        let letters = bits.div_ceil(6);
        for at in (0..letters).rev() {
            text.push(char::from(LETTERS[(held >> (at * 6) & 63) as usize]));
        }
    }
    text
}

impl Issuers {
    fn set(&self) -> Value {
        let (modulus, exponent) = self.rsa_parts();
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "oct", "kid": "shared", "k": encoded(SHARED) },
            {
                "kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig",
                "n": encoded(modulus),
                "e": encoded(exponent),
            },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encoded(self.ed.public_key().as_ref()) },
            { "kty": "EC", "crv": "P-384", "kid": "unused", "x": "AA", "y": "AA" },
            { "kty": "RSA", "kid": "unused", "use": "enc", "n": "AA", "e": "AA" },
        ]})
    }

    /// Modulus and exponent, of the RSAPublicKey that 2048 bits make.
    fn rsa_parts(&self) -> (&[u8], &[u8]) {
        let der = self.rsa.public_key().as_ref();
        (&der[9..265], &der[267..])
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match algorithm {
            "HS256" => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SHARED), message).as_ref().to_vec()
            }
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .unwrap();
                signature
            }
            "ES256" => self.ec.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            other => panic!("{other}"),
        }
    }
}

const ALGORITHMS: [(&str, &str); 4] =
    [("HS256", "shared"), ("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")];

fn tokens() -> Tokens {
    let claims =
        Claims { audience: "fanlight".to_owned(), issuer: Some("https://id.example".to_owned()) };
    let keys = TokenKeys::parse(ISSUERS.set().to_string().as_bytes()).unwrap();
    assert_eq!((keys.count(), keys.skipped), (4, 2));
    Tokens::new(claims, keys)
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "fanlight", "sub": "wall", "exp": NOW + 600, "nbf": NOW - 1,
        "iat": NOW - 1, "fanlight": { "read": { "prefix": ["a/"] } },
    })
}

fn header(algorithm: &str, id: &str) -> Value {
    json!({ "alg": algorithm, "typ": "JWT", "kid": id })
}

/// A token of these texts, signed as `algorithm` says.
fn signed(algorithm: &str, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encoded(header.as_bytes()), encoded(claims.as_bytes()));
    format!("{message}.{}", encoded(&ISSUERS.sign(algorithm, message.as_bytes())))
}

fn good(algorithm: &str, id: &str) -> String {
    signed(algorithm, &header(algorithm, id).to_string(), &claims().to_string())
}

fn verify(tokens: &Tokens, token: &str) -> Option<Arc<Principal>> {
    tokens.verify(&Secret::new(token), NOW * 1000)
}

#[test]
fn base64_has_one_form() {
    for bytes in [&b""[..], b"f", b"fo", b"foo", b"foob", b"\xff\xfe\xfd\xfc"] {
        assert_eq!(base64(&encoded(bytes), b"-_").as_deref(), Some(bytes));
    }
    assert_eq!(base64("Zg", b"-_").as_deref(), Some(&b"f"[..]));
    for text in ["Zh", "Z", "Zg==", "Zm9", "Zm9v!", "Zm9+", "Zm9v ", "AAAAA"] {
        assert_eq!(base64(text, b"-_"), None, "{text}");
    }
}

#[test]
fn what_is_signed_by_a_known_key_is_good() {
    let tokens = tokens();
    for (algorithm, id) in ALGORITHMS {
        let principal = verify(&tokens, &good(algorithm, id)).expect(algorithm);
        let read = Filter::new(vec!["a/".into()], vec![], vec![]).unwrap();
        assert_eq!(principal.narrow(&Filter::all()), Ok(read));
        assert!(principal.may_publish(None).is_err() && principal.may_administer().is_err());
        assert_eq!(principal.time_left(NOW * 1000).unwrap().as_secs(), 600 + LEEWAY_SECS);
        // Without a kid every key of that algorithm is tried.
        let plain = json!({ "alg": algorithm }).to_string();
        assert!(verify(&tokens, &signed(algorithm, &plain, &claims().to_string())).is_some());
    }
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        signed("EdDSA", &header("EdDSA", "ed").to_string(), &claims.to_string())
    };
    for (name, value) in [
        ("aud", json!(["other", "fanlight"])),
        ("exp", json!(NOW as f64 + 0.5)),
        ("exp", json!(NOW - LEEWAY_SECS + 1)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(1e300)),
        ("nbf", json!(NOW + LEEWAY_SECS)),
        ("fanlight", json!({})),
    ] {
        assert!(verify(&tokens, &with(name, value.clone())).is_some(), "{name} {value}");
    }
    assert!(verify(&tokens, &with("fanlight", json!({}))).unwrap().may_read().is_err());
}

/// Tokens that are wrong in one thing each, or were made to be taken for what they are not.
fn forged() -> Vec<(String, String)> {
    let mut forged: Vec<(String, String)> = Vec::new();
    let mut add = |what: String, token: String| forged.push((what, token));
    let issuers = &*ISSUERS;
    let (modulus, exponent) = issuers.rsa_parts();
    let rsa_public = rsa_der(modulus, exponent);
    assert_eq!(rsa_public, issuers.rsa.public_key().as_ref());
    for (algorithm, id) in ALGORITHMS {
        let (header_text, claims_text) = (header(algorithm, id).to_string(), claims().to_string());
        // No signature, whatever the header says of it.
        for none in ["none", "None", "NONE", "nOnE", "", "null"] {
            let header = json!({ "alg": none, "typ": "JWT", "kid": id }).to_string();
            let message =
                format!("{}.{}", encoded(header.as_bytes()), encoded(claims_text.as_bytes()));
            add(format!("{algorithm}: alg {none:?}, unsigned"), format!("{message}."));
            let signature = encoded(&issuers.sign(algorithm, message.as_bytes()));
            add(format!("{algorithm}: alg {none:?}, signed"), format!("{message}.{signature}"));
        }
        // Signed as one and called another.
        for (called, other_id) in ALGORITHMS.iter().filter(|(called, _)| *called != algorithm) {
            for kid in [id, *other_id] {
                let header = header(called, kid).to_string();
                add(
                    format!("{algorithm} called {called}, kid {kid}"),
                    signed(algorithm, &header, &claims_text),
                );
            }
        }
        for called in [
            "HS384", "HS512", "RS384", "RS512", "PS256", "ES384", "ES256K", "Ed25519", "hs256",
            "es256",
        ] {
            let header = header(called, id).to_string();
            add(format!("{algorithm} called {called}"), signed(algorithm, &header, &claims_text));
        }
        // The public key as a shared secret.
        for secret in [
            rsa_public.as_slice(),
            issuers.ec.public_key().as_ref(),
            issuers.ed.public_key().as_ref(),
        ] {
            let header = json!({ "alg": "HS256", "typ": "JWT", "kid": id }).to_string();
            let message =
                format!("{}.{}", encoded(header.as_bytes()), encoded(claims_text.as_bytes()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            add(
                format!("{id}: a public key as a shared secret"),
                format!("{message}.{}", encoded(tag.as_ref())),
            );
        }
        // Headers.
        for (name, value) in [
            ("jku", json!("https://evil.example/keys")),
            ("jwk", json!({ "kty": "oct", "k": encoded(SHARED) })),
            ("x5u", json!("https://evil.example/cert")),
            ("x5c", json!([])),
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("b64", json!(false)),
            ("zip", json!("DEF")),
            ("enc", json!("A128GCM")),
            ("typ", json!("JOSE")),
            ("typ", json!(1)),
            ("kid", json!("unknown")),
            ("kid", json!("")),
            ("kid", json!(["shared", "rsa", "ec", "ed"])),
            ("kid", Value::Null),
            ("alg", Value::Null),
            ("alg", json!([algorithm])),
        ] {
            let mut header = header(algorithm, id);
            header[name] = value.clone();
            add(
                format!("{algorithm}: header {name} {value}"),
                signed(algorithm, &header.to_string(), &claims_text),
            );
        }
        add(format!("{algorithm}: no alg"), signed(algorithm, "{}", &claims_text));
        let twice = format!("{{\"alg\":\"none\",{}", &header_text[1..]);
        add(format!("{algorithm}: alg twice"), signed(algorithm, &twice, &claims_text));
        for header in ["[]", "null", "\"\"", "", "{", "{}{}", "\u{feff}{}"] {
            add(format!("{algorithm}: header {header:?}"), signed(algorithm, header, &claims_text));
        }
        // Claims.
        for (name, value) in [
            ("exp", Value::Null),
            ("exp", json!((NOW + 600).to_string())),
            ("exp", json!([NOW + 600])),
            ("exp", json!({})),
            ("exp", json!(true)),
            ("exp", json!(-1)),
            ("exp", json!(0)),
            ("exp", json!(NOW - LEEWAY_SECS)),
            ("exp", json!(NOW - 86_400)),
            ("nbf", json!(NOW + LEEWAY_SECS + 1)),
            ("nbf", json!((NOW - 1).to_string())),
            ("nbf", Value::Null),
            ("iat", json!("yesterday")),
            ("aud", Value::Null),
            ("aud", json!("other")),
            ("aud", json!("Fanlight")),
            ("aud", json!("fanlight ")),
            ("aud", json!([])),
            ("aud", json!(["other"])),
            ("aud", json!([["fanlight"]])),
            ("aud", json!(["fanlight", 1])),
            ("aud", json!({ "fanlight": true })),
            ("iss", Value::Null),
            ("iss", json!("https://id.example/")),
            ("iss", json!(["https://id.example"])),
            ("fanlight", json!(true)),
            ("fanlight", Value::Null),
            ("fanlight", json!({ "read": {} })),
            ("fanlight", json!({ "read": "true" })),
            ("fanlight", json!({ "admin": 1 })),
            ("fanlight", json!({ "write": true })),
            (
                "fanlight",
                json!({ "read": { "name": (0..65).map(|n| n.to_string()).collect::<Vec<_>>() } }),
            ),
        ] {
            let mut claims = claims();
            claims[name] = value.clone();
            add(
                format!("{algorithm}: claim {name} {value}"),
                signed(algorithm, &header_text, &claims.to_string()),
            );
        }
        for name in ["exp", "aud", "iss"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            add(
                format!("{algorithm}: no {name}"),
                signed(algorithm, &header_text, &claims.to_string()),
            );
        }
        for twice in
            ["\"exp\":99999999999,", "\"aud\":\"other\",", "\"fanlight\":{\"admin\":true},"]
        {
            let claims = format!("{{{twice}{}", &claims_text[1..]);
            add(
                format!("{algorithm}: claims twice {twice}"),
                signed(algorithm, &header_text, &claims),
            );
        }
        // The token's own form.
        let token = good(algorithm, id);
        let parts: Vec<&str> = token.split('.').collect();
        let [head, body, tail] = parts[..] else { panic!("{token}") };
        let other = json!({ "fanlight": { "admin": true }, "exp": NOW + 600, "aud": "fanlight" })
            .to_string();
        let again = header("HS256", "shared").to_string();
        for (what, token) in [
            ("other claims", format!("{head}.{}.{tail}", encoded(other.as_bytes()))),
            ("other header", format!("{}.{body}.{tail}", encoded(b"{\"alg\":\"HS256\"}"))),
            (
                "header made anew",
                format!("{}.{body}.{tail}", encoded(format!("{again} ").as_bytes())),
            ),
            ("no signature", format!("{head}.{body}.")),
            ("two parts", format!("{head}.{body}")),
            ("one part", head.to_owned()),
            ("four parts", format!("{token}.{tail}")),
            ("parts in another order", format!("{body}.{head}.{tail}")),
            ("a dot before", format!(".{token}")),
            ("empty parts", "..".to_owned()),
            ("padding", format!("{head}.{body}.{tail}=")),
            ("half a signature", format!("{head}.{body}.{}", &tail[..tail.len() / 2])),
            ("more signature", format!("{head}.{body}.{tail}AAAA")),
            ("zeros as signature", format!("{head}.{body}.{}", encoded(&[0; 64]))),
            ("ones as signature", format!("{head}.{body}.{}", encoded(&[0xff; 64]))),
            ("an empty byte string as signature", format!("{head}.{body}.{}", encoded(&[0; 256]))),
            ("a space", format!("{head}. {body}.{tail}")),
        ] {
            add(format!("{algorithm}: {what}"), token);
        }
    }
    // r or s of zero, or not below the order of the curve.
    let message = format!(
        "{}.{}",
        encoded(header("ES256", "ec").to_string().as_bytes()),
        encoded(claims().to_string().as_bytes())
    );
    let true_one = issuers.sign("ES256", message.as_bytes());
    let order: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    for (what, r, s) in [
        ("r zero", &[0; 32], &true_one[32..]),
        ("s zero", <&[u8; 32]>::try_from(&true_one[..32]).unwrap(), &[0; 32][..]),
        ("both zero", &[0; 32], &[0; 32]),
        ("r the order", &order, &true_one[32..]),
        ("s the order", <&[u8; 32]>::try_from(&true_one[..32]).unwrap(), &order),
    ] {
        add(format!("ES256: {what}"), format!("{message}.{}", encoded(&[r, s].concat())));
    }
    // Whole, but of someone else's key of the same kind.
    let stranger = Ed25519KeyPair::generate().unwrap();
    let message = format!(
        "{}.{}",
        encoded(header("EdDSA", "ed").to_string().as_bytes()),
        encoded(claims().to_string().as_bytes())
    );
    let signature = stranger.sign(message.as_bytes());
    add("EdDSA: a stranger's key".to_owned(), format!("{message}.{}", encoded(signature.as_ref())));
    forged
}

#[test]
fn nothing_forged_is_accepted() {
    let tokens = tokens();
    let forged = forged();
    assert!(forged.len() > 300, "{}", forged.len());
    let accepted: Vec<&String> = forged
        .iter()
        .filter(|(_, token)| verify(&tokens, token).is_some())
        .map(|(what, _)| what)
        .collect();
    assert!(accepted.is_empty(), "{accepted:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// However a good token is changed, it is good no more.
    #[test]
    fn no_mutation_of_a_good_token_is_accepted(
        which in 0..4_usize, at in any::<proptest::sample::Index>(), letter in "[A-Za-z0-9_.=-]",
        kind in 0..4_u8, length in 1..9_usize,
    ) {
        static GOOD: LazyLock<Vec<String>> =
            LazyLock::new(|| ALGORITHMS.iter().map(|(algorithm, id)| good(algorithm, id)).collect());
        static TOKENS: LazyLock<Tokens> = LazyLock::new(tokens);
        let good = &GOOD[which];
        let at = at.index(good.len());
        let end = (at + length).min(good.len());
        let changed = match kind {
            0 => format!("{}{letter}{}", &good[..at], &good[at + 1..]),
            1 => format!("{}{letter}{}", &good[..at], &good[at..]),
            2 => format!("{}{}", &good[..at], &good[end..]),
            _ => format!("{}{}{}", &good[..end], &good[at..end], &good[end..]),
        };
        prop_assume!(changed != *good);
        prop_assert!(verify(&TOKENS, &changed).is_none(), "{}", changed);
    }

    #[test]
    fn keys_of_any_text_are_keys_or_an_error(text in "[{}\\[\\]\":,a-zA-Z0-9 =-]{0,80}") {
        let _ = TokenKeys::parse(text.as_bytes());
    }
}

/// A public key in PEM, of its SubjectPublicKeyInfo.
fn pem(der: &[u8]) -> String {
    let text = encoded(der).replace('-', "+").replace('_', "/");
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    format!("-----BEGIN PUBLIC KEY-----\n{text}{padding}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn keys_in_pem_have_no_ids() {
    use aws_lc_rs::encoding::AsDer as _;
    let ed = ISSUERS.ed.public_key().as_der().unwrap();
    let ec = ISSUERS.ec.public_key().as_der().unwrap();
    let rsa = ISSUERS.rsa.public_key().as_der().unwrap();
    let all = [pem(ed.as_ref()), pem(ec.as_ref()), pem(rsa.as_ref())].concat();
    let keys = TokenKeys::parse(all.as_bytes()).unwrap();
    assert_eq!((keys.count(), keys.skipped, keys.has_shared()), (3, 0, false));
    let mut tokens = tokens();
    assert!(tokens.renew(keys), "those with ids are gone");
    for (algorithm, id) in ALGORITHMS {
        let is_good = verify(&tokens, &good(algorithm, id)).is_some();
        assert_eq!(is_good, algorithm != "HS256", "{algorithm}");
    }
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
    assert!(TokenKeys::parse(private.as_bytes()).unwrap_err().to_string().contains("private key"));
    assert!(TokenKeys::parse(b"hello").unwrap_err().to_string().contains("BEGIN PUBLIC KEY"));
}

#[test]
fn sets_that_cannot_be_used_are_refused() {
    let x = encoded(&[1; 32]);
    for (text, expected) in [
        (r#"{"keys":[]}"#.to_owned(), "no key for HS256"),
        (r#"{"keys":{}}"#.to_owned(), "`keys` is no list"),
        (r#"{"keys":[1]}"#.to_owned(), "key 1: not an object"),
        (r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#.to_owned(), "less than 32 bytes"),
        (r#"{"keys":[{"kty":"oct","k":"AB"}]}"#.to_owned(), "not base64url"),
        (r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#.to_owned(), "too weak"),
        (
            format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}]}}"#),
            "no key of its kind",
        ),
        (
            format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}","d":"{x}"}}]}}"#),
            "private key",
        ),
        (r#"{"keys":[],"keys":[]}"#.to_owned(), "stands twice"),
    ] {
        let error = TokenKeys::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let many = json!({ "keys": vec![json!({}); 33] }).to_string();
    assert_eq!(TokenKeys::parse(many.as_bytes()).unwrap_err(), TokenKeysError::Count(33));
}

#[test]
fn what_is_served_under_a_key_that_is_gone_is_over() {
    let mut tokens = tokens();
    let held = ALGORITHMS.map(|(algorithm, id)| verify(&tokens, &good(algorithm, id)).unwrap());
    let mut set = ISSUERS.set();
    assert!(!tokens.renew(TokenKeys::parse(set.to_string().as_bytes()).unwrap()));
    assert!(held.iter().all(|principal| !principal.is_revoked()));
    set["keys"].as_array_mut().unwrap().remove(1);
    assert!(tokens.renew(TokenKeys::parse(set.to_string().as_bytes()).unwrap()));
    let revoked: Vec<bool> = held.iter().map(|principal| principal.is_revoked()).collect();
    assert_eq!(revoked, [false, true, false, false]);
}

#[test]
fn nothing_shows_a_shared_secret() {
    let text = format!("{:?}", tokens());
    let bytes: Vec<String> = SHARED.iter().take(4).map(u8::to_string).collect();
    assert!(!text.contains("obviously") && !text.contains(&bytes.join(", ")), "{text}");
}
