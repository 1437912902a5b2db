//! What a peer costs, as the kernel counts it: processor time and memory of all its processes.

use std::{fs, thread, time::Duration};

use crate::process;

/// Ticks a second of `/proc/PID/stat`: a constant of Linux's interface with user space.
const TICKS_PER_SECOND: u64 = 100;
/// Memory counts as settled when samples this far apart differ by less than half a percent.
const SETTLE_STEP: Duration = Duration::from_millis(250);
const SETTLE_STEPS_MAX: u32 = 12;

/// Processor time of the processes, user and system together. Read from the scheduler's own
/// nanoseconds of each thread where the kernel keeps them, else from the ticks of 10 ms.
///
/// On loopback the receiving side's protocol work runs in the sender's system call, so it is in
/// here, for every peer alike.
pub(crate) fn cpu(pids: &[u32]) -> Duration {
    let nanos = pids.iter().map(|pid| scheduled(*pid).or_else(|| ticked(*pid)).unwrap_or(0)).sum();
    Duration::from_nanos(nanos)
}

/// Resident bytes of the processes. Pages that several processes share are divided among them,
/// so that the sum of a peer of several processes counts none twice.
pub(crate) fn memory_bytes(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| proportional(*pid).or_else(|| resident(*pid))).sum()
}

/// [`memory_bytes`] once it has stopped moving, or after three seconds.
pub(crate) fn memory_settled_bytes(pids: impl Fn() -> Vec<u32>) -> u64 {
    let mut last = memory_bytes(&pids());
    for _ in 0..SETTLE_STEPS_MAX {
        thread::sleep(SETTLE_STEP);
        let now = memory_bytes(&pids());
        let moved = now.abs_diff(last);
        last = now;
        if moved * 200 < now {
            break;
        }
    }
    last
}

fn scheduled(pid: u32) -> Option<u64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanos += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanos)
}

fn ticked(pid: u32) -> Option<u64> {
    let fields = process::stat_fields(pid)?;
    let (user, system): (u64, u64) = (fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?);
    Some((user + system) * (1_000_000_000 / TICKS_PER_SECOND))
}

fn proportional(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

fn resident(pid: u32) -> Option<u64> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
