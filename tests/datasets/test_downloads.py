"""Downloads from a server that drops connections and lies, and archives that nobody should unpack."""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import stat
import struct
import threading
import time
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_server import answer, file, running_server
from metatl.datasets.archives import extract_member
from metatl.datasets.catalogue import CATALOGUE, PublicDataSet
from metatl.datasets.downloads import Downloaded, download, file_sha256
from metatl.datasets.fetching import RECORD_NAME, fetch
from metatl.exceptions import (
    BrokenDownloadError,
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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.csv"


def get(server, path, **options):
    settings = {"max_bytes": LIMIT, "pause": 0, "timeout": 5, **options}
    return download(server.url, path, **settings)


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


PARTIAL = ["data.csv.partial", "data.csv.partial.json"]


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
    assert "Range" not in server.requests[0]
    assert server.requests[0]["Accept-Encoding"] == "identity"


def test_dropped_connections_are_taken_up_where_they_ended(server, path):
    server.answers = [file(CONTENT, cut=300_000), file(CONTENT, cut=1), file(CONTENT)]
    assert get(server, path).sha256 == SHA256
    ranges = [request.get("Range") for request in server.requests]
    assert ranges == [None, "bytes=300000-", "bytes=300001-"]
    assert [request.get("If-Range") for request in server.requests] == [None, '"1"', '"1"']
    assert names(path) == ["data.csv"]


def test_a_later_call_goes_on(server, path):
    server.answers = [file(CONTENT, cut=300_000)]
    with pytest.raises(
        DownloadError, match="300,000 of 700,000 bytes; gave up after 1 attempt; run it again"
    ):
        get(server, path, attempts=1)
    assert names(path) == PARTIAL
    assert path.with_name("data.csv.partial").read_bytes() == CONTENT[:300_000]
    server.answers = [file(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert server.requests[-1]["Range"] == "bytes=300000-"
    assert names(path) == ["data.csv"]


def test_the_date_stands_in_for_an_etag(server, path):
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.answers = [file(CONTENT, 'W/"weak"', cut=9, Last_Modified=date), file(CONTENT, date, ETag=None)]
    assert get(server, path).sha256 == SHA256
    assert server.requests[1]["If-Range"] == date
    assert server.requests[1]["Range"] == "bytes=9-"


def test_without_etag_and_date_it_starts_again(server, path):
    server.answers = [file(CONTENT, cut=300_000, ETag=None), file(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert "Range" not in server.requests[1]


def test_a_server_that_ignores_ranges_starts_again(server, path):
    server.answers = [file(CONTENT, cut=300_000), answer(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert "Range" in server.requests[1]
    assert path.read_bytes() == CONTENT


def test_a_file_that_changed_starts_again(server, path):
    other = CONTENT[::-1]
    server.answers = [file(CONTENT, cut=300_000), file(other, '"2"')]
    get(server, path)
    assert path.read_bytes() == other
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"2"', "Content-Range": "bytes 300000-699999/700000"},
        {"Content-Range": "bytes 200000-699999/700000"},
        {"Content-Range": "bytes 300000-699999/*"},
        {"Content-Range": "nonsense"},
        {},
    ],
)
def test_a_range_of_another_file_is_not_appended(server, path, headers):
    server.answers = [file(CONTENT, cut=300_000), answer(b"x" * 400_000, 206, **headers), file(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert "Range" not in server.requests[2]


def test_a_range_that_nobody_asked_for_is_refused(server, path):
    server.answers = [answer(CONTENT, 206, Content_Range="bytes 0-699999/700000")]
    with pytest.raises(DownloadError, match="the server answers 206"):
        get(server, path)


def test_a_range_that_is_not_there_starts_again(server, path):
    server.answers = [file(CONTENT, cut=300_000), answer(b"", 416), file(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert "Range" not in server.requests[2]


def test_a_whole_partial_file_is_not_asked_for_again(server, path):
    path.with_name(PARTIAL[0]).write_bytes(CONTENT)
    state = {"url": server.url, "validator": '"1"', "total": len(CONTENT)}
    path.with_name(PARTIAL[1]).write_text(json.dumps(state))
    assert get(server, path).sha256 == SHA256
    assert server.requests == []


@pytest.mark.parametrize(
    "state",
    [
        None,
        "{",
        "[]",
        '{"validator": "\\"1\\""}',
        '{"url": "http://other/", "validator": "\\"1\\""}',
        '{"url": "URL", "validator": 1}',
        '{"url": "URL", "validator": "\\"1\\"\\r\\nEvil: 1"}',
    ],
)
def test_a_partial_file_of_unknown_origin_is_not_used(server, path, state):
    path.with_name(PARTIAL[0]).write_bytes(b"x" * 300_000)
    if state is not None:
        path.with_name(PARTIAL[1]).write_text(state.replace("URL", server.url))
    server.answers = [file(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert "Range" not in server.requests[0]


def test_a_length_that_is_too_long_is_a_broken_download(server, path):
    server.answers = [answer(CONTENT, Content_Length=800_000, ETag='"1"')]
    with pytest.raises(DownloadError, match="700,000 of 800,000 bytes; gave up after 3 attempts"):
        get(server, path, attempts=3)
    assert len(server.requests) == 3
    assert names(path) == PARTIAL


def test_a_length_that_is_too_short_does_not_match_the_sha256(server, path):
    server.answers = [answer(CONTENT, Content_Length=600_000)]
    with pytest.raises(
        DownloadError, match=f"found a file with the SHA-256 [0-9a-f]{{64}}, expected {SHA256}"
    ):
        get(server, path, sha256=SHA256)
    assert names(path) == [PARTIAL[0]] or names(path) == []


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
    return answer(body + end, Content_Length=None, Transfer_Encoding="chunked", ETag='"1"')


def test_chunks_mark_their_end(server, path):
    server.answers = [chunked(CONTENT[:400_000], end=b""), file(CONTENT)]
    assert get(server, path).sha256 == SHA256
    assert server.requests[1]["Range"] == "bytes=400000-"
    path.unlink()
    server.answers = [chunked(CONTENT)]
    assert get(server, path).sha256 == SHA256


@pytest.mark.parametrize("serve", [file(CONTENT), chunked(CONTENT), answer(CONTENT, Content_Length=None)])
def test_too_much_is_refused_whatever_the_server_says(server, path, serve):
    server.answers = [serve]
    with pytest.raises(DownloadError, match="found more than the 500,000 bytes that are allowed"):
        get(server, path, max_bytes=500_000, sha256=SHA256)
    assert names(path) == []
    assert len(server.requests) == 1


def test_what_is_appended_counts_too(server, path):
    server.answers = [
        file(CONTENT, cut=300_000),
        answer(
            b"x" * 900_000,
            206,
            Content_Length=900_000,
            ETag='"1"',
            Content_Range="bytes 300000-699999/700000",
        ),
    ]
    with pytest.raises(DownloadError, match="found more than the 1,000,000 bytes"):
        get(server, path)
    assert names(path) == []


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
    done, hung_up = threading.Event(), threading.Event()

    def hang(handler):
        answer(CONTENT[:100], Content_Length=len(CONTENT), ETag='"1"')(handler)
        handler.wfile.flush()
        done.wait(60)
        hung_up.set()

    server.answers = [hang, file(CONTENT)]
    assert get(server, path, timeout=0.3).sha256 == SHA256
    assert not hung_up.is_set()
    done.set()
    assert server.requests[1]["Range"] == "bytes=100-"


def test_nobody_there(path):
    with running_server() as server:
        url = server.url
    with pytest.raises(DownloadError, match="refused; gave up after 2 attempts"):
        download(url, path, max_bytes=LIMIT, attempts=2, pause=0)
    assert names(path) == []


def test_attempts_are_further_and_further_apart(server, path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.answers = [answer(b"", 503)]
    with pytest.raises(DownloadError):
        get(server, path, pause=2)
    assert pauses == [2, 4, 8, 16]


def test_redirections_are_followed(server, path):
    server.answers = [answer(b"", 302, Location=server.url), file(CONTENT)]
    assert get(server, path).sha256 == SHA256


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_redirections_do_not_leave_the_web(server, path, target):
    server.answers = [answer(b"", 302, Location=target)]
    with pytest.raises(DownloadError, match=r"the server sends on to|is not allowed"):
        get(server, path)
    assert names(path) == []


def test_a_redirection_that_never_ends(server, path):
    server.answers = [answer(b"", 302, Location=server.url)]
    with pytest.raises(DownloadError, match="the server answers 302"):
        get(server, path)


def test_redirections_do_not_leave_https():
    from urllib.request import Request

    from metatl.datasets.downloads import _Redirects

    with open(__file__, "rb") as body:  # noqa: PTH123 (any body)
        arguments = (Request("https://a/"), body, 302, "", {})
        with pytest.raises(DownloadError, match="expected https"):
            _Redirects().redirect_request(*arguments, "http://a/")
        assert body.closed
        assert _Redirects().redirect_request(*arguments, "https://b/").full_url == "https://b/"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "data:,x", "a.csv", ""])
def test_other_addresses_are_refused(path, url):
    with pytest.raises(InvalidArgumentError, match="expected http or https"):
        download(url, path, max_bytes=LIMIT)


def test_an_encoded_body_is_refused(server, path):
    server.answers = [file(CONTENT, Content_Encoding="gzip")]
    with pytest.raises(DownloadError, match="found the encoding gzip"):
        get(server, path)
    url = f"{server.url}.gz"
    assert download(url, path, max_bytes=LIMIT, pause=0).sha256 == SHA256
    server.answers = [file(CONTENT, Content_Encoding="br")]
    with pytest.raises(DownloadError, match="found the encoding br"):
        download(url, path, max_bytes=LIMIT, pause=0)


def test_a_wrong_file_does_not_get_the_name(server, path):
    path.write_text("old")
    server.answers = [file(CONTENT)]
    with pytest.raises(ChecksumError, match=f"found a file with the SHA-256 {SHA256}, expected {'0' * 64}"):
        get(server, path, sha256="0" * 64)
    assert path.read_text() == "old"
    assert not path.with_name(PARTIAL[1]).exists()
    assert get(server, path).sha256 == SHA256
    assert path.read_bytes() == CONTENT


def test_ctrl_c_leaves_what_came(server, path):
    def interrupt(done, _):
        if done >= 200_000:
            raise KeyboardInterrupt

    server.answers = [file(CONTENT)]
    with pytest.raises(KeyboardInterrupt):
        get(server, path, on_progress=interrupt)
    size = path.with_name(PARTIAL[0]).stat().st_size
    assert size >= 200_000
    assert get(server, path).sha256 == SHA256
    assert server.requests[1]["Range"] == f"bytes={size}-"


def test_two_processes_do_not_write_one_file(server, path):
    with path.with_name(PARTIAL[0]).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="another process is downloading this file"):
            get(server, path)
    assert server.requests == []


def test_a_partial_file_that_is_a_link_is_not_followed(server, path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path.with_name(PARTIAL[0]).symlink_to(victim)
    server.answers = [file(CONTENT)]
    with pytest.raises(OSError, match="symbolic link"):
        get(server, path)
    assert victim.read_text() == "mine"


# Archives.


def zipped(path, members, mode=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0 if mode is None else mode << 16
            archive.writestr(info, content)
    return path


def extract(archive, max_bytes=1_000, member="ml-1m/ratings.dat"):
    extract_member(archive, member, archive.with_name("ratings.dat"), max_bytes=max_bytes)


GOOD = ("ml-1m/ratings.dat", b"1::2::3::978300760\n")


def test_one_member_is_unpacked_and_no_other(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("ml-1m/", b""), GOOD, ("ml-1m/movies.dat", b"x")])
    extract(archive)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "ratings.dat"]
    assert (tmp_path / "ratings.dat").read_bytes() == GOOD[1]
    assert stat.S_ISREG((tmp_path / "ratings.dat").stat().st_mode)


@pytest.mark.parametrize(
    ("members", "mode", "message"),
    [
        ([GOOD, ("../ratings.dat", b"x")], None, "'../ratings.dat', which leaves the archive"),
        ([GOOD, ("ml-1m/../../x", b"x")], None, "which leaves the archive"),
        ([GOOD, ("/etc/cron.d/x", b"x")], None, "'/etc/cron.d/x', which leaves the archive"),
        ([GOOD, ("..\\x", b"x")], None, "which leaves the archive"),
        ([GOOD, ("C:\\x", b"x")], None, "which leaves the archive"),
        ([GOOD, ("\\\\host\\x", b"x")], None, "which leaves the archive"),
        ([("ml-1m/movies.dat", b"x")], None, "found 0 members with the name 'ml-1m/ratings.dat' among"),
        ([], None, "found 0 members"),
        ([(GOOD[0], b"/etc/passwd")], stat.S_IFLNK | 0o777, "as a folder, a link or a device"),
        ([(GOOD[0], b"")], stat.S_IFCHR | 0o666, "as a folder, a link or a device"),
        ([(GOOD[0], b"")], stat.S_IFIFO | 0o666, "as a folder, a link or a device"),
        ([(GOOD[0], bytes(1_001))], None, "with 1,001 bytes, expected at most 1,000"),
        ([(GOOD[0], bytes(50_000_000))], None, "with 50,000,000 bytes, expected at most 1,000"),
    ],
)  # fmt: skip
def test_hostile_archives_are_refused(tmp_path, members, mode, message):
    archive = zipped(tmp_path / "a.zip", members, mode)
    with pytest.raises(DataError) as caught:
        extract(archive)
    assert str(caught.value).startswith(f"{archive}: ")
    assert message in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", [GOOD, GOOD])
    with pytest.raises(DataError, match="found 2 members with the name"):
        extract(archive)


def replaced(archive, old, new):
    content = archive.read_bytes()
    assert content.count(old) == 2
    archive.write_bytes(content.replace(old, new))


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", [(GOOD[0], bytes(3_000_000))])
    replaced(archive, struct.pack("<L", 3_000_000), struct.pack("<L", 999))
    with pytest.raises(DataError, match="found a damaged zip archive"):
        extract(archive)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_an_encrypted_member_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", [GOOD])
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged zip archive .*encrypted"):
        extract(archive)


@pytest.mark.parametrize("part", [slice(0), slice(20), slice(-9), slice(20, None)])
def test_damaged_archives(tmp_path, part):
    archive = zipped(tmp_path / "a.zip", [GOOD])
    archive.write_bytes(archive.read_bytes()[part])
    with pytest.raises(DataError, match="found a damaged zip archive"):
        extract(archive)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_archive_gives_anything_but_the_member_or_a_data_error(tmp_path, data):
    archive = zipped(tmp_path / "a.zip", [("ml-1m/movies.dat", b"x" * 50), GOOD])
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content)
    target = tmp_path / "ratings.dat"
    target.unlink(missing_ok=True)
    try:
        extract(archive)
    except DataError as error:
        assert str(error).startswith(str(archive))  # noqa: PT017 (not raising is as good)
        assert not target.exists()
    else:
        assert target.stat().st_size <= 1_000


def test_a_damaged_member_leaves_the_old_file(tmp_path):
    archive = zipped(tmp_path / "a.zip", [(GOOD[0], random.Random(1).randbytes(900))])  # noqa: S311
    content = bytearray(archive.read_bytes())
    content[200] ^= 1
    archive.write_bytes(content)
    (tmp_path / "ratings.dat").write_text("old")
    with pytest.raises(DataError, match="found a damaged zip archive"):
        extract(archive)
    assert (tmp_path / "ratings.dat").read_text() == "old"


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


def test_what_broke_off_waits_for_its_own_address(server, tmp_path):
    first, second = (server.url.replace("data.csv", f"{place}/data.csv") for place in ("first", "second"))
    data_set = public(server, urls=(first, second))
    server.answers = [file(CONTENT, cut=300_000)]
    with pytest.raises(BrokenDownloadError, match=r"first/data\.csv: the connection ended .*; run it again"):
        fetch(data_set, tmp_path, attempts=1)
    assert len(server.requests) == 1
    server.answers = [file(CONTENT)]
    fetch(data_set, tmp_path)
    assert server.requests[1]["Range"] == "bytes=300000-"


def test_a_refusal_says_nothing_of_the_record(server, tmp_path):
    data_set = public(server)
    fetch(data_set, tmp_path).path.unlink()
    server.answers = [answer(b"", 404)]
    with pytest.raises(DownloadError) as caught:
        fetch(data_set, tmp_path)
    assert str(caught.value) == f"{server.url}: the server answers 404 Not Found"


def test_an_archive_is_unpacked(server, tmp_path):
    content = zipped(tmp_path / "a.zip", [GOOD]).read_bytes()
    url = server.url.replace("data.csv", "ml.zip")
    data_set = public(server, content, urls=(url,), member=GOOD[0], max_member_bytes=1_000)
    path = fetch(data_set, tmp_path).path
    assert path == tmp_path / "small" / "ratings.dat"
    assert path.read_bytes() == GOOD[1]
    path.unlink()
    assert fetch(data_set, tmp_path).was_there
    assert path.read_bytes() == GOOD[1]
    assert len(server.requests) == 1


def test_the_catalogue():
    for name, data_set in CATALOGUE.items():
        assert name == data_set.name
        assert all(url.startswith("https://") for url in (data_set.homepage, *data_set.urls))
        assert len({url.rpartition("/")[2] for url in data_set.urls}) == 1
        assert data_set.licence.endswith(".")
        assert data_set.citation
        assert data_set.sha256 is None or len(bytes.fromhex(data_set.sha256)) == 32
        assert (data_set.member is not None) == data_set.file_name.endswith(".zip")
        assert (data_set.max_member_bytes > 0) == (data_set.member is not None)
