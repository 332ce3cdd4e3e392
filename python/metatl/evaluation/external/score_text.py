"""Tables of scores as text: they are read some lines at a time, and errors name the line."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import polars as pl

from metatl.data.readers.opened_files import open_file
from metatl.data.readers.text_blocks import Block, read_blocks, skip_blank_lines
from metatl.evaluation.external.ranked_lists import refuse_merged
from metatl.evaluation.external.score_tables import INDEX_NAMES, LONG_COLUMNS, ScoreTable
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

MAX_COLUMNS = 100_000
"""The most columns that a table of scores in text may have."""


def text_table(path: Path, separator: str) -> ScoreTable:
    """Open a text table that is read some lines at a time.

    Parameters
    ----------
    path : Path
        The file: UTF-8, with a header in the first line.
    separator : str
        The separator of fields.
    """
    lines = _lines(path)
    first = next(lines)
    header = first.text.rstrip("\r\n")
    lines.close()
    _check_header(header, separator, first.line)
    schema: dict[str, pl.DataType] = dict.fromkeys(_parse(header, separator).columns, pl.Float64())
    for name in schema:
        # Ids are matched as text; what is neither an id nor a score of pairs is not used.
        is_unused = set(LONG_COLUMNS) <= schema.keys() and name not in LONG_COLUMNS
        if name in ("user_id", "item_id", *INDEX_NAMES) or is_unused:
            schema[name] = pl.String()

    def blocks(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        lines = _lines(path)
        next(lines)
        for block in lines:
            yield _parse_block(block, header, separator, schema).select(columns)

    def column(name: str) -> pl.Series:
        try:
            types = {name: schema[name]}
            scan = pl.scan_csv(
                path, separator=separator, schema_overrides=types, infer_schema=False, glob=False
            )
            column = scan.select(name).collect()[name]
            if not column.null_count():
                return column
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            pass  # Read it again in blocks, to find the line of the error.
        return pl.concat([pl.Series(name, [], schema[name]), *(rows[name] for rows in blocks([name]))])

    return ScoreTable(schema, column, blocks)


def _check_header(header: str, separator: str, line: int) -> None:
    """Refuse a first line of numbers: the file has no header, and its first row would be lost.

    0, 1, 2, … are accepted: some programs write them as the names of unnamed columns.
    """
    try:
        names = next(csv.reader([header], delimiter=separator), [])
    except csv.Error as error:
        raise DataError(f"found a header that is not CSV: {error}", line=line) from None
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise DataError(f"found the column {repeated!r} more than once", line=line)
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return
    if numbers and numbers != list(range(len(numbers))):
        raise DataError("found numbers, expected a header: the names of the columns", line=line)


def _lines(path: Path) -> Generator[Block]:
    """Cut a file into its header and blocks of whole rows; a quoted field may contain line breaks."""
    with open_file(path) as file:
        blocks = read_blocks(file, expected="UTF-8 text")
        for block in blocks:
            start = skip_blank_lines(block)
            if start.text:
                break
        else:
            raise DataError("found an empty file, expected a header and rows")
        header, newline, body = start.text.partition("\n")
        if header.count(",") + header.count("\t") >= MAX_COLUMNS:
            raise DataError(f"found more than {MAX_COLUMNS:,} columns", line=start.line)
        yield Block(header, start.line)
        held = Block(body, start.line + len(newline))
        for block in blocks:
            if held.text and held.text.count('"') % 2 == 0:
                yield held
                held = block
            else:
                held = Block(held.text + block.text, held.line)
        if held.text:
            yield held


def _parse_block(block: Block, header: str, separator: str, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    text = f"{header}\n{block.text}"
    try:
        rows = _parse(text, separator, schema)
        for name, dtype in schema.items():
            if dtype == pl.Float64 and (rows[name].abs() >= 2**53).any():
                refuse_merged(_parse(text, separator)[name], rows[name])
        if not any(column.null_count() for column in rows):
            return rows
    except _UnreadableError:
        pass  # Parse it again as text, to find the line of the error.
    lines = _lines_of_rows(block, separator, len(schema))
    rows = _parse(text, separator)
    return pl.DataFrame([_cast(rows[name], dtype, lines) for name, dtype in schema.items()])


def _parse(text: str, separator: str, types: dict[str, pl.DataType] | None = None) -> pl.DataFrame:
    try:
        return pl.read_csv(
            text.encode(), separator=separator, schema_overrides=types, infer_schema=False, glob=False
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise _UnreadableError(f"found a damaged table ({reason})") from None


class _UnreadableError(DataError):
    """polars cannot read a block; its lines say why."""


def _lines_of_rows(block: Block, separator: str, width: int) -> list[int]:
    """Find the first line of each row, and refuse rows with another number of fields."""
    reader = csv.reader(io.StringIO(block.text, newline="\n"), delimiter=separator)
    lines, line = [], block.line
    try:
        for fields in reader:
            if len(fields) != width:
                raise DataError(f"found {len(fields)} fields, expected {width}", line=line)
            lines.append(line)
            line = block.line + reader.line_num
    except csv.Error as error:
        raise DataError(f"found no CSV: {error}", line=line) from None
    return lines


def _cast(column: pl.Series, dtype: pl.DataType, lines: list[int]) -> pl.Series:
    """Parse text as numbers; a missing id stays null and matches no id."""
    if dtype == pl.String:
        return column
    text = column.str.strip_chars()
    numbers: pl.Series = text.cast(dtype, strict=False)
    wrong = numbers.is_null()
    if wrong.any():
        row = int(wrong.arg_true()[0])
        value = "nothing" if column[row] is None else repr(column[row])
        raise DataError(f"found {value}, expected a number", line=lines[row], column=column.name)
    return numbers
