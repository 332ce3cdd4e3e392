//! Estimates from products of 16-bit integers, for many queries: see [`brackets`].

use std::ops::Range;

use super::{ROUNDING, factor, sides};
use crate::ranking::scoring::{Scoring, Similarity};
use crate::simd::brackets::{
    self, ItemBounds, Masks, PackedCoordinates, PackedLanes, PackedTile, QueryBounds,
};
use crate::simd::{self, LANES, Lanes, QUERIES, QueryCoordinates};

/// Larger biases could leave the range of `f32` on the way.
const LARGEST_BIAS: f32 = 1e30;

/// Queries written as integers, and the panel that they meet next.
pub(in crate::ranking) struct Integers {
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
    /// Writes some of the queries; `None` where one of them cannot be written.
    pub(super) fn new(scoring: &Scoring, range: Range<usize>) -> Option<Self> {
        let (queries, dimension) = (range.len(), scoring.queries.columns());
        if dimension > brackets::MOST_DIMENSIONS {
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
        let factor = factor(scoring.similarity);
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

    /// Compares a block with the panel: what is above, and what is open.
    pub(super) fn compare(
        &mut self,
        scoring: &Scoring,
        block: usize,
        thresholds: &QueryCoordinates,
    ) -> (Masks, Masks) {
        let mut bounds = QueryBounds {
            scales: self.scales[block],
            above: [0.0; QUERIES],
            below: [0.0; QUERIES],
        };
        for (query, (&threshold, &norm)) in thresholds.iter().zip(&self.norms[block]).enumerate() {
            let sides = sides(scoring.similarity, threshold, norm);
            (bounds.above[query], bounds.below[query]) = sides;
        }
        let pairs = self.panel.len();
        let queries = &self.queries[block * pairs..][..pairs];
        brackets::multiply(scoring.level, &self.panel, queries, &mut self.tile);
        brackets::compare(scoring.level, &self.tile, self.error, &self.items, &bounds)
    }
}
