//! Kernels in plain Rust. The vector levels compile some of them again, with their own instructions.

use super::{Counts, LANES, Lanes, QUERIES, QueryCoordinates, Table, Tile};
use super::{score_from_squared_distance, squared_distance_from_dot};

/// Partial sums of a row: enough to fill vector registers.
const PARTIAL_SUMS: usize = 16;

/// Scores are counted in 32-bit lanes; no part is long enough to overflow them.
const COUNTED_AT_ONCE: usize = 1 << 16;

/// a·b + c: one instruction and one rounding where `FUSED`, two of each where not.
#[inline(always)]
pub(super) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Whether a table of `rows` rows has all these rows. It does not stop early, so that it can be vectorised.
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

/// Σ q · item for each lane, in the order of the coordinates.
#[inline(always)]
fn dots_of_lanes<const FUSED: bool>(
    query: &[f32],
    lanes: impl Iterator<Item = [f32; LANES]>,
    products: &mut [f32; LANES],
) {
    let mut sums = [0.0; LANES];
    for (&q, items) in query.iter().zip(lanes) {
        for (sum, &item) in sums.iter_mut().zip(&items) {
            *sum = multiply_add::<FUSED>(q, item, *sum);
        }
    }
    *products = sums;
}

#[inline(always)]
fn from_bf16(bits: [u16; LANES]) -> [f32; LANES] {
    bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
}

#[inline(always)]
fn from_int8(codes: [i8; LANES], scales: &Lanes) -> [f32; LANES] {
    let mut numbers = codes.map(f32::from);
    for (number, scale) in numbers.iter_mut().zip(&scales.0) {
        *number *= scale;
    }
    numbers
}

#[inline(always)]
pub(super) fn panel_dots_of<const FUSED: bool>(
    query: &[f32],
    panel: &[Lanes],
    products: &mut [f32; LANES],
) {
    dots_of_lanes::<FUSED>(query, panel.iter().map(|lanes| lanes.0), products);
}

#[inline(always)]
pub(super) fn panel_dots_bf16_of<const FUSED: bool>(
    query: &[f32],
    bits: &[[u16; LANES]],
    products: &mut [f32; LANES],
) {
    dots_of_lanes::<FUSED>(query, bits.iter().map(|&bits| from_bf16(bits)), products);
}

#[inline(always)]
pub(super) fn panel_dots_int8_of<const FUSED: bool>(
    query: &[f32],
    codes: &[[i8; LANES]],
    scales: &Lanes,
    products: &mut [f32; LANES],
) {
    let lanes = codes.iter().map(|&codes| from_int8(codes, scales));
    dots_of_lanes::<FUSED>(query, lanes, products);
}

#[inline(always)]
pub(super) fn widen_panel_bf16(bits: &[[u16; LANES]], panel: &mut [Lanes]) {
    for (lanes, &bits) in panel.iter_mut().zip(bits) {
        lanes.0 = from_bf16(bits);
    }
}

#[inline(always)]
pub(super) fn widen_panel_int8(codes: &[[i8; LANES]], scales: &Lanes, panel: &mut [Lanes]) {
    for (lanes, &codes) in panel.iter_mut().zip(codes) {
        lanes.0 = from_int8(codes, scales);
    }
}

pub(super) fn panel_dots(query: &[f32], panel: &[Lanes], products: &mut [f32; LANES]) {
    panel_dots_of::<false>(query, panel, products);
}

pub(super) fn panel_dots_bf16(query: &[f32], bits: &[[u16; LANES]], products: &mut [f32; LANES]) {
    panel_dots_bf16_of::<false>(query, bits, products);
}

pub(super) fn panel_dots_int8(
    query: &[f32],
    codes: &[[i8; LANES]],
    scales: &Lanes,
    products: &mut [f32; LANES],
) {
    panel_dots_int8_of::<false>(query, codes, scales, products);
}

#[inline(always)]
fn norms_of<'a, const FUSED: bool, const COUNT: usize>(
    coordinates: impl Iterator<Item = &'a [f32; COUNT]>,
) -> [f32; COUNT] {
    let mut norms = [0.0; COUNT];
    for coordinates in coordinates {
        for (norm, &number) in norms.iter_mut().zip(coordinates) {
            *norm = multiply_add::<FUSED>(number, number, *norm);
        }
    }
    norms
}

#[inline(always)]
pub(super) fn panel_norms_of<const FUSED: bool>(panel: &[Lanes]) -> Lanes {
    Lanes(norms_of::<FUSED, LANES>(panel.iter().map(|items| &items.0)))
}

#[inline(always)]
pub(super) fn block_norms_of<const FUSED: bool>(queries: &[QueryCoordinates]) -> QueryCoordinates {
    norms_of::<FUSED, QUERIES>(queries.iter())
}

pub(super) fn block_norms(queries: &[QueryCoordinates]) -> QueryCoordinates {
    block_norms_of::<false>(queries)
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
pub(super) fn tile_to_scores(
    rows: &mut [[f32; LANES]],
    query_norms: &QueryCoordinates,
    item_norms: &Lanes,
    bias: &Lanes,
    root: bool,
) -> bool {
    if root {
        tile_to_scores_of::<true>(rows, query_norms, item_norms, bias)
    } else {
        tile_to_scores_of::<false>(rows, query_norms, item_norms, bias)
    }
}

#[inline(always)]
fn tile_to_scores_of<const ROOT: bool>(
    rows: &mut [[f32; LANES]],
    query_norms: &QueryCoordinates,
    item_norms: &Lanes,
    bias: &Lanes,
) -> bool {
    let mut all_finite = true;
    for (products, &query_norm) in rows.iter_mut().zip(query_norms) {
        let mut finite = true;
        let items = item_norms.0.iter().zip(&bias.0);
        for (product, (&item_norm, &bias)) in products.iter_mut().zip(items) {
            let distance = squared_distance_from_dot(*product, query_norm, item_norm);
            finite &= distance.abs() < f32::INFINITY;
            *product = score_from_squared_distance(distance, ROOT) + bias;
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

/// The bits of the first lanes of a panel.
#[inline(always)]
pub(super) fn first_lanes(items: usize) -> u32 {
    u32::MAX.checked_shr((LANES - items) as u32).unwrap_or(0)
}

pub(super) fn above_in_tile(
    tile: &Tile,
    items: usize,
    thresholds: &QueryCoordinates,
    above: &mut [u32],
) -> u64 {
    let mut nan = 0;
    for ((scores, &threshold), above) in tile.0.iter().zip(thresholds).zip(above) {
        let (bits, not_numbers) = row_above(scores, threshold);
        *above = bits & first_lanes(items);
        nan += u64::from((not_numbers & first_lanes(items)).count_ones());
    }
    nan
}

#[inline(always)]
pub(super) fn lane_maxima(row: &[[f32; LANES]]) -> [f32; LANES] {
    let mut greatest = [f32::NEG_INFINITY; LANES];
    for scores in row {
        for (greatest, &score) in greatest.iter_mut().zip(scores) {
            *greatest = if score > *greatest { score } else { *greatest };
        }
    }
    greatest
}

pub(super) fn bits_above(row: &[[f32; LANES]], threshold: f32, bits: &mut Vec<u32>) {
    bits.extend(row.iter().map(|scores| row_above(scores, threshold).0));
}

/// The scores above the threshold, and those that are NaN, as bits.
#[inline(always)]
pub(super) fn row_above(scores: &[f32; LANES], threshold: f32) -> (u32, u32) {
    let bits = |holds: &dyn Fn(f32) -> bool| {
        scores.iter().enumerate().fold(0, |bits, (lane, &score)| {
            bits | u32::from(holds(score)) << lane
        })
    };
    (bits(&|score| score > threshold), bits(&f32::is_nan))
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

/// Writes numbers as `f32`, sixteen at a time. The last sixteen may overlap those before.
#[inline(always)]
fn widen<T: Copy>(numbers: &[T], values: &mut [f32], number: impl Fn(T) -> f32) {
    const AT_ONCE: usize = 16;
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

/// Numbers of a row that are summed at a time, over all rows: enough to hide the latency of the additions.
const SUMMED_AT_ONCE: usize = 64;

#[inline(always)]
pub(super) fn add_rows_of<const FUSED: bool>(
    weights: &[f32],
    table: Table,
    rows: &[i64],
    sums: &mut [f32],
) {
    for (block, sums) in sums.chunks_mut(SUMMED_AT_ONCE).enumerate() {
        let part = block * SUMMED_AT_ONCE..block * SUMMED_AT_ONCE + sums.len();
        let of_row = |row: i64| &table.values[row as usize * table.columns..][part.clone()];
        if let Some(sums) = sums.first_chunk_mut::<SUMMED_AT_ONCE>() {
            let mut registers = *sums;
            for (&weight, &row) in weights.iter().zip(rows) {
                for (sum, &number) in registers.iter_mut().zip(of_row(row)) {
                    *sum = multiply_add::<FUSED>(weight, number, *sum);
                }
            }
            *sums = registers;
        } else {
            for (&weight, &row) in weights.iter().zip(rows) {
                for (sum, &number) in sums.iter_mut().zip(of_row(row)) {
                    *sum = multiply_add::<FUSED>(weight, number, *sum);
                }
            }
        }
    }
}

pub(super) fn add_rows(weights: &[f32], table: Table, rows: &[i64], sums: &mut [f32]) {
    add_rows_of::<false>(weights, table, rows, sums);
}

#[inline(always)]
pub(super) fn write_sums(left: &[f32], right: &[f32], sums: &mut [f32]) {
    for ((sum, &left), &right) in sums.iter_mut().zip(left).zip(right) {
        *sum = left + right;
    }
}

#[inline(always)]
pub(super) fn add_scaled_of<const FUSED: bool>(factor: f32, row: &[f32], sums: &mut [f32]) {
    for (sum, &number) in sums.iter_mut().zip(row) {
        *sum = multiply_add::<FUSED>(factor, number, *sum);
    }
}

pub(super) fn add_scaled(factor: f32, row: &[f32], sums: &mut [f32]) {
    add_scaled_of::<false>(factor, row, sums);
}

#[inline(always)]
pub(super) fn add_products_of<const FUSED: bool>(left: &[f32], right: &[f32], sums: &mut [f32]) {
    for ((sum, &left), &right) in sums.iter_mut().zip(left).zip(right) {
        *sum = multiply_add::<FUSED>(left, right, *sum);
    }
}

pub(super) fn add_products(left: &[f32], right: &[f32], sums: &mut [f32]) {
    add_products_of::<false>(left, right, sums);
}

#[inline(always)]
pub(super) fn add_sigmoids_of<const FUSED: bool>(left: &[f32], right: &[f32], sums: &mut [f32]) {
    for ((sum, &left), &right) in sums.iter_mut().zip(left).zip(right) {
        *sum += 1.0 / (1.0 + exp::<FUSED>(-(left + right)));
    }
}

pub(super) fn add_sigmoids(left: &[f32], right: &[f32], sums: &mut [f32]) {
    add_sigmoids_of::<false>(left, right, sums);
}

/// Partial results of a row that are computed side by side.
const SIDE_BY_SIDE: usize = 16;

/// Joins the partial results in pairs: no step waits for more than four others.
#[inline(always)]
fn join(mut parts: [f32; SIDE_BY_SIDE], both: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = SIDE_BY_SIDE / 2;
    while width > 0 {
        for lane in 0..width {
            parts[lane] = both(parts[lane], parts[lane + width]);
        }
        width /= 2;
    }
    parts[0]
}

/// Replaces costs by exp(least − cost), and returns the least cost and the sum of the results.
#[inline(always)]
pub(super) fn exp_of_least_of<const FUSED: bool>(costs: &mut [f32]) -> [f32; 2] {
    let less = |cost: f32, least: f32| if cost < least { cost } else { least };
    let mut least = [f32::INFINITY; SIDE_BY_SIDE];
    let mut sums = [0.0; SIDE_BY_SIDE];
    let (whole, rest) = costs.as_chunks_mut::<SIDE_BY_SIDE>();
    for costs in &*whole {
        for (least, &cost) in least.iter_mut().zip(costs) {
            *least = less(cost, *least);
        }
    }
    for (least, &cost) in least.iter_mut().zip(&*rest) {
        *least = less(cost, *least);
    }
    let least = join(least, less);
    for costs in whole {
        for (cost, sum) in costs.iter_mut().zip(&mut sums) {
            *cost = exp::<FUSED>(least - *cost);
            *sum += *cost;
        }
    }
    for (cost, sum) in rest.iter_mut().zip(&mut sums) {
        *cost = exp::<FUSED>(least - *cost);
        *sum += *cost;
    }
    [least, join(sums, |left, right| left + right)]
}

pub(super) fn exp_of_least(costs: &mut [f32]) -> [f32; 2] {
    exp_of_least_of::<false>(costs)
}

/// eˣ to about 2⁻²³, in operations that compilers turn into vector instructions, unlike `f32::exp`.
///
/// With n = round(x / ln 2), eˣ = 2ⁿ eʳ and |r| ≤ ln 2 / 2, where the Taylor polynomial of degree 7 is exact to 2⁻²⁷.
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    /// Adding and subtracting 1.5 · 2²³ rounds to a whole number, which then is in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts: products of the first with whole numbers up to 2⁷ are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // Beyond, e⁻ˣ is 0 or infinite beside 1.
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FUSED>(n, -LN_2[0], x);
    let r = multiply_add::<FUSED>(n, -LN_2[1], r);
    let mut sum = 1.0 / 5040.0;
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = multiply_add::<FUSED>(sum, r, coefficient);
    }
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
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
