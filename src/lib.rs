//! Fanlight, a self-hosted fan-out broker for Particle devices.
//!
//! One connection to the Particle cloud's event stream comes in; any number of browsers
//! and services get it over SSE, WebSocket and long poll, with replay and an exact
//! report of whatever they missed.
//!
//! One idea: **a ring of pre-rendered frames, and readers that are only cursors into it.**
//!
//! ```text
//!  upstream/              log/                hub/                       transport/           delivery/
//!  Particle cloud ─┐   append → Position   ingest, the one writer:      session: what to     shard: a thread, its
//!  any SSE stream ─┼─▶ (memory)         ─▶ render once per format ─▶    write next, pure  ─▶ sockets, one write for
//!  simulator      ─┘                       ring of shared frames        (SSE, NDJSON,        all at the same place
//!                                          ring doorbells, wake groups   WebSocket); poll    stream, websocket: a
//!                                               ▲ examine()                                  task each, no shards
//!                                           subscription = cursor + filter
//!  model/   the words and rules all of them share: no clock, no lock, no I/O, no async
//!  server/  builds the picture from the configuration and nothing else does
//! ```
//!
//! A stream's request is read by hyper; then its socket leaves hyper for a shard (or a task),
//! with the head of the answer, and stays there. Polls and all other requests stay with hyper.
//!
//! Data moves left to right, and nothing on the right is named on the left. The modules
//! below stand in reading order; docs/ARCHITECTURE.md walks one event through them.
//!
//! The crate is the program `fanlight`; as a library it serves its own tests and
//! benchmarks, and promises nothing else.

pub mod model;

pub mod access;

pub mod edge;

pub mod clock;
pub mod telemetry;

pub mod log;

pub mod hub;

pub mod upstream;

pub mod transport;

pub mod delivery;

pub mod server;

pub mod config;

pub mod simulator;

pub mod load;

pub mod cli;
