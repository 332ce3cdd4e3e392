//! Python's exceptions for the errors of `metatl-core`.

use metatl_core::Error;
use pyo3::PyErr;
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError};
use pyo3::import_exception;

// Defined in Python, where a class can have two bases: an invalid argument is also a `ValueError`.
import_exception!(metatl.exceptions, ArgumentTypeError);
import_exception!(metatl.exceptions, ForkError);
import_exception!(metatl.exceptions, InvalidArgumentError);
import_exception!(metatl.exceptions, MetatlError);
import_exception!(metatl.exceptions, NoNegativeError);
import_exception!(metatl.exceptions, NotANumberError);

/// The Python exception for an error of the core.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that `map_err` wants"
)]
pub(crate) fn to_py(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::InvalidArgument { .. } => InvalidArgumentError::new_err(message),
        Error::NoNegative { .. } => NoNegativeError::new_err(message),
        Error::NotANumber { .. } => NotANumberError::new_err(message),
        Error::OutOfMemory { .. } => PyMemoryError::new_err(message),
        Error::Interrupted => PyKeyboardInterrupt::new_err(message),
        Error::Fork { .. } => ForkError::new_err(message),
        Error::Threads { .. } => MetatlError::new_err(message),
    }
}
