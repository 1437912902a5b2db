//! Fanlight beside other brokers and the kernel's own price, on loopback, in one run.
//!
//! `benches/peers/run` installs what is missing, builds, and runs this; `--help` says what can
//! be chosen. Each server runs in processes of its own on processor 0, the load on another, so
//! that a server's processor time is its own and its open files are too.
//!
//! The law: only loopback; everything is bounded in count and time; every process that was
//! started is stopped, however the run ends; every delivery is checked, and faults are shown.

mod clock;
mod event;
mod floor;
mod interrupt;
mod measure;
mod options;
mod peer;
mod plot;
mod process;
mod publish;
mod report;
mod scenario;
mod session;
mod upstream;

use std::{fs, process::Command, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{options::Options, report::Report, scenario::Bench};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // What this program starts of itself.
    match words[1..] {
        ["floor", subscribers, publishers] => {
            return floor::serve(subscribers.parse()?, publishers.parse()?);
        }
        ["exec", cpus, "--", program, ..] => {
            let cpus = cpus.strip_prefix("--cpus=").context("--cpus")?;
            let cpus: Result<Vec<usize>, _> =
                cpus.split(',').filter(|cpu| !cpu.is_empty()).map(str::parse).collect();
            match process::become_peer(&cpus?, program, &arguments[5..])? {}
        }
        _ => {}
    }
    let options = options::read(&options::command().get_matches())?;
    if cfg!(debug_assertions) {
        bail!("a measurement of a debug build says nothing: cargo bench --bench peers");
    }
    interrupt::listen()?;
    raise_open_files()?;
    let cpus = processors()?;
    // The last processor is the load's; with only one, nothing can be told apart.
    process::bind(&cpus[cpus.len().saturating_sub(1)..])?;
    let out = options.out.clone();
    let facts = facts(&options, &cpus);
    let report = Report { facts, ..Report::default() };
    let mut bench = Bench { options, report, cpus };
    // What was broken off does not replace what was measured in full.
    bench.run()?;
    bench.report.write(&out)?;
    eprintln!("written: {}", out.join("peers.md").display());
    Ok(())
}

/// As many open files as this process may have; a peer inherits the limit.
fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}

/// The processors this process may run on; none if there is but one.
fn processors() -> Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    let found: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    if found.len() < 2 {
        eprintln!("one processor: load and servers share it, so latencies say little");
        return Ok(Vec::new());
    }
    Ok(found)
}

fn facts(options: &Options, cpus: &[usize]) -> Vec<(String, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split(['-', '\n']).next().unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let busy = load.split(' ').next().unwrap_or_default();
    let date = jiff::Timestamp::from_nanosecond(i128::from(clock::wall_nanos()))
        .map(|now| now.strftime("%Y-%m-%d").to_string())
        .unwrap_or_default();
    let machine = format!(
        "{}, {} processors, Linux {kernel}",
        model.unwrap_or("unknown processor"),
        cpus.len().max(1)
    );
    let sizes = &options.sizes;
    let mut facts = vec![
        ("measured", date),
        ("machine", machine),
        ("busy before, processes", busy.to_owned()),
        (
            "load",
            format!(
                "{} subscribers, events of {} bytes, {} rounds; each server on one processor, \
                 the load on another, if no shards are named",
                sizes.subscribers, options.event_bytes, options.rounds
            ),
        ),
    ];
    let fanlight = options.fanlight.display().to_string();
    let versions: [(&'static str, &str, &str); 5] = [
        ("Fanlight", &fanlight, "--version"),
        ("nginx", "nginx", "-v"),
        ("Pushpin", "pushpin", "--version"),
        ("Centrifugo", "centrifugo", "version"),
        ("Mercure", "mercure", "version"),
    ];
    facts.extend(versions.iter().filter_map(|(name, program, flag)| {
        let output = Command::new(program).arg(flag).output().ok()?;
        // nginx tells it as an error.
        let said = [output.stdout, output.stderr].concat();
        Some((*name, String::from_utf8_lossy(&said).lines().next()?.trim().to_owned()))
    }));
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
