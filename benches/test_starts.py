"""Start time of a command, compared with an interpreter that imports numpy and one that imports torch."""

import subprocess
import sys

import pytest

WORK = "start: `metatl-eval scores --help`"
PEERS = {"python, import numpy and polars": "import numpy, polars", "python, import torch": "import torch"}


def start(*arguments):
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=60)


def test_start_metatl(measure):
    measure(
        lambda: start("-m", "metatl.cli.metatl_eval.main", "scores", "--help"),
        work=WORK,
        system="metatl",
        units=1,
        unit="starts",
        rounds=10,
    )


@pytest.mark.parametrize("peer", PEERS)
def test_start_peers(measure, peer):
    measure(lambda: start("-c", PEERS[peer]), work=WORK, system=peer, units=1, unit="starts", rounds=3)
