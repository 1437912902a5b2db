//! The words and rules everything else shares. Law: pure. No clock, no lock, no
//! I/O, no `async`; time is an argument, and the same input gives the same output.

pub mod moment;
pub mod position;

pub mod event;
pub mod frame;
pub mod json;
pub mod record;

pub mod filter;
pub mod interest;

pub mod gap;
pub mod resume;
pub mod ring;

pub mod subscriber;
pub mod upstream;

pub use event::Event;
pub use filter::Filter;
pub use frame::Format;
pub use gap::{Gap, GapReason};
pub use moment::Moment;
pub use position::{Epoch, Position, Seq};
pub use record::Record;
pub use ring::Ring;
pub use subscriber::{CloseReason, Transport};
pub use upstream::{Hole, HoleReason, UpstreamState};
