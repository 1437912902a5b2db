//! How bytes reach sockets: drivers of the [`Session`](crate::transport::Session).
//!
//! Law: a driver decides nothing about content. It asks the session what to write,
//! waits as long as it says, and gives way when the socket is full.
//!
//! ```text
//!  Session ─┬─▶ shard      sockets taken over from hyper, many to a thread: plain HTTP/1.1
//!           └─▶ stream     a task for each: SSE and NDJSON on anything that reads and writes
//!               websocket  the same for WebSockets
//! ```

mod conversation;
mod framing;
mod handover;
pub mod shard;
mod socket;
mod stall;
pub mod stream;
pub mod websocket;

pub use conversation::Config as WebSocketConfig;
pub use framing::Framing;
pub use handover::{Handover, HandoverBody, HandoverIo, Offer};
pub use socket::{Forsake, Listener, Socket};
pub use stall::StallGuard;
