//! The broker on real sockets, with the simulated cloud as upstream.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cli;
mod harness;
mod hostile;
mod restart;
mod smoke;
mod tls;
mod upstream;
mod websocket_end;
