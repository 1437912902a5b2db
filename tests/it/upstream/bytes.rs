//! The cloud's own bytes, recorded samples of every kind, through the whole broker.

use serde_json::Value;

use super::live;
use crate::harness::{Stream, WebSocket, broker_with, get, quiet_cloud, subscribers};

/// Name and data line of each event of the samples.
fn samples() -> Vec<(String, String)> {
    let text = std::str::from_utf8(SAMPLES).unwrap();
    let field = |block: &str, name: &str| -> Option<String> {
        block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    let blocks = text.split("\n\n");
    blocks.filter_map(|block| Some((field(block, "event: ")?, field(block, "data: ")?))).collect()
}

const SAMPLES: &[u8] = include_bytes!("../../data/particle-wire-samples.txt");

#[tokio::test]
async fn every_sample_arrives_byte_for_byte() {
    let samples = samples();
    assert_eq!(samples.len(), 20);
    let cloud = quiet_cloud().await;
    let broker = broker_with(&[&format!("--upstream-url={}", cloud.url())], |_| {}).await;
    live(&broker).await;
    let addr = broker.addr();
    let (mut message, hello) = Stream::live(addr, "/events").await;
    let (mut particle, _) = Stream::live(addr, "/events?format=particle").await;
    let mut ndjson = Stream::open(addr, "/events", &[("Accept", "application/x-ndjson")]).await;
    ndjson.full_line().await;
    let mut websocket = WebSocket::open(addr, "/ws").await;
    websocket.next().await;
    subscribers(&broker, 4).await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    println!("seed {seed}");
    let mut after = hello.id;
    for round in 0..4 {
        let mut rest = SAMPLES;
        while !rest.is_empty() {
            // First all at once, then torn anywhere.
            let bytes_max = if round == 0 { rest.len() } else { rest.len().min(40) };
            let (piece, more) = rest.split_at(random.usize(1..=bytes_max));
            cloud.raw(if round == 0 { rest } else { piece });
            rest = if round == 0 { &[] } else { more };
        }
        let (mut lines, mut next) = (Vec::new(), String::new());
        for (name, data) in &samples {
            let event = particle.next().await;
            assert_eq!((&event.kind, &event.data), (name, data));
            let event = message.next().await;
            let named = format!("{{\"name\":\"{name}\",{}", &data[1..]);
            assert_eq!((event.kind.as_str(), &event.data), ("message", &named));
            let mut json = event.json();
            assert_eq!(json.as_object_mut().unwrap().remove("name"), Some(name.as_str().into()));
            assert_eq!(json, serde_json::from_str::<Value>(data).unwrap());
            let line = format!("{{\"id\":\"{}\",{}", event.id, &named[1..]);
            assert_eq!(ndjson.full_line().await, line);
            assert_eq!(websocket.text().await, line);
            lines.push(line);
            next = event.id;
        }
        let poll = get(addr, &format!("/poll?after={after}"), &[]).await;
        let lines = lines.join(",");
        assert_eq!(poll.body, format!("{{\"events\":[{lines}],\"next\":\"{next}\",\"gap\":null}}"));
        after = next;
    }
    // Nor is there anything in between that a parser would forgive.
    let body = String::from_utf8(particle.body.clone()).unwrap();
    let sent: Vec<&str> =
        body.lines().filter_map(|line| line.strip_prefix("data: ")).skip(1).collect();
    let expected: Vec<&str> = samples.iter().map(|(_, data)| data.as_str()).collect();
    assert_eq!(sent, expected.repeat(4));
    broker.shutdown().await;
}
