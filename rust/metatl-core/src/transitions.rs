//! The encoder of new users: from a history to a query vector (Wang, Ding, Caverlee, SIGIR 2021, Eq. 1 to 4).
//!
//! For the one-layer learner whose inner step updates the user transition tr:
//!
//! 1. Neighbouring items h → t of a history have the transition σ(z) + c₁ ⊙ h + c₂ ⊙ t with z = W [h; t] + b (Eq. 1).
//!    W = [`W_h`, `W_t`], so that z is the sum of a term of h and a term of t. [`Learner::tabulate`] computes the terms
//!    of all items, and then an encoding needs no matrix product.
//! 2. tr is the mean transition (Eq. 2).
//! 3. Each inner step subtracts α ∂L/∂tr, where L is the loss of the pairs against negatives (Eq. 3 and 4).
//! 4. The query is the last item + tr: its distance to an item is the score of the pair (Eq. 5).
//!
//! The same formulas in torch, with their gradients, are in `metatl.models.metatl`.

use crate::Error;
use crate::interactions::sort_distinct;
use crate::negatives::draw_uniform;
use crate::parallel::{Interrupt, allocate, for_each_chunk};
use crate::ranking::{ItemLists, Matrix, Similarity};
use crate::rng::{Key, Stage, hash};
use crate::simd::{self, Level};

/// Products of an encoding that one thread computes in a nanosecond, at least.
pub const PRODUCTS_PER_NANOSECOND: u64 = 4;

/// Users that are encoded as one unit of work.
const CHUNK: usize = 32;

/// Negatives of a user, at most: between two of them nothing checks for an interruption.
const MOST_NEGATIVES: usize = 1 << 20;

/// Items whose terms are computed as one unit of work.
const TABULATED: usize = 64;

/// The learner of Eq. 1.
#[derive(Clone, Copy, Debug)]
pub struct Learner<'a> {
    /// d × d, the left half of W, for the item that is left.
    pub head_weight: Matrix<'a>,
    /// d × d, the right half of W, for the item that is reached.
    pub tail_weight: Matrix<'a>,
    /// d numbers, b.
    pub bias: &'a [f32],
    /// c₁ and c₂, d numbers each.
    pub skip: Option<[&'a [f32]; 2]>,
}

/// The terms of z of every item, as [`Learner::tabulate`] returns them: items × d.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// `W_h` h + b
    pub heads: Matrix<'a>,
    /// `W_t` t
    pub tails: Matrix<'a>,
}

/// The loss of a pair, from its cost and those of its negatives.
#[derive(Clone, Copy, Debug)]
pub enum PairLoss {
    /// The mean of [γ + c⁺ − c⁻]₊ over the negatives, with this γ (Eq. 3).
    Margin(f32),
    /// −log of the softmax of −cost at the positive.
    Softmax,
}

/// The inner loop (Eq. 4).
#[derive(Clone, Copy, Debug)]
pub struct InnerLoop<'a> {
    /// Number of steps.
    pub steps: usize,
    /// α for each dimension.
    pub rates: &'a [f32],
    /// Costs are distance · this − bias of the item.
    pub inverse_temperature: f32,
    /// Whether L is the mean over the pairs, and not the sum.
    pub mean: bool,
    /// The loss of a pair.
    pub loss: PairLoss,
    /// Negatives that all pairs of a user share.
    pub common: usize,
    /// Further negatives of each pair.
    pub own: usize,
    /// How many of them are drawn for a user. They are dealt to the pairs in order, again from the first where there
    /// are too few.
    pub own_drawn: usize,
}

/// The encoder: its parts, checked.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    item_table: Matrix<'a>,
    item_bias: Option<&'a [f32]>,
    similarity: Similarity,
    learner: Learner<'a>,
    terms: Option<Terms<'a>>,
    inner: InnerLoop<'a>,
    mean_transition: &'a [f32],
    level: Level,
}

impl Learner<'_> {
    fn check(&self, dimension: usize) -> Result<(), Error> {
        for (argument, weight) in [
            ("head_weight", self.head_weight),
            ("tail_weight", self.tail_weight),
        ] {
            check_shape(argument, weight, [dimension, dimension])?;
        }
        check_length("bias", self.bias, dimension)?;
        let [first, second] = self.skip.unwrap_or([self.bias; 2]);
        check_length("skip[0]", first, dimension)?;
        check_length("skip[1]", second, dimension)
    }

    /// Computes the terms of z of every item, those of [`Terms::heads`] and of [`Terms::tails`].
    pub fn tabulate(
        &self,
        item_table: Matrix,
        level: Level,
        interrupt: &Interrupt,
    ) -> Result<[Vec<f32>; 2], Error> {
        let dimension = item_table.columns();
        self.check(dimension)?;
        let mut heads = allocate(item_table.rows(), dimension)?;
        let mut tails = allocate(item_table.rows(), dimension)?;
        let size = TABULATED * dimension.max(1);
        for_each_chunk(
            heads.chunks_mut(size).zip(tails.chunks_mut(size)),
            interrupt,
            || (0..dimension as i64).collect::<Vec<_>>(),
            |all, index, (heads, tails)| {
                let rows = heads.chunks_mut(dimension).zip(tails.chunks_mut(dimension));
                for (item, (head, tail)) in (index * TABULATED..).zip(rows) {
                    self.write_terms(level, item_table.row(item), all, head, true);
                    self.write_terms(level, item_table.row(item), all, tail, false);
                }
                Ok(())
            },
        )?;
        Ok([heads, tails])
    }

    /// Writes `W_h` row + b, or `W_t` row. `all` holds the numbers from 0 to d − 1.
    fn write_terms(
        &self,
        level: Level,
        row: &[f32],
        all: &[i64],
        terms: &mut [f32],
        is_head: bool,
    ) {
        let weight = if is_head {
            self.head_weight
        } else {
            self.tail_weight
        };
        let all_exist = simd::dots(level, row, weight.table(), all, terms);
        debug_assert!(all_exist);
        if is_head {
            for (term, bias) in terms.iter_mut().zip(self.bias) {
                *term += bias;
            }
        }
    }
}

impl<'a> Encoder<'a> {
    /// Checks that the parts fit together.
    pub fn new(
        item_table: Matrix<'a>,
        item_bias: Option<&'a [f32]>,
        similarity: Similarity,
        learner: Learner<'a>,
        terms: Option<Terms<'a>>,
        inner: InnerLoop<'a>,
        mean_transition: &'a [f32],
        level: Level,
    ) -> Result<Self, Error> {
        let shape @ [items, dimension] = [item_table.rows(), item_table.columns()];
        learner.check(dimension)?;
        if let Some(terms) = terms {
            check_shape("terms[0]", terms.heads, shape)?;
            check_shape("terms[1]", terms.tails, shape)?;
        }
        if let Some(bias) = item_bias {
            check_length("item_bias", bias, items)?;
        }
        check_length("rates", inner.rates, dimension)?;
        check_length("mean_transition", mean_transition, dimension)?;
        if similarity == Similarity::Dot {
            return Err(Error::invalid("similarity", "\"dot\"", "a distance"));
        }
        for (argument, count) in [
            ("common", inner.common),
            ("own", inner.own),
            ("own_drawn", inner.own_drawn),
        ] {
            if count > MOST_NEGATIVES {
                let expected = format_args!("at most {MOST_NEGATIVES}");
                return Err(Error::invalid(argument, count, expected));
            }
        }
        if inner.steps > 0 && inner.common + inner.own == 0 {
            return Err(Error::invalid("common", "no negative", "at least one"));
        }
        if inner.own > 0 && inner.own_drawn == 0 {
            return Err(Error::invalid("own_drawn", 0, "at least one negative"));
        }
        Ok(Self {
            item_table,
            item_bias,
            similarity,
            learner,
            terms,
            inner,
            mean_transition,
            level,
        })
    }

    /// Estimated nanoseconds for encoding `items` items of `users` histories.
    #[must_use]
    pub fn work(&self, users: usize, items: usize) -> u64 {
        let dimension = self.item_table.columns() as u64;
        let of_terms = match self.terms {
            Some(_) => 16,
            None => 2 * dimension,
        };
        let negatives = (self.inner.common + self.inner.own).saturating_add(1) as u64;
        let of_step = negatives.saturating_mul(4);
        let of_pair = of_step
            .saturating_mul(self.inner.steps as u64)
            .saturating_add(of_terms);
        let products = dimension
            .saturating_mul(of_pair)
            .saturating_mul(items as u64);
        let draws = self.drawn() as u64 * crate::negatives::NANOSECONDS;
        (products / PRODUCTS_PER_NANOSECOND).saturating_add((users as u64).saturating_mul(draws))
    }

    /// Negatives that are drawn for a user.
    fn drawn(&self) -> usize {
        match self.inner.steps {
            0 => 0,
            _ => self.inner.common + self.inner.own_drawn,
        }
    }

    /// The queries of histories, oldest item first: histories × d.
    ///
    /// A history of one item has no transition; its query is the item + the mean transition of the training users.
    /// The negatives of a user are those of [`crate::negatives::sample_support_negatives`].
    pub fn encode(
        &self,
        histories: ItemLists,
        seed: u64,
        interrupt: &Interrupt,
    ) -> Result<Vec<f32>, Error> {
        let dimension = self.item_table.columns();
        let mut queries = allocate(histories.len(), dimension)?;
        let key = Key::new(seed, Stage::SupportNegatives, 0);
        for_each_chunk(
            queries.chunks_mut(CHUNK * dimension.max(1)),
            interrupt,
            || Scratch::new(self),
            |scratch, index, queries| {
                let users = index * CHUNK..;
                for (user, query) in users.zip(queries.chunks_mut(dimension)) {
                    let history = histories.list(user);
                    self.encode_user(user, history, key, scratch, query, interrupt)?;
                }
                Ok(())
            },
        )?;
        Ok(queries)
    }

    fn encode_user(
        &self,
        user: usize,
        history: &[i64],
        key: Key,
        scratch: &mut Scratch,
        query: &mut [f32],
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        let Some(&last) = history.last() else {
            return Err(Error::invalid(
                "histories",
                format_args!("row {user} without items"),
                "at least one item in each row",
            ));
        };
        if history.len() == 1 {
            query.copy_from_slice(self.mean_transition);
        } else {
            self.write_mean_transition(history, scratch, query, interrupt)?;
            if self.inner.steps > 0 {
                self.draw_negatives(user, history, key, scratch)?;
            }
            for _ in 0..self.inner.steps {
                self.step(history, scratch, query, interrupt)?;
            }
        }
        add(query, self.row(last));
        Ok(())
    }

    fn row(&self, item: i64) -> &'a [f32] {
        self.item_table.row(item as usize)
    }

    /// Eq. 1 and 2: the mean of the transitions of the pairs.
    fn write_mean_transition(
        &self,
        history: &[i64],
        scratch: &mut Scratch,
        transition: &mut [f32],
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        let level = self.level;
        transition.fill(0.0);
        for pair in history.windows(2) {
            interrupt.check()?;
            let [head, tail] = [pair[0], pair[1]];
            if let Some(terms) = self.terms {
                let of_head = terms.heads.row(head as usize);
                let of_tail = terms.tails.row(tail as usize);
                simd::add_sigmoids(level, of_head, of_tail, transition);
            } else {
                let Scratch {
                    all,
                    of_head,
                    of_tail,
                    ..
                } = scratch;
                let learner = &self.learner;
                learner.write_terms(level, self.row(head), all, of_head, true);
                learner.write_terms(level, self.row(tail), all, of_tail, false);
                simd::add_sigmoids(level, of_head, of_tail, transition);
            }
            if let Some([of_heads, of_tails]) = self.learner.skip {
                simd::add_products(level, of_heads, self.row(head), transition);
                simd::add_products(level, of_tails, self.row(tail), transition);
            }
        }
        let share = 1.0 / (history.len() - 1) as f32;
        for number in transition {
            *number *= share;
        }
        Ok(())
    }

    fn draw_negatives(
        &self,
        user: usize,
        history: &[i64],
        key: Key,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let mut rng = key.rng(hash(history));
        let sorted = &mut scratch.sorted;
        sorted.clear();
        sorted.extend_from_slice(history);
        let distinct = sort_distinct(sorted);
        if distinct == self.item_table.rows() {
            return Err(Error::NoNegative {
                user: user as i64,
                needed: 1,
                available: 0,
            });
        }
        let num_items = self.item_table.rows() as u64;
        draw_uniform(&mut scratch.drawn, &sorted[..distinct], num_items, &mut rng);
        Ok(())
    }

    /// Eq. 3 and 4: tr ← tr − α ∂L/∂tr.
    fn step(
        &self,
        history: &[i64],
        scratch: &mut Scratch,
        transition: &mut [f32],
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        let InnerLoop { common, own, .. } = self.inner;
        let table = self.item_table.table();
        let Scratch {
            drawn,
            rows,
            distances,
            weights,
            terms,
            factors,
            point,
            gradient,
            ..
        } = scratch;
        gradient.fill(0.0);
        let (shared, dealt) = drawn.split_at(common);
        // Of each pair: its tail, its own negatives, and those of all pairs.
        rows[1 + own..].copy_from_slice(shared);
        // The rows of the gradient: the common negatives, whose weights add up over the pairs, then the others.
        terms.clear();
        terms.extend_from_slice(shared);
        factors.clear();
        factors.resize(common, 0.0);
        let weight = if self.inner.mean {
            1.0 / (history.len() - 1) as f32
        } else {
            1.0
        };
        for (index, pair) in history.windows(2).enumerate() {
            interrupt.check()?;
            rows[0] = pair[1];
            for (position, row) in rows[1..=own].iter_mut().enumerate() {
                *row = dealt[(index * own + position) % dealt.len()];
            }
            simd::write_sums(self.level, self.row(pair[0]), transition, point);
            let all_exist = simd::squared_distances(self.level, point, table, rows, distances);
            debug_assert!(all_exist);
            self.write_weights(rows, distances, weight, weights);
            // Σ w (point − row), the derivative of the pair's loss by the point. All costs enter the loss by their
            // differences, so that the weights of squared distances add up to 0.
            if self.similarity.takes_root() {
                simd::add_scaled(self.level, weights.iter().sum(), point, gradient);
            }
            let (of_pair, of_common) = weights.split_at(1 + own);
            for (factor, weight) in factors.iter_mut().zip(of_common) {
                *factor -= weight;
            }
            terms.extend_from_slice(&rows[..=own]);
            factors.extend(of_pair.iter().map(|weight| -weight));
        }
        simd::add_rows(self.level, factors, table, terms, gradient);
        let step = transition.iter_mut().zip(gradient).zip(self.inner.rates);
        for ((number, gradient), rate) in step {
            *number -= rate * *gradient;
        }
        Ok(())
    }

    /// Writes the factors of (point − row) in the derivative of the pair's loss: the slope of the loss by the cost of
    /// the row, times the derivative of this cost.
    fn write_weights(&self, rows: &[i64], distances: &mut [f32], weight: f32, weights: &mut [f32]) {
        let scale = self.inner.inverse_temperature;
        // The distances become costs; the weights become pulls: ∂cost/∂point = pull · (point − row).
        for ((distance, pull), &row) in distances.iter_mut().zip(&mut *weights).zip(rows) {
            let length = if self.similarity.takes_root() {
                let length = distance.sqrt();
                *pull = if length > 0.0 { scale / length } else { 0.0 };
                length
            } else {
                *pull = 2.0 * scale;
                *distance
            };
            let bias = self.item_bias.map_or(0.0, |bias| bias[row as usize]);
            *distance = length * scale - bias;
        }
        let costs = distances;
        let (positive, negatives) = (costs[0], &mut costs[1..]);
        let (of_positive, of_negatives) = weights.split_at_mut(1);
        match self.inner.loss {
            PairLoss::Margin(margin) => {
                let share = weight / negatives.len() as f32;
                let mut active = 0.0;
                for (cost, factor) in negatives.iter().zip(of_negatives) {
                    if margin + positive - cost > 0.0 {
                        active += share;
                        *factor *= -share;
                    } else {
                        *factor = 0.0;
                    }
                }
                of_positive[0] *= active;
            }
            PairLoss::Softmax => {
                // With l = log Σ exp(−c⁻): the loss is log(1 + exp(c⁺ + l)).
                let [least, total] = simd::exp_of_least(self.level, negatives);
                let missed = 1.0 / (1.0 + (least - positive).exp() / total);
                let of_all = -weight * missed / total;
                for (share, factor) in negatives.iter().zip(of_negatives) {
                    *factor *= of_all * share;
                }
                of_positive[0] *= weight * missed;
            }
        }
    }
}

/// Buffers of one thread.
struct Scratch {
    /// The numbers from 0 to d − 1: all rows of a weight.
    all: Vec<i64>,
    of_head: Vec<f32>,
    of_tail: Vec<f32>,
    sorted: Vec<i64>,
    /// The negatives of a user: the common ones, then those that are dealt.
    drawn: Vec<i64>,
    /// The tail and the negatives of a pair.
    rows: Vec<i64>,
    distances: Vec<f32>,
    weights: Vec<f32>,
    /// Rows of the gradient of a step, and their factors.
    terms: Vec<i64>,
    factors: Vec<f32>,
    point: Vec<f32>,
    gradient: Vec<f32>,
}

impl Scratch {
    fn new(encoder: &Encoder) -> Self {
        let dimension = encoder.item_table.columns();
        let rows = match encoder.inner.steps {
            0 => 0,
            _ => 1 + encoder.inner.own + encoder.inner.common,
        };
        Self {
            all: (0..dimension as i64).collect(),
            of_head: vec![0.0; dimension],
            of_tail: vec![0.0; dimension],
            sorted: Vec::new(),
            drawn: vec![0; encoder.drawn()],
            rows: vec![0; rows],
            distances: vec![0.0; rows],
            weights: vec![0.0; rows],
            terms: Vec::new(),
            factors: Vec::new(),
            point: vec![0.0; dimension],
            gradient: vec![0.0; dimension],
        }
    }
}

fn add(sum: &mut [f32], numbers: &[f32]) {
    for (sum, number) in sum.iter_mut().zip(numbers) {
        *sum += number;
    }
}

fn check_length(argument: &'static str, numbers: &[f32], expected: usize) -> Result<(), Error> {
    if numbers.len() == expected {
        return Ok(());
    }
    let found = format_args!("{} numbers", numbers.len());
    Err(Error::invalid(argument, found, expected))
}

fn check_shape(
    argument: &'static str,
    matrix: Matrix,
    [rows, columns]: [usize; 2],
) -> Result<(), Error> {
    if [matrix.rows(), matrix.columns()] == [rows, columns] {
        return Ok(());
    }
    let found = format_args!("{} x {} numbers", matrix.rows(), matrix.columns());
    Err(Error::invalid(
        argument,
        found,
        format_args!("{rows} x {columns}"),
    ))
}

#[cfg(test)]
mod tests;
