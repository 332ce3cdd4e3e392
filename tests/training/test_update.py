"""Updates of a run on a longer log."""

from __future__ import annotations

import multiprocessing
import signal

import numpy as np
import polars as pl
import pytest

import metatl
from kill_states import contents, recorded
from metatl.exceptions import DataError, InvalidArgumentError, RunError
from metatl.models import SYSTEMS
from metatl.runs.metrics_file import read_fit_report, read_metrics
from metatl.training.stop_signals import TrainingStopped
from metatl.training.warm_start import extend
from planted_data import ring

SMALL = {"dim": 4, "batch_size": 16, "max_steps": 10, "eval_every": 5}
COUNTING = [name for name, system in SYSTEMS.items() if system.batches is None]
TRAINED = [name for name, system in SYSTEMS.items() if system.batches is not None]
FILES = ("run.json", "metrics.json", "items.parquet", "best.safetensors", "last.safetensors", "history.json")


@pytest.fixture(scope="module")
def logs():
    """A log, and a longer one: more rows of known users, more users, more items. Ids are shuffled."""
    whole = ring(users=300, items=40).to_frame()
    codes = np.random.default_rng(0).permutation(1000)
    first = whole.filter((pl.col("user_id") < 240) & (pl.col("item_id") < 34))
    return [
        metatl.Interactions.from_frame(
            frame.with_columns(pl.Series("item_id", codes[frame["item_id"].to_numpy()])), timestamp_unit="us"
        )
        for frame in (first, whole)
    ]


def fit(data, out=None, system="bpr", **options):
    config = SMALL if system in TRAINED else {}
    return metatl.fit(
        data,
        model=system,
        config=config,
        out=out,
        device="cpu",
        **{"refit": True, **options},
    )


def files_of(run):
    return {name: (run / name).read_bytes() for name in FILES if (run / name).exists()}


@pytest.mark.parametrize("system", COUNTING)
def test_a_counting_system_ends_with_the_bytes_of_a_fit_on_the_whole(logs, tmp_path, system):
    fit(logs[0], tmp_path / "run", system)
    updated = metatl.update(tmp_path / "run", logs[1], device="cpu")
    for name, options in {"refit": {}, "whole": {"validation": False}}.items():
        whole = fit(logs[1], tmp_path / name, system, **options)
        for file in ("best.safetensors", "items.parquet"):
            assert (tmp_path / "run" / file).read_bytes() == (tmp_path / name / file).read_bytes()
        assert updated.item_ids.equals(whole.item_ids)
    assert read_fit_report(tmp_path / "run") == read_fit_report(tmp_path / "whole")


@pytest.mark.parametrize("preset", ["tuned", "paper"])
@pytest.mark.parametrize("system", TRAINED)
def test_a_trained_system_starts_from_the_weights_of_the_run(logs, tmp_path, system, preset):
    if preset == "paper" and system in ("gru4rec", "tcn", "bert4rec"):
        pytest.skip("as sasrec")
    config = {**SMALL, "cross_fit_folds": 0, **({"dim": 16} if system in ("sasrec", "bert4rec") else {})}
    run = metatl.fit(
        logs[0], model=system, preset=preset, config=config, out=tmp_path / "run", refit=True, device="cpu"
    )
    steps = []
    updated = metatl.update(
        run, logs[1], device="cpu", steps_share=0.5, on_progress=lambda progress: steps.append(progress.step)
    )
    chosen = read_fit_report(tmp_path / "run").steps
    last = steps[-1]
    assert steps == [*range(last - chosen + 1, last + 1)]
    assert updated.item_ids.len() == 40
    assert updated.record.updated_from.dataset_fingerprint == logs[0].fingerprint
    assert updated.record.fitted_until == logs[1].timestamps.max() + 1
    assert read_metrics(tmp_path / "run") == {}
    old, new = (np.asarray(r.model.tensors()["embedding.weight"]) for r in (run, updated))
    known = logs[1].find_items(run.item_ids)
    moved = np.abs(new[known] - old).max(axis=1)
    # A few steps do not move the known items far; a new start is elsewhere.
    assert np.median(moved) < 0.2 * np.abs(old).max()
    loaded = metatl.load_run(tmp_path / "run")
    assert loaded.record == updated.record
    newcomer = min(set(updated.item_ids.to_list()) - set(run.item_ids.to_list()))
    (items,) = metatl.recommend(loaded, [[newcomer]], top=5).items
    assert (items >= 0).all()


def test_new_items_are_turned_onto_the_known_ones():
    generator = np.random.default_rng(0)
    spectrum = generator.standard_normal((30, 4)).astype(np.float32)
    rotation = np.linalg.qr(generator.standard_normal((4, 4)))[0]
    expected = (3 * spectrum @ rotation).astype(np.float32)
    known = np.sort(generator.permutation(30)[:20])
    np.testing.assert_allclose(extend(expected[known], known, spectrum), expected, rtol=1e-4, atol=1e-4)
    order = generator.permutation(20)
    assert np.array_equal(extend(expected[:20], order, None)[order], expected[:20])


def test_a_log_without_the_rows_of_the_run_is_refused(logs, tmp_path):
    fit(logs[0], tmp_path / "run", "popularity")
    before = files_of(tmp_path / "run")
    frame = logs[1].to_frame()
    new_rows = frame.join(logs[0].to_frame(), on=["user_id", "item_id"], how="anti")
    with pytest.raises(
        DataError, match=r"found \d+ rows, but the run was fitted on \d+, .* expected the whole log"
    ):
        metatl.update(tmp_path / "run", new_rows)
    for share in (0, 1.5, float("nan")):
        with pytest.raises(InvalidArgumentError, match="steps_share: found"):
            metatl.update(tmp_path / "run", logs[1], steps_share=share)
    with pytest.raises(InvalidArgumentError, match="repeats: found 'all' with Interactions"):
        metatl.update(tmp_path / "run", logs[1], repeats="all")
    with pytest.raises(RunError, match=r"found no run\.json"):
        metatl.update(tmp_path / "none", logs[1])
    (tmp_path / "run" / "metrics.json").rename(tmp_path / "metrics.json")
    with pytest.raises(
        RunError, match=r"found an unfinished run; finish it with `metatl train --out .* --resume`"
    ):
        metatl.update(tmp_path / "run", logs[1])
    (tmp_path / "metrics.json").rename(tmp_path / "run" / "metrics.json")
    assert files_of(tmp_path / "run") == before


def test_the_same_log_needs_no_update_and_another_directory_keeps_the_run(logs, tmp_path):
    run = fit(logs[0], tmp_path / "run")
    before = files_of(tmp_path / "run")
    (tmp_path / "run" / ".metatl-replacement.json").touch()  # its removal failed at the end of an update
    assert metatl.update(tmp_path / "run", logs[0]).record == run.record
    assert not (tmp_path / "run" / ".metatl-replacement.json").exists()
    for _ in range(2):
        updated = metatl.update(tmp_path / "run", logs[1], out=tmp_path / "other", device="cpu")
        assert updated.path == tmp_path / "other"
    assert files_of(tmp_path / "run") == before
    in_memory = metatl.update(tmp_path / "run", logs[1], device="cpu")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "other")
    again = metatl.update(fit(logs[0]), logs[1], device="cpu", steps_share=0.5)
    assert (again.path, again.record.num_items) == (None, in_memory.record.num_items)


def test_a_run_of_the_split_can_be_updated(logs, tmp_path):
    """Its counts are those of the training users only, and its items fewer than those of the log."""
    fit(logs[0], tmp_path / "run", refit=False)
    run = metatl.update(tmp_path / "run", logs[0], device="cpu")
    assert run.record.refit
    assert run.item_counts.sum() == logs[0].num_interactions


@pytest.mark.parametrize("system", ["bpr", "knn"])
def test_a_killed_update_serves_the_old_run_and_is_continued(logs, tmp_path, system):
    folder = tmp_path / "folder"
    fit(logs[0], folder / "run", system)
    old = files_of(folder / "run")
    with recorded(folder, tmp_path / "states") as states:
        metatl.update(folder / "run", logs[1], device="cpu", steps_share=1)
    expected = files_of(folder / "run")
    assert len(states) > 20
    for state in states[:: 1 if system == "bpr" else 4]:
        assert files_of(state / "run") in (old, expected)
        metatl.load_run(state / "run")
        if (state / ".run.new" / "last.safetensors").exists() and files_of(state / "run") == old:
            with pytest.raises(RunError, match="found an interrupted update; repeat"):
                metatl.fit(out=state / "run", resume=True)
        metatl.update(state / "run", logs[1], device="cpu", steps_share=1)
        assert files_of(state / "run") == expected, state
        assert {name.split("/")[1] for name in contents(state)} <= {*FILES, "environment.json", "tensorboard"}


def test_a_stopped_update_is_continued(logs, tmp_path):
    def stop(progress):
        if progress.step == 7:
            signal.raise_signal(signal.SIGTERM)

    for name in ("whole", "run"):
        fit(logs[0], tmp_path / name, validation=False)
    old = files_of(tmp_path / "run")
    metatl.update(tmp_path / "whole", logs[1], device="cpu", steps_share=0.5)
    with pytest.raises(TrainingStopped):
        metatl.update(tmp_path / "run", logs[1], device="cpu", steps_share=0.5, on_progress=stop)
    assert files_of(tmp_path / "run") == old
    steps = []
    metatl.update(
        tmp_path / "run", logs[1], device="cpu", steps_share=0.5,
        on_progress=lambda progress: steps.append(progress.step),
    )  # fmt: skip
    assert steps == [8, 9, 10]
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


def read_again_and_again(path, ready, stop, answers):
    """Load the run in a loop; say which data it was fitted on, or what went wrong."""
    seen = []
    ready.set()
    while not stop.is_set():
        try:
            run = metatl.load_run(path)
            metatl.recommend(run, [run.item_ids[:2].to_list()], top=3)
            seen.append(run.record.dataset_fingerprint + f" {run.record.seed}")
        except BaseException as error:  # noqa: BLE001, PERF203 (whatever it is, the test says so)
            seen.append(f"{type(error).__name__}: {error}")
    answers.put(list(dict.fromkeys(seen)))


def test_a_reader_is_never_without_a_run(logs, tmp_path):
    """In another process, during updates and replacements."""
    out = tmp_path / "run"
    fit(logs[0], out, "knn")
    context = multiprocessing.get_context("spawn")
    ready, stop, answers = context.Event(), context.Event(), context.Queue()
    reader = context.Process(target=read_again_and_again, args=(out, ready, stop, answers))
    reader.start()
    try:
        assert ready.wait(60)
        for seed in range(1, 5):
            fit(logs[0], out, "knn", overwrite=True, seed=seed)
            metatl.update(out, logs[1])
    finally:
        stop.set()
        seen = answers.get(timeout=60)
        reader.join()
    possible = {f"{log.fingerprint} {seed}" for log in logs for seed in range(9)}
    assert set(seen) <= possible
    assert len(seen) > 1
