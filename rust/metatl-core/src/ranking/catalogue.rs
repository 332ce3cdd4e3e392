//! Ranking against the whole catalogue.
//!
//! The items are read in panels of [`simd::LANES`] rows. Each panel is transposed once and compared with blocks of
//! [`QUERIES`] queries. The scores of one block and one panel fill a tile; they are counted, or offered to the
//! best items, before the next tile is computed. A few queries are compared with the untransposed rows, which
//! gives the same bits. An item that does not count for a query gets NaN as its score in the tile, because NaN
//! is neither above nor equal to a threshold.

mod best_of_block;
mod changes;
mod panel;
mod plan;
mod score_rows;
mod tiles;

use std::sync::atomic::{AtomicU64, Ordering};

use self::best_of_block::BestOfBlock;
use self::changes::Changes;
use self::panel::blocks_of_zeros;
use self::plan::{CHUNK_QUERIES, Piece, Plan};
use self::score_rows::ScoreRows;
use self::tiles::Tiles;
use super::best::Best;
use super::inputs::{ItemLists, check_allowed, check_targets, sort_distinct};
use super::item_table::ItemTable;
use super::outputs::{Comparisons, TopN, check_nan};
use super::scoring::Scoring;
use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk};
use crate::simd::{self, Counts, QUERIES};

/// Candidates that are scored between two checks of the interrupt flag.
const CHUNK_CANDIDATES: usize = 1 << 12;

/// Compares the score of each query's target with the scores of all other items except the excluded ones.
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
    // Pieces come range by range, and each range has its own row of counts.
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
            let piece_nan = count_piece(&piece, scoring, targets, excluded, counts, interrupt)?;
            nan.fetch_add(piece_nan, Ordering::Relaxed);
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

/// The `n` best items of the catalogue for each query, without the excluded ones, and for all queries without those
/// that are not allowed.
pub fn top_n(
    scoring: &Scoring,
    n: usize,
    excluded: ItemLists,
    allowed: Option<&[bool]>,
    interrupt: &Interrupt,
) -> Result<TopN, Error> {
    check_allowed(allowed, scoring.item_table.rows())?;
    let queries = scoring.queries.rows();
    let mut result = TopN {
        items: allocate(queries, n)?,
        scores: allocate(queries, n)?,
    };
    // The panels of an arranged table need not be transposed for each piece, so pieces may be small.
    let rows = match scoring.item_table {
        ItemTable::Panels(table) => ScoreRows::most_queries(table.rows()),
        _ => None,
    };
    let plan = rows.map_or_else(
        || Plan::new(scoring),
        |chunk| Plan::of_whole_rows(chunk, scoring),
    );
    let mut best: Vec<Option<Best>> = Vec::new();
    best.resize_with(plan.ranges() * queries, || None);
    let nan = AtomicU64::new(0);
    let pieces = plan.pieces().zip(
        best.chunks_mut(queries.max(1))
            .flat_map(|best| best.chunks_mut(plan.chunk)),
    );
    for_each_chunk(
        pieces,
        interrupt,
        || rows.map(|_| ScoreRows::default()),
        |rows, _, (piece, best)| {
            let lists = (n, excluded, allowed);
            let piece_nan = match rows {
                Some(rows) => select_from_rows(&piece, scoring, lists, rows, best, interrupt)?,
                None => select_from_piece(&piece, scoring, lists, best, interrupt)?,
            };
            nan.fetch_add(piece_nan, Ordering::Relaxed);
            Ok(())
        },
    )?;
    check_nan(nan.into_inner())?;
    for query in 0..queries {
        let of_ranges = best[query..].iter_mut().step_by(queries);
        let merged = of_ranges.filter_map(Option::take).reduce(Best::merge);
        let row = query * n..(query + 1) * n;
        merged
            .unwrap_or_else(|| Best::new(n))
            .write(&mut result.items[row.clone()], &mut result.scores[row]);
    }
    Ok(result)
}

/// The `n` best of each query's candidates, without the excluded ones. A repeated candidate counts once. Scores have
/// the same bits as those of [`top_n`].
pub fn top_n_of(
    scoring: &Scoring,
    n: usize,
    candidates: ItemLists,
    excluded: ItemLists,
    interrupt: &Interrupt,
) -> Result<TopN, Error> {
    let queries = scoring.queries.rows();
    let mut result = TopN {
        items: allocate(queries, n)?,
        scores: allocate(queries, n)?,
    };
    let nan = AtomicU64::new(0);
    // With n = 0 there are no outputs, but NaN still have to be counted.
    let mut outputs = result
        .items
        .chunks_mut(n.max(1))
        .zip(result.scores.chunks_mut(n.max(1)));
    let chunks = (0..queries).map(|query| (query, outputs.next().unwrap_or_default()));
    for_each_chunk(
        chunks,
        interrupt,
        <[Vec<i64>; 2]>::default,
        |[listed, left_out], _, (query, (items, scores))| {
            sort_distinct(candidates.list(query), listed);
            sort_distinct(excluded.list(query), left_out);
            listed.retain(|item| left_out.binary_search(item).is_err());
            let (norm, mut buffer) = (scoring.query_norm(query), Vec::new());
            let mut best = Best::new(n);
            let mut query_nan = 0;
            for part in listed.chunks(CHUNK_CANDIDATES) {
                interrupt.check()?;
                for &item in part {
                    let row = scoring.item_row(query, item as usize, &mut buffer);
                    let score = scoring.pair_score(query, norm, item as usize, row);
                    query_nan += u64::from(score.is_nan());
                    best.offer(item, score);
                }
            }
            if query_nan != 0 {
                nan.fetch_add(query_nan, Ordering::Relaxed);
            }
            best.write(items, scores);
            Ok(())
        },
    )?;
    check_nan(nan.into_inner())?;
    Ok(result)
}

/// Writes to `counts` how the items of a piece compare with each query's target, and returns the number of NaN.
fn count_piece(
    piece: &Piece,
    scoring: &Scoring,
    targets: &[i64],
    excluded: ItemLists,
    counts: &mut [Counts],
    interrupt: &Interrupt,
) -> Result<u64, Error> {
    let tiles = Tiles::new(scoring, piece);
    let norms = tiles.query_norms().as_flattened();
    let mut thresholds = blocks_of_zeros(piece.queries.len());
    let mut nan = 0;
    let mut buffer = Vec::new();
    for (offset, query) in piece.queries.clone().enumerate() {
        let target = targets[query] as usize;
        let row = scoring.item_row(query, target, &mut buffer);
        let score = scoring.pair_score(query, norms[offset], target, row);
        thresholds.as_flattened_mut()[offset] = score;
        nan += u64::from(score.is_nan() && piece.items.contains(&target));
    }
    let changes = Changes::new(scoring, piece, tiles.query_norms(), |query, left_out| {
        sort_distinct(excluded.list(query), left_out);
        let target = targets[query];
        if let Err(position) = left_out.binary_search(&target) {
            left_out.insert(position, target);
        }
    });
    let mut block_counts = vec![[Counts::default(); QUERIES]; thresholds.len()];
    let left_out = tiles.for_each(&changes, None, interrupt, |block, items, tile| {
        let counts = &mut block_counts[block];
        simd::count_tile(scoring.level, tile, items.len(), &thresholds[block], counts);
    })?;
    for (counts, &of_query) in counts.iter_mut().zip(block_counts.as_flattened()) {
        nan += of_query.nan;
        *counts = of_query;
    }
    Ok(nan - left_out)
}

/// The length of the lists, the items that a query does not get, and those that are allowed for all.
type Lists<'a> = (usize, ItemLists<'a>, Option<&'a [bool]>);

/// As [`select_from_piece`], for a piece with all items: keeps their scores first.
fn select_from_rows(
    piece: &Piece,
    scoring: &Scoring,
    (n, excluded, allowed): Lists,
    rows: &mut ScoreRows,
    best: &mut [Option<Best>],
    interrupt: &Interrupt,
) -> Result<u64, Error> {
    let tiles = Tiles::new(scoring, piece);
    let changes = Changes::new(scoring, piece, tiles.query_norms(), |query, left_out| {
        sort_distinct(excluded.list(query), left_out);
    });
    rows.start(piece.items.len(), piece.queries.len(), allowed.is_none());
    let mut nan = 0;
    let left_out = tiles.for_each(&changes, allowed, interrupt, |block, items, tile| {
        nan += rows.keep(scoring.level, block, &items, tile);
    })?;
    for (query, best) in best.iter_mut().enumerate() {
        *best = Some(rows.best(scoring.level, query, n));
    }
    Ok(nan - left_out)
}

/// Writes the `n` best items of a piece for each query to `best`, and returns the number of NaN.
fn select_from_piece(
    piece: &Piece,
    scoring: &Scoring,
    (n, excluded, allowed): Lists,
    best: &mut [Option<Best>],
    interrupt: &Interrupt,
) -> Result<u64, Error> {
    let tiles = Tiles::new(scoring, piece);
    let changes = Changes::new(scoring, piece, tiles.query_norms(), |query, left_out| {
        sort_distinct(excluded.list(query), left_out);
    });
    let mut selected: Vec<Best> = piece.queries.clone().map(|_| Best::new(n)).collect();
    let mut blocks: Vec<_> = selected.chunks_mut(QUERIES).map(BestOfBlock::new).collect();
    let mut nan = 0;
    let left_out = tiles.for_each(&changes, allowed, interrupt, |block, items, tile| {
        nan += blocks[block].offer_tile(scoring.level, items, tile);
    })?;
    for (best, selected) in best.iter_mut().zip(selected) {
        *best = Some(selected);
    }
    Ok(nan - left_out)
}
