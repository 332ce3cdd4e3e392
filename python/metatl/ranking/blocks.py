"""Blocks: users that a model has encoded or scored, ready to be ranked by the Rust kernels.

The kernels count how many items beat the target and how many equal it; `metatl.metrics.rank_metrics` applies
the tie rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from metatl.common.timings import Timings
    from metatl.data.histories import Histories
    from metatl.models.contract import PairwiseModel, Similarity
    from metatl.ranking.item_tables import ItemTable


class RankCounts(NamedTuple):
    """How each user's target compares with its negatives.

    Attributes
    ----------
    greater : ndarray
        (B,) int64, negatives scored above the target.
    equal : ndarray
        (B,) int64, negatives scored exactly as the target.
    """

    greater: np.ndarray
    equal: np.ndarray


class TopItems(NamedTuple):
    """The best items of each user, best first; ties by lower id.

    Attributes
    ----------
    items : ndarray
        (B, n) int64; -1 where there are no more items.
    scores : ndarray
        (B, n) float32; -inf where there are no more items.
    """

    items: np.ndarray
    scores: np.ndarray


class Block(Protocol):
    """Users of a model, ready to be ranked in more than one way."""

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """Compare the targets, column 0 of candidates (b, 1 + n), with the other columns."""
        ...

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """Compare the targets (b,) with the catalogue except the excluded items."""
        ...

    def top_n(self, n: int, excluded: Histories) -> TopItems:
        """Find the n best items except the excluded ones."""
        ...


class FactorisedBlock(NamedTuple):
    """Queries of some users and the catalogue that they meet.

    Attributes
    ----------
    queries : ndarray
        (b, d) float32.
    item_table : ItemTable
        (I, d).
    item_bias : ndarray or None
        (I,) float32.
    similarity : {"dot", "l2", "squared_l2"}
        How a query meets an item.
    overrides : tuple of ndarray or None
        (b + 1,) and (N,) int64, (N, d) float32: item vectors that hold for one user alone.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Gains the stage ``rank``.
    """

    queries: np.ndarray
    item_table: ItemTable
    item_bias: np.ndarray | None
    similarity: Similarity
    overrides: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    num_threads: int | None
    timings: Timings

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """Compare the targets, column 0 of candidates (b, 1 + n), with the other columns."""
        with self.timings.stage("rank"):
            counts = _metatl.rank_candidates(
                self.queries,
                self.item_table.arrays,
                candidates,
                item_bias=self.item_bias,
                similarity=self.similarity,
                overrides=self.overrides,
                num_threads=self.num_threads,
            )
        return RankCounts(*counts)

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """Compare the targets (b,) with the catalogue except the excluded items."""
        with self.timings.stage("rank"):
            counts = _metatl.rank_catalogue(
                self.queries,
                self.item_table.arrays,
                targets,
                excluded.indptr,
                excluded.items,
                item_bias=self.item_bias,
                similarity=self.similarity,
                overrides=self.overrides,
                num_threads=self.num_threads,
            )
        return RankCounts(*counts)

    def top_n(self, n: int, excluded: Histories) -> TopItems:
        """Find the n best items except the excluded ones."""
        best = _metatl.top_n(
            self.queries,
            self.item_table.arrays,
            n,
            excluded.indptr,
            excluded.items,
            item_bias=self.item_bias,
            similarity=self.similarity,
            overrides=self.overrides,
            num_threads=self.num_threads,
        )
        return TopItems(*best)


class ScoredBlock(NamedTuple):
    """Scores of some users for the whole catalogue.

    Attributes
    ----------
    scores : ndarray
        (b, I) float32.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Gains the stage ``rank``.
    """

    scores: np.ndarray
    num_threads: int | None
    timings: Timings

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """Compare the targets, column 0 of candidates (b, 1 + n), with the other columns."""
        with self.timings.stage("rank"):
            check_items("candidates", candidates, self.scores.shape[1])
            chosen = np.take_along_axis(self.scores, candidates, axis=1)
            counts = _metatl.rank_scores(chosen, num_threads=self.num_threads)
        return RankCounts(*counts)

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """Compare the targets (b,) with the catalogue except the excluded items."""
        with self.timings.stage("rank"):
            counts = _metatl.rank_score_matrix(
                self.scores, targets, excluded.indptr, excluded.items, num_threads=self.num_threads
            )
        return RankCounts(*counts)

    def top_n(self, n: int, excluded: Histories) -> TopItems:
        """Find the n best items except the excluded ones."""
        best = _metatl.top_n_scores(
            self.scores, n, excluded.indptr, excluded.items, num_threads=self.num_threads
        )
        return TopItems(*best)


@dataclass(frozen=True, eq=False)
class PairwiseBlock:
    """Some users, whose pairs with items a model scores when they are ranked.

    Attributes
    ----------
    model : PairwiseModel
        The model.
    adapted
        What the model knows of each user.
    num_users : int
        b.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Gains the stage ``rank``.
    """

    model: PairwiseModel
    adapted: Any
    num_users: int
    num_threads: int | None
    timings: Timings

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """Compare the targets, column 0 of candidates (b, 1 + n), with the other columns."""
        with self.timings.stage("rank"):
            check_items("candidates", candidates, self.model.num_items)
            counts = _metatl.rank_scores(self._score(candidates), num_threads=self.num_threads)
        return RankCounts(*counts)

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """Compare the targets (b,) with the catalogue except the excluded items."""
        return self._catalogue.rank_catalogue(targets, excluded)

    def top_n(self, n: int, excluded: Histories) -> TopItems:
        """Find the n best items except the excluded ones."""
        return self._catalogue.top_n(n, excluded)

    @cached_property
    def _catalogue(self) -> ScoredBlock:
        """The scores of all pairs, which all rankings of the block share."""
        items = np.arange(self.model.num_items)
        with self.timings.stage("rank"):
            scores = self._score(np.tile(items, (self.num_users, 1)))
        return ScoredBlock(scores, self.num_threads, self.timings)

    def _score(self, candidates: np.ndarray) -> np.ndarray:
        import torch

        ids = torch.from_numpy(np.ascontiguousarray(candidates)).to(self.model.device)
        return to_array(self.model.score_pairs(self.adapted, ids))


def to_array(tensor: Tensor) -> np.ndarray:
    """Give a tensor as a C-contiguous array: a view, or a copy from an accelerator or of a strided tensor."""
    array: np.ndarray = tensor.detach().cpu().contiguous().numpy()
    return array


def check_items(name: str, items: np.ndarray, num_items: int) -> None:
    """Check that every item is one of the catalogue: numpy would take -1 for the last one."""
    outside = items[(items < 0) | (items >= num_items)]
    if len(outside):
        raise InvalidArgumentError(f"{name}: found item {outside[0]}, expected 0 to {num_items - 1}")
