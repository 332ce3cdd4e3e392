"""What is read more than once, or in parts, has to be a file: a pipe gives what it has once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metatl.exceptions import DataError, MissingFileError

if TYPE_CHECKING:
    import os


def check_file(path: str | os.PathLike[str]) -> None:
    """Check that a path is that of a file.

    Parameters
    ----------
    path
        The path.

    Raises
    ------
    DataError
        If nothing is there, a folder, or a pipe.
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
