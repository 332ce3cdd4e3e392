//! The score of a query and an item.

use std::ops::Range;

use super::inputs::{Matrix, Overrides};
use super::item_table::ItemTable;
use crate::Error;
use crate::simd::{self, Level};

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

    /// Whether the score uses the distance and not its square.
    pub(crate) fn takes_root(self) -> bool {
        self == Self::L2
    }
}

/// The inputs of all scores of a call, checked.
#[derive(Clone, Copy, Debug)]
pub struct Scoring<'a> {
    pub(super) queries: Matrix<'a>,
    pub(super) item_table: ItemTable<'a>,
    pub(super) item_bias: Option<&'a [f32]>,
    pub(super) similarity: Similarity,
    pub(super) overrides: Option<Overrides<'a>>,
    pub(super) level: Level,
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
            if columns == queries.columns() {
                return Ok(());
            }
            Err(Error::invalid(
                argument,
                format_args!("rows of {columns} numbers"),
                format_args!("{}, the dimension of the queries", queries.columns()),
            ))
        };
        let item_table = item_table.into();
        item_table.check()?;
        dimension("item_table", item_table.columns())?;
        if let Some(overrides) = overrides {
            dimension("overrides[2]", overrides.rows().columns())?;
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
        // The norms of an arranged table and the scores have to be computed in the same way.
        let level = match item_table {
            ItemTable::Panels(table) => table.level(),
            _ => level,
        };
        Ok(Self {
            queries,
            item_table,
            item_bias,
            similarity,
            overrides,
            level,
        })
    }

    /// Consecutive rows of the item table. A table in fewer bits writes them to `buffer` as `f32`.
    pub(super) fn rows_of<'b>(&self, items: Range<usize>, buffer: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        self.item_table.rows_of(self.level, items, buffer)
    }

    /// The row of an item for one query: its override, if there is one. A table in fewer bits writes it to
    /// `buffer` as `f32`.
    pub(super) fn item_row<'b>(
        &self,
        query: usize,
        item: usize,
        buffer: &'b mut Vec<f32>,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        self.overrides
            .and_then(|overrides| Some(overrides.rows().row(overrides.find(query, item as i64)?)))
            .unwrap_or_else(|| self.rows_of(item..item + 1, buffer))
    }

    /// |q|², with the same operations as the catalogue kernel; 0 where the similarity does not need it.
    pub(super) fn query_norm(&self, query: usize) -> f32 {
        let row = self.queries.row(query);
        match self.similarity {
            Similarity::Dot => 0.0,
            Similarity::L2 | Similarity::SquaredL2 => simd::sequential_dot(self.level, row, row),
        }
    }

    /// The score of one pair, with the same bits as in the catalogue kernel.
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

    /// ‖q − e‖² computed from the differences, for pairs whose |q|² + |e|² − 2 q·e is not finite.
    pub(super) fn exact_squared_distance(&self, query: usize, row: &[f32]) -> f32 {
        simd::sequential_squared_distance(self.level, self.queries.row(query), row)
    }
}
