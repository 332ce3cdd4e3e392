"""Downloads from a server that drops connections, and the folders of public data sets."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import resource
import stat
import threading
import time
import zipfile

import pytest
import requests

from local_server import answer, file, running_server
from metatl.datasets.catalogue import CATALOGUE, PublicDataSet
from metatl.datasets.downloads import Downloaded, _Transfer, download, file_sha256
from metatl.datasets.fetching import RECORD_NAME, fetch
from metatl.exceptions import (
    ChecksumError,
    DataError,
    DownloadError,
    InvalidArgumentError,
)

CONTENT = random.Random(0).randbytes(700_000)  # noqa: S311 (test data)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIMIT = 1_000_000


@pytest.fixture
def server():
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The pauses between attempts, which tests do not wait for."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.csv"


def get(server, path, **options):
    settings = {"max_bytes": LIMIT, "timeout": 5, **options}
    return download(server.url, path, **settings)


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_a_file_is_downloaded(server, path):
    server.answers = [file(CONTENT)]
    seen = []
    found = get(server, path, on_progress=lambda done, total: seen.append((done, total)))
    assert found == Downloaded(len(CONTENT), SHA256)
    assert path.read_bytes() == CONTENT
    assert names(path) == ["data.csv"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(server.requests) == 1
    assert server.requests[0]["Accept-Encoding"] == "identity"


def test_dropped_connections_start_again(server, path, pauses):
    server.answers = [file(CONTENT, cut=300_000), file(CONTENT, cut=1), file(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert len(server.requests) == 3
    assert pauses == [1, 2]
    assert names(path) == ["data.csv"]


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_transfer_that_breaks_off_every_time(server, path, sha256):
    server.answers = [file(CONTENT, cut=300_000)]
    with pytest.raises(DownloadError) as caught:
        get(server, path, attempts=3, sha256=sha256)
    assert str(caught.value) == (
        f"{server.url}: the connection ended after 262,144 of 700,000 bytes; gave up after 3 attempts; "
        "try again later"
    )
    assert len(server.requests) == 3
    assert names(path) == []


def test_a_range_that_nobody_asked_for_is_refused(server, path):
    server.answers = [answer(CONTENT, 206, Content_Range="bytes 0-699999/700000")]
    with pytest.raises(DownloadError, match="the server answers 206"):
        get(server, path)


def test_a_length_that_is_too_short_does_not_match_the_sha256(server, path):
    server.answers = [answer(CONTENT, Content_Length=600_000)]
    with pytest.raises(
        ChecksumError, match=f"found a file with the SHA-256 [0-9a-f]{{64}}, expected {SHA256}"
    ):
        get(server, path, sha256=SHA256)
    assert len(server.requests) == 1
    assert names(path) == []


def test_no_length_is_accepted_only_where_the_end_is_known_by_other_means(server, path):
    server.answers = [answer(CONTENT, Content_Length=None)]
    with pytest.raises(DownloadError, match="the server gives no length"):
        get(server, path)
    assert get(server, path, sha256=SHA256.upper()).sha256 == SHA256
    path.unlink()
    half = CONTENT[:300_000]
    server.answers = [answer(half, Content_Length=None)]
    with pytest.raises(DownloadError, match="expected"):
        get(server, path, sha256=SHA256)
    assert not path.exists()


def chunked(content, end=b"0\r\n\r\n"):
    body = b"".join(
        b"%x\r\n%s\r\n" % (len(content[start : start + 50_000]), content[start : start + 50_000])
        for start in range(0, len(content), 50_000)
    )
    return answer(body + end, Content_Length=None, Transfer_Encoding="chunked")


def test_chunks_mark_their_end(server, path):
    server.answers = [chunked(CONTENT[:400_000], end=b""), chunked(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert len(server.requests) == 2


@pytest.mark.parametrize("serve", [file(CONTENT), chunked(CONTENT), answer(CONTENT, Content_Length=None)])
def test_too_much_is_refused_whatever_the_server_says(server, path, serve):
    server.answers = [serve]
    with pytest.raises(DownloadError, match="found more than the 500,000 bytes that are allowed"):
        get(server, path, max_bytes=500_000, sha256=SHA256)
    assert names(path) == []
    assert len(server.requests) == 1


def test_exactly_as_much_as_is_allowed(server, path):
    server.answers = [file(CONTENT)]
    assert get(server, path, max_bytes=len(CONTENT)).sha256 == SHA256


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, path, status):
    server.answers = [answer(b"", status), answer(b"", status), file(CONTENT)]
    assert get(server, path).sha256 == SHA256


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(server, path, status):
    server.answers = [answer(b"<html>", status)]
    with pytest.raises(DownloadError, match=f"the server answers {status}"):
        get(server, path)
    assert len(server.requests) == 1
    assert names(path) == []


def test_a_server_that_stays_busy(server, path):
    server.answers = [answer(b"", 503)]
    with pytest.raises(
        DownloadError, match="503 Service Unavailable; gave up after 4 attempts; try again later"
    ):
        get(server, path, attempts=4)
    assert len(server.requests) == 4
    assert names(path) == []


def test_silence_is_a_broken_connection(server, path):
    done = threading.Event()

    def hang(handler):
        answer(CONTENT[:100], Content_Length=len(CONTENT))(handler)
        handler.wfile.flush()
        done.wait(60)

    server.answers = [hang, file(CONTENT)]
    assert get(server, path, timeout=0.3).sha256 == SHA256
    assert not done.is_set()
    done.set()
    assert len(server.requests) == 2


def test_silence_from_the_start(server, path):
    done = threading.Event()
    server.answers = [lambda _: done.wait(60)]
    with pytest.raises(DownloadError, match=r"data\.csv: the server did not answer in time; gave up after 1"):
        get(server, path, timeout=0.3, attempts=1)
    done.set()
    assert names(path) == []


def test_nobody_there(path):
    with running_server() as server:
        url = server.url
    with pytest.raises(DownloadError, match="refused; gave up after 2 attempts"):
        download(url, path, max_bytes=LIMIT, attempts=2)
    assert names(path) == []


def test_attempts_are_further_and_further_apart(server, path, pauses):
    server.answers = [answer(b"", 503)]
    with pytest.raises(DownloadError):
        get(server, path)
    assert pauses == [1, 2, 3, 4]


def test_redirections_are_followed(server, path):
    server.answers = [answer(b"", 302, Location=server.url), file(CONTENT)]
    assert get(server, path).sha256 == SHA256


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_redirections_do_not_leave_the_web(server, path, target):
    server.answers = [answer(b"", 302, Location=target)]
    with pytest.raises(DownloadError, match=f"the server sends on to {target}, expected https"):
        get(server, path)
    assert names(path) == []


def test_a_redirection_that_never_ends(server, path):
    server.answers = [answer(b"", 302, Location=server.url)]
    with pytest.raises(DownloadError, match="the server sends on without end"):
        get(server, path)


def test_redirections_do_not_leave_https():
    response = requests.Response()
    response.status_code, response.url = 302, "https://a/data.csv"
    check = _Transfer(response.url, LIMIT, None, 5, None)._check_response
    response.headers["Location"] = "http://a/data.csv"
    with pytest.raises(DownloadError, match=r"the server sends on to http://a/data\.csv, expected https"):
        check(response)
    for target in ("https://b/data.csv", "/other.csv"):
        response.headers["Location"] = target
        check(response)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "data:,x", "a.csv", ""])
def test_other_addresses_are_refused(path, url):
    with pytest.raises(InvalidArgumentError, match="expected http or https"):
        download(url, path, max_bytes=LIMIT)


def test_an_encoded_body_is_refused(server, path):
    server.answers = [file(CONTENT, Content_Encoding="gzip")]
    with pytest.raises(DownloadError, match="found the encoding gzip"):
        get(server, path)
    url = f"{server.url}.gz"
    server.answers = [file(gzip.compress(CONTENT), Content_Encoding="gzip")]
    assert download(url, path, max_bytes=LIMIT).num_bytes == len(gzip.compress(CONTENT))
    assert gzip.decompress(path.read_bytes()) == CONTENT
    path.unlink()
    server.answers = [file(CONTENT, Content_Encoding="gzip")]
    assert download(url, path, max_bytes=LIMIT).sha256 == SHA256
    path.unlink()
    server.answers = [file(CONTENT, Content_Encoding="br")]
    with pytest.raises(DownloadError, match="found the encoding br"):
        download(url, path, max_bytes=LIMIT)


def test_a_wrong_file_does_not_get_the_name(server, path):
    path.write_text("old")
    server.answers = [file(CONTENT)]
    with pytest.raises(ChecksumError, match=f"found a file with the SHA-256 {SHA256}, expected {'0' * 64}"):
        get(server, path, sha256="0" * 64)
    # Another attempt would give the same.
    assert len(server.requests) == 1
    assert path.read_text() == "old"
    assert names(path) == ["data.csv"]
    assert get(server, path, sha256=SHA256).sha256 == SHA256
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_leaves_nothing_half_written(server, path, error):
    def interrupt(done, _):
        if done >= 200_000:
            raise error

    path.write_text("old")
    server.answers = [file(CONTENT)]
    with pytest.raises(error):
        get(server, path, sha256=SHA256, on_progress=interrupt)
    assert path.read_text() == "old"
    assert names(path) == ["data.csv"]


def test_two_downloads_of_one_file_do_not_disturb_each_other(server, path):
    results = []

    def download_again(done, _):
        if done >= 200_000 and not results:
            results.append(None)
            results[0] = get(server, path)

    server.answers = [file(CONTENT)]
    results.append(get(server, path, on_progress=download_again))
    assert [result.sha256 for result in results] == [SHA256, SHA256]
    assert len(server.requests) == 2
    assert path.read_bytes() == CONTENT
    assert names(path) == ["data.csv"]


def test_the_umask_decides_the_permissions(server, path):
    server.answers = [file(CONTENT)]
    before = os.umask(0o027)
    try:
        get(server, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_full_disk_is_an_os_error(server, path):
    server.answers = [file(CONTENT)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            get(server, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(server.requests) == 1
    assert names(path) == []


def test_pooch_says_nothing(server, path, capfd):
    server.answers = [answer(b"", 503), file(CONTENT)]
    get(server, path)
    assert capfd.readouterr() == ("", "")


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path.read_bytes()


MEMBER = ("ml-1m/ratings.dat", b"1::2::3::978300760\n")


# Public data sets.


def public(server, content=CONTENT, **fields):
    settings = {
        "name": "small",
        "title": "Small",
        "homepage": "https://example.org",
        "urls": (server.url,),
        "licence": "None.",
        "citation": "Nobody.",
        "max_bytes": LIMIT,
        **fields,
    }
    server.answers = [file(content)]
    return PublicDataSet(**settings)


def test_a_data_set_is_fetched_once(server, tmp_path):
    data_set = public(server)
    home = tmp_path / "small"
    assert fetch(data_set, tmp_path) == (home / "data.csv", SHA256, False)
    record = json.loads((home / RECORD_NAME).read_text())
    assert record == {"url": server.url, "bytes": len(CONTENT), "sha256": SHA256}
    assert fetch(data_set, tmp_path) == (home / "data.csv", SHA256, True)
    assert len(server.requests) == 1


def test_a_file_that_was_changed_is_told(server, tmp_path):
    data_set = public(server)
    path = fetch(data_set, tmp_path).path
    path.write_bytes(b"changed")
    with pytest.raises(
        DownloadError, match=f"data.csv: found a file with the SHA-256 .*, expected {SHA256}; delete"
    ):
        fetch(data_set, tmp_path)
    assert path.read_bytes() == b"changed"


def test_a_source_that_changed_is_told(server, tmp_path):
    data_set = public(server)
    path = fetch(data_set, tmp_path).path
    path.unlink()
    server.answers = [file(b"another")]
    with pytest.raises(
        DownloadError, match=r"the expected one is in .*download\.json: delete it to accept another"
    ):
        fetch(data_set, tmp_path)
    assert not path.exists()
    (tmp_path / "small" / RECORD_NAME).unlink()
    assert fetch(data_set, tmp_path).path.read_bytes() == b"another"


def test_a_published_sha256_comes_first(server, tmp_path):
    data_set = public(server, sha256="0" * 64)
    with pytest.raises(DownloadError, match="expected 0000") as caught:
        fetch(data_set, tmp_path)
    assert "delete" not in str(caught.value)
    (tmp_path / "small" / "data.csv").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="expected 0000"):
        fetch(data_set, tmp_path)
    record = tmp_path / "small" / RECORD_NAME
    record.write_text(json.dumps({"sha256": "0" * 64}))
    assert file_sha256(fetch(public(server, sha256=SHA256), tmp_path).path) == SHA256
    assert json.loads(record.read_text())["sha256"] == SHA256


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"sha256": 1}'])
def test_a_record_that_says_nothing(server, tmp_path, record):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / RECORD_NAME).write_text(record)
    with pytest.raises(DownloadError, match=r"download\.json: found no SHA-256; delete it"):
        fetch(public(server), tmp_path)


def test_the_second_address_is_tried(server, tmp_path):
    missing = server.url.replace("data.csv", "old/data.csv")
    data_set = public(server, urls=(missing, server.url))
    server.answers = [answer(b"", 404), file(CONTENT)]
    fetch(data_set, tmp_path)
    assert json.loads((tmp_path / "small" / RECORD_NAME).read_text())["url"] == server.url
    (tmp_path / "small" / "data.csv").unlink()
    server.answers = [answer(b"", 404)]
    with pytest.raises(
        DownloadError, match=r"old/data\.csv: the server answers 404 .*; http.*csv: the server answers 404"
    ):
        fetch(data_set, tmp_path)


def test_a_refusal_says_nothing_of_the_record(server, tmp_path):
    data_set = public(server)
    fetch(data_set, tmp_path).path.unlink()
    server.answers = [answer(b"", 404)]
    with pytest.raises(DownloadError) as caught:
        fetch(data_set, tmp_path)
    assert str(caught.value) == f"{server.url}: the server answers 404 Not Found"


def archived(server, content, **fields):
    url = server.url.replace("data.csv", "ml.zip")
    return public(server, content, urls=(url,), member=MEMBER[0], **fields)


def test_one_member_of_an_archive_is_unpacked_and_no_other(server, tmp_path):
    content = zipped(tmp_path / "a.zip", [("ml-1m/", b""), MEMBER, ("../x", b"x")])
    data_set = archived(server, content)
    path = fetch(data_set, tmp_path).path
    assert path == tmp_path / "small" / "ratings.dat"
    assert path.read_bytes() == MEMBER[1]
    assert names(path) == [RECORD_NAME, "ml.zip", "ratings.dat"]
    path.unlink()
    assert fetch(data_set, tmp_path).was_there
    assert path.read_bytes() == MEMBER[1]
    assert len(server.requests) == 1


def test_an_archive_without_the_member(server, tmp_path):
    content = zipped(tmp_path / "a.zip", [("ml-1m/movies.dat", b"x")])
    with pytest.raises(DataError) as caught:
        fetch(archived(server, content), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'small' / 'ml.zip'}: found no member 'ml-1m/ratings.dat' among 'ml-1m/movies.dat'"
    )


@pytest.mark.parametrize("part", [slice(0), slice(20), slice(-9)])
def test_damaged_archives(server, tmp_path, part):
    content = zipped(tmp_path / "a.zip", [MEMBER])[part]
    with pytest.raises(DataError, match=r"ml\.zip: found a damaged zip archive .*; delete it to download it"):
        fetch(archived(server, content), tmp_path)
    assert names(tmp_path / "small" / "ml.zip") == [RECORD_NAME, "ml.zip"]


def test_a_damaged_member_leaves_the_old_file(server, tmp_path):
    content = bytearray(zipped(tmp_path / "a.zip", [(MEMBER[0], random.Random(1).randbytes(900))]))  # noqa: S311
    content[200] ^= 1
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "ratings.dat").write_text("old")
    with pytest.raises(DataError, match="found a damaged zip archive"):
        fetch(archived(server, bytes(content)), tmp_path)
    assert (tmp_path / "small" / "ratings.dat").read_text() == "old"


def test_the_catalogue():
    for name, data_set in CATALOGUE.items():
        assert name == data_set.name
        assert all(url.startswith("https://") for url in (data_set.homepage, *data_set.urls))
        assert len({url.rpartition("/")[2] for url in data_set.urls}) == 1
        assert data_set.licence.endswith(".")
        assert data_set.citation
        assert data_set.sha256 is None or len(bytes.fromhex(data_set.sha256)) == 32
        assert (data_set.member is not None) == data_set.file_name.endswith(".zip")
        assert data_set.member is None or data_set.sha256 is not None


def drip(seconds, *, after_headers):
    """Send a byte now and then, in the headers or after them."""

    def send(handler):
        if after_headers:
            handler.send_response_only(200)
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b"H")
            handler.wfile.flush()
            threading.Event().wait(0.05)

    return send


@pytest.mark.parametrize("after_headers", [False, True])
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(server, tmp_path, after_headers):
    server.answers = [drip(20, after_headers=after_headers)]
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"too slow: fewer than 65,536 bytes in 0\.6 seconds, after 0"):
        get(server, tmp_path / "data.csv", timeout=0.6, attempts=1)
    assert time.monotonic() - start < 10
    assert not list(tmp_path.glob("*data*"))


def test_an_attempt_that_was_given_up_writes_nothing(server, tmp_path):
    server.answers = [drip(2, after_headers=True), file(CONTENT)]
    path = tmp_path / "data.csv"
    assert get(server, path, timeout=0.6, attempts=2).sha256 == SHA256
    threading.Event().wait(2)
    assert path.read_bytes() == CONTENT
