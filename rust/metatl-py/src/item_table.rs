//! Item tables in their formats, and rounding to fewer bits.

use metatl_core::parallel::work;
use metatl_core::ranking::{self, ItemTable, Matrix};
use metatl_core::simd::Level;
use numpy::{
    Element, PyArray1, PyArray2, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::to_py;
use crate::{arrays, parallel};

/// A matrix of integers and a vector of scales.
type Int8Arrays<'py> = (Bound<'py, PyArray2<i8>>, Bound<'py, PyArray1<f32>>);

/// Rounds a table to bfloat16 and returns its bits.
#[pyfunction]
#[pyo3(signature = (item_table, *, num_threads = None))]
pub(crate) fn round_to_bf16<'py>(
    py: Python<'py>,
    item_table: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<u16>>> {
    let item_table = arrays::matrix("item_table", item_table)?;

    let item_table = to_matrix("item_table", &item_table)?;
    let bits = parallel::run(py, num_threads, rounding_work(item_table), |interrupt| {
        ranking::round_to_bf16(item_table, interrupt)
    })?;
    arrays::to_matrix(py, bits, item_table.rows(), item_table.columns())
}

/// Rounds each row of a table to integers and a scale.
#[pyfunction]
#[pyo3(signature = (item_table, *, num_threads = None))]
pub(crate) fn round_to_int8<'py>(
    py: Python<'py>,
    item_table: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Int8Arrays<'py>> {
    let item_table = arrays::matrix("item_table", item_table)?;

    let item_table = to_matrix("item_table", &item_table)?;
    let (codes, scales) = parallel::run(py, num_threads, rounding_work(item_table), |interrupt| {
        ranking::round_to_int8(item_table, interrupt)
    })?;
    Ok((
        arrays::to_matrix(py, codes, item_table.rows(), item_table.columns())?,
        arrays::to_vector(py, scales),
    ))
}

/// Estimated nanoseconds for rounding all numbers.
fn rounding_work(item_table: Matrix) -> u64 {
    work(item_table.rows(), item_table.columns(), 1) / ranking::NUMBERS_PER_NANOSECOND
}

/// An item table arranged for the catalogue kernels: a copy, which scores with the same bits.
#[pyclass(frozen, module = "metatl._metatl")]
pub(crate) struct PanelTable(ranking::PanelTable);

#[pymethods]
impl PanelTable {
    #[new]
    #[pyo3(signature = (item_table, *, num_threads = None))]
    fn new(
        py: Python<'_>,
        item_table: &Bound<'_, PyAny>,
        num_threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let item_table = ItemTableArrays::new(item_table)?;

        let item_table = item_table.parts()?;
        let level = Level::from_environment().map_err(to_py)?;
        let work = work(item_table.rows(), item_table.columns(), 1);
        let table = parallel::run(py, num_threads, work, |interrupt| {
            ranking::PanelTable::new(item_table, level, interrupt)
        })?;
        Ok(Self(table))
    }
}

/// The borrowed arrays of an item table.
pub(crate) enum ItemTableArrays<'py> {
    Panels(Bound<'py, PanelTable>),
    Float32(arrays::Matrix<'py, f32>),
    Bf16(arrays::Matrix<'py, u16>),
    Int8 {
        codes: arrays::Matrix<'py, i8>,
        scales: arrays::Vector<'py, f32>,
    },
}

impl<'py> ItemTableArrays<'py> {
    /// A matrix of float32, a matrix of uint16 that holds bfloat16, or a tuple of int8 and scales.
    pub(crate) fn new(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(table) = value.cast::<PanelTable>() {
            return Ok(Self::Panels(table.clone()));
        }
        if let Ok(tuple) = value.cast::<PyTuple>() {
            let Ok((codes, scales)) = tuple.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>()
            else {
                let found = format_args!("a tuple of {}", tuple.len());
                let expected = "a tuple of two arrays: whole numbers, scales";
                return Err(arrays::invalid("item_table", found, expected));
            };
            return Ok(Self::Int8 {
                codes: arrays::matrix("item_table[0]", &codes)?,
                scales: arrays::vector("item_table[1]", &scales)?,
            });
        }
        let is_bf16 = |array: &Bound<'py, PyUntypedArray>| {
            array.dtype().is_equiv_to(&dtype::<u16>(value.py()))
        };
        if value.cast::<PyUntypedArray>().is_ok_and(is_bf16) {
            return Ok(Self::Bf16(arrays::matrix("item_table", value)?));
        }
        Ok(Self::Float32(arrays::matrix("item_table", value)?))
    }

    /// The table in the type of the core.
    pub(crate) fn parts(&self) -> PyResult<ItemTable<'_>> {
        Ok(match self {
            Self::Panels(table) => ItemTable::Panels(&table.get().0),
            Self::Float32(array) => ItemTable::Float32(to_matrix("item_table", array)?),
            Self::Bf16(array) => ItemTable::Bf16(to_matrix("item_table", array)?),
            Self::Int8 { codes, scales } => ItemTable::Int8 {
                codes: to_matrix("item_table[0]", codes)?,
                scales: scales.as_slice()?,
            },
        })
    }
}

/// An array as a matrix of the core.
pub(crate) fn to_matrix<'a, T: Element>(
    argument: &'static str,
    array: &'a arrays::Matrix<T>,
) -> PyResult<Matrix<'a, T>> {
    let (rows, columns) = (array.shape()[0], array.shape()[1]);
    Matrix::new(argument, array.as_slice()?, rows, columns).map_err(to_py)
}
