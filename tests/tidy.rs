//! Checks of the repository itself: who may name whom, and that the documents say what
//! the code does.
//!
//! Simple on purpose: it reads lines, so a `//` inside a string hides the rest of that
//! line, and code after `#[cfg(test)]` is not looked at.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A module, the modules of this crate it may name beside itself, and the outside crates
/// it may name. A new dependency is a change to this table, where a reviewer sees it.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    ("model", &[], &["bytes", "jiff", "memchr", "serde", "serde_json", "thiserror"]),
    (
        "access",
        &["model"],
        &["aws_lc_rs", "http", "jiff", "serde", "serde_json", "subtle", "thiserror", "url"],
    ),
    ("edge", &[], &[]),
    ("clock", &["model"], &["tokio"]),
    ("telemetry", &["model"], &["metrics", "metrics_exporter_prometheus", "metrics_process"]),
    ("log", &["model"], &[]),
    ("hub", &["log", "model", "telemetry"], &["bytes", "dashmap", "tokio", "tracing"]),
    (
        "upstream",
        &["clock", "hub", "model"],
        &[
            "bytes",
            "fastrand",
            "http",
            "jiff",
            "memchr",
            "reqwest",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
            "url",
        ],
    ),
    (
        "simulator",
        &["clock"],
        &[
            "axum",
            "bytes",
            "fastrand",
            "http",
            "http_body",
            "hyper",
            "hyper_util",
            "jiff",
            "serde_json",
            "socket2",
            "thiserror",
            "tokio",
            "tracing",
            "url",
        ],
    ),
    ("load", &[], &["hdrhistogram", "memchr", "mio", "rustix", "socket2"]),
    (
        "transport",
        &["access", "clock", "hub", "model", "telemetry"],
        &["bytes", "fastrand", "http", "jiff", "serde_json", "thiserror", "tracing", "url"],
    ),
    (
        "delivery",
        &["hub", "model", "telemetry", "transport"],
        &[
            "bytes",
            "futures_util",
            "http_body",
            "hyper",
            "hyper_util",
            "memchr",
            "mio",
            "slab",
            "socket2",
            "tokio",
            "tokio_stream",
            "tokio_tungstenite",
            "tracing",
        ],
    ),
    (
        "server",
        &[
            "access",
            "clock",
            "delivery",
            "edge",
            "hub",
            "log",
            "model",
            "telemetry",
            "transport",
            "upstream",
        ],
        &[
            "axum",
            "bytes",
            "dashmap",
            "data_encoding",
            "fastrand",
            "http",
            "hyper",
            "hyper_util",
            "reqwest",
            "rust_embed",
            "rustix",
            "serde_json",
            "socket2",
            "subtle",
            "thiserror",
            "tokio",
            "tokio_stream",
            "tokio_tungstenite",
            "tokio_util",
            "tower",
            "tower_http",
            "tracing",
            "url",
        ],
    ),
    ("config", &["edge"], &["clap", "thiserror", "toml", "tracing_subscriber", "url"]),
    (
        "cli",
        &[
            "access",
            "clock",
            "config",
            "delivery",
            "hub",
            "load",
            "log",
            "model",
            "server",
            "simulator",
            "telemetry",
            "transport",
            "upstream",
        ],
        &[
            "anyhow",
            "aws_lc_rs",
            "clap",
            "clap_complete",
            "clap_mangen",
            "fastrand",
            "jiff",
            "reqwest",
            "rustix",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
            "tracing_subscriber",
            "url",
        ],
    ),
];

/// Words that mean the model is looking at the world instead of being told.
const MODEL_BANNED: &[&str] = &[
    "std::fs",
    "std::net",
    "std::sync",
    "std::thread",
    "std::env",
    "Instant",
    "async fn",
    ".await",
];

#[test]
fn modules_name_only_whom_they_may() {
    let outside: BTreeSet<String> = dependencies();
    let mut errors = Vec::new();
    for (module, siblings, crates) in LAYERS {
        let sources = sources(module);
        assert!(!sources.is_empty(), "no source of `{module}`");
        for (path, text) in sources {
            let mut in_crate_list = false;
            for (number, code) in code_lines(&text) {
                in_crate_list =
                    code.trim_end() == "use crate::{" || (in_crate_list && code != "};");
                let at = format!("{path}:{number}");
                if code.contains("super::super::super") {
                    errors.push(format!(
                        "{at}: a path this long hides a layer; name the module by `crate::`"
                    ));
                }
                for sibling in named_siblings(code, in_crate_list) {
                    if sibling != *module && !siblings.contains(&sibling) {
                        errors.push(format!("{at}: `{module}` may not name `crate::{sibling}`"));
                    }
                }
                for name in idents_before(code, "::") {
                    if outside.contains(name) && !crates.contains(&name) && !is_sibling(code, name)
                    {
                        errors.push(format!("{at}: `{module}` may not name the crate `{name}`"));
                    }
                }
                if *module == "model" {
                    for word in MODEL_BANNED.iter().filter(|word| code.contains(**word)) {
                        errors.push(format!("{at}: `model` may not say `{word}`"));
                    }
                }
            }
        }
    }
    assert!(errors.is_empty(), "\n{}\n", errors.join("\n"));
}

#[test]
fn every_module_has_its_row_and_its_place_in_the_architecture() {
    let front = fs::read_to_string("src/lib.rs").unwrap();
    let modules: Vec<&str> =
        front.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let architecture = fs::read_to_string("docs/ARCHITECTURE.md").unwrap();
    for module in &modules {
        assert!(LAYERS.iter().any(|(name, ..)| name == module), "`{module}` has no row in LAYERS");
        let named = [format!("{module}/"), format!("{module}.rs")];
        assert!(
            named.iter().any(|name| architecture.contains(name)),
            "docs/ARCHITECTURE.md omits {module}"
        );
    }
    assert_eq!(modules.len(), LAYERS.len());
}

#[test]
fn every_metric_has_a_row_in_the_docs_and_every_row_a_metric() {
    let page = fs::read_to_string("docs/metrics.md").unwrap();
    let rows: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("fanlight_") && !name.starts_with("fanlight_process_"))
        .collect();
    let metrics: BTreeSet<&str> =
        fanlight::telemetry::METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(rows, metrics);
}

#[test]
fn tests_do_not_sleep_to_wait() {
    for (path, text) in files(Path::new("tests"), "rs") {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let sleeps = ["thread::sleep", "time::sleep("].iter().any(|word| line.contains(word));
            assert!(!sleeps, "{path}:{}: wait for the condition instead", number + 1);
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut pages = files(Path::new("docs"), "md");
    for page in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"] {
        pages.insert(page.to_owned(), fs::read_to_string(page).unwrap());
    }
    let mut errors = Vec::new();
    for (path, text) in &pages {
        for (at, _) in text.match_indices("](") {
            let link = text[at + 2..].split([')', ' ']).next().unwrap();
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !Path::new(path).parent().unwrap().join(target).exists() {
                errors.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(errors.is_empty(), "links to nowhere:\n{}", errors.join("\n"));
}

#[test]
fn the_tests_that_are_said_to_hold_a_threat_exist() {
    let page = fs::read_to_string("docs/security.md").unwrap();
    let tests = files(Path::new("tests"), "rs");
    let is_test = |name: &str| tests.values().any(|text| text.contains(&format!("fn {name}(")));
    let targets: BTreeSet<String> = fs::read_dir("tests/fuzz/corpus")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut fuzzed = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [target, _, _, executions] = cells[..]
            && executions != "executions"
        {
            fuzzed.insert(target.trim_matches('`').to_owned());
        }
        let [_, _, held] = cells[..] else { continue };
        for name in held.split('`').skip(1).step_by(2) {
            let is_there = match name.contains(['/', '.']) {
                true => {
                    Path::new(name).exists() || Path::new("tests/operations").join(name).exists()
                }
                false => targets.contains(name) || is_test(name) || name.starts_with("Fanlight"),
            };
            assert!(is_there, "docs/security.md names `{name}`, which is not there");
        }
    }
    assert_eq!(fuzzed, targets, "docs/security.md has a row for each fuzz target");
}

/// The outside crates the crate itself may use, as they are named in code.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .collect()
}

/// Every source file of a module but its tests, by path, with its text.
fn sources(module: &str) -> BTreeMap<String, String> {
    let mut found = files(&Path::new("src").join(module), "rs");
    let single = Path::new("src").join(format!("{module}.rs"));
    if single.exists() {
        found.insert(single.display().to_string(), fs::read_to_string(single).unwrap());
    }
    // Tests may use what is beside them.
    found.retain(|path, _| {
        !path.ends_with("/tests.rs")
            && !path.contains("/tests/")
            && !path.ends_with("/properties.rs")
    });
    found
}

fn files(folder: &Path, extension: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() && !path.ends_with("target") {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.insert(path.display().to_string(), fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// The lines of code with their numbers, without comments, up to the tests.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().take_while(|(_, line)| !line.contains("#[cfg(test)]"));
    lines.map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

/// Modules named as `crate::X`, or in a list `use crate::{…}`: as rustfmt writes it, they
/// stand four spaces in.
fn named_siblings(code: &str, in_crate_list: bool) -> Vec<&str> {
    let direct = idents_after(code, "crate::").filter(|ident| !ident.is_empty());
    let listed = code
        .strip_prefix("    ")
        .filter(|rest| in_crate_list && rest.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(|rest| &rest[..rest.find(|c| !is_ident(c)).unwrap_or(rest.len())]);
    direct.chain(listed).collect()
}

/// True where a name that is a crate too is used as a module of ours (`server::http::`…).
fn is_sibling(code: &str, name: &str) -> bool {
    code.contains(&format!("crate::{name}")) || code.contains(&format!("super::{name}"))
}

fn idents_after<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).map(move |(at, _)| {
        let rest = &code[at + prefix.len()..];
        &rest[..rest.find(|c: char| !is_ident(c)).unwrap_or(rest.len())]
    })
}

fn idents_before<'a>(code: &'a str, suffix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(suffix).map(move |(at, _)| {
        let head = &code[..at];
        &head[head.rfind(|c: char| !is_ident(c)).map_or(0, |c| c + 1)..]
    })
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
