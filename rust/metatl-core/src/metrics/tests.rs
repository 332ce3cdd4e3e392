use proptest::prelude::*;

use super::*;

const RULES: [TieRule; 3] = [TieRule::Worst, TieRule::Mean, TieRule::Best];

/// MRR, then HR, NDCG and MRR at each cutoff, of one rank, by their definitions.
fn by_definition(rank: i64, cutoffs: &[i64]) -> Vec<f64> {
    let hits = cutoffs
        .iter()
        .map(|&cutoff| if rank <= cutoff { 1.0 } else { 0.0 });
    let gain = std::f64::consts::LN_2 / (rank as f64).ln_1p();
    let gains = cutoffs
        .iter()
        .map(|&cutoff| if rank <= cutoff { gain } else { 0.0 });
    let reciprocals = cutoffs.iter().map(|&cutoff| {
        if rank <= cutoff {
            1.0 / rank as f64
        } else {
            0.0
        }
    });
    std::iter::once(1.0 / rank as f64)
        .chain(hits)
        .chain(gains)
        .chain(reciprocals)
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
            let mut expected = vec![0.0; 1 + 3 * cutoffs.len()];
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
        assert_eq!(values[1..], [0.0; 6]);
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
}
