//! Vector kernels of the ranking code, chosen at run time: AVX-512, AVX2 with FMA, NEON, or plain Rust.
//!
//! This module is the only one of the crate with `unsafe` code. Every public function is safe: a [`Level`] cannot be
//! made for instructions that the processor lacks, and lengths are checked before pointers are used.
//!
//! Two orders of summation are used, each fixed for one level, whatever the number of queries, items or threads:
//!
//! * [`dots`] and [`squared_distances`] (rows gathered one by one) run the lanes along the dimensions and add
//!   the lanes up in a tree;
//! * [`dot_tile`] (a panel of items against a block of queries) runs the lanes along the items, so that each
//!   product is one chain over the dimensions, first to last. [`sequential_dot`] is that chain for one pair, and
//!   [`sequential_dots`] for one query and the rows of a panel: they give the same bits.
//!
//! So equal rows get equal scores, to the last bit. Levels agree with each other up to rounding: a level with
//! fused multiply-add rounds once where plain Rust rounds twice (`f32::mul_add` without the instruction is a
//! slow library call, so the plain level does not use it).
#![allow(unsafe_code)]
// Plain kernels take on the instructions of a level only where they are compiled into its functions.
#![allow(clippy::inline_always)]

pub mod brackets;

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

/// How many rows ahead of the current ones [`dots`] asks for.
#[cfg(target_arch = "x86_64")]
const PREFETCH_DISTANCE: usize = 16;

/// Tables of fewer numbers than this stay in the second-level cache and are not prefetched.
#[cfg(target_arch = "x86_64")]
const PREFETCH_TABLE: usize = 1 << 18;

/// Numbers of `f32` in the longest vector of any level.
const LONGEST_VECTOR: usize = 16;

/// The environment variable that forces a level, for tests and for measurements.
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

impl Level {
    /// The level that multiplies rows in fewer bits: its vectors are read whole, so none is longer than a row.
    fn for_rows_of(self, dimension: usize) -> Self {
        if dimension < LONGEST_VECTOR {
            Self::SCALAR
        } else {
            self
        }
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
/// `scores`; returns `false`, having written nothing, if the table lacks one of those rows.
///
/// Rows beyond those are only prefetched: pass what comes next, if it is known.
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

/// Writes coordinate k of row i to lane i of `panel[k]`; lanes beyond the rows keep what they held.
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

/// Elsewhere the plain loop does.
#[cfg(not(target_arch = "x86_64"))]
fn transpose_four(_rows: &[f32], _panel: &mut [Lanes], _lane: usize) -> usize {
    0
}

/// Asks for numbers that will be needed before long.
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

/// Writes rows of a table of whole numbers, one after the other as `f32`, each times the scale of its row.
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

/// The dot product of one pair, in the arithmetic of [`dot_tile`]: the same bits.
#[must_use]
pub fn sequential_dot(level: Level, left: &[f32], right: &[f32]) -> f32 {
    dispatch!(level, sequential_dot(left, right))
}

/// The dot product of a query with each row of a panel, and each row's squared norm, in the arithmetic of
/// [`dot_tile`] and [`panel_norms`]: the same bits, without transposing the panel first. Lanes beyond the rows
/// are set to 0.
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

/// Whether a level has [`products`] that are faster than [`sequential_dots`].
#[must_use]
pub fn has_vectors(level: Level) -> bool {
    match level.0 {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 | Kind::Avx2 => true,
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => false,
        Kind::Scalar => false,
    }
}

/// The dot product of a query with each row of a panel, and each row's squared norm, as [`sequential_dots`], but
/// summed in whatever order is fastest.
///
/// # Panics
/// As [`sequential_dots`].
pub fn products(
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
        dispatch!(level, products(query, rows, products, &mut norms.0));
    }
}

/// [`products`] with rows of bfloat16, the upper halves of `f32`.
///
/// # Panics
/// As [`products`].
pub fn products_of_bf16(
    level: Level,
    query: &[f32],
    rows: &[u16],
    products: &mut [f32; LANES],
    norms: &mut Lanes,
) {
    let dimension = query.len();
    check_panel(dimension, rows.len());
    products.fill(0.0);
    norms.0.fill(0.0);
    if dimension > 0 {
        let level = level.for_rows_of(dimension);
        dispatch!(level, products_of_bf16(query, rows, products, &mut norms.0));
    }
}

/// [`products`] with rows of whole numbers.
///
/// # Panics
/// As [`products`].
pub fn products_of_int8(
    level: Level,
    query: &[f32],
    rows: &[i8],
    products: &mut [f32; LANES],
    norms: &mut Lanes,
) {
    let dimension = query.len();
    check_panel(dimension, rows.len());
    products.fill(0.0);
    norms.0.fill(0.0);
    if dimension > 0 {
        let level = level.for_rows_of(dimension);
        dispatch!(level, products_of_int8(query, rows, products, &mut norms.0));
    }
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

/// Turns the dot products in rows of a tile into squared distances: |q|² + |e|² − 2 q·e.
///
/// Returns whether all of them are finite. Where they are not, infinities may have cancelled, and the caller
/// takes the distance of the pair itself.
#[must_use]
pub fn tile_to_squared_distances(
    level: Level,
    rows: &mut [[f32; LANES]],
    query_norms: &QueryCoordinates,
    item_norms: &Lanes,
) -> bool {
    dispatch!(
        level,
        tile_to_squared_distances(rows, query_norms, item_norms)
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

/// Compares scores with a threshold.
#[must_use]
pub fn count(level: Level, scores: &[f32], threshold: f32) -> Counts {
    dispatch!(level, count(scores, threshold))
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

/// Kernels in plain Rust. The vector levels compile some of them again, with their own instructions.
mod scalar {
    use super::{Counts, LANES, LONGEST_VECTOR, Lanes, QueryCoordinates, Table, Tile};
    use super::{score_from_squared_distance, squared_distance_from_dot};

    /// Partial sums of a row: enough for the compiler to fill registers.
    const PARTIAL_SUMS: usize = 16;

    /// Scores are counted in 32-bit lanes; no part is long enough to overflow them.
    const COUNTED_AT_ONCE: usize = 1 << 16;

    /// a·b + c: one instruction and one rounding where `FUSED`, two of each where not.
    #[inline(always)]
    pub(super) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
        if FUSED { a.mul_add(b, c) } else { a * b + c }
    }

    /// Whether a table of `rows` rows has all of these. No short cut, so that several are compared at a time.
    #[inline(always)]
    pub(super) fn are_rows(numbers: &[i64], rows: usize) -> bool {
        let missing = numbers.iter().filter(|&&row| row as u64 >= rows as u64);
        missing.count() == 0
    }

    pub(super) fn row_scores<const SQUARED_DISTANCE: bool>(
        query: &[f32],
        table: Table,
        rows: &[i64],
        scores: &mut [f32],
    ) -> bool {
        let rows = &rows[..scores.len()];
        let all_exist = are_rows(rows, table.rows);
        if all_exist {
            for (score, &row) in scores.iter_mut().zip(rows) {
                let row = &table.values[row as usize * table.columns..][..table.columns];
                *score = row_score::<SQUARED_DISTANCE>(query, row);
            }
        }
        all_exist
    }

    #[inline]
    fn row_score<const SQUARED_DISTANCE: bool>(query: &[f32], row: &[f32]) -> f32 {
        let mut sums = [0.0_f32; PARTIAL_SUMS];
        let mut queries = query.chunks_exact(PARTIAL_SUMS);
        let mut rows = row.chunks_exact(PARTIAL_SUMS);
        for (q, e) in queries.by_ref().zip(rows.by_ref()) {
            for lane in 0..PARTIAL_SUMS {
                sums[lane] += term::<SQUARED_DISTANCE>(q[lane], e[lane]);
            }
        }
        for (sum, (&q, &e)) in sums
            .iter_mut()
            .zip(queries.remainder().iter().zip(rows.remainder()))
        {
            *sum += term::<SQUARED_DISTANCE>(q, e);
        }
        let mut width = PARTIAL_SUMS;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                sums[lane] += sums[lane + width];
            }
        }
        sums[0]
    }

    #[inline(always)]
    fn term<const SQUARED_DISTANCE: bool>(q: f32, e: f32) -> f32 {
        if SQUARED_DISTANCE {
            (q - e) * (q - e)
        } else {
            q * e
        }
    }

    pub(super) fn dot_tile(panel: &[Lanes], queries: &[QueryCoordinates], tile: &mut Tile) {
        for (query, products) in tile.0.iter_mut().enumerate() {
            let mut sums = [0.0_f32; LANES];
            for (items, coordinates) in panel.iter().zip(queries) {
                for (sum, &item) in sums.iter_mut().zip(&items.0) {
                    *sum += coordinates[query] * item;
                }
            }
            *products = sums;
        }
    }

    #[inline(always)]
    pub(super) fn sequential_dot_of<const FUSED: bool>(left: &[f32], right: &[f32]) -> f32 {
        left.iter()
            .zip(right)
            .fold(0.0, |sum, (&l, &r)| multiply_add::<FUSED>(l, r, sum))
    }

    #[inline(always)]
    pub(super) fn sequential_squared_distance_of<const FUSED: bool>(
        left: &[f32],
        right: &[f32],
    ) -> f32 {
        left.iter().zip(right).fold(0.0, |sum, (&l, &r)| {
            multiply_add::<FUSED>(l - r, l - r, sum)
        })
    }

    #[inline(always)]
    pub(super) fn panel_norms_of<const FUSED: bool>(panel: &[Lanes]) -> Lanes {
        let mut norms = [0.0; LANES];
        for items in panel {
            for (norm, &item) in norms.iter_mut().zip(&items.0) {
                *norm = multiply_add::<FUSED>(item, item, *norm);
            }
        }
        Lanes(norms)
    }

    #[inline(always)]
    pub(super) fn sequential_dots_of<const FUSED: bool>(
        query: &[f32],
        rows: &[f32],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        let results = products.iter_mut().zip(norms);
        for (row, (product, norm)) in rows.chunks_exact(query.len()).zip(results) {
            *product = sequential_dot_of::<FUSED>(query, row);
            *norm = sequential_dot_of::<FUSED>(row, row);
        }
    }

    pub(super) fn sequential_dots(
        query: &[f32],
        rows: &[f32],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        sequential_dots_of::<false>(query, rows, products, norms);
    }

    pub(super) use self::sequential_dots as products;

    pub(super) fn sequential_dot(left: &[f32], right: &[f32]) -> f32 {
        sequential_dot_of::<false>(left, right)
    }

    pub(super) fn sequential_squared_distance(left: &[f32], right: &[f32]) -> f32 {
        sequential_squared_distance_of::<false>(left, right)
    }

    pub(super) fn panel_norms(panel: &[Lanes]) -> Lanes {
        panel_norms_of::<false>(panel)
    }

    #[inline(always)]
    pub(super) fn tile_to_squared_distances(
        rows: &mut [[f32; LANES]],
        query_norms: &QueryCoordinates,
        item_norms: &Lanes,
    ) -> bool {
        let mut all_finite = true;
        for (products, &query_norm) in rows.iter_mut().zip(query_norms) {
            let mut finite = true;
            for (product, &item_norm) in products.iter_mut().zip(&item_norms.0) {
                *product = squared_distance_from_dot(*product, query_norm, item_norm);
                finite &= product.abs() < f32::INFINITY;
            }
            all_finite &= finite;
        }
        all_finite
    }

    #[inline(always)]
    pub(super) fn scores_from_squared_distances(distances: &mut [f32], root: bool) {
        for distance in distances {
            *distance = score_from_squared_distance(*distance, root);
        }
    }

    #[inline(always)]
    pub(super) fn add_bias_to_tile(rows: &mut [[f32; LANES]], bias: &Lanes) {
        for scores in rows {
            for (score, &bias) in scores.iter_mut().zip(&bias.0) {
                *score += bias;
            }
        }
    }

    pub(super) fn count_tile(
        tile: &Tile,
        items: usize,
        thresholds: &QueryCoordinates,
        counts: &mut [Counts],
    ) {
        for ((scores, &threshold), counts) in tile.0.iter().zip(thresholds).zip(counts) {
            *counts += count(&scores[..items], threshold);
        }
    }

    pub(super) fn count(scores: &[f32], threshold: f32) -> Counts {
        let mut counts = Counts::default();
        for part in scores.chunks(COUNTED_AT_ONCE) {
            counts += count_part(part, threshold);
        }
        counts
    }

    #[inline(always)]
    pub(super) fn widen_bf16(
        bits: &[u16],
        columns: usize,
        rows: impl Iterator<Item = usize>,
        values: &mut [f32],
    ) {
        for (row, values) in rows.zip(values.chunks_exact_mut(columns)) {
            let bits = &bits[row * columns..][..columns];
            widen(bits, values, |bits| f32::from_bits(u32::from(bits) << 16));
        }
    }

    #[inline(always)]
    pub(super) fn widen_int8(
        codes: &[i8],
        scales: &[f32],
        columns: usize,
        rows: impl Iterator<Item = usize>,
        values: &mut [f32],
    ) {
        for (row, values) in rows.zip(values.chunks_exact_mut(columns)) {
            let (codes, scale) = (&codes[row * columns..][..columns], scales[row]);
            widen(codes, values, |code| f32::from(code) * scale);
        }
    }

    pub(super) fn products_of_bf16(
        query: &[f32],
        rows: &[u16],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        let number = |bits| f32::from_bits(u32::from(bits) << 16);
        products_of(query, rows, products, norms, number);
    }

    pub(super) fn products_of_int8(
        query: &[f32],
        rows: &[i8],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        products_of(query, rows, products, norms, f32::from);
    }

    fn products_of<T: Copy>(
        query: &[f32],
        rows: &[T],
        products: &mut [f32],
        norms: &mut [f32],
        number: impl Fn(T) -> f32,
    ) {
        let results = products.iter_mut().zip(norms);
        for (row, (product, norm)) in rows.chunks_exact(query.len()).zip(results) {
            for (q, &e) in query.iter().zip(row) {
                let e = number(e);
                *product += q * e;
                *norm += e * e;
            }
        }
    }

    /// Writes numbers as `f32`, sixteen at a time: the last of them are written twice if they are fewer.
    #[inline(always)]
    fn widen<T: Copy>(numbers: &[T], values: &mut [f32], number: impl Fn(T) -> f32) {
        const AT_ONCE: usize = LONGEST_VECTOR;
        let parts = numbers.as_chunks::<AT_ONCE>().0.iter();
        for (numbers, values) in parts.zip(values.as_chunks_mut::<AT_ONCE>().0) {
            *values = numbers.map(&number);
        }
        match (
            numbers.last_chunk::<AT_ONCE>(),
            values.last_chunk_mut::<AT_ONCE>(),
        ) {
            (Some(numbers), Some(values)) => *values = numbers.map(&number),
            _ => {
                for (value, &rest) in values.iter_mut().zip(numbers) {
                    *value = number(rest);
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn ones(words: &[u64]) -> u64 {
        words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    #[allow(clippy::float_cmp)] // a tie is a tie to the last bit
    fn count_part(scores: &[f32], threshold: f32) -> Counts {
        let (mut greater, mut equal, mut nan) = (0_u32, 0_u32, 0_u32);
        for &score in scores {
            greater += u32::from(score > threshold);
            equal += u32::from(score == threshold);
            nan += u32::from(score.is_nan());
        }
        Counts {
            greater: greater.into(),
            equal: equal.into(),
            nan: nan.into(),
        }
    }
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
        pub(super) fn ones(words: &[u64]) -> u64 {
            scalar::ones(words)
        }

        #[target_feature(enable = $features)]
        pub(super) fn panel_norms(panel: &[Lanes]) -> Lanes {
            scalar::panel_norms_of::<true>(panel)
        }

        #[target_feature(enable = $features)]
        pub(super) fn tile_to_squared_distances(
            rows: &mut [[f32; LANES]],
            query_norms: &QueryCoordinates,
            item_norms: &Lanes,
        ) -> bool {
            scalar::tile_to_squared_distances(rows, query_norms, item_norms)
        }

        #[target_feature(enable = $features)]
        pub(super) fn scores_from_squared_distances(distances: &mut [f32], root: bool) {
            scalar::scores_from_squared_distances(distances, root);
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

/// Where the rows of one step of [`dots`] begin; past the last of `rows`, that row again.
///
/// The caller has checked that the table has them.
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

/// Asks for the rows that come `PREFETCH_DISTANCE` after the first of `rows`, as many as one step takes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_rows(table: Table, rows: &[i64]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    if table.values.len() < PREFETCH_TABLE {
        return;
    }
    // Nobody has checked these rows yet; a prefetch of an address that does not exist does nothing.
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

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _CMP_EQ_OQ, _CMP_GT_OQ, _CMP_UNORD_Q, _mm_loadu_si128, _mm256_loadu_si256,
        _mm256_storeu_ps, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd,
        _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
        _mm512_cvtepu16_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_cmp_ps_mask,
        _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_shuffle_f32x4, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_sub_ps,
        _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    use super::{
        Counts, LANES, Lanes, QUERIES, QueryCoordinates, ROWS, Table, Tile, block_of_rows,
        prefetch_rows,
    };

    compile_plain_kernels!("avx512f,avx2,fma,popcnt");

    // The version for AVX2 serves here too.
    pub(super) use super::avx2::sequential_dots;

    const WIDTH: usize = 16;

    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn row_scores<const SQUARED_DISTANCE: bool>(
        query: &[f32],
        table: Table,
        rows: &[i64],
        scores: &mut [f32],
    ) -> bool {
        let whole = query.len() / WIDTH * WIDTH;
        let rest = (1_u16 << (query.len() - whole)) - 1;
        let needed = &rows[..scores.len()];
        if !scalar::are_rows(needed, table.rows) {
            return false;
        }
        for (block, scores) in scores.chunks_mut(ROWS).enumerate() {
            let first = block * ROWS;
            prefetch_rows(table, &rows[first..]);
            let pointers = block_of_rows(table, &needed[first..]);
            let mut sums = [_mm512_setzero_ps(); ROWS];
            for k in (0..whole).step_by(WIDTH) {
                // SAFETY: k + WIDTH ≤ whole ≤ the length of the query and of the rows, which the table has.
                unsafe {
                    let q = _mm512_loadu_ps(query.as_ptr().add(k));
                    for (sum, pointer) in sums.iter_mut().zip(pointers) {
                        *sum =
                            add_term::<SQUARED_DISTANCE>(q, _mm512_loadu_ps(pointer.add(k)), *sum);
                    }
                }
            }
            if rest != 0 {
                // SAFETY: the mask admits the elements from `whole` to the length of the query and the rows.
                unsafe {
                    let q = _mm512_maskz_loadu_ps(rest, query.as_ptr().add(whole));
                    for (sum, pointer) in sums.iter_mut().zip(pointers) {
                        let e = _mm512_maskz_loadu_ps(rest, pointer.add(whole));
                        *sum = add_term::<SQUARED_DISTANCE>(q, e, *sum);
                    }
                }
            }
            let totals = add_lanes(&sums);
            match scores.first_chunk_mut::<ROWS>() {
                Some(scores) => *scores = totals,
                None => scores.copy_from_slice(&totals[..scores.len()]),
            }
        }
        true
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    fn add_term<const SQUARED_DISTANCE: bool>(q: __m512, e: __m512, sum: __m512) -> __m512 {
        if SQUARED_DISTANCE {
            let difference = _mm512_sub_ps(q, e);
            _mm512_fmadd_ps(difference, difference, sum)
        } else {
            _mm512_fmadd_ps(q, e, sum)
        }
    }

    /// The sum over the lanes of each of eight registers, all in the same order.
    #[inline]
    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    fn add_lanes(sums: &[__m512; ROWS]) -> [f32; ROWS] {
        let pair = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let four = |a, b| {
            let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
            _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)),
            )
        };
        // Each 128-bit quarter now holds four rows' sums over that quarter.
        let low = four(pair(sums[0], sums[1]), pair(sums[2], sums[3]));
        let high = four(pair(sums[4], sums[5]), pair(sums[6], sums[7]));
        let halves = _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(low, high),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(low, high),
        );
        let whole = _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(halves, halves),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(halves, halves),
        );
        let mut totals = [0.0; ROWS];
        // SAFETY: eight numbers into an array of eight.
        unsafe { _mm256_storeu_ps(totals.as_mut_ptr(), _mm512_castps512_ps256(whole)) };
        totals
    }

    /// Rows that [`products`] works on at a time: their products and norms are as many sums as [`add_lanes`] takes.
    const ROWS_OF_PRODUCTS: usize = ROWS / 2;

    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn products(query: &[f32], rows: &[f32], products: &mut [f32], norms: &mut [f32]) {
        // SAFETY: the caller has as many numbers to be read.
        let load = |numbers| unsafe { _mm512_loadu_ps(numbers) };
        // SAFETY: the mask admits numbers that the caller has.
        let load_last = |numbers, mask| unsafe { _mm512_maskz_loadu_ps(mask, numbers) };
        products_of(query, rows, products, norms, load, load_last);
    }

    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn products_of_bf16(
        query: &[f32],
        rows: &[u16],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        let load = |numbers: *const u16| {
            // SAFETY: the caller has as many numbers to be read.
            let bits = unsafe { _mm256_loadu_si256(numbers.cast()) };
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        };
        let load_last = |numbers, mask| _mm512_maskz_mov_ps(mask, load(numbers));
        products_of(query, rows, products, norms, load, load_last);
    }

    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn products_of_int8(
        query: &[f32],
        rows: &[i8],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        let load = |numbers: *const i8| {
            // SAFETY: the caller has as many numbers to be read.
            let codes = unsafe { _mm_loadu_si128(numbers.cast()) };
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))
        };
        let load_last = |numbers, mask| _mm512_maskz_mov_ps(mask, load(numbers));
        products_of(query, rows, products, norms, load, load_last);
    }

    /// `load` reads a vector, `load_last` those numbers of the last vector of a row that the mask admits: the
    /// others were read before.
    #[inline]
    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    fn products_of<T>(
        query: &[f32],
        rows: &[T],
        products: &mut [f32],
        norms: &mut [f32],
        load: impl Fn(*const T) -> __m512,
        load_last: impl Fn(*const T, u16) -> __m512,
    ) {
        let dimension = query.len();
        let whole = dimension / WIDTH * WIDTH;
        let last = dimension as isize - WIDTH as isize;
        let rest = !0_u16 << (WIDTH - (dimension - whole)).min(WIDTH - 1);
        let results = products
            .chunks_mut(ROWS_OF_PRODUCTS)
            .zip(norms.chunks_mut(ROWS_OF_PRODUCTS));
        for (rows, (products, norms)) in rows.chunks(ROWS_OF_PRODUCTS * dimension).zip(results) {
            let count = rows.len() / dimension;
            let pointers: [_; ROWS_OF_PRODUCTS] =
                std::array::from_fn(|row| rows[row.min(count - 1) * dimension..].as_ptr());
            let mut sums = [_mm512_setzero_ps(); ROWS];
            let mut add = |q, rows: [__m512; ROWS_OF_PRODUCTS]| {
                for (row, e) in rows.into_iter().enumerate() {
                    sums[row] = _mm512_fmadd_ps(q, e, sums[row]);
                    let norm = &mut sums[ROWS_OF_PRODUCTS + row];
                    *norm = _mm512_fmadd_ps(e, e, *norm);
                }
            };
            for k in (0..whole).step_by(WIDTH) {
                // SAFETY: k + WIDTH ≤ whole ≤ the length of the query and of each row.
                let (q, rows) = unsafe {
                    let q = _mm512_loadu_ps(query.as_ptr().add(k));
                    (q, pointers.map(|row| row.add(k)))
                };
                add(q, rows.map(&load));
            }
            if whole < dimension {
                // SAFETY: the mask admits the numbers from `whole` to the length of the query.
                let q =
                    unsafe { _mm512_maskz_loadu_ps(rest, query.as_ptr().wrapping_offset(last)) };
                add(
                    q,
                    pointers.map(|row| load_last(row.wrapping_offset(last), rest)),
                );
            }
            let totals = add_lanes(&sums);
            if count == ROWS_OF_PRODUCTS {
                // The same, of a length that the compiler knows.
                products.copy_from_slice(&totals[..ROWS_OF_PRODUCTS]);
                norms.copy_from_slice(&totals[ROWS_OF_PRODUCTS..]);
            } else {
                products[..count].copy_from_slice(&totals[..count]);
                norms[..count].copy_from_slice(&totals[ROWS_OF_PRODUCTS..][..count]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn count(scores: &[f32], threshold: f32) -> Counts {
        let threshold = _mm512_set1_ps(threshold);
        let (mut greater, mut equal, mut nan) = (0, 0, 0);
        let mut compare = |scores, lanes| {
            let above = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(lanes, scores, threshold);
            let level = _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(lanes, scores, threshold);
            let not_a_number = _mm512_mask_cmp_ps_mask::<_CMP_UNORD_Q>(lanes, scores, scores);
            greater += u64::from(above.count_ones());
            equal += u64::from(level.count_ones());
            nan += u64::from(not_a_number.count_ones());
        };
        let (whole, rest) = scores.as_chunks::<WIDTH>();
        for scores in whole {
            // SAFETY: sixteen numbers.
            compare(unsafe { _mm512_loadu_ps(scores.as_ptr()) }, u16::MAX);
        }
        if !rest.is_empty() {
            let lanes = (1 << rest.len()) - 1;
            // SAFETY: the mask admits as many numbers as are left.
            compare(
                unsafe { _mm512_maskz_loadu_ps(lanes, rest.as_ptr()) },
                lanes,
            );
        }
        Counts {
            greater,
            equal,
            nan,
        }
    }

    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn count_tile(
        tile: &Tile,
        items: usize,
        thresholds: &QueryCoordinates,
        counts: &mut [Counts],
    ) {
        for ((scores, &threshold), counts) in tile.0.iter().zip(thresholds).zip(counts) {
            *counts += count(&scores[..items], threshold);
        }
    }

    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn dot_tile(panel: &[Lanes], queries: &[QueryCoordinates], tile: &mut Tile) {
        let mut sums = [[_mm512_setzero_ps(); 2]; QUERIES];
        for (items, coordinates) in panel.iter().zip(queries) {
            // SAFETY: `Lanes` holds 32 numbers.
            let (low, high) = unsafe {
                (
                    _mm512_loadu_ps(items.0.as_ptr()),
                    _mm512_loadu_ps(items.0.as_ptr().add(WIDTH)),
                )
            };
            for (sum, &coordinate) in sums.iter_mut().zip(coordinates) {
                let q = _mm512_set1_ps(coordinate);
                sum[0] = _mm512_fmadd_ps(q, low, sum[0]);
                sum[1] = _mm512_fmadd_ps(q, high, sum[1]);
            }
        }
        for (row, sum) in tile.0.iter_mut().zip(sums) {
            // SAFETY: a row of the tile holds 32 numbers.
            unsafe {
                _mm512_storeu_ps(row.as_mut_ptr(), sum[0]);
                _mm512_storeu_ps(row.as_mut_ptr().add(WIDTH), sum[1]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256i, _CMP_EQ_OQ, _CMP_GT_OQ, _CMP_UNORD_Q, _mm_add_epi32, _mm_cvtsi128_si32,
        _mm_loadl_epi64, _mm_loadu_ps, _mm_loadu_si128, _mm_shuffle_epi32, _mm_unpackhi_epi64,
        _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_castpd_ps, _mm256_castps_pd,
        _mm256_castps_si256, _mm256_castps128_ps256, _mm256_castsi256_ps, _mm256_castsi256_si128,
        _mm256_cmp_ps, _mm256_cmpgt_epi32, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
        _mm256_cvtepu16_epi32, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_insertf128_ps,
        _mm256_loadu_ps, _mm256_maskload_ps, _mm256_permute2f128_ps, _mm256_set1_epi32,
        _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_setzero_si256,
        _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps, _mm256_unpackhi_pd,
        _mm256_unpackhi_ps, _mm256_unpacklo_pd, _mm256_unpacklo_ps,
    };

    use super::{
        Counts, LANES, Lanes, QUERIES, QueryCoordinates, ROWS, Table, Tile, block_of_rows,
        prefetch_rows,
    };

    compile_plain_kernels!("avx2,fma,popcnt");

    const WIDTH: usize = 8;

    /// Two registers of items and six queries: 12 of the 16 registers hold sums.
    const ITEMS_AT_ONCE: usize = 2 * WIDTH;
    const QUERIES_AT_ONCE: usize = 6;

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn row_scores<const SQUARED_DISTANCE: bool>(
        query: &[f32],
        table: Table,
        rows: &[i64],
        scores: &mut [f32],
    ) -> bool {
        let whole = query.len() / WIDTH * WIDTH;
        let rest = query.len() - whole;
        let mask = first_lanes(rest);
        let needed = &rows[..scores.len()];
        if !scalar::are_rows(needed, table.rows) {
            return false;
        }
        for (block, scores) in scores.chunks_mut(ROWS).enumerate() {
            let first = block * ROWS;
            prefetch_rows(table, &rows[first..]);
            let pointers = block_of_rows(table, &needed[first..]);
            let mut sums = [_mm256_setzero_ps(); ROWS];
            for k in (0..whole).step_by(WIDTH) {
                // SAFETY: k + WIDTH ≤ whole ≤ the length of the query and of the rows, which the table has.
                unsafe {
                    let q = _mm256_loadu_ps(query.as_ptr().add(k));
                    for (sum, pointer) in sums.iter_mut().zip(pointers) {
                        *sum =
                            add_term::<SQUARED_DISTANCE>(q, _mm256_loadu_ps(pointer.add(k)), *sum);
                    }
                }
            }
            if rest != 0 {
                // SAFETY: the mask admits the elements from `whole` to the length of the query and the rows.
                unsafe {
                    let q = _mm256_maskload_ps(query.as_ptr().add(whole), mask);
                    for (sum, pointer) in sums.iter_mut().zip(pointers) {
                        let e = _mm256_maskload_ps(pointer.add(whole), mask);
                        *sum = add_term::<SQUARED_DISTANCE>(q, e, *sum);
                    }
                }
            }
            let totals = add_lanes(&sums);
            match scores.first_chunk_mut::<ROWS>() {
                Some(scores) => *scores = totals,
                None => scores.copy_from_slice(&totals[..scores.len()]),
            }
        }
        true
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn add_term<const SQUARED_DISTANCE: bool>(q: __m256, e: __m256, sum: __m256) -> __m256 {
        if SQUARED_DISTANCE {
            let difference = _mm256_sub_ps(q, e);
            _mm256_fmadd_ps(difference, difference, sum)
        } else {
            _mm256_fmadd_ps(q, e, sum)
        }
    }

    /// The sum over the lanes of each of eight registers, all in the same order.
    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn add_lanes(sums: &[__m256; ROWS]) -> [f32; ROWS] {
        let pair = |a, b| _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let four = |a, b| {
            let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
            _mm256_add_ps(
                _mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)),
            )
        };
        // Each 128-bit half now holds four rows' sums over that half.
        let low = four(pair(sums[0], sums[1]), pair(sums[2], sums[3]));
        let high = four(pair(sums[4], sums[5]), pair(sums[6], sums[7]));
        let whole = _mm256_add_ps(
            _mm256_permute2f128_ps::<0x20>(low, high),
            _mm256_permute2f128_ps::<0x31>(low, high),
        );
        let mut totals = [0.0; ROWS];
        // SAFETY: eight numbers into an array of eight.
        unsafe { _mm256_storeu_ps(totals.as_mut_ptr(), whole) };
        totals
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn sequential_dots(
        query: &[f32],
        rows: &[f32],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        let dimension = query.len();
        let groups = rows.chunks(ITEMS_AT_ONCE * dimension);
        let results = products
            .chunks_mut(ITEMS_AT_ONCE)
            .zip(norms.chunks_mut(ITEMS_AT_ONCE));
        for (rows, (products, norms)) in groups.zip(results) {
            if rows.len() < ITEMS_AT_ONCE * dimension || dimension < COLUMNS {
                scalar::sequential_dots_of::<true>(query, rows, products, norms);
                continue;
            }
            // Each sum is one chain of additions; two sets of rows keep the adders busy.
            let mut sums = [[_mm256_setzero_ps(); 2]; 2];
            let mut add_step = |first: usize, used_up: usize| {
                // SAFETY: sixteen rows of `dimension` numbers, and first + COLUMNS ≤ dimension.
                let columns = unsafe {
                    let start = rows.as_ptr().add(first);
                    [
                        transpose_eight_rows(start, dimension),
                        transpose_eight_rows(start.add(WIDTH * dimension), dimension),
                    ]
                };
                for column in used_up..COLUMNS {
                    let q = _mm256_set1_ps(query[first + column]);
                    for (sums, columns) in sums.iter_mut().zip(&columns) {
                        let e = columns[column];
                        sums[0] = _mm256_fmadd_ps(q, e, sums[0]);
                        sums[1] = _mm256_fmadd_ps(e, e, sums[1]);
                    }
                }
            };
            let rest = dimension % COLUMNS;
            for first in (0..dimension - rest).step_by(COLUMNS) {
                add_step(first, 0);
            }
            if rest > 0 {
                // The last columns, and of them those that are not used up.
                add_step(dimension - COLUMNS, COLUMNS - rest);
            }
            let parts = products.chunks_mut(WIDTH).zip(norms.chunks_mut(WIDTH));
            for ([product, norm], (products, norms)) in sums.into_iter().zip(parts) {
                // SAFETY: there are results for sixteen rows, so both parts hold eight numbers.
                unsafe {
                    _mm256_storeu_ps(products.as_mut_ptr(), product);
                    _mm256_storeu_ps(norms.as_mut_ptr(), norm);
                }
            }
        }
    }

    /// Columns that [`transpose_eight_rows`] gives.
    const COLUMNS: usize = 4;

    /// Four columns of eight rows that begin `stride` numbers apart.
    ///
    /// # Safety
    /// Four numbers can be read at each of `start`, `start + stride`, …, `start + 7 · stride`.
    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    unsafe fn transpose_eight_rows(start: *const f32, stride: usize) -> [__m256; COLUMNS] {
        // Rows r and r + 4 side by side, then two transpositions of 4 × 4 at once.
        let [a, b, c, d] = std::array::from_fn(|row| {
            // SAFETY: the caller vouches for the numbers.
            unsafe {
                let low = _mm_loadu_ps(start.add(row * stride));
                let high = _mm_loadu_ps(start.add((row + 4) * stride));
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
            }
        });
        let doubles = |low, high| [_mm256_castps_pd(low), _mm256_castps_pd(high)];
        let [ab, cd] = doubles(_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let [ab_high, cd_high] = doubles(_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        [
            _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
            _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high)),
            _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high)),
        ]
    }

    /// Rows that [`products`] works on at a time: their products and norms are as many sums as [`add_lanes`] takes.
    const ROWS_OF_PRODUCTS: usize = ROWS / 2;

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn products(query: &[f32], rows: &[f32], products: &mut [f32], norms: &mut [f32]) {
        // SAFETY: the caller has as many numbers to be read.
        let load = |numbers| unsafe { _mm256_loadu_ps(numbers) };
        // SAFETY: the mask admits numbers that the caller has.
        let load_last = |numbers, mask| unsafe { _mm256_maskload_ps(numbers, mask) };
        products_of(query, rows, products, norms, load, load_last);
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn products_of_bf16(
        query: &[f32],
        rows: &[u16],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        let load = |numbers: *const u16| {
            // SAFETY: the caller has as many numbers to be read.
            let bits = unsafe { _mm_loadu_si128(numbers.cast()) };
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
        };
        let load_last = |numbers, mask| _mm256_and_ps(_mm256_castsi256_ps(mask), load(numbers));
        products_of(query, rows, products, norms, load, load_last);
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn products_of_int8(
        query: &[f32],
        rows: &[i8],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        let load = |numbers: *const i8| {
            // SAFETY: the caller has as many numbers to be read.
            let codes = unsafe { _mm_loadl_epi64(numbers.cast()) };
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))
        };
        let load_last = |numbers, mask| _mm256_and_ps(_mm256_castsi256_ps(mask), load(numbers));
        products_of(query, rows, products, norms, load, load_last);
    }

    /// `load` reads a vector, `load_last` those numbers of the last vector of a row that the mask admits: the
    /// others were read before.
    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn products_of<T>(
        query: &[f32],
        rows: &[T],
        products: &mut [f32],
        norms: &mut [f32],
        load: impl Fn(*const T) -> __m256,
        load_last: impl Fn(*const T, __m256i) -> __m256,
    ) {
        let dimension = query.len();
        let whole = dimension / WIDTH * WIDTH;
        let last = dimension as isize - WIDTH as isize;
        let rest = last_lanes(dimension - whole);
        let results = products
            .chunks_mut(ROWS_OF_PRODUCTS)
            .zip(norms.chunks_mut(ROWS_OF_PRODUCTS));
        for (rows, (products, norms)) in rows.chunks(ROWS_OF_PRODUCTS * dimension).zip(results) {
            let count = rows.len() / dimension;
            let pointers: [_; ROWS_OF_PRODUCTS] =
                std::array::from_fn(|row| rows[row.min(count - 1) * dimension..].as_ptr());
            let mut sums = [_mm256_setzero_ps(); ROWS];
            let mut add = |q, rows: [__m256; ROWS_OF_PRODUCTS]| {
                for (row, e) in rows.into_iter().enumerate() {
                    sums[row] = _mm256_fmadd_ps(q, e, sums[row]);
                    let norm = &mut sums[ROWS_OF_PRODUCTS + row];
                    *norm = _mm256_fmadd_ps(e, e, *norm);
                }
            };
            for k in (0..whole).step_by(WIDTH) {
                // SAFETY: k + WIDTH ≤ whole ≤ the length of the query and of each row.
                let (q, rows) = unsafe {
                    let q = _mm256_loadu_ps(query.as_ptr().add(k));
                    (q, pointers.map(|row| row.add(k)))
                };
                add(q, rows.map(&load));
            }
            if whole < dimension {
                // SAFETY: the mask admits the numbers from `whole` to the length of the query.
                let q = unsafe { _mm256_maskload_ps(query.as_ptr().wrapping_offset(last), rest) };
                add(
                    q,
                    pointers.map(|row| load_last(row.wrapping_offset(last), rest)),
                );
            }
            let totals = add_lanes(&sums);
            if count == ROWS_OF_PRODUCTS {
                // The same, of a length that the compiler knows.
                products.copy_from_slice(&totals[..ROWS_OF_PRODUCTS]);
                norms.copy_from_slice(&totals[ROWS_OF_PRODUCTS..]);
            } else {
                products[..count].copy_from_slice(&totals[..count]);
                norms[..count].copy_from_slice(&totals[ROWS_OF_PRODUCTS..][..count]);
            }
        }
    }

    /// Counts in lanes of 32 bits: a lane sees one score in eight, and no part is long enough to overflow it.
    const COUNTED_AT_ONCE: usize = 1 << 20;

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn count(scores: &[f32], threshold: f32) -> Counts {
        let mut counts = Counts::default();
        for part in scores.chunks(COUNTED_AT_ONCE) {
            counts += count_part(part, threshold);
        }
        counts
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn count_part(scores: &[f32], threshold: f32) -> Counts {
        let threshold = _mm256_set1_ps(threshold);
        let mut counts = [_mm256_setzero_si256(); 3];
        let mut compare = |scores, lanes| {
            let holds = [
                _mm256_cmp_ps::<_CMP_GT_OQ>(scores, threshold),
                _mm256_cmp_ps::<_CMP_EQ_OQ>(scores, threshold),
                _mm256_cmp_ps::<_CMP_UNORD_Q>(scores, scores),
            ];
            for (count, holds) in counts.iter_mut().zip(holds) {
                // A lane in which it holds is -1.
                let holds = _mm256_and_si256(_mm256_castps_si256(holds), lanes);
                *count = _mm256_sub_epi32(*count, holds);
            }
        };
        let (whole, rest) = scores.as_chunks::<WIDTH>();
        for scores in whole {
            // SAFETY: eight numbers.
            compare(
                unsafe { _mm256_loadu_ps(scores.as_ptr()) },
                _mm256_set1_epi32(-1),
            );
        }
        if !rest.is_empty() {
            let lanes = first_lanes(rest.len());
            // SAFETY: the mask admits as many numbers as are left.
            compare(unsafe { _mm256_maskload_ps(rest.as_ptr(), lanes) }, lanes);
        }
        let [greater, equal, nan] = counts.map(|count| u64::from(add_integers(count)));
        Counts {
            greater,
            equal,
            nan,
        }
    }

    /// All bits of the last lanes.
    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn last_lanes(lanes: usize) -> __m256i {
        _mm256_cmpgt_epi32(
            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
            _mm256_set1_epi32(WIDTH as i32 - 1 - lanes as i32),
        )
    }

    /// All bits of the first lanes, none of the others.
    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn first_lanes(lanes: usize) -> __m256i {
        _mm256_cmpgt_epi32(
            _mm256_set1_epi32(lanes as i32),
            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
        )
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn add_integers(lanes: __m256i) -> u32 {
        let four = _mm_add_epi32(
            _mm256_castsi256_si128(lanes),
            _mm256_extracti128_si256::<1>(lanes),
        );
        let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
        let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two));
        _mm_cvtsi128_si32(one) as u32
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn count_tile(
        tile: &Tile,
        items: usize,
        thresholds: &QueryCoordinates,
        counts: &mut [Counts],
    ) {
        for ((scores, &threshold), counts) in tile.0.iter().zip(thresholds).zip(counts) {
            *counts += count_part(&scores[..items], threshold);
        }
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn dot_tile(panel: &[Lanes], queries: &[QueryCoordinates], tile: &mut Tile) {
        for first_item in (0..LANES).step_by(ITEMS_AT_ONCE) {
            for first_query in (0..QUERIES).step_by(QUERIES_AT_ONCE) {
                let mut sums = [[_mm256_setzero_ps(); 2]; QUERIES_AT_ONCE];
                for (items, coordinates) in panel.iter().zip(queries) {
                    // SAFETY: first_item + 2 · WIDTH ≤ LANES, the number of items of `Lanes`.
                    let (low, high) = unsafe {
                        let pointer = items.0.as_ptr().add(first_item);
                        (
                            _mm256_loadu_ps(pointer),
                            _mm256_loadu_ps(pointer.add(WIDTH)),
                        )
                    };
                    for (query, sum) in sums.iter_mut().enumerate() {
                        let q = _mm256_set1_ps(coordinates[first_query + query]);
                        sum[0] = _mm256_fmadd_ps(q, low, sum[0]);
                        sum[1] = _mm256_fmadd_ps(q, high, sum[1]);
                    }
                }
                for (query, sum) in sums.into_iter().enumerate() {
                    let row = &mut tile.0[first_query + query];
                    // SAFETY: first_item + 2 · WIDTH ≤ LANES, the number of items of a row of the tile.
                    unsafe {
                        let pointer = row.as_mut_ptr().add(first_item);
                        _mm256_storeu_ps(pointer, sum[0]);
                        _mm256_storeu_ps(pointer.add(WIDTH), sum[1]);
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::{
        float32x4_t, vdupq_n_f32, vfmaq_f32, vld1q_f32, vpaddq_f32, vst1q_f32, vsubq_f32,
    };

    use super::{
        Counts, LANES, Lanes, QUERIES, QueryCoordinates, ROWS, Table, Tile, block_of_rows,
    };

    compile_plain_kernels!("neon");

    #[target_feature(enable = "neon")]
    pub(super) fn sequential_dots(
        query: &[f32],
        rows: &[f32],
        products: &mut [f32],
        norms: &mut [f32],
    ) {
        scalar::sequential_dots_of::<true>(query, rows, products, norms);
    }

    pub(super) use self::sequential_dots as products;
    pub(super) use super::scalar::{products_of_bf16, products_of_int8};

    const WIDTH: usize = 4;

    /// Four registers of items and six queries: 24 of the 32 registers hold sums.
    const REGISTERS_AT_ONCE: usize = 4;
    const QUERIES_AT_ONCE: usize = 6;

    #[target_feature(enable = "neon")]
    pub(super) fn row_scores<const SQUARED_DISTANCE: bool>(
        query: &[f32],
        table: Table,
        rows: &[i64],
        scores: &mut [f32],
    ) -> bool {
        let whole = query.len() / WIDTH * WIDTH;
        let needed = &rows[..scores.len()];
        if !scalar::are_rows(needed, table.rows) {
            return false;
        }
        for (block, scores) in scores.chunks_mut(ROWS).enumerate() {
            let pointers = block_of_rows(table, &needed[block * ROWS..]);
            let mut sums = [vdupq_n_f32(0.0); ROWS];
            for k in (0..whole).step_by(WIDTH) {
                // SAFETY: k + WIDTH ≤ whole ≤ the length of the query and of the rows, which the table has.
                unsafe {
                    let q = vld1q_f32(query.as_ptr().add(k));
                    for (sum, pointer) in sums.iter_mut().zip(pointers) {
                        *sum = add_term::<SQUARED_DISTANCE>(q, vld1q_f32(pointer.add(k)), *sum);
                    }
                }
            }
            if whole < query.len() {
                // NEON has no masked loads: the rest goes through zero-padded copies.
                let q = load_rest(&query[whole..]);
                for (sum, pointer) in sums.iter_mut().zip(pointers) {
                    // SAFETY: the rows are as long as the query, and the table has them.
                    let rest = unsafe {
                        std::slice::from_raw_parts(pointer.add(whole), query.len() - whole)
                    };
                    *sum = add_term::<SQUARED_DISTANCE>(q, load_rest(rest), *sum);
                }
            }
            let totals = add_lanes(&sums);
            match scores.first_chunk_mut::<ROWS>() {
                Some(scores) => *scores = totals,
                None => scores.copy_from_slice(&totals[..scores.len()]),
            }
        }
        true
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn load_rest(values: &[f32]) -> float32x4_t {
        let mut padded = [0.0; WIDTH];
        padded[..values.len()].copy_from_slice(values);
        // SAFETY: four numbers from an array of four.
        unsafe { vld1q_f32(padded.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn add_term<const SQUARED_DISTANCE: bool>(
        q: float32x4_t,
        e: float32x4_t,
        sum: float32x4_t,
    ) -> float32x4_t {
        if SQUARED_DISTANCE {
            let difference = vsubq_f32(q, e);
            vfmaq_f32(sum, difference, difference)
        } else {
            vfmaq_f32(sum, q, e)
        }
    }

    /// The sum over the lanes of each of eight registers, all in the same order.
    #[inline]
    #[target_feature(enable = "neon")]
    fn add_lanes(sums: &[float32x4_t; ROWS]) -> [f32; ROWS] {
        let four = |a, b, c, d| vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
        let mut totals = [0.0; ROWS];
        // SAFETY: twice four numbers into an array of eight.
        unsafe {
            vst1q_f32(
                totals.as_mut_ptr(),
                four(sums[0], sums[1], sums[2], sums[3]),
            );
            vst1q_f32(
                totals.as_mut_ptr().add(WIDTH),
                four(sums[4], sums[5], sums[6], sums[7]),
            );
        }
        totals
    }

    #[target_feature(enable = "neon")]
    pub(super) fn count(scores: &[f32], threshold: f32) -> Counts {
        scalar::count(scores, threshold)
    }

    #[target_feature(enable = "neon")]
    pub(super) fn count_tile(
        tile: &Tile,
        items: usize,
        thresholds: &QueryCoordinates,
        counts: &mut [Counts],
    ) {
        scalar::count_tile(tile, items, thresholds, counts);
    }

    #[target_feature(enable = "neon")]
    pub(super) fn dot_tile(panel: &[Lanes], queries: &[QueryCoordinates], tile: &mut Tile) {
        for first_item in (0..LANES).step_by(REGISTERS_AT_ONCE * WIDTH) {
            for first_query in (0..QUERIES).step_by(QUERIES_AT_ONCE) {
                let mut sums = [[vdupq_n_f32(0.0); REGISTERS_AT_ONCE]; QUERIES_AT_ONCE];
                for (items, coordinates) in panel.iter().zip(queries) {
                    // SAFETY: first_item + REGISTERS_AT_ONCE · WIDTH ≤ LANES, the number of items of `Lanes`.
                    let items: [float32x4_t; REGISTERS_AT_ONCE] =
                        std::array::from_fn(|register| unsafe {
                            vld1q_f32(items.0.as_ptr().add(first_item + register * WIDTH))
                        });
                    for (query, sums) in sums.iter_mut().enumerate() {
                        let q = vdupq_n_f32(coordinates[first_query + query]);
                        for (sum, &item) in sums.iter_mut().zip(&items) {
                            *sum = vfmaq_f32(*sum, q, item);
                        }
                    }
                }
                for (query, sums) in sums.into_iter().enumerate() {
                    let row = &mut tile.0[first_query + query];
                    for (register, sum) in sums.into_iter().enumerate() {
                        // SAFETY: as for the loads.
                        unsafe {
                            vst1q_f32(row.as_mut_ptr().add(first_item + register * WIDTH), sum)
                        };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exactness is what is tested
mod tests;
