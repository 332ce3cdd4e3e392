"""Small tables with a row for each user or item: text with a header, JSON lines, Parquet, or in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from metatl.common.row_faults import RowFaults
from metatl.data.frames import as_frame
from metatl.data.readers.opened_files import open_file, refuse_damage
from metatl.data.readers.parquet_files import read_parquet
from metatl.data.readers.text_tables import read_whole_text

if TYPE_CHECKING:
    from metatl.data.frames import FrameLike

_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


class SmallTable(NamedTuple):
    """A table, and where its rows come from.

    Attributes
    ----------
    rows : polars.DataFrame
        The columns; those of a text file are text.
    lines : polars.Series or None
        Int64: the line of each row; None where there are no lines.
    """

    rows: pl.DataFrame
    lines: pl.Series | None


def read_small_table(argument: str, source: str | os.PathLike[str] | FrameLike) -> SmallTable:
    """Read a table as a whole.

    Parameters
    ----------
    argument : str
        The name of the argument, for errors.
    source : str, path or table
        A file of text with a header, JSON lines or Parquet, each also gzipped, or a table in memory.

    Returns
    -------
    SmallTable
        All columns. In text, an empty field is missing.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If it cannot be read, or lines have too few or too many fields.
    ArgumentTypeError
        If `source` is neither a path nor a table.
    """
    if not isinstance(source, (str, os.PathLike)):
        return SmallTable(as_frame(argument, source), None)
    path = Path(source)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    with open_file(path) as file:
        if file.peek(4)[:4] == b"PAR1" or suffix == ".parquet":
            is_packed = path.suffix == ".gz"
            return SmallTable(read_parquet(file.read() if is_packed else path).rows, None)
        if suffix in _JSON_SUFFIXES:
            with refuse_damage("JSON lines"):
                return SmallTable(pl.read_ndjson(file.read()), None)
        table = read_whole_text(file, suffix=suffix)
        faults = RowFaults(table.lines)
        faults.add_lines(table.bad_lines, table.num_bad_lines)
        if len(faults):
            raise faults.error()
        filled = table.rows.with_columns(pl.all().replace("", None))
        return SmallTable(filled, table.lines)
