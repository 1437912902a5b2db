//! The newest event of each (name, device).
//!
//! Law: bounded by entries and by bytes; over a bound, the entry that was updated
//! longest ago is forgotten. Entries lie in order of seq, so a reader can walk them
//! in pieces: an entry that is replaced meanwhile moves past the reader's end, where
//! the reader gets it as a live event.

use std::collections::{BTreeMap, HashMap};

use crate::model::{Record, Seq};

#[derive(Debug)]
pub(super) struct Latest {
    entries_max: usize,
    bytes_max: usize,
    by_key: HashMap<Box<str>, Seq>,
    by_seq: BTreeMap<Seq, Record>,
    bytes: usize,
    evicted: u64,
    /// The key being looked up, kept to save an allocation for each event.
    key: String,
}

/// Memory of an entry beside its record: the key's text is counted apart.
const ENTRY_OVERHEAD_BYTES: usize = 96;

impl Latest {
    pub(super) fn new(entries_max: usize, bytes_max: usize) -> Latest {
        Latest {
            entries_max,
            bytes_max,
            by_key: HashMap::new(),
            by_seq: BTreeMap::new(),
            bytes: 0,
            evicted: 0,
            key: String::new(),
        }
    }

    /// Takes an event in; it replaces the one before of the same name and device.
    /// A record larger than all there is room for is forgotten at once, alone.
    pub(super) fn update(&mut self, record: &Record) {
        write_key(&mut self.key, record);
        if cost(record) > self.bytes_max {
            if let Some(seq) = self.by_key.remove(self.key.as_str()) {
                let replaced = self.by_seq.remove(&seq).expect("each key has its record");
                self.bytes -= cost(&replaced);
            }
            self.evicted += 1;
            return;
        }
        match self.by_key.get_mut(self.key.as_str()) {
            Some(seq) => {
                let replaced = self.by_seq.remove(seq).expect("each key has its record");
                *seq = record.seq();
                self.bytes -= cost(&replaced);
            }
            None => {
                self.by_key.insert(self.key.as_str().into(), record.seq());
            }
        }
        self.bytes += cost(record);
        self.by_seq.insert(record.seq(), record.clone());
        while self.by_seq.len() > self.entries_max || self.bytes > self.bytes_max {
            let Some((_, forgotten)) = self.by_seq.pop_first() else { break };
            write_key(&mut self.key, &forgotten);
            self.by_key.remove(self.key.as_str());
            self.bytes -= cost(&forgotten);
            self.evicted += 1;
        }
    }

    /// The newest events whose seqs lie in `[from, to)`, in order.
    pub(super) fn range(&self, from: Seq, to: Seq) -> impl Iterator<Item = &Record> {
        // A range that ends before it begins is none; BTreeMap would panic.
        self.by_seq.range(from..to.max(from)).map(|(_, record)| record)
    }

    pub(super) fn len(&self) -> usize {
        self.by_seq.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}

fn cost(record: &Record) -> usize {
    let key = record.name().len() + 1 + record.device().map_or(0, str::len);
    record.bytes() + key + ENTRY_OVERHEAD_BYTES
}

/// Name and device with a NUL between, which no name can hold. An event without a
/// device has none, so it cannot be taken for one whose device is empty.
fn write_key(key: &mut String, record: &Record) {
    key.clear();
    key.push_str(record.name());
    if let Some(device) = record.device() {
        key.push('\0');
        key.push_str(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Event, Moment, Position};
    use proptest::{collection::vec, prelude::*};

    fn record(seq: u64, name: &str, device: Option<&str>) -> Record {
        let data =
            device.map_or_else(|| "x".into(), |device| format!("{{\"coreid\":\"{device}\"}}"));
        let event = Event::parse(name, &data).unwrap();
        let position = Position { epoch: Epoch::from_bits(1), seq: Seq(seq) };
        Record::event(&event, position, Moment::default())
    }

    proptest! {
        /// Against a Vec searched from its end.
        #[test]
        fn equals_a_search_from_the_end(
            events in vec(("[ab]{1,2}", proptest::option::of("[de]")), 0..40), entries_max in 1usize..8,
        ) {
            let mut latest = Latest::new(entries_max, 1 << 20);
            let mut newest: Vec<(u64, (String, Option<String>))> = Vec::new();
            for (seq, key) in (1..).zip(events) {
                latest.update(&record(seq, &key.0, key.1.as_deref()));
                newest.retain(|(_, known)| *known != key);
                newest.push((seq, key));
                if newest.len() > entries_max {
                    newest.remove(0);
                }
                let seqs: Vec<u64> = latest.range(Seq(0), Seq(u64::MAX)).map(|record| record.seq().0).collect();
                prop_assert_eq!(&seqs, &newest.iter().map(|(seq, _)| *seq).collect::<Vec<_>>());
                prop_assert_eq!(latest.by_key.len(), latest.len());
                let bytes: usize = latest.range(Seq(0), Seq(u64::MAX)).map(cost).sum();
                prop_assert_eq!(latest.bytes(), bytes);
            }
        }
    }

    #[test]
    fn bytes_are_bounded() {
        let one = cost(&record(1, "a", None));
        let mut latest = Latest::new(100, 3 * one);
        for (seq, name) in (1..).zip(["a", "b", "c", "d", "e"]) {
            latest.update(&record(seq, name, None));
        }
        assert_eq!((latest.len(), latest.evicted()), (3, 2));
        assert!(latest.bytes() <= 3 * one);
    }

    #[test]
    fn one_that_fits_nowhere_drives_no_other_out() {
        let one = cost(&record(1, "a", None));
        let mut latest = Latest::new(100, 3 * one);
        latest.update(&record(1, "a", None));
        latest.update(&record(2, "b", None));
        let huge = Event::parse("b", &"x".repeat(4 * one)).map(|event| {
            let position = Position { epoch: Epoch::from_bits(1), seq: Seq(3) };
            Record::event(&event, position, Moment::default())
        });
        latest.update(&huge.unwrap());
        let left: Vec<Seq> = latest.range(Seq(0), Seq(9)).map(Record::seq).collect();
        assert_eq!(left, [Seq(1)], "what it replaces is no longer the newest");
        assert_eq!((latest.evicted(), latest.by_key.len(), latest.bytes()), (1, 1, one));
    }
}
