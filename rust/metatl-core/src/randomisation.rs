//! Fisher's randomisation test of paired differences: how often a sum with random signs is at least as far from 0
//! as the observed sum.
//!
//! R. A. Fisher, *The Design of Experiments*, 1935, section 21. If two systems are equally good, each
//! user's difference has either sign with the same probability.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk};
use crate::rng::{Key, Rng, Stage};

/// Users whose coin flips fit into one word.
const USERS: usize = 64;

/// Resamples that are added up side by side, one in each lane.
const LANES: usize = 8;

/// The coin flips of up to 64 users in each lane: a set bit flips the sign of its user.
type Coins = [u64; LANES];

/// How many of `resamples` random flips of the users' signs leave |sum| at least as large as it is, for each
/// column.
///
/// `differences` has one row of `columns` numbers for each user. A resample has a generator of its own, of
/// which bit u mod 64 of word u / 64 is the coin of user u, shared by the user's columns. Sums add users up
/// in their order, so that the resample without a flip gives exactly the observed sum. Flips that are exactly
/// as far from 0 can fall short of it by rounding: a sum of B terms is off by at most B − 1 times 2⁻⁵³ times
/// the sum of their absolute values, hence a flip counts from the observed |sum| less B · 2⁻⁵² times that.
pub fn sign_flip_counts(
    differences: &[f64],
    columns: usize,
    resamples: usize,
    seed: u64,
    interrupt: &Interrupt,
) -> Result<Vec<i64>, Error> {
    let nan = differences.iter().filter(|value| value.is_nan()).count() as u64;
    if nan != 0 {
        return Err(Error::NotANumber {
            argument: "differences",
            count: nan,
        });
    }
    let mut counts: Vec<i64> = allocate(columns, 1)?;
    if columns == 0 || resamples == 0 {
        return Ok(counts);
    }
    if differences.is_empty() || !differences.len().is_multiple_of(columns) {
        return Err(Error::invalid(
            "differences",
            format_args!("{} numbers in {columns} columns", differences.len()),
            "at least 1 row, all of them full",
        ));
    }
    let users = differences.len() / columns;
    let by_column = transpose(differences, columns)?;
    let mut bounds: Vec<f64> = allocate(columns, 1)?;
    for (bound, column) in bounds.iter_mut().zip(by_column.chunks(users)) {
        *bound = smallest_that_counts(column)?;
    }

    let key = Key::new(seed, Stage::SignFlips, 0);
    // Counts are added up as lanes are done, in whatever order: integers do not mind.
    let shared: Vec<AtomicI64> = counts.iter().map(|&zero| AtomicI64::new(zero)).collect();
    for_each_chunk(
        (0..resamples).step_by(LANES),
        interrupt,
        Vec::new,
        |coins: &mut Vec<Coins>, _, first| {
            if coins.is_empty() {
                *coins = allocate(users.div_ceil(USERS), 1)?;
            }
            toss(coins, key, first);
            let lanes = LANES.min(resamples - first);
            for ((column, &bound), count) in by_column.chunks(users).zip(&bounds).zip(&shared) {
                interrupt.check()?;
                let sums = flipped_sums(column, coins);
                let found = sums[..lanes].iter().filter(|sum| sum.abs() >= bound);
                count.fetch_add(found.count() as i64, Ordering::Relaxed);
            }
            Ok(())
        },
    )?;
    for (count, shared) in counts.iter_mut().zip(shared) {
        *count = shared.into_inner();
    }
    Ok(counts)
}

/// The columns of a matrix, one after the other.
fn transpose(rows: &[f64], columns: usize) -> Result<Vec<f64>, Error> {
    let users = rows.len() / columns;
    let mut by_column: Vec<f64> = allocate(columns, users)?;
    for (user, row) in rows.chunks(columns).enumerate() {
        for (column, &value) in row.iter().enumerate() {
            by_column[column * users + user] = value;
        }
    }
    Ok(by_column)
}

/// The observed |sum| of a column, less the largest rounding error of a sum of that size.
fn smallest_that_counts(column: &[f64]) -> Result<f64, Error> {
    let (mut sum, mut size) = (0.0, 0.0);
    for &value in column {
        sum += value;
        size += value.abs();
    }
    if !size.is_finite() {
        return Err(Error::invalid(
            "differences",
            format_args!("a column whose absolute values have the sum {size}"),
            "a finite one",
        ));
    }
    Ok(sum.abs() - column.len() as f64 * f64::EPSILON * size)
}

/// Flips every user's coin for the resamples from `first` on.
fn toss(coins: &mut [Coins], key: Key, first: usize) {
    let mut generators: [Rng; LANES] = std::array::from_fn(|lane| key.rng((first + lane) as u64));
    for words in coins {
        for (word, generator) in words.iter_mut().zip(&mut generators) {
            *word = generator.word();
        }
    }
}

/// The sum of a column in each lane, with the signs of the coin flips.
fn flipped_sums(column: &[f64], coins: &[Coins]) -> [f64; LANES] {
    const SIGN: u64 = 1 << 63;
    let mut sums = [0.0; LANES];
    for (values, words) in column.chunks(USERS).zip(coins) {
        for (user, value) in values.iter().enumerate() {
            for (sum, word) in sums.iter_mut().zip(words) {
                let turned = (word << (USERS - 1 - user)) & SIGN;
                *sum += f64::from_bits(value.to_bits() ^ turned);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert_eq};

    use super::*;
    use crate::parallel;

    fn counts(differences: &[f64], columns: usize, resamples: usize, seed: u64) -> Vec<i64> {
        sign_flip_counts(differences, columns, resamples, seed, &Interrupt::new()).unwrap()
    }

    /// Small integers: sums are exact, so that the definition needs no tolerance.
    fn by_definition(rows: &[[i32; 2]], resamples: usize, seed: u64) -> Vec<i64> {
        let observed = [0, 1].map(|column| rows.iter().map(|row| row[column]).sum::<i32>().abs());
        let mut counts = vec![0; 2];
        for resample in 0..resamples {
            let mut rng = Rng::new(seed, Stage::SignFlips, 0, resample as u64);
            let mut sums = [0, 0];
            for users in rows.chunks(64) {
                let word = rng.word();
                for (bit, row) in users.iter().enumerate() {
                    let sign = if word >> bit & 1 == 1 { -1 } else { 1 };
                    sums[0] += sign * row[0];
                    sums[1] += sign * row[1];
                }
            }
            counts[0] += i64::from(sums[0].abs() >= observed[0]);
            counts[1] += i64::from(sums[1].abs() >= observed[1]);
        }
        counts
    }

    fn flat(rows: &[[i32; 2]]) -> Vec<f64> {
        rows.iter()
            .flatten()
            .map(|&value| f64::from(value))
            .collect()
    }

    properties! {
        fn counts_are_those_of_the_definition(
            seed: u64,
            rows in prop::collection::vec(prop::array::uniform2(-9i32..10), 1..200),
            resamples in 0usize..30,
        ) {
            prop_assert_eq!(
                counts(&flat(&rows), 2, resamples, seed),
                by_definition(&rows, resamples, seed)
            );
        }

        fn scale_and_direction_change_nothing(
            seed: u64,
            values in prop::collection::vec(-1.0f64..1.0, 1..100),
        ) {
            let scaled: Vec<f64> = values.iter().map(|value| -8.0 * value).collect();
            prop_assert_eq!(counts(&values, 1, 20, seed), counts(&scaled, 1, 20, seed));
        }

        fn flips_that_are_as_far_count_in_spite_of_rounding(
            seed: u64,
            rows in prop::collection::vec(prop::array::uniform2(-9i32..10), 1..200),
            divisor in 1i32..100,
        ) {
            // Fractions of integers: sums that are equal by the definition differ by rounding.
            let fractions: Vec<f64> =
                flat(&rows).iter().map(|value| value / f64::from(divisor)).collect();
            prop_assert_eq!(counts(&fractions, 2, 30, seed), by_definition(&rows, 30, seed));
        }
    }

    /// The numbers of an independent implementation, `tests/kernels/test_randomisation_kernel.py`.
    #[test]
    fn counts_are_golden() {
        let rows: Vec<f64> = (0..300)
            .map(|index| f64::from(index * index % 23 - 9))
            .collect();
        assert_eq!(counts(&rows, 3, 1_000, 2021), [90, 56, 68]);
    }

    #[test]
    fn impossible_arguments_are_errors() {
        let call = |differences: &[f64], columns, resamples| {
            sign_flip_counts(differences, columns, resamples, 0, &Interrupt::new())
        };
        assert_eq!(
            call(&[f64::NAN, 1.0], 1, 1),
            Err(Error::NotANumber {
                argument: "differences",
                count: 1
            })
        );
        for (differences, columns) in [
            (&[][..], 1),
            (&[1.0, 2.0, 3.0], 2),
            (&[f64::INFINITY], 1),
            (&[1e308, -1e308], 1),
        ] {
            assert!(matches!(
                call(differences, columns, 1),
                Err(Error::InvalidArgument {
                    argument: "differences",
                    ..
                })
            ));
        }
        assert_eq!(call(&[], 0, 5), Ok(vec![]));
        assert_eq!(call(&[], 2, 0), Ok(vec![0, 0]));
        assert_eq!(call(&[0.0, 1.0], 2, 17), Ok(vec![17, 17]));
    }

    #[test]
    fn threads_do_not_change_the_counts() {
        let differences: Vec<f64> = (0..3_000).map(|value| f64::from(value).sin()).collect();
        let alone = counts(&differences, 3, 501, 7);
        for threads in [1, 2, 3, 8] {
            let found = parallel::run(
                threads,
                u64::MAX,
                |interrupt| sign_flip_counts(&differences, 3, 501, 7, interrupt),
                || true,
            );
            assert_eq!(found.as_ref(), Ok(&alone));
        }
    }

    #[test]
    fn a_raised_interrupt_ends_it() {
        let interrupt = Interrupt::new();
        interrupt.raise();
        assert_eq!(
            sign_flip_counts(&[1.0], 1, 1, 0, &interrupt),
            Err(Error::Interrupted)
        );
    }
}
