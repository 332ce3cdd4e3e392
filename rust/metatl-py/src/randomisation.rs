//! Fisher's randomisation test.

use metatl_core::parallel::work;
use metatl_core::randomisation;
use numpy::{PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::{arrays, parallel};

/// For each column, how many random flips of the rows' signs leave |sum| at least as large as it is.
#[pyfunction]
#[pyo3(signature = (differences, *, resamples, seed, num_threads = None))]
pub(crate) fn sign_flip_counts<'py>(
    py: Python<'py>,
    differences: &Bound<'py, PyAny>,
    resamples: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let differences = arrays::matrix("differences", differences)?;
    let resamples = arrays::count("resamples", resamples)?;
    let seed = arrays::unsigned("seed", seed)?;

    let (rows, columns) = (differences.shape()[0], differences.shape()[1]);
    let differences = differences.as_slice()?;
    let work = work(resamples, rows.saturating_mul(columns), 1);
    let counts = parallel::run(py, num_threads, work, |interrupt| {
        randomisation::sign_flip_counts(differences, columns, resamples, seed, interrupt)
    })?;
    Ok(arrays::to_vector(py, counts))
}
