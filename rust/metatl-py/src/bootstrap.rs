//! The bootstrap of means over users.

use metatl_core::bootstrap;
use metatl_core::parallel::work;
use numpy::{PyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::{arrays, parallel};

/// Column means of bootstrap resamples of the rows.
#[pyfunction]
#[pyo3(signature = (values, *, resamples, seed, num_threads = None))]
pub(crate) fn bootstrap_means<'py>(
    py: Python<'py>,
    values: &Bound<'py, PyAny>,
    resamples: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let values = arrays::matrix("values", values)?;
    let resamples = arrays::count("resamples", resamples)?;
    let seed = arrays::unsigned("seed", seed)?;

    let (rows, columns) = (values.shape()[0], values.shape()[1]);
    let values = values.as_slice()?;
    let work = work(resamples, rows.saturating_mul(columns), 1);
    let means = parallel::run(py, num_threads, work, |interrupt| {
        bootstrap::bootstrap_means(values, columns, resamples, seed, interrupt)
    })?;
    arrays::to_matrix(py, means, resamples, columns)
}

/// Column means of bootstrap resamples of groups of users with equal values.
#[pyfunction]
#[pyo3(signature = (values, counts, *, resamples, seed, num_threads = None))]
pub(crate) fn bootstrap_group_means<'py>(
    py: Python<'py>,
    values: &Bound<'py, PyAny>,
    counts: &Bound<'py, PyAny>,
    resamples: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let values = arrays::matrix("values", values)?;
    let counts = arrays::vector_copy("counts", counts)?;
    let resamples = arrays::count("resamples", resamples)?;
    let seed = arrays::unsigned("seed", seed)?;

    let (rows, columns) = (values.shape()[0], values.shape()[1]);
    let values = values.as_slice()?;
    let work = work(
        resamples,
        rows.saturating_mul(columns),
        bootstrap::GROUP_NANOSECONDS,
    );
    let means = parallel::run(py, num_threads, work, |interrupt| {
        bootstrap::bootstrap_group_means(values, &counts, columns, resamples, seed, interrupt)
    })?;
    arrays::to_matrix(py, means, resamples, columns)
}
