//! Sequences: windows of the users' rows, for models that learn the next item of each prefix.

use std::sync::Arc;

use crate::Error;
use crate::batches::{Batch, BatchSampler};
use crate::interactions::Interactions;
use crate::negatives::{draw_uniform, with_negatives};
use crate::parallel::{Interrupt, for_each_chunk, rows_per_chunk, work};
use crate::rng::{Key, Rng, Stage};
use crate::weighted::AliasTable;

/// Estimated nanoseconds per item or negative of a sequence.
pub const NANOSECONDS: u64 = 12;

/// The unit that is drawn uniformly for each sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// A user. The sequence is all rows, or a uniformly drawn window if there are too many rows.
    User,
    /// A row. The sequence ends with this row and begins with the rows just before it.
    Row,
}

/// Which sequences a [`SequenceSampler`] draws.
#[derive(Clone, Copy, Debug)]
pub struct SequenceSettings {
    /// A sequence has up to `length` + 1 items.
    pub length: usize,
    /// A sequence has at least this many items; users with fewer rows are left out.
    pub shortest: usize,
    /// The unit that is drawn uniformly.
    pub draw: Draw,
    /// Negatives for each of the `length` pairs of neighbouring slots.
    pub negatives: usize,
    /// Negatives that a whole batch shares.
    pub shared_negatives: usize,
    /// The share of sequences whose items are put in random order.
    pub shuffle_share: f64,
    /// The seed.
    pub seed: u64,
}

/// Draws batches of sequences. A batch is a function of (seed, step) and the settings.
///
/// A sequence begins at slot 0; the slots after its end hold −1. Negatives are uniform over the items that the
/// user has no interaction with; users without a negative are left out if negatives are drawn. Slots after the end
/// of a sequence have negatives too, so that a sequence of one item can use the negatives of its first slot. Shared
/// negatives are drawn with replacement from all items, uniformly or by weight.
#[derive(Debug)]
pub struct SequenceSampler {
    interactions: Arc<Interactions>,
    settings: SequenceSettings,
    /// The users with enough rows and, if negatives are drawn, at least one negative.
    users: Vec<i64>,
    /// For `Draw::Row`: number of rows of all users up to and including this user that can end a sequence.
    ends: Vec<u64>,
    /// For shared negatives by weight.
    weighted: Option<AliasTable>,
}

impl SequenceSampler {
    /// A new sampler. It is an error if there is no user to draw.
    ///
    /// Shared negatives are drawn in proportion to `weights`, one per item.
    pub fn new(
        interactions: Arc<Interactions>,
        settings: SequenceSettings,
        weights: Option<&[f64]>,
    ) -> Result<Self, Error> {
        let SequenceSettings {
            length, shortest, ..
        } = settings;
        if length == 0 {
            return Err(Error::invalid("length", 0, "at least 1"));
        }
        if shortest == 0 || shortest > length.saturating_add(1) {
            return Err(Error::invalid(
                "shortest",
                shortest,
                format_args!("at least 1 and at most length + 1 = {}", length as u128 + 1),
            ));
        }
        if !(0.0..=1.0).contains(&settings.shuffle_share) {
            return Err(Error::invalid(
                "shuffle_share",
                settings.shuffle_share,
                "a number from 0 to 1",
            ));
        }
        let rows = |user: usize| interactions.row(user).len();
        let users: Vec<i64> = (0..interactions.num_users())
            .filter(|&user| rows(user) >= shortest)
            .map(|user| user as i64)
            .collect();
        if users.is_empty() {
            let longest = (0..interactions.num_users()).map(rows).max();
            return Err(Error::invalid(
                "interactions",
                format_args!("at most {} rows per user", longest.unwrap_or(0)),
                format_args!("a user with at least shortest = {shortest} rows"),
            ));
        }
        let users = if settings.negatives > 0 {
            with_negatives(&interactions, users)?
        } else {
            users
        };
        let ends = users
            .iter()
            .scan(0, |total, &user| {
                *total += (rows(user as usize) - shortest + 1) as u64;
                Some(*total)
            })
            .collect();
        let weighted = weights
            .map(|weights| AliasTable::new(weights, interactions.num_items()))
            .transpose()?;
        Ok(Self {
            interactions,
            settings,
            users,
            ends,
            weighted,
        })
    }

    /// Draws a user and the first and last row of a sequence.
    fn draw(&self, rng: &mut Rng) -> (i64, std::ops::Range<usize>) {
        let SequenceSettings {
            length, shortest, ..
        } = self.settings;
        match self.settings.draw {
            Draw::User => {
                let user = self.users[rng.below(self.users.len() as u64) as usize];
                let rows = self.interactions.row(user as usize).len();
                let taken = rows.min(length.saturating_add(1));
                let start = rng.below((rows - taken + 1) as u64) as usize;
                (user, start..start + taken)
            }
            Draw::Row => {
                let rank = rng.below(*self.ends.last().unwrap_or(&0));
                let position = self.ends.partition_point(|&end| end <= rank);
                let before = if position == 0 {
                    0
                } else {
                    self.ends[position - 1]
                };
                let end = (rank - before) as usize + shortest;
                let start = end.saturating_sub(length.saturating_add(1));
                (self.users[position], start..end)
            }
        }
    }
}

impl BatchSampler for SequenceSampler {
    fn nanoseconds_per_row(&self) -> u64 {
        let SequenceSettings {
            length, negatives, ..
        } = self.settings;
        let columns = length
            .saturating_mul(negatives)
            .saturating_add(length)
            .saturating_add(1);
        work(1, columns, NANOSECONDS)
    }

    fn sample(&self, step: u64, batch_size: usize, interrupt: &Interrupt) -> Result<Batch, Error> {
        let SequenceSettings {
            length,
            negatives,
            seed,
            ..
        } = self.settings;
        let mut batch = Batch::allocate(
            batch_size,
            length,
            negatives,
            self.settings.shared_negatives,
        )?;
        let num_items = self.interactions.num_items();
        let mut rng = Rng::new(seed, Stage::SharedNegatives, step, 0);
        match &self.weighted {
            None => draw_uniform(&mut batch.shared_negatives, &[], num_items, &mut rng),
            Some(weighted) => batch.shared_negatives.fill_with(|| weighted.draw(&mut rng)),
        }

        let key = Key::new(seed, Stage::Sequences, step);
        let width = length * negatives;
        let size = rows_per_chunk(width.saturating_add(length + 1), NANOSECONDS);
        // Without negatives every sequence still gets its (empty) slice of them.
        let mut unfilled = batch.negatives.as_mut_slice();
        let chunks = batch
            .users
            .chunks_mut(size)
            .zip(batch.items.chunks_mut(size * (length + 1)))
            .map(|(users, items)| {
                let (front, back) = std::mem::take(&mut unfilled).split_at_mut(users.len() * width);
                unfilled = back;
                (users, items, front)
            });
        for_each_chunk(
            chunks,
            interrupt,
            || (),
            |(), chunk, (users, items, mut negatives)| {
                let rows = users.iter_mut().zip(items.chunks_mut(length + 1));
                for (index, (user, items)) in (chunk * size..).zip(rows) {
                    let mut rng = key.rng(index as u64);
                    let (drawn, range) = self.draw(&mut rng);
                    *user = drawn;
                    let row = &self.interactions.row(drawn as usize)[range];
                    let (sequence, padding) = items.split_at_mut(row.len());
                    sequence.copy_from_slice(row);
                    padding.fill(-1);
                    if rng.happens(self.settings.shuffle_share) {
                        rng.shuffle(sequence);
                    }
                    let (own, rest) = std::mem::take(&mut negatives).split_at_mut(width);
                    negatives = rest;
                    if !own.is_empty() {
                        let members = self.interactions.members(drawn as usize);
                        draw_uniform(own, members, num_items, &mut rng);
                    }
                }
                Ok(())
            },
        )?;
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq};

    use super::*;
    use crate::parallel;

    properties! {
        fn sequences_follow_their_user_on_any_number_of_threads(
            lengths in prop::collection::vec(0usize..12, 1..8),
            length in 1usize..8,
            by_row in any::<bool>(),
            seed in any::<u64>(),
        ) {
            // User u has the items u, u + 2, u + 4 …; the last user has just enough.
            let rows: Vec<Vec<i64>> = lengths
                .iter()
                .chain([&2])
                .zip(0..)
                .map(|(&rows, user)| (0..rows as i64).map(|row| user + 2 * row).collect())
                .collect();
            let mut indptr = vec![0];
            for row in &rows {
                indptr.push(indptr.last().unwrap() + row.len() as i64);
            }
            let interactions =
                Interactions::new(&indptr, &rows.concat(), 30, &Interrupt::new()).unwrap();
            let settings = SequenceSettings {
                length,
                shortest: 2,
                draw: if by_row { Draw::Row } else { Draw::User },
                negatives: 2,
                shared_negatives: 5,
                shuffle_share: 0.0,
                seed,
            };
            let sampler =
                SequenceSampler::new(Arc::new(interactions), settings, Some(&[1.0; 30])).unwrap();
            let draw = |threads| {
                parallel::run(threads, u64::MAX, |interrupt| sampler.sample(9, 50, interrupt), || true)
                    .unwrap()
            };
            let batch = draw(1);
            prop_assert_eq!(&draw(3), &batch);
            prop_assert!(batch.shared_negatives.iter().all(|item| (0..30).contains(item)));
            let sequences = batch
                .items
                .chunks(length + 1)
                .zip(batch.negatives.chunks(2 * length));
            for (&user, (items, negatives)) in batch.users.iter().zip(sequences) {
                let row = &rows[user as usize];
                let taken = items.iter().filter(|&&item| item != -1).count();
                let (sequence, padding) = items.split_at(taken);
                prop_assert!(padding.iter().all(|&item| item == -1));
                prop_assert!(taken >= 2);
                prop_assert!(row.windows(taken).any(|window| window == sequence));
                if by_row {
                    prop_assert!(taken == length + 1 || sequence[0] == row[0]);
                } else {
                    prop_assert_eq!(taken, row.len().min(length + 1));
                }
                prop_assert!(negatives.iter().all(|item| (0..30).contains(item) && !row.contains(item)));
            }
        }
    }
}
