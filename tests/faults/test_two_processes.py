"""Two processes at one directory or file: one of them succeeds, the other is told so, nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import metatl
from kill_scenarios import differences, run_bytes

LONG = ("max_steps=100000", "patience=100000", "eval_every=2", "dim=8", "batch_size=16")
SECONDS = 20


def wait_for_calls(started, number):
    """Wait until a command has changed files a number of times."""
    errors, log = started.streams[1:]
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text().count("\n") < number:
        assert time.monotonic() < deadline, errors.read_text()
        time.sleep(0.005)


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_the_second_training_is_told_who_holds_the_directory(scenarios, option, tmp_path):
    folder = tmp_path.resolve() / "work"
    shutil.copytree(scenarios["overwrite" if option == "--overwrite" else "train"].before, folder)
    server, out = scenarios.server, folder / "run"
    settings = [f"--set={setting}" for setting in LONG]
    command = ["metatl", "train", "--data", str(scenarios.data), "--out", str(out), *settings, option]
    first = server.start(command, folder)
    wait_for_calls(first, 60)
    second = server.run(command, folder, timeout=SECONDS)
    with suppress(ProcessLookupError):
        os.kill(first.pid, signal.SIGTERM)
    assert first.wait().code == 128 + signal.SIGTERM
    assert second.code == 2
    assert str(first.pid) in second.errors
    assert len(second.errors.splitlines()) == 1
    if option == "--overwrite":
        assert run_bytes(folder) == run_bytes(scenarios["overwrite"].before)
        metatl.load_run(out)


@pytest.mark.parametrize("name", ["train", "overwrite"])
def test_of_two_trainings_at_once_one_writes_the_run(scenarios, name, tmp_path):
    scenario, folder = scenarios[name], tmp_path.resolve() / "work"
    shutil.copytree(scenario.before, folder)
    both = [scenarios.server.start(scenario.command(folder), folder) for _ in range(2)]
    ended = [started.wait() for started in both]
    codes = sorted(one.code for one in ended)
    # The second may start after the first has ended, and then replaces its run.
    assert codes in ([0, 2], [0, 0]) if name == "overwrite" else codes == [0, 2]
    assert differences(folder, scenario.reference) == []
    for one in ended:
        assert one.code == 0 or len(one.errors.splitlines()) == 1, one.errors


def test_who_reads_while_a_run_is_replaced_gets_one_of_the_two(scenarios, tmp_path):
    folder, server = tmp_path.resolve() / "work", scenarios.server
    folder.mkdir()

    def command(seed):
        out = str(folder / "run")
        return ["metatl", "train", "--data", str(scenarios.data), "--model", "bpr", "--set=max_steps=2",
                "--set=dim=4", "--out", out, "--seed", str(seed), "--overwrite"]  # fmt: skip

    def reading():
        run = metatl.load_run(folder / "run")
        return run.record.seed, {name: array.tobytes() for name, array in run.model.tensors().items()}

    expected = {}
    for seed in (0, 1):
        assert server.run(command(seed), folder).code == 0
        expected[seed] = reading()
    assert expected[0] != expected[1]
    seen = {0: 0, 1: 0}
    for turn in range(4):
        started = server.start(command(turn % 2), folder)
        # Until the process is gone: its exchange of the two runs falls into one of these readings.
        while os.path.exists(f"/proc/{started.pid}"):  # noqa: PTH110 (as fast as can be)
            seed, tensors = reading()
            assert (seed, tensors) == expected[seed]
            seen[seed] += 1
        assert started.wait().code == 0
    assert min(seen.values()) > 4


WRITE = """
import sys
from metatl.common.files import replace_file
for _ in range(300):
    with replace_file(sys.argv[1]) as temporary:
        temporary.write_bytes(sys.argv[2].encode() * 100_000)
"""


def test_two_writers_of_one_file_leave_one_whole_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, path, letter]) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert content == content[:1] * 100_000
        seen.add(content[:1])
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen >= {b"a", b"b"}
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
