//! What the broker says about itself: readable on a terminal, JSON lines otherwise, on
//! standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::Loaded;

/// Begins to trace as the settings say. Once a process.
pub(super) fn begin(loaded: &Loaded) -> anyhow::Result<()> {
    let is_json = match loaded.choice("trace.format") {
        "text" => false,
        "json" => true,
        _ => !io::stderr().is_terminal(),
    };
    let filter = EnvFilter::try_new(loaded.text("trace.level"))?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    if is_json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        lines.with_target(false).with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(())
}
