//! The event-stream decoder: bytes as they came off the wire in, events out.
//!
//! It follows "interpreting an event stream" of the HTML standard to the letter and does no input
//! or output of its own. Laws it keeps:
//!
//! - Where the bytes are torn never shows: any split of a stream gives the same items.
//! - Every byte sequence is a stream, so there is no error to return and nothing to panic over.
//! - Time is linear in the bytes fed. Each byte is looked at a fixed number of times, however small
//!   the pieces.
//! - Memory is bounded by [`Limits`]: what is over a bound is counted, reported and never held.
//!
//! ```text
//!  chunk n                     chunk n+1
//!  ..event: a⏎data: {..}⏎⏎even|t: b⏎data: {..}⏎⏎event..
//!    └── borrowed from chunk ┘└─┬─┘└── borrowed ┘  └── held until the next chunk
//!                               └ copied to `line`, since it is torn
//! ```
//!
//! UTF-8 is decoded a line (or a run of joined lines) at a time. This equals decoding the whole
//! stream first: LF and CR are never part of a longer sequence, and a sequence they cut short
//! becomes U+FFFD either way.

use std::mem;

use memchr::memchr;

pub use self::limits::{EVENT_BYTES_MAX, ID_BYTES_MAX, LINE_BYTES_MAX, Limits};
use self::line::{FIELD_BYTES_MAX, FIELDS, Line, decimal, line_end, text};

mod limits;
mod line;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// What a stream may begin with once; it is dropped.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// What the stream said. Borrowed: it lives as long as the call of the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A complete event.
    Event {
        /// Its `event` field, or `message` where the stream gave none or an empty one.
        name: &'a str,
        /// Its data lines joined by line feeds, none at the end.
        data: &'a str,
    },
    /// A `retry` field: milliseconds, saturating. It counts at once, whatever becomes of the block
    /// it stands in.
    Retry(u64),
    /// An event over a bound of [`Limits`]. It was dropped whole; the next one is whole again.
    Oversize {
        /// Its name as in [`Item::Event`] (`message` where the name itself was too long). For the
        /// log only.
        name: &'a str,
        /// The bytes of its block on the wire, up to its blank line.
        bytes: u64,
    },
}

/// An event-stream decoder for one connection at a time.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    head: Head,
    /// The bytes of a torn line so far, if it is to be held.
    line: Vec<u8>,
    torn: Torn,
    /// The last byte was a CR, so an LF that comes next belongs to it.
    after_cr: bool,
    /// The name so far of an event torn over chunks. Empty is none, as in the standard.
    name: Vec<u8>,
    /// The data lines so far, each with a line feed behind it, as in the standard.
    data: Vec<u8>,
    size: Size,
    /// The id the unfinished block will set, if `id_set`.
    id: String,
    id_set: bool,
    last_event_id: String,
    comments: u64,
    /// Bytes of this connection before the current chunk.
    offset: u64,
    /// Where the unfinished block began, counted like `offset`.
    block_from: u64,
}

/// Whether the stream's first bytes are behind us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// So many bytes were those of a byte order mark.
    Mark(usize),
    Passed,
}

/// How a torn line goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Torn {
    /// Its bytes are held. With none held yet there is no torn line.
    Held,
    /// It is a comment: skip to its end.
    Comment,
    /// It is an unknown field or too long: skip to its end.
    Skipped,
}

/// Whether the unfinished event is within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Fits,
    /// It is not. Without a data line it would not have been an event, so nothing would be lost.
    Over {
        has_data: bool,
    },
}

/// The parts of the unfinished block that still lie in the chunk (or in the torn line it
/// completed).
#[derive(Debug, Clone, Copy, Default)]
struct Borrowed<'a> {
    /// Overrides the decoder's `name`.
    name: Option<&'a [u8]>,
    /// The one data line so far; the decoder's `data` is empty then.
    data: Option<&'a [u8]>,
}

// === impl Decoder ===

impl Decoder {
    /// A decoder at the start of a connection, with an empty last event id.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            head: Head::Mark(0),
            line: Vec::new(),
            torn: Torn::Held,
            after_cr: false,
            name: Vec::new(),
            data: Vec::new(),
            size: Size::Fits,
            id: String::new(),
            id_set: false,
            last_event_id: String::new(),
            comments: 0,
            offset: 0,
            block_from: 0,
        }
    }

    /// Feeds the next bytes as they came off the wire, torn anywhere, and hands each item they
    /// complete to `sink`.
    pub fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(Item<'_>)) {
        let start = self.skip_head(bytes);
        if start < bytes.len() {
            self.lines(bytes, start, &mut sink);
        }
        self.offset += bytes.len() as u64;
    }

    /// The last event id as the stream set it: kept over events, blocks and connections, empty at
    /// first.
    ///
    /// An id counts once its block has ended with a blank line, even where that block held no event
    /// or one too large (else each reconnect would ask for that one again). An id with a NUL in it,
    /// or over [`ID_BYTES_MAX`], is ignored.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// Goes on from the last event id of another connection's decoder.
    pub fn adopt_last_event_id(&mut self, id: &str) {
        self.last_event_id.clear();
        self.last_event_id.push_str(id);
    }

    /// Comment lines seen in the decoder's life. Some servers keep a connection alive with them.
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// Forgets everything unfinished, as at a disconnect, and is ready for a new connection.
    ///
    /// Returns whether an event was in progress, which is now discarded. The last event id and the
    /// count of comments stay.
    pub fn reset(&mut self) -> bool {
        let in_progress = self.buffered_bytes() > 0 || self.id_set || self.size != Size::Fits;
        self.head = Head::Mark(0);
        self.line.clear();
        self.torn = Torn::Held;
        self.after_cr = false;
        self.name.clear();
        self.data.clear();
        self.size = Size::Fits;
        self.id_set = false;
        self.offset = 0;
        self.block_from = 0;
        in_progress
    }

    /// Bytes held for the unfinished line and event: at most [`Limits::held_bytes_max`].
    pub fn buffered_bytes(&self) -> usize {
        let id_bytes = if self.id_set { self.id.len() } else { 0 };
        self.line.len() + self.name.len() + self.data.len() + id_bytes
    }

    /// Passes the byte order mark and the second half of a torn CRLF. Returns where the lines go on
    /// in `bytes`.
    fn skip_head(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Head::Mark(matched) = self.head {
            let Some(&byte) = bytes.get(at) else { return at };
            if byte != BYTE_ORDER_MARK[matched] {
                self.head = Head::Passed;
                self.hold(&BYTE_ORDER_MARK[..matched]);
                break;
            }
            at += 1;
            self.head = Head::Mark(matched + 1);
            if matched + 1 == BYTE_ORDER_MARK.len() {
                self.head = Head::Passed;
                self.block_from = BYTE_ORDER_MARK.len() as u64;
            }
        }
        if self.after_cr
            && let Some(&byte) = bytes.get(at)
        {
            self.after_cr = false;
            if byte == b'\n' {
                if self.block_from == self.offset {
                    self.block_from += 1;
                }
                at += 1;
            }
        }
        at
    }

    /// Takes the lines of `bytes` from `at` on: the torn one's end, the whole ones, the next torn
    /// one's beginning.
    fn lines(&mut self, bytes: &[u8], mut at: usize, sink: &mut impl FnMut(Item<'_>)) {
        // Outlives `block`, which may borrow from it: a torn line is copied once and no more.
        let mut torn_line = Vec::new();
        let mut block = Borrowed::default();

        if self.torn != Torn::Held || !self.line.is_empty() {
            let Some(end) = line_end(bytes, at) else { return self.hold(&bytes[at..]) };
            self.hold(&bytes[at..end]);
            torn_line = mem::take(&mut self.line);
            match mem::replace(&mut self.torn, Torn::Held) {
                Torn::Held => self.field(&torn_line, &mut block, sink),
                Torn::Comment => self.comments += 1,
                Torn::Skipped => {}
            }
            at = self.past(bytes, end);
        }

        while let Some(end) = line_end(bytes, at) {
            let line = &bytes[at..end];
            at = self.past(bytes, end);
            if line.is_empty() {
                self.end_block(mem::take(&mut block), self.offset + end as u64, sink);
                self.block_from = self.offset + at as u64;
            } else {
                self.field(line, &mut block, sink);
            }
        }

        if let Some(name) = block.name {
            self.name.clear();
            self.name.extend_from_slice(name);
        }
        if let Some(data) = block.data {
            self.push_data(data);
        }
        if !torn_line.is_empty() {
            torn_line.clear();
            self.line = torn_line;
        }
        self.hold(&bytes[at..]);
    }

    /// Where the next line begins, `end` being the line end of this one.
    fn past(&mut self, bytes: &[u8], end: usize) -> usize {
        if bytes[end] == b'\r' {
            match bytes.get(end + 1) {
                Some(b'\n') => return end + 2,
                Some(_) => {}
                None => self.after_cr = true,
            }
        }
        end + 1
    }

    /// Holds another piece of a torn line, or decides that it need not be held.
    fn hold(&mut self, mut piece: &[u8]) {
        if piece.is_empty() || self.torn != Torn::Held {
            return;
        }
        // First the bytes that tell the field, so that a comment is never held.
        let head_bytes = FIELD_BYTES_MAX.saturating_sub(self.line.len()).min(piece.len());
        self.line.extend_from_slice(&piece[..head_bytes]);
        piece = &piece[head_bytes..];

        // Before that many bytes `data` may yet become `database`, but then `piece` is empty and
        // all is held. A bound may be a little generous: `field` judges to the byte what is held.
        let bytes_max = match Line::parse(&self.line) {
            Line::Data(_) => {
                let data_room = self.limits.event_bytes_max.saturating_sub(self.data.len());
                self.limits.line_bytes_max.min(data_room.saturating_add(FIELD_BYTES_MAX))
            }
            Line::Event(_) => self.limits.line_bytes_max,
            Line::Id(_) | Line::Retry(_) => {
                self.limits.line_bytes_max.min(ID_BYTES_MAX + FIELD_BYTES_MAX + 1)
            }
            Line::Comment => return self.skip(Torn::Comment),
            Line::Unknown if FIELDS.iter().any(|field| field.starts_with(&self.line)) => {
                FIELD_BYTES_MAX
            }
            Line::Unknown => return self.skip(Torn::Skipped),
        };
        if self.line.len() + piece.len() <= bytes_max.max(FIELD_BYTES_MAX) {
            self.line.extend_from_slice(piece);
            return;
        }
        match Line::parse(&self.line) {
            Line::Data(_) => self.drop_event(true),
            Line::Event(_) => self.drop_event(false),
            Line::Id(_) | Line::Retry(_) | Line::Comment | Line::Unknown => {}
        }
        self.skip(Torn::Skipped);
    }

    fn skip(&mut self, torn: Torn) {
        self.line.clear();
        self.torn = torn;
    }

    /// Takes a whole line that is not blank.
    fn field<'a>(
        &mut self,
        line: &'a [u8],
        block: &mut Borrowed<'a>,
        sink: &mut impl FnMut(Item<'_>),
    ) {
        let line_fits = line.len() <= self.limits.line_bytes_max;
        match Line::parse(line) {
            Line::Data(value) => {
                if let Some(first) = block.data.take() {
                    self.push_data(first);
                }
                let data_fits = value.len() + self.data.len() <= self.limits.event_bytes_max;
                if !line_fits || !data_fits || self.size != Size::Fits {
                    self.drop_event(true);
                } else if self.data.is_empty() {
                    block.data = Some(value);
                } else {
                    self.push_data(value);
                }
            }
            Line::Event(value) if line_fits => block.name = Some(value),
            Line::Event(_) => {
                let has_data = block.data.take().is_some();
                self.drop_event(has_data);
            }
            Line::Id(value) => {
                if !line_fits || value.len() > ID_BYTES_MAX || memchr(0, value).is_some() {
                    return;
                }
                // As text it may be longer: an invalid byte becomes three.
                let id = text(value);
                if id.len() <= ID_BYTES_MAX {
                    self.id.clear();
                    self.id.push_str(&id);
                    self.id_set = true;
                }
            }
            Line::Retry(value) => {
                let fits = line_fits && value.len() <= ID_BYTES_MAX;
                if fits && let Some(milliseconds) = decimal(value) {
                    sink(Item::Retry(milliseconds));
                }
            }
            Line::Comment => self.comments += 1,
            Line::Unknown => {}
        }
    }

    /// Ends a block at its blank line, which begins at `end` of the connection's bytes.
    fn end_block(&mut self, block: Borrowed<'_>, end: u64, sink: &mut impl FnMut(Item<'_>)) {
        if self.id_set {
            mem::swap(&mut self.last_event_id, &mut self.id);
            self.id_set = false;
        }
        let size = mem::replace(&mut self.size, Size::Fits);
        let data = match block.data {
            Some(data) => Some(data),
            None => self.data.split_last().map(|(_line_feed, data)| data),
        };
        let name = match block.name.unwrap_or(&self.name) {
            b"" => b"message",
            name => name,
        };
        match (size, data) {
            (Size::Fits, Some(data)) => sink(Item::Event { name: &text(name), data: &text(data) }),
            (Size::Over { has_data: true }, _) => {
                sink(Item::Oversize { name: &text(name), bytes: end - self.block_from });
            }
            (Size::Fits, None) | (Size::Over { has_data: false }, _) => {}
        }
        self.name.clear();
        self.data.clear();
    }

    /// Drops the unfinished event, whose data or name is too long; what is left of its block is
    /// only counted.
    fn drop_event(&mut self, has_data: bool) {
        let had_data = !self.data.is_empty() || self.size == Size::Over { has_data: true };
        self.size = Size::Over { has_data: has_data || had_data };
        self.data.clear();
    }

    fn push_data(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.data.push(b'\n');
    }
}
