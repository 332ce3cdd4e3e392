"""Looking up raw item ids, a few at a time and without a pass over the catalogue."""

from __future__ import annotations

from contextlib import suppress
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metatl import _metatl
from metatl.data.ids import id_text, spelt_integer
from metatl.exceptions import ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

UNKNOWN = -1

_SMALL_CATALOGUE = 2**17
"""Up to so many integers are looked up in a dictionary: for a few ids it is faster than a binary search."""


class ItemLookup:
    """The raw ids of a catalogue, by the rule of `metatl.data.ids`: it finds what `find_ids` finds.

    Parameters
    ----------
    item_ids : polars.Series
        (I,) distinct, ascending: Int64 or String.
    """

    def __init__(self, item_ids: pl.Series) -> None:
        self._integers = item_ids.to_numpy() if item_ids.dtype == pl.Int64 else None
        self._index: dict[Any, int] = {}
        if self._integers is None or len(item_ids) <= _SMALL_CATALOGUE:
            self._index = {value: index for index, value in enumerate(item_ids.to_list())}

    def find_lists(self, lists: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Look up the ids of many lists at once, where all are of the type of the catalogue's.

        Parameters
        ----------
        lists : list
            Lists or tuples of raw ids.

        Returns
        -------
        indptr, items : ndarray
            (B + 1,) and (N,) int64: the items of list b are ``items[indptr[b]:indptr[b + 1]]``; -1 for an
            unknown id. None if another type is among them, a text is unknown, or the catalogue is large: then
            `find` has the answer.
        """
        if not self._index:
            return None
        texts = self._integers is None
        rows = _metatl.look_up_ids(lists, self._index, texts)
        # An unknown text may be another spelling of an id.
        return None if rows is None or (texts and rows[1].min(initial=0) < 0) else rows

    def find(self, ids: Sequence[Any], argument: Callable[[int], str]) -> NDArray[np.int64]:
        """Look up ids.

        Parameters
        ----------
        ids : sequence
            (N,) raw ids: integers, texts, or numbers and arrays that hold one id.
        argument : callable
            Position in `ids` to the name of that id's argument, for errors.

        Returns
        -------
        ndarray
            (N,) int64, indices in the catalogue; -1 for an unknown id.

        Raises
        ------
        ArgumentTypeError
            If a value cannot be an id.
        """
        types = set(map(type, ids))
        if types == {int} and self._integers is not None:
            if self._index:
                return self._get(ids)
            with suppress(OverflowError):
                return _find_integers(self._integers, np.array(ids, dtype=np.int64))
        if types == {str} and self._integers is None:
            found = self._get(ids)
            for position in np.flatnonzero(found == UNKNOWN).tolist():
                found[position] = self._find_one(ids[position], position, argument)
            return found
        return np.array(
            [self._find_one(value, position, argument) for position, value in enumerate(ids)], dtype=np.int64
        )

    def _get(self, ids: Sequence[Any]) -> NDArray[np.int64]:
        return np.fromiter(map(self._index.get, ids, repeat(UNKNOWN)), dtype=np.int64, count=len(ids))

    def _find_one(self, value: Any, position: int, argument: Callable[[int], str]) -> int:
        try:
            text = id_text(value)
        except ArgumentTypeError as error:
            raise ArgumentTypeError(f"{argument(position)}: {error}") from None
        if self._integers is None and text in self._index:
            return self._index[text]
        integer = spelt_integer(text)
        if integer is None:
            return UNKNOWN
        if self._integers is None:
            return self._index.get(str(integer), UNKNOWN)
        if not -(2**63) <= integer < 2**63:
            return UNKNOWN
        return int(_find_integers(self._integers, np.array([integer]))[0])


def _find_integers(integers: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    nearest = np.minimum(np.searchsorted(integers, wanted), len(integers) - 1)
    return np.where(integers[nearest] == wanted, nearest, UNKNOWN)
