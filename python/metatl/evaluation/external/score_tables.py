"""Scores of candidates as tables: data frames, Parquet row group by row group; text is in `score_text`.

Wide: a column for each candidate, after a `user_id` if there is one. Long: `user_id`, `item_id` and `score`,
one row a pair, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from metatl.common.column_errors import quoted
from metatl.data.readers.parquet_files import open_parquet, read_parquet
from metatl.evaluation.external.score_blocks import Scores, block_height, matrix_scores
from metatl.evaluation.external.score_pairs import fill_long_scores
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from metatl.data.candidates import CandidateSets

LONG_COLUMNS = ("user_id", "item_id", "score")


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
    extra = [name for name in table.schema if name not in LONG_COLUMNS]
    if extra:
        raise DataError(f"scores: found the extra column {extra[0]!r}, expected {quoted(LONG_COLUMNS)}")
    _check_score_types(table, ["score"])
    for name, ids in (("user_id", sets.user_ids), ("item_id", sets.item_ids)):
        if table.schema[name] != ids.dtype:
            raise DataError(f"found ids of type {table.schema[name]}, expected {ids.dtype}", column=name)
    matrix, notes = fill_long_scores(_without_nulls(table.blocks(LONG_COLUMNS), ["score"]), sets)
    scores = matrix_scores(matrix)
    return Scores(scores.rows, scores.columns, scores.blocks, notes)


def _wide(table: ScoreTable, sets: CandidateSets | None) -> Scores:
    names = [name for name in table.schema if name != "user_id"]
    if sets is not None and len(names) != sets.candidates.shape[1]:
        raise DataError(
            f"scores: found {len(names)} columns of scores, expected {sets.candidates.shape[1]}: the "
            f"target's, then those of {sets.n} negatives"
        )
    _check_score_types(table, names)
    if not names:
        raise DataError("scores: found no columns of scores")
    has_users = "user_id" in table.schema
    first = table.column("user_id" if has_users else names[0])
    if has_users and sets is not None:
        _check_users(first, sets.user_ids)
    height = block_height(len(names))

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        start = 0
        for rows in _without_nulls(table.blocks(names), names):
            for block in rows.iter_slices(height):
                yield start, block.to_numpy(order="c")
                start += block.height

    return Scores(len(first), len(names), blocks)


def _check_score_types(table: ScoreTable, names: Sequence[str]) -> None:
    for name in names:
        if table.schema[name] != pl.Float32:
            raise DataError(f"scores: found the type {table.schema[name]}, expected Float32", column=name)


def _without_nulls(blocks: Iterable[pl.DataFrame], names: Sequence[str]) -> Iterator[pl.DataFrame]:
    start = 0
    for rows in blocks:
        for name in names:
            if rows[name].null_count():
                row = start + int(rows[name].is_null().arg_max() or 0) + 1
                raise DataError("found nothing, expected a number", row=row, column=name)
        yield rows
        start += rows.height


def _check_users(user_ids: pl.Series, expected: pl.Series) -> None:
    if user_ids.dtype != expected.dtype:
        raise DataError(
            f"found user ids of type {user_ids.dtype}, expected {expected.dtype}", column="user_id"
        )
    if user_ids.equals(expected):
        return
    known = user_ids.is_in(expected.implode())
    if not known.all():
        row = int((~known).arg_true()[0])
        raise DataError(
            f"found the user {user_ids[row]!r}, who is not among the candidates' users",
            row=row + 1,
            column="user_id",
        )
    missing = expected.filter(~expected.is_in(user_ids.implode()))
    if len(missing):
        raise DataError(
            f"found no scores of {len(missing)} of the {len(expected)} users, such as {missing[0]!r}",
            column="user_id",
        )
    if len(user_ids) != len(expected):
        raise DataError(f"found {len(user_ids)} rows, expected one for each of {len(expected)} users")
    row = int((user_ids != expected).arg_true()[0])
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
