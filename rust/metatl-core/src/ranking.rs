//! Ranking: how many items beat a target, and which items are best.
//!
//! The score of an item with row e and bias b for a query q is q·e + b ([`Similarity::Dot`]), −‖q − e‖ + b
//! ([`Similarity::L2`]) or −‖q − e‖² + b ([`Similarity::SquaredL2`]), in `f32`. Nothing is sorted and no matrix
//! of users × items is held: the target's score is found first, then the items above it and level with it are
//! counted. What a tie is worth is decided in [`crate::metrics`].
//!
//! A NaN among the scores that take part is an error that counts them all; infinities are numbers like others.
//! Results do not depend on the number of threads, nor on the other queries of the call.

mod best;
mod candidates;
mod catalogue;
mod estimates;
mod item_table;
mod rounding;
mod scores;
mod scoring;

pub use candidates::rank_candidates;
pub use catalogue::{rank_catalogue, top_n};
pub use item_table::ItemTable;
pub use rounding::{NUMBERS_PER_NANOSECOND, round_to_bf16, round_to_int8};
pub use scores::{rank_score_matrix, rank_scores, top_n_scores};
pub use scoring::{ItemLists, Matrix, Overrides, Scoring, Similarity};

use crate::Error;

/// Queries that are compared with the catalogue at no more cost than one.
pub const QUERIES_AT_ONCE: usize = crate::simd::QUERIES;

/// Products of a query's and an item's coordinate that a thread forms in a nanosecond, at least.
pub const PRODUCTS_PER_NANOSECOND: u64 = 10;

/// Scores that a thread compares in a nanosecond, at least.
pub const SCORES_PER_NANOSECOND: u64 = 2;

/// Nanoseconds that each of the best items of a query adds.
pub const NANOSECONDS_PER_BEST: u64 = 200;

/// For each query, how many negatives are scored above its target and level with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparisons {
    /// Negatives scored above the target.
    pub greater: Vec<i64>,
    /// Negatives scored the same as the target.
    pub equal: Vec<i64>,
}

impl Comparisons {
    fn allocate(queries: usize) -> Result<Self, Error> {
        Ok(Self {
            greater: crate::parallel::allocate(queries, 1)?,
            equal: crate::parallel::allocate(queries, 1)?,
        })
    }
}

/// For each query its best items, best first: two matrices of (queries, n).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopN {
    /// Items, equal scores by lower item; −1 where there are fewer than n.
    pub items: Vec<i64>,
    /// Their scores; −∞ where there are fewer than n.
    pub scores: Vec<f32>,
}

/// The error for NaN among the scores, if there is one.
fn check_nan(count: u64) -> Result<(), Error> {
    if count == 0 {
        Ok(())
    } else {
        Err(Error::NotANumber {
            argument: "scores",
            count,
        })
    }
}

/// Copies `items` into `distinct` in ascending order, each once.
fn sort_distinct(items: &[i64], distinct: &mut Vec<i64>) {
    distinct.clear();
    distinct.extend_from_slice(items);
    if !distinct.is_sorted() {
        distinct.sort_unstable();
    }
    distinct.dedup();
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exactness is what is tested
mod tests;
