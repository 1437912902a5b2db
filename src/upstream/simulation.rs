//! Hours of a cloud whose streams fail one at a time, in simulated time: [`Supervision`], [`Merge`]
//! and the budget as the driver puts them together, against a model that knows every event.
//!
//! The law: what some stream would have brought comes out once, true twins twice; and a hole is
//! told only of a time in which no stream was up.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    time::Duration,
};

use super::{
    merge::{Lane, Merge, SKEW, Verdict},
    schedule::Budget,
    supervise::{Action, End, FailureKind, Need, OVERLAP, Policy, Report, Supervision},
};
use crate::model::{Moment, UpstreamState};

const SEC: u64 = 1_000_000;
const MS: u64 = 1_000;
const HOUR: u64 = 3600 * SEC;
/// Nothing is published in the end, so that all can arrive.
const QUIET: u64 = 200 * SEC;
/// How far apart servers of the cloud learn of an event.
const APART: u64 = 300 * MS;
/// A stream that is open for so long brings everything: twice the edge.
const SETTLED: u64 = 2 * SKEW.as_micros() as u64;
/// How far behind a slow stream gets.
const LAG_MAX: u64 = 40 * SEC;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Publish,
    Subscribe(usize),
    Answer(usize),
    /// An event reaches the server of a connection.
    Arrive(usize, u64),
    KeepAlive(usize, u64),
    /// Bytes reach us; `None` is a keep-alive.
    Deliver(usize, Option<u64>),
    End(usize, bool),
    Fault,
    Token,
    Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    /// Nothing is read from it before this time; then all at once.
    PausedUntil(u64),
    /// What arrives is later by a lag that grows until this time, and then shrinks.
    SlowFrom(u64, u64),
    /// Deaf and dumb, or cut.
    Dead,
}

struct Connection {
    lane: Lane,
    is_subscribed: bool,
    opened_us: Option<u64>,
    health: Health,
    closed: bool,
    /// When the last of the bytes on the way arrives.
    busy_until_us: u64,
    last_arrival_us: u64,
    keepalive: u64,
    /// Events on the way.
    on_the_way: BTreeSet<u64>,
    unread: VecDeque<Option<u64>>,
}

/// What came of a run.
#[derive(Debug, Default)]
struct Tally {
    published: u64,
    twins: u64,
    lost: u64,
    repeated: u64,
    uncovered: u64,
    holes: u64,
    none_up: u64,
    opens: u64,
    held: u64,
    faults: BTreeMap<&'static str, u64>,
    copies: u64,
    takeovers: u64,
}

struct World {
    rng: fastrand::Rng,
    now_us: u64,
    queue: BinaryHeap<Reverse<(u64, u64, What)>>,
    number: u64,
    /// Microseconds between events, on average.
    pace_us: u64,
    connections: Vec<Connection>,
    links: [Option<usize>; 2],
    supervision: Supervision,
    merge: Merge,
    merging: bool,
    budget: Budget,
    opens_us: Vec<u64>,
    /// The content of each event published, when, and the connections that would bring it.
    events: Vec<(u64, u64, BTreeSet<usize>)>,
    passed: BTreeMap<u64, i64>,
    was_up: bool,
    /// The next wake in the queue.
    wake_us: u64,
    tally: Tally,
}

impl World {
    fn new(seed: u64, streams: usize) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let policy = Policy {
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            stale_after: Duration::from_secs(20),
            probe_after: Duration::from_secs(15),
            age_max: Some(Duration::from_secs(rng.u64(120..900))),
            streams,
            overlap: OVERLAP,
        };
        let supervision = Supervision::new(policy, rng.fork(), moment(0));
        // From one in 20 s, where keep-alives matter, to ten in a second.
        let pace_us = [100 * MS, 400 * MS, 2 * SEC, 20 * SEC][rng.usize(0..4)];
        let mut world = World {
            rng,
            now_us: 0,
            queue: BinaryHeap::new(),
            number: 0,
            pace_us,
            connections: Vec::new(),
            links: [None, None],
            supervision,
            merge: Merge::new(),
            merging: false,
            budget: Budget::new(40, Duration::from_secs(300)),
            opens_us: Vec::new(),
            events: Vec::new(),
            passed: BTreeMap::new(),
            was_up: false,
            wake_us: 0,
            tally: Tally::default(),
        };
        for what in [What::Publish, What::Fault, What::Token] {
            world.at(5 * SEC, what);
        }
        world
    }

    fn at(&mut self, us: u64, what: What) {
        self.number += 1;
        self.queue.push(Reverse((us.max(self.now_us), self.number, what)));
    }

    fn run(mut self) -> Tally {
        self.act();
        while let Some(Reverse((us, _, what))) = self.queue.pop() {
            if us > HOUR {
                break;
            }
            self.now_us = us;
            self.happen(what);
            self.act();
        }
        self.account()
    }

    fn now(&self) -> Moment {
        moment(self.now_us)
    }

    // === the cloud ===

    fn happen(&mut self, what: What) {
        match what {
            What::Publish => self.publish(),
            What::Subscribe(id) => self.subscribe(id),
            What::Answer(id) => self.answer(id),
            What::Arrive(id, event) => self.arrive(id, Some(event)),
            What::KeepAlive(id, number) => {
                if self.connections[id].keepalive == number {
                    self.arrive(id, None);
                }
            }
            What::Deliver(id, event) => self.deliver(id, event),
            What::End(id, clean) => self.end(id, clean),
            What::Fault => {
                self.fault();
                let pause_us = self.rng.u64(2 * SEC..60 * SEC);
                self.at(self.now_us + pause_us, What::Fault);
            }
            What::Token => {
                if self.now_us > SETTLED && self.rng.u32(0..4) == 0 {
                    self.supervision.token_changed(self.now());
                }
                self.at(self.now_us + 300 * SEC, What::Token);
            }
            What::Wake => {}
        }
        let is_up = self.connections.iter().any(|c| c.is_subscribed && !c.closed && c.is_up());
        if self.was_up && !is_up {
            self.tally.none_up += 1;
        }
        self.was_up = is_up;
    }

    fn publish(&mut self) {
        if self.now_us > HOUR - QUIET {
            return;
        }
        let times = if self.rng.u32(0..10) == 0 { self.rng.u64(2..4) } else { 1 };
        let content = self.events.len() as u64;
        self.tally.twins += times - 1;
        for _ in 0..times {
            let event = self.events.len() as u64;
            self.events.push((content, self.now_us, BTreeSet::new()));
            for id in 0..self.connections.len() {
                if self.connections[id].is_subscribed && !self.connections[id].closed {
                    let late_us = self.rng.u64(0..APART);
                    self.send(id, event, self.now_us + late_us);
                }
            }
        }
        let next_us = self.now_us + self.rng.u64(0..2 * self.pace_us);
        self.at(next_us, What::Publish);
    }

    fn send(&mut self, id: usize, event: u64, arrives_us: u64) {
        let connection = &mut self.connections[id];
        if connection.is_up() {
            connection.on_the_way.insert(event);
            self.events[event as usize].2.insert(id);
        }
        self.at(arrives_us, What::Arrive(id, event));
    }

    fn subscribe(&mut self, id: usize) {
        if self.connections[id].closed {
            return;
        }
        self.connections[id].is_subscribed = true;
        // Of what was published just now its server learns yet.
        for event in (0..self.events.len()).rev() {
            let published_us = self.events[event].1;
            if published_us + APART < self.now_us {
                break;
            }
            let arrives_us = published_us + self.rng.u64(0..APART);
            if arrives_us >= self.now_us {
                self.send(id, event as u64, arrives_us);
            }
        }
    }

    fn arrive(&mut self, id: usize, event: Option<u64>) {
        let keepalive_us = self.now_us + self.rng.u64(9 * SEC..13 * SEC);
        let connection = &mut self.connections[id];
        if connection.closed || connection.health == Health::Dead {
            return;
        }
        connection.keepalive += 1;
        let number = connection.keepalive;
        let now_us = self.now_us;
        let due_us = now_us
            + match connection.health {
                Health::Well | Health::Dead => 0,
                Health::PausedUntil(us) => us.saturating_sub(now_us),
                Health::SlowFrom(from_us, until_us) if now_us < until_us => {
                    ((now_us - from_us) / 2).min(LAG_MAX)
                }
                Health::SlowFrom(..) => 0,
            };
        connection.busy_until_us = connection.busy_until_us.max(due_us);
        let due_us = connection.busy_until_us;
        self.at(due_us, What::Deliver(id, event));
        self.at(keepalive_us, What::KeepAlive(id, number));
    }

    /// Something goes wrong with one stream, if another is well.
    fn fault(&mut self) {
        let live: Vec<usize> = self.links.into_iter().flatten().collect();
        let Some(&victim) = self.rng.choice(&live) else { return };
        let other_is_well = live.iter().any(|id| *id != victim && self.is_well(*id));
        let connection = &self.connections[victim];
        if connection.opened_us.is_none() || connection.health != Health::Well {
            return;
        }
        let last_us = connection.last_arrival_us;
        // A stream that died without a word since the other one opened may have been dead before, for
        // all that can be known: that is told as a hole, and rightly.
        let other_is_well = other_is_well
            && live.iter().any(|id| {
                *id != victim && self.connections[*id].opened_us.is_some_and(|us| us < last_us)
            });
        let kind = if other_is_well { self.rng.u32(0..5) } else { 4 };
        let name = match kind {
            0 | 1 => {
                self.kill(victim);
                self.at(self.now_us, What::End(victim, kind == 0));
                if kind == 0 { "cut" } else { "reset" }
            }
            2 => {
                self.kill(victim);
                "stall"
            }
            3 if self.is_well(victim) => {
                let until_us = self.now_us + self.rng.u64(10 * SEC..120 * SEC);
                self.connections[victim].health = Health::SlowFrom(self.now_us, until_us);
                "slow"
            }
            4 if self.is_well(victim) => {
                // Late, but not so late that it counts as dead.
                let until_us = self.now_us + self.rng.u64(0..19 * SEC);
                let until_us = until_us.min(last_us + 19 * SEC);
                self.connections[victim].health = Health::PausedUntil(until_us);
                self.connections[victim].busy_until_us = until_us;
                "late"
            }
            _ => return,
        };
        *self.tally.faults.entry(name).or_default() += 1;
    }

    fn is_well(&mut self, id: usize) -> bool {
        let now_us = self.now_us;
        let connection = &mut self.connections[id];
        let caught_up = connection.busy_until_us <= now_us;
        match connection.health {
            Health::PausedUntil(until_us) | Health::SlowFrom(_, until_us)
                if until_us <= now_us && caught_up =>
            {
                connection.health = Health::Well;
            }
            _ => {}
        }
        connection.health == Health::Well
            && caught_up
            && connection.unread.is_empty()
            && connection.opened_us.is_some_and(|us| us + SETTLED < now_us)
    }

    /// What is on its way is lost with it.
    fn kill(&mut self, id: usize) {
        self.connections[id].health = Health::Dead;
        for event in std::mem::take(&mut self.connections[id].on_the_way) {
            self.events[event as usize].2.remove(&id);
        }
    }

    // === the driver ===

    fn act(&mut self) {
        loop {
            let now = self.now();
            for id in self.links.into_iter().flatten() {
                self.read(id);
            }
            if self.supervision.is_doubled() {
                self.merging = true;
                if self.supervision.asks_for_lags(now) {
                    for lane in Lane::ALL {
                        let lags = self.merge.behind(lane, self.now_us) > SKEW;
                        self.supervision.lags(lane, lags);
                    }
                }
            } else if self.merging && self.merge.is_settled(self.now_us) {
                self.merging = false;
                self.merge.clear();
            }
            self.supervision.to_spare(self.budget.to_spare(now));
            let action = self.supervision.poll(now);
            self.listen();
            match action {
                Action::Open(lane, need) => self.open(lane, need),
                Action::Close(lane) => self.close(lane),
                Action::WaitUntil(us) => {
                    if self.wake_us <= self.now_us || us < self.wake_us {
                        self.wake_us = us;
                        self.at(us, What::Wake);
                    }
                    return;
                }
                Action::WaitInput => return,
            }
        }
    }

    fn listen(&mut self) {
        while let Some(report) = self.supervision.report() {
            match report {
                Report::Hole(_) => self.tally.holes += 1,
                Report::Aside(text) => {
                    self.tally.takeovers += u64::from(text.contains("takes its place"));
                }
                Report::State { .. } => {}
            }
        }
    }

    fn open(&mut self, lane: Lane, need: Need) {
        let now = self.now();
        let granted = match need {
            Need::Bare => self.budget.take(now),
            Need::Spare => self.budget.take_spare(now),
        };
        if let Err(wait) = granted {
            self.tally.held += 1;
            return self.supervision.held(lane, now, wait, String::new());
        }
        self.opens_us.push(self.now_us);
        self.supervision.opening(lane);
        self.merge.opening(lane, self.now_us);
        if self.now_us > 0 && self.rng.u32(0..20) == 0 {
            self.merge.closed(lane);
            return self.supervision.failed(lane, now, FailureKind::Network, "refused".into());
        }
        let id = self.connections.len();
        self.connections.push(Connection {
            lane,
            is_subscribed: false,
            opened_us: None,
            health: Health::Well,
            closed: false,
            busy_until_us: 0,
            last_arrival_us: 0,
            keepalive: 0,
            on_the_way: BTreeSet::new(),
            unread: VecDeque::new(),
        });
        self.links[lane.index()] = Some(id);
        let subscribed_us = self.now_us + self.rng.u64(20 * MS..200 * MS);
        let answered_us = subscribed_us + self.rng.u64(0..200 * MS);
        self.connections[id].busy_until_us = answered_us;
        self.at(subscribed_us, What::Subscribe(id));
        self.at(answered_us, What::Answer(id));
    }

    fn answer(&mut self, id: usize) {
        if self.connections[id].closed {
            return;
        }
        let (lane, now) = (self.connections[id].lane, self.now());
        self.connections[id].opened_us = Some(self.now_us);
        self.supervision.opened(lane, now);
        self.merge.opened(lane, self.now_us);
        self.arrive(id, None);
    }

    fn deliver(&mut self, id: usize, event: Option<u64>) {
        let connection = &mut self.connections[id];
        if connection.closed || connection.health == Health::Dead {
            return;
        }
        if let Some(event) = event {
            connection.on_the_way.remove(&event);
        }
        connection.last_arrival_us = self.now_us;
        connection.unread.push_back(event);
        self.read(id);
    }

    fn read(&mut self, id: usize) {
        let lane = self.connections[id].lane;
        while self.supervision.reads(lane) {
            let Some(event) = self.connections[id].unread.pop_front() else { return };
            let now = self.now();
            assert!(!self.supervision.is_on_trial(lane), "the cloud is not deaf");
            self.supervision.bytes(lane, now);
            let Some(event) = event else { continue };
            let content = self.events[event as usize].0;
            let data = content.to_string();
            let is_copy =
                self.merging && self.merge.event(lane, "e", &data, self.now_us) == Verdict::Copy;
            self.supervision.event(lane, now);
            if !is_copy {
                *self.passed.entry(content).or_default() += 1;
            }
        }
    }

    fn end(&mut self, id: usize, clean: bool) {
        if self.connections[id].closed {
            return;
        }
        let (lane, now) = (self.connections[id].lane, self.now());
        self.forget(id);
        let end = if clean { End::Clean } else { End::Reset };
        self.supervision.ended(lane, now, end, "over".into());
    }

    /// We close it: what it would have brought is our loss.
    fn close(&mut self, lane: Lane) {
        let Some(id) = self.links[lane.index()] else { return };
        self.forget(id);
    }

    fn forget(&mut self, id: usize) {
        let lane = self.connections[id].lane;
        self.connections[id].closed = true;
        self.links[lane.index()] = None;
        self.merge.closed(lane);
    }

    // === the account ===

    fn account(mut self) -> Tally {
        assert_eq!(self.supervision.state(), UpstreamState::Live);
        let mut expected = BTreeMap::<u64, (i64, i64)>::new();
        for (content, _, would_bring) in &self.events {
            let (least, most) = expected.entry(*content).or_default();
            *most += 1;
            if would_bring.is_empty() {
                self.tally.uncovered += 1;
            } else {
                *least += 1;
            }
        }
        for (content, (least, most)) in expected {
            let passed = self.passed.get(&content).copied().unwrap_or(0);
            self.tally.lost += (least - passed).max(0).unsigned_abs();
            self.tally.repeated += (passed - most).max(0).unsigned_abs();
        }
        for window in self.opens_us.windows(41) {
            assert!(window[40] - window[0] >= 300 * SEC, "41 opens within 300 s");
        }
        self.tally.published = self.events.len() as u64;
        self.tally.opens = self.opens_us.len() as u64;
        self.tally.copies = self.merge.counts().copies;
        self.tally
    }
}

impl Connection {
    fn is_up(&self) -> bool {
        self.health != Health::Dead
    }
}

fn moment(mono_us: u64) -> Moment {
    Moment { wall_ms: 1_790_000_000_000 + mono_us / 1000, mono_us }
}

/// Runs an hour for each seed: `FANLIGHT_TEST_HOURS` of them, or that of `FANLIGHT_TEST_SEED` alone.
fn hours(streams: usize) {
    let given = std::env::var("FANLIGHT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let first = given.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let hours = std::env::var("FANLIGHT_TEST_HOURS").ok().and_then(|text| text.parse().ok());
    let seeds = if given.is_some() { 1 } else { hours.unwrap_or(10) };
    let mut sum = Tally::default();
    for seed in first..first + seeds {
        let tally = World::new(seed, streams).run();
        let Tally { lost, repeated, holes, none_up, .. } = tally;
        assert!(
            lost == 0 && repeated == 0 && holes <= none_up,
            "FANLIGHT_TEST_SEED={seed}: {tally:?}"
        );
        sum.published += tally.published;
        sum.twins += tally.twins;
        sum.uncovered += tally.uncovered;
        sum.holes += holes;
        sum.none_up += none_up;
        sum.opens += tally.opens;
        sum.held += tally.held;
        sum.copies += tally.copies;
        sum.takeovers += tally.takeovers;
        for (name, count) in tally.faults {
            *sum.faults.entry(name).or_default() += count;
        }
    }
    println!("FANLIGHT_TEST_SEED={first} and {seeds} hours from there, {streams} streams: {sum:?}");
    assert!(
        given.is_some() || (sum.copies > 0 && sum.twins > 0 && sum.faults.len() >= 3),
        "it reaches what it is to try"
    );
}

#[test]
fn hours_with_two_streams_of_which_one_fails() {
    hours(2);
}

#[test]
fn hours_with_one_stream_that_is_replaced() {
    hours(1);
}
