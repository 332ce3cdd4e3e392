"""Evaluating a run against ranking each user by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import metatl
from metatl.data.candidates import sample_candidate_sets
from metatl.data.histories import Histories
from metatl.evaluation.evaluate_runs import parse_candidates, rank_users
from metatl.exceptions import ConfigError, DataError, InvalidArgumentError, MetatlError, RunError
from metatl.models import SYSTEMS
from metatl.runs.run_directory import SplitSettings
from planted_data import write_ring

NUM_ITEMS = 200
SMALL = {"dim": 8, "batch_size": 64, "max_steps": 20, "eval_every": 10, "warmup_steps": 5}


@pytest.fixture(scope="module")
def interactions_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "ring.csv"
    return write_ring(path, 600, items=NUM_ITEMS, rows=(6, 9), first=0, gap=1_000_000)


@pytest.fixture(scope="module", params=SYSTEMS)
def run(request, interactions_file):
    config = {}
    if request.param == "metatl":
        config = SMALL
    elif SYSTEMS[request.param].batches is not None:
        config = {"dim": 16, "batch_size": 64, "max_steps": 20, "eval_every": 10}
    return metatl.fit(interactions_file, model=request.param, config=config, device="cpu")


def user_scores(run, history):
    """The scores of the whole catalogue for one user, from the model alone."""
    if hasattr(run.model, "score"):
        return run.model.score(Histories.from_matrix(history[None]))[0]
    import torch

    from metatl import _metatl

    count = run.model.support_negatives
    negatives = None
    if count:
        drawn = _metatl.sample_support_negatives(history[None], count, len(run.item_ids), seed=0)
        negatives = torch.from_numpy(drawn)
    if hasattr(run.model, "score_pairs"):
        adapted = run.model.adapt(torch.from_numpy(history[None]), negatives)
        return run.model.score_pairs(adapted, torch.arange(len(run.item_ids))[None])[0].numpy()
    encoded = run.model.encode(torch.from_numpy(history[None]), negatives)
    table = run.model.item_table.clone()
    if encoded.overrides is not None:
        _, items, rows = encoded.overrides.ragged()
        table[items] = rows.detach()
    query = encoded.queries[0].detach()
    squared = ((table - query) ** 2).sum(dim=1)
    scores = {"dot": table @ query, "squared_l2": -squared, "l2": -squared.sqrt()}[run.model.similarity]
    bias = run.model.item_bias
    return (scores if bias is None else scores + bias).numpy()


def test_ranks_are_those_of_every_user_ranked_alone(run):
    evaluation = metatl.evaluate(run)
    split = run.record.split.split(metatl.read_interactions(run.record.data))
    sets = metatl.sample_candidate_sets(split, split.test, n=100, kind="uniform", seed=0)
    assert evaluation.results.candidates.sha256 == sets.sha256
    frame = evaluation.per_user
    assert frame.columns[:5] == ["user_id", "ranking", "rank", "greater", "equal"]
    sampled = frame.filter(pl.col("ranking") == "sampled")
    full = frame.filter(pl.col("ranking") == "full")
    assert sampled["user_id"].to_list() == split.cold.user_ids[split.test].to_list()
    for row, user in enumerate(split.test.tolist()):
        mine = split.cold.items[split.cold.indptr[user] : split.cold.indptr[user + 1]]
        target = mine[split.k]
        scores = user_scores(run, mine[: split.k].copy())
        others = np.setdiff1d(np.arange(split.num_items), mine)
        # The kernel and this test round differently, so a near tie may fall either way.
        margin = 1e-5 * max(1.0, float(np.abs(scores).max()))
        for ranking, negatives in ((sampled, sets.candidates[row, 1:]), (full, others)):
            assert not set(negatives.tolist()) & set(mine.tolist())
            found = int(ranking["rank"][row])
            assert found == 1 + ranking["greater"][row] + ranking["equal"][row]
            assert 1 + (scores[negatives] > scores[target] + margin).sum() <= found
            assert found <= 1 + (scores[negatives] >= scores[target] - margin).sum()


def test_means_and_intervals_are_those_of_the_users(run):
    evaluation = metatl.evaluate(run, metrics="MRR,HR@10,NDCG@5")
    results = evaluation.results
    for ranking, metrics in (("sampled", results.metrics.sampled), ("full", results.metrics.full)):
        frame = evaluation.per_user.filter(pl.col("ranking") == ranking)
        assert list(metrics) == ["MRR", "HR@10", "NDCG@5", "AUC", "mean rank", "median rank"]
        for name, found in list(metrics.items())[:3]:
            assert found.value == pytest.approx(frame[name].mean())
            assert found.low <= found.value <= found.high
        assert metrics["MRR"].value == pytest.approx((1 / frame["rank"]).mean())
        assert metrics["HR@10"].value == pytest.approx((frame["rank"] <= 10).mean())
        assert metrics["mean rank"].value == pytest.approx(frame["rank"].mean())
        assert metrics["median rank"].value == frame["rank"].median()
    assert list(results.timings) == ["read", "split", "candidates", "encode", "rank", "lists", "metrics"]
    assert results.dataset.test_users == results.users.evaluated == len(frame)


def test_lists_and_slices_are_those_of_the_users(run):
    evaluation = metatl.evaluate(run, metrics="MRR", top=5, by=["item_popularity", "history_length"])
    split = run.record.split.split(metatl.read_interactions(run.record.data))
    lists = rank_users(run.model, split, split.test, None, top=5).lists
    counts = run.item_counts
    found = evaluation.results.lists
    assert found.n == 5
    assert found.coverage == len(np.unique(lists)) / len(counts)
    assert found.popularity_bias == pytest.approx(
        counts[lists].mean() / counts[split.targets(split.test)].mean()
    )
    history = split.histories(split.test)
    assert not any(set(mine) & set(seen) for mine, seen in zip(lists, history, strict=True))
    popular, length = (
        [part for part in evaluation.results.slices if part.by == by]
        for by in ("item_popularity", "history_length")
    )
    assert sum(part.users for part in popular) == len(split.test)
    mean = sum(part.users * part.metrics.full["MRR"].value for part in popular) / len(split.test)
    assert mean == pytest.approx(evaluation.results.metrics.full["MRR"].value)
    assert [(part.value, part.metrics) for part in length] == [("3", evaluation.results.metrics)]


def test_an_evaluation_repeats(run):
    first, second = (metatl.evaluate(run, num_threads=threads) for threads in (1, 3))
    timeless = {"timings"}
    assert first.results.model_dump(exclude=timeless) == second.results.model_dump(exclude=timeless)
    other = metatl.evaluate(run, seed=1)
    assert other.results.candidates.sha256 != first.results.candidates.sha256


def test_the_catalogue_alone(run):
    evaluation = metatl.evaluate(run, candidates="full")
    assert evaluation.results.metrics.sampled is None
    assert evaluation.results.candidates is None
    assert set(evaluation.per_user["ranking"]) == {"full"}
    both = metatl.evaluate(run)
    assert evaluation.results.metrics.full == both.metrics.full


def test_negatives_by_popularity_and_another_number(run):
    results = metatl.evaluate(run, candidates="pop20").results
    assert (results.candidates.kind, results.candidates.n) == ("popularity", 20)
    assert results.metrics.sampled["HR@1"].value >= metatl.evaluate(run).metrics.full["HR@1"].value


def test_another_k_and_tie_rule(run):
    results = metatl.evaluate(run, k=2, ties="best").results
    assert results.protocol.k == 2
    assert results.protocol.ties == "best"
    strict = metatl.evaluate(run, k=2)
    assert results.metrics.sampled["MRR"].value >= strict.metrics.sampled["MRR"].value


@pytest.fixture(scope="module")
def popularity(interactions_file):
    return metatl.fit(interactions_file, model="popularity", device="cpu")


def test_interactions_in_memory(popularity, interactions_file):
    interactions = metatl.read_interactions(interactions_file)
    results = metatl.evaluate(popularity, data=interactions).results
    assert results.metrics == metatl.evaluate(popularity).metrics
    assert results.dataset.source is None
    unnamed = metatl.fit(interactions, model="popularity", device="cpu")
    with pytest.raises(RunError, match="in memory"):
        metatl.evaluate(unnamed)
    assert metatl.evaluate(unnamed, data=interactions).metrics == results.metrics


def test_an_item_that_a_user_has_twice_is_left_out_once(interactions_file):
    frame = pl.read_csv(interactions_file)
    later = frame.with_columns(timestamp=pl.col("timestamp") + 500)
    interactions = metatl.Interactions.from_frame(pl.concat([frame, later]), repeats="all")
    run = metatl.fit(interactions, model="popularity", device="cpu")
    evaluation = metatl.evaluate(run, data=interactions)
    split = SplitSettings().split(interactions)
    items = [
        set(split.cold.items[split.cold.indptr[user] : split.cold.indptr[user + 1]]) for user in split.test
    ]
    expected = [split.num_items - len(own) for own in items]
    assert max(expected) > split.num_items - split.cold.lengths[split.test].min()
    assert evaluation.users.full.compared.tolist() == expected
    sets = sample_candidate_sets(split, split.test, n=10, seed=0)
    assert sets.negatives_in_catalogue.tolist() == expected


def test_without_validation_users_nothing_is_fitted(interactions_file, tmp_path):
    split = SplitSettings(validation_share=0.0)
    with pytest.raises(DataError, match=r"no validation users among \d+ new ones.* raise validation_share"):
        metatl.fit(interactions_file, model="popularity", split=split, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_data_is_refused(popularity, interactions_file, tmp_path):
    shorter = tmp_path / "shorter.csv"
    shorter.write_text("".join(interactions_file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match=r"shorter\.csv: found data with fingerprint .* --data"):
        metatl.evaluate(popularity, data=shorter)


def test_more_shown_than_anybody_has(popularity):
    with pytest.raises(DataError, match=r"smaller|more than 50"):
        metatl.evaluate(popularity, k=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 2.5}, r"k: found 2\.5, expected a whole number of at least 1"),
        ({"k": "a"}, "k: found 'a', expected a whole number of at least 1"),
        ({"top": -1}, "top: found -1, expected a whole number of at least 0"),
        ({"attributes": 5}, r"attributes: found int, expected a table; .*read_attributes"),
        ({"data": 5}, r"data: found int, expected 'wines', the path of a file, or a table"),
    ],
)
def test_arguments_of_another_kind_are_named(popularity, options, message):
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        metatl.evaluate(popularity, **options)


@pytest.mark.parametrize("metrics", [[], 5, [5]])
def test_metrics_without_a_name_are_refused(popularity, metrics):
    with pytest.raises(ConfigError, match=r"^metrics: found .*, expected names of metrics, as in"):
        metatl.evaluate(popularity, metrics=metrics)


def test_scores_are_referred_to_their_function():
    scores = np.zeros((3, 4), np.float32)
    with pytest.raises(InvalidArgumentError, match=r"^run: found ndarray, .* metatl\.evaluate_scores"):
        metatl.evaluate(scores)
    with pytest.raises(InvalidArgumentError, match=r"^run: found str, .*metatl\.fit"):
        metatl.evaluate("runs/wines")


def test_more_candidates_than_items(popularity):
    with pytest.raises(MetatlError, match=r"195|items"):
        metatl.evaluate(popularity, candidates="uni195")


def test_candidates_are_read():
    assert parse_candidates("uni100") == ("uniform", 100)
    assert parse_candidates("pop7") == ("popularity", 7)
    assert parse_candidates("full") is None
    for text in ("", "uni", "uni0", "uni-1", "top100", "uni100.5", "full100", "uni1000000000000"):
        with pytest.raises(ConfigError, match="expected uniN or popN"):
            parse_candidates(text)
