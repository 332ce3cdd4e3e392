"""What `import metatl` gives."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import metatl


@pytest.mark.parametrize("name", metatl.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert name in dir(metatl)
    assert getattr(metatl, name).__doc__


def test_the_version_is_that_of_the_package():
    assert metatl.__version__ == metadata.version("metatl")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'metatl' has no attribute 'fitt'"):
        _ = metatl.fitt


def test_the_import_loads_none_of_the_large_libraries():
    program = (
        "import sys, metatl; assert not {'torch', 'polars', 'numpy', 'importlib.metadata'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
