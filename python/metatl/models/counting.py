"""Base classes of the systems that `fit` computes in one pass, by counting training interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


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
    matrix : csr_array
        (I, I) float64; rows are items of the history, columns are candidates.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    matrix_name: ClassVar[str]
    """Name of the matrix's values in a checkpoint."""

    def __init__(self, config: Any, matrix: sp.csr_array, item_counts: np.ndarray) -> None:
        super().__init__(item_counts)
        self.config = config
        self.matrix = matrix

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays that a checkpoint stores in addition to the settings."""
        return {
            "item_counts": self.item_counts,
            "indptr": self.matrix.indptr.astype(np.int64),
            "indices": self.matrix.indices.astype(np.int64),
            self.matrix_name: self.matrix.data,
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
        parts = (tensors[cls.matrix_name], tensors["indices"], tensors["indptr"])
        matrix = sp.csr_array(parts, shape=(num_items, num_items))
        matrix.check_format(full_check=True)
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
