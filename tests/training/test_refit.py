"""Fits on every row: with the steps that the split chose, or with the preset's where nothing is held out."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import polars as pl
import pytest

import metatl
from kill_states import recorded
from metatl.data.split import hold_nothing_out
from metatl.exceptions import (
    ConfigError,
    EmptySplitError,
    InvalidArgumentError,
    RunError,
)
from metatl.runs.metrics_file import FitReport, read_fit_report, read_metrics
from metatl.training.stop_signals import TrainingStopped
from planted_data import ring

# With these steps the validation MRR is best in the middle, so that the choice matters.
TRAINED = {"dim": 4, "batch_size": 16, "max_steps": 8, "eval_every": 2, "cross_fit_folds": 0}
SYSTEMS = {"popularity": {}, "bpr": TRAINED, "metatl": TRAINED}
FILES = (
    "run.json", "metrics.json", "items.parquet", "best.safetensors", "last.safetensors", "history.json",
    "selection.json", "split-history.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return ring(users=200, items=30)


def fit(data, out=None, system="bpr", **options):
    return metatl.fit(data, model=system, config=SYSTEMS[system], out=out, device="cpu", **options)


def files_of(run):
    return {name: (run / name).read_bytes() for name in FILES if (run / name).exists()}


def with_short_users(data, times=3):
    """Add an item of yesterday, in rows of users who have no other row."""
    frame = data.to_frame().with_columns(pl.col("timestamp").dt.epoch("us"))
    last = frame["timestamp"].max()
    rows = {
        "user_id": np.arange(9_000, 9_000 + times),
        "item_id": np.full(times, 999),
        "timestamp": last + 1 + np.arange(times),
    }
    return metatl.Interactions.from_frame(pl.concat([frame, pl.DataFrame(rows)]), timestamp_unit="us")


@pytest.mark.parametrize("min_item_count", [1, 10, 12])
def test_a_split_that_holds_nothing_out_has_every_row_of_frequent_items(data, min_item_count):
    data = with_short_users(data, 11)
    split = hold_nothing_out(data, k=3, min_item_count=min_item_count)
    frame = data.to_frame()
    expected = frame.filter(pl.len().over("item_id") >= min_item_count)
    assert split.train.to_frame().equals(expected)
    assert split.item_ids.to_list() == sorted(expected["item_id"].unique())
    assert (split.cold.num_users, len(split.validation), len(split.test)) == (0, 0, 0)
    assert split.cutoff_timestamp == data.timestamps.max() + 1
    assert "999" in split.item_ids.cast(pl.String).to_list() or min_item_count == 12
    assert split.fingerprint == hold_nothing_out(data, k=3, min_item_count=min_item_count).fingerprint


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_steps_are_those_of_the_split_and_the_rows_are_all(data, tmp_path, system):
    data = with_short_users(data, 12)
    chosen = fit(data, tmp_path / "split", system)
    run = fit(data, tmp_path / "run", system, refit=True)
    validation = read_metrics(tmp_path / "split")
    assert read_metrics(tmp_path / "run") == validation
    assert 999 not in chosen.item_ids.to_list()
    assert run.item_ids.to_list() == [*range(30), 999]
    assert run.item_counts.tolist() == data.item_counts.tolist()
    steps = None
    if system != "popularity":
        history = json.loads((tmp_path / "split" / "history.json").read_text())
        assert json.loads((tmp_path / "run" / "split-history.json").read_text()) == history
        steps = max(history, key=lambda entry: (entry["MRR"], -entry["step"]))["step"]
        assert json.loads((tmp_path / "run" / "history.json").read_text())[-1]["step"] == steps
    assert read_fit_report(tmp_path / "run") == FitReport(
        steps=steps,
        chosen_by="computed in one pass"
        if steps is None
        else f"validation MRR at step {steps} of the cold-start split",
        rows=data.num_interactions,
        users=data.num_users,
        items=31,
    )
    assert run.record.refit
    assert not list((tmp_path / "run").glob("split-*.safetensors"))
    loaded = metatl.load_run(tmp_path / "run")
    assert loaded.record == run.record
    (first,) = {str(item.item_id) for item in metatl.recommend(loaded, [[3]], top=31)[0]} & {"999"}
    assert first == "999"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_fit_on_every_row_is_one_of_the_steps_on_those_rows(data, system):
    """The same weights as without validation, stopped at the chosen step of the schedule."""
    run = fit(data, None, system, refit=True)
    whole = fit(data, None, system, validation=False)
    assert whole.record.validation_candidates_sha256 is None
    assert whole.record.refit
    equal = all(
        np.array_equal(a, b) for a, b in zip(*(r.model.tensors().values() for r in (run, whole)), strict=True)
    )
    assert equal or system != "popularity"


@pytest.mark.parametrize("options", [{"refit": True}, {"validation": False}])
def test_a_run_on_every_row_is_not_evaluated(data, options):
    run = fit(data, None, "popularity", **options)
    with pytest.raises(
        RunError, match=r"the run: found a run that is fitted on every row, .*without --all-data"
    ):
        metatl.evaluate(run, data=data)


def test_where_nothing_can_be_held_out(tmp_path):
    """One day of users with two rows each, all at the same time."""
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(40), 2),
            "item_id": np.arange(80) % 8,
            "timestamp": np.full(80, 86_400),
        }
    )
    for options in ({}, {"refit": True}):
        with pytest.raises(EmptySplitError, match=r"fit on every row without validation \(--no-validation"):
            metatl.fit(frame, model="bpr", device="cpu", **options)
    for system in ("bpr", "knn", "popularity"):
        config = SYSTEMS.get(system, {})
        run = metatl.fit(
            frame, model=system, config=config, validation=False, out=tmp_path / system, device="cpu"
        )
        assert run.record.num_items == 8
        assert len(metatl.recommend(run, [[0]], top=3)[0]) == 3
        assert read_metrics(tmp_path / system) == {}
    report = read_fit_report(tmp_path / "bpr")
    assert (report.steps, report.chosen_by) == (8, "the preset's length, no validation")
    assert read_fit_report(tmp_path / "knn").chosen_by == "computed in one pass"


def test_a_cutoff_after_the_last_row_holds_nothing_out(data):
    later = metatl.SplitSettings(cutoff=date(2030, 1, 1))
    with pytest.raises(EmptySplitError, match=r"arrives at or after T = 2030-01-01.*--no-validation"):
        fit(data, None, "popularity", split=later)
    run = fit(data, None, "popularity", split=later, validation=False)
    assert run.item_counts.sum() == data.num_interactions
    with pytest.raises(InvalidArgumentError, match="cutoff: found 1970-01-01, but there are rows until 1970"):
        fit(data, None, "popularity", split=metatl.SplitSettings(cutoff=date(1970, 1, 1)), validation=False)


def test_what_has_no_meaning_without_validation_is_refused(data):
    with pytest.raises(InvalidArgumentError, match="refit: found False with validation=False"):
        fit(data, None, "popularity", validation=False, refit=False)
    for setting in ({"validation_share": 0.1}, {"min_train_rows": 2}, {"cutoff_quantile": 0.5}):
        with pytest.raises(InvalidArgumentError, match=f"{next(iter(setting))}: found .* without validation"):
            fit(data, None, "popularity", validation=False, split=metatl.SplitSettings(**setting))


@pytest.mark.parametrize("system", ["popularity", "bpr"])
def test_a_killed_fit_on_every_row_is_finished_by_resume(data, tmp_path, system):
    (tmp_path / "whole").mkdir()
    with recorded(tmp_path / "whole", tmp_path / "states") as states:
        fit(data, tmp_path / "whole" / "run", system, refit=True)
    expected = files_of(tmp_path / "whole" / "run")
    assert len(states) > 10
    for state in states:
        out = state / "run"
        begun = (out / "run.json").exists()
        if begun and not (out / "metrics.json").exists():
            # A run that is not finished is never taken for one; its settings are its own.
            assert not (out / "best.safetensors").exists() or metatl.load_run(out).record.refit
            if system == "bpr":
                with pytest.raises(RunError, match="refit was True, now False"):
                    fit(data, out, system, resume=True, refit=False)
        fit(data, out, system, resume=True, **({} if begun else {"refit": True}))
        assert files_of(out) == expected, state
        assert {path.name for path in out.iterdir()} - {"tensorboard"} == {*expected, "environment.json"}


@pytest.mark.parametrize("stopped_at", [3, 9])
def test_a_stopped_fit_on_every_row_is_continued_in_either_part(data, tmp_path, stopped_at):
    import signal

    calls = []

    def stop(progress):
        calls.append(progress.step)
        if len(calls) == stopped_at:
            signal.raise_signal(signal.SIGTERM)

    fit(data, tmp_path / "whole", refit=True)
    with pytest.raises(TrainingStopped):
        fit(data, tmp_path / "run", refit=True, on_progress=stop)
    assert (tmp_path / "run" / "selection.json").exists() == (stopped_at > 8)
    fit(data, tmp_path / "run", resume=True)
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


def test_damaged_files_of_the_choice_are_one_error(data, tmp_path):
    fit(data, tmp_path, refit=True)
    (tmp_path / "metrics.json").write_text('{"validation": {}, "fit": {"steps": 0}}')
    with pytest.raises(RunError, match=r"metrics.json: field 'fit.steps': expected"):
        read_fit_report(tmp_path)
    (tmp_path / "metrics.json").write_text('{"validation": {}}')
    with pytest.raises(RunError, match=r"metrics.json: found no report of the fit in JSON"):
        read_fit_report(tmp_path)
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "selection.json").write_text("{")
    with pytest.raises(RunError, match=r"selection.json: found no choice of steps in JSON"):
        fit(data, tmp_path, resume=True)


def test_data_must_be_given(data, tmp_path):
    with pytest.raises(
        InvalidArgumentError, match="data: found nothing, expected the path of a file, or wines"
    ):
        metatl.fit(model="popularity")
    fit(data, tmp_path / "run", "popularity")
    assert metatl.fit(out=tmp_path / "run", resume=True).record.data is None
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(InvalidArgumentError, match="data: found nothing"):
        metatl.fit(out=tmp_path / "run", resume=True)


def test_repeats_are_recorded_and_kept(tmp_path):
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(100), 10),
            "item_id": np.random.default_rng(0).integers(20, size=1000),
            "timestamp": np.arange(1000) * 1000,
        }
    )
    frame.write_csv(tmp_path / "log.csv")
    kept = {}
    for repeats in ("first", "all"):
        out = tmp_path / repeats
        run = metatl.fit(
            tmp_path / "log.csv", model="popularity", repeats=repeats, out=out, device="cpu", k=2
        )
        assert metatl.fit(out=out, resume=True, k=2).record == run.record
        metatl.evaluate(run, "full", top=0)
        kept[repeats] = int(run.item_counts.sum())
    assert kept["all"] > kept["first"]
    with pytest.raises(RunError, match="repeats was all, now None"):
        metatl.fit(tmp_path / "log.csv", model="popularity", repeats="first", out=out, resume=True, k=2)
    with pytest.raises(InvalidArgumentError, match="repeats: found 'all' with Interactions"):
        metatl.fit(ring(), model="popularity", repeats="all")
    with pytest.raises(ConfigError, match="there is no setting 'repeats'"):
        metatl.SplitSettings(repeats="all")
