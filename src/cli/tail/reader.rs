//! What a broker's stream says, in order and once. Pure.
//!
//! Law: of one epoch nothing is told twice and nothing is left out that the stream brought,
//! whatever was cut and repeated in between. What comes out is the line of the broker's NDJSON
//! form, byte for byte.

use crate::{
    model::{Position, frame::control_json},
    upstream::decode::{Decoder, Item, Limits},
};

/// Longest line of a broker: its upstream's greatest event (32 MiB) is far above what devices
/// can send; a larger one is left out, and said to be.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// A line to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// One JSON object, without a line feed.
    pub(super) json: String,
    /// The name after `fanlight.` if it is a control object.
    pub(super) control: Option<String>,
    /// Where the reader stands once this is printed.
    pub(super) position: Option<Position>,
}

/// What the stream said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It began.
    Hello(Hello),
    /// Something to print.
    Line(Line),
    /// Where the reader stands now; nothing to print.
    Reached(Position),
    /// The reconnection time, in milliseconds.
    Retry(u64),
    /// The broker ends the stream.
    Bye {
        /// Its reason.
        reason: String,
        /// When to come back, in milliseconds.
        retry_ms: u64,
    },
    /// An event too large to hold was left out.
    Oversize {
        /// Its bytes.
        bytes: u64,
    },
    /// It is no broker's stream: it began with something else.
    Stranger,
}

/// The beginning of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    /// State of the upstream connection.
    pub(super) upstream: String,
    /// The broker's version.
    pub(super) version: String,
    /// Where it begins, if that is not where it was asked to.
    pub(super) elsewhere: Option<Position>,
}

/// Reads one stream after the other.
#[derive(Debug)]
pub(super) struct Reader {
    decoder: Decoder,
    position: Option<Position>,
    is_greeted: bool,
    snapshot_is_over: bool,
}

/// What a piece of the stream held.
enum Found {
    Event { name: String, data: String },
    Oversize(u64),
}

impl Reader {
    /// Goes on after `position`, if there is one.
    pub(super) fn new(position: Option<Position>) -> Reader {
        let limits = Limits { line_bytes_max: EVENT_BYTES_MAX, event_bytes_max: EVENT_BYTES_MAX };
        Reader {
            decoder: Decoder::new(limits),
            position,
            is_greeted: false,
            snapshot_is_over: false,
        }
    }

    /// What to ask the next stream to continue after.
    pub(super) fn position(&self) -> Option<Position> {
        self.position
    }

    /// True until the newest values that were asked for have all come.
    pub(super) fn wants_snapshot(&self) -> bool {
        !self.snapshot_is_over
    }

    /// The stream is over; another may begin.
    pub(super) fn cut(&mut self) {
        self.decoder.reset();
        self.is_greeted = false;
    }

    /// Takes the next bytes, torn anywhere.
    pub(super) fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(Said)) {
        // Line by line: so the id the decoder has is that of the event it gave.
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut found = None;
            let mut retry_ms = None;
            self.decoder.feed(piece, |item| match item {
                Item::Event { name, data } => {
                    found = Some(Found::Event { name: name.to_owned(), data: data.to_owned() });
                }
                Item::Retry(ms) => retry_ms = Some(ms),
                Item::Oversize { bytes, .. } => found = Some(Found::Oversize(bytes)),
            });
            if let Some(ms) = retry_ms {
                sink(Said::Retry(ms));
            }
            match found {
                None => {}
                Some(Found::Oversize(bytes)) => {
                    if let Some(id) = self.id() {
                        self.takes(id);
                    }
                    sink(Said::Oversize { bytes });
                }
                Some(Found::Event { name, data }) => {
                    if let Some(said) = self.said(&name, &data) {
                        sink(said);
                    }
                }
            }
        }
    }

    fn id(&self) -> Option<Position> {
        self.decoder.last_event_id().parse().ok()
    }

    fn said(&mut self, name: &str, data: &str) -> Option<Said> {
        let control = name.strip_prefix("fanlight.");
        if !self.is_greeted && !matches!(control, Some("hello" | "bye")) {
            return Some(Said::Stranger);
        }
        let id = self.id();
        let Some(control) = control else {
            let id = id.filter(|id| self.takes(*id))?;
            // `{"name":…}` becomes `{"id":"…","name":…}`.
            let rest = data.strip_prefix('{').unwrap_or(data);
            let json = format!("{{\"id\":\"{id}\",{rest}");
            return Some(Said::Line(Line { json, control: None, position: Some(id) }));
        };
        match control {
            "hello" => Some(Said::Hello(self.hello(id, data))),
            "bye" => {
                let (reason, retry_ms) = bye(data);
                Some(Said::Bye { reason, retry_ms })
            }
            "checkpoint" => {
                self.snapshot_is_over = true;
                let id = id.filter(|id| self.takes(*id))?;
                Some(Said::Reached(id))
            }
            _ => {
                // A gap that is told at the beginning stands where the stream begins. It says
                // something new all the same.
                let is_news = id.is_none_or(|id| {
                    let stands_here = self.position == Some(id) && control == "gap";
                    self.takes(id) || (stands_here && !is_record(data))
                });
                is_news.then(|| {
                    let text = id.map(|id| id.to_string());
                    let json = control_json(control, text.as_deref(), |object| object);
                    // `{"fanlight":"gap","id":"…"}` and `{"reason":…}` are put together.
                    let head = json.trim_end().trim_end_matches('}');
                    let rest = data.strip_prefix('{').unwrap_or(data);
                    let comma = if rest.starts_with('}') { "" } else { "," };
                    Said::Line(Line {
                        json: format!("{head}{comma}{rest}"),
                        control: Some(control.to_owned()),
                        position: self.position,
                    })
                })
            }
        }
    }

    fn hello(&mut self, id: Option<Position>, data: &str) -> Hello {
        self.is_greeted = true;
        let fields: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        let elsewhere = match (self.position, id) {
            (Some(asked), Some(id)) if asked != id => Some(id),
            (None, Some(id)) => {
                self.position = Some(id);
                None
            }
            _ => None,
        };
        Hello { upstream: text("upstream"), version: text("version"), elsewhere }
    }

    /// Whether `id` is news, and then the place where the reader stands.
    fn takes(&mut self, id: Position) -> bool {
        let is_news = self.position.is_none_or(|last| last.epoch != id.epoch || last.seq < id.seq);
        if is_news {
            self.position = Some(id);
        }
        is_news
    }
}

/// A gap that is a record: it stands in the place of an event.
fn is_record(data: &str) -> bool {
    let fields: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    matches!(fields["reason"].as_str(), Some("oversize" | "refused"))
}

/// The reason and the wait, in milliseconds.
fn bye(data: &str) -> (String, u64) {
    let fields: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    let reason = fields["reason"].as_str().unwrap_or("no reason given").to_owned();
    (reason, fields["retry_ms"].as_u64().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Gap, GapReason, Moment, Record, Seq, frame::control_sse};

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch::from_bits(epoch), seq: Seq(seq) }
    }

    fn hello(position: Position) -> String {
        let data = format!(r#"{{"id":"{position}","version":"1","upstream":"live"}}"#);
        control_sse("hello", Some(&position.to_string()), Some(7), &data)
    }

    fn event(position: Position) -> String {
        format!("id: {position}\ndata: {{\"name\":\"a\",\"data\":\"{position}\"}}\n\n")
    }

    fn gap(position: Position, reason: GapReason) -> String {
        let gap = Gap {
            reason,
            requested: None,
            from: Seq(1),
            to: position.seq.next(),
            count: None,
            oldest: position.seq.next(),
            next: position.seq.next(),
        };
        let data = gap.fields(crate::model::json::Object::new()).finish();
        control_sse("gap", Some(&position.to_string()), None, &data)
    }

    fn lines(reader: &mut Reader, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        reader.feed(text.as_bytes(), |said| match said {
            Said::Line(line) => lines.push(line.json),
            Said::Stranger => panic!("no stranger"),
            _ => {}
        });
        lines
    }

    #[test]
    fn lines_are_those_of_the_ndjson_form() {
        let position = at(3, 7);
        let parsed = crate::model::Event::parse("a/b", r#"{"data":"1","coreid":"e00f"}"#).unwrap();
        let plain = crate::model::Event::parse("a", "x\ny").unwrap();
        let hole = crate::model::Hole {
            reason: crate::model::HoleReason::Reset,
            since_ms: 0,
            until_ms: 5,
        };
        let now = Moment::default();
        for record in [
            Record::event(&parsed, position, now),
            Record::event(&plain, position, now),
            Record::hole(&hole, position, now),
            Record::upstream(crate::model::UpstreamState::Live, "", position, now),
            Record::lost(GapReason::Oversize, position, Seq(1), now),
        ] {
            let mut reader = Reader::new(None);
            let sse = record.frame(crate::model::Format::Message);
            let sse = format!("{}{}", hello(at(3, 0)), std::str::from_utf8(&sse).unwrap());
            let json = record.frame(crate::model::Format::Json);
            let json = std::str::from_utf8(&json).unwrap().trim_end();
            assert_eq!(lines(&mut reader, &sse), [json]);
            assert_eq!(reader.position(), Some(position));
            reader.cut();
            assert!(lines(&mut reader, &sse).is_empty(), "told once: {json}");
        }
    }

    #[test]
    fn what_comes_again_is_not_told_again() {
        let mut reader = Reader::new(None);
        let first = format!("{}{}{}", hello(at(0, 4)), event(at(0, 5)), event(at(0, 9)));
        assert_eq!(lines(&mut reader, &first).len(), 2);
        reader.cut();
        assert_eq!(reader.position(), Some(at(0, 9)));
        let again = format!("{}{}{}", hello(at(0, 4)), event(at(0, 9)), event(at(0, 10)));
        let told = lines(&mut reader, &again);
        assert!(told.len() == 1 && told[0].contains("-10\""), "{told:?}");
    }

    #[test]
    fn an_event_that_is_cut_off_does_not_count() {
        let whole = event(at(0, 6));
        for end in 0..whole.len() {
            let mut reader = Reader::new(None);
            assert!(lines(&mut reader, &hello(at(0, 5))).is_empty());
            assert!(lines(&mut reader, &whole[..end]).is_empty());
            assert_eq!(reader.position(), Some(at(0, 5)));
            reader.cut();
            assert_eq!(lines(&mut reader, &format!("{}{whole}", hello(at(0, 5)))).len(), 1);
        }
    }

    #[test]
    fn a_restart_is_told_and_the_new_epoch_begins_anew() {
        let mut reader = Reader::new(Some(at(0, 9)));
        let restarted =
            format!("{}{}{}", hello(at(0, 9)), gap(at(1, 0), GapReason::Restart), event(at(1, 1)));
        assert_eq!(lines(&mut reader, &restarted).len(), 2);
        assert_eq!(reader.position(), Some(at(1, 1)));
    }

    #[test]
    fn a_gap_that_stands_where_the_stream_begins_is_told() {
        let mut reader = Reader::new(None);
        let begun = format!("{}{}", hello(at(0, 0)), gap(at(0, 0), GapReason::Evicted));
        assert_eq!(lines(&mut reader, &begun).len(), 1);
    }

    #[test]
    fn a_stream_that_begins_elsewhere_is_noticed() {
        let mut reader = Reader::new(Some(at(0, 9)));
        let mut seen = None;
        reader.feed(hello(at(0, 12)).as_bytes(), |said| {
            if let Said::Hello(hello) = said {
                seen = hello.elsewhere;
            }
        });
        assert_eq!(seen, Some(at(0, 12)));
    }

    #[test]
    fn another_stream_is_no_broker() {
        let mut reader = Reader::new(None);
        let mut said = Vec::new();
        reader.feed(b"event: x\ndata: {}\n\n", |one| said.push(one));
        assert_eq!(said, [Said::Stranger]);
        // A proxy that speaks in the broker's place says goodbye only.
        let bye = "retry: 5000\nevent: fanlight.bye\ndata: {\"reason\":\"shutdown\",\"retry_ms\":5000}\n\n";
        let mut said = Vec::new();
        Reader::new(None).feed(bye.as_bytes(), |one| said.push(one));
        let expected = Said::Bye { reason: "shutdown".to_owned(), retry_ms: 5000 };
        assert_eq!(said, [Said::Retry(5000), expected]);
    }
}
