"""Downloading a file: resumed where it broke off, bounded in size, and never half of one under its name."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from metatl.common.files import move_into_place
from metatl.exceptions import BrokenDownloadError, ChecksumError, DownloadError, InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CHUNK_BYTES = 1 << 18
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_RANGE_NOT_SATISFIABLE = 416


class Downloaded(NamedTuple):
    """What :func:`download` wrote.

    Attributes
    ----------
    num_bytes
        Size of the file.
    sha256
        Its SHA-256 in hexadecimal.
    """

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class _Job:
    url: str
    partial: Path
    state: Path
    max_bytes: int
    must_have_end: bool
    timeout: float
    on_progress: Callable[[int, int | None], None] | None


class _State(NamedTuple):
    """What is known of a file that is there in part: its strong ETag or its date, and its size."""

    validator: str
    total: int | None


class _Broken(Exception):  # noqa: N818 (it never leaves this file)
    """A fault that may have passed when the file is asked for again."""


def download(
    url: str,
    path: Path,
    *,
    max_bytes: int,
    sha256: str | None = None,
    attempts: int = 5,
    timeout: float = 30.0,
    pause: float = 1.0,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Downloaded:
    """Download a file.

    What came is kept beside `path`, with `.partial` at the end of its name, until the file is whole; then it
    is flushed to disk and renamed. A later call goes on from there if the server says, by its ETag or its
    date, that it still has the same file; else it starts again.

    Parameters
    ----------
    url
        Where the file is: http or https. A redirection from https to http is refused.
    path
        Where it goes; a file that is there is replaced.
    max_bytes
        The largest size allowed; counted as the bytes come, whatever the server says.
    sha256
        The SHA-256 that the file must have, in hexadecimal.
    attempts
        How often the file is asked for, where the connection breaks or the server is busy.
    timeout
        Seconds without a byte after which a connection counts as broken.
    pause
        Seconds between the first two attempts; doubled each time.
    on_progress
        Called with the bytes that are there and the bytes of the whole file, None where the server does not
        say.

    Returns
    -------
    Downloaded
        Size and SHA-256.

    Raises
    ------
    BrokenDownloadError
        If every attempt broke off, and a part of the file is kept.
    ChecksumError
        If the file has another SHA-256.
    DownloadError
        If the server refuses or cannot be reached, if the file is too large, if it ends without a sign that
        it is whole, or if another process is downloading it.
    InvalidArgumentError
        If the URL is neither http nor https.
    OSError
        If the file cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidArgumentError(f"url: found {url!r}, expected http or https")
    partial = path.with_name(f"{path.name}.partial")
    state = path.with_name(f"{path.name}.partial.json")
    job = _Job(url, partial, state, max_bytes, sha256 is None, timeout, on_progress)
    with _locked(partial) as file:
        _transfer_with_retries(job, file, attempts, pause)
        found = Downloaded(file.seek(0, os.SEEK_END), file_sha256(partial))
        if sha256 is not None and found.sha256 != sha256.lower():
            # Nothing can be mended by going on from here.
            _discard(job, file)
            raise ChecksumError(f"{url}: found a file with the SHA-256 {found.sha256}, expected {sha256}")
        move_into_place(partial, path)
        state.unlink(missing_ok=True)
    return found


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[IO[bytes]]:
    """Open the partial file, alone; an empty one is not left behind."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"{partial}: another process is downloading this file") from None
        try:
            yield file
        except BaseException:
            file.flush()
            if file.seek(0, os.SEEK_END) == 0:
                partial.unlink(missing_ok=True)
            raise


def _transfer_with_retries(job: _Job, file: IO[bytes], attempts: int, pause: float) -> None:
    for attempt in range(1, attempts + 1):
        try:
            _transfer(job, file)
        except _Broken as error:  # noqa: PERF203 (a download takes longer)
            if attempt == attempts:
                times = f"{attempts} attempt{'s' * (attempts != 1)}"
                message = f"{job.url}: {error}; gave up after {times}"
                if file.seek(0, os.SEEK_END) > 0:
                    raise BrokenDownloadError(f"{message}; run it again to go on from there") from None
                raise DownloadError(f"{message}; try again later") from None
            time.sleep(pause * 2 ** (attempt - 1))
        else:
            return


def _transfer(job: _Job, file: IO[bytes]) -> None:
    """Ask once for what is missing, and append it."""
    start = file.seek(0, os.SEEK_END)
    known = _read_state(job) if start > 0 else None
    headers = {"Accept-Encoding": "identity", "User-Agent": "metatl"}
    if known is not None:
        if known.total == start:
            return
        headers |= {"Range": f"bytes={start}-", "If-Range": known.validator}
    with _opened(job, headers, file) as response:
        _refuse_encoding(job, response)
        total: int | None
        if response.status == http.client.PARTIAL_CONTENT and known is not None:
            total = _end_of_range(job, response, file, start, known.validator)
        elif response.status == http.client.OK:
            start, total = 0, _length(response)
            _restart(job, file, response, total)
        else:
            raise DownloadError(f"{job.url}: the server answers {response.status} {response.reason}")
        _refuse_size(job, file, total or 0)
        is_chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if total is None and not is_chunked and job.must_have_end:
            raise DownloadError(
                f"{job.url}: the server gives no length and nobody a SHA-256, so half of it would pass for it"
            )
        _copy(job, response, file, start, total)


@contextlib.contextmanager
def _opened(job: _Job, headers: dict[str, str], file: IO[bytes]) -> Iterator[http.client.HTTPResponse]:
    opener = urllib.request.OpenerDirector()
    # Not build_opener, which also opens file:, ftp: and data:.
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(job.url, headers=headers)  # noqa: S310 (the scheme is checked)
    try:
        response = opener.open(request, timeout=job.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        found = " ".join(f"the server answers {error.code} {error.reason}".split())
        if error.code == _RANGE_NOT_SATISFIABLE:
            _discard(job, file)
        elif error.code not in _BUSY:
            raise DownloadError(f"{job.url}: {found}") from None
        raise _Broken(found) from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{job.url}: {reason.verify_message}") from None
        raise _Broken(_describe(reason)) from None
    with response:
        yield response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not out of https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse a redirection that would leave https or the web."""
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise DownloadError(f"{req.full_url}: the server sends on to {newurl}, expected {allowed[-1]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_encoding(job: _Job, response: http.client.HTTPResponse) -> None:
    """Refuse a body that is packed on the way: its bytes are not those of the file."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    # Servers that do not know better say so of a file that is gzipped itself.
    is_of_the_file = encoding in ("gzip", "x-gzip") and urlsplit(job.url).path.endswith(".gz")
    if encoding != "identity" and not is_of_the_file:
        raise DownloadError(f"{job.url}: found the encoding {encoding}, expected the file as it is")


def _length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d+", length) else None


def _end_of_range(
    job: _Job, response: http.client.HTTPResponse, file: IO[bytes], start: int, validator: str
) -> int:
    """Check that the answer goes on where the file ends, and give the size of the whole."""
    found = response.headers.get("Content-Range", "")
    extent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", found)
    etag = response.headers.get("ETag", validator)
    if extent is None or int(extent[1]) != start or (validator.startswith('"') and etag != validator):
        _discard(job, file)
        raise _Broken(f"the server gives {found or 'no range'} of another file; starting again")
    return int(extent[2])


def _restart(job: _Job, file: IO[bytes], response: http.client.HTTPResponse, total: int | None) -> None:
    """Forget what is there, and remember by what the file can be known again."""
    _discard(job, file)
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    if validator is not None:
        job.state.write_text(json.dumps({"url": job.url, "validator": validator, "total": total}))


def _read_state(job: _Job) -> _State | None:
    try:
        state = json.loads(job.state.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(state, dict) or state.get("url") != job.url:
        return None
    validator, total = state.get("validator"), state.get("total")
    # What stands in a header must not hold the end of a line.
    if not isinstance(validator, str) or not validator.isprintable():
        return None
    return _State(validator, total if isinstance(total, int) else None)


def _discard(job: _Job, file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()
    job.state.unlink(missing_ok=True)


def _refuse_size(job: _Job, file: IO[bytes], num_bytes: int) -> None:
    if num_bytes > job.max_bytes:
        _discard(job, file)
        raise DownloadError(
            f"{job.url}: found more than the {job.max_bytes:,} bytes that are allowed; nothing was kept"
        )


def _copy(
    job: _Job, response: http.client.HTTPResponse, file: IO[bytes], start: int, total: int | None
) -> None:
    done = file.seek(start)
    while True:
        if job.on_progress is not None:
            job.on_progress(done, total)
        try:
            chunk = response.read1(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            file.flush()
            raise _Broken(f"{_describe(error)} after {done:,} bytes") from None
        if not chunk:
            break
        done += len(chunk)
        _refuse_size(job, file, done)
        file.write(chunk)
    file.flush()
    if total is not None and done != total:
        raise _Broken(f"the connection ended after {done:,} of {total:,} bytes")


def _describe(error: BaseException | str) -> str:
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended early"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    return str(error) or type(error).__name__
