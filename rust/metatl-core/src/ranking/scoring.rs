//! What is scored: queries, items, bias, similarity and overrides, checked once.

use std::ops::Range;

use super::ItemTable;
use super::estimates::EstimateKind;
use crate::Error;
use crate::simd::{self, Level, Table};

/// How a query and an item are compared. Higher scores are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Similarity {
    /// q·e
    Dot,
    /// −‖q − e‖
    L2,
    /// −‖q − e‖²
    SquaredL2,
}

impl Similarity {
    /// The similarity of that name: `dot`, `l2` or `squared_l2`.
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "dot" => Ok(Self::Dot),
            "l2" => Ok(Self::L2),
            "squared_l2" => Ok(Self::SquaredL2),
            _ => Err(Error::invalid(
                "similarity",
                format_args!("{name:?}"),
                "\"dot\", \"l2\" or \"squared_l2\"",
            )),
        }
    }

    /// Whether a distance's root is taken.
    pub(super) fn takes_root(self) -> bool {
        self == Self::L2
    }
}

/// A row-major matrix, of `f32` if nothing else is said.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T = f32> {
    values: &'a [T],
    rows: usize,
    columns: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A matrix of `rows` × `columns`, called `argument` in errors.
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

    /// Consecutive rows, one after the other.
    #[inline]
    pub(super) fn rows_of(&self, rows: Range<usize>) -> &'a [T] {
        &self.values[rows.start * self.columns..rows.end * self.columns]
    }

    /// One row.
    #[inline]
    pub(super) fn row(&self, index: usize) -> &'a [T] {
        &self.values[index * self.columns..][..self.columns]
    }
}

impl<'a> Matrix<'a> {
    /// The matrix as the vector kernels take it.
    #[inline]
    pub(super) fn table(&self) -> Table<'a> {
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

    /// Where the list of one query lies.
    #[inline]
    fn range(&self, query: usize) -> Range<usize> {
        self.offsets[query] as usize..self.offsets[query + 1] as usize
    }

    /// The list of one query.
    #[inline]
    pub(super) fn list(&self, query: usize) -> &'a [i64] {
        &self.items[self.range(query)]
    }
}

/// The error for an item that does not exist.
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

/// Checks that there is one target for each query, and that it exists.
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

/// Rows of the item table that are replaced for one query: the items that its inner step moved.
#[derive(Clone, Copy, Debug)]
pub struct Overrides<'a> {
    items: ItemLists<'a>,
    rows: Matrix<'a>,
}

impl<'a> Overrides<'a> {
    /// Row j of `rows` replaces the row of item `items[j]` for the query whose list holds j.
    ///
    /// The items of one query are distinct.
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
            super::sort_distinct(lists.list(query), &mut distinct);
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

    /// The items that are replaced for one query.
    #[inline]
    pub(super) fn items(&self, query: usize) -> &'a [i64] {
        self.items.list(query)
    }

    /// All rows that replace others.
    #[inline]
    pub(super) fn rows(&self) -> Matrix<'a> {
        self.rows
    }

    /// The row that replaces the item at `position` of [`Overrides::items`].
    #[inline]
    pub(super) fn row(&self, query: usize, position: usize) -> &'a [f32] {
        self.rows.row(self.items.range(query).start + position)
    }

    /// Which of [`Overrides::rows`] replaces `item` for one query, if one does.
    #[inline]
    pub(super) fn find(&self, query: usize, item: i64) -> Option<usize> {
        let position = self.items(query).iter().position(|&other| other == item)?;
        Some(self.items.range(query).start + position)
    }
}

/// Everything that the scores of a call depend on.
#[derive(Clone, Copy, Debug)]
pub struct Scoring<'a> {
    pub(super) queries: Matrix<'a>,
    pub(super) item_table: ItemTable<'a>,
    pub(super) item_bias: Option<&'a [f32]>,
    pub(super) similarity: Similarity,
    pub(super) overrides: Option<Overrides<'a>>,
    pub(super) level: Level,
    /// What comparisons with thresholds start from.
    pub(super) estimates: EstimateKind,
}

impl<'a> Scoring<'a> {
    /// Checks that the parts fit together.
    pub fn new(
        queries: Matrix<'a>,
        item_table: impl Into<ItemTable<'a>>,
        item_bias: Option<&'a [f32]>,
        similarity: Similarity,
        overrides: Option<Overrides<'a>>,
        level: Level,
    ) -> Result<Self, Error> {
        let dimension = |argument, columns| {
            if columns == queries.columns {
                return Ok(());
            }
            Err(Error::invalid(
                argument,
                format_args!("rows of {columns} numbers"),
                format_args!("{}, the dimension of the queries", queries.columns),
            ))
        };
        let item_table = item_table.into();
        item_table.check()?;
        dimension("item_table", item_table.columns())?;
        if let Some(overrides) = overrides {
            dimension("overrides[2]", overrides.rows.columns)?;
        }
        if let Some(bias) = item_bias
            && bias.len() != item_table.rows()
        {
            return Err(Error::invalid(
                "item_bias",
                format_args!("{} numbers", bias.len()),
                format_args!("{}, one for each item", item_table.rows()),
            ));
        }
        Ok(Self {
            queries,
            item_table,
            item_bias,
            similarity,
            overrides,
            level,
            estimates: EstimateKind::WhatPays,
        })
    }

    /// Consecutive rows of the item table; `room` is for rows that have to be written out.
    pub(super) fn rows_of<'b>(&self, items: Range<usize>, room: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        self.item_table.rows_of(self.level, items, room)
    }

    /// The row of an item for one query; `room` is for a row that has to be written out.
    pub(super) fn item_row<'b>(
        &self,
        query: usize,
        item: usize,
        room: &'b mut Vec<f32>,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        self.overrides
            .and_then(|overrides| Some(overrides.rows.row(overrides.find(query, item as i64)?)))
            .unwrap_or_else(|| self.rows_of(item..item + 1, room))
    }

    /// |q|² in the arithmetic of the catalogue kernel; 0 where the similarity does not need it.
    pub(super) fn query_norm(&self, query: usize) -> f32 {
        let row = self.queries.row(query);
        match self.similarity {
            Similarity::Dot => 0.0,
            Similarity::L2 | Similarity::SquaredL2 => simd::sequential_dot(self.level, row, row),
        }
    }

    /// The score of one pair, with the bits that the catalogue kernel gives it.
    ///
    /// `row` is the row of `item`, or the one that replaces it.
    pub(super) fn pair_score(
        &self,
        query: usize,
        query_norm: f32,
        item: usize,
        row: &[f32],
    ) -> f32 {
        let query_row = self.queries.row(query);
        let dot = simd::sequential_dot(self.level, query_row, row);
        let score = match self.similarity {
            Similarity::Dot => dot,
            Similarity::L2 | Similarity::SquaredL2 => {
                let norm = simd::sequential_dot(self.level, row, row);
                let distance = simd::squared_distance_from_dot(dot, query_norm, norm);
                let distance = if distance.is_finite() {
                    distance
                } else {
                    self.exact_squared_distance(query, row)
                };
                simd::score_from_squared_distance(distance, self.similarity.takes_root())
            }
        };
        self.item_bias.map_or(score, |bias| score + bias[item])
    }

    /// ‖q − e‖² from the differences, for pairs whose |q|² + |e|² − 2 q·e is not finite.
    pub(super) fn exact_squared_distance(&self, query: usize, row: &[f32]) -> f32 {
        simd::sequential_squared_distance(self.level, self.queries.row(query), row)
    }
}
