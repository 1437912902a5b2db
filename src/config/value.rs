//! A checked value, and how values are shown: as TOML, with what is secret masked.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use url::Url;

use super::settings::Kind;

/// What stands in the place of a secret.
pub(super) const MASK: &str = "***";
/// Most characters of a refused value that a message repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// A token or password. `Debug` shows a mask; the text comes out by [`Secret::expose`] alone.
#[derive(Clone)]
pub struct Secret(String);

/// A checked value.
#[derive(Clone)]
pub(super) enum Value {
    Address(SocketAddr),
    Duration(Duration),
    Size(u64),
    Count(u64),
    Auto,
    Number(f64),
    Text(String),
    Path(PathBuf),
    Url(Url),
    Choice(&'static str),
    Switch(bool),
    Secret(Secret),
    List(Vec<String>),
}

/// A checked value and how it stands in a configuration file.
#[derive(Clone)]
pub(super) struct Parsed {
    pub(super) value: Value,
    /// The value as TOML, secrets masked.
    pub(super) literal: String,
    /// Whether something is masked, so that the literal is not the value.
    pub(super) is_masked: bool,
}

/// How a layer gave a value. The environment and the flags have text alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Integer,
    Float,
    Boolean,
    /// A table, an array, a date: no setting takes one.
    Other(&'static str),
}

/// A refused value as a message shows it: masked, escaped and cut.
pub(super) fn shown(kind: &Kind, shape: Shape, text: &str) -> String {
    match (kind, shape) {
        (_, Shape::Other(noun)) => noun.to_owned(),
        (Kind::Secret { .. }, _) => MASK.to_owned(),
        (Kind::Url, _) => toml_string(&cut(&url_masked(text))),
        (_, Shape::Text) => toml_string(&cut(text)),
        _ => cut(text).escape_debug().to_string(),
    }
}

/// A text as a TOML basic string.
pub(super) fn toml_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text itself, for the one request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// An address without what may be secret in it: user name, password and query.
pub(super) fn url_masked(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    // A password may itself contain `/` or `?` where the address is wrong: all up to the last `@`.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (format!("{MASK}@"), rest),
        None => (String::new(), rest),
    };
    let (rest, query) = match rest.split_once(['?', '#']) {
        Some((rest, _)) => (rest, format!("?{MASK}")),
        None => (rest, String::new()),
    };
    format!("{scheme}{user}{rest}{query}")
}

/// A text that is too long for a message, cut.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for text in [
            "https://u:hunter2@example.org/x?key=hunter2",
            "https://u:hun/ter2hunter2@example.org",
            "https://u:a?hunter2@example.org",
            "u:hunter2@example.org",
            "https://example.org/#hunter2",
        ] {
            let shown = shown(&Kind::Url, Shape::Text, text);
            assert!(!shown.contains("hunter2") && shown.contains("example.org"), "{shown}");
        }
    }

    #[test]
    fn long_values_are_cut() {
        let shown = shown(&Kind::Path, Shape::Text, &"é".repeat(1 << 20));
        assert_eq!(shown.chars().count(), SHOWN_CHARS_MAX + 3);
    }

    proptest! {
        #[test]
        fn quoted_text_reads_back(text in "\\PC*|[\\x00-\\xff]*") {
            let document = format!("key = {}", toml_string(&text));
            let table = toml::de::DeTable::parse(&document).expect("valid TOML");
            let value = table.get_ref().get("key").and_then(|value| value.get_ref().as_str());
            prop_assert_eq!(value, Some(text.as_str()));
        }
    }
}
