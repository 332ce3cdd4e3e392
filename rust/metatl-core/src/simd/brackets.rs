//! Dot products of a panel of items with a block of queries from 16-bit integers, and what they tell for certain.
//!
//! A vector is written as a scale times whole numbers whose norm is about [`CODE_NORM`]. Products of such
//! vectors are exact in 32 bits and cost half of what products of `f32` cost. How far they can be from the
//! products of the vectors themselves is known ([`product_error`]), so that most comparisons with a threshold
//! are decided without the exact score, and the few others are known to be open.

use super::{Kind, LANES, Lanes, Level, QUERIES, QueryCoordinates};

/// The norm of a vector of whole numbers, nearly. By the inequality of Cauchy and Schwarz a product, and each
/// partial sum of it, is at most about the square of this, which is less than 2³¹.
const CODE_NORM: f32 = 32_000.0;

/// Shorter vectors are written with the scale of this norm: their numbers are mostly 0.
const SMALLEST_NORM: f32 = 1e-12;

/// Longer vectors are not written as integers: products of their norms would leave the range of `f32`.
const LARGEST_NORM: f32 = 1e15;

/// More dimensions than this are not written as integers: the error of a norm in `f32` would matter.
pub const MOST_DIMENSIONS: usize = 1 << 12;

/// Two coordinates, neighbours, of each item of a panel: the first in the lower 16 bits.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct PackedLanes(pub [i32; LANES]);

impl PackedLanes {
    /// Zeros.
    pub const EMPTY: Self = Self([0; LANES]);
}

/// Two coordinates, neighbours, of each query of a block, as in [`PackedLanes`].
pub type PackedCoordinates = [i32; QUERIES];

/// Integer products of a block of queries with a panel of items.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct PackedTile(pub [[i32; LANES]; QUERIES]);

impl PackedTile {
    /// Zeros.
    pub const EMPTY: Self = Self([[0; LANES]; QUERIES]);
}

/// What a score adds to a multiple of the product, for the items of a panel.
#[derive(Clone, Copy, Debug)]
pub struct ItemBounds {
    /// What the integer products are multiplied with, besides the query's scale.
    pub scales: Lanes,
    /// What is added to that at least.
    pub least: Lanes,
    /// What is added to that at most.
    pub most: Lanes,
}

/// What the scores of a block of queries are compared with.
#[derive(Clone, Copy, Debug)]
pub struct QueryBounds {
    /// What the integer products are multiplied with, besides the item's scale.
    pub scales: QueryCoordinates,
    /// A sum above this is a score above the threshold.
    pub above: QueryCoordinates,
    /// A sum below this is a score below the threshold.
    pub below: QueryCoordinates,
}

/// One bit for each item of a panel, for each query of a block.
pub type Masks = [u32; QUERIES];

/// The scale with which a vector of that squared norm is written; `None` where it cannot be.
#[must_use]
pub fn scale(squared_norm: f32) -> Option<f32> {
    let norm = squared_norm.sqrt();
    // Not `>=`, which is false for NaN.
    (norm < LARGEST_NORM).then(|| norm.max(SMALLEST_NORM) / CODE_NORM)
}

/// How far the integer product of two vectors can be from their product as `f32` sums it, over both scales.
#[must_use]
pub fn product_error(dimension: usize) -> f32 {
    let dimension = dimension as f32;
    // Each coordinate is rounded by 1/2 at most: |δq·e| ≤ |δq| |e| ≤ √d / 2 · CODE_NORM, and the same again for
    // the item, plus |δq| |δe|. The factor covers the rounding of scales and norms; the last term is that of a sum
    // of products in f32.
    let rounded = dimension.sqrt() * (CODE_NORM + dimension.sqrt()) * 1.03;
    rounded + CODE_NORM * CODE_NORM * (dimension + 8.0) * f32::EPSILON
}

/// Whether integer products are the faster ones at a level.
#[must_use]
pub fn pays(level: Level) -> bool {
    match level.0 {
        // Without the instructions for dot products two integer instructions do as much as one for f32.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => has_vnni(),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => true,
        // As many products an instruction as in f32.
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => false,
        Kind::Scalar => false,
    }
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// Two coordinates divided by a scale and rounded, in one number.
#[inline(always)]
fn pack_pair(first: f32, second: f32, inverse_scale: f32) -> i32 {
    // Added to this, a number below 2¹⁵ leaves its nearest integer in the lower 16 bits.
    const SHIFT: f32 = 12_582_912.0;
    let round = |number: f32| (number * inverse_scale + SHIFT).to_bits();
    (round(first) & 0xFFFF | round(second) << 16) as i32
}

/// Writes a query as integers, lane `lane` of `packed`; a last coordinate without a neighbour is paired with 0.
pub fn pack_query(query: &[f32], scale: f32, packed: &mut [PackedCoordinates], lane: usize) {
    for (packed, pair) in packed.iter_mut().zip(query.chunks(2)) {
        packed[lane] = pack_pair(pair[0], pair.get(1).copied().unwrap_or(0.0), scale.recip());
    }
}

/// Writes the items of a panel as integers; a last coordinate without a neighbour is paired with 0.
pub fn pack_panel(level: Level, panel: &[Lanes], scales: &Lanes, packed: &mut [PackedLanes]) {
    match level.0 {
        // SAFETY: a `Level` exists only for instructions that this processor has.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { avx512::pack_panel(panel, scales, packed) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { avx2::pack_panel(panel, scales, packed) },
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => plain::pack_panel(panel, scales, packed),
        Kind::Scalar => plain::pack_panel(panel, scales, packed),
    }
}

/// Integer products of the items of a panel with the queries of a block. The same at every level.
///
/// # Panics
/// If the two have different dimensions.
pub fn multiply(
    level: Level,
    panel: &[PackedLanes],
    queries: &[PackedCoordinates],
    tile: &mut PackedTile,
) {
    assert_eq!(
        panel.len(),
        queries.len(),
        "items and queries have different dimensions"
    );
    match level.0 {
        // SAFETY: the guard asks this processor.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 if has_vnni() => unsafe { avx512::multiply(panel, queries, tile) },
        // SAFETY: a `Level` exists only for instructions that this processor has; AVX-512 includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 | Kind::Avx2 => unsafe { avx2::multiply(panel, queries, tile) },
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => plain::multiply(panel, queries, tile),
        Kind::Scalar => plain::multiply(panel, queries, tile),
    }
}

/// Tells for each query and item whether the score is certainly above the query's threshold, and where it is
/// neither that nor certainly below it: (`above`, `open`).
///
/// `error` is that of the integer products. Levels may differ in what they leave open.
#[must_use]
pub fn compare(
    level: Level,
    tile: &PackedTile,
    error: f32,
    items: &ItemBounds,
    queries: &QueryBounds,
) -> (Masks, Masks) {
    match level.0 {
        // SAFETY: a `Level` exists only for instructions that this processor has.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { avx512::compare(tile, error, items, queries) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { avx2::compare(tile, error, items, queries) },
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => plain::compare(tile, error, items, queries),
        Kind::Scalar => plain::compare(tile, error, items, queries),
    }
}

mod plain {
    use super::{
        ItemBounds, LANES, Lanes, Masks, PackedCoordinates, PackedLanes, PackedTile, QUERIES,
        QueryBounds, pack_pair,
    };

    #[inline(always)]
    pub(super) fn pack_panel(panel: &[Lanes], scales: &Lanes, packed: &mut [PackedLanes]) {
        let inverse = scales.0.map(f32::recip);
        for (packed, pair) in packed.iter_mut().zip(panel.chunks(2)) {
            let zeros = Lanes([0.0; LANES]);
            let (first, second) = (&pair[0], pair.get(1).unwrap_or(&zeros));
            let coordinates = first.0.iter().zip(&second.0).zip(&inverse);
            for (packed, ((&first, &second), &inverse)) in packed.0.iter_mut().zip(coordinates) {
                *packed = pack_pair(first, second, inverse);
            }
        }
    }

    pub(super) fn multiply(
        panel: &[PackedLanes],
        queries: &[PackedCoordinates],
        tile: &mut PackedTile,
    ) {
        let halves = |pair: i32| (i32::from(pair as i16), pair >> 16);
        for (query, products) in tile.0.iter_mut().enumerate() {
            let mut sums = [0; LANES];
            for (items, coordinates) in panel.iter().zip(queries) {
                let q = halves(coordinates[query]);
                for (sum, &item) in sums.iter_mut().zip(&items.0) {
                    let e = halves(item);
                    *sum += q.0 * e.0 + q.1 * e.1;
                }
            }
            *products = sums;
        }
    }

    pub(super) fn compare(
        tile: &PackedTile,
        error: f32,
        items: &ItemBounds,
        queries: &QueryBounds,
    ) -> (Masks, Masks) {
        let (mut above, mut open) = ([0; QUERIES], [0; QUERIES]);
        for (query, products) in tile.0.iter().enumerate() {
            for (lane, &product) in products.iter().enumerate() {
                let scale = items.scales.0[lane] * queries.scales[query];
                let least = (product as f32 - error) * scale + items.least.0[lane];
                let most = (product as f32 + error) * scale + items.most.0[lane];
                let is_above = least > queries.above[query];
                above[query] |= u32::from(is_above) << lane;
                open[query] |= u32::from(!is_above && most >= queries.below[query]) << lane;
            }
        }
        (above, open)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512i, _CMP_GE_OQ, _CMP_GT_OQ, _mm512_add_ps, _mm512_cmp_ps_mask,
        _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
        _mm512_storeu_si512, _mm512_sub_ps,
    };

    use super::{
        ItemBounds, LANES, Lanes, Masks, PackedCoordinates, PackedLanes, PackedTile, QUERIES,
        QueryBounds, plain,
    };

    const WIDTH: usize = 16;

    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn pack_panel(panel: &[Lanes], scales: &Lanes, packed: &mut [PackedLanes]) {
        plain::pack_panel(panel, scales, packed);
    }

    #[target_feature(enable = "avx512f,avx512vnni,avx2,fma,popcnt")]
    pub(super) fn multiply(
        panel: &[PackedLanes],
        queries: &[PackedCoordinates],
        tile: &mut PackedTile,
    ) {
        let mut sums = [[_mm512_setzero_si512(); 2]; QUERIES];
        for (items, coordinates) in panel.iter().zip(queries) {
            let (low, high) = load_integers(&items.0);
            for (sum, &coordinate) in sums.iter_mut().zip(coordinates) {
                let q = _mm512_set1_epi32(coordinate);
                sum[0] = _mm512_dpwssd_epi32(sum[0], q, low);
                sum[1] = _mm512_dpwssd_epi32(sum[1], q, high);
            }
        }
        for (row, sum) in tile.0.iter_mut().zip(sums) {
            // SAFETY: a row of the tile holds 32 numbers.
            unsafe {
                _mm512_storeu_si512(row.as_mut_ptr().cast(), sum[0]);
                _mm512_storeu_si512(row.as_mut_ptr().add(WIDTH).cast(), sum[1]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    fn load_integers(numbers: &[i32; LANES]) -> (__m512i, __m512i) {
        // SAFETY: twice sixteen of 32 numbers.
        unsafe {
            (
                _mm512_loadu_si512(numbers.as_ptr().cast()),
                _mm512_loadu_si512(numbers.as_ptr().add(WIDTH).cast()),
            )
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    fn load(numbers: &Lanes) -> [__m512; 2] {
        // SAFETY: twice sixteen of 32 numbers.
        unsafe {
            [
                _mm512_loadu_ps(numbers.0.as_ptr()),
                _mm512_loadu_ps(numbers.0.as_ptr().add(WIDTH)),
            ]
        }
    }

    #[target_feature(enable = "avx512f,avx2,fma,popcnt")]
    pub(super) fn compare(
        tile: &PackedTile,
        error: f32,
        items: &ItemBounds,
        queries: &QueryBounds,
    ) -> (Masks, Masks) {
        let (mut above, mut open) = ([0; QUERIES], [0; QUERIES]);
        let error = _mm512_set1_ps(error);
        let (scales, least, most) = (load(&items.scales), load(&items.least), load(&items.most));
        for (query, products) in tile.0.iter().enumerate() {
            let query_scale = _mm512_set1_ps(queries.scales[query]);
            let (low, high) = load_integers(products);
            for (half, products) in [low, high].into_iter().enumerate() {
                let products = _mm512_cvtepi32_ps(products);
                let scale = _mm512_mul_ps(scales[half], query_scale);
                let least = _mm512_fmadd_ps(_mm512_sub_ps(products, error), scale, least[half]);
                let most = _mm512_fmadd_ps(_mm512_add_ps(products, error), scale, most[half]);
                let is_above =
                    _mm512_cmp_ps_mask::<_CMP_GT_OQ>(least, _mm512_set1_ps(queries.above[query]));
                let may_be =
                    _mm512_cmp_ps_mask::<_CMP_GE_OQ>(most, _mm512_set1_ps(queries.below[query]));
                above[query] |= u32::from(is_above) << (half * WIDTH);
                open[query] |= u32::from(may_be & !is_above) << (half * WIDTH);
            }
        }
        (above, open)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256i, _CMP_GE_OQ, _CMP_GT_OQ, _mm256_add_epi32, _mm256_add_ps, _mm256_cmp_ps,
        _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_movemask_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_setzero_si256, _mm256_storeu_si256, _mm256_sub_ps,
    };

    use super::{
        ItemBounds, LANES, Lanes, Masks, PackedCoordinates, PackedLanes, PackedTile, QUERIES,
        QueryBounds, plain,
    };

    const WIDTH: usize = 8;

    /// Two registers of items and six queries: 12 of the 16 registers hold sums.
    const ITEMS_AT_ONCE: usize = 2 * WIDTH;
    const QUERIES_AT_ONCE: usize = 6;

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn pack_panel(panel: &[Lanes], scales: &Lanes, packed: &mut [PackedLanes]) {
        plain::pack_panel(panel, scales, packed);
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn multiply(
        panel: &[PackedLanes],
        queries: &[PackedCoordinates],
        tile: &mut PackedTile,
    ) {
        for first_item in (0..LANES).step_by(ITEMS_AT_ONCE) {
            for first_query in (0..QUERIES).step_by(QUERIES_AT_ONCE) {
                let mut sums = [[_mm256_setzero_si256(); 2]; QUERIES_AT_ONCE];
                for (items, coordinates) in panel.iter().zip(queries) {
                    let low = load_integers(&items.0, first_item);
                    let high = load_integers(&items.0, first_item + WIDTH);
                    for (query, sum) in sums.iter_mut().enumerate() {
                        let q = _mm256_set1_epi32(coordinates[first_query + query]);
                        sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(q, low));
                        sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(q, high));
                    }
                }
                for (query, sum) in sums.into_iter().enumerate() {
                    let row = &mut tile.0[first_query + query];
                    // SAFETY: first_item + 2 · WIDTH ≤ LANES, the number of items of a row of the tile.
                    unsafe {
                        let pointer = row.as_mut_ptr().add(first_item);
                        _mm256_storeu_si256(pointer.cast(), sum[0]);
                        _mm256_storeu_si256(pointer.add(WIDTH).cast(), sum[1]);
                    }
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn load_integers(numbers: &[i32; LANES], first: usize) -> __m256i {
        let numbers = &numbers[first..first + WIDTH];
        // SAFETY: eight numbers.
        unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn load(numbers: &Lanes, first: usize) -> __m256 {
        let numbers = &numbers.0[first..first + WIDTH];
        // SAFETY: eight numbers.
        unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
    }

    #[target_feature(enable = "avx2,fma,popcnt")]
    pub(super) fn compare(
        tile: &PackedTile,
        error: f32,
        items: &ItemBounds,
        queries: &QueryBounds,
    ) -> (Masks, Masks) {
        let (mut above, mut open) = ([0; QUERIES], [0; QUERIES]);
        let error = _mm256_set1_ps(error);
        for first in (0..LANES).step_by(WIDTH) {
            let scales = load(&items.scales, first);
            let (least, most) = (load(&items.least, first), load(&items.most, first));
            for (query, products) in tile.0.iter().enumerate() {
                let products = _mm256_cvtepi32_ps(load_integers(products, first));
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(queries.scales[query]));
                let least = _mm256_fmadd_ps(_mm256_sub_ps(products, error), scale, least);
                let most = _mm256_fmadd_ps(_mm256_add_ps(products, error), scale, most);
                let is_above =
                    _mm256_cmp_ps::<_CMP_GT_OQ>(least, _mm256_set1_ps(queries.above[query]));
                let may_be =
                    _mm256_cmp_ps::<_CMP_GE_OQ>(most, _mm256_set1_ps(queries.below[query]));
                let is_above = _mm256_movemask_ps(is_above) as u32;
                above[query] |= is_above << first;
                open[query] |= (_mm256_movemask_ps(may_be) as u32 & !is_above) << first;
            }
        }
        (above, open)
    }
}

#[cfg(test)]
mod tests;
