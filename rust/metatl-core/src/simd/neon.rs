//! Kernels for NEON.

use std::arch::aarch64::{
    float32x4_t, vdupq_n_f32, vfmaq_f32, vld1q_f32, vpaddq_f32, vst1q_f32, vsubq_f32,
};

use super::{Counts, LANES, Lanes, QUERIES, QueryCoordinates, ROWS, Table, Tile, block_of_rows};

use super::scalar::row_above;

compile_plain_kernels!("neon");

#[target_feature(enable = "neon")]
pub(super) fn panel_dots_int8(
    query: &[f32],
    codes: &[[i8; LANES]],
    scales: &Lanes,
    products: &mut [f32; LANES],
) {
    scalar::panel_dots_int8_of::<true>(query, codes, scales, products);
}

#[target_feature(enable = "neon")]
pub(super) fn add_rows(weights: &[f32], table: Table, rows: &[i64], sums: &mut [f32]) {
    scalar::add_rows_of::<true>(weights, table, rows, sums);
}

#[target_feature(enable = "neon")]
pub(super) fn sequential_dots(
    query: &[f32],
    rows: &[f32],
    products: &mut [f32],
    norms: &mut [f32],
) {
    scalar::sequential_dots_of::<true>(query, rows, products, norms);
}

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
                let rest =
                    unsafe { std::slice::from_raw_parts(pointer.add(whole), query.len() - whole) };
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
                    unsafe { vst1q_f32(row.as_mut_ptr().add(first_item + register * WIDTH), sum) };
                }
            }
        }
    }
}
