//! Negatives for serving.

use metatl_core::negatives;
use metatl_core::parallel::work;
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::{arrays, parallel};

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
    let (histories, [rows, length]) = arrays::matrix_copy("histories", histories)?;
    let count = arrays::count("count", count)?;
    let num_items = arrays::count("num_items", num_items)? as u64;
    let seed = arrays::unsigned("seed", seed)?;

    let work = work(rows, count.saturating_add(length), negatives::NANOSECONDS);
    let sampled = parallel::run(py, num_threads, work, |interrupt| {
        negatives::sample_support_negatives(&histories, length, count, num_items, seed, interrupt)
    })?;
    arrays::to_matrix(py, sampled, rows, count)
}
