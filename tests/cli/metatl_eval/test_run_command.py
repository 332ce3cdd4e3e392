"""`metatl-eval` as people run it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import metatl
from metatl.cli.metatl_eval.main import COMMANDS, main
from metatl.evaluation.report.results import results_schema
from metatl.metrics.names import DEFAULT_METRICS
from planted_data import write_ring

RING = {"users": 400, "items": 200, "first": 0, "gap": 1_000_000}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = write_ring(folder / "ring.csv", **RING)
    metatl.fit(data, model="knn", out=folder / "knn", device="cpu")
    return folder / "knn"


def evaluate(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_one_line(result, *parts):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


def test_results_and_ranks_are_written(run, tmp_path):
    out, per_user = tmp_path / "results.json", tmp_path / "ranks.parquet"
    result = evaluate(run, "--out", out, "--per-user", per_user)
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    jsonschema.validate(content, json.loads(results_schema()))
    assert content["model"]["name"] == "knn"
    assert content["candidates"]["n"] == 100
    frame = pl.read_parquet(per_user)
    for ranking in ("sampled", "full"):
        mine = frame.filter(pl.col("ranking") == ranking)
        for name in DEFAULT_METRICS:
            value = content["metrics"][ranking][name]["value"]
            assert value == pytest.approx(mine[name].mean())
            assert f"{value:.4f}".removeprefix("0") in result.output
    assert set(frame["user_id"].unique()) <= {f"u{user}" for user in range(400)}
    for stage in ("read", "split", "candidates", "encode", "rank", "lists", "metrics"):
        assert stage in result.output
        assert content["timings"][stage] >= 0


def test_options_reach_the_evaluation(run, tmp_path):
    out = tmp_path / "results.json"
    options = ["--k", 2, "--candidates", "pop50", "--seed", 7, "--ties", "mean", "--metrics", "hr@3,MRR"]
    result = evaluate(run, *options, "--threads", 1, "--device", "cpu", "--out", out)
    assert result.exit_code == 0, result.output
    content = json.loads(out.read_text())
    assert content["protocol"]["k"] == 2
    assert content["protocol"]["ties"] == "mean"
    assert content["protocol"]["bootstrap"]["seed"] == 7
    assert {key: content["candidates"][key] for key in ("kind", "n", "seed")} == {
        "kind": "popularity", "n": 50, "seed": 7,
    }  # fmt: skip
    assert list(content["metrics"]["full"]) == ["HR@3", "MRR", "AUC", "mean rank", "median rank"]


def test_the_item_table_can_be_rounded(run, tmp_path):
    wines = tmp_path / "wines"
    small = {"max_steps": 20, "eval_every": 20}
    metatl.fit("wines", config=small, out=wines, device="cpu")
    ranks, contents = {}, {}
    for item_format in ("float32", "bf16", "int8"):
        out, per_user = tmp_path / f"{item_format}.json", tmp_path / f"{item_format}.parquet"
        result = evaluate(wines, "--item-table", item_format, "--json", out, "--per-user", per_user)
        assert result.exit_code == 0, result.output
        contents[item_format] = json.loads(out.read_text())
        jsonschema.validate(contents[item_format], json.loads(results_schema()))
        assert contents[item_format]["model"]["item_table"] == item_format
        assert ("int8 item table" in result.output) == (item_format == "int8")
        ranks[item_format] = pl.read_parquet(per_user)["rank"].to_numpy()
    exact = metatl.evaluate(metatl.load_run(wines), item_table="int8")
    assert contents["int8"]["metrics"]["full"]["MRR"]["value"] == exact.metrics.full["MRR"].value
    same = [(ranks[item_format] == ranks["float32"]).mean() for item_format in ("bf16", "int8")]
    assert 1 > same[0] > same[1] > 0.5
    assert_one_line(
        evaluate(run, "--item-table", "int8"), "--item-table", "ItemKNN has no item vectors to round"
    )


def test_moved_data_is_found_with_an_option(run, tmp_path):
    source = Path(json.loads((run / "run.json").read_text())["data"])
    moved = tmp_path / "moved.csv"
    moved.write_bytes(source.read_bytes())
    assert evaluate(run, "--data", moved).exit_code == 0
    other = write_ring(tmp_path / "other.csv", **{**RING, "users": 300})
    out = tmp_path / "results.json"
    out.write_text("old")
    assert_one_line(evaluate(run, "--data", other, "--out", out), "other.csv", "fingerprint", "--data")
    assert out.read_text() == "old"


def test_data_that_are_not_there_are_asked_for(run, tmp_path):
    moved = copy_of(run, tmp_path / "moved")
    record = json.loads((run / "run.json").read_text())
    (moved / "run.json").write_text(json.dumps({**record, "data": "/gone/ring.csv"}))
    assert_one_line(evaluate(moved), "/gone/ring.csv: found no such file", "say with --data where it is now")
    (moved / "run.json").write_text(json.dumps({**record, "data": None}))
    assert_one_line(evaluate(moved), f"{moved}: the run was fitted on interactions in memory", "--data")
    assert evaluate(moved, "--data", record["data"]).exit_code == 0


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--metrics", "MAP"], ["unknown metric 'MAP'", "MRR, MRR@k, HR@k and NDCG@k"]),
        (["--candidates", "top10"], ["found 'top10'", "uni100"]),
        (["--candidates", "uni199"], ["199", "fewer candidates"]),
        (["--k", "50"], ["50"]),
        (["--data", "missing.csv"], ["missing.csv"]),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, options, parts):
    out = tmp_path / "results.json"
    out.write_text("old")
    assert_one_line(evaluate(run, *options, "--out", out), *parts)
    assert out.read_text() == "old"


def copy_of(run, folder):
    folder.mkdir()
    for file in run.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_damaged_runs_are_one_line(run, tmp_path):
    assert_one_line(evaluate(tmp_path / "nothing"), "nothing", "run.json")
    damaged = copy_of(run, tmp_path / "damaged")
    weights = bytearray((damaged / "best.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "best.safetensors").write_bytes(weights)
    assert_one_line(evaluate(damaged), "best.safetensors", "damaged")
    (damaged / "best.safetensors").write_bytes(weights[: len(weights) // 2])
    assert_one_line(evaluate(damaged), "best.safetensors", "damaged")
    (damaged / "best.safetensors").unlink()
    (damaged / "best.safetensors").mkdir()
    assert_one_line(evaluate(damaged), "best.safetensors: found a folder, expected a checkpoint")
    (damaged / "run.json").write_text("[" * 100_000)
    assert_one_line(evaluate(damaged), "run.json: not JSON", "train again")
    other = copy_of(run, tmp_path / "other")
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**record, "format_version": 99}))
    assert_one_line(evaluate(other), "99", "train again")
    # A field with a default of today's would be read as what the run was trained with.
    known = {name: value for name, value in record["config"].items() if name != "second_step"}
    (other / "run.json").write_text(json.dumps({**record, "config": known}))
    assert_one_line(evaluate(other), "run.json: found no config.second_step", "train again")


def test_a_full_disk_is_one_line(run, tmp_path):
    script = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))\n"
        "from metatl.cli.metatl_eval.main import main\n"
        "main()\n"
    )
    for option, name in (("--out", "results.json"), ("--per-user", "ranks.parquet")):
        path = tmp_path / name
        path.write_text("old")
        result = subprocess.run(
            [sys.executable, "-c", script, str(run), option, str(path)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert result.returncode == 2, result.stderr
        assert name in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert path.read_text() == "old"
        assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []


def run_python(script):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize("command", [None, *main.commands_at])
def test_help_loads_nothing_heavy(command):
    # What that is in seconds is a benchmark: benches/test_starts.py.
    arguments = ["--help"] if command is None else [command, "--help"]
    script = (
        "import sys\n"
        "from metatl.cli.metatl_eval.main import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'polars', 'pydantic', 'scipy', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert run_python(script).splitlines()[-1] == "[]"


def test_a_model_without_torch_loads_no_torch(run):
    script = (
        "import sys\n"
        "from metatl.cli.metatl_eval.main import main\n"
        f"main([{str(run)!r}], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    assert run_python(script).splitlines()[-1] == "False"


def test_the_short_form_is_that_of_run(run, tmp_path):
    files = [tmp_path / "short.json", tmp_path / "long.json"]
    assert evaluate(run, "--out", files[0]).exit_code == 0
    assert evaluate("run", run, "--json", files[1]).exit_code == 0
    short, long = (json.loads(file.read_text()) for file in files)
    assert {**short, "timings": None} == {**long, "timings": None}
    assert evaluate("--k", 2, run).exit_code == 0


def test_every_command_has_help_with_examples():
    assert set(COMMANDS) == {"run", "candidates", "scores", "embeddings", "trec", "compare"}
    for name in COMMANDS:
        result = evaluate(name, "--help")
        assert result.exit_code == 0, result.output
        assert f"metatl-eval {name} " in result.output
        assert "Examples:" in result.output
        assert name in evaluate("--help").output
    assert (
        evaluate("--version").output.startswith("metatl-eval, version")
        or "version" in evaluate("--version").output
    )


def test_several_runs_write_a_file_each(run, tmp_path):
    data = json.loads((run / "run.json").read_text())["data"]
    metatl.fit(data, model="popularity", out=tmp_path / "popularity", device="cpu")
    folders = [option for name in ("json", "per-user") for option in (f"--{name}", tmp_path / name)]
    result = evaluate("run", run, tmp_path / "popularity", *folders)
    assert result.exit_code == 0, result.output
    files = [tmp_path / "per-user" / f"{name}.parquet" for name in ("knn", "popularity")]
    assert all(file.is_file() for file in files)
    assert sorted(file.name for file in (tmp_path / "json").iterdir()) == ["knn.json", "popularity.json"]
    compared = evaluate("compare", *files, "--resamples", 200)
    assert compared.exit_code == 0, compared.output
    assert "popularity" in compared.output
    one_file = evaluate("run", run, tmp_path / "popularity", "--json", files[0])
    assert_one_line(one_file, f"--json: found the file {files[0]}, expected a folder: several runs")
    again = evaluate("run", run, run)
    assert again.exit_code == 2
    assert "two runs are called 'knn'" in again.stderr


def test_tables_are_written_as_markdown_and_latex(run, tmp_path):
    files = ["--markdown", tmp_path / "table.md", "--latex", tmp_path / "table.tex"]
    result = evaluate(run, *files, "--by", "item_popularity", "--metrics", "MRR")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "table.md").read_text()
    assert text.count("| --- |") == 3
    assert "| MRR | 0." in text
    assert "By item_popularity: all items" in text
    latex = (tmp_path / "table.tex").read_text()
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 3
    assert r"item\_popularity" in latex


@pytest.fixture(scope="module")
def stranger(run, tmp_path_factory):
    """Candidates of the run's data, and scores of a model that has never heard of metatl."""
    folder = tmp_path_factory.mktemp("stranger")
    data = json.loads((run / "run.json").read_text())["data"]
    files = ["-o", folder / "candidates.parquet", "--train", folder / "train.parquet"]
    result = evaluate("candidates", data, *files)
    assert result.exit_code == 0, result.output
    frame = pl.read_parquet(folder / "candidates.parquet")
    scores = np.random.default_rng(2).random((len(frame), 101)).astype(np.float32)
    scores[:, 0] += 0.3
    np.save(folder / "scores.npy", scores)
    return folder


def test_scores_of_a_stranger(stranger, tmp_path):
    candidates, scores = stranger / "candidates.parquet", stranger / "scores.npy"
    files = [tmp_path / "all.json", tmp_path / "bare.json", tmp_path / "ranks.parquet"]
    result = evaluate("scores", candidates, scores, "--json", files[0], "--per-user", files[2])
    assert result.exit_code == 0, result.output
    assert "corrected, bias-variance" in result.output.replace("\n", " ") or "corrected" in result.output
    content = json.loads(files[0].read_text())
    jsonschema.validate(content, json.loads(results_schema()))
    assert content["source"]["files"] == {"candidates": str(candidates), "scores": str(scores)}
    bare = evaluate("scores", "--no-candidates", scores, "--json", files[1])
    assert bare.exit_code == 0, bare.output
    unchecked = json.loads(files[1].read_text())
    assert unchecked["metrics"]["sampled"] == content["metrics"]["sampled"]
    assert len(unchecked["notes"]) == 1
    frame = pl.read_parquet(files[2])
    assert frame["user_id"].equals(pl.read_parquet(candidates)["user_id"])


def test_embeddings_and_lists_of_a_stranger(stranger, tmp_path):
    candidates = pl.read_parquet(stranger / "candidates.parquet")
    items = pl.concat([candidates["target"], candidates["negatives"].explode()]).unique().sort()
    generator = np.random.default_rng(0)
    np.save(tmp_path / "q.npy", generator.normal(size=(len(candidates), 4)).astype(np.float32))
    np.save(tmp_path / "e.npy", generator.normal(size=(len(items), 4)).astype(np.float32))
    items.alias("item_id").to_frame().write_parquet(tmp_path / "ids.parquet")
    options = [
        "--queries",
        tmp_path / "q.npy",
        "--items",
        tmp_path / "e.npy",
        "--item-ids",
        tmp_path / "ids.parquet",
    ]
    result = evaluate("embeddings", stranger / "candidates.parquet", *options, "--similarity", "l2")
    assert result.exit_code == 0, result.output
    assert "all items" in result.output
    run_file, qrels = tmp_path / "run.txt", tmp_path / "qrels.txt"
    lines = [f"{user} Q0 {target} 1 2.0 x" for user, target in candidates.select("user_id", "target").rows()]
    run_file.write_text("\n".join(lines))
    qrels.write_text(
        "\n".join(f"{user} 0 {target} 1" for user, target in candidates.select("user_id", "target").rows())
    )
    result = evaluate("trec", "--run", run_file, "--qrels", qrels, "--metrics", "MRR")
    assert result.exit_code == 0, result.output
    assert "1.0000" in result.output
    assert evaluate("trec", "--run", run_file, "--qrels", stranger / "candidates.parquet").exit_code == 0


def test_what_strangers_get_wrong_is_one_line(stranger, tmp_path):
    candidates, scores = stranger / "candidates.parquet", np.load(stranger / "scores.npy")
    np.save(tmp_path / "flags.npy", scores > 0)
    np.save(tmp_path / "short.npy", scores[1:])
    broken = scores.copy()
    broken[0] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    (tmp_path / "text.csv").write_text("user_id,item_id,score\nu1,i1,high\n")
    (tmp_path / "bare.csv").write_text("0.3,0.1,0.2\n0.1,0.2,0.3\n")
    (tmp_path / "cut.parquet").write_bytes(candidates.read_bytes()[:-100])
    out = tmp_path / "results.json"
    out.write_text("old")
    for files, parts in (
        ([candidates, tmp_path / "flags.npy"], ["flags.npy", "bool", "float32"]),
        ([candidates, tmp_path / "short.npy"], ["short.npy", "shape"]),
        ([candidates, tmp_path / "nan.npy"], ["nan.npy: scores: found 101 NaN"]),
        ([candidates, tmp_path / "text.csv"], ["text.csv", "line 2", "'score'", "'high'"]),
        ([candidates, tmp_path / "none.npy"], ["none.npy", "no such file"]),
        (["--no-candidates", tmp_path / "bare.csv"], ["bare.csv", "line 1", "found numbers", "header"]),
        ([candidates, stranger / "scores.npy", "--metrics", f"HR@{10**20}"], ["HR@1", "known are"]),
        ([tmp_path / "cut.parquet", stranger / "scores.npy"], ["cut.parquet"]),
        ([stranger / "scores.npy", stranger / "scores.npy"], ["scores.npy", "Parquet"]),
    ):
        assert_one_line(evaluate("scores", *files, "--out", out), *parts)
        assert out.read_text() == "old"
    assert evaluate("scores", candidates).exit_code == 2


def test_attributes_that_cannot_be_read_are_one_line(run, tmp_path):
    twice = tmp_path / "twice.csv"
    twice.write_text("user_id,country\nu1,de\nu7,de\nu2,fr\nu7,fr\n")
    for path, parts in (
        (tmp_path / "none.csv", ["none.csv: found no such file"]),
        (tmp_path, ["found a folder, expected a file"]),
        (Path("/dev/null"), ["/dev/null: found an empty file"]),
        (twice, ["twice.csv: attributes: found the user 'u7' more than once, expected one row a user"]),
    ):
        assert_one_line(evaluate(run, "--attributes", path, "--by", "country"), *parts)


def test_columns_may_be_called_by_numbers(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("0,1,2\n3,1,2\n1,2,3\n")
    result = evaluate("scores", "--no-candidates", path, "--metrics", "HR@1", "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["metrics"]["sampled"]["HR@1"]["value"] == 0.5


def test_inputs_are_not_written_over(run, stranger, tmp_path):
    candidates, scores = stranger / "candidates.parquet", stranger / "scores.npy"
    attributes, twice = tmp_path / "attributes.csv", tmp_path / "twice"
    attributes.write_text("user_id,country\n")
    data = Path(json.loads((run / "run.json").read_text())["data"])
    read = {path: path.read_bytes() for path in (candidates, scores, attributes, run / "run.json", data)}
    for option in ("--json", "--markdown", "--latex", "--per-user"):
        for path in (candidates, scores, attributes):
            result = evaluate("scores", candidates, scores, "--attributes", attributes, option, path)
            assert_one_line(result, f"{option}: found {path}, which the command reads")
        assert_one_line(evaluate(run, option, run / "run.json"), f"{option}: found", "run.json")
        # The run's data are read too, though no option names them.
        assert_one_line(evaluate(run, option, data), f"{option}: found {data}, which the command reads")
    result = evaluate("scores", candidates, scores, "--json", run / "metrics.json")
    assert_one_line(result, "--json: found", "metrics.json, a file of a run")
    result = evaluate("scores", candidates, scores, "--json", twice, "--per-user", twice)
    assert_one_line(result, "--per-user: found", "which --json names too")
    assert not twice.exists()
    assert {path: path.read_bytes() for path in read} == read


def test_more_items_than_there_are_make_a_list_of_all(run, tmp_path):
    result = evaluate(run, "--top", 10**12, "--metrics", "MRR", "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output


def test_a_run_is_compared_with_a_strangers_scores(run, stranger, tmp_path):
    """Both say which data and which candidates they are of, and it is the same."""
    ours, theirs = tmp_path / "run.parquet", tmp_path / "scores.parquet"
    for result in (
        evaluate(run, "--per-user", ours),
        evaluate("scores", stranger / "candidates.parquet", stranger / "scores.npy", "--per-user", theirs),
    ):
        assert result.exit_code == 0, result.output
    out = tmp_path / "comparison.json"
    result = evaluate("compare", ours, theirs, "--resamples", 99, "--json", out)
    assert result.exit_code == 0, result.output
    frames = [pl.read_parquet(path).filter(pl.col("ranking") == "sampled") for path in (ours, theirs)]
    means = [frame["MRR"].mean() for frame in frames]
    assert f"{means[1] - means[0]:+.4f}".replace("0.", ".") in result.output.replace("0.", ".")


def test_scores_by_the_popularity_of_the_target(stranger, tmp_path):
    candidates, scores = stranger / "candidates.parquet", stranger / "scores.npy"
    by = ["--by", "item_popularity"]
    out = tmp_path / "results.json"
    result = evaluate("scores", candidates, scores, "--train", stranger / "train.parquet", *by, "--json", out)
    assert result.exit_code == 0, result.output
    slices = json.loads(out.read_text())["slices"]
    assert {part["by"] for part in slices} == {"item_popularity"}
    assert_one_line(evaluate("scores", candidates, scores, *by), "item_popularity", "history_length")
    missing = evaluate("scores", candidates, scores, "--train", tmp_path / "none.parquet", *by)
    assert_one_line(missing, "none.parquet")


def test_scores_start_without_torch(stranger):
    script = (
        "import sys\n"
        "from metatl.cli.metatl_eval.main import main\n"
        f"main(['scores', {str(stranger / 'candidates.parquet')!r}, {str(stranger / 'scores.npy')!r}], "
        "standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    assert run_python(script).splitlines()[-1] == "False"


def test_an_interrupted_evaluation_leaves_nothing_behind(tmp_path):
    # A file with a hole takes no room on the disk, and some seconds to rank.
    users = 20_000_000
    with (tmp_path / "scores.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (users, 101)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * users * 101)
    command = ["scores", "--no-candidates", "scores.npy", "--json", "a.json", "--per-user", "a.parquet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "metatl.cli.metatl_eval.main", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Once it maps the file, it is ranking.
    maps = Path(f"/proc/{process.pid}/maps")
    while "scores.npy" not in maps.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == ""
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npy"]
