"""`metatl update`: what it prints, and what it refuses."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

import metatl
from metatl.cli.metatl import main
from planted_data import write_ring

STEPS = [f"--set={setting}" for setting in ("dim=8", "batch_size=16", "max_steps=10", "eval_every=5")]


def invoke(*options):
    return CliRunner().invoke(main.main, [*map(str, options)])


@pytest.fixture
def shop(tmp_path):
    """A run, its log, and the log of a day later."""
    log, later = (tmp_path / name for name in ("log.csv", "later.csv"))
    lines = write_ring(later, users=200, items=30).read_text().splitlines()
    log.write_text("\n".join([lines[0], *lines[1:1500]]) + "\n")
    run = tmp_path / "run"
    result = invoke("train", "--data", log, "--no-validation", "--out", run, "--device", "cpu", *STEPS)
    assert result.exit_code == 0, result.output
    return run, log, later


def test_an_update_says_what_it_was_made_of(shop):
    run, _, later = shop
    result = invoke("update", run, "--data", later, "--device", "cpu")
    assert result.exit_code == 0, result.output
    data = metatl.read_interactions(later)
    patterns = (
        rf"data          {re.escape(str(later))}",
        r"rows          [\d,]+ read, dropped: .*",
        r"largest user  .*",
        r"T             none: no row is held out",
        r"chosen        2 steps: the last of the 10 steps of the run that is updated",
        rf"fitted on     every row: {data.num_interactions:,} of 200 users with 30 items",
        r"seconds       \d+\.\d",
        rf"metatl \(tuned\): updated, written to {re.escape(str(run))}",
    )
    for line, pattern in zip(result.stdout.splitlines(), patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    again = invoke("update", run, "--data", later)
    assert again.stdout == f"{run} is fitted on every row of {later}: nothing to update\n"


def test_what_cannot_be_updated_is_one_line(shop, tmp_path):
    run, log, later = shop
    rest = tmp_path / "rest.csv"
    lines = later.read_text().splitlines()
    rest.write_text("\n".join([lines[0], *lines[1500:], *lines[-400:]]) + "\n")
    for arguments, says in {
        (run,): "Missing option '--data'",
        (run, "--data", rest, "--repeats", "all"): "expected the whole log, old rows included",
        (run, "--data", log, "--steps-share", 2): "--steps-share: found 2.0, expected above 0",
        (tmp_path / "none", "--data", log): "found no run.json",
    }.items():
        result = invoke("update", *arguments)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert says in line
