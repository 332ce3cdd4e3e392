//! Groups interactions by user, in time order.

use crate::Error;
use crate::interactions::{check_ids, split_off};
use crate::parallel::{Interrupt, allocate, for_each_chunk};

/// Estimated nanoseconds to group one interaction.
pub const NANOSECONDS: u64 = 40;

/// Interactions that are counted or moved between two checks of the interrupt flag.
const BLOCK: usize = 1 << 16;

/// Interactions that are sorted as one unit of work.
const CHUNK: usize = 1 << 14;

/// Rows of up to this many items are searched for repeats item by item; longer rows are sorted.
const SHORT: usize = 24;

/// Compressed sparse rows: user `u` has the entries from `indptr[u]` to `indptr[u + 1]`, in time order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Grouped {
    /// The index of each user's first entry, and then the number of entries.
    pub indptr: Vec<i64>,
    /// The item of each entry.
    pub items: Vec<i64>,
    /// The time of each entry.
    pub timestamps: Vec<i64>,
}

/// Groups interactions by user and sorts each user's interactions by time. The sort is stable.
///
/// Users are below `num_users`. Without `keep_repeats`, only the earliest interaction of a user with an item is
/// kept.
pub fn group_by_user(
    users: &[i64],
    items: &[i64],
    timestamps: &[i64],
    num_users: usize,
    keep_repeats: bool,
    interrupt: &Interrupt,
) -> Result<Grouped, Error> {
    for (argument, length) in [("items", items.len()), ("timestamps", timestamps.len())] {
        if length != users.len() {
            return Err(Error::invalid(
                argument,
                format_args!("{length} entries"),
                format_args!("{}, as in users", users.len()),
            ));
        }
    }
    check_ids("users", users, num_users as u64)?;
    let mut grouped = scatter(users, items, timestamps, num_users, interrupt)?;
    let mut kept: Vec<i64> = allocate(num_users, 1)?;
    sort_rows(&mut grouped, &mut kept, keep_repeats, interrupt)?;
    if !keep_repeats {
        close_gaps(&mut grouped, &kept, interrupt)?;
    }
    Ok(grouped)
}

/// Groups interactions by user. Each user's interactions keep their order.
fn scatter(
    users: &[i64],
    items: &[i64],
    timestamps: &[i64],
    num_users: usize,
    interrupt: &Interrupt,
) -> Result<Grouped, Error> {
    let rows = num_users.checked_add(1).ok_or(Error::OutOfMemory {
        elements: num_users as u128 + 1,
    })?;
    let mut grouped = Grouped {
        indptr: allocate(rows, 1)?,
        items: allocate(items.len(), 1)?,
        timestamps: allocate(items.len(), 1)?,
    };
    // Another thread may write to the users after their check: a user or an index out of bounds is an error.
    let counts = &mut grouped.indptr[1..];
    for block in users.chunks(BLOCK) {
        interrupt.check()?;
        for &user in block {
            let count = counts.get_mut(user as usize);
            *count.ok_or_else(|| Error::changed("users"))? += 1;
        }
    }
    let mut total = 0;
    for entry in &mut grouped.indptr {
        total += *entry;
        *entry = total;
    }
    // The index of each user's next interaction.
    let mut next: Vec<i64> = allocate(num_users, 1)?;
    next.copy_from_slice(&grouped.indptr[..num_users]);
    let length = items.len() as i64;
    let blocks = users.chunks(BLOCK).zip(items.chunks(BLOCK));
    for ((users, items), timestamps) in blocks.zip(timestamps.chunks(BLOCK)) {
        interrupt.check()?;
        for ((&user, &item), &timestamp) in users.iter().zip(items).zip(timestamps) {
            let index = next
                .get_mut(user as usize)
                .filter(|index| **index < length)
                .ok_or_else(|| Error::changed("users"))?;
            grouped.items[*index as usize] = item;
            grouped.timestamps[*index as usize] = timestamp;
            *index += 1;
        }
    }
    Ok(grouped)
}

/// Sorts each row by time and moves the entries that are kept to its front. `kept` receives their number.
fn sort_rows(
    grouped: &mut Grouped,
    kept: &mut [i64],
    keep_repeats: bool,
    interrupt: &Interrupt,
) -> Result<(), Error> {
    let indptr = &grouped.indptr;
    let (mut items, mut timestamps) = (
        grouped.items.as_mut_slice(),
        grouped.timestamps.as_mut_slice(),
    );
    let mut kept = kept;
    let mut user = 0;
    let chunks = std::iter::from_fn(move || {
        let start = user;
        if start + 1 >= indptr.len() {
            return None;
        }
        while user + 1 < indptr.len() && indptr[user] - indptr[start] < CHUNK as i64 {
            user += 1;
        }
        let length = (indptr[user] - indptr[start]) as usize;
        Some((
            &indptr[start..=user],
            split_off(&mut items, length),
            split_off(&mut timestamps, length),
            split_off(&mut kept, user - start),
        ))
    });
    for_each_chunk(
        chunks,
        interrupt,
        Scratch::default,
        |scratch, _, (indptr, items, timestamps, kept)| {
            for (bounds, kept) in indptr.windows(2).zip(kept) {
                let row = (bounds[0] - indptr[0]) as usize..(bounds[1] - indptr[0]) as usize;
                let (items, timestamps) = (&mut items[row.clone()], &mut timestamps[row]);
                scratch.sort(items, timestamps);
                *kept = if keep_repeats {
                    items.len() as i64
                } else {
                    scratch.drop_repeats(items, timestamps) as i64
                };
            }
            Ok(())
        },
    )
}

/// Moves the kept entries of all rows together.
fn close_gaps(grouped: &mut Grouped, kept: &[i64], interrupt: &Interrupt) -> Result<(), Error> {
    let mut end = 0;
    for (user, &kept) in kept.iter().enumerate() {
        if user % BLOCK == 0 {
            interrupt.check()?;
        }
        let start = grouped.indptr[user] as usize;
        grouped.indptr[user] = end as i64;
        if start != end {
            grouped.items.copy_within(start..start + kept as usize, end);
            grouped
                .timestamps
                .copy_within(start..start + kept as usize, end);
        }
        end += kept as usize;
    }
    if let Some(last) = grouped.indptr.last_mut() {
        *last = end as i64;
    }
    grouped.items.truncate(end);
    grouped.timestamps.truncate(end);
    Ok(())
}

/// Buffers that a thread reuses for every row.
#[derive(Default)]
struct Scratch {
    /// The times and items of a row.
    entries: Vec<(i64, i64)>,
    /// The items of a row and their indices in it.
    indices: Vec<(i64, usize)>,
    repeated: Vec<bool>,
}

impl Scratch {
    /// Sorts a row by time, stably.
    fn sort(&mut self, items: &mut [i64], timestamps: &mut [i64]) {
        if timestamps.is_sorted() {
            return;
        }
        self.entries.clear();
        self.entries
            .extend(timestamps.iter().copied().zip(items.iter().copied()));
        self.entries.sort_by_key(|&(timestamp, _)| timestamp);
        for ((item, timestamp), &entry) in items.iter_mut().zip(timestamps).zip(&self.entries) {
            (*timestamp, *item) = entry;
        }
    }

    /// Moves the first entry of each item to the front, in order, and returns the number of items.
    fn drop_repeats(&mut self, items: &mut [i64], timestamps: &mut [i64]) -> usize {
        self.repeated.clear();
        if items.len() <= SHORT {
            self.repeated
                .extend((0..items.len()).map(|index| items[..index].contains(&items[index])));
        } else {
            self.indices.clear();
            self.indices
                .extend(items.iter().copied().zip(0..items.len()));
            self.indices.sort_unstable();
            self.repeated.resize(items.len(), false);
            for pair in self.indices.windows(2) {
                if pair[0].0 == pair[1].0 {
                    self.repeated[pair[1].1] = true;
                }
            }
        }
        let mut kept = 0;
        for index in 0..items.len() {
            if !self.repeated[index] {
                items[kept] = items[index];
                timestamps[kept] = timestamps[index];
                kept += 1;
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::parallel;

    fn group(
        rows: &[(i64, i64, i64)],
        num_users: usize,
        keep_repeats: bool,
        threads: usize,
    ) -> Grouped {
        let users = rows.iter().map(|row| row.0).collect::<Vec<_>>();
        let items = rows.iter().map(|row| row.1).collect::<Vec<_>>();
        let timestamps = rows.iter().map(|row| row.2).collect::<Vec<_>>();
        parallel::run(
            threads,
            u64::MAX,
            |interrupt| {
                group_by_user(
                    &users,
                    &items,
                    &timestamps,
                    num_users,
                    keep_repeats,
                    interrupt,
                )
            },
            || true,
        )
        .unwrap()
    }

    /// The definition: a stable sort of all rows, then a set for each user.
    fn by_definition(rows: &[(i64, i64, i64)], num_users: usize, keep_repeats: bool) -> Grouped {
        let mut sorted = rows.to_vec();
        sorted.sort_by_key(|&(user, _, timestamp)| (user, timestamp));
        let mut seen = BTreeMap::<i64, BTreeSet<i64>>::new();
        sorted
            .retain(|&(user, item, _)| seen.entry(user).or_default().insert(item) || keep_repeats);
        let mut indptr = vec![0];
        for user in 0..num_users as i64 {
            let length = sorted.iter().filter(|row| row.0 == user).count() as i64;
            indptr.push(indptr.last().unwrap() + length);
        }
        Grouped {
            indptr,
            items: sorted.iter().map(|row| row.1).collect(),
            timestamps: sorted.iter().map(|row| row.2).collect(),
        }
    }

    #[test]
    fn nothing_and_nobody() {
        assert_eq!(group(&[], 0, false, 1).indptr, [0]);
        assert_eq!(group(&[], 2, true, 2).indptr, [0, 0, 0]);
    }

    #[test]
    fn bad_arguments_are_errors() {
        let message = |users: &[i64], items: &[i64], timestamps: &[i64]| {
            group_by_user(users, items, timestamps, 2, true, &Interrupt::new())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(&[0, 1], &[0], &[0, 0]),
            "items: found 1 entries, expected 2, as in users"
        );
        assert_eq!(
            message(&[0, 1], &[0, 0], &[]),
            "timestamps: found 0 entries, expected 2, as in users"
        );
        assert_eq!(
            message(&[0, 2], &[0, 0], &[0, 0]),
            "users: found 2 at position 1, expected ids from 0 to 1"
        );
        assert_eq!(
            message(&[-1, 1], &[0, 0], &[0, 0]),
            "users: found -1 at position 0, expected ids from 0 to 1"
        );
    }

    #[test]
    fn long_rows_in_many_chunks() {
        let rows = (0..100_000_i64)
            .map(|row| (row * row % 7, row * 31 % 997, -(row * 17 % 1_009)))
            .collect::<Vec<_>>();
        for keep_repeats in [false, true] {
            let expected = by_definition(&rows, 9, keep_repeats);
            for threads in [1, 2, 3, 8] {
                assert_eq!(group(&rows, 9, keep_repeats, threads), expected);
            }
        }
    }

    properties! {
        fn rows_are_those_of_the_definition(
            rows in prop::collection::vec((0i64..6, -3i64..30, -9i64..9), 0..120),
            keep_repeats: bool,
            threads in 1usize..4,
        ) {
            prop_assert_eq!(
                group(&rows, 7, keep_repeats, threads),
                by_definition(&rows, 7, keep_repeats)
            );
        }
    }
}
