//! Groups interactions by user, in time order.

use metatl_core::grouping;
use metatl_core::parallel::work;
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::{arrays, parallel};

/// The index of each user's first entry, and the items and times of the entries.
type Rows<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
);

/// Compressed sparse rows of interactions in any order.
#[pyfunction]
#[pyo3(signature = (users, items, timestamps, num_users, *, keep_repeats, num_threads = None))]
pub(crate) fn group_by_user<'py>(
    py: Python<'py>,
    users: &Bound<'py, PyAny>,
    items: &Bound<'py, PyAny>,
    timestamps: &Bound<'py, PyAny>,
    num_users: &Bound<'py, PyAny>,
    keep_repeats: bool,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Rows<'py>> {
    let users = arrays::vector("users", users)?;
    let items = arrays::vector("items", items)?;
    let timestamps = arrays::vector("timestamps", timestamps)?;
    let num_users = arrays::count("num_users", num_users)?;

    let (users, items) = (users.as_slice()?, items.as_slice()?);
    let timestamps = timestamps.as_slice()?;
    let work = work(users.len().max(num_users), 1, grouping::NANOSECONDS);
    let rows = parallel::run(py, num_threads, work, |interrupt| {
        grouping::group_by_user(users, items, timestamps, num_users, keep_repeats, interrupt)
    })?;
    Ok((
        arrays::to_vector(py, rows.indptr),
        arrays::to_vector(py, rows.items),
        arrays::to_vector(py, rows.timestamps),
    ))
}
