//! The crowd: its subscribers, and what can be asked of them.
//!
//! Law: one thread, no lock, no task. Whoever calls [`Crowd::open`], [`Crowd::run`] or
//! [`Crowd::wait_for`] is the loop; between the calls nothing is read.

mod turn;

use std::{
    collections::HashMap,
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use mio::{Events, Poll};

use super::{
    Plan, clock,
    member::Member,
    opening::{self, Opening},
    receive::Receiver,
    tally::{Opened, Tally},
};

/// Connections on their way at a time: more would overflow the queue of a server that
/// accepts slowly.
const CONNECTS_MAX: usize = 256;
/// Sockets told ready at a time.
const READY_MAX: usize = 4_096;
/// How often a caller is asked whether to go on.
const TICK: Duration = Duration::from_millis(100);
/// How often the next connections are begun where they are paced.
const PACE: Duration = Duration::from_millis(5);

/// How a call that waits ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What was waited for came to be.
    Done,
    /// The time was up before.
    TimedOut,
    /// The caller broke it off.
    Stopped,
}

/// What subscribers have not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Subscribers that lack something.
    pub subscribers: usize,
    /// Events they lack, summed.
    pub deliveries: u64,
}

/// Asked about ten times a second, between turns: [`ControlFlow::Break`] ends the wait.
pub type Tick<'a> = &'a mut dyn FnMut(&Crowd) -> ControlFlow<()>;

/// The [`Tick`] of a caller that has nothing to say.
pub fn go_on(_: &Crowd) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Subscribers of a broker, on this thread. Dropping it closes them.
#[derive(Debug)]
pub struct Crowd {
    plan: Plan,
    request: Vec<u8>,
    poll: Poll,
    events: Events,
    /// By number; none before they are open and once they are gone.
    members: Vec<Option<Member>>,
    opening: HashMap<usize, Opening>,
    opened: Opened,
    receiver: Receiver,
    /// Subscribers that read, and those that stall.
    reading: usize,
    stalled: usize,
    /// Those with more to read than one turn allows.
    unfinished: Vec<usize>,
    goal: Option<Goal>,
}

/// All subscribers that read are to see a seq.
#[derive(Debug)]
struct Goal {
    seq: u64,
    /// So many have not yet.
    behind: usize,
}

impl Crowd {
    /// A crowd that has not opened anything.
    ///
    /// # Errors
    /// The system has no readiness queue to give, or the plan has no target.
    pub fn new(plan: Plan) -> io::Result<Crowd> {
        if plan.targets.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no target to connect to"));
        }
        Ok(Crowd {
            request: opening::request(&plan),
            poll: Poll::new()?,
            events: Events::with_capacity(READY_MAX),
            members: Vec::new(),
            opening: HashMap::new(),
            opened: Opened::new(),
            receiver: Receiver::new(&plan),
            reading: 0,
            stalled: 0,
            unfinished: Vec::new(),
            goal: None,
            plan,
        })
    }

    /// Opens the subscribers of the plan, and lets those already open receive. Done once
    /// each is open or has failed: [`opened`](Self::opened) says which. Asks `tick` about
    /// ten times a second whether to go on.
    ///
    /// # Errors
    /// The readiness queue fails.
    pub fn open(&mut self, tick: Tick<'_>) -> io::Result<Ended> {
        let (started, first) = (clock::now(), self.members.len());
        let total = self.plan.subscribers;
        self.turn_until(None, tick, |crowd| {
            let now = clock::now();
            let due = match crowd.plan.connects_per_second {
                Some(rate) => (rate * (now - started).as_secs_f64()) as usize + 1 + first,
                None => total,
            };
            while crowd.opening.len() < CONNECTS_MAX && crowd.members.len() < total.min(due) {
                crowd.begin(now);
            }
            crowd.give_up(now);
            match crowd.members.len() == total && crowd.opening.is_empty() {
                true => ControlFlow::Break(()),
                false if crowd.members.len() < total => ControlFlow::Continue(PACE),
                false => ControlFlow::Continue(TICK),
            }
        })
    }

    /// Lets the subscribers receive until `until`, which is done, and longer than that
    /// only if `tick` is.
    ///
    /// # Errors
    /// The readiness queue fails.
    pub fn run(&mut self, until: Instant, tick: Tick<'_>) -> io::Result<Ended> {
        let ended = self.turn_until(Some(until), tick, |_| ControlFlow::Continue(TICK))?;
        Ok(if ended == Ended::TimedOut { Ended::Done } else { ended })
    }

    /// Lets the subscribers receive until all that read, and are still there, have seen
    /// `seq` or a later one; at most until `until`.
    ///
    /// # Errors
    /// The readiness queue fails.
    pub fn wait_for(&mut self, seq: u64, until: Instant, tick: Tick<'_>) -> io::Result<Ended> {
        self.goal = Some(Goal { seq, behind: self.missing(seq).subscribers });
        let ended = self.turn_until(Some(until), tick, |crowd| {
            match crowd.goal.as_ref().is_none_or(|goal| goal.behind == 0) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(TICK),
            }
        });
        self.goal = None;
        ended
    }

    /// What was counted since the last reset.
    pub fn tally(&self) -> &Tally {
        &self.receiver.tally
    }

    /// How the opening went so far.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Subscribers that are open now and read.
    pub fn reading(&self) -> usize {
        self.reading
    }

    /// Subscribers that are open now and do not read.
    pub fn stalled(&self) -> usize {
        self.stalled
    }

    /// Counts from zero again, for another phase. What each subscriber has seen last is
    /// kept, so that a loss between two phases shows.
    pub fn reset(&mut self) {
        self.receiver.tally = Tally::new(clock::now());
    }

    /// What the subscribers that read, and are still there, lack of the stamps 1 to `seq` at the end: losses on
    /// the way are in the [`Tally`] instead.
    pub fn missing(&self, seq: u64) -> Missing {
        let readers = self.members.iter().flatten().filter(|member| member.reads);
        let lacking = readers.map(|member| seq.saturating_sub(member.order.last()));
        lacking.filter(|lacks| *lacks > 0).fold(
            Missing { subscribers: 0, deliveries: 0 },
            |sum, lacks| Missing {
                subscribers: sum.subscribers + 1,
                deliveries: sum.deliveries + lacks,
            },
        )
    }
}
