"""The files of a run directory: their names, and how they are removed without touching those of the user."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from metatl.common.files import is_temporary

if TYPE_CHECKING:
    from pathlib import Path

RUN_FILES = (
    "run.json",
    "metrics.json",
    "environment.json",
    "items.parquet",
    "history.json",
    "best.safetensors",
    "encoder.onnx",
    "item_table.safetensors",
    "last.safetensors",
    "selection.json",
    "split-history.json",
    "split-best.safetensors",
    "split-last.safetensors",
)
"""The files of a run directory, apart from the folder `tensorboard`."""

TRAINING = ".metatl-training.json"
"""Says who trains in a directory, and is locked as long as that process lives."""
REPLACEMENT = ".metatl-replacement.json"
"""Marks a directory in which `--overwrite` builds the new run."""
REPLACED = ".metatl-replaced"
"""Folder that holds the old run for a moment, where two directories cannot be exchanged in one step."""
PREVIOUS = ".previous"
"""Folder in which metatl 0.1.0 kept the old run during `--overwrite`."""

_TENSORBOARD = "tensorboard"
_EVENTS = "events.out.tfevents."


def has_run(directory: Path) -> bool:
    """Whether a run was started in the directory."""
    return (directory / "run.json").exists()


def is_finished(directory: Path) -> bool:
    """Whether the run in the directory is finished."""
    return (directory / "metrics.json").exists()


def is_replacement(directory: Path) -> bool:
    """Whether `--overwrite` builds a run in the directory, or has just put it there."""
    return (directory / REPLACEMENT).exists()


def replacement_path(directory: Path) -> Path:
    """Return the directory in which `--overwrite` builds the new run; `directory` has no links."""
    return directory.with_name(f".{directory.name}.new")


def remove_run(directory: Path) -> None:
    """Remove the files of a run, `run.json` first: without it, what is left counts as not started."""
    for name in RUN_FILES:
        (directory / name).unlink(missing_ok=True)
    log = directory / _TENSORBOARD
    if log.is_dir() and not log.is_symlink():
        for events in log.glob(f"{_EVENTS}*"):
            events.unlink(missing_ok=True)
        with suppress(OSError):  # it holds files of the user
            log.rmdir()


def hand_over(old: Path, new: Path) -> None:
    """Remove the files of a run in `old`, move everything else in it to `new`, and remove `old`."""
    remove_run(old)
    for name in (TRAINING, REPLACEMENT):
        (old / name).unlink(missing_ok=True)
    if (old / PREVIOUS).is_dir():
        hand_over(old / PREVIOUS, old)
    for path in old.iterdir():
        if is_temporary(path.name):
            path.unlink()
        elif path.name == _TENSORBOARD and path.is_dir() and (new / _TENSORBOARD).is_dir():
            for further in path.iterdir():
                further.rename(_free_name(new / _TENSORBOARD / further.name))
            path.rmdir()
        else:
            path.rename(_free_name(new / path.name))
    old.rmdir()


def _free_name(path: Path) -> Path:
    while path.exists() or path.is_symlink():
        path = path.with_name(f"{path.name}~")
    return path
