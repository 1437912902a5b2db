//! What a subscriber missed: a half-open range of seqs, and why.

use std::fmt;

use super::{
    json::Object,
    position::{Epoch, Position, Seq},
};

/// Why records did not reach a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// They fell out of the ring while the subscriber was away.
    Evicted,
    /// They fell out of the ring while the subscriber was connected but did not read.
    Overtaken,
    /// The position is of another epoch: the broker has restarted since.
    Restart,
    /// The position is past the tail: this log never gave it out.
    Future,
    /// What the client handed back is no position.
    Malformed,
    /// An upstream event was too large to keep.
    Oversize,
    /// An upstream event had a name that cannot be passed on.
    Refused,
}

impl GapReason {
    /// Every reason, in the order of the metrics.
    pub const ALL: [GapReason; 7] = [
        GapReason::Evicted,
        GapReason::Overtaken,
        GapReason::Restart,
        GapReason::Future,
        GapReason::Malformed,
        GapReason::Oversize,
        GapReason::Refused,
    ];

    /// The reason's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            GapReason::Evicted => "evicted",
            GapReason::Overtaken => "overtaken",
            GapReason::Restart => "restart",
            GapReason::Future => "future",
            GapReason::Malformed => "malformed",
            GapReason::Oversize => "oversize",
            GapReason::Refused => "refused",
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A declared loss. The range is half open: `[from, to)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The position the client asked to continue from, as it gave it (cut to
    /// [`Gap::REQUESTED_CHARS_MAX`]); none where the client gave none.
    pub requested: Option<String>,
    /// First seq of this epoch that will not be delivered.
    pub from: Seq,
    /// First seq after `from` that may be delivered again.
    pub to: Seq,
    /// How many records were lost; none if nobody can know.
    pub count: Option<u64>,
    /// The oldest seq held when the gap was declared.
    pub oldest: Seq,
    /// The seq the stream goes on with.
    pub next: Seq,
}

impl Gap {
    /// A client's text is echoed up to here; a position has at most 29.
    pub const REQUESTED_CHARS_MAX: usize = 64;

    /// The position from which a client that saw only this gap resumes without
    /// being told of it again.
    pub fn id(&self, epoch: Epoch) -> Position {
        Position { epoch, seq: self.next.previous() }
    }

    /// The fields as they stand on the wire, appended to `object`.
    pub fn fields(&self, object: Object) -> Object {
        object
            .text("reason", self.reason.as_str())
            .text_or_null("requested", self.requested.as_deref())
            .number("from", self.from.0)
            .number("to", self.to.0)
            .number_or_null("count", self.count)
            .number("oldest", self.oldest.0)
            .number("next", self.next.0)
    }
}
