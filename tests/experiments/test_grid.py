"""The runner of experiments: tidy results, resuming, failures, signals."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from rich.console import Console

import in_process
import metatl
from metatl.exceptions import ConfigError, RunError
from metatl.experiments import grid
from metatl.experiments.cells import is_finished, locked, make_cell, read_cell
from metatl.experiments.data_sources import DataSource, parse_sources
from metatl.experiments.grid import gather, num_processors, plan, run_grid
from metatl.experiments.outcome import TIDY_SCHEMA
from metatl.experiments.progress import Clock
from metatl.experiments.table_rows import SMOKE_STEPS, TUNED, Budget, Row, table_rows
from metatl.models import SYSTEMS, find_system
from metatl.runs.checkpoints import load_checkpoint
from metatl.training.fit import configure
from planted_data import write_ring

POPULARITY = Row("Popularity", "popularity", "tuned")
KNN = Row("Item-kNN", "knn", "tuned", {"window": 5})
SMALL = {"dim": 8, "batch_size": 32, "eval_every": 10, "max_steps": 20, "cross_fit_folds": 2}
METATL = Row("MetaTL", "metatl", "tuned", SMALL)
# Long enough to be killed in; each step is short, and a checkpoint is written every ten.
ENDLESS = Row("MetaTL", "metatl", "tuned", {**SMALL, "max_steps": 2_000_000, "patience": 1_000_000})


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    return DataSource("ring", str(write_ring(tmp_path_factory.mktemp("data") / "ring.csv")))


@pytest.fixture(scope="module")
def fingerprint(ring):
    return metatl.read_interactions(ring.data).fingerprint


def run(cells, out, **options):
    output = io.StringIO()
    outcome = run_grid(cells, out, console=Console(file=output, width=200), **options)
    return outcome, output.getvalue()


@pytest.fixture(scope="module")
def finished(ring, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    cells = plan([ring], [POPULARITY, KNN, METATL], ks=[2, 3], seeds=1)
    # What processes add is tested where they are killed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "work", in_process.work)
        return out, cells, *run(cells, out)


@pytest.fixture
def without_processes(monkeypatch):
    monkeypatch.setattr(grid, "work", in_process.work)


def modified(out):
    return {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*")}


def test_the_results_are_tidy(finished, ring):
    out, cells, outcome, output = finished
    assert outcome.failures == []
    assert outcome.results.schema == TIDY_SCHEMA
    assert outcome.results.equals(pl.read_parquet(out / "results.parquet"))
    assert len(outcome.results) == len(cells) * 2 * 6
    keys = ["dataset", "row", "k", "seed", "ranking", "metric"]
    assert outcome.results.select(keys).is_unique().all()
    knn = outcome.results.filter(row="Item-kNN", k=3, ranking="sampled", metric="MRR").row(0, named=True)
    assert (knn["system"], knn["preset"], json.loads(knn["config"])) == ("knn", "tuned", {"window": 5})
    run = metatl.fit(ring.data, model="knn", k=3, config={"window": 5})
    expected = metatl.evaluate(run, data=ring.data).results
    mrr = expected.metrics.sampled["MRR"]
    assert (knn["value"], knn["low"], knn["high"]) == (mrr.value, mrr.low, mrr.high)
    assert knn["test_users"] == expected.dataset.test_users
    assert knn["candidates_sha256"] == expected.candidates.sha256
    assert knn["fit_seconds"] > 0
    assert knn["processor_seconds"] > 0
    assert knn["evaluation_seconds"] > 0
    assert "6/6" in output
    assert f"ring Item-kNN K = 3 seed 0: MRR {mrr.value:.4f}" in output


def test_the_ranks_are_those_of_the_metrics(finished):
    _, _, outcome, _ = finished
    for (dataset, row, k, seed), ranks in outcome.ranks.items():
        for ranking in ("sampled", "full"):
            figures = outcome.results.filter(
                dataset=dataset, row=row, k=k, seed=seed, ranking=ranking, metric="MRR"
            )
            mine = ranks.filter(ranking=ranking)
            assert (1 / mine["rank"]).mean() == pytest.approx(figures["value"][0])
            assert mine["user_id"].is_unique().all()


def test_nothing_is_repeated(finished, monkeypatch):
    out, cells, outcome, _ = finished
    before = modified(out)
    # Not even a process is started.
    monkeypatch.setattr(grid, "work", None)
    again, output = run(cells, out)
    assert modified(out) == before
    assert again.results.equals(outcome.results)
    assert output == ""


def test_other_settings_are_another_cell(finished, ring, fingerprint):
    out, cells, *_ = finished
    cell = next(cell for cell in cells if cell.row is KNN and cell.k == 3)
    assert is_finished(cell, out)
    others = (
        make_cell(ring, fingerprint, replace(KNN, config={"window": 6}), k=3, seed=0),
        make_cell(ring, fingerprint, replace(KNN, preset="paper"), k=3, seed=0),
        make_cell(ring, "0" * 64, KNN, k=3, seed=0),
        make_cell(ring, fingerprint, KNN, k=3, seed=1),
        make_cell(ring, fingerprint, KNN, k=4, seed=0),
    )
    assert not any(is_finished(other, out) for other in others)
    # The paper's data are split at the paper's date.
    electronics = make_cell(DataSource("electronics", ring.data), fingerprint, KNN, k=3, seed=0)
    assert electronics.identity()["split"]["cutoff"] == "2014-01-01"
    # What a preset holds does not depend on how it was said.
    said = make_cell(ring, fingerprint, replace(KNN, title="kNN", config={"window": "5"}), k=3, seed=0)
    assert said.path(out) == cell.path(out)


def test_another_version_makes_its_own_cells(finished, monkeypatch):
    out, cells, *_ = finished
    monkeypatch.setattr("importlib.metadata.version", lambda _: "99.0.0")
    assert not is_finished(cells[0], out)


@pytest.mark.usefixtures("without_processes")
def test_changed_data_are_an_error(tmp_path):
    """The figures of other data never pass for those that were planned."""
    path = write_ring(tmp_path / "ring.csv", users=290)
    cells = plan([DataSource("ring", str(path))], [POPULARITY], ks=[3], seeds=1)
    write_ring(path, users=280)
    outcome, _ = run(cells, tmp_path / "out")
    assert "the data changed" in outcome.failures[0]
    assert outcome.results.is_empty()


@pytest.mark.usefixtures("without_processes")
def test_damaged_cells_are_an_error(ring, tmp_path):
    cells = plan([ring], [POPULARITY], ks=[3], seeds=1)
    run(cells, tmp_path)
    path = cells[0].path(tmp_path)
    record = json.loads((path / "cell.json").read_text())
    (path / "cell.json").write_text(json.dumps({**record, "identity": {**record["identity"], "seed": 7}}))
    with pytest.raises(RunError, match="other settings"):
        read_cell(cells[0], tmp_path)
    (path / "cell.json").write_text("{")
    with pytest.raises(RunError, match="delete it"):
        gather(cells, tmp_path)


DRIVER = """
import sys, json
from pathlib import Path
from rich.console import Console
from metatl.experiments.grid import plan, run_grid
from metatl.experiments.table_rows import Row
from metatl.experiments.data_sources import DataSource
rows = [Row(**row) for row in json.loads(sys.argv[3])]
cells = plan([DataSource("ring", sys.argv[1])], rows, ks=[3], seeds=1)
outcome = run_grid(cells, Path(sys.argv[2]), console=Console(width=200), jobs=int(sys.argv[4]))
print(outcome.failures)
"""


@contextmanager
def start(ring, out, rows, jobs=1):
    """Run a grid in a session of its own; kill it at the end, if it is still there."""
    described = [
        {"title": row.title, "model": row.model, "preset": row.preset, "config": row.config} for row in rows
    ]
    command = [sys.executable, "-c", DRIVER, ring.data, str(out), json.dumps(described), str(jobs)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition, process=None, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def process_state(pid):
    """State and parent of a process; None where there is none, or nothing but its exit code."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (fields[0], int(fields[1]))


def open_files(pid):
    try:
        return [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # closed in the meantime
        return []


def workers_of(process):
    """Process ids of the workers of a grid."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    children = [pid for pid in pids if (state := process_state(pid)) and state[1] == process.pid]
    return [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_a_killed_grid_continues_where_it_was_and_ctrl_c_stops_it(ring, fingerprint, tmp_path):
    rows = [POPULARITY, KNN, ENDLESS]
    popularity, knn, endless = (make_cell(ring, fingerprint, row, k=3, seed=0) for row in rows)
    run_directory = endless.path(tmp_path) / "run"
    history = run_directory / "history.json"
    with start(ring, tmp_path, rows) as process:
        wait_for(history.exists, process)
        workers = workers_of(process)
        process.kill()
    # The workers end with their parent: nobody else writes to the cells from now on.
    wait_for(lambda: not any(map(process_state, workers)))
    assert len(workers) == 1
    before = modified(tmp_path)
    step = json.loads(history.read_text())[-1]["step"]

    rows.append(replace(ENDLESS, title="other", config={**ENDLESS.config, "dim": 9}))
    other = make_cell(ring, fingerprint, rows[-1], k=3, seed=0).path(tmp_path) / "run"
    with start(ring, tmp_path, rows, jobs=2) as process:
        wait_for((other / "history.json").exists, process)
        wait_for(lambda: json.loads(history.read_text())[-1]["step"] > step, process)
        workers = workers_of(process)
        # As a terminal does it: to the whole group.
        os.killpg(process.pid, signal.SIGSTOP)
        wait_for(lambda: all(process_state(pid)[0] == "T" for pid in (process.pid, *workers)))
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert errors.count("Traceback") == 1
    assert len(workers) == 2
    assert not any(map(process_state, workers))
    for directory in (run_directory, other):
        # Saved after the very step in which it was asked to stop.
        _, record = load_checkpoint(directory / "last.safetensors")
        assert f"after step {record['step']}\n" in (directory.parent / "error.txt").read_text()

    # The training went on from its checkpoint, and was not begun again.
    steps = [entry["step"] for entry in json.loads(history.read_text())]
    assert steps == list(range(10, steps[-1] + 1, 10))
    after = modified(tmp_path)
    assert after[run_directory / "environment.json"] == before[run_directory / "environment.json"]
    for cell in (popularity, knn):
        files = [path for path in before if cell.path(tmp_path) in path.parents]
        assert len(files) > 5
        assert all(after[path] == before[path] for path in files)
    assert not is_finished(endless, tmp_path)


def test_one_process_has_a_cell_and_no_worker_outlives_its_parent(ring, fingerprint, tmp_path):
    cell = make_cell(ring, fingerprint, POPULARITY, k=3, seed=0)
    path = cell.path(tmp_path)
    path.mkdir(parents=True)
    with locked(path):
        with start(ring, tmp_path, [POPULARITY]) as process:
            # From here on the worker waits for the lock, and says nothing.
            wait_for(lambda: any(path in open_files(worker) for worker in workers_of(process)), process)
            workers = workers_of(process)
            process.kill()
        wait_for(lambda: not any(map(process_state, workers)), seconds=10)
    assert not is_finished(cell, tmp_path)


def test_a_failed_cell_and_a_killed_process_lose_only_themselves(ring, fingerprint, tmp_path):
    diverging = Row("diverging", "metatl", "paper", {"max_steps": 5, "meta_lr": 1e30, "dim": 8})
    rows = [diverging, ENDLESS, KNN]
    failed, killed, finished = (make_cell(ring, fingerprint, row, k=3, seed=0) for row in rows)
    with start(ring, tmp_path, rows) as process:
        wait_for((killed.path(tmp_path) / "run" / "last.safetensors").exists, process)
        (worker,) = workers_of(process)
        os.kill(worker, signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert "1/3 ring diverging K = 3 seed 0: failed: " in output
    assert "2/3 ring MetaTL K = 3 seed 0: failed: its process ended with exit code -9" in output
    assert "3/3 ring Item-kNN K = 3 seed 0: MRR" in output
    assert "Traceback" in (failed.path(tmp_path) / "error.txt").read_text()
    outcome = gather([failed, killed, finished], tmp_path, failures=["one", "two"])
    assert outcome.results["row"].unique().to_list() == ["Item-kNN"]
    with pytest.raises(RunError, match=r"2 cells failed.*one; two"):
        outcome.check()


@pytest.mark.usefixtures("without_processes")
def test_a_cell_that_was_killed_before_its_run_had_a_name(ring, tmp_path):
    (cell,) = plan([ring], [POPULARITY], ks=[3], seeds=1)
    (cell.path(tmp_path) / "run").mkdir(parents=True)
    (cell.path(tmp_path) / "run" / ".metatl-training.json").touch()
    (cell.path(tmp_path) / "run" / "items.parquet").write_text("half")
    outcome, _ = run([cell], tmp_path)
    assert outcome.failures == []


def test_other_candidates_are_an_error(finished, monkeypatch):
    out, cells, *_ = finished
    digests = iter("abcdefghijkl")
    monkeypatch.setattr(grid, "_sha256", lambda _: next(digests))
    with pytest.raises(RunError, match="different candidates"):
        gather(cells, out)


def test_threads_are_divided_among_jobs(ring, tmp_path, monkeypatch):
    seen = []

    def no_work(*_, jobs, threads, device):
        seen.append((jobs, threads, device))
        yield from ()

    monkeypatch.setattr(grid, "work", no_work)
    monkeypatch.setattr(grid, "num_processors", lambda: 8)
    cells = plan([ring], [POPULARITY, KNN], ks=[2, 3], seeds=1)
    for jobs in (1, 3, 100):
        run(cells, tmp_path, jobs=jobs)
    assert seen == [(1, 8, "cpu"), (3, 2, "cpu"), (4, 2, "cpu")]
    assert num_processors() >= 1


def test_the_time_left(ring, fingerprint):
    cells = [
        make_cell(ring, fingerprint, row, k=3, seed=seed) for seed in (0, 1) for row in (POPULARITY, KNN)
    ]
    clock = Clock(cells, jobs=2)
    clock.start(cells[0], 0)
    assert clock.seconds_left(0) is None
    clock.end(cells[0], 10)
    # Popularity took 10 s; of item-kNN nothing is known but that.
    assert clock.seconds_left(10) == (10 + 10 + 10) / 2
    clock.start(cells[1], 10)
    assert clock.seconds_left(14) == (6 + 10 + 10) / 2
    clock.end(cells[1], 40)
    # Now it is: 30 s; popularity still takes 10.
    assert clock.seconds_left(40) == (10 + 30) / 2


@pytest.mark.parametrize("budget", get_args(Budget))
def test_every_system_has_a_row_and_every_row_is_valid(budget):
    rows = table_rows(budget)
    assert {row.model for row in rows} == set(SYSTEMS)
    assert len({row.title for row in rows}) == len(rows)
    for row in rows:
        config = configure(find_system(row.model, row.preset), row.preset, row.config, k=3)
        if budget == "smoke" and SYSTEMS[row.model].batches is not None:
            assert config.max_steps <= SMOKE_STEPS
        if budget == "paper":
            assert row.preset in ("paper", "official") or "paper" not in SYSTEMS[row.model].presets


def test_systems_that_are_added_appear_by_themselves(monkeypatch):
    added = replace(SYSTEMS["knn"], name="tcn", title="NextItNet")
    monkeypatch.setitem(SYSTEMS, "tcn", added)
    row = next(row for row in table_rows("tuned") if row.model == "tcn")
    assert (row.title, row.published) == ("NextItNet", "TCN")


def test_tuned_settings_replace_the_preset_where_the_data_are_the_same(ring, fingerprint):
    rows = [KNN, Row("paper", "knn", "paper"), Row("all", "knn", "tuned")]
    found = {("knn", fingerprint): {"window": 7, "recency": 0.5}, ("knn", "0" * 64): {"shrinkage": 1.0}}
    cells = plan([ring], rows, ks=[3], seeds=1, configs=found)
    assert [(cell.config["window"], cell.config["recency"]) for cell in cells] == [
        (5, 0.5),
        (None, 1.0),
        (7, 0.5),
    ]
    assert cells[2].config["shrinkage"] == 50.0


def test_sources():
    wines, movies = parse_sources(["wines", "movies=a.csv"])
    assert (wines.name, wines.data, wines.column, wines.cutoff) == ("wines", "wines", None, None)
    assert (movies.column, movies.cutoff.year, movies.data) == ("Movie", 2014, str(Path("a.csv").absolute()))
    for text, message in (
        (["a.csv"], "expected wines or NAME=PATH"),
        (["a="], "without a path"),
        (["a/b=c"], "the name 'a/b'"),
        (["=c"], "the name ''"),
        (["a=b", "a=c"], "twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_sources(text)


def test_a_row_of_an_unknown_field_is_an_error(ring):
    with pytest.raises(ConfigError, match="no field 'windows'"):
        plan([ring], [replace(KNN, config={"windows": 5})], ks=[3], seeds=1)
    assert TUNED in {row.title for row in table_rows("tuned")}
