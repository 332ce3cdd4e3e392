"""The outer loop: learning rate, checkpoints, exact resume, signals, run directories."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import metatl
from metatl.cli.metatl.main import main
from metatl.data.candidates import sample_candidate_sets
from metatl.exceptions import InvalidArgumentError, NoNegativeError, RunError
from metatl.models import SYSTEMS
from metatl.models.bpr_mf import BPRMF
from metatl.models.metatl.model import MetaTL, MetaTLConfig
from metatl.models.transrec import TransRec
from metatl.runs.checkpoints import load_checkpoint, save_checkpoint
from metatl.runs.run_directory import SplitSettings, read_record, write_record
from metatl.training.stop_signals import TrainingStopped
from planted_data import ring

SMALL = {"dim": 16, "batch_size": 256, "max_steps": 60, "eval_every": 10, "warmup_steps": 5, "meta_lr": 0.03}


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
METATL = [sys.executable, "-m", "metatl.cli.metatl.main"]


def train_options(data, out, *options, **settings):
    overrides = [f"--set={name}={value}" for name, value in {**SMALL, **settings}.items()]
    return ["train", "--data", str(data), "--out", str(out), *overrides, *options]


def run_here(options):
    return CliRunner().invoke(main, options)


def run_process(options, **arguments):
    """Run the command in another process, for tests of exit codes, limits and the environment."""
    return subprocess.run(
        [*METATL, *options], capture_output=True, text=True, timeout=120, check=False, **arguments
    )


def final_bytes(directory):
    """The bytes of every tensor of a finished run."""
    return {
        (file, name): array.tobytes()
        for file in ("best.safetensors", "last.safetensors")
        for name, array in load_checkpoint(directory / file)[0].items()
    }


def fit_small(data, out=None, **arguments):
    config = {**SMALL, **arguments.pop("config", {})}
    return metatl.fit(data, config=config, out=out, device="cpu", **arguments)


@pytest.fixture(scope="session")
def finished_run(interactions_file, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "finished"
    fit_small(interactions_file, directory)
    return directory


def test_the_learning_rate_warms_up_then_follows_a_cosine():
    config = MetaTLConfig.preset("tuned").model_copy(
        update={"meta_lr": 2.0, "warmup_steps": 4, "max_steps": 104, "final_lr_share": 0.1}
    )
    assert [config.learning_rate(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert config.learning_rate(4) == 2.0
    assert config.learning_rate(54) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert config.learning_rate(104) == pytest.approx(0.2)


def test_training_learns_the_ring(finished_run):
    history = json.loads((finished_run / "history.json").read_text())
    assert [entry["step"] for entry in history] == [10, 20, 30, 40, 50, 60]
    # A random order of 101 candidates has an MRR of H(101)/101 = 0.0515.
    assert max(entry["MRR"] for entry in history) > 2 * 0.0515


def test_a_run_records_its_settings_and_environment(finished_run, interactions_file):
    record = json.loads((finished_run / "run.json").read_text())
    assert record["data"] == str(interactions_file)
    assert record["config"]["dim"] == SMALL["dim"]
    assert len(record["dataset_fingerprint"]) == len(record["validation_candidates_sha256"]) == 64
    environment = json.loads((finished_run / "environment.json").read_text())
    assert {"python", "versions", "threads"} <= environment.keys()
    assert list((finished_run / "tensorboard").glob("events.out.tfevents.*"))


def test_tensorboard_holds_the_history(finished_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished_run / "tensorboard"))
    events.Reload()
    history = json.loads((finished_run / "history.json").read_text())
    logged = [(event.step, event.value) for event in events.Scalars("MRR")]
    assert logged == [(entry["step"], pytest.approx(entry["MRR"])) for entry in history]


def test_fit_does_not_change_the_global_generator(interactions_file):
    import torch

    before = torch.get_rng_state()
    fit_small(interactions_file, config={"max_steps": 2})
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_run_has_the_best_weights(finished_run):
    weights, record = load_checkpoint(finished_run / "best.safetensors")
    history = json.loads((finished_run / "history.json").read_text())
    assert record["MRR"] == max(entry["MRR"] for entry in history)
    model = metatl.load_run(finished_run).model
    for name, tensor in model.state_dict().items():
        assert tensor.numpy().tobytes() == weights[name].tobytes()


@pytest.mark.parametrize("stop_at", [1, 10, 33])
def test_a_resumed_training_ends_with_the_same_bytes(finished_run, interactions_file, tmp_path, stop_at):
    def stop(progress):
        if progress.step == stop_at:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingStopped, match=f"SIGTERM after step {stop_at}"):
        fit_small(interactions_file, tmp_path / "run", on_progress=stop)
    fit_small(interactions_file, tmp_path / "run", resume=True)
    assert final_bytes(tmp_path / "run") == final_bytes(finished_run)
    assert (tmp_path / "run" / "history.json").read_bytes() == (finished_run / "history.json").read_bytes()


def test_stopping_restores_the_signal_handlers(interactions_file):
    before = tuple(map(signal.getsignal, STOPPING))
    fit_small(interactions_file, config={"max_steps": 1})
    assert tuple(map(signal.getsignal, STOPPING)) == before


def test_a_signal_that_nohup_ignores_stays_ignored(interactions_file, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        fit_small(
            interactions_file,
            tmp_path / "run",
            config={"max_steps": 3},
            on_progress=lambda _: signal.raise_signal(signal.SIGHUP),
        )
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "run" / "metrics.json").exists()


def test_a_killed_and_resumed_training_ends_with_the_same_bytes(interactions_file, tmp_path):
    settings = {"max_steps": 300, "eval_every": 10}
    reference = tmp_path / "reference"
    fit_small(interactions_file, reference, config=settings)
    out = tmp_path / "killed"
    options = train_options(interactions_file, out, **settings)
    generator = np.random.default_rng(1)
    for _ in range(3):
        process = subprocess.Popen([*METATL, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        previous = (out / "last.safetensors").stat().st_mtime_ns if (out / "last.safetensors").exists() else 0
        while time.monotonic() < deadline and process.poll() is None:
            if (out / "last.safetensors").exists() and (
                out / "last.safetensors"
            ).stat().st_mtime_ns != previous:
                break
            time.sleep(0.005)
        time.sleep(float(generator.uniform(0, 0.2)))
        process.kill()
        process.wait()
        options = train_options(interactions_file, out, "--resume", **settings)
    finished = run_here(options)
    assert finished.exit_code == 0, finished.stderr
    assert final_bytes(out) == final_bytes(reference)


def test_a_run_killed_before_its_first_checkpoint_starts_again(finished_run, interactions_file, tmp_path):
    out = tmp_path / "run"
    fit_small(interactions_file, out)
    for name in ("last.safetensors", "best.safetensors", "history.json", "metrics.json"):
        (out / name).unlink()
    fit_small(interactions_file, out, resume=True)
    assert final_bytes(out) == final_bytes(finished_run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_saves_and_exits_on_a_signal(interactions_file, tmp_path, number):
    out = tmp_path / "run"
    options = train_options(interactions_file, out, max_steps=100_000, eval_every=20)
    with subprocess.Popen(
        [*METATL, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (out / "last.safetensors").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert f"metatl train --out {out} --resume" in errors
    _, record = load_checkpoint(out / "last.safetensors")
    assert record["step"] > 0


def test_resuming_a_finished_run_says_so(finished_run, interactions_file):
    before = final_bytes(finished_run)
    result = run_here(train_options(interactions_file, finished_run, "--resume"))
    assert result.exit_code == 0
    assert "finished" in result.stdout
    assert final_bytes(finished_run) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "7"], "seed was 0, now 7"),
        (["--k", "2"], "k was 3, now 2"),
        (["--cutoff-quantile", "0.5"], "--cutoff-quantile was 0.75, now 0.5"),
        (["--set", "max_steps=3"], "--max-steps was"),
    ],
)
def test_resuming_a_finished_run_with_other_settings_is_an_error(finished_run, options, message):
    before = final_bytes(finished_run)
    result = run_here(["train", "--out", str(finished_run), "--resume", *options])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "{" not in result.stderr  # settings are listed one by one
    assert result.stderr.strip().count("\n") == 0
    assert final_bytes(finished_run) == before


def test_resuming_a_finished_run_with_other_data_is_an_error(tmp_path):
    fitted, other = (ring(users=users) for users in (1000, 1100))
    arguments = {"model": "popularity", "out": tmp_path / "run", "device": "cpu"}
    metatl.fit(fitted, **arguments)
    assert metatl.fit(fitted, resume=True, **arguments).record.dataset_fingerprint == fitted.fingerprint
    with pytest.raises(RunError, match="dataset_fingerprint was"):
        metatl.fit(other, resume=True, **arguments)


def test_an_existing_run_is_refused_then_overwritten(interactions_file, tmp_path):
    out = tmp_path / "run"
    fit_small(interactions_file, out, config={"max_steps": 2})
    before = final_bytes(out)
    refused = run_here(train_options(interactions_file, out))
    assert refused.exit_code == 2
    assert refused.stderr.strip().count("\n") == 0
    assert "--resume" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert final_bytes(out) == before
    fit_small(interactions_file, out, config={"max_steps": 3}, overwrite=True)
    assert final_bytes(out) != before


def test_a_directory_with_other_files_is_never_overwritten(interactions_file, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="other files"):
        fit_small(interactions_file, tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("out", ["link", "link/run"])
def test_a_broken_link_is_an_error_that_names_it(out, interactions_file, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(
        RunError, match=r"link: found a link to .*gone, which is missing; make that directory"
    ):
        fit_small(interactions_file, tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_resuming_with_other_settings_is_refused(interactions_file, tmp_path):
    out = tmp_path / "run"

    def stop(_):
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingStopped):
        fit_small(interactions_file, out, on_progress=stop)
    result = run_here(train_options(interactions_file, out, "--resume", "--k", "2"))
    assert result.exit_code == 2
    assert "k was 3, now 2" in result.stderr
    result = run_here(["train", "--out", str(out), "--resume"])
    assert result.exit_code == 0, result.stderr


def test_what_is_not_given_is_taken_from_the_run_that_is_resumed(interactions_file, tmp_path):
    out = tmp_path / "run"

    def stop(_):
        signal.raise_signal(signal.SIGTERM)

    split = SplitSettings(k=2, min_item_count=5)
    settings = {"preset": "paper", "config": {"dim": 8, "max_steps": 3, "eval_every": 3}, "seed": 4}
    with pytest.raises(TrainingStopped):
        metatl.fit(interactions_file, out=out, split=split, device="cpu", on_progress=stop, **settings)
    with pytest.raises(RunError, match="min_item_count was 5, now 6"):
        metatl.fit(out=out, split=SplitSettings(min_item_count=6), device="cpu", resume=True)
    with pytest.raises(RunError, match="dim was 8, now 16"):
        metatl.fit(out=out, config={"dim": 16}, device="cpu", resume=True)
    resumed = metatl.fit(out=out, device="cpu", resume=True)
    straight = metatl.fit(interactions_file, split=split, device="cpu", **settings)
    assert resumed.record.model_dump() == straight.record.model_dump()
    for name, tensor in straight.model.tensors().items():
        assert np.array_equal(resumed.model.tensors()[name], tensor), name
    # A finished run is loaded likewise.
    assert metatl.fit(out=out, k=2, device="cpu", resume=True).record == resumed.record


def test_patience_ends_a_training_early(interactions_file, tmp_path):
    # With a learning rate of almost 0 nothing improves after the first evaluation.
    fit_small(
        interactions_file, tmp_path / "run", config={"meta_lr": 1e-30, "patience": 2, "optimizer": "sgd"}
    )
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [entry["step"] for entry in history] == [10, 20, 30]


def test_a_loss_that_is_not_finite_is_an_error(interactions_file, tmp_path):
    with pytest.raises(RunError, match=r"loss is (nan|inf).*learning rate"):
        fit_small(
            interactions_file, tmp_path / "run", preset="paper", config={"meta_lr": 1e30, "warmup_steps": 0}
        )


@pytest.mark.parametrize("file", ["best.safetensors", "last.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty"])
def test_a_damaged_checkpoint_is_an_error(finished_run, tmp_path, file, damage):
    content = bytearray((finished_run / file).read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[-1] ^= 1
    elif damage == "text":
        content = b"not a checkpoint"
    else:
        content = b""
    (tmp_path / file).write_bytes(content)
    with pytest.raises(RunError, match="damaged"):
        load_checkpoint(tmp_path / file)


def test_a_checkpoint_has_the_same_bytes_in_every_process(tmp_path):
    script = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from metatl.runs.checkpoints import save_checkpoint\n"
        "save_checkpoint(Path(sys.argv[1]), {'a': np.arange(3.0), 'b': np.zeros((2, 1))}, {'step': 7})"
    )
    contents = set()
    for number in range(4):
        path = tmp_path / f"{number}.safetensors"
        subprocess.run([sys.executable, "-c", script, str(path)], check=True)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    tensors, record = load_checkpoint(path)
    assert record == {"step": 7}
    assert tensors["a"].tolist() == [0.0, 1.0, 2.0]


def test_a_finished_run_without_weights_is_an_error(tmp_path):
    out = tmp_path / "run"
    metatl.fit(ring(), model="popularity", out=out, device="cpu")
    (out / "best.safetensors").unlink()
    with pytest.raises(RunError, match=r"best\.safetensors is missing; train again with .* --overwrite"):
        metatl.load_run(out)


def test_a_damaged_item_table_is_an_error(tmp_path):
    out = tmp_path / "run"
    metatl.fit(ring(), model="popularity", out=out, device="cpu")
    items, record = pl.read_parquet(out / "items.parquet"), read_record(out)
    for damaged in (
        items.reverse(),
        pl.concat([items[:1], items[:-1]]),
        items.with_columns(item_id=pl.when(pl.int_range(pl.len()) > 0).then("item_id")),
        items.with_columns(count=pl.lit("many")),
    ):
        damaged.write_parquet(out / "items.parquet")
        write_record(out, record)
        with pytest.raises(RunError, match=r"items\.parquet: found a damaged table, .*; train again"):
            metatl.load_run(out)


def write_old_record(directory, record):
    """Write a run.json of format 1, whose content has no SHA-256."""
    del record["sha256"], record["items_sha256"]
    (directory / "run.json").write_text(json.dumps({**record, "format_version": 1}))


def test_a_wrong_config_in_run_json_is_an_error(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["config"]["dim"] = "many"
    write_old_record(tmp_path / "run", record)
    with pytest.raises(
        RunError, match=r"run\.json: config\.dim: found 'many', expected a whole number; train again"
    ):
        metatl.load_run(tmp_path / "run")


def test_a_checkpoint_of_another_version_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("metatl.runs.checkpoints.FORMAT_VERSION", 999)
    save_checkpoint(tmp_path / "x.safetensors", {"a": np.zeros(3)}, {})
    monkeypatch.undo()
    with pytest.raises(RunError, match="999"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_a_run_of_another_version_is_an_error(finished_run, tmp_path):
    record = json.loads((finished_run / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "format_version": 99, "metatl_version": "9.9"}))
    with pytest.raises(RunError, match=r"format 99 \(metatl 9\.9\)"):
        metatl.load_run(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": True}, "k: found True, expected a whole number of at least 1"),
        ({"k": 2.5}, r"k: found 2\.5, expected a whole number of at least 1"),
        ({"split": {"k": 3}}, r"split: found dict, expected metatl\.SplitSettings"),
        ({"data": 5}, "data: found int, expected 'wines', the path of a file, or a table"),
        ({"data": "big.csv", "columns": ("a",)}, r"columns: found \('a',\), expected three names"),
        ({"data": "big.csv", "columns": "abc"}, "columns: found 'abc', expected three names"),
    ],
)
def test_arguments_of_a_wrong_type_are_errors(options, message):
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        metatl.fit(**options)


def test_config_values_may_be_text_and_lists(interactions_file, tmp_path):
    # Commands pass text, and `run.json` holds lists.
    config = {
        "learner": "mlp",
        "hidden": [8, 4],
        "transition_skip": None,
        "learner_bias": "0",
        "max_steps": 2,
    }
    config["first_order"] = "True"
    fitted = fit_small(interactions_file, tmp_path / "run", config=config)
    assert (fitted.config.hidden, fitted.config.first_order) == ((8, 4), True)
    assert metatl.load_run(tmp_path / "run").config == fitted.config


def test_a_wrong_split_in_run_json_is_an_error(finished_run, tmp_path):
    record = json.loads((finished_run / "run.json").read_text())
    record["split"]["k"] = 0
    write_old_record(tmp_path, record)
    with pytest.raises(RunError, match=r"run\.json: field 'split': .*k: found 0, .*; train again"):
        metatl.load_run(tmp_path)


def test_a_path_without_a_run_is_an_error(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"^path: found NoneType, expected the directory of a run"):
        metatl.load_run(None)
    with pytest.raises(RunError, match="found no run"):
        metatl.load_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="not JSON"):
        metatl.load_run(tmp_path)


def test_a_failed_write_keeps_the_old_checkpoint(finished_run, tmp_path):
    path = tmp_path / "last.safetensors"
    path.write_bytes((finished_run / "last.safetensors").read_bytes())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(path, {"a": np.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_size_limit_ends_the_command_with_one_line(interactions_file, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    result = run_process(train_options(interactions_file, tmp_path / "run"), preexec_fn=limit)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "too large" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "magic"], "expected one of metatl, popularity, knn"),
        (["--model", "popularity", "--preset", "paper"], "it has tuned"),
        (["--set", "dimension=3"], "no field 'dimension'"),
        (["--model", "popularity", "--set", "foo=1"], "popularity has no field 'foo'; it has no fields\n"),
        (["--set", "dim=zero"], "dim"),
        (["--set", "dim=true"], "dim: found True, true and false are for flags"),
        (["--set", "meta_lr=true"], "meta_lr: found True, true and false are for flags"),
        (["--set", "hidden=[64, true]"], "hidden: found [64, True], true and false are for flags"),
        (["--model", "knn", "--set", "window=true"], "window: found True, true and false are for flags"),
        (["--set", "dim"], "field=value"),
        (["--set", "inner_steps=1000000000"], "inner_steps: found 1000000000, expected at most 10000"),
        (["--model", "bert4rec", "--set", "blocks=10000"], "blocks: found 10000, expected at most 1000"),
        (["--set", "hidden=[64, 10000000]"], "hidden: found [64, 10000000], expected at most 1048576"),
        (["--data", "/nowhere.csv"], "/nowhere.csv"),
        (["--k", "50"], "50"),
        (["--cutoff-quantile", "1.5"], "--cutoff-quantile: found 1.5, expected at least 0 and at most 1"),
        (["--min-item-count", "0"], "--min-item-count: found 0, expected a whole number"),
        (["--device", "abacus"], "'abacus' is not one of 'auto', 'cpu', 'cuda'"),
    ],
)
def test_a_wrong_setting_is_an_error_and_writes_nothing(interactions_file, tmp_path, options, message):
    result = run_here(["train", "--data", str(interactions_file), "--out", str(tmp_path / "run"), *options])
    assert result.exit_code == 2
    assert message in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def replaceable(finished_run, tmp_path):
    """A copy of a finished run, and the contents of its files."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    return run, contents(run)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_old_run_stays_as_it_was_if_the_new_one_fails(replaceable, interactions_file):
    run, before = replaceable
    with pytest.raises(RunError, match="loss is nan"):
        fit_small(interactions_file, run, config={"inner_lr": 1e30}, overwrite=True)
    assert contents(run.parent) == {Path(run.name) / file: content for file, content in before.items()}


def test_the_old_run_stays_as_it_was_until_the_new_one_is_finished(replaceable, interactions_file):
    run, before = replaceable

    def stop(progress):
        if progress.step == 25:
            signal.raise_signal(signal.SIGTERM)

    steps = []
    with pytest.raises(TrainingStopped):
        fit_small(interactions_file, run, config={"max_steps": 40}, overwrite=True, on_progress=stop)
    assert contents(run) == before
    # The same call continues the new run.
    fit_small(
        interactions_file,
        run,
        config={"max_steps": 40},
        overwrite=True,
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert steps == list(range(26, 41))
    assert metatl.load_run(run).record.config["max_steps"] == 40
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_resuming_a_run_as_another_system_is_an_error(replaceable):
    run, before = replaceable
    for options, message in (
        (["--model", "knn"], "model was metatl, now knn"),
        (["--preset", "paper"], "preset was tuned, now paper"),
    ):
        result = run_here(["train", "--out", str(run), "--resume", *options])
        assert result.exit_code == 2
        assert message in result.stderr
        (run / "metrics.json").unlink(missing_ok=True)
        result = run_here(["train", "--out", str(run), "--resume", *options])
        assert message in result.stderr
    assert contents(run).items() <= before.items()


def test_resuming_with_a_moved_file_works_and_with_another_is_an_error(
    replaceable, interactions_file, tmp_path
):
    run, _ = replaceable
    moved, other = tmp_path / "moved.csv", tmp_path / "other.csv"
    shutil.copy(interactions_file, moved)
    other.write_text("".join(moved.read_text().splitlines(keepends=True)[:-1]))
    assert run_here(["train", "--out", str(run), "--resume", "--data", str(moved)]).exit_code == 0
    result = run_here(["train", "--out", str(run), "--resume", "--data", str(other)])
    assert result.exit_code == 2
    assert "dataset_fingerprint was" in result.stderr


def test_running_out_of_memory_is_one_line(interactions_file, tmp_path):
    out = str(tmp_path / "run")
    result = run_here(["train", "--data", str(interactions_file), "--out", out, "--set", "dim=1000000"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: out of memory: ")


def test_a_small_catalogue_is_validated_on_fewer_negatives(tmp_path):
    few = ring(users=300, items=40)
    run = metatl.fit(few, model="popularity", out=tmp_path / "run", device="cpu")
    split = SplitSettings().split(few)
    # Every user of the ring has eight different items, which leaves 32 of 40 as negatives.
    sets = sample_candidate_sets(split, split.validation, n=32, seed=0)
    assert run.record.validation_candidates_sha256 == sets.sha256
    with pytest.raises(
        NoNegativeError, match=rf"^user {split.cold.user_ids[int(split.test[0])]}: found 32 items"
    ):
        sample_candidate_sets(split, split.test, n=33, seed=0)


def test_fit_ends_its_threads(tmp_path):
    config = {"max_steps": 4, "eval_every": 2, "dim": 8}
    metatl.fit(ring(users=300), model="gru4rec", config=config, out=tmp_path / "first", device="cpu")
    before = threading.active_count()
    for name in ("second", "third"):
        metatl.fit(ring(users=300), model="gru4rec", config=config, out=tmp_path / name, device="cpu")
    assert threading.active_count() == before
    assert list((tmp_path / "third" / "tensorboard").iterdir())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("name", "model"), [("metatl", MetaTL), ("bpr", BPRMF), ("transrec", TransRec)])
def test_row_gradients_train_like_dense_ones(interactions_file, monkeypatch, name, model, optimizer):
    settings = {"optimizer": optimizer, "meta_lr" if model is MetaTL else "lr": 0.01}
    weights = []
    for tables in (model.row_tables, property(lambda _: ())):
        monkeypatch.setattr(model, "row_tables", tables)
        config = {"max_steps": 10, "eval_every": 10, "batch_size": 256, "dim": 16, **settings}
        weights.append(metatl.fit(interactions_file, model=name, config=config, device="cpu").model.tensors())
    for (tensor, by_rows), dense in zip(weights[0].items(), weights[1].values(), strict=True):
        np.testing.assert_allclose(by_rows, dense, rtol=1e-5, atol=1e-5, err_msg=tensor)


compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


@compiler
@pytest.mark.filterwarnings("ignore")  # torch catches its own warnings unless they are errors
@pytest.mark.parametrize("preset", ["tuned", pytest.param("paper", marks=pytest.mark.slow)])
def test_a_compiled_training_takes_the_same_steps(interactions_file, preset):
    config = {"dim": 16, "batch_size": 256, "max_steps": 20, "eval_every": 10}
    plain, compiled = (
        metatl.fit(interactions_file, preset=preset, config=config, device="cpu", compiled=compiled)
        for compiled in (False, True)
    )
    for name, tensor in plain.model.tensors().items():
        np.testing.assert_allclose(compiled.model.tensors()[name], tensor, rtol=1e-3, atol=1e-4, err_msg=name)


@compiler
@pytest.mark.filterwarnings("ignore")  # torch catches its own warnings unless they are errors
def test_a_resumed_compiled_training_ends_with_the_same_bytes(interactions_file, tmp_path):
    fit_small(interactions_file, tmp_path / "whole", compiled=True)

    def stop(progress):
        if progress.step == 15:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingStopped):
        fit_small(interactions_file, tmp_path / "parts", compiled=True, on_progress=stop)
    with pytest.raises(RunError, match="compiled was True, now False"):
        fit_small(interactions_file, tmp_path / "parts", compiled=False, resume=True)
    result = run_here(["train", "--out", str(tmp_path / "parts"), "--resume", "--device", "cpu"])
    assert result.exit_code == 0, result.stderr
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")


def test_compiling_an_unsupported_system_is_an_error_that_lists_the_supported_ones(
    interactions_file, tmp_path
):
    options = [
        "--data",
        str(interactions_file),
        "--out",
        str(tmp_path / "run"),
        "--model",
        "knn",
        "--compiled",
    ]
    result = run_here(["train", *options])
    assert result.exit_code == 2
    assert "compiled: found true for knn, but only metatl can be compiled" in result.stderr


def test_a_missing_compiler_is_one_line(interactions_file, tmp_path):
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    options = train_options(interactions_file, tmp_path / "run", "--compiled", "--device", "cpu")
    result = run_process(options, env=environment)
    assert result.returncode == 2
    assert "compiled: torch.compile failed" in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("model", [name for name, system in SYSTEMS.items() if system.batches is not None])
def test_every_trained_system_resumes_exactly(interactions_file, tmp_path, model):
    def stop(progress):
        if progress.step == 13:
            signal.raise_signal(signal.SIGTERM)

    config = {"dim": 8, "batch_size": 32, "max_steps": 30, "eval_every": 10}
    arguments = {"model": model, "config": config, "device": "cpu"}
    metatl.fit(interactions_file, out=tmp_path / "whole", **arguments)
    with pytest.raises(TrainingStopped):
        metatl.fit(interactions_file, out=tmp_path / "stopped", on_progress=stop, **arguments)
    metatl.fit(interactions_file, out=tmp_path / "stopped", resume=True, **arguments)
    assert final_bytes(tmp_path / "stopped") == final_bytes(tmp_path / "whole")


@pytest.mark.parametrize("model", [name for name, system in SYSTEMS.items() if system.batches is None])
def test_simple_systems_train_save_and_load_with_the_same_command(interactions_file, tmp_path, model):
    out = tmp_path / "run"
    command = ["train", "--data", str(interactions_file), "--model", model, "--out", str(out)]
    result = run_here(command)
    assert result.exit_code == 0, result.stderr
    fitted = metatl.fit(interactions_file, model=model)
    loaded = metatl.load_run(out)
    for name, array in fitted.model.tensors().items():
        assert np.array_equal(loaded.model.tensors()[name], array)
    assert "finished" in run_here([*command, "--resume"]).stdout
