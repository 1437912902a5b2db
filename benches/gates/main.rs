//! Gates of the hot paths: how many instructions each may take, counted by valgrind's callgrind.
//!
//! Law: counts, not times, so that a busy machine changes nothing. A gate is a loop that prepares,
//! then does the one thing inside [`measured`]; only what happens in there is counted.
//!
//! ```text
//!  cargo run --release -p fanlight-gates                       compare with bounds.txt
//!  cargo run --release -p fanlight-gates -- step               only gates with this in the name
//!  cargo run --release -p fanlight-gates -- --refresh [step]   write their bounds anew
//!  cargo bench --bench gates                                   the same of the whole crate
//! ```
//!
//! All from the top of the repository. Refresh after a change that is meant to cost or to save,
//! and commit bounds.txt with it: the difference is then there for a reviewer to see.
//!
//! Why no framework: gungraun does this and more, and needs a runner program of exactly its own
//! version, to be compiled and installed first.

#[path = "../sample/mod.rs"]
mod sample;

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

use fanlight::{
    clock,
    hub::{Budget, Examined},
    model::{
        Epoch, Event, Moment, Position, Record, Seq, Transport, interest::Interest,
        moment::WallTime, resume::Start,
    },
    transport::Step,
    upstream::decode::{Decoder, Item, Limits},
};

use sample::{By, CHUNK_BYTES, Concerned, TARGET, World};

/// The committed bounds, seen from the top of the repository.
const BOUNDS: &str = "benches/gates/bounds.txt";

/// Times that each gate does its one thing: enough for what happens now and then (a block of
/// samples, a table that grows) to be in the mean, and for hash seeds to leave it.
const TIMES: u64 = 1_000;

/// Records of a full ring here. A quarter of it is more than [`TIMES`], so the wake of all groups
/// that comes once in a quarter stays out.
const RING_EVENTS: usize = 8 * TIMES as usize;

/// A bound is so many percent of what was measured when it was set.
const BOUND_PERCENT: u64 = 110;

/// By name, in the order of an event's way.
const GATES: &[(&str, fn())] = &[
    ("decode", decode),
    ("render", render),
    ("append/1", || append(1)),
    ("append/1000", || append(1_000)),
    ("append/15000", || append(15_000)),
    ("interest", interest),
    ("examine", examine),
    ("step/delivers", step_that_delivers),
    ("step/shares", step_that_shares),
    ("step/waits", step_that_waits),
];

/// Gates that must lie within a factor of each other, whatever their bounds: the cost of an event
/// does not depend on how many filters there are.
const ALIKE: (&str, u64) = ("append/", 2);

// --- what is measured ---

/// Bytes off the wire to one event.
fn decode() {
    let stream = sample::stream(TIMES, "\n");
    let mut decoder = Decoder::new(Limits::default());
    let mut events = 0;
    for chunk in stream.chunks(CHUNK_BYTES) {
        measured(|| {
            decoder.feed(chunk, |item| {
                if let Item::Event { .. } = black_box(item) {
                    events += 1;
                }
            });
        });
    }
    assert_eq!(events, TIMES);
}

/// One event into a record, in every format.
fn render() {
    for number in 0..TIMES {
        let sample = sample::event(number);
        let position = Position { epoch: Epoch::from_bits(1), seq: Seq(number + 1) };
        black_box(measured(|| {
            let event = Event::parse(&sample.name, &sample.data).expect("an event that is right");
            Record::event(&event, position, Moment::default())
        }));
    }
}

/// One event from its text into a full ring and out to the one group of so many it concerns.
fn append(filters: usize) {
    let mut world = World::full(RING_EVENTS);
    let filters = sample::filters(By::Prefix, filters, Concerned::One);
    let subscriptions: Vec<_> = filters.into_iter().map(|filter| world.subscribe(filter)).collect();
    let target = sample::event(TARGET);
    for _ in 0..TIMES {
        measured(|| world.append(&target));
    }
    drop(subscriptions);
}

/// The look-up alone, of one among 15,000.
fn interest() {
    let mut interest = Interest::default();
    for (key, filter) in sample::filters(By::Prefix, 15_000, Concerned::One).iter().enumerate() {
        interest.insert(filter, key);
    }
    let target = sample::event(TARGET);
    let device = sample::device(TARGET);
    let mut found = 0;
    for _ in 0..TIMES {
        measured(|| {
            interest.concerned(&target.name, Some(&device), |key| {
                black_box(key);
                found += 1;
            });
        });
    }
    assert_eq!(found, TIMES);
}

/// A subscription looks at one record, which passes.
fn examine() {
    let mut world = World::full(RING_EVENTS);
    let filter = sample::filters(By::Prefix, 1, Concerned::One).remove(0);
    let (mut subscription, _) =
        world.hub.subscribe(filter, &Start::Live, Transport::Sse, Moment::default());
    let target = sample::event(TARGET);
    let budget = Budget { records: 1024, bytes: 16 << 10 };
    for _ in 0..TIMES {
        world.append(&target);
        let mut delivered = 0;
        let examined = measured(|| {
            subscription.examine(budget, |record| {
                delivered += 1;
                black_box(record).bytes()
            })
        });
        assert_eq!((delivered, examined), (1, Examined::All));
    }
}

/// A session asks, and writes one record.
fn step_that_delivers() {
    let mut world = World::full(RING_EVENTS);
    let mut session = world.session("prefix=greenhouse/bay-3/");
    let target = sample::event(TARGET);
    for _ in 0..TIMES {
        world.append(&target);
        let step = measured(|| world.step(&mut session));
        assert!(matches!(step, Step::Write(write) if write.events == 1), "an event is there");
        world.rest(&mut session);
    }
}

/// The same where another member of the group was first in the turn: most deliveries are this.
fn step_that_shares() {
    let mut world = World::full(RING_EVENTS);
    let mut first = world.session("prefix=greenhouse/bay-3/");
    let mut session = world.session("prefix=greenhouse/bay-3/");
    let target = sample::event(TARGET);
    for _ in 0..TIMES {
        world.append(&target);
        assert!(matches!(world.step(&mut first), Step::Write(_)), "an event is there");
        let step = measured(|| world.step(&mut session));
        assert!(matches!(step, Step::Write(write) if write.events == 1), "an event is there");
        world.rest(&mut first);
        world.rest(&mut session);
    }
}

/// A session asks, and there is nothing: the second half of each delivery.
fn step_that_waits() {
    let mut world = World::full(RING_EVENTS);
    let mut session = world.session("prefix=greenhouse/bay-3/");
    let target = sample::event(TARGET);
    for _ in 0..TIMES {
        world.append(&target);
        assert!(matches!(world.step(&mut session), Step::Write(_)), "an event is there");
        let step = measured(|| world.step(&mut session));
        assert!(matches!(step, Step::Wait { .. }), "nothing else is there");
        world.rest(&mut session);
    }
}

/// What is counted: callgrind starts where this function begins and stops where it ends. It knows
/// it by its name, so that must stay the only one of its kind.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// [`measured`], mangled or not.
const MEASURED: &str = "*gates*measured*";

// --- comparing ---

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        println!("gates: not counted, this is no optimised build");
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `--bench` comes from cargo.
    let arguments: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| *argument != "--bench").collect();
    let result = match arguments.as_slice() {
        ["--one", name] => {
            GATES.iter().filter(|(gate, _)| gate == name).for_each(|(_, run)| run());
            return ExitCode::SUCCESS;
        }
        ["--refresh"] => refresh(""),
        ["--refresh", part] => refresh(part),
        [] => check(""),
        [part] => check(part),
        _ => Err("one part of a name at most".into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gates: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Compares, and says whether all is within bounds.
fn check(part: &str) -> Result<bool, Box<dyn Error>> {
    let rows = Row::all(&fs::read_to_string(BOUNDS)?)?;
    let mut failures = String::new();
    let counts = count_all(part)?;
    for (name, count) in &counts {
        let Some(row) = rows.iter().find(|row| row.name == *name) else {
            writeln!(failures, "{name} takes {count} instructions and has no bound")?;
            continue;
        };
        let difference = 100.0 * (*count as f64 / row.measured as f64 - 1.0);
        println!("{name:<14}{count:>8} instructions, bound {:>8} ({difference:+.1} %)", row.bound);
        if *count > row.bound {
            writeln!(
                failures,
                "{name} takes {count} instructions, its bound is {} ({} measured on {})",
                row.bound, row.measured, row.date
            )?;
        }
    }
    let over_bounds = !failures.is_empty();
    let (prefix, factor) = ALIKE;
    let alike = || counts.iter().filter(|(name, _)| name.starts_with(prefix));
    let least = alike().min_by_key(|(_, count)| count);
    let most = alike().max_by_key(|(_, count)| count);
    if let (Some((less, least)), Some((more, most))) = (least, most)
        && *most > factor * *least
    {
        writeln!(
            failures,
            "{more} takes {most} instructions, more than {factor} times the {least} of {less}: \
             filters that an event does not concern must cost next to nothing"
        )?;
    }
    eprint!("\n{failures}");
    if over_bounds {
        eprintln!("If that is meant to be: cargo run --release -p fanlight-gates -- --refresh");
    }
    Ok(failures.is_empty())
}

/// Measures and writes bounds anew.
fn refresh(part: &str) -> Result<bool, Box<dyn Error>> {
    let text = fs::read_to_string(BOUNDS)?;
    let mut rows = Row::all(&text)?;
    rows.retain(|row| GATES.iter().any(|(name, _)| *name == row.name));
    let today = WallTime(clock::wall_ms()).to_string();
    let date = today.split('T').next().unwrap_or_default();
    for (name, measured) in count_all(part)? {
        let bound = (measured * BOUND_PERCENT).div_ceil(100);
        rows.retain(|row| row.name != name);
        rows.push(Row { name: name.to_owned(), bound, measured, date: date.to_owned() });
    }
    rows.sort_by_key(|row| GATES.iter().position(|(name, _)| *name == row.name));
    let mut written: String = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .fold(String::new(), |all, line| all + line + "\n");
    for Row { name, bound, measured, date } in rows {
        writeln!(written, "{name:<14}{bound:>8}{measured:>10}  {date}")?;
    }
    fs::write(BOUNDS, &written)?;
    print!("{written}");
    Ok(true)
}

/// A line of bounds.txt.
struct Row {
    name: String,
    bound: u64,
    measured: u64,
    date: String,
}

impl Row {
    fn all(text: &str) -> Result<Vec<Row>, Box<dyn Error>> {
        text.lines().filter(|line| !line.starts_with('#')).map(Row::parse).collect()
    }

    fn parse(line: &str) -> Result<Row, Box<dyn Error>> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[name, bound, measured, date] = fields.as_slice() else {
            return Err(format!("not four fields in bounds.txt: {line:?}").into());
        };
        let (bound, measured) = (bound.parse()?, measured.parse()?);
        Ok(Row { name: name.to_owned(), bound, measured, date: date.to_owned() })
    }
}

/// Counts each gate whose name holds `part`, in a process of its own, two at a time: CI machines
/// have two cores.
fn count_all(part: &str) -> Result<Vec<(&'static str, u64)>, Box<dyn Error>> {
    let names: Vec<&str> =
        GATES.iter().map(|(name, _)| *name).filter(|name| name.contains(part)).collect();
    if names.is_empty() {
        return Err(format!("no gate has {part:?} in its name").into());
    }
    let program = std::env::current_exe()?;
    let count = |skipped: usize| -> Vec<(&'static str, Result<u64, String>)> {
        let chosen = names.iter().skip(skipped).step_by(2);
        chosen.map(|name| (*name, count_one(&program, name))).collect()
    };
    let (even, odd) = thread::scope(|scope| {
        let odd = scope.spawn(|| count(1));
        (count(0), odd.join().expect("counting does not panic"))
    });
    let mut counts = Vec::new();
    for (name, result) in even.into_iter().chain(odd) {
        counts.push((name, result.map_err(|error| format!("{name}: {error}"))?));
    }
    counts.sort_by_key(|(name, _)| names.iter().position(|other| other == name));
    Ok(counts)
}

/// Instructions of one gate, each time it does its thing.
fn count_one(program: &Path, name: &str) -> Result<u64, String> {
    let out: PathBuf = program.with_file_name(format!("gates-{}.out", name.replace('/', "-")));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["--one", name])
        .output()
        .map_err(|error| format!("valgrind does not run: {error}"))?;
    if !run.status.success() {
        return Err(format!("{}:\n{}", run.status, String::from_utf8_lossy(&run.stderr)));
    }
    let report = fs::read_to_string(&out).map_err(|error| error.to_string())?;
    let total = report.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    // Nothing counted would pass every bound.
    if total < TIMES {
        return Err(format!("callgrind counted {total} instructions: is `measured` still there?"));
    }
    Ok(total / TIMES)
}
