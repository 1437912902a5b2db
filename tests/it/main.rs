//! The broker on real sockets, with the simulated cloud as upstream.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
mod smoke;
mod tls;
mod websocket_end;
