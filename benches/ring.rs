//! The ring: taking records in where each evicts one, reading from a cursor, finding a place.
//!
//! `cargo bench --bench ring`
#![allow(missing_docs)]

mod sample;

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanlight::model::{Epoch, Event, Format, Moment, Position, Record, Ring, Seq, ring};

/// What a ring holds by default.
const EVENTS: u64 = 100_000;
/// Records appended in a run. They are rendered beforehand.
const APPENDED: u64 = 1_000;

/// The record of a number, taken in a millisecond after the one before.
fn record(number: u64, seq: Seq) -> Record {
    let sample = sample::event(number);
    let event = Event::parse(&sample.name, &sample.data).expect("an event that is right");
    let at = Moment { wall_ms: number, mono_us: number * 1_000 };
    Record::event(&event, Position { epoch: Epoch::from_bits(1), seq }, at)
}

/// A full ring whose seqs are `step` apart.
fn full(step: u64) -> Ring {
    let limits = ring::Limits { events_max: EVENTS as usize, bytes_max: 1 << 30 };
    let mut ring = Ring::new(Epoch::from_bits(1), limits);
    for number in 0..EVENTS {
        ring.append(record(number, Seq(1 + number * step)));
    }
    ring
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(APPENDED));
    let mut ring = full(1);
    let mut number = EVENTS;
    group.bench_function("append into a full ring", |bencher| {
        bencher.iter_batched(
            || {
                let records: Vec<_> =
                    (number..number + APPENDED).map(|n| record(n, Seq(1 + n))).collect();
                number += APPENDED;
                records
            },
            |records| records.into_iter().for_each(|record| ring.append(record)),
            // One at a time, so that batches are appended in the order they were made.
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let ring = full(1);
    let cursor = Seq(EVENTS / 2);
    let mut group = criterion.benchmark_group("ring/read");
    for records in [1, 16, 1_024] {
        group.throughput(Throughput::Elements(records));
        group.bench_with_input(BenchmarkId::from_parameter(records), &records, |bencher, n| {
            bencher.iter(|| {
                let frames = ring.from(black_box(cursor)).take(*n as usize);
                frames.map(|record| record.frame(Format::Message).len()).sum::<usize>()
            });
        });
    }
    group.finish();
}

fn look_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/look up");
    for (seqs, step) in [("dense", 1), ("every third", 3)] {
        let ring = full(step);
        let mut random = fastrand::Rng::with_seed(1);
        group.bench_function(format!("a seq, {seqs}"), |bencher| {
            bencher.iter(|| {
                let seq = Seq(1 + random.u64(0..EVENTS) * step);
                ring.from(seq).next().map(Record::seq)
            });
        });
    }
    let ring = full(1);
    let mut random = fastrand::Rng::with_seed(1);
    group.bench_function("a time", |bencher| {
        bencher.iter(|| ring.first_since_mono(random.u64(0..EVENTS) * 1_000));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    targets = append, read, look_up
}
criterion_main!(benches);
