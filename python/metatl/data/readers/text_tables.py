"""Reading three columns of a text file as text, with the line number of each row.

The file is read in blocks of whole lines. polars splits the lines while no field is quoted. From the first
block with a quote on, the csv module reads them: it is slower, and it knows the rules of quoting.
"""

from __future__ import annotations

import csv
import io
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from metatl.common.column_errors import quoted
from metatl.common.row_faults import SHOWN_FAULTS
from metatl.data.column_names import find_columns, has_usual_name
from metatl.data.readers.headerless_files import name_fields
from metatl.data.readers.text_blocks import Block, read_blocks, skip_blank_lines
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# The usual separator of a file by its suffix.
_USUAL_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t", ".dat": "::"}
_SEPARATORS = ("::", "\t", ",", ";", "|")
_RECBOLE_TYPES = (":token", ":token_seq", ":float", ":float_seq")

_QUOTED_ROWS = 1 << 20
_MAX_COLUMNS = 10_000


class TextTable(NamedTuple):
    """The columns that :func:`read_text_table` reads.

    Attributes
    ----------
    rows : polars.DataFrame
        The three columns, as String, with the names that they have in the file.
    lines : polars.Series
        Int64: the line number of each row, from 1.
    names : list of str
        The names of all columns of the file.
    bad_lines : list of DataError
        Descriptions of the first lines that are no rows, such as those with too few fields.
    num_bad_lines : int
        Number of such lines.
    """

    rows: pl.DataFrame
    lines: pl.Series
    names: list[str]
    bad_lines: list[DataError]
    num_bad_lines: int


def concat_tables(tables: Sequence[TextTable]) -> TextTable:
    """Join the tables of successive blocks of a file."""
    return TextTable(
        pl.concat([table.rows for table in tables]),
        pl.concat([table.lines for table in tables]),
        tables[0].names,
        list(chain.from_iterable(table.bad_lines for table in tables)),
        sum(table.num_bad_lines for table in tables),
    )


class _Layout(NamedTuple):
    """The positions of the three columns in a line."""

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
    file : io.BufferedReader
        The unpacked file.
    suffix : str
        The suffix of its name, as in `.csv`.
    given : sequence of (str or None)
        The names of the three columns. None looks for the usual names.
    separator : str or None
        The separator of fields. None finds it.

    Returns
    -------
    TextTable
        The three columns.

    Raises
    ------
    DataError
        If the file is not text, or has no such columns or no rows.
    """
    blocks = read_blocks(file)
    layout, first = _read_header(blocks, suffix, given, separator)
    return _read_rows(first, blocks, layout)


def read_whole_text(file: io.BufferedReader, *, suffix: str) -> TextTable:
    """Read all columns of a text file with a header, as text.

    Parameters
    ----------
    file : io.BufferedReader
        The unpacked file.
    suffix : str
        The suffix of its name, as in `.csv`.

    Returns
    -------
    TextTable
        All columns.

    Raises
    ------
    DataError
        If the file is not text, is empty, has no rows, or has two columns of one name.
    """
    blocks = read_blocks(file)
    start, header = _first_line(blocks, "a header and rows")
    separator = _find_separator(header, suffix)
    may_quote = len(separator) == 1
    fields = _split_header(header, separator, start.line) if may_quote else header.split(separator)
    names = [name.strip() for name in fields]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(f"found the column {repeated!r} more than once", line=start.line)
    layout = _Layout(names, list(range(len(names))), separator, may_quote)
    body = Block(start.text.partition("\n")[2], start.line + 1)
    return _read_rows(body, blocks, layout)


def _first_line(blocks: Iterator[Block], expected: str) -> tuple[Block, str]:
    """Find the first line that is not blank; return it, and the block that starts with it."""
    for block in blocks:
        start = skip_blank_lines(block)
        if start.text:
            header = start.text.partition("\n")[0].rstrip("\r")
            if header.count(max(_SEPARATORS, key=header.count)) >= _MAX_COLUMNS:
                raise DataError(f"found more than {_MAX_COLUMNS:,} columns", line=start.line)
            return start, header
    raise DataError(f"found an empty file, expected {expected}")


def _read_rows(first: Block, blocks: Iterator[Block], layout: _Layout) -> TextTable:
    tables: list[TextTable] = []
    for block in chain([first], blocks):
        if layout.may_quote and '"' in block.text:
            tables.extend(_read_quoted(chain([block], blocks), layout))
            break
        tables.append(_split_lines(block, layout))
    table = concat_tables(tables)
    if table.rows.is_empty() and not table.num_bad_lines:
        raise DataError(f"found the header {quoted(layout.names)} but no rows, expected rows")
    return table


def _read_header(
    blocks: Iterator[Block], suffix: str, given: Sequence[str | None], separator: str | None
) -> tuple[_Layout, Block]:
    """Read the first line that is not blank, and return the rest of its block."""
    start, header = _first_line(blocks, "a header and interactions")
    line = start.line
    body = start.text.partition("\n")[2]
    separator = separator or _find_separator(header, suffix)
    may_quote = suffix != ".inter" and len(separator) == 1
    names = _split_header(header, separator, line) if may_quote else header.split(separator)
    names = [_without_type(name.strip()) for name in names]
    try:
        fields = None if any(given) or has_usual_name(names) else name_fields(names, separator)
        names = fields or names
        columns = find_columns(names, given)
    except DataError as error:
        raise DataError(_explain_header(header, names, error.message), line=line) from None
    rest = Block(body, line + 1) if fields is None else start
    return _Layout(names, columns, separator, may_quote), rest


def _find_separator(header: str, suffix: str) -> str:
    usual = _USUAL_SEPARATORS.get(suffix, ",")
    if usual in header:
        return usual
    separator = max(_SEPARATORS, key=header.count)
    return separator if separator in header else " "


def _explain_header(header: str, names: Sequence[str], message: str) -> str:
    """Say what the first line is where it is no header of several columns."""
    if header.startswith(("#", "%", "//")):
        return f"found a comment, {quoted([header])}, expected a header; remove the lines above the header"
    if len(names) == 1:
        return (
            f"found one field, {quoted([header])}, expected a header with columns of users, items and "
            "timestamps, separated by a comma, tab, semicolon, bar, :: or space; name another with separator"
        )
    return message


def _split_header(header: str, separator: str, line: int) -> list[str]:
    try:
        return next(csv.reader([header], delimiter=separator, strict=True))
    except csv.Error as error:
        raise DataError(f"found a header that is not CSV: {error}", line=line) from None


def _without_type(name: str) -> str:
    for kind in _RECBOLE_TYPES:
        name = name.removesuffix(kind)
    return name


def _split_lines(block: Block, layout: _Layout) -> TextTable:
    """Split lines without quoted fields."""
    text = pl.Series([block.text]).str.split("\n").explode().str.strip_suffix("\r")
    lines = pl.Series(range(block.line, block.line + len(text)), dtype=pl.Int64)
    is_blank = text == ""
    if is_blank.any():
        text, lines = text.filter(~is_blank), lines.filter(~is_blank)
    width = len(layout.names)
    widths = text.str.count_matches(layout.separator, literal=True) + 1
    is_ragged = widths != width
    ragged = is_ragged.arg_true()
    errors = [_ragged(int(widths[row]), layout, int(lines[row])) for row in ragged[:SHOWN_FAULTS]]
    if errors:
        text, lines = text.filter(~is_ragged), lines.filter(~is_ragged)
    fields = text.str.split_exact(layout.separator, width - 1).struct
    rows = [fields.field(f"field_{column}").alias(layout.names[column]) for column in layout.columns]
    return TextTable(pl.DataFrame(rows), lines, layout.names, errors, len(ragged))


def _read_quoted(blocks: Iterable[Block], layout: _Layout) -> Iterator[TextTable]:
    """Read lines with quoted fields; such a field may hold separators and line breaks."""
    first, blocks = _peek(blocks)
    text_lines = chain.from_iterable(io.StringIO(block.text, newline="\n") for block in blocks)
    reader = csv.reader(text_lines, delimiter=layout.separator, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    errors: list[DataError] = []
    num_ragged = 0
    line = first.line
    try:
        for fields in reader:
            if len(fields) == len(layout.names):
                rows.append([fields[column] for column in layout.columns])
                lines.append(line)
            elif fields:
                num_ragged += 1
                if len(errors) < SHOWN_FAULTS:
                    errors.append(_ragged(len(fields), layout, line))
            line = first.line + reader.line_num
            if len(rows) == _QUOTED_ROWS:
                yield _table(rows, lines, layout, [], 0)
                rows, lines = [], []
    except csv.Error as error:
        raise DataError(f"found text that is not CSV: {error}", line=line) from None
    yield _table(rows, lines, layout, errors, num_ragged)


def _peek(blocks: Iterable[Block]) -> tuple[Block, Iterator[Block]]:
    iterator = iter(blocks)
    first = next(iterator)
    return first, chain([first], iterator)


def _table(
    rows: list[list[str]], lines: list[int], layout: _Layout, errors: list[DataError], num_ragged: int
) -> TextTable:
    schema = {layout.names[column]: pl.String for column in layout.columns}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return TextTable(table, pl.Series(lines, dtype=pl.Int64), layout.names, errors, num_ragged)


def _ragged(num_fields: int, layout: _Layout, line: int) -> DataError:
    expected = f"{len(layout.names)}: {quoted(layout.names)}"
    return DataError(f"found {num_fields} field{'s' * (num_fields != 1)}, expected {expected}", line=line)
