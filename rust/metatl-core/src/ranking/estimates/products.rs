//! Estimates from the products themselves, for a few queries: summed in the order that memory has them, where
//! scores are sums over one coordinate after the other.

use std::ops::Range;

use super::{ROUNDING, UNDERFLOW, factor, sides};
use crate::ranking::ItemTable;
use crate::ranking::scoring::{Scoring, Similarity};
use crate::simd::brackets::Masks;
use crate::simd::{self, LANES, Lanes, QUERIES, QueryCoordinates};

/// A few queries, and the bias of the panel that they meet next.
pub(in crate::ranking) struct Products {
    queries: Range<usize>,
    /// |q|² of each query, whatever the similarity.
    norms: Vec<f32>,
    bias: Lanes,
    /// How far two sums of the same products can be apart, over |q| |e|.
    error: f32,
}

impl Products {
    pub(super) fn new(scoring: &Scoring, queries: Range<usize>) -> Self {
        let norm = |query| {
            let query = scoring.queries.row(query);
            simd::sequential_dot(scoring.level, query, query)
        };
        Self {
            norms: queries.clone().map(norm).collect(),
            queries,
            bias: Lanes([0.0; LANES]),
            // Each sum is off by half of this at most, what a scale adds included.
            error: (scoring.queries.columns() as f32 + 8.0) * f32::EPSILON,
        }
    }

    /// Takes the bias of the next panel.
    pub(super) fn fill(&mut self, bias: &Lanes) -> bool {
        self.bias = *bias;
        true
    }

    /// Compares a block with the items: what is above, and what is open.
    pub(super) fn compare(
        &self,
        scoring: &Scoring,
        block: usize,
        items: Range<usize>,
        thresholds: &QueryCoordinates,
    ) -> (Masks, Masks) {
        let (mut above, mut open) = ([0; QUERIES], [0; QUERIES]);
        let (mut products, mut item_norms) = ([0.0; LANES], Lanes([0.0; LANES]));
        let of_block = self.norms.iter().enumerate().skip(block * QUERIES);
        for (lane, (offset, &norm)) in of_block.take(QUERIES).enumerate() {
            let query = scoring.queries.row(self.queries.start + offset);
            multiply(scoring, query, &items, &mut products, &mut item_norms);
            let (left, slack) = self.left_sides(scoring.similarity, norm, &products, &item_norms);
            let (most, least) = sides(scoring.similarity, thresholds[lane], norm);
            for item in 0..items.len() {
                let is_above = left[item] - slack[item] > most;
                // What is not comparable is open.
                let is_below = left[item] + slack[item] < least;
                above[lane] |= u32::from(is_above) << item;
                open[lane] |= u32::from(!is_above && !is_below) << item;
            }
        }
        (above, open)
    }

    /// The left sides of the comparison, and how far off each can be.
    fn left_sides(
        &self,
        similarity: Similarity,
        query_norm: f32,
        products: &[f32; LANES],
        item_norms: &Lanes,
    ) -> ([f32; LANES], [f32; LANES]) {
        let (factor, is_distance) = (factor(similarity), similarity != Similarity::Dot);
        let length = |norm: f32| (norm + UNDERFLOW).sqrt();
        let query_length = length(query_norm);
        let (mut left, mut slack) = ([0.0; LANES], [0.0; LANES]);
        for item in 0..LANES {
            let (norm, bias) = (item_norms.0[item], self.bias.0[item]);
            let error = factor * self.error * (query_length * length(norm));
            let norm = if is_distance { norm } else { 0.0 };
            left[item] = factor * products[item] + (bias - norm);
            slack[item] = error + self.error * norm + ROUNDING * (bias.abs() + norm) + UNDERFLOW;
        }
        (left, slack)
    }
}

/// The products of a query with items as they lie in the table, and the items' norms.
fn multiply(
    scoring: &Scoring,
    query: &[f32],
    items: &Range<usize>,
    products: &mut [f32; LANES],
    norms: &mut Lanes,
) {
    let (level, items) = (scoring.level, items.clone());
    match scoring.item_table {
        ItemTable::Float32(table) => {
            simd::products(level, query, table.rows_of(items), products, norms);
        }
        ItemTable::Bf16(table) => {
            simd::products_of_bf16(level, query, table.rows_of(items), products, norms);
        }
        ItemTable::Int8 { codes, scales } => {
            simd::products_of_int8(level, query, codes.rows_of(items.clone()), products, norms);
            let results = products.iter_mut().zip(&mut norms.0);
            for ((product, norm), scale) in results.zip(&scales[items]) {
                // The rows as they are, times their scale, may be finite where this is not: nobody knows.
                *product = if product.is_finite() {
                    *product * scale
                } else {
                    f32::NAN
                };
                *norm = *norm * scale * scale;
            }
        }
    }
}
