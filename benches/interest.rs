//! An event against many filters, of which none, one or all want it: the index alone, and the
//! whole of a commit through the hub (render, ring, newest values, waking).
//!
//! `cargo bench --bench interest`
#![allow(missing_docs)]

mod sample;

use std::{hint::black_box, time::Duration};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use fanlight::model::interest::Interest;

use sample::{By, Concerned, TARGET, World};

const COUNTS: [usize; 3] = [1, 1_000, 15_000];

fn index(criterion: &mut Criterion) {
    let target = sample::event(TARGET);
    let device = sample::device(TARGET);
    for_each(criterion, "interest", |group, id, (by, count, concerned)| {
        let mut interest = Interest::default();
        for (key, filter) in sample::filters(by, count, concerned).iter().enumerate() {
            interest.insert(filter, key);
        }
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                interest.concerned(black_box(&target.name), Some(&device), |key| {
                    black_box(key);
                });
            });
        });
    });
}

fn commit(criterion: &mut Criterion) {
    let target = sample::event(TARGET);
    for_each(criterion, "commit", |group, id, (by, count, concerned)| {
        // With a ring as large as the default one, so that the wake of all groups comes as
        // seldom as it does there.
        let mut world = World::full(100_000);
        let filters = sample::filters(by, count, concerned);
        let subscriptions: Vec<_> =
            filters.into_iter().map(|filter| world.subscribe(filter)).collect();
        group.bench_function(id, |bencher| bencher.iter(|| world.append(&target)));
        drop(subscriptions);
    });
}

fn for_each(
    criterion: &mut Criterion,
    name: &str,
    mut bench: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, BenchmarkId, (By, usize, Concerned)),
) {
    for by in [By::Name, By::Prefix, By::Device] {
        let mut group = criterion.benchmark_group(format!("{name}/{by:?}"));
        for count in COUNTS {
            for concerned in [Concerned::None, Concerned::One, Concerned::All] {
                let id = BenchmarkId::new(format!("{concerned:?}"), count);
                bench(&mut group, id, (by, count, concerned));
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    // There are 54 of them.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = index, commit
}
criterion_main!(benches);
