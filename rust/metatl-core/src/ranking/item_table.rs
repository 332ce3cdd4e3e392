//! Item tables in `f32`, and rounded to fewer bits.

use std::ops::Range;

use super::inputs::Matrix;
use crate::Error;
use crate::simd::{self, Level};

/// One row of numbers for each item.
///
/// Rows in fewer bits are written out as `f32`, a few at a time, and scored as such rows are: what comes out is
/// that of the table written out, to the last bit.
#[derive(Clone, Copy, Debug)]
pub enum ItemTable<'a> {
    /// As models compute them.
    Float32(Matrix<'a>),
    /// The upper halves of `f32`.
    Bf16(Matrix<'a, u16>),
    /// Whole numbers, to be multiplied with the scale of their row.
    Int8 {
        /// The whole numbers.
        codes: Matrix<'a, i8>,
        /// One scale for each item.
        scales: &'a [f32],
    },
}

impl<'a> From<Matrix<'a>> for ItemTable<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self::Float32(matrix)
    }
}

impl<'a> ItemTable<'a> {
    /// Number of items.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Float32(matrix) => matrix.rows(),
            Self::Bf16(matrix) => matrix.rows(),
            Self::Int8 { codes, .. } => codes.rows(),
        }
    }

    /// Numbers of an item.
    #[must_use]
    pub fn columns(&self) -> usize {
        match self {
            Self::Float32(matrix) => matrix.columns(),
            Self::Bf16(matrix) => matrix.columns(),
            Self::Int8 { codes, .. } => codes.columns(),
        }
    }

    /// Checks that there is one scale for each item, and that it is a number.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Self::Int8 { codes, scales } = self else {
            return Ok(());
        };
        let argument = "item_table[1]";
        if scales.len() != codes.rows() {
            return Err(Error::invalid(
                argument,
                format_args!("{} scales", scales.len()),
                format_args!("{}, one for each item", codes.rows()),
            ));
        }
        match scales.iter().filter(|scale| !scale.is_finite()).count() {
            0 => Ok(()),
            count => Err(Error::invalid(
                argument,
                format_args!("{count} scales that are not finite"),
                "none",
            )),
        }
    }

    /// Consecutive rows in `f32`, one after the other; `room` is for those that have to be written out.
    #[inline]
    pub(super) fn rows_of<'b>(
        &self,
        level: Level,
        rows: Range<usize>,
        room: &'b mut Vec<f32>,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        if let Self::Float32(matrix) = self {
            return matrix.rows_of(rows);
        }
        room.resize(rows.len() * self.columns(), 0.0);
        self.write_rows(level, rows, room);
        room
    }

    /// Writes rows in `f32`, one after the other.
    pub(super) fn write_rows(
        &self,
        level: Level,
        rows: impl ExactSizeIterator<Item = usize>,
        to: &mut [f32],
    ) {
        let columns = self.columns();
        match self {
            Self::Float32(matrix) => {
                for (row, to) in rows.zip(to.chunks_exact_mut(columns.max(1))) {
                    to.copy_from_slice(matrix.row(row));
                }
            }
            Self::Bf16(bits) => simd::widen_bf16(level, bits.values(), columns, rows, to),
            Self::Int8 { codes, scales } => {
                simd::widen_int8(level, codes.values(), scales, columns, rows, to);
            }
        }
    }

    /// Asks for some numbers, counted row by row, that will be needed before long.
    #[inline]
    pub(super) fn prefetch(&self, numbers: Range<usize>) {
        match self {
            Self::Float32(matrix) => simd::prefetch(&matrix.values()[numbers]),
            Self::Bf16(matrix) => simd::prefetch(&matrix.values()[numbers]),
            Self::Int8 { codes, .. } => simd::prefetch(&codes.values()[numbers]),
        }
    }

    /// Asks for a row that will be needed before long, wherever in its cache lines it begins.
    #[inline]
    pub(super) fn prefetch_row(&self, row: usize) {
        let columns = self.columns();
        let end = (row + 1) * columns;
        self.prefetch(row * columns..end);
        self.prefetch(end.saturating_sub(1)..end);
        if let Self::Int8 { scales, .. } = self {
            simd::prefetch(&scales[row..=row]);
        }
    }
}
