"""Rank items for histories with a fitted model, block by block, with the Rust kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metatl.common.arguments import check_type
from metatl.common.memory import keep_freed_memory
from metatl.common.timings import Timings
from metatl.data.histories import Histories
from metatl.exceptions import InvalidArgumentError
from metatl.metrics.rank_metrics import mean_metrics
from metatl.ranking.blocks import RankCounts, TopItems, check_items
from metatl.ranking.encoders import make_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from metatl.data.candidates import CandidateSets
    from metatl.data.split import ColdStartSplit
    from metatl.models.contract import Model
    from metatl.ranking.blocks import Block
    from metatl.ranking.encoders import Rows
    from metatl.ranking.item_tables import ItemFormat, ItemTable


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
        B rows of at least one item, oldest first; (B, L) int64 if all have the same length.
    candidates : ndarray
        (B, 1 + n) int64, the target in column 0.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        Format that the model's item vectors are rounded to, or a table that was made from them before.
    num_threads : int, optional
        Threads of the kernels; by default `METATL_NUM_THREADS`, or one per available core.
    timings : Timings, optional
        Collects the seconds of the stages ``encode`` and ``rank``.

    Returns
    -------
    RankCounts
        One entry per user, (B,).

    Raises
    ------
    InvalidArgumentError
        If a history is empty, an item is outside the catalogue, the shapes do not fit, or the model has no
        item vectors to round.
    NotANumberError
        If a score is NaN.
    """
    histories = _as_histories(histories)
    _check_matrix("candidates", candidates)
    _check_rows(histories, "candidates", candidates)
    counts = RankCounts.empty(len(histories))
    for rows, block in encode_blocks(
        model, histories, seed=seed, item_table=item_table, num_threads=num_threads, timings=timings
    ):
        counts.greater[rows], counts.equal[rows] = block.rank_candidates(candidates[rows])
    return counts


def candidate_metrics(model: Model, split: ColdStartSplit, sets: CandidateSets) -> dict[str, float]:
    """Compute the mean metrics of a model on candidate sets; training selects weights by them.

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
        The means of the default metrics over the users; ties count against the model.

    Raises
    ------
    InvalidArgumentError
        If an item is outside the model's catalogue.
    NotANumberError
        If a score is NaN.
    """
    return mean_metrics(*rank_candidates(model, split.histories(sets.users), sets.candidates))


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
        B rows of at least one item, oldest first; (B, L) int64 if all have the same length.
    n : int
        Items per user.
    excluded : Histories
        B rows of items that are left out of the user's list.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        Format that the model's item vectors are rounded to, or a table that was made from them before.
    num_threads : int, optional
        Threads of the kernels; by default `METATL_NUM_THREADS`, or one per available core.

    Returns
    -------
    TopItems
        One row per user, (B, n).

    Raises
    ------
    InvalidArgumentError
        If a history is empty, an item is outside the catalogue, the shapes do not fit, or the model has no
        item vectors to round.
    NotANumberError
        If a score is NaN.
    """
    histories = _as_histories(histories)
    _check_rows(histories, "excluded", excluded)
    best = TopItems(np.empty((len(histories), n), np.int64), np.empty((len(histories), n), np.float32))
    for rows, block in encode_blocks(
        model, histories, seed=seed, item_table=item_table, num_threads=num_threads
    ):
        best.items[rows], best.scores[rows] = block.top_n(n, excluded.select(rows))
    return best


def encode_blocks(
    model: Model,
    histories: Histories | np.ndarray,
    *,
    seed: int = 0,
    item_table: ItemFormat | ItemTable = "float32",
    num_threads: int | None = None,
    timings: Timings | None = None,
) -> Iterator[tuple[Rows, Block]]:
    """Encode or score the users, block by block; each block can be ranked in several ways.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    histories : Histories or ndarray
        B rows of at least one item, oldest first; (B, L) int64 if all have the same length.
    seed : int
        Seed of the support negatives, for models that use them. A user's negatives depend only on the seed
        and the history.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        Format that the model's item vectors are rounded to, or a table that was made from them before.
    num_threads : int, optional
        Threads of the kernels; by default `METATL_NUM_THREADS`, or one per available core.
    timings : Timings, optional
        Collects the seconds of the stage ``encode``, and of ``rank`` when the blocks are ranked.

    Yields
    ------
    rows : ndarray or slice
        The block's histories: (b,) int64, or consecutive ones.
    block : Block
        Ranks items for these b users.

    Raises
    ------
    InvalidArgumentError
        If a history is empty, an item is outside the catalogue, or the model has no item vectors to round.
    """
    histories = _as_histories(histories)
    empty = np.flatnonzero(histories.lengths == 0)
    if len(empty):
        raise InvalidArgumentError(
            f"histories: row {empty[0]} is empty, expected at least one item in each row"
        )
    timings = timings or Timings()
    keep_freed_memory()
    encoder = make_encoder(model, seed=seed, item_table=item_table, num_threads=num_threads, timings=timings)
    check_items("histories", histories.items, encoder.num_items)
    yield from encoder.blocks(histories)


def _as_histories(histories: Histories | np.ndarray) -> Histories:
    if isinstance(histories, Histories):
        return histories
    _check_matrix("histories", histories)
    return Histories.from_matrix(histories)


def _check_matrix(argument: str, items: np.ndarray) -> None:
    """Check the type here, so that a wrong one is the same error for every system."""
    check_type(argument, items, np.ndarray, "a 2-d array of int64")
    if items.ndim != 2 or items.dtype != np.int64:  # noqa: PLR2004 (a row of items for each user)
        raise InvalidArgumentError(
            f"{argument}: found a {items.ndim}-d array of {items.dtype}, expected a 2-d array of int64"
        )


def _check_rows(histories: Histories, name: str, values: np.ndarray | Histories) -> None:
    """Check that there is one row of `values` per history."""
    if len(values) != len(histories):
        raise InvalidArgumentError(
            f"{name}: found {len(values)} rows, expected {len(histories)}, one per history"
        )
