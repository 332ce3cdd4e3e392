"""A damaged file is read rightly or refused in one line that names it, whatever the damage."""

import sys

import pytest

from mutated_readers import READERS, write_seeds
from reading_worker import ReadingWorker

FILES = 30
ALL_FILES = 100_000


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    if sys.platform != "linux":
        pytest.skip("the limits of a process are measured as Linux gives them")
    seeds = tmp_path_factory.mktemp("seeds")
    write_seeds(seeds)
    with ReadingWorker(seeds, tmp_path_factory.mktemp("mutated")) as started:
        yield started


@pytest.mark.parametrize("name", list(READERS))
def test_mutated_files_are_read_or_refused(worker, name):
    outcomes = worker.read(name, FILES)
    assert not outcomes.failures, str(outcomes)


# Files that no longer do what they once did.
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("wide scores, parquet", 505),
        ("per-user file", 500433),
        ("per-user file", 500608),
        ("metrics.json", 500027),
        ("archive", 502322),
    ],
)
def test_files_that_were_read_wrongly(worker, name, number):
    outcomes = worker.read(name, 1, number)
    assert not outcomes.failures, str(outcomes)


@pytest.mark.faults
@pytest.mark.parametrize("name", list(READERS))
def test_a_hundred_thousand_mutated_files(worker, name, capsys):
    outcomes = worker.read(name, ALL_FILES)
    with capsys.disabled():
        sys.stdout.write(f"\n{name}\n{outcomes}\n")
    assert not outcomes.failures
