//! The best items of the queries of a block.

use std::ops::Range;

use crate::ranking::best::Best;
use crate::simd::{self, Counts, Level, QUERIES, QueryCoordinates, Tile};

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
        let mut counts = [Counts::default(); QUERIES];
        let counts = &mut counts[..self.best.len()];
        simd::count_tile(level, tile, items.len(), &self.thresholds, counts);
        let mut nan = 0;
        let mut offered = false;
        for ((best, counts), scores) in self.best.iter_mut().zip(&*counts).zip(&tile.0) {
            nan += counts.nan;
            // A score of −∞ exceeds no threshold, but a query that keeps too few items takes it.
            if counts.greater > 0 || !self.all_full {
                best.offer_run(items.start, &scores[..items.len()]);
                offered = true;
            }
        }
        if offered {
            self.update_thresholds();
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
