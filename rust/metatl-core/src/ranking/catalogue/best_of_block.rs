//! The best items of the queries of a block.

use std::ops::Range;

use crate::ranking::best::Best;
use crate::simd::{self, Level, QUERIES, QueryCoordinates, Tile};

/// The best items so far, and what a score has to exceed to be among them.
pub(super) struct BestOfBlock<'a> {
    best: &'a mut [Best],
    /// −∞ for a query that keeps fewer items than it may; ∞ in the lanes after the last query.
    thresholds: QueryCoordinates,
    /// Whether every query keeps as many items as it may.
    all_full: bool,
}

impl<'a> BestOfBlock<'a> {
    pub(super) fn new(best: &'a mut [Best]) -> Self {
        let mut block = Self {
            best,
            thresholds: [f32::INFINITY; QUERIES],
            all_full: false,
        };
        block.update_thresholds();
        block
    }

    /// Offers the scores of a tile, and returns how many of them are NaN.
    pub(super) fn offer_tile(&mut self, level: Level, items: Range<usize>, tile: &Tile) -> u64 {
        let mut above = [0; QUERIES];
        let above = &mut above[..self.best.len()];
        let nan = simd::above_in_tile(level, tile, items.len(), &self.thresholds, above);
        if !self.all_full {
            // A score of −∞ exceeds no threshold, but a query that keeps too few items takes it.
            for (best, scores) in self.best.iter_mut().zip(&tile.0) {
                best.offer_run(items.start, &scores[..items.len()]);
            }
            self.update_thresholds();
            return nan;
        }
        let queries = self.best.iter_mut().zip(&mut self.thresholds);
        for ((best, threshold), (scores, &bits)) in queries.zip(tile.0.iter().zip(&*above)) {
            let mut rest = bits;
            while rest != 0 {
                let lane = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                // The threshold has risen since the tile was compared.
                if scores[lane] > *threshold {
                    best.offer((items.start + lane) as i64, scores[lane]);
                    *threshold = best.threshold().unwrap_or(f32::NEG_INFINITY);
                }
            }
        }
        nan
    }

    fn update_thresholds(&mut self) {
        self.all_full = true;
        for (threshold, best) in self.thresholds.iter_mut().zip(&*self.best) {
            *threshold = best.threshold().unwrap_or(f32::NEG_INFINITY);
            self.all_full &= best.threshold().is_some();
        }
    }
}
