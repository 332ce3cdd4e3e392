//! The Python module `metatl._metatl`: one thin wrapper file per file of `metatl-core`.

use pyo3::prelude::*;

/// Kernels of metatl.
#[pymodule]
mod _metatl {}
