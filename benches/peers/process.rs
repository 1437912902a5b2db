//! One process of a peer: started on given processors, and stopped without fail.
//!
//! A peer is started through this program itself (`peers exec`), which ties its life to ours,
//! takes its place on the processors and only then becomes the peer. So a peer ends with this
//! program however that ends, and every process that it forks is bound to the same processors.
//! Only processes that were started here are ever signalled, by number.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    process::{Pid, Signal},
    thread::CpuSet,
};

use crate::clock;

/// A polite end is waited for this long. Pushpin's runner stops four services in turn.
const STOP_MAX: Duration = Duration::from_secs(8);
/// Lines of a peer's own output shown when it fails.
const TAIL_LINES: usize = 12;

/// A running process and all its descendants.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    said: std::path::PathBuf,
}

/// Starts `program` in `folder`; what it prints goes to `folder/NAME.said`.
pub(crate) fn start(
    name: &str,
    program: &Path,
    arguments: &[String],
    folder: &Path,
    cpus: &[usize],
) -> Result<Process> {
    let said = folder.join(format!("{name}.said"));
    let output = File::create(&said)?;
    let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let child = Command::new(std::env::current_exe()?)
        .arg("exec")
        .arg(format!("--cpus={}", list.join(",")))
        .arg("--")
        .arg(program)
        .args(arguments)
        .current_dir(folder)
        // Its own group: Ctrl-C at a terminal is for us, and we stop it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    Ok(Process { child, name: name.to_owned(), said })
}

/// What `peers exec` does: never returns but with an error.
pub(crate) fn become_peer(
    cpus: &[usize],
    program: &str,
    arguments: &[String],
) -> Result<std::convert::Infallible> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    bind(cpus)?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| program.to_owned())
}

/// Binds the calling thread, and all that it will start, to processors. None means any.
pub(crate) fn bind(cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu);
    }
    rustix::thread::sched_setaffinity(None, &set).context("cannot bind to a processor")
}

// === impl Process ===

impl Process {
    /// The process and its descendants, as they are now.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let parents = parents();
        let mut examined = 0;
        while examined < found.len() {
            let parent = found[examined];
            found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            examined += 1;
        }
        found
    }

    /// Fails, with the last lines it printed, if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}; it said:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// The last lines it printed.
    pub(crate) fn tail(&self) -> String {
        let said = fs::read(&self.said).unwrap_or_default();
        let text = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Known before the signal: a child whose parent is gone is no longer found below it.
        let ours = self.pids();
        signal(self.child.id(), Signal::TERM);
        let deadline = clock::now() + STOP_MAX;
        while matches!(self.child.try_wait(), Ok(None)) && clock::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let group = self.child.id();
        for pid in ours.into_iter().filter(|pid| *pid != group && is_of_group(*pid, group)) {
            signal(pid, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// True while `pid` still is a process of that group: numbers are used again.
fn is_of_group(pid: u32, group: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.get(2).is_some_and(|of| *of == group.to_string()))
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, stat_fields(pid)?.get(1)?.parse().ok()?)))
        .collect()
}

/// The fields of `/proc/PID/stat` behind the name: state, parent, group and so on.
pub(crate) fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
