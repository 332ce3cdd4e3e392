//! Deciding most comparisons with a threshold from estimates, and only the close ones from scores.
//!
//! A score is above a threshold τ where
//!
//! * q·e + b > τ ([`Similarity::Dot`]),
//! * 2 q·e + (b − |e|²) > τ + |q|² ([`Similarity::SquaredL2`]),
//! * 2 q·e − |e|² > |q|² − τ² ([`Similarity::L2`] without bias: both sides of −‖q − e‖ > τ squared),
//!
//! so that an estimate of the product q·e, with the error that it can have, tells which items are above for
//! certain and which are neither above nor below. These are left open, and [`exact_scores`] gives their scores
//! with the bits of [`Scoring::pair_score`]: results are those of the scores, whatever the estimates.

mod integers;
mod products;

use std::ops::Range;

use self::integers::Integers;
use self::products::Products;
use super::scoring::{Scoring, Similarity};
use crate::simd::brackets::{self, Masks};
use crate::simd::{self, LANES, Lanes, Level, QUERIES, QueryCoordinates};

/// As many queries as this are compared with the rows as they lie: transposing the panels would not pay.
pub(super) const FEW_QUERIES: usize = 3;

/// Writing a panel as integers pays for as many blocks of queries as this.
const FEWEST_BLOCKS: usize = 8;

/// Rounding of one score or bound, over the sizes of what it is a sum of: a few times the 2⁻²⁴ of an addition.
const ROUNDING: f32 = 1.0 / (1 << 20) as f32;

/// What numbers too small for rounding to be relative can be off by, and more; as a square, the length of a
/// vector whose norm may have come out as 0.
const UNDERFLOW: f32 = f32::MIN_POSITIVE;

/// Which estimates a ranking works with; its results do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EstimateKind {
    WhatPays,
    Nothing,
    /// Products of integers, for many queries.
    Integers,
    /// Products in another order of summation, for a few.
    Products,
}

impl EstimateKind {
    /// What pays for a number of queries, if that was the question.
    fn resolve(self, level: Level, queries: usize) -> Self {
        if self != Self::WhatPays {
            self
        } else if queries <= FEW_QUERIES && simd::has_vectors(level) {
            Self::Products
        } else if queries >= FEWEST_BLOCKS * QUERIES && brackets::pays(level) {
            Self::Integers
        } else {
            Self::Nothing
        }
    }
}

/// Estimates for some of the queries.
pub(super) enum Estimates {
    Integers(Box<Integers>),
    Products(Products),
}

impl Estimates {
    /// `None` where no estimate helps or serves.
    pub(super) fn new(scoring: &Scoring, queries: Range<usize>) -> Option<Self> {
        if scoring.similarity == Similarity::L2 && scoring.item_bias.is_some() {
            return None;
        }
        match scoring.estimates.resolve(scoring.level, queries.len()) {
            EstimateKind::WhatPays | EstimateKind::Nothing => None,
            EstimateKind::Integers => Integers::new(scoring, queries)
                .map(Box::new)
                .map(Self::Integers),
            EstimateKind::Products => Some(Self::Products(Products::new(scoring, queries))),
        }
    }

    /// Whether panels have to be transposed.
    pub(super) fn needs_panels(&self) -> bool {
        matches!(self, Self::Integers(_))
    }

    /// Takes the next panel of items; `false` where these have to be scored as they are.
    ///
    /// `panel` holds the items' coordinates if they are needed, `bias` their bias if there is one.
    pub(super) fn fill(&mut self, scoring: &Scoring, panel: &[Lanes], bias: &Lanes) -> bool {
        match self {
            Self::Integers(integers) => integers.fill(scoring, panel, bias),
            Self::Products(products) => products.fill(bias),
        }
    }

    /// Compares a block of queries with the items of the panel: which scores are above the thresholds for
    /// certain, and which are neither that nor below for certain.
    pub(super) fn compare(
        &mut self,
        scoring: &Scoring,
        block: usize,
        items: Range<usize>,
        thresholds: &QueryCoordinates,
    ) -> (Masks, Masks) {
        match self {
            Self::Integers(integers) => integers.compare(scoring, block, thresholds),
            Self::Products(products) => products.compare(scoring, block, items, thresholds),
        }
    }
}

/// What a product has to be multiplied with on the left side of the comparison.
fn factor(similarity: Similarity) -> f32 {
    match similarity {
        Similarity::Dot => 1.0,
        Similarity::L2 | Similarity::SquaredL2 => 2.0,
    }
}

/// The right sides of the comparison: what is above the first is above the threshold, what is below the second
/// is below.
fn sides(similarity: Similarity, threshold: f32, query_norm: f32) -> (f32, f32) {
    let (right, size) = match similarity {
        Similarity::Dot => (threshold, threshold.abs()),
        Similarity::SquaredL2 => (threshold + query_norm, threshold.abs() + query_norm),
        // Nothing exceeds a threshold that no distance reaches: that of the best none.
        Similarity::L2 if threshold > 0.0 => (f32::INFINITY, 0.0),
        Similarity::L2 => {
            let squared = threshold * threshold;
            (query_norm - squared, query_norm + squared)
        }
    };
    let slack = ROUNDING * size + UNDERFLOW;
    (right + slack, right - slack)
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
    let dimension = scoring.queries.columns();
    // Room for all that may come: growing it again would clear it again.
    rows.resize(LANES * dimension, 0.0);
    let rows = &mut rows[..items.len() * dimension];
    scoring
        .item_table
        .write_rows(scoring.level, items.iter().copied(), rows);
    let mut scores = [0.0; LANES];
    let mut norms = Lanes([0.0; LANES]);
    let query_row = scoring.queries.row(query);
    simd::sequential_dots(scoring.level, query_row, rows, &mut scores, &mut norms);
    for (position, &item) in items.iter().enumerate() {
        let score = &mut scores[position];
        if scoring.similarity != Similarity::Dot {
            let mut distance =
                simd::squared_distance_from_dot(*score, query_norm, norms.0[position]);
            if !distance.is_finite() {
                let row = &rows[position * dimension..][..dimension];
                distance = scoring.exact_squared_distance(query, row);
            }
            *score = simd::score_from_squared_distance(distance, scoring.similarity.takes_root());
        }
        if let Some(bias) = scoring.item_bias {
            *score += bias[item];
        }
    }
    scores
}
