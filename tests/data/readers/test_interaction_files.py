"""Readers: the same data in every format, and everything that can be wrong with a file."""

from __future__ import annotations

import csv
import gzip
import io
import os
import random
import subprocess
import sys
from datetime import datetime, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.data.ids import BLANKS
from metatl.data.interactions import Interactions
from metatl.data.readers import text_blocks, text_tables
from metatl.data.readers.interaction_files import read_interactions
from metatl.exceptions import DataError, InvalidArgumentError
from property_settings import IN_ONE_FOLDER

HEADER = b"user,item,timestamp\n"


@pytest.fixture(scope="module")
def rows():
    numbers = random.Random(0)  # noqa: S311 (test data)
    return [
        (numbers.randrange(40), f"i{numbers.randrange(60):02}", 1_300_000_000 + 60 * numbers.randrange(10**6))
        for _ in range(500)
    ]


@pytest.fixture(scope="module")
def fingerprint(rows):
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return Interactions.from_frame(frame).fingerprint


def iso(time):
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def parquet(rows, names=("user_id", "item_id", "timestamp"), **types):
    frame = pl.DataFrame(rows, schema=list(names), orient="row").cast(types)
    content = io.BytesIO()
    frame.write_parquet(content)
    return content.getvalue()


def lines(texts, end="\n"):
    return end.join([*texts, ""]).encode()


def text(header, rows, end="\n"):
    return lines([header, *rows], end)


FORMATS = {
    "ratings.csv": lambda rows: text("user_id,item_id,timestamp", (f"{u},{i},{t}" for u, i, t in rows)),
    "windows.csv": lambda rows: b"\xef\xbb\xbf"
    + text("userId,movieId,rating,timestamp", (f"{u},{i},3.5,{t}" for u, i, t in rows), end="\r\n"),
    "semicolons.csv": lambda rows: text("Date;ASIN;reviewerID", (f"{iso(t)};{i};{u}" for u, i, t in rows)),
    "quoted.csv": lambda rows: text(
        '"user_id","item_id","note","timestamp"', (f'"{u}","{i}","a ""b"", c","{t}"' for u, i, t in rows)
    ),
    "blank_lines.csv": lambda rows: text("user,item,time", (f"\n{u},{i},{t}\r\n" for u, i, t in rows)),
    "ratings.tsv": lambda rows: text("user\titem\ttimestamp", (f"{u}\t{i}\t{t}.0" for u, i, t in rows)),
    "no_suffix": lambda rows: text("time|user|item", (f"{t}|{u}|{i}" for u, i, t in rows)),
    "recbole.inter": lambda rows: text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        (f"{u}\t{i}\t5\t{t / 1e9:.9f}e9" for u, i, t in rows),
    ),
    "ratings.dat": lambda rows: lines(f"{u}::{i}::5::{t}" for u, i, t in rows),
    "three.dat": lambda rows: lines(f"{u}::{i}::{t}" for u, i, t in rows),
    "header.dat": lambda rows: text("UserID::MovieID::Timestamp", (f"{u}::{i}::{t}" for u, i, t in rows)),
    "iso.csv": lambda rows: text("user,item,ts", (f"{u},{i},{iso(t)}Z" for u, i, t in rows)),
    "ratings.parquet": parquet,
    "text.parquet": lambda rows: parquet(rows, user_id=pl.String, item_id=pl.Categorical),
    "dates.parquet": lambda rows: parquet(
        [(u, i, datetime.fromtimestamp(t, timezone.utc)) for u, i, t in rows], user_id=pl.Int16
    ),
    "floats.parquet": lambda rows: parquet(rows, user_id=pl.Float64, timestamp=pl.Float64),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_interactions(tmp_path, rows, fingerprint, name, packed):
    content = FORMATS[name](rows)
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_interactions(path).fingerprint == fingerprint
    assert read_interactions(str(path)).fingerprint == fingerprint
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["ratings.csv", "quoted.csv", "blank_lines.csv", "ratings.dat"])
@pytest.mark.parametrize("block_bytes", [50, 333])
def test_blocks_change_nothing(tmp_path, rows, fingerprint, name, block_bytes, monkeypatch):
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(text_tables, "_QUOTED_ROWS", 7)
    path = tmp_path / name
    path.write_bytes(FORMATS[name](rows))
    assert read_interactions(path).fingerprint == fingerprint


def test_a_quote_in_a_later_block_is_understood(tmp_path, monkeypatch):
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", 40)
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + b"".join(b"u%d,i,%d\n" % (n, n) for n in range(20)) + b'u,"a,\nb",1\nu2,x,z\n')
    with pytest.raises(DataError, match=r"line 24, column 'timestamp': found 'z'"):
        read_interactions(path)


def test_columns_and_separators_that_are_given(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"who<>what<>when<>user\n7<>x<>2500<>8\n")
    interactions = read_interactions(
        path,
        user_column="who",
        item_column="what",
        timestamp_column="when",
        separator="<>",
        timestamp_unit="ms",
    )
    assert interactions.user_ids.to_list() == [7]
    assert interactions.timestamps.tolist() == [2_500_000]
    path.write_bytes(b"a,b,c\n1,2,3\n")
    given_names = {"user_column": "c", "item_column": "a", "timestamp_column": "b"}
    assert read_interactions(path, **given_names).user_ids.to_list() == [3]
    with pytest.raises(DataError, match="line 1: found no column 'x' among 'a', 'b', 'c'"):
        read_interactions(path, user_column="x")
    with pytest.raises(DataError, match="found the columns 'a', 'a', 'b', expected three different ones"):
        read_interactions(path, **{**given_names, "user_column": "a"})


def test_repeats(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + b"1,a,9\n1,a,3\n1,b,5\n")
    assert read_interactions(path).timestamps.tolist() == [3_000_000, 5_000_000]
    assert read_interactions(path, repeats="all").num_interactions == 3


def test_the_first_usual_name_is_taken(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"date,timestamp,asin,item_id,user,user_name\n2020-01-01,5,A,B,C,D\n")
    interactions = read_interactions(path)
    assert (interactions.user_ids[0], interactions.item_ids[0]) == ("C", "B")
    assert interactions.timestamps.tolist() == [5_000_000]


def whole_gzip():
    return gzip.compress(HEADER + b"1,2,3\n" * 1_000, mtime=0)


BAD_TEXT = [
    (b"", ": found an empty file, expected a header and interactions"),
    (b"\n\r\n\n", ": found an empty file, expected a header and interactions"),
    (HEADER, ": found the header 'user', 'item', 'timestamp' but no rows, expected rows"),
    (HEADER.strip() + b"\r\n\r\n", ": found the header 'user', 'item', 'timestamp' but no rows"),
    (b"foo,item,time\n1,2,3", ", line 1: found no user column among 'foo', 'item', 'time'; expected one"),
    (b"\nuser,foo,time\n1,2,3", ", line 2: found no item column among 'user', 'foo'"),
    (b"user,item,foo\n1,2,3", ", line 1: found no timestamp column among"),
    (b"1,2,3\n1,2,4", "or name it with user_column"),
    (b"user,User,item,time\n1,2,3,4", ", line 1: found 2 user columns, 'user', 'User'; expected one"),
    (HEADER + b"1,2,3\n\n4,5,soon\n", ", line 4, column 'timestamp': found 'soon', expected seconds"),
    (HEADER + b"1,2,3\n4,5,\n", ", line 3, column 'timestamp': found ''"),
    (HEADER + b"1,2,3\n4,5,1390694400000\n", ", line 3, column 'timestamp': found '1390694400000', outside"),
    (HEADER + b"1,2,3\r\n,5,6\r\n", ", line 3, column 'user': found nothing, expected an id"),
    (HEADER + b'1,"",3\n', ", line 2, column 'item': found nothing, expected an id"),
    (HEADER + b"1,2,3\n4,5\n", ", line 3: found 2 fields, expected 3: 'user', 'item', 'timestamp'"),
    (HEADER + b"1,2,3\n4,5,6,7\n", ", line 3: found 4 fields, expected 3"),
    (HEADER + b'"1",2,3\n4,5\n', ", line 3: found 2 fields, expected 3"),
    (HEADER + b'1,"a\nb",3\n4,5\n', ", line 4: found 2 fields, expected 3"),
    (HEADER + b'1,"a\nb",3\n4,5,x\n', ", line 4, column 'timestamp': found 'x'"),
    (HEADER + b'1,2,3\n1,"2,3\n4,5,6\n', ", line 3: found text that is not CSV: unexpected end of data"),
    (HEADER + b'1,2,3\n1,"2"a,3\n', ", line 3: found text that is not CSV: ',' expected after '\"'"),
    (b'"user,item\n1,2', ", line 1: found a header that is not CSV"),
    (HEADER + b"1,2,3\n1,\xff,3\n", ", line 3: found the byte 0xff, expected UTF-8 text, Parquet"),
    (HEADER + b"1,2,3\n1,\x00,3\n", ", line 3: found a NUL byte, expected UTF-8 text"),
    ("user,item,timestamp\n1,2,3\n".encode("utf-16"), ", line 1: found UTF-16 text, expected UTF-8"),
    ("user,item,timestamp\n1,2,3\n".encode("utf-16-be"), ", line 1: found a NUL byte"),
    (random.Random(0).randbytes(5_000), ": found a"),  # noqa: S311 (test data)
]  # fmt: skip

BAD_FILES = [
    ("a.dat", b"1::2::3::4::5\n", ", line 1: found 5 fields and no header, expected user"),
    ("a.dat", b"1::2::978300760\n1::2\n", ", line 2: found 2 fields, expected 3"),
    ("a.dat", b"1::2::x\n", ", line 1, column 'timestamp': found 'x'"),
    ("a.inter", b"user_id:token\titem_id:token\n1\t2\n", "found no timestamp column among 'user_id'"),
    ("a.csv.gz", HEADER + b"1,2,3\n", ": found no gzip, expected a file that starts with 1f 8b"),
    ("a.csv.gz", whole_gzip()[:-9], ": found a gzip that ends early; copy it again"),
    ("a.csv.gz", whole_gzip()[:10] + b"\xff" * 9 + whole_gzip()[19:], ": found a damaged gzip"),
    ("a.csv.gz", whole_gzip()[:-8] + bytes(8), ": found a damaged gzip (CRC check failed"),
    ("a.csv.gz", b"\x1f\x8b", ": found a gzip that ends early"),
    ("a.csv.gz", b"\x1f\x8b" + b"x" * 50, ": found a damaged gzip (Unknown compression method)"),
    ("a.csv.gz", b"", ": found an empty file"),
    ("a.csv.gz", gzip.compress(b""), ": found an empty file"),
    ("a.csv.gz", gzip.compress(HEADER + b"1,2,x\n"), ", line 2, column 'timestamp': found 'x'"),
    ("a.parquet", HEADER + b"1,2,3\n", ": found no Parquet, expected a file that starts with PAR1"),
    ("a.parquet", b"PAR1", ": found a damaged Parquet file"),
    ("a.parquet", parquet([(1, 2, 3)])[:-10], ": found a damaged Parquet file"),
    ("a.parquet.gz", gzip.compress(parquet([(1, 2, 3)])[:-10]), ": found a damaged Parquet file"),
    ("a.parquet.gz", gzip.compress(parquet([(1, 2, 3)]))[:-10], ": found a gzip that ends early"),
    ("a.parquet", parquet([(1, 2, 3)], ("user", "foo", "time")), ": found no item column among 'user'"),
    ("a.parquet", parquet([(1, 2, 3), (1, None, 3)]), ", row 2, column 'item_id': found nothing"),
    ("a.parquet", parquet([(1, 2, 3), (1, 2, None)]), ", row 2, column 'timestamp': found nothing"),
    ("a.parquet", parquet([(1, [2], 3)]), ", column 'item_id': found values of type List(Int64)"),
    ("a.parquet", parquet([(1, 2, True)]), ", column 'timestamp': found values of type Boolean"),
    ("a.parquet", parquet([], user_id=pl.Int64), ": found the columns 'user_id', 'item_id'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [*(("a.csv", content, expected) for content, expected in BAD_TEXT), *BAD_FILES],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_bad_files_are_told_in_one_line_that_says_where(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_interactions(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message
    assert len(message) < 600
    assert caught.value.file == str(path)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="found a folder, expected a file"):
        read_interactions(tmp_path)
    with pytest.raises(DataError, match=r"none\.csv: found no such file"):
        read_interactions(tmp_path / "none.csv")
    (tmp_path / "a").write_text("")
    with pytest.raises(DataError, match="found no such file"):
        read_interactions(tmp_path / "a" / "b.csv")


@pytest.mark.parametrize("path", [5, None, pl.DataFrame()])
def test_what_is_no_path_is_named(path):
    with pytest.raises(InvalidArgumentError, match=r"^path: found .*, expected the path .*from_frame"):
        read_interactions(path)


def through_a_pipe(content):
    """Give the path of a pipe that holds some bytes."""
    out, into = os.pipe()
    os.write(into, content)
    os.close(into)
    return f"/dev/fd/{out}"


def test_text_comes_through_a_pipe_and_parquet_does_not(rows, fingerprint):
    content = text("user,item,timestamp", [f"{user},{item},{time}" for user, item, time in rows])
    assert read_interactions(through_a_pipe(content)).fingerprint == fingerprint
    with pytest.raises(DataError, match=r"^/dev/fd/\d+: found a pipe .* that can be read more than once"):
        read_interactions(through_a_pipe(parquet(rows)))


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_blocks, "_BLOCK_BYTES", 1 << 19)
    monkeypatch.setattr(text_blocks, "_LINE_BYTES", 1 << 20)
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + b"x" * (3 << 20))
    with pytest.raises(DataError, match="line 2: found a line of more than 1 MiB, expected text"):
        read_interactions(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER)
    path.chmod(0)
    with pytest.raises(PermissionError):
        read_interactions(path)


characters = st.characters(codec="utf-8", exclude_characters="\0")
names = st.text(characters, min_size=1, max_size=5).filter(lambda name: name.strip(BLANKS))


@IN_ONE_FOLDER
@given(st.lists(st.tuples(names, names, st.integers(0, 9)), min_size=1, max_size=8), st.sampled_from(",;\t|"))
def test_any_text_survives_quoting(tmp_path, rows, separator):
    rows = [(user.replace("\r", "_"), item.replace("\r", "_"), time) for user, item, time in rows]
    path = tmp_path / "a.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerow(["user", "item", "timestamp"])
        writer.writerows(rows)
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    found = read_interactions(path, null_values=[])
    assert found.fingerprint == Interactions.from_frame(frame, null_values=[]).fingerprint


@IN_ONE_FOLDER
@given(
    st.binary(max_size=200), st.sampled_from(["", "user,item,timestamp\n", "u::i::5::1\n", "gzip", "PAR1"])
)
def test_no_bytes_give_anything_but_interactions_or_a_data_error(tmp_path, content, start):
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(content) if start == "gzip" else start.encode() + content)
    try:
        read_interactions(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (not raising is as good)


def test_reading_needs_no_torch(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(HEADER + b"1,2,3\n")
    program = (
        "import sys\nfrom metatl import read_interactions\nfrom metatl.data import candidates\n"
        f"read_interactions({str(path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_rule_for_repeats_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nu,i,1\n")
    with pytest.raises(InvalidArgumentError, match=r"^repeats: found 'last', expected one of first, all$"):
        read_interactions(tmp_path / "a.csv", repeats="last")
