"""The states of a folder that a kill would leave, one before each file-system call of a function."""

from __future__ import annotations

import hashlib
import shutil
import sys
from contextlib import contextmanager

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}
_current = []


def _hook(event, _):
    # A hook cannot be removed: it does nothing without a recorder.
    if _current and event in EVENTS:
        record = _current.pop()
        try:
            record()
        finally:
            _current.append(record)


sys.addaudithook(_hook)


def contents(folder):
    """The files below a folder, and their bytes; None stands for an empty folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


@contextmanager
def recorded(folder, copies):
    """Copy `folder` before each call of the block; yields the copies, one for each state that differs."""
    seen, states = set(), []

    def record():
        content = contents(folder)
        # Temporary names are random, and a lock file holds the time.
        stable = sorted((name, value) for name, value in content.items() if not name.endswith(".tmp"))
        key = hashlib.sha256(repr((stable, len(content))).encode()).hexdigest()
        if key not in seen:
            seen.add(key)
            states.append(copies / f"{len(states):03}")
            shutil.copytree(folder, states[-1], symlinks=True)

    copies.mkdir()
    _current.append(record)
    try:
        yield states
    finally:
        _current.pop()
        record()
