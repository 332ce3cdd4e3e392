//! Scores of systems that walk from the items of a history to others along a sparse matrix of items by items.
//!
//! With x the weights of the items of a history, S the matrix, P its rows scaled to the sum 1, s the weight of the
//! second step and q a prior, the scores are (x + s · x P) S + q. Sums are in `f64`, in an order that depends on the
//! history only.

use crate::Error;
use crate::interactions::{check_ids, check_indptr};
use crate::parallel::{Interrupt, allocate, for_each_chunk};
use crate::ranking::{ItemLists, Matrix};

/// Entries of the matrix that one thread visits in a nanosecond, at least.
pub const ENTRIES_PER_NANOSECOND: u64 = 1;

/// Users that are scored as one unit of work.
const CHUNK: usize = 16;

/// A sparse matrix of items by items, in compressed rows. It is checked once, when it is made.
#[derive(Clone, Debug)]
pub struct SparseMatrix {
    indptr: Vec<i64>,
    indices: Vec<i64>,
    values: Vec<f64>,
}

impl SparseMatrix {
    /// Row i has `values[indptr[i]..indptr[i + 1]]` in the columns of the same part of `indices`.
    pub fn new(
        indptr: Vec<i64>,
        indices: Vec<i64>,
        values: Vec<f64>,
        num_items: usize,
    ) -> Result<Self, Error> {
        if indptr.len() != num_items + 1 {
            return Err(Error::invalid(
                "indptr",
                format_args!("{} offsets", indptr.len()),
                format_args!("{}, one more than there are items", num_items + 1),
            ));
        }
        check_indptr("indptr", &indptr, indices.len())?;
        check_ids("indices", &indices, num_items as u64)?;
        if values.len() != indices.len() {
            return Err(Error::invalid(
                "values",
                format_args!("{} numbers", values.len()),
                format_args!("{}, one for each index", indices.len()),
            ));
        }
        Ok(Self {
            indptr,
            indices,
            values,
        })
    }

    /// Number of items.
    #[must_use]
    pub fn num_items(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Number of entries.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.indices.len()
    }

    fn row(&self, item: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let part = self.indptr[item] as usize..self.indptr[item + 1] as usize;
        let columns = self.indices[part.clone()].iter();
        columns
            .map(|&column| column as usize)
            .zip(self.values[part].iter().copied())
    }

    /// 1 / the sum of a row, or 0 for an empty row: the factor that turns it into a row of P.
    fn step_factor(&self, item: usize) -> f64 {
        let total: f64 = self.row(item).map(|(_, value)| value).sum();
        if total > 0.0 { total.recip() } else { 0.0 }
    }
}

/// Writes out S + s · P S: then a walk of two steps is a sum of rows. For small catalogues.
pub fn compose_steps(
    matrix: &SparseMatrix,
    second_step: f64,
    interrupt: &Interrupt,
) -> Result<Vec<f64>, Error> {
    let num_items = matrix.num_items();
    let mut composed = allocate(num_items, num_items)?;
    for_each_chunk(
        composed.chunks_mut(num_items.max(1)).enumerate(),
        interrupt,
        || (),
        |(), _, (item, row)| {
            let factor = second_step * matrix.step_factor(item);
            for (other, step) in matrix.row(item) {
                interrupt.check()?;
                for (column, value) in matrix.row(other) {
                    row[column] += factor * step * value;
                }
            }
            for (column, value) in matrix.row(item) {
                row[column] += value;
            }
            Ok(())
        },
    )?;
    Ok(composed)
}

/// How the rows of the walks are stored.
#[derive(Clone, Copy, Debug)]
pub enum Walks<'a> {
    /// S, and s.
    Sparse(&'a SparseMatrix, f64),
    /// The rows that [`compose_steps`] returns, items × items.
    Composed(Matrix<'a, f64>),
}

impl Walks<'_> {
    fn num_items(&self) -> usize {
        match self {
            Self::Sparse(matrix, _) => matrix.num_items(),
            Self::Composed(rows) => rows.rows(),
        }
    }

    /// Estimated nanoseconds for scoring `items` items of `users` histories.
    #[must_use]
    pub fn work(&self, users: usize, items: usize) -> u64 {
        let num_items = self.num_items() as u64;
        let of_item = match self {
            Self::Composed(_) => num_items,
            Self::Sparse(matrix, second_step) => {
                let of_row = matrix.entries() as u64 / num_items.max(1);
                let steps = if *second_step > 0.0 { of_row } else { 1 };
                of_row.saturating_mul(steps)
            }
        };
        let entries = of_item
            .saturating_mul(items as u64)
            .saturating_add(num_items.saturating_mul(users as u64));
        entries / ENTRIES_PER_NANOSECOND
    }
}

/// The scores of all items for histories, oldest item first: histories × items.
///
/// The last item has the weight 1, the one before it `recency`, and so on; a repeated item has the sum.
pub fn score_walks(
    walks: Walks,
    histories: ItemLists,
    recency: f64,
    prior: &[f64],
    interrupt: &Interrupt,
) -> Result<Vec<f32>, Error> {
    let num_items = walks.num_items();
    if prior.len() != num_items {
        return Err(Error::invalid(
            "prior",
            format_args!("{} numbers", prior.len()),
            format_args!("{num_items}, one for each item"),
        ));
    }
    let mut scores = allocate(histories.len(), num_items)?;
    for_each_chunk(
        scores.chunks_mut(CHUNK * num_items.max(1)),
        interrupt,
        || Scratch::new(num_items),
        |scratch, index, rows| {
            for (user, row) in (index * CHUNK..).zip(rows.chunks_mut(num_items)) {
                interrupt.check()?;
                scratch.score(walks, histories.list(user), recency, interrupt)?;
                for ((score, sum), prior) in row.iter_mut().zip(&mut scratch.sums).zip(prior) {
                    *score = (*sum + prior) as f32;
                    *sum = 0.0;
                }
            }
            Ok(())
        },
    )?;
    Ok(scores)
}

/// Buffers of one thread; all zero between two users.
struct Scratch {
    weights: Weights,
    second: Weights,
    sums: Vec<f64>,
}

/// Weights of items, and the items that have one in the order in which they got it.
struct Weights {
    of_item: Vec<f64>,
    present: Vec<bool>,
    items: Vec<usize>,
}

impl Weights {
    fn new(num_items: usize) -> Self {
        Self {
            of_item: vec![0.0; num_items],
            present: vec![false; num_items],
            items: Vec::new(),
        }
    }

    fn add(&mut self, item: usize, weight: f64) {
        if !self.present[item] {
            self.present[item] = true;
            self.items.push(item);
        }
        self.of_item[item] += weight;
    }

    fn clear(&mut self) {
        for item in self.items.drain(..) {
            self.of_item[item] = 0.0;
            self.present[item] = false;
        }
    }
}

impl Scratch {
    fn new(num_items: usize) -> Self {
        Self {
            weights: Weights::new(num_items),
            second: Weights::new(num_items),
            sums: vec![0.0; num_items],
        }
    }

    /// Adds the weighted rows of a history to the sums.
    fn score(
        &mut self,
        walks: Walks,
        history: &[i64],
        recency: f64,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        let mut weight = 1.0;
        for &item in history.iter().rev() {
            self.weights.add(item as usize, weight);
            weight *= recency;
        }
        match walks {
            Walks::Composed(rows) => {
                for &item in &self.weights.items {
                    interrupt.check()?;
                    let weight = self.weights.of_item[item];
                    for (sum, number) in self.sums.iter_mut().zip(rows.row(item)) {
                        *sum += weight * number;
                    }
                }
            }
            Walks::Sparse(matrix, second_step) => {
                if second_step > 0.0 {
                    for &item in &self.weights.items {
                        interrupt.check()?;
                        let weight = self.weights.of_item[item];
                        let factor = weight * second_step * matrix.step_factor(item);
                        for (other, step) in matrix.row(item) {
                            self.second.add(other, factor * step);
                        }
                    }
                    for &item in &self.second.items {
                        self.weights.add(item, self.second.of_item[item]);
                    }
                    self.second.clear();
                }
                for &item in &self.weights.items {
                    interrupt.check()?;
                    let weight = self.weights.of_item[item];
                    for (column, value) in matrix.row(item) {
                        self.sums[column] += weight * value;
                    }
                }
            }
        }
        self.weights.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parallel;

    const ITEMS: usize = 7;

    /// Rows of (column, value).
    fn compress(rows: &[Vec<(i64, f64)>]) -> (Vec<i64>, Vec<i64>, Vec<f64>) {
        let mut indptr = vec![0];
        let (indices, values) = rows.concat().into_iter().unzip();
        indptr.extend(rows.iter().scan(0, |end, row| {
            *end += row.len() as i64;
            Some(*end)
        }));
        (indptr, indices, values)
    }

    properties! {
        fn scores_are_those_of_dense_matrices(
            rows in prop::collection::vec(
                prop::collection::vec((0..ITEMS as i64, (1u8..9).prop_map(f64::from)), 0..5),
                ITEMS,
            ),
            histories in prop::collection::vec(prop::collection::vec(0..ITEMS as i64, 0..5), 0..40),
            recency in 0.1f64..1.0,
            second_step in prop_oneof![Just(0.0), 0.1f64..3.0],
        ) {
            let (indptr, indices, values) = compress(&rows);
            let matrix = SparseMatrix::new(indptr, indices, values, ITEMS).unwrap();
            let mut dense = [[0.0; ITEMS]; ITEMS];
            for (dense, row) in dense.iter_mut().zip(&rows) {
                for &(column, value) in row {
                    dense[column as usize] += value;
                }
            }
            let prior: Vec<f64> = (0..ITEMS).map(|item| item as f64 / 8.0).collect();
            let mut expected = Vec::new();
            for history in &histories {
                let mut weights = [0.0; ITEMS];
                for (age, &item) in history.iter().rev().enumerate() {
                    weights[item as usize] += recency.powi(age as i32);
                }
                let mut walk = weights;
                for (item, weight) in weights.iter().enumerate() {
                    let total: f64 = dense[item].iter().sum();
                    for other in 0..ITEMS {
                        if total > 0.0 {
                            walk[other] += second_step * weight * dense[item][other] / total;
                        }
                    }
                }
                for column in 0..ITEMS {
                    let sum: f64 = (0..ITEMS).map(|item| walk[item] * dense[item][column]).sum();
                    expected.push(sum + prior[column]);
                }
            }
            let items = histories.concat();
            let mut offsets = vec![0];
            offsets.extend(histories.iter().scan(0, |end, row| { *end += row.len() as i64; Some(*end) }));
            let interrupt = &Interrupt::new();
            let composed = compose_steps(&matrix, second_step, interrupt).unwrap();
            let composed = Matrix::new("composed", &composed, ITEMS, ITEMS).unwrap();
            for walks in [Walks::Sparse(&matrix, second_step), Walks::Composed(composed)] {
                let score = |threads| {
                    let kernel = |interrupt: &Interrupt| {
                        let lists = ItemLists::new(["o", "i"], &offsets, &items, histories.len(), ITEMS)?;
                        score_walks(walks, lists, recency, &prior, interrupt)
                    };
                    parallel::run(threads, u64::MAX, kernel, || true).unwrap()
                };
                let scores = score(1);
                prop_assert_eq!(&score(3), &scores);
                for (score, expected) in scores.iter().zip(&expected) {
                    prop_assert!((f64::from(*score) - expected).abs() <= 1e-6 * (1.0 + expected.abs()));
                }
            }
        }
    }
}
