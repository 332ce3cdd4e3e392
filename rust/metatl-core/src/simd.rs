//! Vector kernels of the ranking code, chosen at run time: AVX-512, AVX2 with FMA, NEON, or plain Rust.
//!
//! This module is the only one of the crate with `unsafe` code. Every public function is safe: a [`Level`] exists only
//! for instructions that the processor has, and lengths are checked before pointers are used.
//!
//! There are two orders of summation. For one level they do not depend on the number of queries, items or threads:
//!
//! * [`dots`] and [`squared_distances`] (rows gathered one by one) run the lanes along the dimensions and add
//!   the lanes up in a tree;
//! * [`dot_tile`] (a panel of items against a block of queries) runs the lanes along the items, so that each
//!   product is one chain over the dimensions, first to last. [`sequential_dot`] is that chain for one pair, and
//!   [`sequential_dots`] for one query and the rows of a panel: they give the same bits.
//!
//! Therefore equal rows get equal scores, to the last bit. Levels agree with each other up to rounding: a level with
//! fused multiply-add rounds once where plain Rust rounds twice (`f32::mul_add` without the instruction is a
//! slow library call, so the plain level does not use it).
#![allow(unsafe_code)]
// Plain kernels take on the instructions of a level only where they are compiled into its functions.
#![allow(clippy::inline_always)]

mod scalar;

use std::fmt;

use crate::Error;

/// Items in a panel: two AVX-512 registers of them.
pub const LANES: usize = 32;

/// Queries in a block: with two registers of items each they fill 24 of the 32 AVX-512 registers.
pub const QUERIES: usize = 12;

/// Rows that [`dots`] works on at a time.
const ROWS: usize = 8;

/// Numbers of `f32` in a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 16;

/// How many rows ahead of the current rows [`dots`] prefetches.
const PREFETCH_DISTANCE: usize = 16;

/// Rows after those that it scores that [`dots`] prefetches, at most.
pub const PREFETCHED_ROWS: usize = PREFETCH_DISTANCE + ROWS;

/// Tables of fewer numbers than this stay in the second-level cache and are not prefetched.
#[cfg(target_arch = "x86_64")]
const PREFETCH_TABLE: usize = 1 << 18;

/// The environment variable that selects a level, for tests and measurements.
pub const LEVEL_VARIABLE: &str = "METATL_SIMD";

/// One number for each item of a panel.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; LANES]);

/// One coordinate of each query of a block.
pub type QueryCoordinates = [f32; QUERIES];

/// Scores of a block of queries against a panel of items: one row of items for each query.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Tile(pub [[f32; LANES]; QUERIES]);

impl Tile {
    /// A tile of zeros.
    pub const EMPTY: Self = Self([[0.0; LANES]; QUERIES]);
}

/// An instruction set that this processor has. A value of this type is the proof that it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Scalar,
}

impl Kind {
    /// Every level of this architecture, fastest first.
    const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        Self::Scalar,
    ];

    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        }
    }

    fn is_supported(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f") && Self::Avx2.is_supported(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Self::Scalar => true,
        }
    }
}

impl Level {
    /// Plain Rust, which runs everywhere.
    pub const SCALAR: Self = Self(Kind::Scalar);

    /// The levels that this processor can run, fastest first. The last one is always [`Level::SCALAR`].
    #[must_use]
    pub fn available() -> Vec<Self> {
        Kind::ALL
            .iter()
            .filter(|kind| kind.is_supported())
            .map(|&kind| Self(kind))
            .collect()
    }

    /// The fastest level that this processor can run.
    #[must_use]
    pub fn fastest() -> Self {
        Kind::ALL
            .iter()
            .find(|kind| kind.is_supported())
            .map_or(Self::SCALAR, |&kind| Self(kind))
    }

    /// The level that the environment variable `METATL_SIMD` names, or the fastest one where it is not set.
    ///
    /// Read at every call: tests compare the levels within one process.
    pub fn from_environment() -> Result<Self, Error> {
        let Some(value) = std::env::var_os(LEVEL_VARIABLE).filter(|value| !value.is_empty()) else {
            return Ok(Self::fastest());
        };
        let available = Self::available();
        available
            .iter()
            .copied()
            .find(|level| *value == *level.0.name())
            .ok_or_else(|| {
                let names: Vec<_> = available.iter().map(ToString::to_string).collect();
                Error::invalid(
                    LEVEL_VARIABLE,
                    value.display(),
                    format!("a level that this processor can run: {}", names.join(", ")),
                )
            })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.name())
    }
}

/// How the scores of some items compare with a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Scores above the threshold.
    pub greater: u64,
    /// Scores equal to the threshold.
    pub equal: u64,
    /// Scores that are not a number.
    pub nan: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.greater += other.greater;
        self.equal += other.equal;
        self.nan += other.nan;
    }
}

/// Runs the version of a kernel that belongs to a level.
macro_rules! dispatch {
    ($level:expr, $kernel:ident $(::<$flag:ident>)? ($($argument:expr),*)) => {
        match $level.0 {
            // SAFETY: a `Level` exists only for instructions that `is_supported` found on this processor.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { avx512::$kernel $(::<$flag>)? ($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::$kernel $(::<$flag>)? ($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => unsafe { neon::$kernel $(::<$flag>)? ($($argument),*) },
            Kind::Scalar => scalar::$kernel $(::<$flag>)? ($($argument),*),
        }
    };
}

/// Rows of equal length, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
}

impl<'a> Table<'a> {
    /// A table of `rows` × `columns`.
    ///
    /// # Panics
    /// If that is not how many values there are.
    #[must_use]
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(
            rows.checked_mul(columns),
            Some(values.len()),
            "a table of {rows} x {columns}"
        );
        Self {
            values,
            rows,
            columns,
        }
    }
}

/// Writes the dot product of `query` with row `rows[i]` of the table to `scores[i]`, for every element of
/// `scores`. If one of these rows does not exist, it writes nothing and returns `false`.
///
/// Further elements of `rows` are only prefetched: pass the rows that are needed next, if they are known.
///
/// # Panics
/// If there are fewer rows than scores, or the query is not as long as the rows.
#[must_use]
pub fn dots(level: Level, query: &[f32], table: Table, rows: &[i64], scores: &mut [f32]) -> bool {
    check_lengths(query, table, rows, scores);
    dispatch!(level, row_scores::<DOT>(query, table, rows, scores))
}

/// Writes the squared Euclidean distance of `query` and row `rows[i]` to `distances[i]`. Otherwise as [`dots`].
///
/// # Panics
/// If there are fewer rows than distances, or the query is not as long as the rows.
#[must_use]
pub fn squared_distances(
    level: Level,
    query: &[f32],
    table: Table,
    rows: &[i64],
    distances: &mut [f32],
) -> bool {
    check_lengths(query, table, rows, distances);
    dispatch!(level, row_scores::<DISTANCE>(query, table, rows, distances))
}

/// Values of the kernels' flag `SQUARED_DISTANCE`.
const DOT: bool = false;
const DISTANCE: bool = true;

fn check_lengths(query: &[f32], table: Table, rows: &[i64], scores: &[f32]) {
    assert_eq!(
        query.len(),
        table.columns,
        "query and rows differ in length"
    );
    assert!(
        rows.len() >= scores.len(),
        "{} rows for {} scores",
        rows.len(),
        scores.len()
    );
}

fn check_panel(dimension: usize, numbers: usize) {
    assert!(
        numbers <= dimension * LANES && numbers.checked_rem(dimension).unwrap_or(0) == 0,
        "{numbers} numbers for rows of {dimension} dimensions"
    );
}

/// Dot products of the items of a panel with the queries of a block.
///
/// `panel[k]` holds coordinate k of the items, `queries[k]` coordinate k of the queries.
///
/// # Panics
/// If the two have different dimensions.
pub fn dot_tile(level: Level, panel: &[Lanes], queries: &[QueryCoordinates], tile: &mut Tile) {
    assert_eq!(
        panel.len(),
        queries.len(),
        "items and queries have different dimensions"
    );
    dispatch!(level, dot_tile(panel, queries, tile));
}

/// Writes coordinate k of row i to lane i of `panel[k]`; lanes after the last row do not change.
///
/// # Panics
/// If there are more rows than lanes, or `rows` is not a whole number of rows as long as the panel.
pub fn transpose(rows: &[f32], panel: &mut [Lanes]) {
    let dimension = panel.len();
    assert!(
        rows.len() <= dimension * LANES && rows.len().checked_rem(dimension).unwrap_or(0) == 0,
        "{} numbers for a panel of {dimension} dimensions",
        rows.len()
    );
    if dimension == 0 {
        return;
    }
    for (block, rows) in rows.chunks(4 * dimension).enumerate() {
        let lane = 4 * block;
        let done = transpose_four(rows, panel, lane);
        for (row, coordinates) in rows.chunks(dimension).enumerate() {
            for (lanes, &coordinate) in panel.iter_mut().zip(coordinates).skip(done) {
                lanes.0[lane + row] = coordinate;
            }
        }
    }
}

/// [`transpose`] of four rows to the lanes from `lane` on, four coordinates at a time; returns how many
/// coordinates it got to.
#[cfg(target_arch = "x86_64")]
fn transpose_four(rows: &[f32], panel: &mut [Lanes], lane: usize) -> usize {
    use std::arch::x86_64::{
        _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps, _mm_unpacklo_ps,
    };
    let dimension = panel.len();
    if rows.len() < 4 * dimension {
        return 0;
    }
    let whole = dimension / 4 * 4;
    for k in (0..whole).step_by(4) {
        // SAFETY: SSE is part of x86-64, and k + 4 ≤ dimension.
        let columns = unsafe {
            let [a, b, c, d] =
                std::array::from_fn(|row| _mm_loadu_ps(rows.as_ptr().add(row * dimension + k)));
            let (low, high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
            let (other_low, other_high) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
            [
                _mm_movelh_ps(low, other_low),
                _mm_movehl_ps(other_low, low),
                _mm_movelh_ps(high, other_high),
                _mm_movehl_ps(other_high, high),
            ]
        };
        for (lanes, column) in panel[k..].iter_mut().zip(columns) {
            let lanes = &mut lanes.0[lane..lane + 4];
            // SAFETY: SSE is part of x86-64; four numbers into four lanes.
            unsafe { _mm_storeu_ps(lanes.as_mut_ptr(), column) };
        }
    }
    whole
}

/// Without SSE, [`transpose`] uses its plain loop.
#[cfg(not(target_arch = "x86_64"))]
fn transpose_four(_rows: &[f32], _panel: &mut [Lanes], _lane: usize) -> usize {
    0
}

/// Prefetches numbers into the second-level cache.
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(LINE * size_of::<f32>() / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, and SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Writes rows of a table of bfloat16, the upper halves of `f32`, one after the other as `f32`.
///
/// # Panics
/// If the table lacks one of the rows, or they are not as many numbers as `values`.
pub fn widen_bf16(
    level: Level,
    bits: &[u16],
    columns: usize,
    rows: impl ExactSizeIterator<Item = usize>,
    values: &mut [f32],
) {
    assert_eq!(rows.len() * columns, values.len(), "room for other rows");
    if columns > 0 {
        dispatch!(level, widen_bf16(bits, columns, rows, values));
    }
}

/// Writes rows of a table of integers, one after the other as `f32`, each times the scale of its row.
///
/// # Panics
/// As [`widen_bf16`], and if a row has no scale.
pub fn widen_int8(
    level: Level,
    codes: &[i8],
    scales: &[f32],
    columns: usize,
    rows: impl ExactSizeIterator<Item = usize>,
    values: &mut [f32],
) {
    assert_eq!(rows.len() * columns, values.len(), "room for other rows");
    if columns > 0 {
        dispatch!(level, widen_int8(codes, scales, columns, rows, values));
    }
}

/// The dot product of one pair, with the same bits as in [`dot_tile`].
#[must_use]
pub fn sequential_dot(level: Level, left: &[f32], right: &[f32]) -> f32 {
    dispatch!(level, sequential_dot(left, right))
}

/// The dot product of a query with each row of a panel, and each row's squared norm, with the same
/// bits as in [`dot_tile`] and [`panel_norms`], but without transposing the panel. Lanes after the last row are
/// set to 0.
///
/// # Panics
/// If there are more rows than lanes, or `rows` is not a whole number of rows as long as the query.
pub fn sequential_dots(
    level: Level,
    query: &[f32],
    rows: &[f32],
    products: &mut [f32; LANES],
    norms: &mut Lanes,
) {
    let dimension = query.len();
    check_panel(dimension, rows.len());
    products.fill(0.0);
    norms.0.fill(0.0);
    if dimension > 0 {
        dispatch!(level, sequential_dots(query, rows, products, &mut norms.0));
    }
}

/// The dot product of a query with each item of a panel, with the bits of [`dot_tile`].
///
/// # Panics
/// If the two have different dimensions.
pub fn panel_dots(level: Level, query: &[f32], panel: &[Lanes], products: &mut [f32; LANES]) {
    assert_eq!(query.len(), panel.len(), "query and items differ in length");
    dispatch!(level, panel_dots(query, panel, products));
}

/// [`panel_dots`] of a panel of bfloat16.
///
/// # Panics
/// If the two have different dimensions.
pub fn panel_dots_bf16(
    level: Level,
    query: &[f32],
    bits: &[[u16; LANES]],
    products: &mut [f32; LANES],
) {
    assert_eq!(query.len(), bits.len(), "query and items differ in length");
    dispatch!(level, panel_dots_bf16(query, bits, products));
}

/// [`panel_dots`] of a panel of integers, each times the scale of its item.
///
/// # Panics
/// If the two have different dimensions.
pub fn panel_dots_int8(
    level: Level,
    query: &[f32],
    codes: &[[i8; LANES]],
    scales: &Lanes,
    products: &mut [f32; LANES],
) {
    assert_eq!(query.len(), codes.len(), "query and items differ in length");
    dispatch!(level, panel_dots_int8(query, codes, scales, products));
}

/// Writes a panel of bfloat16 as `f32`.
///
/// # Panics
/// If the two differ in length.
pub fn widen_panel_bf16(level: Level, bits: &[[u16; LANES]], panel: &mut [Lanes]) {
    assert_eq!(bits.len(), panel.len(), "panels differ in length");
    dispatch!(level, widen_panel_bf16(bits, panel));
}

/// Writes a panel of integers as `f32`, each times the scale of its item.
///
/// # Panics
/// If the two differ in length.
pub fn widen_panel_int8(level: Level, codes: &[[i8; LANES]], scales: &Lanes, panel: &mut [Lanes]) {
    assert_eq!(codes.len(), panel.len(), "panels differ in length");
    dispatch!(level, widen_panel_int8(codes, scales, panel));
}

/// The squared distance of one pair, summed over its coordinates in order.
#[must_use]
pub fn sequential_squared_distance(level: Level, left: &[f32], right: &[f32]) -> f32 {
    dispatch!(level, sequential_squared_distance(left, right))
}

/// The squared norm of each item of a panel, with the bits of [`sequential_dot`] of the item with itself.
#[must_use]
pub fn panel_norms(level: Level, panel: &[Lanes]) -> Lanes {
    dispatch!(level, panel_norms(panel))
}

/// The squared norm of each query of a block, with the bits of [`sequential_dot`] of the query with itself.
#[must_use]
pub fn block_norms(level: Level, queries: &[QueryCoordinates]) -> QueryCoordinates {
    dispatch!(level, block_norms(queries))
}

/// Turns the dot products in rows of a tile into scores: with the squared distance |q|² + |e|² − 2 q·e, the negative
/// distance (`root`) or squared distance, plus the items' bias.
///
/// Returns whether all distances are finite. If one is not, infinities may have cancelled; its score is not finite
/// either, and the caller computes it from the differences.
#[must_use]
pub fn tile_to_scores(
    level: Level,
    rows: &mut [[f32; LANES]],
    query_norms: &QueryCoordinates,
    item_norms: &Lanes,
    bias: &Lanes,
    root: bool,
) -> bool {
    dispatch!(
        level,
        tile_to_scores(rows, query_norms, item_norms, bias, root)
    )
}

/// Turns squared distances into scores: −‖q − e‖ with `root`, −‖q − e‖² without.
pub fn scores_from_squared_distances(level: Level, distances: &mut [f32], root: bool) {
    dispatch!(level, scores_from_squared_distances(distances, root));
}

/// Adds the items' bias to the scores in rows of a tile.
pub fn add_bias_to_tile(level: Level, rows: &mut [[f32; LANES]], bias: &Lanes) {
    dispatch!(level, add_bias_to_tile(rows, bias));
}

/// Compares the first `items` scores of each query with that query's threshold, and adds to `counts`, which may
/// be those of the first few queries only.
///
/// # Panics
/// If `items` is more than a panel holds.
pub fn count_tile(
    level: Level,
    tile: &Tile,
    items: usize,
    thresholds: &QueryCoordinates,
    counts: &mut [Counts],
) {
    assert!(items <= LANES, "{items} items in a panel of {LANES}");
    dispatch!(level, count_tile(tile, items, thresholds, counts));
}

/// Writes for each query which of the first `items` scores are above its threshold, as bits from the lowest on, and
/// returns how many scores of these queries are NaN.
///
/// # Panics
/// If `items` is more than a panel holds.
#[must_use]
pub fn above_in_tile(
    level: Level,
    tile: &Tile,
    items: usize,
    thresholds: &QueryCoordinates,
    above: &mut [u32],
) -> u64 {
    assert!(items <= LANES, "{items} items in a panel of {LANES}");
    dispatch!(level, above_in_tile(tile, items, thresholds, above))
}

/// The greatest score of each lane over the panels of a row; −∞ in a lane of NaN.
#[must_use]
pub fn lane_maxima(level: Level, row: &[[f32; LANES]]) -> [f32; LANES] {
    dispatch!(level, lane_maxima(row))
}

/// Appends for each panel of a row which of its scores are above the threshold, as bits from the lowest on.
pub fn bits_above(level: Level, row: &[[f32; LANES]], threshold: f32, bits: &mut Vec<u32>) {
    dispatch!(level, bits_above(row, threshold, bits));
}

/// Compares scores with a threshold.
#[must_use]
pub fn count(level: Level, scores: &[f32], threshold: f32) -> Counts {
    dispatch!(level, count(scores, threshold))
}

/// Adds σ(left + right) to the sums, number by number.
///
/// # Panics
/// If the three differ in length.
pub fn add_sigmoids(level: Level, left: &[f32], right: &[f32], sums: &mut [f32]) {
    check_equal_lengths(left, right, sums);
    dispatch!(level, add_sigmoids(left, right, sums));
}

/// Replaces costs by exp(least − cost), and returns the least cost and the sum of the results.
pub fn exp_of_least(level: Level, costs: &mut [f32]) -> [f32; 2] {
    dispatch!(level, exp_of_least(costs))
}

/// Writes left + right, number by number.
///
/// # Panics
/// If the three differ in length.
pub fn write_sums(level: Level, left: &[f32], right: &[f32], sums: &mut [f32]) {
    check_equal_lengths(left, right, sums);
    dispatch!(level, write_sums(left, right, sums));
}

/// Adds factor · row to the sums.
///
/// # Panics
/// If the two differ in length.
pub fn add_scaled(level: Level, factor: f32, row: &[f32], sums: &mut [f32]) {
    check_equal_lengths(row, row, sums);
    dispatch!(level, add_scaled(factor, row, sums));
}

/// Adds left · right to the sums, number by number.
///
/// # Panics
/// If the three differ in length.
pub fn add_products(level: Level, left: &[f32], right: &[f32], sums: &mut [f32]) {
    check_equal_lengths(left, right, sums);
    dispatch!(level, add_products(left, right, sums));
}

fn check_equal_lengths(left: &[f32], right: &[f32], sums: &[f32]) {
    assert!(
        left.len() == sums.len() && right.len() == sums.len(),
        "{} and {} numbers for {} sums",
        left.len(),
        right.len(),
        sums.len()
    );
}

/// Adds rows of the table, each times its weight, to the sums.
///
/// # Panics
/// If the table lacks one of the rows, there are not as many weights as rows, or the sums are not as long as a row.
pub fn add_rows(level: Level, weights: &[f32], table: Table, rows: &[i64], sums: &mut [f32]) {
    assert_eq!(weights.len(), rows.len(), "weights and rows");
    assert_eq!(sums.len(), table.columns, "sums and rows differ in length");
    dispatch!(level, add_rows(weights, table, rows, sums));
}

/// How many bits of the words are 1.
#[must_use]
pub fn ones(level: Level, words: &[u64]) -> u64 {
    dispatch!(level, ones(words))
}

/// |q|² + |e|² − 2 q·e, the squared distance by way of the dot product.
#[inline(always)]
#[must_use]
pub fn squared_distance_from_dot(dot: f32, query_norm: f32, item_norm: f32) -> f32 {
    (query_norm + item_norm) - 2.0 * dot
}

/// −‖q − e‖ with `root`, −‖q − e‖² without.
#[inline(always)]
#[must_use]
pub fn score_from_squared_distance(distance: f32, root: bool) -> f32 {
    // Rounding can leave a small negative number; not `max`, which would hide a NaN.
    let distance = if distance < 0.0 { 0.0 } else { distance };
    0.0 - if root { distance.sqrt() } else { distance }
}

/// Compiles the plain kernels with the instructions of a level, and with fused multiply-add.
macro_rules! compile_plain_kernels {
    ($features:literal) => {
        use super::scalar;

        #[target_feature(enable = $features)]
        pub(super) fn sequential_dot(left: &[f32], right: &[f32]) -> f32 {
            scalar::sequential_dot_of::<true>(left, right)
        }

        #[target_feature(enable = $features)]
        pub(super) fn sequential_squared_distance(left: &[f32], right: &[f32]) -> f32 {
            scalar::sequential_squared_distance_of::<true>(left, right)
        }

        #[target_feature(enable = $features)]
        pub(super) fn add_sigmoids(left: &[f32], right: &[f32], sums: &mut [f32]) {
            scalar::add_sigmoids_of::<true>(left, right, sums);
        }

        #[target_feature(enable = $features)]
        pub(super) fn exp_of_least(costs: &mut [f32]) -> [f32; 2] {
            scalar::exp_of_least_of::<true>(costs)
        }

        #[target_feature(enable = $features)]
        pub(super) fn write_sums(left: &[f32], right: &[f32], sums: &mut [f32]) {
            scalar::write_sums(left, right, sums);
        }

        #[target_feature(enable = $features)]
        pub(super) fn add_scaled(factor: f32, row: &[f32], sums: &mut [f32]) {
            scalar::add_scaled_of::<true>(factor, row, sums);
        }

        #[target_feature(enable = $features)]
        pub(super) fn add_products(left: &[f32], right: &[f32], sums: &mut [f32]) {
            scalar::add_products_of::<true>(left, right, sums);
        }

        #[target_feature(enable = $features)]
        pub(super) fn ones(words: &[u64]) -> u64 {
            scalar::ones(words)
        }

        #[target_feature(enable = $features)]
        pub(super) fn panel_dots(query: &[f32], panel: &[Lanes], products: &mut [f32; LANES]) {
            scalar::panel_dots_of::<true>(query, panel, products);
        }

        #[target_feature(enable = $features)]
        pub(super) fn panel_dots_bf16(
            query: &[f32],
            bits: &[[u16; LANES]],
            products: &mut [f32; LANES],
        ) {
            scalar::panel_dots_bf16_of::<true>(query, bits, products);
        }

        #[target_feature(enable = $features)]
        pub(super) fn widen_panel_bf16(bits: &[[u16; LANES]], panel: &mut [Lanes]) {
            scalar::widen_panel_bf16(bits, panel);
        }

        #[target_feature(enable = $features)]
        pub(super) fn widen_panel_int8(codes: &[[i8; LANES]], scales: &Lanes, panel: &mut [Lanes]) {
            scalar::widen_panel_int8(codes, scales, panel);
        }

        #[target_feature(enable = $features)]
        pub(super) fn block_norms(queries: &[QueryCoordinates]) -> QueryCoordinates {
            scalar::block_norms_of::<true>(queries)
        }

        #[target_feature(enable = $features)]
        pub(super) fn panel_norms(panel: &[Lanes]) -> Lanes {
            scalar::panel_norms_of::<true>(panel)
        }

        #[target_feature(enable = $features)]
        pub(super) fn tile_to_scores(
            rows: &mut [[f32; LANES]],
            query_norms: &QueryCoordinates,
            item_norms: &Lanes,
            bias: &Lanes,
            root: bool,
        ) -> bool {
            scalar::tile_to_scores(rows, query_norms, item_norms, bias, root)
        }

        #[target_feature(enable = $features)]
        pub(super) fn scores_from_squared_distances(distances: &mut [f32], root: bool) {
            scalar::scores_from_squared_distances(distances, root);
        }

        #[target_feature(enable = $features)]
        pub(super) fn lane_maxima(row: &[[f32; LANES]]) -> [f32; LANES] {
            scalar::lane_maxima(row)
        }

        #[target_feature(enable = $features)]
        pub(super) fn bits_above(row: &[[f32; LANES]], threshold: f32, bits: &mut Vec<u32>) {
            bits.extend(row.iter().map(|scores| row_above(scores, threshold).0));
        }

        #[target_feature(enable = $features)]
        pub(super) fn above_in_tile(
            tile: &Tile,
            items: usize,
            thresholds: &QueryCoordinates,
            above: &mut [u32],
        ) -> u64 {
            let mut nan = 0;
            for ((scores, &threshold), above) in tile.0.iter().zip(thresholds).zip(above) {
                let (bits, not_numbers) = row_above(scores, threshold);
                let compared = scalar::first_lanes(items);
                *above = bits & compared;
                nan += u64::from((not_numbers & compared).count_ones());
            }
            nan
        }

        #[target_feature(enable = $features)]
        pub(super) fn add_bias_to_tile(rows: &mut [[f32; LANES]], bias: &Lanes) {
            scalar::add_bias_to_tile(rows, bias);
        }

        #[target_feature(enable = $features)]
        pub(super) fn widen_bf16(
            bits: &[u16],
            columns: usize,
            rows: impl Iterator<Item = usize>,
            values: &mut [f32],
        ) {
            scalar::widen_bf16(bits, columns, rows, values);
        }

        #[target_feature(enable = $features)]
        pub(super) fn widen_int8(
            codes: &[i8],
            scales: &[f32],
            columns: usize,
            rows: impl Iterator<Item = usize>,
            values: &mut [f32],
        ) {
            scalar::widen_int8(codes, scales, columns, rows, values);
        }
    };
}

// These modules use the macro above.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

/// Pointers to the rows of one step of [`dots`]. If `rows` has fewer rows, its last row is repeated.
///
/// The caller has checked that the rows exist.
#[inline(always)]
fn block_of_rows(table: Table, rows: &[i64]) -> [*const f32; ROWS] {
    let start = |row: i64| {
        table
            .values
            .as_ptr()
            .wrapping_add(row as usize * table.columns)
    };
    match rows.first_chunk::<ROWS>() {
        Some(block) => block.map(start),
        None => std::array::from_fn(|position| start(rows[position.min(rows.len() - 1)])),
    }
}

/// Prefetches the rows that come `PREFETCH_DISTANCE` after the first of `rows`, as many as one step takes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_rows(table: Table, rows: &[i64]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    if table.values.len() < PREFETCH_TABLE {
        return;
    }
    // These rows have not been checked yet. A prefetch of an invalid address has no effect.
    let start = |row: i64| {
        let offset = (row as usize).wrapping_mul(table.columns);
        table.values.as_ptr().wrapping_add(offset)
    };
    let fetch = |pointer: *const f32| {
        // SAFETY: a prefetch reads nothing, and SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.cast()) };
    };
    let ahead = rows.get(PREFETCH_DISTANCE..).unwrap_or_default();
    if let Some(block) = ahead.first_chunk::<ROWS>() {
        // Line by line over all rows: their starts stay in registers, and a line costs one instruction.
        let starts = block.map(start);
        for line in (0..table.columns).step_by(LINE) {
            for start in starts {
                fetch(start.wrapping_add(line));
            }
        }
    } else {
        for &row in ahead {
            for line in (0..table.columns).step_by(LINE) {
                fetch(start(row).wrapping_add(line));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exactness is what is tested
mod tests;
