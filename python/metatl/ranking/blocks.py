"""Blocks: users that a model has encoded or scored, for whom the Rust kernels rank items.

The kernels count the items that score above the target and those that score the same;
`metatl.metrics.rank_metrics` applies the tie rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from metatl import _metatl
from metatl.data.histories import Histories, join_rows
from metatl.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from metatl.common.timings import Timings
    from metatl.models.contract import PairwiseModel, Similarity
    from metatl.ranking.item_tables import ItemTable


class RankCounts(NamedTuple):
    """Counts of the negatives above and level with each user's target.

    Attributes
    ----------
    greater : ndarray
        (B,) int64, negatives with a higher score than the target.
    equal : ndarray
        (B,) int64, negatives with exactly the same score as the target.
    """

    greater: np.ndarray
    equal: np.ndarray

    @classmethod
    def empty(cls, users: int) -> RankCounts:
        """Return uninitialised counts of B users, to be filled block by block."""
        return cls(np.empty(users, np.int64), np.empty(users, np.int64))


class TopItems(NamedTuple):
    """The best items of each user, best first; the lower index wins a tie.

    Attributes
    ----------
    items : ndarray
        (B, n) int64, item indices; -1 fills short rows.
    scores : ndarray
        (B, n) float32; -inf fills short rows.
    """

    items: np.ndarray
    scores: np.ndarray


class Block(Protocol):
    """b users of a model, for whom items can be ranked in several ways."""

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """Compare each user's target with the user's other candidates.

        Parameters
        ----------
        candidates : ndarray
            (b, 1 + n) int64, the target in column 0.

        Raises
        ------
        InvalidArgumentError
            If a candidate is outside the catalogue.
        NotANumberError
            If a score is NaN.
        """
        ...

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """Compare each user's target with the whole catalogue except the excluded items.

        Parameters
        ----------
        targets : ndarray
            (b,) int64.
        excluded : Histories
            b rows of item indices.

        Raises
        ------
        InvalidArgumentError
            If an item is outside the catalogue.
        NotANumberError
            If a score that takes part is NaN.
        """
        ...

    def top_n(self, n: int, excluded: Histories, allowed: np.ndarray | None = None) -> TopItems:
        """Find each user's n best items except the excluded ones.

        Parameters
        ----------
        n : int
            Items per user.
        excluded : Histories
            b rows of item indices.
        allowed : ndarray, optional
            Bool (I,), the items that any user may get; by default all.

        Raises
        ------
        InvalidArgumentError
            If an item is outside the catalogue, or `allowed` is not such a mask.
        NotANumberError
            If a score that takes part is NaN.
        """
        ...

    def top_n_of(self, n: int, candidates: Histories, excluded: Histories) -> TopItems:
        """Find the n best of each user's candidates except the excluded items.

        Parameters
        ----------
        n : int
            Items per user.
        candidates : Histories
            b rows of item indices; a repeated one counts once.
        excluded : Histories
            b rows of item indices.

        Raises
        ------
        InvalidArgumentError
            If an item is outside the catalogue.
        NotANumberError
            If a score that takes part is NaN.
        """
        ...


class FactorisedBlock(NamedTuple):
    """Queries of b users and the item vectors, for the kernels on the CPU.

    Attributes
    ----------
    queries : ndarray
        (b, d) float32.
    item_table : ItemTable
        (I, d).
    item_bias : ndarray or None
        (I,) float32.
    similarity : {"dot", "l2", "squared_l2"}
        Score of a query and an item vector.
    overrides : tuple of ndarray or None
        Item vectors that replace those of the table for single users: (b + 1,) int64 boundaries of the
        users, (N,) int64 items, (N, d) float32 vectors.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Collects the seconds of the stage ``rank``.
    """

    queries: np.ndarray
    item_table: ItemTable
    item_bias: np.ndarray | None
    similarity: Similarity
    overrides: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    num_threads: int | None
    timings: Timings

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """See :meth:`Block.rank_candidates`."""
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
        """See :meth:`Block.rank_catalogue`."""
        with self.timings.stage("rank"):
            counts = _metatl.rank_catalogue(
                self.queries,
                self.item_table.catalogue,
                targets,
                excluded.indptr,
                excluded.items,
                item_bias=self.item_bias,
                similarity=self.similarity,
                overrides=self.overrides,
                num_threads=self.num_threads,
            )
        return RankCounts(*counts)

    def top_n(self, n: int, excluded: Histories, allowed: np.ndarray | None = None) -> TopItems:
        """See :meth:`Block.top_n`."""
        best = _metatl.top_n(
            self.queries,
            self.item_table.catalogue,
            n,
            excluded.indptr,
            excluded.items,
            item_bias=self.item_bias,
            similarity=self.similarity,
            overrides=self.overrides,
            allowed=_as_bytes(allowed),
            num_threads=self.num_threads,
        )
        return TopItems(*best)

    def top_n_of(self, n: int, candidates: Histories, excluded: Histories) -> TopItems:
        """See :meth:`Block.top_n_of`."""
        best = _metatl.top_n_of(
            self.queries,
            self.item_table.catalogue,
            n,
            candidates.indptr,
            candidates.items,
            excluded.indptr,
            excluded.items,
            item_bias=self.item_bias,
            similarity=self.similarity,
            overrides=self.overrides,
            num_threads=self.num_threads,
        )
        return TopItems(*best)


class ScoredBlock(NamedTuple):
    """Scores of b users for the whole catalogue.

    Attributes
    ----------
    scores : ndarray
        (b, I) float32.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Collects the seconds of the stage ``rank``.
    """

    scores: np.ndarray
    num_threads: int | None
    timings: Timings

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """See :meth:`Block.rank_candidates`."""
        with self.timings.stage("rank"):
            check_items("candidates", candidates, self.scores.shape[1])
            chosen = np.take_along_axis(self.scores, candidates, axis=1)
            counts = _metatl.rank_scores(chosen, num_threads=self.num_threads)
        return RankCounts(*counts)

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """See :meth:`Block.rank_catalogue`."""
        with self.timings.stage("rank"):
            counts = _metatl.rank_score_matrix(
                self.scores, targets, excluded.indptr, excluded.items, num_threads=self.num_threads
            )
        return RankCounts(*counts)

    def top_n(self, n: int, excluded: Histories, allowed: np.ndarray | None = None) -> TopItems:
        """See :meth:`Block.top_n`."""
        best = _metatl.top_n_scores(
            self.scores,
            n,
            excluded.indptr,
            excluded.items,
            allowed=_as_bytes(allowed),
            num_threads=self.num_threads,
        )
        return TopItems(*best)

    def top_n_of(self, n: int, candidates: Histories, excluded: Histories) -> TopItems:
        """See :meth:`Block.top_n_of`."""
        check_items("candidates", candidates.items, self.scores.shape[1])
        listed = np.zeros(self.scores.shape, dtype=bool)
        listed[np.repeat(np.arange(len(candidates)), candidates.lengths), candidates.items] = True
        # All other items are excluded too.
        rows, items = np.nonzero(~listed)
        others = np.zeros(len(listed) + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=len(listed)), out=others[1:])
        return self.top_n(n, join_rows(excluded, Histories(others, items)))


@dataclass(frozen=True, eq=False)
class PairwiseBlock:
    """b users of a pairwise model, which scores the pairs of users and items at ranking time.

    Attributes
    ----------
    model : PairwiseModel
        The model.
    adapted : object
        The users' state, as the model's `adapt` returns it.
    num_users : int
        b.
    num_threads : int or None
        Threads of the kernels.
    timings : Timings
        Collects the seconds of the stage ``rank``.
    """

    model: PairwiseModel
    adapted: Any
    num_users: int
    num_threads: int | None
    timings: Timings

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """See :meth:`Block.rank_candidates`."""
        with self.timings.stage("rank"):
            check_items("candidates", candidates, self.model.num_items)
            counts = _metatl.rank_scores(self._score(candidates), num_threads=self.num_threads)
        return RankCounts(*counts)

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """See :meth:`Block.rank_catalogue`."""
        return self._catalogue.rank_catalogue(targets, excluded)

    def top_n(self, n: int, excluded: Histories, allowed: np.ndarray | None = None) -> TopItems:
        """See :meth:`Block.top_n`."""
        return self._catalogue.top_n(n, excluded, allowed)

    def top_n_of(self, n: int, candidates: Histories, excluded: Histories) -> TopItems:
        """See :meth:`Block.top_n_of`."""
        return self._catalogue.top_n_of(n, candidates, excluded)

    @cached_property
    def _catalogue(self) -> ScoredBlock:
        """The scores of all pairs, computed once per block."""
        items = np.arange(self.model.num_items)
        with self.timings.stage("rank"):
            scores = self._score(np.tile(items, (self.num_users, 1)))
        return ScoredBlock(scores, self.num_threads, self.timings)

    def _score(self, candidates: np.ndarray) -> np.ndarray:
        import torch

        ids = torch.from_numpy(np.ascontiguousarray(candidates)).to(self.model.device)
        return to_array(self.model.score_pairs(self.adapted, ids))


def to_array(tensor: Tensor) -> np.ndarray:
    """Convert a tensor of any shape and dtype to a C-contiguous array.

    Parameters
    ----------
    tensor : Tensor
        A tensor on any device.

    Returns
    -------
    ndarray
        A view of a contiguous tensor on the CPU, otherwise a copy.
    """
    array: np.ndarray = tensor.detach().cpu().contiguous().numpy()
    return array


def _as_bytes(allowed: np.ndarray | None) -> np.ndarray | None:
    """Return a mask as the kernels take it, without a copy."""
    if allowed is None:
        return None
    if allowed.dtype != np.bool_:
        raise InvalidArgumentError(f"allowed: found an array of {allowed.dtype}, expected one of bool")
    return allowed.view(np.uint8)


def check_items(name: str, items: np.ndarray, num_items: int) -> None:
    """Check that every item is in the catalogue; NumPy would read -1 as the last item.

    Parameters
    ----------
    name : str
        Name of the argument, for the error.
    items : ndarray
        int64 item indices of any shape.
    num_items : int
        I, size of the catalogue.

    Raises
    ------
    InvalidArgumentError
        If an item is below 0 or at least `num_items`.
    """
    outside = items[(items < 0) | (items >= num_items)]
    if len(outside):
        raise InvalidArgumentError(f"{name}: found item {outside[0]}, expected 0 to {num_items - 1}")
