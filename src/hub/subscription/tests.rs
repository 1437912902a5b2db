use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    hub::{Config, Hub, Publisher},
    log::Log,
    model::{
        Hole, HoleReason,
        filter::tests::{any_filter, filter},
        resume::Requested,
        ring,
    },
    telemetry::Telemetry,
};

fn hub(events_max: usize) -> (Hub, Publisher) {
    let config = Config {
        ring: ring::Limits { events_max, bytes_max: 1 << 24 },
        latest_entries_max: 1000,
        latest_bytes_max: 1 << 24,
    };
    let log = Log::memory(Epoch::from_bits(1));
    Hub::new(config, log, Arc::new(Telemetry::new()), Moment::default())
}

fn publish(publisher: &mut Publisher, name: &str, device: &str) {
    publisher.event(name, &format!("{{\"coreid\":\"{device}\"}}"), Moment::default());
    publisher.commit();
}

/// The receiver of a subscription that is attached to no doorbell.
fn own(subscription: &mut Subscription) -> &mut watch::Receiver<Seq> {
    match &mut subscription.wakes {
        Wakes::Own(woken) => woken,
        Wakes::Doorbell(_) => panic!("attached to a doorbell"),
    }
}

const BUDGET: Budget = Budget { records: 1000, bytes: 1 << 20 };

/// Everything a subscription has to say until it waits.
fn drain(subscription: &mut Subscription, budget: Budget) -> Vec<Heard> {
    let mut heard = Vec::new();
    loop {
        let examined = subscription.examine(budget, |record| {
            heard.push(Heard::Record(record.seq()));
            record.bytes()
        });
        match examined {
            Examined::All => return heard,
            Examined::More => {}
            Examined::Gap(gap) => heard.push(Heard::Gap(gap)),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Record(Seq),
    Gap(Gap),
}

#[derive(Clone, Debug)]
enum Step {
    /// Appends a batch; an empty name is a hole.
    Append(Vec<(String, String)>),
    Examine {
        subscriber: usize,
        records: usize,
        bytes: usize,
    },
    Subscribe {
        filter: Filter,
        back: u64,
    },
    Refilter {
        subscriber: usize,
        filter: Filter,
    },
    Leave {
        subscriber: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => vec(("[ab/]{0,3}", "[de]{1,2}"), 1..6).prop_map(Step::Append),
        4 => (0usize..4, 1usize..9, 1usize..2000)
            .prop_map(|(subscriber, records, bytes)| Step::Examine { subscriber, records, bytes }),
        2 => (any_filter(), 0u64..12).prop_map(|(filter, back)| Step::Subscribe { filter, back }),
        1 => (0usize..4, any_filter()).prop_map(|(subscriber, filter)| Step::Refilter { subscriber, filter }),
        1 => (0usize..4).prop_map(|subscriber| Step::Leave { subscriber }),
    ]
}

/// A subscriber and what the naive model says about it: the next seq that is
/// neither delivered, nor filtered out, nor declared lost.
struct Modelled {
    subscription: Subscription,
    filter: Filter,
    next: u64,
}

/// The naive model keeps every record in a Vec, by seq.
struct Naive {
    records: Vec<(String, String)>,
}

impl Naive {
    fn tail(&self) -> u64 {
        self.records.len() as u64 + 1
    }

    fn passes(&self, filter: &Filter, seq: u64) -> bool {
        let (name, device) = &self.records[seq as usize - 1];
        name.is_empty() || filter.passes(name, Some(device))
    }

    /// Checks what was heard against a loop over the Vec.
    fn check(&self, modelled: &mut Modelled, heard: &[Heard], events_max: usize) {
        for heard in heard {
            match heard {
                Heard::Record(seq) => {
                    assert!(self.passes(&modelled.filter, seq.0), "{seq} does not pass");
                    for skipped in modelled.next..seq.0 {
                        assert!(
                            !self.passes(&modelled.filter, skipped),
                            "{skipped} was lost in silence"
                        );
                    }
                    assert!(seq.0 >= modelled.next, "{seq} out of order or twice");
                    modelled.next = seq.0 + 1;
                }
                Heard::Gap(gap) => {
                    assert_eq!(gap.reason, GapReason::Overtaken);
                    assert!(gap.from < gap.to, "a gap that lost nothing");
                    assert!(gap.from.0 >= modelled.next, "declared lost after it was delivered");
                    for skipped in modelled.next..gap.from.0 {
                        assert!(
                            !self.passes(&modelled.filter, skipped),
                            "{skipped} was lost in silence"
                        );
                    }
                    assert_eq!(gap.count, Some(gap.to.0 - gap.from.0));
                    assert!(
                        gap.to.0 + events_max as u64 == self.tail(),
                        "{gap:?}: still in the ring"
                    );
                    modelled.next = gap.next.0;
                }
            }
        }
    }

    /// After everything was examined, nothing that passes may be left.
    fn check_all(&self, modelled: &Modelled) {
        for left in modelled.next..self.tail() {
            assert!(!self.passes(&modelled.filter, left), "{left} was not delivered");
        }
    }
}

proptest! {
    /// Random appends, evictions, cursors, filters and budgets, against a Vec and a loop.
    #[test]
    fn every_record_is_delivered_once_or_declared(steps in vec(any_step(), 1..120), events_max in 1usize..12) {
        let (hub, mut publisher) = hub(events_max);
        let mut naive = Naive { records: Vec::new() };
        let mut subscribers: Vec<Modelled> = Vec::new();
        for step in steps {
            match step {
                Step::Append(batch) => {
                    for (name, device) in &batch {
                        if name.is_empty() {
                            let hole = Hole { reason: HoleReason::Reset, since_ms: 0, until_ms: 0 };
                            publisher.hole(&hole, Moment::default());
                        } else {
                            publisher.event(name, &format!("{{\"coreid\":\"{device}\"}}"), Moment::default());
                        }
                    }
                    publisher.commit();
                    naive.records.extend(batch);
                }
                Step::Examine { subscriber, records, bytes } => {
                    let Some(modelled) = subscribers.get_mut(subscriber) else { continue };
                    let mut heard = Vec::new();
                    let examined = modelled.subscription.examine(Budget { records, bytes }, |record| {
                        heard.push(Heard::Record(record.seq()));
                        record.bytes()
                    });
                    let is_all = examined == Examined::All;
                    if let Examined::Gap(gap) = examined {
                        heard.push(Heard::Gap(gap));
                    }
                    naive.check(modelled, &heard, events_max);
                    if is_all {
                        naive.check_all(modelled);
                        assert_eq!(modelled.subscription.cursor.0, naive.tail());
                    }
                }
                Step::Subscribe { filter, back } => {
                    if subscribers.len() == 4 {
                        continue;
                    }
                    let seq = Seq(naive.tail().saturating_sub(1 + back));
                    let position = Position { epoch: hub.epoch(), seq };
                    let start = Start::After(Requested::from(position));
                    let (subscription, gap) =
                        hub.subscribe(filter.clone(), &start, Transport::Sse, Moment::default());
                    let oldest = naive.tail().saturating_sub(events_max as u64).max(1);
                    let next = (seq.0 + 1).max(oldest);
                    assert_eq!(gap.is_some(), seq.0 + 1 < oldest);
                    subscribers.push(Modelled { subscription, filter, next });
                }
                Step::Refilter { subscriber, filter } => {
                    let Some(modelled) = subscribers.get_mut(subscriber) else { continue };
                    // The cursor stays, so the model's does: what it passed is passed.
                    modelled.next = modelled.next.max(modelled.subscription.cursor.0);
                    modelled.subscription.refilter(filter.clone());
                    modelled.filter = filter;
                }
                Step::Leave { subscriber } => {
                    if subscriber < subscribers.len() {
                        subscribers.swap_remove(subscriber);
                    }
                }
            }
        }
        for mut modelled in subscribers {
            let heard = drain(&mut modelled.subscription, BUDGET);
            naive.check(&mut modelled, &heard, events_max);
            naive.check_all(&modelled);
        }
        prop_assert_eq!(hub.subscribers(), 0);
        prop_assert_eq!(hub.status().groups, 0);
    }
}

#[test]
fn a_sleeper_is_not_overtaken_by_what_does_not_concern_it() {
    let (hub, mut publisher) = hub(10);
    let narrow = filter(&["z"], &[], &[]);
    let (mut subscription, _) =
        hub.subscribe(narrow, &Start::Live, Transport::Sse, Moment::default());
    publish(&mut publisher, "a", "d");
    assert!(!own(&mut subscription).has_changed().unwrap(), "it is not its business");
    for _ in 0..99 {
        publish(&mut publisher, "a", "d");
    }
    publish(&mut publisher, "z", "d");
    publish(&mut publisher, "a", "d");
    assert!(own(&mut subscription).has_changed().unwrap());
    assert_eq!(drain(&mut subscription, BUDGET), [Heard::Record(Seq(101))]);
    assert_eq!(subscription.position().seq, Seq(102), "all of it was examined");
}

#[test]
fn a_sleeper_whose_own_records_were_evicted_is_told_from_the_first_of_them() {
    let (hub, mut publisher) = hub(10);
    let narrow = filter(&["z"], &[], &[]);
    let (mut subscription, _) =
        hub.subscribe(narrow, &Start::Live, Transport::Sse, Moment::default());
    for name in ["a", "a", "z", "a", "z"].into_iter().chain(["a"; 20]) {
        publish(&mut publisher, name, "d");
    }
    let gap = Gap {
        reason: GapReason::Overtaken,
        requested: Some("00000001-2".into()),
        from: Seq(3),
        to: Seq(16),
        count: Some(13),
        oldest: Seq(16),
        next: Seq(16),
    };
    assert_eq!(drain(&mut subscription, BUDGET), [Heard::Gap(gap)]);
}

#[test]
fn a_wake_between_looking_and_waiting_is_not_lost() {
    let (hub, mut publisher) = hub(10);
    let (mut subscription, _) =
        hub.subscribe(Filter::all(), &Start::Live, Transport::Sse, Moment::default());
    assert_eq!(drain(&mut subscription, BUDGET), []);
    publish(&mut publisher, "a", "d");
    // Looked before, waits after: the wake is still there.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), subscription.woken()).await.unwrap();
    });
    assert_eq!(drain(&mut subscription, BUDGET), [Heard::Record(Seq(1))]);
    hub.close(Moment::default(), Duration::ZERO);
    assert!(own(&mut subscription).has_changed().unwrap(), "closing wakes too");
}

#[test]
fn a_snapshot_and_the_records_after_it_hold_every_newest_value() {
    let (hub, mut publisher) = hub(100);
    for (name, device) in [("a", "d"), ("b", "d"), ("a", "e"), ("a", "d")] {
        publish(&mut publisher, name, device);
    }
    let (mut subscription, _) =
        hub.subscribe(filter(&["a"], &[], &[]), &Start::Live, Transport::Sse, Moment::default());
    subscription.request_snapshot(Seq(0));
    let mut seqs = Vec::new();
    let one = Budget { records: 1, bytes: 1 };
    let more = subscription.examine_snapshot(one, |record| {
        seqs.push(record.seq().0);
        1
    });
    assert!(more);
    // Replaced on the way: it comes with the records instead.
    publish(&mut publisher, "a", "d");
    while subscription.examine_snapshot(one, |record| {
        seqs.push(record.seq().0);
        1
    }) {}
    assert_eq!(seqs, [3]);
    assert_eq!(drain(&mut subscription, BUDGET), [Heard::Record(Seq(5))]);
    assert_eq!(hub.latest(&Filter::all(), crate::model::Format::Json).len(), 3);
}

#[test]
fn each_batch_wakes_again_and_sleepers_wake_each_quarter_of_the_ring() {
    let (hub, mut publisher) = hub(40);
    let open = |filter| hub.subscribe(filter, &Start::Live, Transport::Sse, Moment::default()).0;
    let (mut all, mut sleeper) = (open(Filter::all()), open(filter(&["z"], &[], &[])));
    let mut slept_through = Vec::new();
    for number in 1..=25 {
        publish(&mut publisher, "a", "d");
        assert!(own(&mut all).has_changed().unwrap(), "batch {number}");
        own(&mut all).borrow_and_update();
        if own(&mut sleeper).has_changed().unwrap() {
            own(&mut sleeper).borrow_and_update();
            slept_through.push(number);
        }
    }
    assert_eq!(slept_through, [10, 20]);
}

#[test]
fn lag_is_what_is_left_to_examine() {
    let (hub, mut publisher) = hub(40);
    let open = |filter| hub.subscribe(filter, &Start::Live, Transport::Sse, Moment::default()).0;
    let (mut all, sleeper) = (open(Filter::all()), open(filter(&["z"], &[], &[])));
    for _ in 0..5 {
        publish(&mut publisher, "a", "d");
    }
    let lag_of = |id| {
        let statuses = hub.subscriber_statuses();
        statuses.iter().find(|status| status.id == id).map(|status| status.lag_events)
    };
    assert_eq!((lag_of(all.id()), lag_of(sleeper.id())), (Some(5), Some(0)));
    let two = Budget { records: 2, bytes: 1 << 20 };
    let mut heard = Vec::new();
    let examined = all.examine(two, |record| {
        heard.push(record.seq().0);
        record.bytes()
    });
    assert_eq!((examined, heard), (Examined::More, vec![1, 2]));
    assert_eq!(lag_of(all.id()), Some(3));
    drain(&mut all, BUDGET);
    assert_eq!(lag_of(all.id()), Some(0));
}

#[test]
fn a_snapshot_ends_at_the_cursor_not_at_the_tail() {
    let (hub, mut publisher) = hub(100);
    for name in ["a", "b", "c"] {
        publish(&mut publisher, name, "d");
    }
    let position = Position { epoch: hub.epoch(), seq: Seq(1) };
    let start = Start::After(Requested::from(position));
    let (mut subscription, _) =
        hub.subscribe(Filter::all(), &start, Transport::Sse, Moment::default());
    subscription.request_snapshot(Seq(0));
    let mut seqs = Vec::new();
    while subscription.examine_snapshot(BUDGET, |record| {
        seqs.push(record.seq().0);
        1
    }) {}
    assert_eq!(seqs, [1], "the others come with the records, once");
    assert_eq!(drain(&mut subscription, BUDGET), [2, 3].map(|seq| Heard::Record(Seq(seq))));
}

#[test]
fn a_refused_name_leaves_a_gap_and_a_reserved_one_leaves_nothing() {
    let (hub, mut publisher) = hub(100);
    publish(&mut publisher, "fanlight.gap", "d");
    assert_eq!(hub.status().tail, Seq(1));
    publish(&mut publisher, "a\nb", "d");
    let status = hub.status();
    assert_eq!((status.tail, status.ring_events, status.latest_entries), (Seq(2), 1, 0));
}

#[test]
fn the_upstream_s_history_has_no_repeats_and_knows_when_it_was_live() {
    let (hub, mut publisher) = hub(100);
    let at = |wall_ms| Moment { wall_ms, mono_us: wall_ms * 1000 };
    let states = [
        (UpstreamState::Live, 1),
        (UpstreamState::Live, 2),
        (UpstreamState::BackingOff, 3),
        (UpstreamState::Connecting, 4),
    ];
    for (state, wall_ms) in states {
        publisher.upstream(state, "", at(wall_ms));
        publisher.commit();
    }
    let status = hub.status();
    let history: Vec<u64> = status.upstream_history.iter().map(|one| one.since.wall_ms).collect();
    assert_eq!(history, [0, 1, 3, 4]);
    assert_eq!(status.upstream_live_last, Some(at(3)), "it was live until then");
}
