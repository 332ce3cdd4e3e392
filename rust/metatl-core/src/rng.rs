//! Random numbers. Each unit of work has its own generator, so results do not depend on the threads.
//!
//! The generator is xoshiro256++ (Blackman and Vigna 2018). Its state is four successive outputs of
//! SplitMix64 (Steele et al. 2014) started from a key, and the key folds (seed, stage, epoch, index) by
//! `key = mix((key ^ word) + GOLDEN)`, where `mix` is SplitMix64's output function. Integers below `n` come from
//! Lemire's multiplication (2019). All operations are integer arithmetic and tests pin them with golden vectors,
//! so the numbers are the same on every platform and in every release.

use rand_core::{Rng as _, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::Error;
use crate::parallel::{Interrupt, allocate};
use crate::simd::{self, Level};

/// Words of coin flips that are drawn before their heads are counted.
const COUNTED_AT_ONCE: usize = 64;

/// The purpose of random numbers. Two stages never share a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Stage {
    /// Training tasks: epoch is the training step, index the task in its batch.
    Episodes = 1,
    /// Reserved: no kernel draws from it. Tests pin its words.
    Negatives = 2,
    /// Candidate sets: index is the user.
    Candidates = 3,
    /// The order that divides users into validation and test.
    Split = 4,
    /// Negatives for a history that is being served: index is a hash of the history.
    SupportNegatives = 5,
    /// Bootstrap resamples: index is the resample.
    Bootstrap = 6,
    /// Negatives that a whole training batch shares: epoch is the training step.
    SharedNegatives = 7,
    /// Training sequences: epoch is the training step, index the sequence in its batch.
    Sequences = 8,
    /// Sign flips of a randomisation test: index is the resample.
    SignFlips = 9,
    /// Bootstrap resamples of groups of users: index is the resample.
    GroupBootstrap = 10,
}

/// Estimated nanoseconds per element of [`random_order`].
pub const NANOSECONDS: u64 = 5;

/// 2⁶⁴ divided by the golden ratio: the increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function, a bijection.
#[inline]
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Folds one more word into a key.
#[inline]
const fn fold(key: u64, word: u64) -> u64 {
    mix((key ^ word).wrapping_add(GOLDEN))
}

/// A key of 64 bits for a sequence of ids.
#[must_use]
pub fn hash(ids: &[i64]) -> u64 {
    ids.iter()
        .fold(fold(0, ids.len() as u64), |key, &id| fold(key, id as u64))
}

/// The part of a generator's key that all units of a batch share.
#[derive(Clone, Copy, Debug)]
pub struct Key(u64);

impl Key {
    /// The key of (seed, stage, epoch).
    #[must_use]
    pub const fn new(seed: u64, stage: Stage, epoch: u64) -> Self {
        Self(fold(fold(fold(0, seed), stage as u64), epoch))
    }

    /// The generator of one unit of work.
    #[inline]
    #[must_use]
    pub fn rng(self, index: u64) -> Rng {
        let start = fold(self.0, index);
        let mut state = [0; 32];
        for (word, bytes) in (1..=4u64).zip(state.chunks_exact_mut(8)) {
            bytes
                .copy_from_slice(&mix(start.wrapping_add(GOLDEN.wrapping_mul(word))).to_le_bytes());
        }
        Rng(Xoshiro256PlusPlus::from_seed(state))
    }
}

/// The generator of one unit of work.
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// The generator keyed by (seed, stage, epoch, index).
    #[must_use]
    pub fn new(seed: u64, stage: Stage, epoch: u64, index: u64) -> Self {
        Key::new(seed, stage, epoch).rng(index)
    }

    /// The next 64 random bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform integer below `bound`, exactly (Lemire 2019); 0 for a bound of 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut product = u128::from(self.word()) * u128::from(bound);
        if (product as u64) < bound {
            // The few words whose products would make small results too likely are drawn again.
            let surplus = bound.wrapping_neg() % bound;
            while (product as u64) < surplus {
                product = u128::from(self.word()) * u128::from(bound);
            }
        }
        (product >> 64) as u64
    }

    /// A uniform number in [0, 1): 53 random bits over 2⁵³.
    #[inline]
    pub fn uniform_f64(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with the given probability. Draws no number if the probability is 0 or 1.
    #[inline]
    pub fn happens(&mut self, probability: f64) -> bool {
        probability >= 1.0 || (probability > 0.0 && self.uniform_f64() < probability)
    }

    /// How many of `trials` succeed, each with probability `numerator` / `denominator` (at most 1), exactly.
    ///
    /// A trial is a uniform number in [0, 1) that succeeds if it is below the probability. The trials are compared
    /// with the probability binary digit by binary digit. Where the probability has the digit 1, trials with the
    /// digit 0 succeed; where it has the digit 0, trials with the digit 1 fail; all other trials continue with the
    /// next digit. This takes about `trials` / 32 words and integer arithmetic only.
    ///
    /// `denominator` must be positive and below 2⁶³.
    pub fn binomial(&mut self, trials: u64, numerator: u64, denominator: u64) -> u64 {
        debug_assert!(numerator <= denominator && denominator < 1 << 63);
        if numerator == denominator {
            return trials;
        }
        let (mut undecided, mut successes, mut remainder) = (trials, 0, numerator);
        while undecided > 0 && remainder > 0 {
            remainder *= 2;
            let ones = self.heads(undecided);
            if remainder >= denominator {
                remainder -= denominator;
                successes += undecided - ones;
                undecided = ones;
            } else {
                undecided -= ones;
            }
        }
        successes
    }

    /// Number of heads among `coins` fair coin flips.
    fn heads(&mut self, coins: u64) -> u64 {
        let (mut heads, mut words) = (0, coins / 64);
        if words >= COUNTED_AT_ONCE as u64 {
            heads = self.ones_of_parts(words / COUNTED_AT_ONCE as u64);
            words %= COUNTED_AT_ONCE as u64;
        }
        for _ in 0..words {
            heads += u64::from(self.word().count_ones());
        }
        if !coins.is_multiple_of(64) {
            heads += u64::from((self.word() >> (64 - coins % 64)).count_ones());
        }
        heads
    }

    /// How many bits of the next `parts` · [`COUNTED_AT_ONCE`] words are 1.
    ///
    /// Many words are counted in one call, because the vector levels have an instruction that counts bits.
    #[inline(never)]
    fn ones_of_parts(&mut self, parts: u64) -> u64 {
        let level = Level::fastest();
        let mut drawn = [0; COUNTED_AT_ONCE];
        (0..parts)
            .map(|_| {
                drawn.fill_with(|| self.word());
                simd::ones(level, &drawn)
            })
            .sum()
    }

    /// Shuffles `values` uniformly (Fisher and Yates, from the end).
    #[inline]
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            values.swap(last, other);
        }
    }
}

/// The numbers 0 to `count` − 1 in a random order, which is a function of (seed, epoch).
pub fn random_order(
    count: usize,
    seed: u64,
    epoch: u64,
    interrupt: &Interrupt,
) -> Result<Vec<i64>, Error> {
    let mut order = allocate(count, 1)?;
    for (position, value) in order.iter_mut().enumerate() {
        *value = position as i64;
    }
    let mut rng = Rng::new(seed, Stage::Split, epoch, 0);
    // `Rng::shuffle` with a look at the interrupt flag now and then.
    for last in (1..count).rev() {
        if last % (1 << 16) == 0 {
            interrupt.check()?;
        }
        order.swap(last, rng.below(last as u64 + 1) as usize);
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::prop_assert;

    use super::*;

    #[test]
    fn state_is_splitmix64_of_the_key() {
        let key = fold(fold(fold(fold(0, 9), Stage::Split as u64), 2), 7);
        assert_eq!(
            Rng::new(9, Stage::Split, 2, 7).0,
            Xoshiro256PlusPlus::seed_from_u64(key)
        );
    }

    /// The numbers of an independent implementation, `tests/helpers/reference_generator.py`.
    #[test]
    fn words_are_golden() {
        let mut rng = Rng::new(2021, Stage::Negatives, 3, 7);
        let words = [(); 4].map(|()| rng.word());
        assert_eq!(
            words,
            [
                0xa968_87e1_f963_8177,
                0x02c5_92b2_3dee_e3fd,
                0xb8d5_f6b2_094b_e9be,
                0x2b45_7e1c_0498_7f30
            ]
        );
        let mut rng = Rng::new(2021, Stage::Negatives, 3, 7);
        let dice = [(); 12].map(|()| rng.below(6));
        assert_eq!(dice, [3, 0, 4, 1, 1, 0, 3, 3, 2, 0, 5, 2]);
        assert_eq!(hash(&[3, 1, 4]), 0xd8d2_ef08_1a9a_07d9);
    }

    #[test]
    fn uniform_is_below_one() {
        let mut rng = Rng::new(1, Stage::Split, 0, 0);
        assert!((0..10_000).all(|_| (0.0..1.0).contains(&rng.uniform_f64())));
    }

    #[test]
    fn binomial_numbers_have_their_mean_and_variance() {
        for (trials, numerator, denominator) in [
            (1u32, 1, 3),
            (7, 2, 7),
            (64, 1, 2),
            (1000, 1, 1000),
            (999, 5, 6),
            (130, 7, 8),
        ] {
            let mut rng = Rng::new(3, Stage::GroupBootstrap, 0, u64::from(trials));
            let draws: Vec<f64> = (0..20_000)
                .map(|_| rng.binomial(trials.into(), numerator, denominator) as f64)
                .collect();
            let count = draws.len() as f64;
            let probability = numerator as f64 / denominator as f64;
            let mean = draws.iter().sum::<f64>() / count;
            let expected = f64::from(trials) * probability;
            let variance = expected * (1.0 - probability);
            let found = draws
                .iter()
                .map(|draw| (draw - expected).powi(2))
                .sum::<f64>()
                / count;
            assert!(
                (mean - expected).abs() < 5.0 * (variance / count).sqrt(),
                "{mean} {expected}"
            );
            assert!((found / variance - 1.0).abs() < 0.08, "{found} {variance}");
        }
    }

    properties! {
        fn binomial_numbers_are_possible(seed: u64, trials in 0u64..10_000, part: u64, denominator in 1u64..1 << 62) {
            let numerator = part % (denominator + 1);
            let mut rng = Rng::new(seed, Stage::GroupBootstrap, 0, 0);
            let successes = rng.binomial(trials, numerator, denominator);
            prop_assert!(successes <= trials);
            prop_assert!(numerator > 0 || successes == 0);
            prop_assert!(numerator < denominator || successes == trials);
        }

        fn below_stays_below(seed: u64, index: u64, bound in 1u64..) {
            let mut rng = Rng::new(seed, Stage::Negatives, 0, index);
            prop_assert!((0..16).all(|_| rng.below(bound) < bound));
        }

        fn shuffle_permutes(seed: u64, length in 0usize..200) {
            let mut order = random_order(length, seed, 0, &Interrupt::new()).unwrap();
            order.sort_unstable();
            prop_assert!(order.iter().enumerate().all(|(position, &value)| position as i64 == value));
        }
    }
}
