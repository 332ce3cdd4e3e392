//! The classes `EpisodeSampler` and `EpisodePrefetcher`.

use std::sync::Arc;
use std::time::Duration;

use metatl_core::Error;
use metatl_core::episodes::{self, EpisodeSettings, Episodes};
use metatl_core::parallel::work;
use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::prelude::*;

use crate::error::to_py;
use crate::interactions::Interactions;
use crate::{arrays, parallel};

/// How often a wait for the prefetch thread looks for signals.
const POLL: Duration = Duration::from_millis(50);

/// Users, items, negatives and shared negatives of a batch.
type EpisodeArrays<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray2<i64>>,
    Bound<'py, PyArray3<i64>>,
    Bound<'py, PyArray1<i64>>,
);

fn to_arrays<'py>(
    py: Python<'py>,
    episodes: Episodes,
    settings: &EpisodeSettings,
) -> PyResult<EpisodeArrays<'py>> {
    let batch_size = episodes.users.len();
    let EpisodeSettings { k, negatives, .. } = *settings;
    Ok((
        arrays::to_vector(py, episodes.users),
        arrays::to_matrix(py, episodes.items, batch_size, k + 1)?,
        arrays::to_vector(py, episodes.negatives).reshape([batch_size, k, negatives])?,
        arrays::to_vector(py, episodes.shared_negatives),
    ))
}

/// Draws batches of training tasks.
#[pyclass(frozen, module = "metatl._metatl")]
pub(crate) struct EpisodeSampler {
    sampler: Arc<episodes::EpisodeSampler>,
    threads: usize,
}

#[pymethods]
impl EpisodeSampler {
    #[new]
    #[pyo3(signature = (
        interactions, *, k, negatives, shared_negatives = None, window_share = None,
        released_windows = false, shuffle_share = None, seed, num_threads = None,
    ))]
    fn new(
        py: Python<'_>,
        interactions: &Bound<'_, Interactions>,
        k: &Bound<'_, PyAny>,
        negatives: &Bound<'_, PyAny>,
        shared_negatives: Option<&Bound<'_, PyAny>>,
        window_share: Option<&Bound<'_, PyAny>>,
        released_windows: bool,
        shuffle_share: Option<&Bound<'_, PyAny>>,
        seed: &Bound<'_, PyAny>,
        num_threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let threads = parallel::thread_count(num_threads)?;
        let settings = EpisodeSettings {
            k: arrays::count("k", k)?,
            negatives: arrays::count("negatives", negatives)?,
            shared_negatives: shared_negatives
                .map_or(Ok(0), |count| arrays::count("shared_negatives", count))?,
            window_share: window_share
                .map_or(Ok(0.0), |share| arrays::number("window_share", share))?,
            released_windows,
            shuffle_share: shuffle_share
                .map_or(Ok(0.0), |share| arrays::number("shuffle_share", share))?,
            seed: arrays::unsigned("seed", seed)?,
        };
        let interactions = Arc::clone(&interactions.get().0);
        let sampler = py
            .detach(|| episodes::EpisodeSampler::new(interactions, settings))
            .map_err(to_py)?;
        Ok(Self {
            sampler: Arc::new(sampler),
            threads,
        })
    }

    /// The batch of a training step.
    fn sample<'py>(
        &self,
        py: Python<'py>,
        step: &Bound<'py, PyAny>,
        batch_size: &Bound<'py, PyAny>,
    ) -> PyResult<EpisodeArrays<'py>> {
        let step = arrays::unsigned("step", step)?;
        let batch_size = arrays::count("batch_size", batch_size)?;
        let settings = self.sampler.settings();
        let per_task = settings
            .k
            .saturating_mul(settings.negatives)
            .saturating_add(settings.k + 1);
        let work = work(batch_size, per_task, episodes::NANOSECONDS);
        let episodes = parallel::run_on(py, self.threads, work, |interrupt| {
            self.sampler.sample(step, batch_size, interrupt)
        })?;
        to_arrays(py, episodes, settings)
    }

    /// An iterator over the batches of `start_step`, `start_step + 1` …, drawn ahead by a thread.
    #[pyo3(signature = (start_step, batch_size, depth = None))]
    fn prefetch(
        &self,
        start_step: &Bound<'_, PyAny>,
        batch_size: &Bound<'_, PyAny>,
        depth: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<EpisodePrefetcher> {
        let start_step = arrays::unsigned("start_step", start_step)?;
        let batch_size = arrays::count("batch_size", batch_size)?;
        let depth = depth.map_or(Ok(4), |depth| arrays::count("depth", depth))?;
        let prefetcher = episodes::EpisodePrefetcher::new(
            Arc::clone(&self.sampler),
            start_step,
            batch_size,
            depth,
        )
        .map_err(to_py)?;
        Ok(EpisodePrefetcher {
            prefetcher,
            settings: *self.sampler.settings(),
        })
    }
}

/// Batches that a thread draws ahead of their use.
#[pyclass(frozen, module = "metatl._metatl")]
pub(crate) struct EpisodePrefetcher {
    prefetcher: episodes::EpisodePrefetcher,
    settings: EpisodeSettings,
}

#[pymethods]
impl EpisodePrefetcher {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<EpisodeArrays<'py>>> {
        loop {
            match py.detach(|| self.prefetcher.next(POLL)) {
                Ok(Some(episodes)) => return to_arrays(py, episodes, &self.settings).map(Some),
                Ok(None) => py.check_signals()?,
                // Closed: the iterator is at its end.
                Err(Error::Interrupted) => return Ok(None),
                Err(error) => return Err(to_py(error)),
            }
        }
    }

    /// Stops the thread and waits until it has ended.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.prefetcher.close()).map_err(to_py)
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        self.close(py)
    }
}
