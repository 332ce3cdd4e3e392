//! Episode sampling, candidate sets and ranking evaluation for cold-start sequential recommendation.
//!
//! Pure Rust: this crate knows neither Python nor numpy. Ids are `i64`, scores are `f32`.
//!
//! Kernels take slices, return vectors and run on the calling thread, unless [`parallel::run`] finds them others;
//! results never depend on the number of threads.
//!
//! # Slices that somebody else writes to
//!
//! The Python module lends slices of arrays that another Python thread can write to while a kernel runs. To Rust that
//! is a data race, whose behaviour is undefined; nothing here makes it defined. What the kernels assume is what
//! compilers and processors do in practice: a read of one aligned number gives an old or a new value of it, and a copy
//! of a slice stays as it is. On that assumption no kernel panics or reads out of bounds: an id, an offset or a count
//! is checked and used as one and the same copy, and no kernel relies on reading the same float twice. Results of
//! such a call are of no use: an error ([`Error::changed`] or another), or anything of the right shape. The copies are
//! made where a comment says so, and in `metatl-py` for arrays that are small beside the work of their kernel.

#[cfg(test)]
#[macro_use]
mod properties;

pub mod batches;
pub mod bootstrap;
pub mod candidates;
pub mod episodes;
mod error;
pub mod grouping;
pub mod interactions;
pub mod item_walks;
pub mod metrics;
pub mod negatives;
pub mod parallel;
pub mod randomisation;
pub mod ranking;
pub mod rng;
pub mod sequences;
pub mod simd;
pub mod transitions;
mod weighted;

pub use error::Error;
