//! The load client's clocks: read here, handed to the rest.
//!
//! Law: a stamp and its reader use the same clock, the system's wall clock in nanoseconds,
//! so that publisher and subscribers may be different processes of one machine.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The wall clock, Unix nanoseconds: what a [`Stamp`](super::Stamp) carries.
#[expect(clippy::disallowed_methods, reason = "nanoseconds, which a `Moment` does not have")]
pub fn wall_nanos() -> u64 {
    // Before 1970 there is nothing better to say than 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The monotonic clock, for deadlines of a run.
#[expect(clippy::disallowed_methods, reason = "the load client has no runtime that keeps time")]
pub fn now() -> Instant {
    Instant::now()
}
