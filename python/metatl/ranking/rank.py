"""A fitted model and histories in, counts and lists out, through the Rust kernels.

Nothing here decides what a rank is: the kernels count how many items beat the target and how many equal it,
and `metatl.metrics.rank_metrics` applies the tie rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np

from metatl import _metatl
from metatl.common.memory import keep_freed_memory
from metatl.common.timings import Timings
from metatl.data.histories import Histories
from metatl.exceptions import InvalidArgumentError
from metatl.metrics.rank_metrics import mean_metrics
from metatl.ranking.item_tables import ItemFormat, ItemTable, check_has_item_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor

    from metatl.data.candidates import CandidateSets
    from metatl.data.split import ColdStartSplit
    from metatl.models.contract import Encoded, FactorisedModel, Model, PairwiseModel, Similarity
    from metatl.ranking.cuda_blocks import CudaBlock

ENCODE_BLOCK_ITEMS = 2**15
"""Items, support negatives included, that are encoded at once: so many that the calls of torch cost little,
so few that the memory which they take and free is kept (`metatl.common.memory.keep_freed_memory`)."""

ACCELERATOR_BLOCK_ITEMS = 2**18
"""The same on an accelerator, which takes as long for a few as for many."""

SCORE_BLOCK_BYTES = 64 * 2**20
"""Memory for the scores of one block of users where a model scores the whole catalogue."""


PAIR_BLOCK = 2**18
"""Pairs of a user and an item that are scored at once where a model scores pairs."""


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


def rank_candidates(
    model: Model,
    histories: Histories | np.ndarray,
    candidates: np.ndarray,
    *,
    seed: int = 0,
    item_table: ItemFormat | ItemTable = "float32",
    num_threads: int | None = None,
    timings: Timings | None = None,
) -> RankCounts:
    """Compare each user's target with the other candidates.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    histories : Histories or ndarray
        B rows of at least one item; (B, L) int64 where they are of equal length.
    candidates : ndarray
        (B, 1 + n) int64, the target in column 0.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        What the model's item vectors are rounded to, or the table that was made of them once.
    num_threads : int, optional
        Threads of the kernels.
    timings : Timings, optional
        Gains the stages ``encode`` and ``rank``.

    Returns
    -------
    RankCounts
        One entry per user.

    Raises
    ------
    InvalidArgumentError
        If a history is empty, the shapes do not fit, or the model has no item vectors to round.
    NotANumberError
        If a score is not a number.
    """
    histories = _as_histories(histories)
    _check_rows(histories, "candidates", candidates)
    counts = RankCounts(np.empty(len(histories), np.int64), np.empty(len(histories), np.int64))
    for rows, block in encode_blocks(
        model, histories, seed=seed, item_table=item_table, num_threads=num_threads, timings=timings
    ):
        counts.greater[rows], counts.equal[rows] = block.rank_candidates(candidates[rows])
    return counts


def candidate_metrics(model: Model, split: ColdStartSplit, sets: CandidateSets) -> dict[str, float]:
    """Compute the default metrics of the users of candidate sets. Training chooses its weights by them.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A model.
    split : ColdStartSplit
        The split.
    sets : CandidateSets
        Candidates of some of its users.

    Returns
    -------
    dict of str to float
        The means of the default metrics; ties count against the model.

    Raises
    ------
    NotANumberError
        If a score is NaN.
    """
    return mean_metrics(*rank_candidates(model, split.histories(sets.users), sets.candidates))


def rank_catalogue(
    model: Model,
    histories: Histories | np.ndarray,
    targets: np.ndarray,
    excluded: Histories,
    *,
    seed: int = 0,
    item_table: ItemFormat | ItemTable = "float32",
    num_threads: int | None = None,
    timings: Timings | None = None,
) -> RankCounts:
    """Compare each user's target with the whole catalogue.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    histories : Histories or ndarray
        B rows of at least one item; (B, L) int64 where they are of equal length.
    targets : ndarray
        (B,) int64.
    excluded : Histories
        B rows of items that do not count for that user; the target among them still does.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        What the model's item vectors are rounded to, or the table that was made of them once.
    num_threads : int, optional
        Threads of the kernels.
    timings : Timings, optional
        Gains the stages ``encode`` and ``rank``.

    Returns
    -------
    RankCounts
        One entry per user.

    Raises
    ------
    InvalidArgumentError
        If a history is empty, the shapes do not fit, or the model has no item vectors to round.
    NotANumberError
        If a score is not a number.
    """
    histories = _as_histories(histories)
    _check_rows(histories, "targets", targets)
    _check_rows(histories, "excluded", excluded)
    counts = RankCounts(np.empty(len(histories), np.int64), np.empty(len(histories), np.int64))
    for rows, block in encode_blocks(
        model, histories, seed=seed, item_table=item_table, num_threads=num_threads, timings=timings
    ):
        counts.greater[rows], counts.equal[rows] = block.rank_catalogue(targets[rows], excluded.select(rows))
    return counts


def top_n(
    model: Model,
    histories: Histories | np.ndarray,
    n: int,
    excluded: Histories,
    *,
    seed: int = 0,
    item_table: ItemFormat | ItemTable = "float32",
    num_threads: int | None = None,
) -> TopItems:
    """Find each user's best items in the whole catalogue.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    histories : Histories or ndarray
        B rows of at least one item; (B, L) int64 where they are of equal length.
    n : int
        Items per user.
    excluded : Histories
        B rows of items that the user does not get.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        What the model's item vectors are rounded to, or the table that was made of them once.
    num_threads : int, optional
        Threads of the kernels.

    Returns
    -------
    TopItems
        One row per user.

    Raises
    ------
    InvalidArgumentError
        If a history is empty, the shapes do not fit, or the model has no item vectors to round.
    NotANumberError
        If a score is not a number.
    """
    histories = _as_histories(histories)
    _check_rows(histories, "excluded", excluded)
    best = TopItems(np.empty((len(histories), n), np.int64), np.empty((len(histories), n), np.float32))
    for rows, block in encode_blocks(
        model, histories, seed=seed, item_table=item_table, num_threads=num_threads
    ):
        best.items[rows], best.scores[rows] = block.top_n(n, excluded.select(rows))
    return best


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
            scores = self._score(np.broadcast_to(items, (self.num_users, len(items))))
        return ScoredBlock(scores, self.num_threads, self.timings)

    def _score(self, candidates: np.ndarray) -> np.ndarray:
        import torch

        ids = torch.from_numpy(np.ascontiguousarray(candidates)).to(self.model.device)
        return _array(self.model.score_pairs(self.adapted, ids))


Block: TypeAlias = "FactorisedBlock | CudaBlock | PairwiseBlock | ScoredBlock"


def encode_blocks(
    model: Model,
    histories: Histories | np.ndarray,
    *,
    seed: int = 0,
    item_table: ItemFormat | ItemTable = "float32",
    num_threads: int | None = None,
    timings: Timings | None = None,
) -> Iterator[tuple[np.ndarray, Block]]:
    """Encode, or score, the users block by block; a block can then be ranked in more than one way.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    histories : Histories or ndarray
        B rows of at least one item; (B, L) int64 where they are of equal length.
    seed : int
        Seed of the support negatives, for models that use them. A user's depend on it and the history alone.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        What the model's item vectors are rounded to, or the table that was made of them once.
    num_threads : int, optional
        Threads of the kernels.
    timings : Timings, optional
        Gains the stage ``encode``, and ``rank`` as the blocks are ranked.

    Yields
    ------
    rows : ndarray
        (b,) int64, the numbers of the histories in the block.
    block : Block
        What ranks them.

    Raises
    ------
    InvalidArgumentError
        If a history is empty, or the model has no item vectors to round.
    """
    histories = _as_histories(histories)
    empty = np.flatnonzero(histories.lengths == 0)
    if len(empty):
        raise InvalidArgumentError(
            f"histories: row {empty[0]} is empty, expected at least one item in each row"
        )
    timings = timings or Timings()
    keep_freed_memory()
    num_items, max_rows, encode = _encoder(model, seed, item_table, num_threads, timings)
    check_items("histories", histories.items, num_items)
    for rows, matrix in histories.blocks(max_rows, ENCODE_BLOCK_ITEMS):
        with timings.stage("encode"):
            block = encode(matrix)
        yield rows, block


def _encoder(
    model: Model, seed: int, item_table: ItemFormat | ItemTable, num_threads: int | None, timings: Timings
) -> tuple[int, int, Callable[[np.ndarray], Block]]:
    """Tell how many items there are, how many users to take at once, and how."""
    # Not isinstance: the contract's module imports torch, which a model that scores by itself does not need.
    if item_table != "float32":
        check_has_item_vectors(model)
    if hasattr(model, "score_pairs"):
        return _pairwise_encoder(cast("PairwiseModel", model), seed, num_threads, timings)
    if not hasattr(model, "encode"):
        num_items = model.num_items

        def score(matrix: np.ndarray) -> Block:
            return ScoredBlock(np.ascontiguousarray(model.score(matrix)), num_threads, timings)

        return num_items, max(1, SCORE_BLOCK_BYTES // (4 * num_items)), score

    import torch

    factorised = cast("FactorisedModel", model)
    device = factorised.item_table.device
    num_items = len(factorised.item_table)
    if item_table == "float32" and ranks_on_cuda(device):
        finish: Callable[[Encoded], Block] = _cuda_finisher(factorised, num_threads, timings)
    else:
        finish = _finisher(factorised, item_table, num_threads, timings)

    def encode(matrix: np.ndarray) -> Block:
        negatives = _support_negatives(factorised, matrix, num_items, seed, num_threads)
        return finish(
            factorised.encode(
                torch.from_numpy(matrix).to(device), None if negatives is None else negatives.to(device)
            )
        )

    at_once = ENCODE_BLOCK_ITEMS if device.type == "cpu" else ACCELERATOR_BLOCK_ITEMS
    return num_items, max(1, at_once // (1 + factorised.support_negatives)), encode


def _finisher(
    model: FactorisedModel, item_table: ItemFormat | ItemTable, num_threads: int | None, timings: Timings
) -> Callable[[Encoded], FactorisedBlock]:
    """Tell how to put what a model has encoded before the kernels of the processor."""
    table = _item_table(model, item_table, num_threads)
    item_bias = None if model.item_bias is None else _array(model.item_bias)

    def finish(encoded: Encoded) -> FactorisedBlock:
        overrides = None
        if encoded.overrides is not None:
            indptr, items, rows = encoded.overrides.ragged()
            overrides = (_array(indptr), _array(items), _array(rows))
        return FactorisedBlock(
            _array(encoded.queries), table, item_bias, model.similarity, overrides, num_threads, timings
        )

    return finish


def _item_table(
    model: FactorisedModel, item_table: ItemFormat | ItemTable, num_threads: int | None
) -> ItemTable:
    """Round the model's item vectors, or check that a table can be theirs."""
    if not isinstance(item_table, ItemTable):
        return ItemTable.of(model, item_table, num_threads=num_threads)
    own = ItemTable.of(model, "float32")
    if item_table.numbers.shape != own.numbers.shape:
        raise InvalidArgumentError(
            f"item_table: found the shape {item_table.numbers.shape}, expected {own.numbers.shape}, that of "
            "the model's item vectors"
        )
    return item_table


def ranks_on_cuda(device: torch.device) -> bool:
    """Whether a model's device ranks by itself: a CUDA device for which Triton can build kernels."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    from metatl.ranking.cuda_blocks import can_build_kernels

    return can_build_kernels(device)


def _cuda_finisher(
    model: FactorisedModel, num_threads: int | None, timings: Timings
) -> Callable[[Encoded], CudaBlock]:
    """Tell how to put what a model has encoded before the kernels of its CUDA device."""
    from metatl.ranking.cuda_blocks import Catalogue, CudaBlock

    catalogue = Catalogue.of(model.item_table, model.item_bias, model.similarity)
    on_processor = cache(lambda: _finisher(model, "float32", num_threads, timings))

    def finish(encoded: Encoded) -> CudaBlock:
        return CudaBlock(
            encoded.queries, catalogue, encoded.overrides, lambda: on_processor()(encoded), timings
        )

    return finish


def _pairwise_encoder(
    model: PairwiseModel, seed: int, num_threads: int | None, timings: Timings
) -> tuple[int, int, Callable[[np.ndarray], Block]]:
    import torch

    def adapt(matrix: np.ndarray) -> Block:
        negatives = _support_negatives(model, matrix, model.num_items, seed, num_threads)
        adapted = model.adapt(
            torch.from_numpy(matrix).to(model.device),
            None if negatives is None else negatives.to(model.device),
        )
        return PairwiseBlock(model, adapted, len(matrix), num_threads, timings)

    return model.num_items, max(1, PAIR_BLOCK // model.num_items), adapt


def _support_negatives(
    model: FactorisedModel | PairwiseModel,
    histories: np.ndarray,
    num_items: int,
    seed: int,
    num_threads: int | None,
) -> Tensor | None:
    import torch

    if model.support_negatives == 0:
        return None
    drawn = _metatl.sample_support_negatives(
        histories, model.support_negatives, num_items, seed=seed, num_threads=num_threads
    )
    return torch.from_numpy(drawn)


def _array(tensor: object) -> np.ndarray:
    """View a tensor as a C-contiguous array; copies only from an accelerator or out of order."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"a model must give torch tensors, not {type(tensor).__name__}")
    array: np.ndarray = tensor.detach().cpu().contiguous().numpy()
    return array


def _as_histories(histories: Histories | np.ndarray) -> Histories:
    return histories if isinstance(histories, Histories) else Histories.from_matrix(histories)


def _check_rows(histories: Histories, name: str, values: np.ndarray | Histories) -> None:
    """Check that there is one row of `values` per history."""
    if len(values) != len(histories):
        raise InvalidArgumentError(
            f"{name}: found {len(values)} rows, expected {len(histories)}, one per history"
        )


def check_items(name: str, items: np.ndarray, num_items: int) -> None:
    """Check that every item is one of the catalogue: numpy would take -1 for the last one."""
    outside = items[(items < 0) | (items >= num_items)]
    if len(outside):
        raise InvalidArgumentError(f"{name}: found item {outside[0]}, expected 0 to {num_items - 1}")
