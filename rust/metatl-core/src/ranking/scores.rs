//! Ranks items from given scores.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::best::Best;
use super::inputs::{ItemLists, Matrix, check_allowed, check_targets, sort_distinct};
use super::outputs::{Comparisons, TopN, check_nan};
use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk};
use crate::simd::{self, Counts, Level};

/// Scores of a chunk of work, in whole rows.
const CHUNK_SCORES: usize = 1 << 16;

/// Scores that are compared with the threshold together, before they are offered one by one.
const OFFERED_TOGETHER: usize = 256;

/// Compares the first score of each row, the target's, with the others.
pub fn rank_scores(
    scores: Matrix,
    level: Level,
    interrupt: &Interrupt,
) -> Result<Comparisons, Error> {
    if scores.columns() == 0 && scores.rows() > 0 {
        return Err(Error::invalid(
            "scores",
            "0 columns",
            "at least 1, the target's",
        ));
    }
    compare_rows(scores, interrupt, |row, _| {
        let row = scores.row(row);
        let mut counts = simd::count(level, &row[1..], row[0]);
        counts.nan += u64::from(row[0].is_nan());
        counts
    })
}

/// Compares the score of each row's target with the scores of all other items except the excluded ones.
pub fn rank_score_matrix(
    scores: Matrix,
    targets: &[i64],
    excluded: ItemLists,
    level: Level,
    interrupt: &Interrupt,
) -> Result<Comparisons, Error> {
    check_targets(targets, scores.rows(), scores.columns())?;
    compare_rows(scores, interrupt, |row, left_out| {
        let target = targets[row];
        sort_distinct(excluded.list(row), left_out);
        if let Err(position) = left_out.binary_search(&target) {
            left_out.insert(position, target);
        }
        let row = scores.row(row);
        let threshold = row[target as usize];
        let mut counts = Counts::default();
        for run in runs_between(left_out, row.len()) {
            counts += simd::count(level, &row[run], threshold);
        }
        counts.nan += u64::from(threshold.is_nan());
        counts
    })
}

/// The `n` best items of each row, without the excluded ones, and for all rows without those that are not allowed.
pub fn top_n_scores(
    scores: Matrix,
    n: usize,
    excluded: ItemLists,
    allowed: Option<&[bool]>,
    level: Level,
    interrupt: &Interrupt,
) -> Result<TopN, Error> {
    check_allowed(allowed, scores.columns())?;
    let disallowed: Vec<i64> = (0..)
        .zip(allowed.unwrap_or_default())
        .filter_map(|(item, &allowed)| (!allowed).then_some(item))
        .collect();
    let mut result = TopN {
        items: allocate(scores.rows(), n)?,
        scores: allocate(scores.rows(), n)?,
    };
    let nan = AtomicU64::new(0);
    let rows = rows_per_chunk(scores);
    let width = rows.saturating_mul(n).max(1);
    // With n = 0 there are no outputs, but NaN still have to be counted.
    let mut outputs = result
        .items
        .chunks_mut(width)
        .zip(result.scores.chunks_mut(width));
    let chunks = (0..scores.rows())
        .step_by(rows)
        .map(|first| (first, outputs.next().unwrap_or_default()));
    for_each_chunk(
        chunks,
        interrupt,
        Vec::new,
        |left_out, _, (first, (items, best_scores))| {
            for offset in 0..rows.min(scores.rows() - first) {
                sort_distinct(excluded.list(first + offset), left_out);
                if !disallowed.is_empty() {
                    left_out.extend_from_slice(&disallowed);
                    left_out.sort_unstable();
                    left_out.dedup();
                }
                let row = scores.row(first + offset);
                let mut best = Best::new(n);
                let mut row_nan = 0;
                for run in runs_between(left_out, row.len()) {
                    row_nan += offer_run(&mut best, row, run, level);
                }
                if row_nan != 0 {
                    nan.fetch_add(row_nan, Ordering::Relaxed);
                }
                let row = offset * n..(offset + 1) * n;
                best.write(&mut items[row.clone()], &mut best_scores[row]);
            }
            Ok(())
        },
    )?;
    check_nan(nan.into_inner())?;
    Ok(result)
}

/// Offers the scores of a run of items, and returns how many are NaN.
fn offer_run(best: &mut Best, row: &[f32], run: Range<usize>, level: Level) -> u64 {
    let mut nan = 0;
    for start in run.clone().step_by(OFFERED_TOGETHER) {
        let part = &row[start..(start + OFFERED_TOGETHER).min(run.end)];
        let threshold = best.threshold();
        let counts = simd::count(level, part, threshold.unwrap_or(f32::NEG_INFINITY));
        nan += counts.nan;
        if threshold.is_none() || counts.greater > 0 {
            best.offer_run(start, part);
        }
    }
    nan
}

/// Runs `compare` (row, scratch) for every row.
fn compare_rows(
    scores: Matrix,
    interrupt: &Interrupt,
    compare: impl Fn(usize, &mut Vec<i64>) -> Counts + Sync,
) -> Result<Comparisons, Error> {
    let mut result = Comparisons::allocate(scores.rows())?;
    let nan = AtomicU64::new(0);
    let rows = rows_per_chunk(scores);
    let chunks = result
        .greater
        .chunks_mut(rows)
        .zip(result.equal.chunks_mut(rows));
    for_each_chunk(
        chunks,
        interrupt,
        Vec::new,
        |scratch, chunk, (greater, equal)| {
            for (offset, (greater, equal)) in greater.iter_mut().zip(equal).enumerate() {
                let counts = compare(chunk * rows + offset, scratch);
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

fn rows_per_chunk(scores: Matrix) -> usize {
    (CHUNK_SCORES / scores.columns().max(1)).max(1)
}

/// The runs of items between the items that are left out. `left_out` is in ascending order.
fn runs_between(left_out: &[i64], num_items: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = std::iter::once(0).chain(left_out.iter().map(|&item| item as usize + 1));
    let ends = left_out
        .iter()
        .map(|&item| item as usize)
        .chain(std::iter::once(num_items));
    starts.zip(ends).map(|(start, end)| start..end)
}
