"""Vectors of users and items: the figures are those of their scores, and those of our own runs."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

import metatl
from candidate_data import NUM_ITEMS, small_candidates, small_split
from metatl.evaluation.external import evaluate_embeddings as embedding_evaluation
from metatl.evaluation.external.evaluate_embeddings import evaluate_embeddings
from metatl.exceptions import ArgumentTypeError, ConfigError, DataError, NotANumberError
from metatl.metrics.list_metrics import list_metrics

DIM = 6
METRICS = "MRR,HR@5,NDCG@5"


@pytest.fixture(scope="module")
def split():
    return small_split()


@pytest.fixture(scope="module")
def sets(split):
    return small_candidates(split)


@pytest.fixture(scope="module")
def model(sets, split):
    generator = np.random.default_rng(5)
    return {
        "queries": generator.normal(size=(len(sets.users), DIM)).astype(np.float32),
        "items": generator.normal(size=(split.num_items, DIM)).astype(np.float32),
        "item_ids": split.item_ids.to_frame("item_id"),
        "bias": generator.normal(size=split.num_items).astype(np.float32),
    }


def score_table(model, similarity):
    product = model["queries"].astype(np.float64) @ model["items"].astype(np.float64).T
    squared = ((model["queries"][:, None].astype(np.float64) - model["items"][None]) ** 2).sum(axis=2)
    return {"dot": product, "squared_l2": -squared, "l2": -np.sqrt(squared)}[similarity] + model["bias"]


@pytest.mark.parametrize("similarity", ["dot", "l2", "squared_l2"])
def test_ranks_are_those_of_the_scores(similarity, split, sets, model, monkeypatch):
    monkeypatch.setattr(embedding_evaluation, "BLOCK_USERS", 16)
    evaluation = evaluate_embeddings(sets, **model, similarity=similarity, metrics=METRICS)
    scores = score_table(model, similarity)
    frame = evaluation.per_user
    lists = []
    for row, user in enumerate(split.test.tolist()):
        mine = split.cold.items[split.cold.indptr[user] : split.cold.indptr[user + 1]]
        target = scores[row, mine[3]]
        sampled = 1 + (scores[row, sets.candidates[row, 1:]] >= target).sum()
        others = np.setdiff1d(np.arange(split.num_items), mine)
        assert frame.filter(pl.col("ranking") == "sampled")["rank"][row] == sampled
        assert (
            frame.filter(pl.col("ranking") == "full")["rank"][row]
            == 1 + (scores[row, others] >= target).sum()
        )
        shown = scores[row].copy()
        shown[mine[:3]] = -np.inf
        lists.append(np.argsort(-shown)[:10])
    expected = list_metrics(np.array(lists), split.targets(split.test), np.ones(split.num_items, np.int64))
    assert evaluation.results.lists.coverage == expected.coverage
    assert evaluation.results.lists.popularity_bias is None
    assert evaluation.results.notes == []


def test_files_tensors_and_arrays_are_alike(sets, model, tmp_path):
    sets.save(tmp_path / "candidates.parquet")
    for name in ("queries", "items", "bias"):
        np.save(tmp_path / f"{name}.npy", model[name])
    model["item_ids"].write_parquet(tmp_path / "ids.parquet")
    model["item_ids"].write_csv(tmp_path / "ids.csv")
    arrays = {name: tmp_path / f"{name}.npy" for name in ("queries", "items", "bias")}
    expected = evaluate_embeddings(sets, **model).results
    for ids in (tmp_path / "ids.parquet", tmp_path / "ids.csv"):
        found = evaluate_embeddings(tmp_path / "candidates.parquet", **arrays, item_ids=ids).results
        assert found.metrics == expected.metrics
        assert found.source.name == "queries"
        assert set(found.source.files) == {"candidates", "queries", "items", "item_ids", "bias"}
    tensors = {name: torch.from_numpy(model[name]) for name in ("queries", "items", "bias")}
    found = evaluate_embeddings(sets, **tensors, item_ids=model["item_ids"]["item_id"]).results
    assert found.metrics == expected.metrics


def test_the_order_of_the_items_does_not_matter(sets, model, split):
    order = np.random.default_rng(0).permutation(split.num_items)
    moved = {
        **model,
        "items": model["items"][order],
        "bias": model["bias"][order],
        "item_ids": model["item_ids"][order],
    }
    assert (
        evaluate_embeddings(sets, **moved).results.metrics
        == evaluate_embeddings(sets, **model).results.metrics
    )


def test_a_run_of_ours_gives_the_same_figures_by_its_vectors():
    split = small_split(users=600)
    rows = [
        (user, item, time)
        for part in (split.train, split.cold)
        for user, item, time in zip(
            part.user_ids.gather(part.users), part.item_ids.gather(part.items), part.timestamps, strict=True
        )
    ]
    interactions = metatl.Interactions.from_frame(
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), timestamp_unit="us"
    )
    config = {"dim": 8, "batch_size": 64, "max_steps": 10, "eval_every": 5, "inner_steps": 0}
    run = metatl.fit(
        interactions, config=config, split=metatl.SplitSettings(k=3, min_item_count=1), device="cpu"
    )
    ours = metatl.evaluate(run, data=interactions, candidates="uni20", seed=3)
    split = run.record.split.split(interactions)
    sets = metatl.sample_candidate_sets(split, split.test, n=20, seed=3)
    with torch.no_grad():
        encoded = run.model.encode(torch.from_numpy(split.histories(split.test)), None)
    theirs = evaluate_embeddings(
        sets,
        encoded.queries,
        run.model.item_table,
        pl.DataFrame({"item_id": run.item_ids, "count": run.item_counts}),
        bias=run.model.item_bias,
        similarity=run.model.similarity,
        seed=3,
        by=["item_popularity", "history_length"],
    )
    assert theirs.results.metrics == ours.results.metrics
    assert theirs.results.lists == ours.results.lists
    assert theirs.results.ties == ours.results.ties
    assert theirs.per_user.equals(ours.per_user)
    again = metatl.evaluate(
        run, data=interactions, candidates="uni20", seed=3, by=["item_popularity", "history_length"]
    )
    assert theirs.results.slices == again.results.slices


def test_another_catalogue_is_noted(sets, model):
    more = {
        **model,
        "items": np.concatenate([model["items"], model["items"][:2]]),
        "bias": np.concatenate([model["bias"], model["bias"][:2]]),
        "item_ids": pl.concat([model["item_ids"], pl.DataFrame({"item_id": ["new", "newer"]})]),
    }
    (note,) = evaluate_embeddings(sets, **more).results.notes
    assert f"a catalogue of {sets.num_items} items, the vectors are of {sets.num_items + 2}" in note


def test_what_does_not_fit_is_named(sets, model, tmp_path):
    users, items = len(sets.users), len(model["items"])
    ids = model["item_ids"]
    for change, message in (
        (
            {"queries": model["queries"][1:]},
            rf"queries: found the shape \({users - 1}, {DIM}\), expected \({users}",
        ),
        ({"queries": model["queries"].astype(np.float64)}, "queries: found float64, expected float32"),
        (
            {"items": model["items"][1:]},
            rf"items: found the shape \({items - 1}, {DIM}\), expected \({items}, any",
        ),
        ({"bias": model["bias"][:, None]}, rf"bias: found the shape \({items}, 1\), expected \({items}\)"),
        ({"items": "none.npy"}, r"none\.npy: found no such file"),
        ({"items": "/dev/null"}, r"^/dev/null: found a pipe or a device"),
        ({"item_ids": "/dev/null"}, r"^/dev/null: found an empty file"),
        ({"item_ids": pl.DataFrame({"id": [1]})}, "found no column 'item_id' among 'id'"),
        ({"item_ids": pl.DataFrame({"item_id": [1]})}, r"items: found the shape"),
        ({"item_ids": pl.concat([ids, ids[:1]])}, "twice, expected distinct ids"),
        (
            {"item_ids": ids.with_columns(count=pl.lit(-1))},
            "column 'count': found -1, expected an integer of at",
        ),
    ):
        with pytest.raises(DataError, match=message):
            evaluate_embeddings(sets, **{**model, **change})
    with pytest.raises(ArgumentTypeError, match="items: found list, expected an array"):
        evaluate_embeddings(sets, **{**model, "items": [[1.0]]})
    fewer = {**model, "items": model["items"][5:], "bias": model["bias"][5:], "item_ids": ids[5:]}
    with pytest.raises(DataError, match=r"item_ids: found none for \d items of the candidates, such as 'i"):
        evaluate_embeddings(sets, **fewer)
    with pytest.raises(ConfigError, match="similarity: found 'cosine'"):
        evaluate_embeddings(sets, **model, similarity="cosine")
    broken = model["items"].copy()
    broken[3, 2] = broken[4, 0] = broken[4, 1] = np.nan
    says = f"items: found 3 NaN in {broken.size} numbers, the first in row 3"
    with pytest.raises(NotANumberError, match=says):
        evaluate_embeddings(sets, **{**model, "items": broken})
    (tmp_path / "ids.csv").write_text("")
    with pytest.raises(DataError, match=r"ids\.csv: found an empty file"):
        evaluate_embeddings(sets, **{**model, "item_ids": tmp_path / "ids.csv"})
    assert items == NUM_ITEMS
