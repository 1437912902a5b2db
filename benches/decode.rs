//! Events a second through the decoder, against `sse-parse` on the same bytes, in the chunks of
//! 16 KiB that a busy TLS connection gives.
//!
//! `cargo bench --bench decode`
#![allow(missing_docs)]

mod sample;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanlight::upstream::decode::{Decoder, Item, Limits};

use sample::CHUNK_BYTES;

const EVENTS: u64 = 10_000;

fn decode(criterion: &mut Criterion) {
    for (line_ends, line_end) in [("lf", "\n"), ("crlf", "\r\n")] {
        let stream = sample::stream(EVENTS, line_end);
        let event_bytes = stream.len() / EVENTS as usize;
        let mut group = criterion.benchmark_group(format!("decode/{line_ends}/{event_bytes}B"));
        group.throughput(Throughput::Elements(EVENTS));
        group.bench_function("fanlight", |bencher| bencher.iter(|| ours(&stream)));
        group.bench_function("sse-parse", |bencher| bencher.iter(|| theirs(&stream)));
        group.finish();
    }
}

fn ours(stream: &[u8]) {
    let mut decoder = Decoder::new(Limits::default());
    let mut events = 0;
    for chunk in stream.chunks(CHUNK_BYTES) {
        decoder.feed(chunk, |item| {
            if let Item::Event { .. } = black_box(item) {
                events += 1;
            }
        });
    }
    assert_eq!(events, EVENTS);
}

fn theirs(stream: &[u8]) {
    let mut parser = sse_parse::SseParser::new();
    let mut events = 0;
    for chunk in stream.chunks(CHUNK_BYTES) {
        parser.feed(chunk);
        while let Some(event) = parser.next_event() {
            black_box(event);
            events += 1;
        }
    }
    assert_eq!(events, EVENTS);
}

criterion_group!(benches, decode);
criterion_main!(benches);
