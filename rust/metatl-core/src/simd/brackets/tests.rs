use proptest::prelude::*;

use super::*;
use crate::rng::{Rng, Stage};

/// Rows of numbers of both signs, each row of a size of its own.
fn rows(seed: u64, rows: usize, dimension: usize) -> Vec<Vec<f32>> {
    let mut rng = Rng::new(seed, Stage::Split, 0, 0);
    (0..rows)
        .map(|_| {
            let size = 10f64.powi(rng.below(7) as i32 - 3);
            (0..dimension)
                .map(|_| ((rng.uniform_f64() - 0.5) * size) as f32)
                .collect()
        })
        .collect()
}

fn product(left: &[f32], right: &[f32]) -> f64 {
    let pairs = left.iter().zip(right);
    pairs.map(|(&l, &r)| f64::from(l) * f64::from(r)).sum()
}

/// A panel and a block of queries as integers, with their scales.
struct Packed {
    panel: Vec<PackedLanes>,
    item_scales: Lanes,
    queries: Vec<PackedCoordinates>,
    query_scales: QueryCoordinates,
}

fn pack(level: Level, items: &[Vec<f32>], queries: &[Vec<f32>]) -> Packed {
    let dimension = items[0].len();
    let of_row = |row: &Vec<f32>| scale(product(row, row) as f32).unwrap();
    let panel: Vec<Lanes> = (0..dimension)
        .map(|k| Lanes(std::array::from_fn(|lane| items[lane][k])))
        .collect();
    let mut packed = Packed {
        panel: vec![PackedLanes::EMPTY; dimension.div_ceil(2)],
        item_scales: Lanes(std::array::from_fn(|lane| of_row(&items[lane]))),
        queries: vec![[0; QUERIES]; dimension.div_ceil(2)],
        query_scales: std::array::from_fn(|query| of_row(&queries[query])),
    };
    pack_panel(level, &panel, &packed.item_scales, &mut packed.panel);
    for (lane, query) in queries.iter().enumerate() {
        pack_query(query, packed.query_scales[lane], &mut packed.queries, lane);
    }
    packed
}

properties! {
    fn products_of_integers_are_as_near_as_they_say(
        seed in any::<u64>(),
        dimension in prop_oneof![0usize..40, Just(100), Just(513), Just(MOST_DIMENSIONS)],
    ) {
        let (items, queries) = (rows(seed, LANES, dimension), rows(seed ^ 1, QUERIES, dimension));
        let mut everywhere = None;
        for level in Level::available() {
            let packed = pack(level, &items, &queries);
            let mut tile = PackedTile::EMPTY;
            multiply(level, &packed.panel, &packed.queries, &mut tile);
            for (query, products) in tile.0.iter().enumerate() {
                for (lane, &found) in products.iter().enumerate() {
                    let scale = f64::from(packed.item_scales.0[lane])
                        * f64::from(packed.query_scales[query]);
                    let expected = product(&queries[query], &items[lane]) / scale;
                    let error = (f64::from(found) - expected).abs();
                    prop_assert!(error <= f64::from(product_error(dimension)), "{error}");
                }
            }
            prop_assert_eq!(*everywhere.get_or_insert(tile.0), tile.0);
        }
    }

    fn comparisons_are_right_or_open(
        seed in any::<u64>(),
        dimension in 1usize..40,
        slack in 0f32..0.1,
    ) {
        let (items, queries) = (rows(seed, LANES, dimension), rows(seed ^ 1, QUERIES, dimension));
        // The threshold is the score of one of the items: comparisons with it and its like are the close ones.
        let thresholds: Vec<f64> = queries.iter().map(|query| product(query, &items[5])).collect();
        for level in Level::available() {
            let packed = pack(level, &items, &queries);
            let mut tile = PackedTile::EMPTY;
            multiply(level, &packed.panel, &packed.queries, &mut tile);
            let of_items = ItemBounds {
                scales: packed.item_scales,
                least: Lanes([-slack; LANES]),
                most: Lanes([slack; LANES]),
            };
            let of_queries = QueryBounds {
                scales: packed.query_scales,
                above: std::array::from_fn(|query| thresholds[query] as f32),
                below: std::array::from_fn(|query| thresholds[query] as f32),
            };
            let error = product_error(dimension);
            let (above, open) = compare(level, &tile, error, &of_items, &of_queries);
            for query in 0..QUERIES {
                prop_assert_eq!(above[query] & open[query], 0);
                prop_assert!(open[query] & 1 << 5 != 0, "the item itself is neither above nor below");
                for (lane, item) in items.iter().enumerate() {
                    let [above, open] = [above[query], open[query]].map(|bits| bits >> lane & 1 != 0);
                    let score = product(&queries[query], item);
                    let is_above = score > thresholds[query];
                    prop_assert!(open || above == is_above, "{score} {}", thresholds[query]);
                }
            }
        }
    }
}

/// The largest numbers there can be: one coordinate has all of the norm, or all have the same share.
#[test]
fn products_fit_into_32_bits() {
    for dimension in [1, 2, 3, 64, MOST_DIMENSIONS] {
        let one: Vec<f32> = (0..dimension)
            .map(|k| if k == 0 { 7.0 } else { 0.0 })
            .collect();
        for row in [one, vec![-3.0; dimension]] {
            let (items, queries) = (vec![row.clone(); LANES], vec![row.clone(); QUERIES]);
            for level in Level::available() {
                let packed = pack(level, &items, &queries);
                let mut tile = PackedTile::EMPTY;
                multiply(level, &packed.panel, &packed.queries, &mut tile);
                let expected = CODE_NORM * CODE_NORM;
                for &found in tile.0.as_flattened() {
                    assert!(
                        (found as f32 - expected).abs() < product_error(dimension),
                        "{found}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_has_no_norm_has_no_scale() {
    assert_eq!(scale(f32::NAN), None);
    assert_eq!(scale(f32::INFINITY), None);
    assert_eq!(scale(1e31), None);
    assert!(scale(0.0).is_some_and(|scale| scale > 0.0));
}
