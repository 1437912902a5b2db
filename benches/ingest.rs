//! How many events a second one core takes in: bytes → decoder → position → frames in
//! every format → ring, through the very code of the broker; beside `sse-parse` and
//! `serde_json` on the same bytes, which is what a program would do to only read them.
//!
//! `cargo bench --bench ingest`

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fanlight::{
    hub::{Config, Hub, Publisher},
    log::Log,
    model::{Epoch, Filter, Moment, Transport, resume::Start, ring},
    telemetry::Telemetry,
    upstream::decode::{Decoder, Item, Limits},
};

/// Events in a run: a burst of ten seconds at a thousand a second.
const EVENTS: u64 = 10_000;
/// What one read of a socket usually brings.
const CHUNK_BYTES: usize = 16 << 10;

fn hub() -> (Hub, Publisher) {
    let config = Config {
        ring: ring::Limits { events_max: 100_000, bytes_max: 64 << 20 },
        latest_entries_max: 10_000,
        latest_bytes_max: 16 << 20,
    };
    let log = Log::memory(Epoch::from_bits(1));
    Hub::new(config, log, Arc::new(Telemetry::new()), Moment::default())
}

/// A stream as the cloud sends it: 100 devices, five names, about 190 bytes an event.
fn stream() -> Vec<u8> {
    let names = ["temperature", "humidity", "battery", "soil", "light"];
    let mut bytes = b":ok\n\n".to_vec();
    for number in 0..EVENTS {
        let name = names[(number % 5) as usize];
        let device = format!("e00fce68{:016x}", number % 100);
        let text = format!(
            "event: greenhouse/bay-{}/{name}\ndata: {{\"data\":\"{}.{:02}\",\"ttl\":60,\
             \"published_at\":\"2026-11-22T01:02:{:02}.004Z\",\"coreid\":\"{device}\"}}\n\n",
            number % 7,
            number % 40,
            number % 100,
            number % 60,
        );
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

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
    let bytes = stream();
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("decode, position, render, append", |bencher| {
        bencher.iter_batched_ref(
            hub,
            |(_, publisher)| take_in(&bytes, publisher),
            BatchSize::PerIteration,
        );
    });
    // A full ring evicts one record for each that comes: the broker's everyday life.
    group.bench_function("the same into a full ring", |bencher| {
        let (_hub, mut publisher) = hub();
        for _ in 0..11 {
            take_in(&bytes, &mut publisher);
        }
        bencher.iter(|| take_in(&bytes, &mut publisher));
    });
    group.bench_function("the same with 1,000 filters of which one is concerned", |bencher| {
        let (hub, mut publisher) = hub();
        let subscriptions: Vec<_> = (0..1_000)
            .map(|number| {
                let name = if number == 0 {
                    "greenhouse/bay-3/".to_owned()
                } else {
                    format!("other/{number}/")
                };
                let filter = Filter::new(vec![name], vec![], vec![]).expect("within bounds");
                hub.subscribe(filter, &Start::Live, Transport::Sse, Moment::default())
            })
            .collect();
        bencher.iter(|| take_in(&bytes, &mut publisher));
        drop(subscriptions);
    });
    group.bench_function("sse-parse and serde_json::Value, reading only", |bencher| {
        bencher.iter(|| read_only(&bytes));
    });
    group.finish();
}

criterion_group!(benches, ingest);
criterion_main!(benches);
