"""What can change an answer is covered by a digest, and damaged files are errors of one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

import metatl
from metatl.exceptions import RunError
from metatl.runs.checkpoints import load_checkpoint, save_checkpoint
from metatl.runs.run_directory import RunRecord, read_record, write_record
from planted_data import ring

SAVED = Path(__file__).parents[1] / "saved_files"
CONFIG = {"dim": 4, "batch_size": 16, "max_steps": 4, "eval_every": 2, "cross_fit_folds": 0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    metatl.fit(ring(users=200, items=30), model="bpr", config=CONFIG, out=out, device="cpu")
    return out


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def assert_refused(run, *parts):
    with pytest.raises(RunError) as caught:
        metatl.load_run(run)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("config", {**CONFIG, "fold_in_steps": 9}), ("preset", "paper"), ("seed", 7), ("num_items", 31)],
)
def test_an_edited_run_json_is_refused(run, name, value):
    content = json.loads((run / "run.json").read_text())
    content[name] = {**content[name], **value} if isinstance(value, dict) else value
    (run / "run.json").write_text(json.dumps(content))
    assert_refused(
        run, "run.json: found a file that was edited (its SHA-256 differs); undo the change, or train"
    )
    with pytest.raises(RunError, match="edited"):
        metatl.fit(ring(users=200, items=30), out=run, resume=True)


def test_a_reformatted_run_json_is_the_same(run):
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content, indent=7, sort_keys=False))
    assert metatl.load_run(run).record.config["dim"] == 4


def test_another_item_table_is_refused(run):
    items = pl.read_parquet(run / "items.parquet")
    items.with_columns(item_id=pl.col("item_id") + 1).write_parquet(run / "items.parquet")
    assert_refused(
        run, "items.parquet: found another item table than that of the run, or a damaged one (its SHA"
    )
    items.with_columns(count=pl.col("count") + 1).write_parquet(run / "items.parquet")
    assert_refused(run, "found another item table")


def test_what_a_stranger_may_ask_for_has_a_bound(run):
    content = read_record(run).model_dump(mode="json")
    write_record(run, RunRecord(**{**content, "config": {**content["config"], "fold_in_steps": 10**9}}))
    assert_refused(run, "config.fold_in_steps: found 1000000000", "expected at most 10000; train again")


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_an_edited_record_of_a_checkpoint_is_refused(run, name):
    content = (run / name).read_bytes()
    assert content.count(b'\\"MRR\\": 0') >= 1
    (run / name).write_bytes(content.replace(b'\\"MRR\\": 0', b'\\"MRR\\": 1'))
    with pytest.raises(RunError, match=r"the checkpoint is damaged \(its SHA-256 differs\); train again"):
        load_checkpoint(run / name)


def old_checkpoint(path, record):
    """Write a checkpoint of format 1, whose digest does not cover the record."""
    tensors, _ = load_checkpoint(SAVED / "metatl-paper-stopped" / "last.safetensors")
    digest = "0"
    with safetensors.safe_open(SAVED / "metatl-paper-stopped" / "last.safetensors", "np") as file:
        digest = file.metadata()["sha256"]
    metadata = {"format": "metatl", "format_version": "1", "sha256": digest}
    safetensors.numpy.save_file(tensors, path, {**metadata, **({} if record is None else {"record": record})})


@pytest.mark.parametrize(
    "record",
    [None, "", "{", "[1]", "nul", '{"step": ' + "[" * 100_000, '{"a": "\\ud800"}', "\x00", "9" * 10_000],
    ids=["none", "empty", "open", "list", "word", "deep", "surrogate", "zero", "long"],
)
def test_a_damaged_record_of_format_1_is_one_line(tmp_path, record):
    old_checkpoint(tmp_path / "x.safetensors", record)
    with pytest.raises(
        RunError, match=r"^[^\n]*x\.safetensors: the checkpoint is damaged [^\n]*; train again$"
    ):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "record",
    [{}, {"step": "many"}, {"step": -1}, {"history": [1]}, {"more": 1}, {"history": [{"step": "x"}]}],
)
def test_a_state_that_is_not_one_is_one_line(run, record):
    tensors, state = load_checkpoint(run / "last.safetensors")
    (run / "metrics.json").unlink()
    save_checkpoint(run / "last.safetensors", tensors, {**state, **record} if record else {"a": 1})
    with pytest.raises(
        RunError, match=r"^[^\n]*last\.safetensors: the checkpoint is damaged [^\n]*; train again$"
    ):
        metatl.fit(ring(users=200, items=30), out=run, resume=True, device="cpu")


@pytest.mark.parametrize("change", ["without generator", "other shape", "other name", "wrong index"])
def test_tensors_that_do_not_fit_are_one_line(run, change):
    tensors, state = load_checkpoint(run / "last.safetensors")
    first = next(name for name in tensors if name.startswith("model."))
    if change == "without generator":
        del tensors["generator.cpu"]
    elif change == "other shape":
        tensors[first] = np.zeros((2, 2), dtype=np.float32)
    elif change == "other name":
        tensors["model.none"] = tensors.pop(first)
    else:
        tensors["optimizer.x.step"] = np.zeros(1, dtype=np.float32)
    save_checkpoint(run / "last.safetensors", tensors, state)
    (run / "metrics.json").unlink()
    with pytest.raises(
        RunError, match=r"^[^\n]*last\.safetensors: the checkpoint is damaged [^\n]*; train again$"
    ):
        metatl.fit(ring(users=200, items=30), out=run, resume=True, device="cpu")


def test_a_small_item_table_of_very_many_rows_is_refused_before_it_is_unpacked(run, monkeypatch):
    rows = pl.select(item_id=pl.repeat(1, 3_000_000, dtype=pl.Int64), count=pl.repeat(1, 3_000_000))
    rows.cast(pl.Int64).write_parquet(run / "items.parquet")
    write_record(run, read_record(run))
    assert (run / "items.parquet").stat().st_size < 20_000
    collected, collect = [], pl.LazyFrame.collect

    def count(table, *arguments, **options):
        frame = collect(table, *arguments, **options)
        collected.append(frame.height)
        return frame

    monkeypatch.setattr(pl.LazyFrame, "collect", count)
    assert_refused(run, "items.parquet: found 3000000 rows", "train again")
    assert max(collected) == 1  # the number of rows only


def damaged_copies(content, number, ends):
    """Copies of a file with one to four bytes changed, below each of the ends in turn."""
    generator = np.random.default_rng(0)
    for index in range(number):
        damaged = bytearray(content)
        end = ends[index % len(ends)]
        for position in generator.integers(end, size=int(generator.integers(1, 5))):
            damaged[position] = int(generator.integers(256))
        yield damaged


@pytest.mark.parametrize("name", ["items.parquet", "best.safetensors", "run.json"])
def test_damaged_files_are_one_line(run, name):
    content = (run / name).read_bytes()
    # Half of the changes are near the start, which is the header of a checkpoint.
    messages = []
    for damaged in damaged_copies(content, 200, (len(content), min(900, len(content)))):
        (run / name).write_bytes(damaged)
        try:
            metatl.load_run(run)
        except RunError as error:
            messages.append(str(error))
    assert len(messages) > 130
    assert all("\n" not in message and name in message for message in messages)
