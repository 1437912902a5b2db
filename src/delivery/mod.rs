//! How bytes reach sockets: drivers of the [`Session`](crate::transport::Session).
//!
//! Law: a driver decides nothing about content. It asks the session what to write,
//! waits as long as it says, and gives way when the socket is full.

mod body;
mod stall;
pub mod websocket;

pub use body::SessionBody;
pub use stall::StallGuard;
