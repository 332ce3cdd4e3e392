"""Writing a file in one step: a crash leaves the old file or the new one, never a part of it."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatl.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl


_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a temporary file in the folder of `path`, then rename it to `path`.

    If the block raises, the temporary file is removed and `path` is unchanged. A symbolic link is followed.
    A pipe or a device is kept, and gets the content once it is complete.

    Temporary files that killed processes left in the folder are removed.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write or to replace.

    Yields
    ------
    pathlib.Path
        The temporary file, empty, for the block to write.

    Raises
    ------
    OSError
        If the file cannot be written; it names `path`, not the temporary file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "figures.txt"
    >>> with replace_file(path) as temporary:
    ...     _ = temporary.write_text("42")
    >>> path.read_text()
    '42'
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            with _errors_named(path, temporary):
                temporary.touch()
                yield temporary
                with temporary.open("rb") as content, path.open("wb") as pipe:
                    shutil.copyfileobj(content, pipe)
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    remove_temporaries(target.parent)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    with _errors_named(path, temporary):
        descriptor = _create_locked(temporary)
        try:
            yield temporary
            # Flushed before and after the rename, so that a crash leaves the old file or the whole new one.
            flush(temporary)
            temporary.replace(target)
            flush(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of :func:`replace_file` in a folder that no living process writes.

    The process that writes one holds a lock on it. Where the lock cannot be asked for, the file stays.

    Parameters
    ----------
    folder : Path
        The folder; one that does not exist or cannot be listed has none.
    """
    try:
        temporaries = [path for path in folder.iterdir() if is_temporary(path.name)]
    except OSError:
        return
    for temporary in temporaries:
        with suppress(OSError):
            descriptor = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its writer may have renamed it in the meantime: then there is nothing of this name.
                temporary.unlink()
            finally:
                os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is a temporary file of :func:`replace_file`."""
    return _TEMPORARY.fullmatch(name) is not None


def _create_locked(temporary: Path) -> int:
    """Create the file and lock it, so that other processes leave it alone; return its descriptor."""
    while True:
        # Created exclusively, and with the permissions that the umask of the user gives.
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another process may have removed the file before it was locked.
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor
        os.close(descriptor)


@contextmanager
def _errors_named(path: Path, temporary: Path) -> Iterator[None]:
    """Name `path` in errors: that of a full disk names no file, and users do not know the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary), temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_parquet(
    path: str | os.PathLike[str],
    frame: pl.DataFrame,
    *,
    metadata: dict[str, str] | None = None,
    row_group_size: int | None = None,
) -> None:
    """Write a table as Parquet with :func:`replace_file`.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write or to replace.
    frame : polars.DataFrame
        The table.
    metadata : dict of str to str, optional
        Key-value metadata of the file.
    row_group_size : int, optional
        Rows of a row group.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    # Encoded in memory first: polars reports a full disk as an error of the format, not as an OSError.
    content = io.BytesIO()
    frame.write_parquet(content, metadata=metadata, row_group_size=row_group_size)
    with replace_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


TABLE_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")
"""Endings of the files that tables are written to."""


def is_special(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a pipe or a device, whose name says nothing of its content."""
    path = Path(path)
    return path.exists() and not path.is_file() and not path.is_dir()


def check_ending(argument: str, path: str | os.PathLike[str], endings: Sequence[str]) -> None:
    """Refuse a name whose ending is not among those that can be written.

    Parameters
    ----------
    argument : str
        The name of the argument or option, for the error.
    path : str or os.PathLike
        The file; a pipe or a device is taken.
    endings : sequence of str
        In lower case, with the point.

    Raises
    ------
    ConfigError
        If the name has another ending, or none.
    """
    if Path(path).suffix.lower() not in endings and not is_special(path):
        listed = endings[0] if len(endings) == 1 else f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise ConfigError(f"{argument}: found {path}, expected a name that ends in {listed}")


def write_table(
    path: str | os.PathLike[str], frame: pl.DataFrame, *, metadata: dict[str, str] | None = None
) -> None:
    """Write a table in the format that the ending of the name says, with :func:`replace_file`.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write or to replace: `.parquet`, `.csv`, `.tsv` or `.jsonl`. A pipe or a device gets
        Parquet.
    frame : polars.DataFrame
        The table.
    metadata : dict of str to str, optional
        Key-value metadata; only Parquet holds them.

    Raises
    ------
    ConfigError
        If the name has another ending.
    OSError
        If the file cannot be written.
    """
    check_ending("path", path, TABLE_ENDINGS)
    ending = Path(path).suffix.lower()
    if ending == ".parquet" or is_special(path):
        write_parquet(path, frame, metadata=metadata)
        return
    content = io.BytesIO()
    if ending == ".jsonl":
        frame.write_ndjson(content)
    else:
        frame.write_csv(content, separator="," if ending == ".csv" else "\t")
    with replace_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file with :func:`replace_file`, in UTF-8."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one step, so that a reader sees the old file or the new one."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
