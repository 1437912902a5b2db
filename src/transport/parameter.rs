//! The parameters of a query: one table, for the parser and for the descriptions of the
//! interface.
//!
//! Law: a name, a bound, a choice or a default of a parameter stands here and nowhere
//! else. What is documented is what is parsed.

use crate::model::filter::{VALUE_BYTES_MAX, VALUES_MAX};

use super::poll;

/// A route that takes parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/events`.
    Events,
    /// `/ws`.
    WebSocket,
    /// `/poll`.
    Poll,
    /// `/last`.
    Last,
}

/// A parameter of the query.
#[derive(Debug)]
pub struct Parameter {
    /// How it is written.
    pub name: &'static str,
    /// Other spellings of it.
    pub spellings: &'static [&'static str],
    /// The routes that know it.
    pub routes: &'static [Route],
    /// Which values it takes.
    pub values: Values,
    /// What it means, for people; Markdown.
    pub meaning: &'static str,
    /// A value that makes sense; for [`Values::Texts`] one of them.
    pub example: &'static str,
}

/// Which values a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Any text of at most `bytes_max`; may be repeated, at most `count_max` times.
    Texts {
        /// How many values.
        count_max: usize,
        /// Bytes of one value.
        bytes_max: usize,
        /// False if a value may not be empty.
        may_be_empty: bool,
    },
    /// Any text: what is no position becomes a gap. `may_repeat`: the last one counts.
    Position {
        /// False if it is an error to give it twice.
        may_repeat: bool,
    },
    /// A time, a duration back, or `earliest`.
    Since,
    /// One of a few words.
    Choice {
        /// The words.
        choices: &'static [&'static str],
        /// What counts if it is left out; one of them.
        default: &'static str,
    },
    /// A whole number.
    Number {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
        /// What counts if it is left out on this route, where anything does.
        default: Option<(Route, u64)>,
    },
}

const STREAMS: &[Route] = &[Route::Events, Route::WebSocket, Route::Poll];
const ALL: &[Route] = &[Route::Events, Route::WebSocket, Route::Poll, Route::Last];

/// A filter's part: its bounds are the filter's.
const fn texts(may_be_empty: bool) -> Values {
    Values::Texts { count_max: VALUES_MAX, bytes_max: VALUE_BYTES_MAX, may_be_empty }
}

/// Event-name prefixes.
pub const PREFIX: Parameter = Parameter {
    name: "prefix",
    spellings: &[],
    routes: ALL,
    values: texts(true),
    meaning: "Event-name prefix, case-sensitive. May be repeated: an event passes if its name begins \
              with any `prefix` or equals any `name`. An empty one means every name.",
    example: "greenhouse/",
};

/// Exact event names.
pub const NAME: Parameter = Parameter {
    name: "name",
    spellings: &[],
    routes: ALL,
    values: texts(false),
    meaning: "Exact event name. May be repeated.",
    example: "door/state",
};

/// Device ids.
pub const DEVICE: Parameter = Parameter {
    name: "device",
    spellings: &[],
    routes: ALL,
    values: texts(false),
    meaning: "Device id (`coreid`). May be repeated: an event passes if it comes from any of them.",
    example: "e00fce68e8ec2200392752db",
};

/// Where a poll goes on.
pub const AFTER: Parameter = Parameter {
    name: "after",
    spellings: &[],
    routes: &[Route::Poll],
    values: Values::Position { may_repeat: false },
    meaning: "Answer with what comes after this position: the `next` of the answer before. Ranks behind \
              `last_event_id` and the `Last-Event-ID` header. Never an error: what cannot be honoured \
              becomes a gap.",
    example: "3xa9zhta-330",
};

/// Where a stream goes on.
pub const LAST_EVENT_ID: Parameter = Parameter {
    name: "last_event_id",
    // The widespread EventSource polyfill spells it so.
    spellings: &["lastEventId"],
    routes: STREAMS,
    values: Values::Position { may_repeat: true },
    meaning: "Resume after this position. The `Last-Event-ID` header wins over it; where it stands \
              several times, the last one counts. Never an error: what cannot be honoured becomes a gap.",
    example: "3xa9zhta-3",
};

/// How far back a stream begins.
pub const SINCE: Parameter = Parameter {
    name: "since",
    spellings: &[],
    routes: STREAMS,
    values: Values::Since,
    meaning: "Begin in the past: an RFC 3339 time, a duration back (`30s`, `5m`, `1h30m`; units `ms s m h \
              d`), or `earliest`. Used where no position is given.",
    example: "5m",
};

/// The newest values first.
pub const SNAPSHOT: Parameter = Parameter {
    name: "snapshot",
    spellings: &[],
    routes: STREAMS,
    values: Values::Choice { choices: &["true", "false"], default: "false" },
    meaning: "`true`: first the newest event of each matching (name, device), in order of position.",
    example: "true",
};

/// With or without control events.
pub const CONTROL: Parameter = Parameter {
    name: "control",
    spellings: &[],
    routes: STREAMS,
    values: Values::Choice { choices: &["on", "off"], default: "on" },
    meaning: "`off`: no `fanlight.*` events, so **no gaps and no holes are told** either. The `gap` of a \
              poll is given all the same.",
    example: "on",
};

/// How many events.
pub const LIMIT: Parameter = Parameter {
    name: "limit",
    spellings: &[],
    routes: STREAMS,
    values: Values::Number {
        min: 1,
        max: u64::MAX,
        default: Some((Route::Poll, poll::EVENTS_DEFAULT)),
    },
    meaning: "End after so many events; control events do not count. In a poll, the most one answer \
              holds, and never more than the setting `poll.events_max`.",
    example: "100",
};

/// How SSE events look.
pub const FORMAT: Parameter = Parameter {
    name: "format",
    spellings: &[],
    routes: &[Route::Events],
    values: Values::Choice { choices: &["message", "particle"], default: "message" },
    meaning: "How SSE events look. `message`: no `event:` line, so that `onmessage` sees all. `particle`: \
              as the Particle cloud sends them.",
    example: "message",
};

/// How long a poll waits.
pub const TIMEOUT: Parameter = Parameter {
    name: "timeout",
    spellings: &[],
    routes: &[Route::Poll],
    values: Values::Number {
        min: 0,
        max: 3600,
        default: Some((Route::Poll, poll::TIMEOUT_DEFAULT.as_secs())),
    },
    meaning: "Seconds to wait for an event; at most the setting `poll.timeout_max` (60 s unless changed) \
              is waited. 0 answers at once.",
    example: "0",
};

/// Every parameter, in the order in which they are named to a client.
pub const PARAMETERS: [&Parameter; 11] = [
    &PREFIX,
    &NAME,
    &DEVICE,
    &AFTER,
    &LAST_EVENT_ID,
    &SINCE,
    &SNAPSHOT,
    &CONTROL,
    &LIMIT,
    &FORMAT,
    &TIMEOUT,
];

impl Route {
    /// The parameters that a route knows.
    pub fn parameters(self) -> impl Iterator<Item = &'static Parameter> {
        PARAMETERS.into_iter().filter(move |parameter| parameter.routes.contains(&self))
    }
}

impl Parameter {
    /// True if a client may mean it by `name`.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.spellings.contains(&name)
    }
}
