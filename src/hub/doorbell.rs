//! Wakes a driver that serves many subscriptions at once, and says which of them.
//!
//! Law: level-triggered. A group with news stays on the list until the driver takes it,
//! so news that come between taking and waiting ring again. A group is on the list once,
//! which bounds it by the number of groups.
//!
//! ```text
//!  commit ─▶ groups concerned ─▶ doorbell of each shard: [group, group, …] ─ one wake-up ─▶ shard
//! ```

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Shared, Subscription, group::GroupId};

/// A driver's own doorbell at the hub. There are at most 64 of them.
#[derive(Debug)]
pub struct Doorbell {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    number: usize,
}

/// Who has news.
#[derive(Debug, Default)]
pub struct News {
    /// Every group: a control record, the broker's end, or the time to tell positions.
    pub all: bool,
    /// The groups concerned, each once; empty if all are.
    pub groups: Vec<GroupId>,
}

/// What the hub knows of a doorbell.
pub(super) struct Bell {
    rung: Mutex<Rung>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The list that grows until it is taken.
#[derive(Debug, Default)]
pub(super) struct Rung {
    news: News,
    /// A bit for each group on the list.
    listed: Vec<u64>,
    is_told: bool,
}

// === impl Doorbell ===

impl Doorbell {
    pub(super) fn new(shared: Arc<Shared>, wake: Box<dyn Fn() + Send + Sync>) -> Doorbell {
        let bell = Arc::new(Bell { rung: Mutex::default(), wake });
        let number = shared.write().groups.add_doorbell(bell.clone());
        Doorbell { shared, bell, number }
    }

    /// From now on news for the subscription ring here and nowhere else. What came before
    /// is not told: examine once after this.
    pub fn attach(&self, subscription: &mut Subscription) {
        subscription.ring_at(self.number);
        self.shared.read().groups.set_doorbell(subscription.group(), self.number, true);
    }

    /// News of a group need not ring here any more. Only for a group without any
    /// attached subscription.
    pub fn forget(&self, group: GroupId) {
        self.shared.read().groups.set_doorbell(group, self.number, false);
    }

    /// Takes the list into `news`, whose own is given up. What concerns no attached
    /// subscription any more may be on it as well.
    pub fn take(&self, news: &mut News) {
        news.all = false;
        news.groups.clear();
        let mut rung = self.bell.open();
        std::mem::swap(&mut rung.news, news);
        for group in &news.groups {
            rung.listed[group.index() / 64] = 0;
        }
        rung.is_told = false;
    }
}

// === impl Bell ===

impl Bell {
    /// Opens the list. The lock is held for no longer than it takes to note or take it.
    pub(super) fn open(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the driver.
    pub(super) fn ring(&self) {
        (self.wake)();
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung).finish_non_exhaustive()
    }
}

// === impl Rung ===

impl Rung {
    /// Puts a group on the list.
    pub(super) fn concern(&mut self, group: GroupId) {
        if self.news.all {
            return;
        }
        let (word, bit) = (group.index() / 64, 1 << (group.index() % 64));
        if self.listed.len() <= word {
            self.listed.resize(word + 1, 0);
        }
        if self.listed[word] & bit == 0 {
            self.listed[word] |= bit;
            self.news.groups.push(group);
        }
    }

    /// Puts all groups on the list.
    pub(super) fn concern_all(&mut self) {
        self.news.all = true;
        self.news.groups.clear();
        self.listed.clear();
        self.is_told = true;
    }

    /// True once after something was put on a list that was empty: a driver that has been
    /// woken and has not yet taken the list need not be woken again.
    pub(super) fn is_news(&mut self) -> bool {
        let has_news = self.news.all || !self.news.groups.is_empty();
        has_news && !std::mem::replace(&mut self.is_told, true)
    }
}
