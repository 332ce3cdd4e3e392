//! The class `Interactions`.

use std::sync::Arc;

use metatl_core::interactions;
use metatl_core::parallel::work;
use pyo3::prelude::*;

use crate::{arrays, parallel};

/// Estimated nanoseconds to copy and sort one interaction.
const NANOSECONDS: u64 = 20;

/// Users' items in time order, indexed for the kernels.
#[pyclass(frozen, module = "metatl._metatl")]
pub(crate) struct Interactions(pub(crate) Arc<interactions::Interactions>);

#[pymethods]
impl Interactions {
    #[new]
    #[pyo3(signature = (indptr, items, num_items, *, num_threads = None))]
    fn new(
        py: Python<'_>,
        indptr: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
        num_items: &Bound<'_, PyAny>,
        num_threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let indptr = arrays::vector_copy("indptr", indptr)?;
        let items = arrays::vector("items", items)?;
        let num_items = arrays::count("num_items", num_items)? as u64;
        let items = items.as_slice()?;
        let work = work(items.len(), 1, NANOSECONDS);
        let interactions = parallel::run(py, num_threads, work, |interrupt| {
            interactions::Interactions::new(&indptr, items, num_items, interrupt)
        })?;
        Ok(Self(Arc::new(interactions)))
    }

    /// How many users there are.
    #[getter]
    fn num_users(&self) -> usize {
        self.0.num_users()
    }

    /// How many items there are, seen or not.
    #[getter]
    fn num_items(&self) -> u64 {
        self.0.num_items()
    }

    /// How many interactions there are, repeats included.
    #[getter]
    fn num_interactions(&self) -> usize {
        self.0.num_interactions()
    }

    fn __repr__(&self) -> String {
        format!(
            "Interactions(num_users={}, num_items={}, num_interactions={})",
            self.0.num_users(),
            self.0.num_items(),
            self.0.num_interactions()
        )
    }
}
