"""Files that are replaced in one step."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from metatl.common import files
from metatl.common.files import remove_temporaries, replace_file


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("one", "two"):
        with replace_file(path) as temporary:
            assert temporary.parent == tmp_path
            temporary.write_text(text)
        assert path.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_the_umask_decides_the_permissions(tmp_path):
    path = tmp_path / "a.txt"
    before = os.umask(0o027)
    try:
        with replace_file(path) as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_was_there_stays_if_the_block_raises(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replace_file(path) as temporary:  # noqa: PT012 (the block is what is tested)
        temporary.write_text("half of")
        raise error
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "a.txt"
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    with replace_file(link) as temporary:
        temporary.write_text("x")
    assert link.is_symlink()
    assert target.read_text() == "x"


def test_a_pipe_stays_a_pipe_and_gets_the_content(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    with replace_file(path) as temporary:
        temporary.write_text("through")
    reader.join(timeout=10)
    assert got == ["through"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_stays_a_device():
    with replace_file("/dev/null") as temporary:
        temporary.write_text("gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_full_device_is_named():
    with pytest.raises(OSError, match="No space left") as caught, replace_file("/dev/full") as temporary:
        temporary.write_text("too much")
    assert caught.value.filename == "/dev/full"


def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("kept")
    path.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # root may write anything
    with pytest.raises(PermissionError, match=r"a\.txt"), replace_file(path):
        pass
    assert path.read_text() == "kept"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_missing_folder_is_named_by_the_path_that_was_given(tmp_path):
    path = tmp_path / "none" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught, replace_file(path):
        pass
    assert caught.value.filename == str(path)


def test_a_folder_is_not_replaced(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught, replace_file(path) as temporary:
        temporary.write_text("x")
    assert caught.value.filename == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_write_that_fails_halfway_names_the_path_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught, replace_file(path) as temporary:
            temporary.write_bytes(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


WRITE_AND_WAIT = """
import sys, time
from metatl.common.files import replace_file
with replace_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def start_writing(path):
    process = subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    return process


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    with start_writing(tmp_path / "killed") as killed, start_writing(tmp_path / "living") as living:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(list(tmp_path.iterdir())) == 2
        with replace_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
        names = sorted(file.name.partition(".")[2].partition(".")[0] for file in tmp_path.iterdir())
        living.kill()
        living.wait()
    assert names == ["living", "txt"]
    remove_temporaries(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_two_writers_of_one_folder_in_one_process_leave_each_other_alone(tmp_path):
    with replace_file(tmp_path / "a") as first, replace_file(tmp_path / "b") as second:
        first.write_text("1")
        second.write_text("2")
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "1", "b": "2"}


@pytest.mark.parametrize("name", [".a.tmp", "a.0123456789abcdef.tmp", ".a.0123456789ABCDEF.tmp", ".a.01.tmp"])
def test_files_of_other_names_are_kept(tmp_path, name):
    (tmp_path / name).write_text("kept")
    with replace_file(tmp_path / "b") as temporary:
        temporary.write_text("x")
    assert (tmp_path / name).read_text() == "kept"


def test_a_temporary_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    lock, locks = files.fcntl.flock, []

    def flock(descriptor, operation):
        if not locks:
            for path in tmp_path.iterdir():
                path.unlink()
        locks.append(operation)
        lock(descriptor, operation)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with replace_file(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert len(locks) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_file_system_without_locks_is_written_and_swept_of_nothing(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    left = tmp_path / ".b.0123456789abcdef.tmp"
    left.write_text("perhaps of a living process")
    with replace_file(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a").read_text() == "x"
    assert left.exists()
