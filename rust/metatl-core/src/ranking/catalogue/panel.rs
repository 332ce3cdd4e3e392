//! The rows of one panel of items, transposed.

use crate::ranking::scoring::{Scoring, Similarity};
use crate::simd::{self, LANES, Lanes, QUERIES, QueryCoordinates};

/// One item in each lane: its coordinates, squared norm and bias. Lanes after the last item hold zeros.
pub(super) struct Panel {
    pub(super) coordinates: Vec<Lanes>,
    pub(super) item_norms: Lanes,
    pub(super) item_bias: Lanes,
}

impl Panel {
    pub(super) fn new(dimension: usize) -> Self {
        let zeros = Lanes([0.0; LANES]);
        Self {
            coordinates: vec![zeros; dimension],
            item_norms: zeros,
            item_bias: zeros,
        }
    }

    /// Transposes the rows of `count` items, and computes their squared norms where the similarity needs them.
    pub(super) fn fill(&mut self, scoring: &Scoring, rows: &[f32], count: usize) {
        if count < LANES {
            self.coordinates.fill(Lanes([0.0; LANES]));
        }
        simd::transpose(rows, &mut self.coordinates);
        if scoring.similarity != Similarity::Dot {
            self.item_norms = simd::panel_norms(scoring.level, &self.coordinates);
        }
    }
}

/// Zeros, one for each query, in blocks.
pub(super) fn blocks_of_zeros(queries: usize) -> Vec<QueryCoordinates> {
    vec![[0.0; QUERIES]; queries.div_ceil(QUERIES)]
}
