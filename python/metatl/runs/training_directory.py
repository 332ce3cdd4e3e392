"""Where a training writes: into the run directory itself, or with `--overwrite` into one that replaces it.

A run starts when `run.json` is written; from then on it can be continued. Before that, a directory with the
marker of :mod:`metatl.runs.training_lock` counts as empty.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metatl.common.files import is_temporary, remove_temporaries, write_json
from metatl.exceptions import RunError
from metatl.runs.replacement import (
    check_replaceable,
    discard_replacement,
    finish_interrupted_renames,
    finish_replacement,
    start_replacement,
)
from metatl.runs.run_directory import environment, read_record, write_items, write_record
from metatl.runs.run_files import (
    PREVIOUS,
    TRAINING,
    has_run,
    is_finished,
    is_replacement,
    remove_run,
    replacement_path,
)
from metatl.runs.settings_changes import changes, refuse_changes
from metatl.runs.training_lock import refuse_if_training, training_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from metatl.runs.run_directory import RunRecord
    from metatl.runs.training_lock import TrainingLock


@dataclass(frozen=True)
class Target:
    """The directory that a training writes to.

    Attributes
    ----------
    directory : Path
        The directory.
    record : RunRecord
        The settings in its `run.json`.
    is_continued : bool
        Whether it holds a run that was begun before.
    is_finished : bool
        Whether it holds the finished run that is asked for: nothing is left to do.
    """

    directory: Path
    record: RunRecord
    is_continued: bool = False
    is_finished: bool = False


def check_directory(directory: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse what can be refused before the data are read; nothing is written.

    Parameters
    ----------
    directory : Path
        The run directory.
    resume, overwrite : bool
        See :func:`metatl.fit`.

    Raises
    ------
    RunError
        If nothing can be trained there.
    """
    for path in (directory, *directory.parents):
        if path.is_symlink() and not path.exists():
            raise RunError(
                f"{path}: found a link to {path.readlink()}, which is missing; make that directory, "
                "or remove the link"
            )
    if directory.exists() and not directory.is_dir():
        raise RunError(f"{directory}: found a file, expected a directory to write the run to")
    if resume and overwrite:
        raise RunError("resume and overwrite exclude each other")
    real = Path(os.path.realpath(directory))
    for place in (real, replacement_path(real)):
        refuse_if_training(place)
    if has_run(real):
        if overwrite:
            check_replaceable(real)
        elif not resume:
            raise _already_holds(directory)
    elif real.exists() and not _is_ours(real):
        raise RunError(f"{directory}: found a directory with other files; choose an empty or a new one")


def unfinished_directory(directory: Path) -> Path | None:
    """Return the directory of the run that `resume` continues; None if it is finished or none was begun.

    Parameters
    ----------
    directory : Path
        The run directory.
    """
    real = Path(os.path.realpath(directory))
    new = replacement_path(real)
    if is_replacement(new) and has_run(new):
        return new
    return real if has_run(real) and not is_complete(directory) else None


def is_complete(directory: Path) -> bool:
    """Whether the directory holds a finished run and nothing is left to do about it.

    Parameters
    ----------
    directory : Path
        The run directory.
    """
    real = Path(os.path.realpath(directory))
    return is_finished(real) and not any(map(is_replacement, (real, replacement_path(real))))


def tidy(directory: Path) -> None:
    """Remove what a killed training left beside a finished run."""
    real = Path(os.path.realpath(directory))
    # A finished run may be in a folder that cannot be written, or another process may tidy it.
    with suppress(RunError, OSError):
        left = (real / TRAINING, real / PREVIOUS, replacement_path(real))
        if is_replacement(real) or any(path.exists() for path in left):
            _finish_what_was_interrupted(real)
        remove_temporaries(real)


@contextmanager
def training_directory(
    directory: Path,
    record: RunRecord,
    item_ids: pl.Series,
    item_counts: NDArray[np.int64],
    *,
    resume: bool,
    overwrite: bool,
) -> Iterator[Target]:
    """Lock a run directory, start a run or find the one to continue; put a new run at its place at the end.

    If the block raises before the first checkpoint, what was started here is removed.

    Parameters
    ----------
    directory : Path
        The run directory.
    record : RunRecord
        The settings of the run.
    item_ids : polars.Series
        (I,) Int64 or String, raw item ids in ascending order.
    item_counts : ndarray
        (I,) int64, training interactions of each item.
    resume, overwrite : bool
        See :func:`metatl.fit`.

    Yields
    ------
    Target
        Where to write.

    Raises
    ------
    RunError
        If another training is at work in the directory, it holds a run that is neither continued nor
        replaced, or the settings of the run to continue are others.
    OSError
        If a file cannot be written.
    """
    real = Path(os.path.realpath(directory))
    new = replacement_path(real)
    was_waiting = _finish_what_was_interrupted(real)
    saved: RunRecord | None
    with training_lock(real) as lock:
        if resume and has_run(new) and is_replacement(new):
            saved = read_record(new)
            refuse_changes(directory, saved, record, advice=f"or delete {new}")
            with _put_in_place(lock, new):
                yield Target(new, saved, is_continued=True)
        elif resume and has_run(real):
            saved = read_record(real)
            refuse_changes(directory, saved, record)
            yield Target(real, saved, is_continued=True, is_finished=is_finished(real))
            finish_replacement(real)
        elif overwrite and has_run(real):
            check_replaceable(real)
            if was_waiting and is_finished(real) and (saved := _same(real, record)):
                yield Target(real, saved, is_continued=True, is_finished=True)
            elif is_replacement(new) and (saved := _same(new, record)):
                with _put_in_place(lock, new):
                    yield Target(new, saved, is_continued=True)
            else:
                start_replacement(real)
                with _put_in_place(lock, new), _removed_if_it_fails(new, lambda: discard_replacement(real)):
                    _start(new, record, item_ids, item_counts)
                    yield Target(new, record)
        elif has_run(real):
            raise _already_holds(directory)
        else:
            discard_replacement(real)
            with _removed_if_it_fails(real, lambda: remove_run(real)):
                _start(real, record, item_ids, item_counts)
                yield Target(real, record)


def _finish_what_was_interrupted(real: Path) -> bool:
    """Return whether a finished new run was waiting to be put in its place, and is there now."""
    new = replacement_path(real)
    finish_interrupted_renames(real)
    with training_lock(real) as lock:
        remove_temporaries(real)
        if is_replacement(new) and is_finished(new):
            with _put_in_place(lock, new):
                return True
        was_put = finish_replacement(real)
        if not has_run(new):
            discard_replacement(real)
        return was_put


@contextmanager
def _put_in_place(lock: TrainingLock, new: Path) -> Iterator[None]:
    """Lock the directory of the new run; after the block, exchange it for the directory of `lock`."""
    real = lock.directory
    with training_lock(new) as new_lock:
        remove_temporaries(new)
        yield
        lock.directory, new_lock.directory = new, real
        finish_replacement(real)


@contextmanager
def _removed_if_it_fails(directory: Path, remove: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if not _is_worth_keeping(directory):
            remove()
        raise


def _is_worth_keeping(directory: Path) -> bool:
    # Where the steps are chosen on the split, its history is there before the first checkpoint of the fit.
    files = (directory / "last.safetensors", directory / "split-history.json")
    return any(file.exists() for file in files) or is_finished(directory)


def _start(directory: Path, record: RunRecord, item_ids: pl.Series, item_counts: NDArray[np.int64]) -> None:
    remove_run(directory)
    write_items(directory / "items.parquet", item_ids, item_counts)
    write_json(directory / "environment.json", environment())
    # Written last: from here on the run can be continued.
    write_record(directory, record)


def _same(directory: Path, record: RunRecord) -> RunRecord | None:
    """Return the record of the run in a directory if there is one with these settings."""
    try:
        saved = read_record(directory)
    except RunError:
        return None
    return None if changes(saved, record) else saved


def _is_ours(directory: Path) -> bool:
    """Whether a directory without a run is empty, or has only what a training began there."""
    return (
        (directory / TRAINING).exists()
        or has_run(directory / PREVIOUS)
        or all(is_temporary(path.name) for path in directory.iterdir())
    )


def _already_holds(directory: Path) -> RunError:
    return RunError(
        f"{directory}: already holds a run; continue it with --resume or replace it with --overwrite"
    )
