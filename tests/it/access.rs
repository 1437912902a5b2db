//! Who may read, publish and administer.

mod matrix;

use std::path::{Path, PathBuf};

use fanlight::{
    access::{Grants, Key, Keys, Secret, key},
    server::{AccessConfig, Broker, Need, keys_file, needs},
    simulator::Simulator,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{
    Answer, Process, Stream, Stub, WebSocket, ask, broker_with, eventually, folder, get, publish,
    quiet_cloud, subscribers, until, within,
};

/// A key of a number, as text.
fn secret(number: u8) -> Secret {
    Secret::key(&[number; key::KEY_BYTES])
}

/// A key of a number with these grants.
fn key_of(number: u8, grants: &Value, expires_ms: Option<u64>) -> Key {
    let grants = Grants::from_json(grants).unwrap();
    let name = format!("key {number}");
    Key::new([number; key::ID_BYTES], &name, &secret(number), grants, 1, expires_ms).unwrap()
}

/// A broker that asks for these keys, which are numbered from 1.
async fn guarded(cloud: &Simulator, flags: &[&str], grants: &[Value]) -> Broker {
    let mut keys = Keys::default();
    for (number, grants) in (1..).zip(grants) {
        keys.add(key_of(number, grants, None), 2).unwrap();
    }
    guarded_by(cloud, flags, AccessConfig { keys: Some(keys), ..AccessConfig::default() }).await
}

async fn guarded_by(cloud: &Simulator, flags: &[&str], access: AccessConfig) -> Broker {
    let url = format!("--upstream-url={}", cloud.url());
    let flags: Vec<&str> = [url.as_str()].into_iter().chain(flags.iter().copied()).collect();
    let broker = broker_with(&flags, |config| config.access = access).await;
    cloud.streams(1).await;
    broker
}

fn bearer(number: u8) -> String {
    format!("Bearer {}", secret(number).expose())
}

/// `method path` with the key of a number; 0 for none.
async fn ask_as(broker: &Broker, number: u8, method: &str, path: &str) -> Answer {
    let bearer = bearer(number);
    let headers: &[(&str, &str)] =
        if number == 0 { &[] } else { &[("Authorization", bearer.as_str())] };
    ask(broker.addr(), method, path, headers).await
}

/// An event stream with the key of a number, its hello read.
async fn stream_as(broker: &Broker, number: u8, path: &str) -> (Stream, Value) {
    let mut stream = Stream::open(broker.addr(), path, &[("Authorization", &bearer(number))]).await;
    let hello = stream.next().await;
    assert_eq!(hello.kind, "fanlight.hello");
    (stream, hello.json())
}

/// Every route there is, and every one of the cloud's that is described, answers those who do
/// not say who they are as its need wants it.
#[tokio::test]
async fn no_route_lets_anyone_in_that_it_should_ask() {
    let cloud = quiet_cloud().await;
    let broker = guarded(&cloud, &["--publish-enabled=true"], &[json!({"read": true})]).await;
    let mut asked = 0;
    for (path, need) in needs() {
        // Below; and what asks for a secret of its own, in `ingest.rs`.
        if path == "/v1/{*path}" || need == Need::Secret {
            continue;
        }
        let path = path.replace("{*name}", "main.js");
        let anyone = ask_as(&broker, 0, "HEAD", &path).await.status;
        let wrong = ask_as(&broker, 9, "HEAD", &path).await.status;
        let reader = ask_as(&broker, 1, "HEAD", &path).await.status;
        match need {
            Need::Nothing => assert_eq!([anyone, wrong], [200, 200], "{path}"),
            Need::Read => {
                assert_eq!([anyone, wrong], [401, 401], "{path}");
                assert!([200, 426].contains(&reader), "{path}: {reader}");
            }
            Need::Admin => assert_eq!([anyone, wrong, reader], [401, 401, 403], "{path}"),
            Need::Within | Need::Secret => panic!("{path} has to be named here"),
        }
        asked += 1;
    }
    assert!(asked >= 13, "{asked}");
    let openapi = get(broker.addr(), "/openapi.json", &[]).await.json();
    let paths = openapi["paths"].as_object().unwrap();
    for (path, methods) in paths.iter().filter(|(path, _)| path.starts_with("/v1/")) {
        let path = path.replace(['{', '}'], "");
        for path in [path.clone(), format!("/{path}"), format!("{path}/a/b")] {
            for method in methods.as_object().unwrap().keys() {
                for number in [0, 9] {
                    let answer = ask_as(&broker, number, &method.to_uppercase(), &path).await;
                    assert_eq!(answer.status, 401, "{method} {path}");
                    assert_eq!(answer.json()["error"], "invalid_token");
                }
            }
        }
    }
    for path in ["/v1/nothing", "/v1/devices/d/f", "//v1/devices/events", "///v1//devices/events"] {
        for method in ["GET", "POST", "HEAD", "PUT"] {
            assert_eq!(ask_as(&broker, 0, method, path).await.status, 401, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do_and_the_same_of_all_that_is_not_valid() {
    let cloud = quiet_cloud().await;
    let broker = guarded(&cloud, &[], &[json!({"admin": true})]).await;
    let addr = broker.addr();
    let missing = get(addr, "/events", &[]).await;
    assert_eq!(missing.header("www-authenticate"), Some("bearer realm=\"fanlight\""));
    assert!(missing.body.contains("fanlight token"), "{missing:?}");
    let wrong = ask_as(&broker, 9, "GET", "/events").await;
    let challenge = "bearer realm=\"fanlight\", error=\"invalid_token\"";
    assert_eq!(wrong.header("www-authenticate"), Some(challenge));
    for text in ["Bearer fl_x", "Bearer x", "Bearer a.b.c", "Bearer fl_"] {
        let other = get(addr, "/events", &[("Authorization", text)]).await;
        assert_eq!((other.status, &other.body), (401, &wrong.body), "{text}");
    }
    let denied = ask_as(&broker, 1, "GET", "/events").await;
    assert_eq!((denied.status, &denied.json()["error"]), (403, &json!("forbidden")));
    let query = format!("access_token={}", secret(1).expose());
    for path in ["/events", "/ws", "/poll", "/last", "/status", "/metrics"] {
        let answer = get(addr, &format!("{path}?{query}"), &[]).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (400, &json!("misplaced_token")),
            "{path}"
        );
    }
    let answer = get(addr, &format!("/v1/devices/events?{query}"), &[]).await;
    assert_eq!(answer.status, 403, "known, and not allowed to read");
    for (outcome, least) in [("missing", 1.0), ("refused", 11.0), ("denied", 2.0)] {
        let text = ask_as(&broker, 1, "GET", "/metrics").await.body;
        let sample = format!("fanlight_accesses_total{{outcome=\"{outcome}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&sample)).unwrap();
        assert!(value.parse::<f64>().unwrap() >= least, "{outcome}: {value}");
    }
    let status = ask_as(&broker, 1, "GET", "/status").await.json();
    assert_eq!(status["access"], json!({ "mode": "on", "keys": 1, "token_keys": 0 }));
}

#[tokio::test]
async fn a_websocket_is_narrowed_with_every_new_filter() {
    let cloud = quiet_cloud().await;
    let read = json!({"read": {"prefix": ["a"]}});
    let broker = guarded(&cloud, &[], &[read]).await;
    let mut socket =
        WebSocket::open_with(broker.addr(), "/ws", &[("authorization", &bearer(1))]).await;
    assert_eq!(socket.next().await["filter"]["prefix"], json!(["a"]));
    socket.send(Message::Text(r#"{"subscribe":{}}"#.into())).await;
    assert_eq!(socket.next().await["filter"]["prefix"], json!(["a"]));
    publish(&cloud, &broker, "b1", "1").await;
    publish(&cloud, &broker, "a1", "1").await;
    assert_eq!(socket.next().await["name"], "a1");
    socket.send(Message::Text(r#"{"subscribe":{"prefix":["b"]}}"#.into())).await;
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 1008);
    assert!(reason.contains("may read nothing"), "{reason}");
}

/// A broker whose keys are in a file, and the file.
async fn with_file(
    cloud: &Simulator,
    name: &str,
    flags: &[&str],
    grants: &[Value],
) -> (Broker, PathBuf) {
    let path = folder(name).join("keys.json");
    for (number, grants) in (1..).zip(grants) {
        add(&path, key_of(number, grants, None));
    }
    let keys = keys_file::read(&path).unwrap();
    let access = AccessConfig { keys, keys_file: Some(path.clone()), tokens: None };
    (guarded_by(cloud, flags, access).await, path)
}

fn add(path: &Path, key: Key) {
    keys_file::change(path, |keys| keys.add(key, 2)).unwrap();
}

fn revoke(path: &Path, name: &str) {
    keys_file::change(path, |keys| keys.revoke(name, 3)).unwrap();
}

#[tokio::test]
async fn what_is_served_under_a_key_ends_when_it_is_revoked() {
    for shards in ["--delivery-shards=0", "--delivery-shards=2"] {
        let cloud = quiet_cloud().await;
        let all = [json!({"read": true}), json!({"read": true, "admin": true})];
        let (broker, path) = with_file(&cloud, "access-revoke", &[shards], &all).await;
        let addr = broker.addr();
        let (mut gone, _) = stream_as(&broker, 1, "/events").await;
        let (mut stays, _) = stream_as(&broker, 2, "/events").await;
        let mut socket = WebSocket::open_with(addr, "/ws", &[("authorization", &bearer(1))]).await;
        assert_eq!(socket.next().await["fanlight"], "hello");
        let by_query = format!("/v1/devices/events?access_token={}", secret(1).expose());
        let mut drop_in = Stream::open(addr, &by_query, &[]).await;
        let polled = tokio::spawn(async move {
            get(addr, "/poll?timeout=60", &[("Authorization", &bearer(1))]).await
        });
        subscribers(&broker, 5).await;
        revoke(&path, "key 1");
        let bye = gone.next().await;
        assert_eq!((bye.kind.as_str(), &bye.json()["reason"]), ("fanlight.bye", &json!("expired")));
        assert!(gone.try_next().await.is_none() && gone.ended_cleanly());
        assert_eq!(socket.next().await["reason"], "expired");
        assert_eq!(socket.closed().await.0, 1001);
        assert!(drop_in.rest().await.is_empty() && drop_in.ended_cleanly());
        assert!(!drop_in.text().contains("fanlight"), "{}", drop_in.text());
        assert_eq!(polled.await.unwrap().status, 401);
        drop((socket, gone, drop_in));
        subscribers(&broker, 1).await;
        publish(&cloud, &broker, "a", "1").await;
        assert_eq!(stays.next().await.json()["name"], "a");
        assert_eq!(ask_as(&broker, 1, "GET", "/last").await.status, 401);
        let text = ask_as(&broker, 2, "GET", "/metrics").await.body;
        let sample = "fanlight_subscribers_closed_total{reason=\"revoked\"} 4";
        assert!(text.contains(sample), "{text}");
    }
}

#[tokio::test]
async fn keys_come_and_change_while_the_broker_runs_and_a_broken_file_changes_nothing() {
    let cloud = quiet_cloud().await;
    let (broker, path) = with_file(&cloud, "access-change", &[], &[json!({"read": true})]).await;
    let status = async |number, status: u16| {
        let found = ask_as(&broker, number, "GET", "/last").await.status;
        (found == status).then_some(())
    };
    assert_eq!(ask_as(&broker, 2, "GET", "/last").await.status, 401);
    add(&path, key_of(2, &json!({"read": {"prefix": ["a"]}}), None));
    eventually("the new key is good", async || status(2, 200).await).await;
    let (mut stream, _) = stream_as(&broker, 2, "/events").await;
    // Broken, gone, and back: nobody is thrown out and nobody comes in.
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, "{").unwrap();
    std::fs::remove_file(&path).unwrap();
    add(&path, key_of(3, &json!({"read": true}), None));
    eventually("another file has other keys", async || status(3, 200).await).await;
    assert_eq!(stream.next().await.json()["reason"], "expired", "its key is not in that file");
    std::fs::write(&path, &good).unwrap();
    eventually("and back", async || status(2, 200).await).await;
    assert_eq!(ask_as(&broker, 3, "GET", "/last").await.status, 401);
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let cloud = quiet_cloud().await;
    let mut keys = Keys::default();
    let wall_ms = fanlight::clock::wall_ms();
    keys.add(key_of(1, &json!({"read": true}), Some(wall_ms + 1_500)), 2).unwrap();
    let access = AccessConfig { keys: Some(keys), ..AccessConfig::default() };
    let broker = guarded_by(&cloud, &[], access).await;
    let (mut stream, _) = stream_as(&broker, 1, "/events").await;
    let poll = ask_as(&broker, 1, "GET", "/poll?timeout=60").await;
    assert_eq!(poll.status, 401);
    assert_eq!(stream.next().await.json()["reason"], "expired");
    assert!(stream.try_next().await.is_none());
    assert_eq!(ask_as(&broker, 1, "GET", "/last").await.status, 401);
    until("it is counted", || {
        let closed = broker.telemetry().totals().closed;
        closed
            .iter()
            .any(|(reason, count)| reason.as_str() == "expired" && *count == 2)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn names_are_published_by_prefix_and_functions_are_called_by_admins() {
    let cloud = quiet_cloud().await;
    let flags = ["--publish-enabled=true", "--publish-functions=true", "--publish-burst=50"];
    let grants =
        [json!({"publish": {"prefix": ["cmd/"]}}), json!({"read": true}), json!({"admin": true})];
    let broker = guarded(&cloud, &flags, &grants).await;
    let publish = async |number: u8, body: &str| {
        let request = format!(
            "POST /v1/devices/events HTTP/1.1\r\nHost: broker\r\nConnection: close\r\nAuthorization: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            bearer(number),
            body.len()
        );
        let answer = crate::harness::raw_until_closed(broker.addr(), request.as_bytes()).await;
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(publish(1, r#"{"name":"cmd/on"}"#).await, 200);
    assert_eq!(publish(1, r#"{"name":"cmd"}"#).await, 403);
    assert_eq!(publish(2, r#"{"name":"cmd/on"}"#).await, 403);
    assert_eq!(publish(3, r#"{"name":"cmd/on"}"#).await, 403);
    let function = "/v1/devices/0123456789abcdef01234567/led";
    for number in [1, 2] {
        assert_eq!(ask_as(&broker, number, "POST", function).await.status, 403);
    }
    assert_ne!(ask_as(&broker, 3, "POST", function).await.status, 403);
}

#[tokio::test]
async fn a_port_of_others_is_not_opened_without_a_key() {
    let dir = folder("access-start");
    let state = format!("--state-dir={}", dir.display());
    let open = ["serve", "--listen=0.0.0.0:0", "--upstream-url=http://127.0.0.1:9", &state];
    let mut refused = Process::start(Process::command(&open));
    assert_eq!(refused.ended().await, Some(2));
    let text = refused.trace.join("\n");
    for part in ["nobody is asked", "fanlight token new", "access.mode = \"off\"", "keys.json"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let mut meant = Process::start(Process::command(&[&open[..], &["--access-mode=off"]].concat()));
    meant.traced("listening").await;
    meant.kill().await;
    // With a key it starts, and asks.
    let made =
        Process::command(&["token", "new", "wall", "--read", &state]).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let key = String::from_utf8(made.stdout).unwrap();
    let mut asks = Process::start(Process::command(&open));
    let listening = asks.traced("listening").await;
    let mut addr: std::net::SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    assert_eq!(get(addr, "/last", &[]).await.status, 401);
    let bearer = format!("Bearer {}", key.trim());
    assert_eq!(get(addr, "/last", &[("Authorization", &bearer)]).await.status, 200);
    let listed = Process::command(&["token", "list", &state]).output().await.unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("wall") && listed.contains("--read") && !listed.contains("fl_"),
        "{listed}"
    );
    let revoked = Process::command(&["token", "revoke", "wall", &state]).output().await.unwrap();
    assert!(revoked.status.success(), "{revoked:?}");
    eventually("it is revoked", async || {
        (get(addr, "/last", &[("Authorization", &bearer)]).await.status == 401).then_some(())
    })
    .await;
    asks.kill().await;
    assert!(!asks.trace.join("\n").contains(key.trim()));
    // What is broken stops the start.
    std::fs::write(dir.join("keys.json"), "{\"version\":1,\"keys\":[],\"x\":1}").unwrap();
    let mut broken = Process::start(Process::command(&open));
    assert_eq!(broken.ended().await, Some(2));
    assert!(broken.trace.join("\n").contains("keys.json cannot be used"), "{:?}", broken.trace);
}

/// Base64 for tokens: letters that need no more than the standard's own.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let held = part.iter().fold(0_u32, |held, byte| held << 8 | u32::from(*byte));
        let held = held << ((6 - part.len() * 8 % 6) % 6);
        for at in (0..(part.len() * 8).div_ceil(6)).rev() {
            text.push(char::from(LETTERS[(held >> (at * 6) & 63) as usize]));
        }
    }
    text
}

/// Who signs tokens.
struct Issuer(aws_lc_rs::signature::Ed25519KeyPair);

impl Issuer {
    fn new() -> Issuer {
        Issuer(aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap())
    }

    fn key(&self, id: &str) -> Value {
        use aws_lc_rs::signature::KeyPair as _;
        let x = base64url(self.0.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x })
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": id }).to_string();
        let message = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        format!("{message}.{}", base64url(self.0.sign(message.as_bytes()).as_ref()))
    }
}

fn claims(read: &str) -> Value {
    let expires = fanlight::clock::wall_ms() / 1000 + 600;
    json!({ "aud": "fanlight", "exp": expires, "fanlight": { "read": { "prefix": [read] } } })
}

#[tokio::test]
async fn tokens_are_good_while_their_key_is_in_the_file() {
    let cloud = quiet_cloud().await;
    let path = folder("access-tokens").join("keys.json");
    let (one, other) = (Issuer::new(), Issuer::new());
    std::fs::write(&path, json!({ "keys": [one.key("1"), other.key("2")] }).to_string()).unwrap();
    let file = format!("--access-jwt-keys-file={}", path.display());
    let url = format!("--upstream-url={}", cloud.url());
    let flags = [url.as_str(), &file, "--access-jwt-audience=fanlight"];
    let broker = broker_with(&flags, |_| {}).await;
    cloud.streams(1).await;
    let addr = broker.addr();
    assert_eq!(get(addr, "/last", &[]).await.status, 401, "tokens alone put access on");
    let token = one.token("1", &claims("a"));
    let bearer = format!("Bearer {token}");
    let mut stream = Stream::open(addr, "/events", &[("Authorization", &bearer)]).await;
    assert_eq!(stream.next().await.json()["filter"]["prefix"], json!(["a"]));
    publish(&cloud, &broker, "b", "1").await;
    publish(&cloud, &broker, "a", "1").await;
    assert_eq!(stream.next().await.json()["name"], "a");
    let expired =
        one.token("1", &json!({ "aud": "fanlight", "exp": 1, "fanlight": { "read": true } }));
    for token in [expired, other.token("1", &claims("a")), format!("{token}A")] {
        let bearer = format!("Bearer {token}");
        let answer = get(addr, "/last", &[("Authorization", &bearer)]).await;
        assert_eq!((answer.status, answer.body.contains(&token)), (401, false));
    }
    // The issuer takes its key back.
    std::fs::write(&path, json!({ "keys": [other.key("2")] }).to_string()).unwrap();
    assert_eq!(stream.next().await.json()["reason"], "expired");
    assert_eq!(get(addr, "/last", &[("Authorization", &bearer)]).await.status, 401);
}

#[tokio::test]
async fn keys_for_tokens_are_asked_for_and_never_in_the_way() {
    let cloud = quiet_cloud().await;
    let issuer = Issuer::new();
    let stub = Stub::listen().await;
    let at = format!("--access-jwt-jwks-url=http://{}/keys", stub.addr());
    let url = format!("--upstream-url={}", cloud.url());
    let flags = [
        url.as_str(),
        &at,
        "--access-jwt-audience=fanlight",
        "--access-jwt-issuer=https://id.example",
    ];
    let broker = broker_with(&flags, |_| {}).await;
    let addr = broker.addr();
    let mut claims = claims("a");
    claims["iss"] = json!("https://id.example");
    let bearer = format!("Bearer {}", issuer.token("1", &claims));
    let ask = async || get(addr, "/last", &[("Authorization", &bearer)]).await.status;
    let asked = stub.asked().await;
    assert_eq!(ask().await, 401, "answered while the keys are still on their way");
    asked.answer("200 OK", "", &json!({ "keys": [issuer.key("1")] }).to_string()).await;
    eventually("the keys are there", async || (ask().await == 200).then_some(())).await;
    claims["iss"] = json!("https://other.example");
    let other = format!("Bearer {}", issuer.token("1", &claims));
    assert_eq!(get(addr, "/last", &[("Authorization", &other)]).await.status, 401);
}

/// What a secret must not be found in: everything that a process says.
#[tokio::test]
async fn no_secret_is_said_anywhere() {
    let cloud = quiet_cloud().await;
    let dir = folder("access-canary");
    let keys = dir.join("keys.json");
    let good = "admin-canary";
    keys_file::change(&keys, |keys| {
        let grants =
            Grants::from_json(&json!({ "read": true, "admin": true, "publish": true })).unwrap();
        keys.add(Key::new([7; key::ID_BYTES], good, &secret(7), grants, 1, None)?, 2)
    })
    .unwrap();
    let issuer = Issuer::new();
    let tokens = dir.join("tokens.json");
    std::fs::write(&tokens, json!({ "keys": [issuer.key("1")] }).to_string()).unwrap();
    let flags = [
        format!("--access-keys-file={}", keys.display()),
        format!("--access-jwt-keys-file={}", tokens.display()),
        "--access-jwt-audience=fanlight".to_owned(),
        "--trace-level=trace".to_owned(),
        "--publish-enabled=true".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (mut process, addr) = Process::serve(&cloud.url(), &flags).await;
    let token = issuer.token("1", &claims("a"));
    let (head, tail) = token.split_at(token.len() - 9);
    let canaries = [
        secret(7).expose().to_owned(),
        secret(8).expose().to_owned(),
        token.clone(),
        format!("{head}{}", tail.to_lowercase()),
        "hunter2-canary".to_owned(),
    ];
    let mut said = String::new();
    for canary in &canaries {
        for path in
            ["/events", "/ws", "/poll?timeout=0", "/last", "/status", "/metrics", "/", "/healthz"]
        {
            let both = [
                format!("Bearer {canary}"),
                format!("Basic {canary}"),
                canary.clone(),
                format!("Bearer {canary} {canary}"),
            ];
            for header in &both {
                let answer = ask(addr, "HEAD", path, &[("Authorization", header)]).await;
                said += &format!("{}{}", answer.head, answer.body);
            }
            let joint = if path.contains('?') { '&' } else { '?' };
            let answer = get(addr, &format!("{path}{joint}access_token={canary}"), &[]).await;
            said += &format!("{}{}", answer.head, answer.body);
        }
        for method in ["HEAD", "POST", "PUT", "OPTIONS"] {
            for path in ["/v1/devices/events", "/v1/products/1/events", "/v1/devices/d/f", "/v1/x"]
            {
                let query = format!("{path}?access_token={canary}");
                let answer = ask(addr, method, &query, &[("Authorization", "Bearer x")]).await;
                said += &format!("{}{}", answer.head, answer.body);
                let answer = ask(addr, method, &query, &[]).await;
                said += &format!("{}{}", answer.head, answer.body);
            }
        }
        let (bearer, query) =
            (format!("Bearer {canary}"), format!("/v1/devices/events?access_token={canary}"));
        if get(addr, "/last", &[("Authorization", &bearer)]).await.status == 200 {
            let stream = Stream::open(addr, "/events", &[("Authorization", &bearer)]).await;
            let drop_in = Stream::open(addr, &query, &[]).await;
            said += &(stream.head.clone() + &stream.text() + &drop_in.head + &drop_in.text());
        }
    }
    let bearer = format!("Bearer {}", canaries[0]);
    for path in ["/status", "/metrics"] {
        let answer = get(addr, path, &[("Authorization", &bearer)]).await;
        assert_eq!(answer.status, 200);
        said += &answer.body;
    }
    keys_file::change(&keys, |keys| keys.revoke(good, 3)).unwrap();
    eventually("it is revoked", async || {
        (get(addr, "/last", &[("Authorization", &bearer)]).await.status == 401).then_some(())
    })
    .await;
    process.signal("TERM");
    process.ended().await;
    said += &process.trace.join("\n");
    assert!(
        said.contains("\"listening\"") && said.contains("invalid_token"),
        "nothing was looked at"
    );
    let said = said.to_lowercase();
    for canary in &canaries {
        // The signature alone, and the middle of a key, are secrets too.
        for part in [
            canary.as_str(),
            &canary[canary.len() - 12..],
            canary.split('.').nth(2).unwrap_or(canary),
        ] {
            assert!(!said.contains(&part.to_lowercase()), "{part} was said");
        }
    }
    assert!(!said.contains(&good.to_lowercase()), "nor is a key's name");
}

/// What a command ended with, and all that it said.
async fn ran(arguments: &[&str], token: Option<&str>) -> (Option<i32>, String) {
    let mut command = Process::command(arguments);
    if let Some(token) = token {
        command.env("FANLIGHT_TOKEN", token);
    }
    let output = within("the command ends", command.output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_commands_say_who_they_are() {
    let cloud = quiet_cloud().await;
    let grants = [json!({ "read": { "prefix": ["a"] }, "publish": { "prefix": ["a"] } })];
    let broker = guarded(&cloud, &["--publish-enabled=true"], &grants).await;
    publish(&cloud, &broker, "b1", "1").await;
    publish(&cloud, &broker, "a1", "1").await;
    let url = format!("http://{}", broker.addr());
    let file = folder("access-commands").join("key");
    std::fs::write(&file, format!("{}\n", secret(1).expose())).unwrap();
    let file = format!("--token-file={}", file.display());
    let through = format!("--through={url}");
    let direct = format!("--direct={url}");
    let commands: [&[&str]; 4] = [
        &["tail", &url, "--json", "--since=earliest", "--limit=1", "--no-control"],
        &["publish", "a2", "--url", &url],
        &["bench", &url, "--subscribers=2", "--duration=100ms"],
        &["check", &through, &direct, "--for=1s"],
    ];
    for command in commands {
        let (code, said) = ran(command, None).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("--token-file") && said.contains("FANLIGHT_TOKEN"), "{said}");
        let (code, said) = ran(command, Some("fl_wrong-canary")).await;
        assert!(code == Some(1) && !said.contains("wrong-canary"), "{said}");
        for (more, token) in [(Some(file.as_str()), None), (None, Some(secret(1).expose()))] {
            let arguments: Vec<&str> = command.iter().copied().chain(more).collect();
            let (code, said) = ran(&arguments, token).await;
            assert_eq!(code, Some(0), "{arguments:?}: {said}");
            assert!(!said.contains(secret(1).expose()), "{said}");
            if command[0] == "tail" {
                assert!(said.contains("\"a1\"") && !said.contains("\"b1\""), "{said}");
            }
        }
    }
    let (code, said) = ran(&["publish", "b2", "--url", &url], Some(secret(1).expose())).await;
    assert!(code == Some(1) && said.contains("403"), "{said}");
    let missing = ran(&["tail", &url, "--token-file=/nonexistent"], None).await;
    assert!(missing.0 == Some(2) && missing.1.contains("--token-file"), "{missing:?}");
}
