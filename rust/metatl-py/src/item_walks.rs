//! Scores of walks along a sparse matrix of items.

use metatl_core::Error;
use metatl_core::item_walks::{self, ENTRIES_PER_NANOSECOND, SparseMatrix, Walks};
use metatl_core::ranking::{ItemLists, Matrix};
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::{arrays, parallel};

/// A sparse matrix of items by items and the settings of the walks: copies, checked once.
#[pyclass(frozen, module = "metatl._metatl")]
pub(crate) struct ItemWalks {
    matrix: SparseMatrix,
    recency: f64,
    second_step: f64,
    prior: Vec<f64>,
    /// The rows of walks of two steps, written out.
    composed: Option<Vec<f64>>,
}

impl ItemWalks {
    fn walks(&self) -> Result<Walks<'_>, Error> {
        let num_items = self.matrix.num_items();
        Ok(match &self.composed {
            Some(composed) => {
                Walks::Composed(Matrix::new("composed", composed, num_items, num_items)?)
            }
            None => Walks::Sparse(&self.matrix, self.second_step),
        })
    }
}

#[pymethods]
impl ItemWalks {
    #[new]
    #[pyo3(signature = (
        indptr, indices, values, *, recency, second_step, prior, composed, num_threads = None
    ))]
    fn new(
        py: Python<'_>,
        indptr: &Bound<'_, PyAny>,
        indices: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
        recency: &Bound<'_, PyAny>,
        second_step: &Bound<'_, PyAny>,
        prior: &Bound<'_, PyAny>,
        composed: bool,
        num_threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let indptr: Vec<i64> = arrays::vector_copy("indptr", indptr)?;
        let num_items = indptr.len().saturating_sub(1);
        let indices = arrays::vector_copy("indices", indices)?;
        let values = arrays::vector_copy("values", values)?;
        let matrix = SparseMatrix::new(indptr, indices, values, num_items);
        let mut made = Self {
            matrix: matrix.map_err(crate::error::to_py)?,
            recency: arrays::number("recency", recency)?,
            second_step: arrays::number("second_step", second_step)?,
            prior: arrays::vector_copy("prior", prior)?,
            composed: None,
        };

        let entries = made.matrix.entries() as u64;
        let of_row = entries / (num_items as u64).max(1);
        let work = entries.saturating_mul(of_row) / ENTRIES_PER_NANOSECOND;
        let rows = parallel::run(py, num_threads, work, |interrupt| {
            if composed {
                item_walks::compose_steps(&made.matrix, made.second_step, interrupt).map(Some)
            } else {
                Ok(None)
            }
        })?;
        made.composed = rows;
        Ok(made)
    }

    /// Scores of all items for each history.
    #[pyo3(signature = (indptr, items, *, num_threads = None))]
    fn score<'py>(
        &self,
        py: Python<'py>,
        indptr: &Bound<'py, PyAny>,
        items: &Bound<'py, PyAny>,
        num_threads: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let indptr: Vec<i64> = arrays::vector_copy("indptr", indptr)?;
        let items: Vec<i64> = arrays::vector_copy("items", items)?;

        let users = indptr.len().saturating_sub(1);
        let num_items = self.prior.len();
        let walks = self.walks().map_err(crate::error::to_py)?;
        let work = walks.work(users, items.len());
        let scores = parallel::run(py, num_threads, work, |interrupt| {
            let histories = ItemLists::new(["indptr", "items"], &indptr, &items, users, num_items)?;
            item_walks::score_walks(walks, histories, self.recency, &self.prior, interrupt)
        })?;
        arrays::to_matrix(py, scores, users, num_items)
    }
}
