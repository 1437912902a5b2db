//! The loop of a crowd: who is ready goes on, connecting or receiving.
//!
//! Law: a socket that is told ready is dealt with until it has no more, or stands in
//! `unfinished`: it is not told again.

use std::{
    io,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Token};

use super::{Crowd, Ended, TICK, Tick};
use crate::load::{
    clock,
    member::Member,
    opening::{Advance, Opening},
    receive::Reading,
};

impl Crowd {
    /// Turns until `step` breaks (done), the time is up, or `tick` breaks. `step` says how
    /// long a turn may wait.
    pub(super) fn turn_until(
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
        let is_patient = unfinished.is_empty() && !self.plan.never_sleeps;
        let wait = if is_patient { wait } else { Duration::ZERO };
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
    pub(super) fn begin(&mut self, now: Instant) {
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
        let (framing, body) = match opening.advance(&self.request, self.plan.protocol) {
            Advance::Waiting => return,
            Advance::Open { framing, body } => (framing, body),
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
        let member = self.members[number].insert(Member::new(opening.socket, reads, framing));
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
    pub(super) fn give_up(&mut self, now: Instant) {
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
