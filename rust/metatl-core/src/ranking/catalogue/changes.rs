//! Scores that differ from those of the item table: of items that are left out, and of overridden rows.

use super::plan::Piece;
use crate::ranking::scoring::Scoring;
use crate::simd::{LANES, QueryCoordinates};

/// The changes to the tiles of a piece.
pub(super) struct Changes {
    /// Sorted by panel, then by query: the order of the tiles.
    pub(super) sorted: Vec<Change>,
}

/// One score of a tile that is replaced.
pub(super) struct Change {
    /// The first item of the panel.
    pub(super) first_item: usize,
    pub(super) lane: usize,
    /// The query, counted from the first query of the piece.
    pub(super) query: usize,
    pub(super) score: f32,
    /// Whether the item is left out: then the score is NaN.
    pub(super) left_out: bool,
}

impl Changes {
    /// `leave_out` (query, items) writes the items that do not count for a query to `items`, ascending and
    /// distinct.
    pub(super) fn new(
        scoring: &Scoring,
        piece: &Piece,
        query_norms: &[QueryCoordinates],
        leave_out: impl Fn(usize, &mut Vec<i64>),
    ) -> Self {
        let mut sorted = Vec::new();
        let mut items = Vec::new();
        let change = |item: usize, offset, score, left_out| {
            let lane = (item - piece.items.start) % LANES;
            Change {
                first_item: item - lane,
                lane,
                query: offset,
                score,
                left_out,
            }
        };
        for (offset, query) in piece.queries.clone().enumerate() {
            leave_out(query, &mut items);
            for item in items.iter().map(|&item| item as usize) {
                if piece.items.contains(&item) {
                    sorted.push(change(item, offset, f32::NAN, true));
                }
            }
            let Some(overrides) = scoring.overrides else {
                continue;
            };
            for (position, &item) in overrides.items(query).iter().enumerate() {
                if piece.items.contains(&(item as usize)) && items.binary_search(&item).is_err() {
                    let row = overrides.row(query, position);
                    let norm = query_norms.as_flattened()[offset];
                    let score = scoring.pair_score(query, norm, item as usize, row);
                    sorted.push(change(item as usize, offset, score, false));
                }
            }
        }
        sorted.sort_unstable_by_key(|change| (change.first_item, change.query));
        Self { sorted }
    }
}
