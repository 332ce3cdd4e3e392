//! Item tables in `f32` and in formats with fewer bits.

use std::ops::Range;

use super::inputs::Matrix;
use super::panel_table::PanelTable;
use crate::Error;
use crate::simd::{self, Level};

/// One row of numbers for each item.
///
/// Rows in fewer bits are widened to `f32`, a few at a time, before they are scored. Results are the same, to the
/// last bit, as those of the widened table.
#[derive(Clone, Copy, Debug)]
pub enum ItemTable<'a> {
    /// The numbers themselves.
    Float32(Matrix<'a>),
    /// The upper halves of `f32`.
    Bf16(Matrix<'a, u16>),
    /// Integers that are multiplied by the scale of their row.
    Int8 {
        /// The integers.
        codes: Matrix<'a, i8>,
        /// One scale for each item.
        scales: &'a [f32],
    },
    /// Any of these, arranged for the catalogue kernels.
    Panels(&'a PanelTable),
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
            Self::Panels(table) => table.rows(),
        }
    }

    /// Numbers per item.
    #[must_use]
    pub fn columns(&self) -> usize {
        match self {
            Self::Float32(matrix) => matrix.columns(),
            Self::Bf16(matrix) => matrix.columns(),
            Self::Int8 { codes, .. } => codes.columns(),
            Self::Panels(table) => table.columns(),
        }
    }

    /// Checks that there is one finite scale for each item.
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

    /// Consecutive rows in `f32`. A table in fewer bits widens them into `buffer`.
    #[inline]
    pub(super) fn rows_of<'b>(
        &self,
        level: Level,
        rows: Range<usize>,
        buffer: &'b mut Vec<f32>,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        if let Self::Float32(matrix) = self {
            return matrix.rows_of(rows);
        }
        buffer.resize(rows.len() * self.columns(), 0.0);
        self.write_rows(level, rows, buffer);
        buffer
    }

    /// Writes rows as `f32`, one after the other.
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
            Self::Panels(table) => table.write_rows(rows, to),
        }
    }

    /// Prefetches a range of the table's numbers.
    #[inline]
    pub(super) fn prefetch(&self, numbers: Range<usize>) {
        match self {
            Self::Float32(matrix) => simd::prefetch(&matrix.values()[numbers]),
            Self::Bf16(matrix) => simd::prefetch(&matrix.values()[numbers]),
            Self::Int8 { codes, .. } => simd::prefetch(&codes.values()[numbers]),
            // Read from front to back, which the processor foresees.
            Self::Panels(_) => {}
        }
    }

    /// Prefetches a row, wherever in its cache lines it begins.
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
