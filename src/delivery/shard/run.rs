//! The loop of a shard.
//!
//! Law: a round does everything that is ready, and then waits for all of it at once. The
//! live come first, those that are behind get a bounded slice of each round.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, event::Event, net::TcpStream};
use slab::Slab;

use crate::{
    hub::{Doorbell, GroupId, News},
    telemetry::Limit,
    transport::{Ledger, Turn},
};

use super::{
    super::framing::Wrapper,
    Arrival, Config, Inbox, WAKER,
    connection::{Connection, Served, Tools},
    wheel::Wheel,
};

/// Length of the wheel's ticks: keep-alives and goodbyes need no better.
const TICK: Duration = Duration::from_millis(10);
/// Sockets whose readiness is taken at once.
const EVENTS_MAX: usize = 1024;
/// Connections taken in each round; each costs a call of the kernel.
const ARRIVALS_MAX: usize = 256;
/// Turns given in each round to those that are behind: about 1 ms of writing, by which
/// they can delay a live event.
const BEHIND_MAX: usize = 64;

/// A running shard.
pub(super) struct Run<'a, P> {
    poll: &'a mut Poll,
    inbox: &'a Inbox<P>,
    doorbell: &'a Doorbell,
    config: &'a Config,
    connections: Slab<Box<Connection<P>>>,
    /// The connections of each group, by the group's index.
    members: Vec<Vec<u32>>,
    /// Those with more to write than their turn allowed, each once.
    behind: VecDeque<u32>,
    wheel: Wheel,
    /// Tick 0.
    origin: Instant,
    now: Instant,
    turn: Turn,
    wrapper: Wrapper,
}

impl<'a, P> Run<'a, P> {
    pub(super) fn new(
        poll: &'a mut Poll,
        inbox: &'a Inbox<P>,
        doorbell: &'a Doorbell,
        config: &'a Config,
        ledger: &Arc<Ledger>,
    ) -> Run<'a, P> {
        let now = now();
        Run {
            poll,
            inbox,
            doorbell,
            config,
            connections: Slab::new(),
            members: Vec::new(),
            behind: VecDeque::new(),
            wheel: Wheel::new(),
            origin: now,
            now,
            turn: Turn::new(ledger.clone()),
            wrapper: Wrapper::default(),
        }
    }

    /// Runs until the shards are stopped.
    pub(super) fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut news = News::default();
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                // Nothing is known of the sockets then; they are asked again.
                assert_eq!(error.kind(), io::ErrorKind::Interrupted, "the readiness loop: {error}");
            }
            if self.inbox.is_stopped.load(Ordering::Acquire) {
                return;
            }
            self.now = now();
            self.admit();
            self.doorbell.take(&mut news);
            self.deliver(&news);
            // Before the rest of the round is counted into how long it took.
            self.turn.finish();
            for event in &events {
                self.ready(event);
            }
            self.tick();
            self.relieve();
            self.catch_up();
            self.turn.finish();
            self.wrapper.clear();
        }
    }

    /// How long to wait for something to happen.
    fn timeout(&self) -> Option<Duration> {
        if !self.behind.is_empty() || !self.inbox.arrivals().is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.origin + span(self.wheel.next()?);
        Some(due.saturating_duration_since(now()))
    }

    /// Takes connections in. Their first bytes go out with those that are behind.
    fn admit(&mut self) {
        let arrivals: Vec<Arrival<P>> = {
            let mut waiting = self.inbox.arrivals();
            let count = waiting.len().min(ARRIVALS_MAX);
            waiting.drain(..count).collect()
        };
        for Arrival { socket, mut offer, read_ahead, place } in arrivals {
            let key = u32::try_from(self.connections.vacant_key());
            let key = key.expect("fewer connections than a process may have files");
            let mut socket = TcpStream::from_std(socket);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) =
                self.poll.registry().register(&mut socket, Token(key as usize), interest)
            {
                tracing::error!(%error, "cannot watch a connection: it is closed");
                self.inbox.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            // News from here on ring; what came before is found when it is first served.
            self.doorbell.attach(offer.session.subscription_mut());
            let connection =
                Connection::new(socket, offer, &read_ahead, place, self.config, self.now);
            self.connections.insert(Box::new(connection));
            self.join(key);
            self.queue(key);
        }
    }

    /// Serves everyone who waits for what is new.
    fn deliver(&mut self, news: &News) {
        if news.all {
            for index in 0..self.members.len() {
                self.deliver_to(index);
            }
        }
        for group in &news.groups {
            self.deliver_to(group.index());
        }
    }

    fn deliver_to(&mut self, index: usize) {
        let count = self.members.get(index).map_or(0, Vec::len);
        // From the end: who leaves is replaced by one that has been served.
        for member in (0..count).rev() {
            let Some(&key) = self.members[index].get(member) else { continue };
            let connection = &self.connections[key as usize];
            // Those come to it by themselves.
            if !connection.is_blocked() && !connection.filed.is_behind {
                self.serve(key);
            }
        }
    }

    /// A socket can take or give bytes.
    fn ready(&mut self, event: &Event) {
        if event.token() == WAKER {
            return;
        }
        let Ok(key) = u32::try_from(event.token().0) else { return };
        let Some(connection) = self.connections.get(key as usize) else { return };
        if connection.is_blocked() && (event.is_writable() || event.is_error()) {
            self.serve(key);
        }
        if event.is_readable() || event.is_error() {
            self.read(key);
        }
        // Told once: that which came with it may have been too much only now.
        let connection = self.connections.get(key as usize);
        if event.is_read_closed() && connection.is_some_and(|it| it.has_hung_up()) {
            self.remove(key);
        }
    }

    /// Looks at whom it is time for.
    fn tick(&mut self) {
        let now_tick = self.ticks(self.now);
        let mut due = Vec::new();
        let Run { wheel, connections, now, origin, .. } = self;
        wheel.turn(now_tick, |wheel, key, tick| {
            let Some(connection) = connections.get_mut(key as usize) else { return };
            // Filed more than once, or under a key that was another's: only the first
            // tick counts.
            if connection.filed.tick != Some(tick) {
                return;
            }
            connection.filed.tick = None;
            if connection.filed.due <= *now {
                due.push(key);
            } else {
                let tick = ticks(connection.filed.due, *origin) + 1;
                connection.filed.tick = Some(wheel.file(key, tick));
            }
        });
        for key in due {
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            if connection.is_blocked() {
                connection.give_up(Limit::WriteStall);
                self.remove(key);
            } else {
                self.serve(key);
            }
        }
    }

    /// Ends as many as are asked for of those whose socket is full: the memory is short, and what
    /// they hold is of use to nobody. Those first that have taken nothing for longest.
    fn relieve(&mut self) {
        // Looked at before it is taken: in most rounds it is nothing.
        if self.inbox.surplus.load(Ordering::Relaxed) == 0 {
            return;
        }
        let surplus = self.inbox.surplus.swap(0, Ordering::Relaxed);
        let mut blocked: Vec<(Instant, u32)> = self
            .connections
            .iter()
            .filter_map(|(key, connection)| {
                Some((connection.blocked_until()?, u32::try_from(key).ok()?))
            })
            .collect();
        blocked.sort_unstable();
        for (_, key) in blocked.into_iter().take(surplus) {
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            connection.give_up(Limit::Memory);
            self.remove(key);
        }
    }

    /// Gives those that are behind their turn, in order.
    fn catch_up(&mut self) {
        for _ in 0..self.behind.len().min(BEHIND_MAX) {
            let Some(key) = self.behind.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            if std::mem::take(&mut connection.filed.is_behind) && !connection.is_blocked() {
                self.serve(key);
            }
        }
    }

    fn serve(&mut self, key: u32) {
        self.with(key, Connection::serve);
    }

    fn read(&mut self, key: u32) {
        self.with(key, Connection::read);
    }

    /// Lets a connection work, and files it by what it then waits for.
    fn with(&mut self, key: u32, work: impl Fn(&mut Connection<P>, &mut Tools<'_>) -> Served) {
        let Run { connections, turn, wrapper, config, now, .. } = self;
        let Some(connection) = connections.get_mut(key as usize) else { return };
        let mut tools = Tools { turn, wrapper, config, now: *now };
        let was_blocked = connection.is_blocked();
        let served = work(connection, &mut tools);
        match (was_blocked, connection.is_blocked()) {
            (false, true) => self.inbox.blocked.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.inbox.blocked.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        if connection.filed.group != connection.session().subscription().group() {
            self.rejoin(key);
        }
        match served {
            Served::Until(due) | Served::Blocked(due) => self.file(key, due),
            Served::Behind => self.queue(key),
            Served::Ended => self.remove(key),
        }
    }

    /// Files a connection to be looked at when `due`. One that is filed earlier stays
    /// there: most of the time it is put off again before that.
    fn file(&mut self, key: u32, due: Instant) {
        let tick = self.ticks(due) + 1;
        let filed = &mut self.connections[key as usize].filed;
        filed.due = due;
        if filed.tick.is_none_or(|filed| tick < filed) {
            filed.tick = Some(self.wheel.file(key, tick));
        }
    }

    fn queue(&mut self, key: u32) {
        let filed = &mut self.connections[key as usize].filed;
        if !std::mem::replace(&mut filed.is_behind, true) {
            self.behind.push_back(key);
        }
    }

    /// Files a connection with its group.
    fn join(&mut self, key: u32) {
        let connection = &mut self.connections[key as usize];
        let group = connection.session().subscription().group();
        if self.members.len() <= group.index() {
            self.members.resize_with(group.index() + 1, Vec::new);
        }
        let members = &mut self.members[group.index()];
        connection.filed.group = group;
        connection.filed.member = members.len();
        members.push(key);
    }

    /// Takes a connection out of the group it is filed with.
    fn leave(&mut self, key: u32) {
        let (group, member) = {
            let filed = &self.connections[key as usize].filed;
            (filed.group, filed.member)
        };
        let members = &mut self.members[group.index()];
        members.swap_remove(member);
        if let Some(moved) = members.get(member) {
            self.connections[*moved as usize].filed.member = member;
        }
        if members.is_empty() {
            *members = Vec::new();
            self.emptied(group);
        }
    }

    /// The session has changed its filter, and so its group.
    fn rejoin(&mut self, key: u32) {
        self.leave(key);
        self.join(key);
    }

    /// The last connection of a group has left it.
    fn emptied(&mut self, group: GroupId) {
        self.doorbell.forget(group);
        // Its number may be another's at once, and its news do not ring any more: what was
        // prepared for it in this turn is forgotten.
        self.turn.finish();
    }

    fn remove(&mut self, key: u32) {
        self.leave(key);
        let mut connection = self.connections.remove(key as usize);
        // Closing would do it as well; said so that the order is no matter.
        let _ = self.poll.registry().deregister(connection.socket_mut());
        if connection.is_blocked() {
            self.inbox.blocked.fetch_sub(1, Ordering::Relaxed);
        }
        drop(connection);
        self.inbox.connections.fetch_sub(1, Ordering::Relaxed);
    }

    fn ticks(&self, at: Instant) -> u64 {
        ticks(at, self.origin)
    }
}

/// The length of so many ticks. In 64 bits: 32 would be full after 497 days, and then no
/// wait would be left.
fn span(ticks: u64) -> Duration {
    let tick_ms = u64::try_from(TICK.as_millis()).expect("a tick is a few milliseconds");
    Duration::from_millis(ticks.saturating_mul(tick_ms))
}

/// Whole ticks from `origin` to `at`.
fn ticks(at: Instant, origin: Instant) -> u64 {
    let millis = at.saturating_duration_since(origin).as_millis();
    u64::try_from(millis / TICK.as_millis()).unwrap_or(u64::MAX - 1)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
