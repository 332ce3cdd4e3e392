use proptest::prelude::*;

use super::*;
use crate::rng::{Rng, Stage};

/// Numbers that are not round, of both signs and of different sizes.
fn rough_numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stage::Split, 0, 0);
    (0..count)
        .map(|_| {
            let size = 10f64.powi(rng.below(5) as i32 - 2);
            ((rng.uniform_f64() - 0.5) * size) as f32
        })
        .collect()
}

/// Small integers: sums of their products are exact in `f32`.
fn integers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stage::Split, 0, 0);
    (0..count).map(|_| rng.below(17) as f32 - 8.0).collect()
}

/// Σ q·e or Σ (q − e)² in double precision, and the sum of the terms' sizes.
fn reference(query: &[f32], row: &[f32], squared_distance: bool) -> (f64, f64) {
    let terms = query.iter().zip(row).map(|(&q, &e)| {
        let (q, e) = (f64::from(q), f64::from(e));
        if squared_distance {
            (q - e) * (q - e)
        } else {
            q * e
        }
    });
    terms.fold((0.0, 0.0), |(sum, size), term| {
        (sum + term, size + term.abs())
    })
}

/// All of a level's scores of the rows `picked` of a table.
fn row_scores(
    level: Level,
    query: &[f32],
    values: &[f32],
    picked: &[i64],
    squared_distance: bool,
) -> Vec<f32> {
    let rows = values.len().checked_div(query.len()).unwrap_or(9);
    let table = Table::new(values, rows, query.len());
    let mut scores = vec![f32::NAN; picked.len()];
    let found = if squared_distance {
        squared_distances(level, query, table, picked, &mut scores)
    } else {
        dots(level, query, table, picked, &mut scores)
    };
    assert!(found);
    scores
}

/// Panel and block from rows of length `dimension`.
fn pack(dimension: usize, items: &[f32], queries: &[f32]) -> (Vec<Lanes>, Vec<QueryCoordinates>) {
    let at = |values: &[f32], row, k| values[row * dimension + k];
    (0..dimension)
        .map(|k| {
            (
                Lanes(std::array::from_fn(|lane| at(items, lane, k))),
                std::array::from_fn(|query| at(queries, query, k)),
            )
        })
        .unzip()
}

fn naive_count(scores: &[f32], threshold: f32) -> Counts {
    let count =
        |holds: &dyn Fn(f32) -> bool| scores.iter().filter(|&&score| holds(score)).count() as u64;
    Counts {
        greater: count(&|score| score > threshold),
        equal: count(&|score| score == threshold),
        nan: count(&|score| score.is_nan()),
    }
}

#[test]
fn scalar_is_always_there_and_comes_last() {
    assert_eq!(Level::available().last(), Some(&Level::SCALAR));
    assert_eq!(Level::available().first(), Some(&Level::fastest()));
}

#[test]
fn a_row_that_does_not_exist_is_noticed() {
    for level in Level::available() {
        for dimension in [0, 3] {
            let values = vec![1.0; 5 * dimension];
            let table = Table::new(&values, 5, dimension);
            let query = vec![1.0; dimension];
            for missing in [-1, 5, i64::MIN, i64::MAX] {
                for position in [0, 8, 9] {
                    let mut rows = [0; 10];
                    rows[position] = missing;
                    let mut scores = [7.0; 10];
                    assert!(!dots(level, &query, table, &rows, &mut scores));
                    assert_eq!(scores, [7.0; 10]);
                    // Beyond the scores it is a hint, and does no harm.
                    let mut scores = vec![7.0; position];
                    assert!(dots(level, &query, table, &rows, &mut scores));
                }
            }
        }
    }
}

#[test]
fn empty_tables_and_lists_are_fine() {
    for level in Level::available() {
        assert!(dots(level, &[], Table::new(&[], 0, 0), &[], &mut []));
        assert!(dots(level, &[1.0], Table::new(&[], 0, 1), &[], &mut []));
        assert_eq!(count(level, &[], 1.0), Counts::default());
        let mut tile = Tile([[1.0; LANES]; QUERIES]);
        dot_tile(level, &[], &[], &mut tile);
        assert_eq!(tile.0, [[0.0; LANES]; QUERIES]);
    }
}

#[test]
fn prefetching_a_large_table_changes_nothing() {
    let (rows, dimension) = (40_000, 10);
    let values = integers(1, rows * dimension);
    let query = integers(2, dimension);
    let picked: Vec<i64> = (0..rows as i64).rev().step_by(7).collect();
    for level in Level::available() {
        let scores = row_scores(level, &query, &values, &picked, false);
        for (score, &row) in scores.iter().zip(&picked) {
            let row = &values[row as usize * dimension..][..dimension];
            assert_eq!(f64::from(*score), reference(&query, row, false).0);
        }
    }
}

properties! {
    fn rows_agree_with_double_precision(
        seed: u64,
        dimension in 0usize..70,
        picked in prop::collection::vec(0i64..9, 0..30),
        squared_distance: bool,
    ) {
        let values = rough_numbers(seed, 9 * dimension);
        let query = rough_numbers(seed ^ 1, dimension);
        for level in Level::available() {
            let scores = row_scores(level, &query, &values, &picked, squared_distance);
            for (&score, &row) in scores.iter().zip(&picked) {
                let row = &values[row as usize * dimension..][..dimension];
                let (expected, size) = reference(&query, row, squared_distance);
                prop_assert!(
                    (f64::from(score) - expected).abs() <= 1e-5 * size,
                    "{level}: {score}, expected {expected}"
                );
                // Wherever a row stands in the list, it has the same bits.
                let position = picked.iter().position(|&other| {
                    values[other as usize * dimension..][..dimension] == *row
                });
                prop_assert_eq!(score.to_bits(), scores[position.unwrap_or(0)].to_bits());
            }
        }
    }

    fn rows_of_integers_are_exact(
        seed: u64,
        dimension in 0usize..70,
        picked in prop::collection::vec(0i64..9, 0..30),
        squared_distance: bool,
    ) {
        let values = integers(seed, 9 * dimension);
        let query = integers(seed ^ 1, dimension);
        for level in Level::available() {
            let scores = row_scores(level, &query, &values, &picked, squared_distance);
            for (&score, &row) in scores.iter().zip(&picked) {
                let row = &values[row as usize * dimension..][..dimension];
                prop_assert_eq!(f64::from(score), reference(&query, row, squared_distance).0);
            }
        }
    }

    fn a_transposed_panel_holds_every_coordinate(rows in 0usize..=LANES, dimension in 0usize..40) {
        let values: Vec<f32> = (0..rows * dimension).map(|value| value as f32).collect();
        let mut panel = vec![Lanes([-1.0; LANES]); dimension];
        transpose(&values, &mut panel);
        for (k, lanes) in panel.iter().enumerate() {
            for (lane, &found) in lanes.0.iter().enumerate() {
                let expected = if lane < rows { values[lane * dimension + k] } else { -1.0 };
                prop_assert_eq!(found.to_bits(), expected.to_bits());
            }
        }
    }

    fn a_tile_has_the_bits_of_its_pairs(seed: u64, dimension in 0usize..40) {
        let items = rough_numbers(seed, LANES * dimension);
        let queries = rough_numbers(seed ^ 1, QUERIES * dimension);
        let (panel, block) = pack(dimension, &items, &queries);
        for level in Level::available() {
            let mut tile = Tile::EMPTY;
            dot_tile(level, &panel, &block, &mut tile);
            let norms = panel_norms(level, &panel);
            for (query, norm) in block_norms(level, &block).iter().enumerate() {
                let row = &queries[query * dimension..][..dimension];
                prop_assert_eq!(norm.to_bits(), sequential_dot(level, row, row).to_bits());
            }
            for lane in 0..LANES {
                let item = &items[lane * dimension..][..dimension];
                for query in 0..QUERIES {
                    let row = &queries[query * dimension..][..dimension];
                    let pair = sequential_dot(level, row, item);
                    prop_assert_eq!(tile.0[query][lane].to_bits(), pair.to_bits());
                    let (expected, size) = reference(row, item, false);
                    prop_assert!((f64::from(pair) - expected).abs() <= 1e-5 * size);
                    let distance = sequential_squared_distance(level, row, item);
                    let (expected, size) = reference(row, item, true);
                    prop_assert!((f64::from(distance) - expected).abs() <= 1e-5 * size);
                }
                let norm = sequential_dot(level, item, item);
                prop_assert_eq!(norms.0[lane].to_bits(), norm.to_bits());
            }
        }
    }

    fn rows_as_they_lie_have_the_bits_of_their_pairs(
        seed: u64,
        rows in 0usize..=LANES,
        dimension in 0usize..40,
    ) {
        let items = rough_numbers(seed, rows * dimension);
        let query = rough_numbers(seed ^ 1, dimension);
        for level in Level::available() {
            let (mut products, mut norms) = ([-1.0; LANES], Lanes([-1.0; LANES]));
            sequential_dots(level, &query, &items, &mut products, &mut norms);
            for lane in 0..LANES {
                let (mut product, mut norm) = (0.0, 0.0);
                if lane < rows {
                    let item = &items[lane * dimension..][..dimension];
                    product = sequential_dot(level, &query, item);
                    norm = sequential_dot(level, item, item);
                }
                prop_assert_eq!(products[lane].to_bits(), product.to_bits());
                prop_assert_eq!(norms.0[lane].to_bits(), norm.to_bits());
            }
        }
    }

    fn rows_in_fewer_bits_are_written_out_exactly(
        seed: u64,
        picked in prop::collection::vec(0usize..9, 0..12),
        columns in 0usize..70,
    ) {
        let items = rough_numbers(seed, 9 * columns);
        let bits: Vec<u16> = items.iter().map(|item| (item.to_bits() >> 16) as u16).collect();
        let codes: Vec<i8> = bits.iter().map(|&bits| bits as i8).collect();
        let scales = rough_numbers(seed ^ 1, 9);
        let indices = || picked.iter().flat_map(|row| row * columns..(row + 1) * columns);
        let of_bf16: Vec<f32> = indices().map(|k| f32::from_bits(u32::from(bits[k]) << 16)).collect();
        let of_int8: Vec<f32> = indices().map(|k| f32::from(codes[k]) * scales[k / columns]).collect();
        for level in Level::available() {
            let mut found = vec![f32::NAN; picked.len() * columns];
            widen_bf16(level, &bits, columns, picked.iter().copied(), &mut found);
            prop_assert_eq!(&found, &of_bf16);
            widen_int8(level, &codes, &scales, columns, picked.iter().copied(), &mut found);
            prop_assert_eq!(&found, &of_int8);
        }
    }

    fn distances_of_a_tile_have_the_bits_of_one(seed: u64, special in prop::option::of(0usize..3)) {
        let special = special.map(|kind| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][kind]);
        let numbers = rough_numbers(seed, LANES * QUERIES + LANES + QUERIES);
        let mut dots = Tile::EMPTY;
        dots.0.as_flattened_mut().copy_from_slice(&numbers[..LANES * QUERIES]);
        if let Some(special) = special {
            dots.0.as_flattened_mut()[seed as usize % (LANES * QUERIES)] = special;
        }
        let query_norms: QueryCoordinates = std::array::from_fn(|query| numbers[LANES * QUERIES + query].abs());
        let item_norms = Lanes(std::array::from_fn(|lane| numbers[LANES * QUERIES + QUERIES + lane].abs()));
        for level in Level::available() {
            for root in [false, true] {
                let mut scores = dots;
                let finite = tile_to_scores(level, &mut scores.0, &query_norms, &item_norms, &item_norms, root);
                prop_assert_eq!(finite, special.is_none());
                for (query, &query_norm) in query_norms.iter().enumerate() {
                    for (lane, &item_norm) in item_norms.0.iter().enumerate() {
                        let distance =
                            squared_distance_from_dot(dots.0[query][lane], query_norm, item_norm);
                        let score = score_from_squared_distance(distance, root) + item_norm;
                        let found = scores.0[query][lane];
                        prop_assert!(found.to_bits() == score.to_bits() || found.is_nan() && score.is_nan());
                    }
                }
            }
        }
    }

    fn ones_are_counted(words in prop::collection::vec(any::<u64>(), 0..80)) {
        let expected: u32 = (0..64).map(|bit| words.iter().filter(|&word| word >> bit & 1 == 1).count() as u32).sum();
        for level in Level::available() {
            prop_assert_eq!(ones(level, &words), u64::from(expected));
        }
    }

    fn counts_are_right(
        scores in prop::collection::vec(
            prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, 2.0, -1.0]),
            0..100,
        ),
        threshold in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, 1.0, 3.0]),
    ) {
        let expected = naive_count(&scores, threshold);
        let items = scores.len().min(LANES);
        let mut tile = Tile([[f32::NAN; LANES]; QUERIES]);
        tile.0[3][..items].copy_from_slice(&scores[..items]);
        for level in Level::available() {
            prop_assert_eq!(count(level, &scores, threshold), expected);
            let mut counts = [Counts::default(); QUERIES];
            count_tile(level, &tile, items, &[threshold; QUERIES], &mut counts);
            prop_assert_eq!(counts[3], naive_count(&scores[..items], threshold));
            prop_assert_eq!(counts[2].nan, items as u64);
        }
    }
}

proptest! {
    #[test]
    fn scores_above_a_threshold_are_found(
        seed in any::<u64>(),
        items in 0..=LANES,
        queries in 0..=QUERIES,
        special in 0usize..4,
    ) {
        let mut rng = Rng::new(seed, Stage::Split, 0, 0);
        let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
        let mut number = || match rng.below(8) as usize {
            kind if kind < special => specials[kind],
            kind => kind as f32 - 4.0,
        };
        let mut tile = Tile::EMPTY;
        tile.0.as_flattened_mut().fill_with(&mut number);
        let thresholds = std::array::from_fn(|_| number());
        let compared = tile.0.iter().zip(thresholds).take(queries);
        let mut nan = 0;
        let expected: Vec<u32> = compared
            .map(|(scores, threshold)| {
                let scores = &scores[..items];
                nan += scores.iter().filter(|score| score.is_nan()).count() as u64;
                let above = scores.iter().enumerate().filter(|&(_, &score)| score > threshold);
                above.map(|(lane, _)| 1 << lane).sum()
            })
            .collect();
        for level in Level::available() {
            let mut above = vec![7; queries];
            prop_assert_eq!(above_in_tile(level, &tile, items, &thresholds, &mut above), nan);
            prop_assert_eq!(&above, &expected);
            let mut bits = Vec::new();
            bits_above(level, &tile.0, thresholds[0], &mut bits);
            let of_row = |row: &[f32; LANES]| -> u32 {
                let above = (0..LANES).filter(|&lane| row[lane] > thresholds[0]);
                above.map(|lane| 1 << lane).sum()
            };
            prop_assert_eq!(bits, tile.0.iter().map(of_row).collect::<Vec<_>>());
            let greatest: [f32; LANES] = std::array::from_fn(|lane| {
                let scores = tile.0.iter().map(|row| row[lane]);
                scores.filter(|score| !score.is_nan()).fold(f32::NEG_INFINITY, f32::max)
            });
            prop_assert_eq!(lane_maxima(level, &tile.0), greatest);
        }
    }
}

#[test]
fn exponentials_of_costs_are_those_of_double_precision() {
    for count in [1, 2, 15, 16, 17, 33, 100] {
        let costs: Vec<f32> = (0..count)
            .map(|step| ((step * 37) % 100) as f32 / 3.0 - 5.0)
            .collect();
        let least = costs.iter().copied().fold(f32::INFINITY, f32::min);
        let expected: Vec<f64> = costs
            .iter()
            .map(|&cost| f64::from(least - cost).exp())
            .collect();
        for level in Level::available() {
            let mut results = costs.clone();
            let [found, total] = exp_of_least(level, &mut results);
            assert_eq!(found.to_bits(), least.to_bits());
            for (&result, &expected) in results.iter().zip(&expected) {
                assert!(
                    (f64::from(result) - expected).abs() <= 4e-7 * expected,
                    "{result} {expected}"
                );
            }
            let sum: f64 = expected.iter().sum();
            assert!((f64::from(total) - sum).abs() <= 1e-6 * sum);
        }
    }
}

#[test]
fn sigmoids_are_those_of_double_precision() {
    let mut inputs: Vec<f32> = (-4000..4000).map(|step| step as f32 / 37.0).collect();
    inputs.extend([
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1e-30,
        1e30,
        -1e30,
    ]);
    let zeros = vec![0.0; inputs.len()];
    for level in Level::available() {
        let mut sums = zeros.clone();
        add_sigmoids(level, &inputs, &zeros, &mut sums);
        for (&input, &sum) in inputs.iter().zip(&sums) {
            let expected = 1.0 / (1.0 + (-f64::from(input)).exp());
            let error = (f64::from(sum) - expected).abs();
            assert!(
                error <= 4e-7 * expected + 1e-37,
                "{level}: {input} -> {sum}"
            );
        }
        let mut of_nan = [1.0];
        add_sigmoids(level, &[f32::NAN], &[0.0], &mut of_nan);
        assert!(of_nan[0].is_nan());
    }
}

proptest! {
    #[test]
    fn weighted_rows_add_up(
        columns in 1usize..150,
        rows in prop::collection::vec(0i64..5, 0..9),
        seed in any::<u64>(),
    ) {
        // Sums of small integers are exact, so that every order gives the same.
        let values = integers(seed, 5 * columns);
        let weights = integers(seed ^ 1, rows.len());
        let start = integers(seed ^ 2, columns);
        let mut expected = start.clone();
        for (weight, &row) in weights.iter().zip(&rows) {
            for (sum, value) in expected.iter_mut().zip(&values[row as usize * columns..]) {
                *sum += weight * value;
            }
        }
        let products: Vec<f32> = (0..columns).map(|k| start[k] + values[k] * values[columns + k]).collect();
        for level in Level::available() {
            let mut sums = start.clone();
            add_rows(level, &weights, Table::new(&values, 5, columns), &rows, &mut sums);
            prop_assert_eq!(&sums, &expected);
            let mut sums = start.clone();
            add_products(level, &values[..columns], &values[columns..2 * columns], &mut sums);
            prop_assert_eq!(&sums, &products);
        }
    }
}
