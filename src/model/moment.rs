//! One reading of both clocks, taken at the edge and passed in.
//!
//! Law: what is shown to people is wall time, what is subtracted is monotonic
//! time. A wall clock that jumps changes labels and nothing else.

use std::{fmt, time::Duration};

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock, milliseconds since the Unix epoch. May jump.
    pub wall_ms: u64,
    /// Monotonic clock, microseconds since an origin of the process. Never goes back.
    pub mono_us: u64,
}

impl Moment {
    /// Time passed since an earlier moment; zero if `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.mono_us.saturating_sub(earlier.mono_us))
    }
}

/// A wall-clock time in RFC 3339, UTC, milliseconds: `2026-11-22T01:02:03.004Z`.
///
/// Times outside the years 1970 to 9999 are shown as the nearest one inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

/// 9999-12-30T22:00:00Z, the last instant jiff can hold.
const WALL_MS_MAX: i64 = 253_402_207_200_000;

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(WALL_MS_MAX).min(WALL_MS_MAX);
        let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_has_milliseconds_and_z() {
        assert_eq!(WallTime(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(WallTime(1_795_309_323_004).to_string(), "2026-11-22T01:02:03.004Z");
        assert_eq!(WallTime(u64::MAX).to_string(), "9999-12-30T22:00:00.000Z");
    }

    #[test]
    fn since_never_underflows() {
        let early = Moment { wall_ms: 9, mono_us: 1_000 };
        let late = Moment { wall_ms: 1, mono_us: 4_000 };
        assert_eq!(late.since(early), Duration::from_millis(3));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
