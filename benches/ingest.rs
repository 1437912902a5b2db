//! How many events a second one core takes in: bytes → decoder → position → frames in
//! every format → ring, through the very code of the broker; beside `sse-parse` and
//! `serde_json` on the same bytes, which is what a program would do to only read them.
//!
//! `cargo bench --bench ingest`

#![allow(missing_docs)]

mod sample;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fanlight::{
    hub::Publisher,
    model::Moment,
    upstream::decode::{Decoder, Item, Limits},
};

use sample::{By, CHUNK_BYTES, Concerned, World};

/// Events in a run: a burst of ten seconds at a thousand a second.
const EVENTS: u64 = 10_000;
/// Records a ring holds by default.
const RING_EVENTS: usize = 100_000;

/// Bytes in, records in the ring out. `now` stands still: reading a clock once a chunk is
/// below what can be measured here.
fn take_in(bytes: &[u8], publisher: &mut Publisher) {
    let mut decoder = Decoder::new(Limits::default());
    for chunk in bytes.chunks(CHUNK_BYTES) {
        decoder.feed(chunk, |item| match item {
            Item::Event { name, data } => publisher.event(name, data, Moment::default()),
            Item::Retry(_) | Item::Oversize { .. } => unreachable!("not in this stream"),
        });
        publisher.commit();
    }
}

fn read_only(bytes: &[u8]) {
    let mut parser = sse_parse::SseParser::new();
    for chunk in bytes.chunks(CHUNK_BYTES) {
        parser.feed(chunk);
        while let Some(event) = parser.next_event() {
            let data = serde_json::from_str::<serde_json::Value>(&event.data).expect("valid JSON");
            black_box((event, data));
        }
    }
}

fn ingest(criterion: &mut Criterion) {
    let bytes = sample::stream(EVENTS, "\n");
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("decode, position, render, append", |bencher| {
        bencher.iter_batched_ref(
            || World::new(RING_EVENTS),
            |world| take_in(&bytes, &mut world.publisher),
            BatchSize::PerIteration,
        );
    });
    // A full ring evicts one record for each that comes: the broker's everyday life.
    group.bench_function("the same into a full ring", |bencher| {
        let mut world = World::full(RING_EVENTS);
        bencher.iter(|| take_in(&bytes, &mut world.publisher));
    });
    group.bench_function("the same with 1,000 filters of which one is concerned", |bencher| {
        let mut world = World::full(RING_EVENTS);
        let filters = sample::filters(By::Prefix, 1_000, Concerned::One);
        let subscriptions: Vec<_> =
            filters.into_iter().map(|filter| world.subscribe(filter)).collect();
        bencher.iter(|| take_in(&bytes, &mut world.publisher));
        drop(subscriptions);
    });
    group.bench_function("sse-parse and serde_json::Value, reading only", |bencher| {
        bencher.iter(|| read_only(&bytes));
    });
    group.finish();
}

criterion_group!(benches, ingest);
criterion_main!(benches);
