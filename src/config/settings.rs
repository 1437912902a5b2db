//! What a setting is: a name in three forms, a kind with bounds, a default and a line of help.
//!
//! The rows are in `table.rs`.

use std::{fmt, sync::LazyLock, time::Duration};

use super::{
    element::Element,
    table,
    units::{duration_text, size_text},
};

/// The table of all settings.
#[derive(Debug, Clone, Copy)]
pub struct Settings;

/// A section of the configuration file. The settings outside of any section come first.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The name in brackets in the file; empty for the top level.
    pub name: &'static str,
    /// What the section is about, as the heading in `--help`.
    pub help: &'static str,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The section it stands in; empty for the top level.
    pub section: &'static str,
    /// The key within the section.
    pub key: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds when no layer sets it.
    pub default: DefaultValue,
    /// One line of help.
    pub help: &'static str,
    /// Section and key, `upstream.token_file`.
    pub name: String,
    /// The environment variable, `FANLIGHT_UPSTREAM_TOKEN_FILE`.
    pub environment: String,
    /// The flag without its dashes, `upstream-token-file`.
    pub flag: String,
}

/// What values a setting takes. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// An IP address and a port.
    Address,
    /// A duration with its unit, `1m30s`.
    Duration {
        /// Shortest allowed.
        min: Duration,
        /// Longest allowed.
        max: Duration,
    },
    /// A number of bytes with its unit, `64MiB`.
    Size {
        /// Least bytes allowed.
        min: u64,
        /// Most bytes allowed.
        max: u64,
    },
    /// A number of bytes with its unit, or `auto`: worked out at the start.
    SizeOrAuto {
        /// Least bytes allowed.
        min: u64,
        /// Most bytes allowed.
        max: u64,
    },
    /// A whole number.
    Count {
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// A whole number, or `auto`: worked out at the start.
    CountOrAuto {
        /// Least allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// A number that may have a fraction.
    Number {
        /// Least allowed.
        min: f64,
        /// Most allowed.
        max: f64,
    },
    /// Text without control characters, not empty.
    Text {
        /// Longest allowed, in bytes of UTF-8.
        bytes_max: usize,
    },
    /// A path of the file system.
    Path,
    /// An `http` or `https` address.
    Url,
    /// One of a list of words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// A token or password: never shown.
    Secret {
        /// Longest allowed, in bytes.
        bytes_max: usize,
    },
    /// A level, or filter directives as tracing-subscriber reads them.
    TraceFilter,
    /// Values separated by commas; in the file an array too. A flag may be repeated.
    List {
        /// What each is.
        element: Element,
        /// Most values allowed.
        count_max: usize,
    },
}

/// What holds when no layer sets a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// A value, in the form a user would write it.
    Text(&'static str),
    /// Nothing: the setting is optional.
    Unset,
    /// Worked out from the environment; the text says how.
    Derived(&'static str),
}

impl Settings {
    /// All settings, in the order of the sections and of the documentation.
    pub fn table() -> &'static [Setting] {
        static TABLE: LazyLock<Vec<Setting>> = LazyLock::new(table::rows);
        &TABLE
    }

    /// All sections in their order.
    pub fn sections() -> &'static [Section] {
        table::SECTIONS
    }

    /// The setting with this name, such as `upstream.token_file`.
    pub fn find(name: &str) -> Option<&'static Setting> {
        Self::table().iter().find(|setting| setting.name == name)
    }

    /// The settings of one section, in order.
    pub fn of_section(section: &str) -> impl Iterator<Item = &'static Setting> {
        Self::table().iter().filter(move |setting| setting.section == section)
    }
}

impl Setting {
    /// A row of the table; the three names follow from section and key.
    pub(super) fn new(
        section: &'static str,
        key: &'static str,
        kind: Kind,
        default: DefaultValue,
        help: &'static str,
    ) -> Self {
        let name = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        let environment = format!("FANLIGHT_{}", name.replace('.', "_").to_uppercase());
        let flag = name.replace(['.', '_'], "-");
        Self { section, key, kind, default, help, name, environment, flag }
    }

    /// How to set it, in all three forms.
    pub(super) fn forms(&self) -> String {
        let file = match self.section {
            "" => self.key.to_owned(),
            section => format!("{} under [{section}]", self.key),
        };
        format!("{file} in the file, {} or --{}", self.environment, self.flag)
    }
}

impl Kind {
    /// What a value of this kind is called, as in the Unit column of docs/configuration.md.
    pub fn noun(&self) -> &'static str {
        match self {
            Kind::Address => "address",
            Kind::Duration { .. } => "duration",
            Kind::Size { .. } | Kind::SizeOrAuto { .. } => "size",
            Kind::Count { .. } | Kind::CountOrAuto { .. } => "count",
            Kind::Number { .. } => "number",
            Kind::Text { .. } => "text",
            Kind::Path => "path",
            Kind::Url => "URL",
            Kind::Choice(_) => "choice",
            Kind::Switch => "switch",
            Kind::Secret { .. } => "secret",
            Kind::TraceFilter => "trace filter",
            Kind::List { .. } => "list",
        }
    }

    /// The bounds in a few words, as in the Bounds column of docs/configuration.md.
    pub fn bounds(&self) -> String {
        match self {
            Kind::Address => "an IP address and a port".to_owned(),
            Kind::Duration { min, max } => {
                format!("{} to {}", duration_text(*min), duration_text(*max))
            }
            Kind::Size { min, max } => format!("{} to {}", size_text(*min), size_text(*max)),
            Kind::SizeOrAuto { min, max } => {
                format!("auto, or {} to {}", size_text(*min), size_text(*max))
            }
            Kind::Count { min, max } => format!("{min} to {max}"),
            Kind::CountOrAuto { min, max } => format!("auto, or {min} to {max}"),
            Kind::Number { min, max } => format!("{min} to {max}"),
            Kind::Text { bytes_max } => format!("1 to {bytes_max} bytes"),
            Kind::Path => "any path".to_owned(),
            Kind::Url => "http or https".to_owned(),
            Kind::Choice(words) => listed(words),
            Kind::Switch => "true or false".to_owned(),
            Kind::Secret { bytes_max } => format!("1 to {bytes_max} bytes"),
            Kind::TraceFilter => "a level or directives".to_owned(),
            Kind::List { element, count_max } => format!("up to {count_max} {}", element.bounds()),
        }
    }

    /// What is allowed, in full, for a message.
    pub(super) fn allowed(&self) -> String {
        let bounds = self.bounds();
        match self {
            Kind::Address => format!("{bounds}, such as 127.0.0.1:8080 or [::1]:8080"),
            Kind::Duration { .. } => format!("{bounds}, in d, h, m, s or ms, such as 1m30s"),
            Kind::Size { .. } | Kind::SizeOrAuto { .. } => {
                format!("{bounds}, in B, KiB, MiB, GiB, KB, MB or GB")
            }
            Kind::Count { .. } => format!("a whole number from {bounds}"),
            Kind::CountOrAuto { min, max } => {
                format!("auto, or a whole number from {min} to {max}")
            }
            Kind::Number { .. } => format!("a number from {bounds}"),
            Kind::Text { .. } => format!("{bounds} of text without control characters"),
            Kind::Path => "a path without control characters".to_owned(),
            Kind::Url => {
                "an http or https address without user name, access token and fragment".to_owned()
            }
            Kind::Choice(_) | Kind::Switch => bounds,
            Kind::Secret { .. } => format!("{bounds} of visible ASCII characters, no spaces"),
            Kind::TraceFilter => {
                "error, warn, info, debug or trace, or directives such as info,fanlight=debug"
                    .to_owned()
            }
            Kind::List { element, count_max } => format!(
                "up to {count_max} values, separated by commas or as an array of texts; each {}",
                element.allowed()
            ),
        }
    }
}

impl fmt::Display for DefaultValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DefaultValue::Text(text) | DefaultValue::Derived(text) => f.write_str(text),
            DefaultValue::Unset => f.write_str("not set"),
        }
    }
}

/// `a, b or c`.
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{parse::parse, value::Shape};

    #[test]
    fn the_three_names_follow_from_section_and_key() {
        let setting = Settings::find("upstream.token_file").unwrap();
        assert_eq!(setting.environment, "FANLIGHT_UPSTREAM_TOKEN_FILE");
        assert_eq!(setting.flag, "upstream-token-file");
        let listen = Settings::find("listen").unwrap();
        assert_eq!(
            (listen.environment.as_str(), listen.flag.as_str()),
            ("FANLIGHT_LISTEN", "listen")
        );
    }

    #[test]
    fn no_two_settings_share_a_name() {
        let table = Settings::table();
        let picks: [fn(&Setting) -> &str; 3] = [|s| &s.name, |s| &s.environment, |s| &s.flag];
        for pick in picks {
            let names: BTreeSet<&str> = table.iter().map(pick).collect();
            assert_eq!(names.len(), table.len());
        }
        assert!(table.iter().all(|setting| setting.flag != "config"));
    }

    #[test]
    fn sections_and_settings_come_in_one_order() {
        let mut seen: Vec<&str> = table_sections();
        seen.dedup();
        let sections: Vec<&str> = Settings::sections().iter().map(|section| section.name).collect();
        assert_eq!(seen, sections);
    }

    #[test]
    fn defaults_are_within_their_bounds() {
        for setting in Settings::table() {
            if let DefaultValue::Text(text) = setting.default {
                assert!(parse(&setting.kind, Shape::Text, text).is_ok(), "{}", setting.name);
            }
        }
    }

    #[test]
    fn help_is_one_plain_line() {
        for setting in Settings::table() {
            let help = setting.help;
            assert!(help.len() <= 110 && !help.ends_with('.') && !help.contains('\n'), "{help}");
        }
    }

    #[test]
    fn words_are_listed() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b"]), "a or b");
        assert_eq!(listed(&["a", "b", "c"]), "a, b or c");
    }

    fn table_sections() -> Vec<&'static str> {
        Settings::table().iter().map(|setting| setting.section).collect()
    }
}
