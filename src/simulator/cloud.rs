//! The state of the simulated cloud: its account, the open streams, the faults. No I/O; time comes
//! in.
//!
//! The law here: one lock, and everything that changes what a reader will see happens under it. So
//! when a call returns, its bytes are in the mailbox of every stream they concern, and all streams
//! see one order.
//!
//! ```text
//!  devices ┐                        ┌ mailbox ─ stream
//!  API     ├─▶ publish ─▶ passes? ──┼ mailbox ─ stream     faults that are due change the mailboxes
//!  handle  ┘                        └ mailbox ─ stream     or the answer to the next open
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    agenda::{Agenda, later},
    device::Account,
    fault::{BURST_MAX, FAULT_PERIOD_MIN, FAULT_TIME_MAX, Fault, FaultKind, OVERSIZE_BYTES_MAX},
    refusal::{NO_PREFIX, Refused, UNKNOWN_DEVICE, UNKNOWN_ORG, UNKNOWN_PRODUCT, refusal_body},
    route::{Audience, Origin, Target},
    state::{Open, State, Tally, fingerprint},
    stream::{Deaf, End, Mailbox, Pace, Put},
    wire::{self, Event},
};

/// The most streams open at once, with the real cloud's limits or without.
pub(super) const STREAMS_MAX: usize = 1_000;
/// The real cloud, per public address: this many opens …
const OPENS_PER_WINDOW: usize = 100;
/// … in this time …
const WINDOW: Duration = Duration::from_secs(300);
/// … and this many streams at once.
const STREAMS_PER_ADDRESS: usize = 100;

/// The state. See the module. Not `Debug`: it holds the token.
pub(super) struct Cloud {
    account: Account,
    token: Option<String>,
    limits: bool,
    started: Instant,
    /// By number, the oldest first.
    streams: BTreeMap<u64, Stream>,
    agenda: Agenda,
    /// So many of the next events go out twice.
    duplicates: u32,
    /// What new streams are.
    sticky_deaf: Deaf,
    /// When the newest [`OPENS_PER_WINDOW`] opens were asked for.
    window: VecDeque<Instant>,
    tally: Tally,
}

#[derive(Debug)]
struct Stream {
    audience: Audience,
    prefix: String,
    mailbox: Arc<Mailbox>,
}

/// A request for a stream. Not `Debug`: it holds a token.
pub(super) struct OpenRequest {
    pub(super) target: Target,
    /// The path as sent, without its query.
    pub(super) path: String,
    pub(super) token: Option<String>,
    pub(super) last_event_id: Option<String>,
}

/// The answer to it.
#[derive(Debug)]
pub(super) enum Answer {
    /// The stream, under this number.
    Stream { number: u64, mailbox: Arc<Mailbox> },
    /// A plain response.
    Refused(Refused),
    /// None at all.
    Hang,
}

impl Cloud {
    pub(super) fn new(
        account: Account,
        token: Option<String>,
        limits: bool,
        now: Instant,
    ) -> Cloud {
        Cloud {
            account,
            token,
            limits,
            started: now,
            streams: BTreeMap::new(),
            agenda: Agenda::default(),
            duplicates: 0,
            sticky_deaf: Deaf::No,
            window: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn streams_open(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn opens_total(&self) -> u64 {
        self.tally.opens_total
    }

    pub(super) fn state(&self, now: Instant) -> State {
        let duplicates = (self.duplicates > 0).then_some(self.duplicates);
        let duplicates = duplicates.map(|count| Fault::now(FaultKind::Duplicate { count }));
        let sticky = FaultKind::Stall { lasting: None, sticky: true };
        let sticky = self.sticky_deaf.at(now).then_some(Fault::now(sticky));
        let at_work = duplicates.iter().chain(&sticky).map(Fault::to_string);
        let pending = self.agenda.pending().chain(at_work).collect();
        self.tally.state(now - self.started, self.streams.len(), pending)
    }

    // === opens ===

    /// Whether a request with this token may do anything.
    ///
    /// # Errors
    /// The refusal, where it may not.
    pub(super) fn authorize(&self, token: Option<&str>) -> Result<(), Refused> {
        match (&self.token, token) {
            (None, _) => Ok(()),
            (Some(wanted), Some(token)) if wanted == token => Ok(()),
            (Some(_), _) => Err(Refused::json(401, refusal_body(401))),
        }
    }

    /// Finds whose events are asked for.
    ///
    /// # Errors
    /// The refusal, where there is no such organization, product or device.
    pub(super) fn audience(&self, target: &Target) -> Result<Audience, Refused> {
        let account = &self.account;
        if target.public && target.prefix.is_empty() {
            return Err(Refused::json(400, NO_PREFIX));
        }
        if target.org.as_deref().is_some_and(|org| org != account.org) {
            return Err(Refused::json(404, UNKNOWN_ORG));
        }
        let is_product =
            |asked: &str| asked == account.product_slug || asked == account.product_id.to_string();
        if target.product.as_deref().is_some_and(|product| !is_product(product)) {
            return Err(Refused::json(404, UNKNOWN_PRODUCT));
        }
        let through_product = target.product.is_some() || target.org.is_some();
        match &target.device {
            None if through_product => Ok(Audience::Product),
            None => Ok(Audience::User),
            Some(asked) => {
                let reachable = |index: &usize| match account.ownership(*index) {
                    owned if through_product => owned.on_product,
                    owned => owned.claimed,
                };
                let device = account.device(asked).filter(reachable);
                device.map(Audience::Device).ok_or_else(|| Refused::json(403, UNKNOWN_DEVICE))
            }
        }
    }

    /// Opens a stream, or refuses to. Each is remembered.
    pub(super) fn open(&mut self, request: &OpenRequest, now: Instant, wall: Timestamp) -> Answer {
        self.settle(now, wall);
        let answer = self.answer(request, now, wall);
        let status = match &answer {
            Answer::Stream { .. } => Some(200),
            Answer::Refused(refused) => Some(refused.status),
            Answer::Hang => None,
        };
        self.tally.remember(Open {
            at: now - self.started,
            route: request.path.clone(),
            status,
            token: request.token.as_deref().map(fingerprint),
            last_event_id: request.last_event_id.clone(),
        });
        // Faults that waited for a stream have one now.
        self.settle(now, wall);
        answer
    }

    /// The stream with this number has ended, whoever ended it.
    pub(super) fn closed(&mut self, number: u64) {
        self.streams.remove(&number);
    }

    fn answer(&mut self, request: &OpenRequest, now: Instant, wall: Timestamp) -> Answer {
        if self.over_limit(now) {
            return Answer::Refused(Refused::json(529, refusal_body(529)));
        }
        if let Some(kind) = self.agenda.next_refusal() {
            return Refused::by_fault(&kind, wall).map_or(Answer::Hang, Answer::Refused);
        }
        let authorized = self.authorize(request.token.as_deref());
        match authorized.and_then(|()| self.audience(&request.target)) {
            Err(refused) => Answer::Refused(refused),
            Ok(audience) => {
                let mailbox = Arc::new(Mailbox::new());
                mailbox.put([Bytes::from_static(wire::OK)], now);
                mailbox.deafen(self.sticky_deaf);
                self.tally.streams_opened += 1;
                let number = self.tally.streams_opened;
                let prefix = request.target.prefix.clone();
                self.streams.insert(number, Stream { audience, prefix, mailbox: mailbox.clone() });
                Answer::Stream { number, mailbox }
            }
        }
    }

    /// Every open counts, also one refused: a client that keeps asking keeps itself out, which is
    /// what the real cloud's users report.
    fn over_limit(&mut self, now: Instant) -> bool {
        let full = self.window.len() == OPENS_PER_WINDOW;
        let oldest = if full { self.window.pop_front() } else { None };
        self.window.push_back(now);
        let too_often = oldest.is_some_and(|oldest| now.duration_since(oldest) < WINDOW);
        match self.limits {
            true => too_often || self.streams.len() >= STREAMS_PER_ADDRESS,
            false => self.streams.len() >= STREAMS_MAX,
        }
    }

    // === events ===

    /// The devices publish so many events.
    pub(super) fn devices_publish(&mut self, count: u32, now: Instant, wall: Timestamp) {
        for _ in 0..count {
            let event = self.account.next(wall);
            self.publish(&event, now);
        }
    }

    /// The first device publishes this.
    pub(super) fn device_publishes(
        &mut self,
        name: &str,
        data: Option<&str>,
        now: Instant,
        wall: Timestamp,
    ) {
        let event = self.account.event_of(0, name, data.map(str::to_owned), wall);
        self.publish(&event, now);
    }

    /// Somebody publishes this through the API.
    pub(super) fn api_publishes(
        &mut self,
        audience: Audience,
        name: &str,
        data: Option<String>,
        now: Instant,
        wall: Timestamp,
    ) {
        let origin = if audience == Audience::Product { Origin::Product } else { Origin::User };
        let event = self.account.event_of_api(origin, name, data, wall);
        self.publish(&event, now);
    }

    /// An event as it stands goes to the streams that hear its origin and whose prefix it has.
    pub(super) fn publish_bytes(
        &mut self,
        name: &str,
        bytes: &Bytes,
        origin: Origin,
        now: Instant,
    ) {
        let copies = if self.duplicates > 0 { 2 } else { 1 };
        let account = &self.account;
        let passes = |stream: &Stream| {
            name.starts_with(&stream.prefix)
                && stream.audience.hears(origin, |index| account.ownership(index))
        };
        let sent = deliver(&mut self.streams, passes, bytes, copies, now);
        // One that no stream got is no duplicate.
        if sent.pieces > 0 {
            self.duplicates = self.duplicates.saturating_sub(1);
        }
        self.tally.events_published += 1;
        self.tally.events_sent += sent.pieces;
        self.tally.streams_overrun += sent.overrun;
    }

    /// Bytes to every stream.
    pub(super) fn raw(&mut self, bytes: &Bytes, now: Instant) {
        let sent = deliver(&mut self.streams, |_| true, bytes, 1, now);
        self.tally.streams_overrun += sent.overrun;
    }

    fn publish(&mut self, event: &Event, now: Instant) {
        self.publish_bytes(&event.name, &event.bytes(), event.origin, now);
    }

    // === faults ===

    /// Takes on a fault; one that is due happens before this returns. False if too many wait
    /// already.
    pub(super) fn arm(&mut self, fault: Fault, now: Instant, wall: Timestamp) -> bool {
        if !self.agenda.arm(fault, now) {
            self.tally.faults_refused += 1;
            return false;
        }
        self.settle(now, wall);
        true
    }

    /// Forgets all faults: those that wait, and those at work. What is lost or cut stays so.
    pub(super) fn clear_faults(&mut self) {
        self.agenda.clear();
        self.duplicates = 0;
        self.sticky_deaf = Deaf::No;
        for stream in self.streams.values() {
            stream.mailbox.deafen(Deaf::No);
            stream.mailbox.pace(None);
        }
    }

    /// When [`settle`](Cloud::settle) is to be called next, if at all.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.agenda.next_due(!self.streams.is_empty())
    }

    /// Lets all that is due happen, the earliest first. It ends: a repeated fault is due later than
    /// now.
    pub(super) fn settle(&mut self, now: Instant, wall: Timestamp) {
        // A cut leaves no stream for those after it, so this is asked anew each time.
        while let Some(kind) = self.agenda.ripe(now, !self.streams.is_empty()) {
            self.tally.faults_fired += 1;
            self.happen(kind, now, wall);
        }
    }

    fn happen(&mut self, kind: FaultKind, now: Instant, wall: Timestamp) {
        let until = |lasting: Option<Duration>| lasting.map(|lasting| later(now, lasting));
        match kind {
            FaultKind::Stall { lasting, sticky } => {
                let deaf = until(lasting).map_or(Deaf::Always, Deaf::Until);
                self.streams.values().for_each(|stream| stream.mailbox.deafen(deaf));
                if sticky {
                    self.sticky_deaf = deaf;
                }
            }
            FaultKind::Cut => self.end_all(None, End::Clean),
            FaultKind::CutMidEvent { at } => {
                let data = Some("never whole".to_owned());
                let event = self.account.event_of(0, "sim/torn", data, wall).bytes();
                let length = at.unwrap_or(event.len() / 2).min(event.len());
                self.end_all(Some(&event.slice(..length)), End::Severed);
            }
            FaultKind::Reset => self.end_all(None, End::Reset),
            FaultKind::Refuse { count, .. }
            | FaultKind::Html { count }
            | FaultKind::Redirect { count, .. }
            | FaultKind::Hang { count } => self.agenda.refuse(kind, count),
            FaultKind::Drip { bytes, every, lasting } => {
                let every = every.clamp(FAULT_PERIOD_MIN, FAULT_TIME_MAX);
                let pace = Pace { bytes: bytes.max(1), every, until: until(lasting), next: now };
                self.streams.values().for_each(|stream| stream.mailbox.pace(Some(pace)));
            }
            FaultKind::Duplicate { count } => {
                self.duplicates = self.duplicates.saturating_add(count);
            }
            FaultKind::Burst { count } => self.devices_publish(count.min(BURST_MAX), now, wall),
            FaultKind::Oversize { bytes } => {
                let empty = self.account.event_of(0, "sim/oversize", Some(String::new()), wall);
                let around = "data: ".len() + empty.json().len();
                let data = "x".repeat(bytes.min(OVERSIZE_BYTES_MAX).saturating_sub(around));
                self.publish(&Event { data: Some(data), ..empty }, now);
            }
            FaultKind::Raw { bytes } => self.raw(&bytes.into(), now),
        }
    }

    /// Ends every stream. They count as closed at once, though their last bytes may still be on the
    /// way.
    fn end_all(&mut self, last: Option<&Bytes>, end: End) {
        for stream in std::mem::take(&mut self.streams).into_values() {
            stream.mailbox.end(last.cloned(), end);
        }
    }
}

struct Sent {
    pieces: u64,
    overrun: u64,
}

fn deliver(
    streams: &mut BTreeMap<u64, Stream>,
    passes: impl Fn(&Stream) -> bool,
    bytes: &Bytes,
    copies: usize,
    now: Instant,
) -> Sent {
    let mut sent = Sent { pieces: 0, overrun: 0 };
    streams.retain(|_, stream| {
        if !passes(stream) {
            return true;
        }
        let put = stream.mailbox.put(std::iter::repeat_n(bytes.clone(), copies), now);
        match put {
            Put::Queued => sent.pieces += copies as u64,
            Put::Lost => {}
            Put::Overrun => sent.overrun += 1,
        }
        put != Put::Overrun
    });
    sent
}
