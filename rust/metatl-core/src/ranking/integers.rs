//! Deciding most comparisons of a piece of the catalogue from integers, and only the close ones from scores.
//!
//! A score is above a threshold τ where
//!
//! * q·e + b > τ ([`Similarity::Dot`]),
//! * 2 q·e + (b − |e|²) > τ + |q|² ([`Similarity::SquaredL2`]),
//! * 2 q·e − |e|² > |q|² − τ² ([`Similarity::L2`] without bias: both sides of −‖q − e‖ > τ squared),
//!
//! so that one kernel, [`brackets::compare`], serves all: a product, a number that depends on the item and one
//! that depends on the query. Where rounding, of integers or of scores, could change the answer, the kernel
//! leaves it open and [`exact_scores`] gives the scores with the bits of [`Scoring::pair_score`].

use std::ops::Range;

use super::scoring::{IntegerUse, Scoring, Similarity};
use crate::simd::brackets::{
    self, ItemBounds, Masks, PackedCoordinates, PackedLanes, PackedTile, QueryBounds,
};
use crate::simd::{self, LANES, Lanes, QUERIES, QueryCoordinates};

/// Writing a panel as integers pays for as many blocks of queries as this.
const FEWEST_BLOCKS: usize = 8;

/// Rounding of one score or bound, over the sizes of what it is a sum of: a few times the 2⁻²⁴ of an addition.
const ROUNDING: f32 = 1.0 / (1 << 20) as f32;

/// Larger biases could leave the range of `f32` on the way.
const LARGEST_BIAS: f32 = 1e30;

/// Queries written as integers, and the panel that they meet next.
pub(super) struct Integers {
    queries: Vec<PackedCoordinates>,
    scales: Vec<QueryCoordinates>,
    /// |q|², whatever the similarity.
    norms: Vec<QueryCoordinates>,
    error: f32,
    panel: Vec<PackedLanes>,
    items: ItemBounds,
    tile: PackedTile,
}

impl Integers {
    /// Writes some of the queries; `None` where integers do not help or do not serve.
    pub(super) fn new(scoring: &Scoring, range: Range<usize>) -> Option<Self> {
        let queries = range.len();
        let pays = match scoring.integers {
            IntegerUse::WherePays => {
                brackets::pays(scoring.level) && queries >= FEWEST_BLOCKS * QUERIES
            }
            #[cfg(test)]
            IntegerUse::Always => true,
            #[cfg(test)]
            IntegerUse::Never => false,
        };
        let serves = scoring.similarity != Similarity::L2 || scoring.item_bias.is_none();
        let dimension = scoring.queries.columns();
        if !pays || !serves || dimension > brackets::MOST_DIMENSIONS {
            return None;
        }
        let (blocks, pairs) = (queries.div_ceil(QUERIES), dimension.div_ceil(2));
        let zeros = Lanes([0.0; LANES]);
        let mut integers = Self {
            queries: vec![[0; QUERIES]; blocks * pairs],
            scales: vec![[0.0; QUERIES]; blocks],
            norms: vec![[0.0; QUERIES]; blocks],
            error: brackets::product_error(dimension),
            panel: vec![PackedLanes::EMPTY; pairs],
            items: ItemBounds {
                scales: zeros,
                least: zeros,
                most: zeros,
            },
            tile: PackedTile::EMPTY,
        };
        for (offset, query) in range.enumerate() {
            let query = scoring.queries.row(query);
            let norm = simd::sequential_dot(scoring.level, query, query);
            let scale = brackets::scale(norm)?;
            let (block, lane) = (offset / QUERIES, offset % QUERIES);
            integers.scales[block][lane] = scale;
            integers.norms[block][lane] = norm;
            let packed = &mut integers.queries[block * pairs..][..pairs];
            brackets::pack_query(query, scale, packed, lane);
        }
        Some(integers)
    }

    /// Writes a panel of items; `false` where these have to be scored as they are.
    ///
    /// `bias` is that of the panel, if there is one.
    pub(super) fn fill(&mut self, scoring: &Scoring, panel: &[Lanes], bias: &Lanes) -> bool {
        let norms = simd::panel_norms(scoring.level, panel);
        let is_distance = scoring.similarity != Similarity::Dot;
        let factor = if is_distance { 2.0 } else { 1.0 };
        let mut scales = Lanes([0.0; LANES]);
        for lane in 0..LANES {
            let (norm, bias) = (norms.0[lane], bias.0[lane]);
            let Some(scale) = brackets::scale(norm).filter(|_| bias.abs() < LARGEST_BIAS) else {
                return false;
            };
            scales.0[lane] = scale;
            let norm = if is_distance { norm } else { 0.0 };
            let (added, slack) = (bias - norm, ROUNDING * (bias.abs() + norm));
            self.items.scales.0[lane] = factor * scale;
            self.items.least.0[lane] = added - slack;
            self.items.most.0[lane] = added + slack;
        }
        brackets::pack_panel(scoring.level, panel, &scales, &mut self.panel);
        true
    }

    /// What the scores of a block are compared with, given the thresholds.
    pub(super) fn bounds(
        &self,
        similarity: Similarity,
        block: usize,
        thresholds: &QueryCoordinates,
    ) -> QueryBounds {
        let mut bounds = QueryBounds {
            scales: self.scales[block],
            above: [0.0; QUERIES],
            below: [0.0; QUERIES],
        };
        for (query, (&threshold, &norm)) in thresholds.iter().zip(&self.norms[block]).enumerate() {
            let (right, size) = match similarity {
                Similarity::Dot => (threshold, threshold.abs()),
                Similarity::SquaredL2 => (threshold + norm, threshold.abs() + norm),
                // Nothing exceeds a threshold that no distance reaches: that of the best none.
                Similarity::L2 if threshold > 0.0 => (f32::INFINITY, 0.0),
                Similarity::L2 => (norm - threshold * threshold, norm + threshold * threshold),
            };
            bounds.above[query] = right + ROUNDING * size;
            bounds.below[query] = right - ROUNDING * size;
        }
        bounds
    }

    /// Compares a block with the panel: which scores are above, and which are neither above nor below for certain.
    pub(super) fn compare(
        &mut self,
        scoring: &Scoring,
        block: usize,
        bounds: &QueryBounds,
    ) -> (Masks, Masks) {
        let pairs = self.panel.len();
        let queries = &self.queries[block * pairs..][..pairs];
        brackets::multiply(scoring.level, &self.panel, queries, &mut self.tile);
        brackets::compare(scoring.level, &self.tile, self.error, &self.items, bounds)
    }
}

/// The scores of a few items for one query, with the bits of [`Scoring::pair_score`].
///
/// `rows` is room for the items' rows. At most as many items as a panel holds.
pub(super) fn exact_scores(
    scoring: &Scoring,
    query: usize,
    query_norm: f32,
    items: &[usize],
    rows: &mut Vec<f32>,
) -> [f32; LANES] {
    rows.clear();
    for &item in items {
        rows.extend_from_slice(scoring.item_table.row(item));
    }
    let mut scores = [0.0; LANES];
    let mut norms = Lanes([0.0; LANES]);
    let query_row = scoring.queries.row(query);
    simd::sequential_dots(scoring.level, query_row, rows, &mut scores, &mut norms);
    for (position, &item) in items.iter().enumerate() {
        let score = &mut scores[position];
        if scoring.similarity != Similarity::Dot {
            let distance = simd::squared_distance_from_dot(*score, query_norm, norms.0[position]);
            *score = simd::score_from_squared_distance(distance, scoring.similarity.takes_root());
        }
        if let Some(bias) = scoring.item_bias {
            *score += bias[item];
        }
    }
    scores
}
