//! The bootstrap of means over users (Efron 1979).
//!
//! A resample draws as many users as there are, with replacement. Each resample has its own generator.
//! [`bootstrap_means`] draws user by user. [`bootstrap_group_means`] treats users with equal values as one group and
//! draws the size of each group: 101 numbers for ranks among 101 candidates, however many users there are.

use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk};
use crate::rng::{Key, Rng, Stage};

/// Column means of bootstrap resamples: a matrix of (`resamples`, `columns`).
///
/// `values` has one row of `columns` numbers for each user. Rows are added up in the order in which they are drawn.
pub fn bootstrap_means(
    values: &[f64],
    columns: usize,
    resamples: usize,
    seed: u64,
    interrupt: &Interrupt,
) -> Result<Vec<f64>, Error> {
    check_values(values)?;
    let mut means: Vec<f64> = allocate(resamples, columns)?;
    if columns == 0 || resamples == 0 {
        return Ok(means);
    }
    check_rows(values, columns)?;
    let users = values.len() / columns;
    let key = Key::new(seed, Stage::Bootstrap, 0);
    for_each_chunk(
        means.chunks_mut(columns),
        interrupt,
        || (),
        |(), resample, means| {
            let mut rng = key.rng(resample as u64);
            for _ in 0..users {
                let user = rng.below(users as u64) as usize;
                for (sum, &value) in means.iter_mut().zip(&values[user * columns..]) {
                    *sum += value;
                }
            }
            for sum in means {
                *sum /= users as f64;
            }
            Ok(())
        },
    )?;
    Ok(means)
}

/// Column means of bootstrap resamples of groups of users: a matrix of (`resamples`, `columns`).
///
/// `values` has one row of `columns` numbers for each group, `counts` has its number of users. The numbers of
/// draws of the groups are multinomial. Each node of a tree over the groups draws one binomial number, exactly,
/// with integer arithmetic.
pub fn bootstrap_group_means(
    values: &[f64],
    counts: &[i64],
    columns: usize,
    resamples: usize,
    seed: u64,
    interrupt: &Interrupt,
) -> Result<Vec<f64>, Error> {
    check_values(values)?;
    let ends = cumulate(counts)?;
    if counts.len().checked_mul(columns) != Some(values.len()) {
        return Err(Error::invalid(
            "counts",
            format_args!("{} counts", counts.len()),
            format_args!(
                "one for each row of values, {} numbers in {columns} columns",
                values.len()
            ),
        ));
    }
    let mut means: Vec<f64> = allocate(resamples, columns)?;
    if columns == 0 || resamples == 0 {
        return Ok(means);
    }
    let users = ends.last().copied().unwrap_or(0);
    if users == 0 {
        return Err(Error::invalid("counts", "no user", "at least 1"));
    }
    let key = Key::new(seed, Stage::GroupBootstrap, 0);
    for_each_chunk(
        means.chunks_mut(columns),
        interrupt,
        || (),
        |(), resample, means| {
            let mut rng = key.rng(resample as u64);
            deal(&mut rng, users, 0, &ends, &mut |group, draws| {
                let row = &values[group * columns..];
                for (sum, &value) in means.iter_mut().zip(row) {
                    *sum += draws as f64 * value;
                }
            });
            for sum in means {
                *sum /= users as f64;
            }
            Ok(())
        },
    )?;
    Ok(means)
}

/// Distributes `draws` over groups with probabilities in proportion to their counts. Calls `hit` with each group
/// that has at least one draw, in order.
///
/// `ends` are the sums of the counts up to and including each group; `start` is the sum before the first.
fn deal(rng: &mut Rng, draws: u64, start: u64, ends: &[u64], hit: &mut impl FnMut(usize, u64)) {
    // Nodes that are still to be dealt: their draws, the sum before them, and the range of their groups.
    let mut nodes = vec![(draws, start, 0, ends.len())];
    while let Some((draws, start, low, high)) = nodes.pop() {
        if draws == 0 {
            continue;
        }
        if high - low == 1 {
            hit(low, draws);
            continue;
        }
        // Halves of about equal weight: frequent groups are reached in few steps.
        let end = ends[high - 1];
        let middle = start + (end - start) / 2;
        let split =
            (low + ends[low..high].partition_point(|&end| end <= middle)).clamp(low + 1, high - 1);
        let left = rng.binomial(draws, ends[split - 1] - start, end - start);
        nodes.push((draws - left, ends[split - 1], split, high));
        nodes.push((left, start, low, split));
    }
}

/// Cumulative sums of the counts.
fn cumulate(counts: &[i64]) -> Result<Vec<u64>, Error> {
    let mut ends = allocate(counts.len(), 1)?;
    let mut sum = 0u64;
    for (position, (end, &count)) in ends.iter_mut().zip(counts).enumerate() {
        let total = u64::try_from(count)
            .ok()
            .and_then(|count| sum.checked_add(count));
        sum = total.filter(|&total| total <= MAX_USERS).ok_or_else(|| {
            Error::invalid(
                "counts",
                format_args!("{count} at position {position}"),
                format_args!("counts of at least 0 that add up to at most {MAX_USERS}"),
            )
        })?;
        *end = sum;
    }
    Ok(ends)
}

/// Estimated nanoseconds per group, column and resample of [`bootstrap_group_means`].
pub const GROUP_NANOSECONDS: u64 = 5;

/// More users than this are an error: a draw takes time in proportion to them.
const MAX_USERS: u64 = 1 << 32;

fn check_values(values: &[f64]) -> Result<(), Error> {
    let nan = values.iter().filter(|value| value.is_nan()).count() as u64;
    if nan == 0 {
        Ok(())
    } else {
        Err(Error::NotANumber {
            argument: "values",
            count: nan,
        })
    }
}

fn check_rows(values: &[f64], columns: usize) -> Result<(), Error> {
    if values.is_empty() || !values.len().is_multiple_of(columns) {
        return Err(Error::invalid(
            "values",
            format_args!("{} numbers in {columns} columns", values.len()),
            "at least 1 row, all of them full",
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exactness is what is tested
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parallel;
    use crate::rng::Rng;

    properties! {
    fn bootstrap_means_are_means_of_rows(
        seed: u64,
        rows in prop::collection::vec(0i32..1000, 1..20),
        resamples in 0usize..5,
    ) {
        // Columns n and 2n stay in proportion, and no mean leaves the range of its column.
        let values: Vec<f64> =
            rows.iter().flat_map(|&row| [f64::from(row), 2.0 * f64::from(row)]).collect();
        let means = bootstrap_means(&values, 2, resamples, seed, &Interrupt::new()).unwrap();
        prop_assert_eq!(means.len(), 2 * resamples);
        let (low, high) = (*rows.iter().min().unwrap(), *rows.iter().max().unwrap());
        for mean in means.chunks(2) {
            prop_assert!(f64::from(low) <= mean[0] && mean[0] <= f64::from(high));
            prop_assert_eq!(mean[1], 2.0 * mean[0]);
            let sum = mean[0] * rows.len() as f64;
            prop_assert!((sum - sum.round()).abs() < 1e-6);
        }
    }

        fn dealt_draws_are_all_there(seed: u64, counts in prop::collection::vec(0i64..50, 1..40), draws in 0u64..500) {
            let ends = cumulate(&counts).unwrap();
            prop_assume!(*ends.last().unwrap() > 0);
            let mut dealt = vec![0; counts.len()];
            deal(&mut Rng::new(seed, Stage::GroupBootstrap, 0, 0), draws, 0, &ends, &mut |group, number| {
                dealt[group] += number;
            });
            prop_assert_eq!(dealt.iter().sum::<u64>(), draws);
            for (number, count) in dealt.iter().zip(&counts) {
                prop_assert!(*count > 0 || *number == 0);
            }
        }

        fn means_of_groups_stay_in_range(seed: u64, groups in prop::collection::vec((0i32..100, 1i64..1000), 1..20)) {
            let (rows, counts): (Vec<_>, Vec<_>) = groups.iter().copied().unzip();
            let values: Vec<f64> = rows.iter().flat_map(|&row| [f64::from(row), 1.0]).collect();
            let means = bootstrap_group_means(&values, &counts, 2, 3, seed, &Interrupt::new()).unwrap();
            let (low, high) = (*rows.iter().min().unwrap(), *rows.iter().max().unwrap());
            for mean in means.chunks(2) {
                prop_assert!(f64::from(low) <= mean[0] && mean[0] <= f64::from(high));
                prop_assert_eq!(mean[1], 1.0);
            }
        }
    }

    #[test]
    fn impossible_arguments_are_errors() {
        let none = Interrupt::new();
        assert!(bootstrap_means(&[], 2, 1, 0, &none).is_err());
        assert!(bootstrap_means(&[f64::NAN], 1, 1, 0, &none).is_err());
        assert_eq!(bootstrap_means(&[], 2, 0, 0, &none), Ok(vec![]));
        let groups =
            |values: &[f64], counts: &[i64]| bootstrap_group_means(values, counts, 1, 1, 0, &none);
        assert!(groups(&[], &[]).is_err());
        assert!(groups(&[1.0], &[0]).is_err());
        assert!(groups(&[1.0], &[-1]).is_err());
        assert!(groups(&[1.0], &[1, 1]).is_err());
        assert!(groups(&[1.0, 1.0], &[1, i64::MAX]).is_err());
        assert!(groups(&[f64::NAN], &[1]).is_err());
        assert_eq!(groups(&[2.5], &[3]), Ok(vec![2.5]));
    }

    #[test]
    fn threads_do_not_change_the_bootstrap() {
        let values: Vec<f64> = (0..3_000).map(|value| f64::from(value).sin()).collect();
        let alone = bootstrap_means(&values, 3, 50, 7, &Interrupt::new()).unwrap();
        for threads in [1, 2, 3, 8] {
            let found = parallel::run(
                threads,
                u64::MAX,
                |interrupt| bootstrap_means(&values, 3, 50, 7, interrupt),
                || true,
            );
            assert_eq!(found.as_ref(), Ok(&alone));
        }
    }
}
