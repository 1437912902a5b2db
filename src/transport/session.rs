//! A subscriber on a stream: a state machine that says what to write next.
//!
//! Law: pure but for its subscription. The time is an argument; the answer is
//! *write these bytes*, *nothing until then*, or *end*. The same session serves SSE,
//! NDJSON and WebSocket, under any driver.
//!
//! ```text
//!   hello ─▶ gap? ─▶ snapshot? ─▶ records ⟲ ─▶ bye ─▶ end
//!                                 │ └ gap, keep-alive, checkpoint in between
//!                                 ├ closing or age: bye is due at a random time
//!                                 └ its principal is revoked or over: bye at once
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    access::{Denied, Principal},
    hub::{Budget, Examined, Subscription},
    model::{
        CloseReason, Filter, Format, Gap, Position, Seq,
        frame::{control_json, control_sse},
        json::Object,
        record::Kind,
    },
};

use super::{
    Account, Batch, Config, Turn, Write, particle,
    request::Request,
    sse,
    turn::{Place, Prepared},
};

/// Records looked at in one step. It bounds how long one reader may hold the hub's
/// lock: about 0.1 ms.
const EXAMINED_MAX: usize = 1024;

/// Reconnection time told when the broker shuts down: spread so that the clients of
/// a restarted broker do not return together.
const BYE_RETRY_MS: std::ops::RangeInclusive<u64> = 1_000..=30_000;

/// How long past its time a goodbye waits for events that are still coming.
const BYE_PATIENCE: Duration = Duration::from_secs(1);

/// The least there is: the first event that passes uses it up.
const ONE_EVENT_BYTES: usize = 1;

/// The part of the shutdown window in which goodbyes are said; the rest is left for
/// the last writes to arrive.
const STAGGER_PART: f64 = 0.8;

/// How the stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// `text/event-stream`, in [`Format::Message`] or [`Format::Particle`].
    Sse(Format),
    /// One JSON object a line.
    Ndjson,
    /// One JSON object a text frame. Writes are lines as in NDJSON, for the driver to part.
    WebSocket,
    /// `text/event-stream` as the Particle cloud writes it, one event a write. Control
    /// events have no place there.
    Particle {
        /// With `id:` lines, for clients that hand them back.
        ids: bool,
    },
}

/// What a driver is to do.
#[derive(Debug)]
pub enum Step {
    /// Write this, then ask again.
    Write(Write),
    /// Nothing to write until then, or until the subscription is woken.
    Wait {
        /// When to ask again at the latest.
        until: Instant,
    },
    /// There is more to look at, but others should have their turn first.
    Yield,
    /// Everything is written: end the stream.
    End(CloseReason),
}

/// A subscriber on a stream.
#[derive(Debug)]
pub struct Session {
    subscription: Subscription,
    account: Account,
    config: Arc<Config>,
    wire: Wire,
    control: bool,
    events_left: Option<u64>,
    /// A large record that goes out next, by itself.
    held: Option<Box<Write>>,
    phase: Phase,
    gap: Option<Box<Gap>>,
    snapshot: bool,
    /// Records from here on were appended while the subscriber was connected.
    live_from: Seq,
    /// The last position the client knows, and since when.
    told: Seq,
    told_at: Instant,
    /// Silence after which the next keep-alive is due; drawn anew for each.
    keepalive_after: Duration,
    keepalive_at: Instant,
    bye_at: Option<(Instant, CloseReason)>,
    /// Nothing more goes out once the goodbye is due: it is the end of what the principal may.
    bye_is_strict: bool,
    random: fastrand::Rng,
    principal: Arc<Principal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Hello,
    /// The head is out, and the first event is held for a moment.
    Opened,
    Gap,
    Snapshot,
    Records,
    Ended(CloseReason),
}

// === impl Session ===

impl Session {
    /// A session on a fresh subscription, with what the subscriber missed before it. It is
    /// served under `principal`, which has narrowed its filter. Its jitter comes from `fastrand`'s generator of the thread, which tests may seed.
    pub fn new(
        (mut subscription, gap): (Subscription, Option<Gap>),
        account: Account,
        config: Arc<Config>,
        wire: Wire,
        request: &Request,
        principal: Arc<Principal>,
        now: Instant,
    ) -> Session {
        let mut random = fastrand::Rng::new();
        let snapshot_from = request.snapshot_from(gap.as_ref());
        if let Some(from) = snapshot_from {
            subscription.request_snapshot(from);
        }
        let position = subscription.position();
        let bye_at = config.age_max.map(|age| {
            // A fifth either way, so that streams opened together do not end together.
            (now + age.mul_f64(0.8 + 0.4 * random.f64()), CloseReason::Expired)
        });
        let ends_at = principal
            .time_left(account.ledger().clock.now().wall_ms)
            .and_then(|left| now.checked_add(left))
            .map(|at| (at, CloseReason::Expired));
        let bye_is_strict = match (ends_at, bye_at) {
            (Some((ends, _)), Some((bye, _))) => ends <= bye,
            (ends_at, _) => ends_at.is_some(),
        };
        let bye_at = if bye_is_strict { ends_at } else { bye_at };
        let mut session = Session {
            live_from: subscription.tail(),
            subscription,
            account,
            wire,
            control: request.control,
            events_left: request.limit,
            held: None,
            phase: Phase::Hello,
            gap: gap.map(Box::new),
            snapshot: snapshot_from.is_some(),
            told: position.seq,
            told_at: now,
            keepalive_after: Duration::ZERO,
            keepalive_at: now,
            bye_at,
            bye_is_strict,
            random,
            config,
            principal,
        };
        session.draw_keepalive(now);
        session
    }

    /// What to do now. `turn` is shared by all that the driver steps in one go.
    pub fn step(&mut self, now: Instant, turn: &mut Turn) -> Step {
        self.notice_closing(now);
        if let Some(reason) = self.has_ended(now) {
            return self.bye(reason, now, turn);
        }
        if let Some(write) = self.held.take() {
            return self.wrote(*write, None, now, turn);
        }
        match self.phase {
            Phase::Hello => match self.wire {
                Wire::Sse(_) | Wire::Ndjson | Wire::WebSocket => {
                    self.phase = Phase::Gap;
                    let hello = self.hello();
                    self.write_control(hello, now, turn)
                }
                Wire::Particle { .. } => {
                    self.phase = Phase::Opened;
                    self.told_at = now;
                    self.write_plain(particle::OPENING, now, turn)
                }
            },
            Phase::Opened => {
                let until = self.told_at + particle::FIRST_EVENT_HOLD;
                if now < until {
                    return Step::Wait { until };
                }
                self.phase = Phase::Gap;
                self.step(now, turn)
            }
            Phase::Gap => {
                self.phase = Phase::Snapshot;
                match self.gap.take() {
                    Some(gap) => self.tell_gap(&gap, now, turn),
                    None => self.step(now, turn),
                }
            }
            Phase::Snapshot => self.step_snapshot(now, turn),
            Phase::Records => self.step_records(now, turn),
            Phase::Ended(reason) => Step::End(reason),
        }
    }

    /// Replaces the filter, with what of it may be read; the stream goes on from where it is,
    /// with a hello that says what was understood.
    ///
    /// # Errors
    /// If nothing of it may be read. Nothing has changed then.
    pub fn refilter(&mut self, filter: &Filter) -> Result<(), Denied> {
        self.subscription.refilter(self.principal.narrow(filter)?);
        match self.phase {
            Phase::Ended(_) => return Ok(()),
            // A gap that is still to be told stays to be told, after the hello.
            Phase::Hello | Phase::Opened | Phase::Gap => {}
            // What came before the records has been asked for under the old filter.
            Phase::Snapshot | Phase::Records => self.snapshot = false,
        }
        self.phase = Phase::Hello;
        Ok(())
    }

    /// A turn for a driver that steps this session alone.
    pub fn turn(&self) -> Turn {
        Turn::new(self.account.ledger().clone())
    }

    /// The subscription, to wait on.
    pub fn subscription_mut(&mut self) -> &mut Subscription {
        &mut self.subscription
    }

    /// The subscription.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// True while the hello that confirms a new filter is still to be written.
    pub fn owes_hello(&self) -> bool {
        self.phase == Phase::Hello
    }

    /// The subscriber's totals, and where they are kept.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The driver ends the connection for a reason of its own.
    pub fn close(&mut self, reason: CloseReason) {
        self.account.close(reason);
        self.phase = Phase::Ended(reason);
    }

    fn step_snapshot(&mut self, now: Instant, turn: &mut Turn) -> Step {
        self.phase = Phase::Records;
        // After the last event asked for comes nothing, above all no position beyond it.
        if !self.snapshot || self.events_left == Some(0) {
            return self.step(now, turn);
        }
        let budget = self.budget();
        let mut batch = Batch::new(budget.bytes);
        let Session { subscription, wire, events_left, .. } = self;
        let more = subscription
            .examine_snapshot(budget, |record| batch.take(record, *wire, events_left, false));
        if more {
            self.phase = Phase::Snapshot;
        }
        self.held = batch.large.take().map(Box::new);
        match batch.finish() {
            Some(write) => {
                self.phase = Phase::Snapshot;
                self.wrote(write, None, now, turn)
            }
            None if more => Step::Yield,
            None => {
                self.snapshot = false;
                // The ids of old values have taken the client back: tell it where it is.
                let position = self.subscription.position();
                if self.control {
                    self.tell_checkpoint(position, now, turn)
                } else {
                    self.step(now, turn)
                }
            }
        }
    }

    fn step_records(&mut self, now: Instant, turn: &mut Turn) -> Step {
        if self.events_left == Some(0) {
            return self.end(CloseReason::Limit);
        }
        // What is there goes out before the goodbye, unless that takes too long.
        let bye = self.bye_at.filter(|(due, _)| now >= *due);
        if let Some((due, reason)) = bye
            && now >= due + BYE_PATIENCE
        {
            return self.bye(reason, now, turn);
        }
        let Prepared { write, large, last, examined, .. } = self.examine(turn);
        self.held = large.map(Box::new);
        match (write, examined) {
            (Some(write), Examined::Gap(gap)) => {
                // Told next, in its place.
                self.gap = Some(Box::new(gap));
                self.phase = Phase::Gap;
                self.wrote(write, last, now, turn)
            }
            (Some(write), Examined::All | Examined::More) => self.wrote(write, last, now, turn),
            (None, Examined::Gap(gap)) => self.tell_gap(&gap, now, turn),
            (None, Examined::More) => self.checkpoint(now, turn).unwrap_or(Step::Yield),
            (None, Examined::All) => {
                if let Some((_, reason)) = bye {
                    return self.bye(reason, now, turn);
                }
                if let Some(step) = self.checkpoint(now, turn) {
                    return step;
                }
                if now >= self.keepalive_at {
                    return self.keepalive(now, turn);
                }
                Step::Wait { until: self.next_deadline() }
            }
        }
    }

    /// Examines from the cursor on, or goes where another session has gone from the same
    /// place in the same turn.
    fn examine(&mut self, turn: &mut Turn) -> Prepared {
        let cursor = self.subscription.cursor();
        let is_live = cursor >= self.live_from;
        let place = Place {
            group: self.subscription.group(),
            cursor,
            wire: self.wire,
            control: self.control,
            is_live,
        };
        // Who counts its events may have to stop earlier than others.
        let is_shared = self.events_left.is_none();
        if is_shared && let Some(prepared) = turn.prepared(&place) {
            self.subscription.advance(prepared.cursor);
            return prepared;
        }
        let budget = self.budget();
        let mut batch = Batch::new(budget.bytes);
        let Session { subscription, wire, events_left, control, .. } = self;
        let examined = subscription.examine(budget, |record| match record.kind() {
            Kind::Control if !*control => 0,
            Kind::Control | Kind::Event => batch.take(record, *wire, events_left, is_live),
        });
        let (last, large) = (batch.last, batch.large.take());
        let cursor = self.subscription.cursor();
        // Joined bytes are no one else's; one record's are the ring's.
        let is_own = batch.is_joined();
        let write = batch.finish();
        let prepared = Prepared { write, large, last, cursor, examined, is_own };
        if is_shared && !matches!(prepared.examined, Examined::Gap(_)) {
            turn.prepare(place, prepared.clone());
        }
        prepared
    }

    fn next_deadline(&self) -> Instant {
        let bye_at = self.bye_at.map_or(self.keepalive_at, |(due, _)| due);
        self.keepalive_at.min(bye_at)
    }

    fn budget(&self) -> Budget {
        let bytes = match self.wire {
            Wire::Sse(_) | Wire::Ndjson | Wire::WebSocket => self.config.batch_bytes_max,
            // Some of its clients keep one event of each chunk, or of each read.
            Wire::Particle { .. } => ONE_EVENT_BYTES,
        };
        Budget { records: EXAMINED_MAX, bytes }
    }

    /// A broker that shuts down says goodbye to each at its own time.
    fn notice_closing(&mut self, now: Instant) {
        if matches!(self.bye_at, Some((_, CloseReason::Shutdown))) {
            return;
        }
        if let Some(closing) = self.subscription.closing() {
            let delay = closing.window.mul_f64(STAGGER_PART * self.random.f64());
            let due = now + delay;
            if self.bye_at.is_none_or(|(expires, _)| due < expires) {
                self.bye_at = Some((due, CloseReason::Shutdown));
                self.bye_is_strict = false;
            }
        }
    }

    /// Why nothing more may go out but the goodbye, if so.
    fn has_ended(&self, now: Instant) -> Option<CloseReason> {
        if matches!(self.phase, Phase::Ended(_)) {
            return None;
        }
        if self.principal.is_revoked() {
            return Some(CloseReason::Revoked);
        }
        let (due, reason) = self.bye_at.filter(|_| self.bye_is_strict)?;
        (now >= due).then_some(reason)
    }

    // --- control events ---

    fn hello(&mut self) -> String {
        let position = self.beginning(self.gap.as_deref());
        let upstream = self.subscription.upstream_state();
        let filter = self.subscription.filter();
        let filter = Object::new()
            .texts("prefix", filter.prefixes())
            .texts("name", filter.names())
            .texts("device", filter.devices())
            .finish();
        let retry_ms = self.retry_ms();
        self.render("hello", Some(position), Some(retry_ms), |object| {
            object
                .text("version", env!("CARGO_PKG_VERSION"))
                .text("upstream", upstream.as_str())
                .raw("filter", &filter)
        })
    }

    /// A position that brings a client which is cut off before the first record back to
    /// the same beginning: the one it came with, so that it is told of its gap again; or,
    /// with a snapshot yet to come, the one before its first value.
    fn beginning(&self, gap: Option<&Gap>) -> Position {
        let epoch = self.subscription.epoch();
        match gap {
            Some(gap) => {
                let came_with = gap.requested.as_deref().and_then(|text| text.parse().ok());
                came_with.unwrap_or(Position { epoch, seq: gap.from.previous() })
            }
            None if self.snapshot => self
                .subscription
                .snapshot_position()
                .unwrap_or_else(|| self.subscription.position()),
            None => self.subscription.position(),
        }
    }

    fn tell_gap(&mut self, gap: &Gap, now: Instant, turn: &mut Turn) -> Step {
        self.account.gap(gap);
        let id = gap.id(self.subscription.epoch());
        self.told = id.seq;
        if !self.control {
            return self.step(now, turn);
        }
        let id = if self.snapshot { self.beginning(Some(gap)) } else { id };
        let text = self.render("gap", Some(id), None, |object| gap.fields(object));
        self.write_control(text, now, turn)
    }

    /// A client with a narrow filter learns how far it is, so that on return it is
    /// not told that it missed what did not concern it.
    fn checkpoint(&mut self, now: Instant, turn: &mut Turn) -> Option<Step> {
        let position = self.subscription.position();
        let ahead = position.seq.distance_from(self.told);
        if !self.control || ahead == 0 {
            // The usual case, and the next line takes the hub's lock.
            return None;
        }
        let is_due = ahead >= self.subscription.checkpoint_events()
            || now.duration_since(self.told_at) >= self.config.checkpoint_after;
        is_due.then(|| self.tell_checkpoint(position, now, turn))
    }

    fn tell_checkpoint(&mut self, position: Position, now: Instant, turn: &mut Turn) -> Step {
        self.told = position.seq;
        let text = match self.wire {
            Wire::Sse(_) | Wire::Particle { .. } => {
                control_sse("checkpoint", Some(&position.to_string()), None, "{}")
            }
            Wire::Ndjson | Wire::WebSocket => {
                self.render("checkpoint", Some(position), None, |object| object)
            }
        };
        self.write_control(text, now, turn)
    }

    fn bye(&mut self, reason: CloseReason, now: Instant, turn: &mut Turn) -> Step {
        let retry_ms = match reason {
            CloseReason::Shutdown => self.random.u64(BYE_RETRY_MS),
            _ => self.retry_ms(),
        };
        // With something untold the client's own last position is the right one to return with.
        let is_all_told = self.held.is_none() && self.gap.is_none() && !self.snapshot;
        let position = is_all_told.then(|| self.subscription.position());
        let text = self.render("bye", position, Some(retry_ms), |object| {
            object.text("reason", reason.told()).number("retry_ms", retry_ms)
        });
        self.account.close(reason);
        self.phase = Phase::Ended(reason);
        self.held = None;
        self.write_control(text, now, turn)
    }

    fn keepalive(&mut self, now: Instant, turn: &mut Turn) -> Step {
        self.draw_keepalive(now);
        let bytes: &[u8] = match self.wire {
            Wire::Sse(_) => sse::KEEPALIVE,
            // Readers of NDJSON skip blank lines; WebSocket has pings of its own.
            Wire::Ndjson => b"\n",
            Wire::WebSocket => return Step::Wait { until: self.next_deadline() },
            Wire::Particle { ids: false } => particle::KEEPALIVE,
            // After an id, some clients take a blank line for an event.
            Wire::Particle { ids: true } => sse::KEEPALIVE,
        };
        self.write_plain(bytes, now, turn)
    }

    /// One control event for this wire. SSE has `id:` and `retry:` lines, and the id
    /// in the data of hello, where scripts look for it.
    fn render(
        &self,
        name: &str,
        id: Option<Position>,
        retry_ms: Option<u64>,
        fields: impl FnOnce(Object) -> Object,
    ) -> String {
        let id = id.map(|id| id.to_string());
        match self.wire {
            Wire::Sse(_) | Wire::Particle { .. } => {
                let object = match (&id, name) {
                    (Some(id), "hello") => Object::new().text("id", id),
                    _ => Object::new(),
                };
                control_sse(name, id.as_deref(), retry_ms, &fields(object).finish())
            }
            Wire::Ndjson | Wire::WebSocket => control_json(name, id.as_deref(), fields),
        }
    }

    // --- writing ---

    /// Writes a control event; to a client that wants none, only the reconnection
    /// time of a hello.
    fn write_control(&mut self, text: String, now: Instant, turn: &mut Turn) -> Step {
        let text = match (self.control, self.wire) {
            (true, _) => text,
            (false, Wire::Sse(_)) if text.starts_with("retry: ") => {
                text.split_inclusive('\n').next().unwrap_or_default().to_owned()
            }
            (false, _) => return self.step(now, turn),
        };
        self.told_at = now;
        let write = Write { bytes: Bytes::from(text), events: 0, ingested: None };
        self.wrote(write, None, now, turn)
    }

    /// Writes what is neither event nor control event.
    fn write_plain(&mut self, bytes: &'static [u8], now: Instant, turn: &mut Turn) -> Step {
        let bytes = Bytes::from_static(bytes);
        self.wrote(Write { bytes, events: 0, ingested: None }, None, now, turn)
    }

    fn wrote(&mut self, write: Write, last: Option<Seq>, now: Instant, turn: &mut Turn) -> Step {
        if let Some(last) = last {
            self.told = self.told.max(last);
            self.told_at = now;
        }
        self.account.wrote(write.events, write.bytes.len(), write.ingested, turn);
        self.keepalive_at = now + self.keepalive_after;
        Step::Write(write)
    }

    fn end(&mut self, reason: CloseReason) -> Step {
        self.account.close(reason);
        self.phase = Phase::Ended(reason);
        Step::End(reason)
    }

    /// A fifth either way, so that the keep-alives of many do not come together.
    fn draw_keepalive(&mut self, now: Instant) {
        let part = self.random.f64();
        let after = self.config.keepalive.mul_f64(0.8 + 0.4 * part);
        self.keepalive_after = match self.wire {
            Wire::Sse(_) | Wire::Ndjson | Wire::WebSocket => after,
            Wire::Particle { .. } => {
                after.min(particle::KEEPALIVE_AFTER + particle::KEEPALIVE_SPREAD.mul_f64(part))
            }
        };
        self.keepalive_at = now + self.keepalive_after;
    }

    fn retry_ms(&mut self) -> u64 {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (min, max) = (ms(self.config.retry_min), ms(self.config.retry_max));
        self.random.u64(min..=max.max(min))
    }
}

#[cfg(test)]
mod tests;
