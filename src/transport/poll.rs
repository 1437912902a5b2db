//! A poll: everything after a position, at once, as one JSON object.
//!
//! Law: `next` always goes into the next call's `after`, and nothing lies between
//! what this answer holds and where the next one begins.

use std::{fmt::Write as _, time::Duration};

use crate::{
    hub::{Budget, Examined, Subscription},
    model::{Format, Gap, Position, Record, frame::control_json, record::Kind},
};

use super::{Account, Turn};

/// Bounds of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Longest wait; a client that asks for more gets this.
    pub timeout_max: Duration,
    /// Events in one answer.
    pub events_max: u64,
    /// Bytes of the events of one answer. One event may be larger.
    pub bytes_max: usize,
}

/// How long a poll waits if the client does not say: below the 30 s after which many
/// HTTP clients and proxies give up.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(25);
/// Events in one answer if the client does not say.
pub const EVENTS_DEFAULT: u64 = 500;

/// Records looked at before others have their turn: about 1 ms.
const LOOKED_AT_MAX: u64 = 4096;

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// It has something to tell: send it.
    Ready,
    /// There is nothing yet: wait for the subscription to be woken.
    Empty,
    /// There is more to look at, but others should have their turn first.
    More,
}

/// An answer in the making.
#[derive(Debug)]
pub struct Answer {
    events: String,
    /// Objects in `events`.
    count: u64,
    /// Of these, those that are no control events.
    delivered: u64,
    bytes: usize,
    events_max: u64,
    bytes_max: usize,
    control: bool,
    gap: Option<Gap>,
    next: Option<Position>,
}

impl Answer {
    /// An empty answer that begins with what was missed before it.
    pub fn new(gap: Option<Gap>, events_max: u64, bytes_max: usize, control: bool) -> Answer {
        Answer {
            events: String::new(),
            count: 0,
            delivered: 0,
            bytes: 0,
            events_max,
            bytes_max,
            control,
            gap,
            next: None,
        }
    }

    /// Takes what there is.
    pub fn fill(&mut self, subscription: &mut Subscription) -> Filled {
        let mut last = None;
        let budget = Budget { records: self.room(), bytes: self.bytes_max };
        let more = subscription.examine_snapshot(budget, |record| {
            last = Some(record.seq());
            self.push(record)
        });
        if more && self.is_full() {
            // The next call goes on from the newest value told: what lies behind it comes
            // as records, or after a gap as the rest of the newest values.
            self.next = last.map(|seq| Position { seq, ..subscription.position() });
            return Filled::Ready;
        }
        if more {
            return Filled::More;
        }
        let begin = subscription.position().seq;
        loop {
            if self.is_full() {
                return Filled::Ready;
            }
            if subscription.position().seq.distance_from(begin) >= LOOKED_AT_MAX {
                return Filled::More;
            }
            // One record at a time: what does not fit stays for the next call.
            let before = subscription.position();
            let (text, counts) = (self.events.len(), (self.count, self.delivered, self.bytes));
            match subscription
                .examine(Budget { records: self.room(), bytes: 1 }, |record| self.push(record))
            {
                Examined::All | Examined::More if self.bytes > self.bytes_max && counts.0 > 0 => {
                    // Too large beside the others: it goes alone, in the next answer.
                    self.events.truncate(text);
                    (self.count, self.delivered, self.bytes) = counts;
                    self.next = Some(before);
                    return Filled::Ready;
                }
                Examined::All => break,
                Examined::More => {}
                Examined::Gap(gap) if self.gap.is_none() && self.count == 0 => self.gap = Some(gap),
                Examined::Gap(_) => {
                    // There is room for one gap only: the next call begins before this one.
                    self.next = Some(before);
                    return Filled::Ready;
                }
            }
        }
        if self.count > 0 || self.gap.is_some() { Filled::Ready } else { Filled::Empty }
    }

    /// The finished answer, and how many events are in it.
    pub fn finish(self, subscription: &Subscription, account: &mut Account) -> String {
        let next = self.next.unwrap_or_else(|| subscription.position());
        let mut text = String::with_capacity(self.events.len() + 128);
        text.push_str("{\"events\":[");
        text.push_str(&self.events);
        let gap = match &self.gap {
            Some(gap) => {
                account.gap(gap);
                let id = gap.id(subscription.epoch()).to_string();
                control_json("gap", Some(&id), |object| gap.fields(object))
            }
            None => "null".to_owned(),
        };
        let written = write!(text, "],\"next\":\"{next}\",\"gap\":{}}}", gap.trim_end());
        written.expect("writing to a String cannot fail");
        let mut turn = Turn::new(account.ledger().clone());
        account.wrote(self.delivered, text.len(), None, &mut turn);
        text
    }

    fn push(&mut self, record: &Record) -> usize {
        if record.kind() == Kind::Control && !self.control {
            return 0;
        }
        let frame = record.frame(Format::Json);
        let json = frame.strip_suffix(b"\n").unwrap_or(&frame);
        if !self.events.is_empty() {
            self.events.push(',');
        }
        self.events.push_str(std::str::from_utf8(json).expect("frames are text"));
        self.count += 1;
        self.delivered += u64::from(record.kind() == Kind::Event);
        self.bytes += json.len();
        json.len()
    }

    fn is_full(&self) -> bool {
        self.delivered >= self.events_max || self.bytes >= self.bytes_max
    }

    fn room(&self) -> usize {
        usize::try_from(self.events_max - self.delivered).unwrap_or(usize::MAX).min(1024)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        clock::Clock,
        hub::{self, Hub, Publisher},
        log::Log,
        model::{
            Epoch, Filter, Moment, Seq, Transport, UpstreamState,
            resume::{Requested, Since, Start},
            ring,
        },
        telemetry::{Readings, Telemetry},
        transport::{Ledger, Peer},
    };

    struct World {
        hub: Hub,
        publisher: Publisher,
        telemetry: Arc<Telemetry>,
    }

    impl World {
        fn new(events_max: usize) -> World {
            let telemetry = Arc::new(Telemetry::new());
            let config = hub::Config {
                ring: ring::Limits { events_max, bytes_max: 1 << 24 },
                latest_entries_max: 100,
                latest_bytes_max: 1 << 20,
            };
            let log = Log::memory(Epoch::from_bits(1));
            let (hub, publisher) = Hub::new(config, log, telemetry.clone(), Moment::default());
            World { hub, publisher, telemetry }
        }

        fn publish(&mut self, names: &[&str]) {
            for name in names {
                self.publisher.event(name, "{}", Moment::default());
            }
            self.publisher.commit();
        }

        fn subscribe(&self, after: &str) -> (Subscription, Option<Gap>) {
            let start = match after {
                "earliest" => Start::Since(Since::Earliest),
                after => Start::After(Requested::parse(after.as_bytes())),
            };
            self.hub.subscribe(Filter::all(), &start, Transport::Poll, Moment::default())
        }

        fn finish(&self, answer: Answer, subscription: &Subscription) -> String {
            let peer = Arc::new(Peer::new(([127, 0, 0, 1], 1).into()));
            let (clock, telemetry) = (Clock::anchored(0), self.telemetry.clone());
            let ledger = Arc::new(Ledger { telemetry, clock });
            let mut account = Account::open(ledger, peer, Transport::Poll, Format::Json);
            answer.finish(subscription, &mut account)
        }

        /// One poll, answered at once.
        fn poll(&self, after: &str, events_max: u64, bytes_max: usize, control: bool) -> String {
            let (mut subscription, gap) = self.subscribe(after);
            let mut answer = Answer::new(gap, events_max, bytes_max, control);
            while answer.fill(&mut subscription) == Filled::More {}
            self.finish(answer, &subscription)
        }
    }

    fn event(seq: u64, name: &str) -> String {
        format!("{{\"id\":\"00000001-{seq}\",\"name\":\"{name}\"}}")
    }

    fn answer(events: &[String], next: u64) -> String {
        let events = events.join(",");
        format!("{{\"events\":[{events}],\"next\":\"00000001-{next}\",\"gap\":null}}")
    }

    #[test]
    fn next_is_where_the_answer_ends() {
        let mut world = World::new(100);
        world.publish(&["a", "b", "c"]);
        let [a, b, c] = [event(1, "a"), event(2, "b"), event(3, "c")];
        let poll = |after, events_max| world.poll(after, events_max, 1 << 20, true);
        assert_eq!(poll("00000001-0", 10), answer(&[a.clone(), b.clone(), c.clone()], 3));
        assert_eq!(poll("00000001-0", 2), answer(&[a.clone(), b.clone()], 2));
        assert_eq!(poll("00000001-2", 2), answer(&[c], 3));
        assert_eq!(poll("00000001-3", 2), answer(&[], 3));
        let bytes = a.len() + b.len();
        assert_eq!(world.poll("earliest", 10, bytes, true), answer(&[a.clone(), b], 2));
        assert_eq!(world.poll("earliest", 10, 1, true), answer(&[a], 1), "one may be larger");
    }

    #[test]
    fn control_events_are_left_out_where_they_are_not_wanted_and_are_no_deliveries() {
        let mut world = World::new(100);
        world.publisher.upstream(UpstreamState::Live, "", Moment::default());
        world.publish(&["a"]);
        assert_eq!(world.poll("00000001-0", 10, 1 << 20, false), answer(&[event(2, "a")], 2));
        let text = world.poll("00000001-0", 10, 1 << 20, true);
        assert!(text.starts_with("{\"events\":[{\"fanlight\":\"upstream\""), "{text}");
        let metrics = world.telemetry.render(&Readings::default());
        let sample = "fanlight_deliveries_total{transport=\"poll\"} 2";
        assert!(metrics.contains(sample), "one in each answer: {metrics}");
        let text = world.poll("00000001-0", 1, 1 << 20, true);
        assert!(
            text.contains("\"upstream\"") && text.contains(&event(2, "a")),
            "nor do they use up the limit: {text}"
        );
    }

    #[test]
    fn a_gap_stands_before_the_events_and_there_is_one_an_answer() {
        let mut world = World::new(2);
        world.publish(&["a", "b", "c", "d"]);
        let (mut subscription, gap) = world.subscribe("00000001-1");
        let mut first = Answer::new(gap, 10, 1 << 20, true);
        // Overtaken before it was filled: the second gap has to wait for the next call.
        world.publish(&["e", "f", "g"]);
        assert_eq!(first.fill(&mut subscription), Filled::Ready);
        let text = world.finish(first, &subscription);
        assert!(text.contains("\"events\":[],\"next\":\"00000001-2\""), "{text}");
        assert!(text.contains("\"from\":2,\"to\":3,\"count\":1"), "{text}");
        let second = world.poll("00000001-2", 10, 1 << 20, true);
        assert!(second.contains("\"from\":3,\"to\":6,\"count\":3"), "{second}");
        assert!(second.contains(&format!("[{},{}]", event(6, "f"), event(7, "g"))), "{second}");
    }

    #[test]
    fn a_gap_after_events_is_left_to_the_next_answer() {
        let mut world = World::new(2);
        let (mut subscription, gap) = world.subscribe("00000001-0");
        let mut filling = Answer::new(gap, 10, 1 << 20, true);
        world.publish(&["a"]);
        assert_eq!(filling.fill(&mut subscription), Filled::Ready);
        world.publish(&["b", "c", "d"]);
        assert_eq!(filling.fill(&mut subscription), Filled::Ready);
        assert_eq!(world.finish(filling, &subscription), answer(&[event(1, "a")], 1));
    }

    #[test]
    fn a_snapshot_is_told_in_pieces_that_fit_together() {
        let mut world = World::new(2);
        world.publish(&["a", "b", "c", "d", "e"]);
        let one = |after: Option<&str>| {
            let start =
                after.map_or(Start::Live, |after| Start::After(Requested::parse(after.as_bytes())));
            let now = Moment::default();
            let (mut subscription, gap) =
                world.hub.subscribe(Filter::all(), &start, Transport::Poll, now);
            if after.is_none() || gap.is_some() {
                subscription.request_snapshot(gap.as_ref().map_or(Seq(0), |gap| gap.from));
            }
            let mut answer = Answer::new(gap, 2, 1 << 20, true);
            while answer.fill(&mut subscription) == Filled::More {}
            world.finish(answer, &subscription)
        };
        let first = one(None);
        assert_eq!(first, answer(&[event(1, "a"), event(2, "b")], 2));
        let second = one(Some("00000001-2"));
        assert!(second.contains(&event(3, "c")) && second.contains(&event(4, "d")), "{second}");
        assert!(second.contains("\"from\":3,\"to\":4"), "{second}");
        let third = one(Some("00000001-4"));
        assert_eq!(third, answer(&[event(5, "e")], 5));
    }

    #[test]
    fn a_long_look_gives_others_their_turn() {
        let mut world = World::new(10_000);
        for _ in 0..10_000 {
            world.publisher.event("a", "{}", Moment::default());
        }
        world.publisher.commit();
        let narrow = Filter::new(vec![], vec!["z".into()], vec![]).unwrap();
        let start = Start::Since(Since::Earliest);
        let now = Moment::default();
        let (mut subscription, gap) = world.hub.subscribe(narrow, &start, Transport::Poll, now);
        let mut answer = Answer::new(gap, 10, 1 << 20, true);
        let turns: Vec<Filled> = (0..3).map(|_| answer.fill(&mut subscription)).collect();
        assert_eq!(turns, [Filled::More, Filled::More, Filled::Empty]);
    }
}
