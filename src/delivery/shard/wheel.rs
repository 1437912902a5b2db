//! A timer wheel: who is to be looked at, and when.
//!
//! Law: cheap to file, cheap to turn. Time is counted in ticks. A key is filed under the
//! tick it is due at, or under the last one of the wheel if that is further away, and
//! comes out once its tick has passed, never earlier. The wheel forgets nothing and takes
//! nothing back: whoever filed a key decides, when it comes out, whether it is still due.
//!
//! ```text
//!          now                                         now + SLOTS
//!   ────────┼────┬────┬────┬────┬────┬────┬── … ──┬────┤
//!           │    │ k7 │    │k1k9│    │    │       │k2  │   (a ring: tick modulo SLOTS)
//! ```

/// Slots of the wheel, and so the ticks it reaches ahead.
const SLOTS: usize = 2048;
const WORDS: usize = SLOTS / 64;

const _: () = assert!(SLOTS.is_power_of_two() && SLOTS.is_multiple_of(64));

/// Keys by the tick at which they are due.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The last tick that was taken out.
    turned: u64,
    slots: Vec<Vec<u32>>,
    /// A bit for each slot that holds a key.
    filled: [u64; WORDS],
}

impl Wheel {
    /// An empty wheel that begins at tick 0.
    pub(super) fn new() -> Wheel {
        Wheel { turned: 0, slots: vec![Vec::new(); SLOTS], filled: [0; WORDS] }
    }

    /// Files `key` under `tick` and returns the tick under which it really is: the next
    /// one if `tick` has passed, the furthest there is if it is too far away.
    pub(super) fn file(&mut self, key: u32, tick: u64) -> u64 {
        let tick = tick.clamp(self.turned + 1, self.turned + SLOTS as u64 - 1);
        let slot = tick as usize % SLOTS;
        self.slots[slot].push(key);
        self.filled[slot / 64] |= 1 << (slot % 64);
        tick
    }

    /// The first tick under which a key is filed.
    pub(super) fn next(&self) -> Option<u64> {
        let first = (self.turned + 1) as usize % SLOTS;
        // The word of `first` comes twice: its upper bits first, its lower bits last.
        for step in 0..=WORDS {
            let word = (first / 64 + step) % WORDS;
            let bits = match step {
                0 => self.filled[word] & (u64::MAX << (first % 64)),
                WORDS => self.filled[word] & !(u64::MAX << (first % 64)),
                _ => self.filled[word],
            };
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - first) % SLOTS;
                return Some(self.turned + 1 + ahead as u64);
            }
        }
        None
    }

    /// Takes out what is due by `now`, each with the tick it was filed under. What `due`
    /// files comes out in a later turn.
    pub(super) fn turn(&mut self, now: u64, mut due: impl FnMut(&mut Wheel, u32, u64)) {
        while let Some(tick) = self.next().filter(|tick| *tick <= now) {
            // Before its keys are handed out, so that nothing can be filed under it.
            self.turned = tick;
            let slot = tick as usize % SLOTS;
            self.filled[slot / 64] &= !(1 << (slot % 64));
            for key in std::mem::take(&mut self.slots[slot]) {
                due(self, key, tick);
            }
        }
        self.turned = self.turned.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        /// Against a sorted map: the same keys come out, at the same ticks.
        #[test]
        fn is_a_sorted_map(steps in vec((vec(0u64..6000, 0..8), 0u64..3000), 1..40)) {
            let (mut wheel, mut model) = (Wheel::new(), BTreeMap::<u64, Vec<u32>>::new());
            let (mut now, mut key) = (0, 0);
            for (ticks, passed) in steps {
                for ahead in ticks {
                    // Some are due in the past.
                    let wanted = (now + ahead).saturating_sub(100);
                    let filed = wheel.file(key, wanted);
                    prop_assert_eq!(filed, wanted.clamp(now + 1, now + SLOTS as u64 - 1));
                    model.entry(filed).or_default().push(key);
                    key += 1;
                }
                prop_assert_eq!(wheel.next(), model.keys().next().copied());
                now += passed;
                let mut out = Vec::new();
                wheel.turn(now, |_, key, tick| out.push((tick, key)));
                let later = model.split_off(&(now + 1));
                let due = std::mem::replace(&mut model, later).into_iter();
                let due: Vec<_> =
                    due.flat_map(|(tick, keys)| keys.into_iter().map(move |key| (tick, key))).collect();
                prop_assert_eq!(out, due);
            }
        }
    }

    #[test]
    fn what_is_filed_while_turning_comes_later() {
        let mut wheel = Wheel::new();
        wheel.file(1, 5);
        let mut rounds = 0;
        wheel.turn(5, |wheel, key, _| {
            rounds += 1;
            wheel.file(key, 0);
        });
        assert_eq!((rounds, wheel.next()), (1, Some(6)));
    }
}
