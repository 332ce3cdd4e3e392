//! Candidate sets: a target and the distinct negatives that it is ranked among.

use crate::Error;
use crate::interactions::{Interactions, check_ids};
use crate::parallel::{Interrupt, allocate, for_each_chunk, rows_per_chunk, work};
use crate::rng::{Key, Rng, Stage};
use crate::weighted::{SumTree, WeightedItems};

/// Estimated nanoseconds per uniform candidate.
pub const NANOSECONDS: u64 = 5;

/// Candidates that are drawn between two checks of the interrupt flag.
const BLOCK: usize = 1 << 16;

/// Catalogues up to this size use an array of stamps per thread. It fits into the second-level cache, and there
/// it is twice as fast as a hash table.
const STAMPED_ITEMS: u64 = 1 << 17;

/// Settings of [`sample_candidates`].
#[derive(Clone, Copy, Debug)]
pub struct CandidateSettings<'a> {
    /// Number of negatives for each target.
    pub count: usize,
    /// The seed.
    pub seed: u64,
    /// Draws with the same seed and another epoch are independent.
    pub epoch: u64,
    /// One weight per item; draws are uniform without weights.
    pub weights: Option<&'a [f64]>,
    /// Whether the target is never among its own negatives, even if the user has no interaction with it.
    pub exclude_target: bool,
}

/// For each of `users` their target and `count` distinct negatives, row by row: shape (users, 1 + count).
///
/// The negatives are in the order of their draws. Each is drawn uniformly, or in proportion to its weight, from
/// the items that are not in the user's row, are not the target and were not drawn before. A row depends on the
/// user and the target and not on the batch: its generator is (seed, `Candidates`, epoch, user).
pub fn sample_candidates(
    interactions: &Interactions,
    users: &[i64],
    targets: &[i64],
    settings: CandidateSettings,
    interrupt: &Interrupt,
) -> Result<Vec<i64>, Error> {
    // For a handful of users a large array is not worth clearing.
    let num_items = interactions.num_items();
    let drawn = work(users.len(), settings.count, 1);
    if num_items <= STAMPED_ITEMS && num_items <= drawn {
        sample::<Stamps>(interactions, users, targets, settings, interrupt)
    } else {
        sample::<Table>(interactions, users, targets, settings, interrupt)
    }
}

fn sample<S: Seen>(
    interactions: &Interactions,
    users: &[i64],
    targets: &[i64],
    settings: CandidateSettings,
    interrupt: &Interrupt,
) -> Result<Vec<i64>, Error> {
    let num_items = interactions.num_items();
    let count = settings.count;
    let weighted = settings
        .weights
        .map(|weights| WeightedItems::new(weights, num_items))
        .transpose()?;
    interactions.check_users(users)?;
    check_ids("targets", targets, num_items)?;
    if users.len() != targets.len() {
        return Err(Error::invalid(
            "targets",
            format_args!("{} targets", targets.len()),
            format_args!("one for each of the {} users", users.len()),
        ));
    }
    let key = Key::new(settings.seed, Stage::Candidates, settings.epoch);
    let width = count.saturating_add(1);
    let mut candidates = allocate(users.len(), width)?;
    let size = rows_per_chunk(width, NANOSECONDS);
    for_each_chunk(
        users
            .chunks(size)
            .zip(targets.chunks(size))
            .zip(candidates.chunks_mut(size * width)),
        interrupt,
        || Scratch {
            seen: S::new(num_items),
            excluded: Vec::new(),
            rest: Vec::new(),
            tree: SumTree::default(),
        },
        |scratch, _, ((users, targets), candidates)| {
            let rows = users.iter().zip(targets).zip(candidates.chunks_mut(width));
            for ((&user, &target), candidates) in rows {
                let members = interactions.members(user as usize);
                let excluded = &mut scratch.excluded;
                excluded.clear();
                excluded.extend_from_slice(members);
                if let (true, Err(position)) =
                    (settings.exclude_target, members.binary_search(&target))
                {
                    excluded.insert(position, target);
                }
                let available = match &weighted {
                    None => num_items - excluded.len() as u64,
                    Some(weighted) => weighted.available(excluded),
                };
                if available < count as u64 {
                    return Err(Error::NoNegative {
                        user,
                        needed: count as u64,
                        available,
                    });
                }
                let mut rng = key.rng(user as u64);
                let (first, negatives) = candidates.split_at_mut(1);
                first[0] = target;
                match &weighted {
                    None => scratch.draw_uniform(negatives, num_items, &mut rng, interrupt),
                    Some(weighted) => {
                        scratch.draw_weighted(negatives, weighted, &mut rng, interrupt)
                    }
                }?;
            }
            Ok(())
        },
    )?;
    Ok(candidates)
}

/// Buffers that a thread reuses for every row.
struct Scratch<S> {
    seen: S,
    /// The items that must not be drawn, ascending.
    excluded: Vec<i64>,
    /// All other items, if there are few of them.
    rest: Vec<i64>,
    tree: SumTree,
}

impl<S: Seen> Scratch<S> {
    /// Marks the excluded items as seen, with room for `count` more.
    fn start(&mut self, count: usize) -> Result<(), Error> {
        self.seen.clear(self.excluded.len() + count)?;
        for &item in &self.excluded {
            self.seen.insert(item);
        }
        Ok(())
    }

    fn draw_uniform(
        &mut self,
        negatives: &mut [i64],
        num_items: u64,
        rng: &mut Rng,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        let taken = self.excluded.len() as u64 + negatives.len() as u64;
        if taken > num_items / 2 {
            return self.draw_from_rest(negatives, num_items, rng, interrupt);
        }
        // At least half of all draws hit a new item.
        self.start(negatives.len())?;
        for block in negatives.chunks_mut(BLOCK) {
            interrupt.check()?;
            let mut drawn = 0;
            while drawn < block.len() {
                // The slot is written in any case and kept if the item is new: there is no branch to mispredict.
                let item = rng.below(num_items) as i64;
                block[drawn] = item;
                drawn += usize::from(self.seen.insert(item));
            }
        }
        Ok(())
    }

    /// Lists the items that can be drawn, at most twice as many as are excluded or drawn, and shuffles the first ones.
    fn draw_from_rest(
        &mut self,
        negatives: &mut [i64],
        num_items: u64,
        rng: &mut Rng,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        self.rest.clear();
        let mut next = 0;
        for end in self.excluded.iter().copied().chain([num_items as i64]) {
            self.rest.extend(next..end);
            next = end + 1;
        }
        for (position, negative) in negatives.iter_mut().enumerate() {
            if position % BLOCK == 0 {
                interrupt.check()?;
            }
            let other = position + rng.below((self.rest.len() - position) as u64) as usize;
            self.rest.swap(position, other);
            *negative = self.rest[position];
        }
        Ok(())
    }

    /// Draws by rejection until that has taken longer than building a tree of all weights, then from the tree.
    ///
    /// The change does not alter the distribution, because the next new item does not depend on the number of
    /// draws that were rejected before it.
    fn draw_weighted(
        &mut self,
        negatives: &mut [i64],
        weighted: &WeightedItems,
        rng: &mut Rng,
        interrupt: &Interrupt,
    ) -> Result<(), Error> {
        self.start(negatives.len())?;
        let mut rejections = 64 + weighted.len() / 8;
        let mut drawn = 0;
        while drawn < negatives.len() && rejections > 0 {
            if drawn % BLOCK == 0 {
                interrupt.check()?;
            }
            let item = weighted.draw(rng);
            negatives[drawn] = item;
            let new = self.seen.insert(item);
            drawn += usize::from(new);
            rejections -= usize::from(!new);
        }
        let (before, after) = negatives.split_at_mut(drawn);
        if !after.is_empty() {
            let gone = self.excluded.iter().chain(before.iter());
            weighted.fill(&mut self.tree, gone.copied())?;
        }
        for block in after.chunks_mut(BLOCK) {
            interrupt.check()?;
            for negative in block {
                *negative = self.tree.draw(rng);
                self.tree.remove(*negative);
            }
        }
        Ok(())
    }
}

/// A set of items that is emptied for every row.
trait Seen {
    fn new(num_items: u64) -> Self;
    /// Empties the set and makes room for `capacity` items.
    fn clear(&mut self, capacity: usize) -> Result<(), Error>;
    /// Whether the item was not in the set.
    fn insert(&mut self, item: i64) -> bool;
}

/// One stamp per item: an item is in the set if its stamp is the current one.
struct Stamps {
    current: u32,
    stamps: Vec<u32>,
}

impl Seen for Stamps {
    fn new(num_items: u64) -> Self {
        Self {
            current: 0,
            stamps: vec![0; num_items as usize],
        }
    }

    fn clear(&mut self, _capacity: usize) -> Result<(), Error> {
        self.current = self.current.wrapping_add(1);
        if self.current == 0 {
            self.stamps.fill(0);
            self.current = 1;
        }
        Ok(())
    }

    #[inline]
    fn insert(&mut self, item: i64) -> bool {
        let stamp = &mut self.stamps[item as usize];
        let new = *stamp != self.current;
        *stamp = self.current;
        new
    }
}

/// A hash table with open addressing, at most a quarter full, for catalogues of any size.
struct Table {
    slots: Vec<i64>,
    /// How many of the slots are in use for the current row: a power of two.
    size: usize,
}

impl Seen for Table {
    fn new(_num_items: u64) -> Self {
        Self {
            slots: Vec::new(),
            size: 0,
        }
    }

    fn clear(&mut self, capacity: usize) -> Result<(), Error> {
        self.size = capacity
            .max(16)
            .checked_mul(4)
            .and_then(usize::checked_next_power_of_two)
            .ok_or(Error::OutOfMemory {
                elements: 4 * capacity as u128,
            })?;
        if self.slots.len() < self.size {
            self.slots = allocate(self.size, 1)?;
        }
        self.slots[..self.size].fill(-1);
        Ok(())
    }

    #[inline]
    fn insert(&mut self, item: i64) -> bool {
        // Fibonacci hashing: the high bits of the product with 2⁶⁴ over the golden ratio.
        let hash = (item as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut slot = (hash >> (u64::BITS - self.size.trailing_zeros())) as usize;
        loop {
            let found = &mut self.slots[slot];
            if *found == item {
                return false;
            }
            if *found == -1 {
                *found = item;
                return true;
            }
            slot = (slot + 1) & (self.size - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn settings(count: usize, seed: u64) -> CandidateSettings<'static> {
        CandidateSettings {
            count,
            seed,
            epoch: 0,
            weights: None,
            exclude_target: true,
        }
    }

    fn one_user(row: &[i64], num_items: u64) -> Interactions {
        Interactions::new(&[0, row.len() as i64], row, num_items, &Interrupt::new()).unwrap()
    }

    /// The probability of each sequence of `count` distinct items when each is drawn in proportion to its
    /// weight from those that are left.
    fn sequences(weights: &BTreeMap<i64, f64>, count: usize) -> BTreeMap<Vec<i64>, f64> {
        let mut known = BTreeMap::from([(Vec::<i64>::new(), 1.0)]);
        for _ in 0..count {
            let mut longer = BTreeMap::new();
            for (sequence, probability) in known {
                let left = weights.iter().filter(|(item, _)| !sequence.contains(item));
                let total: f64 = left.clone().map(|(_, weight)| weight).sum();
                for (&item, &weight) in left {
                    let mut next = sequence.clone();
                    next.push(item);
                    longer.insert(next, probability * weight / total);
                }
            }
            known = longer;
        }
        known
    }

    #[test]
    fn weighted_sets_have_the_probabilities_of_successive_draws() {
        // The heavy item makes rejection give up, so that both ways of drawing take part.
        let weights = [3.0, 1.0, 2.0, 1e4, 5.0, 0.0];
        let interactions = one_user(&[4], 6);
        let left = BTreeMap::from([(0, 3.0), (2, 2.0), (3, 1e4)]);
        let expected = sequences(&left, 3);
        let draws = 40_000u32;
        let mut counts = BTreeMap::new();
        for epoch in 0..u64::from(draws) {
            let settings = CandidateSettings {
                weights: Some(&weights),
                epoch,
                ..settings(3, 5)
            };
            let row =
                sample_candidates(&interactions, &[0], &[1], settings, &Interrupt::new()).unwrap();
            assert_eq!(row[0], 1);
            *counts.entry(row[1..].to_vec()).or_insert(0.0) += 1.0;
        }
        for (sequence, probability) in expected {
            let mean = f64::from(draws) * probability;
            let found: f64 = counts.get(&sequence).copied().unwrap_or_default();
            assert!(
                (found - mean).abs() < 5.0 * mean.sqrt() + 5.0,
                "{sequence:?}: {found} for {mean}"
            );
        }
    }

    #[test]
    fn too_few_items_are_an_error() {
        let interactions = one_user(&[0, 1, 2], 6);
        let sample = |count, target| {
            sample_candidates(
                &interactions,
                &[0],
                &[target],
                settings(count, 0),
                &Interrupt::new(),
            )
        };
        assert!(sample(3, 0).is_ok());
        let error = |needed, available| {
            Err(Error::NoNegative {
                user: 0,
                needed,
                available,
            })
        };
        assert_eq!(sample(4, 0), error(4, 3));
        assert_eq!(sample(3, 5), error(3, 2));
    }

    #[test]
    fn stamps_survive_their_wrap() {
        let mut stamps = Stamps::new(4);
        stamps.current = u32::MAX - 1;
        for _ in 0..4 {
            stamps.clear(4).unwrap();
            assert!(stamps.insert(3));
            assert!(!stamps.insert(3));
        }
    }

    properties! {
        fn a_set_is_distinct_and_avoids_the_row(
            row in prop::collection::vec(0i64..40, 0..30),
            target in 0i64..40,
            count in 0usize..45,
            seed: u64,
        ) {
            let interactions = one_user(&row, 40);
            let excluded: BTreeSet<_> = row.iter().copied().chain([target]).collect();
            let arguments = (&interactions, &[0], &[target], settings(count, seed));
            let draw = |sample: fn(&Interactions, &[i64], &[i64], CandidateSettings, &Interrupt) -> _| {
                sample(arguments.0, arguments.1, arguments.2, arguments.3, &Interrupt::new())
            };
            let stamped: Result<Vec<i64>, Error> = draw(sample::<Stamps>);
            prop_assert_eq!(&stamped, &draw(sample::<Table>));
            if let Ok(candidates) = stamped {
                let negatives: BTreeSet<_> = candidates[1..].iter().copied().collect();
                prop_assert_eq!(candidates[0], target);
                prop_assert_eq!(negatives.len(), count);
                prop_assert!(negatives.is_disjoint(&excluded));
            } else {
                prop_assert!(count > 40 - excluded.len());
            }
        }
    }
}
