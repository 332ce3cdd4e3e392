"""`metatl-eval compare` as people run it."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import polars as pl
import pytest
from click.testing import CliRunner

from metatl.cli.metatl_eval.compare import compare
from metatl.evaluation.comparison.paired_comparison import compare_users, comparison_schema
from metatl.evaluation.per_user_files import read_per_user, write_per_user
from per_user_data import METRICS, record_of, system


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    paths = []
    for seed, name in enumerate(("knn", "sas_rec", "metatl")):
        paths.append(folder / f"{name}.parquet")
        record, frame = system(name, seed)
        write_per_user(paths[-1], frame, record)
    return paths


def run(*arguments):
    return CliRunner().invoke(compare, [str(argument) for argument in arguments])


def assert_one_line(result, *parts):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


def test_every_output_is_written(files, tmp_path):
    names = {
        "--json": "report.json",
        "--markdown": "report.md",
        "--latex": "report.tex",
        "--users": "users.parquet",
        "--plot": "report.svg",
    }
    options = [part for option, name in names.items() for part in (option, tmp_path / name)]
    result = run(*files, "--resamples", 99, "--seed", 3, "--threads", 2, "--top", 1, *options)
    assert result.exit_code == 0, result.output
    assert "sas_rec against knn among sampled candidates, 40 users" in result.output
    assert "metatl against knn among all items, 40 users" in result.output
    assert "users who gain and lose most by MRR" in result.output
    content = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(content, json.loads(comparison_schema()))
    report = compare_users([read_per_user(file) for file in files], resamples=99, seed=3)
    assert content == json.loads(report.model_dump_json())
    users = pl.read_parquet(tmp_path / "users.parquet")
    assert users.columns == ["user_id", "system", "ranking", *METRICS]
    for found in report.differences:
        mine = users.filter(system=found.system, ranking=found.ranking)
        assert mine[found.metric].mean() == pytest.approx(found.difference)
        assert len(mine) == 40
    assert "# Compared with knn" in (tmp_path / "report.md").read_text()
    assert r"\toprule" in (tmp_path / "report.tex").read_text()
    assert "<svg" in (tmp_path / "report.svg").read_text()


def test_what_is_compared_is_not_written_over(files, tmp_path):
    before = files[1].read_bytes()
    assert_one_line(run(*files, "--users", files[1]), "--users: found", "which the command reads")
    twice = tmp_path / "report"
    assert_one_line(run(*files, "--json", twice, "--latex", twice), "--latex: found", "--json names too")
    assert files[1].read_bytes() == before
    assert not twice.exists()


def test_options_reach_the_comparison(files, tmp_path):
    out = tmp_path / "report.json"
    result = run(*files[:2], "--metrics", "hr@10", "--ranking", "full", "--resamples", 50, "--json", out)
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    assert (content["metrics"], content["rankings"]) == (["HR@10"], ["full"])
    assert (content["resamples"], content["seed"]) == (50, 0)
    assert "sampled" not in result.output
    assert "gain and lose most" not in result.output


def test_runs_of_one_system_are_told_apart_by_their_files(files, tmp_path):
    again = tmp_path / "again.parquet"
    record, frame = system("knn", 7)
    write_per_user(again, frame, record)
    out = tmp_path / "report.json"
    assert run(files[0], files[1], again, "--resamples", 9, "--json", out).exit_code == 0
    content = json.loads(out.read_text())
    assert content["baseline"] == f"knn ({files[0]})"
    assert content["systems"] == ["sas_rec", f"knn ({again})"]
    assert_one_line(run(files[0], files[0]), "found the systems", str(files[0]))


def test_bad_input_is_one_line(files, tmp_path):
    out = tmp_path / "report.json"
    out.write_text("old")
    assert_one_line(run(files[0], "--json", out), "found 1, expected at least 2")
    assert_one_line(run(files[0], tmp_path / "nothing.parquet"), "nothing.parquet", "no such file")
    assert_one_line(run(*files, "--metrics", "MAP", "--json", out), "unknown metric 'MAP'")
    assert_one_line(run(*files, "--metrics", "HR@3", "--json", out), "knn", "no metric 'HR@3'")
    assert_one_line(run(*files, "--plot", tmp_path / "plot.pdf", "--json", out), "plot.pdf", ".png or .svg")
    foreign = tmp_path / "foreign.parquet"
    read_per_user(files[0])[1].write_parquet(foreign)
    assert_one_line(run(files[0], foreign, "--json", out), "foreign.parquet", "--per-user")
    other = tmp_path / "other.parquet"
    write_per_user(other, system("new", 3)[1], record_of("new", candidates_sha256="ef" * 32))
    assert_one_line(run(files[0], other, "--json", out), "knn and new", "SHA-256", "--candidates")
    assert run(files[0], other, "--ranking", "full", "--resamples", 9).exit_code == 0
    fewer = tmp_path / "fewer.parquet"
    write_per_user(fewer, system("new", 3, users=30)[1], record_of("new"))
    assert_one_line(run(files[0], fewer, "--json", out), "10 users only in knn and 0 only in new")
    assert_one_line(run(*files, "--resamples", 9, "--json", tmp_path / "no" / "report.json"), "report.json")
    assert out.read_text() == "old"
    assert list(tmp_path.glob(".*.tmp")) == []


def test_help_loads_nothing_heavy():
    script = (
        "import sys\n"
        "from metatl.cli.metatl_eval.compare import compare\n"
        "compare(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'polars', 'pydantic', 'scipy', 'rich', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "metatl-eval compare knn.parquet metatl.parquet\n" in done.stdout


def test_no_torch_and_a_picture_only_where_it_is_asked_for(files):
    script = (
        "import sys\n"
        "from metatl.cli.metatl_eval.compare import compare\n"
        f"compare([{str(files[0])!r}, {str(files[1])!r}, '--resamples', '9'], standalone_mode=False)\n"
        "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
