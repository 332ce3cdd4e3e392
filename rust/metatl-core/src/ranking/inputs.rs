//! The inputs of a ranking: matrices, lists of items, overrides, and their checks.

use std::ops::Range;

use crate::Error;
use crate::simd::Table;

/// A row-major matrix.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T = f32> {
    values: &'a [T],
    rows: usize,
    columns: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A matrix of `rows` × `columns`. Errors name it `argument`.
    pub fn new(
        argument: &'static str,
        values: &'a [T],
        rows: usize,
        columns: usize,
    ) -> Result<Self, Error> {
        if rows.checked_mul(columns) != Some(values.len()) {
            return Err(Error::invalid(
                argument,
                format_args!("{} numbers", values.len()),
                format_args!("{rows} x {columns} numbers"),
            ));
        }
        Ok(Self {
            values,
            rows,
            columns,
        })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All numbers, row by row.
    #[inline]
    pub(super) fn values(&self) -> &'a [T] {
        self.values
    }

    /// The numbers of consecutive rows.
    #[inline]
    pub(super) fn rows_of(&self, rows: Range<usize>) -> &'a [T] {
        &self.values[rows.start * self.columns..rows.end * self.columns]
    }

    /// One row.
    #[inline]
    pub(crate) fn row(&self, index: usize) -> &'a [T] {
        &self.values[index * self.columns..][..self.columns]
    }
}

impl<'a> Matrix<'a> {
    /// The matrix as an argument of the vector kernels.
    #[inline]
    pub(crate) fn table(&self) -> Table<'a> {
        Table::new(self.values, self.rows, self.columns)
    }
}

/// A list of items for each query, as offsets into one array.
#[derive(Clone, Copy, Debug)]
pub struct ItemLists<'a> {
    offsets: &'a [i64],
    items: &'a [i64],
}

impl<'a> ItemLists<'a> {
    /// List i is `items[offsets[i]..offsets[i + 1]]`, in any order. `arguments` names the two in errors.
    pub fn new(
        arguments: [&'static str; 2],
        offsets: &'a [i64],
        items: &'a [i64],
        lists: usize,
        num_items: usize,
    ) -> Result<Self, Error> {
        if offsets.len() != lists + 1 {
            return Err(Error::invalid(
                arguments[0],
                format_args!("{} offsets", offsets.len()),
                format_args!("{}, one more than there are queries", lists + 1),
            ));
        }
        if offsets[0] != 0 || offsets[lists] != items.len() as i64 || !offsets.is_sorted() {
            return Err(Error::invalid(
                arguments[0],
                format_args!(
                    "offsets from {} to {}{}",
                    offsets[0],
                    offsets[lists],
                    if offsets.is_sorted() {
                        ""
                    } else {
                        " that decrease"
                    }
                ),
                format_args!(
                    "ascending offsets from 0 to {}, the number of {}",
                    items.len(),
                    arguments[1]
                ),
            ));
        }
        for (position, &item) in items.iter().enumerate() {
            check_item(arguments[1], item, position, num_items)?;
        }
        Ok(Self { offsets, items })
    }

    /// Number of lists.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The range of one query's list in `items`.
    #[inline]
    fn range(&self, query: usize) -> Range<usize> {
        self.offsets[query] as usize..self.offsets[query + 1] as usize
    }

    /// The list of one query.
    #[inline]
    pub(crate) fn list(&self, query: usize) -> &'a [i64] {
        &self.items[self.range(query)]
    }
}

/// Checks that an item exists.
#[inline]
pub(super) fn check_item(
    argument: &'static str,
    item: i64,
    position: usize,
    num_items: usize,
) -> Result<(), Error> {
    if (item as u64) < num_items as u64 {
        return Ok(());
    }
    let expected = match num_items {
        0 => "no items, for the catalogue is empty".to_owned(),
        _ => format!("items from 0 to {}", num_items - 1),
    };
    Err(Error::invalid(
        argument,
        format_args!("{item} at position {position}"),
        expected,
    ))
}

/// Checks that there is one target for each query and that all targets exist.
pub(super) fn check_targets(
    targets: &[i64],
    queries: usize,
    num_items: usize,
) -> Result<(), Error> {
    if targets.len() != queries {
        return Err(Error::invalid(
            "targets",
            format_args!("{} targets", targets.len()),
            format_args!("{queries}, one for each query"),
        ));
    }
    targets
        .iter()
        .enumerate()
        .try_for_each(|(position, &target)| check_item("targets", target, position, num_items))
}

/// Checks that there is one value for each item.
pub(super) fn check_allowed(allowed: Option<&[bool]>, num_items: usize) -> Result<(), Error> {
    match allowed {
        Some(allowed) if allowed.len() != num_items => Err(Error::invalid(
            "allowed",
            format_args!("{} values", allowed.len()),
            format_args!("{num_items}, one for each item"),
        )),
        _ => Ok(()),
    }
}

/// Rows that replace rows of the item table for one query: those that its inner step changed.
#[derive(Clone, Copy, Debug)]
pub struct Overrides<'a> {
    items: ItemLists<'a>,
    rows: Matrix<'a>,
}

impl<'a> Overrides<'a> {
    /// Row j of `rows` replaces the row of item `items[j]`, for the query whose list contains position j. The
    /// items of one query must be distinct.
    pub fn new(
        offsets: &'a [i64],
        items: &'a [i64],
        rows: Matrix<'a>,
        queries: usize,
        num_items: usize,
    ) -> Result<Self, Error> {
        let lists = ItemLists::new(
            ["overrides[0]", "overrides[1]"],
            offsets,
            items,
            queries,
            num_items,
        )?;
        if rows.rows() != items.len() {
            return Err(Error::invalid(
                "overrides[2]",
                format_args!("{} rows", rows.rows()),
                format_args!("{}, one for each item of overrides[1]", items.len()),
            ));
        }
        let mut distinct = Vec::new();
        for query in 0..queries {
            sort_distinct(lists.list(query), &mut distinct);
            if distinct.len() != lists.list(query).len() {
                return Err(Error::invalid(
                    "overrides[1]",
                    format_args!("an item twice for query {query}"),
                    "distinct items for each query",
                ));
            }
        }
        Ok(Self { items: lists, rows })
    }

    /// The items whose rows are replaced for one query.
    #[inline]
    pub(super) fn items(&self, query: usize) -> &'a [i64] {
        self.items.list(query)
    }

    /// All replacing rows.
    #[inline]
    pub(super) fn rows(&self) -> Matrix<'a> {
        self.rows
    }

    /// The row that replaces that of the item at `position` of [`Overrides::items`].
    #[inline]
    pub(super) fn row(&self, query: usize, position: usize) -> &'a [f32] {
        self.rows.row(self.items.range(query).start + position)
    }

    /// The index in [`Overrides::rows`] of the row that replaces that of `item` for one query, if there is one.
    #[inline]
    pub(super) fn find(&self, query: usize, item: i64) -> Option<usize> {
        let position = self.items(query).iter().position(|&other| other == item)?;
        Some(self.items.range(query).start + position)
    }
}

/// Copies `items` into `distinct` in ascending order, without repeats.
pub(super) fn sort_distinct(items: &[i64], distinct: &mut Vec<i64>) {
    distinct.clear();
    distinct.extend_from_slice(items);
    if !distinct.is_sorted() {
        distinct.sort_unstable();
    }
    distinct.dedup();
}
