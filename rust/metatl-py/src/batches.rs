//! The classes `BatchSampler` and `BatchPrefetcher`.

use std::sync::Arc;
use std::time::Duration;

use metatl_core::Error;
use metatl_core::batches::{self, Batch};
use numpy::{PyArray1, PyArray2, PyArray3};
use pyo3::PyClass;
use pyo3::prelude::*;

use crate::error::to_py;
use crate::{arrays, parallel};

/// How often a wait for the prefetch thread checks for signals.
const POLL: Duration = Duration::from_millis(50);

/// Users, items, negatives and shared negatives of a batch.
pub(crate) type BatchArrays<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray2<i64>>,
    Bound<'py, PyArray3<i64>>,
    Bound<'py, PyArray1<i64>>,
);

fn to_arrays(py: Python<'_>, batch: Batch) -> PyResult<BatchArrays<'_>> {
    let Batch {
        pairs, per_pair, ..
    } = batch;
    let batch_size = batch.users.len();
    Ok((
        arrays::to_vector(py, batch.users),
        arrays::to_matrix(py, batch.items, batch_size, pairs + 1)?,
        arrays::to_tables(py, batch.negatives, batch_size, pairs, per_pair)?,
        arrays::to_vector(py, batch.shared_negatives),
    ))
}

/// Draws training batches. The base of `EpisodeSampler` and `SequenceSampler`.
#[pyclass(frozen, subclass, module = "metatl._metatl")]
pub(crate) struct BatchSampler {
    sampler: Arc<dyn batches::BatchSampler>,
    threads: usize,
}

impl BatchSampler {
    /// A new object of the subclass `subclass` that draws from `sampler` on `threads` threads.
    pub(crate) fn initializer<S: PyClass<BaseType = Self>>(
        sampler: impl batches::BatchSampler + 'static,
        threads: usize,
        subclass: S,
    ) -> PyClassInitializer<S> {
        let sampler = Arc::new(sampler);
        PyClassInitializer::from(Self { sampler, threads }).add_subclass(subclass)
    }
}

#[pymethods]
impl BatchSampler {
    /// The batch of a training step.
    fn sample<'py>(
        &self,
        py: Python<'py>,
        step: &Bound<'py, PyAny>,
        batch_size: &Bound<'py, PyAny>,
    ) -> PyResult<BatchArrays<'py>> {
        let step = arrays::unsigned("step", step)?;
        let batch_size = arrays::count("batch_size", batch_size)?;
        let work = (batch_size as u64).saturating_mul(self.sampler.nanoseconds_per_row());
        let batch = parallel::run_on(py, self.threads, work, |interrupt| {
            self.sampler.sample(step, batch_size, interrupt)
        })?;
        to_arrays(py, batch)
    }

    /// An iterator over the batches of `start_step`, `start_step + 1` …, which a thread prefetches.
    #[pyo3(signature = (start_step, batch_size, depth = None))]
    fn prefetch(
        &self,
        start_step: &Bound<'_, PyAny>,
        batch_size: &Bound<'_, PyAny>,
        depth: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<BatchPrefetcher> {
        let start_step = arrays::unsigned("start_step", start_step)?;
        let batch_size = arrays::count("batch_size", batch_size)?;
        let depth = depth.map_or(Ok(4), |depth| arrays::count("depth", depth))?;
        let sampler = Arc::clone(&self.sampler);
        batches::BatchPrefetcher::new(sampler, start_step, batch_size, depth)
            .map(BatchPrefetcher)
            .map_err(to_py)
    }
}

/// Batches that a thread prefetches.
#[pyclass(frozen, module = "metatl._metatl")]
pub(crate) struct BatchPrefetcher(batches::BatchPrefetcher);

#[pymethods]
impl BatchPrefetcher {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<BatchArrays<'py>>> {
        loop {
            match py.detach(|| self.0.next(POLL)) {
                Ok(Some(batch)) => return to_arrays(py, batch).map(Some),
                Ok(None) => py.check_signals()?,
                // Closed: the iterator is at its end.
                Err(Error::Interrupted) => return Ok(None),
                Err(error) => return Err(to_py(error)),
            }
        }
    }

    /// Stops the thread and waits until it has ended.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.close()).map_err(to_py)
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        self.close(py)
    }
}
