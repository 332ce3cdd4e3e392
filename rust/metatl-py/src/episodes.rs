//! The class `EpisodeSampler`.

use std::sync::Arc;

use metatl_core::episodes::{self, EpisodeSettings};
use pyo3::prelude::*;

use crate::batches::BatchSampler;
use crate::error::to_py;
use crate::interactions::Interactions;
use crate::{arrays, parallel};

/// Draws batches of training tasks.
#[pyclass(frozen, extends = BatchSampler, module = "metatl._metatl")]
pub(crate) struct EpisodeSampler;

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
    ) -> PyResult<PyClassInitializer<Self>> {
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
        Ok(BatchSampler::initializer(sampler, threads, Self))
    }
}
