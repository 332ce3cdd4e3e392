"""A data file that the training tests share."""

import pytest

from planted_data import write_ring


@pytest.fixture(scope="session")
def interactions_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "ring.csv"
    return write_ring(path, 1500, items=300, rows=(5, 9), first=0, gap=1_000_000)
