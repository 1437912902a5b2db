//! The bounded window of the newest records.
//!
//! Law: records lie in strictly increasing order of seq; what is over a bound is
//! evicted from the old end, at once; the newest record always stays.
//!
//! ```text
//!   evicted │ oldest ─────────────── last │ tail
//!   ────────┼───┬───┬───┬───┬───┬───┬─────┼──────▶ seq
//!           │ 5 │ 6 │ 7 │ 8 │ 9 │10 │ 11  │ 12
//! ```

use std::collections::VecDeque;

use super::{
    moment::Moment,
    position::{Epoch, Seq},
    record::Record,
};

/// How much a ring keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records, at least 1.
    pub events_max: usize,
    /// Bytes, counted as [`Record::bytes`]. One record may be larger: the newest stays.
    pub bytes_max: usize,
}

/// The newest records of one epoch.
#[derive(Debug)]
pub struct Ring {
    epoch: Epoch,
    limits: Limits,
    records: VecDeque<Record>,
    bytes: usize,
    tail: Seq,
    /// Seqs from here on are known to be dense, so a range of them can be counted.
    dense_from: Seq,
    /// From here on the wall clock is known not to have gone back.
    wall_ordered_from: Seq,
    evicted: u64,
    evicted_last_at: Option<Moment>,
}

impl Ring {
    /// An empty ring; the first record will be [`Seq::FIRST`] or later.
    pub fn new(epoch: Epoch, limits: Limits) -> Ring {
        Ring {
            epoch,
            limits,
            records: VecDeque::new(),
            bytes: 0,
            tail: Seq::FIRST,
            dense_from: Seq::FIRST,
            wall_ordered_from: Seq::FIRST,
            evicted: 0,
            evicted_last_at: None,
        }
    }

    /// Takes a record in and evicts what is over a bound.
    ///
    /// # Panics
    /// If the record's seq is below the tail: the log broke its promise.
    pub fn append(&mut self, record: Record) {
        assert!(record.seq() >= self.tail, "seq {} below the tail {}", record.seq(), self.tail);
        if record.seq() != self.tail {
            self.dense_from = record.seq();
        }
        if self.back().is_some_and(|last| record.at().wall_ms < last.at().wall_ms) {
            self.wall_ordered_from = record.seq();
        }
        self.tail = record.seq().next();
        self.bytes += record.bytes();
        self.records.push_back(record);
        while self.records.len() > 1
            && (self.records.len() > self.limits.events_max || self.bytes > self.limits.bytes_max)
        {
            let gone = self.records.pop_front().expect("more than one record");
            self.bytes -= gone.bytes();
            self.evicted += 1;
            self.evicted_last_at = Some(gone.at());
        }
    }

    /// The life of the log this ring shows.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// First seq held; the tail if nothing is.
    pub fn oldest(&self) -> Seq {
        self.records.front().map_or(self.tail, Record::seq)
    }

    /// First seq not yet given out.
    pub fn tail(&self) -> Seq {
        self.tail
    }

    /// Records held.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True if no record is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes held, counted as [`Record::bytes`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records evicted since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// A quarter of the records that fit: of the bound on events, or of those held once
    /// the ring has begun to evict (by bytes that may be fewer). At least 1.
    pub fn quarter(&self) -> u64 {
        let fit = if self.evicted == 0 { self.limits.events_max } else { self.records.len() };
        (fit as u64 / 4).max(1)
    }

    /// When the newest of the evicted records had been taken in.
    pub fn evicted_last_at(&self) -> Option<Moment> {
        self.evicted_last_at
    }

    /// The bounds.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The oldest record held.
    pub fn front(&self) -> Option<&Record> {
        self.records.front()
    }

    /// The newest record held.
    pub fn back(&self) -> Option<&Record> {
        self.records.back()
    }

    /// Records from `seq` on, oldest first. What is evicted is not there: compare
    /// `seq` with [`Ring::oldest`] first.
    pub fn from(&self, seq: Seq) -> impl Iterator<Item = &Record> {
        self.records.range(self.index_of(seq)..)
    }

    /// How many records were in `[from, to)`; none if that cannot be known, because
    /// seqs of the range were skipped by the log.
    pub fn count(&self, from: Seq, to: Seq) -> Option<u64> {
        (from >= self.dense_from).then(|| to.distance_from(from))
    }

    /// First seq that was taken in at `mono_us` or later.
    pub fn first_since_mono(&self, mono_us: u64) -> Seq {
        let index = self.records.partition_point(|record| record.at().mono_us < mono_us);
        self.records.get(index).map_or(self.tail, Record::seq)
    }

    /// First seq after the last record whose wall time is before `wall_ms`. By halving;
    /// where the wall clock went back, what lies before that is looked through.
    pub fn first_since_wall(&self, wall_ms: u64) -> Seq {
        let is_before = |record: &Record| record.at().wall_ms < wall_ms;
        let ordered = self.index_of(self.wall_ordered_from);
        let (mut index, mut end) = (ordered, self.records.len());
        while index < end {
            let middle = index + (end - index) / 2;
            if is_before(&self.records[middle]) {
                index = middle + 1;
            } else {
                end = middle;
            }
        }
        if index == ordered {
            let before = self.records.range(..ordered).rposition(is_before);
            index = before.map_or(0, |before| before + 1);
        }
        self.records.get(index).map_or(self.tail, Record::seq)
    }

    /// Where `seq`, or the first record after it, lies. At once where seqs are dense.
    fn index_of(&self, seq: Seq) -> usize {
        let guess = usize::try_from(seq.distance_from(self.oldest())).unwrap_or(usize::MAX);
        match self.records.get(guess) {
            Some(record) if record.seq() == seq => guess,
            _ => self.records.partition_point(|record| record.seq() < seq),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{event::Event, position::Position};
    use proptest::{collection::vec, prelude::*};

    pub(crate) fn record(ring: &Ring, seq: Seq, name: &str, data: &str, at: Moment) -> Record {
        let event = Event::parse(name, data).unwrap();
        Record::event(&event, Position { epoch: ring.epoch(), seq }, at)
    }

    fn at(ms: u64) -> Moment {
        Moment { wall_ms: ms, mono_us: ms * 1000 }
    }

    proptest! {
        /// Against a Vec that keeps everything: the ring holds a suffix of it, the
        /// longest that both bounds allow.
        #[test]
        fn is_the_newest_suffix(
            appends in vec((1u64..3, 0usize..400), 1..80), events_max in 1usize..20, bytes_max in 200usize..8_000,
            probe in 0u64..200,
        ) {
            let mut ring = Ring::new(Epoch::from_bits(1), Limits { events_max, bytes_max });
            let mut all: Vec<Record> = Vec::new();
            for (index, (step, size)) in appends.into_iter().enumerate() {
                let seq = Seq(ring.tail().0 + step - 1);
                let record = record(&ring, seq, "a", &"x".repeat(size), at(index as u64));
                all.push(record.clone());
                ring.append(record);

                let mut kept = 0;
                let mut bytes = 0;
                for record in all.iter().rev() {
                    bytes += record.bytes();
                    if kept > 0 && (kept == events_max || bytes > bytes_max) {
                        break;
                    }
                    kept += 1;
                }
                let suffix = &all[all.len() - kept..];
                prop_assert_eq!(ring.len(), kept);
                prop_assert_eq!(ring.bytes(), suffix.iter().map(Record::bytes).sum::<usize>());
                prop_assert_eq!(ring.oldest(), suffix[0].seq());
                prop_assert_eq!(ring.evicted(), (all.len() - kept) as u64);
                let seqs: Vec<Seq> = ring.from(Seq(probe)).map(Record::seq).collect();
                let expected: Vec<Seq> =
                    suffix.iter().map(Record::seq).filter(|seq| seq.0 >= probe).collect();
                prop_assert_eq!(seqs, expected);
                let since: Seq = ring.first_since_wall(index as u64);
                prop_assert_eq!(since, ring.first_since_mono(index as u64 * 1000));
                prop_assert_eq!(since, seq);
            }
        }

        /// Against a search from the new end, with a wall clock that jumps.
        #[test]
        fn a_wall_time_is_found_through_jumps(
            walls in vec(0u64..20, 0..40), events_max in 1usize..30, wall_ms in 0u64..21,
        ) {
            let mut ring = Ring::new(Epoch::from_bits(1), Limits { events_max, bytes_max: 1 << 20 });
            for wall_ms in &walls {
                ring.append(record(&ring, ring.tail(), "a", "", Moment { wall_ms: *wall_ms, mono_us: 0 }));
            }
            let before = ring.records.iter().rposition(|record| record.at().wall_ms < wall_ms);
            let index = before.map_or(0, |before| before + 1);
            let expected = ring.records.get(index).map_or(ring.tail(), Record::seq);
            prop_assert_eq!(ring.first_since_wall(wall_ms), expected);
        }

        /// A count is given only where it is right.
        #[test]
        fn counts_are_exact_or_absent(steps in vec(1u64..3, 1..40), from in 0u64..60, width in 0u64..60) {
            let mut ring = Ring::new(Epoch::from_bits(1), Limits { events_max: 4, bytes_max: 1 << 20 });
            let mut seqs = Vec::new();
            for step in steps {
                let seq = Seq(ring.tail().0 + step - 1);
                seqs.push(seq);
                ring.append(record(&ring, seq, "a", "", Moment::default()));
            }
            let to = Seq((from + width).min(ring.tail().0));
            if let Some(count) = ring.count(Seq(from), to) {
                let exact = seqs.iter().filter(|seq| seq.0 >= from && **seq < to).count();
                prop_assert_eq!(count, exact as u64);
            }
        }
    }

    #[test]
    fn an_empty_ring() {
        let ring = Ring::new(Epoch::from_bits(1), Limits { events_max: 4, bytes_max: 100 });
        assert_eq!((ring.oldest(), ring.tail(), ring.len()), (Seq(1), Seq(1), 0));
        assert_eq!(ring.from(Seq(0)).count(), 0);
        assert_eq!(ring.first_since_wall(0), Seq(1));
    }

    #[test]
    #[should_panic(expected = "below the tail")]
    fn a_seq_is_never_given_twice() {
        let mut ring = Ring::new(Epoch::from_bits(1), Limits { events_max: 4, bytes_max: 100 });
        ring.append(record(&ring, Seq(1), "a", "", Moment::default()));
        ring.append(record(&ring, Seq(1), "a", "", Moment::default()));
    }

    #[test]
    fn a_quarter_is_of_what_fits() {
        let mut ring =
            Ring::new(Epoch::from_bits(1), Limits { events_max: 1000, bytes_max: 100_000 });
        assert_eq!(ring.quarter(), 250);
        while ring.evicted() == 0 {
            ring.append(record(&ring, ring.tail(), "a", &"x".repeat(1000), Moment::default()));
        }
        assert_eq!(ring.quarter(), ring.len() as u64 / 4);
        assert!(ring.quarter() < 25, "bounded by bytes it holds fewer");
    }
}
