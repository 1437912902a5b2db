//! The matching against a model, and what is said to be unknowable.

use proptest::prelude::*;

use super::*;
use Lane::{A, B};

const SEC: u64 = 1_000_000;

fn both_open() -> Merge {
    let mut merge = Merge::new();
    for lane in Lane::ALL {
        merge.opening(lane, 0);
        merge.opened(lane, 0);
    }
    merge
}

/// A time at which both lanes of [`both_open`] bring everything.
const LATER: u64 = SKEW_US;

fn says(merge: &mut Merge, lane: Lane, data: &str, now_us: u64) -> Verdict {
    merge.event(lane, "n", data, now_us)
}

#[test]
fn copies_go_and_true_twins_stay() {
    let mut merge = both_open();
    assert_eq!(says(&mut merge, A, "x", 1), Verdict::New);
    assert_eq!(says(&mut merge, A, "x", 2), Verdict::Twin);
    assert_eq!(says(&mut merge, B, "x", 3), Verdict::Copy);
    assert_eq!(says(&mut merge, B, "x", 4), Verdict::Copy);
    assert_eq!(says(&mut merge, B, "x", 5), Verdict::Twin, "a third one, first on this lane");
    assert_eq!(says(&mut merge, A, "x", 6), Verdict::Copy);
    assert_eq!(merge.counts(), Counts { copies: 3, twins: 2, overflows: 0 });
    assert!(merge.is_settled(6));
}

#[test]
fn name_and_data_do_not_run_together() {
    let mut merge = both_open();
    assert_eq!(merge.event(A, "ab", "c", 1), Verdict::New);
    assert_eq!(merge.event(B, "a", "bc", 1), Verdict::New);
    assert_eq!(merge.oversize(A, "ab", 99, 1), Verdict::New);
    assert_eq!(merge.oversize(B, "ab", 98, 1), Verdict::New);
    assert_eq!(merge.oversize(B, "ab", 99, 1), Verdict::Copy);
}

#[test]
fn a_lane_that_opens_may_bring_what_was_just_passed_on() {
    let mut merge = Merge::new();
    merge.opening(A, 0);
    merge.opened(A, 0);
    for (data, at_us) in [("old", 0), ("new", 6 * SEC), ("during", 9 * SEC)] {
        if data == "during" {
            merge.opening(B, 8 * SEC);
        }
        assert_eq!(says(&mut merge, A, data, at_us), Verdict::New);
    }
    merge.opened(B, 10 * SEC);
    assert_eq!(merge.behind(B, 10 * SEC), Duration::ZERO, "of the edge: it may never bring them");
    assert_eq!(says(&mut merge, B, "old", 11 * SEC), Verdict::New, "too old to be a copy");
    assert_eq!(says(&mut merge, B, "during", 11 * SEC), Verdict::Copy);
    assert_eq!(says(&mut merge, B, "new", 15 * SEC), Verdict::Copy);
    assert_eq!(says(&mut merge, A, "late", 15 * SEC), Verdict::New);
    assert_eq!(merge.behind(B, 17 * SEC), 2 * Duration::from_secs(1));
}

/// The same content each second: without care a lane that opens would stay one behind for ever,
/// and the last one would be lost with the old lane.
#[test]
fn a_content_that_repeats_is_not_lost_at_a_change() {
    for b_is_ahead in [true, false] {
        let mut merge = Merge::new();
        merge.opening(A, 0);
        merge.opened(A, 0);
        let mut passed = 0;
        let mut tick = |merge: &mut Merge, lane, at_us| {
            passed += u32::from(says(merge, lane, "tick", at_us) != Verdict::Copy);
        };
        for second in 0..60 {
            let at_us = second * SEC;
            if second == 10 {
                merge.opening(B, at_us - SEC / 2);
                merge.opened(B, at_us - SEC / 3);
            }
            if second == 40 {
                merge.closed(A);
            }
            let (a_us, b_us) = if b_is_ahead { (at_us + 50, at_us) } else { (at_us, at_us + 50) };
            let mut arrivals = Vec::new();
            if second < 40 {
                arrivals.push((a_us, A));
            }
            if second >= 10 {
                arrivals.push((b_us, B));
            }
            arrivals.sort_unstable_by_key(|(at_us, _)| *at_us);
            for (at_us, lane) in arrivals {
                tick(&mut merge, lane, at_us);
            }
        }
        assert_eq!(passed, 60, "ahead: {b_is_ahead}");
    }
}

/// What the module's documentation says cannot be known.
#[test]
fn twins_at_the_edge() {
    let edge = || {
        let mut merge = Merge::new();
        merge.opening(A, 0);
        merge.opened(A, 0);
        assert_eq!(says(&mut merge, A, "x", SEC), Verdict::New);
        merge.opening(B, 2 * SEC);
        merge.opened(B, 2 * SEC);
        // A copy of that, or its twin: nobody knows.
        assert_eq!(says(&mut merge, B, "x", 3 * SEC), Verdict::Copy);
        merge
    };
    // It was the twin, and A breaks before it brings it: lost.
    edge().closed(A);
    // It was the twin, and A brings it: two are passed on, which is right.
    assert_eq!(says(&mut edge(), A, "x", 3 * SEC), Verdict::Twin);
    // It was the copy, and both bring the twin: three, one too many.
    let mut merge = edge();
    assert_eq!(says(&mut merge, A, "x", 4 * SEC), Verdict::Twin);
    assert_ne!(says(&mut merge, B, "x", 4 * SEC), Verdict::Copy);
    // Unless they follow each other closely, as twins do.
    let mut merge = edge();
    assert_eq!(says(&mut merge, A, "y", 4 * SEC), Verdict::New);
    assert_eq!(says(&mut merge, B, "y", 4 * SEC + NEAR_US), Verdict::Copy);
    assert_eq!(says(&mut merge, A, "y", 4 * SEC + NEAR_US), Verdict::Twin);
    assert_eq!(says(&mut merge, B, "y", 4 * SEC + NEAR_US), Verdict::Copy);
}

#[test]
fn a_lane_behind_the_window_repeats_and_is_counted() {
    let mut merge = both_open();
    says(&mut merge, A, "x", LATER);
    assert_eq!(merge.behind(B, LATER + WINDOW_US), WINDOW);
    assert_eq!(says(&mut merge, B, "x", LATER + WINDOW_US + 1), Verdict::New);
    assert_eq!(merge.counts().overflows, 1);
}

#[test]
fn what_is_held_is_bounded() {
    let mut merge = both_open();
    for number in 0..(3 * OWED_MAX as u64) {
        says(&mut merge, A, &number.to_string(), number);
        assert!(merge.held() <= 2 * OWED_MAX);
    }
    assert_eq!(merge.counts().overflows, 2 * OWED_MAX as u64);
    assert_eq!(says(&mut merge, B, "0", 3 * OWED_MAX as u64), Verdict::New, "a repeat, no loss");
    // Paid debts are not kept either.
    let mut merge = both_open();
    says(&mut merge, A, "never on b", 0);
    for number in 0..(3 * OWED_MAX as u64) {
        for lane in Lane::ALL {
            says(&mut merge, lane, &number.to_string(), number);
        }
        let debts = merge.lanes[B.index()].as_ref().unwrap();
        assert!(debts.order.len() <= PAID_MIN + 4 && debts.owed.len() <= 2, "{number}");
    }
    assert_eq!(merge.counts().overflows, 0);
}

/// An event of the model: when it comes on each lane, if it does.
#[derive(Debug, Clone)]
struct Sent {
    content: u8,
    at_us: [u64; 2],
}

/// Events of few contents, so that twins abound; each comes on both lanes, within `apart_us`.
fn sent(apart_us: u64) -> impl Strategy<Value = Vec<Sent>> {
    let one = (0_u8..6, LATER..60 * SEC, 0..=apart_us, 0..=apart_us);
    let one = one.prop_map(|(content, at_us, late_a, late_b)| Sent {
        content,
        at_us: [at_us + late_a, at_us + late_b],
    });
    prop::collection::vec(one, 0..200)
}

fn arrivals(sent: &[Sent]) -> Vec<(u64, Lane, usize)> {
    let mut arrivals: Vec<_> = sent
        .iter()
        .enumerate()
        .flat_map(|(index, sent)| Lane::ALL.map(|lane| (sent.at_us[lane.index()], lane, index)))
        .collect();
    arrivals.sort_unstable_by_key(|(at_us, lane, index)| (*at_us, lane.index(), *index));
    arrivals
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Two lanes with any reordering within the window, past their edges: each event once, twins and
    /// all.
    #[test]
    fn both_lanes_give_the_multiset(sent in sent(100 * SEC)) {
        let mut merge = both_open();
        let mut passed = [0; 6];
        for (at_us, lane, index) in arrivals(&sent) {
            let content = sent[index].content;
            if says(&mut merge, lane, &content.to_string(), at_us) != Verdict::Copy {
                passed[usize::from(content)] += 1;
            }
        }
        let mut expected = [0; 6];
        for sent in &sent {
            expected[usize::from(sent.content)] += 1;
        }
        prop_assert_eq!(passed, expected);
        prop_assert_eq!(merge.counts().overflows, 0);
        prop_assert!(merge.is_settled(200 * SEC));
    }

    /// Any event may be missing on one lane: it comes on the other, and is never lost. (A later twin
    /// that pays its debt is the exception, so contents differ here.)
    #[test]
    fn what_one_lane_misses_the_other_brings(
        sent in sent(3 * SEC),
        missing in prop::collection::vec(0_u8..4, 200),
    ) {
        let mut merge = both_open();
        let mut passed = vec![0; sent.len()];
        for (at_us, lane, index) in arrivals(&sent) {
            let is_missing = match missing[index] { 0 => lane == A, 1 => lane == B, _ => false };
            let verdict = |merge: &mut Merge| says(merge, lane, &index.to_string(), at_us);
            if !is_missing && verdict(&mut merge) != Verdict::Copy {
                passed[index] += 1;
            }
        }
        prop_assert!(passed.iter().all(|times| *times == 1), "{passed:?}");
    }

    /// A renewal at any time, streams up to 2 s apart. Contents without twins: once each. With
    /// twins, in numbers that no cloud has: at most those of the edge are wrong.
    #[test]
    fn a_change_of_streams(sent in sent(2 * SEC), open_us in 5 * SEC..30 * SEC, with_twins: bool) {
        let overlap_us = 20 * SEC;
        let mut merge = Merge::new();
        merge.opening(A, 0);
        merge.opened(A, 0);
        let (mut is_opening, mut is_open, mut is_closed) = (false, false, false);
        let mut passed = HashMap::<String, i64>::new();
        let mut edge = 0;
        let (asked_us, answered_us) = (open_us - SEC / 2, open_us + SEC / 4);
        for (at_us, lane, index) in arrivals(&sent) {
            if !is_opening && at_us >= asked_us {
                merge.opening(B, asked_us);
                is_opening = true;
            }
            if !is_open && at_us >= answered_us {
                merge.opened(B, answered_us);
                is_open = true;
            }
            if !is_closed && at_us >= open_us + overlap_us {
                merge.closed(A);
                is_closed = true;
            }
            let is_served = if lane == A { !is_closed } else { is_open };
            if !is_served {
                continue;
            }
            let content =
                if with_twins { sent[index].content.to_string() } else { format!("{index}") };
            if says(&mut merge, lane, &content, at_us) != Verdict::Copy {
                *passed.entry(content).or_default() += 1;
            }
        }
        for (index, event) in sent.iter().enumerate() {
            let content = if with_twins { event.content.to_string() } else { format!("{index}") };
            *passed.entry(content).or_default() -= 1;
            edge += i64::from(event.at_us.iter().any(|at_us| at_us.abs_diff(open_us) <= 3 * SKEW_US));
        }
        let lost: i64 = passed.values().filter(|count| **count < 0).sum();
        let repeated: i64 = passed.values().filter(|count| **count > 0).sum();
        prop_assert!(repeated - lost <= if with_twins { edge } else { 0 }, "{:?}", passed);
    }
}
