"""What users have done so far: one row of items per user, of any length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, eq=False)
class Histories:
    """Rows of items, oldest first.

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
        """Take rows of equal length.

        Parameters
        ----------
        rows : ndarray
            (B, L) int64.
        """
        count, length = rows.shape
        return cls(np.arange(count + 1, dtype=np.int64) * length, np.ascontiguousarray(rows).ravel())

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int] | np.ndarray]) -> Histories:
        """Take rows of any length.

        Parameters
        ----------
        rows : sequence of sequences of int
            One row per user.
        """
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        items = (
            np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
            if rows
            else np.empty(0, np.int64)
        )
        return cls(indptr, items)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(B,) int64, items per row."""
        return np.diff(self.indptr)

    def select(self, rows: np.ndarray) -> Histories:
        """Take some of the rows.

        Parameters
        ----------
        rows : ndarray
            (M,) int64, row numbers.
        """
        lengths = self.lengths[rows]
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return Histories(indptr, self.items[places])

    def latest(self, count: int) -> Histories:
        """Keep the last `count` items of each row.

        Parameters
        ----------
        count : int
            The longest row allowed.
        """
        lengths = np.minimum(self.lengths, count)
        indptr = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(lengths, out=indptr[1:])
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[1:] - lengths - indptr[:-1], lengths)
        return Histories(indptr, self.items[places])

    def blocks(self, max_rows: int, max_items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Go through the rows in blocks of equal length, for models that encode a rectangle at a time.

        Parameters
        ----------
        max_rows : int
            The most rows in a block.
        max_items : int
            The most items in a block of more than one row.

        Yields
        ------
        rows : ndarray
            (b,) int64, ascending row numbers.
        matrix : ndarray
            (b, L) int64, C-contiguous, those rows.
        """
        lengths = self.lengths
        for length in np.unique(lengths):
            group = np.flatnonzero(lengths == length)
            size = max(1, min(max_rows, max_items // max(int(length), 1)))
            for begin in range(0, len(group), size):
                rows = group[begin : begin + size]
                yield rows, self.items[self.indptr[rows, None] + np.arange(length)]
