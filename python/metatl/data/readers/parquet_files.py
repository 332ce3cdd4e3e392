"""Reading Parquet files, whole or in blocks of rows, within the memory of the machine."""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeAlias

import polars as pl

from metatl.common.column_errors import quoted
from metatl.common.forks import refuse_forked_child
from metatl.common.memory import memory_bytes
from metatl.common.panics import reports_of_panics_dropped
from metatl.data.readers.parquet_pages import check_pages
from metatl.data.readers.regular_files import check_file
from metatl.data.time_zones import in_utc, unknown_zones_accepted
from metatl.exceptions import DataError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from polars.datatypes import DataType, DataTypeClass

ParquetSource: TypeAlias = "str | os.PathLike[str] | bytes"
"""The path of a file, or the content of one."""

_MAGIC = b"PAR1"
_SHARE_OF_MEMORY = 0.75
_VALUE_BYTES = 16  # of a text's view, the widest type that polars keeps in a column
# The rows of a block. Each block unpacks the pages it touches, so small blocks of a wide table are slow.
_BLOCK_ROWS = 1 << 20
_BLOCK_BYTES = 1 << 30


class ParquetTable(NamedTuple):
    """A table and the metadata of its file.

    Attributes
    ----------
    rows : polars.DataFrame
        The columns that were asked for.
    metadata : dict of str to str
        The key-value metadata that the writer of the file added.
    """

    rows: pl.DataFrame
    metadata: dict[str, str]


class ParquetBlocks(NamedTuple):
    """A table that is read in blocks of rows.

    Attributes
    ----------
    schema : dict of str to polars.DataType
        Names and types of the columns.
    blocks : callable
        Takes names of columns and yields these columns, one data frame for each block of rows.
    """

    schema: dict[str, pl.DataType]
    blocks: Callable[[Sequence[str]], Iterator[pl.DataFrame]]


def default_max_bytes() -> int:
    """Return the largest size in memory of a table, in bytes: three quarters of this machine's memory."""
    return int(_SHARE_OF_MEMORY * memory_bytes())


def read_parquet(
    source: ParquetSource, columns: Sequence[str] | None = None, *, max_bytes: int | None = None
) -> ParquetTable:
    """Read columns of a Parquet file.

    The number of rows in the footer, times the width of the columns, is compared with `max_bytes` before
    anything is unpacked: a small file can hold many equal values.

    Parameters
    ----------
    source : str, os.PathLike or bytes
        The path of the file, or its content.
    columns : sequence of str, optional
        Names of the columns to read. By default all.
    max_bytes : int, optional
        The largest size of the columns in memory. By default :func:`default_max_bytes`.

    Returns
    -------
    ParquetTable
        The columns in the order of `columns`.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file is not Parquet, is damaged, lacks a column, or is larger than `max_bytes`. The message is
        one line that names the file.
    OSError
        If the file may not be read.
    """
    refuse_forked_child()
    limit = default_max_bytes() if max_bytes is None else max_bytes
    with _errors_named(source):
        table, schema = _scan(source)
        wanted = list(schema if columns is None else columns)
        for name in wanted:
            if name not in schema:
                raise DataError(f"found no column {name!r} among {quoted(list(schema))}")
        num_rows = int(table.select(pl.len()).collect().item())
        _check_size(num_rows * _row_bytes(schema, wanted), num_rows, limit)
        with _open(source) as file:
            check_pages(file, set(wanted), limit)
        rows = table.select(wanted).collect()
        # Rows can share one long text, which is in memory once until an operation copies it.
        _check_size(sum(_text_bytes(column) for column in rows), num_rows, limit)
    return ParquetTable(rows, read_metadata(source))


def open_parquet(source: ParquetSource, *, max_bytes: int | None = None) -> ParquetBlocks:
    """Open a Parquet file that is read in blocks of rows, so that it can be larger than the memory.

    Parameters
    ----------
    source : str, os.PathLike or bytes
        The path of the file, or its content.
    max_bytes : int, optional
        The largest size of one block in memory. By default :func:`default_max_bytes`.

    Returns
    -------
    ParquetBlocks
        A block raises the errors of :func:`read_parquet` when it is read.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file is not Parquet or is damaged.
    OSError
        If the file may not be read.
    """
    refuse_forked_child()
    limit = default_max_bytes() if max_bytes is None else max_bytes
    with _errors_named(source):
        table, schema = _scan(source)
        num_rows = int(table.select(pl.len()).collect().item())

    def blocks(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        with _errors_named(source), _open(source) as file:
            check_pages(file, set(columns), limit)
        row_bytes = max(1, _row_bytes(schema, columns))
        height = max(1, min(_BLOCK_ROWS, min(_BLOCK_BYTES, limit) // row_bytes))
        for start in range(0, num_rows, height):
            with _errors_named(source):
                rows = table.select(columns).slice(start, height).collect()
                _check_size(sum(_text_bytes(column) for column in rows), rows.height, limit)
            yield rows

    return ParquetBlocks(schema, blocks)


def read_column_names(source: ParquetSource) -> list[str]:
    """Read the names of the columns of a Parquet file.

    Parameters
    ----------
    source : str, os.PathLike or bytes
        The path of the file, or its content.

    Returns
    -------
    list of str
        The names, in the order of the file.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file is not Parquet or is damaged.
    OSError
        If the file may not be read.
    """
    with _errors_named(source):
        return list(_scan(source)[1])


def read_metadata(source: ParquetSource) -> dict[str, str]:
    """Read the key-value metadata that the writer of a Parquet file added.

    Parameters
    ----------
    source : str, os.PathLike or bytes
        The path of the file, or its content.

    Returns
    -------
    dict of str to str
        The metadata.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If the file is not Parquet or is damaged.
    OSError
        If the file may not be read.
    """
    refuse_forked_child()
    with _errors_named(source):
        return pl.read_parquet_metadata(io.BytesIO(source) if isinstance(source, bytes) else Path(source))


def _open(source: ParquetSource) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")


def _scan(source: ParquetSource) -> tuple[pl.LazyFrame, dict[str, pl.DataType]]:
    """Check the marks at both ends of a file, and read its schema."""
    if not isinstance(source, bytes):
        check_file(source)
    with _open(source) as file:
        start = file.read(len(_MAGIC))
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - len(_MAGIC)))
        end = file.read()
    if size == 0:
        raise DataError("found an empty file, expected Parquet")
    if start != _MAGIC:
        raise DataError("found no Parquet, expected a file that starts with PAR1")
    if size < 3 * len(_MAGIC) or end != _MAGIC:
        raise DataError("found a damaged Parquet file (it ends early); copy it again")
    table = pl.scan_parquet(source if isinstance(source, bytes) else Path(source), glob=False)
    table = table.with_columns(in_utc(table.collect_schema()))
    return table, dict(table.collect_schema())


@contextmanager
def _errors_named(source: ParquetSource) -> Iterator[None]:
    """Turn errors of polars into one line, and name the file in every error."""
    try:
        with unknown_zones_accepted(), reports_of_panics_dropped():
            yield
    except DataError as error:
        if isinstance(source, bytes) or error.file is not None:
            raise
        raise error.in_file(source) from None
    except (OSError, MemoryError, EOFError):
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 (of any library)
        # polars raises errors of many types for a damaged file, and its panics are no `Exception`.
        reason = str(error).partition("\n")[0]
        damaged = DataError(f"found a damaged Parquet file ({reason})")
        raise (damaged if isinstance(source, bytes) else damaged.in_file(source)) from None


def _check_size(num_bytes: int, num_rows: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise DataError(
            f"found {num_rows} rows that take {num_bytes / 1e6:,.0f} MB, expected at most "
            f"{max_bytes / 1e6:,.0f} MB for the memory of this machine"
        )


def _row_bytes(schema: dict[str, pl.DataType], columns: Sequence[str]) -> int:
    """Bound the size of a row in memory, in bytes, without the letters of texts and the items of lists."""
    return sum(_value_bytes(schema[name]) for name in columns)


def _value_bytes(dtype: DataType | DataTypeClass) -> int:
    if isinstance(dtype, pl.Array):
        return dtype.size * _value_bytes(dtype.inner)
    return _VALUE_BYTES


def _text_bytes(column: pl.Series) -> int:
    """Count the bytes of the texts of a column, a shared text once for each row that has it."""
    if isinstance(column.dtype, pl.List):
        return _text_bytes(column.explode())
    if column.dtype == pl.String:
        return int(column.str.len_bytes().sum())
    return int(column.bin.size().sum()) if column.dtype == pl.Binary else 0
