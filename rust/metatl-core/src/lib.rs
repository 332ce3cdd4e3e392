//! Episode sampling, candidate sets and ranking evaluation for cold-start sequential recommendation.
//!
//! Pure Rust: this crate knows neither Python nor numpy. Ids are `i64`, scores are `f32`.
//!
//! Kernels take slices, return vectors and run on the calling thread, unless [`parallel::run`] finds them others;
//! results never depend on the number of threads.

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
pub mod metrics;
pub mod negatives;
pub mod parallel;
pub mod randomisation;
pub mod ranking;
pub mod rng;
pub mod sequences;
pub mod simd;
mod weighted;

pub use error::Error;
