//! An event into a record, in all three formats; beside it `serde_json`, which builds and writes
//! the JSON object of one of them.
//!
//! `cargo bench --bench render`
#![allow(missing_docs)]

mod sample;

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanlight::model::{Epoch, Event, Moment, Position, Record, Seq};
use serde_json::{Map, Value};

const NAME: &str = "greenhouse/bay-3/temperature";

fn render(criterion: &mut Criterion) {
    let typical = sample::event(sample::TARGET).data;
    let published = r#""ttl":60,"published_at":"2026-11-22T01:02:03.004Z","coreid":"#;
    let device = sample::device(sample::TARGET);
    let long = "0123456789abcdef ".repeat(10 * 1024 / 17);
    let large = format!("{{\"data\":\"{long}\",{published}\"{device}\"}}");
    let text =
        "bay 3 is at 21.5 \u{b0}C, its door says \"open\", and its light has been on for hours";
    for (what, data) in [("typical", typical.as_str()), ("text", text), ("10 KB", large.as_str())] {
        let mut group = criterion.benchmark_group(format!("render/{what}"));
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function("fanlight, three formats", |bencher| {
            bencher.iter(|| ours(black_box(data)));
        });
        group.bench_function("serde_json, one object", |bencher| {
            bencher.iter(|| theirs(black_box(data)));
        });
        group.finish();
    }
}

fn position() -> Position {
    Position { epoch: Epoch::from_bits(1), seq: Seq(1_042) }
}

fn ours(data: &str) -> Record {
    let event = Event::parse(NAME, data).expect("an event that is right");
    Record::event(&event, position(), Moment::default())
}

/// The object of `Format::Json`, with its fields in another order.
fn theirs(data: &str) -> Vec<u8> {
    let mut object = match serde_json::from_str(data) {
        Ok(Value::Object(object)) => object,
        Ok(_) | Err(_) => Map::from_iter([("raw".to_owned(), Value::from(data))]),
    };
    object.insert("id".to_owned(), Value::from(position().to_string()));
    object.insert("name".to_owned(), Value::from(NAME));
    serde_json::to_vec(&object).expect("a map with text keys")
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2));
    targets = render
}
criterion_main!(benches);
