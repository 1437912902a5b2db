//! The configuration file: TOML in, values with their lines out, or the mistakes with theirs.
//!
//! The value of an unknown key is never repeated, nor is the text around a syntax error: either
//! may be a token.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::Path,
};

use toml::de::{DeArray, DeTable, DeValue};

use super::{
    layers::Given,
    loaded::{Origin, path_text},
    problems::Problem,
    settings::{Kind, Setting, Settings},
    suggest,
    value::Shape,
};

/// The file that is read where none is named, if it exists.
pub(super) const FILE_NAME: &str = "fanlight.toml";
/// A file with every setting and a page of comments is about 16 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// After the first few syntax errors the rest are most often their consequences.
const SYNTAX_ERRORS_MAX: usize = 3;

/// What a file said.
#[derive(Default)]
pub(super) struct FileLayer {
    pub(super) given: Vec<Given>,
    /// Settings that a misspelled key was probably meant for.
    pub(super) suspected: Vec<&'static str>,
}

/// Reads a file, up to a bound.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Reads the text of a file. `None`, with the reason among the problems, where it is no TOML at
/// all; then nothing is known about what it would have set.
pub(super) fn layer(path: &Path, bytes: &[u8], problems: &mut Vec<Problem>) -> Option<FileLayer> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = line_of(bytes, error.valid_up_to());
            let fault = format!("{}:{line} is not UTF-8 text", path_text(path));
            problems.push(Problem::new(fault, "save the file as UTF-8"));
            return None;
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        problems.extend(syntax(path, bytes, &errors));
        return None;
    }
    let mut reader = Reader { path, bytes, layer: FileLayer::default(), problems };
    reader.top(table.get_ref());
    Some(reader.layer)
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    layer: FileLayer,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn top(&mut self, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            let is_section =
                Settings::sections().iter().any(|section| section.name == *key.get_ref());
            match (is_section, value.get_ref()) {
                (true, DeValue::Table(section)) => self.section(key.get_ref(), section),
                (true, _) => {
                    let at = self.at(key.span());
                    let fault =
                        format!("{key} ({at}) is a section, not a setting", key = key.get_ref());
                    let remedy = format!("write [{}] on a line of its own", key.get_ref());
                    self.problems.push(Problem::new(fault, remedy));
                }
                (false, _) => self.key("", key.get_ref(), key.span(), value.get_ref()),
            }
        }
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            self.key(section, key.get_ref(), key.span(), value.get_ref());
        }
    }

    fn key(&mut self, section: &str, key: &str, span: Range<usize>, value: &DeValue<'_>) {
        let Some(setting) = Settings::of_section(section).find(|setting| setting.key == key) else {
            let problem = self.unknown(section, key, span, matches!(value, DeValue::Table(_)));
            self.problems.push(problem);
            return;
        };
        let (shape, text) = match value {
            DeValue::String(text) => (Shape::Text, text.to_string()),
            DeValue::Integer(integer) => (Shape::Integer, integer.to_string()),
            DeValue::Float(float) => (Shape::Float, float.to_string()),
            DeValue::Boolean(boolean) => (Shape::Boolean, boolean.to_string()),
            DeValue::Datetime(_) => (Shape::Other("a date or time"), String::new()),
            DeValue::Array(values) if matches!(setting.kind, Kind::List { .. }) => list(values),
            DeValue::Array(_) => (Shape::Other("a list"), String::new()),
            DeValue::Table(_) => (Shape::Other("a section"), String::new()),
        };
        let origin =
            Origin::File { path: self.path.to_owned(), line: line_of(self.bytes, span.start) };
        self.layer.given.push(Given { setting, shape, text, origin });
    }

    fn unknown(&mut self, section: &str, key: &str, span: Range<usize>, is_table: bool) -> Problem {
        let at = self.at(span);
        if section.is_empty() && is_table {
            let sections = Settings::sections().iter().map(|section| section.name);
            let remedy = match suggest::nearest(key, sections.clone()) {
                Some(meant) => {
                    self.layer
                        .suspected
                        .extend(Settings::of_section(meant).map(|s| s.name.as_str()));
                    format!("did you mean [{meant}]?")
                }
                None => "take it out".to_owned(),
            };
            let allowed: Vec<&str> = sections.filter(|name| !name.is_empty()).collect();
            let fault = format!("[{}] ({at}) is not a section", key.escape_debug());
            return Problem::new(fault, remedy).allowed(format!("sections {}", allowed.join(", ")));
        }
        let meant = meant_by(section, key);
        self.layer.suspected.extend(meant.map(|setting| setting.name.as_str()));
        let remedy = match meant {
            Some(setting) if setting.section == section => format!("did you mean {}?", setting.key),
            Some(Setting { section: "", key, .. }) => {
                format!("{key} stands before the first [section]")
            }
            Some(setting) => format!("did you mean {} under [{}]?", setting.key, setting.section),
            None => "take it out".to_owned(),
        };
        let mut allowed: Vec<&str> =
            Settings::of_section(section).map(|setting| setting.key).collect();
        let (name, holder) = match section {
            "" => {
                allowed.push("sections");
                (key.escape_debug().to_string(), "before the first [section]".to_owned())
            }
            _ => (format!("{section}.{}", key.escape_debug()), format!("in [{section}]")),
        };
        Problem::new(format!("{name} ({at}) is not a setting"), remedy)
            .allowed(format!("{holder}: {}", allowed.join(", ")))
    }

    fn at(&self, span: Range<usize>) -> Origin {
        Origin::File { path: self.path.to_owned(), line: line_of(self.bytes, span.start) }
    }
}

/// The first error of each of the first few lines that have one.
fn syntax(path: &Path, bytes: &[u8], errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut lines = BTreeMap::new();
    for error in errors {
        let line = line_of(bytes, error.span().map_or(0, |span| span.start));
        lines.entry(line).or_insert(error.message());
    }
    let problem = |(line, message): (usize, &str)| {
        let fault = format!("{}:{line} is not valid TOML: {message}", path_text(path));
        let remedy = if message.contains("quoted") {
            "put text in quotes, as in key = \"value\""
        } else {
            "mend that line, or the one before it"
        };
        Problem::new(fault, remedy)
    };
    lines.into_iter().take(SYNTAX_ERRORS_MAX).map(problem).collect()
}

/// The setting an unknown key was probably meant for: a near name in the section, the same key in
/// another one, or the flag's name written as a key.
fn meant_by(section: &str, key: &str) -> Option<&'static Setting> {
    let near = suggest::nearest(key, Settings::of_section(section).map(|setting| setting.key));
    let table = Settings::table().iter();
    let here =
        near.and_then(|near| Settings::of_section(section).find(|setting| setting.key == near));
    here.or_else(|| table.clone().find(|setting| setting.key == key)).or_else(|| {
        let flag = key.replace('_', "-");
        table.clone().find(|setting| setting.flag == flag)
    })
}

/// The pairs of a table in the order they stand in the file.
fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a toml::Spanned<toml::de::DeString<'i>>, &'a toml::Spanned<DeValue<'i>>)> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}

/// An array as the text that a list is in the other layers.
fn list(values: &DeArray<'_>) -> (Shape, String) {
    let mut texts = Vec::new();
    for value in values {
        match value.get_ref() {
            DeValue::String(text) if text.is_empty() => {
                return (Shape::Other("a list with an empty text"), String::new());
            }
            DeValue::String(text) => texts.push(text.as_ref()),
            _ => return (Shape::Other("a list of more than texts"), String::new()),
        }
    }
    (Shape::Text, texts.join(","))
}

fn line_of(bytes: &[u8], offset: usize) -> usize {
    1 + bytes.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_an_error_and_so_is_what_is_absent() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(read(here).is_err());
        assert_eq!(read(&here.join("absent.toml")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(read(&here.join("Cargo.toml")).unwrap().starts_with(b"[package]"));
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "it is larger than 1048576 bytes");
    }

    #[test]
    fn an_array_is_a_list() {
        let read = |text: &str| {
            let table = DeTable::parse(text).unwrap();
            match table.get_ref().get("a").map(|value| value.get_ref()) {
                Some(DeValue::Array(values)) => list(values),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read("a = []"), (Shape::Text, String::new()));
        assert_eq!(read("a = ['b']"), (Shape::Text, "b".to_owned()));
        assert_eq!(read("a = ['b', \"c\"]"), (Shape::Text, "b,c".to_owned()));
        assert_eq!(read("a = ['b', '']").0, Shape::Other("a list with an empty text"));
        assert_eq!(read("a = ['b', 5]").0, Shape::Other("a list of more than texts"));
        assert_eq!(read("a = [['b']]").0, Shape::Other("a list of more than texts"));
    }

    #[test]
    fn byte_order_marks_and_line_ends_do_no_harm() {
        let mut problems = Vec::new();
        let text = "\u{feff}listen = \"127.0.0.1:1\"\r\n\r\n[ring]\r\nevents_max = 1_000\r\n";
        let layer = layer(Path::new("f"), text.as_bytes(), &mut problems).unwrap();
        assert_eq!(problems, []);
        let found: Vec<_> =
            layer.given.iter().map(|g| (g.text.as_str(), g.origin.to_string())).collect();
        assert_eq!(found, [("127.0.0.1:1", "f:1".to_owned()), ("1000", "f:4".to_owned())]);
    }
}
