"""The items of users so far: one row per user, of any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, eq=False)
class Histories:
    """Ragged rows of items, the oldest item first.

    Attributes
    ----------
    indptr : ndarray
        (B + 1,) int64; row b is ``items[indptr[b]:indptr[b + 1]]``.
    items : ndarray
        (N,) int64.
    """

    indptr: np.ndarray
    items: np.ndarray

    @classmethod
    def from_matrix(cls, rows: np.ndarray) -> Histories:
        """Build rows of equal length.

        Parameters
        ----------
        rows : ndarray
            (B, L) int64.

        Returns
        -------
        Histories
            The B rows.
        """
        count, length = rows.shape
        return cls(np.arange(count + 1, dtype=np.int64) * length, np.ascontiguousarray(rows).ravel())

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64, items per row."""
        lengths: np.ndarray = self.indptr[1:] - self.indptr[:-1]
        return lengths

    def select(self, rows: np.ndarray | slice) -> Histories:
        """Select rows.

        Parameters
        ----------
        rows : ndarray or slice
            (M,) int64, indices of rows; or consecutive ones, whose items are not copied.

        Returns
        -------
        Histories
            The M rows, in this order.
        """
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            if stop - start == len(self):
                return self
            bounds = self.indptr[start : stop + 1]
            return Histories(bounds - bounds[0], self.items[bounds[0] : bounds[-1]])
        lengths = self.lengths[rows]
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        indices = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return Histories(indptr, self.items[indices])

    def latest(self, count: int) -> Histories:
        """Keep the last `count` items of each row.

        Parameters
        ----------
        count : int
            The largest length of a row.

        Returns
        -------
        Histories
            As many rows.
        """
        lengths = np.minimum(self.lengths, count)
        indptr = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        indices = np.arange(indptr[-1]) + np.repeat(self.indptr[1:] - lengths - indptr[:-1], lengths)
        return Histories(indptr, self.items[indices])

    def blocks(self, max_rows: int, max_items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Iterate over blocks of rows of equal length, for models that encode a rectangular matrix.

        Parameters
        ----------
        max_rows : int
            The largest number of rows in a block.
        max_items : int
            The largest number of items in a block of more than one row.

        Yields
        ------
        rows : ndarray
            (b,) int64, ascending indices of rows.
        matrix : ndarray
            (b, L) int64, C-contiguous: the items of these rows.
        """
        lengths = self.lengths
        for length in np.unique(lengths):
            group = np.flatnonzero(lengths == length)
            size = max(1, min(max_rows, max_items // max(int(length), 1)))
            for begin in range(0, len(group), size):
                rows = group[begin : begin + size]
                yield rows, self.items[self.indptr[rows, None] + np.arange(length)]


def join_rows(first: Histories, second: Histories) -> Histories:
    """Join two lists of rows, row by row.

    Parameters
    ----------
    first, second : Histories
        B rows each.

    Returns
    -------
    Histories
        B rows: the items of the first, then those of the second.
    """
    owners = [np.repeat(np.arange(len(part)), part.lengths) for part in (first, second)]
    order = np.argsort(np.concatenate(owners), kind="stable")
    return Histories(first.indptr + second.indptr, np.concatenate([first.items, second.items])[order])
