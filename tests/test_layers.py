"""What the layers contract of `make lint` cannot see: which modules load torch when they are imported."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import metatl

WITHOUT_TORCH = (
    "metatl.common",
    "metatl.data",
    "metatl.metrics",
    "metatl.datasets",
    "metatl.models.contract",
    "metatl.evaluation.external",
    "metatl.evaluation.comparison",
    "metatl.cli",
)


def modules_below(name):
    modules = [module.name for module in pkgutil.walk_packages(metatl.__path__, "metatl.")]
    return [name, *(module for module in modules if module.startswith(f"{name}."))]


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_a_room_loads_no_torch_when_it_is_imported(room):
    modules = modules_below(room)
    program = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'lightning_fabric', 'triton'} & {*sys.modules}, name\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_room_has_modules():
    assert all(len(modules_below(room)) > 1 for room in WITHOUT_TORCH if room != "metatl.models.contract")
