//! Principals × routes × ways to ask × events, against a model that knows nothing of filters.
//!
//! Law: of everything that any route puts out, nothing is there that the model does not allow,
//! and all that it allows is, in order and once.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{
    Stream, WebSocket, get, publish_line, quiet_cloud, seeded, subscribers, until, within,
};

use super::{bearer, guarded, secret};

const NAMES: [&str; 7] = ["a", "ab", "a/x", "a/y", "b", "b/x", "c"];
const DEVICES: [&str; 3] = ["d1", "d2", "d3"];
/// Events before the subscribers come, and while they are there.
const BEFORE: usize = 60;
const LIVE: usize = 40;
const PRINCIPALS: u8 = 10;

/// What was published: its number is its data.
#[derive(Clone, Debug)]
struct Published {
    number: usize,
    name: &'static str,
    device: &'static str,
}

/// Lists as they stand in a grant or a request.
#[derive(Clone, Debug, Default)]
struct Lists {
    prefixes: Vec<&'static str>,
    names: Vec<&'static str>,
    devices: Vec<&'static str>,
}

impl Lists {
    fn any(random: &mut fastrand::Rng) -> Lists {
        let mut some = |from: &[&'static str], most: usize| {
            let count = random.usize(0..=most);
            (0..count).map(|_| from[random.usize(0..from.len())]).collect()
        };
        Lists {
            prefixes: some(&["a", "a/", "b", "b/x", "c", "z"], 2),
            names: some(&NAMES, 2),
            devices: some(&DEVICES, 2),
        }
    }

    /// The model: as docs/protocol.md says it, and nothing else.
    fn allow(&self, name: &str, device: &str) -> bool {
        let by_name = (self.prefixes.is_empty() && self.names.is_empty())
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
            || self.names.contains(&name);
        by_name && (self.devices.is_empty() || self.devices.contains(&device))
    }

    fn query(&self) -> String {
        let parts = [("prefix", &self.prefixes), ("name", &self.names), ("device", &self.devices)];
        let pairs = parts.iter().flat_map(|(key, values)| {
            values.iter().map(move |value| format!("{key}={}", value.replace('/', "%2F")))
        });
        pairs.collect::<Vec<_>>().join("&")
    }

    fn json(&self) -> Value {
        json!({ "prefix": self.prefixes, "name": self.names, "device": self.devices })
    }
}

/// A principal: what it may read, if anything.
#[derive(Clone, Debug)]
struct Principal {
    key: u8,
    read: Option<Lists>,
}

impl Principal {
    fn may(&self, asked: &Lists, name: &str, device: &str) -> bool {
        let granted = self.read.as_ref().is_some_and(|read| read.allow(name, device));
        granted && asked.allow(name, device)
    }

    /// True if there may be an event for it. What no event here has, none could.
    fn may_any(&self, asked: &Lists) -> bool {
        NAMES.iter().any(|name| DEVICES.iter().any(|device| self.may(asked, name, device)))
    }
}

/// How a stream is asked for what was before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Live,
    Replay,
    Snapshot,
}

const WAYS: [Way; 3] = [Way::Live, Way::Replay, Way::Snapshot];

impl Way {
    fn query(self) -> &'static str {
        match self {
            Way::Live => "",
            Way::Replay => "since=earliest",
            Way::Snapshot => "snapshot=true",
        }
    }

    /// What has to come, by number.
    fn expected(self, all: &[Published], may: impl Fn(&Published) -> bool) -> Vec<usize> {
        let (before, live) = all.split_at(BEFORE);
        let past: Vec<&Published> = match self {
            Way::Live => Vec::new(),
            Way::Replay => before.iter().collect(),
            Way::Snapshot => newest(before),
        };
        past.into_iter().chain(live).filter(|event| may(event)).map(|event| event.number).collect()
    }
}

/// The newest of each name and device, in order.
fn newest(events: &[Published]) -> Vec<&Published> {
    let newest: BTreeMap<(&str, &str), &Published> =
        events.iter().map(|event| ((event.name, event.device), event)).collect();
    let mut newest: Vec<&Published> = newest.into_values().collect();
    newest.sort_by_key(|event| event.number);
    newest
}

/// An open stream, and what has to come on it.
struct Open {
    what: String,
    reader: Reader,
    expected: Vec<usize>,
}

enum Reader {
    Sse(Stream),
    Ndjson(Stream),
    WebSocket(WebSocket),
    Particle(Stream),
}

fn number(object: &Value) -> Option<usize> {
    object["data"].as_str()?.parse().ok()
}

impl Reader {
    /// The numbers of all events until it ends.
    async fn numbers(self) -> Vec<usize> {
        match self {
            Reader::Sse(mut stream) => {
                let events = stream.rest().await;
                events
                    .iter()
                    .filter(|event| event.kind == "message")
                    .filter_map(|event| number(&event.json()))
                    .collect()
            }
            Reader::Particle(mut stream) => {
                stream.rest().await.iter().filter_map(|event| number(&event.json())).collect()
            }
            Reader::Ndjson(mut stream) => {
                let mut numbers = Vec::new();
                while let Some(line) = stream.line().await {
                    numbers.extend(serde_json::from_str(&line).ok().as_ref().and_then(number));
                }
                numbers
            }
            Reader::WebSocket(mut socket) => {
                let mut numbers = Vec::new();
                while let Message::Text(text) = socket.message().await {
                    numbers.extend(serde_json::from_str(&text).ok().as_ref().and_then(number));
                }
                numbers
            }
        }
    }
}

/// The status of a request that opens no stream.
async fn status(addr: SocketAddr, path: &str, key: u8) -> u16 {
    crate::harness::ask(addr, "HEAD", path, &[("Authorization", &bearer(key))]).await.status
}

#[tokio::test]
async fn nothing_comes_but_what_is_granted_and_all_that_is() {
    let mut random = seeded();
    let mut principals =
        vec![Principal { key: 1, read: Some(Lists::default()) }, Principal { key: 2, read: None }];
    for key in 3..=PRINCIPALS {
        let read = std::iter::repeat_with(|| Lists::any(&mut random));
        let mut some = read.filter(|lists| {
            !(lists.prefixes.is_empty() && lists.names.is_empty() && lists.devices.is_empty())
        });
        principals.push(Principal { key, read: some.next() });
    }
    let grants: Vec<Value> = principals
        .iter()
        .map(|principal| match &principal.read {
            None => json!({ "admin": true }),
            Some(_) if principal.key == 1 => json!({ "read": true }),
            Some(read) => json!({ "read": read.json() }),
        })
        .collect();
    let cloud = quiet_cloud().await;
    let flags = [if random.bool() { "--delivery-shards=0" } else { "--delivery-shards=2" }];
    let broker = guarded(&cloud, &flags, &grants).await;
    let addr = broker.addr();
    let mut all: Vec<Published> = Vec::new();
    for number in 0..BEFORE + LIVE {
        let (name, device) =
            (NAMES[random.usize(0..NAMES.len())], DEVICES[random.usize(0..DEVICES.len())]);
        all.push(Published { number, name, device });
    }
    let send = async |event: &Published| {
        let line = json!({ "data": event.number.to_string(), "ttl": 60, "coreid": event.device });
        publish_line(&cloud, &broker, event.name, &line.to_string()).await
    };
    let mut head = 0;
    for event in &all[..BEFORE] {
        head = send(event).await;
    }
    let position = format!("{}-{head}", broker.hub().epoch());
    let earliest = format!("{}-0", broker.hub().epoch());

    let mut open: Vec<Open> = Vec::new();
    let mut refused = 0;
    let mut asks = vec![Lists::default()];
    asks.extend((0..3).map(|_| Lists::any(&mut random)));
    for principal in &principals {
        let headers = [("Authorization", bearer(principal.key))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        for asked in &asks {
            for way in WAYS {
                let query = [asked.query(), way.query().to_owned()];
                let query = query
                    .iter()
                    .filter(|part| !part.is_empty())
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("&");
                let (events, ws) = (format!("/events?{query}"), format!("/ws?{query}"));
                if !principal.may_any(asked) {
                    // Or else it is one that no event here can pass.
                    match status(addr, &events, principal.key).await {
                        403 => refused += 1,
                        other => assert_eq!(other, 200, "{principal:?} {asked:?}"),
                    }
                    assert!(
                        principal.read.is_some() || status(addr, &ws, principal.key).await == 403
                    );
                }
                if status(addr, &events, principal.key).await == 403 {
                    assert!(!principal.may_any(asked), "{principal:?} {asked:?}");
                    continue;
                }
                let expected =
                    way.expected(&all, |event| principal.may(asked, event.name, event.device));
                let what = format!("{principal:?} {asked:?} {way:?}");
                let mut add = |how: &str, reader| {
                    let (what, expected) = (format!("{how}: {what}"), expected.clone());
                    open.push(Open { what, reader, expected });
                };
                add("sse", Reader::Sse(Stream::open(addr, &events, &headers).await));
                let json_lines = [headers[0], ("Accept", "application/x-ndjson")];
                add("ndjson", Reader::Ndjson(Stream::open(addr, &events, &json_lines).await));
                let lower = [("authorization", headers[0].1)];
                add("ws", Reader::WebSocket(WebSocket::open_with(addr, &ws, &lower).await));
                // A filter that replaces one that asked for everything.
                if way == Way::Live {
                    let mut socket = WebSocket::open_with(addr, "/ws", &lower).await;
                    assert_eq!(socket.next().await["fanlight"], "hello");
                    let message = json!({ "subscribe": asked.json() }).to_string();
                    socket.send(Message::Text(message.into())).await;
                    assert_eq!(socket.next().await["fanlight"], "hello");
                    add("ws after a new filter", Reader::WebSocket(socket));
                }
            }
        }
        // The cloud's own routes ask by prefix alone, and by position.
        for prefix in ["", "a", "b/x"] {
            let asked = Lists {
                prefixes: if prefix.is_empty() { vec![] } else { vec![prefix] },
                ..Lists::default()
            };
            let query = format!(
                "/v1/devices/events/{prefix}?access_token={}",
                secret(principal.key).expose()
            );
            if !principal.may_any(&asked) {
                let status = crate::harness::ask(addr, "HEAD", &query, &[]).await.status;
                assert!(
                    status == 403 || principal.read.is_some(),
                    "{principal:?} {prefix}: {status}"
                );
                if status == 403 {
                    continue;
                }
            }
            for way in [Way::Live, Way::Replay] {
                let resume = [("Last-Event-ID", earliest.as_str())];
                let headers: &[(&str, &str)] = if way == Way::Live { &[] } else { &resume };
                let expected =
                    way.expected(&all, |event| principal.may(&asked, event.name, event.device));
                let what = format!("v1: {principal:?} {prefix} {way:?}");
                open.push(Open {
                    what,
                    reader: Reader::Particle(Stream::open(addr, &query, headers).await),
                    expected,
                });
            }
        }
    }
    subscribers(&broker, open.len()).await;
    for event in &all[BEFORE..] {
        send(event).await;
    }
    // Polls and /last: asked once all is there.
    for principal in &principals {
        for asked in &asks {
            let query = asked.query();
            let may = |event: &Published| principal.may(asked, event.name, event.device);
            let live: Vec<&Published> = all[BEFORE..].iter().collect();
            let cases = [
                (format!("/poll?timeout=0&limit=1000&after={position}&{query}"), live),
                (
                    format!("/poll?timeout=0&limit=1000&after={earliest}&{query}"),
                    all.iter().collect(),
                ),
                (format!("/poll?timeout=0&limit=1000&snapshot=true&{query}"), newest(&all)),
                (format!("/last?{query}"), newest(&all)),
            ];
            for (path, events) in cases {
                let answer = get(
                    addr,
                    path.trim_end_matches(['&', '?']),
                    &[("Authorization", &bearer(principal.key))],
                )
                .await;
                if answer.status == 403 {
                    assert!(!principal.may_any(asked), "{principal:?} {path}");
                    refused += 1;
                    continue;
                }
                assert_eq!(answer.status, 200, "{path}");
                let object = answer.json();
                let list = object.get("events").unwrap_or(&object).as_array().unwrap();
                let found: Vec<usize> = list.iter().filter_map(number).collect();
                let expected: Vec<usize> = events
                    .into_iter()
                    .filter(|event| may(event))
                    .map(|event| event.number)
                    .collect();
                assert_eq!(found, expected, "{principal:?} {path}");
            }
        }
    }
    assert!(open.len() > 150 && refused > 20, "{} {refused}", open.len());
    until("all is delivered", || {
        broker.hub().subscriber_statuses().iter().all(|one| one.lag_events == 0).then_some(())
    })
    .await;
    // The end of the broker is the end of each stream: whatever was to come has come by then.
    let ended = tokio::spawn(broker.shutdown());
    for Open { what, reader, expected } in open {
        assert_eq!(within(&what, reader.numbers()).await, expected, "{what}");
    }
    ended.await.unwrap();
}
