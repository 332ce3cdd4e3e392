"""Checks of paths that are read more than once, or in parts: a pipe can be read once only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metatl.exceptions import DataError, MissingFileError

if TYPE_CHECKING:
    import os


def check_file(path: str | os.PathLike[str]) -> None:
    """Check that a path is a regular file.

    Parameters
    ----------
    path : str or os.PathLike
        The path.

    Raises
    ------
    MissingFileError
        If nothing is there.
    DataError
        If the path is a folder, a pipe or a device.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError("found no such file", file=str(path))
    if path.is_dir():
        raise DataError("found a folder, expected a file", file=str(path))
    if not path.is_file():
        raise DataError(
            "found a pipe or a device, expected a file that can be read more than once; save it as one",
            file=str(path),
        )
