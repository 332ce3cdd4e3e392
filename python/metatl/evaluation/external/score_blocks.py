"""Scores of candidates, block by block: one row of 1 + n scores per user, the target's first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK_BYTES = 32 * 2**20
"""Size of the scores that are ranked at once."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of B users that are read block by block.

    Attributes
    ----------
    rows, columns : int
        B, and 1 + n.
    blocks : callable
        Yields (first row, (b, 1 + n) float32, float64 or integers) for successive blocks of rows.
    notes : tuple of str
        Remarks for the report, such as the number of unused rows.
    """

    rows: int
    columns: int
    blocks: Callable[[], Iterator[tuple[int, np.ndarray]]]
    notes: tuple[str, ...] = ()


def block_height(columns: int, itemsize: int = 4) -> int:
    """Give the number of rows of a block, for rows of `columns` scores of some bytes."""
    return max(1, BLOCK_BYTES // (itemsize * max(columns, 1)))


def check_array(dtype: np.dtype[Any], shape: tuple[int, ...], *, fortran: bool) -> None:
    """Raise DataError if an array of this dtype, shape and order cannot hold scores."""
    if dtype.kind not in "fiu" or dtype.itemsize > 8:  # noqa: PLR2004 (bytes)
        raise DataError(f"scores: found {dtype}, expected float32, or floats or integers of up to 64 bits")
    if len(shape) != 2:  # noqa: PLR2004
        raise DataError(f"scores: found the shape {shape}, expected two dimensions: users and candidates")
    if fortran and min(shape) > 1:
        raise DataError(
            "scores: found columns after each other (Fortran order), expected rows; save "
            "np.ascontiguousarray(scores)"
        )


def in_ranked_type(block: np.ndarray) -> np.ndarray:
    """Convert a block to a type that scores are ranked in and that holds them, aligned and C-contiguous.

    float16 becomes float32; float32, float64 and integers stay, in the byte order of the machine.
    """
    dtype = np.dtype(np.float32) if block.dtype.kind == "f" and block.dtype.itemsize == 2 else block.dtype  # noqa: PLR2004
    return np.require(block, dtype=dtype.newbyteorder("="), requirements=["C", "A"])


def matrix_scores(matrix: np.ndarray) -> Scores:
    """Cut a matrix of scores into blocks.

    Parameters
    ----------
    matrix : ndarray
        (B, 1 + n) floats or integers, in any order of memory.

    Raises
    ------
    DataError
        If it has another dtype, or not two dimensions.
    """
    check_array(matrix.dtype, matrix.shape, fortran=False)
    rows, columns = matrix.shape
    height = block_height(columns, matrix.dtype.itemsize)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, rows, height):
            yield start, in_ranked_type(matrix[start : start + height])

    return Scores(rows, columns, blocks)
