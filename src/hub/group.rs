//! All subscribers with an equal filter. They wake together.
//!
//! Law: a group is woken only by records that concern it, and a member that slept
//! is never told that it missed records which did not. For this each group knows
//! the last few seqs that concerned it:
//!
//! ```text
//!   forgotten ──────▶│ recent (at most RECENT_MAX)
//!   ─────────────────┼──────●───────●──●──────────▶ tail
//!   nothing is known │  concerned      nothing from here on concerns the group
//! ```

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::sync::watch;

use crate::model::{Filter, Record, Seq, interest::Interest, record::Kind};

/// Seqs a group remembers. A member that is behind by more reads record by record.
const RECENT_MAX: usize = 16;

/// A key of a group in [`Groups`].
pub(super) type Slot = u32;

/// Every group, and the index to them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    interest: Interest<Slot>,
    slots: Vec<Option<Group>>,
    free: Vec<Slot>,
    by_filter: HashMap<Arc<Filter>, Slot>,
    /// Groups concerned since the last wake, each once.
    concerned: Vec<Slot>,
}

/// The subscribers with one filter.
#[derive(Debug)]
pub(super) struct Group {
    filter: Arc<Filter>,
    members: usize,
    /// The tail at the last wake. Level-triggered: what a member finds is newer or the same.
    wake: watch::Sender<Seq>,
    /// Below and at this seq nothing is known.
    forgotten: Seq,
    recent: VecDeque<Seq>,
    is_concerned: bool,
}

/// What a group knows of the records from a cursor on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: read them.
    Nothing,
    /// None before this seq concerns the group.
    SkipTo(Seq),
}

// === impl Groups ===

impl Groups {
    /// Joins the group of `filter`, which is made if there is none. `tail` is the ring's.
    pub(super) fn join(
        &mut self,
        filter: Filter,
        tail: Seq,
    ) -> (Slot, Arc<Filter>, watch::Receiver<Seq>) {
        if let Some(&slot) = self.by_filter.get(&filter) {
            let group = self.slots[slot as usize].as_mut().expect("a filed group exists");
            group.members += 1;
            return (slot, group.filter.clone(), group.wake.subscribe());
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot::try_from(self.slots.len() - 1).expect("fewer groups than connections")
        });
        let filter = Arc::new(filter);
        self.interest.insert(&filter, slot);
        self.by_filter.insert(filter.clone(), slot);
        let (wake, woken) = watch::channel(tail);
        self.slots[slot as usize] = Some(Group {
            filter: filter.clone(),
            members: 1,
            wake,
            forgotten: tail.previous(),
            recent: VecDeque::new(),
            is_concerned: false,
        });
        (slot, filter, woken)
    }

    /// Leaves a group; the last one to leave ends it.
    pub(super) fn leave(&mut self, slot: Slot) {
        let group = self.slots[slot as usize].as_mut().expect("members are in a group that exists");
        group.members -= 1;
        if group.members > 0 {
            return;
        }
        let group = self.slots[slot as usize].take().expect("looked at just now");
        self.interest.remove(&group.filter, slot);
        self.by_filter.remove(&group.filter);
        self.concerned.retain(|concerned| *concerned != slot);
        self.free.push(slot);
    }

    /// Marks the groups that a record concerns.
    pub(super) fn concern(&mut self, record: &Record) {
        let Groups { interest, slots, concerned, by_filter, .. } = self;
        let mark = |slot: Slot| {
            let group = slots[slot as usize].as_mut().expect("an indexed group exists");
            group.concern(record.seq());
            if !group.is_concerned {
                group.is_concerned = true;
                concerned.push(slot);
            }
        };
        match record.kind() {
            Kind::Event => interest.concerned(record.name(), record.device(), mark),
            // Few and far between, and everyone's business.
            Kind::Control => by_filter.values().copied().for_each(mark),
        }
    }

    /// Takes the senders of the groups concerned since the last call, to be woken
    /// after the lock is given back.
    pub(super) fn take_concerned(&mut self) -> Vec<watch::Sender<Seq>> {
        let mut concerned = std::mem::take(&mut self.concerned);
        let senders = concerned
            .drain(..)
            .map(|slot| {
                let group = self.slots[slot as usize].as_mut().expect("a marked group exists");
                group.is_concerned = false;
                group.wake.clone()
            })
            .collect();
        self.concerned = concerned;
        senders
    }

    /// Wakes every member of every group.
    pub(super) fn wake_all(&self) {
        for group in self.slots.iter().flatten() {
            group.wake.send_modify(|_| ());
        }
    }

    /// What the group in `slot` knows of the records from `cursor` to `tail`.
    pub(super) fn known(&self, slot: Slot, cursor: Seq, tail: Seq) -> Known {
        let group = self.slots[slot as usize].as_ref().expect("members are in a group that exists");
        group.known(cursor, tail)
    }

    /// The same, for a slot that may be someone else's or no one's by now.
    pub(super) fn known_if_present(&self, slot: Slot, cursor: Seq, tail: Seq) -> Option<Known> {
        let group = self.slots.get(slot as usize)?.as_ref()?;
        Some(group.known(cursor, tail))
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.by_filter.len()
    }
}

// === impl Group ===

impl Group {
    fn concern(&mut self, seq: Seq) {
        if self.recent.len() == RECENT_MAX
            && let Some(forgotten) = self.recent.pop_front()
        {
            self.forgotten = forgotten;
        }
        self.recent.push_back(seq);
    }

    fn known(&self, cursor: Seq, tail: Seq) -> Known {
        if cursor <= self.forgotten {
            return Known::Nothing;
        }
        let concerned = self.recent.iter().copied().find(|seq| *seq >= cursor);
        Known::SkipTo(concerned.unwrap_or(tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        /// What is skipped never concerned the group, and what is known is exact.
        #[test]
        fn skips_only_what_does_not_concern(concerned in vec(any::<bool>(), 0..80), cursor in 1u64..100) {
            let mut groups = Groups::default();
            let (slot, ..) = groups.join(Filter::all(), Seq(1));
            let group = groups.slots[slot as usize].as_mut().unwrap();
            let tail = Seq(concerned.len() as u64 + 1);
            let seqs: Vec<Seq> =
                (1..).zip(&concerned).filter(|(_, concerned)| **concerned).map(|(seq, _)| Seq(seq)).collect();
            for seq in &seqs {
                group.concern(*seq);
            }
            let expected = seqs.iter().copied().find(|seq| seq.0 >= cursor).unwrap_or(tail);
            let behind = seqs.iter().filter(|seq| seq.0 >= cursor).count();
            match groups.known(slot, Seq(cursor), tail) {
                Known::SkipTo(seq) => prop_assert_eq!(seq, expected),
                Known::Nothing => prop_assert!(behind >= RECENT_MAX, "forgot too early"),
            }
        }
    }

    #[test]
    fn the_last_to_leave_ends_the_group() {
        let mut groups = Groups::default();
        let (one, ..) = groups.join(Filter::all(), Seq(1));
        let (two, ..) = groups.join(Filter::all(), Seq(1));
        assert_eq!((one, groups.len()), (two, 1));
        groups.leave(one);
        groups.leave(two);
        assert_eq!(groups.len(), 0);
        let filter = Filter::new(vec!["a".into()], vec![], vec![]).unwrap();
        let (three, ..) = groups.join(filter, Seq(1));
        assert_eq!(three, one, "slots are used again");
    }
}
