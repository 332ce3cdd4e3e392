//! Candidate sets.

use metatl_core::candidates::{self, CandidateSettings};
use metatl_core::parallel::work;
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::interactions::Interactions;
use crate::{arrays, parallel};

/// Each user's target and `count` distinct negatives.
#[pyfunction]
#[pyo3(signature = (
    interactions, users, targets, count, *, seed, epoch = None, weights = None, exclude_target = true,
    num_threads = None,
))]
pub(crate) fn sample_candidates<'py>(
    py: Python<'py>,
    interactions: &Bound<'py, Interactions>,
    users: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    count: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    epoch: Option<&Bound<'py, PyAny>>,
    weights: Option<&Bound<'py, PyAny>>,
    exclude_target: bool,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<i64>>> {
    let interactions = &interactions.get().0;
    let users = arrays::vector_copy("users", users)?;
    let targets = arrays::vector_copy("targets", targets)?;
    let count = arrays::count("count", count)?;
    let seed = arrays::unsigned("seed", seed)?;
    let epoch = epoch.map_or(Ok(0), |epoch| arrays::unsigned("epoch", epoch))?;
    let weights = weights
        .map(|weights| arrays::vector_copy("weights", weights))
        .transpose()?;

    let settings = CandidateSettings {
        count,
        seed,
        epoch,
        weights: weights.as_deref(),
        exclude_target,
    };
    // Where rejection fails, a user costs a pass over all weights.
    let per_user = (count + 1).saturating_add(settings.weights.map_or(0, <[f64]>::len));
    let work = work(users.len(), per_user, candidates::NANOSECONDS);
    let sampled = parallel::run(py, num_threads, work, |interrupt| {
        candidates::sample_candidates(interactions, &users, &targets, settings, interrupt)
    })?;
    arrays::to_matrix(py, sampled, users.len(), count + 1)
}
