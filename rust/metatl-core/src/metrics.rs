//! Metrics of one user, from the comparison of the target with the negatives.
//!
//! With g negatives above the target and e negatives with the same score, the target's rank is 1 + g + e under
//! [`TieRule::Worst`] and 1 + g under [`TieRule::Best`]. Under [`TieRule::Mean`] it is any of 1 + g … 1 + g + e
//! with equal probability, and a metric is its expectation: a model that gives all items the
//! same score has HR@10 = 10/101 among 100 negatives.
//!
//! With rank r: MRR is 1/r; if r ≤ k, HR@k is 1, NDCG@k is 1/log₂(1 + r) (one relevant item, so the ideal is 1)
//! and MRR@k is 1/r, and all three are 0 otherwise.

use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk, rows_per_chunk};

/// How negatives with the same score as the target count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieRule {
    /// They all rank above it.
    Worst,
    /// Ties are broken at random, and metrics are expectations.
    Mean,
    /// They all rank below it.
    Best,
}

impl TieRule {
    /// The rule of that name: `worst`, `mean` or `best`.
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "worst" => Ok(Self::Worst),
            "mean" => Ok(Self::Mean),
            "best" => Ok(Self::Best),
            _ => Err(Error::invalid(
                "ties",
                format_args!("{name:?}"),
                "\"worst\", \"mean\" or \"best\"",
            )),
        }
    }
}

/// The ranks that a target can have, all equally likely: `first..=last`.
#[derive(Clone, Copy)]
struct PossibleRanks {
    first: u64,
    last: u64,
}

impl PossibleRanks {
    fn new(greater: i64, equal: i64, ties: TieRule) -> Self {
        // Two numbers below 2⁶³ and 1 fit into 64 bits.
        let (best, worst) = (1 + greater as u64, 1 + greater as u64 + equal as u64);
        let (first, last) = match ties {
            TieRule::Worst => (worst, worst),
            TieRule::Mean => (best, worst),
            TieRule::Best => (best, best),
        };
        Self { first, last }
    }

    fn number(self) -> f64 {
        (self.last - self.first) as f64 + 1.0
    }

    fn mean(self) -> f64 {
        self.first as f64 + (self.last - self.first) as f64 / 2.0
    }

    fn reciprocal(self) -> f64 {
        self.reciprocal_up_to(u64::MAX)
    }

    fn reciprocal_up_to(self, cutoff: u64) -> f64 {
        if self.first > cutoff {
            0.0
        } else if self.first == self.last {
            1.0 / self.first as f64
        } else {
            harmonic_between(self.first - 1, self.last.min(cutoff)) / self.number()
        }
    }

    fn hit(self, cutoff: u64) -> f64 {
        if self.last <= cutoff {
            1.0
        } else if self.first > cutoff {
            0.0
        } else {
            (cutoff - self.first + 1) as f64 / self.number()
        }
    }

    fn gain(self, cutoff: u64, discounts: &Discounts) -> f64 {
        if self.first > cutoff {
            0.0
        } else if self.first == self.last {
            discount(self.first)
        } else {
            discounts.between(self.first, self.last.min(cutoff)) / self.number()
        }
    }
}

/// 1/(a + 1) + … + 1/b.
fn harmonic_between(a: u64, b: u64) -> f64 {
    // Below, terms are added one by one; above, the Euler–Maclaurin series of ln is exact to the last bits.
    const EXACT: u64 = 64;
    let split = a.max(EXACT).min(b);
    let head: f64 = (a + 1..=split).map(|rank| 1.0 / rank as f64).sum();
    if split == b {
        return head;
    }
    let correction = |n: f64| {
        let square = 1.0 / (n * n);
        0.5 / n - square * (1.0 / 12.0 - square * (1.0 / 120.0 - square / 252.0))
    };
    let (start, end) = (split as f64, b as f64);
    head + ((b - split) as f64 / start).ln_1p() + (correction(end) - correction(start))
}

/// 1/log₂(1 + rank).
fn discount(rank: u64) -> f64 {
    (1.0 + rank as f64).log2().recip()
}

/// Sums of discounts: element r is that of ranks 1 to r.
struct Discounts(Vec<f64>);

impl Discounts {
    fn up_to(rank: u64) -> Result<Self, Error> {
        let mut sums: Vec<f64> = allocate(rank as usize + 1, 1)?;
        let mut sum = 0.0;
        for (slot, rank) in sums[1..].iter_mut().zip(1..) {
            sum += discount(rank);
            *slot = sum;
        }
        Ok(Self(sums))
    }

    /// The sum over the ranks `first..=last`.
    fn between(&self, first: u64, last: u64) -> f64 {
        self.0[last as usize] - self.0[first as usize - 1]
    }
}

/// Estimated nanoseconds per metric of a user.
pub const NANOSECONDS: u64 = 5;

/// Larger cutoffs are an error.
const MAX_CUTOFF: i64 = 1 << 24;

/// Metrics of each user: rows of MRR, then HR, NDCG and MRR at each cutoff.
pub fn user_metrics(
    greater: &[i64],
    equal: &[i64],
    ties: TieRule,
    cutoffs: &[i64],
    interrupt: &Interrupt,
) -> Result<Vec<f64>, Error> {
    check_counts(greater, equal)?;
    if let Some(cutoff) = cutoffs
        .iter()
        .find(|cutoff| !(1..=MAX_CUTOFF).contains(*cutoff))
    {
        return Err(Error::invalid(
            "cutoffs",
            cutoff,
            format_args!("integers from 1 to {MAX_CUTOFF}"),
        ));
    }
    let all_possible = || {
        let counts = greater.iter().zip(equal);
        counts.map(|(&greater, &equal)| PossibleRanks::new(greater, equal, ties))
    };
    let last_tied = all_possible()
        .filter(|ranks| ranks.first < ranks.last)
        .map(|ranks| ranks.last)
        .max()
        .unwrap_or(0);
    let last_cutoff = cutoffs.iter().copied().max().unwrap_or(0) as u64;
    let discounts = Discounts::up_to(last_tied.min(last_cutoff))?;

    let columns = 1 + 3 * cutoffs.len();
    let mut metrics: Vec<f64> = allocate(greater.len(), columns)?;
    let rows = rows_per_chunk(columns, NANOSECONDS);
    let chunks = metrics
        .chunks_mut(rows * columns)
        .zip(greater.chunks(rows).zip(equal.chunks(rows)));
    for_each_chunk(
        chunks,
        interrupt,
        || (),
        |(), _, (metrics, (greater, equal))| {
            let counts = greater.iter().zip(equal);
            for (row, (&greater, &equal)) in metrics.chunks_mut(columns).zip(counts) {
                let ranks = PossibleRanks::new(greater, equal, ties);
                let (reciprocal, rest) = row.split_at_mut(1);
                let (hits, rest) = rest.split_at_mut(cutoffs.len());
                let (gains, reciprocals) = rest.split_at_mut(cutoffs.len());
                reciprocal[0] = ranks.reciprocal();
                for (column, &cutoff) in cutoffs.iter().enumerate() {
                    hits[column] = ranks.hit(cutoff as u64);
                    gains[column] = ranks.gain(cutoff as u64, &discounts);
                    reciprocals[column] = ranks.reciprocal_up_to(cutoff as u64);
                }
            }
            Ok(())
        },
    )?;
    Ok(metrics)
}

/// The rank of each user's target; half ranks occur under [`TieRule::Mean`].
pub fn ranks(greater: &[i64], equal: &[i64], ties: TieRule) -> Result<Vec<f64>, Error> {
    check_lengths(greater, equal)?;
    let mut ranks = allocate(greater.len(), 1)?;
    // Each count is read once, for another thread may write to the counts.
    let mut signs = 0;
    for (rank, (&greater, &equal)) in ranks.iter_mut().zip(greater.iter().zip(equal)) {
        signs |= greater | equal;
        *rank = PossibleRanks::new(greater & i64::MAX, equal & i64::MAX, ties).mean();
    }
    if signs < 0 {
        check_counts(greater, equal)?;
        return Err(Error::changed("greater or equal"));
    }
    Ok(ranks)
}

fn check_lengths(greater: &[i64], equal: &[i64]) -> Result<(), Error> {
    if greater.len() == equal.len() {
        return Ok(());
    }
    Err(Error::invalid(
        "equal",
        format_args!("{} counts", equal.len()),
        format_args!("{}, as many as in greater", greater.len()),
    ))
}

fn check_counts(greater: &[i64], equal: &[i64]) -> Result<(), Error> {
    check_lengths(greater, equal)?;
    for (argument, counts) in [("greater", greater), ("equal", equal)] {
        if let Some((position, count)) = counts.iter().enumerate().find(|(_, count)| **count < 0) {
            return Err(Error::invalid(
                argument,
                format_args!("{count} at position {position}"),
                "counts of at least 0",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exactness is what is tested
mod tests;
