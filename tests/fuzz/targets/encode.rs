//! Any name and any data: what is refused is refused for a reason, and what is rendered gives the
//! same event back in every format, once, and nothing else.

use fanlight::{
    model::{
        Epoch, Event, Format, Moment, Position, Record, Seq,
        event::{EventError, NAME_BYTES_MAX, RESERVED_PREFIX, Shape},
    },
    upstream::decode::{Decoder, Item, Limits},
};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{numbers, split};

pub(super) fn encode(input: &[u8]) {
    let Some(([name_bytes, seq, torn], rest)) = numbers(input) else { return };
    // Up to 510 bytes, so that the bound of a name is among them.
    let (name, data) = split(rest, name_bytes * 2);
    let (name, data) = (String::from_utf8_lossy(name), String::from_utf8_lossy(data));
    let event = match Event::parse(&name, &data) {
        Ok(event) => event,
        Err(error) => return assert_eq!(Some(error), refusal(&name, &data)),
    };
    assert_eq!(refusal(&name, &data), None);
    let position =
        Position { epoch: Epoch::from_bits(seq as u64 * 0x1_0101_0101), seq: Seq(seq as u64) };
    let record = Record::event(&event, position, Moment::default());
    assert_eq!(record.name(), name);
    assert_eq!(record.device(), event.device().filter(|device| !device.is_empty()));

    let message = one_event(&record.frame(Format::Message), position, torn);
    assert_eq!(message.0, "message");
    let particle = one_event(&record.frame(Format::Particle), position, torn);
    assert_eq!((&*particle.0, &*particle.1), (&*name, &*data));
    let json = record.frame(Format::Json);
    let json = std::str::from_utf8(&json).unwrap().strip_suffix('\n').unwrap();
    for text in [&*message.1, json] {
        assert!(!text.contains(['\n', '\r']));
    }
    // The position stands in `id:` in the one and in the object in the other.
    same_object(&message.1, &event, None);
    same_object(json, &event, Some(position));
}

/// Why an event is not passed on, by the words of docs/protocol.md.
fn refusal(name: &str, data: &str) -> Option<EventError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        Some(EventError::Name)
    } else if name.starts_with(RESERVED_PREFIX) {
        Some(EventError::Reserved)
    } else {
        data.contains('\r').then_some(EventError::Data)
    }
}

/// What a client reads from a frame that comes in pieces.
fn one_event(frame: &[u8], position: Position, torn: usize) -> (String, String) {
    let mut decoder = Decoder::new(Limits::default());
    let mut events = Vec::new();
    for piece in frame.chunks(torn + 1) {
        decoder.feed(piece, |item| match item {
            Item::Event { name, data } => events.push((name.to_owned(), data.to_owned())),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(decoder.last_event_id(), position.to_string());
    assert_eq!(decoder.buffered_bytes(), 0, "the frame is complete");
    assert_eq!(events.len(), 1);
    events.remove(0)
}

/// The object says what the event says, and where it stands.
fn same_object(text: &str, event: &Event<'_>, position: Option<Position>) {
    serde_json::from_str::<IgnoredAny>(text).expect("JSON comes out");
    let head = position.map(|position| ("id".to_owned(), Value::from(position.to_string())));
    let mut expected: Map<String, Value> = head.into_iter().collect();
    expected.insert("name".to_owned(), event.name().into());
    match event.shape() {
        Shape::Text { .. } => {
            expected.insert("raw".to_owned(), event.data().into());
        }
        Shape::Object { .. } => {
            // A strict parser refuses lone surrogates, numbers past f64 and deep nesting, which JSON has.
            let Ok(Value::Object(fields)) = serde_json::from_str(event.data()) else { return };
            let device = fields.get("coreid").and_then(Value::as_str);
            if event.device() != device {
                assert!(event.device().is_none() && event.data().contains('\\'));
            }
            for reserved in ["id", "name", "fanlight"] {
                assert!(!fields.contains_key(reserved));
            }
            expected.extend(fields);
        }
    }
    assert_eq!(serde_json::from_str::<Map<String, Value>>(text).unwrap(), expected);
}
