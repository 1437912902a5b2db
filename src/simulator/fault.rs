//! Faults on request, and their one-line text form.
//!
//! The law here: what [`Display`](std::fmt::Display) writes, [`FromStr`](std::str::FromStr) reads
//! back to an equal [`Fault`]. Nothing in this file does anything; `cloud.rs` applies a fault when
//! it is due.
//!
//! ```text
//! stall [for=60s] [sticky]            deaf: no events, no keep-alive; sticky: new opens too
//! cut                                 clean end of the body
//! cut mid-event [at=17]               the socket closes after half an event, or 17 bytes of it
//! reset                               TCP reset
//! status=529 [retry-after=30|date+30] [count=3]   refuses the next opens
//! html [count=1]                      200 with text/html, as a captive portal answers
//! redirect=URL [count=1]              302 to another address
//! hang [count=1]                      accepts the request and never answers
//! drip bytes=1 every=1s [for=60s]     so many bytes at a time
//! duplicate [count=5]                 the next events go out twice
//! burst count=1000                    so many events at once
//! oversize bytes=2000000              one event whose data line has that many bytes
//! raw=event:\x20a\ndata:\x20\xff\n\n  these bytes, as they are; takes the rest of the line
//! ```
//!
//! Each takes `after=30s` (due that long after it was asked for) and, but for `drip`, `every=2m`
//! (due again and again).

use std::time::Duration;

use text::{KINDS_ALLOWED, Words};

mod text;

/// Times in a fault's text form are at most this long.
pub const FAULT_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest period of a repeated fault or a drip, so that neither becomes a busy loop.
pub const FAULT_PERIOD_MIN: Duration = Duration::from_millis(10);
/// The most opens one fault refuses, and the most events it repeats.
pub const FAULT_COUNT_MAX: u32 = 1_000_000;
/// The most events in one burst.
pub const BURST_MAX: u32 = 100_000;
/// The most bytes in one oversized line.
pub const OVERSIZE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The statuses an open can be refused with: those the real cloud's documentation names, and 503.
pub const REFUSAL_STATUSES: [u16; 9] = [400, 401, 403, 404, 408, 429, 500, 503, 529];

/// Something that goes wrong, once or again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// How long after it was asked for.
    pub after: Duration,
    /// Again after each such period, until the faults are cleared. At least [`FAULT_PERIOD_MIN`].
    pub every: Option<Duration>,
}

/// What goes wrong. Faults of streams concern all that are open; come due while none is, they wait
/// for the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Open streams go deaf: no events (they are lost) and no keep-alive, but the connection stays.
    Stall {
        /// How long; for ever if absent.
        lasting: Option<Duration>,
        /// Streams opened meanwhile are deaf too, after their `:ok`. Such a stall does not wait for
        /// a stream.
        sticky: bool,
    },
    /// A clean end of the body, after what was already published.
    Cut,
    /// A part of an event, then the connection closes without an end of the body.
    CutMidEvent {
        /// How many bytes of it; half if absent.
        at: Option<usize>,
    },
    /// TCP reset, after what was already published as far as the reader takes it.
    Reset,
    /// The next opens are refused with a status and the cloud's JSON body.
    Refuse {
        /// One of [`REFUSAL_STATUSES`].
        status: u16,
        /// The `Retry-After` header.
        retry_after: Option<RetryAfter>,
        /// How many opens.
        count: u32,
    },
    /// The next opens get 200 and an HTML page.
    Html {
        /// How many opens.
        count: u32,
    },
    /// The next opens get a 302.
    Redirect {
        /// The `Location` header: no spaces, no control characters.
        url: String,
        /// How many opens.
        count: u32,
    },
    /// The next opens get no answer at all.
    Hang {
        /// How many opens.
        count: u32,
    },
    /// Open streams get a few bytes at a time, each piece an HTTP chunk of its own.
    Drip {
        /// Bytes a time, at least 1.
        bytes: usize,
        /// How often. At least [`FAULT_PERIOD_MIN`].
        every: Duration,
        /// How long; for ever if absent.
        lasting: Option<Duration>,
    },
    /// The next events go out twice, byte for byte.
    Duplicate {
        /// How many events.
        count: u32,
    },
    /// Events of the devices, at once.
    Burst {
        /// How many, at most [`BURST_MAX`].
        count: u32,
    },
    /// One event whose data line is long.
    Oversize {
        /// Bytes of the line without its line feed, at most [`OVERSIZE_BYTES_MAX`]; never shorter
        /// than an empty event.
        bytes: usize,
    },
    /// Bytes to every open stream, as they are.
    Raw {
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// What a refusal says about when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// As a number of seconds.
    Seconds(u32),
    /// As an HTTP date that many seconds ahead.
    Date(u32),
}

/// Why a text is no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No word in it says what goes wrong.
    #[error("a fault begins with one of {KINDS_ALLOWED}")]
    Empty,
    /// The first word is no kind of fault.
    #[error("unknown fault {word:?}: allowed are {KINDS_ALLOWED}")]
    UnknownKind {
        /// The word.
        word: String,
    },
    /// A word this kind of fault does not take, or has already.
    #[error("unknown word {word:?}: {kind} takes {allowed}, each once")]
    UnknownWord {
        /// The word.
        word: String,
        /// The kind of fault.
        kind: &'static str,
        /// What it takes.
        allowed: &'static str,
    },
    /// A word this kind of fault cannot do without.
    #[error("{kind} needs {word}")]
    Missing {
        /// The kind of fault.
        kind: &'static str,
        /// The word.
        word: &'static str,
    },
    /// A value that cannot be read or is out of bounds.
    #[error("{word:?} is not allowed: {allowed}")]
    Value {
        /// The word, with its value.
        word: String,
        /// What is allowed.
        allowed: String,
    },
}

impl Fault {
    /// The fault, at once and once.
    pub fn now(kind: FaultKind) -> Fault {
        Fault { kind, after: Duration::ZERO, every: None }
    }

    /// Reads a fault from its words, in any order: `[("kind", "stall"), ("after", "30s")]`. A JSON
    /// object gives these.
    ///
    /// # Errors
    /// As for the text form.
    pub fn from_words<'a>(
        pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Fault, FaultError> {
        let mut words = Vec::new();
        for (key, value) in pairs {
            match (key, value) {
                ("kind", Some(kind)) => words.insert(0, (kind.to_owned(), None)),
                _ => words.push((key.to_owned(), value.map(str::to_owned))),
            }
        }
        Words::new(words)?.fault()
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Fault {
        Fault::now(kind)
    }
}
