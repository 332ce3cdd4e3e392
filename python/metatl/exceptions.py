"""Every error that metatl raises on purpose, and the warning that it gives.

All errors are a :class:`MetatlError`. Those that Python has a type for are of that type too: an invalid
argument or configuration is a `ValueError`, an argument of the wrong type a `TypeError`, and a missing file a
`FileNotFoundError`.
"""

from __future__ import annotations

import os
from errno import ENOENT

__all__ = [
    "ArgumentTypeError",
    "ChecksumError",
    "ConfigError",
    "DataError",
    "DownloadError",
    "EmptySplitError",
    "ForkError",
    "InvalidArgumentError",
    "MetatlError",
    "MetatlWarning",
    "MissingFileError",
    "MissingRunError",
    "NoNegativeError",
    "NotANumberError",
    "RunError",
]


class MetatlError(Exception):
    """Base of every error that metatl raises on purpose."""


class MetatlWarning(UserWarning):
    """Something that a user may want to know or to mend, and that stops nothing; the message is one line."""


class InvalidArgumentError(MetatlError, ValueError):
    """An argument has the wrong type, dtype, shape, order or range; the message names it."""


class ArgumentTypeError(InvalidArgumentError, TypeError):
    """An argument has the wrong type; the message names it."""


class NoNegativeError(MetatlError):
    """Too few items are left outside a user's interactions to draw negatives from."""


class NotANumberError(MetatlError):
    """Scores contain NaN; the message counts them."""


class ForkError(MetatlError):
    """An object that owns a thread was used in a forked child process."""


class ConfigError(MetatlError, ValueError):
    """A configuration names an unknown field, an unknown preset or a value out of range."""


class DataError(MetatlError):
    """A data file cannot be read, or its content cannot be used.

    Parameters
    ----------
    message : str
        What was found and what was expected.
    file : str, optional
        The path of the file.
    line : int, optional
        The line of a text file, counted from 1.
    row : int, optional
        The row of a table without lines, counted from 1.
    column : str, optional
        The name of the column.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        self.message = message
        self.file = file
        self.line = line
        self.row = row
        self.column = column
        parts = (
            file,
            None if line is None else f"line {line}",
            None if row is None else f"row {row}",
            None if column is None else f"column {column!r}",
        )
        location = ", ".join(part for part in parts if part is not None)
        super().__init__(f"{location}: {message}" if location else message)

    def __reduce__(self) -> tuple[type[DataError], tuple[str], dict[str, object]]:
        """Keep the keyword arguments through pickling, as worker processes need them."""
        return (type(self), (self.message,), {**self.__dict__, "args": self.args})

    def in_file(self, path: str | os.PathLike[str]) -> DataError:
        """Return the same error with the path of its file.

        Parameters
        ----------
        path : str or os.PathLike
            The path of the file.

        Returns
        -------
        DataError
            Of the same class.
        """
        return type(self)(
            self.message, file=os.fspath(path), line=self.line, row=self.row, column=self.column
        )


class EmptySplitError(DataError):
    """A split leaves no training user or no new user. The parameters are those of :class:`DataError`."""


class _NotFoundError(FileNotFoundError):
    """The attributes of an `OSError`, for errors whose message is not made of them.

    They are properties of the class: an `OSError` that has them set builds its message from them.
    """

    file: str | None = None
    errno = ENOENT
    strerror = os.strerror(ENOENT)

    @property
    def filename(self) -> str | None:
        """The path that was not found."""
        return self.file


class MissingFileError(DataError, _NotFoundError):
    """A data file does not exist. The parameters are those of :class:`DataError`."""


class DownloadError(MetatlError):
    """A download cannot be finished, or the file is not the expected one."""


class ChecksumError(DownloadError):
    """A downloaded file has another SHA-256 than expected."""


class RunError(MetatlError):
    """A run directory or a checkpoint is missing, damaged, of another version, or in the way."""


class MissingRunError(RunError, _NotFoundError):
    """A run directory, or a file in it, does not exist.

    Parameters
    ----------
    message : str
        The whole message.
    file : str, optional
        The path that was not found.
    """

    def __init__(self, message: str, *, file: str | None = None) -> None:
        super().__init__(message)
        self.file = file
