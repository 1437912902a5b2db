//! One subscriber's socket in a shard.
//!
//! Law: what the socket does not take is kept, to the byte, and the session is asked no
//! further until it has gone: nothing piles up but the lag. Nothing here waits.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    sync::atomic::Ordering,
    time::Instant,
};

use bytes::Bytes;
use mio::net::TcpStream;

use crate::{
    hub::GroupId,
    model::CloseReason,
    telemetry::Limit,
    transport::{Session, Step, Turn},
};

use super::{
    super::{Framing, Offer, conversation::End, framing::Wrapper, socket},
    Config,
    talk::Talk,
};

/// Writes to one connection in a row. Two, so that who has one to write is asked what
/// comes after it.
const WRITES_MAX: usize = 2;

/// What a client may send into a stream that takes nothing: a request or two that it
/// hurried to send ahead. Beyond that nothing is read, and the kernel holds it up.
const DISCARDED_BYTES_MAX: usize = 64 << 10;

/// A socket and its session. `P` is held until the connection ends.
#[derive(Debug)]
pub(super) struct Connection<P> {
    socket: TcpStream,
    session: Session,
    /// Written, but not yet taken by the socket; at first, the head of the answer.
    rest: Bytes,
    /// What goes after it, last piece first: the rest of a large record.
    later: Vec<Bytes>,
    /// When a client that takes none of the rest is given up.
    stalled_at: Option<Instant>,
    framing: Framing,
    stage: Stage,
    talk: Option<Box<Talk>>,
    /// The client of a WebSocket may have said something.
    is_unread: bool,
    discarded_bytes: usize,
    /// Where the shard files it.
    pub(super) filed: Filed,
    _place: P,
}

/// Where a shard has filed a connection.
#[derive(Debug)]
pub(super) struct Filed {
    pub(super) group: GroupId,
    /// Its index among the group's members.
    pub(super) member: usize,
    /// When it is to be looked at again.
    pub(super) due: Instant,
    /// The first tick of the wheel it is filed under.
    pub(super) tick: Option<u64>,
    /// It is in the queue of those that are behind.
    pub(super) is_behind: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The head is to go out with the first bytes of the stream.
    Fresh,
    Open,
    /// Everything is said: the connection ends once the rest has gone.
    Ending,
    /// The client is to answer the closing handshake by then.
    Closing(Instant),
}

/// How serving a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// There is nothing to do until then, unless news come.
    Until(Instant),
    /// The socket is full; the time is when the client is given up.
    Blocked(Instant),
    /// There is more to write, but others should have their turn first.
    Behind,
    /// It is over: drop it.
    Ended,
}

/// What all connections of a shard use.
#[derive(Debug)]
pub(super) struct Tools<'a> {
    pub(super) turn: &'a mut Turn,
    pub(super) wrapper: &'a mut Wrapper,
    pub(super) config: &'a Config,
    pub(super) now: Instant,
}

impl<P> Connection<P> {
    pub(super) fn new(
        socket: TcpStream,
        offer: Offer,
        read_ahead: &[u8],
        place: P,
        config: &Config,
        now: Instant,
    ) -> Connection<P> {
        let Offer { session, framing, head } = offer;
        let talk = (framing == Framing::WebSocket)
            .then(|| Box::new(Talk::new(&config.websocket, read_ahead, now)));
        let group = session.subscription().group();
        Connection {
            socket,
            session,
            rest: Bytes::from(head),
            later: Vec::new(),
            stalled_at: None,
            framing,
            stage: Stage::Fresh,
            is_unread: talk.is_some() && !read_ahead.is_empty(),
            talk,
            discarded_bytes: 0,
            filed: Filed { group, member: 0, due: now, tick: None, is_behind: false },
            _place: place,
        }
    }

    pub(super) fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// True while the socket is full.
    pub(super) fn is_blocked(&self) -> bool {
        !self.rest.is_empty() && self.stage != Stage::Fresh
    }

    /// Writes what there is to write, as far as it goes.
    pub(super) fn serve(&mut self, tools: &mut Tools<'_>) -> Served {
        match self.try_serve(tools) {
            Ok(served) => served,
            // The client has gone, which the session's account says unless told otherwise.
            Err(_) => Served::Ended,
        }
    }

    /// The client has sent something: messages of a WebSocket. On other streams it has
    /// nothing to say, and only its leaving counts.
    pub(super) fn read(&mut self, tools: &mut Tools<'_>) -> Served {
        if self.talk.is_some() {
            self.is_unread = true;
            return self.serve(tools);
        }
        match self.discard() {
            Ok(()) => self.waits(tools),
            Err(_) => Served::Ended,
        }
    }

    /// The client sends no more, and what it sent before is not read to the end.
    pub(super) fn has_hung_up(&self) -> bool {
        self.talk.is_none() && self.discarded_bytes > DISCARDED_BYTES_MAX
    }

    /// While the socket is full, when the client is given up for it.
    pub(super) fn blocked_until(&self) -> Option<Instant> {
        self.stalled_at.filter(|_| self.is_blocked())
    }

    /// The client has taken nothing for too long, or the memory is short for one that does not.
    pub(super) fn give_up(&mut self, limit: Limit) {
        socket::forsake(&self.socket);
        let ledger = self.session.account().ledger();
        if !self.session.account().peer().is_stalled.swap(true, Ordering::Relaxed) {
            ledger.telemetry.limit_reached(limit);
        }
    }

    fn try_serve(&mut self, tools: &mut Tools<'_>) -> io::Result<Served> {
        if self.is_blocked() && !self.send_rest(tools)? {
            return Ok(self.blocked(tools));
        }
        if self.stage == Stage::Fresh {
            self.begin(tools)?;
        }
        self.hear(tools)?;
        let mut writes = 0;
        while self.stage == Stage::Open && !self.is_blocked() {
            if writes == WRITES_MAX {
                return Ok(Served::Behind);
            }
            match self.session.step(tools.now, tools.turn) {
                Step::Write(write) => {
                    let wrapped = tools.wrapper.wrap(write.bytes, self.framing);
                    self.later = wrapped.later;
                    self.send(wrapped.first, tools)?;
                    writes += 1;
                }
                Step::Yield => return Ok(Served::Behind),
                Step::Wait { .. } if self.is_unread => return Ok(Served::Behind),
                Step::Wait { until } => return self.wait(until, tools),
                Step::End(reason) => self.end(&End::because(reason), tools)?,
            }
        }
        Ok(self.waits(tools))
    }

    /// Sends the head, in one write with the first bytes of the stream.
    fn begin(&mut self, tools: &mut Tools<'_>) -> io::Result<()> {
        self.stage = Stage::Open;
        let mut first = std::mem::take(&mut self.rest);
        if let Step::Write(write) = self.session.step(tools.now, tools.turn) {
            let wrapped = tools.wrapper.wrap(write.bytes, self.framing);
            first = [first.as_ref(), wrapped.first.as_ref()].concat().into();
            self.later = wrapped.later;
        }
        self.send(first, tools)
    }

    /// Between writes: is the client of a WebSocket still there?
    fn wait(&mut self, until: Instant, tools: &mut Tools<'_>) -> io::Result<Served> {
        let Some(talk) = &mut self.talk else { return Ok(Served::Until(until)) };
        match talk.keep_up(&tools.config.websocket, tools.now) {
            Ok((bytes, next)) => {
                self.send(bytes, tools)?;
                if self.is_blocked() {
                    return Ok(self.blocked(tools));
                }
                Ok(Served::Until(until.min(next)))
            }
            Err(end) => {
                self.end(&end, tools)?;
                Ok(self.waits(tools))
            }
        }
    }

    /// What it waits for when it is not asked for more.
    fn waits(&mut self, tools: &Tools<'_>) -> Served {
        match self.stage {
            _ if self.is_blocked() => self.blocked(tools),
            Stage::Fresh => Served::Behind,
            Stage::Open if self.is_unread => Served::Behind,
            Stage::Open => Served::Until(self.filed.due),
            Stage::Ending => {
                // With something unread, closing would reset the connection, and what is
                // on its way would be lost.
                let _ = self.discard();
                let _ = self.socket.shutdown(Shutdown::Write);
                Served::Ended
            }
            Stage::Closing(until) if tools.now >= until => Served::Ended,
            Stage::Closing(_) if self.is_unread => Served::Behind,
            Stage::Closing(until) => {
                if self.talk.as_ref().is_some_and(|talk| talk.is_broken()) {
                    // All that is left to wait for is that the client closes too, and not
                    // with something unread: that would reset the connection.
                    let _ = self.socket.shutdown(Shutdown::Write);
                }
                Served::Until(until)
            }
        }
    }

    /// Hears the client of a WebSocket, unless its answers would have to wait.
    fn hear(&mut self, tools: &mut Tools<'_>) -> io::Result<()> {
        while self.is_unread
            && !self.is_blocked()
            && !self.session.owes_hello()
            && self.stage != Stage::Ending
        {
            let Connection { talk, socket, session, stage, .. } = self;
            let Some(talk) = talk else { break };
            let is_closing = *stage != Stage::Open;
            let websocket = &tools.config.websocket;
            let heard = talk.hear(socket, websocket, tools.now, is_closing);
            let refiltered = heard.new_filter.map(|filter| session.refilter(&filter));
            self.is_unread = heard.more;
            self.send(heard.answers, tools)?;
            let denied = refiltered.and_then(Result::err).map(|_| End::denied());
            match heard.end.or(denied) {
                None => break,
                // What is still unread may be the answer to the closing handshake.
                Some(end) if !is_closing => {
                    self.is_unread = true;
                    self.end(&end, tools)?;
                }
                // The handshake is answered, or never will be.
                Some(_) => self.stage = Stage::Ending,
            }
        }
        Ok(())
    }

    /// Says the end of the stream.
    fn end(&mut self, end: &End, tools: &Tools<'_>) -> io::Result<()> {
        self.session.close(end.reason);
        let Some(talk) = &mut self.talk else {
            self.stage = Stage::Ending;
            return self.send(Bytes::from_static(self.framing.end()), tools);
        };
        if end.reason == CloseReason::Gone {
            // One that closed in good order has been sent the answer.
            self.stage = Stage::Ending;
            return Ok(());
        }
        self.stage = Stage::Closing(tools.now + tools.config.websocket.close_timeout);
        let bytes = talk.close(end);
        self.send(bytes, tools)
    }

    /// Writes `bytes`, or what the socket takes of them; the rest is kept.
    fn send(&mut self, bytes: Bytes, tools: &Tools<'_>) -> io::Result<()> {
        if self.is_blocked() {
            // Only answers and goodbyes come here, which are small.
            match self.later.is_empty() {
                true => self.rest = [self.rest.as_ref(), bytes.as_ref()].concat().into(),
                false => self.later.insert(0, bytes),
            }
            return Ok(());
        }
        self.rest = bytes;
        self.send_rest(tools).map(|_| ())
    }

    /// True once all of it has gone.
    fn send_rest(&mut self, tools: &Tools<'_>) -> io::Result<bool> {
        let (mut taken, mut has_moved) = (0, false);
        let is_all = loop {
            if taken == self.rest.len() {
                let Some(next) = self.later.pop() else { break true };
                (self.rest, taken) = (next, 0);
                has_moved = true;
            }
            match self.socket.write(&self.rest[taken..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => taken += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if is_all {
            self.rest = Bytes::new();
            self.stalled_at = None;
        } else {
            self.rest = self.rest.split_off(taken);
            if has_moved || taken > 0 || self.stalled_at.is_none() {
                self.stalled_at = Some(tools.now + tools.config.write_stall);
            }
        }
        Ok(is_all)
    }

    fn blocked(&self, tools: &Tools<'_>) -> Served {
        Served::Blocked(self.stalled_at.unwrap_or(tools.now + tools.config.write_stall))
    }

    /// Takes what the client sends ahead, up to a bound, to hear of its leaving.
    fn discard(&mut self) -> io::Result<()> {
        let mut scratch = [0; 4096];
        while self.discarded_bytes <= DISCARDED_BYTES_MAX {
            match self.socket.read(&mut scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => self.discarded_bytes += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
