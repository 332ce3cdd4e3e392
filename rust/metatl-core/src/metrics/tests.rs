use proptest::prelude::*;

use super::*;
use crate::parallel;

const RULES: [TieRule; 3] = [TieRule::Worst, TieRule::Mean, TieRule::Best];

/// MRR, HR and NDCG of one rank, by their definitions.
fn by_definition(rank: i64, cutoffs: &[i64]) -> Vec<f64> {
    let hits = cutoffs
        .iter()
        .map(|&cutoff| if rank <= cutoff { 1.0 } else { 0.0 });
    let gain = std::f64::consts::LN_2 / (rank as f64).ln_1p();
    let gains = cutoffs
        .iter()
        .map(|&cutoff| if rank <= cutoff { gain } else { 0.0 });
    std::iter::once(1.0 / rank as f64)
        .chain(hits)
        .chain(gains)
        .collect()
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-12 * expected.abs()
}

properties! {
    fn metrics_are_expectations_over_the_possible_ranks(
        greater in 0i64..300,
        equal in 0i64..300,
        cutoffs in prop::collection::vec(1i64..400, 0..4),
    ) {
        for ties in RULES {
            let possible: Vec<i64> = match ties {
                TieRule::Worst => vec![1 + greater + equal],
                TieRule::Mean => (1 + greater..=1 + greater + equal).collect(),
                TieRule::Best => vec![1 + greater],
            };
            let mut expected = vec![0.0; 1 + 2 * cutoffs.len()];
            for &rank in &possible {
                for (sum, value) in expected.iter_mut().zip(by_definition(rank, &cutoffs)) {
                    *sum += value / possible.len() as f64;
                }
            }
            let found =
                user_metrics(&[greater], &[equal], ties, &cutoffs, &Interrupt::new()).unwrap();
            prop_assert_eq!(found.len(), expected.len());
            for (&found, &expected) in found.iter().zip(&expected) {
                prop_assert!(close(found, expected), "{ties:?}: {found}, expected {expected}");
            }
            let mean = possible.iter().sum::<i64>() as f64 / possible.len() as f64;
            prop_assert_eq!(ranks(&[greater], &[equal], ties).unwrap(), vec![mean]);
        }
    }

    fn harmonic_sums_are_right(start in 0u64..100_000, length in 1u64..3_000) {
        // The smallest terms first, which loses the least.
        let expected: f64 = (start + 1..=start + length).rev().map(|n| 1.0 / n as f64).sum();
        let found = harmonic_between(start, start + length);
        prop_assert!(close(found, expected), "{found}, expected {expected}");
    }

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
}

#[test]
fn a_constant_model_hits_by_chance_or_not_at_all() {
    let metric = |ties| user_metrics(&[0], &[100], ties, &[10], &Interrupt::new()).unwrap()[1];
    assert_eq!(metric(TieRule::Worst), 0.0);
    assert_eq!(metric(TieRule::Mean), 10.0 / 101.0);
    assert_eq!(metric(TieRule::Best), 1.0);
}

#[test]
fn the_largest_counts_are_fine() {
    for ties in RULES {
        let large = [i64::MAX];
        let values = user_metrics(&large, &large, ties, &[1, 10], &Interrupt::new()).unwrap();
        assert!(values[0] > 0.0 && values[0] < 1e-18);
        assert_eq!(values[1..], [0.0; 4]);
        let values = user_metrics(&[0], &large, ties, &[1, 10], &Interrupt::new()).unwrap();
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
        assert!(ranks(&large, &large, ties).unwrap()[0] >= 2f64.powi(63));
    }
}

#[test]
fn impossible_arguments_are_errors() {
    let call = |greater: &[i64], equal: &[i64], cutoffs: &[i64]| {
        user_metrics(greater, equal, TieRule::Mean, cutoffs, &Interrupt::new()).map_err(|error| {
            match error {
                Error::InvalidArgument { argument, .. } => argument,
                _ => "",
            }
        })
    };
    assert_eq!(call(&[-1], &[0], &[]), Err("greater"));
    assert_eq!(call(&[0], &[-1], &[]), Err("equal"));
    assert_eq!(call(&[0, 1], &[0], &[]), Err("equal"));
    assert_eq!(call(&[0], &[0], &[0]), Err("cutoffs"));
    assert_eq!(call(&[0], &[0], &[MAX_CUTOFF + 1]), Err("cutoffs"));
    assert_eq!(call(&[], &[], &[1]), Ok(vec![]));
    assert!(bootstrap_means(&[], 2, 1, 0, &Interrupt::new()).is_err());
    assert!(bootstrap_means(&[f64::NAN], 1, 1, 0, &Interrupt::new()).is_err());
    assert_eq!(bootstrap_means(&[], 2, 0, 0, &Interrupt::new()), Ok(vec![]));
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
