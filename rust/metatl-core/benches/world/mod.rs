//! Inputs of the benchmarks and the instruction counts: random vectors, items and lists.

use metatl_core::ranking::{ItemLists, ItemTable, Matrix, Overrides, Scoring, Similarity};
use metatl_core::rng::{Rng, Stage};
use metatl_core::simd::Level;

pub(crate) const DIMENSION: usize = 100;
pub(crate) const NUM_ITEMS: usize = 20_000;
pub(crate) const CANDIDATES: usize = 101;
pub(crate) const LISTS: usize = 4_096;
const EXCLUDED: usize = 3;
const OVERRIDDEN: usize = 8;

/// Random inputs.
pub(crate) struct World {
    pub(crate) table: Vec<f32>,
    bf16: Vec<u16>,
    int8: (Vec<i8>, Vec<f32>),
    pub(crate) bias: Vec<f32>,
    queries: Vec<f32>,
    pub(crate) candidates: Vec<i64>,
    pub(crate) targets: Vec<i64>,
    excluded: (Vec<i64>, Vec<i64>),
    overrides: (Vec<i64>, Vec<i64>, Vec<f32>),
}

impl World {
    pub(crate) fn new(num_items: usize) -> Self {
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
            // Simpler than rounding, which gives memory back: kernels that take it again would have to clear it.
            bf16: table
                .iter()
                .map(|value| (value.to_bits() >> 16) as u16)
                .collect(),
            int8: (
                table.iter().map(|value| (value * 254.0) as i8).collect(),
                vec![1.0 / 254.0; num_items],
            ),
            table,
            bias,
            queries,
            candidates: items(LISTS * CANDIDATES),
            targets: items(LISTS),
            excluded: (offsets(EXCLUDED), items(LISTS * EXCLUDED)),
            overrides: (offsets(OVERRIDDEN), moved.collect(), rows),
        }
    }

    /// The item table in each format, by name.
    pub(crate) fn item_tables(&self) -> [(&'static str, ItemTable<'_>); 3] {
        let items = self.bias.len();
        let float32 = Matrix::new("table", &self.table, items, DIMENSION).unwrap();
        let bf16 = Matrix::new("table", &self.bf16, items, DIMENSION).unwrap();
        let codes = Matrix::new("table", &self.int8.0, items, DIMENSION).unwrap();
        let scales = &self.int8.1;
        [
            ("float32", ItemTable::Float32(float32)),
            ("bf16", ItemTable::Bf16(bf16)),
            ("int8", ItemTable::Int8 { codes, scales }),
        ]
    }

    pub(crate) fn scoring(
        &self,
        users: usize,
        similarity: Similarity,
        with_bias: bool,
        with_overrides: bool,
        level: Level,
    ) -> Scoring<'_> {
        let [(_, float32), ..] = self.item_tables();
        self.scoring_with(float32, users, similarity, with_bias, with_overrides, level)
    }

    pub(crate) fn scoring_with<'a>(
        &'a self,
        item_table: ItemTable<'a>,
        users: usize,
        similarity: Similarity,
        with_bias: bool,
        with_overrides: bool,
        level: Level,
    ) -> Scoring<'a> {
        let matrix = |name, values, rows| Matrix::new(name, values, rows, DIMENSION).unwrap();
        let overrides = with_overrides.then(|| {
            let (offsets, items, rows) = &self.overrides;
            let items = &items[..users * OVERRIDDEN];
            let rows = matrix("rows", &rows[..items.len() * DIMENSION], items.len());
            Overrides::new(&offsets[..=users], items, rows, users, self.bias.len()).unwrap()
        });
        Scoring::new(
            matrix("queries", &self.queries[..users * DIMENSION], users),
            item_table,
            with_bias.then_some(&self.bias[..]),
            similarity,
            overrides,
            level,
        )
        .unwrap()
    }

    pub(crate) fn excluded(&self, users: usize) -> ItemLists<'_> {
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
