//! How a line looks to people. Pure.
//!
//! Law: what a device wrote reaches a terminal as visible characters alone: it moves no cursor,
//! changes no colour, sets no title and turns no writing direction.

use std::fmt::Write as _;

use serde_json::Value;

use super::reader::Line;

/// Names are aligned up to this width.
const NAME_WIDTH_MAX: usize = 28;
/// Columns of a device.
const DEVICE_WIDTH: usize = 7;
/// Digits of a device's id that are shown: those in front are the same for all of one kind.
const DEVICE_CHARS: usize = 6;
/// `03:58:53.235`.
const TIME_WIDTH: usize = 12;

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const ALERT: &str = "\x1b[1;31m";
const NOTICE: &str = "\x1b[33m";
/// Of names: none is that of an alert.
const NAMES: [&str; 5] = ["\x1b[36m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[1;36m"];

/// How to show lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) has_colour: bool,
    /// Lines are cut to the terminal's width.
    pub(super) is_cut: bool,
}

/// Shows one line after the other.
#[derive(Debug)]
pub(super) struct Show {
    look: Look,
    name_width: usize,
    date: String,
}

impl Show {
    /// Nothing shown yet.
    pub(super) fn new(look: Look) -> Show {
        Show { look, name_width: 0, date: String::new() }
    }

    /// Appends a line, with its line feed, to `out`. `width` is that of the terminal.
    pub(super) fn line(&mut self, line: &Line, width: Option<usize>, out: &mut String) {
        let width = width.filter(|_| self.look.is_cut).unwrap_or(usize::MAX);
        let object: Value = serde_json::from_str(&line.json).unwrap_or_default();
        match &line.control {
            Some(control) => self.control(control, &object, width, out),
            None => self.event(&object, width, out),
        }
    }

    fn event(&mut self, event: &Value, width: usize, out: &mut String) {
        let time = self.time(event["published_at"].as_str().unwrap_or_default(), out);
        let name = visible(event["name"].as_str().unwrap_or_default());
        let device = device(event["coreid"].as_str().unwrap_or_default());
        let data = match (&event["data"], &event["raw"]) {
            (Value::String(text), _) | (Value::Null, Value::String(text)) => visible(text),
            (Value::Null, _) => String::new(),
            (other, _) => visible(&other.to_string()),
        };
        self.name_width = self.name_width.max(columns(&name)).min(NAME_WIDTH_MAX);
        let name_pad = self.name_width.saturating_sub(columns(&name));
        let mut row = Row::new(width);
        row.push(self.paint(DIM), &time);
        row.push("", "  ");
        row.push(self.paint(NAMES[hash(&name) % NAMES.len()]), &name);
        row.push("", &" ".repeat(name_pad + 2));
        row.push(self.paint(DIM), &device);
        row.push("", &" ".repeat(DEVICE_WIDTH.saturating_sub(columns(&device)) + 2));
        row.push("", &data);
        row.end(out);
    }

    fn control(&self, control: &str, object: &Value, width: usize, out: &mut String) {
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let (style, words) = match control {
            "gap" => (ALERT, gap(object)),
            "hole" => {
                let (since, until) = (text("since"), text("until"));
                let why = match text("reason").as_str() {
                    "ended" => "the cloud ended the stream".to_owned(),
                    "reset" => "the connection to the cloud broke".to_owned(),
                    "stalled" => "the cloud fell silent".to_owned(),
                    "startup" => "the first attempts failed".to_owned(),
                    other => other.to_owned(),
                };
                (ALERT, format!("hole: {why}; what it sent from {since} to {until} is lost"))
            }
            "upstream" => match (text("state"), text("detail")) {
                (state, detail) if detail.is_empty() => (NOTICE, format!("upstream: {state}")),
                (state, detail) => (NOTICE, format!("upstream: {state}: {detail}")),
            },
            other => (NOTICE, format!("{other}: {object}")),
        };
        let mut row = Row::new(width);
        row.push(self.paint(style), &format!("-- {}", visible(&words)));
        row.end(out);
    }

    /// The time of day, with a line for each new day before it.
    fn time(&mut self, published_at: &str, out: &mut String) -> String {
        let is_time = published_at.len() >= 11 + TIME_WIDTH
            && published_at.is_ascii()
            && published_at.as_bytes()[10] == b'T'
            && published_at.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_time {
            return " ".repeat(TIME_WIDTH);
        }
        let (date, time) = (&published_at[..10], &published_at[11..11 + TIME_WIDTH]);
        if self.date != date {
            date.clone_into(&mut self.date);
            let mut row = Row::new(usize::MAX);
            row.push(self.paint(DIM), &format!("-- {date}, UTC"));
            row.end(out);
        }
        time.to_owned()
    }

    fn paint(&self, style: &'static str) -> &'static str {
        if self.look.has_colour { style } else { "" }
    }
}

/// One row, cut where the width ends.
struct Row {
    cells: Vec<(&'static str, String)>,
    width: usize,
}

impl Row {
    fn new(width: usize) -> Row {
        Row { cells: Vec::new(), width }
    }

    /// `style` is empty for none. `text` is visible characters.
    fn push(&mut self, style: &'static str, text: &str) {
        self.cells.push((style, text.to_owned()));
    }

    fn end(mut self, out: &mut String) {
        while let Some((_, text)) = self.cells.last_mut() {
            text.truncate(text.trim_end_matches(' ').len());
            if !text.is_empty() {
                break;
            }
            self.cells.pop();
        }
        let all: usize = self.cells.iter().map(|(_, text)| columns(text)).sum();
        // One column is for the mark.
        let mut left = if all <= self.width { all } else { self.width - 1 };
        for (style, text) in &self.cells {
            if left == 0 {
                break;
            }
            out.push_str(style);
            for c in text.chars() {
                let Some(rest) = left.checked_sub(columns_of(c)) else {
                    left = 0;
                    break;
                };
                out.push(c);
                left = rest;
            }
            if !style.is_empty() {
                out.push_str(RESET);
            }
        }
        if all > self.width {
            out.push('…');
        }
        out.push('\n');
    }
}

fn gap(object: &Value) -> String {
    let reason = object["reason"].as_str().unwrap_or_default();
    let why = match reason {
        "evicted" => "the broker holds them no longer",
        "overtaken" => "they were not read fast enough",
        "restart" => "the broker has restarted and forgot its history",
        "future" => "the position is past the broker's newest",
        "malformed" => "what was handed back is no position",
        "oversize" => "it was too large for the broker to keep",
        "refused" => "its name cannot be passed on",
        _ => "the broker says no more",
    };
    match object["count"].as_u64() {
        Some(1) => format!("gap: 1 record is missing ({reason}: {why})"),
        Some(count) => format!("gap: {count} records are missing ({reason}: {why})"),
        None => format!("gap: an unknown number of records is missing ({reason}: {why})"),
    }
}

fn device(coreid: &str) -> String {
    let visible = visible(coreid);
    let chars = visible.chars().count();
    if chars <= DEVICE_WIDTH {
        return visible;
    }
    let tail: String = visible.chars().skip(chars - DEVICE_CHARS).collect();
    format!("…{tail}")
}

/// Text of a device as visible characters: what would act is written out as an escape.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c.is_control() || acts(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Invisible characters that act on what stands around them: directions, joins, line ends,
/// tags and noncharacters.
fn acts(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Columns on a terminal, or more: what is combined counts, so that no line is too long.
fn columns_of(c: char) -> usize {
    match u32::from(c) {
        0x1100..=0x115f
        | 0x231a..=0x231b
        | 0x23e9..=0x23f3
        | 0x25fd..=0x27bf
        | 0x2934..=0x2935
        | 0x2b05..=0x2b55
        | 0x2e80..=0xa4cf
        | 0xa960..=0xa97f
        | 0xac00..=0xd7ff
        | 0xf900..=0xfaff
        | 0xfe10..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x16fe0..=0x18cff
        | 0x1aff0..=0x1b2ff
        | 0x1f000..=0x1fbff
        | 0x20000..=0x3ffff => 2,
        _ => 1,
    }
}

/// The same colour for the same name, in each run.
fn hash(name: &str) -> usize {
    // FNV-1a.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % NAMES.len() as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Look = Look { has_colour: false, is_cut: true };

    fn event(json: &str) -> Line {
        Line { json: json.to_owned(), control: None, position: None }
    }

    fn shown(look: Look, line: &Line, width: usize) -> String {
        let mut out = String::new();
        Show::new(look).line(line, Some(width), &mut out);
        out
    }

    #[test]
    fn an_event_is_a_row() {
        let line = event(
            r#"{"id":"x","name":"door/state","data":"open","published_at":"2026-11-22T03:58:53.235Z","coreid":"e00fce68e8ec2200392752db"}"#,
        );
        assert_eq!(
            shown(PLAIN, &line, 80),
            "-- 2026-11-22, UTC\n03:58:53.235  door/state  …2752db  open\n"
        );
        assert_eq!(shown(PLAIN, &line, 30), "-- 2026-11-22, UTC\n03:58:53.235  door/state  …27…\n");
        let coloured = shown(Look { has_colour: true, is_cut: true }, &line, 80);
        assert_eq!(coloured.matches(RESET).count(), 4, "{coloured:?}");
        let bare = event(r#"{"id":"x","name":"a","raw":"two\nlines"}"#);
        assert_eq!(shown(PLAIN, &bare, 80), "              a           two\\nlines\n");
    }

    #[test]
    fn control_objects_are_told_in_words() {
        let told = |control: &str, json: &str| {
            let line =
                Line { json: json.to_owned(), control: Some(control.to_owned()), position: None };
            shown(PLAIN, &line, 200)
        };
        let gap = told("gap", r#"{"fanlight":"gap","reason":"evicted","count":36}"#);
        assert_eq!(
            gap,
            "-- gap: 36 records are missing (evicted: the broker holds them no longer)\n"
        );
        let hole = told("hole", r#"{"reason":"reset","since":"A","until":"B","count":null}"#);
        assert!(hole.contains("what it sent from A to B is lost"), "{hole}");
        let state = told("upstream", r#"{"state":"backing-off","detail":"gone\u001b[2J"}"#);
        assert_eq!(state, "-- upstream: backing-off: gone\\u{1b}[2J\n");
    }

    #[test]
    fn what_acts_is_written_out() {
        assert_eq!(visible("a\u{1b}[31m\u{9b}2J\u{7}"), "a\\u{1b}[31m\\u{9b}2J\\u{7}");
        assert_eq!(visible("\u{202e}abc\u{2066}"), "\\u{202e}abc\\u{2066}");
        assert_eq!(visible("21.5 °C 温度"), "21.5 °C 温度");
    }

    proptest! {
        #[test]
        fn no_row_is_too_long_and_nothing_acts(
            name in ".{0,40}", data in "\\PC{0,80}|.{0,80}", device in ".{0,30}", width in 1_usize..120,
        ) {
            let object = serde_json::json!({"id": "x", "name": name, "data": data, "coreid": device});
            let out = shown(PLAIN, &event(&object.to_string()), width);
            prop_assert_eq!(out.matches('\n').count(), 1);
            let row = out.trim_end_matches('\n');
            prop_assert!(columns(row) <= width, "{row:?}");
            prop_assert!(!row.chars().any(|c| c.is_control() || acts(c)), "{row:?}");
        }
    }
}
