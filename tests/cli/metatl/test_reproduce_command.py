"""`metatl reproduce` as people run it."""

from __future__ import annotations

import json
import subprocess
import sys

import polars as pl
import pytest
from click.testing import CliRunner
from rich.console import Console

import in_process
from metatl.cli.metatl.main import main
from metatl.experiments import ablation, figure2, grid, table_rows
from metatl.experiments.ablation import TO_PAPER, TO_TUNED
from metatl.experiments.data_sources import DataSource
from metatl.experiments.grid import plan, run_grid
from metatl.experiments.table_rows import Row, smoke_row
from planted_data import write_ring

SMALL = {"dim": 8, "batch_size": 32, "cross_fit_folds": 2}
ROWS = [
    Row("Popularity", "popularity", "tuned", published="BPR-MF"),
    smoke_row(Row("MetaTL `tuned`", "metatl", "tuned", SMALL, published="MetaTL")),
]


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    return write_ring(tmp_path_factory.mktemp("data") / "ring.csv")


@pytest.fixture(autouse=True)
def without_processes(monkeypatch):
    monkeypatch.setattr(grid, "work", in_process.work)


def reproduce(*arguments):
    return CliRunner().invoke(main, ["reproduce", *(str(argument) for argument in arguments)])


def assert_one_line(result, *parts):
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


def test_table_2_and_again(ring, tmp_path, monkeypatch):
    monkeypatch.setattr(table_rows, "table_rows", lambda _: ROWS)
    data = ["--data", f"ring={ring}", f"movies={ring}"]
    result = reproduce("table2", *data, "--budget", "smoke", "--jobs", 2, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for end in ("md", "json", "html", "png", "parquet"):
        assert (tmp_path / f"table2.{end}").stat().st_size > 0
    assert result.stdout == (tmp_path / "table2.md").read_text(encoding="utf-8") + "\n"
    assert "4/4" in result.stderr
    results = pl.read_parquet(tmp_path / "table2.parquet")
    assert results["dataset"].unique(maintain_order=True).to_list() == ["ring", "movies"]
    # One seed, whatever --seeds says by default.
    assert results["seed"].unique().to_list() == [0]
    report = json.loads((tmp_path / "table2.json").read_text())
    assert [standing["paper_column"] for standing in report["standings"]] == [None, "Movie"]
    assert "| MRR − paper |" in result.stdout
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*")}
    again = reproduce("table2", *data, "--budget", "smoke", "--out", tmp_path)
    assert again.exit_code == 0
    assert again.stdout == result.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*")} == times


def test_kept_cells_are_not_made_again(ring, tmp_path, monkeypatch):
    monkeypatch.setattr(table_rows, "table_rows", lambda _: ROWS)
    data, kept = ["--data", f"ring={ring}", "--budget", "smoke"], tmp_path / "kept"
    missing = reproduce("table2", *data, "--out", tmp_path / "out", "--kept", kept)
    assert_one_line(missing, "--kept", str(kept))
    cells = plan([DataSource("ring", str(ring))], ROWS[:1], ks=[3], seeds=1)
    run_grid(cells, tmp_path / "grid", console=Console(stderr=True), kept=kept, keep_new=True)
    files = {path: path.read_bytes() for path in kept.rglob("*.parquet")}
    assert len(files) == 1
    fresh = reproduce("table2", *data, "--out", tmp_path / "fresh")
    result = reproduce("table2", *data, "--out", tmp_path / "out", "--kept", kept)
    assert result.exit_code == 0, result.output
    assert result.stdout == fresh.stdout
    assert len(list((tmp_path / "fresh" / "cells").rglob("results.json"))) == len(ROWS)
    assert len(list((tmp_path / "out" / "cells").rglob("results.json"))) == len(ROWS) - 1
    # A budget of its own puts nothing in the place of what is kept.
    assert {path: path.read_bytes() for path in kept.rglob("*.parquet")} == files


def test_a_failed_cell_is_named_and_the_table_written(ring, tmp_path, monkeypatch):
    failing = Row("diverging", "metatl", "paper", {"max_steps": 5, "meta_lr": 1e30, "dim": 8})
    monkeypatch.setattr(table_rows, "table_rows", lambda _: [ROWS[0], failing])
    result = reproduce("table2", "--data", f"ring={ring}", "--seeds", 1, "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: 1 cells failed")
    assert "ring diverging K = 3 seed 0" in result.stderr.splitlines()[-1]
    assert "| Popularity |" in (tmp_path / "table2.md").read_text()


def test_figure_2(ring, tmp_path, monkeypatch):
    monkeypatch.setattr(figure2, "table_rows", lambda _: ROWS[1:])
    result = reproduce("figure2", f"ring={ring}", "--budget", "smoke", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "| system | K = 2 | K = 3 | K = 4 |" in result.stdout
    for end in ("md", "json", "html", "png", "svg", "parquet"):
        assert (tmp_path / f"figure2.{end}").stat().st_size > 0
    assert "no such system: BERT4Rec, MetaTL−−, MetaCF." in result.stdout


def test_ablation(ring, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "TO_PAPER", TO_PAPER[:2])
    monkeypatch.setattr(ablation, "TO_TUNED", TO_TUNED[:0])
    result = reproduce("ablation", "--data", f"ring={ring}", "--k", 2, "--budget", "smoke", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "## ring, K = 2" in result.stdout
    assert f"| {TO_PAPER[1].title} |" in result.stdout
    assert (tmp_path / "ablation.png").exists()


def test_table_1(ring, tmp_path):
    result = reproduce("table1", "--data", "wines", f"electronics={ring}", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "electronics (Electronics): 300 users, the paper has 22,685 (-98.7%)." in result.stdout
    for end in ("md", "json", "html", "png"):
        assert (tmp_path / f"table1.{end}").stat().st_size > 0


def test_settings_of_a_search_reach_the_cells(ring, tmp_path, monkeypatch):
    monkeypatch.setattr(table_rows, "table_rows", lambda _: [Row("kNN", "knn", "tuned")])
    seen = []

    def run_grid(cells, *_, **__):
        seen.extend(cells)
        raise KeyboardInterrupt

    monkeypatch.setattr("metatl.experiments.grid.run_grid", run_grid)
    (tmp_path / "tuned").mkdir()
    arguments = ["table2", "--data", f"ring={ring}", "--out", tmp_path / "out", "--seeds", 2]
    result = reproduce(*arguments)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    settings = {
        "model": "knn", "preset": "tuned", "config": {"window": 3}, "validation_mrr": 0.5, "trials": 1,
        "data": "ring", "dataset_fingerprint": seen[0].fingerprint, "k": 3, "seed": 0,
    }  # fmt: skip
    (tmp_path / "tuned" / "knn.best.json").write_text(json.dumps(settings))
    reproduce(*arguments, "--configs", tmp_path / "tuned")
    assert [cell.config["window"] for cell in seen] == [10, 10, 3, 3]
    (tmp_path / "tuned" / "again.best.json").write_text(json.dumps(settings))
    assert_one_line(reproduce(*arguments, "--configs", tmp_path / "tuned"), "second search of knn")
    (tmp_path / "tuned" / "again.best.json").write_text("{}")
    assert_one_line(reproduce(*arguments, "--configs", tmp_path / "tuned"), "again.best.json", "tune again")
    assert_one_line(reproduce(*arguments, "--configs", tmp_path / "out"), "what `metatl tune` wrote")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data", "a.csv"], ["found 'a.csv', expected wines or NAME=PATH"]),
        (["--data", "a=missing.csv"], ["missing.csv", "no such file"]),
        (["--data", "wines", "wines"], ["twice"]),
    ],
)
def test_bad_data_is_one_line(tmp_path, arguments, parts):
    for command in ("table1", "table2"):
        assert_one_line(reproduce(command, *arguments, "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [([], "--data"), (["wines", "--k", "2;3"], "2;3"), (["wines", "--budget", "huge"], "huge")],
)
def test_bad_options(arguments, part):
    result = reproduce("table2", *arguments)
    assert result.exit_code == 2
    assert part in result.stderr


def test_help_is_quick():
    program = """
import sys
from metatl.cli.metatl.main import main
for arguments in (["--help"], ["reproduce", "--help"], ["reproduce", "table2", "--help"], ["tune", "--help"]):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 0
slow = {"torch", "matplotlib", "polars", "numpy", "scipy", "optuna"} & set(sys.modules)
assert not slow, slow
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for text in ("reproduce", "tune", "ablation", "--budget", "--trials"):
        assert text in result.stdout
