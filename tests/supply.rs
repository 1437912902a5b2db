//! What the broker is made of is what deny.toml allows: licences, origins, least versions, and one
//! version of each crate but for those it names. The lean half of `cargo deny check`: it needs no
//! more than cargo, and knows no advisories.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;
use toml::de::{DeTable, DeValue};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What deny.toml says, as far as it is held here.
#[derive(Clone, Debug, Default)]
struct Policy {
    licences: BTreeSet<String>,
    /// Licences of one crate alone.
    exceptions: BTreeMap<String, BTreeSet<String>>,
    /// Crates with the first version that is allowed; none at all where there is no version.
    bans: Vec<(String, Option<String>)>,
    /// Crates and versions beside which another one may stand.
    tolerated: BTreeSet<(String, String)>,
}

#[derive(Clone, Debug)]
struct Package {
    name: String,
    version: String,
    /// None for what is ours.
    source: Option<String>,
    /// Known for what this platform builds.
    licence: Option<String>,
}

#[test]
fn the_lock_file_keeps_the_policy() {
    let (policy, packages) = (policy(), packages());
    assert!(packages.len() > 100 && policy.licences.len() > 3 && policy.bans.len() > 3);
    let findings = findings(&packages, &policy);
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn what_breaks_the_policy_is_found() {
    let (policy, packages) = (policy(), packages());
    let with = |name: &str, change: fn(&mut Package)| {
        let mut packages = packages.clone();
        change(packages.iter_mut().find(|package| package.name == name).unwrap());
        findings(&packages, &policy)
    };
    let old = with("hyper", |package| package.version = "1.10.9".to_owned());
    assert_eq!(old, ["hyper 1.10.9 is below 1.11.0, the first version allowed"]);
    let licence =
        with("bytes", |package| package.licence = Some("MIT AND GPL-3.0-only".to_owned()));
    assert!(licence[0].ends_with("GPL-3.0-only` is not allowed by deny.toml"), "{licence:?}");
    let none = with("bytes", |package| package.licence = Some(String::new()));
    assert_eq!(none.len(), 1);
    let source =
        with("mio", |package| package.source = Some("git+https://a.example/mio".to_owned()));
    assert!(source[0].ends_with("comes from git+https://a.example/mio"), "{source:?}");

    let mut twice = packages.clone();
    let slab = twice.iter().find(|package| package.name == "slab").unwrap().clone();
    twice.push(Package { version: "0.3.0".to_owned(), ..slab });
    assert_eq!(findings(&twice, &policy).len(), 1, "a second version");
    let mut banned = packages.clone();
    banned[0].name = "openssl-sys".to_owned();
    assert!(findings(&banned, &policy).contains(&"openssl-sys is not allowed at all".to_owned()));
    let mut stale = policy.clone();
    stale.tolerated.insert(("slab".to_owned(), "0.3.0".to_owned()));
    assert_eq!(findings(&packages, &stale), ["slab 0.3.0 is tolerated and not there"]);
}

#[test]
fn licences_are_read_as_spdx_has_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for expression in [
        "MIT",
        "GPL-2.0 OR MIT",
        "MIT/Unlicense",
        "MIT AND ISC",
        "(GPL-2.0 OR MIT) AND ISC",
        "GPL-2.0 AND GPL-3.0 OR ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_allowed(expression, &allowed), "{expression}");
    }
    for expression in [
        "",
        "GPL-2.0",
        "MIT AND GPL-2.0",
        "MIT AND (GPL-2.0 OR GPL-3.0)",
        "Apache-2.0",
        "MIT OR",
        "(MIT",
    ] {
        assert!(!is_allowed(expression, &allowed), "{expression}");
    }
}

/// All that breaks the policy.
fn findings(packages: &[Package], policy: &Policy) -> Vec<String> {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Package { name, version, source, licence } in packages {
        versions.entry(name).or_default().insert(version);
        if source.as_ref().is_some_and(|source| source != REGISTRY) {
            findings.push(format!("{name} {version} comes from {}", source.as_ref().unwrap()));
        }
        let mut allowed = policy.licences.clone();
        allowed.extend(policy.exceptions.get(name).into_iter().flatten().cloned());
        match licence {
            Some(licence) if source.is_some() && !is_allowed(licence, &allowed) => findings.push(
                format!("{name} {version}: the licence `{licence}` is not allowed by deny.toml"),
            ),
            _ => {}
        }
        for (_, first) in policy.bans.iter().filter(|(banned, _)| banned == name) {
            match first {
                None => findings.push(format!("{name} is not allowed at all")),
                Some(first) if numbers(version) < numbers(first) => findings
                    .push(format!("{name} {version} is below {first}, the first version allowed")),
                Some(_) => {}
            }
        }
    }
    let tolerated = |name: &str, version: &str| {
        policy.tolerated.contains(&(name.to_owned(), version.to_owned()))
    };
    for (name, versions) in &versions {
        let others: Vec<&&str> =
            versions.iter().filter(|version| !tolerated(name, version)).collect();
        if others.len() > 1 {
            findings.push(format!("{name} is there more than once: {others:?}"));
        }
    }
    for (name, version) in &policy.tolerated {
        let found = versions.get(name.as_str());
        if !found.is_some_and(|found| found.len() > 1 && found.contains(version.as_str())) {
            findings.push(format!("{name} {version} is tolerated and not there"));
        }
    }
    findings
}

/// Whether an SPDX expression can be met by these licences.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let is_met = any_of(&mut words, allowed);
    is_met == Some(true) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// None where it is no expression.
fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Option<bool> {
    let mut is_met = all_of(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        is_met |= all_of(words, allowed)?;
    }
    Some(is_met)
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Option<bool> {
    let mut is_met = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        is_met &= one(words, allowed)?;
    }
    Some(is_met)
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Option<bool> {
    match words.next()? {
        "(" => {
            let is_met = any_of(words, allowed)?;
            words.next_if_eq(&")").map(|_| is_met)
        }
        ")" | "AND" | "OR" | "WITH" => None,
        licence => match words.next_if_eq(&"WITH") {
            None => Some(allowed.contains(licence)),
            Some(_) => Some(allowed.contains(&format!("{licence} WITH {}", words.next()?))),
        },
    }
}

/// A version's numbers; what follows a hyphen or a plus is left out.
fn numbers(version: &str) -> Vec<u64> {
    let numbers = version.split(['-', '+']).next().unwrap();
    numbers.split('.').map(|number| number.parse().unwrap()).collect()
}

/// Everything in Cargo.lock; with its licence, what this platform builds.
fn packages() -> Vec<Package> {
    let text = fs::read_to_string("Cargo.lock").unwrap();
    let lock = DeTable::parse(&text).expect("Cargo.lock");
    let licences = licences();
    let entries = array(lock.get_ref().get("package").unwrap().get_ref());
    entries
        .map(|entry| {
            let field = |key| Some(entry.get(key)?.get_ref().as_str()?.to_owned());
            let (name, version) = (field("name").unwrap(), field("version").unwrap());
            let licence = licences.get(&(name.clone(), version.clone())).cloned();
            Package { name, version, source: field("source"), licence }
        })
        .collect()
}

/// The licence of each package that this platform builds; empty where it names none.
fn licences() -> BTreeMap<(String, String), String> {
    let cargo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata =
        cargo(&["metadata", "--locked", "--format-version=1", "--filter-platform", host]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            ((text(&package["name"]), text(&package["version"])), text(&package["license"]))
        })
        .collect()
}

fn policy() -> Policy {
    let text = fs::read_to_string("deny.toml").unwrap();
    let policy = DeTable::parse(&text).expect("deny.toml");
    let at = |section: &str, key: &str| policy.get_ref()[section].get_ref()[key].clone();
    let words = |value: &DeValue<'_>| -> BTreeSet<String> {
        array(value).map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let name = |entry: &DeValue<'_>| entry["crate"].get_ref().as_str().unwrap().to_owned();
    let crates = |value: &DeValue<'_>| -> Vec<String> { array(value).map(name).collect() };
    let exceptions = at("licenses", "exceptions");
    let exceptions =
        array(exceptions.get_ref()).map(|entry| (name(entry), words(entry["allow"].get_ref())));
    let bans = crates(at("bans", "deny").get_ref()).into_iter();
    let tolerated = crates(at("bans", "skip").get_ref()).into_iter();
    Policy {
        licences: words(at("licenses", "allow").get_ref()),
        exceptions: exceptions.collect(),
        bans: bans
            .map(|ban| match ban.split_once(":<") {
                Some((name, first)) => (name.to_owned(), Some(first.to_owned())),
                None => (ban, None),
            })
            .collect(),
        tolerated: tolerated
            .map(|one| {
                let (name, version) = one.split_once('@').expect("crate@version");
                (name.to_owned(), version.to_owned())
            })
            .collect(),
    }
}

fn array<'a, 'i>(value: &'a DeValue<'i>) -> impl Iterator<Item = &'a DeValue<'i>> {
    value.as_array().unwrap().iter().map(|element| element.get_ref())
}
