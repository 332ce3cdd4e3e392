"""`metatl train`: what it prints, and runs on every row."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

import metatl
from metatl.cli.metatl import main
from metatl.cli.metatl_eval import main as evaluate
from planted_data import write_ring


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = write_ring(tmp_path_factory.mktemp("data") / "log.csv", users=200, items=30)
    lines = path.read_text().splitlines()
    user, item, time = lines[1].split(",")
    path.write_text("\n".join([*lines, f"{user},{item},{int(time) + 5}"]) + "\n")
    return path


def train(*options):
    return CliRunner().invoke(main.main, ["train", *map(str, options)])


def assert_one_line(result, *texts):
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert all(text in line for text in texts), line


def test_a_run_on_every_row_says_how_it_was_fitted(log, tmp_path):
    steps = [f"--set={setting}" for setting in ("dim=8", "batch_size=16", "max_steps=4", "eval_every=2")]
    result = train("--data", log, "--all-data", "--out", tmp_path / "run", "--device", "cpu", *steps)
    assert result.exit_code == 0, result.output
    (row, rows) = (metatl.read_interactions(log), len(log.read_text().splitlines()) - 1)
    patterns = (
        rf"data          {re.escape(str(log))}",
        rf"rows          {rows:,} read, dropped: [\d,]+ repeats of an item by its user \(.*%\)",
        r"largest user  'u\d+' with \d+ rows \(.*%\)",
        r"T             \d{4}-\d\d-\d\d: \d+ training users, \d+ new users, 30 items",
        r"chosen        [24] steps: validation MRR at step [24] of the cold-start split",
        rf"fitted on     every row: {row.num_interactions:,} of 200 users with 30 items",
        r"seconds       \d+\.\d",
        rf"metatl \(tuned\): validation MRR \d\.\d{{4}}, written to {re.escape(str(tmp_path / 'run'))}",
    )
    for line, pattern in zip(result.stdout.splitlines(), patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    evaluated = CliRunner().invoke(evaluate.main, [str(tmp_path / "run")])
    assert_one_line(evaluated, "fitted on every row, so nobody is left", "without --all-data")


def test_where_nothing_can_be_held_out(log, tmp_path):
    out = tmp_path / "run"
    options = ("--data", log, "--model", "popularity", "--out", out)
    assert_one_line(train(*options, "--cutoff", "2050-01-01"), "--no-validation")
    assert_one_line(
        train(*options, "--cutoff", "2010-01-01", "--no-validation"), "--cutoff: found 2010-01-01"
    )
    assert_one_line(
        train(*options, "--validation-share", 0.1, "--no-validation"), "--validation-share: found"
    )
    assert not out.exists()
    result = train(*options, "--cutoff", "2050-01-01", "--no-validation", "--repeats", "all")
    assert result.exit_code == 0, result.output
    assert "dropped: none" in result.stdout
    assert "T             none: no row is held out" in result.stdout
    assert result.stdout.endswith(f"popularity (tuned): no validation, written to {out}\n")
    run = metatl.load_run(out)
    assert (run.record.repeats, run.item_counts.sum()) == ("all", len(log.read_text().splitlines()) - 1)


@pytest.mark.parametrize("command", ["train", "tune"])
def test_data_is_required(tmp_path, command):
    result = CliRunner().invoke(main.main, [command, "--model", "knn", "--out", str(tmp_path / "run")])
    assert_one_line(
        result, "--data", "found nothing, expected the path of a file" if command == "train" else ""
    )
    assert not (tmp_path / "run").exists()
