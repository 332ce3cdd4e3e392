"""`metatl-eval candidates` as people run it."""

from __future__ import annotations

import os
import subprocess
import sys

import polars as pl
import pytest
from click.testing import CliRunner

from metatl import datasets
from metatl.cli.metatl_eval.candidates import candidates
from metatl.data.candidates import CandidateSets, sample_candidate_sets
from metatl.data.split import cold_start_split


def run(*arguments):
    return CliRunner().invoke(candidates, [str(argument) for argument in arguments])


def assert_one_line(result, *parts):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


def test_the_wines(tmp_path):
    path = tmp_path / "wines.parquet"
    result = run("wines", "-o", path)
    assert result.exit_code == 0, result.output
    split = cold_start_split(datasets.xwines(), k=3)
    sets = sample_candidate_sets(split, split.test)
    assert CandidateSets.load(path, split).sha256 == sets.sha256
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert lines[:5] == [
        "users      1,764 (test)",
        "items      796",
        "negatives  100 uniform, seed 0, none of the user's items",
        "K          3",
        "T          2017-12-09",
    ]
    assert f"SHA-256    {sets.sha256}" in lines
    for reason, count in split.dropped.items():
        assert any(line.endswith(f"{count:,} {reason}") for line in lines)
    assert [file.name for file in tmp_path.iterdir()] == ["wines.parquet"]


def test_the_training_rows_are_those_of_the_split(tmp_path):
    train = tmp_path / "train.parquet"
    result = run("wines", "-o", tmp_path / "wines.parquet", "--train", train)
    assert result.exit_code == 0, result.output
    assert f"written    {train}\n" in result.stdout
    split = cold_start_split(datasets.xwines(), k=3)
    rows = pl.read_parquet(train)
    assert rows.schema == {
        "user_id": pl.Int64,
        "item_id": pl.Int64,
        "timestamp": pl.Datetime("us", "UTC"),
    }
    assert rows["timestamp"].max() < split.cutoff
    assert datasets.load(str(train), None).fingerprint == split.train.fingerprint
    tested = pl.read_parquet(tmp_path / "wines.parquet")
    assert not set(rows["user_id"]) & set(tested["user_id"])
    assert set(tested["negatives"].explode()) <= set(rows["item_id"])


def test_options_reach_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    options = [
        "--k",
        2,
        "--kind",
        "pop",
        "--n",
        7,
        "--seed",
        5,
        "--users",
        "validation",
        "--exclude",
        "history",
    ]
    options += ["--cutoff", "2019-01-01", "--min-item-count", 20, "--threads", 1]
    assert run("wines", "--out", path, *options).exit_code == 0
    sets = CandidateSets.load(path)
    assert sets.protocol == {
        "k": 2, "kind": "popularity", "n": 7, "seed": 5, "exclude": "history", "users": "validation",
        "split": {
            "k": 2, "cutoff": "2019-01-01T00:00:00+00:00", "cutoff_quantile": None, "min_item_count": 20,
            "min_train_rows": 5, "unseen_items": "drop", "validation_share": 0.3, "seed": 0,
        },
    }  # fmt: skip
    assert run("wines", "--out", path, "--cutoff-quantile", 0.5).exit_code == 0
    assert CandidateSets.load(path).split_protocol["cutoff_quantile"] == 0.5


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("parquet", {"a"}),
        ("rechorus", {"a/test.csv", "a/history.csv"}),
        ("ncf", {"a.test.rating", "a.test.negative", "a.history.rating"}),
        ("qrels", {"a"}),
    ],
)
def test_forms(tmp_path, form, names):
    result = run("wines", "-o", tmp_path / "a", "--format", form, "--n", 5)
    assert result.exit_code == 0, result.output
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == names
    for name in names:
        assert f"written    {tmp_path / name}\n" in result.output


HEADER = "who,what,when"


def write_shop(path, *more):
    """Twenty training users with five rows of ten items, then four new ones; and further rows."""
    lines = [HEADER]
    lines += [
        f"t{user},i{(user + place) % 10},{1_500_000_000 + 10 * user + place}"
        for user in range(20)
        for place in range(5)
    ]
    lines += [
        f"n{user},i{user + place},{1_500_001_000 + 10 * user + place}"
        for user in range(4)
        for place in range(5)
    ]
    path.write_text("\n".join([*lines, *more, ""]))
    return path


def shop(path, out, *options):
    return run(path, "-o", out, "--columns", "who,what,when", "--min-item-count", 1, "--n", 3, *options)


def test_users_with_too_few_rows_and_unknown_items_are_counted(tmp_path):
    out = tmp_path / "a.parquet"
    data = write_shop(
        tmp_path / "shop.csv",
        "n0,unknown,1500001100",
        "short,i1,1500002000",
        "short,unknown,1500002001",
        "x,new,1500002002",
    )
    result = shop(data, out, "--cutoff-quantile", 0.8)
    assert result.exit_code == 0, result.output
    for line in (
        "2 items unseen in training",
        "3 interactions of new users with unseen items",
        "1 new users with unseen items only",
        "1 new users with too few rows",
    ):
        assert line in result.output
    frame = pl.read_parquet(out)
    assert set(frame["user_id"]) < {"n0", "n1", "n2", "n3"}
    assert not set(frame["later"].explode()) & {"unknown", "new"}
    for row in frame.iter_rows(named=True):
        number = int(row["user_id"][1:])
        assert row["history"] + [row["target"]] + row["later"] == [f"i{number + place}" for place in range(5)]


def test_bad_data_are_one_line(tmp_path):
    out = tmp_path / "a.parquet"
    out.write_text("old")
    data = write_shop(tmp_path / "shop.csv")
    few = shop(data, out, "--cutoff-quantile", 0.8, "--k", 5)
    assert_one_line(few, "has more than k = 5 interactions, the longest has 5")
    assert_one_line(shop(data, out, "--cutoff-quantile", 0.8, "--n", 9), "choose fewer negatives than --n 9")
    broken = write_shop(tmp_path / "broken.csv", "n3,i1")
    assert_one_line(shop(broken, out), f"{broken}, line 122: found 2 fields, expected 3")
    no_time = write_shop(tmp_path / "time.csv", "n3,i1,soon")
    assert_one_line(shop(no_time, out), f"{no_time}, line 122, column 'when': found 'soon'")
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert_one_line(shop(empty, out), f"{empty}: found an empty file")
    empty.write_text(HEADER + "\n")
    assert_one_line(shop(empty, out), "found the header 'who', 'what', 'when' but no rows")
    assert_one_line(shop(tmp_path / "none.csv", out), "none.csv: found no such file")
    truncated = tmp_path / "a_copy.parquet"
    pl.DataFrame({"user": [1], "item": [1], "time": [1]}).write_parquet(truncated)
    truncated.write_bytes(truncated.read_bytes()[:-9])
    assert_one_line(run(truncated, "-o", out), "a_copy.parquet: found a damaged Parquet file")
    assert_one_line(run("wines", "-o", out, "--columns", "a,b,c"), "columns: found names, expected none")
    assert out.read_text() == "old"


def test_one_new_user_leaves_nobody_for_validation(tmp_path):
    rows = [
        f"t{user},i{(user + place) % 10},{1_500_000_000 + 10 * user + place}"
        for user in range(20)
        for place in range(5)
    ]
    data = tmp_path / "one.csv"
    data.write_text(
        "\n".join([HEADER, *rows, *(f"n,i{place},{1_500_001_000 + place}" for place in range(5)), ""])
    )
    options = ["--cutoff-quantile", 1, "--users"]
    assert shop(data, tmp_path / "a", *options, "test").exit_code == 0
    assert_one_line(
        shop(data, tmp_path / "a", *options, "validation"), "found no validation users among 1 new"
    )


@pytest.mark.parametrize("form", ["parquet", "rechorus", "ncf", "qrels"])
def test_a_folder_that_is_not_there_is_told_before_the_work(tmp_path, form):
    out = tmp_path / "none" / "a"
    assert_one_line(run("missing.csv", "-o", out, "--format", form), f"{out}: found no folder {out.parent}")
    assert list(tmp_path.iterdir()) == []


def test_the_bundled_data_are_no_file_to_write_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("wines", "-o", "wines", "--format", "ncf")
    assert result.exit_code == 0, result.output
    assert min(path.name for path in tmp_path.iterdir()).startswith("wines.")


def test_the_data_are_not_written_over(tmp_path):
    data = write_shop(tmp_path / "shop.csv")
    before = data.read_bytes()
    assert_one_line(shop(data, data), "--out: found", "which the command reads")
    assert_one_line(shop(data, tmp_path / "c.parquet", "--train", data), "--train: found")
    twice = tmp_path / "c.parquet"
    assert_one_line(shop(data, twice, "--train", twice), "--train: found", "which --out names too")
    link = tmp_path / "link.csv"
    link.symlink_to(data)
    assert_one_line(shop(data, link), "--out: found")
    assert data.read_bytes() == before
    assert not twice.exists()


def test_bad_options_are_told():
    for options in (["--kind", "all"], ["--k", "0"], ["--n", "0"], ["--users", "train"], ["--format", "csv"]):
        result = run("wines", "-o", "a", *options)
        assert result.exit_code == 2
        assert options[0] in result.stderr
    assert "Missing option '-o'" in run("wines").stderr


def test_help_is_quick_and_shows_examples():
    program = """
import sys
from metatl.cli.metatl_eval.candidates import candidates
try:
    candidates(["--help"])
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "polars", "numpy", "rich"} & set(sys.modules), "slow imports"
"""
    environment = {**os.environ, "COLUMNS": "100"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert "metatl-eval candidates wines -o wines.parquet" in result.stdout


def test_torch_is_not_imported(tmp_path):
    program = f"""
import sys
from metatl.cli.metatl_eval.candidates import candidates
try:
    candidates(["wines", "-o", {str(tmp_path / "a")!r}, "--format", "ncf"])
except SystemExit as end:
    assert end.code == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
