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
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use crate::model::{Filter, Record, Seq, interest::Interest, record::Kind};

use super::doorbell::Bell;

/// Seqs a group remembers. A member that is behind by more reads record by record.
const RECENT_MAX: usize = 16;

/// Doorbells there may be: bits in each group's set.
pub(super) const DOORBELLS_MAX: usize = 64;

/// A group's number. It is used again once the group has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(u32);

impl GroupId {
    /// Small numbers first: an index into lists of one's own.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// For keeping it in an atomic.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    pub(super) fn from_number(number: u32) -> GroupId {
        GroupId(number)
    }
}

/// Every group, and the index to them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    interest: Interest<GroupId>,
    slots: Vec<Option<Group>>,
    free: Vec<GroupId>,
    by_filter: HashMap<Arc<Filter>, GroupId>,
    /// Control records: they concern every group, and are not noted in each.
    controls: Recent,
    /// Groups concerned since the last wake, each once; or all of them.
    concerned: Vec<GroupId>,
    all_concerned: bool,
    doorbells: Vec<Arc<Bell>>,
}

/// The subscribers with one filter.
#[derive(Debug)]
pub(super) struct Group {
    filter: Arc<Filter>,
    members: usize,
    /// The tail at the last wake. Level-triggered: what a member finds is newer or the same.
    wake: watch::Sender<Seq>,
    /// The doorbells, one bit each, of drivers that serve members.
    doorbells: AtomicU64,
    recent: Recent,
    is_concerned: bool,
}

/// The last few seqs that concerned someone.
#[derive(Debug, Default)]
struct Recent {
    /// Below and at this seq nothing is known.
    forgotten: Seq,
    seqs: VecDeque<Seq>,
}

/// Who is to be woken.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    senders: Vec<watch::Sender<Seq>>,
    bells: Vec<Arc<Bell>>,
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
    ) -> (GroupId, Arc<Filter>, watch::Receiver<Seq>) {
        if let Some(&id) = self.by_filter.get(&filter) {
            let group = self.slots[id.index()].as_mut().expect("a filed group exists");
            group.members += 1;
            return (id, group.filter.clone(), group.wake.subscribe());
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            GroupId(u32::try_from(self.slots.len() - 1).expect("fewer groups than connections"))
        });
        let filter = Arc::new(filter);
        self.interest.insert(&filter, id);
        self.by_filter.insert(filter.clone(), id);
        let (wake, woken) = watch::channel(tail);
        self.slots[id.index()] = Some(Group {
            filter: filter.clone(),
            members: 1,
            wake,
            doorbells: AtomicU64::new(0),
            recent: Recent { forgotten: tail.previous(), seqs: VecDeque::new() },
            is_concerned: false,
        });
        (id, filter, woken)
    }

    /// Leaves a group; the last one to leave ends it.
    pub(super) fn leave(&mut self, id: GroupId) {
        let group = self.slots[id.index()].as_mut().expect("members are in a group that exists");
        group.members -= 1;
        if group.members > 0 {
            return;
        }
        let group = self.slots[id.index()].take().expect("looked at just now");
        self.interest.remove(&group.filter, id);
        self.by_filter.remove(&group.filter);
        if group.is_concerned {
            self.concerned.retain(|concerned| *concerned != id);
        }
        self.free.push(id);
    }

    /// Files a doorbell; its number is its bit in each group.
    pub(super) fn add_doorbell(&mut self, bell: Arc<Bell>) -> usize {
        assert!(self.doorbells.len() < DOORBELLS_MAX, "one bit for each doorbell");
        self.doorbells.push(bell);
        self.doorbells.len() - 1
    }

    /// From now on news of the group ring the doorbell as well, or no longer.
    pub(super) fn set_doorbell(&self, id: GroupId, doorbell: usize, rings: bool) {
        if let Some(Some(group)) = self.slots.get(id.index()) {
            match rings {
                true => group.doorbells.fetch_or(1 << doorbell, Ordering::Relaxed),
                false => group.doorbells.fetch_and(!(1 << doorbell), Ordering::Relaxed),
            };
        }
    }

    /// Marks the groups that a record concerns.
    pub(super) fn concern(&mut self, record: &Record) {
        let Groups { interest, slots, concerned, .. } = self;
        match record.kind() {
            Kind::Event => interest.concerned(record.name(), record.device(), |id: GroupId| {
                let group = slots[id.index()].as_mut().expect("an indexed group exists");
                group.recent.push(record.seq());
                if !group.is_concerned {
                    group.is_concerned = true;
                    concerned.push(id);
                }
            }),
            Kind::Control => {
                self.controls.push(record.seq());
                self.concern_all();
            }
        }
    }

    /// Marks every group, as a control record does.
    pub(super) fn concern_all(&mut self) {
        self.all_concerned = true;
    }

    /// Tells the groups concerned since the last call apart by who waits for them: rings
    /// the doorbells, and returns the senders that are to be woken after the lock is
    /// given back, as the doorbells' drivers are.
    pub(super) fn take_concerned(&mut self) -> Wakes {
        if self.all_concerned {
            self.all_concerned = false;
            for id in self.concerned.drain(..) {
                self.slots[id.index()].as_mut().expect("a marked group exists").is_concerned =
                    false;
            }
            return self.wakes_of_all();
        }
        let Groups { slots, concerned, doorbells, .. } = self;
        let mut rings: Vec<_> = doorbells.iter().map(|bell| (bell, bell.open())).collect();
        let mut senders = Vec::new();
        for id in concerned.drain(..) {
            let group = slots[id.index()].as_mut().expect("a marked group exists");
            group.is_concerned = false;
            let mut bits = group.doorbells.load(Ordering::Relaxed);
            while bits != 0 {
                rings[bits.trailing_zeros() as usize].1.concern(id);
                bits &= bits - 1;
            }
            if group.wake.receiver_count() > 0 {
                senders.push(group.wake.clone());
            }
        }
        let has_news = rings.iter_mut().filter_map(|(bell, rung)| {
            let is_first = rung.is_news();
            is_first.then(|| Arc::clone(bell))
        });
        let bells = has_news.collect();
        Wakes { senders, bells }
    }

    /// Everyone, whether concerned or not.
    pub(super) fn wakes_of_all(&self) -> Wakes {
        let groups = self.slots.iter().flatten();
        let waited_for = groups.filter(|group| group.wake.receiver_count() > 0);
        let senders = waited_for.map(|group| group.wake.clone()).collect();
        self.doorbells.iter().for_each(|bell| bell.open().concern_all());
        Wakes { senders, bells: self.doorbells.clone() }
    }

    /// What the group `id` knows of the records from `cursor` to `tail`.
    pub(super) fn known(&self, id: GroupId, cursor: Seq, tail: Seq) -> Known {
        let group = self.slots[id.index()].as_ref().expect("members are in a group that exists");
        self.known_by(group, cursor, tail)
    }

    /// The same, for a number that may be another group's or none's by now.
    pub(super) fn known_if_present(&self, id: GroupId, cursor: Seq, tail: Seq) -> Option<Known> {
        let group = self.slots.get(id.index())?.as_ref()?;
        Some(self.known_by(group, cursor, tail))
    }

    fn known_by(&self, group: &Group, cursor: Seq, tail: Seq) -> Known {
        match (group.recent.next(cursor), self.controls.next(cursor)) {
            (Some(event), Some(control)) => {
                let next = [event, control].into_iter().flatten().min();
                Known::SkipTo(next.unwrap_or(tail))
            }
            _ => Known::Nothing,
        }
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.by_filter.len()
    }
}

// === impl Recent ===

impl Recent {
    fn push(&mut self, seq: Seq) {
        if self.seqs.len() == RECENT_MAX
            && let Some(forgotten) = self.seqs.pop_front()
        {
            self.forgotten = forgotten;
        }
        self.seqs.push_back(seq);
    }

    /// The first seq from `cursor` on, if there is one; the outer none if it is forgotten.
    fn next(&self, cursor: Seq) -> Option<Option<Seq>> {
        (cursor > self.forgotten).then(|| self.seqs.iter().copied().find(|seq| *seq >= cursor))
    }
}

// === impl Wakes ===

impl Wakes {
    /// Wakes them. Not under the lock: who is woken will want it.
    pub(super) fn wake(self, tail: Seq) {
        for bell in self.bells {
            bell.ring();
        }
        for sender in self.senders {
            sender.send_replace(tail);
        }
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
            let (id, ..) = groups.join(Filter::all(), Seq(1));
            let group = groups.slots[id.index()].as_mut().unwrap();
            let tail = Seq(concerned.len() as u64 + 1);
            let seqs: Vec<Seq> =
                (1..).zip(&concerned).filter(|(_, concerned)| **concerned).map(|(seq, _)| Seq(seq)).collect();
            for seq in &seqs {
                group.recent.push(*seq);
            }
            let expected = seqs.iter().copied().find(|seq| seq.0 >= cursor).unwrap_or(tail);
            let behind = seqs.iter().filter(|seq| seq.0 >= cursor).count();
            match groups.known(id, Seq(cursor), tail) {
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
