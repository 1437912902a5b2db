//! A handful of events, and what each filter makes of them. Every transport is held to
//! the same table.

use fanlight::{server::Broker, simulator::Simulator};

use super::publish_line;

/// Name and device of each event. Its data is its place in this list.
pub const EVENTS: &[(&str, Option<&str>)] = &[
    ("greenhouse/temp", Some("d1")),
    ("greenhouse/humidity", Some("d2")),
    ("garage/door", Some("d1")),
    ("Greenhouse/temp", Some("d2")),
    ("greenhouse", Some("d3")),
    ("garage/door", Some("d2")),
    ("ünïcode/é", None),
];

/// Queries, and the places of the events that pass.
pub const FILTERS: &[(&str, &[usize])] = &[
    ("", &[0, 1, 2, 3, 4, 5, 6]),
    ("prefix=", &[0, 1, 2, 3, 4, 5, 6]),
    ("prefix=greenhouse", &[0, 1, 4]),
    ("prefix=greenhouse/", &[0, 1]),
    ("prefix=greenhouse%2F&prefix=garage/", &[0, 1, 2, 5]),
    ("prefix=%C3%BCn", &[6]),
    ("name=greenhouse", &[4]),
    ("name=greenhouse/temp&name=garage/door", &[0, 2, 5]),
    ("prefix=Green&name=greenhouse", &[3, 4]),
    ("device=d1", &[0, 2]),
    ("device=d1&device=d3", &[0, 2, 4]),
    ("prefix=greenhouse&device=d2", &[1]),
    ("name=garage/door&prefix=green&device=d2", &[1, 5]),
    ("name=nothing", &[]),
    ("device=nobody", &[]),
];

/// The data line of an event.
pub fn json(place: usize) -> String {
    match EVENTS[place].1 {
        Some(device) => format!(r#"{{"data":"{place}","ttl":60,"coreid":"{device}"}}"#),
        None => format!(r#"{{"data":"{place}","ttl":60}}"#),
    }
}

/// Publishes them all.
pub async fn publish_all(cloud: &Simulator, broker: &Broker) {
    for (place, (name, _)) in EVENTS.iter().enumerate() {
        publish_line(cloud, broker, name, &json(place)).await;
    }
}

/// The places of events, from their JSON in any form.
pub fn places<'a>(events: impl IntoIterator<Item = &'a serde_json::Value>) -> Vec<usize> {
    let place = |event: &serde_json::Value| event["data"].as_str().unwrap().parse().unwrap();
    events.into_iter().map(place).collect()
}
