"""Files that an earlier version wrote load as before; see saved_files/README.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

import metatl
from metatl.cli.metatl_eval.main import main
from metatl.evaluation.per_user_files import read_per_user
from metatl.exceptions import DataError
from metatl.experiments.cells import Cell
from metatl.experiments.data_sources import DataSource
from metatl.experiments.published_cells import find_kept
from metatl.experiments.table_rows import Row
from metatl.models import SYSTEMS

SAVED = Path(__file__).parent / "saved_files"
RING = SAVED / "ring.csv"
FINISHED = sorted(path.parent.name for path in SAVED.glob("*/metrics.json"))
PUBLISHED = Path(__file__).parents[1] / "docs" / "results"
SPLIT = metatl.SplitSettings(k=3, min_item_count=2)


def test_there_is_a_run_of_every_system_and_of_every_preset_of_metatl():
    records = [metatl.load_run(SAVED / name).record for name in FINISHED]
    assert {record.model for record in records} == set(SYSTEMS)
    presets = {record.preset for record in records if record.model == "metatl"}
    assert presets == set(SYSTEMS["metatl"].presets)


@pytest.mark.parametrize("name", FINISHED)
def test_a_saved_run_gives_the_ranks_that_it_gave(name, tmp_path):
    written = tmp_path / "ranks.parquet"
    options = ["--data", str(RING), "--candidates", "uni20", "--per-user", str(written)]
    result = CliRunner().invoke(main, [str(SAVED / name), *options])
    assert result.exit_code == 0, result.stderr
    (record, found), (saved_record, saved) = read_per_user(written), read_per_user(SAVED / f"{name}.parquet")
    assert record == saved_record
    assert found.columns == saved.columns
    exact = ["user_id", "ranking", "rank", "greater", "equal"]
    assert found.select(exact).equals(saved.select(exact))
    np.testing.assert_allclose(found.drop(exact), saved.drop(exact))


@pytest.mark.parametrize("name", FINISHED)
def test_a_saved_run_holds_the_tensors_of_its_file(name):
    tensors = metatl.load_run(SAVED / name).model.tensors()
    saved = load_file(SAVED / name / "best.safetensors")
    assert tensors.keys() <= saved.keys()
    for tensor, values in tensors.items():
        np.testing.assert_array_equal(values, saved[tensor], err_msg=tensor)


def test_saved_ranks_are_compared():
    baseline, other = (read_per_user(SAVED / f"{name}.parquet") for name in ("popularity", "knn"))
    report = metatl.compare_users([baseline, other], metrics="MRR", resamples=100)
    assert (report.baseline, report.systems) == ("popularity (tuned)", ("knn (tuned)",))
    for difference in report.differences:
        means = [
            frame.filter(pl.col("ranking") == difference.ranking)["MRR"].mean()
            for _, frame in (baseline, other)
        ]
        assert difference.difference == pytest.approx(means[1] - means[0])
    assert [difference.ranking for difference in report.differences][:2] == ["sampled", "full"]


def test_saved_candidates_are_those_that_are_sampled_today():
    split = SPLIT.split(metatl.read_interactions(RING))
    saved = metatl.CandidateSets.load(SAVED / "candidates.parquet", split)
    sampled = metatl.sample_candidate_sets(split, split.test, n=20, seed=0)
    record = json.loads(pl.read_parquet_metadata(SAVED / "candidates.parquet")["metatl.candidates"])
    assert saved.sha256 == sampled.sha256 == record["sha256"]
    np.testing.assert_array_equal(saved.users, sampled.users)
    np.testing.assert_array_equal(saved.candidates, sampled.candidates)


def test_saved_candidates_that_were_changed_are_refused(tmp_path):
    path = SAVED / "candidates.parquet"
    metadata = pl.read_parquet_metadata(path)
    changed = pl.read_parquet(path).with_columns(pl.col("target").reverse())
    changed.write_parquet(tmp_path / path.name, metadata={"metatl.candidates": metadata["metatl.candidates"]})
    with pytest.raises(DataError, match="SHA-256"):
        metatl.CandidateSets.load(tmp_path / path.name)


@pytest.mark.parametrize("name", ["metatl-paper", "metatl-paper-stopped"])
def test_a_saved_training_is_continued(name, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(SAVED / name, out)
    (out / "metrics.json").unlink(missing_ok=True)
    steps = []
    record = json.loads((out / "run.json").read_text())
    run = metatl.fit(
        metatl.read_interactions(RING),
        model="metatl",
        preset="paper",
        split=SPLIT,
        config=record["config"],
        out=out,
        device="cpu",
        resume=True,
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert steps == {"metatl-paper": [], "metatl-paper-stopped": [4]}[name]
    metrics, history = (
        [json.loads((folder / file).read_text()) for folder in (out, SAVED / "metatl-paper")]
        for file in ("metrics.json", "history.json")
    )
    assert metrics[0] == metrics[1]
    assert history[0] == [pytest.approx(entry) for entry in history[1]]
    # Another processor may round the last steps otherwise.
    for file in ("best.safetensors", "last.safetensors"):
        found, saved = (load_file(folder / file) for folder in (out, SAVED / "metatl-paper"))
        assert found.keys() == saved.keys()
        for tensor, values in saved.items():
            np.testing.assert_allclose(found[tensor], values, rtol=1e-5, atol=1e-6, err_msg=tensor)
    assert metatl.load_run(out).record == run.record


def test_a_published_file_gives_the_cells_that_it_was_made_of():
    name, k, seed = "wines", 3, 0
    file = pl.read_parquet(PUBLISHED / f"{name}-k{k}-seed{seed}.parquet")
    assert len(file) > 0
    for title, text in file.select("row", "identity").iter_rows():
        identity = json.loads(text)
        row = Row(title, identity["model"], identity["preset"])
        cell = Cell(DataSource(name, name), identity["dataset_fingerprint"], row, k, seed, identity["config"])
        result = find_kept(PUBLISHED, cell)
        assert result is not None, title
        assert result.results.model.name == identity["model"]
        for ranking in ("sampled", "full"):
            ranks = result.ranks.filter(pl.col("ranking") == ranking)["rank"]
            assert len(ranks) == result.results.dataset.test_users
            published = getattr(result.results.metrics, ranking)["MRR"].value
            assert (1 / ranks).mean() == pytest.approx(published)
