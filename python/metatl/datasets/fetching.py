"""Getting a public data set into a folder, once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from metatl.common.files import replace_file
from metatl.datasets.archives import extract_member
from metatl.datasets.downloads import Downloaded, download, file_sha256
from metatl.exceptions import BrokenDownloadError, ChecksumError, DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metatl.datasets.catalogue import PublicDataSet

RECORD_NAME = "download.json"
"""The file, beside what was downloaded, that holds its address, size and SHA-256."""


class Fetched(NamedTuple):
    """A public data set in a folder.

    Attributes
    ----------
    path
        The file that holds the interactions.
    sha256
        SHA-256 of what was downloaded, in hexadecimal.
    was_there
        Whether it was there already.
    """

    path: Path
    sha256: str
    was_there: bool


def fetch(
    data_set: PublicDataSet,
    folder: Path,
    *,
    on_progress: Callable[[int, int | None], None] | None = None,
    **options: Any,
) -> Fetched:
    """Download a public data set into a folder of its name, unless it is there.

    Where no SHA-256 of it is published, that of the first download is written to `download.json`; a file
    that is there, or that comes later, must have the same.

    Parameters
    ----------
    data_set
        What to get.
    folder
        Where its folder is made.
    on_progress, options
        See :func:`metatl.datasets.downloads.download`.

    Raises
    ------
    ChecksumError
        If it is not what is expected.
    DownloadError
        If it comes from none of its addresses.
    DataError
        If its archive cannot be used.
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
        found = Downloaded(path.stat().st_size, file_sha256(path))
        if expected is not None and found.sha256 != expected:
            raise ChecksumError(
                f"{path}: found a file with the SHA-256 {found.sha256}, expected {expected}; "
                "delete it to download it again"
            )
        url = data_set.urls[0]
    else:
        try:
            url, found = _download_from_any(data_set, path, expected, on_progress=on_progress, **options)
        except ChecksumError as error:
            if data_set.sha256 is not None:
                raise
            raise ChecksumError(
                f"{error}; the expected one is in {record}: delete it to accept another"
            ) from None
    if recorded != found.sha256:
        with replace_file(record) as temporary:
            content = {"url": url, "bytes": found.num_bytes, "sha256": found.sha256}
            temporary.write_text(json.dumps(content, indent=2) + "\n")
    if data_set.member is not None:
        extract_member(path, data_set.member, home / data_set.data_name, max_bytes=data_set.max_member_bytes)
    return Fetched(home / data_set.data_name, found.sha256, was_there)


def _download_from_any(
    data_set: PublicDataSet, path: Path, sha256: str | None, **options: Any
) -> tuple[str, Downloaded]:
    errors: list[str] = []
    for url in data_set.urls:
        try:
            return url, download(url, path, max_bytes=data_set.max_bytes, sha256=sha256, **options)
        except (BrokenDownloadError, ChecksumError):  # noqa: PERF203 (a download takes longer)
            # Another address would start from nothing, or give the same.
            raise
        except DownloadError as error:
            errors.append(str(error))
    raise DownloadError("; ".join(errors))


def _read_record(record: Path) -> str | None:
    try:
        text = record.read_text()
    except FileNotFoundError:
        return None
    try:
        sha256 = json.loads(text)["sha256"]
    except (ValueError, KeyError, TypeError):
        sha256 = None
    if not isinstance(sha256, str):
        raise DownloadError(f"{record}: found no SHA-256; delete it to do without")
    return sha256
