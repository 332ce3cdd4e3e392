//! Ranks a target among the candidates of each query.

use std::sync::atomic::{AtomicU64, Ordering};

use super::inputs::check_item;
use super::item_table::ItemTable;
use super::outputs::{Comparisons, check_nan};
use super::scoring::{Scoring, Similarity};
use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk, rows_per_chunk};
use crate::simd::{self, Level, PREFETCHED_ROWS, Table};

/// Products of a query's and an item's coordinate that one thread computes in a nanosecond, at least.
pub const PRODUCTS_PER_NANOSECOND: u64 = 10;

/// Compares the first candidate of each query, its target, with the others.
///
/// `candidates` is a matrix of (queries, `width`). A negative that is the target itself has the same score.
pub fn rank_candidates(
    scoring: &Scoring,
    candidates: &[i64],
    width: usize,
    interrupt: &Interrupt,
) -> Result<Comparisons, Error> {
    let queries = scoring.queries.rows();
    if width == 0 || queries.checked_mul(width) != Some(candidates.len()) {
        return Err(Error::invalid(
            "candidates",
            format_args!("{} items in lists of {width}", candidates.len()),
            format_args!("{queries} lists, one for each query, of at least 1 item"),
        ));
    }
    let mut result = Comparisons::allocate(queries)?;
    let nan = AtomicU64::new(0);
    let products = width.saturating_mul(scoring.queries.columns().max(8));
    let lists = rows_per_chunk(products / PRODUCTS_PER_NANOSECOND as usize, 1);
    let chunks = candidates
        .chunks(lists * width)
        .zip(result.greater.chunks_mut(lists))
        .zip(result.equal.chunks_mut(lists));
    for_each_chunk(
        chunks,
        interrupt,
        Scratch::default,
        |scratch, chunk, ((candidates, greater), equal)| {
            for (list, (greater, equal)) in greater.iter_mut().zip(equal).enumerate() {
                let query = chunk * lists + list;
                let scores = scratch.score(scoring, query, &candidates[list * width..], width)?;
                let mut counts = simd::count(scoring.level, &scores[1..], scores[0]);
                counts.nan += u64::from(scores[0].is_nan());
                *greater = counts.greater as i64;
                *equal = counts.equal as i64;
                if counts.nan != 0 {
                    nan.fetch_add(counts.nan, Ordering::Relaxed);
                }
            }
            Ok(())
        },
    )?;
    check_nan(nan.into_inner())?;
    Ok(result)
}

/// Rows that are widened at a time: few enough to stay in the first-level cache until they are scored.
const WIDENED_ROWS: usize = 16;

/// The indices of these rows.
const ROW_INDICES: [i64; WIDENED_ROWS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Buffers that a thread reuses for every query.
#[derive(Default)]
struct Scratch {
    /// The candidates of the current query, and then some of the next queries', whose rows are prefetched.
    items: Vec<i64>,
    scores: Vec<f32>,
    /// Widened rows of a table in fewer bits.
    rows: Vec<f32>,
    /// One bit for each item of the catalogue: whether it is overridden for the current query. This makes
    /// the lookup fast, because nearly no candidate is overridden.
    overridden: Vec<u64>,
}

impl Scratch {
    /// The scores of the first `width` candidates, those of one query.
    ///
    /// `candidates` continues with the candidates of the next queries, so that their rows can be prefetched.
    fn score(
        &mut self,
        scoring: &Scoring,
        query: usize,
        candidates: &[i64],
        width: usize,
    ) -> Result<&[f32], Error> {
        let Self {
            items,
            scores,
            rows,
            overridden,
        } = self;
        // The ids are checked and used in a copy, for another thread may write to the candidates.
        items.clear();
        items.extend_from_slice(&candidates[..candidates.len().min(width + PREFETCHED_ROWS)]);
        scores.resize(width, 0.0);
        let row_scores = |table: Table, rows: &[i64], scores: &mut [f32]| {
            let (level, query) = (scoring.level, scoring.queries.row(query));
            match scoring.similarity {
                Similarity::Dot => simd::dots(level, query, table, rows, scores),
                Similarity::L2 | Similarity::SquaredL2 => {
                    simd::squared_distances(level, query, table, rows, scores)
                }
            }
        };
        let all_exist = match scoring.item_table {
            ItemTable::Float32(table) => row_scores(table.table(), items, scores),
            table => score_widened(table, scoring.level, items, rows, scores, row_scores),
        };
        let candidates = &items[..width];
        if !all_exist {
            for (position, &item) in candidates.iter().enumerate() {
                let position = query * width + position;
                check_item("candidates", item, position, scoring.item_table.rows())?;
            }
        }
        if let Some(overrides) = scoring.overrides {
            if overridden.is_empty() {
                *overridden = allocate(scoring.item_table.rows().div_ceil(64), 1)?;
            }
            let moved = overrides.items(query);
            for &item in moved {
                overridden[item as usize / 64] |= 1 << (item % 64);
            }
            for (score, &item) in scores.iter_mut().zip(candidates) {
                if overridden[item as usize / 64] & (1 << (item % 64)) != 0
                    && let Some(row) = overrides.find(query, item)
                {
                    let rows = overrides.rows().table();
                    row_scores(rows, &[row as i64], std::slice::from_mut(score));
                }
            }
            for &item in moved {
                overridden[item as usize / 64] = 0;
            }
        }
        if scoring.similarity != Similarity::Dot {
            let root = scoring.similarity.takes_root();
            simd::scores_from_squared_distances(scoring.level, scores, root);
        }
        if let Some(bias) = scoring.item_bias {
            for (score, &item) in scores.iter_mut().zip(candidates) {
                *score += bias[item as usize];
            }
        }
        Ok(scores)
    }
}

/// Scores the first of the `items` with widened rows of a table in fewer bits, one for each of `scores`. Returns
/// `false` if an item does not exist.
fn score_widened(
    table: ItemTable,
    level: Level,
    items: &[i64],
    widened: &mut Vec<f32>,
    scores: &mut [f32],
    row_scores: impl Fn(Table, &[i64], &mut [f32]) -> bool,
) -> bool {
    let dimension = table.columns();
    let exist = |item: &i64| (*item as u64) < table.rows() as u64;
    let mut remaining = items;
    let needed = &items[..scores.len()];
    if !needed.iter().all(exist) {
        return false;
    }
    let parts = needed.chunks(WIDENED_ROWS);
    for (items, scores) in parts.zip(scores.chunks_mut(WIDENED_ROWS)) {
        // Rows of the next part or the next list. Their items have not been checked yet.
        remaining = &remaining[items.len()..];
        for &item in remaining.iter().take(WIDENED_ROWS) {
            if exist(&item) {
                table.prefetch_row(item as usize);
            }
        }
        widened.resize(items.len() * dimension, 0.0);
        let numbers = items.iter().map(|&item| item as usize);
        table.write_rows(level, numbers, widened);
        let rows = Table::new(widened, items.len(), dimension);
        row_scores(rows, &ROW_INDICES[..items.len()], scores);
    }
    true
}
