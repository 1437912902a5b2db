//! Any file of keys: refused as a whole, or read as what it says, and written as what was read.

use std::collections::BTreeSet;

use fanlight::access::Keys;
use serde_json::Value;

pub(super) fn keys(input: &[u8]) {
    let keys = match Keys::parse(input) {
        Ok(keys) => keys,
        Err(error) => return assert!(error.to_string().len() < 1000),
    };
    // Another reader of the same text sees the same keys in the same order.
    let file: Value = serde_json::from_slice(input).expect("it was read as JSON");
    let listed = file["keys"].as_array().expect("a list");
    assert_eq!(listed.len(), keys.iter().count());
    for (key, listed) in keys.iter().zip(listed) {
        assert_eq!(
            (Some(&*key.id), Some(&*key.name)),
            (listed["id"].as_str(), listed["name"].as_str())
        );
        assert_eq!(key.expires_ms.is_none(), listed["expires"].is_null());
        assert_eq!(key.revoked_ms.is_none(), listed["revoked"].is_null());
        // What is over lets nobody in.
        let is_over = |end: Option<u64>| end.is_some_and(|end| end <= 1_000_000_000_000);
        let is_good = key.revoked_ms.is_none() && !is_over(key.expires_ms);
        assert_eq!(key.is_good(1_000_000_000_000), is_good);
    }
    let ids: BTreeSet<&str> = keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(ids.len(), listed.len());

    let print = keys.print();
    let again = Keys::parse(print.as_bytes()).expect("what is written can be read");
    assert_eq!(again.print(), print);
    for (one, other) in keys.iter().zip(again.iter()) {
        assert!(one.digest.is(&other.digest) && one.grants == other.grants);
        let times = |key: &fanlight::access::Key| (key.created_ms, key.expires_ms, key.revoked_ms);
        assert_eq!(times(one), times(other));
    }
}
