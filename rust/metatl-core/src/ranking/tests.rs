use proptest::prelude::*;

use super::*;
use crate::Error;
use crate::parallel::{self, Interrupt};
use crate::rng::{Rng, Stage};
use crate::simd::Level;

const SIMILARITIES: [Similarity; 3] = [Similarity::Dot, Similarity::L2, Similarity::SquaredL2];
const NAMES: [&str; 2] = ["excluded_indptr", "excluded_items"];

/// Inputs of small integers, whose scores are exact in `f32` and often tie.
#[derive(Debug)]
struct World {
    dimension: usize,
    num_items: usize,
    queries: Vec<f32>,
    table: Vec<f32>,
    bias: Option<Vec<f32>>,
    overrides: Option<Lists>,
    override_rows: Vec<f32>,
    excluded: Lists,
    targets: Vec<i64>,
    candidates: Vec<i64>,
    width: usize,
}

/// Kinds of rows whose scores are not exact.
#[derive(Clone, Copy, Debug)]
enum Roughness {
    /// Nearly the same: scores that rounding can make equal.
    Alike,
    Noise,
    /// Of very different sizes: squares of some numbers overflow, squares of others are 0.
    Sizes,
}

#[derive(Debug, Default)]
struct Lists {
    offsets: Vec<i64>,
    items: Vec<i64>,
}

impl Lists {
    fn of(&self, query: usize) -> &[i64] {
        &self.items[self.offsets[query] as usize..self.offsets[query + 1] as usize]
    }
}

#[derive(Clone, Debug)]
struct Shape {
    seed: u64,
    dimension: usize,
    num_items: usize,
    queries: usize,
    width: usize,
    with_bias: bool,
    with_overrides: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        any::<u64>(),
        0usize..9,
        1usize..70,
        0usize..26,
        1usize..14,
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(seed, dimension, num_items, queries, width, [with_bias, with_overrides])| Shape {
                seed,
                dimension,
                num_items,
                queries,
                width,
                with_bias,
                with_overrides,
            },
        )
}

impl World {
    fn new(shape: &Shape) -> Self {
        let Shape {
            dimension,
            num_items,
            queries,
            width,
            ..
        } = *shape;
        let mut rng = Rng::new(shape.seed, Stage::Split, 0, 0);
        let mut small = |count| {
            (0..count)
                .map(|_| rng.below(5) as f32 - 2.0)
                .collect::<Vec<f32>>()
        };
        let (query_values, table) = (small(queries * dimension), small(num_items * dimension));
        let bias = shape.with_bias.then(|| small(num_items));
        let override_rows = small(queries * num_items.min(6) * dimension);
        let mut lists = |longest: u64, distinct: bool| {
            let mut lists = Lists {
                offsets: vec![0],
                items: vec![],
            };
            for _ in 0..queries {
                let length = rng.below(longest + 1) as usize;
                let mut list: Vec<i64> = (0..length)
                    .map(|_| rng.below(num_items as u64) as i64)
                    .collect();
                if distinct {
                    list.sort_unstable();
                    list.dedup();
                    rng.shuffle(&mut list);
                }
                lists.items.extend(list);
                lists.offsets.push(lists.items.len() as i64);
            }
            lists
        };
        let overrides = shape
            .with_overrides
            .then(|| lists(num_items.min(6) as u64, true));
        let excluded = lists(7, false);
        let mut items = |count| {
            (0..count)
                .map(|_| rng.below(num_items as u64) as i64)
                .collect()
        };
        Self {
            dimension,
            num_items,
            queries: query_values,
            table,
            bias,
            overrides,
            override_rows,
            excluded,
            targets: items(queries),
            candidates: items(queries * width),
            width,
        }
    }

    fn num_queries(&self) -> usize {
        self.targets.len()
    }

    fn scoring(&self, similarity: Similarity, level: Level) -> Scoring<'_> {
        self.scoring_of(self.matrix().into(), similarity, level)
    }

    /// The item table.
    fn matrix(&self) -> Matrix<'_> {
        Matrix::new("item_table", &self.table, self.num_items, self.dimension).unwrap()
    }

    /// Scoring with another item table.
    fn scoring_of<'a>(
        &'a self,
        item_table: ItemTable<'a>,
        similarity: Similarity,
        level: Level,
    ) -> Scoring<'a> {
        let matrix = |values, rows| Matrix::new("matrix", values, rows, self.dimension).unwrap();
        let overrides = self.overrides.as_ref().map(|lists| {
            let rows = &self.override_rows[..lists.items.len() * self.dimension];
            Overrides::new(
                &lists.offsets,
                &lists.items,
                matrix(rows, lists.items.len()),
                self.num_queries(),
                self.num_items,
            )
            .unwrap()
        });
        Scoring::new(
            matrix(&self.queries, self.num_queries()),
            item_table,
            self.bias.as_deref(),
            similarity,
            overrides,
            level,
        )
        .unwrap()
    }

    /// Replaces the small integers by numbers that scores are not exact for.
    fn roughen(&mut self, seed: u64, roughness: Roughness) {
        let mut rng = Rng::new(seed, Stage::Split, 1, 0);
        let dimension = self.dimension.max(1);
        let base: Vec<f32> = (0..dimension)
            .map(|_| rng.uniform_f64() as f32 - 0.5)
            .collect();
        let values = [
            &mut self.queries,
            &mut self.table,
            &mut self.override_rows,
            self.bias.get_or_insert_default(),
        ];
        for values in values {
            for row in values.chunks_mut(dimension) {
                let size = match roughness {
                    Roughness::Alike => 1e-6,
                    Roughness::Noise => 1.0,
                    Roughness::Sizes => 10f32.powi(rng.below(61) as i32 - 40),
                };
                for (value, &base) in row.iter_mut().zip(&base) {
                    let noise = (rng.uniform_f64() as f32 - 0.5) * size;
                    *value = match roughness {
                        Roughness::Alike => base + noise,
                        _ => noise,
                    };
                }
            }
        }
        if self.bias.as_ref().is_some_and(Vec::is_empty) {
            self.bias = None;
        }
    }

    fn excluded(&self) -> ItemLists<'_> {
        let Lists { offsets, items } = &self.excluded;
        ItemLists::new(NAMES, offsets, items, self.num_queries(), self.num_items).unwrap()
    }

    /// The score by its definition, in double precision; a root and the sum with the bias are rounded to `f32`.
    fn score(&self, similarity: Similarity, query: usize, item: i64) -> f32 {
        let row = |values: &[f32], row: usize| {
            values[row * self.dimension..][..self.dimension]
                .iter()
                .map(|&value| f64::from(value))
                .collect::<Vec<_>>()
        };
        let mut item_row = row(&self.table, item as usize);
        if let Some(lists) = &self.overrides {
            for (position, &other) in lists.of(query).iter().enumerate() {
                if other == item {
                    item_row = row(
                        &self.override_rows,
                        lists.offsets[query] as usize + position,
                    );
                }
            }
        }
        let query_row = row(&self.queries, query);
        let pairs = query_row.iter().zip(&item_row);
        let score = match similarity {
            Similarity::Dot => pairs.map(|(q, e)| q * e).sum::<f64>(),
            Similarity::L2 => -pairs.map(|(q, e)| (q - e).powi(2)).sum::<f64>().sqrt(),
            Similarity::SquaredL2 => -pairs.map(|(q, e)| (q - e).powi(2)).sum::<f64>(),
        };
        score as f32 + self.bias.as_ref().map_or(0.0, |bias| bias[item as usize])
    }

    fn scores(&self, similarity: Similarity, query: usize) -> Vec<f32> {
        (0..self.num_items as i64)
            .map(|item| self.score(similarity, query, item))
            .collect()
    }

    /// All scores of all queries, as a matrix.
    fn score_matrix(&self, similarity: Similarity) -> Vec<f32> {
        (0..self.num_queries())
            .flat_map(|query| self.scores(similarity, query))
            .collect()
    }

    fn expected_in_catalogue(&self, similarity: Similarity) -> Comparisons {
        compare((0..self.num_queries()).map(|query| {
            let scores = self.scores(similarity, query);
            let target = self.targets[query];
            let negatives = (0..self.num_items as i64)
                .filter(|item| *item != target && !self.excluded.of(query).contains(item))
                .map(|item| scores[item as usize]);
            (scores[target as usize], negatives.collect())
        }))
    }

    fn expected_top_n(&self, similarity: Similarity, n: usize) -> TopN {
        let mut top = TopN::default();
        for query in 0..self.num_queries() {
            let scores = self.scores(similarity, query);
            let mut items: Vec<i64> = (0..self.num_items as i64)
                .filter(|item| !self.excluded.of(query).contains(item))
                .collect();
            // A stable sort: equal scores stay in the order of their items.
            items.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
            for rank in 0..n {
                let item = items.get(rank).copied().unwrap_or(-1);
                top.items.push(item);
                let score = usize::try_from(item).map_or(f32::NEG_INFINITY, |item| scores[item]);
                top.scores.push(score);
            }
        }
        top
    }
}

fn compare(users: impl Iterator<Item = (f32, Vec<f32>)>) -> Comparisons {
    let mut expected = Comparisons::default();
    for (target, negatives) in users {
        let count = |holds: &dyn Fn(f32) -> bool| {
            negatives.iter().filter(|&&score| holds(score)).count() as i64
        };
        expected.greater.push(count(&|score| score > target));
        expected.equal.push(count(&|score| score == target));
    }
    expected
}

/// An item table in fewer bits.
#[derive(Clone, Debug)]
enum Narrow {
    Bf16(Vec<u16>),
    Int8(Vec<i8>, Vec<f32>),
}

/// Where the numbers of such a table come from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    RoundedToBf16,
    RoundedToInt8,
    /// Any bits, those of NaN and infinities among them.
    AnyBf16,
    /// Any whole numbers, with scales of all sizes and both signs.
    AnyInt8,
}

const ORIGINS: [Origin; 4] = [
    Origin::RoundedToBf16,
    Origin::RoundedToInt8,
    Origin::AnyBf16,
    Origin::AnyInt8,
];

impl Narrow {
    fn new(world: &World, origin: Origin, seed: u64, interrupt: &Interrupt) -> Result<Self, Error> {
        let mut rng = Rng::new(seed, Stage::Split, 2, 0);
        let mut bits = |count: usize| (0..count).map(|_| rng.below(1 << 16) as u16).collect();
        Ok(match origin {
            Origin::RoundedToBf16 => Self::Bf16(round_to_bf16(world.matrix(), interrupt)?),
            Origin::RoundedToInt8 => {
                let (codes, scales) = round_to_int8(world.matrix(), interrupt)?;
                Self::Int8(codes, scales)
            }
            Origin::AnyBf16 => Self::Bf16(bits(world.table.len())),
            Origin::AnyInt8 => {
                let codes: Vec<u16> = bits(world.table.len());
                let scales: Vec<u16> = bits(world.num_items);
                let finite = |bits: u16| f32::from_bits(u32::from(bits & 0xBF7F) << 16);
                Self::Int8(
                    codes.into_iter().map(|bits| bits as i8).collect(),
                    scales.into_iter().map(finite).collect(),
                )
            }
        })
    }

    fn table(&self, rows: usize, columns: usize) -> ItemTable<'_> {
        match self {
            Self::Bf16(bits) => {
                ItemTable::Bf16(Matrix::new("item_table", bits, rows, columns).unwrap())
            }
            Self::Int8(codes, scales) => ItemTable::Int8 {
                codes: Matrix::new("item_table", codes, rows, columns).unwrap(),
                scales,
            },
        }
    }

    fn written_out(&self, columns: usize) -> Vec<f32> {
        match self {
            Self::Bf16(bits) => {
                let number = |&bits: &u16| f32::from_bits(u32::from(bits) << 16);
                bits.iter().map(number).collect()
            }
            Self::Int8(codes, scales) => {
                let rows = codes.chunks(columns.max(1)).zip(scales);
                rows.flat_map(|(row, scale)| row.iter().map(move |&code| f32::from(code) * scale))
                    .collect()
            }
        }
    }
}

/// Counts among candidates and in the catalogue; the best items, with the bits of their scores.
type Rankings = (
    Result<Comparisons, Error>,
    Result<Comparisons, Error>,
    Result<(Vec<i64>, Vec<u32>), Error>,
);

/// Every way of ranking.
fn rank_all(scoring: &Scoring, world: &World, n: usize, interrupt: &Interrupt) -> Rankings {
    let best = top_n(scoring, n, world.excluded(), None, interrupt);
    (
        rank_candidates(scoring, &world.candidates, world.width, interrupt),
        rank_catalogue(scoring, &world.targets, world.excluded(), interrupt),
        best.map(|best| {
            let bits = best.scores.iter().map(|score| score.to_bits()).collect();
            (best.items, bits)
        }),
    )
}

fn on_threads<R: Send>(
    threads: usize,
    kernel: impl FnOnce(&Interrupt) -> Result<R, Error> + Send,
) -> Result<R, Error> {
    parallel::run(threads, u64::MAX, kernel, || true)
}

properties! {
    fn candidates_agree_with_the_definition(shape in shapes()) {
        let world = World::new(&shape);
        for similarity in SIMILARITIES {
            let lists = world.candidates.chunks(world.width).enumerate();
            let expected = compare(lists.map(|(query, candidates)| {
                let mut scores = candidates.iter().map(|&item| world.score(similarity, query, item));
                (scores.next().unwrap(), scores.collect())
            }));
            for level in Level::available() {
                let scoring = world.scoring(similarity, level);
                let found =
                    rank_candidates(&scoring, &world.candidates, world.width, &Interrupt::new());
                prop_assert_eq!(found.as_ref(), Ok(&expected));
            }
        }
    }

    fn catalogue_agrees_with_the_definition(shape in shapes()) {
        let world = World::new(&shape);
        for similarity in SIMILARITIES {
            let expected = world.expected_in_catalogue(similarity);
            for level in Level::available() {
                let scoring = world.scoring(similarity, level);
                let found =
                    rank_catalogue(&scoring, &world.targets, world.excluded(), &Interrupt::new());
                prop_assert_eq!(found.as_ref(), Ok(&expected));
            }
        }
    }

    fn top_n_agrees_with_the_definition(shape in shapes(), n in 0usize..90) {
        let world = World::new(&shape);
        for similarity in SIMILARITIES {
            let expected = world.expected_top_n(similarity, n);
            for level in Level::available() {
                let scoring = world.scoring(similarity, level);
                let found = top_n(&scoring, n, world.excluded(), None, &Interrupt::new());
                prop_assert_eq!(found.as_ref(), Ok(&expected));
            }
        }
    }

    fn arranged_tables_rank_with_the_same_bits(
        shape in shapes(),
        dimension in 0usize..70,
        // The scores of few items are kept, those of many are not.
        num_items in prop_oneof![20 => 1usize..150, 1 => 2_600usize..2_900],
        n in 0usize..90,
        origin in prop::sample::select(&ORIGINS),
        narrow in any::<bool>(),
    ) {
        let mut world = World::new(&Shape { dimension, num_items, ..shape });
        world.roughen(shape.seed, Roughness::Sizes);
        let interrupt = &Interrupt::new();
        let rounded = Narrow::new(&world, origin, shape.seed, interrupt).unwrap();
        let table = if narrow { rounded.table(num_items, dimension) } else { world.matrix().into() };
        for level in Level::available() {
            let arranged = PanelTable::new(table, level, interrupt).unwrap();
            let on_threads = parallel::run(
                3,
                u64::MAX,
                |interrupt: &Interrupt| PanelTable::new(table, level, interrupt),
                || true,
            );
            prop_assert_eq!(format!("{:?}", on_threads.unwrap()), format!("{arranged:?}"));
            for similarity in SIMILARITIES {
                let [plain, panels] = [table, ItemTable::Panels(&arranged)]
                    .map(|table| world.scoring_of(table, similarity, level));
                let excluded = world.excluded();
                prop_assert_eq!(
                    rank_catalogue(&plain, &world.targets, excluded, interrupt),
                    rank_catalogue(&panels, &world.targets, excluded, interrupt)
                );
                prop_assert_eq!(
                    top_n(&plain, n, excluded, None, interrupt),
                    top_n(&panels, n, excluded, None, interrupt)
                );
                let allowed: Vec<bool> = (0..num_items).map(|item| item % 37 < 3).collect();
                prop_assert_eq!(
                    top_n(&plain, n, excluded, Some(&allowed), interrupt),
                    top_n(&panels, n, excluded, Some(&allowed), interrupt)
                );
                let none = vec![0; world.num_queries() + 1];
                let nothing =
                    ItemLists::new(NAMES, &none, &[], world.num_queries(), num_items).unwrap();
                prop_assert_eq!(
                    top_n_of(&plain, n, excluded, nothing, interrupt),
                    top_n_of(&panels, n, excluded, nothing, interrupt)
                );
                prop_assert_eq!(
                    rank_candidates(&plain, &world.candidates, world.width, interrupt),
                    rank_candidates(&panels, &world.candidates, world.width, interrupt)
                );
            }
        }
    }

    fn filters_leave_out_as_lists_of_excluded_items_do(
        shape in shapes(),
        n in 0usize..20,
        share in 0u64..5,
        rough in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(&shape);
        if rough {
            world.roughen(seed, Roughness::Sizes);
        }
        let mut rng = Rng::new(seed, Stage::Split, 2, 0);
        let allowed: Vec<bool> = (0..world.num_items).map(|_| rng.below(4) < share).collect();
        // The items of a filtered panel may be NaN for everybody.
        let filtered: Vec<usize> = (0..world.num_items).filter(|&item| !allowed[item]).collect();
        let written_out = |of_query: &dyn Fn(usize) -> Vec<i64>| {
            let mut lists = Lists { offsets: vec![0], items: vec![] };
            for query in 0..world.num_queries() {
                lists.items.extend(of_query(query));
                lists.offsets.push(lists.items.len() as i64);
            }
            lists
        };
        let left_out = written_out(&|query| {
            let filtered = filtered.iter().map(|&item| item as i64);
            world.excluded.of(query).iter().copied().chain(filtered).collect()
        });
        let listed = written_out(&|_| {
            let items = (0..world.num_items).filter(|&item| allowed[item]);
            // In another order, and twice.
            items.clone().rev().chain(items).map(|item| item as i64).collect()
        });
        let interrupt = &Interrupt::new();
        for similarity in SIMILARITIES {
            for level in Level::available() {
                let scoring = world.scoring(similarity, level);
                let expected = top_n(&scoring, n, lists_of(&left_out, &world), None, interrupt);
                let excluded = world.excluded();
                for threads in [1, 3] {
                    let kernel = |interrupt: &Interrupt| {
                        top_n(&scoring, n, excluded, Some(&allowed), interrupt)
                    };
                    prop_assert_eq!(&parallel::run(threads, u64::MAX, kernel, || true), &expected);
                    let kernel = |interrupt: &Interrupt| {
                        top_n_of(&scoring, n, lists_of(&listed, &world), excluded, interrupt)
                    };
                    prop_assert_eq!(&parallel::run(threads, u64::MAX, kernel, || true), &expected);
                }
                let scores = world.score_matrix(similarity);
                let matrix =
                    Matrix::new("scores", &scores, world.num_queries(), world.num_items).unwrap();
                let expected =
                    top_n_scores(matrix, n, lists_of(&left_out, &world), None, level, interrupt);
                let found = top_n_scores(matrix, n, excluded, Some(&allowed), level, interrupt);
                prop_assert_eq!(found, expected);
            }
        }
    }

    fn tables_in_fewer_bits_rank_as_written_out(
        shape in shapes(),
        dimension in 0usize..140,
        num_items in 1usize..300,
        n in 0usize..20,
        roughness in prop_oneof![
            Just(Roughness::Alike),
            Just(Roughness::Noise),
            Just(Roughness::Sizes),
        ],
        origin in prop::sample::select(&ORIGINS),
    ) {
        let mut world = World::new(&Shape { dimension, num_items, ..shape });
        world.roughen(shape.seed, roughness);
        let narrow = Narrow::new(&world, origin, shape.seed, &Interrupt::new()).unwrap();
        let written_out = narrow.written_out(dimension);
        let float32 = Matrix::new("item_table", &written_out, num_items, dimension).unwrap();
        let narrow = narrow.table(num_items, dimension);
        for similarity in SIMILARITIES {
            for level in Level::available() {
                let exact = world.scoring_of(float32.into(), similarity, level);
                let expected = rank_all(&exact, &world, n, &Interrupt::new());
                let scoring = world.scoring_of(narrow, similarity, level);
                let rankings = rank_all(&scoring, &world, n, &Interrupt::new());
                prop_assert_eq!(&rankings, &expected, "{:?} {:?}", similarity, level);
            }
        }
    }

    fn rounding_goes_to_the_nearest(
        seed: u64,
        rows in 0usize..20,
        columns in 0usize..40,
        size in -40i32..38,
    ) {
        let mut rng = Rng::new(seed, Stage::Split, 0, 0);
        let size = 10f32.powi(size);
        let values: Vec<f32> =
            (0..rows * columns).map(|_| (rng.uniform_f64() as f32 - 0.5) * size).collect();
        let matrix = Matrix::new("item_table", &values, rows, columns).unwrap();
        let bits = round_to_bf16(matrix, &Interrupt::new()).unwrap();
        let number = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
        for (&value, &bits) in values.iter().zip(&bits) {
            let distance = |bits: u16| (number(bits) - f64::from(value)).abs();
            let found = distance(bits);
            for other in [bits.wrapping_sub(1), bits + 1] {
                let is_near = number(other).is_finite() && bits & 0x7FFF != 0;
                prop_assert!(
                    !is_near || found < distance(other) || found == distance(other) && bits % 2 == 0
                );
            }
        }
        let (codes, scales) = round_to_int8(matrix, &Interrupt::new()).unwrap();
        prop_assert_eq!(scales.len(), rows);
        for (row, scale) in scales.iter().enumerate() {
            let row = row * columns..(row + 1) * columns;
            let largest = values[row.clone()].iter().fold(0.0, |most: f32, value| most.max(value.abs()));
            prop_assert_eq!(*scale, (largest / 127.0).max(f32::MIN_POSITIVE));
            for (value, &code) in values[row.clone()].iter().zip(&codes[row]) {
                prop_assert_eq!(f32::from(code), (value / scale).round_ties_even());
            }
        }
    }

    fn score_matrices_agree_with_the_definition(shape in shapes(), n in 0usize..90) {
        let world = World::new(&shape);
        for similarity in SIMILARITIES {
            let scores = world.score_matrix(similarity);
            let matrix = Matrix::new("scores", &scores, world.num_queries(), world.num_items).unwrap();
            let rows = (0..world.num_queries()).map(|query| matrix.row(query));
            let first = compare(rows.map(|row| (row[0], row[1..].to_vec())));
            let in_catalogue = world.expected_in_catalogue(similarity);
            let best = world.expected_top_n(similarity, n);
            for level in Level::available() {
                let (excluded, interrupt) = (world.excluded(), &Interrupt::new());
                let found = rank_scores(matrix, level, interrupt);
                prop_assert_eq!(found.as_ref(), Ok(&first));
                let found = rank_score_matrix(matrix, &world.targets, excluded, level, interrupt);
                prop_assert_eq!(found.as_ref(), Ok(&in_catalogue));
                let found = top_n_scores(matrix, n, excluded, None, level, interrupt);
                prop_assert_eq!(found.as_ref(), Ok(&best));
            }
        }
    }
}

fn lists_of<'a>(lists: &'a Lists, world: &World) -> ItemLists<'a> {
    ItemLists::new(
        NAMES,
        &lists.offsets,
        &lists.items,
        world.num_queries(),
        world.num_items,
    )
    .unwrap()
}

/// More queries and items than one piece of work has.
#[test]
fn threads_do_not_change_a_thing() {
    for (queries, num_items) in [(1_200, 150), (3, 7_000)] {
        let world = World::new(&Shape {
            seed: 5,
            dimension: 5,
            num_items,
            queries,
            width: 11,
            with_bias: true,
            with_overrides: true,
        });
        for similarity in SIMILARITIES {
            let scoring = world.scoring(similarity, Level::fastest());
            let in_catalogue = world.expected_in_catalogue(similarity);
            let best = world.expected_top_n(similarity, 20);
            let candidates =
                rank_candidates(&scoring, &world.candidates, world.width, &Interrupt::new())
                    .unwrap();
            for threads in [1, 2, 3, 8] {
                let found = on_threads(threads, |interrupt| {
                    rank_catalogue(&scoring, &world.targets, world.excluded(), interrupt)
                });
                assert_eq!(found.as_ref(), Ok(&in_catalogue));
                let found = on_threads(threads, |interrupt| {
                    top_n(&scoring, 20, world.excluded(), None, interrupt)
                });
                assert_eq!(found.as_ref(), Ok(&best));
                let found = on_threads(threads, |interrupt| {
                    rank_candidates(&scoring, &world.candidates, world.width, interrupt)
                });
                assert_eq!(found.as_ref(), Ok(&candidates));
            }
        }
    }
}

#[test]
fn threads_do_not_change_tables_in_fewer_bits() {
    for (queries, num_items) in [(1_200, 150), (3, 7_000)] {
        let shape = Shape {
            seed: 6,
            dimension: 21,
            num_items,
            queries,
            width: 40,
            with_bias: true,
            with_overrides: true,
        };
        let mut world = World::new(&shape);
        world.roughen(7, Roughness::Noise);
        for origin in [Origin::RoundedToBf16, Origin::RoundedToInt8] {
            let narrow = Narrow::new(&world, origin, 8, &Interrupt::new()).unwrap();
            let rounded_alone = narrow.written_out(21);
            let float32 = Matrix::new("item_table", &rounded_alone, num_items, 21).unwrap();
            for (similarity, threads) in SIMILARITIES.into_iter().zip([2, 3, 8]) {
                let exact = world.scoring_of(float32.into(), similarity, Level::fastest());
                let expected = rank_all(&exact, &world, 20, &Interrupt::new());
                for threads in [1, threads] {
                    let table = narrow.table(num_items, 21);
                    let scoring = world.scoring_of(table, similarity, Level::fastest());
                    let found = on_threads(threads, |interrupt| {
                        Ok(rank_all(&scoring, &world, 20, interrupt))
                    });
                    assert_eq!(found.as_ref(), Ok(&expected));
                    let rounded = on_threads(threads, |interrupt| {
                        Narrow::new(&world, origin, 8, interrupt)
                    });
                    assert_eq!(rounded.unwrap().written_out(21), rounded_alone);
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_rounded_is_counted() {
    let round = |values: &[f32]| {
        let matrix = Matrix::new("item_table", values, values.len() / 2, 2).unwrap();
        let interrupt = &Interrupt::new();
        [
            round_to_bf16(matrix, interrupt).err(),
            round_to_int8(matrix, interrupt).err(),
        ]
    };
    let nan = |count| {
        Some(Error::NotANumber {
            argument: "item_table",
            count,
        })
    };
    let infinite = |count: u64| {
        Some(Error::invalid(
            "item_table",
            format_args!("{count} numbers that are infinite, or would be once rounded"),
            "finite ones",
        ))
    };
    let all_bits = f32::from_bits(u32::MAX);
    assert_eq!(round(&[1.0, 2.0]), [None, None]);
    assert_eq!(round(&[1.0, f32::NAN, all_bits, 2.0]), [nan(2), nan(2)]);
    assert_eq!(round(&[f32::INFINITY, f32::NAN]), [nan(1), nan(1)]);
    let large = [f32::NEG_INFINITY, 0.0, 1.0, f32::MAX];
    assert_eq!(round(&large), [infinite(2), infinite(2)]);
    let below = f32::from_bits(f32::MAX.to_bits() - 1);
    assert_eq!(round(&[below, 1.0]), [infinite(1), None]);
    let largest_of_bf16 = f32::from_bits(0x7F7F_7FFF);
    assert_eq!(round(&[largest_of_bf16, -largest_of_bf16]), [None, None]);
}

#[test]
fn scales_are_checked() {
    let codes = [1, 2, 3, 4];
    let matrix = Matrix::new("item_table", &codes, 2, 2).unwrap();
    let queries = Matrix::new("queries", &[1.0, 1.0], 1, 2).unwrap();
    let check = |scales: &[f32]| {
        let table = ItemTable::Int8 {
            codes: matrix,
            scales,
        };
        let level = Level::fastest();
        let scoring = Scoring::new(queries, table, None, Similarity::Dot, None, level);
        scoring.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(check(&[1.0, -0.0]), Ok(()));
    for (scales, found) in [
        (&[1.0][..], "1 scales, expected 2, one for each item"),
        (
            &[1.0, f32::NAN],
            "1 scales that are not finite, expected none",
        ),
        (
            &[f32::INFINITY, f32::NEG_INFINITY],
            "2 scales that are not finite, expected none",
        ),
    ] {
        assert_eq!(check(scales), Err(format!("item_table[1]: found {found}")));
    }
}

/// Items with the same row tie to the last bit wherever they stand, also where scores are not exact.
#[test]
fn equal_rows_tie() {
    let (dimension, num_items, queries) = (37, 1_000, 25);
    let mut rng = Rng::new(1, Stage::Split, 0, 0);
    let mut numbers = |count| {
        (0..count)
            .map(|_| rng.uniform_f64() as f32 - 0.5)
            .collect::<Vec<f32>>()
    };
    let table = numbers(dimension).repeat(num_items);
    let query_values = numbers(queries * dimension);
    let everyone = num_items as i64 - 1;
    for level in Level::available() {
        for similarity in SIMILARITIES {
            let scoring = Scoring::new(
                Matrix::new("queries", &query_values, queries, dimension).unwrap(),
                Matrix::new("item_table", &table, num_items, dimension).unwrap(),
                None,
                similarity,
                None,
                level,
            )
            .unwrap();
            let targets: Vec<i64> = (0..queries as i64).map(|query| query * 40).collect();
            let offsets = vec![0; queries + 1];
            let excluded = ItemLists::new(NAMES, &offsets, &[], queries, num_items).unwrap();
            let expected = Comparisons {
                greater: vec![0; queries],
                equal: vec![everyone; queries],
            };
            let found = rank_catalogue(&scoring, &targets, excluded, &Interrupt::new());
            assert_eq!(found.as_ref(), Ok(&expected));
            let candidates: Vec<i64> = (0..queries).flat_map(|_| 0..num_items as i64).collect();
            let found = rank_candidates(&scoring, &candidates, num_items, &Interrupt::new());
            assert_eq!(found.as_ref(), Ok(&expected));
        }
    }
}

/// |q|² + |e|² − 2 q·e is ∞ − ∞ here, the distance itself is not.
#[test]
fn large_numbers_do_not_become_nan() {
    let table = [1e30, f32::INFINITY, f32::NEG_INFINITY, 2e30, 1e30];
    for level in Level::available() {
        for similarity in [Similarity::L2, Similarity::SquaredL2] {
            let scoring = Scoring::new(
                Matrix::new("queries", &[1e30], 1, 1).unwrap(),
                Matrix::new("item_table", &table, 5, 1).unwrap(),
                None,
                similarity,
                None,
                level,
            )
            .unwrap();
            let excluded = ItemLists::new(NAMES, &[0, 0], &[], 1, 5).unwrap();
            let found = top_n(&scoring, 5, excluded, None, &Interrupt::new()).unwrap();
            // (1e30)² is infinite as well.
            assert_eq!(found.items, [0, 4, 1, 2, 3]);
            assert_eq!(found.scores[..2], [0.0, 0.0]);
            assert_eq!(found.scores[2..], [f32::NEG_INFINITY; 3]);
        }
    }
}

#[test]
fn an_interrupt_ends_a_long_ranking() {
    let world = World::new(&Shape {
        seed: 0,
        dimension: 3,
        num_items: 50,
        queries: 10,
        width: 3,
        with_bias: false,
        with_overrides: false,
    });
    let scoring = world.scoring(Similarity::Dot, Level::fastest());
    let interrupt = Interrupt::new();
    interrupt.raise();
    let found = rank_catalogue(&scoring, &world.targets, world.excluded(), &interrupt);
    assert_eq!(found, Err(Error::Interrupted));
    let found = top_n(&scoring, 3, world.excluded(), None, &interrupt);
    assert_eq!(found, Err(Error::Interrupted));
    let found = rank_candidates(&scoring, &world.candidates, 3, &interrupt);
    assert_eq!(found, Err(Error::Interrupted));
}
