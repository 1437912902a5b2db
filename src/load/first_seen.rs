//! When each event was first seen by any member of a crowd: events without a stamp are
//! timed, and missed, against the fastest.
//!
//! Law: the newest [`SEEN_MAX`] events are remembered; of older ones nothing is said.

use std::collections::VecDeque;

/// How many events are remembered: 16 bytes each.
pub(super) const SEEN_MAX: usize = 16_384;

/// What is known of an event that somebody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody saw it before.
    First,
    /// The first saw it so many nanoseconds ago.
    After { nanos: u64 },
    /// It is too old to be remembered.
    Forgotten,
}

/// Seqs and the time of their first sight, ascending by seq.
#[derive(Debug, Default)]
pub(super) struct FirstSeen {
    seen: VecDeque<(u64, u64)>,
}

impl FirstSeen {
    /// Somebody sees `seq`.
    pub(super) fn see(&mut self, seq: u64, nanos: u64) -> Seen {
        if self.seen.back().is_none_or(|(newest, _)| *newest < seq) {
            if self.seen.len() == SEEN_MAX {
                self.seen.pop_front();
            }
            self.seen.push_back((seq, nanos));
            return Seen::First;
        }
        match self.seen.binary_search_by_key(&seq, |(seq, _)| *seq) {
            Ok(at) => Seen::After { nanos: nanos.saturating_sub(self.seen[at].1) },
            Err(_) if self.seen.len() == SEEN_MAX => Seen::Forgotten,
            Err(at) => {
                self.seen.insert(at, (seq, nanos));
                Seen::First
            }
        }
    }

    /// How many events others have seen between these two. An event that nobody else had
    /// seen by then is not counted.
    pub(super) fn between(&self, last: u64, seq: u64) -> u64 {
        let from = self.seen.partition_point(|(seen, _)| *seen <= last);
        let to = self.seen.partition_point(|(seen, _)| *seen < seq);
        to.saturating_sub(from) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_the_measure() {
        let mut first = FirstSeen::default();
        assert_eq!(first.see(10, 1_000), Seen::First);
        assert_eq!(first.see(10, 1_250), Seen::After { nanos: 250 });
        assert_eq!(first.see(13, 1_300), Seen::First);
        assert_eq!(first.see(12, 1_400), Seen::First, "seen late by the first");
        assert_eq!(first.see(12, 1_500), Seen::After { nanos: 100 });
        assert_eq!(first.between(10, 13), 1);
        assert_eq!(first.between(9, 13), 2);
        assert_eq!(first.between(13, 14), 0);
        assert_eq!(first.between(14, 13), 0);
    }

    #[test]
    fn old_ones_are_forgotten() {
        let mut first = FirstSeen::default();
        for seq in 1..=SEEN_MAX as u64 + 1 {
            first.see(2 * seq, seq);
        }
        assert_eq!(first.seen.len(), SEEN_MAX);
        assert_eq!(first.see(2, 99), Seen::Forgotten);
        assert_eq!(first.see(5, 99), Seen::Forgotten);
        assert_eq!(first.see(4, 99), Seen::After { nanos: 97 });
    }
}
