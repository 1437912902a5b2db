//! How much of one event the decoder holds, and why that much.

use super::line::FIELD_BYTES_MAX;

/// The longest `data` or `event` line held, without its line end. The worst line the Particle cloud
/// can send is about 100 KB (16 KB of control characters, each as a six-byte JSON escape); this
/// leaves ten times that.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The most data of one event, its lines joined. Particle events have one data line, so this equals
/// the line's bound.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// The longest event id kept and the longest `retry` value read. A longer one is ignored.
/// An id goes back to the server in a request header, and servers commonly refuse heads over 8 KiB.
pub const ID_BYTES_MAX: usize = 1024;

/// How much of an event is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A `data` or `event` line longer than this many bytes makes its event an
    /// [`Item::Oversize`](super::Item::Oversize). Comments and unknown fields have no bound,
    /// since they are never held.
    pub line_bytes_max: usize,
    /// So does data longer than this in all, line feeds between its lines included.
    pub event_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes_max: LINE_BYTES_MAX, event_bytes_max: EVENT_BYTES_MAX }
    }
}

impl Limits {
    /// The most bytes a decoder holds between two chunks: a name, the data, a torn `event` line, an
    /// id. Buffers grow by doubling and are kept for the next event, so twice that can be allocated.
    pub fn held_bytes_max(&self) -> usize {
        let line_bytes_max = self.line_bytes_max.max(FIELD_BYTES_MAX);
        line_bytes_max
            .saturating_mul(2)
            .saturating_add(self.event_bytes_max)
            .saturating_add(1 + ID_BYTES_MAX)
    }
}
