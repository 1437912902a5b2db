//! What a crowd has counted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::order::Step;

/// Latencies above this count as this: far beyond any measurement.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;
/// Different reasons kept apart; the rest are counted together.
const REASONS_MAX: usize = 32;

/// What was received since the last reset.
#[derive(Clone, Debug)]
pub struct Tally {
    /// When counting began.
    pub since: Instant,
    /// Different events that anybody received; counted for positions only.
    pub events: u64,
    /// Events received, summed over the subscribers, repeats included.
    pub deliveries: u64,
    /// Bytes received after the heads of the answers, framing included.
    pub bytes: u64,
    /// Reads that brought some.
    pub reads: u64,
    /// Events that a subscriber skipped without being told.
    pub lost: u64,
    /// Events that a subscriber skipped right after it was told of a gap.
    pub told: u64,
    /// Gaps that were told.
    pub gaps: u64,
    /// Events that came after later ones.
    pub out_of_order: u64,
    /// Events that came again.
    pub repeated: u64,
    /// Goodbyes of the broker.
    pub byes: u64,
    /// Subscribers whose connection ended.
    pub closed: u64,
    /// The same of those that do not read.
    pub stalled_closed: u64,
    /// Nanoseconds from the stamp, or from the first sight in the crowd, to the read.
    /// Events that came again are not in it.
    pub latency: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(since: Instant) -> Tally {
        Tally {
            since,
            events: 0,
            deliveries: 0,
            bytes: 0,
            reads: 0,
            lost: 0,
            told: 0,
            gaps: 0,
            out_of_order: 0,
            repeated: 0,
            byes: 0,
            closed: 0,
            stalled_closed: 0,
            latency: times(),
        }
    }

    /// An event came that nobody had yet: its spread begins here.
    pub(super) fn first_of_all(&mut self) {
        self.events += 1;
        self.latency.saturating_record(0);
    }

    /// An event came. `gap_told`: the subscriber was told of a gap since the last one.
    pub(super) fn delivery(&mut self, step: Step, gap_told: bool) {
        self.deliveries += 1;
        match step {
            Step::Ahead { skipped } if gap_told => self.told += skipped,
            Step::Ahead { skipped } => self.lost += skipped,
            Step::Late => {
                // It was counted as lost when it was skipped.
                self.lost = self.lost.saturating_sub(1);
                self.out_of_order += 1;
            }
            Step::Stale => self.out_of_order += 1,
            Step::Repeated => self.repeated += 1,
        }
    }
}

/// How the opening of a crowd went.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Connections that became subscribers, stalled ones included.
    pub open: usize,
    /// Connections that did not.
    pub failed: usize,
    /// How many failed for which reason: a status line or an error of the system.
    pub reasons: BTreeMap<String, usize>,
    /// Nanoseconds from the connect to the end of the answer's head.
    pub time: Histogram<u64>,
}

impl Opened {
    pub(super) fn new() -> Opened {
        Opened { open: 0, failed: 0, reasons: BTreeMap::new(), time: times() }
    }

    pub(super) fn failed(&mut self, reason: String) {
        self.failed += 1;
        let is_known = self.reasons.contains_key(&reason);
        let is_kept = is_known || self.reasons.len() < REASONS_MAX;
        let reason = if is_kept { reason } else { "other reasons".to_owned() };
        *self.reasons.entry(reason).or_default() += 1;
    }
}

fn times() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX.as_nanos() as u64, LATENCY_DIGITS)
        .expect("the bounds are in the range that histograms have")
}

#[cfg(test)]
mod tests {
    use super::{super::order::Order, *};

    #[test]
    fn losses_told_and_untold_and_what_comes_late_after_all() {
        let mut tally = Tally::new(crate::load::now());
        let mut order = Order::default();
        for (seq, gap_told) in [(1, false), (5, false), (3, false), (3, false), (9, true)] {
            tally.delivery(order.take(seq), gap_told);
        }
        let Tally { deliveries, lost, told, out_of_order, repeated, .. } = tally;
        assert_eq!((deliveries, lost, told, out_of_order, repeated), (5, 2, 3, 1, 1));
    }

    #[test]
    fn reasons_are_bounded() {
        let mut opened = Opened::new();
        for number in 0..100 {
            opened.failed(format!("reason {number}"));
            opened.failed("reason 0".to_owned());
        }
        assert_eq!((opened.failed, opened.reasons.len()), (200, REASONS_MAX + 1));
        assert_eq!(opened.reasons["reason 0"], 101);
        assert_eq!(opened.reasons["other reasons"], 100 - REASONS_MAX);
    }
}
