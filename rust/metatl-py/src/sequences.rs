//! The class `SequenceSampler`.

use std::sync::Arc;

use metatl_core::sequences::{self, Draw, SequenceSettings};
use pyo3::prelude::*;

use crate::batches::BatchSampler;
use crate::error::to_py;
use crate::interactions::Interactions;
use crate::{arrays, parallel};

/// Draws batches of training sequences.
#[pyclass(frozen, extends = BatchSampler, module = "metatl._metatl")]
pub(crate) struct SequenceSampler;

#[pymethods]
impl SequenceSampler {
    #[new]
    #[pyo3(signature = (
        interactions, *, length, negatives, shared_negatives = None, shortest = None, draw = None,
        shuffle_share = None, weights = None, seed, num_threads = None,
    ))]
    fn new(
        py: Python<'_>,
        interactions: &Bound<'_, Interactions>,
        length: &Bound<'_, PyAny>,
        negatives: &Bound<'_, PyAny>,
        shared_negatives: Option<&Bound<'_, PyAny>>,
        shortest: Option<&Bound<'_, PyAny>>,
        draw: Option<&Bound<'_, PyAny>>,
        shuffle_share: Option<&Bound<'_, PyAny>>,
        weights: Option<&Bound<'_, PyAny>>,
        seed: &Bound<'_, PyAny>,
        num_threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let threads = parallel::thread_count(num_threads)?;
        let settings = SequenceSettings {
            length: arrays::count("length", length)?,
            shortest: shortest.map_or(Ok(2), |rows| arrays::count("shortest", rows))?,
            draw: draw.map_or(Ok(Draw::User), parse_draw)?,
            negatives: arrays::count("negatives", negatives)?,
            shared_negatives: shared_negatives
                .map_or(Ok(0), |count| arrays::count("shared_negatives", count))?,
            shuffle_share: shuffle_share
                .map_or(Ok(0.0), |share| arrays::number("shuffle_share", share))?,
            seed: arrays::unsigned("seed", seed)?,
        };
        let interactions = Arc::clone(&interactions.get().0);
        let weights = weights
            .map(|weights| arrays::vector_copy::<f64>("weights", weights))
            .transpose()?;
        let sampler = py
            .detach(|| sequences::SequenceSampler::new(interactions, settings, weights.as_deref()))
            .map_err(to_py)?;
        Ok(BatchSampler::initializer(sampler, threads, Self))
    }
}

fn parse_draw(value: &Bound<'_, PyAny>) -> PyResult<Draw> {
    match arrays::text("draw", value)?.as_str() {
        "user" => Ok(Draw::User),
        "row" => Ok(Draw::Row),
        _ => Err(arrays::invalid(
            "draw",
            arrays::display(value),
            "'user' or 'row'",
        )),
    }
}
