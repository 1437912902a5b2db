//! The life of the upstream's connections, as a pure state machine.
//!
//! ```text
//!                 opening()            opened()              bytes()
//!  Idle  Waiting ───────────▶ Opening ───────────▶ Live ◀────────────┐
//!     ▲  ▲  ▲                    │                  │ │ └────────────┘
//!     │  │  └─ refused() ────────┘                  │ │
//!     │  │     failed()                             │ │
//!     │  └──────── ended(), or poll() → Close ◀─────┘ │  (stale: no byte for stale_after)
//!     └───────────────────────────────────────────────┘
//! ```
//!
//! There are two lanes, and each is such a machine. The **main** one is pursued whatever happens; its
//! troubles are the upstream's state. The **extra** one is there on an errand, while the main one is
//! live: as the second of two streams, to replace a main one that is old or has an old token, or to
//! look whether a main one that is silent is dead. It costs opens that are to spare, and its troubles
//! are asides. When the main one goes, an extra one that is live takes its place in that instant.
//!
//! The law: exactly one hole for each stretch of time without a healthy connection, told before
//! any event of the connection that ends it (but see below); none where another covered it; and
//! never an `Open` before its time. Windows are measured by the monotonic clock and labelled by the
//! wall clock of the moment they are told, so a clock jump cannot bend them.
//!
//! **A silence is judged late.** That a stream is dead shows after `stale_after`; its health ends with
//! its last byte. An extra stream that opened in a silence of `probe_after` is not read until it is
//! known whose events come first ([`reads`](Supervision::reads)): the hole stands before them. If it
//! opened in a shorter silence, by chance, its events are told at once, and the hole, should there
//! have been one, is told with its true times after them.
//!
//! **A deaf server** answers and greets and then says nothing. After a stream that fell silent so, the
//! next is on trial: the state is `stalled` and the hole lasts, until it brings an event, or any byte
//! later than [`PROOF_AFTER`].

use std::{collections::VecDeque, time::Duration};

use crate::{
    model::{Hole, HoleReason, Moment, UpstreamState},
    upstream::{
        merge::{Lane, SKEW, WINDOW},
        schedule::{Backoff, Trouble},
    },
};

/// A byte that comes this long after the answer is more than the greeting.
pub const PROOF_AFTER: Duration = Duration::from_secs(1);
/// How long both streams are read in a planned change, at least: far above what two healthy ones can
/// be apart.
pub const OVERLAP: Duration = Duration::from_secs(30);
/// After so many overlaps at most, an old stream that is still behind is kept, and the new one dropped.
pub const OVERLAPS_MAX: u32 = (WINDOW.as_secs() / OVERLAP.as_secs()) as u32;
/// Between two tries to replace a stream.
pub const RENEWAL_PAUSE: Duration = Duration::from_secs(300);

/// The times the machine keeps.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// First ceiling of the backoff.
    pub backoff_min: Duration,
    /// Last ceiling of the backoff.
    pub backoff_max: Duration,
    /// A live connection without a byte for this long is dead.
    pub stale_after: Duration,
    /// A single live stream without a byte for this long has a second one opened beside it. Not below
    /// `stale_after`: never.
    pub probe_after: Duration,
    /// A stream of this age is replaced; `None`: never.
    pub age_max: Option<Duration>,
    /// Streams at all times: 1 or 2.
    pub streams: usize,
    /// [`OVERLAP`], or less in tests.
    pub overlap: Duration,
}

/// What the driver is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask the budget, then call [`Supervision::opening`] and connect, or call
    /// [`Supervision::held`].
    Open(Lane, Need),
    /// Drop the connection.
    Close(Lane),
    /// Nothing until this monotonic time, unless an input comes first.
    WaitUntil(u64),
    /// Nothing until an input comes: a connection is being opened.
    WaitInput,
}

/// How an open is to be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// There is no stream: any open that is left.
    Bare,
    /// There is one: only what is to spare.
    Spare,
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
    /// What happened to the extra stream, or to one whose place it took: for the log alone.
    Aside(String),
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
    lanes: [Track; 2],
    main: Lane,
    errand: Errand,
    outage: Option<Outage>,
    /// The newest stretch in which an extra stream was healthy that is over.
    extra_over: Option<(u64, u64)>,
    /// No open before: a server said so.
    not_before_us: u64,
    /// The longest silence that ended with a byte.
    silence_max_us: u64,
    /// No second stream before.
    extra_from_us: u64,
    /// The last byte before the silence that was probed.
    probed_us: Option<u64>,
    /// No renewal before.
    renew_from_us: u64,
    /// The budget has opens to spare.
    to_spare: bool,
    /// Which lanes owe events for longer than healthy streams are apart.
    lags: [bool; 2],
    /// The lane that had bytes since the last poll.
    heard: Option<Lane>,
    /// The last stream fell silent after its greeting.
    deaf: bool,
    started_us: u64,
    state: UpstreamState,
    /// The last trouble told, within an outage.
    told: Option<(UpstreamState, String)>,
    /// At most [`REPORTS_PER_INPUT_MAX`] an input; the driver empties it after each.
    reports: VecDeque<Report>,
}

/// An input reports at most a hole, two states and an aside.
pub const REPORTS_PER_INPUT_MAX: usize = 4;

#[derive(Debug)]
struct Track {
    phase: Phase,
    backoff: Backoff,
    /// Opened with a token that is no longer the newest.
    outdated: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle,
    Waiting { until_us: u64, token_helps: bool },
    Opening,
    Live(Live),
}

#[derive(Debug, Clone, Copy)]
struct Live {
    since_us: u64,
    last_byte_us: u64,
    /// Read since then: bytes before may be the greeting.
    read_from_us: u64,
    /// It brought an event.
    spoke: bool,
    trial: bool,
}

/// What the extra lane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    /// None: it is idle.
    Nothing,
    /// The second of two.
    Second,
    /// To replace the main one.
    Renewal,
    /// To look whether the cloud is there.
    Probe,
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
        let waiting = Phase::Waiting { until_us: now.mono_us, token_helps: false };
        let track = |phase| Track { phase, backoff: backoff.clone(), outdated: false };
        Supervision {
            policy,
            rng,
            lanes: [track(waiting), track(Phase::Idle)],
            main: Lane::A,
            errand: Errand::Nothing,
            outage: None,
            extra_over: None,
            not_before_us: 0,
            extra_from_us: 0,
            silence_max_us: 0,
            probed_us: None,
            renew_from_us: 0,
            to_spare: true,
            lags: [false; 2],
            heard: None,
            deaf: false,
            started_us: now.mono_us,
            state: UpstreamState::Connecting,
            told: None,
            reports: VecDeque::from([first]),
        }
    }

    /// What to do now. Fires the watchdog if it is due.
    pub fn poll(&mut self, now: Moment) -> Action {
        for lane in [self.extra(), self.main] {
            if self.reads(lane)
                && let Phase::Live(live) = self.phase(lane)
                && now.mono_us >= after(live.last_byte_us, self.policy.stale_after)
            {
                let silence = Duration::from_micros(now.mono_us - live.last_byte_us);
                let detail = format!(
                    "no byte for {:.1} s; closing the connection and opening another",
                    silence.as_secs_f64()
                );
                self.over(lane, now, End::Silent, UpstreamState::Stalled, detail);
                return Action::Close(lane);
            }
        }
        let heard = self.heard.take();
        if let Some(lane) = self.retire(now, heard) {
            return Action::Close(lane);
        }
        self.send_extra(now);
        for (lane, need) in [(self.main, Need::Bare), (self.extra(), Need::Spare)] {
            if matches!(self.phase(lane), Phase::Waiting { until_us, .. } if until_us <= now.mono_us)
            {
                return Action::Open(lane, need);
            }
        }
        match self.next_us(now) {
            Some(next_us) => Action::WaitUntil(next_us.max(now.mono_us + 1)),
            None => Action::WaitInput,
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
        match self.phase(self.main) {
            Phase::Waiting { until_us, .. } => Some(until_us),
            Phase::Idle | Phase::Opening | Phase::Live(_) => None,
        }
    }

    /// True while another token could end the wait.
    pub fn token_helps(&self) -> bool {
        matches!(self.phase(self.main), Phase::Waiting { token_helps: true, .. })
    }

    /// True while a second stream is wanted, opened or open: what comes must be remembered, since it
    /// may come again.
    pub fn is_doubled(&self) -> bool {
        self.errand != Errand::Nothing || self.policy.streams > 1
    }

    /// False for a stream that is to be left unread for now: whether the other one is dead is not
    /// known yet.
    pub fn reads(&self, lane: Lane) -> bool {
        let Phase::Live(main) = self.phase(self.main) else { return true };
        lane == self.main || self.errand != Errand::Probe || self.spoke_since_probe(main)
    }

    /// True for a stream after a silent one: its first event is to be announced with
    /// [`event`](Supervision::event) before it is passed on.
    pub fn is_on_trial(&self, lane: Lane) -> bool {
        matches!(self.phase(lane), Phase::Live(Live { trial: true, .. }))
    }

    /// True while it matters which lane lags: see [`lags`](Supervision::lags).
    pub fn asks_for_lags(&self, now: Moment) -> bool {
        let both_live = Lane::ALL.iter().all(|lane| matches!(self.phase(*lane), Phase::Live(_)));
        both_live && self.errand != Errand::Probe && {
            self.errand == Errand::Renewal || self.due_for_renewal(now).is_some()
        }
    }

    /// A lane is behind the other by more than healthy streams can be, or not any more.
    pub fn lags(&mut self, lane: Lane, lags: bool) {
        self.lags[lane.index()] = lags;
    }

    /// Whether the budget has opens to spare. Renewals wait while it has not.
    pub fn to_spare(&mut self, to_spare: bool) {
        self.to_spare = to_spare;
    }

    /// The budget granted the open; the request goes out now.
    pub fn opening(&mut self, lane: Lane) {
        debug_assert!(matches!(self.phase(lane), Phase::Waiting { .. }), "opens one at a time");
        let track = &mut self.lanes[lane.index()];
        track.phase = Phase::Opening;
        track.outdated = false;
        if lane == self.main {
            // Within an outage, the attempts after the first failed one are repeats.
            let repeat = self.told.is_some();
            self.show(UpstreamState::Connecting, String::new(), repeat);
        }
    }

    /// Our own budget is used up for `wait`. Also while opening, before a redirect is followed.
    pub fn held(&mut self, lane: Lane, now: Moment, wait: Duration, detail: String) {
        if lane == self.main {
            self.wait(now, wait, false);
            self.trouble(UpstreamState::RateLimited, detail);
        } else {
            self.extra_waits(now, wait, false);
        }
    }

    /// The stream answers: status 200, the right content type.
    pub fn opened(&mut self, lane: Lane, now: Moment) {
        debug_assert!(matches!(self.phase(lane), Phase::Opening), "opened after opening");
        let at_us = now.mono_us;
        let trial = lane == self.main && self.deaf && self.outage.is_some();
        let live =
            Live { since_us: at_us, last_byte_us: at_us, read_from_us: at_us, spoke: false, trial };
        let track = &mut self.lanes[lane.index()];
        track.phase = Phase::Live(live);
        track.backoff.went_live();
        if lane != self.main {
            self.reports.push_back(Report::Aside("a second stream is open".to_owned()));
        } else if trial {
            self.trouble(UpstreamState::Stalled, DEAF_DETAIL.to_owned());
        } else {
            self.recovered(now, at_us);
        }
    }

    /// The server answered with a status that is no stream.
    pub fn refused(
        &mut self,
        lane: Lane,
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
        self.retry(lane, now, trouble, state, detail);
    }

    /// The attempt brought no answer that counts.
    pub fn failed(&mut self, lane: Lane, now: Moment, kind: FailureKind, detail: String) {
        let (trouble, state) = match kind {
            FailureKind::Network => (Trouble::Network, UpstreamState::BackingOff),
            FailureKind::Redirect => (Trouble::Misconfigured, UpstreamState::Misconfigured),
            FailureKind::Token => (Trouble::Unauthorized, UpstreamState::Unauthorized),
        };
        self.retry(lane, now, trouble, state, detail);
    }

    /// Bytes came. Any byte is life.
    pub fn bytes(&mut self, lane: Lane, now: Moment) {
        let probe_us = micros(self.policy.probe_after);
        let Phase::Live(live) = &mut self.lanes[lane.index()].phase else { return };
        let silence_us = now.mono_us.saturating_sub(live.last_byte_us);
        live.last_byte_us = now.mono_us;
        self.heard = Some(lane);
        let proved = live.trial && live.is_proven();
        if silence_us >= probe_us {
            self.silence_max_us = self.silence_max_us.max(silence_us);
        }
        if proved {
            self.passed_trial(lane, now);
        }
    }

    /// Events came; once for many is enough.
    pub fn event(&mut self, lane: Lane, now: Moment) {
        if let Phase::Live(live) = &mut self.lanes[lane.index()].phase {
            live.spoke = true;
            if live.trial {
                self.passed_trial(lane, now);
            }
        }
    }

    /// A live connection is over.
    pub fn ended(&mut self, lane: Lane, now: Moment, end: End, detail: String) {
        let state = match end {
            End::Clean | End::Reset => UpstreamState::BackingOff,
            End::Silent => UpstreamState::Stalled,
        };
        self.over(lane, now, end, state, detail);
    }

    /// There is another token: a wait that a token can end is over, and streams with the old one are
    /// to be replaced.
    pub fn token_changed(&mut self, now: Moment) {
        for track in &mut self.lanes {
            track.backoff.token_changed();
            match &mut track.phase {
                Phase::Waiting { until_us, token_helps: true } => {
                    *until_us = now.mono_us.max(self.not_before_us);
                }
                Phase::Live(_) => track.outdated = true,
                Phase::Idle | Phase::Waiting { .. } | Phase::Opening => {}
            }
        }
        self.renew_from_us = self.renew_from_us.min(now.mono_us);
    }

    /// The stream's `retry:`: the least wait after a cut.
    pub fn retry_floor(&mut self, floor: Duration) {
        for track in &mut self.lanes {
            track.backoff.floor(floor);
        }
    }

    fn extra(&self) -> Lane {
        self.main.other()
    }

    fn phase(&self, lane: Lane) -> Phase {
        self.lanes[lane.index()].phase
    }

    fn live(&self, lane: Lane) -> Option<Live> {
        match self.phase(lane) {
            Phase::Live(live) => Some(live),
            Phase::Idle | Phase::Waiting { .. } | Phase::Opening => None,
        }
    }

    /// The main stream, if it covers the time.
    fn covering(&self) -> Option<Live> {
        self.live(self.main).filter(|live| !live.trial)
    }

    /// The silence that calls for a probe: longer than asked for where a longer one was seen to be
    /// harmless, since that costs an open each time. `None` if the watchdog comes first.
    fn probe_after(&self) -> Option<Duration> {
        let learned = Duration::from_micros(self.silence_max_us.saturating_mul(5) / 4);
        let probe_after = self.policy.probe_after.max(learned);
        (probe_after < self.policy.stale_after).then_some(probe_after)
    }

    fn is_doubtful(&self, live: Live, now: Moment) -> bool {
        let silence = Duration::from_micros(now.mono_us.saturating_sub(live.last_byte_us));
        self.probe_after().is_some_and(|probe_after| silence >= probe_after)
    }

    fn spoke_since_probe(&self, main: Live) -> bool {
        self.probed_us != Some(main.last_byte_us)
    }

    /// Which stream is to be replaced, the older first.
    fn due_for_renewal(&self, now: Moment) -> Option<Lane> {
        if !self.to_spare || now.mono_us < self.renew_from_us {
            return None;
        }
        let due = |lane: &Lane| {
            let track = &self.lanes[lane.index()];
            let Phase::Live(live) = track.phase else { return false };
            let is_old = self.renewal_us(live).is_some_and(|due_us| due_us <= now.mono_us);
            track.outdated || is_old
        };
        [self.main, self.extra()].into_iter().find(due)
    }

    fn renewal_us(&self, live: Live) -> Option<u64> {
        self.policy.age_max.map(|age_max| after(live.since_us, age_max))
    }

    /// Ends an errand that is done, or a stream whose replacement is well. Returns the lane to close.
    fn retire(&mut self, now: Moment, heard: Option<Lane>) -> Option<Lane> {
        let (main, extra) = (self.covering()?, self.live(self.extra())?);
        match self.errand {
            Errand::Nothing => None,
            Errand::Probe if self.spoke_since_probe(main) => {
                self.aside("the first stream speaks again; the second one is closed");
                Some(self.dismiss())
            }
            Errand::Probe => None,
            Errand::Renewal => {
                let overlap_us = now.mono_us.saturating_sub(extra.since_us);
                if overlap_us < micros(self.policy.overlap) {
                    return None;
                }
                let old = self.main;
                // A byte since then says that it was no dead one that the new one replaces.
                let is_well = main.last_byte_us > extra.since_us && !self.lags[old.index()];
                // From now on there is but the new one: it has just spoken, and so is not dead.
                if is_well && heard == Some(old.other()) {
                    self.aside("a new stream has taken the place of the old one");
                    self.lanes[old.index()].backoff.stream_over(lived(main, main.last_byte_us));
                    self.lanes[old.index()].phase = Phase::Idle;
                    self.extra_over = Some((main.since_us, main.last_byte_us));
                    self.main = old.other();
                    self.errand = Errand::Nothing;
                    return Some(old);
                }
                if overlap_us < micros(self.policy.overlap * OVERLAPS_MAX) {
                    return None;
                }
                self.aside("the old stream is behind; it is kept, and its renewal put off");
                self.renew_from_us = after(now.mono_us, RENEWAL_PAUSE);
                Some(self.dismiss())
            }
            Errand::Second => {
                let old = self.due_for_renewal(now)?;
                let (old_live, other) =
                    if old == self.main { (main, extra) } else { (extra, main) };
                let overlap_us = now.mono_us.saturating_sub(other.since_us.max(old_live.since_us));
                // From now on there is but this one: it has just spoken, and so is not dead.
                let other_is_well = heard == Some(old.other()) && !self.lags[old.other().index()];
                let old_is_well = old_live.last_byte_us > other.since_us && !self.lags[old.index()];
                if overlap_us < micros(self.policy.overlap) || !other_is_well || !old_is_well {
                    return None;
                }
                self.aside("a stream is replaced; the other one goes on");
                self.lanes[old.index()].backoff.stream_over(lived(old_live, old_live.last_byte_us));
                self.lanes[old.index()].phase =
                    Phase::Waiting { until_us: now.mono_us, token_helps: false };
                self.main = old.other();
                self.extra_over = Some((old_live.since_us, old_live.last_byte_us));
                // The next one after this one is well.
                self.renew_from_us = after(now.mono_us, self.policy.overlap);
                Some(old)
            }
        }
    }

    /// Ends the extra stream.
    fn dismiss(&mut self) -> Lane {
        let extra = self.extra();
        if let Some(live) = self.live(extra) {
            self.extra_over = Some((live.since_us, live.last_byte_us));
        }
        self.lanes[extra.index()].phase = Phase::Idle;
        self.errand = Errand::Nothing;
        extra
    }

    /// Sends the idle lane on an errand, if there is one.
    fn send_extra(&mut self, now: Moment) {
        let Some(main) = self.covering() else { return };
        if self.errand != Errand::Nothing {
            return;
        }
        let (errand, from_us) = if self.policy.streams > 1 {
            (Errand::Second, now.mono_us.max(self.extra_from_us))
        } else if self.due_for_renewal(now).is_some() {
            // What is passed on from now on is remembered.
            (Errand::Renewal, after(now.mono_us, SKEW.min(self.policy.overlap)))
        } else if self.probe_us(main).is_some_and(|probe_us| probe_us <= now.mono_us) {
            self.probed_us = Some(main.last_byte_us);
            (Errand::Probe, now.mono_us)
        } else {
            return;
        };
        self.errand = errand;
        let until_us = from_us.max(self.not_before_us);
        let extra = self.extra();
        self.lanes[extra.index()].phase = Phase::Waiting { until_us, token_helps: false };
    }

    /// When the main stream's silence calls for a probe; each does once. One that never said more
    /// than its greeting does not: another would be greeted too.
    fn probe_us(&self, main: Live) -> Option<u64> {
        let is_new = self.probed_us != Some(main.last_byte_us) && self.to_spare;
        let probe_after = self.probe_after().filter(|_| is_new && main.is_proven())?;
        Some(after(main.last_byte_us, probe_after))
    }

    fn next_us(&self, now: Moment) -> Option<u64> {
        let mut next_us: Option<u64> = None;
        let mut at = |due_us: u64| {
            // What is past is due with another input.
            if due_us > now.mono_us {
                next_us = Some(next_us.map_or(due_us, |next_us| next_us.min(due_us)));
            }
        };
        for lane in Lane::ALL {
            match self.phase(lane) {
                Phase::Idle | Phase::Opening => {}
                Phase::Waiting { until_us, .. } => at(until_us),
                Phase::Live(live) => {
                    if self.reads(lane) {
                        at(after(live.last_byte_us, self.policy.stale_after));
                    }
                    if self.to_spare
                        && let Some(due_us) = self.renewal_us(live)
                    {
                        at(due_us.max(self.renew_from_us));
                    }
                    if lane != self.main && matches!(self.errand, Errand::Renewal | Errand::Second)
                    {
                        at(after(live.since_us, self.policy.overlap));
                        at(after(live.since_us, self.policy.overlap * OVERLAPS_MAX));
                    }
                }
            }
        }
        if self.errand == Errand::Nothing
            && let Some(main) = self.covering()
            && let Some(probe_us) = self.probe_us(main)
        {
            at(probe_us);
        }
        next_us
    }

    fn over(&mut self, lane: Lane, now: Moment, end: End, state: UpstreamState, detail: String) {
        let Some(live) = self.live(lane) else {
            debug_assert!(false, "only a live connection ends");
            return;
        };
        let is_silent = end == End::Silent;
        // What a peer sent into a long silence before it broke the connection is lost with it.
        let is_doubtful = end == End::Reset && self.is_doubtful(live, now);
        let end_us = if is_silent || is_doubtful { live.last_byte_us } else { now.mono_us };
        if is_silent && lane == self.main {
            self.deaf = !live.is_proven();
        }
        // A stall's silence is no health: it does not count towards the reset of the ladders.
        let track = &mut self.lanes[lane.index()];
        track.backoff.stream_over(lived(live, end_us));
        let delay = track.backoff.delay(Trouble::Network, &mut self.rng);
        if lane != self.main {
            self.extra_over = Some((live.since_us, end_us));
            self.aside(&format!("the second stream: {detail}"));
            return self.extra_waits(now, delay, false);
        }
        let reason = match end {
            End::Clean => HoleReason::Ended,
            End::Reset => HoleReason::Reset,
            End::Silent => HoleReason::Stalled,
        };
        let lost_us = self.covered_until(end_us);
        match self.phase(lane.other()) {
            Phase::Live(next) => {
                self.extra_from_us = after(now.mono_us, delay);
                self.take_over(now, next, reason, lost_us, &detail);
            }
            Phase::Opening => {
                self.extra_from_us = after(now.mono_us, delay);
                self.outage.get_or_insert(Outage { reason, since_us: lost_us });
                self.lanes[lane.index()].phase = Phase::Idle;
                self.main = lane.other();
                self.errand = Errand::Nothing;
                self.show(state, detail, false);
                self.show(UpstreamState::Connecting, String::new(), false);
            }
            Phase::Idle | Phase::Waiting { .. } => {
                self.outage.get_or_insert(Outage { reason, since_us: lost_us });
                self.dismiss();
                self.wait(now, delay, false);
                if live.trial {
                    self.trouble(state, if is_silent { DEAF_DETAIL.to_owned() } else { detail });
                } else {
                    // Not remembered as told trouble: the attempt that follows is news.
                    self.show(state, detail, false);
                }
            }
        }
    }

    fn passed_trial(&mut self, lane: Lane, now: Moment) {
        let Phase::Live(live) = &mut self.lanes[lane.index()].phase else { return };
        live.trial = false;
        let since_us = live.since_us;
        self.deaf = false;
        self.recovered(now, since_us);
    }

    /// The extra stream becomes the main one, whose health ended at `lost_us`.
    fn take_over(
        &mut self,
        now: Moment,
        next: Live,
        reason: HoleReason,
        lost_us: u64,
        detail: &str,
    ) {
        let old = self.main;
        let was_read = self.reads(old.other());
        self.main = old.other();
        self.lanes[old.index()].phase = Phase::Idle;
        self.errand = Errand::Nothing;
        let read_from_us = if was_read { next.read_from_us } else { now.mono_us };
        let last_byte_us = if was_read { next.last_byte_us } else { now.mono_us };
        // From one that only greeted to one that only greeted: that is no recovery.
        let trial = self.deaf && !next.is_proven();
        let live = Live { read_from_us, last_byte_us, trial, ..next };
        self.lanes[self.main.index()].phase = Phase::Live(live);
        if trial {
            self.outage = Some(Outage { reason, since_us: lost_us });
            self.trouble(UpstreamState::Stalled, DEAF_DETAIL.to_owned());
        } else {
            if next.since_us > lost_us {
                self.hole(now, Outage { reason, since_us: lost_us }, next.since_us);
            }
            self.aside(&format!("{detail}; the second stream takes its place"));
        }
    }

    /// Until when the time from `end_us` was covered by an extra stream that is over.
    fn covered_until(&self, end_us: u64) -> u64 {
        match self.extra_over {
            Some((since_us, until_us)) if since_us <= end_us => end_us.max(until_us),
            _ => end_us,
        }
    }

    fn recovered(&mut self, now: Moment, since_us: u64) {
        // A stream that was there before the outage began, and proved itself in it: none.
        if let Some(outage) = self.outage.take()
            && outage.since_us <= since_us
        {
            self.hole(now, outage, since_us);
        }
        self.told = None;
        self.show(UpstreamState::Live, String::new(), false);
    }

    fn hole(&mut self, now: Moment, outage: Outage, until_us: u64) {
        let ago_ms = |at_us: u64| now.mono_us.saturating_sub(at_us) / 1000;
        let until_ms = now.wall_ms.saturating_sub(ago_ms(until_us));
        let length_ms = until_us.saturating_sub(outage.since_us) / 1000;
        let since_ms = until_ms.saturating_sub(length_ms);
        self.reports.push_back(Report::Hole(Hole { reason: outage.reason, since_ms, until_ms }));
    }

    fn retry(
        &mut self,
        lane: Lane,
        now: Moment,
        trouble: Trouble,
        state: UpstreamState,
        detail: String,
    ) {
        let token_helps = matches!(trouble, Trouble::Unauthorized | Trouble::Misconfigured);
        let delay = self.lanes[lane.index()].backoff.delay(trouble, &mut self.rng);
        // What a server says of when to return holds for both lanes.
        if let Trouble::RateLimited { .. } | Trouble::ServerError { retry_after: Some(_) } = trouble
        {
            self.not_before_us = self.not_before_us.max(after(now.mono_us, delay));
        }
        if lane == self.main {
            self.wait(now, delay, token_helps);
            self.trouble(state, detail);
        } else {
            self.aside(&format!("no second stream: {detail}"));
            self.extra_waits(now, delay, token_helps);
        }
    }

    fn wait(&mut self, now: Moment, delay: Duration, token_helps: bool) {
        let until_us = after(now.mono_us, delay).max(self.not_before_us);
        self.lanes[self.main.index()].phase = Phase::Waiting { until_us, token_helps };
        // Nothing was ever live: lost since the start. A no-op within an outage.
        self.outage
            .get_or_insert(Outage { reason: HoleReason::Startup, since_us: self.started_us });
    }

    /// The extra stream came to nothing, or to its end: again after `delay`, if its errand is still
    /// to be done then.
    fn extra_waits(&mut self, now: Moment, delay: Duration, token_helps: bool) {
        let until_us = after(now.mono_us, delay).max(self.not_before_us);
        let extra = self.extra();
        match self.errand {
            Errand::Second => {
                self.lanes[extra.index()].phase = Phase::Waiting { until_us, token_helps };
            }
            Errand::Renewal => {
                self.renew_from_us = until_us;
                self.dismiss();
            }
            Errand::Nothing | Errand::Probe => {
                self.dismiss();
            }
        }
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

    fn aside(&mut self, text: &str) {
        self.reports.push_back(Report::Aside(text.to_owned()));
    }
}

const DEAF_DETAIL: &str = "the server answers and then sends nothing; trying again until it does. If \
                           other programs get events with this token, look at proxies in between";

impl Live {
    /// It brought more than a greeting.
    fn is_proven(self) -> bool {
        self.spoke || self.last_byte_us >= after(self.read_from_us, PROOF_AFTER)
    }
}

fn lived(live: Live, until_us: u64) -> Duration {
    Duration::from_micros(until_us.saturating_sub(live.since_us))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn after(mono_us: u64, delay: Duration) -> u64 {
    mono_us.saturating_add(micros(delay))
}

#[cfg(test)]
mod tests;
