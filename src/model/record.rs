//! An event or a control event with its position, rendered once.
//!
//! Law: a record is cheap to clone and its bytes never change.

use bytes::Bytes;

use super::{
    event::Event,
    frame::{self, Format, Layout},
    gap::{Gap, GapReason},
    moment::{Moment, WallTime},
    position::{Epoch, Position, Seq},
    upstream::{Hole, UpstreamState},
};

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event that a device, or someone at the cloud, published.
    Event,
    /// A control event (`fanlight.hole`, `fanlight.upstream`, `fanlight.gap`): it
    /// passes every filter, unless the subscriber asked for none.
    Control,
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Record {
    seq: Seq,
    at: Moment,
    kind: Kind,
    layout: Layout,
    buffer: Bytes,
}

impl Record {
    /// Memory of a record beside its bytes: the struct in the ring and the two
    /// allocations' headers, rounded up.
    pub const OVERHEAD_BYTES: usize = size_of::<Record>() + 48;

    /// Renders an event.
    pub fn event(event: &Event<'_>, position: Position, at: Moment) -> Record {
        Record::new(Kind::Event, frame::event(event, position), position.seq, at)
    }

    /// Renders a window in which events may have been lost upstream.
    pub fn hole(hole: &Hole, position: Position, at: Moment) -> Record {
        let rendered = frame::control(
            "hole",
            |object| {
                object
                    .text("reason", hole.reason.as_str())
                    .shown("since", WallTime(hole.since_ms))
                    .shown("until", WallTime(hole.until_ms))
                    .number_or_null("count", None)
            },
            position,
        );
        Record::new(Kind::Control, rendered, position.seq, at)
    }

    /// Renders a change of the upstream connection's state.
    pub fn upstream(state: UpstreamState, detail: &str, position: Position, at: Moment) -> Record {
        let rendered = frame::control(
            "upstream",
            |object| {
                object
                    .text("state", state.as_str())
                    .shown("since", WallTime(at.wall_ms))
                    .text("detail", detail)
            },
            position,
        );
        Record::new(Kind::Control, rendered, position.seq, at)
    }

    /// Renders the place of an upstream event that could not be kept. The record
    /// itself is the range of one that the gap declares.
    pub fn lost(reason: GapReason, position: Position, oldest: Seq, at: Moment) -> Record {
        let gap = Gap {
            reason,
            requested: None,
            from: position.seq,
            to: position.seq.next(),
            count: Some(1),
            oldest,
            next: position.seq.next(),
        };
        let rendered = frame::control("gap", |object| gap.fields(object), position);
        Record::new(Kind::Control, rendered, position.seq, at)
    }

    fn new(kind: Kind, (bytes, layout): (Vec<u8>, Layout), seq: Seq, at: Moment) -> Record {
        Record { seq, at, kind, layout, buffer: Bytes::from(bytes) }
    }

    /// The record's place.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The record's position in an epoch.
    pub fn position(&self, epoch: Epoch) -> Position {
        Position { epoch, seq: self.seq }
    }

    /// When the broker took it in.
    pub fn at(&self) -> Moment {
        self.at
    }

    /// What the record says.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The bytes of one format; shared, not copied. JSON ends with a line feed.
    pub fn frame(&self, format: Format) -> Bytes {
        let layout = &self.layout;
        match format {
            Format::Particle => self.buffer.slice(..layout.particle_end as usize),
            Format::Message => {
                self.buffer.slice(layout.message_start as usize..layout.message_end as usize)
            }
            Format::Json => self.buffer.slice(layout.message_end as usize..),
        }
    }

    /// An event's block as the Particle cloud wrote it: [`Format::Particle`] without the
    /// `id:` line in front. Empty for control records, which the cloud has none of.
    pub fn block(&self) -> Bytes {
        match self.kind {
            Kind::Event => {
                let start = self.layout.name.0 as usize - frame::EVENT_FIELD.len();
                self.buffer.slice(start..self.layout.particle_end as usize)
            }
            Kind::Control => Bytes::new(),
        }
    }

    /// The event's name; empty for control records.
    pub fn name(&self) -> &str {
        self.text(self.layout.name)
    }

    /// The device the event came from, if its data names one.
    pub fn device(&self) -> Option<&str> {
        Some(self.text(self.layout.device)).filter(|device| !device.is_empty())
    }

    /// Memory the record holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer.len() + Record::OVERHEAD_BYTES
    }

    fn text(&self, (start, end): (u32, u32)) -> &str {
        std::str::from_utf8(&self.buffer[start as usize..end as usize])
            .expect("names and devices are slices of rendered text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upstream::HoleReason;

    fn position() -> Position {
        Position { epoch: Epoch::from_bits(0), seq: Seq(7) }
    }

    #[test]
    fn an_event_knows_its_name_and_device() {
        let event = Event::parse("a/b", r#"{"data":"1","coreid":"e00f"}"#).unwrap();
        let record = Record::event(&event, position(), Moment::default());
        assert_eq!((record.name(), record.device()), ("a/b", Some("e00f")));
        assert_eq!(record.kind(), Kind::Event);
        let event = Event::parse("a/b", "text").unwrap();
        let record = Record::event(&event, position(), Moment::default());
        assert_eq!((record.name(), record.device()), ("a/b", None));
    }

    #[test]
    fn a_block_is_what_the_cloud_wrote() {
        let event = Event::parse("a/b", "{ \"data\":null }").unwrap();
        let record = Record::event(&event, position(), Moment::default());
        assert_eq!(record.block(), "event: a/b\ndata: { \"data\":null }\n\n");
        let whole = record.frame(Format::Particle);
        assert_eq!(whole, [&b"id: 00000000-7\n"[..], &record.block()].concat());
        let hole = Hole { reason: HoleReason::Stalled, since_ms: 0, until_ms: 1500 };
        assert_eq!(Record::hole(&hole, position(), Moment::default()).block(), "");
    }

    #[test]
    fn control_records_are_the_same_in_both_sse_formats() {
        let hole = Hole { reason: HoleReason::Stalled, since_ms: 0, until_ms: 1500 };
        let record = Record::hole(&hole, position(), Moment::default());
        let fields = r#""reason":"stalled","since":"1970-01-01T00:00:00.000Z","until":"1970-01-01T00:00:01.500Z","count":null}"#;
        let sse = format!("id: 00000000-7\nevent: fanlight.hole\ndata: {{{fields}\n\n");
        assert_eq!(record.frame(Format::Message), sse);
        assert_eq!(record.frame(Format::Particle), sse);
        let json = format!("{{\"fanlight\":\"hole\",\"id\":\"00000000-7\",{fields}\n");
        assert_eq!(record.frame(Format::Json), json);
        assert_eq!((record.name(), record.device()), ("", None));
    }

    #[test]
    fn a_lost_event_is_a_gap_of_one() {
        let record = Record::lost(GapReason::Oversize, position(), Seq(3), Moment::default());
        let json = record.frame(Format::Json);
        let expected = "{\"fanlight\":\"gap\",\"id\":\"00000000-7\",\"reason\":\"oversize\",\"requested\":null,\
                        \"from\":7,\"to\":8,\"count\":1,\"oldest\":3,\"next\":8}\n";
        assert_eq!(json, expected);
    }
}
