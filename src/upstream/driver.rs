//! The driver: one task that carries out what [`Supervision`] decides.
//!
//! ```text
//!  chunk ─┐                      ┌─▶ decoder (─▶ Merge) ─▶ outlet.event … outlet.commit
//!  timer ─┼─▶ select ─▶ inputs ──┤
//!  token ─┘                      └─▶ Supervision ─▶ Action: open, close, wait
//!                                               └─▶ Report: states, holes ─▶ outlet
//! ```
//!
//! There are two lanes, of which the second is idle as a rule; then nothing is hashed or
//! remembered, and events take the way without `Merge`.
//!
//! The law: reports are told before the next chunk is read, so a hole stands before any
//! event of the connection that ends it; and staged events are committed before anything
//! is awaited that could take long.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::Response;
use tokio::{
    task,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use crate::{
    clock::Clock,
    hub::Publisher,
    model::{Hole, Moment, UpstreamState},
    upstream::{
        budget::Ledger,
        connection::{self, Answer, Connector, REDIRECTS_MAX},
        decode::{Decoder, Item},
        ingress::{Deliveries, Posted, WAITING_MAX},
        merge::{Lane, Merge, SKEW, Verdict},
        particle,
        paths::Way,
        stats::{Attempt, Outcome, Stats},
        supervise::{Action, End, FailureKind, Need, Report, Supervision},
        token::{Token, TokenError, TokenSource},
        webhook::Identity,
    },
};

/// Most bytes read into one commit: a subscriber's wait for the first event of a burst.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Most events staged before a commit.
pub const BATCH_EVENTS_MAX: u64 = 512;
/// Between two looks at the token file while another token would help.
const TOKEN_POLL_FAST: Duration = Duration::from_secs(1);
/// Between two looks otherwise; also how soon a jump of the wall clock is noticed.
const TOKEN_POLL: Duration = Duration::from_secs(5);

/// Where events go: the hub's publisher, or a list in tests.
pub(crate) trait Outlet {
    fn event(&mut self, name: &str, data: &str, now: Moment);
    fn oversize(&mut self, bytes: u64, now: Moment);
    fn hole(&mut self, hole: &Hole, now: Moment);
    fn upstream(&mut self, state: UpstreamState, detail: &str, now: Moment);
    fn commit(&mut self);
}

impl Outlet for Publisher {
    fn event(&mut self, name: &str, data: &str, now: Moment) {
        Publisher::event(self, name, data, now);
    }

    fn oversize(&mut self, bytes: u64, now: Moment) {
        Publisher::oversize(self, bytes, now);
    }

    fn hole(&mut self, hole: &Hole, now: Moment) {
        Publisher::hole(self, hole, now);
    }

    fn upstream(&mut self, state: UpstreamState, detail: &str, now: Moment) {
        Publisher::upstream(self, state, detail, now);
    }

    fn commit(&mut self) {
        Publisher::commit(self);
    }
}

/// The parts, put together by [`Upstream::new`](crate::upstream::Upstream::new).
pub(crate) struct Driver<O> {
    pub(crate) outlet: O,
    pub(crate) clock: Clock,
    pub(crate) stats: Arc<Stats>,
    pub(crate) supervision: Supervision,
    pub(crate) ledger: Ledger,
    pub(crate) connector: Connector,
    pub(crate) decoders: [Decoder; 2],
    pub(crate) merge: Merge,
    /// True while what comes may be a copy, or may be repeated by a stream that is being opened.
    pub(crate) merging: bool,
    /// The other way in, where there is one.
    pub(crate) webhooks: Option<Deliveries>,
    /// The lane that had bytes last.
    pub(crate) newest: Lane,
    pub(crate) token_source: TokenSource,
    /// True if the stream's `id:` and `retry:` are honoured (source `sse`).
    pub(crate) resumes: bool,
    pub(crate) held_detail: String,
    /// Events since the last commit.
    pub(crate) staged: u64,
}

/// What a decoder said, kept.
enum Said {
    Event { name: String, data: String },
    Oversize { bytes: u64 },
}

/// What the driver has in hand, in a lane.
enum Link {
    Idle,
    Opening(Opening),
    Live(Live),
}

struct Opening {
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    token: Option<Token>,
    deadline: Instant,
    redirects: u32,
}

struct Live {
    response: Response,
    last_byte_us: u64,
}

enum Arrival {
    Answer(Answer),
    Chunk(reqwest::Result<Option<Bytes>>),
}

impl Link {
    /// Cancel-safe: the answer's future stays in the link, and a body frame is either
    /// returned or still in the body.
    async fn next(&mut self) -> Arrival {
        match self {
            Link::Idle => std::future::pending().await,
            Link::Opening(opening) => Arrival::Answer(opening.answer.as_mut().await),
            Link::Live(live) => Arrival::Chunk(live.response.chunk().await),
        }
    }
}

/// The next arrival of either lane. `first` has precedence; lanes that are not read wait.
async fn next(links: &mut [Link; 2], reads: [bool; 2], first: Lane) -> (Lane, Arrival) {
    let [a, b] = links;
    let [reads_a, reads_b] =
        [reads[0] || matches!(a, Link::Opening(_)), reads[1] || matches!(b, Link::Opening(_))];
    match first {
        Lane::A => tokio::select! {
            biased;
            arrival = a.next(), if reads_a => (Lane::A, arrival),
            arrival = b.next(), if reads_b => (Lane::B, arrival),
        },
        Lane::B => tokio::select! {
            biased;
            arrival = b.next(), if reads_b => (Lane::B, arrival),
            arrival = a.next(), if reads_a => (Lane::A, arrival),
        },
    }
}

/// The next event that came by webhook. Cancel-safe: it is returned or still in the queue.
async fn posted(webhooks: Option<&mut Deliveries>) -> Posted {
    match webhooks {
        Some(webhooks) => match webhooks.posted.recv().await {
            Some(posted) => posted,
            // Nobody is left who could hand one in.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl<O: Outlet> Driver<O> {
    /// Runs until told to stop.
    pub(crate) async fn drive(mut self, stop: CancellationToken) {
        let mut links = [Link::Idle, Link::Idle];
        let mut first = Lane::A;
        let mut tokens = Tokens::default();
        let mut look_us = 0;
        loop {
            let now = self.clock.now();
            if look_us <= now.mono_us {
                self.look(&mut tokens, now).await;
                let pause =
                    if self.supervision.token_helps() { TOKEN_POLL_FAST } else { TOKEN_POLL };
                look_us = now.mono_us.saturating_add(pause.as_micros() as u64);
            }
            self.weigh(now);
            let action = self.supervision.poll(now);
            self.tell(now);
            let until_us = match action {
                Action::Open(lane, need) => {
                    links[lane.index()] = self.open(lane, need, &mut tokens).await;
                    // Another look is due sooner if the token is what is wrong.
                    look_us = look_us.min(after(self.clock.now(), TOKEN_POLL_FAST));
                    continue;
                }
                Action::Close(lane) => {
                    self.drop_link(&mut links, lane, now);
                    continue;
                }
                Action::WaitUntil(until_us) => until_us.min(look_us),
                Action::WaitInput => look_us,
            };
            let arrival = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    for lane in Lane::ALL {
                        self.drop_link(&mut links, lane, now);
                    }
                    self.commit();
                    return;
                }
                // Before the streams: whoever posts waits for the answer, so that they are few.
                first = posted(self.webhooks.as_mut()) => {
                    self.take_in(first);
                    continue;
                }
                // Before the timer: bytes that are there are life, even if we come late.
                (lane, arrival) = next(&mut links, Lane::ALL.map(|lane| self.supervision.reads(lane)), first) => {
                    // In turns, so that a busy lane does not keep the other waiting.
                    first = lane.other();
                    (lane, arrival)
                }
                () = sleep_until(self.clock.instant(until_us)) => continue,
            };
            match arrival {
                (lane, Arrival::Answer(answer)) => self.answered(&mut links, lane, answer).await,
                (lane, Arrival::Chunk(chunk)) => self.received(&mut links, lane, chunk).await,
            }
        }
    }

    /// Whether what comes has to be compared, and which lane is behind.
    fn weigh(&mut self, now: Moment) {
        if self.supervision.is_doubled() {
            self.merging = true;
            if self.supervision.asks_for_lags(now) {
                for lane in Lane::ALL {
                    let lags = self.merge.behind(lane, now.mono_us) > SKEW;
                    self.supervision.lags(lane, lags);
                }
            }
        } else if self.merging && self.merge.is_settled(now.mono_us) {
            self.merging = false;
            self.merge.clear();
        }
    }

    /// What is due every few seconds: the token, the labels of the budget, a gauge.
    async fn look(&mut self, tokens: &mut Tokens, now: Moment) {
        self.ledger.relabel(now).await;
        self.stats.window(self.ledger.used(now));
        self.supervision.to_spare(self.ledger.to_spare(now));
        if !self.token_source.can_change() {
            return;
        }
        // The content is compared, not its date: a few bytes, and no change is missed.
        let Ok(Some(token)) = self.read_token().await else { return };
        if tokens.used.as_ref() == Some(&token) {
            return;
        }
        if tokens.noted.as_ref() != Some(&token) {
            info!("there is another upstream token; a stream is opened with it");
            tokens.noted = Some(token);
        }
        self.supervision.token_changed(now);
    }

    async fn read_token(&self) -> Result<Option<Token>, TokenError> {
        if !self.token_source.can_change() {
            return self.token_source.read();
        }
        let source = self.token_source.clone();
        match task::spawn_blocking(move || source.read()).await {
            Ok(read) => read,
            Err(_) => Err(TokenError::Empty), // the runtime is going down
        }
    }

    async fn open(&mut self, lane: Lane, need: Need, tokens: &mut Tokens) -> Link {
        let token = self.read_token().await;
        let now = self.clock.now();
        let token = match token {
            Ok(token) => token,
            Err(error) => {
                tokens.used = None;
                self.supervision.failed(lane, now, FailureKind::Token, error.to_string());
                return Link::Idle;
            }
        };
        tokens.used.clone_from(&token);
        if !self.granted(lane, need).await {
            return Link::Idle;
        }
        self.supervision.opening(lane);
        self.merge.opening(lane, self.clock.now().mono_us);
        if self.resumes && self.newest != lane {
            let id = self.decoders[self.newest.index()].last_event_id().to_owned();
            self.decoders[lane.index()].adopt_last_event_id(&id);
        }
        self.request(lane, self.connector.url().clone(), token, self.connector.deadline(), 0)
    }

    /// Asks the budget for one request.
    async fn granted(&mut self, lane: Lane, need: Need) -> bool {
        let now = self.clock.now();
        let granted = match need {
            Need::Bare => self.ledger.take(now).await,
            Need::Spare => self.ledger.take_spare(now).await,
        };
        self.stats.window(self.ledger.used(now));
        self.supervision.to_spare(self.ledger.to_spare(now));
        if let Err(wait) = granted {
            self.stats.held();
            self.supervision.held(lane, self.clock.now(), wait, self.held_detail.clone());
        }
        granted.is_ok()
    }

    fn request(
        &self,
        lane: Lane,
        to: Url,
        token: Option<Token>,
        deadline: Instant,
        redirects: u32,
    ) -> Link {
        let decoder = &self.decoders[lane.index()];
        let last_event_id = if self.resumes { decoder.last_event_id() } else { "" };
        let answer = self.connector.open(to, token.clone(), last_event_id, deadline);
        Link::Opening(Opening { answer: Box::pin(answer), token, deadline, redirects })
    }

    async fn answered(&mut self, links: &mut [Link; 2], lane: Lane, answer: Answer) {
        let now = self.clock.now();
        let link = &mut links[lane.index()];
        let Link::Opening(opening) = std::mem::replace(link, Link::Idle) else { return };
        match answer {
            Answer::Live(response) => {
                self.stats.opened(Outcome::Live);
                self.supervision.opened(lane, now);
                self.merge.opened(lane, now.mono_us);
                *link = Link::Live(Live { response, last_byte_us: now.mono_us });
                self.stats.streams(count_live(links));
                return;
            }
            Answer::Redirected(_) if opening.redirects == REDIRECTS_MAX => {
                self.stats.opened(Outcome::Misconfigured);
                let host = particle::authority(self.connector.url());
                let detail =
                    format!("{host} redirects more than {REDIRECTS_MAX} times; check upstream.url");
                self.supervision.failed(lane, now, FailureKind::Redirect, detail);
            }
            Answer::Redirected(to) => {
                self.stats.opened(Outcome::Redirected);
                // What it leads to is owed already, whatever it costs.
                if self.granted(lane, Need::Bare).await {
                    let Opening { token, deadline, redirects, .. } = opening;
                    *link = self.request(lane, to, token, deadline, redirects + 1);
                    return;
                }
            }
            Answer::Refused { outcome, status, retry_after, detail } => {
                self.stats.opened(outcome);
                self.supervision.refused(lane, now, status, retry_after, detail);
            }
            Answer::Failed { outcome, kind, detail } => {
                self.stats.opened(outcome);
                self.supervision.failed(lane, now, kind, detail);
            }
        }
        self.merge.closed(lane);
    }

    /// One chunk and those already behind it: append many, wake once.
    async fn received(
        &mut self,
        links: &mut [Link; 2],
        lane: Lane,
        chunk: reqwest::Result<Option<Bytes>>,
    ) {
        let Link::Live(live) = &mut links[lane.index()] else { return };
        self.newest = lane;
        let mut batch_bytes = 0;
        let mut next = Some(chunk);
        let end = loop {
            match next.take() {
                None => break None,
                Some(Ok(Some(chunk))) => {
                    let now = self.clock.now();
                    let silence_us = now.mono_us.saturating_sub(live.last_byte_us);
                    live.last_byte_us = now.mono_us;
                    self.stats.received(chunk.len() as u64, silence_us, now);
                    let on_trial = self.supervision.is_on_trial(lane);
                    self.supervision.bytes(lane, now);
                    if on_trial || self.merging || self.webhooks.is_some() {
                        self.feed_with_care(lane, &chunk, now);
                    } else {
                        self.feed(lane, &chunk, now);
                    }
                    batch_bytes += chunk.len();
                }
                Some(Ok(None)) => {
                    let host = particle::authority(self.connector.url());
                    break Some((End::Clean, format!("{host} ended the stream")));
                }
                Some(Err(error)) => break Some(connection::broken(self.connector.url(), error)),
            }
            if batch_bytes >= BATCH_BYTES_MAX {
                break None;
            }
            // One turn for the connection's task to hand over what it has; no wait beyond it.
            // Measured with 20,000 events in an HTTP chunk each: 45 to 174 commits with the
            // turn, 20,000 without it (2 cores, debug build).
            // Both are cancel-safe (see `Link::next`).
            tokio::select! {
                biased;
                chunk = live.response.chunk() => next = Some(chunk),
                () = task::yield_now() => {}
            }
        };
        self.commit();
        self.stats.comments(self.decoders.iter().map(Decoder::comments).sum());
        if self.merging {
            self.stats.merged(self.merge.counts());
        }
        if let Some(webhooks) = &self.webhooks {
            self.stats.by_webhook(webhooks.paths.counts());
        }
        if let Some((end, detail)) = end {
            let now = self.clock.now();
            self.drop_link(links, lane, now);
            self.supervision.ended(lane, now, end, detail);
        }
    }

    fn feed(&mut self, lane: Lane, chunk: &[u8], now: Moment) {
        let mut retry_ms = None;
        // A chunk of the HTTP client can be several times the size of a batch.
        for slice in chunk.chunks(BATCH_BYTES_MAX) {
            let mut events = 0;
            let (outlet, stats, staged) = (&mut self.outlet, &self.stats, &mut self.staged);
            self.decoders[lane.index()].feed(slice, |item| match item {
                Item::Event { name, data } => {
                    outlet.event(name, data, now);
                    events += 1;
                    *staged += 1;
                    if *staged == BATCH_EVENTS_MAX {
                        outlet.commit();
                        *staged = 0;
                    }
                }
                Item::Retry(ms) => retry_ms = Some(ms),
                Item::Oversize { bytes, .. } => {
                    outlet.oversize(bytes, now);
                    stats.oversize();
                }
            });
            if events > 0 {
                self.stats.events(events);
                self.supervision.event(lane, now);
            }
            if slice.len() == BATCH_BYTES_MAX {
                self.commit();
            }
        }
        if let (true, Some(ms)) = (self.resumes, retry_ms) {
            self.supervision.retry_floor(Duration::from_millis(ms));
        }
    }

    /// What came by webhook, with those already behind it. Answered once it is committed.
    fn take_in(&mut self, first: Posted) {
        let Some(webhooks) = &mut self.webhooks else { return };
        let now = self.clock.now();
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(Posted { delivery, answer }) = next {
            let is_new = webhooks.paths.is_new(Way::Webhook, &delivery.identity, now.mono_us);
            if is_new {
                self.outlet.event(&delivery.name, &delivery.line, now);
                self.stats.events(1);
            }
            answers.push((answer, is_new));
            next = match answers.len() {
                WAITING_MAX => None,
                _ => webhooks.posted.try_recv().ok(),
            };
        }
        self.stats.by_webhook(webhooks.paths.counts());
        self.commit();
        for (answer, is_new) in answers {
            // Whoever has gone will post it again, and then it is a copy.
            let _ = answer.send(is_new);
        }
    }

    /// The same for a chunk whose events may be copies, or the first life of a stream on trial.
    fn feed_with_care(&mut self, lane: Lane, chunk: &[u8], now: Moment) {
        let mut retry_ms = None;
        for slice in chunk.chunks(BATCH_BYTES_MAX) {
            let mut said = Vec::new();
            let (merge, merging) = (&mut self.merge, self.merging);
            let webhooks = &mut self.webhooks;
            let is_copy = |verdict: Verdict| verdict == Verdict::Copy;
            let mut came_by_webhook = |name: &str, data: &str| {
                webhooks.as_mut().is_some_and(|webhooks| {
                    let identity = Identity::of_line(name, data);
                    identity.is_some_and(|identity| {
                        !webhooks.paths.is_new(Way::Stream, &identity, now.mono_us)
                    })
                })
            };
            let mut is_alive = false;
            self.decoders[lane.index()].feed(slice, |item| match item {
                Item::Event { name, data } => {
                    if merging && is_copy(merge.event(lane, name, data, now.mono_us)) {
                        return;
                    }
                    is_alive = true;
                    if !came_by_webhook(name, data) {
                        said.push(Said::Event { name: name.to_owned(), data: data.to_owned() });
                    }
                }
                Item::Retry(ms) => retry_ms = Some(ms),
                Item::Oversize { name, bytes } => {
                    if !(merging && is_copy(merge.oversize(lane, name, bytes, now.mono_us))) {
                        said.push(Said::Oversize { bytes });
                    }
                }
            });
            if is_alive || !said.is_empty() {
                self.supervision.event(lane, now);
            }
            // The hole that ends here comes first.
            self.tell(now);
            for item in said {
                match item {
                    Said::Event { name, data } => {
                        self.outlet.event(&name, &data, now);
                        self.stats.events(1);
                        self.staged += 1;
                        if self.staged == BATCH_EVENTS_MAX {
                            self.commit();
                        }
                    }
                    Said::Oversize { bytes } => {
                        self.outlet.oversize(bytes, now);
                        self.stats.oversize();
                    }
                }
            }
            if slice.len() == BATCH_BYTES_MAX {
                self.commit();
            }
        }
        if let (true, Some(ms)) = (self.resumes, retry_ms) {
            self.supervision.retry_floor(Duration::from_millis(ms));
        }
    }

    /// Ends the connection. A partial event goes with it: it was never finished.
    fn drop_link(&mut self, links: &mut [Link; 2], lane: Lane, now: Moment) {
        let link = &mut links[lane.index()];
        if let Link::Live(live) = link
            && self.supervision.reads(lane)
        {
            self.stats.silent(now.mono_us.saturating_sub(live.last_byte_us));
        }
        *link = Link::Idle;
        self.merge.closed(lane);
        self.stats.streams(count_live(links));
        if self.decoders[lane.index()].reset() {
            self.stats.partial();
        }
    }

    /// Passes reports on: to the status page all, to subscribers and the log what is news,
    /// to subscribers without the path of the token file.
    fn tell(&mut self, now: Moment) {
        while let Some(report) = self.supervision.report() {
            // What the trace says is so by then: each is taken in before it is traced.
            match report {
                Report::State { state, detail, repeat } => {
                    if !repeat {
                        self.outlet.upstream(state, &self.token_source.hidden(&detail), now);
                        self.commit();
                        log(state, &detail);
                    }
                    self.stats.attempt(Attempt { state, since: now });
                }
                Report::Hole(hole) => {
                    self.outlet.hole(&hole, now);
                    self.commit();
                    self.stats.hole(&hole);
                    let secs = hole.until_ms.saturating_sub(hole.since_ms) as f64 / 1000.0;
                    let reason = hole.reason.as_str();
                    warn!(reason, secs, "upstream outage over; what was sent meanwhile is lost");
                }
                Report::Aside(detail) => info!(detail, "upstream"),
            }
        }
        self.stats.next_open(self.supervision.next_open_us());
    }

    fn commit(&mut self) {
        self.outlet.commit();
        self.staged = 0;
    }
}

#[derive(Default)]
struct Tokens {
    /// The one of the last open; `None` too if there was none to read.
    used: Option<Token>,
    /// The newest one the log knows of.
    noted: Option<Token>,
}

fn count_live(links: &[Link; 2]) -> u64 {
    links.iter().filter(|link| matches!(link, Link::Live(_))).count() as u64
}

fn log(state: UpstreamState, detail: &str) {
    let state_name = state.as_str();
    match state {
        UpstreamState::Connecting | UpstreamState::Live => info!(state = state_name, "upstream"),
        _ => warn!(state = state_name, detail, "upstream"),
    }
}

fn after(now: Moment, pause: Duration) -> u64 {
    now.mono_us.saturating_add(pause.as_micros() as u64)
}

#[cfg(test)]
mod tests;
