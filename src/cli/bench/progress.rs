//! How the measurement goes, on standard error: one line that changes on a terminal, a line
//! now and then elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use crate::load::Crowd;

use super::report::{count, milliseconds};

const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
const PLAIN_PAUSE: Duration = Duration::from_secs(5);

/// What was told last.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
    told: Instant,
    is_shown: bool,
}

impl Progress {
    /// Nothing told until a pause after `now`.
    pub(super) fn new(now: Instant) -> Progress {
        Progress { is_terminal: io::stderr().is_terminal(), told: now, is_shown: false }
    }

    /// While subscribers are opened.
    pub(super) fn opening(&mut self, crowd: &Crowd, subscribers: usize, now: Instant) {
        self.tell(now, || {
            let opened = crowd.opened();
            let (open, all) = (count(opened.open as u64), count(subscribers as u64));
            match opened.failed {
                0 => format!("{open} of {all} subscribers open"),
                failed => {
                    format!("{open} of {all} subscribers open, {} failed", count(failed as u64))
                }
            }
        });
    }

    /// While events come.
    pub(super) fn running(&mut self, crowd: &Crowd, duration: Duration, now: Instant) {
        self.tell(now, || {
            let tally = crowd.tally();
            let elapsed = (now - tally.since).as_secs_f64();
            let rate = (tally.deliveries as f64 / elapsed.max(0.001)) as u64;
            format!(
                "{elapsed:.0} of {} s: {} subscribers, {} deliveries ({} a second), p99 {} ms, {} lost",
                duration.as_secs_f64().ceil(),
                count(crowd.reading() as u64),
                count(tally.deliveries),
                count(rate),
                milliseconds(tally.latency.value_at_quantile(0.99)),
                count(tally.lost),
            )
        });
    }

    fn tell(&mut self, now: Instant, line: impl FnOnce() -> String) {
        let pause = if self.is_terminal { TERMINAL_PAUSE } else { PLAIN_PAUSE };
        if now - self.told < pause {
            return;
        }
        (self.told, self.is_shown) = (now, true);
        let line = line();
        self.write(&if self.is_terminal { format!("\r{line}\x1b[K") } else { format!("{line}\n") });
    }

    /// A progress that nobody reads is no failure.
    fn write(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}

impl Drop for Progress {
    /// Leaves no line behind that would change, whatever comes next.
    fn drop(&mut self) {
        if self.is_shown && self.is_terminal {
            self.write("\r\x1b[K");
        }
    }
}
