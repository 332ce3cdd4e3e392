"""Opening data files: the one way of all readers, which unpacks gzip and names the file in every error."""

from __future__ import annotations

import gzip
import io
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from metatl.exceptions import DataError, MetatlError, MissingFileError, NotANumberError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

_GZIP = b"\x1f\x8b"
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
}


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """Open a file for reading, and unpack it if it is gzipped.

    Parameters
    ----------
    path : str or os.PathLike
        The file; a pipe will do.

    Yields
    ------
    io.BufferedReader
        The content. Errors of the block get the path.

    Raises
    ------
    MissingFileError
        If there is no such file.
    DataError
        If it is a folder, a damaged gzip, or in another packing.
    OSError
        If the file may not be read.
    """
    path = Path(path)
    with errors_in(path):
        if path.is_dir():
            raise DataError("found a folder, expected a file")
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise MissingFileError("found no such file") from None
        with file:
            start = file.peek(8)[:8]
            for mark, name in _ARCHIVES.items():
                if start.startswith(mark):
                    raise DataError(f"found {name}, expected a file that is not packed, or gzip; unpack it")
            if start.startswith(_GZIP):
                with gzip.open(file) as unpacked:
                    yield io.BufferedReader(cast("io.RawIOBase", unpacked))
            elif start and path.suffix == ".gz":
                raise DataError("found no gzip, expected a file that starts with 1f 8b")
            else:
                yield file


@contextmanager
def errors_in(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in every error of the block, and describe a damaged gzip."""
    try:
        yield
    except DataError as error:
        raise (error if error.file is not None else error.in_file(path)) from None
    except NotANumberError as error:
        raise NotANumberError(f"{path}: {error}") from None
    except EOFError:
        raise DataError("found a gzip that ends early; copy it again", file=str(path)) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"found a damaged gzip ({error}); copy it again", file=str(path)) from None


@contextmanager
def refuse_damage(form: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads a file into a DataError of one line.

    Libraries raise errors of many types for damaged content, and those of polars that start in Rust are no
    `Exception`. Errors of metatl and of the file system, a lack of memory, and Ctrl-C pass unchanged.

    Parameters
    ----------
    form : str
        What the content should be, as in "a Parquet file".
    """
    import polars as pl

    try:
        yield
    except (MetatlError, OSError, MemoryError, EOFError, zlib.error):
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 (of any library)
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"found {form} that is damaged or has a form that cannot be read ({reason})"
        ) from None
