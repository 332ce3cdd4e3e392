//! Seeded permutations.

use metatl_core::parallel::work;
use metatl_core::rng;
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::{arrays, parallel};

/// The numbers 0 to `count` - 1 in a random order, which is a function of (seed, epoch).
#[pyfunction]
#[pyo3(signature = (count, *, seed, epoch = None))]
pub(crate) fn random_order<'py>(
    py: Python<'py>,
    count: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    epoch: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let count = arrays::count("count", count)?;
    let seed = arrays::unsigned("seed", seed)?;
    let epoch = epoch.map_or(Ok(0), |epoch| arrays::unsigned("epoch", epoch))?;
    let order = parallel::run(py, None, work(count, 1, rng::NANOSECONDS), |interrupt| {
        rng::random_order(count, seed, epoch, interrupt)
    })?;
    Ok(arrays::to_vector(py, order))
}
