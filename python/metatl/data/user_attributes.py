"""Attributes of users: a table by which evaluations are sliced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from metatl.common.column_errors import quoted
from metatl.data.readers.parquet_files import read_parquet
from metatl.data.readers.regular_files import check_file
from metatl.exceptions import DataError

if TYPE_CHECKING:
    import os


def read_attributes(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Read a table with one row per user.

    Parameters
    ----------
    path : str or os.PathLike
        Parquet or CSV. Columns of integers are recognised in CSV.

    Returns
    -------
    polars.DataFrame
        The table, with a column ``user_id``.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file cannot be read, has no such column, or has a user more than once.
    """
    path = Path(path)
    check_file(path)
    try:
        if path.suffix.lower() == ".parquet":
            table = read_parquet(path).rows
        else:
            table = pl.read_csv(path, glob=False)
    except DataError as error:
        raise error.in_file(path) from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"found a damaged table ({reason})", file=str(path)) from None
    if "user_id" not in table.columns:
        raise DataError(f"found no column 'user_id' among {quoted(table.columns)}", file=str(path))
    try:
        refuse_repeated_users(table)
    except DataError as error:
        raise error.in_file(path) from None
    return table


def refuse_repeated_users(attributes: pl.DataFrame) -> None:
    """Raise DataError if a user occurs more than once in a table of users."""
    users = attributes["user_id"]
    repeated = users.filter(users.is_duplicated())
    if len(repeated) > 0:
        raise DataError(f"attributes: found the user {repeated[0]!r} more than once, expected one row a user")
