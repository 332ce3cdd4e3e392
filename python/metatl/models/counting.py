"""Base classes of the systems that `fit` computes in one pass, by counting training interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import scipy.sparse as sp
    from typing_extensions import Self


class SparseRows(NamedTuple):
    """A sparse matrix in compressed rows, for what serves without scipy.

    Attributes
    ----------
    indptr : ndarray
        (n + 1,) int64; the entries of row i are ``indptr[i]:indptr[i + 1]``.
    indices : ndarray
        (N,) int64, columns.
    values : ndarray
        (N,) float64.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, matrix: sp.csr_array) -> Self:
        """Take the arrays of a matrix of scipy."""
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64, entries of each row."""
        lengths: np.ndarray = self.indptr[1:] - self.indptr[:-1]
        return lengths

    def check(self, rows: int, columns: int) -> None:
        """Check that this is a matrix of that shape.

        Raises
        ------
        ValueError
            If it is not.
        """
        indptr, indices, values = self
        if indptr.shape != (rows + 1,) or indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any():
            raise ValueError(f"the offsets are not those of {rows} rows")
        if indices.shape != (indptr[-1],) or values.shape != indices.shape:
            raise ValueError("indices and values do not fit the offsets")
        if len(indices) and not 0 <= indices.min() <= indices.max() < columns:
            raise ValueError(f"an index is outside the {columns} columns")


def invert(values: np.ndarray) -> np.ndarray:
    """Return 1 / values as (n,) float64, with 0 where a value is 0."""
    inverse: np.ndarray = np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)
    return inverse


class CountingModel:
    """Base of all counting systems.

    Parameters
    ----------
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    def __init__(self, item_counts: np.ndarray) -> None:
        self.item_counts = item_counts

    @property
    def num_items(self) -> int:
        """I, number of items in the catalogue."""
        return len(self.item_counts)


class ItemMatrixModel(CountingModel):
    """Base of the systems that compute scores from a sparse matrix of items by items.

    Parameters
    ----------
    config : PresetConfig
        The settings.
    matrix : SparseRows
        (I, I); rows are items of the history, columns are candidates.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    matrix_name: ClassVar[str]
    """Name of the matrix's values in a checkpoint."""

    def __init__(self, config: Any, matrix: SparseRows, item_counts: np.ndarray) -> None:
        super().__init__(item_counts)
        self.config = config
        self.matrix = matrix

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays that a checkpoint stores in addition to the settings."""
        return {
            "item_counts": self.item_counts,
            "indptr": self.matrix.indptr,
            "indices": self.matrix.indices,
            self.matrix_name: self.matrix.values,
        }

    @classmethod
    def from_tensors(cls, config: Any, num_items: int, tensors: Mapping[str, np.ndarray]) -> Self:
        """Rebuild a model from its settings and `tensors`.

        Parameters
        ----------
        config : PresetConfig
            The settings.
        num_items : int
            I, number of items in the catalogue.
        tensors : mapping of str to ndarray
            The arrays of `tensors`.

        Raises
        ------
        ValueError
            If the arrays are not an (I, I) matrix and (I,) counts.
        """
        item_counts = check_item_counts(tensors["item_counts"], num_items)
        matrix = SparseRows(tensors["indptr"], tensors["indices"], tensors[cls.matrix_name])
        matrix.check(num_items, num_items)
        return cls(config, matrix, item_counts)


def check_item_counts(item_counts: np.ndarray, num_items: int) -> np.ndarray:
    """Return the counts of a checkpoint if there is one per item.

    Raises
    ------
    ValueError
        If the shape is not (I,).
    """
    if item_counts.shape != (num_items,):
        raise ValueError(f"item_counts has shape {item_counts.shape}, expected ({num_items},)")
    return item_counts
