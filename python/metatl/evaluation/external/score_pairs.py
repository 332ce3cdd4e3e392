"""Scores of pairs of a user and an item, put into the order of candidate sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metatl.data.ids import find_ids
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

    from metatl.data.candidates import CandidateSets


def fill_long_scores(
    blocks: Iterable[pl.DataFrame], sets: CandidateSets, dtype: np.dtype[Any]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Put the scores of pairs into the order of the candidates.

    Parameters
    ----------
    blocks : iterable of polars.DataFrame
        Rows of ``user_id``, ``item_id`` and ``score``, in any order. Pairs that are not candidates are not
        used.
    sets : CandidateSets
        The candidates.
    dtype : numpy.dtype
        Type of the scores.

    Returns
    -------
    scores : ndarray
        (B, 1 + n), in the order of the candidates.
    notes : tuple of str
        How many rows were not used.

    Raises
    ------
    DataError
        If a candidate has no score, or a pair occurs twice.
    """
    num_items = len(sets.item_ids)
    wanted = (np.arange(len(sets.users))[:, None] * num_items + sets.candidates).ravel()
    order = np.argsort(wanted, kind="stable")
    ascending = wanted[order]
    scores = np.empty(len(wanted), dtype)
    filled = np.zeros(len(wanted), bool)
    unused = 0
    for pairs in blocks:
        users = find_ids(sets.user_ids, pairs["user_id"])
        items = find_ids(sets.item_ids, pairs["item_id"])
        keys = users * num_items + items
        slots = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
        used = (users >= 0) & (items >= 0) & (ascending[slots] == keys)
        slots = order[slots[used]]
        _refuse_repeats(slots, filled, sets)
        filled[slots] = True
        scores[slots] = pairs["score"].to_numpy()[used]
        unused += int(np.count_nonzero(~used))
    missing = np.flatnonzero(~filled)
    if len(missing):
        raise DataError(
            f"scores: found none for {len(missing):,} of {len(wanted):,} candidates, such as "
            f"{_pair(sets, int(missing[0]))}"
        )
    notes = (f"{unused:,} rows of scores belong to no candidate and were not used.",) if unused else ()
    return scores.reshape(sets.candidates.shape), notes


def _refuse_repeats(slots: np.ndarray, filled: np.ndarray, sets: CandidateSets) -> None:
    ascending = np.sort(slots)
    repeated = np.concatenate([slots[filled[slots]], ascending[1:][ascending[1:] == ascending[:-1]]])
    if len(repeated):
        raise DataError(f"scores: found {_pair(sets, int(repeated[0]))} more than once, expected once")


def _pair(sets: CandidateSets, slot: int) -> str:
    row, column = divmod(slot, sets.candidates.shape[1])
    item = sets.item_ids[int(sets.candidates[row, column])]
    return f"the user {sets.user_ids[row]!r} and the item {item!r}"
