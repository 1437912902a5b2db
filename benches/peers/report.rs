//! The results: every round as JSON, medians as tables and bars.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs,
    path::Path,
    str::FromStr,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{peer::Transport, plot};

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    Connect,
    Memory,
    Spaced,
    Burst,
    Stalled,
    Replay,
    Filters,
    Reach,
    Shards,
}

/// A column of a scenario's table: the figure's name in the JSON, its heading, its decimals.
type Column = (&'static str, &'static str, usize);

/// What one round of one scenario found about one peer.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) transport: Transport,
    pub(crate) peer: String,
    /// What else differs within the scenario; empty where nothing does.
    pub(crate) case: String,
    pub(crate) round: u32,
    pub(crate) figures: Vec<(&'static str, f64)>,
    pub(crate) faults: Faults,
}

/// What no delivery may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Never came, though later ones did.
    pub(crate) lost: u64,
    /// Had not come when the wait was over.
    pub(crate) late: u64,
    /// Came after later ones, or twice.
    pub(crate) disordered: u64,
}

impl std::ops::Add for Faults {
    type Output = Faults;

    fn add(self, other: Faults) -> Faults {
        Faults {
            lost: self.lost + other.lost,
            late: self.late + other.late,
            disordered: self.disordered + other.disordered,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.lost, "lost"),
            (self.late, "late"),
            (self.disordered, "out of order or repeated"),
        ];
        let told: Vec<String> = kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, kind)| format!("{count} {kind}"))
            .collect();
        match told.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&told.join(", ")),
        }
    }
}

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Facts about the run: machine, versions, sizes.
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) rows: Vec<Row>,
    /// Peers or scenarios that were left out, and why.
    pub(crate) skipped: Vec<String>,
}

/// The rounds of one line of a table.
type Lines<'a> = BTreeMap<(Scenario, Transport, usize), Vec<&'a Row>>;

// === impl Scenario ===

impl Scenario {
    pub(crate) const ALL: [Scenario; 9] = [
        Scenario::Connect,
        Scenario::Memory,
        Scenario::Spaced,
        Scenario::Burst,
        Scenario::Stalled,
        Scenario::Replay,
        Scenario::Filters,
        Scenario::Reach,
        Scenario::Shards,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Connect => "connect",
            Scenario::Memory => "memory",
            Scenario::Spaced => "spaced",
            Scenario::Burst => "burst",
            Scenario::Stalled => "stalled",
            Scenario::Replay => "replay",
            Scenario::Filters => "filters",
            Scenario::Reach => "reach",
            Scenario::Shards => "shards",
        }
    }

    fn says(self) -> &'static str {
        match self {
            Scenario::Connect => {
                "Connect: processor time of the server for each subscriber, from the connect to the \
                 head of the answer."
            }
            Scenario::Memory => {
                "Memory: user memory of the server for each open connection, before any event, for \
                 each of half as many that come on top, and after some events were delivered. The \
                 kernel's sockets are not in it, for all alike."
            }
            Scenario::Spaced => {
                "Spaced: one event at a time, each waited for until every subscriber has it. \
                 Processor time of the server for a delivery; time from the publish to the first, \
                 the median, the 99th percentile and the last delivery."
            }
            Scenario::Burst => {
                "Burst: 50 events at once, repeated. Processor time of the server for a delivery; \
                 time from the publish; deliveries a second of wall time, which the load shares."
            }
            Scenario::Stalled => {
                "Stalled: some subscribers never read. 99th percentile of the healthy ones, alone \
                 and beside them, and user memory of the server for each stalled one. What the \
                 kernel holds for these is not in it."
            }
            Scenario::Replay => {
                "Replay: clients return at once and ask for all that is held, while others are \
                 live. 99th percentile of the live ones, alone and meanwhile; processor time of \
                 the server for a replayed delivery; time until the last client is complete."
            }
            Scenario::Filters => {
                "Filters: every subscriber has a prefix of its own. Processor time of the server \
                 for an event that concerns none or one of them."
            }
            Scenario::Reach => {
                "Reach: all subscribers have one filter and an event concerns all. Time until the \
                 last has it."
            }
            Scenario::Shards => {
                "Shards: the same load on one core and on two. With two, the load has no core to \
                 itself: read the processor time, not the latency."
            }
        }
    }

    fn columns(self) -> &'static [Column] {
        match self {
            Scenario::Connect => {
                &[("cpu_us", "µs of processor", 1), ("opened_ms", "all open after, ms", 0)]
            }
            Scenario::Memory => &[
                ("idle_kib", "KiB idle", 2),
                ("further_kib", "KiB for each further one", 2),
                ("used_kib", "KiB after events", 2),
            ],
            Scenario::Spaced => &[
                ("cpu_us", "µs of processor", 2),
                ("first_ms", "first, ms", 2),
                ("median_ms", "median, ms", 1),
                ("p99_ms", "p99, ms", 1),
                ("last_ms", "last, ms", 1),
            ],
            Scenario::Burst => &[
                ("cpu_us", "µs of processor", 2),
                ("median_ms", "median, ms", 1),
                ("p99_ms", "p99, ms", 1),
                ("per_second", "deliveries a second", 0),
            ],
            Scenario::Stalled => &[
                ("alone_p99_ms", "p99 alone, ms", 1),
                ("beside_p99_ms", "p99 beside them, ms", 1),
                ("stalled_kib", "KiB a stalled one", 1),
            ],
            Scenario::Replay => &[
                ("alone_p99_ms", "live p99 alone, ms", 1),
                ("meanwhile_p99_ms", "live p99 meanwhile, ms", 1),
                ("cpu_us", "µs of processor", 2),
                ("replayed_ms", "all complete after, ms", 0),
                ("complete", "complete, %", 1),
            ],
            Scenario::Filters => &[("cpu_us", "µs of processor an event", 2)],
            Scenario::Reach => &[
                ("first_ms", "first, ms", 2),
                ("median_ms", "median, ms", 1),
                ("last_ms", "last, ms", 1),
            ],
            Scenario::Shards => &[
                ("spaced_us", "µs, spaced", 2),
                ("spaced_last_ms", "last, ms", 1),
                ("burst_us", "µs, burst", 2),
                ("burst_per_second", "deliveries a second, burst", 0),
            ],
        }
    }
}

impl FromStr for Scenario {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Scenario> {
        let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == text);
        found.with_context(|| format!("no scenario is called {text}"))
    }
}

// === impl Row ===

impl Row {
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(of, _)| *of == name).map(|(_, value)| *value)
    }

    /// On one line, for those who wait.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "  {:<8} {:<9} {} {}round {}:",
            self.scenario.name(),
            self.transport.to_string(),
            self.peer,
            if self.case.is_empty() { String::new() } else { format!("({}) ", self.case) },
            self.round,
        );
        for (name, value) in &self.figures {
            let _ = write!(line, " {name} {value:.2}");
        }
        if self.faults != Faults::default() {
            let _ = write!(line, "  FAULTS: {}", self.faults);
        }
        line
    }
}

// === impl Report ===

impl Report {
    /// Writes `peers.json`, `peers.md` and `peers.svg`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write("peers.json", format!("{:#}\n", self.json()))?;
        write("peers.svg", self.bars())?;
        write("peers.md", self.markdown())
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            let figures: serde_json::Map<String, Value> = row
                .figures
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            json!({
                "scenario": row.scenario.name(),
                "transport": row.transport.to_string(),
                "peer": row.peer,
                "case": row.case,
                "round": row.round,
                "figures": figures,
                "lost": row.faults.lost,
                "late": row.faults.late,
                "disordered": row.faults.disordered,
            })
        };
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({ "facts": facts, "skipped": self.skipped, "rounds": rows })
    }

    /// The rows by the line they belong to, peers and cases in the order they were measured in.
    fn lines(&self) -> Lines<'_> {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        let mut lines = Lines::new();
        for row in &self.rows {
            let label = (row.peer.as_str(), row.case.as_str());
            let place = seen.iter().position(|of| *of == label).unwrap_or_else(|| {
                seen.push(label);
                seen.len() - 1
            });
            lines.entry((row.scenario, row.transport, place)).or_default().push(row);
        }
        lines
    }

    fn markdown(&self) -> String {
        let mut page = String::from(
            "# Beside other brokers\n\nWritten by `benches/peers/run`; do not edit. Medians of all \
             rounds, which are in [peers.json](peers.json). A fault is a delivery that never \
             came though later ones did (lost), had not come 20 s after its event (late), or came \
             out of order or twice.\n\n",
        );
        for (name, value) in &self.facts {
            let _ = writeln!(page, "- {name}: {value}");
        }
        for skipped in &self.skipped {
            let _ = writeln!(page, "- left out: {skipped}");
        }
        page.push_str("\n![Processor time a delivery](peers.svg)\n");
        let lines = self.lines();
        for scenario in Scenario::ALL {
            let of: Vec<_> = lines.iter().filter(|(key, _)| key.0 == scenario).collect();
            if of.is_empty() {
                continue;
            }
            let with_case = of.iter().any(|(_, rows)| !rows[0].case.is_empty());
            let case = if with_case { " case |" } else { "" };
            let columns = scenario.columns();
            let _ = write!(page, "\n{}\n\n| peer | over |{case}", scenario.says());
            for (_, heading, _) in columns {
                let _ = write!(page, " {heading} |");
            }
            page.push_str(" faults |\n|---|---|");
            page.push_str(&"---|".repeat(columns.len() + 1 + usize::from(with_case)));
            page.push('\n');
            for (_, rows) in of {
                let _ = write!(page, "| {} | {} |", rows[0].peer, rows[0].transport);
                if with_case {
                    let _ = write!(page, " {} |", rows[0].case);
                }
                for (name, _, decimals) in columns {
                    match median(rows, name) {
                        Some(value) => page.push_str(&format!(" {} |", number(value, *decimals))),
                        None => page.push_str(" |"),
                    }
                }
                let _ = writeln!(page, " {} |", faults(rows));
            }
        }
        page
    }

    fn bars(&self) -> String {
        let lines = self.lines();
        let group = |scenario: Scenario, transport: Transport| {
            let bars = lines
                .iter()
                .filter(|(key, _)| (key.0, key.1) == (scenario, transport))
                .filter_map(|(_, rows)| Some((rows[0].peer.clone(), median(rows, "cpu_us")?)))
                .collect();
            let title = match scenario {
                Scenario::Spaced => format!("one event at a time, {transport}"),
                _ => format!("bursts of 50, {transport}"),
            };
            plot::Group { title, bars }
        };
        let groups: Vec<plot::Group> = [Scenario::Spaced, Scenario::Burst]
            .into_iter()
            .flat_map(|scenario| {
                [Transport::Sse, Transport::WebSocket].map(|transport| group(scenario, transport))
            })
            .filter(|group: &plot::Group| !group.bars.is_empty())
            .collect();
        plot::bars("Processor time of the server for a delivery, µs (less is better)", &groups)
    }
}

/// The median of a figure over rounds; of an even count the lower middle.
fn median(rows: &[&Row], name: &str) -> Option<f64> {
    let mut values: Vec<f64> = rows.iter().filter_map(|row| row.figure(name)).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// Faults of all rounds together: they are no matter for a median.
fn faults(rows: &[&Row]) -> String {
    let sum = rows.iter().fold(Faults::default(), |sum, row| sum + row.faults);
    if sum == Faults::default() { sum.to_string() } else { format!("**{sum}**") }
}

/// With thousands set apart where there are no decimals.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if decimals > 0 || text.len() < 5 {
        return text;
    }
    let mut apart = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at) % 3 == 0 {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}
