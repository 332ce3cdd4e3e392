//! Ranking on one thread, at the sizes of the paper's data: d = 100, 20,000 items, 100 negatives.
//!
//! Run it with `cargo bench --bench ranking`. It measures every level of the machine and does not read
//! `METATL_SIMD`.

#![allow(clippy::unwrap_used)] // the inputs are made here

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metatl_core::bootstrap::bootstrap_means;
use metatl_core::metrics::{TieRule, user_metrics};
use metatl_core::parallel::Interrupt;
use metatl_core::ranking::{
    Matrix, Similarity, rank_candidates, rank_catalogue, rank_score_matrix, rank_scores, top_n,
    top_n_scores,
};
use metatl_core::simd::Level;

#[path = "world/mod.rs"]
mod world;

use world::{CANDIDATES, LISTS, NUM_ITEMS, World};

const USERS: usize = 1_008;

/// Each kind of scoring on the fastest level, and the plainest kind on every level.
fn cases() -> Vec<(String, Similarity, bool, bool, Level)> {
    let fastest = Level::fastest();
    let mut cases = vec![
        ("l2".to_owned(), Similarity::L2, false, false, fastest),
        (
            "squared_l2".to_owned(),
            Similarity::SquaredL2,
            false,
            false,
            fastest,
        ),
        ("dot+bias".to_owned(), Similarity::Dot, true, false, fastest),
        (
            "dot+overrides".to_owned(),
            Similarity::Dot,
            false,
            true,
            fastest,
        ),
    ];
    for level in Level::available() {
        cases.push((format!("dot/{level}"), Similarity::Dot, false, false, level));
    }
    cases
}

fn candidates(criterion: &mut Criterion) {
    for num_items in [NUM_ITEMS, 50 * NUM_ITEMS] {
        let world = World::new(num_items);
        let mut group = criterion.benchmark_group(format!("rank_candidates/{num_items}"));
        group.throughput(Throughput::Elements(LISTS as u64));
        for (name, similarity, bias, overrides, level) in cases() {
            let scoring = world.scoring(LISTS, similarity, bias, overrides, level);
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| {
                    let candidates = black_box(&world.candidates);
                    rank_candidates(&scoring, candidates, CANDIDATES, &Interrupt::new()).unwrap()
                });
            });
        }
    }
}

fn catalogue(criterion: &mut Criterion) {
    let world = World::new(NUM_ITEMS);
    let mut group = criterion.benchmark_group("rank_catalogue");
    group.throughput(Throughput::Elements(USERS as u64));
    for (name, similarity, bias, overrides, level) in cases() {
        let scoring = world.scoring(USERS, similarity, bias, overrides, level);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let targets = black_box(&world.targets[..USERS]);
                rank_catalogue(&scoring, targets, world.excluded(USERS), &Interrupt::new()).unwrap()
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("top_n");
    for users in [1, USERS] {
        let scoring = world.scoring(users, Similarity::Dot, false, false, Level::fastest());
        group.throughput(Throughput::Elements(users as u64));
        group.bench_function(BenchmarkId::new("10 of 20,000", users), |bencher| {
            bencher.iter(|| {
                top_n(
                    &scoring,
                    black_box(10),
                    world.excluded(users),
                    None,
                    &Interrupt::new(),
                )
                .unwrap()
            });
        });
    }
}

/// Every way of ranking, with each format of the item table.
fn item_tables(criterion: &mut Criterion) {
    for num_items in [NUM_ITEMS, 50 * NUM_ITEMS] {
        let world = World::new(num_items);
        let interrupt = &Interrupt::new();
        for (format, table) in world.item_tables() {
            let scoring = |users| {
                world.scoring_with(table, users, Similarity::L2, false, false, Level::fastest())
            };
            let mut group = criterion.benchmark_group(format!("item_tables/{num_items}/{format}"));
            group.throughput(Throughput::Elements(LISTS as u64));
            group.bench_function("rank_candidates", |bencher| {
                let scoring = scoring(LISTS);
                bencher.iter(|| {
                    let candidates = black_box(&world.candidates);
                    rank_candidates(&scoring, candidates, CANDIDATES, interrupt).unwrap()
                });
            });
            for users in if num_items == NUM_ITEMS {
                &[1, USERS][..]
            } else {
                &[1]
            } {
                let (users, scoring) = (*users, scoring(*users));
                group.throughput(Throughput::Elements(users as u64));
                group.bench_function(BenchmarkId::new("top_n", users), |bencher| {
                    let excluded = world.excluded(users);
                    bencher.iter(|| {
                        top_n(&scoring, black_box(10), excluded, None, interrupt).unwrap()
                    });
                });
                group.bench_function(BenchmarkId::new("rank_catalogue", users), |bencher| {
                    let excluded = world.excluded(users);
                    let targets = &world.targets[..users];
                    bencher.iter(|| {
                        rank_catalogue(&scoring, black_box(targets), excluded, interrupt).unwrap()
                    });
                });
            }
        }
    }
}

fn scores(criterion: &mut Criterion) {
    let world = World::new(NUM_ITEMS);
    let level = Level::fastest();
    let users = world.table.len() / NUM_ITEMS;
    let matrix = |columns: usize| {
        Matrix::new("scores", &world.table, world.table.len() / columns, columns).unwrap()
    };
    let mut group = criterion.benchmark_group("scores");
    group.throughput(Throughput::Elements(world.table.len() as u64));
    group.bench_function("rank_scores/100", |bencher| {
        bencher.iter(|| rank_scores(black_box(matrix(100)), level, &Interrupt::new()).unwrap());
    });
    group.bench_function("rank_score_matrix/20,000", |bencher| {
        bencher.iter(|| {
            let targets = black_box(&world.targets[..users]);
            let excluded = world.excluded(users);
            rank_score_matrix(
                matrix(NUM_ITEMS),
                targets,
                excluded,
                level,
                &Interrupt::new(),
            )
            .unwrap()
        });
    });
    group.bench_function("top_n_scores/10 of 20,000", |bencher| {
        bencher.iter(|| {
            let excluded = world.excluded(users);
            top_n_scores(
                matrix(NUM_ITEMS),
                black_box(10),
                excluded,
                None,
                level,
                &Interrupt::new(),
            )
            .unwrap()
        });
    });
}

fn metrics(criterion: &mut Criterion) {
    let world = World::new(NUM_ITEMS);
    let greater: Vec<i64> = world.targets.iter().map(|item| item % 100).collect();
    let equal: Vec<i64> = world.targets.iter().map(|item| item % 3).collect();
    let mut group = criterion.benchmark_group("metrics");
    group.throughput(Throughput::Elements(LISTS as u64));
    for (name, ties) in [("worst", TieRule::Worst), ("mean", TieRule::Mean)] {
        group.bench_function(BenchmarkId::new("user_metrics", name), |bencher| {
            bencher.iter(|| {
                user_metrics(
                    black_box(&greater),
                    &equal,
                    ties,
                    &[1, 5, 10],
                    &Interrupt::new(),
                )
                .unwrap()
            });
        });
    }
    let values = user_metrics(
        &greater,
        &equal,
        TieRule::Worst,
        &[1, 5, 10],
        &Interrupt::new(),
    )
    .unwrap();
    group.bench_function("bootstrap_means/100", |bencher| {
        bencher
            .iter(|| bootstrap_means(black_box(&values), 10, 100, 0, &Interrupt::new()).unwrap());
    });
}

fn configuration() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
}

criterion_group! {
    name = benches;
    config = configuration();
    targets = candidates, catalogue, item_tables, scores, metrics
}
criterion_main!(benches);
