"""Counts and sizes that a Parquet file states are checked before memory is reserved for them."""

from __future__ import annotations

import io

import polars as pl
import pytest

from metatl.data.readers.parquet_files import open_parquet, read_parquet
from metatl.exceptions import DataError

ROWS = 300
FRAME = pl.DataFrame({"a": range(ROWS), "b": [f"user {row % 7}" for row in range(ROWS)]})


def zigzag(number):
    """A number as Thrift's compact protocol writes it."""
    number = number << 1 if number >= 0 else (-number << 1) - 1
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def written(frame=FRAME, **options):
    content = io.BytesIO()
    frame.write_parquet(content, compression="uncompressed", statistics=False, **options)
    return content.getvalue()


def with_count(content, number, instead, where="pages"):
    """The file with other numbers in place of one, in the pages or in the footer."""
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    pages, footer = content[:start], content[start:-8]
    if where == "pages":
        pages = pages.replace(zigzag(number), zigzag(instead))
    else:
        footer = footer.replace(zigzag(number), zigzag(instead))
    return pages + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize("where", ["pages", "footer"])
# Each takes the two bytes that 300 takes, so that no offset of the file moves.
@pytest.mark.parametrize("count", [-300, -65, 64, 299, 301, 8191])
def test_a_wrong_number_of_values_is_refused(count, where):
    damaged = with_count(written(), ROWS, count, where)
    assert damaged != written()
    with pytest.raises(DataError, match="found a damaged Parquet file"):
        read_parquet(damaged)
    with pytest.raises(DataError, match="found a damaged Parquet file"):
        list(open_parquet(damaged)[1](["a", "b"]))


def test_the_column_is_named():
    damaged = with_count(written(FRAME.select("b")), ROWS, -ROWS)
    with pytest.raises(DataError, match="column 'b' has a page of -300 values where 300 remain"):
        read_parquet(damaged)


def test_pages_of_other_columns_are_not_visited():
    other = written(FRAME.with_columns(c=pl.lit(0)))
    damaged = with_count(other, ROWS, -ROWS)
    with pytest.raises(DataError):
        read_parquet(damaged, ["a"])
    position = other.index(zigzag(ROWS))
    only_first = other[:position] + zigzag(-ROWS) + other[position + 2 :]
    with pytest.raises(DataError, match="column 'a'"):
        read_parquet(only_first, ["a"])
    assert read_parquet(only_first, ["b"]).rows.equals(FRAME.select("b"))


@pytest.mark.parametrize("options", [{}, {"row_group_size": 7}, {"data_page_size": 50}])
@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "uncompressed"])
@pytest.mark.parametrize("statistics", [True, False, "full"])
def test_sound_files_pass(options, compression, statistics):
    frame = FRAME.with_columns(
        long=pl.Series(["x" * 5000, None, "y"] * 100),
        nested=pl.Series([[row] * (row % 5) for row in range(ROWS)]),
        record=pl.struct("a", "b"),
        nothing=pl.lit(None),
    )
    content = io.BytesIO()
    frame.write_parquet(content, compression=compression, statistics=statistics, **options)
    assert read_parquet(content.getvalue()).rows.equals(frame)
