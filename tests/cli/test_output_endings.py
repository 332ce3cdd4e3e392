"""The ending of an output decides its format; a name that says another format is refused before the work."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import metatl
import metatl.evaluation.per_user_files
from metatl.cli.metatl.main import main
from metatl.cli.metatl_eval.main import main as evaluate
from metatl.common.files import write_table
from metatl.exceptions import ConfigError, DataError, InvalidArgumentError

READERS = {
    ".parquet": pl.read_parquet,
    ".csv": pl.read_csv,
    ".tsv": lambda path: pl.read_csv(path, separator="\t"),
    ".jsonl": pl.read_ndjson,
}


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, visitors, candidates, scores and two per-user files."""
    folder = tmp_path_factory.mktemp("endings")
    metatl.fit("wines", model="popularity", out=folder / "run")
    metatl.datasets.xwines().to_frame().head(300).write_parquet(folder / "visitors.parquet")
    wines = metatl.datasets.xwines()
    split = metatl.cold_start_split(wines, k=3)
    sets = metatl.sample_candidate_sets(split, split.test, n=5)
    sets.save(folder / "candidates.parquet")
    scores = np.random.default_rng(0).random(sets.candidates.shape, np.float32)
    np.save(folder / "scores.npy", scores)
    for name in ("a", "b"):
        metatl.evaluate_scores(scores, sets, name=name).write_per_user(folder / f"{name}.parquet")
    return folder


def commands(folder, out):
    return {
        "recommend": (
            main,
            "recommend",
            folder / "run",
            "--input",
            folder / "visitors.parquet",
            "--out",
            out,
            "--top",
            3,
        ),
        "per user": (
            evaluate,
            "scores",
            folder / "candidates.parquet",
            folder / "scores.npy",
            "--per-user",
            out,
        ),
        "train": (evaluate, "candidates", "wines", "-o", folder / "again.parquet", "--n", 5, "--train", out),
        "differences": (evaluate, "compare", folder / "a.parquet", folder / "b.parquet", "--users", out),
    }


@pytest.mark.parametrize("command", ["recommend", "per user", "train", "differences"])
def test_each_ending_holds_its_format(folder, tmp_path, command):
    tables = {}
    for ending, read in READERS.items():
        out = tmp_path / f"out{ending.upper() if ending == '.csv' else ending}"
        result = run(*commands(folder, out)[command])
        assert result.exit_code == 0, result.output
        tables[ending] = read(out)
    expected = tables[".parquet"]
    for table in tables.values():
        assert table.columns == expected.columns
        for name in expected.columns:
            if expected[name].dtype.is_float():
                np.testing.assert_allclose(table[name].to_numpy(), expected[name].to_numpy(), rtol=1e-6)
            elif not expected[name].dtype.is_temporal():
                assert table[name].to_list() == expected[name].to_list()


@pytest.mark.parametrize("command", ["recommend", "per user", "train", "differences"])
@pytest.mark.parametrize("name", ["out", "out.txt", "out.csv.zip", "out.xlsx", ".parquet"])
def test_an_unknown_ending_is_refused_before_the_work(folder, tmp_path, command, name):
    result = run(*commands(folder, tmp_path / name)[command])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "expected a name that ends in .parquet, .csv, .tsv or .jsonl" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--json", "--markdown", "--latex"])
@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.npy"])
def test_a_text_is_not_written_under_the_name_of_a_table(folder, tmp_path, option, name):
    scores = run(
        evaluate, "scores", folder / "candidates.parquet", folder / "scores.npy", option, tmp_path / name
    )
    compared = run(evaluate, "compare", folder / "a.parquet", folder / "b.parquet", option, tmp_path / name)
    for result in (scores, compared):
        assert result.exit_code == 2
        assert f"{option}: found {tmp_path / name}, whose ending says another format" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_candidates_and_records_need_parquet(folder, tmp_path):
    result = run(evaluate, "candidates", "wines", "-o", tmp_path / "c.csv")
    assert result.exit_code == 2
    assert f"--out: found {tmp_path / 'c.csv'}, expected a name that ends in .parquet" in result.stderr
    sets = metatl.CandidateSets.load(folder / "candidates.parquet")
    with pytest.raises(
        InvalidArgumentError, match=r"path: found .*c\.csv, expected a name that ends in \.parquet"
    ):
        sets.save(tmp_path / "c.csv")
    run(*commands(folder, tmp_path / "users.csv")["per user"])
    result = run(evaluate, "compare", tmp_path / "users.csv", folder / "a.parquet")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    with pytest.raises(DataError, match=r"users\.csv: found no Parquet"):
        metatl.evaluation.per_user_files.read_per_user(tmp_path / "users.csv")


def test_a_device_gets_parquet(folder):
    assert run(*commands(folder, "/dev/null")["recommend"]).exit_code == 0
    with pytest.raises(ConfigError, match="path: found x, expected a name"):
        write_table("x", pl.DataFrame({"a": [1]}))
