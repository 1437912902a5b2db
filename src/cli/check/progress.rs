//! How a check that takes its time goes on: one line that changes, on a terminal alone.

use std::io::{self, IsTerminal as _, Write as _};

/// A line on standard error, gone when this is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress { is_terminal: io::stderr().is_terminal() }
    }

    pub(super) fn tell(&self, text: &str) {
        self.write(&format!("\r{text}\x1b[K"));
    }

    /// A progress that nobody reads is no failure.
    fn write(&self, text: &str) {
        if self.is_terminal {
            let mut err = io::stderr().lock();
            let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.write("\r\x1b[K");
    }
}
