"""Replacing a run by another one in one step, so that there is always a whole run.

`--overwrite` builds the new run in a directory beside the old one, which is not touched. When the new run is
finished, the two directories are exchanged. Then the old run is removed, and files of the user in it move to
the new one. A kill at any point leaves one of these states, which the next command recognises:

- `.NAME.new` is marked and unfinished: the new run is continued, or started again;
- `.NAME.new` is marked and finished: the exchange is made up for;
- `NAME` is marked: they were exchanged, and `.NAME.new` holds the old run.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from metatl.common.files import flush, remove_temporaries
from metatl.exceptions import RunError
from metatl.runs.run_files import (
    PREVIOUS,
    REPLACED,
    REPLACEMENT,
    TRAINING,
    hand_over,
    has_run,
    is_finished,
    is_replacement,
    remove_run,
    replacement_path,
)
from metatl.runs.training_lock import refuse_if_training

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def check_replaceable(directory: Path) -> None:
    """Check that a run can be replaced, before anything is trained.

    Parameters
    ----------
    directory : Path
        The directory of the run, without links.

    Raises
    ------
    RunError
        If the directory cannot be exchanged for another one, or something else is where the new run goes.
    """
    parent, new = directory.parent, replacement_path(directory)
    advice = "choose another directory, or delete the run first"
    if _is_mount_point(directory):
        raise RunError(
            f"{directory}: found a mount point, which cannot be exchanged for the new run; {advice}"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise RunError(f"{parent}: found a folder that may not be written, beside the old run; {advice}")
    if new.is_symlink() or (new.exists() and not _is_ours(new, directory)):
        raise RunError(f"{new}: found other files where the new run is built; move them to another name")


def _is_ours(new: Path, directory: Path) -> bool:
    if not new.is_dir():
        return False
    return is_replacement(new) or is_replacement(directory) or not any(new.iterdir())


def _is_mount_point(directory: Path) -> bool:
    if os.path.ismount(directory):
        return True
    # A folder of the same device that is mounted elsewhere is found here only.
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    points = (line.split(" ")[4] for line in mounts.splitlines())
    # The kernel writes spaces, tabs, line feeds and backslashes as octal numbers.
    escaped = str(directory).replace("\\", "\\134")
    for letter, code in ((" ", "\\040"), ("\t", "\\011"), ("\n", "\\012")):
        escaped = escaped.replace(letter, code)
    return escaped in points


def start_replacement(directory: Path) -> Path:
    """Make an empty marked directory for the new run, and return it; remove what an earlier call began.

    Parameters
    ----------
    directory : Path
        The directory of the old run, without links.
    """
    new = replacement_path(directory)
    discard_replacement(directory)
    new.mkdir(exist_ok=True)
    # Made in one step and before any other file: it tells this directory from one of the user.
    (new / REPLACEMENT).touch()
    return new


def discard_replacement(directory: Path) -> None:
    """Remove an unfinished new run; files of the user in it stay."""
    new = replacement_path(directory)
    if is_replacement(new):
        remove_run(new)
        remove_temporaries(new)
        (new / TRAINING).unlink(missing_ok=True)
        if [path.name for path in new.iterdir()] == [REPLACEMENT]:
            (new / REPLACEMENT).unlink()
    with suppress(OSError):  # there is none, or it is not empty
        new.rmdir()


def finish_replacement(directory: Path) -> bool:
    """Exchange a finished new run for the old one, and remove the old one.

    It makes up for whatever an interrupted call left undone, also one of metatl 0.1.0.

    Parameters
    ----------
    directory : Path
        The directory of the run, without links; the caller holds its lock.

    Returns
    -------
    bool
        Whether the run in the directory is a finished new one.

    Raises
    ------
    RunError
        If the directories cannot be exchanged; both runs are kept.
    OSError
        If a file cannot be moved or removed.
    """
    _restore_previous(directory)
    new = replacement_path(directory)
    if is_replacement(new) and is_finished(new):
        try:
            _exchange(directory, new)
        except OSError as error:
            raise RunError(
                f"{directory}: the new run is finished, but cannot be put here ({error.strerror}); it is in "
                f"{new}; --resume tries again"
            ) from None
    if not is_replacement(directory):
        return False
    for old in (new, directory / REPLACED):
        if old.is_dir() and not is_replacement(old):
            hand_over(old, directory)
    (directory / REPLACEMENT).unlink()
    return is_finished(directory)


def finish_interrupted_renames(directory: Path) -> None:
    """Put a finished new run at its place if a process was killed between the two renames.

    Parameters
    ----------
    directory : Path
        The directory of the run, without links.

    Raises
    ------
    RunError
        If the process is alive.
    """
    new = replacement_path(directory)
    if not directory.exists() and is_replacement(new) and is_finished(new):
        refuse_if_training(new)
        with suppress(FileNotFoundError):  # another process was faster
            new.rename(directory)


def _exchange(directory: Path, new: Path) -> None:
    if not _exchange_in_one_step(directory, new):
        directory.rename(new / REPLACED)
        try:
            new.rename(directory)
        except OSError:
            (new / REPLACED).rename(directory)
            raise
    flush(directory.parent)


def _exchange_in_one_step(directory: Path, new: Path) -> bool:
    """Exchange two directories in one system call; False where system or file system have none."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # another C library than glibc
        return False
    paths = [ctypes.c_char_p(os.fsencode(path)) for path in (directory, new)]
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_OFFERED:
        return False
    raise OSError(number, os.strerror(number), str(directory))


def _restore_previous(directory: Path) -> None:
    """Bring back, or remove, the old run that a killed `--overwrite` of metatl 0.1.0 left in `.previous`."""
    previous = directory / PREVIOUS
    if not has_run(directory) and has_run(previous):
        # run.json is moved last, so that this can be interrupted as well.
        for path in sorted(previous.iterdir(), key=lambda path: path.name == "run.json"):
            path.replace(directory / path.name)
    if previous.is_dir() and (is_finished(directory) or not any(previous.iterdir())):
        hand_over(previous, directory)
