"""Reading interactions from files: text with separators, JSON lines or Parquet, each also gzipped."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from metatl.common.arguments import check_type
from metatl.common.column_errors import quoted
from metatl.data.interactions import Interactions, Repeats
from metatl.data.readers.column_names import find_columns
from metatl.data.readers.headerless_files import usual_unit
from metatl.data.readers.json_lines import read_json_lines
from metatl.data.readers.parquet_files import default_max_bytes, read_column_names, read_parquet
from metatl.data.readers.text_tables import read_text_table
from metatl.exceptions import DataError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        of the file, if the first line has it, else the most frequent of `::`, tab, `,`, `;` and `|` there.
    timestamp_unit : {"s", "ms", "us", "ns"}, optional
        Unit of timestamps that are numbers. By default `ms` if the columns are those of Amazon Reviews 2023,
        else `s`.
    repeats : {"first", "all"}
        Which interactions of a user with the same item are kept: the first, or all.

    Returns
    -------
    Interactions
        :meth:`Interactions.from_frame` describes how ids and timestamps are converted.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file cannot be used; with its line (of text) or row (of Parquet), its column, what was found
        and what was expected.
    ArgumentTypeError
        If `path` is not a path.
    OSError
        If the file may not be read.
    """
    check_type(
        "path", path, (str, os.PathLike), "the path of a file; for a table see metatl.Interactions.from_frame"
    )
    path = Path(path)
    given = (user_column, item_column, timestamp_column)
    with _open(path) as file, _errors_in(path):
        suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
        lines = None
        if file.peek(4)[:4] == b"PAR1":
            rows, names = _read_parquet(path, file, given)
        elif suffix == ".parquet":
            raise DataError("found no Parquet, expected a file that starts with PAR1")
        elif separator is None and _starts_with_object(file):
            rows, lines, names = read_json_lines(file, given=given)
        elif separator is None and suffix in _JSON_SUFFIXES:
            raise DataError("found no JSON lines, expected a file that starts with {")
        else:
            rows, lines, names = read_text_table(file, suffix=suffix, given=given, separator=separator)
        columns = rows.get_columns()
        del rows
        try:
            if timestamp_unit is None:
                timestamp_unit = usual_unit(names, columns[-1])
            return Interactions.from_columns(columns, timestamp_unit=timestamp_unit, repeats=repeats)
        except DataError as error:
            if error.row is None or lines is None:
                raise
            raise DataError(error.message, line=int(lines[error.row - 1]), column=error.column) from None


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file, and unpack it if it is gzipped."""
    if path.is_dir():
        raise DataError("found a folder, expected a file", file=str(path))
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError("found no such file", file=str(path)) from None
    with file:
        start = file.peek(2)[:2]
        if start == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                yield io.BufferedReader(cast("io.RawIOBase", unpacked))
        elif start and path.suffix == ".gz":
            raise DataError("found no gzip, expected a file that starts with 1f 8b", file=str(path))
        else:
            yield file


@contextmanager
def _errors_in(path: Path) -> Iterator[None]:
    """Name the file in every error, and describe a damaged gzip."""
    try:
        yield
    except DataError as error:
        raise error.in_file(path) from None
    except EOFError:
        raise DataError("found a gzip that ends early; copy it again", file=str(path)) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"found a damaged gzip ({error}); copy it again", file=str(path)) from None


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
