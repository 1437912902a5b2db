//! Which events a subscriber wants.
//!
//! Law: canonical. Two filters that were asked for in another order, with repeats
//! or with parts that others cover, are equal values, so their subscribers share
//! one group.

/// Values of one parameter (`prefix`, `name` or `device`).
pub const VALUES_MAX: usize = 32;
/// Length of one value.
pub const VALUE_BYTES_MAX: usize = 128;

/// A filter in canonical form: sorted, without repeats, without names or prefixes
/// that a shorter prefix covers.
///
/// An event passes if its name begins with any prefix or equals any name (all
/// names if there are neither), and its device equals any device (all if none).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    prefixes: Box<[Box<str>]>,
    names: Box<[Box<str>]>,
    devices: Box<[Box<str>]>,
}

/// A filter is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Too many values of one parameter.
    #[error("{count} values of `{parameter}`, at most {VALUES_MAX} are allowed")]
    Count {
        /// The parameter.
        parameter: &'static str,
        /// How many were given.
        count: usize,
    },
    /// A value is too long.
    #[error("a `{parameter}` of {bytes} bytes, at most {VALUE_BYTES_MAX} are allowed")]
    Length {
        /// The parameter.
        parameter: &'static str,
        /// The value's length.
        bytes: usize,
    },
    /// A name or device is empty.
    #[error("an empty `{parameter}`, which no event can have; leave the parameter out to get all")]
    Empty {
        /// The parameter.
        parameter: &'static str,
    },
}

impl Filter {
    /// The filter that passes everything.
    pub fn all() -> Filter {
        Filter::default()
    }

    /// Checks the bounds and brings the parts into canonical form. An empty prefix
    /// means every name.
    pub fn new(
        prefixes: Vec<String>,
        names: Vec<String>,
        devices: Vec<String>,
    ) -> Result<Filter, FilterError> {
        for (parameter, values) in [("prefix", &prefixes), ("name", &names), ("device", &devices)] {
            if values.len() > VALUES_MAX {
                return Err(FilterError::Count { parameter, count: values.len() });
            }
            if let Some(long) = values.iter().find(|value| value.len() > VALUE_BYTES_MAX) {
                return Err(FilterError::Length { parameter, bytes: long.len() });
            }
            if parameter != "prefix" && values.iter().any(String::is_empty) {
                return Err(FilterError::Empty { parameter });
            }
        }
        Ok(Filter::canonical(prefixes, names, devices))
    }

    /// Brings parts into canonical form, whatever their number.
    fn canonical(prefixes: Vec<String>, names: Vec<String>, devices: Vec<String>) -> Filter {
        if prefixes.iter().any(String::is_empty) {
            return Filter { devices: sorted(devices), ..Filter::default() };
        }
        let mut shortest: Vec<Box<str>> = Vec::with_capacity(prefixes.len());
        // In sorted order a prefix stands right before everything it covers.
        for prefix in sorted(prefixes) {
            if !shortest.last().is_some_and(|last| prefix.starts_with(&**last)) {
                shortest.push(prefix);
            }
        }
        let covered = |name: &str| shortest.iter().any(|prefix| name.starts_with(&**prefix));
        let names = sorted(names).into_iter().filter(|name| !covered(name)).collect();
        Filter { prefixes: shortest.into(), names, devices: sorted(devices) }
    }

    /// The filter that passes what both pass; none if that is nothing. It has at most as many
    /// values as both together.
    pub fn intersection(&self, other: &Filter) -> Option<Filter> {
        let devices: Vec<String> = match (self.devices.is_empty(), other.devices.is_empty()) {
            (true, _) => other.devices().map(str::to_owned).collect(),
            (_, true) => self.devices().map(str::to_owned).collect(),
            (false, false) => {
                let is_common = |device: &&str| other.devices().any(|theirs| theirs == *device);
                let common: Vec<String> =
                    self.devices().filter(is_common).map(str::to_owned).collect();
                if common.is_empty() {
                    return None;
                }
                common
            }
        };
        let (narrow, wide) = if other.passes_any_name() { (self, other) } else { (other, self) };
        if wide.passes_any_name() {
            let [prefixes, names] = [&narrow.prefixes, &narrow.names].map(Clone::clone);
            return Some(Filter { prefixes, names, devices: sorted(devices) });
        }
        // Of two prefixes that have names in common, the longer one is what they have.
        let mut prefixes = Vec::new();
        for ours in self.prefixes() {
            let theirs = other
                .prefixes()
                .filter(|theirs| theirs.starts_with(ours) || ours.starts_with(theirs));
            prefixes.extend(theirs.map(|theirs| longer(ours, theirs).to_owned()));
        }
        let both = |name: &&str| self.passes_name(name) && other.passes_name(name);
        let names: Vec<String> =
            self.names().chain(other.names()).filter(both).map(str::to_owned).collect();
        if prefixes.is_empty() && names.is_empty() {
            return None;
        }
        Some(Filter::canonical(prefixes, names, devices))
    }

    /// The prefixes, sorted; none covers another.
    pub fn prefixes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.prefixes.iter().map(|prefix| &**prefix)
    }

    /// The exact names, sorted; no prefix covers one.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// The devices, sorted.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = &str> {
        self.devices.iter().map(|device| &**device)
    }

    /// True if every name passes.
    pub fn passes_any_name(&self) -> bool {
        self.prefixes.is_empty() && self.names.is_empty()
    }

    /// True if an event of this name and device passes.
    pub fn passes(&self, name: &str, device: Option<&str>) -> bool {
        self.passes_name(name)
            && (self.devices.is_empty()
                || device
                    .is_some_and(|device| self.devices.iter().any(|wanted| **wanted == *device)))
    }

    /// True if an event of this name passes, from a device that does.
    fn passes_name(&self, name: &str) -> bool {
        self.passes_any_name()
            || self.prefixes.iter().any(|prefix| name.starts_with(&**prefix))
            || self.names.iter().any(|wanted| **wanted == *name)
    }
}

fn longer<'a>(one: &'a str, other: &'a str) -> &'a str {
    if one.len() < other.len() { other } else { one }
}

fn sorted(values: Vec<String>) -> Box<[Box<str>]> {
    let mut values: Vec<Box<str>> = values.into_iter().map(String::into_boxed_str).collect();
    values.sort_unstable();
    values.dedup();
    values.into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    pub(crate) fn filter(prefixes: &[&str], names: &[&str], devices: &[&str]) -> Filter {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        Filter::new(owned(prefixes), owned(names), owned(devices)).unwrap()
    }

    /// Filters over an alphabet small enough to collide.
    pub(crate) fn any_filter() -> impl Strategy<Value = Filter> {
        let word = || "[ab/]{1,3}";
        (vec("[ab/]{0,3}", 0..3), vec(word(), 0..3), vec("[de]{1,2}", 0..3))
            .prop_map(|(prefixes, names, devices)| Filter::new(prefixes, names, devices).unwrap())
    }

    #[test]
    fn equal_filters_are_equal_values() {
        let one = filter(&["b", "a/x", "a", "b"], &["c", "ab", "c"], &["d2", "d1"]);
        let other = filter(&["a", "b"], &["c"], &["d1", "d2", "d2"]);
        assert_eq!(one, other);
        assert_eq!(filter(&["", "a"], &["b"], &[]), Filter::all());
    }

    #[test]
    fn bounds() {
        let many = vec!["a".to_owned(); VALUES_MAX + 1];
        let error = Filter::new(vec![], many, vec![]).unwrap_err();
        assert_eq!(error, FilterError::Count { parameter: "name", count: 33 });
        let long = vec!["a".repeat(VALUE_BYTES_MAX + 1)];
        let error = Filter::new(long, vec![], vec![]).unwrap_err();
        assert_eq!(error, FilterError::Length { parameter: "prefix", bytes: 129 });
        let error = Filter::new(vec![], vec![], vec![String::new()]).unwrap_err();
        assert_eq!(error, FilterError::Empty { parameter: "device" });
        assert!(Filter::new(vec!["a".repeat(VALUE_BYTES_MAX)], vec![], vec![]).is_ok());
    }

    #[test]
    fn an_event_without_a_device_passes_only_filters_without_devices() {
        assert!(filter(&["a"], &[], &[]).passes("ab", None));
        assert!(!filter(&["a"], &[], &["d"]).passes("ab", None));
        assert!(filter(&["a"], &[], &["d"]).passes("ab", Some("d")));
        assert!(!filter(&["a"], &[], &["d"]).passes("ab", Some("e")));
    }

    proptest! {
        #[test]
        fn canonical_form_passes_what_was_asked_for(
            prefixes in vec("[ab/]{0,3}", 0..4), names in vec("[ab/]{1,3}", 0..4),
            devices in vec("[de]{1,2}", 0..3), name in "[ab/]{1,4}", device in proptest::option::of("[de]{1,2}"),
        ) {
            let canonical = Filter::new(prefixes.clone(), names.clone(), devices.clone()).unwrap();
            let by_name = prefixes.is_empty() && names.is_empty()
                || prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
                || names.contains(&name);
            let by_device = devices.is_empty() || device.as_ref().is_some_and(|device| devices.contains(device));
            prop_assert_eq!(canonical.passes(&name, device.as_deref()), by_name && by_device);
        }

        #[test]
        fn an_intersection_passes_what_both_pass(
            one in any_filter(), other in any_filter(),
            name in "[ab/]{1,4}", device in proptest::option::of("[de]{1,2}"),
        ) {
            let device = device.as_deref();
            let both = one.passes(&name, device) && other.passes(&name, device);
            let intersection = one.intersection(&other);
            let passes = intersection.as_ref().is_some_and(|filter| filter.passes(&name, device));
            prop_assert_eq!(passes, both);
            prop_assert_eq!(&intersection, &other.intersection(&one), "the order is no matter");
            let bounded = intersection.as_ref().is_none_or(|filter| {
                filter.prefixes.len() <= one.prefixes.len() + other.prefixes.len()
                    && filter.names.len() <= one.names.len() + other.names.len()
            });
            prop_assert!(bounded);
            // Canonical: made anew of its parts, it is the same value.
            if let Some(filter) = intersection {
                let owned = |values: &[Box<str>]| values.iter().map(|value| String::from(&**value)).collect();
                let again =
                    Filter::new(owned(&filter.prefixes), owned(&filter.names), owned(&filter.devices));
                prop_assert_eq!(Ok(filter), again);
            }
        }
    }

    #[test]
    fn an_intersection_is_the_narrower_of_both() {
        let all = Filter::all();
        let bay = filter(&["a/"], &[], &["d"]);
        assert_eq!(all.intersection(&bay), Some(bay.clone()));
        assert_eq!(bay.intersection(&bay), Some(bay.clone()));
        assert_eq!(
            filter(&["a/b"], &["a/x", "b"], &[]).intersection(&bay),
            Some(filter(&["a/b"], &["a/x"], &["d"]))
        );
        assert_eq!(filter(&["b"], &[], &[]).intersection(&bay), None);
        assert_eq!(filter(&[], &[], &["e"]).intersection(&bay), None, "no device in common");
    }
}
