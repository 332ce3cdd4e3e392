"""Kept cells: what comes back is what was finished, and nothing else is taken for it."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import polars as pl
import pytest
from click.testing import CliRunner
from rich.console import Console

import in_process
from metatl.cli.metatl.results import results
from metatl.evaluation.report.pages import markdown
from metatl.exceptions import RunError
from metatl.experiments import grid
from metatl.experiments.cells import CellResult, read_cell
from metatl.experiments.data_sources import DataSource
from metatl.experiments.grid import gather, plan, run_grid
from metatl.experiments.published_cells import find_kept, keep, kept_file, kept_fingerprints
from metatl.experiments.results_page import results_page
from metatl.experiments.table_rows import KNN, Row
from metatl.models import SYSTEMS
from planted_data import write_ring

ROWS = [Row("Popularity", "popularity", "tuned"), Row(KNN, "knn", "tuned"), Row("Markov", "markov", "tuned")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid that has run and kept its cells, in two calls; the folders of both."""
    out, kept = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("repository") / "kept"
    ring = DataSource("ring", str(write_ring(tmp_path_factory.mktemp("data") / "ring.csv")))
    cells = plan([ring], ROWS, ks=[3], seeds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "work", in_process.work)
        run(cells[:2], out, kept=kept)
        run(cells, out, kept=kept)
    return out, kept, cells


def run(cells, out, **options):
    return run_grid(cells, out, console=Console(file=io.StringIO()), keep_new=True, **options)


def page(outcome):
    return markdown(results_page(outcome, ["ring"], ks=[3], seeds=2))


def in_order(ranks):
    return ranks.sort("ranking", "user_id").drop("user_id")


def test_what_comes_back_is_what_was_finished(finished, tmp_path):
    out, kept, cells = finished
    assert sorted(path.name for path in kept.iterdir()) == ["ring-k3-seed0.parquet", "ring-k3-seed1.parquet"]
    for cell in cells:
        made, found = read_cell(cell, out), find_kept(kept, cell)
        assert found.results.metrics.sampled == made.results.metrics.sampled
        assert found.results.metrics.full == made.results.metrics.full
        assert found.results.candidates == made.results.candidates
        assert (found.fit_seconds, found.processor_seconds) == (made.fit_seconds, made.processor_seconds)
        assert in_order(found.ranks).equals(in_order(made.ranks))
        assert found.ranks["user_id"].n_unique() == made.results.dataset.test_users
    assert page(gather(cells, tmp_path, kept=kept)) == page(gather(cells, out))


def test_no_path_of_the_machine_is_kept(finished):
    out, kept, cells = finished
    assert read_cell(cells[0], out).results.model.run is not None
    results = find_kept(kept, cells[0]).results
    assert results.model.run is None
    assert results.dataset.source is None


def test_nothing_is_made_again_on_another_machine(finished, tmp_path, monkeypatch):
    out, kept, cells = finished
    monkeypatch.setattr(grid, "work", None)
    outcome = run(cells, tmp_path, kept=kept)
    assert outcome.results.equals(gather(cells, out).results)
    assert not (tmp_path / "cells").exists()


def test_cells_that_were_finished_before_are_kept_too(finished, tmp_path, monkeypatch):
    out, _, cells = finished
    monkeypatch.setattr(grid, "work", None)
    run(cells, out, kept=tmp_path / "kept")
    assert all(find_kept(tmp_path / "kept", cell) is not None for cell in cells)


@pytest.mark.parametrize("change", ["fingerprint", "config", "revision", "version"])
def test_figures_of_something_else_are_not_taken(finished, change, monkeypatch):
    _, kept, cells = finished
    cell = cells[1]
    if change == "fingerprint":
        cell = replace(cell, fingerprint="0" * 64)
    if change == "config":
        cell = replace(cell, config={**cell.config, "window": 6})
    if change == "revision":
        monkeypatch.setitem(SYSTEMS, "knn", replace(SYSTEMS["knn"], revision=99))
    if change == "version":
        monkeypatch.setattr("importlib.metadata.version", lambda _: "99.0.0")
    assert find_kept(kept, cell) is None


def test_a_cell_takes_the_place_of_an_older_one_of_its_row(finished, tmp_path):
    out, _, cells = finished
    older, other, result = cells[1], cells[0], read_cell(cells[1], out)
    newer = replace(older, config={**older.config, "window": 6})
    for cell in (older, other, newer):
        keep(tmp_path, cell, result)
    assert find_kept(tmp_path, older) is None
    assert all(find_kept(tmp_path, cell) is not None for cell in (other, newer))
    assert pl.read_parquet(kept_file(tmp_path, newer)).height == 2


@pytest.mark.parametrize(("largest", "width"), [(255, 1), (256, 2), (65535, 2), (65536, 4)])
def test_counts_are_as_wide_as_they_need(finished, tmp_path, largest, width):
    out, _, cells = finished
    made = read_cell(cells[0], out)
    ranks = made.ranks.with_columns(greater=pl.lit(largest), equal=pl.lit(0), rank=pl.lit(largest + 1.0))
    keep(tmp_path, cells[0], CellResult(made.results, ranks, None, None))
    users = made.results.dataset.test_users
    assert len(pl.read_parquet(kept_file(tmp_path, cells[0]))["full_greater"][0]) == width * users
    found = find_kept(tmp_path, cells[0])
    assert in_order(found.ranks).equals(in_order(ranks), null_equal=True)
    assert (found.fit_seconds, found.processor_seconds) == (None, None)


def damaged(kept, folder, how):
    path = folder / "ring-k3-seed0.parquet"
    content = (kept / path.name).read_bytes()
    rows = pl.read_parquet(content)
    match how:
        case "half":
            path.write_bytes(content[: len(content) // 2])
        case "text":
            path.write_text("version https://git-lfs.github.com/spec/v1\n")
        case "column":
            rows.drop("report").write_parquet(path)
        case "type":
            rows.with_columns(fit_seconds=pl.lit("long")).write_parquet(path)
        case "empty":
            rows.with_columns(full_equal=pl.lit(None, dtype=pl.Binary)).write_parquet(path)
        case "identity":
            rows.with_columns(identity=pl.lit("{")).write_parquet(path)
        case "report":
            rows.with_columns(report=pl.lit("{}")).write_parquet(path)
        case "users":
            rows.with_columns(full_equal=pl.lit(b"abc")).write_parquet(path)


@pytest.mark.parametrize("how", ["half", "text", "column", "type", "empty", "identity", "report", "users"])
def test_a_damaged_file_is_one_error_that_names_it(finished, tmp_path, how):
    _, kept, cells = finished
    damaged(kept, tmp_path, how)
    with pytest.raises(RunError, match=rf"^{re.escape(str(tmp_path))}/ring-k3-seed0\.parquet: ") as caught:
        find_kept(tmp_path, cells[0])
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("ring-k3") == 1


def test_the_data_sets_are_known_without_data(finished, tmp_path):
    out, kept, cells = finished
    assert kept_fingerprints(kept) == {"ring": cells[0].fingerprint}
    assert kept_fingerprints(kept, without=["ring"]) == {}
    assert kept_fingerprints(tmp_path / "none") == {}
    result = read_cell(cells[0], out)
    for cell in (cells[0], replace(cells[1], fingerprint="0" * 64)):
        keep(tmp_path, cell, result)
    with pytest.raises(RunError, match="cells of different data; --data ring=PATH says which"):
        kept_fingerprints(tmp_path)
    (tmp_path / "figures.parquet").touch()
    with pytest.raises(RunError, match=r"figures\.parquet: found a file of another name"):
        kept_fingerprints(tmp_path)


def test_the_page_is_written_from_kept_cells_alone(finished, tmp_path, monkeypatch):
    out, kept, cells = finished
    monkeypatch.setattr("metatl.experiments.table_rows.table_rows", lambda _: ROWS)
    options = ["--only-finished", "--kept", str(kept), "--markdown", str(tmp_path / "page.md")]
    options += ["--k", "3", "--seeds", "2", "--out", str(tmp_path / "none")]
    result = CliRunner().invoke(results, options)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.split("## ring")[1] == page(gather(cells, out)).split("## ring")[1]
    assert "Processor time of a fit" in text
