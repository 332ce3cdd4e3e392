//! Lists of small catalogues: all scores of a query are kept, and then few of them are compared with each other.
//!
//! The greatest scores of the lanes are those of distinct items. So at least n items reach the n-th greatest of them,
//! and no other item is among the n best.

use std::ops::Range;

use crate::ranking::best::Best;
use crate::simd::{self, LANES, Level, QUERIES, Tile};

/// Bytes of the scores that a piece of work keeps, at most: they stay in the second-level cache.
const BYTES: usize = 1 << 19;

/// The scores of the queries of a piece, panel by panel: a buffer of one thread.
#[derive(Default)]
pub(super) struct ScoreRows {
    /// NaN in the lanes after the last item.
    scores: Vec<[f32; LANES]>,
    panels: usize,
    queries: usize,
    bits: Vec<u32>,
}

impl ScoreRows {
    /// How many queries a piece may have, in whole blocks; `None` if they are too few to be worth it.
    pub(super) fn most_queries(num_items: usize) -> Option<usize> {
        let of_query = num_items.next_multiple_of(LANES) * size_of::<f32>();
        let blocks = BYTES / (of_query * QUERIES).max(1);
        (blocks >= 4).then_some(blocks * QUERIES)
    }

    /// Makes room for the scores of a piece. They are NaN until they are kept, unless `all_are_kept`.
    pub(super) fn start(&mut self, num_items: usize, queries: usize, all_are_kept: bool) {
        self.panels = num_items.div_ceil(LANES);
        self.queries = queries;
        if !all_are_kept {
            self.scores.clear();
        }
        self.scores.resize(self.panels * queries, [f32::NAN; LANES]);
    }

    /// Keeps the scores of a tile, and returns how many of them are NaN.
    pub(super) fn keep(
        &mut self,
        level: Level,
        block: usize,
        items: &Range<usize>,
        tile: &Tile,
    ) -> u64 {
        let first = block * QUERIES;
        let count = (self.queries - first).min(QUERIES);
        let panel = items.start / LANES;
        for (offset, scores) in tile.0[..count].iter().enumerate() {
            let row = &mut self.scores[(first + offset) * self.panels + panel];
            *row = *scores;
            row[items.len()..].fill(f32::NAN);
        }
        let mut above = [0; QUERIES];
        let above = &mut above[..count];
        simd::above_in_tile(level, tile, items.len(), &[f32::INFINITY; QUERIES], above)
    }

    /// The `n` best items of a query.
    pub(super) fn best(&mut self, level: Level, query: usize, n: usize) -> Best {
        let Self { scores, bits, .. } = self;
        let row = &scores[query * self.panels..][..self.panels];
        let mut best = Best::new(n);
        match threshold(level, row, n) {
            Some(threshold) => {
                bits.clear();
                simd::bits_above(level, row, threshold, bits);
                for (panel, (scores, &bits)) in row.iter().zip(&*bits).enumerate() {
                    let mut rest = bits;
                    while rest != 0 {
                        let lane = rest.trailing_zeros() as usize;
                        rest &= rest - 1;
                        best.offer((panel * LANES + lane) as i64, scores[lane]);
                    }
                }
            }
            None => best.offer_run(0, row.as_flattened()),
        }
        best
    }
}

/// A number that the `n` best scores of a row exceed; `None` if the greatest of the lanes do not tell.
fn threshold(level: Level, row: &[[f32; LANES]], n: usize) -> Option<f32> {
    if !(1..=LANES).contains(&n) {
        return None;
    }
    let mut greatest = simd::lane_maxima(level, row);
    let (_, least, _) = greatest.select_nth_unstable_by(n - 1, |left, right| right.total_cmp(left));
    (*least > f32::NEG_INFINITY).then(|| least.next_down())
}
