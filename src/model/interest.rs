//! From an event to the filters that want it.
//!
//! Law: the cost of an event depends on the filters it concerns, not on how many
//! there are. Filters with devices are filed under each device, others in one
//! common part; within a part, by name, by prefix, or under "any name":
//!
//! ```text
//!  event (name, device) ─▶ common part      ─▶ any name │ names[name] │ prefixes[name[..n]] for each length n in use
//!                       └▶ devices[device]  ─▶ (the same)
//! ```
//!
//! A canonical filter matches an event in at most one of these places, so no
//! filter is found twice.

use std::collections::{BTreeMap, HashMap};

use super::filter::Filter;

/// Filters under keys of the caller's choice.
#[derive(Debug)]
pub struct Interest<K> {
    common: Names<K>,
    devices: HashMap<Box<str>, Names<K>>,
}

/// One part of the index: filters by what they say about names.
#[derive(Debug)]
struct Names<K> {
    any: Vec<K>,
    names: HashMap<Box<str>, Vec<K>>,
    prefixes: HashMap<Box<str>, Vec<K>>,
    /// How many prefixes there are of each length, so that a look-up tries only those.
    prefix_lengths: BTreeMap<usize, usize>,
}

impl<K> Default for Interest<K> {
    fn default() -> Interest<K> {
        Interest { common: Names::default(), devices: HashMap::new() }
    }
}

impl<K> Default for Names<K> {
    fn default() -> Names<K> {
        Names {
            any: Vec::new(),
            names: HashMap::new(),
            prefixes: HashMap::new(),
            prefix_lengths: BTreeMap::new(),
        }
    }
}

// === impl Interest ===

impl<K: Copy + Eq> Interest<K> {
    /// Files a filter under `key`, which must not be in use.
    pub fn insert(&mut self, filter: &Filter, key: K) {
        if filter.devices().len() == 0 {
            self.common.insert(filter, key);
        }
        for device in filter.devices() {
            self.devices.entry(device.into()).or_default().insert(filter, key);
        }
    }

    /// Takes a filter out again; it must have been filed under `key`.
    pub fn remove(&mut self, filter: &Filter, key: K) {
        if filter.devices().len() == 0 {
            self.common.remove(filter, key);
        }
        for device in filter.devices() {
            if let Some(names) = self.devices.get_mut(device) {
                names.remove(filter, key);
                if names.is_empty() {
                    self.devices.remove(device);
                }
            }
        }
    }

    /// Calls `found` with the key of every filter that passes the event, each once.
    pub fn concerned(&self, name: &str, device: Option<&str>, mut found: impl FnMut(K)) {
        self.common.concerned(name, &mut found);
        if let Some(names) = device.and_then(|device| self.devices.get(device)) {
            names.concerned(name, &mut found);
        }
    }
}

// === impl Names ===

impl<K: Copy + Eq> Names<K> {
    fn insert(&mut self, filter: &Filter, key: K) {
        if filter.passes_any_name() {
            self.any.push(key);
        }
        for name in filter.names() {
            self.names.entry(name.into()).or_default().push(key);
        }
        for prefix in filter.prefixes() {
            let keys = self.prefixes.entry(prefix.into()).or_default();
            if keys.is_empty() {
                *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
            }
            keys.push(key);
        }
    }

    fn remove(&mut self, filter: &Filter, key: K) {
        if filter.passes_any_name() {
            take(&mut self.any, key);
        }
        for name in filter.names() {
            remove_from(&mut self.names, name, key);
        }
        for prefix in filter.prefixes() {
            if remove_from(&mut self.prefixes, prefix, key) {
                let count = self.prefix_lengths.get_mut(&prefix.len()).expect("counted at insert");
                *count -= 1;
                if *count == 0 {
                    self.prefix_lengths.remove(&prefix.len());
                }
            }
        }
    }

    fn concerned(&self, name: &str, found: &mut impl FnMut(K)) {
        self.any.iter().copied().for_each(&mut *found);
        if let Some(keys) = self.names.get(name) {
            keys.iter().copied().for_each(&mut *found);
        }
        for length in self.prefix_lengths.range(..=name.len()).map(|(length, _)| *length) {
            let keys = name.get(..length).and_then(|prefix| self.prefixes.get(prefix));
            keys.into_iter().flatten().copied().for_each(&mut *found);
        }
    }

    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.names.is_empty() && self.prefixes.is_empty()
    }
}

/// Takes `key` out of the list at `text`; true if that was the last of it.
fn remove_from<K: Copy + Eq>(lists: &mut HashMap<Box<str>, Vec<K>>, text: &str, key: K) -> bool {
    let Some(keys) = lists.get_mut(text) else { return false };
    take(keys, key);
    let emptied = keys.is_empty();
    if emptied {
        lists.remove(text);
    }
    emptied
}

fn take<K: Copy + Eq>(keys: &mut Vec<K>, key: K) {
    if let Some(index) = keys.iter().position(|present| *present == key) {
        keys.swap_remove(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::filter::tests::any_filter;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        /// The index finds what a loop over all filters finds, through inserts and removals.
        #[test]
        fn equals_a_loop(
            filters in vec(any_filter(), 0..12), removed in vec(any::<bool>(), 12),
            events in vec(("[ab/]{1,4}", proptest::option::of("[de]{1,2}")), 1..8),
        ) {
            let mut interest = Interest::default();
            for (key, filter) in filters.iter().enumerate() {
                interest.insert(filter, key);
            }
            for (key, filter) in filters.iter().enumerate().filter(|(key, _)| removed[*key]) {
                interest.remove(filter, key);
            }
            for (name, device) in events {
                let mut found = Vec::new();
                interest.concerned(&name, device.as_deref(), |key| found.push(key));
                found.sort_unstable();
                let expected: Vec<usize> = (0..filters.len())
                    .filter(|key| !removed[*key] && filters[*key].passes(&name, device.as_deref()))
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }

        /// Nothing is left behind when every filter is gone.
        #[test]
        fn empties(filters in vec(any_filter(), 0..12)) {
            let mut interest = Interest::default();
            for (key, filter) in filters.iter().enumerate() {
                interest.insert(filter, key);
            }
            for (key, filter) in filters.iter().enumerate().rev() {
                interest.remove(filter, key);
            }
            prop_assert!(interest.common.is_empty() && interest.devices.is_empty());
            prop_assert!(interest.common.prefix_lengths.is_empty());
        }
    }

    #[test]
    fn a_prefix_may_end_inside_a_character_of_the_name() {
        let mut interest = Interest::default();
        let filter =
            Filter::new(vec!["n".into(), "nä".into(), "nax".into()], vec![], vec![]).unwrap();
        interest.insert(&filter, 1);
        let other = Filter::new(vec!["ab".into()], vec![], vec![]).unwrap();
        interest.insert(&other, 2);
        let mut found = Vec::new();
        interest.concerned("aé", None, |key| found.push(key));
        interest.concerned("nä", None, |key| found.push(key));
        assert_eq!(found, [1]);
    }
}
