//! Kernels for AVX2 with FMA.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_EQ_OQ, _CMP_GT_OQ, _CMP_UNORD_Q, _mm_add_epi32, _mm_cvtsi128_si32,
    _mm_loadl_epi64, _mm_loadu_ps, _mm_shuffle_epi32, _mm_unpackhi_epi64, _mm256_add_ps,
    _mm256_and_si256, _mm256_castpd_ps, _mm256_castps_pd, _mm256_castps_si256,
    _mm256_castps128_ps256, _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cmpgt_epi32,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_insertf128_ps, _mm256_loadu_ps, _mm256_maskload_ps, _mm256_movemask_ps, _mm256_mul_ps,
    _mm256_permute2f128_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps,
    _mm256_unpackhi_pd, _mm256_unpackhi_ps, _mm256_unpacklo_pd, _mm256_unpacklo_ps,
};

use super::{
    Counts, LANES, Lanes, QUERIES, QueryCoordinates, ROWS, Table, Tile, block_of_rows,
    prefetch_rows,
};

compile_plain_kernels!("avx2,fma,popcnt");

#[target_feature(enable = "avx2,fma,popcnt")]
pub(super) fn add_rows(weights: &[f32], table: Table, rows: &[i64], sums: &mut [f32]) {
    scalar::add_rows_of::<true>(weights, table, rows, sums);
}

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
                    *sum = add_term::<SQUARED_DISTANCE>(q, _mm256_loadu_ps(pointer.add(k)), *sum);
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
pub(super) fn panel_dots_int8(
    query: &[f32],
    codes: &[[i8; LANES]],
    scales: &Lanes,
    products: &mut [f32; LANES],
) {
    const REGISTERS: usize = LANES / WIDTH;
    // SAFETY: `Lanes` holds that many numbers.
    let scales: [__m256; REGISTERS] =
        std::array::from_fn(|part| unsafe { _mm256_loadu_ps(scales.0.as_ptr().add(part * WIDTH)) });
    let mut sums = [_mm256_setzero_ps(); REGISTERS];
    for (&q, codes) in query.iter().zip(codes) {
        let q = _mm256_set1_ps(q);
        for part in 0..REGISTERS {
            // SAFETY: as many codes as the register has lanes.
            let codes = unsafe { _mm_loadl_epi64(codes.as_ptr().add(part * WIDTH).cast()) };
            let numbers = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
            sums[part] = _mm256_fmadd_ps(q, _mm256_mul_ps(numbers, scales[part]), sums[part]);
        }
    }
    for (part, sum) in sums.into_iter().enumerate() {
        // SAFETY: as for the scales.
        unsafe { _mm256_storeu_ps(products.as_mut_ptr().add(part * WIDTH), sum) };
    }
}

/// The scores above the threshold, and those that are NaN, as bits.
#[inline]
#[target_feature(enable = "avx2,fma,popcnt")]
fn row_above(scores: &[f32; LANES], threshold: f32) -> (u32, u32) {
    let threshold = _mm256_set1_ps(threshold);
    let (mut above, mut nan) = (0, 0);
    for (part, scores) in scores.as_chunks::<WIDTH>().0.iter().enumerate() {
        // SAFETY: eight numbers.
        let scores = unsafe { _mm256_loadu_ps(scores.as_ptr()) };
        let is_above = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(scores, threshold));
        let is_nan = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(scores, scores));
        above |= (is_above as u32) << (part * WIDTH);
        nan |= (is_nan as u32) << (part * WIDTH);
    }
    (above, nan)
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
