"""Rows that cannot be used are named together, or left out and counted; messages say what to do."""

from __future__ import annotations

import gzip
import json

import polars as pl
import pytest
from click.testing import CliRunner

import metatl
from metatl.cli.metatl.main import main
from metatl.exceptions import DataError, InvalidArgumentError, MetatlWarning

GOOD = [(user, item, 1_577_836_800 + 7 * user + item) for user in range(1, 9) for item in range(1, 6)]


def lines_with(bad, header="user,item,timestamp"):
    """A file with the bad lines spread among good ones, and the line of each bad one."""
    lines, places = [header], []
    for row, good in enumerate(GOOD):
        if row % 3 == 1 and row // 3 < len(bad):
            places.append(len(lines) + 1)
            lines.append(bad[row // 3])
        lines.append(",".join(map(str, good)))
    return "\n".join(lines) + "\n", places


BAD = [
    "1,2",
    "1,2,3,4",
    ",5,1577836800",
    "5,,1577836800",
    "5,5,soon",
    "5,5,",
    "5,NA,1577836800",
    "nan,5,1577836800",
]


def expected():
    return metatl.Interactions.from_frame(
        pl.DataFrame(GOOD, schema=["user_id", "item_id", "timestamp"], orient="row")
    )


@pytest.mark.parametrize("quote", [False, True])
def test_all_bad_rows_of_a_text_file_are_named_at_once(tmp_path, quote):
    text, places = lines_with(BAD)
    path = tmp_path / "a.csv"
    path.write_text(text.replace("1,2,3,4", '"1",2,3,4') if quote else text)
    with pytest.raises(DataError) as raised:
        metatl.read_interactions(path)
    assert raised.value.line == places[0]
    assert f"{len(BAD)} rows cannot be used" in str(raised.value)
    assert str(raised.value).startswith(f"{path}, line {places[0]}: found 2 fields, expected 3")
    for place in places[1:]:
        assert f"line {place}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "--bad-rows skip" in str(raised.value)


@pytest.mark.parametrize("quote", [False, True])
def test_skipping_leaves_exactly_the_bad_rows_out(tmp_path, quote):
    text, places = lines_with(BAD)
    path = tmp_path / "a.csv"
    path.write_text(text.replace("1,2,3,4", '"1",2,3,4') if quote else text)
    with pytest.warns(MetatlWarning, match=f"skipped {len(BAD)} bad rows: line {places[0]}: found 2 fields"):
        found = metatl.read_interactions(path, bad_rows="skip")
    assert found.fingerprint == expected().fingerprint
    assert found.source.dropped == {"bad rows": len(BAD)}
    assert found.source.num_rows == len(GOOD) + len(BAD)


def test_at_most_ten_rows_are_described(tmp_path):
    text, places = lines_with(["x"] * 12)
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"12 rows cannot be used: .*; and 2 more; mend them") as raised:
        metatl.read_interactions(path)
    assert all(f"line {place}" in str(raised.value) for place in places[:10])
    assert f"line {places[10]}" not in str(raised.value)


def test_bad_json_lines(tmp_path):
    names = ("user_id", "item_id", "timestamp")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in GOOD]
    bad = ["{", "[1]", '{"user_id": 5, "item_id": null, "timestamp": 1577836800}', "nothing"]
    for place, line in zip((4, 9, 14, 19), bad, strict=True):
        lines.insert(place - 1, line)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(
        DataError, match=r"line 4: found no JSON.*4 rows cannot be used: also line 9.*line 14.*line 19"
    ):
        metatl.read_interactions(path)
    with pytest.warns(MetatlWarning, match="skipped 4 bad rows"):
        found = metatl.read_interactions(path, bad_rows="skip")
    assert found.fingerprint == expected().fingerprint


def test_bad_rows_of_parquet_and_of_frames(tmp_path):
    frame = pl.DataFrame(GOOD, schema=["user_id", "item_id", "timestamp"], orient="row")
    bad = pl.DataFrame(
        {"user_id": [None, 5], "item_id": [5, None], "timestamp": [1, 1_577_836_800]}, schema=frame.schema
    )
    mixed = pl.concat([frame[:7], bad, frame[7:]])
    path = tmp_path / "a.parquet"
    mixed.write_parquet(path)
    for read in (
        lambda **options: metatl.read_interactions(path, **options),
        lambda **options: metatl.Interactions.from_frame(mixed, **options),
    ):
        with pytest.raises(
            DataError, match=r"row 8, column 'user_id': found nothing.*2 rows cannot.*row 9, column 'item_id'"
        ):
            read()
        with pytest.warns(MetatlWarning, match="skipped 2 bad rows"):
            assert read(bad_rows="skip").fingerprint == expected().fingerprint


def test_rows_with_a_null_value_are_left_out_and_counted(tmp_path):
    text, _ = lines_with(["NA,5,1577836800", "5,NULL,1577836800", "5,5,NA"])
    path = tmp_path / "a.csv"
    path.write_text(text)
    found = metatl.read_interactions(path, null_values=["NA", "NULL"])
    assert found.fingerprint == expected().fingerprint
    assert found.source.dropped == {"rows with a null value": 3}
    with pytest.raises(DataError, match=r"column 'timestamp': found 'NA', expected"):
        metatl.read_interactions(path, null_values=[""])


def test_a_file_of_bad_rows_only_is_an_error(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user,item,timestamp\n1,2\n1,2,x\n")
    for mode in ("error", "skip"):
        with pytest.raises(DataError, match=r"line 2: found 2 fields.*2 rows cannot be used: also line 3"):
            metatl.read_interactions(path, bad_rows=mode)
    path.write_text("user,item,timestamp\n1,2\n")
    for mode in ("error", "skip"):
        with pytest.raises(DataError, match="line 2: found 2 fields"):
            metatl.read_interactions(path, bad_rows=mode)


def test_unknown_choices_are_refused():
    frame = {"user_id": [1], "item_id": [1], "timestamp": [1]}
    with pytest.raises(InvalidArgumentError, match="bad_rows: found 'drop', expected one of error, skip"):
        metatl.Interactions.from_frame(frame, bad_rows="drop")
    with pytest.raises(InvalidArgumentError, match="null_values: found the text 'NA', expected a list"):
        metatl.Interactions.from_frame(frame, null_values="NA")


def test_what_was_read_is_remembered(tmp_path):
    frame = pl.DataFrame({"user_id": [7, 7, 7, 8], "item_id": [1, 1, 2, 1], "timestamp": [1, 2, 3, 4]})
    found = metatl.Interactions.from_frame(frame)
    assert (found.source.num_rows, found.source.dropped) == (4, {"repeats": 1})
    assert (found.source.largest_user, found.source.largest_user_rows) == (7, 3)
    path = tmp_path / "a.csv"
    frame.write_csv(path)
    result = CliRunner().invoke(main, ["stats", str(path), "--min-item-count", "1", "--min-train-rows", "1"])
    assert result.exit_code == 0, result.output
    assert "rows               4 read, dropped: 1 repeats of an item by its user (25.0%)" in result.output
    assert "largest user       7 with 3 rows (75.0%)" in result.output


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "# exported\nuser,item,timestamp\n1,2,3\n",
            "line 1: found a comment, '# exported', expected a header",
        ),
        ("% bip weighted\n1 2 3 4\n", "line 1: found a comment, '% bip weighted', expected a header"),
        (
            "user^item^timestamp\n1^2^3\n",
            r"line 1: found one field, 'user\^item\^timestamp', expected a header",
        ),
        ("user,item,timestamp\r1,2,3\r", "line 1: found lines that end in a carriage return alone"),
        ("PK\x03\x04rest", "found a zip archive, expected a file that is not packed, or gzip"),
    ],
)
def test_what_is_no_table_is_told_as_what_it_is(tmp_path, content, says):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    with pytest.raises(DataError, match=says):
        metatl.read_interactions(path)


def test_a_space_separates_where_nothing_else_does(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("user item timestamp\n" + "".join(f"{u} {i} {t}\n" for u, i, t in GOOD))
    assert metatl.read_interactions(path).fingerprint == expected().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n\n" + text,
        lambda text: text.replace(",", " , "),
        lambda text: text.replace("\n1,", "\n1.0,"),
        lambda text: "\n".join(
            f'"{line.replace(",", chr(34) + "," + chr(34))}"' for line in text.splitlines()
        ),
    ],
)
@pytest.mark.parametrize("pack", [False, True])
def test_spellings_of_one_file_give_the_same_interactions(tmp_path, change, pack):
    text, _ = lines_with([])
    path = tmp_path / ("a.csv.gz" if pack else "a.csv")
    content = change(text).encode()
    path.write_bytes(gzip.compress(content) if pack else content)
    assert metatl.read_interactions(path).fingerprint == expected().fingerprint


def test_the_commands_name_their_options_and_print_warnings_as_a_line(tmp_path):
    text, _ = lines_with(BAD)
    path = tmp_path / "a.csv"
    path.write_text(text)
    run = CliRunner().invoke
    small = ["--min-item-count", "1", "--min-train-rows", "1"]
    result = run(main, ["stats", str(path), *small])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    result = run(main, ["stats", str(path), *small, "--bad-rows", "skip"])
    assert result.exit_code == 0, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: skipped 8 bad rows: line 3: found 2 fields")
    assert "dropped: 8 bad rows (16.7%)" in result.stdout
    result = run(main, ["stats", "wines", "--cutoff-quantile", "7"])
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: --cutoff-quantile: found 7.0, expected at least 0 and at most 1\n",
    )
    result = run(main, ["train", "--data", "wines", "--out", str(tmp_path / "run"), "--min-train-rows", "0"])
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: --min-train-rows: found 0, expected a whole number of at least 1\n",
    )


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--data", "wine"], "did you mean 'wines'?"),
        (["--preset", "offical"], "did you mean 'official'?"),
        (["--model", "sasrek"], "did you mean 'sasrec'?"),
        (["--set", "inner_step=1"], "did you mean 'inner_steps'?"),
    ],
)
def test_near_misses_are_hinted_at(tmp_path, arguments, hint):
    result = CliRunner().invoke(main, ["train", "--out", str(tmp_path / "run"), *arguments])
    assert result.exit_code == 2
    assert result.stderr.rstrip().endswith(hint)
