//! Raw ids of histories, looked up in a dictionary.

use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyString, PyTuple};

use crate::arrays;

/// What an id that the dictionary does not have is looked up as.
const UNKNOWN: i64 = -1;

/// Rows between two looks for a signal.
const CHECKED_ROWS: usize = 1 << 12;

/// Boundaries and values: those of row r are `values[indptr[r]..indptr[r + 1]]`.
type Found<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

/// The values of all ids of lists in a dictionary.
///
/// `None` if a row is no list or tuple, or an id is no text (with `texts`) or integer: the caller has the rules for
/// these. The interpreter stays attached, because every step reads its objects.
#[pyfunction]
pub(crate) fn look_up_ids<'py>(
    py: Python<'py>,
    lists: &Bound<'py, PyList>,
    index: &Bound<'py, PyDict>,
    texts: bool,
) -> PyResult<Option<Found<'py>>> {
    let mut indptr = vec![0];
    let mut values = Vec::new();
    for (position, row) in lists.iter().enumerate() {
        if position % CHECKED_ROWS == 0 {
            py.check_signals()?;
        }
        let all_of_type = if let Ok(row) = row.cast_exact::<PyList>() {
            look_up(row.iter(), index, texts, &mut values)?
        } else if let Ok(row) = row.cast_exact::<PyTuple>() {
            look_up(row.iter(), index, texts, &mut values)?
        } else {
            false
        };
        if !all_of_type {
            return Ok(None);
        }
        indptr.push(values.len() as i64);
    }
    Ok(Some((
        arrays::to_vector(py, indptr),
        arrays::to_vector(py, values),
    )))
}

fn look_up<'py>(
    ids: impl Iterator<Item = Bound<'py, PyAny>>,
    index: &Bound<'py, PyDict>,
    texts: bool,
    values: &mut Vec<i64>,
) -> PyResult<bool> {
    for id in ids {
        let is_of_type = if texts {
            id.is_exact_instance_of::<PyString>()
        } else {
            id.is_exact_instance_of::<PyInt>()
        };
        if !is_of_type {
            return Ok(false);
        }
        values.push(match index.get_item(id)? {
            Some(value) => value.extract()?,
            None => UNKNOWN,
        });
    }
    Ok(true)
}
