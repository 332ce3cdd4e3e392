"""Scores of candidates as tables: data frames, Parquet row group by row group; text is in `score_text`.

Wide: a column for each candidate, after a `user_id` if there is one. Long: `user_id`, `item_id` and `score`,
one row a pair, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metatl.common.column_errors import quoted
from metatl.data.ids import find_ids
from metatl.data.readers.parquet_files import open_parquet, read_parquet
from metatl.evaluation.external.score_blocks import Scores, block_height, matrix_scores
from metatl.evaluation.external.score_pairs import fill_long_scores
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from metatl.data.candidates import CandidateSets

LONG_COLUMNS = ("user_id", "item_id", "score")
INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")
"""Names that pandas and its files give to an index."""

_LARGE_INTEGERS = (pl.UInt64, pl.Int128)
_NUMPY_TYPES: dict[pl.DataType, np.dtype[Any]] = {
    pl.Float32(): np.dtype(np.float32),
    pl.Float64(): np.dtype(np.float64),
    pl.Int64(): np.dtype(np.int64),
}


@dataclass(frozen=True)
class ScoreTable:
    """A table that is read block by block.

    Attributes
    ----------
    schema : dict of str to pl.DataType
        Names and types of the columns.
    column : callable
        Gives a whole column by its name.
    blocks : callable
        Yields the named columns, some rows at a time.
    """

    schema: dict[str, pl.DataType]
    column: Callable[[str], pl.Series]
    blocks: Callable[[Sequence[str]], Iterator[pl.DataFrame]]


def table_scores(table: ScoreTable, sets: CandidateSets | None) -> Scores:
    """Take the scores of candidates from a table.

    Parameters
    ----------
    table : ScoreTable
        A wide or a long table.
    sets : CandidateSets or None
        The candidates. Without them the table must be wide, and its users cannot be checked.

    Returns
    -------
    Scores
        In the order of the candidates' rows.

    Raises
    ------
    DataError
        If its columns, their types or its users do not fit the candidates.
    """
    names = list(table.schema)
    if set(LONG_COLUMNS) <= set(names):
        return _long(table, sets)
    if "item_id" in names:
        missing = next(name for name in LONG_COLUMNS if name not in names)
        raise DataError(f"scores: found no column {missing!r} beside {quoted(names)}")
    return _wide(table, sets)


def _long(table: ScoreTable, sets: CandidateSets | None) -> Scores:
    if sets is None:
        raise DataError(
            "scores: found pairs of users and items, which mean nothing without the candidates; give them"
        )
    dtype = _score_type(table, ["score"])
    blocks = _typed(table.blocks(LONG_COLUMNS), ["score"], dtype)
    matrix, notes = fill_long_scores(blocks, sets, _NUMPY_TYPES[dtype])
    extra = [name for name in table.schema if name not in LONG_COLUMNS]
    if extra:
        notes = (*notes, f"Columns of scores that were not used: {quoted(extra)}.")
    scores = matrix_scores(matrix)
    return Scores(scores.rows, scores.columns, scores.blocks, notes)


def _wide(table: ScoreTable, sets: CandidateSets | None) -> Scores:
    indices = [name for name in table.schema if name in INDEX_NAMES]
    names = [name for name in table.schema if name != "user_id" and name not in indices]
    if sets is not None and len(names) != sets.candidates.shape[1]:
        raise DataError(
            f"scores: found {len(names)} columns of scores, expected {sets.candidates.shape[1]}: the "
            f"target's, then those of {sets.n} negatives"
        )
    if not names:
        raise DataError("scores: found no columns of scores")
    dtype = _score_type(table, names)
    for name in indices:
        _check_index(table.column(name))
    has_users = "user_id" in table.schema
    first = table.column("user_id" if has_users else names[0])
    if has_users and sets is not None:
        _check_users(first, sets.user_ids)
    height = block_height(len(names), _NUMPY_TYPES[dtype].itemsize)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        start = 0
        for rows in _typed(table.blocks(names), names, dtype):
            for block in rows.iter_slices(height):
                yield start, block.to_numpy(order="c")
                start += block.height

    return Scores(len(first), len(names), blocks)


def _check_index(column: pl.Series) -> None:
    """Check that a column is the index of a frame, 0 to B - 1, and holds no scores."""
    if not (find_ids(pl.Series(range(len(column))), column) == np.arange(len(column))).all():
        raise DataError(
            "found a column without a name that is no index 0, 1, 2, ..., expected a name or no such column",
            column=column.name,
        )


def _score_type(table: ScoreTable, names: Sequence[str]) -> pl.DataType:
    """Choose the type that holds the scores of all columns: Float32, Float64 or Int64."""
    for name in names:
        dtype = table.schema[name]
        if not (dtype.is_float() or (dtype.is_integer() and dtype.base_type() not in _LARGE_INTEGERS)):
            raise DataError(f"scores: found the type {dtype}, expected floats or integers", column=name)
    types = {table.schema[name].base_type() for name in names}
    if types <= {pl.Float16, pl.Float32}:
        return pl.Float32()
    return pl.Int64() if all(dtype.is_integer() for dtype in types) else pl.Float64()


def _typed(
    blocks: Iterable[pl.DataFrame], names: Sequence[str], dtype: pl.DataType
) -> Iterator[pl.DataFrame]:
    """Refuse missing scores, and convert the others to one type that holds them."""
    start = 0
    for rows in blocks:
        for name in names:
            column = rows[name]
            if column.null_count():
                row = start + int(column.is_null().arg_max() or 0) + 1
                raise DataError("found nothing, expected a number", row=row, column=name)
            is_mixed = dtype == pl.Float64 and column.dtype.is_integer()
            if is_mixed and (column.cast(pl.Float64).abs() >= 2**53).any():
                raise DataError(
                    "found integers from 2^53 on beside floats, expected numbers of one type", column=name
                )
        yield rows.cast(dict.fromkeys(names, dtype))
        start += rows.height


def _check_users(user_ids: pl.Series, expected: pl.Series) -> None:
    indices = find_ids(expected, user_ids)
    if np.array_equal(indices, np.arange(len(expected))):
        return
    if (indices < 0).any():
        row = int((indices < 0).argmax())
        raise DataError(
            f"found the user {user_ids[row]!r}, who is not among the candidates' users",
            row=row + 1,
            column="user_id",
        )
    missing = expected.filter(pl.Series(~np.isin(np.arange(len(expected)), indices)))
    if len(missing):
        raise DataError(
            f"found no scores of {len(missing)} of the {len(expected)} users, such as {missing[0]!r}",
            column="user_id",
        )
    if len(user_ids) != len(expected):
        raise DataError(f"found {len(user_ids)} rows, expected one for each of {len(expected)} users")
    row = int((indices != np.arange(len(expected))).argmax())
    raise DataError(
        f"found the user {user_ids[row]!r}, expected {expected[row]!r}: rows in the order of the "
        "candidates' rows",
        row=row + 1,
        column="user_id",
    )


# --- Where tables come from


def frame_table(frame: pl.DataFrame) -> ScoreTable:
    """Make a table of a data frame."""
    return ScoreTable(dict(frame.schema), frame.get_column, lambda names: iter([frame.select(names)]))


def parquet_table(path: Path) -> ScoreTable:
    """Open a Parquet file that is read row group by row group."""
    schema, blocks = open_parquet(path)
    return ScoreTable(schema, lambda name: read_parquet(path, [name]).rows[name], blocks)
