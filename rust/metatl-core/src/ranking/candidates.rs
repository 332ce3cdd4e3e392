//! Ranking a target among candidates that differ from query to query.

use std::sync::atomic::{AtomicU64, Ordering};

use super::scoring::{Matrix, Scoring, Similarity, check_item};
use super::{Comparisons, PRODUCTS_PER_NANOSECOND, check_nan};
use crate::Error;
use crate::parallel::{Interrupt, for_each_chunk, rows_per_chunk};
use crate::simd;

/// Compares the first candidate of each query, its target, with the others.
///
/// `candidates` is a matrix of (queries, `width`). A negative that is the target itself counts as level with it.
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
        || Scratch::new(scoring, width),
        |scratch, chunk, ((candidates, greater), equal)| {
            for (list, (greater, equal)) in greater.iter_mut().zip(equal).enumerate() {
                let query = chunk * lists + list;
                let scores = scratch.score(scoring, query, &candidates[list * width..])?;
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

/// What one thread works with.
struct Scratch {
    scores: Vec<f32>,
    /// One bit for each item of the catalogue: whether it is overridden for the current query. Nearly every
    /// candidate is looked up in vain.
    overridden: Vec<u64>,
}

impl Scratch {
    fn new(scoring: &Scoring, width: usize) -> Self {
        let overridable = scoring.overrides.map_or(0, |_| scoring.item_table.rows());
        Self {
            scores: vec![0.0; width],
            overridden: vec![0; overridable.div_ceil(64)],
        }
    }

    /// The scores of the candidates of one query.
    ///
    /// `candidates` goes on with those of the queries that follow, so that their rows are prefetched.
    fn score(
        &mut self,
        scoring: &Scoring,
        query: usize,
        candidates: &[i64],
    ) -> Result<&[f32], Error> {
        let width = self.scores.len();
        let row_scores = |table: Matrix, rows: &[i64], scores: &mut [f32]| {
            let (level, query) = (scoring.level, scoring.queries.row(query));
            match scoring.similarity {
                Similarity::Dot => simd::dots(level, query, table.table(), rows, scores),
                Similarity::L2 | Similarity::SquaredL2 => {
                    simd::squared_distances(level, query, table.table(), rows, scores)
                }
            }
        };
        if !row_scores(scoring.item_table, candidates, &mut self.scores) {
            for (position, &item) in candidates[..width].iter().enumerate() {
                let position = query * width + position;
                check_item("candidates", item, position, scoring.item_table.rows())?;
            }
        }
        let candidates = &candidates[..width];
        if let Some(overrides) = scoring.overrides {
            let moved = overrides.items(query);
            for &item in moved {
                self.overridden[item as usize / 64] |= 1 << (item % 64);
            }
            for (score, &item) in self.scores.iter_mut().zip(candidates) {
                if self.overridden[item as usize / 64] & (1 << (item % 64)) != 0
                    && let Some(row) = overrides.find(query, item)
                {
                    row_scores(overrides.rows(), &[row as i64], std::slice::from_mut(score));
                }
            }
            for &item in moved {
                self.overridden[item as usize / 64] = 0;
            }
        }
        if scoring.similarity != Similarity::Dot {
            let root = scoring.similarity.takes_root();
            simd::scores_from_squared_distances(scoring.level, &mut self.scores, root);
        }
        if let Some(bias) = scoring.item_bias {
            for (score, &item) in self.scores.iter_mut().zip(candidates) {
                *score += bias[item as usize];
            }
        }
        Ok(&self.scores)
    }
}
