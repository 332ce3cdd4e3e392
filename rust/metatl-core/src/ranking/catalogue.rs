//! Ranking against the whole catalogue.
//!
//! The catalogue is walked in panels of [`LANES`] items, each transposed once and compared with a few hundred
//! queries in blocks of [`QUERIES`]; scores live in a tile of one block by one panel and are counted, or offered
//! to the best, before the next tile is made. A few queries alone are compared with the rows as they lie, which
//! gives the same bits. An item that does not count for a query has its score in the tile replaced by NaN, which
//! compares with nothing.
//!
//! Where a threshold is known, that of the target or of the worst of the best, most items are told apart from it
//! by [`Estimates`], which cost less than a tile of scores, and only the close ones are scored. Results are those
//! of the scores, to the last bit.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::best::Best;
use super::estimates::{Estimates, FEW_QUERIES, exact_scores};
use super::scoring::{Scoring, Similarity, check_targets};
use super::{Comparisons, ItemLists, TopN, check_nan, sort_distinct};
use crate::Error;
use crate::parallel::{Interrupt, allocate, current_threads, for_each_chunk};
use crate::simd::brackets::Masks;
use crate::simd::{self, Counts, LANES, Lanes, QUERIES, QueryCoordinates, Tile};

/// Queries that a thread takes at a time: enough to make up for transposing the panels, few enough to stay in
/// the second-level cache.
const CHUNK_QUERIES: usize = 42 * QUERIES;

/// Items that a thread takes at a time when there are too few queries to keep all threads busy.
const MIN_RANGE_ITEMS: usize = 64 * LANES;

/// Items that may be among the best are scored together: for more of them a threshold would lag behind, and fewer
/// would leave lanes empty.
const SCORED_AT_ONCE: usize = LANES / 2;

/// Pieces of work for each thread, so that all end at about the same time.
const PIECES_PER_THREAD: usize = 8;

/// Compares the score of each query's target with those of all other items, the excluded ones left out.
pub fn rank_catalogue(
    scoring: &Scoring,
    targets: &[i64],
    excluded: ItemLists,
    interrupt: &Interrupt,
) -> Result<Comparisons, Error> {
    let queries = scoring.queries.rows();
    check_targets(targets, queries, scoring.item_table.rows())?;
    let mut result = Comparisons::allocate(queries)?;
    let plan = Plan::new(scoring);
    let mut counts: Vec<Counts> = allocate(plan.ranges(), queries)?;
    let nan = AtomicU64::new(0);
    // Pieces are numbered range by range, each range having its own row of counts.
    let pieces = plan.pieces().zip(
        counts
            .chunks_mut(queries.max(1))
            .flat_map(|counts| counts.chunks_mut(CHUNK_QUERIES)),
    );
    for_each_chunk(
        pieces,
        interrupt,
        || (),
        |(), _, (piece, counts)| {
            let found_nan = piece.count(scoring, targets, excluded, counts, interrupt)?;
            nan.fetch_add(found_nan, Ordering::Relaxed);
            Ok(())
        },
    )?;
    check_nan(nan.into_inner())?;
    for counts in counts.chunks(queries.max(1)) {
        let results = result.greater.iter_mut().zip(&mut result.equal);
        for ((greater, equal), counts) in results.zip(counts) {
            *greater += counts.greater as i64;
            *equal += counts.equal as i64;
        }
    }
    Ok(result)
}

/// The `n` best items of the catalogue for each query, the excluded ones left out.
pub fn top_n(
    scoring: &Scoring,
    n: usize,
    excluded: ItemLists,
    interrupt: &Interrupt,
) -> Result<TopN, Error> {
    let queries = scoring.queries.rows();
    let mut result = TopN {
        items: allocate(queries, n)?,
        scores: allocate(queries, n)?,
    };
    let plan = Plan::new(scoring);
    let mut best: Vec<Option<Best>> = Vec::new();
    best.resize_with(plan.ranges() * queries, || None);
    let nan = AtomicU64::new(0);
    let pieces = plan.pieces().zip(
        best.chunks_mut(queries.max(1))
            .flat_map(|best| best.chunks_mut(CHUNK_QUERIES)),
    );
    for_each_chunk(
        pieces,
        interrupt,
        || (),
        |(), _, (piece, best)| {
            let found_nan = piece.select(scoring, n, excluded, best, interrupt)?;
            nan.fetch_add(found_nan, Ordering::Relaxed);
            Ok(())
        },
    )?;
    check_nan(nan.into_inner())?;
    for query in 0..queries {
        let of_ranges = best[query..].iter_mut().step_by(queries);
        let merged = of_ranges.filter_map(Option::take).reduce(Best::merge);
        let place = query * n..(query + 1) * n;
        merged
            .unwrap_or_else(|| Best::new(n))
            .write(&mut result.items[place.clone()], &mut result.scores[place]);
    }
    Ok(result)
}

/// How queries and items are divided among threads. Results do not depend on it.
struct Plan {
    queries: usize,
    num_items: usize,
    range_items: usize,
}

impl Plan {
    fn new(scoring: &Scoring) -> Self {
        let queries = scoring.queries.rows();
        let num_items = scoring.item_table.rows();
        let chunks = queries.div_ceil(CHUNK_QUERIES).max(1);
        let ranges = match current_threads() {
            1 => 1,
            threads => (threads * PIECES_PER_THREAD).div_ceil(chunks),
        };
        let range_items = num_items
            .div_ceil(ranges)
            .next_multiple_of(LANES)
            .max(MIN_RANGE_ITEMS);
        Self {
            queries,
            num_items,
            range_items,
        }
    }

    fn ranges(&self) -> usize {
        self.num_items.div_ceil(self.range_items).max(1)
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        (0..self.ranges()).flat_map(move |range| {
            let first = range * self.range_items;
            let items = first..(first + self.range_items).min(self.num_items);
            (0..self.queries).step_by(CHUNK_QUERIES).map(move |first| {
                let queries = first..(first + CHUNK_QUERIES).min(self.queries);
                Piece {
                    queries,
                    items: items.clone(),
                }
            })
        })
    }
}

/// Some queries against some items.
struct Piece {
    queries: Range<usize>,
    items: Range<usize>,
}

impl Piece {
    /// Adds to `counts` how the items of this piece compare with each query's target, and returns the number of
    /// NaN.
    fn count(
        &self,
        scoring: &Scoring,
        targets: &[i64],
        excluded: ItemLists,
        counts: &mut [Counts],
        interrupt: &Interrupt,
    ) -> Result<u64, Error> {
        let norms = self.query_norms(scoring);
        let mut thresholds = blocks_of_zeros(self.queries.len());
        let mut found_nan = 0;
        let mut room = Vec::new();
        for (offset, query) in self.queries.clone().enumerate() {
            let target = targets[query] as usize;
            let row = scoring.item_row(query, target, &mut room);
            let score = scoring.pair_score(query, norms.as_flattened()[offset], target, row);
            thresholds.as_flattened_mut()[offset] = score;
            found_nan += u64::from(score.is_nan() && self.items.contains(&target));
        }
        let changes = Changes::new(scoring, self, &norms, |query, left_out| {
            sort_distinct(excluded.list(query), left_out);
            let target = targets[query];
            if let Err(position) = left_out.binary_search(&target) {
                left_out.insert(position, target);
            }
        });
        let mut counting = Counting {
            scoring,
            thresholds,
            counts: vec![[Counts::default(); QUERIES]; norms.len()],
            close: CloseItems::new(scoring, self, &norms, LANES),
        };
        self.for_each_tile(scoring, &norms, &changes, interrupt, &mut counting)?;
        let block_counts = counting.finish();
        for (counts, &counted) in counts.iter_mut().zip(block_counts.as_flattened()) {
            found_nan += counted.nan;
            *counts = counted;
        }
        Ok(found_nan - changes.left_out)
    }

    /// Finds the `n` best items of this piece for each query, and returns the number of NaN.
    fn select(
        &self,
        scoring: &Scoring,
        n: usize,
        excluded: ItemLists,
        best: &mut [Option<Best>],
        interrupt: &Interrupt,
    ) -> Result<u64, Error> {
        let norms = self.query_norms(scoring);
        let changes = Changes::new(scoring, self, &norms, |query, left_out| {
            sort_distinct(excluded.list(query), left_out);
        });
        let mut selected: Vec<Best> = self.queries.clone().map(|_| Best::new(n)).collect();
        let mut selecting = Selecting {
            scoring,
            blocks: selected.chunks_mut(QUERIES).map(BestOfBlock::new).collect(),
            nan: 0,
            close: CloseItems::new(scoring, self, &norms, SCORED_AT_ONCE),
        };
        self.for_each_tile(scoring, &norms, &changes, interrupt, &mut selecting)?;
        let found_nan = selecting.finish();
        for (best, selected) in best.iter_mut().zip(selected) {
            *best = Some(selected);
        }
        Ok(found_nan - changes.left_out)
    }

    /// |q|² of the queries, in blocks; the last block is filled up with zeros.
    fn query_norms(&self, scoring: &Scoring) -> Vec<QueryCoordinates> {
        let mut norms = blocks_of_zeros(self.queries.len());
        for (norm, query) in norms
            .as_flattened_mut()
            .iter_mut()
            .zip(self.queries.clone())
        {
            *norm = scoring.query_norm(query);
        }
        norms
    }

    /// Shows the visitor every block of queries and panel of items.
    fn for_each_tile(
        &self,
        scoring: &Scoring,
        norms: &[QueryCoordinates],
        changes: &Changes,
        interrupt: &Interrupt,
        visitor: &mut impl Visitor,
    ) -> Result<(), Error> {
        let dimension = scoring.queries.columns();
        let queries = self.pack_queries(scoring);
        let mut estimates = Estimates::new(scoring, self.queries.clone());
        let transposed = self.queries.len() > FEW_QUERIES
            || estimates.as_ref().is_some_and(Estimates::needs_panels);
        let mut panel = Panel::new(dimension);
        let mut room = Vec::new();
        let mut changes = changes.sorted.iter().peekable();
        let mut tile = Tile::EMPTY;
        let next_part = (LANES * dimension).div_ceil(norms.len().max(1)).max(1);
        for first in self.items.clone().step_by(LANES) {
            interrupt.check()?;
            let items = first..(first + LANES).min(self.items.end);
            let mut rows = &[][..];
            if transposed {
                rows = scoring.rows_of(items.clone(), &mut room);
                panel.fill(scoring, rows, items.len());
            }
            panel.fill_bias(scoring, items.clone());
            let mut estimates = estimates.as_mut().and_then(|estimates| {
                let filled = estimates.fill(scoring, &panel.coordinates, &panel.item_bias);
                filled.then_some(estimates)
            });
            // The rows of the next panel come in while the blocks of this one are computed.
            let mut coming = items.end * dimension;
            let all = (items.end + LANES).min(self.items.end) * dimension;
            for (block, norms) in norms.iter().enumerate() {
                if transposed && coming < all {
                    let part = coming..(coming + next_part).min(all);
                    coming = part.end;
                    scoring.item_table.prefetch(part);
                }
                let mut changes = std::iter::from_fn(|| {
                    changes.next_if(|change| {
                        change.first_item == first && change.query / QUERIES == block
                    })
                });
                if let Some(estimates) = &mut estimates
                    && let Some(thresholds) = visitor.thresholds(block)
                {
                    let (mut above, mut open) =
                        estimates.compare(scoring, block, items.clone(), thresholds);
                    for change in changes {
                        let others = !(1 << change.lane);
                        above[change.query % QUERIES] &= others;
                        open[change.query % QUERIES] &= others;
                        visitor.take_change(change);
                    }
                    visitor.take_comparisons(block, items.clone(), &above, &open);
                    continue;
                }
                if transposed {
                    let packed = &queries[block * dimension..][..dimension];
                    simd::dot_tile(scoring.level, &panel.coordinates, packed, &mut tile);
                } else {
                    rows = scoring.rows_of(items.clone(), &mut room);
                    self.fill_tile_in_place(scoring, rows, &mut panel.item_norms, &mut tile);
                }
                self.finish_tile(scoring, &panel, rows, block, norms, &mut tile);
                for change in &mut changes {
                    tile.0[change.query % QUERIES][change.lane] = change.score;
                }
                visitor.take_scores(block, items.clone(), &tile);
            }
        }
        Ok(())
    }

    /// The products of a few queries with the rows of items as they lie, and the items' norms.
    fn fill_tile_in_place(
        &self,
        scoring: &Scoring,
        rows: &[f32],
        item_norms: &mut Lanes,
        tile: &mut Tile,
    ) {
        for (query, products) in self.queries.clone().zip(&mut tile.0) {
            let query = scoring.queries.row(query);
            simd::sequential_dots(scoring.level, query, rows, products, item_norms);
        }
    }

    /// The queries in blocks, coordinate by coordinate; the last block is filled up with zeros.
    fn pack_queries(&self, scoring: &Scoring) -> Vec<QueryCoordinates> {
        let dimension = scoring.queries.columns();
        let blocks = self.queries.len().div_ceil(QUERIES);
        let mut packed = vec![[0.0; QUERIES]; blocks * dimension];
        for (offset, query) in self.queries.clone().enumerate() {
            let block = &mut packed[offset / QUERIES * dimension..][..dimension];
            for (coordinates, &coordinate) in block.iter_mut().zip(scoring.queries.row(query)) {
                coordinates[offset % QUERIES] = coordinate;
            }
        }
        packed
    }

    /// Turns the dot products of a tile into scores, step by step as [`Scoring::pair_score`] does.
    fn finish_tile(
        &self,
        scoring: &Scoring,
        panel: &Panel,
        item_rows: &[f32],
        block: usize,
        query_norms: &QueryCoordinates,
        tile: &mut Tile,
    ) {
        let level = scoring.level;
        let queries = self.queries.clone().skip(block * QUERIES);
        let rows = &mut tile.0[..queries.len().min(QUERIES)];
        if scoring.similarity != Similarity::Dot {
            let finite =
                simd::tile_to_squared_distances(level, rows, query_norms, &panel.item_norms);
            if !finite {
                for (query, distances) in queries.zip(&mut *rows) {
                    let item_rows = item_rows.chunks_exact(scoring.queries.columns().max(1));
                    for (row, distance) in item_rows.zip(distances) {
                        if !distance.is_finite() {
                            *distance = scoring.exact_squared_distance(query, row);
                        }
                    }
                }
            }
            let root = scoring.similarity.takes_root();
            simd::scores_from_squared_distances(level, rows.as_flattened_mut(), root);
        }
        if scoring.item_bias.is_some() {
            simd::add_bias_to_tile(level, rows, &panel.item_bias);
        }
    }
}

/// What becomes of the scores, block by block and panel by panel.
trait Visitor {
    /// What the scores of a block's queries have to exceed to matter; `None` where all scores matter.
    fn thresholds(&self, block: usize) -> Option<&QueryCoordinates>;

    /// Takes the scores themselves.
    fn take_scores(&mut self, block: usize, items: Range<usize>, tile: &Tile);

    /// Takes what is known of the scores: those `above` the thresholds, and those of which that is `open`.
    ///
    /// Bits beyond the items mean nothing.
    fn take_comparisons(&mut self, block: usize, items: Range<usize>, above: &Masks, open: &Masks);

    /// Takes a score that stands apart from these comparisons.
    fn take_change(&mut self, change: &Change);
}

/// Items whose comparison with a query's threshold is open, for each query of a piece.
struct CloseItems<'a> {
    scoring: &'a Scoring<'a>,
    first_query: usize,
    norms: &'a [QueryCoordinates],
    items: Vec<Vec<usize>>,
    /// A query's items are scored when there are so many of them.
    at_once: usize,
    rows: Vec<f32>,
}

impl<'a> CloseItems<'a> {
    fn new(
        scoring: &'a Scoring<'a>,
        piece: &Piece,
        norms: &'a [QueryCoordinates],
        at_once: usize,
    ) -> Self {
        Self {
            scoring,
            first_query: piece.queries.start,
            norms,
            items: vec![Vec::new(); piece.queries.len()],
            at_once,
            rows: Vec::new(),
        }
    }

    /// The queries of a block.
    fn queries_of(&self, block: usize) -> Range<usize> {
        block * QUERIES..((block + 1) * QUERIES).min(self.items.len())
    }

    /// Adds the items of a panel whose bits are 1; `take` (query, items, scores) gets those that are scored.
    fn add(
        &mut self,
        query: usize,
        first_item: usize,
        mut bits: u32,
        mut take: impl FnMut(usize, &[usize], &[f32]),
    ) {
        while bits != 0 {
            self.items[query].push(first_item + bits.trailing_zeros() as usize);
            bits &= bits - 1;
            if self.items[query].len() == self.at_once {
                self.score(query, &mut take);
            }
        }
    }

    /// Scores what is left.
    fn finish(&mut self, mut take: impl FnMut(usize, &[usize], &[f32])) {
        for query in 0..self.items.len() {
            self.score(query, &mut take);
        }
    }

    fn score(&mut self, query: usize, take: &mut impl FnMut(usize, &[usize], &[f32])) {
        let norm = self.norms.as_flattened()[query];
        let items = &mut self.items[query];
        let query_row = self.first_query + query;
        let scores = exact_scores(self.scoring, query_row, norm, items, &mut self.rows);
        take(query, items, &scores[..items.len()]);
        items.clear();
    }
}

/// Counts scores above and level with the targets'.
struct Counting<'a> {
    scoring: &'a Scoring<'a>,
    /// The targets' scores.
    thresholds: Vec<QueryCoordinates>,
    counts: Vec<[Counts; QUERIES]>,
    close: CloseItems<'a>,
}

impl Counting<'_> {
    /// The counts, once all tiles were seen.
    fn finish(self) -> Vec<[Counts; QUERIES]> {
        let Self {
            scoring,
            thresholds,
            mut counts,
            mut close,
        } = self;
        close.finish(|query, _, scores| {
            let threshold = thresholds.as_flattened()[query];
            counts.as_flattened_mut()[query] += simd::count(scoring.level, scores, threshold);
        });
        counts
    }
}

impl Visitor for Counting<'_> {
    fn thresholds(&self, block: usize) -> Option<&QueryCoordinates> {
        Some(&self.thresholds[block])
    }

    fn take_scores(&mut self, block: usize, items: Range<usize>, tile: &Tile) {
        simd::count_tile(
            self.scoring.level,
            tile,
            items.len(),
            &self.thresholds[block],
            &mut self.counts[block],
        );
    }

    fn take_comparisons(&mut self, block: usize, items: Range<usize>, above: &Masks, open: &Masks) {
        let Self {
            scoring,
            thresholds,
            counts,
            close,
        } = self;
        let lanes = first_lanes(items.len());
        for (lane, query) in close.queries_of(block).enumerate() {
            let above = above[lane] & lanes;
            counts[block][lane].greater += u64::from(above.count_ones());
            close.add(query, items.start, open[lane] & lanes, |_, _, scores| {
                counts[block][lane] += simd::count(scoring.level, scores, thresholds[block][lane]);
            });
        }
    }

    fn take_change(&mut self, change: &Change) {
        let threshold = self.thresholds.as_flattened()[change.query];
        let counts = simd::count(self.scoring.level, &[change.score], threshold);
        self.counts.as_flattened_mut()[change.query] += counts;
    }
}

/// Keeps the best items.
struct Selecting<'a> {
    scoring: &'a Scoring<'a>,
    blocks: Vec<BestOfBlock<'a>>,
    nan: u64,
    close: CloseItems<'a>,
}

impl Selecting<'_> {
    /// How many scores were NaN, once all tiles were seen.
    fn finish(mut self) -> u64 {
        self.close.finish(|query, items, scores| {
            self.nan += self.blocks[query / QUERIES].offer(query % QUERIES, items, scores);
        });
        self.nan
    }
}

impl Visitor for Selecting<'_> {
    fn thresholds(&self, block: usize) -> Option<&QueryCoordinates> {
        let block = &self.blocks[block];
        block.all_full.then_some(&block.thresholds)
    }

    fn take_scores(&mut self, block: usize, items: Range<usize>, tile: &Tile) {
        let BestOfBlock {
            best,
            thresholds,
            all_full,
        } = &mut self.blocks[block];
        let mut counts = [Counts::default(); QUERIES];
        let counts = &mut counts[..best.len()];
        simd::count_tile(self.scoring.level, tile, items.len(), thresholds, counts);
        let mut offered = false;
        for ((best, counts), scores) in best.iter_mut().zip(&*counts).zip(&tile.0) {
            self.nan += counts.nan;
            // A score of −∞ exceeds nothing, but enters where too few items are kept.
            if counts.greater > 0 || !*all_full {
                best.offer_run(items.start, &scores[..items.len()]);
                offered = true;
            }
        }
        if offered {
            self.blocks[block].update_thresholds();
        }
    }

    fn take_comparisons(&mut self, block: usize, items: Range<usize>, above: &Masks, open: &Masks) {
        let lanes = first_lanes(items.len());
        for (lane, query) in self.close.queries_of(block).enumerate() {
            let bits = (above[lane] | open[lane]) & lanes;
            self.close
                .add(query, items.start, bits, |_, items, scores| {
                    self.nan += self.blocks[block].offer(lane, items, scores);
                });
        }
    }

    fn take_change(&mut self, change: &Change) {
        let item = change.first_item + change.lane;
        let block = &mut self.blocks[change.query / QUERIES];
        self.nan += block.offer(change.query % QUERIES, &[item], &[change.score]);
    }
}

/// The best items of the queries of a block.
struct BestOfBlock<'a> {
    best: &'a mut [Best],
    /// What a score has to exceed; −∞ where too few items are kept yet.
    thresholds: QueryCoordinates,
    all_full: bool,
}

impl<'a> BestOfBlock<'a> {
    fn new(best: &'a mut [Best]) -> Self {
        let mut block = Self {
            best,
            thresholds: [f32::INFINITY; QUERIES],
            all_full: false,
        };
        block.update_thresholds();
        block
    }

    /// Offers single items to one of the queries, and returns how many scores are NaN.
    fn offer(&mut self, query: usize, items: &[usize], scores: &[f32]) -> u64 {
        for (&item, &score) in items.iter().zip(scores) {
            self.best[query].offer(item as i64, score);
        }
        self.update_thresholds();
        scores.iter().filter(|score| score.is_nan()).count() as u64
    }

    fn update_thresholds(&mut self) {
        self.all_full = true;
        for (threshold, best) in self.thresholds.iter_mut().zip(&*self.best) {
            *threshold = best.threshold().unwrap_or(f32::NEG_INFINITY);
            self.all_full &= best.threshold().is_some();
        }
    }
}

/// The bits of the first lanes of a panel.
fn first_lanes(lanes: usize) -> u32 {
    u32::MAX.checked_shr((LANES - lanes) as u32).unwrap_or(0)
}

/// Room for one number for each query, in blocks.
fn blocks_of_zeros(queries: usize) -> Vec<QueryCoordinates> {
    vec![[0.0; QUERIES]; queries.div_ceil(QUERIES)]
}

/// Some items, transposed: the last panel is filled up with zeros.
struct Panel {
    coordinates: Vec<Lanes>,
    item_norms: Lanes,
    item_bias: Lanes,
}

impl Panel {
    fn new(dimension: usize) -> Self {
        let zeros = Lanes([0.0; LANES]);
        Self {
            coordinates: vec![zeros; dimension],
            item_norms: zeros,
            item_bias: zeros,
        }
    }

    /// Takes the rows of `count` items.
    fn fill(&mut self, scoring: &Scoring, rows: &[f32], count: usize) {
        if count < LANES {
            self.coordinates.fill(Lanes([0.0; LANES]));
        }
        simd::transpose(rows, &mut self.coordinates);
        if scoring.similarity != Similarity::Dot {
            self.item_norms = simd::panel_norms(scoring.level, &self.coordinates);
        }
    }

    fn fill_bias(&mut self, scoring: &Scoring, items: Range<usize>) {
        if let Some(bias) = scoring.item_bias {
            self.item_bias.0[..items.len()].copy_from_slice(&bias[items]);
        }
    }
}

/// Scores that differ from what the item table gives: items that are left out, and items that are overridden.
struct Changes {
    /// In the order in which the tiles come.
    sorted: Vec<Change>,
    /// How many of them leave an item out, which puts a NaN into its tile.
    left_out: u64,
}

struct Change {
    /// The first item of the panel.
    first_item: usize,
    lane: usize,
    /// Counted from the first query of the piece.
    query: usize,
    score: f32,
}

impl Changes {
    /// `leave_out` (query, items) finds the items that do not count for a query, ascending and distinct.
    fn new(
        scoring: &Scoring,
        piece: &Piece,
        norms: &[QueryCoordinates],
        leave_out: impl Fn(usize, &mut Vec<i64>),
    ) -> Self {
        let mut sorted = Vec::new();
        let mut items = Vec::new();
        let mut left_out = 0;
        let change = |item: usize, offset, score| {
            let lane = (item - piece.items.start) % LANES;
            Change {
                first_item: item - lane,
                lane,
                query: offset,
                score,
            }
        };
        for (offset, query) in piece.queries.clone().enumerate() {
            leave_out(query, &mut items);
            for item in items.iter().map(|&item| item as usize) {
                if piece.items.contains(&item) {
                    sorted.push(change(item, offset, f32::NAN));
                    left_out += 1;
                }
            }
            let Some(overrides) = scoring.overrides else {
                continue;
            };
            for (position, &item) in overrides.items(query).iter().enumerate() {
                if piece.items.contains(&(item as usize)) && items.binary_search(&item).is_err() {
                    let row = overrides.row(query, position);
                    let norm = norms.as_flattened()[offset];
                    let score = scoring.pair_score(query, norm, item as usize, row);
                    sorted.push(change(item as usize, offset, score));
                }
            }
        }
        sorted.sort_unstable_by_key(|change| (change.first_item, change.query));
        Self { sorted, left_out }
    }
}
