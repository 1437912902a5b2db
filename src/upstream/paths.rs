//! Two ways of the same events, the stream and webhooks, made one.
//!
//! An event is known by what is the same on both ways: name, data, time and device
//! ([`Identity`]). Of an event that the stream brought m times and webhooks n times,
//! max(m, n) are passed on, in the order in which they came: so a copy by the other way is dropped,
//! and true twins, which a device may publish within one millisecond, are not.
//!
//! A webhook whose answer was lost is sent again: what comes again by webhook more than
//! [`TWIN_MAX`] after the last is taken for that, and not for a twin.
//!
//! The law: nothing is dropped that was not passed on once for it. What is older than [`WINDOW`], or
//! beyond [`EVENTS_MAX`], is forgotten, and its copy is then passed on again: a repeat is preferred to
//! a loss.
//!
//! Pure: time is passed in.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use super::webhook::Identity;

/// How long an event is remembered after it first came. Webhooks come within seconds; an hour is for
/// those that are sent again.
pub const WINDOW: Duration = Duration::from_secs(3600);
/// Events remembered at most; about 8 MiB of them.
pub const EVENTS_MAX: usize = 65_536;
/// Twins are posted at the same time, each by itself; a second attempt comes after a time-out of
/// several seconds.
pub const TWIN_MAX: Duration = Duration::from_secs(2);

/// Which way an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the stream, or the streams that were made one.
    Stream,
    /// By a webhook.
    Webhook,
}

/// What came by either way lately.
#[derive(Debug)]
pub struct Paths {
    /// Keyed afresh in each process, so that nobody can make two events meet. Two of them:
    /// 128 bits, since a collision would be a loss.
    hashers: [RandomState; 2],
    seen: HashMap<u128, Seen>,
    /// When each was first seen, oldest first.
    order: VecDeque<(u64, u128)>,
    counts: Counts,
}

/// What was decided, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copies dropped that the stream brought.
    pub of_stream: u64,
    /// Copies dropped that webhooks brought.
    pub of_webhooks: u64,
    /// Events that were forgotten before their time, because there were too many.
    pub overflows: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    by_stream: u32,
    by_webhook: u32,
    webhook_us: u64,
}

const WINDOW_US: u64 = WINDOW.as_micros() as u64;
const TWIN_MAX_US: u64 = TWIN_MAX.as_micros() as u64;

impl Default for Paths {
    fn default() -> Paths {
        Paths::new()
    }
}

impl Paths {
    /// Nothing has come yet.
    pub fn new() -> Paths {
        Paths {
            hashers: [RandomState::new(), RandomState::new()],
            seen: HashMap::new(),
            order: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// True if an event that came this way is to be passed on.
    pub fn is_new(&mut self, way: Way, identity: &Identity, now_us: u64) -> bool {
        self.forget(now_us);
        let [high, low] = [0, 1].map(|which: usize| self.hashers[which].hash_one(identity));
        let key = (u128::from(high) << 64) | u128::from(low);
        let seen = self.seen.entry(key).or_insert_with(|| {
            self.order.push_back((now_us, key));
            Seen::default()
        });
        let passed = seen.by_stream.max(seen.by_webhook);
        let count = match way {
            Way::Stream => {
                seen.by_stream += 1;
                seen.by_stream
            }
            Way::Webhook => {
                if seen.by_webhook == 0 || now_us <= seen.webhook_us.saturating_add(TWIN_MAX_US) {
                    seen.by_webhook += 1;
                    seen.webhook_us = now_us;
                    seen.by_webhook
                } else {
                    // The same one again.
                    0
                }
            }
        };
        if count > passed {
            return true;
        }
        match way {
            Way::Stream => self.counts.of_stream += 1,
            Way::Webhook => self.counts.of_webhooks += 1,
        }
        false
    }

    /// What was decided so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Events remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// True if no event is remembered.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    fn forget(&mut self, now_us: u64) {
        while let Some(&(at_us, key)) = self.order.front() {
            let is_old = at_us.saturating_add(WINDOW_US) < now_us;
            let is_too_many = self.order.len() >= EVENTS_MAX;
            if !is_old && !is_too_many {
                return;
            }
            self.counts.overflows += u64::from(!is_old);
            self.order.pop_front();
            self.seen.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(number: u32) -> Identity {
        let line = format!(
            r#"{{"data":"{number}","published_at":"2026-05-04T09:00:01.104Z","coreid":"e00f"}}"#
        );
        Identity::of_line("a", &line).expect("a line that says which event it is")
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_copy_by_the_other_way_is_dropped_whichever_came_first() {
        let mut paths = Paths::new();
        assert!(paths.is_new(Way::Stream, &event(1), 0));
        assert!(!paths.is_new(Way::Webhook, &event(1), SECOND));
        assert!(paths.is_new(Way::Webhook, &event(2), SECOND));
        assert!(!paths.is_new(Way::Stream, &event(2), 5 * SECOND));
        let expected = Counts { of_stream: 1, of_webhooks: 1, overflows: 0 };
        assert_eq!(paths.counts(), expected);
    }

    #[test]
    fn a_webhook_that_is_sent_again_is_the_same_one_and_twins_are_two() {
        let mut paths = Paths::new();
        assert!(paths.is_new(Way::Webhook, &event(1), 0));
        assert!(paths.is_new(Way::Webhook, &event(1), SECOND), "a twin");
        assert!(!paths.is_new(Way::Webhook, &event(1), 20 * SECOND), "sent again");
        assert!(!paths.is_new(Way::Webhook, &event(1), 21 * SECOND), "and again");
        assert!(!paths.is_new(Way::Stream, &event(1), 22 * SECOND));
        assert!(!paths.is_new(Way::Stream, &event(1), 22 * SECOND));
        assert!(paths.is_new(Way::Stream, &event(1), 22 * SECOND), "a third one of the stream's");
    }

    #[test]
    fn what_is_forgotten_is_repeated_and_never_lost() {
        let mut paths = Paths::new();
        assert!(paths.is_new(Way::Stream, &event(1), 0));
        assert!(!paths.is_new(Way::Webhook, &event(1), WINDOW_US));
        assert!(paths.is_new(Way::Webhook, &event(1), WINDOW_US + 1));
        let mut paths = Paths::new();
        for number in 0..70_000 {
            assert!(paths.is_new(Way::Stream, &event(number), 1));
            assert!(paths.len() <= EVENTS_MAX);
        }
        assert_eq!(paths.counts().overflows, 70_000 - EVENTS_MAX as u64);
        assert!(paths.is_new(Way::Webhook, &event(0), 2));
        assert!(!paths.is_new(Way::Webhook, &event(69_999), 2));
    }

    proptest! {
        /// Any order of arrivals within a moment: of each event as many pass as the way that
        /// brought more of them brought, and at each time no fewer than either has brought.
        #[test]
        fn of_each_as_many_pass_as_either_brought(
            arrivals in prop::collection::vec((any::<bool>(), 0_u32..6), 0..80)
        ) {
            let mut paths = Paths::new();
            let mut brought: HashMap<(bool, u32), u32> = HashMap::new();
            let mut passed: HashMap<u32, u32> = HashMap::new();
            for (by_stream, number) in arrivals {
                let way = if by_stream { Way::Stream } else { Way::Webhook };
                *brought.entry((by_stream, number)).or_default() += 1;
                *passed.entry(number).or_default() +=
                    u32::from(paths.is_new(way, &event(number), SECOND));
                let count = |way| brought.get(&(way, number)).copied().unwrap_or(0);
                prop_assert_eq!(passed[&number], count(true).max(count(false)));
            }
        }
    }
}
