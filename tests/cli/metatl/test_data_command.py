"""`metatl data`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from local_server import answer, file, running_server
from metatl.cli.metatl import data as command
from metatl.cli.metatl.main import main
from metatl.datasets.catalogue import CATALOGUE

RATINGS = "".join(
    f"A{user:013},B{item:09},5.0,{1_300_000_000 + 86_400 * (user + item)}\n"
    for user in range(60)
    for item in range(12)
).encode()
SHA256 = hashlib.sha256(RATINGS).hexdigest()


@pytest.fixture
def server(monkeypatch):
    with running_server() as server:
        url = server.url.replace("data.csv", "ratings_Sports.csv")
        local = replace(CATALOGUE["sports"], urls=(url,), sha256=SHA256, max_bytes=1_000_000)
        monkeypatch.setitem(CATALOGUE, "sports", local)
        monkeypatch.setitem(CATALOGUE, "movies", replace(local, name="movies", sha256=None))
        server.answers = [file(RATINGS)]
        yield server


def run(*arguments, **options):
    return CliRunner().invoke(main, ["data", *map(str, arguments)], **options)


def test_list():
    result = run("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert "goodreads       at most 16 GB   Goodreads, UCSD Book Graph: all interactions" in lines


def test_what_is_downloaded_can_be_used(server, tmp_path):
    result = run("download", "sports", "--to", tmp_path, "--yes")
    assert result.exit_code == 0, result.stderr
    path = tmp_path / "sports" / "ratings_Sports.csv"
    assert result.stdout.endswith(
        f"SHA-256   {SHA256} (as published)\nfile      {path}\nnext      metatl stats {path}\n"
    )
    found = CliRunner().invoke(main, ["stats", str(path)])
    assert found.exit_code == 0, found.stderr
    assert ["users", "60"] in [line.split() for line in found.stdout.splitlines()]
    result = run("download", "sports", "--to", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "(was there already; as published)" in result.stdout
    assert len(server.requests) == 1


def test_licence_and_citation_come_before_anything_is_written(server, tmp_path):
    folder = tmp_path / "new"
    seen = []

    def look(handler):
        seen.append(sorted(path.name for path in tmp_path.rglob("*")))
        file(RATINGS)(handler)

    server.answers = [look]
    result = run("download", "sports", "--to", folder)
    assert result.exit_code == 2
    assert result.stderr == "Error: found no terminal to ask on; give --yes to agree to the terms above\n"
    plain = " ".join(result.stdout.split())
    assert CATALOGUE["sports"].licence in plain
    assert CATALOGUE["sports"].citation in plain
    assert CATALOGUE["sports"].urls[0] in plain
    assert not folder.exists()
    assert server.requests == []
    assert run("download", "sports", "--to", folder, "--yes").exit_code == 0
    (written,) = seen
    # Besides the folders, a temporary file.
    assert {"new", "sports"} < set(written)
    assert len(written) == 3


@pytest.mark.parametrize(("reply", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_somebody_at_a_terminal_is_asked(server, tmp_path, monkeypatch, reply, code):
    monkeypatch.setattr(command, "can_ask", lambda: True)
    result = run("download", "sports", "--to", tmp_path, input=reply)
    assert result.exit_code == code
    assert "Download it? [y/N]" in result.stdout
    assert (tmp_path / "sports").exists() == (code == 0)
    assert len(server.requests) == (code == 0)


def test_a_sha256_is_recorded_where_none_is_published(server, tmp_path):
    result = run("download", "movies", "--to", tmp_path, "--yes")
    assert f"{SHA256} (none is published; recorded in download.json)" in result.stdout
    (tmp_path / "movies" / "ratings_Sports.csv").unlink()
    server.answers = [file(RATINGS[:-50])]
    result = run("download", "movies", "--to", tmp_path, "--yes")
    assert result.exit_code == 2
    assert f"expected {SHA256}" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        (answer(b"", 404), "ratings_Sports.csv: the server answers 404 Not Found\n"),
        (file(b"x" * 2_000_000), "found more than the 1,000,000 bytes that are allowed; nothing was kept\n"),
        (file(b"x"), f"expected {SHA256}; nothing was kept\n"),
    ],
)
def test_failures_are_one_line_and_exit_code_2(server, tmp_path, serve, message):
    server.answers = [serve]
    result = run("download", "sports", "--to", tmp_path, "--yes")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.endswith(message)
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "sports" / "ratings_Sports.csv").exists()


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("download", "sports", "--to", tmp_path / "file", "--yes")
    assert result.exit_code == 2
    assert result.stderr == f"Error: {tmp_path / 'file' / 'sports'}: Not a directory\n"
    assert server.requests == []


def test_an_unknown_name():
    result = run("download", "netflix")
    assert result.exit_code == 2
    assert "'netflix' is not one of 'electronics', 'goodreads'" in result.stderr


def test_a_terminal_shows_progress():
    program = """
from rich.console import Console
from metatl.cli.metatl.download_progress import download_progress
with download_progress(Console(force_terminal=True, width=100)) as update:
    update(0, None)
    update(500_000, 1_000_000)
with download_progress(Console(force_terminal=False)) as update:
    update(0, None)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "0.5/1.0 MB" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["data", "list"]])
def test_help_and_list_load_neither_torch_nor_polars_nor_rich(arguments):
    program = f"""
import sys
from metatl.cli.metatl.main import main
try:
    main({arguments})
except SystemExit as end:
    assert end.code == 0
slow = {{"torch", "polars", "numpy", "rich", "pooch", "requests", "urllib.request"}}
assert not slow & set(sys.modules), "slow imports"
"""
    environment = {**os.environ, "COLUMNS": "80"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout
