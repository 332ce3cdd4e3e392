//! Negatives: items that a user has not interacted with, drawn with replacement.

use crate::Error;
use crate::interactions::{Interactions, check_ids, sort_distinct};
use crate::parallel::{Interrupt, allocate, for_each_chunk, rows_per_chunk};
use crate::rng::{Key, Rng, Stage, hash};
use crate::weighted::{SumTree, WeightedItems};

/// Estimated nanoseconds per uniform negative.
pub const NANOSECONDS: u64 = 15;

/// Negatives drawn between two looks at the interrupt flag.
const BLOCK: usize = 1 << 16;

/// The item of the given rank (from 0) among those that are not in the ascending, distinct `members`.
///
/// Member `k` comes before the answer if at most `rank` other items come before that member, that is, if
/// `members[k] − k ≤ rank`; this holds for a prefix of the members. The search is free of branches that
/// depend on the random rank.
#[inline]
pub(crate) fn outside(members: &[i64], rank: u64) -> i64 {
    let rank = rank as i64;
    if members.is_empty() {
        return rank;
    }
    let precedes = |position: usize| members[position] - position as i64 <= rank;
    let mut first = 0;
    let mut length = members.len();
    while length > 1 {
        let half = length / 2;
        first = std::hint::select_unpredictable(precedes(first + half), first + half, first);
        length -= half;
    }
    rank + (first + usize::from(precedes(first))) as i64
}

/// Fills `negatives` with uniform draws from the items that are not in the ascending, distinct `members`.
///
/// Each draw is a rank in the complement: exact, without rejection, however few items are left. At least one
/// must be.
#[inline]
pub(crate) fn draw_uniform(negatives: &mut [i64], members: &[i64], num_items: u64, rng: &mut Rng) {
    let available = num_items - members.len() as u64;
    for negative in negatives {
        *negative = outside(members, rng.below(available));
    }
}

/// `count` negatives for each of `users`, row by row: shape (users, count).
///
/// Uniform over the items that the user has no interaction with, or proportional to their `weights` (one per
/// item). The row at position `b` is drawn by the generator (seed, `Negatives`, epoch, `b`).
pub fn sample_negatives(
    interactions: &Interactions,
    users: &[i64],
    count: usize,
    seed: u64,
    epoch: u64,
    weights: Option<&[f64]>,
    interrupt: &Interrupt,
) -> Result<Vec<i64>, Error> {
    let num_items = interactions.num_items();
    let weighted = weights
        .map(|weights| WeightedItems::new(weights, num_items))
        .transpose()?;
    interactions.check_users(users)?;
    let key = Key::new(seed, Stage::Negatives, epoch);
    let mut negatives = allocate(users.len(), count)?;
    if count == 0 {
        return Ok(negatives);
    }
    let size = rows_per_chunk(count, NANOSECONDS);
    for_each_chunk(
        users.chunks(size).zip(negatives.chunks_mut(size * count)),
        interrupt,
        SumTree::default,
        |tree, index, (users, negatives)| {
            let rows = users.iter().zip(negatives.chunks_mut(count));
            for (position, (&user, negatives)) in (index * size..).zip(rows) {
                let mut rng = key.rng(position as u64);
                let members = interactions.members(user as usize);
                let available = match &weighted {
                    None => num_items - members.len() as u64,
                    Some(weighted) => weighted.available(members),
                };
                if available == 0 {
                    return Err(Error::NoNegative {
                        user,
                        needed: 1,
                        available,
                    });
                }
                // A tree costs about as much as a draw per item.
                let reject = weighted.as_ref().is_some_and(|weighted| {
                    weighted.tries(members) * count as f64 <= num_items as f64 + count as f64
                });
                if let (Some(weighted), false) = (&weighted, reject) {
                    weighted.fill(tree, members.iter().copied())?;
                }
                for block in negatives.chunks_mut(BLOCK) {
                    interrupt.check()?;
                    match &weighted {
                        None => draw_uniform(block, members, num_items, &mut rng),
                        Some(weighted) if reject => {
                            draw_weighted(block, members, weighted, &mut rng);
                        }
                        Some(_) => block.fill_with(|| tree.draw(&mut rng)),
                    }
                }
            }
            Ok(())
        },
    )?;
    Ok(negatives)
}

/// Fills `negatives` by rejection: draws that hit `members` are drawn again.
fn draw_weighted(negatives: &mut [i64], members: &[i64], weighted: &WeightedItems, rng: &mut Rng) {
    for negative in negatives {
        *negative = weighted.draw(rng);
        while members.binary_search(negative).is_ok() {
            *negative = weighted.draw(rng);
        }
    }
}

/// `count` uniform negatives for each history that is being served, row by row: shape (rows, count).
///
/// `histories` holds rows of `length` items. A row's generator is keyed by (seed, `SupportNegatives`, 0, a hash
/// of the row), so that a user's negatives do not depend on who else is in the batch.
pub fn sample_support_negatives(
    histories: &[i64],
    length: usize,
    count: usize,
    num_items: u64,
    seed: u64,
    interrupt: &Interrupt,
) -> Result<Vec<i64>, Error> {
    if length == 0 {
        return Err(Error::invalid(
            "histories",
            "rows without items",
            "at least one item",
        ));
    }
    check_ids("histories", histories, num_items)?;
    let key = Key::new(seed, Stage::SupportNegatives, 0);
    let mut negatives = allocate(histories.len() / length, count)?;
    if count == 0 {
        return Ok(negatives);
    }
    let size = rows_per_chunk(length + count, NANOSECONDS);
    for_each_chunk(
        histories
            .chunks(size * length)
            .zip(negatives.chunks_mut(size * count)),
        interrupt,
        Vec::new,
        |sorted, index, (histories, negatives)| {
            let rows = histories.chunks(length).zip(negatives.chunks_mut(count));
            for (position, (history, negatives)) in (index * size..).zip(rows) {
                let mut rng = key.rng(hash(history));
                sorted.clear();
                sorted.extend_from_slice(history);
                let distinct = sort_distinct(sorted);
                let members = &sorted[..distinct];
                if num_items == distinct as u64 {
                    return Err(Error::NoNegative {
                        user: position as i64,
                        needed: 1,
                        available: 0,
                    });
                }
                for block in negatives.chunks_mut(BLOCK) {
                    interrupt.check()?;
                    draw_uniform(block, members, num_items, &mut rng);
                }
            }
            Ok(())
        },
    )?;
    Ok(negatives)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq};

    use super::*;
    use crate::parallel;

    properties! {
        fn outside_counts_the_items_that_are_not_members(
            members in prop::collection::btree_set(0i64..40, 0..40),
            rank in 0u64..60,
        ) {
            let expected = (0..).filter(|id| !members.contains(id)).nth(rank as usize);
            let members: Vec<i64> = members.into_iter().collect();
            prop_assert_eq!(Some(outside(&members, rank)), expected);
        }

        fn negatives_are_never_members_on_any_number_of_threads(
            rows in prop::collection::vec(prop::collection::vec(0i64..9, 0..9), 1..20),
            count in 0usize..9,
            seed in any::<u64>(),
            weight in prop::sample::select(vec![0.0, 1.0, 1e9]),
        ) {
            let mut indptr = vec![0];
            for row in &rows {
                indptr.push(indptr.last().unwrap() + row.len() as i64);
            }
            // Items 9 and 10 belong to nobody.
            let interactions =
                Interactions::new(&indptr, &rows.concat(), 11, &Interrupt::new()).unwrap();
            let users: Vec<i64> = (0..rows.len() as i64).collect();
            let weights: Vec<f64> = (0..11).map(|item| if item < 9 { weight } else { 1.0 }).collect();
            for weights in [None, Some(weights.as_slice())] {
                let draw = |threads| {
                    parallel::run(
                        threads,
                        u64::MAX,
                        |interrupt| {
                            sample_negatives(&interactions, &users, count, seed, 0, weights, interrupt)
                        },
                        || true,
                    )
                    .unwrap()
                };
                let negatives = draw(1);
                for (&user, negatives) in users.iter().zip(negatives.chunks(count.max(1))) {
                    for negative in negatives {
                        prop_assert!((0..11).contains(negative));
                        prop_assert!(!rows[user as usize].contains(negative));
                    }
                }
                prop_assert_eq!(&draw(3), &negatives);
            }
        }
    }
}
