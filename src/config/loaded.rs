//! The effective configuration: every value with its origin, asked for by name and type.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use super::{
    settings::{DefaultValue, Setting, Settings},
    value::{Parsed, Secret, Value},
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No layer set it.
    Default,
    /// No layer set it; it was worked out from this environment variable.
    Derived(&'static str),
    /// The configuration file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
    /// The command itself decides it, such as `fanlight demo`.
    Command(&'static str),
}

/// A setting's state after the layers: its value, if it has one, and where that is from.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) parsed: Option<Parsed>,
    pub(super) origin: Origin,
}

/// The effective configuration. Every setting of the table has an entry.
///
/// The readers take a setting's name, such as `upstream.stale_after`. A name that is not in the
/// table, or a reader that does not fit the setting's kind, is a mistake in the program and panics.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub(super) entries: BTreeMap<&'static str, Entry>,
    pub(super) file: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
}

impl Loaded {
    /// The file that was read, if one was.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What may be a mistake and is none that stops the start, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the value came from.
    pub fn origin(&self, name: &str) -> &Origin {
        &self.entry(name).1.origin
    }

    /// Whether any layer set it.
    pub fn is_given(&self, name: &str) -> bool {
        !matches!(self.origin(name), Origin::Default | Origin::Derived(_))
    }

    /// A setting of kind address.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.address_opt(name).unwrap_or_else(|| unset(name))
    }

    /// A setting of kind address; `None` where it is not set.
    pub fn address_opt(&self, name: &str) -> Option<SocketAddr> {
        match self.value(name, &["address"]) {
            Some(Value::Address(address)) => Some(*address),
            _ => None,
        }
    }

    /// A setting of kind duration.
    pub fn duration(&self, name: &str) -> Duration {
        match self.value(name, &["duration"]) {
            Some(Value::Duration(duration)) => *duration,
            _ => unset(name),
        }
    }

    /// A setting of kind size, in bytes. Panics where the table's bounds do not fit into `N`.
    pub fn size<N: TryFrom<u64>>(&self, name: &str) -> N {
        self.size_opt(name).unwrap_or_else(|| unset(name))
    }

    /// A setting of kind size, in bytes; `None` where it is `auto`.
    pub fn size_opt<N: TryFrom<u64>>(&self, name: &str) -> Option<N> {
        match self.value(name, &["size"]) {
            Some(Value::Size(bytes)) => Some(narrowed(name, *bytes)),
            _ => None,
        }
    }

    /// A setting of kind count. Panics where the table's bounds do not fit into `N`.
    pub fn count<N: TryFrom<u64>>(&self, name: &str) -> N {
        self.count_opt(name).unwrap_or_else(|| unset(name))
    }

    /// A setting of kind count; `None` where it is `auto` or not set.
    pub fn count_opt<N: TryFrom<u64>>(&self, name: &str) -> Option<N> {
        match self.value(name, &["count"]) {
            Some(Value::Count(count)) => Some(narrowed(name, *count)),
            _ => None,
        }
    }

    /// A setting of kind number.
    pub fn number(&self, name: &str) -> f64 {
        match self.value(name, &["number"]) {
            Some(Value::Number(number)) => *number,
            _ => unset(name),
        }
    }

    /// A setting of kind text or trace filter that has a default.
    pub fn text(&self, name: &str) -> &str {
        self.text_opt(name).unwrap_or_else(|| unset(name))
    }

    /// A setting of kind text or trace filter; `None` where it is not set.
    pub fn text_opt(&self, name: &str) -> Option<&str> {
        match self.value(name, &["text", "trace filter"]) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A setting of kind path; `None` where it is not set. A relative one starts at the working
    /// directory.
    pub fn path_opt(&self, name: &str) -> Option<&Path> {
        match self.value(name, &["path"]) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// A setting of kind URL.
    pub fn url(&self, name: &str) -> &Url {
        match self.value(name, &["URL"]) {
            Some(Value::Url(url)) => url,
            _ => unset(name),
        }
    }

    /// A setting of kind URL; `None` where it is not set.
    pub fn url_opt(&self, name: &str) -> Option<&Url> {
        match self.value(name, &["URL"]) {
            Some(Value::Url(url)) => Some(url),
            _ => None,
        }
    }

    /// A setting of kind choice: one of the words of its row.
    pub fn choice(&self, name: &str) -> &'static str {
        match self.value(name, &["choice"]) {
            Some(Value::Choice(word)) => word,
            _ => unset(name),
        }
    }

    /// A setting of kind switch.
    pub fn switch(&self, name: &str) -> bool {
        match self.value(name, &["switch"]) {
            Some(Value::Switch(switch)) => *switch,
            _ => unset(name),
        }
    }

    /// A setting of kind list; no values where it is not set.
    pub fn list(&self, name: &str) -> &[String] {
        match self.value(name, &["list"]) {
            Some(Value::List(values)) => values,
            _ => &[],
        }
    }

    /// A setting of kind secret; `None` where it is not set.
    pub fn secret_opt(&self, name: &str) -> Option<&Secret> {
        match self.value(name, &["secret"]) {
            Some(Value::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// The effective configuration as a valid configuration file: sections in order, each value
    /// with a comment that names its origin. What is masked or not set is commented out.
    pub fn print(&self) -> String {
        let mut text = String::new();
        for section in Settings::sections() {
            if !section.name.is_empty() {
                let _ = writeln!(text, "\n[{}]", section.name);
            }
            for setting in Settings::of_section(section.name) {
                let Entry { parsed, origin } = self.entry(&setting.name).1;
                let key = setting.key;
                let _ = match parsed {
                    Some(Parsed { literal, is_masked: false, .. }) => {
                        writeln!(text, "{key} = {literal}  # {origin}")
                    }
                    Some(Parsed { literal, .. }) => {
                        writeln!(text, "# {key} = {literal}  # {origin}")
                    }
                    None => match setting.default {
                        DefaultValue::Derived(from) => {
                            writeln!(text, "# {key} is not set, and nor is any of {from}")
                        }
                        _ => writeln!(text, "# {key} is not set"),
                    },
                };
            }
        }
        text
    }

    fn value(&self, name: &str, nouns: &[&str]) -> Option<&Value> {
        let (setting, entry) = self.entry(name);
        let noun = setting.kind.noun();
        assert!(nouns.contains(&noun), "{name} is a {noun}, not a {}", nouns.join(" or "));
        entry.parsed.as_ref().map(|parsed| &parsed.value)
    }

    fn entry(&self, name: &str) -> (&'static Setting, &Entry) {
        match (Settings::find(name), self.entries.get(name)) {
            (Some(setting), Some(entry)) => (setting, entry),
            _ => panic!("{name} is not in the table of settings"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Derived(variable) => write!(f, "default, from ${variable}"),
            // Escaped, since a path may hold line breaks and terminal sequences.
            Origin::File { path, line } => write!(f, "{}:{line}", path_text(path)),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Command(command) => write!(f, "command {command}"),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.parsed {
            Some(parsed) => write!(f, "{} ({})", parsed.literal, self.origin),
            None => f.write_str("not set"),
        }
    }
}

/// A path for a message, with control characters escaped.
pub(super) fn path_text(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().any(char::is_control) {
        text.escape_debug().to_string()
    } else {
        text.into_owned()
    }
}

fn narrowed<N: TryFrom<u64>>(name: &str, number: u64) -> N {
    let Ok(number) = N::try_from(number) else {
        panic!("the bounds of {name} do not fit into the type asked for");
    };
    number
}

fn unset(name: &str) -> ! {
    panic!("{name} may be without a value: read it with the function that ends in _opt")
}
