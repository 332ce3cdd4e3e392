//! Checks at the boundary: arrays have exactly the dtype, dimensions and order that a kernel expects, and
//! anything else is an `InvalidArgumentError` that names the argument, and an `ArgumentTypeError` where its
//! type is wrong. Nothing is ever cast.
//!
//! A kernel runs without the interpreter's lock, so another Python thread can write to an array that is borrowed
//! ([`vector`], [`matrix`]), though not free its memory ([`Held`]); `metatl_core` says what is assumed of that. Ids, offsets, counts and weights are copied
//! ([`vector_copy`], [`matrix_copy`]) wherever the copy is small beside the kernel's work. The others are the rows of
//! `group_by_user`, the items of `Interactions`, the candidates of `rank_candidates` and the counts of `ranks`, whose
//! kernels take care of it themselves.

use std::ops::Deref;

use metatl_core::Error;
use numpy::{
    Element, Ix1, Ix2, PyArray, PyArray1, PyArray2, PyArray3, PyArrayDescrMethods, PyArrayMethods,
    PyReadonlyArray, PyUntypedArray, PyUntypedArrayMethods, dtype,
    ndarray::{Dim, Dimension, IntoDimension},
};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use crate::error::{ArgumentTypeError, to_py};

/// An `InvalidArgumentError`.
pub(crate) fn invalid(
    argument: &'static str,
    found: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> PyErr {
    to_py(Error::invalid(argument, found, expected))
}

/// An `ArgumentTypeError`, which is an `InvalidArgumentError` and a `TypeError`.
fn wrong_type(
    argument: &'static str,
    found: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> PyErr {
    ArgumentTypeError::new_err(Error::invalid(argument, found, expected).to_string())
}

/// The error for a value that cannot be converted: of a wrong type, or out of range.
fn unconverted(
    argument: &'static str,
    value: &Bound<'_, PyAny>,
    error: &PyErr,
    expected: &str,
) -> PyErr {
    if error.is_instance_of::<PyTypeError>(value.py()) {
        wrong_type(argument, display(value), expected)
    } else {
        invalid(argument, display(value), expected)
    }
}

/// A one-dimensional array of `T`.
pub(crate) fn vector<'py, T: Element>(
    argument: &'static str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Vector<'py, T>> {
    Held::new(borrow(argument, value, 1)?)
}

/// A two-dimensional, C-contiguous array of `T`.
pub(crate) fn matrix<'py, T: Element>(
    argument: &'static str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Matrix<'py, T>> {
    Held::new(borrow(argument, value, 2)?)
}

/// A borrowed array whose memory stays where it is.
///
/// `ndarray.resize(…, refcheck=False)` frees the memory of an array under anyone who reads it, but not while there is
/// a weak reference to the array. A view reads the memory of its base.
pub(crate) struct Held<'py, T: Element, D: Dimension> {
    array: PyReadonlyArray<'py, T, D>,
    _references: [Option<Bound<'py, PyWeakrefReference>>; 2],
}

/// A held array of one dimension.
pub(crate) type Vector<'py, T> = Held<'py, T, Ix1>;

/// A held array of two dimensions.
pub(crate) type Matrix<'py, T> = Held<'py, T, Ix2>;

impl<'py, T: Element, D: Dimension> Held<'py, T, D> {
    fn new(array: PyReadonlyArray<'py, T, D>) -> PyResult<Self> {
        let base = array.getattr(intern!(array.py(), "base"))?;
        let base = base.is_instance_of::<PyUntypedArray>().then_some(base);
        let references = [
            Some(PyWeakrefReference::new(&array)?),
            base.as_ref().map(PyWeakrefReference::new).transpose()?,
        ];
        Ok(Self {
            array,
            _references: references,
        })
    }
}

impl<'py, T: Element, D: Dimension> Deref for Held<'py, T, D> {
    type Target = PyReadonlyArray<'py, T, D>;

    fn deref(&self) -> &Self::Target {
        &self.array
    }
}

/// A copy of a one-dimensional array of `T`.
pub(crate) fn vector_copy<T: Element + Copy>(
    argument: &'static str,
    value: &Bound<'_, PyAny>,
) -> PyResult<Vec<T>> {
    copy(borrow::<T, Ix1>(argument, value, 1)?.as_slice()?)
}

/// A copy of a two-dimensional, C-contiguous array of `T`, row by row, and its shape.
pub(crate) fn matrix_copy<T: Element + Copy>(
    argument: &'static str,
    value: &Bound<'_, PyAny>,
) -> PyResult<(Vec<T>, [usize; 2])> {
    let array = borrow::<T, Ix2>(argument, value, 2)?;
    let shape = [array.shape()[0], array.shape()[1]];
    Ok((copy(array.as_slice()?)?, shape))
}

fn copy<T: Copy>(values: &[T]) -> PyResult<Vec<T>> {
    let mut copied = Vec::new();
    let elements = values.len() as u128;
    copied
        .try_reserve_exact(values.len())
        .map_err(|_| to_py(Error::OutOfMemory { elements }))?;
    copied.extend_from_slice(values);
    Ok(copied)
}

fn borrow<'py, T: Element, D: Dimension>(
    argument: &'static str,
    value: &Bound<'py, PyAny>,
    dimensions: usize,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    let element = dtype::<T>(value.py());
    let expected = || format!("a C-contiguous {dimensions}-d array of {element}");
    let Ok(array) = value.cast::<PyUntypedArray>() else {
        let found = value.get_type().fully_qualified_name()?;
        return Err(wrong_type(argument, found, expected()));
    };
    if !array.dtype().is_equiv_to(&element) {
        let found = format!("an array of {}", array.dtype());
        return Err(wrong_type(argument, found, expected()));
    }
    if array.ndim() != dimensions {
        let found = format!("shape {:?}", array.shape());
        return Err(invalid(argument, found, expected()));
    }
    if !array.is_c_contiguous() {
        let found = format!(
            "shape {:?} with strides {:?}",
            array.shape(),
            array.strides()
        );
        return Err(invalid(argument, found, expected()));
    }
    let array = value.cast::<PyArray<T, D>>()?.try_readonly()?;
    if array.as_slice().is_err() {
        return Err(invalid(argument, "a misaligned array", expected()));
    }
    Ok(array)
}

/// A non-negative Python or numpy integer.
pub(crate) fn unsigned(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    value
        .extract()
        .map_err(|error| unconverted(argument, value, &error, "an integer from 0 to 2**64 - 1"))
}

/// A non-negative Python or numpy integer that counts things in memory.
pub(crate) fn count(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    let expected = "an integer from 0 to 2**63 - 1";
    let count: i64 = value
        .extract()
        .map_err(|error| unconverted(argument, value, &error, expected))?;
    usize::try_from(count).map_err(|_| invalid(argument, display(value), expected))
}

/// A finite or infinite number.
pub(crate) fn number(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    value
        .extract()
        .map_err(|error| unconverted(argument, value, &error, "a number"))
}

/// A string.
pub(crate) fn text(argument: &'static str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    value
        .extract()
        .map_err(|error| unconverted(argument, value, &error, "a string"))
}

/// The shortened `repr` of a value, for an error message.
pub(crate) fn display(value: &Bound<'_, PyAny>) -> String {
    let shown = value.repr().map_or_else(
        |_| "an object without a repr".to_owned(),
        |text| text.to_string(),
    );
    if shown.chars().count() <= 80 {
        shown
    } else {
        shown.chars().take(77).chain("...".chars()).collect()
    }
}

/// A Python array that owns `values`.
pub(crate) fn to_vector<T: Element>(py: Python<'_>, values: Vec<T>) -> Bound<'_, PyArray1<T>> {
    PyArray1::from_vec(py, values)
}

/// A Python array of shape (`rows`, `columns`) that owns `values`.
pub(crate) fn to_matrix<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    rows: usize,
    columns: usize,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    reshape(&PyArray1::from_vec(py, values), [rows, columns])
}

/// A Python array of shape (`tables`, `rows`, `columns`) that owns `values`.
pub(crate) fn to_tables<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    tables: usize,
    rows: usize,
    columns: usize,
) -> PyResult<Bound<'_, PyArray3<T>>> {
    reshape(&PyArray1::from_vec(py, values), [tables, rows, columns])
}

/// Numpy has its own limits for shapes, which also hold where there is no element.
fn reshape<'py, T: Element, const N: usize>(
    array: &Bound<'py, PyArray1<T>>,
    shape: [usize; N],
) -> PyResult<Bound<'py, PyArray<T, Dim<[usize; N]>>>>
where
    [usize; N]: IntoDimension<Dim = Dim<[usize; N]>>,
    Dim<[usize; N]>: Dimension,
{
    let found = format_args!("shape {shape:?}");
    array
        .reshape(shape)
        .map_err(|_| invalid("result", found, "a shape that numpy can hold"))
}
