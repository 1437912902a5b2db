//! A load client: many subscribers of one or several brokers, on one thread.
//!
//! It exists to measure, so it must never be what is measured: an event loop of its own
//! over edge-triggered readiness, one read buffer for all, about a hundred bytes kept for
//! each connection, and a plain search for bytes instead of a parser.
//!
//! ```text
//!  Plan ─▶ Crowd::open ─▶ Crowd::run, wait_for ──▶ Tally
//!           opening         receive: read, scan       counts, latencies
//!                           order: lost, late, repeated
//! ```
//!
//! What it counts are **stamps** ([`Stamp`]): numbered and timed by whoever publishes, found
//! whatever the broker. Losses, order and latency are exact. Where nobody stamps, it watches
//! the **positions** of a Fanlight broker instead: then an event counts as lost by one member
//! if another got it, and latency is the time after the first member that got it.
//!
//! Law: it names no other module, so that it measures any broker and no broker leans on it.

mod chunks;
mod clock;
mod crowd;
mod first_seen;
mod frames;
mod member;
mod opening;
mod order;
mod receive;
mod scan;
mod tally;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use clock::{now, wall_nanos};
pub use crowd::{Crowd, Ended, Missing, Tick, go_on};
pub use scan::Stamp;
pub use tally::{Opened, Tally};

/// How subscribers speak with the broker. Neither is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `GET` with `Accept: text/event-stream`.
    Sse,
    /// WebSocket: its pings are answered, nothing else is sent.
    WebSocket,
}

/// What counts as an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// A [`Stamp`], numbered from 1 without a gap: what begins higher or skips has lost some.
    Stamps,
    /// A position of a Fanlight broker, in its default format.
    Positions,
}

/// What a crowd of subscribers does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where they connect, in turn. At least one.
    pub targets: Vec<SocketAddr>,
    /// Where they connect from, in turn; none for whatever the system takes. One address
    /// has some 28,000 ports (Linux's default range), so a larger crowd needs several.
    pub sources: Vec<IpAddr>,
    /// The `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// How they speak.
    pub protocol: Protocol,
    /// What they count.
    pub watch: Watch,
    /// How many there are.
    pub subscribers: usize,
    /// So many of them read the head of the answer, and then never again.
    pub stalled: usize,
    /// Further header lines, each `Name: value`.
    pub headers: Vec<String>,
    /// `SO_RCVBUF` of those that read; none for the system's.
    pub receive_buffer_bytes: Option<usize>,
    /// Looks for what is ready all the time. On one machine the server's `send` wakes a
    /// client that sleeps, and the server is charged for it: the faster the server, the
    /// less it sleeps. A core is used up by this.
    pub never_sleeps: bool,
    /// Connections begun in a second; none for as many as go.
    pub connects_per_second: Option<f64>,
    /// For a connection to be open, its answer's head included.
    pub open_timeout: Duration,
}

impl Plan {
    /// `subscribers` that count stamps over SSE at `path` of `target`.
    pub fn new(target: SocketAddr, path: &str, subscribers: usize) -> Plan {
        Plan {
            targets: vec![target],
            sources: Vec::new(),
            host: target.to_string(),
            path: path.to_owned(),
            protocol: Protocol::Sse,
            watch: Watch::Stamps,
            subscribers,
            stalled: 0,
            headers: Vec::new(),
            receive_buffer_bytes: None,
            never_sleeps: false,
            connects_per_second: None,
            open_timeout: Duration::from_secs(30),
        }
    }
}
