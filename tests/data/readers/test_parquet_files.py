"""Parquet that somebody else wrote: damaged, truncated, or with claims that would fill the memory."""

from __future__ import annotations

import base64
import gzip
import io
import random
import re
import resource
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forged_parquet import Forgery
from metatl.common.memory import memory_bytes
from metatl.data.candidates import CandidateSets
from metatl.data.readers.interaction_files import read_interactions
from metatl.data.readers.parquet_files import default_max_bytes, open_parquet, read_column_names, read_parquet
from metatl.data.readers.parquet_limits import claimed_bytes, read_claims
from metatl.evaluation.external.evaluate_scores import evaluate_scores
from metatl.exceptions import DataError

INTEGERS = pl.Series([7] * 1_000)
TEXTS = pl.Series(["abc"] * 1_000)
LISTS = pl.Series([[7] * 1_000])
MOST = 2**31 - 1


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


def test_the_claims_are_those_of_the_file():
    claims = read_claims(written(varied(), row_group_size=100))
    assert claims.names == varied().columns
    assert claims.num_rows == 500
    assert len(claims.chunks) == 5 * 9
    assert [chunk.is_flat for chunk in claims.chunks[:9]] == [
        True,
        True,
        False,
        True,
        False,
        False,
        *[True] * 3,
    ]
    assert claimed_bytes(claims, ["number"]) == 500 * 16
    # Of 500 lists, 125 are empty, and an empty one counts as one value.
    assert claimed_bytes(claims, ["list"]) == (125 + 125 * (1 + 2 + 3)) * 16


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
        (b"PAR1", "found a damaged Parquet file (it ends early)"),
        (content[:-1], "found a damaged Parquet file (it ends early)"),
        (content[: len(content) // 2], "found a damaged Parquet file (it ends early)"),
        (content[:4] + content[-8:], "found a damaged Parquet file (it ends early)"),
        (content[:-8] + b"\xff\xff\xff\x7fPAR1", "found a damaged Parquet file (it ends early)"),
        (content[:-8] + b"\0\0\0\0PAR1", "found a damaged Parquet file (its description ends early)"),
        (b"PAR1\0\1\0\0\0PAR1", "found a damaged Parquet file (its footer does not describe a table)"),
        (b"PAR1" + b"\x1c" * 99 + b"\x63\0\0\0PAR1", "its description is nested too deeply"),
        (b"PAR1\x16" + b"\xff" * 20 + b"\x15\0\0\0PAR1", "an integer of more than 64 bits"),
        (b"PAR1\x19\xf5\xff\xff\xff\xff\x07\x06\0\0\0PAR1", "its description ends early"),
        (b"PAR1" + bytes(40 << 20) + (33 << 20).to_bytes(4, "little") + b"PAR1", "found a Parquet footer of"),
    ]:
        path.write_bytes(damaged)
        assert_refused(path, f"{path}: {message}" if message.startswith("found") else message)


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [1], "b": [2]}).write_parquet(path)
    message = assert_refused(path, columns=["a", "c"])
    assert message == f"{path}: found no column 'c' among 'a', 'b'"


def petabytes():
    """300 row groups of the same 300 pages, each of 2^31 values."""
    forgery = Forgery(INTEGERS)
    forgery.claim(forgery.data, 1, MOST)
    if 3 in forgery.data:
        forgery.claim(forgery.data, 3, MOST)
    forgery.pages += [forgery.pages[-1]] * 299
    return forgery.claim_rows(300 * MOST).content(groups=300)


def test_42_kilobytes_that_claim_petabytes(tmp_path):
    content = petabytes()
    assert len(content) < 42_000
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    # Refused by the footer alone, with any limit that a machine could have.
    assert_refused(
        path, f"{path}: found a Parquet file that claims 3 PB in 193273528230000 rows", max_bytes=2**50
    )
    for load in (CandidateSets.load, read_interactions, evaluate_scores):
        with pytest.raises(DataError, match=r"a\.parquet"):
            load(path)
    assert_refused(path, "expected at most", "for the memory of this machine")
    assert 2**28 <= default_max_bytes() < memory_bytes()


FORGERIES = {
    "rows of the footer": lambda: Forgery(INTEGERS).claim_rows(10**9),
    "rows and values apart": lambda: (f := Forgery(INTEGERS)).claim(f.chunk, 5, 1_001),
    "rows apart": lambda: (f := Forgery(INTEGERS)).claim(f.footer, 3, 10),
    "negative rows": lambda: Forgery(INTEGERS).claim_rows(-1),
    "negative values": lambda: (f := Forgery(LISTS)).claim(f.chunk, 5, -1),
    "values of a page": lambda: (f := Forgery(INTEGERS)).claim(f.data, 1, MOST),
    "values of a page of texts": lambda: (f := Forgery(TEXTS)).claim(f.data, 1, MOST),
    "values of a page of lists": lambda: (f := Forgery(LISTS)).claim(f.data, 1, MOST),
    "negative values of a page": lambda: (f := Forgery(INTEGERS)).claim(f.data, 1, -1),
    "values of lists": lambda: (f := Forgery(LISTS)).claim(f.data, 1, MOST).claim(f.chunk, 5, MOST),
    "fewer values": lambda: (f := Forgery(INTEGERS)).claim(f.data, 1, 10),
    "bytes of a page": lambda: (f := Forgery(INTEGERS)).claim(f.pages[-1][0], 2, MOST),
    "negative bytes of a page": lambda: (f := Forgery(INTEGERS)).claim(f.pages[-1][0], 2, -1),
    "entries of a dictionary": lambda: (f := Forgery(INTEGERS)).claim(f.pages[0][0][7][1], 1, MOST),
    "entries of a dictionary of texts": lambda: (f := Forgery(TEXTS)).claim(f.pages[0][0][7][1], 1, MOST),
    "bytes of a dictionary": lambda: (f := Forgery(TEXTS)).claim(f.pages[0][0], 2, MOST),
    "a page beyond the file": lambda: (f := Forgery(INTEGERS)).claim(f.pages[-1][0], 3, MOST),
    "a page before the file": lambda: (f := Forgery(INTEGERS)).claim(f.pages[-1][0], 3, -MOST),
    "an encoding": lambda: (f := Forgery(TEXTS)).claim(f.data, 2, 7),
}


def in_blocks(source, **options):
    """All row groups of a file, one after the other."""
    schema, blocks = open_parquet(source, **options)
    return list(blocks(list(schema)))


@pytest.mark.parametrize("name", FORGERIES)
def test_a_lie_is_refused_before_anything_is_unpacked(name, monkeypatch):
    def unpack(*_, **__):
        pytest.fail("unpacked")

    forgery = FORGERIES[name]()
    monkeypatch.setattr(pl, "read_parquet", unpack)
    monkeypatch.setattr(pl.LazyFrame, "collect", unpack)
    assert_refused(forgery.content(), max_bytes=10**9)
    with pytest.raises(DataError):
        in_blocks(forgery.content(), max_bytes=10**9)


@pytest.mark.parametrize("column", [INTEGERS, TEXTS, LISTS])
def test_what_is_put_together_without_a_lie_is_read(column):
    assert read_parquet(Forgery(column).content()).rows["a"].equals(column)
    assert [rows["a"].to_list() for rows in in_blocks(Forgery(column).content())] == [column.to_list()]


def test_row_groups_that_share_their_values_are_refused():
    forgery = Forgery(INTEGERS)
    assert_refused(forgery.content(groups=50), "its columns overlap")
    with pytest.raises(DataError, match="its columns overlap"):
        open_parquet(forgery.content(groups=50))


def test_row_groups_come_one_by_one(tmp_path):
    path = tmp_path / "a.parquet"
    frame = varied()
    frame.write_parquet(path, row_group_size=120)
    schema, blocks = open_parquet(path)
    assert schema == dict(frame.schema)
    found = list(blocks(["text", "number"]))
    assert [rows.height for rows in found] == [120, 120, 120, 120, 20]
    assert pl.concat(found).equals(frame.select("text", "number"))


def test_only_the_size_of_a_row_group_is_limited():
    frame = pl.DataFrame({"a": range(100_000)})
    content = written(frame, row_group_size=10_000)
    assert_refused(content, "claims 1.6 MB in 100000 rows", max_bytes=300_000)
    assert pl.concat(in_blocks(content, max_bytes=300_000)).equals(frame)
    with pytest.raises(DataError, match="claims 160 kB in 10000 rows, expected at most 150 kB"):
        in_blocks(content, max_bytes=150_000)


def test_one_long_text_in_many_rows_is_refused():
    content = written(pl.DataFrame({"a": ["x" * 5_000] * 40_000}))
    assert len(content) < 10_000
    assert_refused(content, "claims 200 MB in 40000 rows, expected at most 100 MB", max_bytes=100_000_000)
    assert read_parquet(content, max_bytes=10**9).rows.height == 40_000
    content = written(pl.DataFrame({"a": [["x" * 5_000] * 40_000]}))
    assert_refused(content, "MB in 1 rows", max_bytes=100_000_000)


def test_a_large_honest_file_is_refused_by_its_rows():
    content = written(pl.DataFrame({"a": pl.Series([1]).new_from_index(0, 10**6), "b": 1}))
    assert len(content) < 20_000
    assert_refused(content, "claims 32 MB in 1000000 rows, expected at most 31 MB", max_bytes=31_000_000)
    assert read_parquet(content, ["a"], max_bytes=31_000_000).rows.height == 10**6


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


@given(st.integers(0, 2**64 - 1))
def test_damaged_bytes_end_in_one_line_or_a_table(seed):
    randomness = random.Random(seed)  # noqa: S311 (test data)
    content = bytearray(randomness.choice(SOUND))
    for _ in range(randomness.randint(1, 3)):
        # Half of the faults are in the footer, a small part of the file.
        start = len(content) - 900 if randomness.random() < 0.5 else 0
        content[randomness.randrange(start, len(content))] = randomness.choice(
            [0, 127, 128, 255, randomness.randrange(256)]
        )
    # Most are refused, some are read.
    for read in (read_parquet, in_blocks):
        assert "\n" not in message_of(read, bytes(content))


def test_lies_do_not_end_the_process(tmp_path):
    # With little memory, as what is taken and never touched would pass elsewhere.
    for number, forge in enumerate(FORGERIES.values()):
        (tmp_path / f"{number}.parquet").write_bytes(forge().content())
    program = """
import sys
from metatl.exceptions import DataError
from metatl.data.readers.parquet_files import open_parquet, read_parquet
for path in sys.argv[1:]:
    try:
        schema, blocks = open_parquet(path)
        for rows in blocks(list(schema)):
            pass
    except DataError as error:
        print(str(error))
    try:
        read_parquet(path)
    except DataError as error:
        print(str(error))
"""
    paths = sorted(map(str, tmp_path.iterdir()))
    limit = 6 << 30
    result = subprocess.run(
        [sys.executable, "-c", program, *paths],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert result.returncode == 0, result.stderr
    assert [re.split("[:,]", line)[0] for line in result.stdout.splitlines()] == sorted(2 * paths)
