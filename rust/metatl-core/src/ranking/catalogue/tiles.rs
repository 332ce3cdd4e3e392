//! The scores of a piece, one tile at a time.

use std::ops::Range;

use super::changes::Changes;
use super::panel::{Panel, blocks_of_zeros};
use super::plan::Piece;
use crate::Error;
use crate::parallel::Interrupt;
use crate::ranking::item_table::ItemTable;
use crate::ranking::panel_table::PanelNumbers;
use crate::ranking::scoring::{Scoring, Similarity};
use crate::simd::{self, LANES, Lanes, QUERIES, QueryCoordinates, Tile};

/// Up to this many queries are compared with the untransposed rows: transposing would take longer.
const FEW_QUERIES: usize = 3;

/// Some queries and items, and the queries' squared norms.
pub(super) struct Tiles<'a> {
    scoring: &'a Scoring<'a>,
    queries: Range<usize>,
    items: Range<usize>,
    /// The coordinates of the queries in blocks, one after the other. Lanes after the last query hold zeros.
    packed: Vec<QueryCoordinates>,
    /// |q|² in blocks. Lanes after the last query hold zeros.
    norms: Vec<QueryCoordinates>,
}

impl<'a> Tiles<'a> {
    pub(super) fn new(scoring: &'a Scoring<'a>, piece: &Piece) -> Self {
        let packed = pack_queries(scoring, piece.queries.clone());
        let mut norms = blocks_of_zeros(piece.queries.len());
        if scoring.similarity != Similarity::Dot {
            let blocks = packed.chunks(scoring.queries.columns().max(1));
            for (norms, block) in norms.iter_mut().zip(blocks) {
                *norms = simd::block_norms(scoring.level, block);
            }
        }
        Self {
            scoring,
            queries: piece.queries.clone(),
            items: piece.items.clone(),
            packed,
            norms,
        }
    }

    /// |q|² of the queries, in blocks.
    pub(super) fn query_norms(&self) -> &[QueryCoordinates] {
        &self.norms
    }

    /// Calls `visit` (block of queries, items, scores) for every tile, panel by panel, and returns how many scores
    /// became NaN because their item is left out.
    ///
    /// An item that is not `allowed` is left out for every query. A panel without an allowed item is not visited.
    pub(super) fn for_each(
        &self,
        changes: &Changes,
        allowed: Option<&[bool]>,
        interrupt: &Interrupt,
        mut visit: impl FnMut(usize, Range<usize>, &Tile),
    ) -> Result<u64, Error> {
        let scoring = self.scoring;
        let dimension = scoring.queries.columns();
        let transposed = self.queries.len() > FEW_QUERIES;
        let mut panel = Panel::new(dimension);
        let mut buffer = Vec::new();
        let mut changes = changes.sorted.iter().peekable();
        let mut tile = Tile::EMPTY;
        let next_part = (LANES * dimension).div_ceil(self.norms.len().max(1)).max(1);
        let mut left_out = 0;
        for first in self.items.clone().step_by(LANES) {
            interrupt.check()?;
            let items = first..(first + LANES).min(self.items.end);
            let allowed = allowed.map(|allowed| &allowed[items.clone()]);
            if allowed.is_some_and(|allowed| !allowed.contains(&true)) {
                while changes
                    .next_if(|change| change.first_item == first)
                    .is_some()
                {}
                continue;
            }
            let arranged = match scoring.item_table {
                ItemTable::Panels(table) => Some((table, first / LANES)),
                _ => None,
            };
            let rows = match arranged {
                Some(_) => &[],
                None => scoring.rows_of(items.clone(), &mut buffer),
            };
            let coordinates = match arranged {
                Some((table, index)) if transposed => {
                    panel.item_norms = *table.norms(index);
                    table.coordinates(index, &mut panel.coordinates)
                }
                None if transposed => {
                    panel.fill(scoring, rows, items.len());
                    &panel.coordinates
                }
                _ => &[],
            };
            if let Some(bias) = scoring.item_bias {
                panel.item_bias.0[..items.len()].copy_from_slice(&bias[items.clone()]);
            }
            // The rows of the next panel are prefetched while the blocks of this panel are computed.
            let mut prefetched = items.end * dimension;
            let end_of_next = (items.end + LANES).min(self.items.end) * dimension;
            for (block, norms) in self.norms.iter().enumerate() {
                if transposed {
                    if prefetched < end_of_next {
                        let part = prefetched..(prefetched + next_part).min(end_of_next);
                        prefetched = part.end;
                        scoring.item_table.prefetch(part);
                    }
                    let packed = &self.packed[block * dimension..][..dimension];
                    simd::dot_tile(scoring.level, coordinates, packed, &mut tile);
                } else if let Some((table, index)) = arranged {
                    panel.item_norms = *table.norms(index);
                    self.fill_tile_from(table.numbers(index), &mut tile);
                } else {
                    self.fill_tile_untransposed(rows, &mut panel.item_norms, &mut tile);
                }
                self.finish_tile(
                    &panel.item_norms,
                    &panel.item_bias,
                    &items,
                    block,
                    norms,
                    &mut tile,
                );
                while let Some(change) = changes
                    .next_if(|change| change.first_item == first && change.query / QUERIES == block)
                {
                    if allowed.is_none_or(|allowed| allowed[change.lane]) {
                        tile.0[change.query % QUERIES][change.lane] = change.score;
                        left_out += u64::from(change.left_out);
                    }
                }
                if let Some(allowed) = allowed {
                    let queries = (self.queries.len() - block * QUERIES).min(QUERIES);
                    left_out += leave_out(allowed, &mut tile.0[..queries]);
                }
                visit(block, items.clone(), &tile);
            }
        }
        Ok(left_out)
    }

    /// The dot products of a few queries with untransposed rows, and the items' squared norms.
    fn fill_tile_untransposed(&self, rows: &[f32], item_norms: &mut Lanes, tile: &mut Tile) {
        for (query, products) in self.queries.clone().zip(&mut tile.0) {
            let query = self.scoring.queries.row(query);
            simd::sequential_dots(self.scoring.level, query, rows, products, item_norms);
        }
    }

    /// The dot products of a few queries with the items of a panel of an arranged table.
    fn fill_tile_from(&self, numbers: PanelNumbers, tile: &mut Tile) {
        let level = self.scoring.level;
        for (query, products) in self.queries.clone().zip(&mut tile.0) {
            let query = self.scoring.queries.row(query);
            match numbers {
                PanelNumbers::Float32(panel) => simd::panel_dots(level, query, panel, products),
                PanelNumbers::Bf16(bits) => simd::panel_dots_bf16(level, query, bits, products),
                PanelNumbers::Int8(codes, scales) => {
                    simd::panel_dots_int8(level, query, codes, scales, products);
                }
            }
        }
    }

    /// Turns the dot products of a tile into scores, with the same operations as [`Scoring::pair_score`].
    fn finish_tile(
        &self,
        item_norms: &Lanes,
        item_bias: &Lanes,
        items: &Range<usize>,
        block: usize,
        query_norms: &QueryCoordinates,
        tile: &mut Tile,
    ) {
        let (scoring, level) = (self.scoring, self.scoring.level);
        let queries = self.queries.clone().skip(block * QUERIES);
        let rows = &mut tile.0[..queries.len().min(QUERIES)];
        if scoring.similarity == Similarity::Dot {
            if scoring.item_bias.is_some() {
                simd::add_bias_to_tile(level, rows, item_bias);
            }
            return;
        }
        let root = scoring.similarity.takes_root();
        if simd::tile_to_scores(level, rows, query_norms, item_norms, item_bias, root) {
            return;
        }
        let mut buffer = Vec::new();
        let item_rows = scoring.rows_of(items.clone(), &mut buffer);
        for (query, scores) in queries.zip(rows) {
            let item_rows = item_rows.chunks_exact(scoring.queries.columns().max(1));
            for ((row, score), bias) in item_rows.zip(scores).zip(&item_bias.0) {
                if !score.is_finite() {
                    let distance = scoring.exact_squared_distance(query, row);
                    *score = simd::score_from_squared_distance(distance, root) + bias;
                }
            }
        }
    }
}

/// Writes NaN as the score of every item that is not allowed, and returns how many.
fn leave_out(allowed: &[bool], rows: &mut [[f32; LANES]]) -> u64 {
    let mut left_out = 0;
    for lane in (0..allowed.len()).filter(|&lane| !allowed[lane]) {
        for scores in &mut *rows {
            scores[lane] = f32::NAN;
        }
        left_out += rows.len() as u64;
    }
    left_out
}

/// The queries in blocks, coordinate by coordinate. Lanes after the last query hold zeros.
fn pack_queries(scoring: &Scoring, queries: Range<usize>) -> Vec<QueryCoordinates> {
    let dimension = scoring.queries.columns();
    let blocks = queries.len().div_ceil(QUERIES);
    let mut packed = vec![[0.0; QUERIES]; blocks * dimension];
    for (offset, query) in queries.enumerate() {
        let block = &mut packed[offset / QUERIES * dimension..][..dimension];
        for (coordinates, &coordinate) in block.iter_mut().zip(scoring.queries.row(query)) {
            coordinates[offset % QUERIES] = coordinate;
        }
    }
    packed
}
