use proptest::prelude::*;

use super::*;
use crate::negatives::sample_support_negatives;
use crate::parallel;
use crate::rng::Rng;

const ITEMS: usize = 11;

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stage::Split, 0, 0);
    (0..count)
        .map(|_| (rng.uniform_f64() * 2.0 - 1.0) as f32)
        .collect()
}

/// The tensors of a model of `dimension` dimensions.
struct Model {
    dimension: usize,
    table: Vec<f32>,
    bias: Vec<f32>,
    weights: [Vec<f32>; 2],
    offsets: Vec<f32>,
    skip: [Vec<f32>; 2],
    rates: Vec<f32>,
    mean: Vec<f32>,
}

impl Model {
    fn new(dimension: usize, seed: u64) -> Self {
        let part = |part: u64, count| numbers(seed ^ part, count);
        Self {
            dimension,
            table: part(1, ITEMS * dimension),
            bias: part(2, ITEMS),
            weights: [3, 4].map(|index| part(index, dimension * dimension)),
            offsets: part(5, dimension),
            skip: [6, 7].map(|index| part(index, dimension)),
            rates: part(8, dimension),
            mean: part(9, dimension),
        }
    }

    fn learner(&self) -> Learner<'_> {
        let weight = |index: usize| {
            Matrix::new("w", &self.weights[index], self.dimension, self.dimension).unwrap()
        };
        Learner {
            head_weight: weight(0),
            tail_weight: weight(1),
            bias: &self.offsets,
            skip: Some([&self.skip[0], &self.skip[1]]),
        }
    }

    fn items(&self) -> Matrix<'_> {
        Matrix::new("t", &self.table, ITEMS, self.dimension).unwrap()
    }

    fn inner(&self, steps: usize, loss: PairLoss, own: usize) -> InnerLoop<'_> {
        InnerLoop {
            steps,
            rates: &self.rates,
            inverse_temperature: 0.5,
            mean: true,
            loss,
            common: 3,
            own,
            own_drawn: 2 * own,
        }
    }

    fn encoder<'a>(
        &'a self,
        inner: InnerLoop<'a>,
        similarity: Similarity,
        terms: Option<Terms<'a>>,
    ) -> Encoder<'a> {
        Encoder::new(
            self.items(),
            Some(&self.bias),
            similarity,
            self.learner(),
            terms,
            inner,
            &self.mean,
            Level::fastest(),
        )
        .unwrap()
    }
}

/// The formulas in double precision, one number at a time; the gradient by differences.
fn slow_query(
    model: &Model,
    inner: &InnerLoop,
    root: bool,
    history: &[i64],
    seed: u64,
) -> Vec<f64> {
    let d = model.dimension;
    let row = |item: i64| -> Vec<f64> {
        model.table[item as usize * d..][..d]
            .iter()
            .map(|&number| f64::from(number))
            .collect()
    };
    let last = row(*history.last().unwrap());
    let pairs: Vec<_> = history.windows(2).map(|pair| (pair[0], pair[1])).collect();
    if pairs.is_empty() {
        return (0..d).map(|k| last[k] + f64::from(model.mean[k])).collect();
    }
    let mut transition = vec![0.0; d];
    for &(head, tail) in &pairs {
        let (head, tail) = (row(head), row(tail));
        for k in 0..d {
            let z: f64 = (0..d)
                .map(|j| {
                    f64::from(model.weights[0][k * d + j]) * head[j]
                        + f64::from(model.weights[1][k * d + j]) * tail[j]
                })
                .sum::<f64>()
                + f64::from(model.offsets[k]);
            let of_skip =
                f64::from(model.skip[0][k]) * head[k] + f64::from(model.skip[1][k]) * tail[k];
            transition[k] += (1.0 / (1.0 + (-z).exp()) + of_skip) / pairs.len() as f64;
        }
    }
    let count = inner.common + inner.own_drawn;
    let drawn = sample_support_negatives(
        history,
        history.len(),
        count,
        ITEMS as u64,
        seed,
        &Interrupt::new(),
    )
    .unwrap();
    let (common, own) = drawn.split_at(inner.common);
    let cost = |point: &[f64], item: i64| {
        let squared: f64 = point
            .iter()
            .zip(row(item))
            .map(|(p, e)| (p - e).powi(2))
            .sum();
        let distance = if root { squared.sqrt() } else { squared };
        distance * f64::from(inner.inverse_temperature) - f64::from(model.bias[item as usize])
    };
    let loss = |transition: &[f64]| -> f64 {
        let of_pairs = pairs.iter().enumerate().map(|(index, &(head, tail))| {
            let point: Vec<f64> = row(head)
                .iter()
                .zip(transition)
                .map(|(h, t)| h + t)
                .collect();
            let positive = cost(&point, tail);
            let dealt = (0..inner.own).map(|e| own[(index * inner.own + e) % own.len()]);
            let negatives: Vec<f64> = dealt
                .chain(common.iter().copied())
                .map(|item| cost(&point, item))
                .collect();
            match inner.loss {
                PairLoss::Margin(margin) => {
                    let terms = negatives
                        .iter()
                        .map(|negative| (f64::from(margin) + positive - negative).max(0.0));
                    terms.sum::<f64>() / negatives.len() as f64
                }
                PairLoss::Softmax => {
                    let total: f64 = negatives.iter().map(|negative| (-negative).exp()).sum();
                    (positive.exp() * total).ln_1p()
                }
            }
        });
        of_pairs.sum::<f64>() / pairs.len() as f64
    };
    for _ in 0..inner.steps {
        let gradient: Vec<f64> = (0..d)
            .map(|k| {
                const STEP: f64 = 1e-6;
                let (mut above, mut below) = (transition.clone(), transition.clone());
                above[k] += STEP;
                below[k] -= STEP;
                (loss(&above) - loss(&below)) / (2.0 * STEP)
            })
            .collect();
        for k in 0..d {
            transition[k] -= f64::from(inner.rates[k]) * gradient[k];
        }
    }
    last.iter().zip(transition).map(|(l, t)| l + t).collect()
}

properties! {
    fn queries_are_those_of_the_formulas(
        dimension in 1usize..9,
        history in prop::collection::vec(0i64..ITEMS as i64, 1..6),
        steps in 0usize..3,
        own in 0usize..3,
        root in any::<bool>(),
        softmax in any::<bool>(),
        seed in any::<u64>(),
    ) {
        // With a wide margin every negative counts: at its kink the loss has no derivative to compare with.
        let loss = if softmax { PairLoss::Softmax } else { PairLoss::Margin(1e4) };
        let model = Model::new(dimension, seed);
        let inner = model.inner(steps, loss, own);
        let similarity = if root { Similarity::L2 } else { Similarity::SquaredL2 };
        let encoder = model.encoder(inner, similarity, None);
        let offsets = [0, history.len() as i64];
        let histories = ItemLists::new(["o", "i"], &offsets, &history, 1, ITEMS).unwrap();
        let query = encoder.encode(histories, seed, &Interrupt::new()).unwrap();
        let expected = slow_query(&model, &inner, root, &history, seed);
        for (number, expected) in query.iter().zip(expected) {
            prop_assert!((f64::from(*number) - expected).abs() < 2e-4, "{} {}", number, expected);
        }
    }

    fn neither_threads_nor_tables_nor_other_users_change_a_bit(
        dimension in 1usize..9,
        rows in prop::collection::vec(prop::collection::vec(0i64..ITEMS as i64, 1..5), 1..70),
        seed in any::<u64>(),
    ) {
        let model = Model::new(dimension, seed);
        let interrupt = Interrupt::new();
        let [heads, tails] = model.learner().tabulate(model.items(), Level::fastest(), &interrupt).unwrap();
        let term = |values| Matrix::new("t", values, ITEMS, dimension).unwrap();
        let terms = Terms { heads: term(&heads), tails: term(&tails) };
        let inner = model.inner(1, PairLoss::Softmax, 1);
        let items = rows.concat();
        let mut offsets = vec![0];
        offsets.extend(rows.iter().scan(0, |end, row| { *end += row.len() as i64; Some(*end) }));
        let encode = |terms, threads, offsets: &[i64], items: &[i64]| {
            let encoder = model.encoder(inner, Similarity::SquaredL2, terms);
            let kernel = |interrupt: &Interrupt| {
                let histories = ItemLists::new(["o", "i"], offsets, items, offsets.len() - 1, ITEMS)?;
                encoder.encode(histories, seed, interrupt)
            };
            parallel::run(threads, u64::MAX, kernel, || true).unwrap()
        };
        let queries = encode(None, 1, &offsets, &items);
        prop_assert_eq!(&encode(Some(terms), 1, &offsets, &items), &queries);
        prop_assert_eq!(&encode(Some(terms), 3, &offsets, &items), &queries);
        for (row, query) in rows.iter().zip(queries.chunks(dimension)) {
            prop_assert_eq!(&encode(None, 1, &[0, row.len() as i64], row), query);
        }
    }
}
