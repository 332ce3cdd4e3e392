//! Ranks items from queries and an item table, or from scores.

use metatl_core::Error;
use metatl_core::parallel::work;
use metatl_core::ranking::{
    self, Comparisons, ItemLists, ItemTable, Matrix, Overrides, Scoring, Similarity, TopN,
};
use metatl_core::simd::Level;
use numpy::{PyArray1, PyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::error::to_py;
use crate::item_table::{ItemTableArrays, to_matrix};
use crate::{arrays, parallel};

/// Two vectors: numbers of negatives above the target, and with the same score.
type ComparisonArrays<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

/// Two matrices: items and their scores.
type TopNArrays<'py> = (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<f32>>);

/// Compares the target of each query, column 0 of its candidates, with the other candidates.
#[pyfunction]
#[pyo3(signature = (
    queries, item_table, candidates, *, item_bias, similarity, overrides, num_threads = None
))]
pub(crate) fn rank_candidates<'py>(
    py: Python<'py>,
    queries: &Bound<'py, PyAny>,
    item_table: &Bound<'py, PyAny>,
    candidates: &Bound<'py, PyAny>,
    item_bias: Option<&Bound<'py, PyAny>>,
    similarity: &Bound<'py, PyAny>,
    overrides: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<ComparisonArrays<'py>> {
    let scoring = ScoringArrays::new(queries, item_table, item_bias, similarity, overrides)?;
    let candidates = arrays::matrix("candidates", candidates)?;

    let scoring = scoring.parts()?;
    let (rows, width) = (candidates.shape()[0], candidates.shape()[1]);
    let queries = scoring.queries.rows();
    if rows != queries {
        let expected = format_args!("{queries}, one for each query");
        return Err(arrays::invalid(
            "candidates",
            format_args!("{rows} rows"),
            expected,
        ));
    }
    let candidates = candidates.as_slice()?;
    let columns = width.saturating_mul(scoring.queries.columns().max(8));
    let work = work(queries, columns, 1) / ranking::PRODUCTS_PER_NANOSECOND;
    let result = parallel::run(py, num_threads, work, |interrupt| {
        ranking::rank_candidates(&scoring.check()?, candidates, width, interrupt)
    })?;
    Ok(to_comparison_arrays(py, result))
}

/// Compares the target of each query with all other items except the excluded ones.
#[pyfunction]
#[pyo3(signature = (
    queries, item_table, targets, excluded_indptr, excluded_items, *, item_bias, similarity, overrides,
    num_threads = None
))]
pub(crate) fn rank_catalogue<'py>(
    py: Python<'py>,
    queries: &Bound<'py, PyAny>,
    item_table: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    excluded_indptr: &Bound<'py, PyAny>,
    excluded_items: &Bound<'py, PyAny>,
    item_bias: Option<&Bound<'py, PyAny>>,
    similarity: &Bound<'py, PyAny>,
    overrides: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<ComparisonArrays<'py>> {
    let scoring = ScoringArrays::new(queries, item_table, item_bias, similarity, overrides)?;
    let targets = arrays::vector_copy("targets", targets)?;
    let excluded = Excluded::new(excluded_indptr, excluded_items)?;

    let scoring = scoring.parts()?;
    let result = parallel::run(py, num_threads, scoring.catalogue_work(), |interrupt| {
        let excluded = excluded.check(scoring.queries.rows(), scoring.item_table.rows())?;
        ranking::rank_catalogue(&scoring.check()?, &targets, excluded, interrupt)
    })?;
    Ok(to_comparison_arrays(py, result))
}

/// The `n` best items of the catalogue for each query, without the excluded ones.
#[pyfunction]
#[pyo3(signature = (
    queries, item_table, n, excluded_indptr, excluded_items, *, item_bias, similarity, overrides, allowed = None,
    num_threads = None
))]
pub(crate) fn top_n<'py>(
    py: Python<'py>,
    queries: &Bound<'py, PyAny>,
    item_table: &Bound<'py, PyAny>,
    n: &Bound<'py, PyAny>,
    excluded_indptr: &Bound<'py, PyAny>,
    excluded_items: &Bound<'py, PyAny>,
    item_bias: Option<&Bound<'py, PyAny>>,
    similarity: &Bound<'py, PyAny>,
    overrides: Option<&Bound<'py, PyAny>>,
    allowed: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<TopNArrays<'py>> {
    let scoring = ScoringArrays::new(queries, item_table, item_bias, similarity, overrides)?;
    let n = arrays::count("n", n)?;
    let excluded = Excluded::new(excluded_indptr, excluded_items)?;
    let allowed = allowed.map(allowed_items).transpose()?;

    let scoring = scoring.parts()?;
    let queries = scoring.queries.rows();
    let work =
        scoring
            .catalogue_work()
            .saturating_add(best_work(queries, n, scoring.item_table.rows()));
    let result = parallel::run(py, num_threads, work, |interrupt| {
        let excluded = excluded.check(queries, scoring.item_table.rows())?;
        ranking::top_n(
            &scoring.check()?,
            n,
            excluded,
            allowed.as_deref(),
            interrupt,
        )
    })?;
    to_top_n_arrays(py, result, queries, n)
}

/// The `n` best of each query's candidates, without the excluded ones.
#[pyfunction]
#[pyo3(signature = (
    queries, item_table, n, candidates_indptr, candidates, excluded_indptr, excluded_items, *, item_bias, similarity,
    overrides, num_threads = None
))]
pub(crate) fn top_n_of<'py>(
    py: Python<'py>,
    queries: &Bound<'py, PyAny>,
    item_table: &Bound<'py, PyAny>,
    n: &Bound<'py, PyAny>,
    candidates_indptr: &Bound<'py, PyAny>,
    candidates: &Bound<'py, PyAny>,
    excluded_indptr: &Bound<'py, PyAny>,
    excluded_items: &Bound<'py, PyAny>,
    item_bias: Option<&Bound<'py, PyAny>>,
    similarity: &Bound<'py, PyAny>,
    overrides: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<TopNArrays<'py>> {
    let scoring = ScoringArrays::new(queries, item_table, item_bias, similarity, overrides)?;
    let n = arrays::count("n", n)?;
    let indptr = arrays::vector_copy::<i64>("candidates_indptr", candidates_indptr)?;
    let candidates = arrays::vector_copy::<i64>("candidates", candidates)?;
    let excluded = Excluded::new(excluded_indptr, excluded_items)?;

    let scoring = scoring.parts()?;
    let (queries, num_items) = (scoring.queries.rows(), scoring.item_table.rows());
    let products = work(candidates.len(), scoring.queries.columns().max(8), 1);
    let work = products.saturating_add(best_work(queries, n, candidates.len()));
    let result = parallel::run(py, num_threads, work, |interrupt| {
        let arguments = ["candidates_indptr", "candidates"];
        let candidates = ItemLists::new(arguments, &indptr, &candidates, queries, num_items)?;
        let excluded = excluded.check(queries, num_items)?;
        ranking::top_n_of(&scoring.check()?, n, candidates, excluded, interrupt)
    })?;
    to_top_n_arrays(py, result, queries, n)
}

/// Compares column 0 of each row of scores, the target's, with the other columns.
#[pyfunction]
#[pyo3(signature = (scores, *, num_threads = None))]
pub(crate) fn rank_scores<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<ComparisonArrays<'py>> {
    let scores = arrays::matrix("scores", scores)?;
    let level = level()?;

    let scores = to_matrix("scores", &scores)?;
    let result = parallel::run(py, num_threads, score_work(scores), |interrupt| {
        ranking::rank_scores(scores, level, interrupt)
    })?;
    Ok(to_comparison_arrays(py, result))
}

/// Compares the score of each row's target with the scores of all other items except the excluded ones.
#[pyfunction]
#[pyo3(signature = (scores, targets, excluded_indptr, excluded_items, *, num_threads = None))]
pub(crate) fn rank_score_matrix<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    excluded_indptr: &Bound<'py, PyAny>,
    excluded_items: &Bound<'py, PyAny>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<ComparisonArrays<'py>> {
    let scores = arrays::matrix("scores", scores)?;
    let targets = arrays::vector_copy("targets", targets)?;
    let excluded = Excluded::new(excluded_indptr, excluded_items)?;
    let level = level()?;

    let scores = to_matrix("scores", &scores)?;
    let result = parallel::run(py, num_threads, score_work(scores), |interrupt| {
        let excluded = excluded.check(scores.rows(), scores.columns())?;
        ranking::rank_score_matrix(scores, &targets, excluded, level, interrupt)
    })?;
    Ok(to_comparison_arrays(py, result))
}

/// The `n` best items of each row of scores, without the excluded ones.
#[pyfunction]
#[pyo3(signature = (scores, n, excluded_indptr, excluded_items, *, allowed = None, num_threads = None))]
pub(crate) fn top_n_scores<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    n: &Bound<'py, PyAny>,
    excluded_indptr: &Bound<'py, PyAny>,
    excluded_items: &Bound<'py, PyAny>,
    allowed: Option<&Bound<'py, PyAny>>,
    num_threads: Option<&Bound<'py, PyAny>>,
) -> PyResult<TopNArrays<'py>> {
    let scores = arrays::matrix("scores", scores)?;
    let n = arrays::count("n", n)?;
    let excluded = Excluded::new(excluded_indptr, excluded_items)?;
    let allowed = allowed.map(allowed_items).transpose()?;
    let level = level()?;

    let scores = to_matrix("scores", &scores)?;
    let work = score_work(scores).saturating_add(best_work(scores.rows(), n, scores.columns()));
    let result = parallel::run(py, num_threads, work, |interrupt| {
        let excluded = excluded.check(scores.rows(), scores.columns())?;
        ranking::top_n_scores(scores, n, excluded, allowed.as_deref(), level, interrupt)
    })?;
    to_top_n_arrays(py, result, scores.rows(), n)
}

/// A mask of items: numbers, because a `bool` of numpy may have any byte as its value.
fn allowed_items(value: &Bound<'_, PyAny>) -> PyResult<Vec<bool>> {
    let bytes = arrays::vector_copy::<u8>("allowed", value)?;
    Ok(bytes.into_iter().map(|byte| byte != 0).collect())
}

/// The arguments of a [`Scoring`].
struct ScoringArrays<'py> {
    queries: arrays::Matrix<'py, f32>,
    item_table: ItemTableArrays<'py>,
    item_bias: Option<arrays::Vector<'py, f32>>,
    similarity: Similarity,
    overrides: Option<OverrideArrays<'py>>,
}

/// Offsets, items and rows.
type OverrideArrays<'py> = (Vec<i64>, Vec<i64>, arrays::Matrix<'py, f32>);

impl<'py> ScoringArrays<'py> {
    fn new(
        queries: &Bound<'py, PyAny>,
        item_table: &Bound<'py, PyAny>,
        item_bias: Option<&Bound<'py, PyAny>>,
        similarity: &Bound<'py, PyAny>,
        overrides: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            queries: arrays::matrix("queries", queries)?,
            item_table: ItemTableArrays::new(item_table)?,
            item_bias: item_bias
                .map(|bias| arrays::vector("item_bias", bias))
                .transpose()?,
            similarity: Similarity::parse(&arrays::text("similarity", similarity)?)
                .map_err(to_py)?,
            overrides: overrides.map(override_arrays).transpose()?,
        })
    }

    /// The arguments in the types of the core.
    fn parts(&self) -> PyResult<ScoringParts<'_>> {
        let overrides = self.overrides.as_ref().map(|(indptr, items, rows)| {
            let rows = to_matrix("overrides[2]", rows)?;
            PyResult::Ok((indptr.as_slice(), items.as_slice(), rows))
        });
        Ok(ScoringParts {
            queries: to_matrix("queries", &self.queries)?,
            item_table: self.item_table.parts()?,
            item_bias: self
                .item_bias
                .as_ref()
                .map(|bias| bias.as_slice())
                .transpose()?,
            similarity: self.similarity,
            overrides: overrides.transpose()?,
            level: level()?,
        })
    }
}

fn override_arrays<'py>(value: &Bound<'py, PyAny>) -> PyResult<OverrideArrays<'py>> {
    let Ok((indptr, items, rows)) =
        value.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>)>()
    else {
        let expected = "a tuple of three arrays: offsets, items, rows";
        return Err(arrays::invalid(
            "overrides",
            arrays::display(value),
            expected,
        ));
    };
    Ok((
        arrays::vector_copy("overrides[0]", &indptr)?,
        arrays::vector_copy("overrides[1]", &items)?,
        arrays::matrix("overrides[2]", &rows)?,
    ))
}

/// The unchecked parts of a [`Scoring`]. The check reads every override.
struct ScoringParts<'a> {
    queries: Matrix<'a>,
    item_table: ItemTable<'a>,
    item_bias: Option<&'a [f32]>,
    similarity: Similarity,
    overrides: Option<(&'a [i64], &'a [i64], Matrix<'a>)>,
    level: Level,
}

impl<'a> ScoringParts<'a> {
    fn check(&self) -> Result<Scoring<'a>, Error> {
        let overrides = self.overrides.map(|(indptr, items, rows)| {
            let (queries, num_items) = (self.queries.rows(), self.item_table.rows());
            Overrides::new(indptr, items, rows, queries, num_items)
        });
        Scoring::new(
            self.queries,
            self.item_table,
            self.item_bias,
            self.similarity,
            overrides.transpose()?,
            self.level,
        )
    }

    /// Estimated nanoseconds for comparing all queries with all items.
    fn catalogue_work(&self) -> u64 {
        let dimension = self.queries.columns().max(8);
        let per_query = self.item_table.rows().saturating_mul(dimension);
        // All items are read, however few queries there are.
        let queries = self.queries.rows().max(ranking::QUERIES_AT_ONCE);
        work(queries, per_query, 1) / ranking::PRODUCTS_PER_NANOSECOND
    }
}

/// The excluded items of each query.
struct Excluded {
    indptr: Vec<i64>,
    items: Vec<i64>,
}

impl Excluded {
    fn new(indptr: &Bound<'_, PyAny>, items: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            indptr: arrays::vector_copy("excluded_indptr", indptr)?,
            items: arrays::vector_copy("excluded_items", items)?,
        })
    }

    fn check(&self, queries: usize, num_items: usize) -> Result<ItemLists<'_>, Error> {
        let arguments = ["excluded_indptr", "excluded_items"];
        ItemLists::new(arguments, &self.indptr, &self.items, queries, num_items)
    }
}

/// The instruction set of a call.
fn level() -> PyResult<Level> {
    Level::from_environment().map_err(to_py)
}

/// Estimated nanoseconds for comparing all scores.
fn score_work(scores: Matrix) -> u64 {
    work(scores.rows(), scores.columns(), 1) / ranking::SCORES_PER_NANOSECOND
}

/// Estimated nanoseconds for keeping the `n` best of the items of each query.
fn best_work(queries: usize, n: usize, items: usize) -> u64 {
    work(queries, n.min(items), ranking::NANOSECONDS_PER_BEST)
}

fn to_comparison_arrays(py: Python<'_>, result: Comparisons) -> ComparisonArrays<'_> {
    (
        arrays::to_vector(py, result.greater),
        arrays::to_vector(py, result.equal),
    )
}

fn to_top_n_arrays(
    py: Python<'_>,
    result: TopN,
    queries: usize,
    n: usize,
) -> PyResult<TopNArrays<'_>> {
    Ok((
        arrays::to_matrix(py, result.items, queries, n)?,
        arrays::to_matrix(py, result.scores, queries, n)?,
    ))
}
