"""Parquet files of any writer: sound, damaged, truncated, or too large for the memory."""

from __future__ import annotations

import base64
import gzip
import io
import random

import polars as pl
import pytest

from metatl.common.memory import memory_bytes
from metatl.data.candidates import CandidateSets
from metatl.data.readers.interaction_files import read_interactions
from metatl.data.readers.parquet_files import default_max_bytes, open_parquet, read_column_names, read_parquet
from metatl.exceptions import DataError


def written(frame, **options):
    content = io.BytesIO()
    frame.write_parquet(content, **options)
    return content.getvalue()


def varied():
    return pl.DataFrame(
        {
            "number": range(500),
            "text": [f"user {number}" for number in range(500)],
            "list": [[str(number)] * (number % 4) for number in range(500)],
            "gap": [None if number % 3 else number / 7 for number in range(500)],
            "record": [{"a": number, "b": [number] * (number % 2)} for number in range(500)],
            "truth": [number % 2 == 0 for number in range(500)],
            "day": pl.Series(range(500)).cast(pl.Date),
            "category": pl.Series(["a", "b"] * 250, dtype=pl.Categorical),
        }
    )


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "uncompressed"])
@pytest.mark.parametrize("options", [{}, {"row_group_size": 100}, {"data_page_size": 200}])
def test_sound_files_are_read(tmp_path, compression, options):
    frame = varied()
    content = written(frame, compression=compression, metadata={"who": "we"}, **options)
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    for source in (path, str(path), content):
        rows, metadata = read_parquet(source)
        assert rows.equals(frame)
        assert metadata["who"] == "we"
        assert read_parquet(source, ["text", "number"]).rows.equals(frame.select("text", "number"))
        assert read_column_names(source) == frame.columns


def test_tables_without_rows_or_columns_are_read():
    empty = pl.DataFrame(schema={"a": pl.Int64, "b": pl.List(pl.String)})
    assert read_parquet(written(empty)).rows.equals(empty)
    assert read_parquet(written(pl.DataFrame())).rows.width == 0


# pq.write_table(table.slice(0, 0), path, store_schema=False, compression="none") by pyarrow 26: a row group
# without rows, whose columns have a dictionary without entries and no page of data.
EMPTY_BY_PYARROW = base64.b64decode(
    "UEFSMRUEFQAVAEwVABUAEgAAFQQVABUATBUAFQASAAAVBBUAFQBMFQAVABIAABUEGUw1ABgGc2NoZW1hFQYAFQwlAhgHdXNlcl9p"
    "ZCUATBwAAAAVDCUCGAdpdGVtX2lkJQBMHAAAABUEJQIYCXRpbWVzdGFtcAAWABkcGTwmABwVDBklAAYZGAd1c2VyX2lkFQAWABYc"
    "FhwmACYIKRwVBBUAFQIAAAAmABwVDBklAAYZGAdpdGVtX2lkFQAWABYcFhwmACYkKRwVBBUAFQIAAAAmABwVBBklAAYZGAl0aW1l"
    "c3RhbXAVABYAFhwWHCYAJkApHBUEFQAVAgAAABZUFgAmCBZUACggcGFycXVldC1jcHAtYXJyb3cgdmVyc2lvbiAyNi4wLjEZPBwA"
    "ABwAABwAAAAGAQAAUEFSMQ=="
)


def test_a_table_without_rows_by_another_writer(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(EMPTY_BY_PYARROW)
    schema = {"user_id": pl.String(), "item_id": pl.String(), "timestamp": pl.Int64()}
    assert read_parquet(path).rows.equals(pl.DataFrame(schema=schema))
    found, blocks = open_parquet(path)
    assert found == schema
    assert all(rows.is_empty() for rows in blocks(list(schema)))
    with pytest.raises(
        DataError, match=r"a\.parquet: found the columns .* but no rows, expected interactions"
    ):
        read_interactions(path)


def assert_refused(source, *parts, **options):
    with pytest.raises(DataError) as caught:
        read_parquet(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for part in parts:
        assert part in message
    return message


def test_what_is_no_parquet_is_told_in_one_line(tmp_path):
    path = tmp_path / "a.parquet"
    assert_refused(path, f"{path}: found no such file")
    assert_refused(path / "b.parquet", "b.parquet: found no such file")
    assert_refused(tmp_path, ": found a folder, expected a file")
    content = written(varied())
    for damaged, message in [
        (b"", "found an empty file, expected Parquet"),
        (b"user,item\n1,2\n", "found no Parquet, expected a file that starts with PAR1"),
        (b"PAR1", "found a damaged Parquet file (it ends early); copy it again"),
        (content[:-1], "found a damaged Parquet file (it ends early); copy it again"),
        (content[: len(content) // 2], "found a damaged Parquet file (it ends early); copy it again"),
        (content[:4] + content[-8:], "found a damaged Parquet file ("),
        (content[:-8] + b"\xff\xff\xff\x7fPAR1", "found a damaged Parquet file ("),
        (content[:-8] + b"\0\0\0\0PAR1", "found a damaged Parquet file ("),
        (b"PAR1\0\1\0\0\0PAR1", "found a damaged Parquet file ("),
    ]:
        path.write_bytes(damaged)
        assert_refused(path, f"{path}: {message}")


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [1], "b": [2]}).write_parquet(path)
    message = assert_refused(path, columns=["a", "c"])
    assert message == f"{path}: found no column 'c' among 'a', 'b'"


def in_blocks(source, **options):
    """All blocks of a file, one after the other."""
    schema, blocks = open_parquet(source, **options)
    return list(blocks(list(schema)))


def test_blocks_follow_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("metatl.data.readers.parquet_files._BLOCK_ROWS", 120)
    path = tmp_path / "a.parquet"
    frame = varied()
    for row_group_size in (70, 120, 500):
        frame.write_parquet(path, row_group_size=row_group_size)
        schema, blocks = open_parquet(path)
        assert schema == dict(frame.schema)
        found = list(blocks(["text", "number"]))
        assert [rows.height for rows in found] == [120, 120, 120, 120, 20]
        assert pl.concat(found).equals(frame.select("text", "number"))


def test_a_block_fits_the_limit_where_the_table_does_not():
    frame = pl.DataFrame({"a": range(100_000)})
    content = written(frame, row_group_size=10_000)
    assert_refused(content, "found 100000 rows that take 2 MB, expected at most 0 MB", max_bytes=300_000)
    found = in_blocks(content, max_bytes=300_000)
    assert max(rows.height for rows in found) * 16 <= 300_000
    assert pl.concat(found).equals(frame)


def test_one_long_text_in_many_rows_is_refused():
    content = written(pl.DataFrame({"a": ["x" * 5_000] * 40_000}))
    assert len(content) < 10_000
    assert_refused(
        content, "found 40000 rows that take 200 MB, expected at most 100 MB", max_bytes=100_000_000
    )
    assert read_parquet(content, max_bytes=10**9).rows.height == 40_000
    content = written(pl.DataFrame({"a": [["x" * 5_000] * 40_000]}))
    with pytest.raises(DataError, match="page of column 'a' that takes 200 MB, expected at most 100 MB"):
        in_blocks(content, max_bytes=100_000_000)
    assert_refused(content, "found a page of column 'a' that takes 200 MB", max_bytes=100_000_000)


def test_a_small_file_of_many_rows_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    path.write_bytes(written(pl.DataFrame({"a": pl.Series([1]).new_from_index(0, 10**6), "b": 1})))
    assert path.stat().st_size < 20_000
    message = assert_refused(path, max_bytes=31_000_000)
    assert message == (
        f"{path}: found 1000000 rows that take 32 MB, expected at most 31 MB for the memory of this machine"
    )
    assert read_parquet(path, ["a"], max_bytes=31_000_000).rows.height == 10**6
    monkeypatch.setattr("metatl.data.readers.parquet_files.memory_bytes", lambda: 30_000_000)
    for load in (read_interactions, CandidateSets.load):
        with pytest.raises(DataError, match=r"a\.parquet"):
            load(path)
    assert_refused(path, "expected at most 22 MB for the memory of this machine")


def test_a_vector_is_as_wide_as_its_values():
    frame = pl.DataFrame({"a": pl.Series([[0.0] * 100] * 50, dtype=pl.Array(pl.Float32, 100))})
    assert read_parquet(written(frame), max_bytes=80_000).rows.equals(frame)
    assert_refused(written(frame), "found 50 rows that take", max_bytes=79_999)


def test_the_limit_is_three_quarters_of_the_memory():
    assert 2**28 <= default_max_bytes() < memory_bytes()


def test_a_gzip_that_unpacks_to_more_than_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("metatl.data.readers.interaction_files.default_max_bytes", lambda: 10**7)
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(b"PAR1" + bytes(2 * 10**7)))
    with pytest.raises(DataError, match="found a gzip that unpacks to more than 10000000 bytes"):
        read_interactions(path)


SOUND = [
    written(varied().select("number", "text", "list"), compression=compression, row_group_size=200)
    for compression in ("zstd", "uncompressed")
]


def message_of(read, content):
    """What an attempt to read a file says; nothing if it can be read."""
    try:
        read(content, max_bytes=10**8)
    except DataError as error:
        return str(error)
    return ""


def test_a_file_that_ends_early_is_one_line(tmp_path):
    path = tmp_path / "a.parquet"
    for content in SOUND:
        for size in range(0, len(content), 7):
            path.write_bytes(content[:size])
            assert_refused(path, f"{path}: found ")


def test_damaged_bytes_end_in_one_line_or_a_table():
    # Fixed faults: where a damaged header asks for more memory than there is, polars ends the process.
    outcomes = set()
    for seed in range(300):
        randomness = random.Random(seed)  # noqa: S311 (test data)
        content = bytearray(randomness.choice(SOUND))
        for _ in range(randomness.randint(1, 3)):
            # Half of the faults are in the footer, a small part of the file.
            start = len(content) - 900 if randomness.random() < 0.5 else 0
            content[randomness.randrange(start, len(content))] = randomness.choice(
                [0, 127, 128, 255, randomness.randrange(256)]
            )
        for read in (read_parquet, in_blocks):
            message = message_of(read, bytes(content))
            assert "\n" not in message
            outcomes.add(message != "")
    assert outcomes == {True, False}
