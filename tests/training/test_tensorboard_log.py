"""The TensorBoard log: what it holds, and that its faults stop nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import metatl
from metatl.cli.metatl.main import main
from metatl.exceptions import MetatlWarning
from metatl.training.stop_signals import TrainingStopped
from metatl.training.tensorboard_log import TensorBoardLog
from planted_data import ring, write_ring

CONFIG = {"dim": 4, "batch_size": 16, "max_steps": 6, "eval_every": 2, "cross_fit_folds": 0}


@pytest.fixture(scope="module")
def data():
    return ring(users=200, items=30)


def fit(data, out, **options):
    return metatl.fit(data, model="bpr", config=CONFIG, out=out, device="cpu", **options)


def scalars(folder, name="MRR"):
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]


def logged(out, name="MRR"):
    return [(entry["step"], entry[name]) for entry in json.loads((out / "history.json").read_text())]


@pytest.mark.parametrize("name", ["MRR", "loss", "learning_rate", "HR@10"])
def test_the_log_holds_the_history_also_of_a_resumed_run(data, tmp_path, name):
    def stop(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingStopped):
        fit(data, tmp_path / "run", on_progress=stop)
    fit(data, tmp_path / "run", resume=True)
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2
    assert logged(tmp_path / "run", name) == scalars(tmp_path / "run" / "tensorboard", name)


def test_what_an_interrupted_training_logged_after_its_checkpoint_is_hidden(tmp_path):
    with TensorBoardLog(tmp_path, first_step=1) as log:
        for step in (2, 4, 6):
            log.write({"MRR": step / 10}, step)
    with TensorBoardLog(tmp_path, first_step=5) as log:
        log.write({"MRR": 0.9}, 6)
    assert scalars(tmp_path) == [(2, 0.2), (4, 0.4), (6, 0.9)]


def broken_file(monkeypatch, number):
    """Let the third record of an event file fail, as on a full disk: half of it is written."""
    opened = Path.open

    class Broken:
        def __init__(self, file):
            self.file, self.records = file, 0

        def write(self, content):
            self.records += 1
            if self.records == 3:
                self.file.write(content[: len(content) // 2])
                raise OSError(number, os.strerror(number))
            return self.file.write(content)

        def close(self):
            self.file.close()

    def open_broken(path, *arguments, **options):
        file = opened(path, *arguments, **options)
        return Broken(file) if "tfevents" in path.name else file

    monkeypatch.setattr(Path, "open", open_broken)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_is_one_warning_and_the_training_goes_on(data, tmp_path, monkeypatch, number):
    fit(data, tmp_path / "whole")
    with monkeypatch.context() as patch:
        broken_file(patch, number)
        with pytest.warns(MetatlWarning) as warned:
            fit(data, tmp_path / "run")
    (warning,) = warned
    assert str(warning.message) == (
        f"{tmp_path / 'run' / 'tensorboard'}: the TensorBoard log is not written any more "
        f"({os.strerror(number)}); the training goes on"
    )
    for name in ("best.safetensors", "last.safetensors", "history.json", "metrics.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # Half a record does not stop TensorBoard either.
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == []


def test_a_file_where_the_folder_should_be_is_one_warning(data, tmp_path):
    run = tmp_path / "run"

    def put(progress):
        if progress.step == 1:
            (run / "tensorboard").write_text("in the way")

    with pytest.warns(MetatlWarning, match="not written any more") as warned:
        fit(data, run, on_progress=put)
    assert len(warned) == 1
    assert metatl.load_run(run).record.model == "bpr"


def test_a_missing_tensorboard_is_one_line_of_the_command(tmp_path, monkeypatch):
    file = write_ring(tmp_path / "ring.csv", users=200, items=30)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    options = [f"--set={name}={value}" for name, value in CONFIG.items()]
    options += [
        "--data",
        str(file),
        "--model",
        "bpr",
        "--out",
        str(tmp_path / "run"),
        "--min-item-count",
        "1",
    ]
    result = CliRunner().invoke(main, ["train", *options])
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if "TensorBoard" in line]
    assert line.startswith(f"warning: {tmp_path / 'run' / 'tensorboard'}: the TensorBoard log is not written")
