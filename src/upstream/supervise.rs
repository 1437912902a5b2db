//! The life of the one upstream connection, as a pure state machine.
//!
//! ```text
//!            opening()            opened()              bytes()
//!  Waiting ───────────▶ Opening ───────────▶ Live ◀────────────┐
//!     ▲  ▲                 │                  │ │ └────────────┘
//!     │  └── refused() ────┘                  │ │
//!     │      failed()                         │ │
//!     └──── ended(), or poll() → Close ◀──────┘ │  (stale: no byte for stale_after)
//!     └─────────────────────────────────────────┘
//! ```
//!
//! The law: exactly one hole for each stretch of time without a healthy connection,
//! told when the next connection is live and before any of its events; and never an
//! `Open` before its time. Windows are measured by the monotonic clock and labelled
//! by the wall clock of the moment they are told, so a clock jump cannot bend them.

use std::{collections::VecDeque, time::Duration};

use crate::{
    model::{Hole, HoleReason, Moment, UpstreamState},
    upstream::schedule::{Backoff, Trouble},
};

/// The times the machine keeps.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// First ceiling of the backoff.
    pub backoff_min: Duration,
    /// Last ceiling of the backoff.
    pub backoff_max: Duration,
    /// A live connection without a byte for this long is dead.
    pub stale_after: Duration,
}

/// What the driver is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask the budget, then call [`Supervision::opening`] and connect, or call
    /// [`Supervision::held`].
    Open,
    /// Drop the connection: it is dead.
    Close,
    /// Nothing until this monotonic time, unless an input comes first.
    WaitUntil(u64),
    /// Nothing until an input comes: a connection is being opened.
    WaitInput,
}

/// What subscribers and the operator are to be told, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The state is now this.
    State {
        /// The state.
        state: UpstreamState,
        /// Why, and what to do; empty where there is nothing to say.
        detail: String,
        /// A repeat within an outage (the next try of many, the same refusal again):
        /// for the status page, not for the record sequence or the log. Otherwise a day
        /// of outage would put thousands of equal records into the ring.
        repeat: bool,
    },
    /// An outage is over.
    Hole(Hole),
}

/// How a live connection came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server ended the response.
    Clean,
    /// The connection broke.
    Reset,
    /// The system gave up on a silent peer: lost since the last byte, as with a stall.
    Silent,
}

/// Why an attempt brought no answer that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection, no head in time, or an answer that is no event stream.
    Network,
    /// The server points somewhere we do not go.
    Redirect,
    /// There is no readable token; nothing was sent.
    Token,
}

/// The state machine. Feed it inputs with the time, take [`Report`]s until there are
/// none, then ask [`poll`](Supervision::poll) what to do.
#[derive(Debug)]
pub struct Supervision {
    policy: Policy,
    rng: fastrand::Rng,
    backoff: Backoff,
    phase: Phase,
    outage: Option<Outage>,
    started_us: u64,
    state: UpstreamState,
    /// The last trouble told, within an outage.
    told: Option<(UpstreamState, String)>,
    /// At most [`REPORTS_PER_INPUT_MAX`] an input; the driver empties it after each.
    reports: VecDeque<Report>,
}

/// An input reports at most a hole and a state.
pub const REPORTS_PER_INPUT_MAX: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Phase {
    Waiting { until_us: u64, token_helps: bool },
    Opening,
    Live { since_us: u64, last_byte_us: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    reason: HoleReason,
    since_us: u64,
}

impl Supervision {
    /// A machine that wants to open at once. `now` is the process start.
    pub fn new(policy: Policy, rng: fastrand::Rng, now: Moment) -> Self {
        let backoff = Backoff::new(policy.backoff_min, policy.backoff_max);
        let first = Report::State {
            state: UpstreamState::Connecting,
            detail: String::new(),
            repeat: false,
        };
        Supervision {
            policy,
            rng,
            backoff,
            phase: Phase::Waiting { until_us: now.mono_us, token_helps: false },
            outage: None,
            started_us: now.mono_us,
            state: UpstreamState::Connecting,
            told: None,
            reports: VecDeque::from([first]),
        }
    }

    /// What to do now. Fires the watchdog if it is due.
    pub fn poll(&mut self, now: Moment) -> Action {
        match self.phase {
            Phase::Waiting { until_us, .. } if until_us <= now.mono_us => Action::Open,
            Phase::Waiting { until_us, .. } => Action::WaitUntil(until_us),
            Phase::Opening => Action::WaitInput,
            Phase::Live { last_byte_us, .. } => {
                let stale_us = after(last_byte_us, self.policy.stale_after);
                if now.mono_us < stale_us {
                    return Action::WaitUntil(stale_us);
                }
                let detail = format!(
                    "no byte for {:.1} s; closing the connection and opening another",
                    Duration::from_micros(now.mono_us - last_byte_us).as_secs_f64()
                );
                self.over(now, End::Silent, UpstreamState::Stalled, detail);
                Action::Close
            }
        }
    }

    /// The next thing to tell, oldest first.
    pub fn report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// The exact state, repeats included.
    pub fn state(&self) -> UpstreamState {
        self.state
    }

    /// When the next attempt is due, in monotonic microseconds; `None` while one runs or a
    /// connection is live.
    pub fn next_open_us(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting { until_us, .. } => Some(until_us),
            Phase::Opening | Phase::Live { .. } => None,
        }
    }

    /// True while another token could end the wait.
    pub fn token_helps(&self) -> bool {
        matches!(self.phase, Phase::Waiting { token_helps: true, .. })
    }

    /// The budget granted the open; the request goes out now.
    pub fn opening(&mut self) {
        debug_assert!(matches!(self.phase, Phase::Waiting { .. }), "opens one at a time");
        self.phase = Phase::Opening;
        // Within an outage, the attempts after the first failed one are repeats.
        let repeat = self.told.is_some();
        self.show(UpstreamState::Connecting, String::new(), repeat);
    }

    /// Our own budget is used up for `wait`. Also while opening, before a redirect is followed.
    pub fn held(&mut self, now: Moment, wait: Duration, detail: String) {
        self.wait(now, wait, false);
        self.trouble(UpstreamState::RateLimited, detail);
    }

    /// The stream answers: status 200, the right content type.
    pub fn opened(&mut self, now: Moment) {
        debug_assert!(matches!(self.phase, Phase::Opening), "opened after opening");
        self.phase = Phase::Live { since_us: now.mono_us, last_byte_us: now.mono_us };
        self.backoff.went_live();
        if let Some(outage) = self.outage.take() {
            let length_ms = now.mono_us.saturating_sub(outage.since_us) / 1000;
            self.reports.push_back(Report::Hole(Hole {
                reason: outage.reason,
                since_ms: now.wall_ms.saturating_sub(length_ms),
                until_ms: now.wall_ms,
            }));
        }
        self.told = None;
        self.show(UpstreamState::Live, String::new(), false);
    }

    /// The server answered with a status that is no stream.
    pub fn refused(
        &mut self,
        now: Moment,
        status: u16,
        retry_after: Option<Duration>,
        detail: String,
    ) {
        let (trouble, state) = match status {
            401 => (Trouble::Unauthorized, UpstreamState::Unauthorized),
            429 | 503 | 529 => (Trouble::RateLimited { retry_after }, UpstreamState::RateLimited),
            // 408 and 425 say "again, please"; the rest of 4xx says "not like this".
            408 | 425 => (Trouble::Network, UpstreamState::BackingOff),
            400..=499 => (Trouble::Misconfigured, UpstreamState::Misconfigured),
            500..=599 => (Trouble::ServerError { retry_after }, UpstreamState::BackingOff),
            _ => (Trouble::Network, UpstreamState::BackingOff),
        };
        self.retry(now, trouble, state, detail);
    }

    /// The attempt brought no answer that counts.
    pub fn failed(&mut self, now: Moment, kind: FailureKind, detail: String) {
        let (trouble, state) = match kind {
            FailureKind::Network => (Trouble::Network, UpstreamState::BackingOff),
            FailureKind::Redirect => (Trouble::Misconfigured, UpstreamState::Misconfigured),
            FailureKind::Token => (Trouble::Unauthorized, UpstreamState::Unauthorized),
        };
        self.retry(now, trouble, state, detail);
    }

    /// Bytes came. Any byte is life.
    pub fn bytes(&mut self, now: Moment) {
        if let Phase::Live { last_byte_us, .. } = &mut self.phase {
            *last_byte_us = now.mono_us;
        }
    }

    /// The live connection is over.
    pub fn ended(&mut self, now: Moment, end: End, detail: String) {
        let state = match end {
            End::Clean | End::Reset => UpstreamState::BackingOff,
            End::Silent => UpstreamState::Stalled,
        };
        self.over(now, end, state, detail);
    }

    /// There is another token: a wait that a token can end is over.
    pub fn token_changed(&mut self, now: Moment) {
        self.backoff.token_changed();
        if let Phase::Waiting { until_us, token_helps: true } = &mut self.phase {
            *until_us = now.mono_us;
        }
    }

    /// The stream's `retry:`: the least wait after a cut.
    pub fn retry_floor(&mut self, floor: Duration) {
        self.backoff.floor(floor);
    }

    fn over(&mut self, now: Moment, end: End, state: UpstreamState, detail: String) {
        let Phase::Live { since_us, last_byte_us } = self.phase else {
            debug_assert!(false, "only a live connection ends");
            return;
        };
        let (reason, lost_since_us) = match end {
            End::Clean => (HoleReason::Ended, now.mono_us),
            End::Reset => (HoleReason::Reset, now.mono_us),
            End::Silent => (HoleReason::Stalled, last_byte_us),
        };
        debug_assert!(self.outage.is_none(), "an outage ends before a connection is live");
        self.outage = Some(Outage { reason, since_us: lost_since_us });
        // A stall's silence is no health: it does not count towards the reset of the ladders.
        let lived_us = lost_since_us.saturating_sub(since_us);
        self.backoff.stream_over(Duration::from_micros(lived_us));
        let delay = self.backoff.delay(Trouble::Network, &mut self.rng);
        self.wait(now, delay, false);
        // Not remembered as told trouble: the attempt that follows is news.
        self.show(state, detail, false);
    }

    fn retry(&mut self, now: Moment, trouble: Trouble, state: UpstreamState, detail: String) {
        let token_helps = matches!(trouble, Trouble::Unauthorized | Trouble::Misconfigured);
        let delay = self.backoff.delay(trouble, &mut self.rng);
        self.wait(now, delay, token_helps);
        self.trouble(state, detail);
    }

    fn wait(&mut self, now: Moment, delay: Duration, token_helps: bool) {
        self.phase = Phase::Waiting { until_us: after(now.mono_us, delay), token_helps };
        // Nothing was ever live: lost since the start. A no-op within an outage.
        self.outage
            .get_or_insert(Outage { reason: HoleReason::Startup, since_us: self.started_us });
    }

    fn trouble(&mut self, state: UpstreamState, detail: String) {
        let repeat = self.told.as_ref().is_some_and(|(told, why)| *told == state && *why == detail);
        self.told = Some((state, detail.clone()));
        self.show(state, detail, repeat);
    }

    fn show(&mut self, state: UpstreamState, detail: String, repeat: bool) {
        if self.state == state && state == UpstreamState::Connecting {
            return; // the start's own, told by `new`
        }
        self.state = state;
        self.reports.push_back(Report::State { state, detail, repeat });
    }
}

fn after(mono_us: u64, delay: Duration) -> u64 {
    mono_us.saturating_add(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
