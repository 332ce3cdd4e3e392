//! Ranking on one thread, at the sizes of the paper's data: d = 100, 20,000 items, 100 negatives.
//!
//! `cargo bench --bench ranking`; `METATL_SIMD` is not read here, every level of the machine is measured.

#![allow(clippy::unwrap_used)] // the inputs are made here

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metatl_core::bootstrap::bootstrap_means;
use metatl_core::metrics::{TieRule, user_metrics};
use metatl_core::parallel::Interrupt;
use metatl_core::ranking::{
    ItemLists, Matrix, Overrides, Scoring, Similarity, rank_candidates, rank_catalogue,
    rank_score_matrix, rank_scores, top_n, top_n_scores,
};
use metatl_core::rng::{Rng, Stage};
use metatl_core::simd::Level;

const DIMENSION: usize = 100;
const NUM_ITEMS: usize = 20_000;
const CANDIDATES: usize = 101;
const LISTS: usize = 4_096;
const USERS: usize = 1_008;
const EXCLUDED: usize = 3;
const OVERRIDDEN: usize = 8;

/// Random inputs.
struct World {
    table: Vec<f32>,
    bias: Vec<f32>,
    queries: Vec<f32>,
    candidates: Vec<i64>,
    targets: Vec<i64>,
    excluded: (Vec<i64>, Vec<i64>),
    overrides: (Vec<i64>, Vec<i64>, Vec<f32>),
}

impl World {
    fn new(num_items: usize) -> Self {
        let mut rng = Rng::new(0, Stage::Split, 0, 0);
        let mut numbers = |count| {
            (0..count)
                .map(|_| rng.uniform_f64() as f32 - 0.5)
                .collect::<Vec<f32>>()
        };
        let (table, bias) = (numbers(num_items * DIMENSION), numbers(num_items));
        let queries = numbers(LISTS * DIMENSION);
        let rows = numbers(LISTS * OVERRIDDEN * DIMENSION);
        let mut items = |count| {
            (0..count)
                .map(|_| rng.below(num_items as u64) as i64)
                .collect::<Vec<i64>>()
        };
        let offsets = |each: usize| (0..=LISTS).map(|list| (list * each) as i64).collect();
        // Consecutive items are distinct.
        let moved = (0..LISTS * OVERRIDDEN).map(|item| (item % num_items) as i64);
        Self {
            table,
            bias,
            queries,
            candidates: items(LISTS * CANDIDATES),
            targets: items(LISTS),
            excluded: (offsets(EXCLUDED), items(LISTS * EXCLUDED)),
            overrides: (offsets(OVERRIDDEN), moved.collect(), rows),
        }
    }

    fn scoring(
        &self,
        users: usize,
        similarity: Similarity,
        with_bias: bool,
        with_overrides: bool,
        level: Level,
    ) -> Scoring<'_> {
        let matrix = |name, values, rows| Matrix::new(name, values, rows, DIMENSION).unwrap();
        let overrides = with_overrides.then(|| {
            let (offsets, items, rows) = &self.overrides;
            let items = &items[..users * OVERRIDDEN];
            let rows = matrix("rows", &rows[..items.len() * DIMENSION], items.len());
            Overrides::new(&offsets[..=users], items, rows, users, self.bias.len()).unwrap()
        });
        Scoring::new(
            matrix("queries", &self.queries[..users * DIMENSION], users),
            matrix("item_table", &self.table, self.bias.len()),
            with_bias.then_some(&self.bias[..]),
            similarity,
            overrides,
            level,
        )
        .unwrap()
    }

    fn excluded(&self, users: usize) -> ItemLists<'_> {
        let (offsets, items) = &self.excluded;
        let items = &items[..users * EXCLUDED];
        ItemLists::new(
            ["offsets", "items"],
            &offsets[..=users],
            items,
            users,
            self.bias.len(),
        )
        .unwrap()
    }
}

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
                    &Interrupt::new(),
                )
                .unwrap()
            });
        });
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
    targets = candidates, catalogue, scores, metrics
}
criterion_main!(benches);
