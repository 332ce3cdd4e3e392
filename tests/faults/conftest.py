"""Fixtures of the fault tests."""

import pytest

from faulty_commands import CommandServer, why_not_here
from kill_scenarios import Scenarios


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    reason = why_not_here()
    if reason is not None:
        pytest.skip(reason)
    with CommandServer(tmp_path_factory.mktemp("server").resolve()) as started:
        yield started


@pytest.fixture(scope="session")
def scenarios(server, tmp_path_factory):
    return Scenarios(server, tmp_path_factory.mktemp("scenarios").resolve())
