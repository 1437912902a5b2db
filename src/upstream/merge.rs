//! Two streams of the same events made one: copies are dropped, true twins stay.
//!
//! ```text
//!  lane A  ──a──b──────c──c──d──▶             what B still owes: d
//!  lane B      (opens)──b──c──c──▶
//!  out     ──a──b──────c──c──d──▶             first come, first out; the copies of b, c, c dropped
//! ```
//!
//! The cloud gives events no number, so an event is known by its content: name and data,
//! byte for byte. What comes on one lane is owed by the other, and what comes on a lane that
//! owes it is a copy. That counts: of a content that lane A brought m times and lane B n times,
//! max(m, n) come out. Order between lanes does not matter, and within a lane it is kept.
//!
//! The law: nothing is dropped that was not passed on once for it, and where it cannot be
//! known what is a copy, a repeat is preferred to a loss.
//!
//! **Where a lane begins.** Nobody knows from which event on a new stream brings them all: the
//! cloud begins somewhere between our request and its answer, and its servers learn of an event
//! at different times. So what the other lane brings from [`SKEW`] before the request to [`SKEW`]
//! after the answer is "of the edge": the new lane may bring it or not. Until the answer is [`SKEW`]
//! old it owes what came before it, and for [`WINDOW`] what came after.
//!
//! **What cannot be known.** A content that comes on the new lane, and of which there is one of the
//! edge, can be the copy of that or a true twin of which the old lane has not brought its own yet. It
//! is taken for the copy, of the newest. If that is more than [`NEAR`] old there is a doubt: should
//! the old lane bring that content once more within [`SKEW`], that one passes and is not owed. So of
//! true twins at the edge, and of them alone,
//! - one is lost if the new lane missed the first, and the old lane breaks before it brings the second;
//! - one is lost at the end of the old lane if the new one missed the first, and the same content
//!   came again each [`NEAR`] or faster from then on: whether a lane is one behind does not show;
//! - one is repeated if the new lane brings both, each more than [`NEAR`] after the old one.
//!
//! **What is not kept for ever.** A lane that is behind by more than [`WINDOW`], or by more than
//! [`OWED_MAX`] events, has its copies passed on again: counted in [`Counts::overflows`].
//!
//! Pure: time is passed in.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// How far apart two streams may be that are well: servers of the cloud, the network, our reading.
pub const SKEW: Duration = Duration::from_secs(5);
/// A copy that comes this soon is no doubt one.
pub const NEAR: Duration = Duration::from_millis(500);
/// How long a copy is waited for. Longer than a stream may be silent before it is given up.
pub const WINDOW: Duration = Duration::from_secs(120);
/// Most events a lane may owe, and most that are remembered for a lane that opens. With their
/// bookkeeping about 10 MiB a lane at the very most; a few events as a rule.
pub const OWED_MAX: usize = 65_536;

/// One of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The one that is opened first.
    A,
    /// The other.
    B,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not passed on yet.
    New,
    /// Not passed on yet, though its equal was a moment ago.
    Twin,
    /// The other lane brought it: drop it.
    Copy,
}

/// What was decided, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copies dropped.
    pub copies: u64,
    /// Events passed on although their equal was, less than [`SKEW`] before.
    pub twins: u64,
    /// Events that an open lane owed and had not brought when they were forgotten, for their age
    /// or their number. Should it bring them still, they are passed on again.
    pub overflows: u64,
}

/// The two lanes and what each owes.
#[derive(Debug)]
pub struct Merge {
    /// Keyed afresh in each process, so that nobody can make two contents meet. Two of them:
    /// 128 bits, since a collision would be a loss.
    hashers: [RandomState; 2],
    lanes: [Option<Debts>; 2],
    recent: Recent,
    counts: Counts,
}

type Content = u128;

/// What one lane owes.
#[derive(Debug, Default)]
struct Debts {
    /// When the answer came; `None` while it is awaited.
    open_us: Option<u64>,
    /// When each debt arose, oldest first.
    owed: HashMap<Content, VecDeque<u64>>,
    /// All debts, oldest first, paid ones among them.
    order: VecDeque<(u64, Content)>,
    /// Unpaid ones.
    count: usize,
    /// Contents of the edge that were taken for copies: how often, and when last.
    doubts: HashMap<Content, (u32, u64)>,
}

/// What was passed on within the last [`SKEW`].
#[derive(Debug, Default)]
struct Recent {
    order: VecDeque<(u64, Content)>,
    counts: HashMap<Content, u32>,
}

const SKEW_US: u64 = SKEW.as_micros() as u64;
const NEAR_US: u64 = NEAR.as_micros() as u64;
const WINDOW_US: u64 = WINDOW.as_micros() as u64;
/// Paid debts that may stand in the order before it is cleared of them.
const PAID_MIN: usize = 1024;

// === impl Lane ===

impl Lane {
    /// Both.
    pub const ALL: [Lane; 2] = [Lane::A, Lane::B];

    /// The other one.
    pub fn other(self) -> Lane {
        match self {
            Lane::A => Lane::B,
            Lane::B => Lane::A,
        }
    }

    /// 0 or 1.
    pub fn index(self) -> usize {
        self as usize
    }
}

// === impl Merge ===

impl Default for Merge {
    fn default() -> Merge {
        Merge::new()
    }
}

impl Merge {
    /// No lane is open.
    pub fn new() -> Merge {
        Merge {
            hashers: [RandomState::new(), RandomState::new()],
            lanes: [None, None],
            recent: Recent::default(),
            counts: Counts::default(),
        }
    }

    /// The request for a lane's stream goes out.
    pub fn opening(&mut self, lane: Lane, now_us: u64) {
        self.recent.forget(now_us);
        let mut debts = Debts::default();
        if self.lanes[lane.other().index()].is_some() {
            for (at_us, content) in &self.recent.order {
                debts.owe(*content, *at_us);
            }
        }
        self.lanes[lane.index()] = Some(debts);
    }

    /// Its stream is there.
    pub fn opened(&mut self, lane: Lane, now_us: u64) {
        self.lanes[lane.index()].get_or_insert_default().open_us = Some(now_us);
    }

    /// Its stream is over, or its request came to nothing.
    pub fn closed(&mut self, lane: Lane) {
        self.lanes[lane.index()] = None;
    }

    /// Judges an event of a lane.
    pub fn event(&mut self, lane: Lane, name: &str, data: &str, now_us: u64) -> Verdict {
        let content = self.content(0, name, data.as_bytes());
        self.judge(lane, content, now_us)
    }

    /// Judges an event that was too large to keep: known by its name and size alone.
    pub fn oversize(&mut self, lane: Lane, name: &str, bytes: u64, now_us: u64) -> Verdict {
        let content = self.content(1, name, &bytes.to_be_bytes());
        self.judge(lane, content, now_us)
    }

    /// How long the oldest event that this lane owes has been passed on; those of the edge are
    /// not counted, since it may never bring them. Zero if it owes none.
    pub fn behind(&mut self, lane: Lane, now_us: u64) -> Duration {
        self.expire(now_us);
        let debts = self.lanes[lane.index()].as_ref();
        let oldest_us = debts.and_then(Debts::oldest_us);
        Duration::from_micros(oldest_us.map_or(0, |at_us| now_us.saturating_sub(at_us)))
    }

    /// True if no lane owes anything: then nothing that comes on the only lane can be a copy.
    pub fn is_settled(&mut self, now_us: u64) -> bool {
        self.expire(now_us);
        self.lanes.iter().flatten().all(|debts| debts.count == 0)
    }

    /// Forgets what was passed on; what is open stays so.
    pub fn clear(&mut self) {
        self.recent = Recent::default();
        for debts in self.lanes.iter_mut().flatten() {
            *debts = Debts { open_us: debts.open_us, ..Debts::default() };
        }
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Events remembered: at most [`OWED_MAX`] a lane and as many recent ones.
    pub fn held(&self) -> usize {
        self.recent.order.len()
            + self.lanes.iter().flatten().map(|debts| debts.count).sum::<usize>()
    }

    fn judge(&mut self, lane: Lane, content: Content, now_us: u64) -> Verdict {
        self.expire(now_us);
        if let Some(debts) = &mut self.lanes[lane.index()]
            && debts.pay(content, now_us)
        {
            self.counts.copies += 1;
            return Verdict::Copy;
        }
        if let Some(debts) = &mut self.lanes[lane.other().index()]
            && !debts.settle_doubt(content, now_us)
        {
            debts.owe(content, now_us);
            if debts.count > OWED_MAX {
                self.counts.overflows += 1;
                debts.forget_oldest();
            }
        }
        if self.recent.push(content, now_us) > 1 {
            self.counts.twins += 1;
            return Verdict::Twin;
        }
        Verdict::New
    }

    fn expire(&mut self, now_us: u64) {
        self.recent.forget(now_us);
        for debts in self.lanes.iter_mut().flatten() {
            self.counts.overflows += debts.expire(now_us);
        }
    }

    fn content(&self, kind: u8, name: &str, data: &[u8]) -> Content {
        // A tuple hashes its parts' lengths too: no two of them run together.
        let [high, low] =
            [0, 1].map(|which: usize| self.hashers[which].hash_one((kind, name, data)));
        (u128::from(high) << 64) | u128::from(low)
    }
}

// === impl Debts ===

impl Debts {
    fn owe(&mut self, content: Content, at_us: u64) {
        self.owed.entry(content).or_default().push_back(at_us);
        self.order.push_back((at_us, content));
        self.count += 1;
        if self.order.len() > 2 * self.count + PAID_MIN {
            let owed = &self.owed;
            self.order.retain(|(at_us, content)| is_owed(owed, *content, *at_us));
        }
    }

    /// Takes back one debt of this content, if there is one. Of the edge only where there is no
    /// other, and then the newest.
    fn pay(&mut self, content: Content, now_us: u64) -> bool {
        let Some(times) = self.owed.get_mut(&content) else { return false };
        let edge_us = edge_us(self.open_us);
        let sure = times.partition_point(|at_us| *at_us < edge_us);
        if sure < times.len() {
            times.remove(sure);
        } else if let Some(at_us) = times.pop_back()
            && now_us > at_us.saturating_add(NEAR_US)
        {
            let (count, last_us) = self.doubts.entry(content).or_default();
            *count += 1;
            *last_us = now_us;
        }
        if times.is_empty() {
            self.owed.remove(&content);
        }
        self.count -= 1;
        true
    }

    /// The other lane brings this content: if this one did, and it was taken for an earlier one's
    /// copy, it was this one's.
    fn settle_doubt(&mut self, content: Content, now_us: u64) -> bool {
        let Some((count, last_us)) = self.doubts.get_mut(&content) else { return false };
        let is_near = now_us <= last_us.saturating_add(SKEW_US);
        *count -= 1;
        if *count == 0 || !is_near {
            self.doubts.remove(&content);
        }
        is_near
    }

    /// Forgets what is too old; returns how many of these it should have brought.
    fn expire(&mut self, now_us: u64) -> u64 {
        let mut missing = 0;
        while let Some(&(at_us, content)) = self.order.front() {
            let due_us = match self.open_us {
                None => u64::MAX,
                Some(open_us) if at_us < open_us => open_us.saturating_add(SKEW_US),
                Some(_) => at_us.saturating_add(WINDOW_US),
            };
            if now_us <= due_us && is_owed(&self.owed, content, at_us) {
                break;
            }
            let forgotten = self.forget_oldest();
            missing += u64::from(forgotten && self.edge_us() <= at_us);
        }
        if now_us > self.edge_us().saturating_add(WINDOW_US + SKEW_US) {
            self.doubts.clear();
        }
        missing
    }

    /// True if it was still owed.
    fn forget_oldest(&mut self) -> bool {
        let Some((at_us, content)) = self.order.pop_front() else { return false };
        let Some(times) = self.owed.get_mut(&content) else { return false };
        let Ok(at) = times.binary_search(&at_us) else { return false };
        times.remove(at);
        if times.is_empty() {
            self.owed.remove(&content);
        }
        self.count -= 1;
        true
    }

    /// When the oldest debt arose that is not of the edge.
    fn oldest_us(&self) -> Option<u64> {
        let mut debts = self.order.iter();
        let oldest = debts.find(|(at_us, content)| {
            *at_us >= self.edge_us() && is_owed(&self.owed, *content, *at_us)
        });
        oldest.map(|(at_us, _)| *at_us)
    }

    fn edge_us(&self) -> u64 {
        edge_us(self.open_us)
    }
}

/// From when on a lane brings all that the other one brings.
fn edge_us(open_us: Option<u64>) -> u64 {
    open_us.map_or(u64::MAX, |open_us| open_us.saturating_add(SKEW_US))
}

/// Equal debts of one time are one another's equals, so which of them was paid does not matter.
fn is_owed(owed: &HashMap<Content, VecDeque<u64>>, content: Content, at_us: u64) -> bool {
    owed.get(&content).is_some_and(|times| times.binary_search(&at_us).is_ok())
}

// === impl Recent ===

impl Recent {
    /// Returns how many of this content are remembered now.
    fn push(&mut self, content: Content, now_us: u64) -> u32 {
        if self.order.len() == OWED_MAX {
            self.pop();
        }
        self.order.push_back((now_us, content));
        let count = self.counts.entry(content).or_default();
        *count += 1;
        *count
    }

    fn forget(&mut self, now_us: u64) {
        while self.order.front().is_some_and(|(at_us, _)| at_us.saturating_add(SKEW_US) < now_us) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((_, content)) = self.order.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&content) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&content);
            }
        }
    }
}

#[cfg(test)]
mod tests;
