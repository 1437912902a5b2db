//! Who asks, and what it may.
//!
//! Law: whatever is served to a principal is served under it. It ends by itself when its time
//! is over, and at once when its lease is ended; both are looked at anew for each step.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::model::Filter;

use super::{Denied, Grants};

/// Ends everything that is served under it, for all who hold it.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<AtomicBool>);

/// Someone with rights.
#[derive(Debug)]
pub struct Principal {
    label: Box<str>,
    grants: Grants,
    expires_ms: Option<u64>,
    lease: Lease,
}

// === impl Lease ===

impl Lease {
    /// Ends it, for good.
    pub fn end(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True once it has ended.
    pub fn is_ended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

// === impl Principal ===

impl Principal {
    /// A principal. `label` is shown in the trace and is no secret; `expires_ms` is wall time,
    /// in Unix milliseconds.
    pub fn new(label: &str, grants: Grants, expires_ms: Option<u64>, lease: Lease) -> Principal {
        Principal { label: label.into(), grants, expires_ms, lease }
    }

    /// Who asks where access is off: anyone may do everything, for ever. It is one and the
    /// same for all, so that it costs nothing.
    pub fn anyone() -> Arc<Principal> {
        static ANYONE: LazyLock<Arc<Principal>> = LazyLock::new(|| {
            Arc::new(Principal::new("anyone", Grants::all(), None, Lease::default()))
        });
        ANYONE.clone()
    }

    /// Its name, for people.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What of the events asked for it may read. The one place where this is decided.
    ///
    /// # Errors
    /// If that is nothing.
    pub fn narrow(&self, asked: &Filter) -> Result<Filter, Denied> {
        let read = self.grants.read.as_ref().ok_or(Denied::Read)?;
        asked.intersection(read).ok_or(Denied::ReadThis)
    }

    /// Whether it may read anything at all.
    ///
    /// # Errors
    /// If not.
    pub fn may_read(&self) -> Result<(), Denied> {
        self.grants.read.as_ref().map(|_| ()).ok_or(Denied::Read)
    }

    /// Whether it may publish an event; `name` is none while that is not yet known.
    ///
    /// # Errors
    /// If not.
    pub fn may_publish(&self, name: Option<&str>) -> Result<(), Denied> {
        let names = self.grants.publish.as_ref().ok_or(Denied::Publish)?;
        match name.is_none_or(|name| names.passes(name, None)) {
            true => Ok(()),
            false => Err(Denied::Publish),
        }
    }

    /// Whether it may look at the broker's state, and call functions of devices.
    ///
    /// # Errors
    /// If not.
    pub fn may_administer(&self) -> Result<(), Denied> {
        if self.grants.admin { Ok(()) } else { Err(Denied::Admin) }
    }

    /// The time it has left at this wall time; none if it does not end by itself.
    pub fn time_left(&self, wall_ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(self.expires_ms?.saturating_sub(wall_ms)))
    }

    /// True once its lease has ended.
    pub fn is_revoked(&self) -> bool {
        self.lease.is_ended()
    }

    /// True if it is revoked or its time is over.
    pub fn is_over(&self, wall_ms: u64) -> bool {
        self.is_revoked() || self.time_left(wall_ms).is_some_and(|left| left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::grants::tests::any_grants;
    use crate::model::filter::tests::{any_filter, filter};
    use proptest::prelude::*;

    proptest! {
        /// The law of reading: what gets through is asked for and granted.
        #[test]
        fn what_is_read_is_asked_for_and_granted(
            grants in any_grants(), asked in any_filter(),
            name in "[ab/]{1,4}", device in proptest::option::of("[de]{1,2}"),
        ) {
            let device = device.as_deref();
            let granted = grants.read.as_ref().is_some_and(|read| read.passes(&name, device));
            let principal = Principal::new("p", grants, None, Lease::default());
            let passes = principal.narrow(&asked).is_ok_and(|filter| filter.passes(&name, device));
            prop_assert_eq!(passes, granted && asked.passes(&name, device));
        }
    }

    #[test]
    fn it_ends_with_its_time_or_its_lease() {
        let lease = Lease::default();
        let principal = Principal::new("p", Grants::all(), Some(1_000), lease.clone());
        assert_eq!(principal.time_left(400), Some(Duration::from_millis(600)));
        assert!(!principal.is_over(999) && principal.is_over(1_000));
        lease.end();
        assert!(principal.is_over(0) && principal.is_revoked());
        assert!(!Principal::anyone().is_over(u64::MAX));
    }

    #[test]
    fn names_to_publish_are_granted_by_prefix() {
        let publish = Some(filter(&["cmd/"], &[], &[]));
        let grants = Grants { publish, ..Grants::default() };
        let principal = Principal::new("p", grants, None, Lease::default());
        assert_eq!(principal.may_publish(None), Ok(()));
        assert_eq!(principal.may_publish(Some("cmd/on")), Ok(()));
        assert_eq!(principal.may_publish(Some("CMD/on")), Err(Denied::Publish));
        assert_eq!(principal.narrow(&Filter::all()), Err(Denied::Read));
        assert_eq!(principal.may_administer(), Err(Denied::Admin));
    }
}
