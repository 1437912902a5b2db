//! Single steps, and simulated hours and days of a failing cloud.

use super::*;
use crate::upstream::schedule::{Budget, RATE_LIMIT_MIN};
use Lane::A;

const POLICY: Policy = Policy {
    backoff_min: Duration::from_secs(1),
    backoff_max: Duration::from_secs(60),
    stale_after: Duration::from_secs(20),
    probe_after: Duration::from_secs(20),
    age_max: None,
    streams: 1,
    overlap: OVERLAP,
};
/// So impatient that only the budget holds it back.
const HASTY: Policy = Policy {
    backoff_min: Duration::from_millis(10),
    backoff_max: Duration::from_millis(500),
    stale_after: Duration::from_secs(20),
    probe_after: Duration::from_secs(20),
    age_max: None,
    streams: 1,
    overlap: OVERLAP,
};
const WALL_ORIGIN_MS: u64 = 1_790_000_000_000;
const SEC: u64 = 1_000_000;

fn at(secs: u64) -> Moment {
    Moment { wall_ms: WALL_ORIGIN_MS + secs * 1000, mono_us: secs * SEC }
}

fn machine() -> Supervision {
    Supervision::new(POLICY, fastrand::Rng::with_seed(1), at(0))
}

fn reports(supervision: &mut Supervision) -> Vec<Report> {
    std::iter::from_fn(|| supervision.report()).collect()
}

fn told(supervision: &mut Supervision) -> Vec<&'static str> {
    reports(supervision)
        .into_iter()
        .filter_map(|report| match report {
            Report::State { repeat: true, .. } => None,
            Report::State { state, .. } => Some(state.as_str()),
            Report::Hole(hole) => Some(hole.reason.as_str()),
            Report::Aside(_) => None,
        })
        .collect()
}

fn hole(reason: HoleReason, since_secs: u64, until_secs: u64) -> Report {
    Report::Hole(Hole {
        reason,
        since_ms: at(since_secs).wall_ms,
        until_ms: at(until_secs).wall_ms,
    })
}

/// Opens as soon as the machine wants to, and returns when that was.
fn open_when_due(supervision: &mut Supervision, mut now: Moment) -> Moment {
    loop {
        match supervision.poll(now) {
            Action::Open(..) => {
                supervision.opening(A);
                return now;
            }
            Action::WaitUntil(until_us) => {
                now.wall_ms += (until_us - now.mono_us) / 1000;
                now.mono_us = until_us;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_first_attempt_that_succeeds_leaves_no_hole() {
    let mut supervision = machine();
    assert_eq!(supervision.poll(at(0)), Action::Open(A, Need::Bare));
    supervision.opening(A);
    assert_eq!(supervision.poll(at(1)), Action::WaitInput);
    supervision.opened(A, at(2));
    assert_eq!(told(&mut supervision), ["connecting", "live"]);
    assert_eq!(supervision.poll(at(2)), Action::WaitUntil(22 * SEC));
}

#[test]
fn a_failing_start_is_one_hole_from_the_process_start() {
    let mut supervision = machine();
    let mut now = at(0);
    for _ in 0..5 {
        now = open_when_due(&mut supervision, now);
        supervision.failed(A, now, FailureKind::Network, "refused".into());
    }
    assert_eq!(told(&mut supervision), ["connecting", "backing-off"], "repeats are not told");
    open_when_due(&mut supervision, now);
    supervision.opened(A, at(400));
    let first = reports(&mut supervision).into_iter().find(|r| matches!(r, Report::Hole(_)));
    assert_eq!(first, Some(hole(HoleReason::Startup, 0, 400)));
}

#[test]
fn a_stall_is_closed_and_its_hole_begins_with_the_last_byte() {
    let mut supervision = machine();
    supervision.opening(A);
    supervision.opened(A, at(0));
    supervision.bytes(A, at(100));
    assert_eq!(supervision.poll(at(119)), Action::WaitUntil(120 * SEC));
    assert_eq!(supervision.poll(at(120)), Action::Close(A));
    let now = open_when_due(&mut supervision, at(120));
    assert!(now.mono_us <= 121 * SEC, "healthy for 100 s: first rung");
    supervision.opened(A, at(122));
    assert_eq!(
        told(&mut supervision),
        ["connecting", "live", "stalled", "connecting", "stalled", "live"]
    );
}

#[test]
fn ended_and_reset_holes_begin_at_detection() {
    for (end, reason) in [(End::Clean, HoleReason::Ended), (End::Reset, HoleReason::Reset)] {
        let mut supervision = machine();
        supervision.opening(A);
        supervision.opened(A, at(0));
        supervision.bytes(A, at(10));
        supervision.ended(A, at(15), end, String::new());
        open_when_due(&mut supervision, at(15));
        supervision.opened(A, at(17));
        let reports = reports(&mut supervision);
        assert!(reports.contains(&hole(reason, 15, 17)), "{reports:?}");
        let hole_at = reports.iter().position(|report| matches!(report, Report::Hole(_)));
        assert_eq!(hole_at, Some(reports.len() - 2), "before the state `live`");
    }
}

#[test]
fn a_401_is_retried_once_quickly_then_slowly_and_a_new_token_ends_the_wait() {
    let mut supervision = machine();
    supervision.opening(A);
    supervision.refused(A, at(0), 401, None, "expired".into());
    let quick = open_when_due(&mut supervision, at(0));
    assert!((SEC..=2 * SEC).contains(&quick.mono_us));
    supervision.refused(A, at(2), 401, None, "expired".into());
    let slow_us = supervision.next_open_us().unwrap() - 2 * SEC;
    assert!((240 * SEC..=360 * SEC).contains(&slow_us), "{slow_us}");
    assert!(supervision.token_helps());
    supervision.token_changed(at(9));
    assert_eq!(supervision.poll(at(9)), Action::Open(A, Need::Bare));
    assert_eq!(supervision.state(), UpstreamState::Unauthorized);
}

#[test]
fn a_new_token_does_not_shorten_a_rate_limit() {
    let mut supervision = machine();
    supervision.opening(A);
    supervision.refused(A, at(0), 429, Some(Duration::from_secs(30)), "slow".into());
    let due_us = supervision.next_open_us().unwrap();
    assert!((30 * SEC..=36 * SEC).contains(&due_us));
    supervision.token_changed(at(1));
    assert_eq!(supervision.next_open_us(), Some(due_us));
}

#[test]
fn each_status_has_its_state() {
    for (status, state) in [
        (204, UpstreamState::BackingOff),
        (304, UpstreamState::BackingOff),
        (400, UpstreamState::Misconfigured),
        (401, UpstreamState::Unauthorized),
        (403, UpstreamState::Misconfigured),
        (404, UpstreamState::Misconfigured),
        (408, UpstreamState::BackingOff),
        (429, UpstreamState::RateLimited),
        (500, UpstreamState::BackingOff),
        (503, UpstreamState::RateLimited),
        (529, UpstreamState::RateLimited),
    ] {
        let mut supervision = machine();
        supervision.opening(A);
        supervision.refused(A, at(0), status, None, String::new());
        assert_eq!(supervision.state(), state, "{status}");
    }
}

#[test]
fn a_wall_clock_jump_does_not_bend_a_window() {
    for jumped_ms in [0, 1_000, WALL_ORIGIN_MS - 1, WALL_ORIGIN_MS * 2] {
        let mut supervision = machine();
        supervision.opening(A);
        supervision.opened(A, at(0));
        supervision.ended(A, at(10), End::Clean, String::new());
        open_when_due(&mut supervision, at(10));
        supervision.opened(A, Moment { wall_ms: jumped_ms, mono_us: 25 * SEC });
        let hole = reports(&mut supervision).into_iter().find_map(|report| match report {
            Report::Hole(hole) => Some(hole),
            Report::State { .. } | Report::Aside(_) => None,
        });
        let hole = hole.unwrap();
        assert_eq!(hole.until_ms, jumped_ms);
        assert_eq!(hole.since_ms, jumped_ms.saturating_sub(15_000));
    }
}

/// What the scripted cloud does with one attempt.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Status(u16, Option<Duration>),
    Nothing,
    HeadStall,
    Html,
    Live { for_us: u64, end: End },
}

/// `mood` is the share of attempts that fail, in percent; a hasty world knows only trouble
/// that may be retried soon, since one rate limit would keep it from reaching the budget.
fn answer(rng: &mut fastrand::Rng, mood: u32, hasty: bool) -> Answer {
    let told = |rng: &mut fastrand::Rng| rng.bool().then(|| Duration::from_secs(rng.u64(0..1200)));
    let kinds = if hasty { 5..8 } else { 0..8 };
    match if rng.u32(0..100) < mood { rng.u32(kinds) } else { 8 } {
        0 => Answer::Status(429, told(rng)),
        1 => Answer::Status(529, told(rng)),
        2 => Answer::Status(503, told(rng)),
        3 => Answer::Status([401, 403, 404, 400][rng.usize(0..4)], None),
        4 => Answer::Status([500, 502, 504][rng.usize(0..3)], told(rng)),
        5 => Answer::Nothing,
        6 => Answer::HeadStall,
        7 => Answer::Html,
        _ => {
            // From cut at once to an hour; most are short, which is the hard case.
            let longest_us =
                [1, SEC, 60 * SEC, 3600 * SEC][rng.usize(0..if hasty { 2 } else { 4 })];
            let for_us = rng.u64(0..=longest_us);
            let end = [End::Clean, End::Reset, End::Silent][rng.usize(0..3)];
            Answer::Live { for_us, end }
        }
    }
}

/// One run: a discrete-event loop in place of the driver, checking as it goes.
struct World {
    rng: fastrand::Rng,
    now: Moment,
    budget: Budget,
    supervision: Supervision,
    opens_us: Vec<u64>,
    held: u64,
    hasty: bool,
    not_before_us: u64,
    /// The model: when a healthy connection existed, in microseconds, `[from, to)`.
    healthy: Vec<(u64, u64)>,
    holes: Vec<(Hole, u64)>,
    state: Option<UpstreamState>,
    wall_jumps: bool,
}

const OPENS_MAX: usize = 40;
const WINDOW: Duration = Duration::from_secs(300);

impl World {
    fn new(seed: u64, wall_jumps: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = at(0);
        let hasty = seed.is_multiple_of(3);
        let policy = if hasty { HASTY } else { POLICY };
        let supervision = Supervision::new(policy, rng.fork(), now);
        World {
            rng,
            now,
            budget: Budget::new(OPENS_MAX, WINDOW),
            supervision,
            opens_us: Vec::new(),
            held: 0,
            hasty,
            not_before_us: 0,
            healthy: Vec::new(),
            holes: Vec::new(),
            state: None,
            wall_jumps,
        }
    }

    fn pass(&mut self, us: u64) {
        self.now.mono_us += us;
        self.now.wall_ms = self.now.wall_ms.saturating_add(us / 1000);
        if self.wall_jumps && self.rng.u32(0..50) == 0 {
            self.now.wall_ms = WALL_ORIGIN_MS + self.rng.u64(0..400_000_000_000);
        }
    }

    fn listen(&mut self) {
        while let Some(report) = self.supervision.report() {
            match report {
                Report::State { state, .. } => {
                    assert!(legal(self.state, state), "{:?} then {state:?}", self.state);
                    self.state = Some(state);
                }
                Report::Hole(hole) => {
                    assert_ne!(self.state, Some(UpstreamState::Live), "before `live`");
                    assert!(hole.until_ms <= self.now.wall_ms);
                    self.holes.push((hole, self.now.mono_us));
                }
                Report::Aside(text) => panic!("{text}, with one stream"),
            }
        }
        assert_eq!(self.state, Some(self.supervision.state()));
    }

    fn run(&mut self, until_us: u64, mood: u32) {
        while self.now.mono_us < until_us {
            let action = self.supervision.poll(self.now);
            self.listen();
            match action {
                Action::WaitUntil(due_us) => {
                    assert!(due_us > self.now.mono_us, "a wait ends");
                    let wait_us = due_us - self.now.mono_us;
                    if self.rng.u32(0..20) > 0 {
                        self.pass(wait_us);
                        continue;
                    }
                    // A new token comes in the middle of the wait; it must not undercut a limit.
                    let part_us = self.rng.u64(0..wait_us);
                    self.pass(part_us);
                    self.supervision.token_changed(self.now);
                }
                Action::Open(..) => self.attempt(mood),
                Action::Close(_) | Action::WaitInput => panic!("{action:?} outside an attempt"),
            }
        }
    }

    fn attempt(&mut self, mood: u32) {
        if let Err(wait) = self.budget.take(self.now) {
            self.held += 1;
            self.supervision.held(A, self.now, wait, "own limit".into());
            return self.listen();
        }
        assert!(self.now.mono_us >= self.not_before_us, "earlier than told");
        self.not_before_us = 0;
        self.opens_us.push(self.now.mono_us);
        self.supervision.opening(A);
        self.listen();
        assert_eq!(self.supervision.poll(self.now), Action::WaitInput);
        let answer = answer(&mut self.rng, mood, self.hasty);
        let latency_us = match answer {
            Answer::HeadStall => 15 * SEC,
            _ => self.rng.u64(0..SEC),
        };
        self.pass(latency_us);
        match answer {
            Answer::Status(status, told) => {
                self.supervision.refused(A, self.now, status, told, format!("status {status}"));
                let floor = match (status, told) {
                    (_, Some(told)) => told.min(Duration::from_secs(900)),
                    (429 | 503 | 529, None) => RATE_LIMIT_MIN,
                    _ => Duration::ZERO,
                };
                self.not_before_us = after(self.now.mono_us, floor);
            }
            Answer::Nothing | Answer::HeadStall | Answer::Html => {
                let detail = format!("{answer:?}");
                self.supervision.failed(A, self.now, FailureKind::Network, detail);
            }
            Answer::Live { for_us, end } => self.live(for_us, end),
        }
        self.listen();
    }

    fn live(&mut self, for_us: u64, end: End) {
        self.supervision.opened(A, self.now);
        self.listen();
        let on_trial = self.supervision.is_on_trial(A);
        let from_us = self.now.mono_us;
        let to_us = from_us + for_us;
        while self.now.mono_us < to_us {
            let keepalive_us = self.rng.u64(9 * SEC..13 * SEC);
            self.pass(keepalive_us.min(to_us - self.now.mono_us));
            let Action::WaitUntil(stale_us) = self.supervision.poll(self.now) else {
                panic!("a stream with bytes is live");
            };
            assert!(stale_us > self.now.mono_us);
            self.supervision.bytes(A, self.now);
            self.listen();
        }
        // One on trial is healthy if it brought more than a greeting.
        if !on_trial || for_us >= SEC {
            self.healthy.push((from_us, to_us));
        }
        match end {
            End::Clean | End::Reset => self.supervision.ended(A, self.now, end, "over".into()),
            End::Silent => {
                assert!(matches!(self.supervision.poll(self.now), Action::WaitUntil(_)));
                self.pass(20 * SEC);
                assert_eq!(self.supervision.poll(self.now), Action::Close(A));
            }
        }
    }

    /// Opens fit the budget; the holes are exactly what is between the healthy times.
    fn check(&self) {
        for (index, &opened_us) in self.opens_us.iter().enumerate().skip(OPENS_MAX) {
            let earlier_us = self.opens_us[index - OPENS_MAX];
            assert!(opened_us - earlier_us >= 300 * SEC, "41 opens within 300 s");
        }
        let mut expected = Vec::new();
        let mut lost_from_us = 0;
        for (index, &(from_us, to_us)) in self.healthy.iter().enumerate() {
            let first_attempt = index == 0 && self.opens_us.partition_point(|o| *o <= from_us) == 1;
            if !first_attempt {
                expected.push((lost_from_us, from_us));
            }
            lost_from_us = to_us;
        }
        assert_eq!(self.holes.len(), expected.len(), "one hole an outage");
        for ((hole, told_us), (from_us, to_us)) in self.holes.iter().zip(expected) {
            assert!(*told_us >= to_us, "told when the stream is live again, or has proved itself");
            assert_eq!(hole.until_ms - hole.since_ms, (to_us - from_us) / 1000);
        }
    }
}

/// Which state may follow which.
fn legal(from: Option<UpstreamState>, to: UpstreamState) -> bool {
    use UpstreamState::{Connecting, Live, Misconfigured, RateLimited, Stalled, Unauthorized};
    match (from, to) {
        (None, _) => to == Connecting,
        // To `stalled`: a stream on trial.
        (Some(Connecting), _) => to != Connecting,
        (Some(Live), _) => matches!(to, Stalled | UpstreamState::BackingOff),
        // Out of any wait: an attempt, or our own budget says not yet.
        // A stream on trial proves itself, or fails.
        (Some(Stalled), _) => !matches!(to, Unauthorized | Misconfigured),
        (Some(UpstreamState::BackingOff | RateLimited), _) => {
            matches!(to, Connecting | RateLimited)
        }
        (Some(Unauthorized | Misconfigured), _) => matches!(to, Connecting | RateLimited),
    }
}

struct NamedOnPanic(u64);

impl Drop for NamedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

fn simulate(seeds: std::ops::Range<u64>, secs: u64, wall_jumps: bool) {
    let (mut opens, mut held, mut holes) = (0, 0, 0);
    for seed in seeds {
        let _named = NamedOnPanic(seed);
        let mood = [10, 50, 90, 100][(seed % 4) as usize];
        let mut world = World::new(seed, wall_jumps);
        world.run(secs * SEC, mood);
        world.check();
        opens += world.opens_us.len();
        held += world.held;
        holes += world.holes.len();
    }
    println!("{opens} opens, {held} held by the budget, {holes} holes");
    assert!(opens > 0 && held > 0 && holes > 0, "the script reaches what it is to try");
}

#[test]
fn a_failing_hour() {
    simulate(0..400, 3600, false);
    simulate(400..800, 3600, true);
}

#[test]
fn a_failing_day() {
    simulate(0..40, 86_400, false);
    simulate(40..80, 86_400, true);
}
