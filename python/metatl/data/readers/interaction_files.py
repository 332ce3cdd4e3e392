"""Reading interactions from files: text with separators, JSON lines or Parquet, each also gzipped."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from metatl.common.arguments import check_type
from metatl.common.column_errors import quoted
from metatl.common.forks import refuse_forked_child
from metatl.common.row_faults import RowFaults
from metatl.data.column_names import find_columns
from metatl.data.interactions import BadRows, Interactions, Repeats
from metatl.data.readers.headerless_files import usual_unit
from metatl.data.readers.json_lines import read_json_lines
from metatl.data.readers.opened_files import open_file
from metatl.data.readers.parquet_files import default_max_bytes, read_column_names, read_parquet
from metatl.data.readers.text_tables import read_text_table
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from metatl.data.timestamps import TimestampUnit

_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_BLOCK_BYTES = 1 << 20


def read_interactions(
    path: str | os.PathLike[str],
    *,
    user_column: str | None = None,
    item_column: str | None = None,
    timestamp_column: str | None = None,
    separator: str | None = None,
    timestamp_unit: TimestampUnit | None = None,
    repeats: Repeats = "first",
    null_values: Sequence[str] | None = None,
    bad_rows: BadRows = "error",
) -> Interactions:
    """Read interactions from a file.

    The first bytes tell Parquet and gzip, and a `{` at the start tells JSON lines. Every other file is UTF-8
    text with a header: CSV, TSV, RecBole's `.inter` (names with types, as in `user_id:token`) or `::`. The
    header may be missing if no column is named and the first line is in one of the formats of
    :mod:`metatl.data.readers.headerless_files` (MovieLens, MovieTweetings, ratings of Amazon). Fields may be
    quoted with `"`, except in `.inter` and `::`. Blank lines are skipped.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    user_column, item_column, timestamp_column : str, optional
        Names of the columns. By default the usual names are looked for.
    separator : str, optional
        The separator of the fields of text, of any length. By default the one that is usual for the suffix
        of the file, if the first line has it, else the most frequent of `::`, tab, `,`, `;` and `|` there, or
        a space where it has none of them.
    timestamp_unit : {"s", "ms", "us", "ns", "YYYYMMDD"}, optional
        Unit or format of timestamps that are numbers. By default `ms` if the columns are those of Amazon
        Reviews 2023, else `s`; then a column of dates as YYYYMMDD is refused.
    repeats : {"first", "all"}
        Which interactions of a user with the same item are kept: the first, or all.
    null_values : sequence of str, optional
        Texts that stand for a missing value; rows that have one are left out. By default a name of a missing
        value, such as "NA", is refused among numbers.
    bad_rows : {"error", "skip"}
        What to do with rows that cannot be used: raise one error that names the first ten, or leave them out
        with a warning.

    Returns
    -------
    Interactions
        :meth:`Interactions.from_frame` describes how ids and timestamps are converted.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file cannot be used; with its lines (of text) or rows (of Parquet), its column, what was found
        and what was expected.
    ArgumentTypeError
        If `path` is not a path.
    OSError
        If the file may not be read.
    """
    check_type(
        "path", path, (str, os.PathLike), "the path of a file; for a table see metatl.Interactions.from_frame"
    )
    refuse_forked_child()
    path = Path(path)
    given = (user_column, item_column, timestamp_column)
    with open_file(path) as file:
        suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
        faults = RowFaults()
        if file.peek(4)[:4] == b"PAR1":
            rows, names = _read_parquet(path, file, given)
        elif suffix == ".parquet":
            raise DataError("found no Parquet, expected a file that starts with PAR1")
        else:
            if separator is None and _starts_with_object(file):
                table = read_json_lines(file, given=given)
            elif separator is None and suffix in _JSON_SUFFIXES:
                raise DataError("found no JSON lines, expected a file that starts with {")
            else:
                table = read_text_table(file, suffix=suffix, given=given, separator=separator)
            rows, names = table.rows, table.names
            faults = RowFaults(table.lines)
            faults.add_lines(table.bad_lines, table.num_bad_lines)
            del table
        columns = rows.get_columns()
        del rows
        if timestamp_unit is None and len(columns[-1]):
            timestamp_unit = usual_unit(names, columns[-1], faults)
        return Interactions.from_columns(
            columns,
            timestamp_unit=timestamp_unit,
            repeats=repeats,
            null_values=null_values,
            bad_rows=bad_rows,
            faults=faults,
        )


def _starts_with_object(file: io.BufferedReader) -> bool:
    return file.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def _read_parquet(
    path: Path, file: io.BufferedReader, given: Sequence[str | None]
) -> tuple[pl.DataFrame, list[str]]:
    # Unpacked content has no path, and can be larger than the file by any factor.
    source = path if isinstance(file.raw, io.FileIO) else _read_at_most(file, default_max_bytes())
    names = read_column_names(source)
    rows = read_parquet(source, [names[column] for column in find_columns(names, given)]).rows
    if rows.is_empty():
        raise DataError(f"found the columns {quoted(names)} but no rows, expected interactions")
    return rows, names


def _read_at_most(file: io.BufferedReader, max_bytes: int) -> bytes:
    content = io.BytesIO()
    while block := file.read(_BLOCK_BYTES):
        content.write(block)
        if content.tell() > max_bytes:
            raise DataError(
                f"found a gzip that unpacks to more than {max_bytes} bytes, too much for this machine"
            )
    return content.getvalue()
