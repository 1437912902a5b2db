//! The one reader of the wall clock, but for the load client, which measures from outside.
//!
//! Law: everything else is handed a [`Moment`]. Monotonic time is tokio's, so a
//! runtime with a paused clock pauses the whole broker.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Moment;

/// Reads both clocks.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Instant,
    wall: Wall,
}

#[derive(Clone, Debug)]
enum Wall {
    System,
    /// Wall time at the origin; it then runs with the monotonic clock.
    Anchored(u64),
}

impl Clock {
    /// The system's clocks; monotonic time counts from now.
    pub fn system() -> Clock {
        Clock { origin: Instant::now(), wall: Wall::System }
    }

    /// A wall clock that says `wall_ms` now and runs with tokio's time: for simulated time.
    pub fn anchored(wall_ms: u64) -> Clock {
        Clock { origin: Instant::now(), wall: Wall::Anchored(wall_ms) }
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        let elapsed = self.origin.elapsed();
        let wall_ms = match self.wall {
            Wall::System => wall_ms(),
            Wall::Anchored(anchor_ms) => anchor_ms.saturating_add(millis(elapsed)),
        };
        Moment { wall_ms, mono_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX) }
    }

    /// The timer's name for a monotonic time of this clock.
    pub fn instant(&self, mono_us: u64) -> Instant {
        self.origin + Duration::from_micros(mono_us)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The system's wall clock, Unix milliseconds.
pub fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let now = std::time::SystemTime::now();
    // Before 1970 there is nothing better to say than 1970.
    now.duration_since(std::time::UNIX_EPOCH).map(millis).unwrap_or(0)
}
