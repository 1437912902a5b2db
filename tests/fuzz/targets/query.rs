//! Any query and headers: what is understood is a filter in canonical form that passes what was
//! asked for, and the index finds it for exactly those events.

use fanlight::{
    model::{
        Filter,
        filter::{VALUE_BYTES_MAX, VALUES_MAX},
        interest::Interest,
        resume::Start,
    },
    transport::request::{Request, Route, accepts_event_stream, accepts_ndjson},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::form_urlencoded;

use super::{numbers, split};

/// What a query says of a filter, as it stands there.
#[derive(Debug, Default)]
struct Asked {
    prefixes: Vec<String>,
    names: Vec<String>,
    devices: Vec<String>,
}

pub(super) fn query(input: &[u8]) {
    let Some(([route, accept_bytes, id_bytes], rest)) = numbers(input) else { return };
    let (accept, rest) = split(rest, accept_bytes % 32);
    let (id, rest) = split(rest, id_bytes % 64);
    let mut headers = HeaderMap::new();
    let id_name = HeaderName::from_static("last-event-id");
    for (name, value) in [(header::ACCEPT, accept), (id_name, id)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let _ = (accepts_ndjson(&headers), accepts_event_stream(&headers));
    let routes = [Route::Events, Route::WebSocket, Route::Poll, Route::Last];
    let query = String::from_utf8_lossy(rest);
    let request = match Request::parse(routes[route % routes.len()], Some(&query), &headers) {
        Ok(request) => request,
        Err(error) => return assert!(error.to_string().len() < 1000, "{error}"),
    };
    let asked = Asked::of(&query);
    let values = [&asked.prefixes, &asked.names, &asked.devices];
    assert!(values.iter().all(|values| values.len() <= VALUES_MAX));
    assert!(values.iter().copied().flatten().all(|value| value.len() <= VALUE_BYTES_MAX));
    // A position in the header counts before all else.
    if headers.get("last-event-id").is_some_and(|id| !id.is_empty()) {
        assert!(matches!(request.start, Start::After(_)));
    }
    is_canonical(&request.filter);
    passes_what_was_asked_for(&request.filter, &asked);
}

impl Asked {
    fn of(query: &str) -> Asked {
        let mut asked = Asked::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "prefix" => asked.prefixes.push(value.into_owned()),
                "name" => asked.names.push(value.into_owned()),
                "device" => asked.devices.push(value.into_owned()),
                _ => {}
            }
        }
        asked
    }

    /// The rule of docs/protocol.md, one value after the other.
    fn passes(&self, name: &str, device: Option<&str>) -> bool {
        let every_name = self.prefixes.is_empty() && self.names.is_empty();
        let by_name = every_name
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
            || self.names.iter().any(|wanted| wanted == name);
        let by_device = self.devices.is_empty()
            || device.is_some_and(|device| self.devices.iter().any(|wanted| wanted == device));
        by_name && by_device
    }
}

fn is_canonical(filter: &Filter) {
    let parts: [Vec<&str>; 3] =
        [filter.prefixes().collect(), filter.names().collect(), filter.devices().collect()];
    assert!(parts.iter().all(|part| part.windows(2).all(|pair| pair[0] < pair[1])));
    // In another order it is the same.
    let [prefixes, names, devices] =
        parts.map(|part| part.into_iter().rev().map(str::to_owned).collect());
    assert_eq!(Filter::new(prefixes, names, devices).as_ref(), Ok(filter));
}

/// Tried with each value itself, a bit more, and a bit less.
fn passes_what_was_asked_for(filter: &Filter, asked: &Asked) {
    let mut index = Interest::default();
    index.insert(filter, 1);
    index.insert(&Filter::all(), 2);
    let values = || asked.prefixes.iter().chain(&asked.names).chain(&asked.devices).take(12);
    let shorter = |value: &str| value.chars().rev().skip(1).collect::<Vec<_>>();
    let mut probes: Vec<String> = vec!["a".to_owned()];
    for value in values() {
        probes.extend([value.clone(), format!("{value}/"), shorter(value).iter().rev().collect()]);
    }
    let devices = asked.devices.iter().map(String::as_str).take(2).chain(["x"]).map(Some);
    for device in devices.chain([None]) {
        for name in &probes {
            let passes = filter.passes(name, device);
            assert_eq!(passes, asked.passes(name, device), "{name:?} of {device:?}");
            let mut found = Vec::new();
            index.concerned(name, device, |key| found.push(key));
            found.sort_unstable();
            assert_eq!(found, if passes { vec![1, 2] } else { vec![2] });
        }
    }
}
