//! Runs one kernel a number of times, for instruments that watch a whole process.
//!
//! `kernels limits` measures the limits of this machine. `kernels list` prints the kernels and their units of
//! work. `kernels NAME TIMES` runs a kernel on this thread. The difference between runs with `TIMES` = 0 and 1
//! is the kernel alone; `benches/instructions.py` counts it under callgrind.

#![allow(clippy::unwrap_used)] // the inputs are made here

use std::hint::black_box;
use std::sync::Arc;

use metatl_core::batches::BatchSampler;
use metatl_core::bootstrap::{bootstrap_group_means, bootstrap_means};
use metatl_core::candidates::{CandidateSettings, sample_candidates};
use metatl_core::episodes::{EpisodeSampler, EpisodeSettings};
use metatl_core::grouping::group_by_user;
use metatl_core::interactions::Interactions;
use metatl_core::item_walks::{SparseMatrix, Walks, score_walks};
use metatl_core::metrics::{TieRule, user_metrics};
use metatl_core::negatives::sample_support_negatives;
use metatl_core::parallel::Interrupt;
use metatl_core::randomisation::sign_flip_counts;
use metatl_core::ranking::{
    ItemLists, ItemTable, Matrix, PanelTable, Scoring, Similarity, rank_candidates, rank_catalogue,
    rank_scores, round_to_bf16, round_to_int8, top_n,
};
use metatl_core::rng::{Rng, Stage};
use metatl_core::sequences::{Draw, SequenceSampler, SequenceSettings};
use metatl_core::simd::Level;
use metatl_core::transitions::{Encoder, InnerLoop, Learner, PairLoss, Terms};

#[path = "../benches/limits/mod.rs"]
mod limits;
#[path = "../benches/world/mod.rs"]
mod world;

use world::{CANDIDATES, DIMENSION, LISTS, NUM_ITEMS, World};

const ROWS: usize = 512;
const CATALOGUE_USERS: usize = 48;
const TASKS: usize = 4_096;
const ROW_LENGTH: usize = 15;

static NONE: Interrupt = Interrupt::new();

/// A kernel with inputs of its own.
struct Kernel<'a> {
    name: String,
    /// Units of work in a run.
    units: usize,
    run: Box<dyn Fn() + 'a>,
}

impl<'a> Kernel<'a> {
    fn new(name: impl Into<String>, units: usize, run: impl Fn() + 'a) -> Self {
        Self {
            name: name.into(),
            units,
            run: Box::new(run),
        }
    }
}

fn interactions() -> Interactions {
    let mut rng = Rng::new(1, Stage::Split, 0, 0);
    let indptr: Vec<i64> = (0..=LISTS).map(|user| (user * ROW_LENGTH) as i64).collect();
    let items: Vec<i64> = (0..LISTS * ROW_LENGTH)
        .map(|_| rng.below(NUM_ITEMS as u64) as i64)
        .collect();
    Interactions::new(&indptr, &items, NUM_ITEMS as u64, &Interrupt::new()).unwrap()
}

/// Interactions in random order, as a file may have them.
fn grouping<'a>() -> Vec<Kernel<'a>> {
    let mut rng = Rng::new(2, Stage::Split, 0, 0);
    let rows = LISTS * ROW_LENGTH;
    let mut below =
        |count: usize| -> Vec<i64> { (0..rows).map(|_| rng.below(count as u64) as i64).collect() };
    let (users, items, times) = (below(LISTS), below(NUM_ITEMS), below(1 << 30));
    vec![Kernel::new("group_by_user", rows, move || {
        black_box(group_by_user(&users, &items, &times, LISTS, false, &NONE).unwrap());
    })]
}

fn training_batches<'a>(interactions: &Arc<Interactions>) -> Vec<Kernel<'a>> {
    let episodes = EpisodeSampler::new(
        Arc::clone(interactions),
        EpisodeSettings {
            k: 3,
            negatives: 1,
            shared_negatives: 0,
            window_share: 0.5,
            released_windows: false,
            shuffle_share: 0.5,
            seed: 0,
        },
    )
    .unwrap();
    let sequences = SequenceSampler::new(
        Arc::clone(interactions),
        SequenceSettings {
            length: 20,
            shortest: 2,
            draw: Draw::User,
            negatives: 1,
            shared_negatives: 100,
            shuffle_share: 0.0,
            seed: 0,
        },
        None,
    )
    .unwrap();
    vec![
        Kernel::new("sample_episodes", TASKS, move || {
            black_box(episodes.sample(0, TASKS, &NONE).unwrap());
        }),
        Kernel::new("sample_sequences", ROWS, move || {
            black_box(sequences.sample(0, ROWS, &NONE).unwrap());
        }),
    ]
}

fn negatives<'a>(world: &'a World, interactions: &'a Interactions) -> Vec<Kernel<'a>> {
    let users: Vec<i64> = (0..LISTS as i64).collect();
    let weights: Vec<f64> = (0..NUM_ITEMS)
        .map(|item| 1.0 / (item + 10) as f64)
        .collect();
    let candidates = [("uniform", None), ("popularity", Some(weights))].map(|(kind, weights)| {
        let users = users.clone();
        Kernel::new(format!("sample_candidates/{kind}"), LISTS, move || {
            let settings = CandidateSettings {
                count: CANDIDATES - 1,
                seed: 0,
                epoch: 0,
                weights: weights.as_deref(),
                exclude_target: true,
            };
            let targets = &world.targets;
            black_box(sample_candidates(interactions, &users, targets, settings, &NONE).unwrap());
        })
    });
    let mut kernels = Vec::from(candidates);
    kernels.push(Kernel::new("sample_support_negatives", LISTS, move || {
        let histories = &world.candidates[..LISTS * 3];
        let items = NUM_ITEMS as u64;
        black_box(sample_support_negatives(histories, 3, 32, items, 0, &NONE).unwrap());
    }));
    kernels
}

/// Every kernel of ranking on one level of instructions.
fn ranking(world: &World, level: Level) -> Vec<Kernel<'_>> {
    let mut kernels = Vec::new();
    for (name, similarity) in [("dot", Similarity::Dot), ("l2", Similarity::L2)] {
        let scoring = move |users| world.scoring(users, similarity, true, false, level);
        let name = |kernel| format!("{kernel}/{name}/{level}");
        kernels.push(Kernel::new(name("rank_candidates"), ROWS, move || {
            let candidates = &world.candidates[..ROWS * CANDIDATES];
            black_box(rank_candidates(&scoring(ROWS), candidates, CANDIDATES, &NONE).unwrap());
        }));
        let users = CATALOGUE_USERS;
        kernels.push(Kernel::new(name("rank_catalogue"), users, move || {
            let (targets, excluded) = (&world.targets[..users], world.excluded(users));
            black_box(rank_catalogue(&scoring(users), targets, excluded, &NONE).unwrap());
        }));
    }
    let users = CATALOGUE_USERS;
    kernels.push(Kernel::new(format!("top_n/{level}"), users, move || {
        let scoring = world.scoring(users, Similarity::Dot, false, false, level);
        black_box(top_n(&scoring, 10, world.excluded(users), None, &NONE).unwrap());
    }));
    kernels.extend(item_tables(world, level));
    kernels.push(Kernel::new(
        format!("rank_scores/{level}"),
        NUM_ITEMS,
        move || {
            let scores = Matrix::new("scores", &world.table, NUM_ITEMS, DIMENSION).unwrap();
            black_box(rank_scores(scores, level, &NONE).unwrap());
        },
    ));
    kernels
}

/// Candidates, and the best items for one user, with each format of the item table.
fn item_tables(world: &World, level: Level) -> Vec<Kernel<'_>> {
    let mut kernels = Vec::new();
    for (format, table) in world.item_tables() {
        let scoring =
            move |users| world.scoring_with(table, users, Similarity::Dot, false, false, level);
        if format != "float32" {
            let name = format!("rank_candidates/{format}/{level}");
            kernels.push(Kernel::new(name, ROWS, move || {
                let candidates = &world.candidates[..ROWS * CANDIDATES];
                black_box(rank_candidates(&scoring(ROWS), candidates, CANDIDATES, &NONE).unwrap());
            }));
        }
        kernels.push(Kernel::new(
            format!("top_n/1/{format}/{level}"),
            1,
            move || {
                black_box(top_n(&scoring(1), 10, world.excluded(1), None, &NONE).unwrap());
            },
        ));
    }
    kernels
}

const SMALL_CATALOGUE: usize = 800;
const HISTORY: usize = 3;
const NEGATIVES: usize = 32;
const NEIGHBOURS: usize = 20;

/// Histories of [`ROWS`] users with items of a small catalogue: offsets and items.
fn histories(world: &World) -> (Vec<i64>, Vec<i64>) {
    let offsets = (0..=ROWS).map(|user| (user * HISTORY) as i64).collect();
    let items = world.candidates[..ROWS * HISTORY].iter();
    (
        offsets,
        items.map(|item| item % SMALL_CATALOGUE as i64).collect(),
    )
}

fn lists<'a>(offsets: &'a [i64], items: &'a [i64]) -> ItemLists<'a> {
    ItemLists::new(["indptr", "items"], offsets, items, ROWS, SMALL_CATALOGUE).unwrap()
}

/// The encoder, and lists of a small catalogue.
fn serving(world: &World, level: Level) -> Vec<Kernel<'_>> {
    let square = &world.table[..DIMENSION * DIMENSION];
    let weight = Matrix::new("weight", square, DIMENSION, DIMENSION).unwrap();
    let vector = &world.bias[..DIMENSION];
    let numbers = &world.table[..SMALL_CATALOGUE * DIMENSION];
    let table = Matrix::new("table", numbers, SMALL_CATALOGUE, DIMENSION).unwrap();
    let terms = Some(Terms {
        heads: table,
        tails: table,
    });
    let learner = Learner {
        head_weight: weight,
        tail_weight: weight,
        bias: vector,
        skip: Some([vector; 2]),
    };
    let inner = InnerLoop {
        steps: 1,
        rates: vector,
        inverse_temperature: 0.1,
        mean: true,
        loss: PairLoss::Softmax,
        common: NEGATIVES,
        own: 0,
        own_drawn: 0,
    };
    let similarity = Similarity::SquaredL2;
    let encoder = Encoder::new(
        table, None, similarity, learner, terms, inner, vector, level,
    )
    .unwrap();
    let (offsets, items) = histories(world);
    let panels = PanelTable::new(table.into(), level, &NONE).unwrap();
    let (of_lists, excluded) = (offsets.clone(), items.clone());
    let queries = &world.table[..ROWS * DIMENSION];
    let queries = Matrix::new("queries", queries, ROWS, DIMENSION).unwrap();
    vec![
        Kernel::new(format!("encode_transitions/{level}"), ROWS, move || {
            black_box(encoder.encode(lists(&offsets, &items), 0, &NONE).unwrap());
        }),
        Kernel::new(
            format!("top_n/{SMALL_CATALOGUE}/{level}"),
            ROWS,
            move || {
                let table = ItemTable::Panels(&panels);
                let scoring = Scoring::new(queries, table, None, similarity, None, level).unwrap();
                black_box(top_n(&scoring, 10, lists(&of_lists, &excluded), None, &NONE).unwrap());
            },
        ),
    ]
}

fn walks(world: &World) -> Kernel<'_> {
    let entries = SMALL_CATALOGUE * NEIGHBOURS;
    let indptr = (0..=SMALL_CATALOGUE)
        .map(|item| (item * NEIGHBOURS) as i64)
        .collect();
    let columns = world.candidates[..entries].iter();
    let indices = columns.map(|item| item % SMALL_CATALOGUE as i64).collect();
    let matrix = SparseMatrix::new(indptr, indices, vec![0.5; entries], SMALL_CATALOGUE).unwrap();
    let (offsets, items) = histories(world);
    Kernel::new("score_walks", ROWS, move || {
        let (walks, prior) = (Walks::Sparse(&matrix, 1.0), [0.0; SMALL_CATALOGUE]);
        black_box(score_walks(walks, lists(&offsets, &items), 0.9, &prior, &NONE).unwrap());
    })
}

/// Resamples of 100 groups of `users` each.
fn group_bootstrap<'a>(
    name: &str,
    resamples: usize,
    groups: &[f64],
    columns: usize,
    users: i64,
) -> Kernel<'a> {
    let groups = groups.to_vec();
    Kernel::new(name, resamples, move || {
        let counts = [users; 100];
        let means = bootstrap_group_means(&groups, &counts, columns, resamples, 0, &NONE);
        black_box(means.unwrap());
    })
}

fn rounding(world: &World) -> Vec<Kernel<'_>> {
    let table = Matrix::new("table", &world.table, NUM_ITEMS, DIMENSION).unwrap();
    vec![
        Kernel::new("round_to_bf16", NUM_ITEMS, move || {
            black_box(round_to_bf16(table, &NONE).unwrap());
        }),
        Kernel::new("round_to_int8", NUM_ITEMS, move || {
            black_box(round_to_int8(table, &NONE).unwrap());
        }),
    ]
}

fn statistics(world: &World) -> Vec<Kernel<'_>> {
    let greater: Vec<i64> = world.targets.iter().map(|item| item % 100).collect();
    let equal = vec![0; greater.len()];
    let metrics =
        move || user_metrics(&greater, &equal, TieRule::Worst, &[1, 5, 10], &NONE).unwrap();
    let values = metrics();
    let columns = values.len() / LISTS;
    let (groups, differences) = (values[..100 * columns].to_vec(), values.clone());
    vec![
        Kernel::new("user_metrics", LISTS, move || {
            black_box(metrics());
        }),
        Kernel::new("bootstrap_means", 10, move || {
            black_box(bootstrap_means(&values, columns, 10, 0, &NONE).unwrap());
        }),
        group_bootstrap("bootstrap_group_means", 10, &groups, columns, 40),
        group_bootstrap(
            "bootstrap_group_means/10,000,000",
            1,
            &groups,
            columns,
            100_000,
        ),
        Kernel::new("sign_flip_counts", 64, move || {
            black_box(sign_flip_counts(&differences, columns, 64, 0, &NONE).unwrap());
        }),
    ]
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let world = World::new(NUM_ITEMS);
    let interactions = Arc::new(interactions());
    let mut kernels = grouping();
    kernels.extend(training_batches(&interactions));
    kernels.extend(negatives(&world, &interactions));
    kernels.extend(
        Level::available()
            .into_iter()
            .flat_map(|level| ranking(&world, level)),
    );
    kernels.extend(
        Level::available()
            .into_iter()
            .flat_map(|level| serving(&world, level)),
    );
    kernels.push(walks(&world));
    kernels.extend(rounding(&world));
    kernels.extend(statistics(&world));
    match arguments.as_slice() {
        [limits] if limits == "limits" => {
            limits::print(&world);
            Ok(())
        }
        [list] if list == "list" => {
            for Kernel { name, units, .. } in kernels {
                println!("{name} {units}");
            }
            Ok(())
        }
        [wanted, times] => {
            let times: u32 = times
                .parse()
                .map_err(|_| format!("found {times:?}, expected a number"))?;
            let kernel = kernels
                .iter()
                .find(|kernel| kernel.name == *wanted)
                .ok_or_else(|| {
                    format!("found {wanted:?}, expected one that `kernels list` names")
                })?;
            for _ in 0..times {
                (kernel.run)();
            }
            Ok(())
        }
        _ => Err("expected `limits`, `list`, or the name of a kernel and a number".to_owned()),
    }
}
