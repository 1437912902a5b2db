//! The examples in the documents: rendered by the code that renders the real ones.
//!
//! Law: no example is written where the broker can make it. What only a session can make
//! is put together from the same pieces, and a test holds it against real traffic.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    model::{
        CloseReason, Epoch, Event, Format, Gap, GapReason, Hole, HoleReason, Moment, Position,
        Record, Seq, UpstreamState,
        frame::{control_json, control_sse},
        json::Object,
    },
    transport::{particle, sse},
};

/// Renders as `3xa9zhta`.
const EPOCH_BITS: u64 = 0x1f_549f_c74a;
/// 2026-11-22T03:58:52.740Z, when the broker of the examples began to connect.
const CONNECTING_MS: u64 = 1_795_319_932_740;
const LIVE_MS: u64 = CONNECTING_MS + 2;
const AWAY_MS: u64 = CONNECTING_MS + 59_099;
const BACK_MS: u64 = AWAY_MS + 343;

const DOOR: &str = r#"{"data":"open","ttl":60,"published_at":"2026-11-22T03:58:53.235Z","coreid":"e00fce68e8ec2200392752db"}"#;
const GREENHOUSE: &str = r#"{"data":"17.27","ttl":60,"published_at":"2026-11-22T03:58:59.235Z","coreid":"e00fce681dd1ac08f9cbbd2c","userid":"5f000000c5fc598e707e7291","version":2,"public":false,"productID":20799}"#;

/// One object of a stream, in each form.
pub(super) struct Example {
    /// Its name among the examples.
    pub(super) name: &'static str,
    /// What it shows.
    pub(super) summary: &'static str,
    /// The control event it is, without `fanlight.`; none for an event.
    pub(super) control: Option<&'static str>,
    /// The SSE block.
    pub(super) sse: String,
    /// The line of NDJSON.
    pub(super) json: String,
}

impl Example {
    /// The object of the JSON form.
    pub(super) fn object(&self) -> Value {
        parsed(&self.json)
    }

    /// The value of a field of the SSE block.
    pub(super) fn sse_field(&self, field: &str) -> Option<&str> {
        self.sse.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
    }
}

fn position(seq: u64) -> Position {
    Position { epoch: Epoch::from_bits(EPOCH_BITS), seq: Seq(seq) }
}

fn at(wall_ms: u64) -> Moment {
    Moment { wall_ms, mono_us: 0 }
}

fn event_record(name: &str, data: &str, seq: u64) -> Record {
    let event = Event::parse(name, data).expect("the names of the examples can be passed on");
    Record::event(&event, position(seq), Moment::default())
}

fn of_record(
    name: &'static str,
    summary: &'static str,
    control: Option<&'static str>,
    record: &Record,
) -> Example {
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    Example {
        name,
        summary,
        control,
        sse: text(record.frame(Format::Message)),
        json: text(record.frame(Format::Json)),
    }
}

fn of_session(
    name: &'static str,
    summary: &'static str,
    control: &'static str,
    id: Position,
    retry_ms: Option<u64>,
    fields: impl Fn(Object) -> Object,
) -> Example {
    let id = id.to_string();
    let data = match control {
        "hello" => Object::new().text("id", &id),
        _ => Object::new(),
    };
    Example {
        name,
        summary,
        control: Some(control),
        sse: control_sse(control, Some(&id), retry_ms, &fields(data).finish()),
        json: control_json(control, Some(&id), fields),
    }
}

/// An event of a device.
pub(super) fn event() -> Example {
    of_record("event", "A device's event", None, &event_record("door/state", DOOR, 3))
}

/// One of each kind, in the order in which a stream could bring them.
pub(super) fn all() -> Vec<Example> {
    let greenhouse = event_record("greenhouse/bay-1/temperature", GREENHOUSE, 14);
    let raw = event_record("plain", "just text", 15);
    let connecting =
        Record::upstream(UpstreamState::Connecting, "", position(1), at(CONNECTING_MS));
    let live = Record::upstream(UpstreamState::Live, "", position(2), at(LIVE_MS));
    let hole = Hole { reason: HoleReason::Reset, since_ms: AWAY_MS, until_ms: BACK_MS };
    let hole = Record::hole(&hole, position(115), at(BACK_MS));
    let oversize = Record::lost(GapReason::Oversize, position(331), Seq(1), Moment::default());
    let gap = Gap {
        reason: GapReason::Evicted,
        requested: Some(position(5).to_string()),
        from: Seq(6),
        to: Seq(42),
        count: Some(36),
        oldest: Seq(42),
        next: Seq(42),
    };
    let gap_id = gap.id(position(0).epoch);
    let hello = |object: Object| {
        object
            .text("version", env!("CARGO_PKG_VERSION"))
            .text("upstream", UpstreamState::Live.as_str())
            .raw("filter", r#"{"prefix":[],"name":[],"device":[]}"#)
    };
    let bye = |object: Object| {
        object.text("reason", CloseReason::Shutdown.as_str()).number("retry_ms", 7084)
    };
    vec![
        of_session("hello", "The stream begins", "hello", position(0), Some(2379), hello),
        of_record("connecting", "A connection is being opened", Some("upstream"), &connecting),
        of_record("live", "A healthy connection is open", Some("upstream"), &live),
        event(),
        of_record("productEvent", "An event of a product's device", None, &greenhouse),
        of_record("raw", "Data that is no JSON object", None, &raw),
        of_record("hole", "The connection to the cloud broke", Some("hole"), &hole),
        of_session("evicted", "The client was away for too long", "gap", gap_id, None, |object| {
            gap.fields(object)
        }),
        of_record("oversize", "An event was too large to keep", Some("gap"), &oversize),
        of_session(
            "checkpoint",
            "So far is the client",
            "checkpoint",
            position(400),
            None,
            |none| none,
        ),
        of_session("bye", "The broker shuts down", "bye", position(430), Some(7084), bye),
    ]
}

/// The beginning of an event stream with `since=earliest`.
pub(super) fn sse_message() -> String {
    all().iter().take(4).map(|example| example.sse.as_str()).collect()
}

/// The same event as the Particle cloud sends it, with an id.
pub(super) fn sse_particle() -> String {
    let frame = event_record("door/state", DOOR, 3).frame(Format::Particle);
    String::from_utf8_lossy(&frame).into_owned()
}

/// The beginning of a stream of the Particle routes, for a client that gets no ids.
pub(super) fn sse_cloud() -> String {
    let block = event_record("door/state", DOOR, 3).block();
    let opening = String::from_utf8_lossy(particle::OPENING);
    format!("{opening}{}", String::from_utf8_lossy(&block))
}

/// The beginning of a stream whose client was away for too long.
pub(super) fn sse_gap() -> String {
    let all = all();
    let shown = all.iter().filter(|example| ["hello", "evicted"].contains(&example.name));
    shown.map(|example| example.sse.as_str()).collect()
}

/// The whole answer to a browser for which there is no room.
pub(super) fn sse_refusal() -> String {
    sse::refusal(CloseReason::Full, 16_000)
}

/// The same beginning, one object a line.
pub(super) fn ndjson() -> String {
    all().iter().take(4).map(|example| example.json.as_str()).collect()
}

/// What `/poll` answers.
pub(super) fn poll_answer() -> Value {
    json!({ "events": [event().object()], "next": position(3).to_string(), "gap": null })
}

/// What `/poll` answers when something was missed.
pub(super) fn poll_answer_gap() -> Value {
    let gap = all().iter().find(|example| example.name == "evicted").map(Example::object);
    json!({ "events": [], "next": position(41).to_string(), "gap": gap })
}

/// What `/last` answers.
pub(super) fn last_answer() -> Value {
    let is_newest = |example: &&Example| example.control.is_none();
    all().iter().filter(is_newest).map(Example::object).collect()
}

/// What a WebSocket's client may say.
pub(super) fn subscribe() -> Value {
    json!({ "subscribe": { "prefix": ["greenhouse/"], "name": [], "device": [] } })
}

/// What `/status` answered in a demo.
pub(super) fn status() -> Value {
    let mut status = parsed(include_str!("status.json"));
    status["version"] = json!(env!("CARGO_PKG_VERSION"));
    status
}

/// The first lines of `/metrics`.
pub(super) fn metrics() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "# HELP fanlight_build_info Always 1; the label says which version runs\n\
         # TYPE fanlight_build_info gauge\n\
         fanlight_build_info{{version=\"{version}\"}} 1\n"
    )
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).expect("the examples are JSON")
}
