"""Raw histories: the ids of the items of each user, oldest first, looked up in a catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from metatl.data.frames import refuse_masked
from metatl.data.histories import Histories
from metatl.data.ids import find_ids, id_text
from metatl.data.interactions import Interactions
from metatl.exceptions import ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.serving.item_lookup import ItemLookup


class KnownHistories(NamedTuple):
    """Histories of B users as items of a catalogue.

    Attributes
    ----------
    known : Histories
        B rows of the items that the catalogue has.
    unknown : tuple of tuple of str
        For each user, the ids that it does not have, in order.
    """

    known: Histories
    unknown: tuple[tuple[str, ...], ...]


def look_up_histories(
    lookup: ItemLookup, item_ids: pl.Series, histories: Sequence[Sequence[Any]] | Interactions
) -> KnownHistories:
    """Look up the items of histories.

    Parameters
    ----------
    lookup : ItemLookup
        The catalogue.
    item_ids : polars.Series
        (I,) its raw ids.
    histories : sequence of sequences, or Interactions
        Raw item ids of each user, oldest first; of interactions, each user's rows.

    Returns
    -------
    KnownHistories
        One row per user.

    Raises
    ------
    ArgumentTypeError
        If the histories are not lists of ids.
    """
    if isinstance(histories, Interactions):
        texts = histories.item_ids.cast(pl.String)
        items = find_ids(item_ids, texts)[histories.items]
        return _divide(histories.indptr, items, lambda row: texts[int(histories.items[row])])
    at_once = lookup.find_lists(histories) if type(histories) is list else None
    if at_once is not None:
        offsets, items = at_once
        return _divide(offsets, items, lambda position: _id_at(histories, offsets, position))
    indptr, ids = flatten("histories", histories)
    items = lookup.find(ids, lambda position: _row_name("histories", indptr, position))
    return _divide(indptr, items, lambda position: id_text(ids[position]))


def flatten(argument: str, lists: Any) -> tuple[np.ndarray, list[Any]]:
    """Concatenate lists of ids.

    Parameters
    ----------
    argument : str
        The name of the argument, for errors.
    lists : sequence of sequences
        B lists.

    Returns
    -------
    indptr : ndarray
        (B + 1,) int64; list b is ``ids[indptr[b]:indptr[b + 1]]``.
    ids : list
        The ids of all lists.

    Raises
    ------
    ArgumentTypeError
        If they are not lists.
    """
    rows = lists if type(lists) is list else as_list(argument, lists)
    if not set(map(type, rows)) <= {list, tuple}:
        rows = [as_list(f"{argument}[{row}]", values) for row, values in enumerate(rows)]
    indptr = np.fromiter(accumulate(map(len, rows), initial=0), dtype=np.int64, count=len(rows) + 1)
    return indptr, list(chain.from_iterable(rows))


def as_list(argument: str, values: Any) -> list[Any]:
    """Return a list of the values of any sequence of ids; refuse what has no order or another meaning."""
    # These are iterable too: strings over letters, tables over columns, sets in no order.
    refused = (str, bytes, Mapping, pl.DataFrame, set, frozenset)
    refuse_masked(argument, values)
    if isinstance(values, refused) or not isinstance(values, Iterable):
        raise ArgumentTypeError(
            f"{argument}: found {type(values).__name__}, expected a list of item ids for each user, "
            "oldest first"
        )
    return list(values)


def _row_name(argument: str, indptr: np.ndarray, position: int) -> str:
    return f"{argument}[{int(np.searchsorted(indptr, position, side='right')) - 1}]"


def _id_at(histories: Sequence[Sequence[Any]], indptr: np.ndarray, position: int) -> str:
    row = int(np.searchsorted(indptr, position, side="right")) - 1
    return id_text(histories[row][position - int(indptr[row])])


def _divide(indptr: np.ndarray, items: np.ndarray, text: Any) -> KnownHistories:
    """Divide items into known ones, and the texts of unknown ones by user."""
    unknown: list[tuple[str, ...]] = [()] * (len(indptr) - 1)
    if items.min(initial=0) >= 0:
        return KnownHistories(Histories(indptr, items), tuple(unknown))
    positions = np.flatnonzero(items < 0)
    rows = np.searchsorted(indptr, positions, side="right") - 1
    for row, position in zip(rows, positions, strict=True):
        unknown[row] = (*unknown[row], text(int(position)))
    is_known = items >= 0
    num_known_before = np.concatenate([[0], np.cumsum(is_known)])
    return KnownHistories(Histories(num_known_before[indptr], items[is_known]), tuple(unknown))
