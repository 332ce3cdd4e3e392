//! Episode sampling, candidate sets and ranking evaluation for cold-start sequential recommendation.
//!
//! Pure Rust: this crate knows neither Python nor numpy. Ids are `i64`, scores are `f32`.
//!
//! Kernels take slices, write into slices and run on the calling thread, unless [`parallel::run`]
//! put them on a pool; results never depend on the number of threads.

mod error;
pub mod metrics;
pub mod parallel;
pub mod ranking;
pub mod rng;
pub mod simd;

pub use error::Error;
