//! Any file and environment: all that is wrong with it, or values within the table's bounds that
//! print as a file which reads the same. The token shows nowhere.

use std::sync::LazyLock;

use clap::{ArgMatches, Command};
use fanlight::config::{DefaultValue, Environment, Kind, Loaded, Settings, assemble, flags};

/// The token of every try; it is longer than what mutation finds by itself.
const TOKEN: &str = "c4n4ry-70k3n-0f-7h3-fuzz3r";

static NO_FLAGS: LazyLock<ArgMatches> =
    LazyLock::new(|| flags(Command::new("fanlight")).get_matches_from(["fanlight"]));

pub(super) fn config(input: &[u8]) {
    // A byte that is none of UTF-8 ends the file; lines of the environment follow.
    let end = input.iter().position(|byte| *byte == 0xff).unwrap_or(input.len());
    let (file, variables) = input.split_at(end);
    let variables = String::from_utf8_lossy(variables.get(1..).unwrap_or_default()).into_owned();
    let environment: Environment = [("FANLIGHT_UPSTREAM_TOKEN", TOKEN)]
        .into_iter()
        .chain(variables.lines().filter_map(|line| line.split_once('=')))
        .collect();
    match load(file, &environment) {
        Err(problems) => {
            assert!(!problems.is_empty());
            for shown in problems {
                assert!(!shown.contains(TOKEN), "{shown}");
                assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            }
        }
        Ok(loaded) => {
            is_within_bounds(&loaded);
            let print = loaded.print();
            assert!(!print.contains(TOKEN) && !format!("{loaded:?}").contains(TOKEN));
            // What is masked is lost in print: the token and addresses that may hold one.
            let is_masked = |line: &str| line.starts_with("# ") && line.contains(" = ");
            let masked: Vec<&str> = print.lines().filter(|line| is_masked(line)).collect();
            if masked.iter().any(|line| !line.starts_with("# token = ")) {
                return;
            }
            let secret = [("FANLIGHT_UPSTREAM_TOKEN", TOKEN)];
            let secret = secret.into_iter().filter(|_| !masked.is_empty()).collect();
            match load(print.as_bytes(), &secret) {
                Ok(again) => assert_eq!(values(&again.print()), values(&print)),
                Err(problems) => panic!("{print}\n{problems:?}"),
            }
        }
    }
}

fn load(file: &[u8], environment: &Environment) -> Result<Loaded, Vec<String>> {
    let loaded = assemble(&NO_FLAGS, environment, &[], &|_| Ok(file.to_vec()));
    loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn is_within_bounds(loaded: &Loaded) {
    for setting in Settings::table() {
        let name = setting.name.as_str();
        if !loaded.is_given(name) && !matches!(setting.default, DefaultValue::Text(_)) {
            continue;
        }
        match setting.kind {
            Kind::Duration { min, max } => {
                assert!((min..=max).contains(&loaded.duration(name)), "{name}");
            }
            Kind::Size { min, max } => {
                assert!((min..=max).contains(&loaded.size::<u64>(name)), "{name}");
            }
            Kind::SizeOrAuto { min, max } => {
                let bytes = loaded.size_opt::<u64>(name);
                assert!(bytes.is_none_or(|bytes| (min..=max).contains(&bytes)), "{name}");
            }
            Kind::Count { min, max } | Kind::CountOrAuto { min, max } => {
                let count = loaded.count_opt::<u64>(name);
                assert!(count.is_none_or(|count| (min..=max).contains(&count)), "{name}");
            }
            Kind::Number { min, max } => {
                assert!((min..=max).contains(&loaded.number(name)), "{name}");
            }
            Kind::Text { bytes_max } => {
                if let Some(text) = loaded.text_opt(name) {
                    assert!(
                        text.len() <= bytes_max && !text.chars().any(char::is_control),
                        "{name}"
                    );
                }
            }
            Kind::Choice(words) => assert!(words.contains(&loaded.choice(name)), "{name}"),
            Kind::List { count_max, .. } => {
                let values = loaded.list(name);
                assert!(values.len() <= count_max, "{name}");
                assert!(values.iter().all(|value| !value.contains(',')), "{name}");
            }
            Kind::Secret { bytes_max } => {
                let secret = loaded.secret_opt(name);
                assert!(secret.is_none_or(|secret| secret.expose().len() <= bytes_max), "{name}");
            }
            Kind::Address => _ = loaded.address(name),
            Kind::Switch => _ = loaded.switch(name),
            Kind::Path => _ = loaded.path_opt(name),
            Kind::TraceFilter => _ = loaded.text_opt(name),
            Kind::Url => {
                assert!(["http", "https"].contains(&loaded.url(name).scheme()), "{name}");
            }
        }
    }
}

/// The lines that set something, without where it is from.
fn values(print: &str) -> Vec<&str> {
    let lines = print.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value)).collect()
}
