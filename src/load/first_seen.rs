//! When each event was first seen by any member of a crowd: events without a stamp are
//! timed, and missed, against the fastest.
//!
//! Law: the newest [`SEEN_MAX`] events are remembered; of older ones nothing is said.

use std::collections::VecDeque;

/// How many events are remembered: 16 bytes each.
pub(super) const SEEN_MAX: usize = 16_384;

/// Seqs and the time of their first sight, ascending by seq.
#[derive(Debug, Default)]
pub(super) struct FirstSeen {
    seen: VecDeque<(u64, u64)>,
}

impl FirstSeen {
    /// Somebody sees `seq`: how many nanoseconds after the first; none if it is too old.
    pub(super) fn see(&mut self, seq: u64, nanos: u64) -> Option<u64> {
        if self.seen.back().is_none_or(|(newest, _)| *newest < seq) {
            if self.seen.len() == SEEN_MAX {
                self.seen.pop_front();
            }
            self.seen.push_back((seq, nanos));
            return Some(0);
        }
        match self.seen.binary_search_by_key(&seq, |(seq, _)| *seq) {
            Ok(at) => Some(nanos.saturating_sub(self.seen[at].1)),
            Err(_) if self.seen.len() == SEEN_MAX => None,
            Err(at) => {
                self.seen.insert(at, (seq, nanos));
                Some(0)
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
        assert_eq!(first.see(10, 1_000), Some(0));
        assert_eq!(first.see(10, 1_250), Some(250));
        assert_eq!(first.see(13, 1_300), Some(0));
        assert_eq!(first.see(12, 1_400), Some(0), "seen late by the first");
        assert_eq!(first.see(12, 1_500), Some(100));
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
        assert_eq!(first.see(2, 99), None);
        assert_eq!(first.see(5, 99), None);
        assert_eq!(first.see(4, 99), Some(97));
    }
}
