"""Columns of times with a time zone of any kind, as instants in UTC.

polars knows the time zones of the database and whole hours. Arrow also has offsets such as "+05:30"; they say
how a time is shown, and do not change the instant.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from polars.datatypes import DataType

_IGNORE_UNKNOWN = "POLARS_IGNORE_TIMEZONE_PARSE_ERROR"


@contextmanager
def unknown_zones_accepted() -> Iterator[None]:
    """Make polars accept columns of times in a zone that it does not know, in the block."""
    before = os.environ.get(_IGNORE_UNKNOWN)
    os.environ[_IGNORE_UNKNOWN] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_IGNORE_UNKNOWN, None)
        else:
            os.environ[_IGNORE_UNKNOWN] = before


def in_utc(schema: Mapping[str, DataType]) -> list[pl.Expr]:
    """Give expressions that turn the columns with a time zone into times in UTC, at the same instants.

    Parameters
    ----------
    schema : mapping of str to polars.DataType
        Names and types of columns.

    Returns
    -------
    list of polars.Expr
        One for each column of times in another zone than UTC.
    """
    return [
        pl.col(name).to_physical().cast(pl.Datetime(dtype.time_unit, "UTC"))
        for name, dtype in schema.items()
        if isinstance(dtype, pl.Datetime) and dtype.time_zone not in (None, "UTC")
    ]
