//! The encoder of new users.

use metatl_core::parallel::work;
use metatl_core::ranking::{ItemLists, Matrix, Similarity};
use metatl_core::simd::Level;
use metatl_core::transitions::{
    Encoder, InnerLoop, Learner, PRODUCTS_PER_NANOSECOND, PairLoss, Terms,
};
use numpy::PyArray2;
use pyo3::prelude::*;

use crate::error::to_py;
use crate::item_table::to_matrix;
use crate::{arrays, parallel};

/// Two matrices of items x d.
type TermArrays<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray2<f32>>);

/// The terms of every item in the learner's layer: as the head and as the tail of a pair.
#[pyfunction]
#[pyo3(signature = (item_table, learner, *, num_threads = None))]
pub(crate) fn tabulate_transitions<'py>(
    py: Python<'py>,
    item_table: &Bound<'py, PyAny>,
    learner: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<TermArrays<'py>> {
    let item_table = arrays::matrix("item_table", item_table)?;
    let learner = LearnerArrays::new(learner)?;

    let item_table = to_matrix("item_table", &item_table)?;
    let learner = learner.parts()?;
    let level = Level::from_environment().map_err(to_py)?;
    let (rows, columns) = (item_table.rows(), item_table.columns());
    let work = work(rows, columns, 2).saturating_mul(columns as u64) / PRODUCTS_PER_NANOSECOND;
    let [heads, tails] = parallel::run(py, num_threads, work, |interrupt| {
        learner.tabulate(item_table, level, interrupt)
    })?;
    Ok((
        arrays::to_matrix(py, heads, rows, columns)?,
        arrays::to_matrix(py, tails, rows, columns)?,
    ))
}

/// The query of each history: its last item + the user transition after the inner steps.
#[pyfunction]
#[pyo3(signature = (
    indptr, items, item_table, learner, inner, mean_transition, *, terms, item_bias, similarity, seed,
    num_threads = None
))]
pub(crate) fn encode_transitions<'py>(
    py: Python<'py>,
    indptr: &Bound<'py, PyAny>,
    items: &Bound<'py, PyAny>,
    item_table: &Bound<'py, PyAny>,
    learner: &Bound<'py, PyAny>,
    inner: &Bound<'py, PyAny>,
    mean_transition: &Bound<'py, PyAny>,
    terms: Option<&Bound<'py, PyAny>>,
    item_bias: Option<&Bound<'py, PyAny>>,
    similarity: &Bound<'py, PyAny>,
    seed: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let indptr = arrays::vector_copy::<i64>("indptr", indptr)?;
    let items = arrays::vector_copy::<i64>("items", items)?;
    let item_table = arrays::matrix("item_table", item_table)?;
    let learner = LearnerArrays::new(learner)?;
    let inner = InnerLoopArrays::new(inner)?;
    let mean_transition = arrays::vector("mean_transition", mean_transition)?;
    let terms = terms.map(term_arrays).transpose()?;
    let item_bias = item_bias
        .map(|bias| arrays::vector("item_bias", bias))
        .transpose()?;
    let similarity = Similarity::parse(&arrays::text("similarity", similarity)?).map_err(to_py)?;
    let seed = arrays::unsigned("seed", seed)?;

    let terms = match &terms {
        Some((heads, tails)) => Some(Terms {
            heads: to_matrix("terms[0]", heads)?,
            tails: to_matrix("terms[1]", tails)?,
        }),
        None => None,
    };
    let item_bias = item_bias.as_ref().map(|bias| bias.as_slice()).transpose()?;
    let item_table: Matrix = to_matrix("item_table", &item_table)?;
    let encoder = Encoder::new(
        item_table,
        item_bias,
        similarity,
        learner.parts()?,
        terms,
        inner.parts()?,
        mean_transition.as_slice()?,
        Level::from_environment().map_err(to_py)?,
    )
    .map_err(to_py)?;
    let users = indptr.len().saturating_sub(1);
    let work = encoder.work(users, items.len());
    let queries = parallel::run(py, num_threads, work, |interrupt| {
        let arguments = ["indptr", "items"];
        let histories = ItemLists::new(arguments, &indptr, &items, users, item_table.rows())?;
        encoder.encode(histories, seed, interrupt)
    })?;
    arrays::to_matrix(py, queries, users, item_table.columns())
}

/// The arrays of a [`Learner`].
struct LearnerArrays<'py> {
    head_weight: arrays::Matrix<'py, f32>,
    tail_weight: arrays::Matrix<'py, f32>,
    bias: arrays::Vector<'py, f32>,
    skip: Option<[arrays::Vector<'py, f32>; 2]>,
}

impl<'py> LearnerArrays<'py> {
    /// A tuple: two weights, the bias, and the two factors of the skip or `None`.
    fn new(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        type Any<'py> = Bound<'py, PyAny>;
        type Parts<'py> = (Any<'py>, Any<'py>, Any<'py>, Option<(Any<'py>, Any<'py>)>);
        let Ok((head_weight, tail_weight, bias, skip)) = value.extract::<Parts<'py>>() else {
            let expected = "a tuple: two weights, a bias, and two factors or None";
            return Err(arrays::invalid("learner", arrays::display(value), expected));
        };
        let skip = skip.map(|(heads, tails)| {
            PyResult::Ok([
                arrays::vector("skip[0]", &heads)?,
                arrays::vector("skip[1]", &tails)?,
            ])
        });
        Ok(Self {
            head_weight: arrays::matrix("head_weight", &head_weight)?,
            tail_weight: arrays::matrix("tail_weight", &tail_weight)?,
            bias: arrays::vector("bias", &bias)?,
            skip: skip.transpose()?,
        })
    }

    fn parts(&self) -> PyResult<Learner<'_>> {
        let skip = match &self.skip {
            Some([heads, tails]) => Some([heads.as_slice()?, tails.as_slice()?]),
            None => None,
        };
        Ok(Learner {
            head_weight: to_matrix("head_weight", &self.head_weight)?,
            tail_weight: to_matrix("tail_weight", &self.tail_weight)?,
            bias: self.bias.as_slice()?,
            skip,
        })
    }
}

/// The settings of an [`InnerLoop`].
struct InnerLoopArrays<'py> {
    rates: arrays::Vector<'py, f32>,
    counts: [usize; 4],
    inverse_temperature: f32,
    mean: bool,
    loss: PairLoss,
}

impl<'py> InnerLoopArrays<'py> {
    /// A tuple: steps, rates, inverse temperature, whether the loss is the mean over pairs, the margin or `None` for
    /// the softmax, common negatives, own negatives of each pair, and how many of these are drawn.
    fn new(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        type Any<'py> = Bound<'py, PyAny>;
        type Parts<'py> = (
            Any<'py>,
            Any<'py>,
            Any<'py>,
            bool,
            Option<Any<'py>>,
            Any<'py>,
            Any<'py>,
            Any<'py>,
        );
        let Ok((steps, rates, scale, mean, margin, common, own, own_drawn)) =
            value.extract::<Parts<'py>>()
        else {
            let expected = "a tuple of the eight settings of an inner loop";
            return Err(arrays::invalid("inner", arrays::display(value), expected));
        };
        Ok(Self {
            rates: arrays::vector("rates", &rates)?,
            counts: [
                arrays::count("steps", &steps)?,
                arrays::count("common", &common)?,
                arrays::count("own", &own)?,
                arrays::count("own_drawn", &own_drawn)?,
            ],
            inverse_temperature: arrays::number("inverse_temperature", &scale)? as f32,
            mean,
            loss: match margin {
                Some(margin) => PairLoss::Margin(arrays::number("margin", &margin)? as f32),
                None => PairLoss::Softmax,
            },
        })
    }

    fn parts(&self) -> PyResult<InnerLoop<'_>> {
        let [steps, common, own, own_drawn] = self.counts;
        Ok(InnerLoop {
            steps,
            rates: self.rates.as_slice()?,
            inverse_temperature: self.inverse_temperature,
            mean: self.mean,
            loss: self.loss,
            common,
            own,
            own_drawn,
        })
    }
}

fn term_arrays<'py>(
    value: &Bound<'py, PyAny>,
) -> PyResult<(arrays::Matrix<'py, f32>, arrays::Matrix<'py, f32>)> {
    let Ok((heads, tails)) = value.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>() else {
        let expected = "a tuple of two arrays, or None";
        return Err(arrays::invalid("terms", arrays::display(value), expected));
    };
    Ok((
        arrays::matrix("terms[0]", &heads)?,
        arrays::matrix("terms[1]", &tails)?,
    ))
}
