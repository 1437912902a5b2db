//! The fuzz targets without a fuzzer: the corpus once, then mutations of it. tests/fuzz/run is the
//! long way.
//!
//! The seed is printed; FANLIGHT_FUZZ_SEED repeats it, FANLIGHT_FUZZ_TRIES asks for more.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{env, fs, panic, path::Path};

use fastrand::Rng;

#[path = "fuzz/targets/mod.rs"]
mod targets;

use targets::{TARGETS, Target};

/// Mutations of each target: some seconds in a debug build.
const TRIES: u64 = 10_000;
/// Longest input made here.
const INPUT_BYTES_MAX: usize = 2048;

/// What random bytes would take too long to find.
const PIECES: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"data: ",
    b"event: ",
    b"id: ",
    b"retry: 1",
    b":",
    b"{\"",
    b"\":",
    b"\"}",
    b"\\u0069",
    b"\\ud800",
    b"\"coreid\":\"",
    b"\"id\":",
    b"fanlight.",
    b"6n3k2ahq-",
    b"18446744073709551615",
    b"prefix=",
    b"&name=",
    b"&device=",
    b"&since=1h",
    b"%",
    b"+",
    b"example.org",
    b".localhost",
    b"127.0.0.1",
    b"[::1]",
    b":80",
    b".",
    b"\x81\x85",
    b"\x88\x80",
    b"\x89\x80",
    b"\x81\xfe",
    b"\x01\x81",
    b"{\"subscribe\":{",
    b"name",
    b"data:",
    b"spark",
    b"[server]\n",
    b"[upstream]\n",
    b" = ",
    b"\"",
    b"FANLIGHT_",
    b"auto",
    b"64MiB",
    b"-1",
    b"1e999",
    b"PROXY TCP4 ",
    b"PROXY UNKNOWN",
    b"192.0.2.1 ",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    b"for=10.0.0.2",
    b"for=\"[2001:db8::1]:4711\"",
    b"10.0.0.3, ",
];

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_target_is_here() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets! {
    access config decode encode forwarded grants host keys position proxy_protocol publish query
    token websocket
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "tests/fuzz/corpus/{name} is empty");
    for input in &corpus {
        try_one(target, input, "in the corpus");
    }
    let number = |variable: &str| env::var(variable).ok().map(|text| text.parse().unwrap());
    let seed = number("FANLIGHT_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let tries = number("FANLIGHT_FUZZ_TRIES").unwrap_or(TRIES);
    println!(
        "{name}: {} of the corpus, {tries} mutations, FANLIGHT_FUZZ_SEED={seed}",
        corpus.len()
    );
    let mut rng = Rng::with_seed(seed);
    for _ in 0..tries {
        let input = mutated(&corpus, &mut rng);
        try_one(target, &input, &format!("FANLIGHT_FUZZ_SEED={seed}"));
    }
}

/// The inputs of the corpus, in the order of their names: what a seed means depends on it.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new("tests/fuzz/corpus").join(name);
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The input is shown where it fails, so that it can be kept.
fn try_one(&(name, target): &Target, input: &[u8], origin: &str) {
    if let Err(panic) = panic::catch_unwind(|| target(input)) {
        eprintln!("{name} fails ({origin}) with b\"{}\"", input.escape_ascii());
        panic::resume_unwind(panic);
    }
}

fn mutated(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = rng.choice(corpus).unwrap().clone();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=input.len());
        let end = rng.usize(at..=input.len().min(at + 32));
        match rng.u8(..7) {
            0 => input.insert(at, rng.u8(..)),
            1 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            2 if at < input.len() => input[at] = rng.u8(..),
            3 => drop(input.drain(at..end)),
            4 => drop(input.splice(at..end, rng.choice(PIECES).unwrap().iter().copied())),
            5 => {
                let again = input[at..end].to_vec();
                drop(input.splice(at..at, again));
            }
            _ => {
                let other = rng.choice(corpus).unwrap();
                input.truncate(at);
                input.extend_from_slice(&other[rng.usize(..=other.len())..]);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}
