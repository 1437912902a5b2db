//! Any grants and any wish: what is read is what was asked for and is granted, both and no more.

use fanlight::{
    access::{Denied, Grants, Lease, Principal},
    model::Filter,
    transport::request::{Request, Route},
};
use http::HeaderMap;
use serde_json::Value;

pub(super) fn grants(input: &[u8]) {
    // JSON, a line feed, a query.
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(value) = serde_json::from_slice::<Value>(&input[..end]) else { return };
    let Ok(grants) = Grants::from_json(&value) else { return };
    assert_eq!(Grants::from_json(&grants.to_json()).as_ref(), Ok(&grants));
    // Nothing is granted that the text does not speak of.
    for (part, is_granted) in [
        ("read", grants.read.is_some()),
        ("publish", grants.publish.is_some()),
        ("admin", grants.admin),
    ] {
        let is_meant = value.get(part).is_some_and(|part| part.is_object() || *part == true);
        assert_eq!(is_granted, is_meant, "{part}");
    }
    let query = String::from_utf8_lossy(&input[end + 1..]);
    let Ok(request) = Request::parse(Route::Events, Some(&query), &HeaderMap::new()) else {
        return;
    };
    let asked = request.filter;
    let principal = Principal::new("fuzz", grants.clone(), None, Lease::default());
    let narrowed = principal.narrow(&asked);
    assert_eq!(narrowed == Err(Denied::Read), grants.read.is_none());
    assert_eq!(principal.may_read().is_ok(), grants.read.is_some());

    let filters = [Some(&asked), grants.read.as_ref(), grants.publish.as_ref()];
    let filters: Vec<&Filter> = filters.into_iter().flatten().collect();
    let values = filters.iter().flat_map(|filter| filter.prefixes().chain(filter.names()));
    let mut names = vec!["a".to_owned()];
    for value in values.take(16) {
        let shorter: String = value.chars().take(value.chars().count().saturating_sub(1)).collect();
        names.extend([value.to_owned(), format!("{value}x"), shorter]);
    }
    let devices = filters.iter().flat_map(|filter| filter.devices()).take(4);
    for device in devices.chain(["x"]).map(Some).chain([None]) {
        for name in &names {
            let passes = |filter: &Filter| filter.passes(name, device);
            let expected = passes(&asked) && grants.read.as_ref().is_some_and(passes);
            assert_eq!(narrowed.as_ref().is_ok_and(passes), expected, "{name:?} of {device:?}");
        }
    }
    for name in &names {
        let may = grants.publish.as_ref().is_some_and(|publish| publish.passes(name, None));
        assert_eq!(principal.may_publish(Some(name)).is_ok(), may);
    }
}
