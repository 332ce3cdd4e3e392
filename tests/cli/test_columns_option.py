"""`--columns` where a file's columns have names of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import metatl
from metatl.cli.metatl.stats import stats
from metatl.cli.metatl.train import train
from metatl.cli.metatl_eval.main import main as evaluate
from old_records import write_old_record


@pytest.fixture(scope="module")
def sales(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "sales.csv"
    rows = [
        f"{100 * buyer + 10 * place},article{(buyer * 7 + place * 3) % 120},buyer{buyer}"
        for buyer in range(200)
        for place in range(8)
    ]
    path.write_text("\n".join(["second,what,who", *rows]) + "\n")
    return str(path)


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_unusual_names_are_an_error_that_says_what_to_do(sales):
    result = run(stats, sales)
    assert result.exit_code == 2
    assert "--columns" in result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_stats_with_named_columns(sales):
    result = run(stats, sales, "--columns", "who, what, second")
    assert result.exit_code == 0, result.stderr
    assert ["users", "200"] in [line.split() for line in result.stdout.splitlines()]


def test_a_run_remembers_the_columns(sales, tmp_path):
    out = tmp_path / "run"
    arguments = ("--data", sales, "--model", "popularity", "--out", out)
    result = run(train, *arguments, "--columns", "who,what,second")
    assert result.exit_code == 0, result.stderr
    assert json.loads((out / "run.json").read_text())["columns"] == ["who", "what", "second"]
    for again in ((), ("--data", sales)):
        result = run(evaluate, out, "--candidates", "uni50", *again)
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("names", ["who,what", "who,what,second,more", "who,,second", "who,what,when"])
def test_other_than_three_names_of_columns_is_one_line(sales, names):
    result = run(stats, sales, "--columns", names)
    assert result.exit_code == 2
    assert ("expected three names" in result.stderr) or ("no column 'when'" in result.stderr)


def test_the_bundled_wines_take_no_names():
    result = run(stats, "wines", "--columns", "who,what,second")
    assert result.exit_code == 2
    assert "bundled wines" in result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_interactions_in_memory_take_no_names(sales):
    interactions = metatl.datasets.load(sales, ("who", "what", "second"))
    with pytest.raises(metatl.exceptions.InvalidArgumentError, match="columns"):
        metatl.fit(interactions, model="popularity", columns=("who", "what", "second"))


def test_a_unit_needs_a_file(sales):
    interactions = metatl.datasets.load(sales, ("who", "what", "second"))
    with pytest.raises(metatl.exceptions.InvalidArgumentError, match="timestamp_unit: found 'ms' with"):
        metatl.fit(interactions, model="popularity", timestamp_unit="ms")
    with pytest.raises(metatl.exceptions.ConfigError, match=r"timestamp_unit: .*the bundled wines need none"):
        metatl.fit("wines", model="popularity", timestamp_unit="ms")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metatl.fit("wines", config=[1]), "config: found list, expected a mapping"),
        (lambda: metatl.evaluate(metatl.fit("wines", model="popularity"), 5), "candidates: found int"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(call, message):
    with pytest.raises(metatl.exceptions.ArgumentTypeError, match=message):
        call()


EARLIER = 1_600_000_000_000
"""Milliseconds of September 2020; as seconds, outside the years that there are."""


def test_the_unit_of_times_is_said_with_the_column_and_remembered(sales, tmp_path):
    seconds = metatl.read_interactions(
        sales, user_column="who", item_column="what", timestamp_column="second"
    )
    header, *lines = Path(sales).read_text().splitlines()
    later = [line.split(",", 1) for line in lines]
    path = tmp_path / "sales.csv"
    path.write_text("\n".join([header, *(f"{int(time) * 1000 + EARLIER},{rest}" for time, rest in later)]))
    refused = run(stats, path, "--columns", "who,what,second")
    assert refused.exit_code == 2
    assert "--columns user,item,time:ms" in refused.stderr
    out = tmp_path / "run"
    named = ("--columns", "who,what,second:ms")
    result = run(train, "--data", path, "--model", "popularity", "--out", out, *named)
    assert result.exit_code == 0, result.stderr
    assert run(evaluate, out, "--candidates", "uni50").exit_code == 0
    record = json.loads((out / "run.json").read_text())
    assert (record["columns"], record["timestamp_unit"]) == (["who", "what", "second"], "ms")
    # As version 0.1.0 wrote it.
    record["columns"][2] = "second:ms"
    del record["timestamp_unit"]
    write_old_record(out, record)
    assert metatl.load_run(out).record.timestamp_unit == "ms"
    assert run(evaluate, out, "--candidates", "uni50").exit_code == 0
    assert run(train, "--data", path, "--out", out, "--resume", *named).exit_code == 0
    again = metatl.fit(path, out=out, model="popularity", columns=("who", "what", "second"), resume=True)
    assert again.record.timestamp_unit == "ms"
    for columns in (5, "abc", ["who", "what"], ["who", "what", 3], [], {"user": "who"}):
        write_old_record(out, {**record, "columns": columns})
        with pytest.raises(metatl.exceptions.RunError, match=r"run\.json: field 'columns"):
            metatl.load_run(out)
    found = metatl.datasets.load(path, ("who", "what", "second"), "ms")
    assert (found.timestamps - seconds.timestamps == EARLIER * 1000).all()


def test_a_colon_in_a_name_is_no_unit(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("who,what,when:day\nu,i,5\n")
    assert metatl.datasets.load(path, ("who", "what", "when:day")).num_interactions == 1
