//! The broker on real sockets, with the simulated cloud as upstream.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

mod smoke;

mod access;
mod edge;
mod ingest;
mod latest;
mod limits;
mod ndjson;
mod particle;
mod poll;
mod proxy;
mod publish;
mod resume;
mod secrets;
mod sse;
mod websocket;
mod websocket_end;

mod fanout;
mod hostile;
mod restart;
mod shard;
mod shutdown;
mod tls;
mod upstream;

mod admin;
mod bench;
mod check;
mod cli;
mod description;
mod healthcheck;
mod load;
mod tail;
