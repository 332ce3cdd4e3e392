//! Ranking: how many items score above a target, and which items score highest.
//!
//! The score of an item with row e and bias b for a query q is q·e + b ([`Similarity::Dot`]), −‖q − e‖ + b
//! ([`Similarity::L2`]) or −‖q − e‖² + b ([`Similarity::SquaredL2`]), in `f32`. The kernels do not sort the items
//! and do not store a matrix of users × items: they compute the target's score first, and then count the items
//! that score above it and the items that score the same. [`crate::metrics`] decides how ties count.
//!
//! A NaN among the scores that take part is an error that counts all of them; infinities are valid scores.
//! Results do not depend on the number of threads or on the other queries of the call.

mod best;
mod candidates;
mod catalogue;
mod inputs;
mod item_table;
mod outputs;
mod panel_table;
mod rounding;
mod scores;
mod scoring;

pub use candidates::{PRODUCTS_PER_NANOSECOND, rank_candidates};
pub use catalogue::{rank_catalogue, top_n, top_n_of};
pub use inputs::{ItemLists, Matrix, Overrides};
pub use item_table::ItemTable;
pub use outputs::{Comparisons, TopN};
pub use panel_table::PanelTable;
pub use rounding::{NUMBERS_PER_NANOSECOND, round_to_bf16, round_to_int8};
pub use scores::{rank_score_matrix, rank_scores, top_n_scores};
pub use scoring::{Scoring, Similarity};

/// Number of queries whose comparison with the catalogue takes no longer than that of one query.
pub const QUERIES_AT_ONCE: usize = crate::simd::QUERIES;

/// Scores that one thread compares in a nanosecond, at least.
pub const SCORES_PER_NANOSECOND: u64 = 2;

/// Nanoseconds that each of the best items of a query adds.
pub const NANOSECONDS_PER_BEST: u64 = 200;

#[cfg(test)]
#[allow(clippy::float_cmp)] // exactness is what is tested
mod tests;
