//! Runs kernels outside the interpreter: every kernel runs through [`run`].

use metatl_core::{Error, parallel};
use pyo3::prelude::*;

use crate::arrays;
use crate::error::to_py;

/// Runs `kernel` detached from the interpreter. If `work` (estimated nanoseconds on one thread) is long, the calling
/// thread checks for signals meanwhile, so that Ctrl-C ends every kernel within 200 ms.
///
/// `num_threads` is the Python argument of that name, `None` for the default.
pub(crate) fn run<R: Send>(
    py: Python<'_>,
    num_threads: Option<&Bound<'_, PyAny>>,
    work: u64,
    kernel: impl FnOnce(&parallel::Interrupt) -> Result<R, Error> + Send,
) -> PyResult<R> {
    run_on(py, thread_count(num_threads)?, work, kernel)
}

/// [`run`] on a given number of threads.
pub(crate) fn run_on<R: Send>(
    py: Python<'_>,
    threads: usize,
    work: u64,
    kernel: impl FnOnce(&parallel::Interrupt) -> Result<R, Error> + Send,
) -> PyResult<R> {
    let mut signal = None;
    let result = py.detach(|| {
        parallel::run(threads, work, kernel, || {
            if signal.is_none() {
                // No interpreter to attach to means that it is shutting down: stop as well.
                signal = Python::try_attach(|py| py.check_signals().err()).unwrap_or(None);
            }
            signal.is_none()
        })
    });
    match signal {
        Some(signal) => Err(signal),
        None => result.map_err(to_py),
    }
}

/// The default number of threads of a kernel.
#[pyfunction]
#[pyo3(signature = ())]
pub(crate) fn available_threads() -> PyResult<usize> {
    thread_count(None)
}

/// The number of threads that a call may use; see [`parallel::thread_count`].
pub(crate) fn thread_count(num_threads: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    let requested = num_threads
        .map(|value| arrays::unsigned("num_threads", value))
        .transpose()?;
    parallel::thread_count(requested).map_err(to_py)
}
