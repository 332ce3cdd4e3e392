"""Getting a public data set into a folder, once."""

from __future__ import annotations

import json
import shutil
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

from metatl.common.column_errors import quoted
from metatl.common.files import replace_file, write_text
from metatl.datasets.downloads import Downloaded, download, file_sha256
from metatl.exceptions import ChecksumError, DataError, DownloadError

if TYPE_CHECKING:
    from pathlib import Path

    from metatl.datasets.catalogue import PublicDataSet

RECORD_NAME = "download.json"
"""The file, beside what was downloaded, that holds its address, size and SHA-256."""


class Fetched(NamedTuple):
    """A public data set in a folder.

    Attributes
    ----------
    path : pathlib.Path
        The file that holds the interactions.
    sha256 : str
        SHA-256 of the downloaded file, in hexadecimal.
    was_there : bool
        Whether the file was there before the call.
    """

    path: Path
    sha256: str
    was_there: bool


def fetch(data_set: PublicDataSet, folder: Path, **options: Any) -> Fetched:
    """Download a public data set into a folder of its name, unless it is there.

    Where no SHA-256 of the data set is published, that of the first download is written to
    `download.json`; every later file must have the same.

    Parameters
    ----------
    data_set : PublicDataSet
        The data set.
    folder : pathlib.Path
        The folder in which the folder of the data set is made.
    **options
        Passed to :func:`metatl.datasets.downloads.download`.

    Returns
    -------
    Fetched
        The file that holds the interactions.

    Raises
    ------
    ChecksumError
        If the file has another SHA-256 than expected.
    DownloadError
        If none of the addresses gives the file.
    DataError
        If the archive is damaged.
    OSError
        If a file cannot be written.
    """
    home = folder / data_set.name
    home.mkdir(parents=True, exist_ok=True)
    path, record = home / data_set.file_name, home / RECORD_NAME
    recorded = _read_record(record)
    expected = data_set.sha256 or recorded
    was_there = path.is_file()
    if was_there:
        url, downloaded = data_set.urls[0], Downloaded(path.stat().st_size, file_sha256(path))
        if expected is not None and downloaded.sha256 != expected:
            raise ChecksumError(
                f"{path}: found a file with the SHA-256 {downloaded.sha256}, expected {expected}; "
                "delete it to download it again"
            )
    else:
        try:
            url, downloaded = _download_from_any(data_set, path, expected, **options)
        except ChecksumError as error:
            if data_set.sha256 is not None:
                raise
            raise ChecksumError(
                f"{error}; the expected one is in {record}: delete it to accept another"
            ) from None
    if recorded != downloaded.sha256:
        content = {"url": url, "bytes": downloaded.num_bytes, "sha256": downloaded.sha256}
        write_text(record, json.dumps(content, indent=2) + "\n")
    if data_set.member is not None:
        _extract(path, data_set.member, home / data_set.data_name)
    return Fetched(home / data_set.data_name, downloaded.sha256, was_there)


def _download_from_any(
    data_set: PublicDataSet, path: Path, sha256: str | None, **options: Any
) -> tuple[str, Downloaded]:
    errors: list[str] = []
    for url in data_set.urls:
        try:
            return url, download(url, path, max_bytes=data_set.max_bytes, sha256=sha256, **options)
        except ChecksumError:  # noqa: PERF203 (a download takes longer)
            # Another address would give the same.
            raise
        except DownloadError as error:
            errors.append(str(error))
    raise DownloadError("; ".join(errors))


def _extract(archive: Path, member: str, target: Path) -> None:
    """Unpack one member of a zip archive, whose SHA-256 is known, to a file of a given name.

    :class:`pooch.Unzip` would leave a part of the member under its name if it were interrupted, and take it
    for the whole in the next call.
    """
    try:
        with (
            zipfile.ZipFile(archive) as file,
            file.open(member) as unpacked,
            replace_file(target) as temporary,
            temporary.open("wb") as copy,
        ):
            shutil.copyfileobj(unpacked, copy)
    except KeyError:
        raise DataError(
            f"found no member {member!r} among {quoted(file.namelist())}", file=str(archive)
        ) from None
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"found a damaged zip archive ({reason}); delete it to download it again", file=str(archive)
        ) from None


def _read_record(record: Path) -> str | None:
    try:
        content = record.read_bytes()
    except FileNotFoundError:
        return None
    try:
        sha256 = json.loads(content)["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        sha256 = None
    if not isinstance(sha256, str):
        raise DownloadError(f"{record}: found no SHA-256; delete it to do without")
    return sha256
