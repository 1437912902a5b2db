//! What is fuzzed: functions of any bytes that end, without a panic, whatever they get.
//!
//! Law: "no panic" is the least of it. Each target holds the code against something that was
//! written otherwise: its inverse, another implementation, or the rule spelled out naively.
//!
//! Two programs run them: `tests/fuzz/run`, with libFuzzer, for as long as one likes; and
//! `tests/fuzz.rs`, a part of `cargo test`, which replays the corpus and mutates it at random.

mod access;
mod config;
mod decode;
mod encode;
mod forwarded;
mod grants;
mod host;
mod keys;
mod position;
mod proxy_protocol;
mod publish;
mod query;
mod token;
mod websocket;

/// A target: what it is called, and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All targets. The corpus of each is `tests/fuzz/corpus/NAME`.
pub(crate) const TARGETS: &[Target] = &[
    ("access", access::access),
    ("config", config::config),
    ("decode", decode::decode),
    ("encode", encode::encode),
    ("forwarded", forwarded::forwarded),
    ("grants", grants::grants),
    ("host", host::host),
    ("keys", keys::keys),
    ("position", position::position),
    ("proxy_protocol", proxy_protocol::proxy_protocol),
    ("publish", publish::publish),
    ("query", query::query),
    ("token", token::token),
    ("websocket", websocket::websocket),
];

/// The first bytes as numbers, and the rest.
fn numbers<const N: usize>(input: &[u8]) -> Option<([usize; N], &[u8])> {
    let (numbers, rest) = input.split_first_chunk::<N>()?;
    Some((numbers.map(usize::from), rest))
}

/// The first `length` bytes, or what there is, and the rest.
fn split(input: &[u8], length: usize) -> (&[u8], &[u8]) {
    input.split_at(length.min(input.len()))
}
