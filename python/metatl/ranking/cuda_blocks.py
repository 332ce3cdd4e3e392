"""Rank on a CUDA device, without a matrix of users × items.

A sweep over the catalogue counts every item but the target; what must not count is taken off again, pair by
pair. That is exact, for a pair has the same score wherever it is scored (`metatl.ranking.cuda_kernels`).

The processor's kernels add a score's terms in another order. Scores that differ by rounding alone may hence
stand the other way round than there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import triton

from metatl.exceptions import NotANumberError
from metatl.models.contract import NO_ITEM
from metatl.ranking.blocks import RankCounts, check_items
from metatl.ranking.cuda_kernels import compare_catalogue, score_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from metatl.common.timings import Timings
    from metatl.data.histories import Histories
    from metatl.models.contract import Overrides, Similarity
    from metatl.ranking.blocks import FactorisedBlock, TopItems

USERS_AT_ONCE, ITEMS_AT_ONCE = 64, 256
"""The users and items whose scores a program of the sweep holds at once."""

ITEMS_OF_PROGRAM = 4096
"""Items that one program compares: enough to make its start cheap, few enough to occupy the device."""

PAIRS_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Item vectors as the kernels read them.

    Attributes
    ----------
    rows : Tensor
        (I, d) float32.
    by_dimension : Tensor
        (d, I), the same.
    biases : Tensor
        (I,) float32, 0 where the model has none.
    similarity : {"dot", "l2", "squared_l2"}
        How a query meets an item.
    """

    rows: Tensor
    by_dimension: Tensor
    biases: Tensor
    similarity: Similarity

    @classmethod
    def of(cls, rows: Tensor, biases: Tensor | None, similarity: Similarity) -> Catalogue:
        """Take item vectors (I, d) and biases (I,)."""
        rows = rows.contiguous()
        biases = rows.new_zeros(len(rows)) if biases is None else biases.contiguous()
        return cls(rows, rows.T.contiguous(), biases, similarity)

    @property
    def num_items(self) -> int:
        """I."""
        return self.rows.shape[0]


@dataclass(frozen=True, eq=False)
class CudaBlock:
    """Queries of some users on a CUDA device, and the catalogue that they meet.

    Attributes
    ----------
    queries : Tensor
        (b, d) float32.
    catalogue : Catalogue
        On the same device.
    overrides : Overrides or None
        Item vectors that hold for one user alone.
    on_processor : callable
        Gives the same for the processor, which finds the best items.
    timings : Timings
        Gains the stage ``rank``.
    """

    queries: Tensor
    catalogue: Catalogue
    overrides: Overrides | None
    on_processor: Callable[[], FactorisedBlock]
    timings: Timings

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """Compare the targets, column 0 of candidates (b, 1 + n), with the other columns."""
        with self.timings.stage("rank"):
            items = self._items("candidates", candidates)
            scores = self._scores(items)
            _check_numbers(scores.isnan().sum())
            targets, negatives = scores[:, :1], scores[:, 1:]
            return _counts((negatives > targets).sum(dim=1), (negatives == targets).sum(dim=1))

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """Compare the targets (b,) with the catalogue except the excluded items."""
        with self.timings.stage("rank"):
            num_items = self.catalogue.num_items
            target = self._items("targets", targets)
            excluded_items = self._items("excluded", excluded.items)
            target_scores = self._scores(target.unsqueeze(1))[:, 0]
            above, level, undefined = self._sweep(target, target_scores)

            def count(users: Tensor, items: Tensor, scores: Tensor, sign: int) -> None:
                against = target_scores[users]
                counts = items != target[users]
                above.index_add_(0, users, (counts & (scores > against)).int(), alpha=sign)
                level.index_add_(0, users, (counts & (scores == against)).int(), alpha=sign)
                undefined.index_add_(0, users, (counts & scores.isnan()).int(), alpha=sign)

            # A pair of user and item as one number.
            users = torch.arange(len(target), device=target.device)
            lengths = torch.from_numpy(excluded.lengths).to(target.device)
            owners = users.repeat_interleave(lengths, output_size=len(excluded_items))
            left_out = torch.unique(owners * num_items + excluded_items)
            taken_off = left_out
            if self.overrides is not None:
                users, slots = (self.overrides.items != NO_ITEM).nonzero(as_tuple=True)
                items = self.overrides.items[users, slots]
                moved = users * num_items + items
                taken_off = torch.unique(torch.cat((left_out, moved)))
                wanted = ~torch.isin(moved, left_out)
                users, slots, items = users[wanted], slots[wanted], items[wanted]
                count(users, items, self._moved_scores(self.overrides, users, slots), 1)
            users, items = taken_off // num_items, taken_off % num_items
            count(users, items, self._pairs(self.catalogue.rows, users, items, items), -1)
            _check_numbers(undefined.sum() + target_scores.isnan().sum())
            return _counts(above, level)

    def top_n(self, n: int, excluded: Histories) -> TopItems:
        """Find the n best items except the excluded ones, on the processor."""
        return self.on_processor().top_n(n, excluded)

    @cached_property
    def _queries_by_dimension(self) -> Tensor:
        """(d, b)."""
        return self.queries.T.contiguous()

    @property
    def _similarity(self) -> dict[str, bool]:
        similarity = self.catalogue.similarity
        return {"of_product": similarity == "dot", "takes_root": similarity == "l2"}

    def _items(self, name: str, items: np.ndarray) -> Tensor:
        """Copy items to the device and check there that they are items of the catalogue."""
        there = torch.from_numpy(np.ascontiguousarray(items)).to(self.queries.device)
        if len(there) and bool(((there < 0) | (there >= self.catalogue.num_items)).any()):
            check_items(name, items, self.catalogue.num_items)  # names the first
        return there

    def _scores(self, items: Tensor) -> Tensor:
        """Scores (b, C) of the users' items (b, C), with the users' own vectors where there are any."""
        users = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
        scores = self._pairs(self.catalogue.rows, users, items.flatten(), items.flatten()).view(items.shape)
        if self.overrides is not None:
            same = self.overrides.items.unsqueeze(2) == items.unsqueeze(1)
            users, slots, columns = same.nonzero(as_tuple=True)
            scores[users, columns] = self._moved_scores(self.overrides, users, slots)
        return scores

    def _moved_scores(self, overrides: Overrides, users: Tensor, slots: Tensor) -> Tensor:
        """Scores of users' own item vectors, given by their slots (P,) in the overrides."""
        rows = overrides.rows.flatten(0, 1).contiguous()
        return self._pairs(
            rows, users, users * overrides.items.shape[1] + slots, overrides.items[users, slots]
        )

    def _pairs(self, rows: Tensor, users: Tensor, numbers: Tensor, items: Tensor) -> Tensor:
        """Scores (P,) of users with rows of a table, which hold the given items."""
        scores = torch.empty(len(users), device=users.device)
        if len(users):
            score_pairs[triton.cdiv(len(users), PAIRS_AT_ONCE),](
                self._queries_by_dimension,
                rows,
                self.catalogue.biases[items],
                users.contiguous(),
                numbers.contiguous(),
                scores,
                len(users),
                len(self.queries),
                self.queries.shape[1],
                **self._similarity,
                pairs_at_once=PAIRS_AT_ONCE,
            )
        return scores

    def _sweep(self, targets: Tensor, target_scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count (b,) the items above the targets, level with them and undefined, in the whole catalogue."""
        dim, num_users = self._queries_by_dimension.shape
        catalogue = self.catalogue
        counts = torch.zeros(3, num_users, dtype=torch.int32, device=targets.device)
        grid = triton.cdiv(num_users, USERS_AT_ONCE), triton.cdiv(catalogue.num_items, ITEMS_OF_PROGRAM)
        compare_catalogue[grid](
            self._queries_by_dimension,
            catalogue.by_dimension,
            catalogue.biases,
            targets,
            target_scores.contiguous(),
            *counts,
            num_users,
            catalogue.num_items,
            dim,
            **self._similarity,
            users_at_once=USERS_AT_ONCE,
            items_at_once=ITEMS_AT_ONCE,
            items_of_program=ITEMS_OF_PROGRAM,
        )
        above, level, undefined = counts.unbind()
        return above, level, undefined


@cache
def can_build_kernels(device: torch.device) -> bool:
    """Whether Triton finds what it builds kernels with: a C compiler and Python's headers.

    Parameters
    ----------
    device : torch.device
        A CUDA device.

    Warns
    -----
    RuntimeWarning
        If it does not; then models are ranked on the processor.
    """
    number, row = torch.zeros(1, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    sizes = 1, 1, 1
    similarity = {"of_product": True, "takes_root": False}
    try:
        score_pairs[1,](
            number, number, number, row, row, number, *sizes, **similarity, pairs_at_once=PAIRS_AT_ONCE
        )
    except Exception as error:  # noqa: BLE001 (Triton passes on whatever its compilers raise)
        warnings.warn(
            f"models are ranked on the processor, for Triton cannot build kernels ({error})",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _counts(above: Tensor, level: Tensor) -> RankCounts:
    return RankCounts(*(counts.to("cpu", torch.int64).numpy() for counts in (above, level)))


def _check_numbers(undefined: Tensor) -> None:
    """Check that no score, of `undefined` scores of those that take part, is NaN."""
    count = int(undefined)
    if count:
        raise NotANumberError(f"scores: found {count} NaN, expected none")
