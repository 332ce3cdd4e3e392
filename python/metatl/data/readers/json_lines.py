"""Reading three fields of JSON lines as text, with the line number of each row.

polars reads one block of lines at a time and keeps the three fields only, with ids as categories. So reviews
with long texts, and files of hundreds of millions of lines, need little memory.
"""

from __future__ import annotations

import io
import json
from itertools import chain
from typing import TYPE_CHECKING

import polars as pl

from metatl.common.column_errors import quoted
from metatl.data.column_names import find_columns
from metatl.data.readers.text_blocks import Block, read_blocks, skip_blank_lines
from metatl.data.readers.text_tables import TextTable, concat_tables
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_EXPECTED = "expected one object a line, as in {...}"


def read_json_lines(file: io.BufferedReader, *, given: Sequence[str | None]) -> TextTable:
    """Read the fields of users, items and timestamps.

    Parameters
    ----------
    file : io.BufferedReader
        The unpacked file: one object a line. Blank lines are skipped. The first object gives the names of
        the fields; a field that a later object lacks is missing.
    given : sequence of (str or None)
        The names of the three fields. None looks for the usual names.

    Returns
    -------
    TextTable
        The three fields.

    Raises
    ------
    DataError
        If the first line is not an object or lacks a field.
    """
    blocks = read_blocks(file)
    first = _first_object(blocks)
    try:
        names = list(_parse(first.text.partition("\n")[0]))
        columns = [names[column] for column in find_columns(names, given)]
        _refuse_nested(first, columns)
    except DataError as error:
        raise DataError(error.message, line=first.line, column=error.column) from None
    schema = dict.fromkeys(columns, pl.String())
    tables = [_read_block(block, schema)._replace(names=names) for block in chain([first], blocks)]
    return concat_tables(tables)


def _first_object(blocks: Iterator[Block]) -> Block:
    for block in blocks:
        start = skip_blank_lines(block)
        if start.text:
            return start
    raise DataError(f"found an empty file, {_EXPECTED}")


def _parse(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"found no JSON ({error.msg} at character {error.pos + 1}), {_EXPECTED}") from None
    except (ValueError, RecursionError):
        raise DataError(f"found JSON that is nested too deeply, {_EXPECTED}") from None
    if not isinstance(value, dict):
        raise DataError(f"found JSON that is no object, {_EXPECTED}")
    return value


def _refuse_nested(first: Block, columns: Sequence[str]) -> None:
    values = _parse(first.text.partition("\n")[0])
    for column in columns:
        if isinstance(values[column], (dict, list)):
            raise DataError("found a list or an object, expected a number or text", column=column)


def _read_block(block: Block, schema: dict[str, pl.String]) -> TextTable:
    """Read a block, and keep the line number of each row."""
    end = block.line + block.text.count("\n") + (not block.text.endswith("\n"))
    lines = pl.Series(range(block.line, end), dtype=pl.Int64)
    errors: list[DataError] = []
    try:
        rows = _read_text(block.text, schema)
        if len(lines) > len(rows):
            lines = lines.filter(pl.Series([bool(line.strip()) for line in _lines(block)]))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        rows = pl.DataFrame(schema=schema)
    if len(lines) != len(rows):
        kept, errors = _split_faults(block)
        if not errors:
            raise _find_fault(block, schema) from None
        numbers = [number for number, _ in kept]
        lines = pl.Series(numbers, dtype=pl.Int64)
        rows = pl.DataFrame(schema=schema)
        if kept:
            again = Block("\n".join(line for _, line in kept), block.line)
            try:
                rows = _read_text(again.text, schema)
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
                raise _find_fault(block, schema) from None
        if len(rows) != len(lines):
            raise _find_fault(block, schema)
    # Ids are long and frequent: as categories, their texts are kept once for all blocks.
    users, items, _ = schema
    rows = rows.cast({users: pl.Categorical, items: pl.Categorical})
    return TextTable(rows, lines, [], errors, len(errors))


def _split_faults(block: Block) -> tuple[list[tuple[int, str]], list[DataError]]:
    """Split the lines of a block into numbered lines that hold an object, and errors of the others."""
    kept, errors = [], []
    for number, line in enumerate(_lines(block), start=block.line):
        if line.strip():
            try:
                _parse(line)
            except DataError as error:
                errors.append(DataError(error.message, line=number))
            else:
                kept.append((number, line))
    return kept, errors


def _read_text(text: str, schema: dict[str, pl.String]) -> pl.DataFrame:
    return pl.read_ndjson(io.BytesIO(text.encode()), schema=schema).select(list(schema))


def _lines(block: Block) -> list[str]:
    # Not splitlines: it also splits at characters that may occur within a text.
    return block.text.removesuffix("\n").split("\n")


def _find_fault(block: Block, schema: dict[str, pl.String]) -> DataError:
    """Find the first line that polars cannot read, by bisection."""
    lines = _lines(block)
    start, end = 0, len(lines)
    while end - start > 1:
        middle = (start + end) // 2
        if _is_readable(lines[start:middle], schema):
            start = middle
        else:
            end = middle
    line = block.line + start
    try:
        _parse(lines[start])
    except DataError as error:
        return DataError(error.message, line=line)
    return DataError(f"found no JSON among {quoted([lines[start]])}, {_EXPECTED}", line=line)


def _is_readable(lines: Sequence[str], schema: dict[str, pl.String]) -> bool:
    try:
        rows = _read_text("\n".join(lines), schema)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False
    return len(rows) == sum(bool(line.strip()) for line in lines)
