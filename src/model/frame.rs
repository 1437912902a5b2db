//! How events and control events look on the wire.
//!
//! Law: this file alone knows the bytes. A record is rendered here once, in every
//! format, into one allocation:
//!
//! ```text
//!  id: 6n3k2ahq-7␊event: NAME␊data: DATA␊␊          Format::Particle
//!  id: 6n3k2ahq-7␊data: {"name":"NAME",REST␊␊       Format::Message
//!  {"id":"6n3k2ahq-7","name":"NAME",REST␊           Format::Json
//! ```
//!
//! REST is the inside of Particle's own JSON object, untouched; where the data is
//! no such object it is `"raw":"…"}`. DATA is the data byte for byte.

use super::{
    event::{Event, Shape},
    json::{self, Object},
    position::Position,
};

/// What stands before the name in [`Format::Particle`].
pub(super) const EVENT_FIELD: &str = "event: ";

/// A wire rendering of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// SSE without an `event:` line, the name inside the JSON: `onmessage` sees it all.
    Message,
    /// SSE as the Particle cloud has it: `event: NAME`, data untouched.
    Particle,
    /// One JSON object: WebSocket, NDJSON and poll.
    Json,
}

impl Format {
    /// Every format, in the order of the metrics.
    pub const ALL: [Format; 3] = [Format::Message, Format::Particle, Format::Json];

    /// The format's name in settings, labels and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Message => "message",
            Format::Particle => "particle",
            Format::Json => "json",
        }
    }
}

/// Where each format of a record lies in its one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// End of the Particle form, which begins at 0.
    pub particle_end: u32,
    /// Start of the message form.
    pub message_start: u32,
    /// End of the message form and start of the JSON form, which ends the buffer.
    pub message_end: u32,
    /// Where the name stands, in bytes.
    pub name: (u32, u32),
    /// Where the device stands, in bytes; empty if there is none.
    pub device: (u32, u32),
}

/// Renders an event in every format.
pub fn event(event: &Event<'_>, position: Position) -> (Vec<u8>, Layout) {
    let id = position.to_string();
    let data = event.data();
    let mut name_json = String::with_capacity(event.name().len() + 8);
    json::push_string(&mut name_json, event.name());
    let mut rest = match event.shape() {
        Shape::Object { .. } => String::new(),
        Shape::Text { .. } => {
            let mut raw = String::with_capacity(data.len() + 16);
            raw.push_str("\"raw\":");
            json::push_string(&mut raw, data);
            raw.push('}');
            raw
        }
    };
    let inside = match event.shape() {
        // Line feeds between the tokens of an object are white space, inside its
        // strings they cannot be: a space says the same on one line.
        Shape::Object { inside, .. } if memchr::memchr(b'\n', inside.as_bytes()).is_some() => {
            rest = inside.replace('\n', " ");
            rest.as_str()
        }
        Shape::Object { inside, .. } => inside,
        Shape::Text { .. } => rest.as_str(),
    };
    let comma = if inside.starts_with('}') { "" } else { "," };

    // To the byte: a buffer without spare room is kept as it is, one with room is not.
    let further_lines = memchr::memchr_iter(b'\n', data.as_bytes()).count();
    let particle_bytes = "id: \nevent: \ndata: \n\n".len()
        + id.len()
        + event.name().len()
        + data.len()
        + further_lines * "data: ".len();
    let both_json = 2 * (id.len() + name_json.len() + comma.len() + inside.len());
    let rest_bytes =
        "id: \ndata: {\"name\":\n\n".len() + "{\"id\":\"\",\"name\":\n".len() + both_json;
    let mut text = String::with_capacity(particle_bytes + rest_bytes);
    push(&mut text, &["id: ", &id, "\n", EVENT_FIELD]);
    let name_start = text.len();
    push(&mut text, &[event.name(), "\ndata: "]);
    let name = span(name_start, event.name().len());
    let data_start = text.len();
    push_data(&mut text, data);
    text.push_str("\n\n");
    let particle_end = text.len();
    push(&mut text, &["id: ", &id, "\ndata: {\"name\":", &name_json, comma, inside, "\n\n"]);
    let message_end = text.len();
    push(&mut text, &["{\"id\":\"", &id, "\",\"name\":", &name_json, comma]);
    let device = match event.shape() {
        Shape::Object { inside, device: Some(device) } => {
            let offset = device.as_ptr() as usize - inside.as_ptr() as usize;
            span(text.len() + offset, device.len())
        }
        // Escaped in the JSON form, it stands as it was in the Particle form: there, each
        // line feed before it has become `\ndata: `.
        Shape::Text { device: Some(device) } => {
            let offset = device.as_ptr() as usize - data.as_ptr() as usize;
            let lines = memchr::memchr_iter(b'\n', &data.as_bytes()[..offset]).count();
            span(data_start + offset + lines * "data: ".len(), device.len())
        }
        Shape::Object { device: None, .. } | Shape::Text { device: None } => (0, 0),
    };
    push(&mut text, &[inside, "\n"]);

    debug_assert_eq!(text.len(), particle_bytes + rest_bytes, "the buffer was measured before");
    let layout = Layout {
        particle_end: place(particle_end),
        message_start: place(particle_end),
        message_end: place(message_end),
        name,
        device,
    };
    (text.into_bytes(), layout)
}

/// Renders a control record, which has a position of its own, in every format.
///
/// Both SSE formats share one rendering.
pub fn control(
    name: &str,
    fields: impl Fn(Object) -> Object,
    position: Position,
) -> (Vec<u8>, Layout) {
    let id = position.to_string();
    let sse = control_sse(name, Some(&id), None, &fields(Object::new()).finish());
    let json = control_json(name, Some(&id), fields);
    let end = place(sse.len());
    let layout = Layout {
        particle_end: end,
        message_start: 0,
        message_end: end,
        name: (0, 0),
        device: (0, 0),
    };
    let mut bytes = sse.into_bytes();
    bytes.extend_from_slice(json.as_bytes());
    (bytes, layout)
}

/// One control event as an SSE block: `id:` and `retry:` lines where given, then
/// `event: fanlight.NAME` and the data.
pub fn control_sse(name: &str, id: Option<&str>, retry_ms: Option<u64>, data: &str) -> String {
    let mut text = String::with_capacity(64 + data.len());
    if let Some(retry_ms) = retry_ms {
        push(&mut text, &["retry: ", &retry_ms.to_string(), "\n"]);
    }
    if let Some(id) = id {
        push(&mut text, &["id: ", id, "\n"]);
    }
    push(&mut text, &["event: fanlight.", name, "\ndata: ", data, "\n\n"]);
    text
}

/// One control event as a JSON object and a line feed: `{"fanlight":"NAME",…}`.
pub fn control_json(name: &str, id: Option<&str>, fields: impl FnOnce(Object) -> Object) -> String {
    let mut object = Object::new().text("fanlight", name);
    if let Some(id) = id {
        object = object.text("id", id);
    }
    let mut text = fields(object).finish();
    text.push('\n');
    text
}

fn push(text: &mut String, parts: &[&str]) {
    for part in parts {
        text.push_str(part);
    }
}

/// Data after its `data: `; each further line gets a field of its own.
fn push_data(text: &mut String, data: &str) {
    let mut lines = data.split('\n');
    text.push_str(lines.next().unwrap_or_default());
    for line in lines {
        push(text, &["\ndata: ", line]);
    }
}

fn span(start: usize, len: usize) -> (u32, u32) {
    (place(start), place(start + len))
}

/// A place in a record's buffer. Data is at most 32 MiB (twice the bound of
/// `upstream.line_bytes_max`) and grows at most sixfold by escapes in each of three forms.
fn place(offset: usize) -> u32 {
    u32::try_from(offset).expect("a record is far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::position::{Epoch, Seq};

    fn rendered(name: &str, data: &str) -> [String; 3] {
        let parsed = Event::parse(name, data).unwrap();
        let position = Position { epoch: Epoch::from_bits(0), seq: Seq(7) };
        let (bytes, layout) = event(&parsed, position);
        let text = String::from_utf8(bytes).unwrap();
        let (start, end) = layout.name;
        assert_eq!(&text[start as usize..end as usize], name);
        let (start, end) = layout.device;
        assert_eq!(&text[start as usize..end as usize], parsed.device().unwrap_or_default());
        [
            text[..layout.particle_end as usize].to_owned(),
            text[layout.message_start as usize..layout.message_end as usize].to_owned(),
            text[layout.message_end as usize..].to_owned(),
        ]
    }

    #[test]
    fn an_object_keeps_its_bytes() {
        let data = r#"{"data":"21.5","ttl":60,"coreid":"28c8"}"#;
        let [particle, message, json] = rendered("greenhouse/temp", data);
        assert_eq!(particle, format!("id: 00000000-7\nevent: greenhouse/temp\ndata: {data}\n\n"));
        let rest = r#""name":"greenhouse/temp","data":"21.5","ttl":60,"coreid":"28c8"}"#;
        assert_eq!(message, format!("id: 00000000-7\ndata: {{{rest}\n\n"));
        assert_eq!(json, format!("{{\"id\":\"00000000-7\",{rest}\n"));
    }

    #[test]
    fn other_data_becomes_raw() {
        let [particle, message, json] = rendered("a\"b", "x\ny\"z");
        assert_eq!(particle, "id: 00000000-7\nevent: a\"b\ndata: x\ndata: y\"z\n\n");
        assert_eq!(
            message,
            "id: 00000000-7\ndata: {\"name\":\"a\\\"b\",\"raw\":\"x\\ny\\\"z\"}\n\n"
        );
        assert_eq!(json, "{\"id\":\"00000000-7\",\"name\":\"a\\\"b\",\"raw\":\"x\\ny\\\"z\"}\n");
    }

    #[test]
    fn an_empty_object_takes_no_comma_and_lines_become_spaces() {
        let [_, message, _] = rendered("a", "{ }");
        assert_eq!(message, "id: 00000000-7\ndata: {\"name\":\"a\"}\n\n");
        let [particle, message, json] = rendered("a", "{\n\"b\":1,\n\"coreid\":\"c\"}");
        assert_eq!(
            particle,
            "id: 00000000-7\nevent: a\ndata: {\ndata: \"b\":1,\ndata: \"coreid\":\"c\"}\n\n"
        );
        assert_eq!(message, "id: 00000000-7\ndata: {\"name\":\"a\",\"b\":1, \"coreid\":\"c\"}\n\n");
        assert_eq!(json.matches('\n').count(), 1);
    }

    #[test]
    fn the_device_is_known_where_the_data_becomes_raw() {
        for data in [r#"{"id":1,"coreid":"e00f"}"#, "{\"name\":\"x\",\n\"coreid\":\n\"e00f\"}"] {
            let [_, message, _] = rendered("a", data);
            assert!(message.contains("\"raw\":"), "{message}");
        }
    }

    #[test]
    fn control_events() {
        let sse = control_sse("hello", Some("00000000-0"), Some(2500), "{}");
        assert_eq!(sse, "retry: 2500\nid: 00000000-0\nevent: fanlight.hello\ndata: {}\n\n");
        let json = control_json("gap", None, |object| object.number("from", 1));
        assert_eq!(json, "{\"fanlight\":\"gap\",\"from\":1}\n");
    }
}
