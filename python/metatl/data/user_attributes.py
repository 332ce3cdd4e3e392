"""Attributes of users: a table by which evaluations are sliced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from metatl.common.column_errors import quoted
from metatl.common.row_faults import RowFaults
from metatl.data.ids import find_ids, to_ids
from metatl.data.readers.opened_files import errors_in
from metatl.data.readers.small_tables import read_small_table
from metatl.exceptions import DataError

if TYPE_CHECKING:
    import os


def read_attributes(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Read a table with one row per user.

    Parameters
    ----------
    path : str or os.PathLike
        Text with a header (CSV, TSV), JSON lines or Parquet, each also gzipped. In text, a column of plain
        integers is a column of integers.

    Returns
    -------
    polars.DataFrame
        The table, with a column ``user_id`` by the rule of :mod:`metatl.data.ids`.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file cannot be read, has no such column, or has a user more than once.
    """
    table = read_small_table("attributes", path)
    with errors_in(path):
        rows = with_user_ids(table.rows, table.lines)
        return rows.with_columns(_integers(column) for column in rows if column.name != "user_id")


def with_user_ids(attributes: pl.DataFrame, lines: pl.Series | None = None) -> pl.DataFrame:
    """Convert the column ``user_id`` by the rule of ids, and check that each user has one row.

    Parameters
    ----------
    attributes : polars.DataFrame
        The table.
    lines : polars.Series, optional
        Int64: the line of each row in its file.

    Returns
    -------
    polars.DataFrame
        The same columns.

    Raises
    ------
    DataError
        If there is no such column, an id is missing, or a user occurs more than once.
    """
    if "user_id" not in attributes.columns:
        raise DataError(f"attributes: found no column 'user_id' among {quoted(attributes.columns)}")
    faults = RowFaults(lines)
    users = to_ids(attributes["user_id"], faults)
    if len(faults):
        raise faults.error()
    repeated = users.filter(users.is_duplicated())
    if len(repeated) > 0:
        raise DataError(f"attributes: found the user {repeated[0]!r} more than once, expected one row a user")
    return attributes.with_columns(users.alias("user_id"))


def attribute_of(user_ids: pl.Series, attributes: pl.DataFrame, name: str) -> pl.Series:
    """Look up an attribute of users.

    Parameters
    ----------
    user_ids : polars.Series
        (B,) raw ids, Int64 or String.
    attributes : polars.DataFrame
        As :func:`read_attributes` gives it.
    name : str
        The column.

    Returns
    -------
    polars.Series
        (B,): null for a user without a row.
    """
    rows = find_ids(attributes["user_id"], user_ids)
    column = attributes[name]
    found: pl.Series = column.gather(pl.Series(rows).replace(-1, None))
    return found


def _integers(column: pl.Series) -> pl.Series:
    """Convert a column of plain integers in text, so that its groups are in the order of the numbers."""
    if column.dtype != pl.String:
        return column
    integers: pl.Series = column.cast(pl.Int64, strict=False)
    is_plain = integers.null_count() == column.null_count() and (integers.cast(pl.String) == column).all()
    return integers if is_plain else column
