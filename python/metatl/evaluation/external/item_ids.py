"""Raw item ids of an external system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import polars as pl

from metatl.common.column_errors import quoted
from metatl.common.row_faults import RowFaults
from metatl.data.ids import to_ids
from metatl.data.readers.opened_files import errors_in
from metatl.data.readers.small_tables import read_small_table
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from metatl.data.frames import FrameLike


def read_items(source: pl.Series | FrameLike | str | os.PathLike[str]) -> pl.DataFrame:
    """Read the ids of a catalogue.

    Parameters
    ----------
    source : polars.Series, table, str or path
        A series of ids, or a table (in memory, or a file of text or Parquet) with the column ``item_id`` and
        optionally ``count``, an integer of at least 0.

    Returns
    -------
    polars.DataFrame
        ``item_id``, by the rule of :mod:`metatl.data.ids`, and, if the source has it, ``count`` (Int64).

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing or has no integers, or an id is missing or occurs
        twice.
    ArgumentTypeError
        If the source is none of these.
    """
    if isinstance(source, pl.Series):
        return _checked(source.to_frame("item_id"), None)
    table = read_small_table("item_ids", source)
    if not isinstance(source, (str, os.PathLike)):
        return _checked(table.rows, None)
    with errors_in(source):
        return _checked(table.rows, table.lines)


def _checked(table: pl.DataFrame, lines: pl.Series | None) -> pl.DataFrame:
    if "item_id" not in table.columns:
        raise DataError(f"item_ids: found no column 'item_id' among {quoted(table.columns)}")
    faults = RowFaults(lines)
    ids = to_ids(table["item_id"], faults)
    counts = _counts(table["count"], faults) if "count" in table.columns else None
    if len(faults):
        raise faults.error()
    repeated = ids.filter(ids.is_duplicated())
    if len(repeated):
        raise DataError(f"item_ids: found {repeated[0]!r} twice, expected distinct ids", column="item_id")
    columns = [ids.alias("item_id")]
    return pl.DataFrame(columns if counts is None else [*columns, counts])


def _counts(column: pl.Series, faults: RowFaults) -> pl.Series:
    counts: pl.Series = to_ids(column, faults).cast(pl.Int64, strict=False)
    faults.add((counts < 0).fill_null(value=True), column, "found {}, expected an integer of at least 0")
    return counts.rename("count")
