"""The types of errors: metatl's own, and those that Python has for the same mistakes."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import metatl
from metatl import _metatl, datasets, exceptions
from metatl.common.files import replace_file
from metatl.data.candidates import CandidateSets
from metatl.data.readers.interaction_files import read_interactions
from metatl.data.readers.parquet_files import open_parquet, read_parquet
from metatl.data.user_attributes import read_attributes
from metatl.evaluation.external.evaluate_lists import evaluate_lists
from metatl.evaluation.external.evaluate_scores import evaluate_scores
from metatl.evaluation.per_user_files import read_per_user
from metatl.exceptions import ArgumentTypeError, ConfigError, InvalidArgumentError, MetatlError
from metatl.models.metatl.config import MetaTLConfig
from metatl.runs.checkpoints import load_checkpoint


def interactions():
    frame = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": [1, 2, 3]})
    return metatl.Interactions.from_frame(frame)


def split(**settings):
    return metatl.cold_start_split(interactions(), **settings)


WRONG_VALUES = {
    "k: found 0, expected a whole number of at least 1": lambda: split(k=0),
    "repeats: found 'last', expected one of first, all": lambda: metatl.Interactions.from_frame(
        interactions().to_frame(), repeats="last"
    ),
    "count: found -1, expected an integer from 0 to 2**63 - 1": lambda: _metatl.random_order(-1, seed=0),
    "k: found 0, expected a whole number of at least 1 ": lambda: metatl.SplitSettings(k=0),
}
WRONG_TYPES = {
    "k: found 2.0, expected a whole number of at least 1": lambda: split(k=2.0),
    "k: found True, expected a whole number of at least 1": lambda: split(k=True),
    "cutoff: found str, expected a date or datetime": lambda: split(k=1, cutoff="2020-01-01"),
    "path: found int, expected the directory of a run": lambda: metatl.load_run(3),
    "cutoff: found int, expected a date": lambda: metatl.SplitSettings(cutoff=2020),
    "count: found '3', expected an integer from 0 to 2**63 - 1": lambda: _metatl.random_order("3", seed=0),
    "indptr: found list, expected a C-contiguous 1-d array of int64": lambda: _metatl.Interactions(
        [0], np.zeros(0, np.int64), 1
    ),
    "items: found an array of int32, expected a C-contiguous 1-d array of int64": lambda: (
        _metatl.Interactions(np.zeros(1, np.int64), np.zeros(0, np.int32), 1)
    ),
}
WRONG_SETTINGS = {
    "preset: found 'papr', expected one of": lambda: MetaTLConfig.preset("papr"),
    "split: there is no setting 'kk'; there are k, cutoff": lambda: metatl.SplitSettings(kk=3),
    "unseen_items: found 'lose', ": lambda: metatl.SplitSettings(unseen_items="lose"),
    "columns: found names, expected none: the bundled wines need none": lambda: datasets.load(
        "wines", ["a", "b", "c"]
    ),
}
MISSING_FILES = {
    "none.csv": datasets.load,
    "none.tsv": read_interactions,
    "none/none.csv": read_interactions,
    "none.parquet": read_parquet,
    "blocks.parquet": open_parquet,
    "candidates.parquet": CandidateSets.load,
    "scores.npy": evaluate_scores,
    "scores.parquet": evaluate_scores,
    "users.parquet": read_per_user,
    "attributes.csv": read_attributes,
}
MISSING_RUNS = {
    "run": (
        metatl.load_run,
        "{}: found no run.json; expected the directory that `metatl train --out` wrote",
        "run/run.json",
    ),
    "best.safetensors": (load_checkpoint, "{}: found no such checkpoint", "best.safetensors"),
}


def caught(call, kind):
    """The error of a call, which is caught as a type of Python's and as MetatlError alike."""
    with pytest.raises(kind) as error:
        call()
    with pytest.raises(MetatlError) as again:
        call()
    assert type(again.value) is type(error.value)
    assert str(again.value) == str(error.value)
    return error.value


def assert_survives_pickling(error):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


@pytest.mark.parametrize("message", WRONG_VALUES)
def test_a_wrong_value_is_a_value_error(message):
    error = caught(WRONG_VALUES[message], ValueError)
    assert type(error) is InvalidArgumentError
    assert not isinstance(error, TypeError)
    assert str(error) == message.strip()
    assert_survives_pickling(error)


@pytest.mark.parametrize("message", WRONG_TYPES)
def test_a_wrong_type_is_a_type_error(message):
    error = caught(WRONG_TYPES[message], TypeError)
    assert type(error) is ArgumentTypeError
    assert isinstance(error, InvalidArgumentError)
    assert isinstance(error, ValueError)
    assert str(error) == message
    assert_survives_pickling(error)


@pytest.mark.parametrize("message", WRONG_SETTINGS)
def test_a_wrong_setting_is_a_value_error(message):
    error = caught(WRONG_SETTINGS[message], ValueError)
    assert type(error) is ConfigError
    assert str(error).startswith(message)
    assert "\n" not in str(error)
    assert_survives_pickling(error)


@pytest.mark.parametrize("name", MISSING_FILES)
def test_a_missing_data_file_is_a_file_not_found_error(tmp_path, name):
    path = tmp_path / name
    error = caught(lambda: MISSING_FILES[name](path), FileNotFoundError)
    assert type(error) is exceptions.MissingFileError
    assert isinstance(error, exceptions.DataError)
    assert str(error) == f"{path}: found no such file"
    assert (error.errno, error.filename) == (errno.ENOENT, str(path))
    assert error.strerror == os.strerror(errno.ENOENT)
    assert_survives_pickling(error)


def test_missing_files_of_rankings_are_file_not_found_errors(tmp_path):
    path = tmp_path / "run.trec"
    error = caught(lambda: evaluate_lists(path, tmp_path / "qrels"), FileNotFoundError)
    assert str(error) == f"{path}: found no such file"


@pytest.mark.parametrize("name", MISSING_RUNS)
def test_a_missing_run_is_a_file_not_found_error(tmp_path, name):
    load, message, file = MISSING_RUNS[name]
    error = caught(lambda: load(tmp_path / name), FileNotFoundError)
    assert type(error) is exceptions.MissingRunError
    assert isinstance(error, exceptions.RunError)
    assert str(error) == message.format(tmp_path / name)
    assert (error.errno, error.filename) == (errno.ENOENT, str(tmp_path / file))
    assert_survives_pickling(error)


def test_a_missing_file_keeps_its_type_and_name_while_another_is_written(tmp_path):
    with (
        pytest.raises(exceptions.MissingFileError, match=r"none\.csv: found no such file"),
        replace_file(tmp_path / "out"),
    ):
        read_interactions(tmp_path / "none.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["stats", "none.csv"],
        ["train", "--data", "none.csv", "--out", "run"],
        ["recommend", "none", "--history", "1"],
    ],
)
def test_commands_say_in_one_line_what_is_missing(tmp_path, arguments):
    program = f"from metatl.cli.metatl.main import main; main({arguments})"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 2
    assert result.stderr.startswith("Error: none")
    assert "found no" in result.stderr
    assert result.stderr.count("\n") == 1


def test_every_error_has_the_one_base():
    kinds = [getattr(exceptions, name) for name in exceptions.__all__ if name != "MetatlWarning"]
    assert all(issubclass(kind, MetatlError) for kind in kinds)
    # What has a builtin type is of it; nothing else is.
    builtin = {kind.__name__ for kind in kinds if issubclass(kind, (ValueError, TypeError, OSError))}
    assert builtin == {
        *("ArgumentTypeError", "ConfigError", "InvalidArgumentError"),
        *("MissingFileError", "MissingRunError"),
    }
