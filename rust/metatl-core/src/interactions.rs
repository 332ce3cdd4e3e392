//! Interactions of users with items, by user and in time order.

use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk};

/// Users whose rows are sorted as one unit of work.
const CHUNK: usize = 1024;

/// The bounds of a user's row, side by side in memory because users are visited in random order.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    start: usize,
    length: usize,
    distinct: usize,
}

/// Each user's items in time order, and the same items in ascending order without repeats.
#[derive(Debug)]
pub struct Interactions {
    rows: Vec<Row>,
    items: Vec<i64>,
    /// The items again; each row begins with its distinct items, ascending.
    members: Vec<i64>,
    num_items: u64,
}

impl Interactions {
    /// Interactions from compressed sparse rows: user `u` has `items[indptr[u]..indptr[u + 1]]`, in time
    /// order, each item below `num_items`.
    pub fn new(
        indptr: &[i64],
        items: &[i64],
        num_items: u64,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        if num_items > i64::MAX as u64 {
            return Err(Error::invalid("num_items", num_items, "at most 2**63 - 1"));
        }
        check_indptr("indptr", indptr, items.len())?;
        // The copy is checked, for another thread may write to the original.
        let items = copy(items)?;
        check_ids("items", &items, num_items)?;
        let mut rows: Vec<Row> = allocate(indptr.len() - 1, 1)?;
        for (row, bounds) in rows.iter_mut().zip(indptr.windows(2)) {
            row.start = bounds[0] as usize;
            row.length = (bounds[1] - bounds[0]) as usize;
        }
        let mut members = copy(&items)?;
        let mut unsorted = members.as_mut_slice();
        let chunks = rows.chunks_mut(CHUNK).map(|rows| {
            let length = rows.iter().map(|row| row.length).sum();
            (rows, split_off(&mut unsorted, length))
        });
        for_each_chunk(
            chunks,
            interrupt,
            || (),
            |(), _, (rows, mut members)| {
                for row in rows {
                    row.distinct = sort_distinct(split_off(&mut members, row.length));
                }
                Ok(())
            },
        )?;
        Ok(Self {
            rows,
            items,
            members,
            num_items,
        })
    }

    /// How many users there are.
    #[must_use]
    pub fn num_users(&self) -> usize {
        self.rows.len()
    }

    /// How many items there are, seen or not.
    #[must_use]
    pub fn num_items(&self) -> u64 {
        self.num_items
    }

    /// How many interactions there are, repeats included.
    #[must_use]
    pub fn num_interactions(&self) -> usize {
        self.items.len()
    }

    /// The items of a user below [`Self::num_users`], in time order.
    #[inline]
    #[must_use]
    pub fn row(&self, user: usize) -> &[i64] {
        let row = self.rows[user];
        &self.items[row.start..row.start + row.length]
    }

    /// The distinct items of a user below [`Self::num_users`], ascending.
    #[inline]
    #[must_use]
    pub fn members(&self, user: usize) -> &[i64] {
        let row = self.rows[user];
        &self.members[row.start..row.start + row.distinct]
    }

    /// Reads some items of each user's rows, so that the rows are in the cache when they are needed.
    ///
    /// Users are scattered in memory. Reads without other work in between overlap.
    #[inline]
    pub(crate) fn fetch(&self, users: &[i64]) {
        let mut read = 0;
        for &user in users {
            for ids in [self.row(user as usize), self.members(user as usize)] {
                if let (Some(first), Some(last)) = (ids.first(), ids.last()) {
                    read ^= first ^ ids[ids.len() / 2] ^ last;
                }
            }
        }
        std::hint::black_box(read);
    }

    /// An error unless every user is below [`Self::num_users`].
    pub fn check_users(&self, users: &[i64]) -> Result<(), Error> {
        check_ids("users", users, self.num_users() as u64)
    }
}

/// An error unless every id is from 0 to `count` − 1.
pub fn check_ids(argument: &'static str, ids: &[i64], count: u64) -> Result<(), Error> {
    // As an unsigned number a negative id is larger than any count.
    match ids.iter().position(|&id| id as u64 >= count) {
        None => Ok(()),
        Some(position) => Err(Error::invalid(
            argument,
            format_args!("{} at position {position}", ids[position]),
            format_args!("ids from 0 to {}", i128::from(count) - 1),
        )),
    }
}

/// An error unless `indptr` cuts `length` entries into rows.
pub fn check_indptr(argument: &'static str, indptr: &[i64], length: usize) -> Result<(), Error> {
    let (Some(&first), Some(&last)) = (indptr.first(), indptr.last()) else {
        return Err(Error::invalid(
            argument,
            "no entry",
            "one entry more than rows",
        ));
    };
    if first != 0 {
        return Err(Error::invalid(
            argument,
            format_args!("{first} at position 0"),
            0,
        ));
    }
    if let Some(position) = indptr.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(Error::invalid(
            argument,
            format_args!(
                "{} after {} at position {}",
                indptr[position + 1],
                indptr[position],
                position + 1
            ),
            "ascending entries",
        ));
    }
    if last as u64 != length as u64 {
        return Err(Error::invalid(
            argument,
            format_args!("{last} as the last entry"),
            format_args!("{length}, the number of entries in all rows"),
        ));
    }
    Ok(())
}

/// Sorts `ids` so that its distinct ids come first, in ascending order, and returns their number.
pub(crate) fn sort_distinct(ids: &mut [i64]) -> usize {
    ids.sort_unstable();
    let mut distinct = 0;
    for position in 0..ids.len() {
        if distinct == 0 || ids[position] != ids[distinct - 1] {
            ids[distinct] = ids[position];
            distinct += 1;
        }
    }
    distinct
}

fn copy(ids: &[i64]) -> Result<Vec<i64>, Error> {
    let mut copied = allocate(ids.len(), 1)?;
    copied.copy_from_slice(ids);
    Ok(copied)
}

/// Takes the first `length` entries from the front of `rest`.
#[expect(clippy::mut_mut, reason = "`rest` is a slice that shrinks")]
pub(crate) fn split_off<'a>(rest: &mut &'a mut [i64], length: usize) -> &'a mut [i64] {
    let (front, back) = std::mem::take(rest).split_at_mut(length);
    *rest = back;
    front
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::parallel;

    #[test]
    fn bad_rows_are_errors() {
        let message = |indptr: &[i64], items: &[i64]| {
            Interactions::new(indptr, items, 5, &Interrupt::new())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(&[], &[]),
            "indptr: found no entry, expected one entry more than rows"
        );
        assert_eq!(
            message(&[1, 2], &[0, 0]),
            "indptr: found 1 at position 0, expected 0"
        );
        assert_eq!(
            message(&[0, 3, 2], &[0, 0]),
            "indptr: found 2 after 3 at position 2, expected ascending entries"
        );
        assert_eq!(
            message(&[0, 3], &[0, 0]),
            "indptr: found 3 as the last entry, expected 2, the number of entries in all rows"
        );
        assert_eq!(
            message(&[0, 2], &[4, 5]),
            "items: found 5 at position 1, expected ids from 0 to 4"
        );
        assert_eq!(
            message(&[0, 2], &[-1, 3]),
            "items: found -1 at position 0, expected ids from 0 to 4"
        );
    }

    properties! {
        fn rows_keep_their_order_and_members_are_sets(
            rows in prop::collection::vec(prop::collection::vec(0i64..20, 0..12), 0..50)
        ) {
            let items = rows.concat();
            let mut indptr = vec![0];
            for row in &rows {
                indptr.push(indptr.last().unwrap() + row.len() as i64);
            }
            let interactions = parallel::run(
                3,
                u64::MAX,
                |interrupt| Interactions::new(&indptr, &items, 20, interrupt),
                || true,
            )
            .unwrap();
            for (user, row) in rows.iter().enumerate() {
                let members = row.iter().copied().collect::<BTreeSet<_>>();
                prop_assert_eq!(interactions.row(user), row);
                prop_assert_eq!(interactions.members(user), members.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
