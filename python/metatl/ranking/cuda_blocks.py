"""Ranking on a CUDA device without a matrix of users × items.

A sweep over the catalogue counts every item except the target. The counts of excluded items and of items with
overrides are then corrected pair by pair. This is exact because all kernels give a pair the same score
(`metatl.ranking.cuda_kernels`).

The kernels on the CPU add the terms of a score in another order, so items whose scores differ only by
rounding may be ordered differently there.
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
"""Users and items whose scores a program of the sweep computes at once."""

ITEMS_OF_PROGRAM = 4096
"""Items of one program of the sweep: many enough to make its start cheap, few enough to fill the device."""

PAIRS_AT_ONCE = 128
"""Pairs of one program that scores pairs."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Item vectors in the layouts that the kernels read.

    Attributes
    ----------
    rows : Tensor
        (I, d) float32.
    by_dimension : Tensor
        (d, I) float32, the transpose, contiguous.
    biases : Tensor
        (I,) float32; 0 if the model has no biases.
    similarity : {"dot", "l2", "squared_l2"}
        Score of a query and an item vector.
    """

    rows: Tensor
    by_dimension: Tensor
    biases: Tensor
    similarity: Similarity

    @classmethod
    def of(cls, rows: Tensor, biases: Tensor | None, similarity: Similarity) -> Catalogue:
        """Build a catalogue.

        Parameters
        ----------
        rows : Tensor
            (I, d) float32 item vectors.
        biases : Tensor or None
            (I,) float32 item biases.
        similarity : {"dot", "l2", "squared_l2"}
            Score of a query and an item vector.

        Returns
        -------
        Catalogue
            On the same device.
        """
        rows = rows.contiguous()
        biases = rows.new_zeros(len(rows)) if biases is None else biases.contiguous()
        return cls(rows, rows.T.contiguous(), biases, similarity)

    @property
    def num_items(self) -> int:
        """I, size of the catalogue."""
        return self.rows.shape[0]


@dataclass(frozen=True, eq=False)
class CudaBlock:
    """Queries of b users and the item vectors on a CUDA device.

    Attributes
    ----------
    queries : Tensor
        (b, d) float32.
    catalogue : Catalogue
        On the same device.
    overrides : Overrides or None
        Item vectors that replace those of the catalogue for single users.
    make_cpu_block : callable
        Copies the block to the CPU, which finds the best items.
    timings : Timings
        Collects the seconds of the stage ``rank``.
    """

    queries: Tensor
    catalogue: Catalogue
    overrides: Overrides | None
    make_cpu_block: Callable[[], FactorisedBlock]
    timings: Timings

    def rank_candidates(self, candidates: np.ndarray) -> RankCounts:
        """See :meth:`metatl.ranking.blocks.Block.rank_candidates`."""
        with self.timings.stage("rank"):
            items = self._to_device("candidates", candidates)
            scores = self._scores(items)
            _check_numbers(scores.isnan().sum())
            targets, negatives = scores[:, :1], scores[:, 1:]
            return _counts((negatives > targets).sum(dim=1), (negatives == targets).sum(dim=1))

    def rank_catalogue(self, targets: np.ndarray, excluded: Histories) -> RankCounts:
        """See :meth:`metatl.ranking.blocks.Block.rank_catalogue`."""
        with self.timings.stage("rank"):
            num_items = self.catalogue.num_items
            target = self._to_device("targets", targets)
            excluded_items = self._to_device("excluded", excluded.items)
            target_scores = self._scores(target.unsqueeze(1))[:, 0]
            greater, equal, nan = self._sweep(target, target_scores)

            def add(users: Tensor, items: Tensor, scores: Tensor, sign: int) -> None:
                """Add pairs to the counts, or subtract them (`sign` = -1); targets are not counted."""
                user_target_scores = target_scores[users]
                counted = items != target[users]
                greater.index_add_(0, users, (counted & (scores > user_target_scores)).int(), alpha=sign)
                equal.index_add_(0, users, (counted & (scores == user_target_scores)).int(), alpha=sign)
                nan.index_add_(0, users, (counted & scores.isnan()).int(), alpha=sign)

            # A pair is one number, user * num_items + item.
            users = torch.arange(len(target), device=target.device)
            lengths = torch.from_numpy(excluded.lengths).to(target.device)
            owners = users.repeat_interleave(lengths, output_size=len(excluded_items))
            excluded_pairs = torch.unique(owners * num_items + excluded_items)
            subtracted = excluded_pairs
            if self.overrides is not None:
                users, slots = (self.overrides.items != NO_ITEM).nonzero(as_tuple=True)
                items = self.overrides.items[users, slots]
                overridden = users * num_items + items
                subtracted = torch.unique(torch.cat((excluded_pairs, overridden)))
                kept = ~torch.isin(overridden, excluded_pairs)
                users, slots, items = users[kept], slots[kept], items[kept]
                add(users, items, self._override_scores(self.overrides, users, slots), 1)
            users, items = subtracted // num_items, subtracted % num_items
            add(users, items, self._pair_scores(self.catalogue.rows, users, items, items), -1)
            _check_numbers(nan.sum() + target_scores.isnan().sum())
            return _counts(greater, equal)

    def top_n(self, n: int, excluded: Histories, allowed: np.ndarray | None = None) -> TopItems:
        """See :meth:`metatl.ranking.blocks.Block.top_n`; runs on the CPU."""
        return self.make_cpu_block().top_n(n, excluded, allowed)

    def top_n_of(self, n: int, candidates: Histories, excluded: Histories) -> TopItems:
        """See :meth:`metatl.ranking.blocks.Block.top_n_of`; runs on the CPU."""
        return self.make_cpu_block().top_n_of(n, candidates, excluded)

    @cached_property
    def _queries_by_dimension(self) -> Tensor:
        """(d, b)."""
        return self.queries.T.contiguous()

    @property
    def _similarity(self) -> dict[str, bool]:
        similarity = self.catalogue.similarity
        return {"of_product": similarity == "dot", "takes_root": similarity == "l2"}

    def _to_device(self, name: str, items: np.ndarray) -> Tensor:
        """Copy items to the device, and check there that they are in the catalogue."""
        on_device = torch.from_numpy(np.ascontiguousarray(items)).to(self.queries.device)
        if len(on_device) and bool(((on_device < 0) | (on_device >= self.catalogue.num_items)).any()):
            check_items(name, items, self.catalogue.num_items)  # its error names the first one
        return on_device

    def _scores(self, items: Tensor) -> Tensor:
        """Scores (b, C) of the users' items (b, C), with the users' overrides."""
        users = torch.arange(len(items), device=items.device).repeat_interleave(items.shape[1])
        flat_items = items.flatten()
        scores = self._pair_scores(self.catalogue.rows, users, flat_items, flat_items).view(items.shape)
        if self.overrides is not None:
            same = self.overrides.items.unsqueeze(2) == items.unsqueeze(1)
            users, slots, columns = same.nonzero(as_tuple=True)
            scores[users, columns] = self._override_scores(self.overrides, users, slots)
        return scores

    def _override_scores(self, overrides: Overrides, users: Tensor, slots: Tensor) -> Tensor:
        """Scores (P,) of the override vectors in the given slots (P,) of users (P,)."""
        rows = overrides.rows.flatten(0, 1).contiguous()
        return self._pair_scores(
            rows, users, users * overrides.items.shape[1] + slots, overrides.items[users, slots]
        )

    def _pair_scores(self, rows: Tensor, users: Tensor, row_indices: Tensor, items: Tensor) -> Tensor:
        """Scores (P,) of users (P,) with rows of a table; row_indices[p] is the vector of items[p]."""
        scores = torch.empty(len(users), device=users.device)
        if len(users):
            score_pairs[triton.cdiv(len(users), PAIRS_AT_ONCE),](
                self._queries_by_dimension,
                rows,
                self.catalogue.biases[items],
                users.contiguous(),
                row_indices.contiguous(),
                scores,
                len(users),
                len(self.queries),
                self.queries.shape[1],
                **self._similarity,
                pairs_at_once=PAIRS_AT_ONCE,
            )
        return scores

    def _sweep(self, targets: Tensor, target_scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count (b,) the items above each target, level with it, and with a NaN score."""
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
        greater, equal, nan = counts.unbind()
        return greater, equal, nan


@cache
def can_build_kernels(device: torch.device) -> bool:
    """Whether Triton can build kernels: it needs a C compiler and Python's headers.

    Parameters
    ----------
    device : torch.device
        A CUDA device.

    Returns
    -------
    bool
        Whether it can; the answer is cached for each device.

    Warns
    -----
    RuntimeWarning
        If it cannot; models are then ranked on the CPU.
    """
    number, index = torch.zeros(1, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    sizes = 1, 1, 1
    similarity = {"of_product": True, "takes_root": False}
    try:
        score_pairs[1,](
            number, number, number, index, index, number, *sizes, **similarity, pairs_at_once=PAIRS_AT_ONCE
        )
    except Exception as error:  # noqa: BLE001 (Triton passes on any error of its compilers)
        warnings.warn(
            f"models are ranked on the CPU because Triton cannot build kernels ({error})",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _counts(greater: Tensor, equal: Tensor) -> RankCounts:
    return RankCounts(*(counts.to("cpu", torch.int64).numpy() for counts in (greater, equal)))


def _check_numbers(nan_count: Tensor) -> None:
    """Raise an error if the number of NaN scores, a scalar, is not 0."""
    count = int(nan_count)
    if count:
        raise NotANumberError(f"scores: found {count} NaN, expected none")
