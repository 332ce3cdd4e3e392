//! Negatives: items that a user has not interacted with, drawn with replacement.

use crate::Error;
use crate::interactions::{Interactions, check_ids, sort_distinct};
use crate::parallel::{Interrupt, allocate, for_each_chunk, rows_per_chunk};
use crate::rng::{Key, Rng, Stage, hash};

/// Estimated nanoseconds per uniform negative.
pub const NANOSECONDS: u64 = 15;

/// Negatives that are drawn between two checks of the interrupt flag.
const BLOCK: usize = 1 << 16;

/// The item of the given rank (from 0) among those that are not in the ascending, distinct `members`.
///
/// Member `k` is below the result if at most `rank` non-members are below that member, that is, if
/// `members[k] − k ≤ rank`. This holds for a prefix of the members, and a binary search finds its end. The search
/// has no branch that depends on the random rank.
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
/// Each draw is a rank among these items, so no draw is rejected, however few items there are. There must be at
/// least one.
#[inline]
pub(crate) fn draw_uniform(negatives: &mut [i64], members: &[i64], num_items: u64, rng: &mut Rng) {
    let available = num_items - members.len() as u64;
    for negative in negatives {
        *negative = outside(members, rng.below(available));
    }
}

/// The users who have a negative. It is an error if none of them has one.
pub(crate) fn with_negatives(
    interactions: &Interactions,
    mut users: Vec<i64>,
) -> Result<Vec<i64>, Error> {
    let first = users.first().copied();
    let num_items = interactions.num_items();
    users.retain(|&user| (interactions.members(user as usize).len() as u64) < num_items);
    match first {
        Some(user) if users.is_empty() => Err(Error::NoNegative {
            user,
            needed: 1,
            available: 0,
        }),
        _ => Ok(users),
    }
}

/// `count` uniform negatives for each history that is being served, row by row: shape (rows, count).
///
/// `histories` holds rows of `length` items. A row's generator is keyed by (seed, `SupportNegatives`, 0, a hash
/// of the row), so that a user's negatives do not depend on the rest of the batch.
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

        fn draws_are_never_members(
            members in prop::collection::btree_set(0i64..9, 0..9),
            count in 0usize..9,
            seed in any::<u64>(),
        ) {
            // Items 9 and 10 are never members.
            let members: Vec<i64> = members.into_iter().collect();
            let mut negatives = vec![-1; count];
            draw_uniform(&mut negatives, &members, 11, &mut Rng::new(seed, Stage::Episodes, 0, 0));
            for negative in negatives {
                prop_assert!((0..11).contains(&negative) && !members.contains(&negative));
            }
        }

        fn support_negatives_are_the_same_on_any_number_of_threads(
            histories in prop::collection::vec(prop::array::uniform3(0i64..9), 1..20),
            count in 0usize..9,
            seed in any::<u64>(),
        ) {
            let draw = |threads| {
                let kernel = |interrupt: &Interrupt| {
                    sample_support_negatives(histories.as_flattened(), 3, count, 11, seed, interrupt)
                };
                parallel::run(threads, u64::MAX, kernel, || true).unwrap()
            };
            let negatives = draw(1);
            for (history, negatives) in histories.iter().zip(negatives.chunks(count.max(1))) {
                for negative in negatives {
                    prop_assert!((0..11).contains(negative) && !history.contains(negative));
                }
            }
            prop_assert_eq!(&draw(3), &negatives);
        }
    }
}
