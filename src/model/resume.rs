//! Where a subscriber starts.
//!
//! Law: decided in one place. A position that can be honoured is honoured to the
//! record; one that cannot is never an error and never a silent jump: the stream
//! begins with a gap.

use std::time::Duration;

use super::{
    gap::{Gap, GapReason},
    moment::Moment,
    position::{Position, Seq},
    ring::Ring,
};

/// What a client asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Only what comes from now on.
    #[default]
    Live,
    /// What comes after a position.
    After(Requested),
    /// What came since a time.
    Since(Since),
}

/// A position as a client handed it back: any bytes at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    text: String,
    position: Option<Position>,
}

/// A time to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Everything the ring holds.
    Earliest,
    /// A duration back from now.
    Ago(Duration),
    /// A wall-clock time, Unix milliseconds.
    Wall(u64),
}

/// Where to start, and what was missed by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumption {
    /// The first seq to examine.
    pub cursor: Seq,
    /// What the subscriber is told first, if it missed something.
    pub gap: Option<Gap>,
}

// === impl Requested ===

impl Requested {
    /// Reads what a client handed back. What is no position is kept as text, cut to
    /// [`Gap::REQUESTED_CHARS_MAX`], to be shown in the gap.
    pub fn parse(bytes: &[u8]) -> Requested {
        let position = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        let shown = &bytes[..bytes.len().min(4 * Gap::REQUESTED_CHARS_MAX)];
        let text = String::from_utf8_lossy(shown).chars().take(Gap::REQUESTED_CHARS_MAX).collect();
        Requested { text, position }
    }

    /// True if it is a position, of whatever epoch.
    pub fn is_position(&self) -> bool {
        self.position.is_some()
    }
}

impl From<Position> for Requested {
    fn from(position: Position) -> Requested {
        Requested { text: position.to_string(), position: Some(position) }
    }
}

// === impl Start ===

impl Start {
    /// Decides where to start in `ring`, at the time `now`.
    pub fn resolve(&self, ring: &Ring, now: Moment) -> Resumption {
        match self {
            Start::Live => Resumption { cursor: ring.tail(), gap: None },
            Start::After(requested) => after(requested, ring),
            Start::Since(since) => from_time(*since, ring, now),
        }
    }
}

fn after(requested: &Requested, ring: &Ring) -> Resumption {
    let reason = match requested.position {
        None => GapReason::Malformed,
        Some(position) if position.epoch != ring.epoch() => GapReason::Restart,
        Some(position) if position.seq >= ring.tail() => GapReason::Future,
        Some(position) => {
            let cursor = position.seq.next();
            if cursor >= ring.oldest() {
                return Resumption { cursor, gap: None };
            }
            let gap = missed(GapReason::Evicted, Some(requested.text.clone()), cursor, ring);
            return Resumption { cursor: ring.oldest(), gap: Some(gap) };
        }
    };
    // The position says nothing about this log, so the client gets all that is held.
    // What it missed beyond that lies partly outside this epoch: no one can count it.
    let gap = Gap { count: None, ..missed(reason, Some(requested.text.clone()), Seq::FIRST, ring) };
    Resumption { cursor: ring.oldest(), gap: Some(gap) }
}

fn from_time(since: Since, ring: &Ring, now: Moment) -> Resumption {
    let (cursor, fell_out) = match since {
        Since::Earliest => (ring.oldest(), false),
        Since::Ago(ago) => {
            let ago_us = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
            let mono_us = now.mono_us.saturating_sub(ago_us);
            let fell_out = ring.evicted_last_at().is_some_and(|at| at.mono_us >= mono_us);
            (ring.first_since_mono(mono_us), fell_out)
        }
        Since::Wall(wall_ms) => {
            let fell_out = ring.evicted_last_at().is_some_and(|at| at.wall_ms >= wall_ms);
            (ring.first_since_wall(wall_ms), fell_out)
        }
    };
    // Some of the evicted records are of the time asked for; how many is forgotten.
    let gap =
        fell_out.then(|| Gap { count: None, ..missed(GapReason::Evicted, None, Seq::FIRST, ring) });
    Resumption { cursor, gap }
}

/// The gap from `from` to the oldest record held.
pub fn missed(reason: GapReason, requested: Option<String>, from: Seq, ring: &Ring) -> Gap {
    let oldest = ring.oldest();
    Gap {
        reason,
        requested,
        from,
        to: oldest,
        count: ring.count(from, oldest),
        oldest,
        next: oldest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        position::Epoch,
        ring::{Limits, tests::record},
    };
    use proptest::prelude::*;

    /// A ring that has seen `appended` records, one a second, and holds `held` of them.
    fn ring(appended: u64, held: usize) -> Ring {
        let mut ring =
            Ring::new(Epoch::from_bits(1), Limits { events_max: held, bytes_max: 1 << 20 });
        for seq in 1..=appended {
            ring.append(record(&ring, Seq(seq), "a", "", second(seq)));
        }
        ring
    }

    fn second(second: u64) -> Moment {
        Moment { wall_ms: second * 1000, mono_us: second * 1_000_000 }
    }

    fn after(text: &str) -> Start {
        Start::After(Requested::parse(text.as_bytes()))
    }

    fn gap(
        reason: GapReason,
        requested: &str,
        from: u64,
        to: u64,
        count: Option<u64>,
    ) -> Option<Gap> {
        let requested = Some(requested.to_owned());
        Some(Gap {
            reason,
            requested,
            from: Seq(from),
            to: Seq(to),
            count,
            oldest: Seq(to),
            next: Seq(to),
        })
    }

    #[test]
    fn inside_the_ring_nothing_is_missed() {
        let ring = ring(10, 4);
        for seq in 6..=10 {
            let resumption = after(&format!("00000001-{seq}")).resolve(&ring, second(10));
            assert_eq!(resumption, Resumption { cursor: Seq(seq + 1), gap: None });
        }
    }

    #[test]
    fn each_position_that_cannot_be_honoured_has_its_gap() {
        let ring = ring(10, 4);
        let cases = [
            ("00000001-5", gap(GapReason::Evicted, "00000001-5", 6, 7, Some(1))),
            ("00000001-0", gap(GapReason::Evicted, "00000001-0", 1, 7, Some(6))),
            ("00000001-11", gap(GapReason::Future, "00000001-11", 1, 7, None)),
            ("00000002-8", gap(GapReason::Restart, "00000002-8", 1, 7, None)),
            ("x<y", gap(GapReason::Malformed, "x<y", 1, 7, None)),
        ];
        for (text, gap) in cases {
            let resumption = after(text).resolve(&ring, second(10));
            let cursor = if gap.is_some() { Seq(7) } else { Seq(6) };
            assert_eq!(resumption, Resumption { cursor, gap }, "{text}");
        }
    }

    #[test]
    fn an_empty_ring_still_tells_of_a_restart() {
        let ring = ring(0, 4);
        let resumption = after("00000002-8").resolve(&ring, second(0));
        assert_eq!(resumption.gap, gap(GapReason::Restart, "00000002-8", 1, 1, None));
        assert_eq!(after("00000001-0").resolve(&ring, second(0)).gap, None);
    }

    #[test]
    fn what_a_client_sends_is_cut() {
        let requested = Requested::parse(&[0xff; 5000]);
        assert_eq!(requested.text.chars().count(), Gap::REQUESTED_CHARS_MAX);
        assert_eq!(requested.position, None);
    }

    #[test]
    fn since() {
        let ring = ring(10, 4);
        let start = |since| Start::Since(since).resolve(&ring, second(12));
        assert_eq!(start(Since::Earliest), Resumption { cursor: Seq(7), gap: None });
        assert_eq!(
            start(Since::Ago(Duration::from_secs(3))),
            Resumption { cursor: Seq(9), gap: None }
        );
        assert_eq!(start(Since::Ago(Duration::ZERO)), Resumption { cursor: Seq(11), gap: None });
        assert_eq!(start(Since::Wall(9_500)), Resumption { cursor: Seq(10), gap: None });
        // The last one evicted is of second 6, and it is second 12.
        assert!(start(Since::Ago(Duration::from_secs(6))).gap.is_some());
        assert!(start(Since::Ago(Duration::from_micros(5_999_999))).gap.is_none());
        let long_ago = start(Since::Ago(Duration::from_secs(900)));
        assert_eq!(long_ago.cursor, Seq(7));
        let gap = long_ago.gap.unwrap();
        assert_eq!(
            (gap.reason, gap.from, gap.to, gap.count),
            (GapReason::Evicted, Seq(1), Seq(7), None)
        );
        assert!(start(Since::Wall(6_000)).gap.is_some());
        assert!(start(Since::Wall(6_001)).gap.is_none());
    }

    proptest! {
        /// Whatever is asked: what is delivered and what is declared tile the log.
        #[test]
        fn delivered_and_declared_tile_the_log(appended in 0u64..30, held in 1usize..10, seq in 0u64..40) {
            let ring = ring(appended, held);
            let position = Position { epoch: ring.epoch(), seq: Seq(seq) };
            let resumption = Start::After(position.into()).resolve(&ring, second(0));
            match resumption.gap {
                None => prop_assert_eq!(resumption.cursor, Seq(seq + 1)),
                Some(gap) if gap.reason == GapReason::Evicted => {
                    prop_assert_eq!((gap.from, gap.to), (Seq(seq + 1), ring.oldest()));
                    prop_assert_eq!(gap.count, Some(gap.to.0 - gap.from.0));
                    prop_assert!(gap.count > Some(0), "a gap that lost nothing");
                    prop_assert_eq!(resumption.cursor, gap.next);
                }
                Some(gap) => {
                    prop_assert_eq!(gap.reason, GapReason::Future);
                    prop_assert!(seq >= ring.tail().0);
                    prop_assert_eq!(resumption.cursor, ring.oldest());
                }
            }
        }
    }
}
