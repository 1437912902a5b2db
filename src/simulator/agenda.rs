//! Which faults are asked for, and when each is due. Pure: time comes in.
//!
//! The law here: a fault of streams that comes due while none is open waits for one; a repeated one
//! is due again a whole period after it happened. Faults of opens queue up, first come first
//! served.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::fault::{FAULT_PERIOD_MIN, FAULT_TIME_MAX, Fault, FaultKind};

/// The most faults that wait for their time, for a stream or for an open.
pub(super) const FAULTS_MAX: usize = 256;

/// The faults asked for.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// In the order they were asked for.
    armed: Vec<Armed>,
    /// What the next opens get.
    refusals: VecDeque<Refusal>,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    due: Instant,
}

#[derive(Debug)]
struct Refusal {
    kind: FaultKind,
    left: u32,
}

impl Agenda {
    /// Takes on a fault; false if too many wait already.
    pub(super) fn arm(&mut self, fault: Fault, now: Instant) -> bool {
        if self.armed.len() + self.refusals.len() >= FAULTS_MAX {
            return false;
        }
        let due = later(now, fault.after);
        self.armed.push(Armed { fault, due });
        true
    }

    /// Takes out the fault that is due and can happen, the earliest first.
    pub(super) fn ripe(&mut self, now: Instant, streams_open: bool) -> Option<FaultKind> {
        let armed = self.armed.iter().enumerate();
        let ripe = armed.filter(|(_, armed)| armed.due <= now && armed.can_happen(streams_open));
        let (index, first) = ripe.min_by_key(|(_, armed)| armed.due)?;
        let kind = first.fault.kind.clone();
        match first.fault.every {
            Some(every) => self.armed[index].due = later(now, every.max(FAULT_PERIOD_MIN)),
            None => drop(self.armed.remove(index)),
        }
        Some(kind)
    }

    /// When there is something to do next, if at all.
    pub(super) fn next_due(&self, streams_open: bool) -> Option<Instant> {
        let armed = self.armed.iter().filter(|armed| armed.can_happen(streams_open));
        armed.map(|armed| armed.due).min()
    }

    /// The next `count` opens get this.
    pub(super) fn refuse(&mut self, kind: FaultKind, count: u32) {
        // A repeated refusal that nobody comes to take does not pile up.
        if self.refusals.len() < FAULTS_MAX {
            self.refusals.push_back(Refusal { kind, left: count.max(1) });
        }
    }

    /// What the open that comes now gets, if not an ordinary answer.
    pub(super) fn next_refusal(&mut self) -> Option<FaultKind> {
        let first = self.refusals.front_mut()?;
        first.left = first.left.saturating_sub(1);
        match first.left {
            0 => self.refusals.pop_front().map(|refusal| refusal.kind),
            _ => Some(first.kind.clone()),
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Agenda::default();
    }

    /// All that waits, in its text form; a refusal with the count that is left.
    pub(super) fn pending(&self) -> impl Iterator<Item = String> {
        let armed = self.armed.iter().map(|armed| armed.fault.to_string());
        armed.chain(self.refusals.iter().map(|refusal| {
            let mut kind = refusal.kind.clone();
            if let FaultKind::Refuse { count, .. }
            | FaultKind::Html { count }
            | FaultKind::Redirect { count, .. }
            | FaultKind::Hang { count } = &mut kind
            {
                *count = refusal.left;
            }
            Fault::now(kind).to_string()
        }))
    }
}

impl Armed {
    fn can_happen(&self, streams_open: bool) -> bool {
        streams_open || !waits_for_stream(&self.fault.kind)
    }
}

/// So much later; a time out of bounds, which only code can ask for, is the longest allowed.
pub(super) fn later(now: Instant, by: Duration) -> Instant {
    now + by.min(FAULT_TIME_MAX)
}

fn waits_for_stream(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Stall { sticky, .. } => !sticky,
        FaultKind::Cut
        | FaultKind::CutMidEvent { .. }
        | FaultKind::Reset
        | FaultKind::Drip { .. }
        | FaultKind::Burst { .. }
        | FaultKind::Oversize { .. }
        | FaultKind::Raw { .. } => true,
        FaultKind::Refuse { .. }
        | FaultKind::Html { .. }
        | FaultKind::Redirect { .. }
        | FaultKind::Hang { .. }
        | FaultKind::Duplicate { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn agenda(texts: &[&str], now: Instant) -> Agenda {
        let mut agenda = Agenda::default();
        assert!(texts.iter().all(|text| agenda.arm(text.parse().unwrap(), now)));
        agenda
    }

    #[test]
    fn the_earliest_due_comes_first_and_once() {
        let now = Instant::now();
        let mut agenda = agenda(&["reset after=3s", "cut after=2s"], now);
        assert_eq!(agenda.next_due(true), Some(now + 2 * SECOND));
        assert_eq!(agenda.ripe(now + SECOND, true), None);
        assert_eq!(agenda.ripe(now + 9 * SECOND, true), Some(FaultKind::Cut));
        assert_eq!(agenda.ripe(now + 9 * SECOND, true), Some(FaultKind::Reset));
        assert_eq!((agenda.ripe(now + 9 * SECOND, true), agenda.next_due(true)), (None, None));
    }

    #[test]
    fn without_a_stream_a_fault_of_streams_waits_and_others_do_not() {
        let now = Instant::now();
        let mut agenda = agenda(&["cut", "stall sticky after=1s"], now);
        assert_eq!((agenda.ripe(now, false), agenda.next_due(false)), (None, Some(now + SECOND)));
        assert!(matches!(agenda.ripe(now + SECOND, false), Some(FaultKind::Stall { .. })));
        assert_eq!(agenda.ripe(now + SECOND, true), Some(FaultKind::Cut));
    }

    #[test]
    fn a_repeated_fault_is_due_a_period_after_it_happened() {
        let now = Instant::now();
        let mut agenda = agenda(&["cut every=2s"], now);
        assert_eq!(agenda.ripe(now + SECOND, true), Some(FaultKind::Cut));
        assert_eq!(
            (agenda.ripe(now + SECOND, true), agenda.next_due(true)),
            (None, Some(now + 3 * SECOND))
        );
    }

    #[test]
    fn refusals_are_counted_down() {
        let mut agenda = Agenda::default();
        agenda.refuse(FaultKind::Hang { count: 2 }, 2);
        agenda.refuse(FaultKind::Html { count: 1 }, 1);
        assert!(agenda.next_refusal().is_some());
        assert_eq!(agenda.pending().collect::<Vec<_>>(), ["hang count=1", "html count=1"]);
        assert_eq!(agenda.next_refusal(), Some(FaultKind::Hang { count: 2 }));
        assert_eq!(agenda.next_refusal(), Some(FaultKind::Html { count: 1 }));
        assert_eq!(agenda.next_refusal(), None);
    }

    #[test]
    fn there_is_a_bound_and_no_time_is_too_long() {
        let now = Instant::now();
        let mut agenda = Agenda::default();
        let fault =
            Fault { kind: FaultKind::Cut, after: Duration::MAX, every: Some(Duration::MAX) };
        assert!((0..FAULTS_MAX).all(|_| agenda.arm(fault.clone(), now)));
        assert!(!agenda.arm(fault, now));
        assert_eq!(agenda.ripe(now + FAULT_TIME_MAX, true), Some(FaultKind::Cut));
    }
}
