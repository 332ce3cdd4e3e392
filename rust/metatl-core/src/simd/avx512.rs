//! Kernels for AVX-512.

use std::arch::x86_64::{
    __m512, _CMP_EQ_OQ, _CMP_GT_OQ, _CMP_UNORD_Q, _mm_loadu_si128, _mm256_storeu_ps, _mm512_add_ps,
    _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps512_ps256, _mm512_cmp_ps_mask,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_cmp_ps_mask, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_sub_ps, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
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
                    *sum = add_term::<SQUARED_DISTANCE>(q, _mm512_loadu_ps(pointer.add(k)), *sum);
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

/// The scores above the threshold, and those that are NaN, as bits.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,popcnt")]
fn row_above(scores: &[f32; LANES], threshold: f32) -> (u32, u32) {
    let threshold = _mm512_set1_ps(threshold);
    let (mut above, mut nan) = (0, 0);
    for (half, scores) in scores.as_chunks::<WIDTH>().0.iter().enumerate() {
        // SAFETY: sixteen numbers.
        let scores = unsafe { _mm512_loadu_ps(scores.as_ptr()) };
        let is_above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(scores, threshold);
        let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(scores, scores);
        above |= u32::from(is_above) << (half * WIDTH);
        nan |= u32::from(is_nan) << (half * WIDTH);
    }
    (above, nan)
}

#[target_feature(enable = "avx512f,avx2,fma,popcnt")]
pub(super) fn panel_dots_int8(
    query: &[f32],
    codes: &[[i8; LANES]],
    scales: &Lanes,
    products: &mut [f32; LANES],
) {
    const REGISTERS: usize = LANES / WIDTH;
    // SAFETY: `Lanes` holds that many numbers.
    let scales: [__m512; REGISTERS] =
        std::array::from_fn(|part| unsafe { _mm512_loadu_ps(scales.0.as_ptr().add(part * WIDTH)) });
    let mut sums = [_mm512_setzero_ps(); REGISTERS];
    for (&q, codes) in query.iter().zip(codes) {
        let q = _mm512_set1_ps(q);
        for part in 0..REGISTERS {
            // SAFETY: as many codes as the register has lanes.
            let codes = unsafe { _mm_loadu_si128(codes.as_ptr().add(part * WIDTH).cast()) };
            let numbers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
            sums[part] = _mm512_fmadd_ps(q, _mm512_mul_ps(numbers, scales[part]), sums[part]);
        }
    }
    for (part, sum) in sums.into_iter().enumerate() {
        // SAFETY: as for the scales.
        unsafe { _mm512_storeu_ps(products.as_mut_ptr().add(part * WIDTH), sum) };
    }
}

/// Registers of sums that all rows are added to before the next registers.
const SUMMED_REGISTERS: usize = 8;

#[target_feature(enable = "avx512f,avx2,fma,popcnt")]
pub(super) fn add_rows(weights: &[f32], table: Table, rows: &[i64], sums: &mut [f32]) {
    let (blocks, rest) = sums.as_chunks_mut::<{ SUMMED_REGISTERS * WIDTH }>();
    let done = blocks.len() * SUMMED_REGISTERS * WIDTH;
    for (block, sums) in blocks.iter_mut().enumerate() {
        let first = block * SUMMED_REGISTERS * WIDTH;
        // SAFETY: sixteen numbers of `sums`.
        let mut registers: [__m512; SUMMED_REGISTERS] = std::array::from_fn(|index| unsafe {
            _mm512_loadu_ps(sums.as_ptr().add(index * WIDTH))
        });
        for (&weight, &row) in weights.iter().zip(rows) {
            let numbers = &table.values[row as usize * table.columns + first..][..sums.len()];
            let weight = _mm512_set1_ps(weight);
            for (index, register) in registers.iter_mut().enumerate() {
                // SAFETY: sixteen of the numbers.
                let numbers = unsafe { _mm512_loadu_ps(numbers.as_ptr().add(index * WIDTH)) };
                *register = _mm512_fmadd_ps(weight, numbers, *register);
            }
        }
        for (index, register) in registers.into_iter().enumerate() {
            // SAFETY: as for the load.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(index * WIDTH), register) };
        }
    }
    if !rest.is_empty() {
        for (&weight, &row) in weights.iter().zip(rows) {
            let numbers = &table.values[row as usize * table.columns + done..][..rest.len()];
            scalar::add_scaled_of::<true>(weight, numbers, rest);
        }
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
