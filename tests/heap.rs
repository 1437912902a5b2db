//! What a subscriber, a delivery and an event cost in memory: bytes held and allocations made,
//! counted by an allocator that counts its thread's own.
//!
//! Law: a count is what it is on every machine and in every run (of this target: 64 bits). A bound
//! is the very count it had when it was set, so one allocation more fails. Who saves one lowers
//! the bound. Tables that double now and then (hash maps, the list of groups) are left out, since
//! what is taken is the median; to grow a buffer counts as one allocation more.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../benches/sample/mod.rs"]
mod sample;

use std::{
    pin::pin,
    task::{Context, Waker},
};

use allocation_counter::{AllocationInfo, measure};
use fanlight::{model::Filter, transport::Step};

use sample::{By, Concerned, TARGET, World};

/// Times that each thing is done. Odd, so that the median is one of them.
const TIMES: usize = 101;

/// Records in the rings here. A quarter of it is more than [`TIMES`]: every quarter all groups
/// are woken.
const RING_EVENTS: usize = 1_024;

/// Fails if a count is over its bound.
#[track_caller]
fn at_most(bound: u64, count: u64, what: &str) {
    println!("{what}: {count}");
    assert!(count <= bound, "{what}: {count}, at most {bound} are allowed");
}

/// The median of what was counted: allocations made, and bytes held at the end.
fn median(counted: impl IntoIterator<Item = AllocationInfo>) -> (u64, u64) {
    let (mut allocations, mut bytes): (Vec<_>, Vec<_>) =
        counted.into_iter().map(|info| (info.count_total, info.bytes_current)).unzip();
    allocations.sort_unstable();
    bytes.sort_unstable();
    let held = bytes[bytes.len() / 2];
    (allocations[allocations.len() / 2], u64::try_from(held).expect("no more freed than taken"))
}

/// Opens subscribers that stay, and gives what one costs.
fn idle(query: impl Fn(usize) -> String) -> (u64, u64) {
    let mut world = World::full(RING_EVENTS);
    let first = world.session(&query(0));
    let mut sessions = Vec::with_capacity(TIMES);
    let queries: Vec<_> = (1..=TIMES).map(query).collect();
    let counts =
        queries.iter().map(|query| measure(|| sessions.push(Box::new(world.session(query)))));
    let counts = median(counts.collect::<Vec<_>>());
    drop((first, sessions));
    counts
}

#[test]
fn an_idle_subscriber_holds_its_session_and_a_place_in_a_group() {
    let (_, bytes) = idle(|_| "prefix=greenhouse/".to_owned());
    at_most(408, bytes, "bytes of an idle SSE subscriber in a group that is there");
}

#[test]
fn an_idle_subscriber_with_a_filter_of_its_own_holds_a_group_too() {
    let (_, bytes) = idle(|index| format!("prefix=greenhouse/bay-{index:04}/"));
    at_most(896, bytes, "bytes of an idle SSE subscriber with a filter of one prefix of its own");
}

#[test]
fn a_delivery_of_one_record_shares_its_bytes() {
    let mut world = World::full(RING_EVENTS);
    let mut session = world.session("prefix=greenhouse/");
    let target = sample::event(TARGET);
    let mut delivers = Vec::with_capacity(TIMES);
    let mut waits = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        world.rest(&mut session);
        world.append(&target);
        let mut step = None;
        delivers.push(measure(|| step = Some(world.step(&mut session))));
        assert!(matches!(&step, Some(Step::Write(write)) if write.events == 1));
        waits.push(measure(|| step = Some(world.step(&mut session))));
        assert!(matches!(step, Some(Step::Wait { .. })));
    }
    // The list of what goes out.
    at_most(1, median(delivers).0, "allocations of a step that delivers one record");
    at_most(0, median(waits).0, "allocations of a step that waits");
}

#[test]
fn a_delivery_of_many_records_joins_them_once() {
    let mut world = World::full(RING_EVENTS);
    let mut session = world.session("prefix=greenhouse/");
    let target = sample::event(TARGET);
    let mut delivers = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        for _ in 0..32 {
            world.append(&target);
        }
        let mut step = None;
        delivers.push(measure(|| step = Some(world.step(&mut session))));
        assert!(matches!(&step, Some(Step::Write(write)) if write.events == 32));
        world.rest(&mut session);
    }
    // The list, which grows from 4 to 32, and the bytes.
    at_most(6, median(delivers).0, "allocations of a step that delivers 32 records");
}

/// What it takes to append an event with such subscribers.
fn append(filters: Vec<Filter>) -> u64 {
    let mut world = World::full(RING_EVENTS);
    let target = sample::event(TARGET);
    // What is evicted is to be as large as what comes.
    (0..RING_EVENTS).for_each(|_| world.append(&target));
    let subscriptions: Vec<_> = filters.into_iter().map(|filter| world.subscribe(filter)).collect();
    let counts: Vec<_> = (0..TIMES).map(|_| measure(|| world.append(&target))).collect();
    drop(subscriptions);
    let (allocations, bytes) = median(counts);
    assert_eq!(bytes, 0, "a full ring lets go of as much as it takes in");
    allocations
}

#[test]
fn an_event_costs_the_same_allocations_whatever_the_filters() {
    // The position as text, which grows once; the name as JSON; the buffer; what shares it.
    at_most(5, append(vec![]), "allocations of an event that concerns no one");
    let other = sample::filters(By::Prefix, 1_000, Concerned::None);
    at_most(5, append(other), "allocations of an event that concerns none of 1,000 groups");
    let one = sample::filters(By::Prefix, 1_000, Concerned::One);
    // And the list of groups to wake.
    at_most(6, append(one), "allocations of an event that concerns one of 1,000 groups");
}

#[test]
fn to_wake_a_subscriber_of_a_group_allocates_nothing() {
    let woken = |members: usize| {
        let mut world = World::full(RING_EVENTS);
        let filter = sample::filters(By::Prefix, 1, Concerned::One).remove(0);
        let mut subscriptions: Vec<_> =
            (0..members).map(|_| world.subscribe(filter.clone())).collect();
        let target = sample::event(TARGET);
        let mut context = Context::from_waker(Waker::noop());
        let mut waits: Vec<_> =
            subscriptions.iter_mut().map(|subscription| Box::pin(subscription.woken())).collect();
        // Once for each, so that it is filed as one who waits.
        waits.iter_mut().for_each(|wait| assert!(wait.as_mut().poll(&mut context).is_pending()));
        let count = measure(|| world.append(&target)).count_total;
        waits.iter_mut().for_each(|wait| assert!(wait.as_mut().poll(&mut context).is_ready()));
        drop(waits);
        count
    };
    let (one, many) = (woken(1), woken(1_001));
    at_most(0, many - one, "allocations to wake 1,000 more subscribers of a group");
}

#[test]
fn a_subscriber_that_wakes_allocates_nothing_to_do_so() {
    let mut world = World::full(RING_EVENTS);
    let mut subscription =
        world.subscribe(sample::filters(By::Prefix, 1, Concerned::One).remove(0));
    let target = sample::event(TARGET);
    let mut context = Context::from_waker(Waker::noop());
    let mut counts = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let mut wait = pin!(subscription.woken());
        let before = measure(|| assert!(wait.as_mut().poll(&mut context).is_pending()));
        world.append(&target);
        let after = measure(|| assert!(wait.as_mut().poll(&mut context).is_ready()));
        counts.extend([before, after]);
    }
    at_most(0, median(counts).0, "allocations to wait and to be woken");
}
