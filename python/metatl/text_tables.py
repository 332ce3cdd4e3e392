"""Three columns of a text file, as text, with the line that each row stands on.

The file is read in blocks of whole lines. Lines are split by polars as long as no field is quoted; from the
first block with a quote on, Python's csv module takes over, which is slower and knows the rules of quoting.
"""

from __future__ import annotations

import csv
import io
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from metatl.column_errors import listed
from metatl.column_names import find_columns, has_usual_name
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# The separator that goes with a file's name.
_USUAL_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t", ".dat": "::"}
_SEPARATORS = ("::", "\t", ",", ";", "|")
_RECBOLE_TYPES = (":token", ":token_seq", ":float", ":float_seq")
# MovieLens' files have no header.
_MOVIELENS_NAMES = {3: ["user_id", "item_id", "timestamp"], 4: ["user_id", "item_id", "rating", "timestamp"]}

_BLOCK_BYTES = 1 << 26
_QUOTED_ROWS = 1 << 20


class TextTable(NamedTuple):
    """What :func:`read_text_table` reads.

    Attributes
    ----------
    rows
        The three columns, under the names that the file gives them: String.
    lines
        Int64: the line of each row, from 1.
    """

    rows: pl.DataFrame
    lines: pl.Series


class _Block(NamedTuple):
    """Whole lines, and the number of the first."""

    text: str
    line: int


class _Layout(NamedTuple):
    """Where in a line the three columns are."""

    names: list[str]
    columns: list[int]
    separator: str
    may_quote: bool


def read_text_table(
    file: io.BufferedReader, *, suffix: str, given: Sequence[str | None], separator: str | None
) -> TextTable:
    """Read the columns of users, items and timestamps.

    Parameters
    ----------
    file
        The file, unpacked.
    suffix
        The end of its name, as in `.csv`.
    given
        Names of the three columns; None where a column is to be found by its usual names.
    separator
        What stands between fields; None to find it.

    Raises
    ------
    DataError
        If the file is not text, has no such columns or no rows, or has a line with too few or too many
        fields.
    """
    blocks = _blocks(file)
    layout, first = _read_header(blocks, suffix, given, separator)
    tables: list[TextTable] = []
    for block in chain([first], blocks):
        if layout.may_quote and '"' in block.text:
            tables.extend(_read_quoted(chain([block], blocks), layout))
            break
        tables.append(_split_lines(block, layout))
    rows = pl.concat([table.rows for table in tables])
    if rows.is_empty():
        raise DataError(f"found the header {listed(layout.names)} but no rows, expected interactions")
    return TextTable(rows, pl.concat([table.lines for table in tables]))


def _blocks(file: io.BufferedReader) -> Iterator[_Block]:
    """Cut a file into blocks of whole lines."""
    line, rest = 1, b""
    while data := file.read(_BLOCK_BYTES):
        block = rest + data
        end = block.rfind(b"\n") + 1
        if end == 0 and len(block) > _BLOCK_BYTES:
            raise DataError(f"found a line of more than {_BLOCK_BYTES >> 20} MiB, expected text", line=line)
        rest = block[end:]
        if end > 0:
            yield _Block(_decode(block[:end], line), line)
            line += block.count(b"\n", 0, end)
    if rest:
        yield _Block(_decode(rest, line), line)


def _decode(data: bytes, line: int) -> str:
    expected = "expected UTF-8 text, Parquet, or either of them gzipped"
    if line == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    nul = data.find(0)
    if nul >= 0:
        raise DataError(f"found a NUL byte, {expected}", line=line + data.count(b"\n", 0, nul))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        found = f"found the byte 0x{data[error.start]:02x}, {expected}"
        raise DataError(found, line=line + data.count(b"\n", 0, error.start)) from None


def _read_header(
    blocks: Iterator[_Block], suffix: str, given: Sequence[str | None], separator: str | None
) -> tuple[_Layout, _Block]:
    """Read the first line that is not blank, and give the rest of its block."""
    for block in blocks:
        text = block.text.lstrip("\r\n")
        if text:
            break
    else:
        raise DataError("found an empty file, expected a header and interactions")
    line = block.line + block.text.count("\n", 0, len(block.text) - len(text))
    header, _, body = text.partition("\n")
    header = header.rstrip("\r")
    separator = separator or _find_separator(header, suffix)
    may_quote = suffix != ".inter" and len(separator) == 1
    names = _split_header(header, separator, line) if may_quote else header.split(separator)
    names = [_without_type(name.strip()) for name in names]
    if separator == "::" and not any(given) and not has_usual_name(names):
        if len(names) not in _MOVIELENS_NAMES:
            expected = "user, item and timestamp, or user, item, rating and timestamp"
            raise DataError(f"found {len(names)} fields and no header, expected {expected}", line=line)
        names = _MOVIELENS_NAMES[len(names)]
        columns, rest = find_columns(names, given), _Block(text, line)
    else:
        try:
            columns, rest = find_columns(names, given), _Block(body, line + 1)
        except DataError as error:
            raise DataError(error.message, line=line) from None
    return _Layout(names, columns, separator, may_quote), rest


def _find_separator(header: str, suffix: str) -> str:
    usual = _USUAL_SEPARATORS.get(suffix, ",")
    return usual if usual in header else max(_SEPARATORS, key=header.count)


def _split_header(header: str, separator: str, line: int) -> list[str]:
    try:
        return next(csv.reader([header], delimiter=separator, strict=True))
    except csv.Error as error:
        raise DataError(f"found a header that is no CSV: {error}", line=line) from None


def _without_type(name: str) -> str:
    for kind in _RECBOLE_TYPES:
        name = name.removesuffix(kind)
    return name


def _split_lines(block: _Block, layout: _Layout) -> TextTable:
    """Split lines in which nothing is quoted."""
    text = pl.Series([block.text]).str.split("\n").explode().str.strip_suffix("\r")
    lines = pl.Series(range(block.line, block.line + len(text)), dtype=pl.Int64)
    is_blank = text == ""
    if is_blank.any():
        text, lines = text.filter(~is_blank), lines.filter(~is_blank)
    width = len(layout.names)
    widths = text.str.count_matches(layout.separator, literal=True) + 1
    ragged = (widths != width).arg_true()
    if len(ragged) > 0:
        raise _ragged(int(widths[ragged[0]]), layout, int(lines[ragged[0]]))
    fields = text.str.split_exact(layout.separator, width - 1).struct
    rows = [fields.field(f"field_{column}").alias(layout.names[column]) for column in layout.columns]
    return TextTable(pl.DataFrame(rows), lines)


def _read_quoted(blocks: Iterable[_Block], layout: _Layout) -> Iterator[TextTable]:
    """Read lines with quoted fields; such a field may hold separators and line breaks."""
    first, blocks = _peek(blocks)
    text_lines = chain.from_iterable(io.StringIO(block.text, newline="\n") for block in blocks)
    reader = csv.reader(text_lines, delimiter=layout.separator, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    line = first.line
    try:
        for fields in reader:
            if fields:
                if len(fields) != len(layout.names):
                    raise _ragged(len(fields), layout, line)
                rows.append([fields[column] for column in layout.columns])
                lines.append(line)
            line = first.line + reader.line_num
            if len(rows) == _QUOTED_ROWS:
                yield _table(rows, lines, layout)
                rows, lines = [], []
    except csv.Error as error:
        raise DataError(f"found no CSV: {error}", line=line) from None
    yield _table(rows, lines, layout)


def _peek(blocks: Iterable[_Block]) -> tuple[_Block, Iterator[_Block]]:
    iterator = iter(blocks)
    first = next(iterator)
    return first, chain([first], iterator)


def _table(rows: list[list[str]], lines: list[int], layout: _Layout) -> TextTable:
    schema = {layout.names[column]: pl.String for column in layout.columns}
    return TextTable(pl.DataFrame(rows, schema=schema, orient="row"), pl.Series(lines, dtype=pl.Int64))


def _ragged(found: int, layout: _Layout, line: int) -> DataError:
    expected = f"{len(layout.names)}: {listed(layout.names)}"
    return DataError(f"found {found} field{'s' * (found != 1)}, expected {expected}", line=line)
