//! The crowd: opens its subscribers, and turns the loop that lets them receive.
//!
//! Law: one thread, no lock, no task. Whoever calls [`Crowd::open`], [`Crowd::run`] or
//! [`Crowd::wait_for`] is the loop; between the calls nothing is read.

use std::{
    collections::HashMap,
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};

use super::{
    Plan, clock,
    member::Member,
    opening::{self, Advance, Opening},
    receive::{Reading, Receiver},
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

    /// What the subscribers that read lack of the stamps 1 to `seq` at the end: losses on
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

    // === the loop ===

    /// Turns until `step` breaks (done), the time is up, or `tick` breaks. `step` says how
    /// long a turn may wait.
    fn turn_until(
        &mut self,
        until: Option<Instant>,
        tick: Tick<'_>,
        mut step: impl FnMut(&mut Crowd) -> ControlFlow<(), Duration>,
    ) -> io::Result<Ended> {
        let mut ticked = clock::now();
        loop {
            let ControlFlow::Continue(wait) = step(self) else { return Ok(Ended::Done) };
            let now = clock::now();
            let left = until.map_or(wait, |until| until.saturating_duration_since(now));
            if left.is_zero() {
                return Ok(Ended::TimedOut);
            }
            if now - ticked >= TICK {
                ticked = now;
                if tick(self).is_break() {
                    return Ok(Ended::Stopped);
                }
            }
            self.turn(wait.min(left))?;
        }
    }

    /// Waits until something is ready, at most so long, and deals with all that is.
    fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let mut unfinished = std::mem::take(&mut self.unfinished);
        let wait = if unfinished.is_empty() { wait } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for number in unfinished.drain(..) {
            self.receive(number, false);
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let ends = event.is_read_closed() || event.is_error();
            match self.opening.contains_key(&event.token().0) {
                true => self.advance(event.token().0),
                false => self.receive(event.token().0, ends),
            }
        }
        self.events = events;
        Ok(())
    }

    /// Begins to connect the next subscriber.
    fn begin(&mut self, now: Instant) {
        let number = self.members.len();
        self.members.push(None);
        let begun = Opening::begin(&self.plan, number, now).and_then(|mut opening| {
            // Both for good: a socket that takes all that is written to it wakes nobody.
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut opening.socket, Token(number), interest)?;
            Ok(opening)
        });
        match begun {
            Ok(opening) => _ = self.opening.insert(number, opening),
            Err(error) => self.opened.failed(error.to_string()),
        }
    }

    /// Goes on with a connection that is not open yet.
    fn advance(&mut self, number: usize) {
        let Some(opening) = self.opening.get_mut(&number) else { return };
        let body = match opening.advance(&self.request, self.plan.protocol) {
            Advance::Waiting => return,
            Advance::Open { body } => body,
            Advance::Failed(reason) => {
                self.opening.remove(&number);
                return self.opened.failed(reason);
            }
        };
        let Some(opening) = self.opening.remove(&number) else { return };
        let took = (clock::now() - opening.started).as_nanos();
        self.opened.time.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
        self.opened.open += 1;
        let reads = number >= self.plan.stalled;
        // The head ends with a line feed, and so might an event before.
        let before: &[u8] = match self.plan.protocol {
            super::Protocol::Sse => b"\n",
            super::Protocol::WebSocket => b"",
        };
        let member = self.members[number].insert(Member::new(opening.socket, reads, before));
        if !reads {
            self.stalled += 1;
            return;
        }
        self.reading += 1;
        match self.receiver.begin(member, &body) {
            Reading::Closed => self.close(number),
            // What has come since wakes nobody.
            _ => self.receive(number, false),
        }
    }

    /// Gives up connections that take too long.
    fn give_up(&mut self, now: Instant) {
        let timeout = self.plan.open_timeout;
        let late = self.opening.extract_if(|_, opening| now - opening.started >= timeout);
        for _ in late {
            self.opened.failed(format!("no answer within {timeout:?}"));
        }
    }

    /// Lets a subscriber read.
    fn receive(&mut self, number: usize, ends: bool) {
        let Some(member) = self.members.get_mut(number).and_then(Option::as_mut) else { return };
        if !member.reads {
            return if ends {
                self.close(number)
            };
        }
        let before = member.order.last();
        let reading = self.receiver.read(member, ends);
        if let Some(goal) = &mut self.goal
            && before < goal.seq
            && member.order.last() >= goal.seq
        {
            goal.behind -= 1;
        }
        match reading {
            Reading::Drained => {}
            Reading::More => self.unfinished.push(number),
            Reading::Closed => self.close(number),
        }
    }

    fn close(&mut self, number: usize) {
        let Some(member) = self.members[number].take() else { return };
        if !member.reads {
            self.stalled -= 1;
            self.receiver.tally.stalled_closed += 1;
            return;
        }
        self.reading -= 1;
        self.receiver.tally.closed += 1;
        if let Some(goal) = &mut self.goal
            && member.order.last() < goal.seq
        {
            goal.behind -= 1;
        }
    }
}
