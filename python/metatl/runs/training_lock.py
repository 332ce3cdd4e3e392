"""One training at a time in a directory.

The file `.metatl-training.json` names the process, and is locked while the process lives: the system releases
the lock of a process that dies. The file is made before any other, so a directory that has it and no
`run.json` holds nothing but the beginning of a training.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from metatl.exceptions import RunError
from metatl.runs.run_files import TRAINING, has_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class TrainingLock:
    """A lock that is held.

    Attributes
    ----------
    directory : Path
        Where the file is; to be set when the directory is renamed.
    """

    directory: Path


@contextmanager
def training_lock(directory: Path) -> Iterator[TrainingLock]:
    """Hold the lock of a directory; make the directory if it does not exist.

    After the block the file is removed, unless it marks what was begun and has no `run.json` yet. A directory
    that was made here and is empty is removed too. On a file system without locks nothing is locked.

    Parameters
    ----------
    directory : Path
        The directory.

    Yields
    ------
    TrainingLock
        The lock.

    Raises
    ------
    RunError
        If another process, or another thread, holds the lock; the message names the process.
    OSError
        If the directory or the file cannot be made.
    """
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(directory)
    lock = TrainingLock(directory)
    try:
        _write_holder(descriptor, directory / TRAINING)
        yield lock
    finally:
        with suppress(OSError):
            _remove_file(descriptor, lock.directory, remove_directory=is_new)
        os.close(descriptor)


def refuse_if_training(directory: Path) -> None:
    """Raise if another process or thread trains in the directory.

    Raises
    ------
    RunError
        The message names the process.
    """
    try:
        descriptor = os.open(directory / TRAINING, os.O_RDWR)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _held(directory) from None
    except OSError:
        return
    finally:
        os.close(descriptor)


def _acquire(directory: Path) -> int:
    path = directory / TRAINING
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _held(directory) from None
        except OSError:
            # A file system without locks: better without one than not at all.
            return descriptor
        if _is_at(descriptor, path):
            return descriptor
        # Its holder removed the file between the two calls.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int, path: Path) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(holder, indent=2) + "\n").encode(), 0)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _remove_file(descriptor: int, directory: Path, *, remove_directory: bool) -> None:
    path = directory / TRAINING
    if not _is_at(descriptor, path):
        return
    if has_run(directory) or [file.name for file in directory.iterdir()] == [TRAINING]:
        path.unlink()
        if remove_directory:
            directory.rmdir()


def _held(directory: Path) -> RunError:
    who = "another process"
    with suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads((directory / TRAINING).read_text(encoding="utf-8"))
        who = f"process {int(holder['pid'])} on {holder['host']:.100}, since {holder['since']:.40}"
    return RunError(
        f"{directory}: another training is at work here ({who}); wait until it ends, or choose another "
        "directory"
    )
