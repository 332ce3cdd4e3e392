//! Python's exceptions for the errors of `metatl-core`.

use metatl_core::Error;
use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyMemoryError};

create_exception!(
    metatl.exceptions,
    MetatlError,
    PyException,
    "Base of every error that metatl raises on purpose."
);
create_exception!(
    metatl.exceptions,
    InvalidArgumentError,
    MetatlError,
    "An argument has the wrong type, dtype, shape, order or range; the message names it."
);
create_exception!(
    metatl.exceptions,
    NoNegativeError,
    MetatlError,
    "Too few items are left outside a user's interactions to draw negatives from."
);
create_exception!(
    metatl.exceptions,
    NotANumberError,
    MetatlError,
    "Scores contain NaN; the message counts them."
);
create_exception!(
    metatl.exceptions,
    ForkError,
    MetatlError,
    "An object that owns a thread was used in a forked child process."
);

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
