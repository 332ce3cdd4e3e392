//! The results of a ranking.

use crate::Error;
use crate::parallel::allocate;

/// For each query, how many negatives score above its target, and how many score the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparisons {
    /// Negatives that score above the target.
    pub greater: Vec<i64>,
    /// Negatives that score the same as the target.
    pub equal: Vec<i64>,
}

impl Comparisons {
    /// Zeros for each query.
    pub(super) fn allocate(queries: usize) -> Result<Self, Error> {
        Ok(Self {
            greater: allocate(queries, 1)?,
            equal: allocate(queries, 1)?,
        })
    }
}

/// For each query its best items, best first: two matrices of (queries, n).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopN {
    /// Items. Equal scores are in the order of their items. −1 where there are fewer than n items.
    pub items: Vec<i64>,
    /// Scores of the items. −∞ where there are fewer than n items.
    pub scores: Vec<f32>,
}

/// The error for NaN among the scores, if there are any.
pub(super) fn check_nan(count: u64) -> Result<(), Error> {
    if count == 0 {
        Ok(())
    } else {
        Err(Error::NotANumber {
            argument: "scores",
            count,
        })
    }
}
