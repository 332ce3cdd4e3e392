//! Episodes: training tasks that are drawn from the users' rows, batch by batch.

use std::sync::Arc;

use crate::Error;
use crate::batches::{Batch, BatchSampler};
use crate::interactions::Interactions;
use crate::negatives::{draw_uniform, with_negatives};
use crate::parallel::{Interrupt, for_each_chunk, rows_per_chunk, work};
use crate::rng::{Key, Rng, Stage};

/// Estimated nanoseconds per item or negative of an episode.
pub const NANOSECONDS: u64 = 12;

/// Number of tasks whose users are drawn together, so that their rows can be prefetched.
const BLOCK: usize = 32;

/// Which tasks an [`EpisodeSampler`] draws.
#[derive(Clone, Copy, Debug)]
pub struct EpisodeSettings {
    /// A task has K + 1 items: the support sequence i1 to iK and the target.
    pub k: usize,
    /// Negatives for each of the K pairs of neighbouring items.
    pub negatives: usize,
    /// Negatives that a whole batch shares.
    pub shared_negatives: usize,
    /// The share of tasks that are a window of consecutive rows; the others are random rows in time order.
    pub window_share: f64,
    /// Whether windows are drawn as in the authors' released program; see [`EpisodeSampler`].
    pub released_windows: bool,
    /// The share of tasks whose items are put in random order.
    pub shuffle_share: f64,
    /// The seed.
    pub seed: u64,
}

/// Draws batches of tasks. A batch is a function of (seed, step) and the settings.
///
/// A task's user is uniform among the users with at least K + 1 rows; if negatives are drawn, users without one are
/// left out. With probability `window_share`, the items
/// are a uniformly drawn window of K + 1 consecutive rows; otherwise they are a uniformly drawn set of K + 1
/// rows, in time order. With probability `shuffle_share`, the items are then shuffled.
/// Negatives are uniform over the items that the user has no interaction with; shared negatives are uniform
/// over all items.
///
/// The released program cuts its windows wrongly, and `released_windows` reproduces that. The target's row p is
/// uniform from K to the last row, and the support is rows p − K − 1 to p − 2, so the row just before the target
/// is skipped. For p = K the support is empty: its items and the negatives of its pairs are −1, and the task is
/// never shuffled.
#[derive(Debug)]
pub struct EpisodeSampler {
    interactions: Arc<Interactions>,
    settings: EpisodeSettings,
    /// The users with enough rows and, if negatives are drawn, at least one negative.
    users: Vec<i64>,
}

impl EpisodeSampler {
    /// A new sampler. It is an error if there is no user to draw.
    pub fn new(interactions: Arc<Interactions>, settings: EpisodeSettings) -> Result<Self, Error> {
        let EpisodeSettings { k, negatives, .. } = settings;
        if k == 0 {
            return Err(Error::invalid("k", 0, "at least 1"));
        }
        for (argument, share) in [
            ("window_share", settings.window_share),
            ("shuffle_share", settings.shuffle_share),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::invalid(argument, share, "a number from 0 to 1"));
            }
        }
        let users: Vec<i64> = (0..interactions.num_users())
            .filter(|&user| interactions.row(user).len() > k)
            .map(|user| user as i64)
            .collect();
        if users.is_empty() {
            let longest = (0..interactions.num_users())
                .map(|user| interactions.row(user).len())
                .max();
            return Err(Error::invalid(
                "interactions",
                format_args!("at most {} rows per user", longest.unwrap_or(0)),
                format_args!("a user with at least k + 1 = {} rows", k as u128 + 1),
            ));
        }
        let users = if negatives > 0 {
            with_negatives(&interactions, users)?
        } else {
            users
        };
        Ok(Self {
            interactions,
            settings,
            users,
        })
    }

    /// Draws one task of a user.
    #[inline]
    fn draw(&self, user: i64, rng: &mut Rng, items: &mut [i64], negatives: &mut [i64]) {
        let EpisodeSettings { k, .. } = self.settings;
        let row = self.interactions.row(user as usize);
        let mut support_is_empty = false;
        if rng.happens(self.settings.window_share) {
            let start = rng.below((row.len() - k) as u64) as usize;
            if self.settings.released_windows {
                items[k] = row[start + k];
                support_is_empty = start == 0;
                if support_is_empty {
                    items[..k].fill(-1);
                } else {
                    items[..k].copy_from_slice(&row[start - 1..start + k - 1]);
                }
            } else {
                items.copy_from_slice(&row[start..=start + k]);
            }
        } else {
            choose(items, row.len(), rng);
            for item in &mut *items {
                *item = row[*item as usize];
            }
        }
        if !support_is_empty && rng.happens(self.settings.shuffle_share) {
            rng.shuffle(items);
        }
        let members = self.interactions.members(user as usize);
        if !negatives.is_empty() {
            draw_uniform(negatives, members, self.interactions.num_items(), rng);
            if support_is_empty {
                let query = negatives.len() - negatives.len() / k;
                negatives[..query].fill(-1);
            }
        }
    }
}

impl BatchSampler for EpisodeSampler {
    fn nanoseconds_per_row(&self) -> u64 {
        let EpisodeSettings { k, negatives, .. } = self.settings;
        work(
            1,
            k.saturating_mul(negatives).saturating_add(k + 1),
            NANOSECONDS,
        )
    }

    fn sample(&self, step: u64, batch_size: usize, interrupt: &Interrupt) -> Result<Batch, Error> {
        let EpisodeSettings {
            k, negatives, seed, ..
        } = self.settings;
        let mut episodes =
            Batch::allocate(batch_size, k, negatives, self.settings.shared_negatives)?;
        let width = k * negatives;
        let mut rng = Rng::new(seed, Stage::SharedNegatives, step, 0);
        draw_uniform(
            &mut episodes.shared_negatives,
            &[],
            self.interactions.num_items(),
            &mut rng,
        );

        let key = Key::new(seed, Stage::Episodes, step);
        let size = rows_per_chunk(width.saturating_add(k + 1), NANOSECONDS);
        // Without negatives every task still gets its (empty) slice of them.
        let mut unfilled = episodes.negatives.as_mut_slice();
        let chunks = episodes
            .users
            .chunks_mut(size)
            .zip(episodes.items.chunks_mut(size * (k + 1)))
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
                let blocks = users
                    .chunks_mut(BLOCK)
                    .zip(items.chunks_mut(BLOCK * (k + 1)));
                for (block, (users, items)) in blocks.enumerate() {
                    let first = chunk * size + block * BLOCK;
                    let mut rngs: [_; BLOCK] =
                        std::array::from_fn(|index| key.rng((first + index) as u64));
                    for (user, rng) in users.iter_mut().zip(&mut rngs) {
                        *user = self.users[rng.below(self.users.len() as u64) as usize];
                    }
                    self.interactions.fetch(users);
                    let tasks = users.iter().zip(&mut rngs).zip(items.chunks_mut(k + 1));
                    for ((&user, rng), items) in tasks {
                        let (own, rest) = std::mem::take(&mut negatives).split_at_mut(width);
                        negatives = rest;
                        self.draw(user, rng, items, own);
                    }
                }
                Ok(())
            },
        )?;
        Ok(episodes)
    }
}

/// Fills `chosen` with a uniformly drawn set of distinct numbers below `length`, in ascending order.
///
/// Each draw is a rank among the numbers that are not yet chosen. The comparisons are arithmetic and not branches,
/// because their results are random.
#[inline]
fn choose(chosen: &mut [i64], length: usize, rng: &mut Rng) {
    for filled in 0..chosen.len() {
        let rank = rng.below((length - filled) as u64) as i64;
        let mut number = rank;
        for (position, &other) in chosen[..filled].iter().enumerate() {
            number += i64::from(other - position as i64 <= rank);
        }
        for other in &mut chosen[..filled] {
            (*other, number) = ((*other).min(number), (*other).max(number));
        }
        chosen[filled] = number;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq};

    use super::*;
    use crate::parallel;

    const SETTINGS: EpisodeSettings = EpisodeSettings {
        k: 3,
        negatives: 2,
        shared_negatives: 4,
        window_share: 0.5,
        released_windows: false,
        shuffle_share: 0.0,
        seed: 1,
    };

    fn sampler(rows: &[Vec<i64>], settings: EpisodeSettings) -> EpisodeSampler {
        let mut indptr = vec![0];
        for row in rows {
            indptr.push(indptr.last().unwrap() + row.len() as i64);
        }
        let interactions =
            Interactions::new(&indptr, &rows.concat(), 30, &Interrupt::new()).unwrap();
        EpisodeSampler::new(Arc::new(interactions), settings).unwrap()
    }

    properties! {
        fn chosen_numbers_ascend(length in 1usize..40, share in 0.0..1.0, seed in any::<u64>()) {
            let mut chosen = vec![0; (length as f64 * share) as usize + 1];
            choose(&mut chosen, length, &mut Rng::new(seed, Stage::Episodes, 0, 0));
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(chosen.iter().all(|&number| (0..length as i64).contains(&number)));
        }

        fn tasks_follow_their_user_on_any_number_of_threads(
            lengths in prop::collection::vec(0usize..12, 1..8),
            k in 1usize..6,
            released_windows in any::<bool>(),
            seed in any::<u64>(),
        ) {
            // User u has the items u, u + 2, u + 4 …; the last user has just enough.
            let rows: Vec<Vec<i64>> = lengths
                .iter()
                .chain([&(k + 1)])
                .zip(0..)
                .map(|(&length, user)| (0..length as i64).map(|row| user + 2 * row).collect())
                .collect();
            let settings = EpisodeSettings { k, released_windows, seed, ..SETTINGS };
            let sampler = sampler(&rows, settings);
            let draw = |threads| {
                parallel::run(threads, u64::MAX, |interrupt| sampler.sample(9, 50, interrupt), || true)
                    .unwrap()
            };
            let episodes = draw(1);
            prop_assert_eq!(&draw(3), &episodes);
            let tasks = episodes
                .items
                .chunks(k + 1)
                .zip(episodes.negatives.chunks(2 * k));
            for (&user, (items, negatives)) in episodes.users.iter().zip(tasks) {
                let row = &rows[user as usize];
                let support_is_empty = items[0] == -1;
                let padded = if support_is_empty { (k, 2 * (k - 1)) } else { (0, 0) };
                let (padding, items) = items.split_at(padded.0);
                prop_assert!(padding.iter().all(|&item| item == -1));
                prop_assert!(items.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(items.iter().all(|item| row.contains(item)));
                let (padding, negatives) = negatives.split_at(padded.1);
                prop_assert!(padding.iter().all(|&item| item == -1));
                prop_assert!(negatives.iter().all(|item| (0..30).contains(item) && !row.contains(item)));
            }
        }
    }
}
