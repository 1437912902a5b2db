//! The clocks of a measurement. The only place here that reads them.
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement is about time; nothing here is simulated"
)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, for durations and deadlines.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds since 1970: what a stamp holds. All processes of a run read the same clock.
pub(crate) fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
