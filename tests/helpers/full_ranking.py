"""Ranking of a model's whole catalogue."""

from __future__ import annotations

from metatl.ranking.blocks import RankCounts
from metatl.ranking.rank import encode_blocks


def rank_catalogue(model, histories, targets, excluded, **options):
    """RankCounts of each user's target (B,) among the catalogue except the excluded items."""
    counts = RankCounts.empty(len(histories))
    for rows, block in encode_blocks(model, histories, **options):
        counts.greater[rows], counts.equal[rows] = block.rank_catalogue(targets[rows], excluded.select(rows))
    return counts
