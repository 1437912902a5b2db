//! Events a second through the decoder, against `sse-parse` on the same bytes.
//!
//! The stream is what the Particle cloud sends: a name line, one data line, about 200 bytes in all,
//! in the 16 KiB chunks a busy TLS connection gives. `cargo bench --bench decode`
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanlight::upstream::decode::{Decoder, Item, Limits};

const EVENTS: u32 = 10_000;
const CHUNK_BYTES: usize = 16 * 1024;

fn decode(criterion: &mut Criterion) {
    for (line_ends, line_end) in [("lf", "\n"), ("crlf", "\r\n")] {
        let stream = stream(line_end);
        let event_bytes = stream.len() / EVENTS as usize;
        let mut group = criterion.benchmark_group(format!("decode/{line_ends}/{event_bytes}B"));
        group.throughput(Throughput::Elements(EVENTS.into()));
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

fn stream(line_end: &str) -> Vec<u8> {
    let mut stream = Vec::new();
    for event in 0..EVENTS {
        let (degrees, second, device) = (event % 40, event % 60, event % 5_000);
        stream.extend_from_slice(
            format!(
                "event: greenhouse/bay-{}/temperature{line_end}\
                 data: {{\"data\":\"{degrees}.5\",\"ttl\":60,\
                 \"published_at\":\"2026-05-04T09:00:{second:02}.104Z\",\
                 \"coreid\":\"e00fce68000000000000{device:04x}\",\
                 \"version\":7,\"public\":false,\"productID\":40123}}{line_end}{line_end}",
                event % 8,
            )
            .as_bytes(),
        );
    }
    stream
}

criterion_group!(benches, decode);
criterion_main!(benches);
