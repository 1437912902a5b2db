//! What the broker says about its one connection to the cloud.

use std::fmt;

/// The state of the upstream connection, as `/status`, metrics, logs and
/// `fanlight.upstream` show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamState {
    /// A connection is being opened.
    Connecting,
    /// A healthy connection is open.
    Live,
    /// The connection fell silent for longer than allowed and was given up.
    Stalled,
    /// Waiting before the next attempt.
    BackingOff,
    /// The cloud, or the broker's own budget of opens, says to wait.
    RateLimited,
    /// The cloud refused the token.
    Unauthorized,
    /// The cloud refused the request for a reason that only a change of settings mends.
    Misconfigured,
}

impl UpstreamState {
    /// Every state, in the order of the metrics.
    pub const ALL: [UpstreamState; 7] = [
        UpstreamState::Connecting,
        UpstreamState::Live,
        UpstreamState::Stalled,
        UpstreamState::BackingOff,
        UpstreamState::RateLimited,
        UpstreamState::Unauthorized,
        UpstreamState::Misconfigured,
    ];

    /// The state's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            UpstreamState::Connecting => "connecting",
            UpstreamState::Live => "live",
            UpstreamState::Stalled => "stalled",
            UpstreamState::BackingOff => "backing-off",
            UpstreamState::RateLimited => "rate-limited",
            UpstreamState::Unauthorized => "unauthorized",
            UpstreamState::Misconfigured => "misconfigured",
        }
    }
}

impl fmt::Display for UpstreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What ended the last healthy connection before a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoleReason {
    /// The cloud ended the stream in good order.
    Ended,
    /// The connection broke.
    Reset,
    /// The connection fell silent.
    Stalled,
    /// There was none yet: the broker's first attempts failed.
    Startup,
}

impl HoleReason {
    /// Every reason, in the order of the metrics.
    pub const ALL: [HoleReason; 4] =
        [HoleReason::Ended, HoleReason::Reset, HoleReason::Stalled, HoleReason::Startup];

    /// The reason's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            HoleReason::Ended => "ended",
            HoleReason::Reset => "reset",
            HoleReason::Stalled => "stalled",
            HoleReason::Startup => "startup",
        }
    }
}

impl fmt::Display for HoleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A window in which no healthy upstream connection existed: what the cloud sent
/// then is lost, and nobody can say how much it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// What ended the last healthy connection.
    pub reason: HoleReason,
    /// Start of the window, Unix milliseconds.
    pub since_ms: u64,
    /// End of the window, Unix milliseconds; never before the start.
    pub until_ms: u64,
}
