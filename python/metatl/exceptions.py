"""Every error that metatl raises on purpose."""

from __future__ import annotations

import os

from metatl._metatl import (
    ForkError,
    InvalidArgumentError,
    MetatlError,
    NoNegativeError,
    NotANumberError,
)

__all__ = [
    "BrokenDownloadError",
    "ChecksumError",
    "ConfigError",
    "DataError",
    "DownloadError",
    "ForkError",
    "InvalidArgumentError",
    "MetatlError",
    "NoNegativeError",
    "NotANumberError",
    "RunError",
]


class ConfigError(MetatlError):
    """A configuration names an unknown field, an unknown preset or a value out of range."""


class DataError(MetatlError):
    """A data file cannot be read, or what it holds cannot be used.

    Parameters
    ----------
    message
        What was found and what was expected.
    file
        The file at fault.
    line
        Its line, counted from 1.
    row
        The row of a table that has no lines, counted from 1.
    column
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
        places = (
            file,
            None if line is None else f"line {line}",
            None if row is None else f"row {row}",
            None if column is None else f"column {column!r}",
        )
        place = ", ".join(place for place in places if place is not None)
        super().__init__(f"{place}: {message}" if place else message)

    def __reduce__(self) -> tuple[type[DataError], tuple[str], dict[str, object]]:
        """Keep the keyword arguments through pickling, as worker processes need it."""
        return (type(self), (self.message,), {**self.__dict__, "args": self.args})

    def in_file(self, path: str | os.PathLike[str]) -> DataError:
        """Give the same error with the file that it is in."""
        return DataError(self.message, file=os.fspath(path), line=self.line, row=self.row, column=self.column)


class DownloadError(MetatlError):
    """A download cannot be finished, or what came is not what was expected."""


class BrokenDownloadError(DownloadError):
    """A download broke off, and can be taken up where it ended."""


class ChecksumError(DownloadError):
    """What was downloaded has another SHA-256 than expected."""


class RunError(MetatlError):
    """A run directory or a checkpoint is missing, damaged, of another version, or in the way."""
