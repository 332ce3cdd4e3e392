//! How queries and items are divided among threads.

use std::ops::Range;

use crate::parallel::current_threads;
use crate::ranking::scoring::Scoring;
use crate::simd::{LANES, QUERIES};

/// Queries of a piece of work: enough to make up for transposing the panels, few enough for their coordinates
/// to stay in the second-level cache.
pub(super) const CHUNK_QUERIES: usize = 42 * QUERIES;

/// Items of a piece of work, at least, where there are too few queries to keep all threads busy.
const MIN_RANGE_ITEMS: usize = 64 * LANES;

/// Pieces of work for each thread, so that all threads end at about the same time.
const PIECES_PER_THREAD: usize = 8;

/// The division of queries and items into pieces. Results do not depend on it.
pub(super) struct Plan {
    /// Queries of a piece, at most.
    pub(super) chunk: usize,
    queries: usize,
    num_items: usize,
    range_items: usize,
}

/// Some queries and the items that they are compared with.
pub(super) struct Piece {
    pub(super) queries: Range<usize>,
    pub(super) items: Range<usize>,
}

impl Plan {
    pub(super) fn new(scoring: &Scoring) -> Self {
        let chunk = CHUNK_QUERIES;
        let queries = scoring.queries.rows();
        let num_items = scoring.item_table.rows();
        let chunks = queries.div_ceil(chunk).max(1);
        let ranges = match current_threads() {
            1 => 1,
            threads => (threads * PIECES_PER_THREAD).div_ceil(chunks),
        };
        let range_items = num_items
            .div_ceil(ranges)
            .next_multiple_of(LANES)
            .max(MIN_RANGE_ITEMS);
        Self {
            chunk,
            queries,
            num_items,
            range_items,
        }
    }

    /// Pieces of so many queries and all items.
    pub(super) fn of_whole_rows(chunk: usize, scoring: &Scoring) -> Self {
        let num_items = scoring.item_table.rows();
        Self {
            chunk,
            queries: scoring.queries.rows(),
            num_items,
            range_items: num_items.next_multiple_of(LANES).max(LANES),
        }
    }

    /// Number of ranges that the items are divided into.
    pub(super) fn ranges(&self) -> usize {
        self.num_items.div_ceil(self.range_items).max(1)
    }

    /// The pieces, range of items by range of items.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> {
        (0..self.ranges()).flat_map(move |range| {
            let first = range * self.range_items;
            let items = first..(first + self.range_items).min(self.num_items);
            (0..self.queries).step_by(self.chunk).map(move |first| {
                let queries = first..(first + self.chunk).min(self.queries);
                Piece {
                    queries,
                    items: items.clone(),
                }
            })
        })
    }
}
