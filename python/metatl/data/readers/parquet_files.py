"""Reading Parquet that somebody else wrote: what it claims to hold is checked before it is unpacked."""

from __future__ import annotations

import mmap
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import polars as pl

from metatl.common.column_errors import quoted
from metatl.common.memory import memory_bytes
from metatl.data.readers.parquet_limits import (
    check_pages,
    claimed_bytes,
    read_claims,
    refuse_large,
    refuse_overlaps,
    row_groups,
)
from metatl.data.readers.regular_files import check_file
from metatl.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from metatl.data.readers.parquet_limits import Claims

Source: TypeAlias = "str | os.PathLike[str] | bytes"
"""A file, or what was in one."""

_SHARE_OF_MEMORY = 0.75


class ParquetTable(NamedTuple):
    """A table, and what its writer noted beside it.

    Attributes
    ----------
    rows
        The columns that were asked for.
    metadata
        Names to texts.
    """

    rows: pl.DataFrame
    metadata: dict[str, str]


class ParquetBlocks(NamedTuple):
    """A table that is read row group by row group.

    Attributes
    ----------
    schema
        Names and types of the columns.
    blocks
        Gives the columns that are named, of one row group after the other.
    """

    schema: dict[str, pl.DataType]
    blocks: Callable[[Sequence[str]], Iterator[pl.DataFrame]]


def default_max_bytes() -> int:
    """Give the most bytes that a table may unpack to: three quarters of the memory of this machine."""
    return int(_SHARE_OF_MEMORY * memory_bytes())


def read_parquet(
    source: Source, columns: Sequence[str] | None = None, *, max_bytes: int | None = None
) -> ParquetTable:
    """Read columns of a Parquet file that need not be what it seems.

    What the file claims to unpack to, in its footer and in the headers of its pages, is compared with
    `max_bytes` before anything is unpacked; see :mod:`metatl.data.readers.parquet_limits`. A few hundred
    bytes can claim petabytes.

    Parameters
    ----------
    source
        The file, or its content.
    columns
        Names of the columns to read; all where they are not given.
    max_bytes
        The most bytes that they may take in memory: :func:`default_max_bytes` where it is not given.

    Returns
    -------
    ParquetTable
        The columns in the order of `columns`.

    Raises
    ------
    DataError
        If the file is missing, is none of Parquet or a damaged one, lacks a column, contradicts itself, or is
        larger than `max_bytes`; in one line that names the file.
    OSError
        If the file may not be read.
    """
    limit = default_max_bytes() if max_bytes is None else max_bytes
    with _opened(source) as content:
        claims = read_claims(content)
        wanted = list(claims.names if columns is None else columns)
        for name in wanted:
            if name not in claims.names:
                raise DataError(f"found no column {name!r} among {quoted(claims.names)}")
        refuse_large(claimed_bytes(claims, wanted), claims, limit)
        check_pages(content, claims, wanted, limit)
        # polars reads no more of a file than it needs if it has the path.
        whole = source if isinstance(source, bytes) else Path(source)
        with _damage_named():
            rows = pl.read_parquet(whole, columns=wanted, glob=False).select(wanted)
        _refuse_long_texts(rows, claims, limit)
    return ParquetTable(rows, claims.metadata)


def open_parquet(source: Source, *, max_bytes: int | None = None) -> ParquetBlocks:
    """Find the row groups of a Parquet file that need not be what it seems, and that may be large.

    Parameters
    ----------
    source
        The file, or its content.
    max_bytes
        The most bytes that one row group may take in memory: :func:`default_max_bytes` where it is not given.

    Returns
    -------
    ParquetBlocks
        Errors in a row group, those of :func:`read_parquet`, come when it is read.

    Raises
    ------
    DataError
        If the file is missing, is none of Parquet or a damaged one, or has a row group that is larger than
        `max_bytes`.
    OSError
        If the file may not be read.
    """
    limit = default_max_bytes() if max_bytes is None else max_bytes
    with _opened(source) as content:
        claims = read_claims(content)
        groups = row_groups(claims)
        for group in groups:
            refuse_large(claimed_bytes(group, claims.names), group, limit)
        refuse_overlaps(claims)
        with _damage_named():
            table = pl.scan_parquet(source if isinstance(source, bytes) else Path(source), glob=False)
            schema = dict(table.collect_schema())

    def blocks(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        start = 0
        for group in groups:
            with _opened(source) as content:
                check_pages(content, group, columns, limit)
                with _damage_named():
                    rows = table.select(columns).slice(start, group.num_rows).collect()
                _refuse_long_texts(rows, group, limit)
            yield rows
            start += group.num_rows

    return ParquetBlocks(schema, blocks)


def read_column_names(source: Source) -> list[str]:
    """Read the names of the columns of a Parquet file.

    Parameters
    ----------
    source
        The file, or its content.

    Raises
    ------
    DataError
        If the file is missing, is none of Parquet or a damaged one.
    OSError
        If the file may not be read.
    """
    with _opened(source) as content:
        return read_claims(content).names


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"found a damaged Parquet file ({reason})") from None


def _refuse_long_texts(rows: pl.DataFrame, claims: Claims, limit: int) -> None:
    # Rows may share one long text: it is there once, until somebody works with it.
    with _damage_named():
        text_bytes = sum(_text_bytes(column) for column in rows)
    refuse_large(text_bytes, claims, limit)


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    """Give the bytes of a file, mapped into memory; errors in the block name the file."""
    if isinstance(source, bytes):
        yield source
        return
    path = Path(source)
    name = str(path)
    check_file(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise DataError("found an empty file, expected Parquet", file=name)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                yield content
            except DataError as error:
                raise error.in_file(path) from None


def _text_bytes(column: pl.Series) -> int:
    """Bytes of the texts of a column, each counted where it stands."""
    if isinstance(column.dtype, pl.List):
        return _text_bytes(column.explode())
    if column.dtype == pl.String:
        return int(column.str.len_bytes().sum())
    return int(column.bin.size().sum()) if column.dtype == pl.Binary else 0
