"""Exports: the graph agrees with torch at every length, and a recommender answers from the directory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file

import metatl
from metatl.cli.metatl.main import main as metatl_command
from metatl.cli.metatl_eval.main import main as evaluation_command
from metatl.exceptions import ConfigError, InvalidArgumentError, RunError
from metatl.models import SYSTEMS
from planted_data import write_ring

ITEMS = 40
SHORT = {"max_steps": 6, "eval_every": 3}
SMALL = {"dim": 8, **SHORT, "batch_size": 32}
CASES = {
    "gru4rec": {**SMALL, "hidden": 12, "layers": 2, "max_length": 7},
    "sasrec": {**SMALL, "blocks": 2, "heads": 2, "max_length": 50},
    "tcn": {**SMALL, "dilations": [1, 2], "max_length": 10},
    "bert4rec": {**SMALL, "blocks": 2, "projection": True, "max_length": 9},
    "transrec": {**SMALL, "unit_ball": True},
    "bpr": SMALL,
    "metacf": {**SMALL, "layers": 2},
    "metatl": {**SMALL, "shared_support_negatives": 8},
}
FURTHER = {
    "bert4rec, norms after": ("bert4rec", {**SMALL, "norm_first": False}),
    "gru4rec, two tables": ("gru4rec", {**SMALL, "tied": False, "item_bias": False}),
    "metacf, no layer": ("metacf", {**SMALL, "layers": 0, "inner_steps": 2}),
    "metacf, pairs": ("metacf", {**SMALL, "loss": "bpr", "layers": 1, "item_bias": False}),
    "metatl, three layers": (
        "metatl",
        {**SMALL, "learner": "mlp", "hidden": [16, 8], "transition_skip": None, "learner_bias": 0},
    ),
    "metatl, learner": ("metatl", {**SMALL, "adapt": "learner", "transition_skip": None, "inner_steps": 2}),
    "metatl, no step": ("metatl", {**SMALL, "inner_steps": 0, "distance": "l2"}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    write_ring(folder / "ring.csv", 200, items=ITEMS)
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    """Fit a system and export it, once."""
    made = {}

    def make(name, model, config):
        if name not in made:
            run, out = folder / f"{name}-run", folder / f"{name}-onnx"
            metatl.fit(folder / "ring.csv", model=model, config=config, out=run, device="cpu")
            assert metatl.export(run, out) == out
            made[name] = SimpleNamespace(run=run, out=out)
        return made[name]

    return make


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in FURTHER)])
def test_the_graph_agrees_with_torch_at_every_length(exported, name):
    model_name, config = FURTHER.get(name, (name, CASES.get(name)))
    paths = exported(name, model_name, config)
    model = metatl.load_run(paths.run).model
    session = onnxruntime.InferenceSession(paths.out / "encoder.onnx")
    generator = np.random.default_rng(0)
    for length in range(1, 51):
        for users in (1, 6):
            inputs = {"histories": generator.integers(ITEMS, size=(users, length))}
            negatives = None
            if model.support_negatives:
                inputs["negatives"] = generator.integers(ITEMS, size=(users, model.support_negatives))
                negatives = torch.from_numpy(inputs["negatives"])
            expected = model.encode(torch.from_numpy(inputs["histories"]), negatives).queries.numpy()
            (queries,) = session.run(["queries"], inputs)
            assert queries.dtype == np.float32
            np.testing.assert_allclose(
                queries, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()), err_msg=f"{length}"
            )


@pytest.mark.parametrize(
    "name",
    [
        "gru4rec",
        "transrec",
        "metacf",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in CASES
            if name not in ("gru4rec", "transrec", "metacf")
        ),
    ],
)
def test_a_recommender_answers_from_an_export_without_torch(exported, name):
    paths = exported(name, name, CASES[name])
    generator = np.random.default_rng(1)
    ids = [f"i{item}" for item in range(ITEMS)]
    histories = [
        list(generator.choice(ids, size=length, replace=length > ITEMS)) for length in (1, 2, 3, 7, 20, 50)
    ]
    program = (
        "import json, sys, numpy as np, metatl\n"
        "histories = json.loads(sys.argv[2])\n"
        "recommender = metatl.Recommender.load(sys.argv[1])\n"
        "answer = recommender.recommend(histories, 10)\n"
        "recommender.explain(histories[2], answer[2][0].item_id)\n"
        "recommender.similar_items(histories[0], 3)\n"
        "assert not {'torch', 'scipy'} & sys.modules.keys()\n"
        "np.savez(sys.argv[3], items=answer.items, scores=answer.scores,\n"
        "         all=recommender.scores(histories, recommender.item_ids.to_list()))\n"
    )
    out = paths.out.with_suffix(".npz")
    arguments = [sys.executable, "-c", program, str(paths.out), json.dumps(histories), str(out)]
    subprocess.run(arguments, check=True, timeout=120)
    answered = np.load(out)
    run = metatl.load_run(paths.run)
    with_torch = metatl.recommend(run, histories, top=10)
    all_scores = metatl.Recommender.of(run).scores(histories, run.item_ids.to_list())
    scale = max(1, float(np.abs(all_scores).max()))
    np.testing.assert_allclose(answered["all"], all_scores, rtol=0, atol=1e-5 * scale)
    for user in range(len(histories)):
        for rank in np.flatnonzero(answered["items"][user] != with_torch.items[user]):
            gap = answered["scores"][user, rank] - with_torch.scores[user, rank]
            assert abs(gap) <= 2e-5 * scale  # two items that tie to rounding


def test_an_export_to_safetensors_is_a_run_with_its_item_table(exported, folder):
    paths = exported("sasrec", "sasrec", CASES["sasrec"])
    out = metatl.export(paths.run, folder / "weights", format="safetensors")
    model = metatl.load_run(out).model
    tensors = load_file(out / "item_table.safetensors")
    np.testing.assert_array_equal(tensors["item_table"], model.item_table.numpy())
    np.testing.assert_array_equal(tensors["item_bias"], model.item_bias.numpy())
    assert (out / "best.safetensors").read_bytes() == (paths.run / "best.safetensors").read_bytes()
    assert not (out / "last.safetensors").exists()
    history = [["i3", "i4"]]
    of_run = metatl.Recommender.load(paths.run).recommend(history)
    assert metatl.Recommender.load(out).recommend(history)[0] == of_run[0]


def test_every_system_is_exported_or_refused_by_name(folder):
    for name in SYSTEMS:
        if name in CASES:
            continue
        run = folder / f"{name}-run"
        config = {**SMALL, "hidden": [4]} if name == "melu" else {}
        metatl.fit(folder / "ring.csv", model=name, config=config, out=run, device="cpu")
        with pytest.raises(ConfigError, match=f"model: {name} has no item vectors to export"):
            metatl.export(run, folder / "refused")
        assert not (folder / "refused").exists()
    run = folder / "paper-run"
    config = {**SMALL, "adapt": "learner_and_embeddings"}
    metatl.fit(folder / "ring.csv", config=config, out=run, device="cpu")
    with pytest.raises(ConfigError, match="adapt: found learner_and_embeddings"):
        metatl.export(run, folder / "refused")
    assert not (folder / "refused").exists()


def test_what_cannot_be_exported_is_one_error(exported, tmp_path):
    paths = exported("bpr", "bpr", CASES["bpr"])
    with pytest.raises(RunError, match="the run itself"):
        metatl.export(paths.run, paths.run, overwrite=True)
    with pytest.raises(RunError, match="already holds a run or an export; replace it with --overwrite"):
        metatl.export(paths.run, paths.out)
    with pytest.raises(InvalidArgumentError, match=r"format: found 'onx', .*did you mean 'onnx'"):
        metatl.export(paths.run, tmp_path / "out", format="onx")
    with pytest.raises(RunError, match=r"found no run\.json"):
        metatl.export(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(RunError, match="found an export to ONNX"):
        metatl.export(paths.out, tmp_path / "out")
    with pytest.raises(RunError, match=r"found an export to ONNX.*use the run that was exported"):
        metatl.load_run(paths.out)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    with pytest.raises(RunError, match="found a directory with other files"):
        metatl.export(paths.run, mine)
    assert not (tmp_path / "out").exists()


def test_an_export_is_replaced_in_one_step_while_it_answers(exported, tmp_path):
    first = exported("bpr", "bpr", CASES["bpr"])
    second = exported("gru4rec", "gru4rec", CASES["gru4rec"])
    out = metatl.export(first.run, tmp_path / "served")
    recommender = metatl.Recommender.load(out, refresh=True)
    history = [["i3", "i4"]]
    assert recommender.recommend(history)[0] == metatl.Recommender.load(first.out).recommend(history)[0]
    metatl.export(second.run, out, overwrite=True)
    assert recommender.recommend(history)[0] == metatl.Recommender.load(second.out).recommend(history)[0]
    metatl.export(second.run, out, format="safetensors", overwrite=True)
    assert not (out / "encoder.onnx").exists()
    assert recommender.run.record.model == "gru4rec"


@pytest.mark.parametrize("file", ["encoder.onnx", "item_table.safetensors", "metrics.json", "items.parquet"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_export_is_one_error(exported, tmp_path, file, damage):
    paths = exported("bpr", "bpr", CASES["bpr"])
    out = tmp_path / "export"
    shutil.copytree(paths.out, out)
    content = (out / file).read_bytes()
    half = len(content) // 2
    if damage == "missing":
        (out / file).unlink()
    elif damage == "cut":
        (out / file).write_bytes(content[:half])
    else:
        (out / file).write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
    if file == "metrics.json" and damage != "missing":  # nothing that serving reads
        metatl.Recommender.load(out)
        return
    with pytest.raises(RunError, match=r"export") as error:
        metatl.Recommender.load(out)
    assert "\n" not in str(error.value)


def test_the_command_writes_what_the_others_read(exported, tmp_path):
    paths = exported("tcn", "tcn", CASES["tcn"])
    out = tmp_path / "tcn"
    command = [str(paths.run), "--format", "onnx", "--out", str(out)]
    answer = CliRunner().invoke(metatl_command, ["export", *command])
    assert answer.exit_code == 0, answer.output
    assert str(out / "encoder.onnx") in answer.output
    listed = CliRunner().invoke(metatl_command, ["recommend", str(out), "--item", "i3", "--top", "2"])
    assert listed.exit_code == 0, listed.output
    again = CliRunner().invoke(metatl_command, ["export", *command])
    assert again.exit_code == 2
    assert again.stderr.startswith(f"Error: {out}: already holds a run or an export")
    evaluated = CliRunner().invoke(evaluation_command, ["run", str(out)])
    assert evaluated.exit_code == 2
    assert "found an export to ONNX" in evaluated.stderr
