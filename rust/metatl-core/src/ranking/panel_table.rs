//! Item tables in the order in which the catalogue kernels read them.

use super::inputs::Matrix;
use super::item_table::ItemTable;
use crate::Error;
use crate::parallel::{Interrupt, allocate, for_each_chunk};
use crate::simd::{self, LANES, Lanes, Level};

/// Panels that are arranged as one unit of work.
const CHUNK: usize = 64;

/// A table whose panels of [`LANES`] items are transposed, with the items' squared norms: for tables that rank again
/// and again. Scores have the same bits as those of the table that it is made from.
#[derive(Debug)]
pub struct PanelTable {
    numbers: Numbers,
    norms: Vec<Lanes>,
    rows: usize,
    columns: usize,
    level: Level,
}

/// Coordinate k of the items of panel p is at p · columns + k, one item in each lane. Lanes after the last item hold
/// zeros.
#[derive(Debug)]
enum Numbers {
    Float32(Vec<Lanes>),
    Bf16(Vec<[u16; LANES]>),
    /// Integers, and one scale for each item.
    Int8(Vec<[i8; LANES]>, Vec<Lanes>),
}

/// The numbers of one panel.
#[derive(Clone, Copy)]
pub(super) enum PanelNumbers<'a> {
    Float32(&'a [Lanes]),
    Bf16(&'a [[u16; LANES]]),
    Int8(&'a [[i8; LANES]], &'a Lanes),
}

const ZEROS: Lanes = Lanes([0.0; LANES]);

impl PanelTable {
    /// Arranges a table, for kernels of a level.
    pub fn new(table: ItemTable, level: Level, interrupt: &Interrupt) -> Result<Self, Error> {
        table.check()?;
        let (rows, columns) = (table.rows(), table.columns());
        let panels = rows.div_ceil(LANES);
        let numbers = match table {
            ItemTable::Float32(matrix) => Numbers::Float32(arrange(
                matrix,
                interrupt,
                |lanes: &mut Lanes, lane, number| {
                    lanes.0[lane] = number;
                },
            )?),
            ItemTable::Bf16(matrix) => Numbers::Bf16(arrange(
                matrix,
                interrupt,
                |lanes: &mut [u16; LANES], lane, bits| {
                    lanes[lane] = bits;
                },
            )?),
            ItemTable::Int8 { codes, scales } => {
                let codes = arrange(codes, interrupt, |lanes: &mut [i8; LANES], lane, code| {
                    lanes[lane] = code;
                })?;
                let mut of_panels = allocate(panels, 1)?;
                for (lanes, scales) in of_panels.iter_mut().zip(scales.chunks(LANES)) {
                    let lanes: &mut Lanes = lanes;
                    lanes.0[..scales.len()].copy_from_slice(scales);
                }
                Numbers::Int8(codes, of_panels)
            }
            ItemTable::Panels(_) => {
                return Err(Error::invalid(
                    "item_table",
                    "an arranged table",
                    "rows of numbers",
                ));
            }
        };
        let mut arranged = Self {
            numbers,
            norms: allocate(panels, 1)?,
            rows,
            columns,
            level,
        };
        let mut norms = std::mem::take(&mut arranged.norms);
        for_each_chunk(
            norms.chunks_mut(CHUNK),
            interrupt,
            // A table without rows may have any number of columns.
            || vec![ZEROS; if panels == 0 { 0 } else { columns }],
            |buffer, index, norms| {
                for (panel, norms) in (index * CHUNK..).zip(norms) {
                    *norms = simd::panel_norms(level, arranged.coordinates(panel, buffer));
                }
                Ok(())
            },
        )?;
        arranged.norms = norms;
        Ok(arranged)
    }

    /// Number of items.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers per item.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The instruction set that the norms were computed with; scores have to use the same.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The squared norms of the items of a panel.
    pub(super) fn norms(&self, panel: usize) -> &Lanes {
        &self.norms[panel]
    }

    /// The numbers of a panel.
    pub(super) fn numbers(&self, panel: usize) -> PanelNumbers<'_> {
        let part = panel * self.columns..(panel + 1) * self.columns;
        match &self.numbers {
            Numbers::Float32(numbers) => PanelNumbers::Float32(&numbers[part]),
            Numbers::Bf16(bits) => PanelNumbers::Bf16(&bits[part]),
            Numbers::Int8(codes, scales) => PanelNumbers::Int8(&codes[part], &scales[panel]),
        }
    }

    /// The numbers of a panel in `f32`. A table in fewer bits writes them to `buffer`.
    pub(super) fn coordinates<'a>(&'a self, panel: usize, buffer: &'a mut [Lanes]) -> &'a [Lanes] {
        match self.numbers(panel) {
            PanelNumbers::Float32(numbers) => return numbers,
            PanelNumbers::Bf16(bits) => simd::widen_panel_bf16(self.level, bits, buffer),
            PanelNumbers::Int8(codes, scales) => {
                simd::widen_panel_int8(self.level, codes, scales, buffer);
            }
        }
        buffer
    }

    /// Writes rows as `f32`, one after the other.
    pub(super) fn write_rows(&self, rows: impl ExactSizeIterator<Item = usize>, to: &mut [f32]) {
        for (row, to) in rows.zip(to.chunks_exact_mut(self.columns.max(1))) {
            let (panel, lane) = (row / LANES, row % LANES);
            match self.numbers(panel) {
                PanelNumbers::Float32(numbers) => {
                    for (to, lanes) in to.iter_mut().zip(numbers) {
                        *to = lanes.0[lane];
                    }
                }
                PanelNumbers::Bf16(bits) => {
                    for (to, lanes) in to.iter_mut().zip(bits) {
                        *to = f32::from_bits(u32::from(lanes[lane]) << 16);
                    }
                }
                PanelNumbers::Int8(codes, scales) => {
                    for (to, lanes) in to.iter_mut().zip(codes) {
                        *to = f32::from(lanes[lane]) * scales.0[lane];
                    }
                }
            }
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        ZEROS
    }
}

/// Transposes the panels of a matrix; `set` (lanes, lane, number) writes one number.
fn arrange<T: Copy + Sync, L: Clone + Default + Send>(
    matrix: Matrix<T>,
    interrupt: &Interrupt,
    set: impl Fn(&mut L, usize, T) + Sync,
) -> Result<Vec<L>, Error> {
    let columns = matrix.columns();
    let mut arranged = allocate(matrix.rows().div_ceil(LANES), columns)?;
    if columns == 0 {
        return Ok(arranged);
    }
    for_each_chunk(
        arranged.chunks_mut(CHUNK * columns),
        interrupt,
        || (),
        |(), index, panels| {
            for (panel, lanes) in (index * CHUNK..).zip(panels.chunks_mut(columns)) {
                let first = panel * LANES;
                for row in first..(first + LANES).min(matrix.rows()) {
                    for (lanes, &number) in lanes.iter_mut().zip(matrix.row(row)) {
                        set(lanes, row - first, number);
                    }
                }
            }
            Ok(())
        },
    )?;
    Ok(arranged)
}
