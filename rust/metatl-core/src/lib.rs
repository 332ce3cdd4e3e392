//! Episode sampling, candidate sets and ranking evaluation for cold-start sequential recommendation.
//!
//! Pure Rust: this crate knows neither Python nor numpy. Ids are `i64`, scores are `f32`.
