//! The order in which one connection gets its events.
//!
//! Law: what was skipped and comes later is told from what comes again, as long as it is
//! at most [`WINDOW`] behind.

/// How far back it is remembered which seqs came.
pub(super) const WINDOW: u64 = 64;

/// What a connection has got so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    /// The highest seq; 0 for none yet.
    last: u64,
    /// Bit `n`: `last - 1 - n` came too.
    before: u64,
}

/// How a seq follows on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Higher than all before; so many were skipped.
    Ahead { skipped: u64 },
    /// One that was skipped.
    Late,
    /// One that came already.
    Repeated,
    /// Too far behind to say which of the two.
    Stale,
}

impl Order {
    /// The highest seq so far; 0 for none.
    pub(super) fn last(self) -> u64 {
        self.last
    }

    /// Takes the next seq. The first is 1: what begins higher has skipped some.
    pub(super) fn take(&mut self, seq: u64) -> Step {
        if seq > self.last {
            let distance = seq - self.last;
            let shift = |bits: u64, by: u64| if by < WINDOW { bits << by } else { 0 };
            self.before = shift(self.before, distance);
            // The one that was last until now; at the start there is none.
            if self.last > 0 {
                self.before |= shift(1, distance - 1);
            }
            self.last = seq;
            return Step::Ahead { skipped: distance - 1 };
        }
        if seq == self.last {
            return Step::Repeated;
        }
        let back = self.last - 1 - seq;
        if back >= WINDOW {
            return Step::Stale;
        }
        let bit = 1 << back;
        let came = self.before & bit != 0;
        self.before |= bit;
        if came { Step::Repeated } else { Step::Late }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn steps(seqs: &[u64]) -> Vec<Step> {
        let mut order = Order::default();
        seqs.iter().map(|seq| order.take(*seq)).collect()
    }

    const NEXT: Step = Step::Ahead { skipped: 0 };

    #[test]
    fn dense_skipped_late_and_repeated() {
        assert_eq!(steps(&[1, 2, 3]), [NEXT, NEXT, NEXT]);
        assert_eq!(steps(&[4]), [Step::Ahead { skipped: 3 }]);
        assert_eq!(
            steps(&[1, 4, 4, 3, 3, 2, 1, 5]),
            [
                NEXT,
                Step::Ahead { skipped: 2 },
                Step::Repeated,
                Step::Late,
                Step::Repeated,
                Step::Late,
                Step::Repeated,
                NEXT
            ]
        );
    }

    #[test]
    fn the_window_ends() {
        let far = WINDOW + 2;
        assert_eq!(steps(&[far, 2])[1], Step::Late);
        assert_eq!(steps(&[far, 1])[1], Step::Stale);
        assert_eq!(steps(&[1, WINDOW + 1, 1])[2], Step::Repeated);
        assert_eq!(steps(&[1, u64::MAX, 1])[2], Step::Stale);
    }

    #[test]
    fn agrees_with_a_set_whatever_the_order() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let (mut order, mut came, mut last) = (Order::default(), BTreeSet::new(), 0);
            for _ in 0..100 {
                let seq = random.u64(1..120);
                let expected = match seq {
                    seq if seq > last => Step::Ahead { skipped: seq - last - 1 },
                    seq if seq < last && last - 1 - seq >= WINDOW => Step::Stale,
                    seq if came.contains(&seq) => Step::Repeated,
                    _ => Step::Late,
                };
                assert_eq!(order.take(seq), expected, "{seq} after {last}");
                came.insert(seq);
                last = last.max(seq);
            }
        }
    }
}
