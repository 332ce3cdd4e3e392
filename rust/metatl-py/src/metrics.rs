//! Metrics of each user.

use metatl_core::metrics::{self, TieRule};
use metatl_core::parallel::work;
use numpy::{PyArray1, PyArray2};
use pyo3::prelude::*;

use crate::error::to_py;
use crate::{arrays, parallel};

/// MRR, then HR, NDCG and MRR at each cutoff, for each user.
#[pyfunction]
#[pyo3(signature = (greater, equal, *, ties, cutoffs, num_threads = None))]
pub(crate) fn user_metrics<'py>(
    py: Python<'py>,
    greater: &Bound<'py, PyAny>,
    equal: &Bound<'py, PyAny>,
    ties: &Bound<'py, PyAny>,
    cutoffs: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let greater = arrays::vector_copy("greater", greater)?;
    let equal = arrays::vector_copy("equal", equal)?;
    let ties = tie_rule(ties)?;
    let cutoffs = arrays::vector_copy("cutoffs", cutoffs)?;

    let columns = 1 + 3 * cutoffs.len();
    let work = work(greater.len(), columns, metrics::NANOSECONDS);
    let values = parallel::run(py, num_threads, work, |interrupt| {
        metrics::user_metrics(&greater, &equal, ties, &cutoffs, interrupt)
    })?;
    arrays::to_matrix(py, values, greater.len(), columns)
}

/// The rank of each user's target.
#[pyfunction]
#[pyo3(signature = (greater, equal, *, ties, num_threads = None))]
pub(crate) fn ranks<'py>(
    py: Python<'py>,
    greater: &Bound<'py, PyAny>,
    equal: &Bound<'py, PyAny>,
    ties: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let greater = arrays::vector("greater", greater)?;
    let equal = arrays::vector("equal", equal)?;
    let ties = tie_rule(ties)?;

    let (greater, equal) = (greater.as_slice()?, equal.as_slice()?);
    // Memory sets the pace, and one thread has all of it.
    let ranks = parallel::run(py, num_threads, 0, |_| metrics::ranks(greater, equal, ties))?;
    Ok(arrays::to_vector(py, ranks))
}

fn tie_rule(ties: &Bound<'_, PyAny>) -> PyResult<TieRule> {
    TieRule::parse(&arrays::text("ties", ties)?).map_err(to_py)
}
