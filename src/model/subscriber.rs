//! What is said about a subscriber: how it is served and why that ended.

use std::fmt;

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `text/event-stream`.
    Sse,
    /// `application/x-ndjson`.
    Ndjson,
    /// WebSocket.
    WebSocket,
    /// Long poll.
    Poll,
    /// The stream routes of the Particle cloud, for its unmodified clients.
    Particle,
}

impl Transport {
    /// Every transport, in the order of the metrics.
    pub const ALL: [Transport; 5] = [
        Transport::Sse,
        Transport::Ndjson,
        Transport::WebSocket,
        Transport::Poll,
        Transport::Particle,
    ];

    /// The transport's name in labels, logs and `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Sse => "sse",
            Transport::Ndjson => "ndjson",
            Transport::WebSocket => "websocket",
            Transport::Poll => "poll",
            Transport::Particle => "particle",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a subscriber's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client went away.
    Gone,
    /// A poll got its answer.
    Answered,
    /// The subscriber got the number of events it had asked for.
    Limit,
    /// The broker is shutting down.
    Shutdown,
    /// The broker has as many connections as it may.
    Full,
    /// The client took no bytes for longer than allowed.
    Slow,
    /// The connection reached its greatest age, or what it was served under ended by itself.
    Expired,
    /// What it was served under was revoked or changed.
    Revoked,
    /// The client broke the protocol (WebSocket).
    Protocol,
    /// The client sent a message over the limit (WebSocket).
    TooBig,
}

impl CloseReason {
    /// Every reason, in the order of the metrics.
    pub const ALL: [CloseReason; 10] = [
        CloseReason::Gone,
        CloseReason::Answered,
        CloseReason::Limit,
        CloseReason::Shutdown,
        CloseReason::Full,
        CloseReason::Slow,
        CloseReason::Expired,
        CloseReason::Revoked,
        CloseReason::Protocol,
        CloseReason::TooBig,
    ];

    /// The reason's name in labels and logs, and in `fanlight.bye` but for [`told`].
    ///
    /// [`told`]: CloseReason::told
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Gone => "gone",
            CloseReason::Answered => "answered",
            CloseReason::Limit => "limit",
            CloseReason::Shutdown => "shutdown",
            CloseReason::Full => "full",
            CloseReason::Slow => "slow",
            CloseReason::Expired => "expired",
            CloseReason::Revoked => "revoked",
            CloseReason::Protocol => "protocol",
            CloseReason::TooBig => "too-big",
        }
    }

    /// The reason as the client is told it. To the client it is the same whether its credential
    /// ended by itself or was ended: it comes back, and hears what it may.
    pub fn told(self) -> &'static str {
        match self {
            CloseReason::Revoked => CloseReason::Expired.as_str(),
            reason => reason.as_str(),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
