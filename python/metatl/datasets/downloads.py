"""Downloading a file with pooch: bounded in size, checked, and never half of one under its name."""

from __future__ import annotations

import logging
import os
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import pooch
import requests

from metatl.exceptions import ChecksumError, DownloadError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

_CHUNK_BYTES = 1 << 16
_POLL_SECONDS = 0.2
_BUSY = (408, 425, 429, 500, 502, 503, 504)


class Downloaded(NamedTuple):
    """A file that was downloaded.

    Attributes
    ----------
    num_bytes : int
        Size of the file.
    sha256 : str
        SHA-256 of the file in hexadecimal.
    """

    num_bytes: int
    sha256: str


def download(
    url: str,
    path: Path,
    *,
    max_bytes: int,
    sha256: str | None = None,
    attempts: int = 5,
    timeout: float = 30.0,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Downloaded:
    """Download a file.

    The content goes to a temporary file in the folder of `path`, which is renamed once it is complete and
    checked, and removed if anything fails. So two processes can download the same file.

    Parameters
    ----------
    url : str
        The address of the file: http or https. A redirection from https to http is refused.
    path : pathlib.Path
        The file to write. A file that is there is kept if it has the expected SHA-256, or if none is
        expected; otherwise it is replaced.
    max_bytes : int
        The largest size allowed, in bytes. The bytes that arrive are counted.
    sha256 : str, optional
        The SHA-256 that the file must have, in hexadecimal.
    attempts : int
        How often the file is requested if the connection breaks or the server is busy; the pauses between
        grow from 1 s to 10 s.
    timeout : float
        Seconds without a byte after which a connection counts as broken.
    on_progress : callable, optional
        Called with the number of bytes that have arrived and the size of the file, or None where the server
        does not give it.

    Returns
    -------
    Downloaded
        Size and SHA-256.

    Raises
    ------
    ChecksumError
        If the file has another SHA-256.
    DownloadError
        If the server refuses or cannot be reached, if the transfer breaks off in every attempt, if the file
        is too large, or if nothing shows that it is complete.
    InvalidArgumentError
        If the URL is neither http nor https.
    OSError
        If the file cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidArgumentError(f"url: found {url!r}, expected http or https")
    transfer = _Transfer(url, max_bytes, sha256, timeout, on_progress)
    registry = pooch.create(
        path=path.parent,
        base_url="",
        registry={path.name: sha256},
        urls={path.name: url},
        retry_if_failed=attempts - 1,
    )
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        registry.fetch(path.name, downloader=transfer)
    except requests.RequestException as error:
        times = f"{attempts} attempt{'s' * (attempts != 1)}"
        raise DownloadError(
            f"{url}: {transfer.describe(error)}; gave up after {times}; try again later"
        ) from None
    finally:
        logger.setLevel(level)
    return Downloaded(path.stat().st_size, file_sha256(path))


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    digest: str = pooch.file_hash(path, alg="sha256")
    return digest


class _Transfer:
    """A downloader for pooch, and the file and the progress bar of pooch's own downloader.

    It raises DownloadError, which pooch does not repeat, for what another attempt cannot change.
    """

    def __init__(
        self,
        url: str,
        max_bytes: int,
        sha256: str | None,
        timeout: float,
        on_progress: Callable[[int, int | None], None] | None,
    ) -> None:
        self._url = url
        self._max_bytes = max_bytes
        self._sha256 = sha256
        self._timeout = timeout
        self._on_progress = on_progress
        self._file: BinaryIO | None = None
        self._num_bytes = 0
        self._last_arrival = 0.0
        self._total = 0  # 0 where the server gives no length

    def __call__(self, url: str, output_file: str, keeper: Any) -> None:
        """Transfer the file, once."""
        # The temporary file of pooch is private; this one has the permissions that the umask asks for.
        path = Path(output_file)
        path.unlink()
        self._num_bytes = self._total = 0
        request = pooch.HTTPDownloader(
            progressbar=self,
            chunk_size=_CHUNK_BYTES,
            timeout=self._timeout,
            headers={"Accept-Encoding": "identity", "User-Agent": "metatl"},
            hooks={"response": self._check_response},
        )
        with path.open("xb") as self._file:
            try:
                self._within_time(lambda: request(url, self, keeper))
            except requests.TooManyRedirects:
                raise DownloadError(f"{url}: the server sends on without end") from None
            except requests.exceptions.SSLError as error:
                raise DownloadError(f"{url}: {self.describe(error)}") from None
            self._file.flush()
            # A crash after the renaming must not leave an empty file under the name.
            os.fsync(self._file.fileno())
        if self._total not in (0, self._num_bytes):
            raise requests.ConnectionError("fewer bytes than announced")
        if self._sha256 is not None and (found := file_sha256(path)) != self._sha256.lower():
            raise ChecksumError(
                f"{url}: found a file with the SHA-256 {found}, expected {self._sha256}; nothing was kept"
            )

    def _within_time(self, request: Callable[[], None]) -> None:
        """Run a request in a thread, and give up where no chunk arrives within the time limit.

        The limit of requests is for each read of the socket: a server that sends a byte now and then never
        reaches it.
        """
        raised: list[BaseException] = []
        finished = threading.Event()
        self._last_arrival = time.monotonic()

        def run() -> None:
            try:
                request()
            except BaseException as error:  # noqa: BLE001 (raised again by the caller)
                raised.append(error)
            finally:
                finished.set()

        threading.Thread(target=run, daemon=True).start()
        while not finished.wait(_POLL_SECONDS):
            if time.monotonic() - self._last_arrival > self._timeout:
                raise requests.Timeout(f"fewer than {_CHUNK_BYTES:,} bytes in {self._timeout:g} seconds")
        if raised:
            # Taken out of the list, which its traceback refers to: a cycle would keep the socket open.
            raise raised.pop()

    def describe(self, error: requests.RequestException) -> str:
        """Say in a few words why the last attempt failed."""
        if error.response is not None:
            return f"the server answers {error.response.status_code} {error.response.reason}"
        if isinstance(error, requests.Timeout):
            if str(error).startswith("fewer than"):
                return f"the server is too slow: {error}, after {self._num_bytes:,} bytes"
            return "the server did not answer in time"
        if self._num_bytes + self._total > 0:
            total = f" of {self._total:,}" if self._total else ""
            return f"the connection ended after {self._num_bytes:,}{total} bytes"
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.strerror is not None:
                return cause.strerror
            cause = cause.__cause__ or cause.__context__
        return " ".join(str(error).split())

    def _check_response(self, response: requests.Response, **_: Any) -> None:
        """Refuse an answer that is not the file as it is."""
        self._last_arrival = time.monotonic()
        url, headers = response.url, response.headers
        if response.is_redirect:
            target = urljoin(url, headers["Location"])
            allowed = ("https",) if url.startswith("https:") else ("http", "https")
            if urlsplit(target).scheme not in allowed:
                raise DownloadError(f"{url}: the server sends on to {target}, expected {allowed[-1]}")
            return
        if response.status_code in _BUSY:
            return
        if response.status_code != HTTPStatus.OK:
            raise DownloadError(f"{url}: the server answers {response.status_code} {response.reason}")
        encoding = headers.get("Content-Encoding", "identity").lower()
        if encoding in ("gzip", "x-gzip") and urlsplit(url).path.endswith(".gz"):
            # Some servers say this of a file that is gzipped itself; it must not be unpacked on the way.
            del response.raw.headers["Content-Encoding"]
        elif encoding != "identity":
            raise DownloadError(f"{url}: found the encoding {encoding}, expected the file as it is")
        is_chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"
        if "Content-Length" not in headers and not is_chunked and self._sha256 is None:
            raise DownloadError(
                f"{url}: the server gives no length and no SHA-256 is known, so a part of the file could "
                "pass for all of it"
            )
        self._refuse_size(int(headers.get("Content-Length", 0)))

    def _refuse_size(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise DownloadError(
                f"{self._url}: found more than the {self._max_bytes:,} bytes that are allowed; "
                "nothing was kept"
            )

    # --- The file that pooch writes to.

    def write(self, chunk: bytes) -> None:
        """Write a chunk, and report how much has arrived."""
        assert self._file is not None  # noqa: S101 (open while pooch writes)
        self._last_arrival = time.monotonic()
        self._refuse_size(self._num_bytes + len(chunk))
        self._file.write(chunk)
        self._num_bytes += len(chunk)
        self._report()

    def flush(self) -> None:
        """Leave the chunk to the buffer."""

    # --- The progress bar that pooch moves: `write` counts the bytes more exactly.

    @property
    def total(self) -> int:
        """The size that the server gives; 0 where it gives none."""
        return self._total

    @total.setter
    def total(self, total: int) -> None:
        self._total = total
        self._report()

    def update(self, _: int) -> None:
        """Ignore pooch's estimate."""

    def reset(self) -> None:
        """Keep what was counted."""

    def close(self) -> None:
        """Leave the bar to its owner."""

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._num_bytes, self._total or None)
