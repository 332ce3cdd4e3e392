//! Negatives for training and for serving.

use metatl_core::negatives;
use metatl_core::parallel::work;
use numpy::{PyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::interactions::Interactions;
use crate::{arrays, parallel};

/// `count` negatives for each user, with replacement.
#[pyfunction]
#[pyo3(signature = (interactions, users, count, *, seed, epoch = None, weights = None, num_threads = None))]
pub(crate) fn sample_negatives<'py>(
    py: Python<'py>,
    interactions: &Bound<'py, Interactions>,
    users: &Bound<'py, PyAny>,
    count: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    epoch: Option<&Bound<'py, PyAny>>,
    weights: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<i64>>> {
    let interactions = &interactions.get().0;
    let users = arrays::vector("users", users)?;
    let count = arrays::count("count", count)?;
    let seed = arrays::unsigned("seed", seed)?;
    let epoch = epoch.map_or(Ok(0), |epoch| arrays::unsigned("epoch", epoch))?;
    let weights = weights
        .map(|weights| arrays::vector("weights", weights))
        .transpose()?;

    let users = users.as_slice()?;
    let weights = weights
        .as_ref()
        .map(|weights| weights.as_slice())
        .transpose()?;
    // A user who owns most of the weight costs a pass over all items.
    let per_user = count.saturating_add(weights.map_or(0, <[f64]>::len));
    let work = work(users.len(), per_user, negatives::NANOSECONDS);
    let sampled = parallel::run(py, num_threads, work, |interrupt| {
        negatives::sample_negatives(interactions, users, count, seed, epoch, weights, interrupt)
    })?;
    arrays::to_matrix(py, sampled, users.len(), count)
}

/// `count` uniform negatives for each history that is being served.
#[pyfunction]
#[pyo3(signature = (histories, count, num_items, *, seed, num_threads = None))]
pub(crate) fn sample_support_negatives<'py>(
    py: Python<'py>,
    histories: &Bound<'py, PyAny>,
    count: &Bound<'py, PyAny>,
    num_items: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<i64>>> {
    let histories = arrays::matrix("histories", histories)?;
    let count = arrays::count("count", count)?;
    let num_items = arrays::count("num_items", num_items)? as u64;
    let seed = arrays::unsigned("seed", seed)?;

    let (rows, length) = (histories.shape()[0], histories.shape()[1]);
    let histories = histories.as_slice()?;
    let work = work(rows, count.saturating_add(length), negatives::NANOSECONDS);
    let sampled = parallel::run(py, num_threads, work, |interrupt| {
        negatives::sample_support_negatives(histories, length, count, num_items, seed, interrupt)
    })?;
    arrays::to_matrix(py, sampled, rows, count)
}
