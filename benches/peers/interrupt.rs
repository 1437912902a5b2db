//! Ctrl-C ends a run in order: every wait looks here, fails, and what was started is stopped on
//! the way out.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

static SIGNALS: AtomicU32 = AtomicU32::new(0);

/// Begins to listen for SIGINT and SIGTERM. The second one ends the process at once; the peers
/// end with it, because each asked the kernel for that when it started.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot listen for signals")?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if SIGNALS.fetch_add(1, Ordering::Relaxed) > 0 {
                    std::process::exit(130);
                }
                eprintln!("interrupted: stopping what was started");
            }
        });
    })?;
    Ok(())
}

/// Fails once a signal has come.
pub(crate) fn check() -> Result<()> {
    if SIGNALS.load(Ordering::Relaxed) > 0 {
        bail!("interrupted");
    }
    Ok(())
}
