//! What each subscriber is owed, and how it looks on its way out.
//!
//! Law: pure where it decides. A [`Session`] is a state machine that is told the
//! time and says what to write next; it knows no socket. Drivers live in `delivery`.

mod account;
mod batch;
pub mod parameter;
pub mod particle;
pub mod poll;
pub mod request;
mod session;
pub mod sse;
mod turn;
pub mod websocket;

use std::time::Duration;

pub use account::{Account, Ledger, Peer};
pub use batch::Write;
pub use session::{Session, Step, Wire};
pub use turn::Turn;

use batch::Batch;

/// Times and bounds of every stream.
#[derive(Clone, Debug)]
pub struct Config {
    /// Silence after which a keep-alive is sent; each is moved by up to 20 % either way.
    pub keepalive: Duration,
    /// Least reconnection time told to a client.
    pub retry_min: Duration,
    /// Greatest reconnection time told to a client in normal times.
    pub retry_max: Duration,
    /// Bytes of one write. One record may be larger.
    pub batch_bytes_max: usize,
    /// Time without a delivery after which the position is told.
    pub checkpoint_after: Duration,
    /// Greatest age of a stream; none for no limit.
    pub age_max: Option<Duration>,
}
