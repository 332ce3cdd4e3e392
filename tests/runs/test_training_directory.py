"""Where a training writes: locks, links, mount points, files of the user, signals during the start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

import metatl
from kill_states import contents
from metatl.cli.metatl.main import main
from metatl.exceptions import RunError
from metatl.runs import replacement, training_directory, training_lock
from metatl.runs.run_files import TRAINING
from metatl.training.stop_signals import TrainingStopped
from planted_data import ring, write_ring

SMALL = {"dim": 4, "batch_size": 16, "max_steps": 4, "eval_every": 2, "cross_fit_folds": 0}


@pytest.fixture(scope="module")
def data():
    return ring(users=200, items=30)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    return write_ring(tmp_path_factory.mktemp("data") / "ring.csv", users=200, items=30)


def popularity(data, out, **options):
    return metatl.fit(data, model="popularity", out=out, device="cpu", **options)


def bpr(data, out, **options):
    return metatl.fit(data, model="bpr", config=SMALL, out=out, device="cpu", **options)


def test_a_training_in_another_process_is_named(data, data_file, tmp_path):
    out = tmp_path / "run"
    options = ["--data", data_file, "--model", "bpr", "--out", out, "--set", "max_steps=100000"]
    with subprocess.Popen(
        [sys.executable, "-m", "metatl.cli.metatl.main", "train", *map(str, options)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not (out / "run.json").exists():
            assert process.poll() is None
        for arguments in ([], ["--resume"], ["--overwrite"]):
            result = CliRunner().invoke(main, ["train", *map(str, options), *arguments])
            assert result.exit_code == 2
            (line,) = result.stderr.splitlines()
            assert f"{out}: another training is at work here (process {process.pid} on " in line
            assert socket.gethostname() in line
        process.kill()
        process.wait()
    # The lock has gone with the process.
    popularity(data, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_one_of_two_threads_trains_and_the_other_is_told(data, tmp_path, overwrite):
    out = tmp_path / "run"
    if overwrite:
        popularity(data, out)
    inside, errors, leave = threading.Event(), [], threading.Event()

    def wait(_):
        inside.set()
        leave.wait(30)

    thread = threading.Thread(
        target=bpr, args=(data, out), kwargs={"on_progress": wait, "overwrite": overwrite}
    )
    thread.start()
    assert inside.wait(30)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(
            RunError, match=rf"another training is at work here \(process {os.getpid()} on "
        ) as e:
            bpr(data, out, **options)
        errors.append(e)
    leave.set()
    thread.join()
    assert metatl.load_run(out).record.model == "bpr"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_second_training_that_comes_while_the_data_are_read_is_told(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training_directory, "refuse_if_training", lambda _: None)
    with training_lock.training_lock(tmp_path / "run"), pytest.raises(RunError, match="another training"):
        popularity(data, tmp_path / "run")


def test_a_lock_whose_file_was_removed_in_between_is_taken_again(tmp_path, monkeypatch):
    path, calls = tmp_path / TRAINING, []
    flock = training_lock.fcntl.flock

    def removed_by_its_holder(descriptor, operation):
        flock(descriptor, operation)
        if not calls:
            path.unlink()
        calls.append(operation)

    monkeypatch.setattr(training_lock.fcntl, "flock", removed_by_its_holder)
    with training_lock.training_lock(tmp_path):
        assert len(calls) == 2
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_file_system_without_locks_does_not_stop_a_training(data, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(training_lock.fcntl, "flock", flock)
    popularity(data, tmp_path / "run")
    popularity(data, tmp_path / "run", seed=2, overwrite=True)
    assert metatl.load_run(tmp_path / "run").record.seed == 2
    assert not list(tmp_path.rglob(".*"))


def test_the_files_of_a_user_are_not_a_run(data, tmp_path):
    for name in ("items.parquet", "metrics.json", "thesis.tex"):
        out = tmp_path / name
        out.mkdir()
        (out / name).write_text("years of work")
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(RunError, match="other files; choose an empty or a new one"):
                popularity(data, out, **options)
        assert contents(out) == {name: b"years of work"}


def test_files_of_a_user_are_kept_and_never_replaced(data, tmp_path):
    out = tmp_path / "run"
    popularity(data, out)
    (out / "notes").mkdir()
    (out / "notes" / "a.txt").write_text("a")
    (out / "link").symlink_to("notes/a.txt")
    (out / "last.safetensors.bak").write_text("backup")
    bpr(data, out, overwrite=True)
    assert (out / "notes" / "a.txt").read_text() == (out / "link").read_text() == "a"
    assert (out / "last.safetensors.bak").read_text() == "backup"
    # One that was put into the unfinished new run is kept as well, beside that of the old one.

    def put(progress):
        if progress.step == 3:
            (tmp_path / ".run.new" / "last.safetensors.bak").write_text("of the new run")

    bpr(data, out, overwrite=True, seed=5, on_progress=put)
    assert (out / "last.safetensors.bak").read_text() == "of the new run"
    assert (out / "last.safetensors.bak~").read_text() == "backup"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_of_the_user_where_the_new_run_would_go_is_refused(data, tmp_path):
    popularity(data, tmp_path / "run")
    (tmp_path / ".run.new").mkdir()
    (tmp_path / ".run.new" / "run.json").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(
        RunError, match=r"\.run\.new: found other files where the new run is built; move them"
    ):
        popularity(data, tmp_path / "run", overwrite=True)
    popularity(data, tmp_path / "run", resume=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("renames", [False, True])
def test_a_link_to_a_directory_stays_a_link(data, tmp_path, monkeypatch, renames):
    if renames:
        monkeypatch.setattr(replacement, "_exchange_in_one_step", lambda *_: False)
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    popularity(data, tmp_path / "run")
    popularity(data, tmp_path / "run", overwrite=True, seed=3)
    assert (tmp_path / "run").is_symlink()
    assert metatl.load_run(tmp_path / "run").record.seed == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "run"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["run"]


def test_a_relative_path_is_replaced(data, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    popularity(data, ".")
    popularity(data, ".", overwrite=True, seed=3)
    assert metatl.load_run(tmp_path / "run").record.seed == 3


def test_a_run_that_cannot_be_exchanged_is_refused_before_the_data_are_read(data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    popularity(data, out)
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda path: Path(path) == out)
        with pytest.raises(
            RunError, match=r"run: found a mount point, .*; choose another directory, or delete"
        ):
            popularity("/nowhere.csv", out, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
        with pytest.raises(
            RunError, match="found a folder that may not be written, beside the old run; choose"
        ):
            popularity("/nowhere.csv", out, overwrite=True)
    assert metatl.load_run(out).record.seed == 0


def test_a_mount_of_the_same_device_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "a b\\c"
    escaped = str(folder).replace("\\", "\\134").replace(" ", "\\040")
    line = f"36 35 98:0 /mnt1 {escaped} rw,noatime master:1 - ext3 /dev/root rw\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: line)
    assert replacement._is_mount_point(folder)
    assert not replacement._is_mount_point(tmp_path / "a")


def test_an_exchange_that_fails_keeps_both_runs_and_is_tried_again(data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    popularity(data, out)

    def busy(*_):
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(replacement, "_exchange_in_one_step", busy)
        with pytest.raises(
            RunError, match=r"finished, but cannot be put here \(Device or .*--resume tries again"
        ):
            popularity(data, out, overwrite=True, seed=3)
    assert metatl.load_run(out).record.seed == 0
    assert metatl.load_run(tmp_path / ".run.new").record.seed == 3
    assert metatl.fit(data, out=out, resume=True).record.seed == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_two_renames_are_undone_if_the_second_fails(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    rename = Path.rename

    def fail(path, target):
        if path.name == "b":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    monkeypatch.setattr(replacement, "_exchange_in_one_step", lambda *_: False)
    with pytest.raises(OSError, match="Input/output"):
        replacement._exchange(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path) == {"a/a": b"", "b/b": b""}


def test_linux_exchanges_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert replacement._exchange_in_one_step(tmp_path / "a", tmp_path / "b")
    assert contents(tmp_path) == {"a/b": b"", "b/a": b""}
    with pytest.raises(FileNotFoundError):
        replacement._exchange_in_one_step(tmp_path / "a", tmp_path / "none")


def test_a_run_that_is_exchanged_while_it_is_loaded_is_loaded_again(data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    bpr(data, out)
    bpr(data, tmp_path / "other", seed=2)
    from metatl.runs import run_directory

    read, calls = run_directory.load_checkpoint, []

    def exchanged(path):
        if not calls:
            replacement._exchange(out, tmp_path / "other")
        calls.append(path)
        return read(path)

    monkeypatch.setattr(run_directory, "load_checkpoint", exchanged)
    run = metatl.load_run(out)
    assert len(calls) == 2
    assert run.record.seed == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_signal_during_the_start_leaves_nothing(data, tmp_path, monkeypatch, number, overwrite):
    out = tmp_path / "run"
    if overwrite:
        popularity(data, out)
    before, handlers = contents(tmp_path), [signal.getsignal(other) for other in (1, 2, 15)]
    for function in ("write_items", "environment", "write_record"):
        original = getattr(training_directory, function)

        def interrupted(*arguments, original=original):
            result = original(*arguments)
            signal.raise_signal(number)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(training_directory, function, interrupted)
            with pytest.raises((KeyboardInterrupt, TrainingStopped)):
                bpr(data, out, overwrite=overwrite)
        assert contents(tmp_path) == before
        assert [signal.getsignal(other) for other in (1, 2, 15)] == handlers
    bpr(data, out, overwrite=overwrite)
    assert metatl.load_run(out).record.model == "bpr"


def test_a_command_that_is_stopped_before_the_first_step_says_to_start_it_again(
    data_file, tmp_path, monkeypatch
):
    original = training_directory.write_record

    def interrupted(*arguments):
        original(*arguments)
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(training_directory, "write_record", interrupted)
    options = ["train", "--data", str(data_file), "--model", "bpr", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 128 + signal.SIGHUP
    assert result.stderr == "stopped by SIGHUP before the first step; start it again\n"
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_during_the_start_leaves_nothing(data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "run.json")

    with monkeypatch.context() as patch:
        patch.setattr(training_directory, "write_record", full)
        with pytest.raises(OSError, match="No space left"):
            popularity(data, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    popularity(data, tmp_path / "run")
