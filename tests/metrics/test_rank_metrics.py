"""Metrics against their definitions, random tie breaking, and another library."""

from __future__ import annotations

import itertools
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.exceptions import ConfigError
from metatl.metrics.names import DEFAULT_METRICS
from metatl.metrics.rank_metrics import (
    Metric,
    estimate,
    mean_metrics,
    ordered_mean,
    parse_metrics,
    ranks,
    user_metrics,
)

ALL = parse_metrics("MRR,HR@1,HR@3,HR@10,NDCG@1,NDCG@3,NDCG@10")


def by_definition(metric, rank):
    if metric.kind == "MRR":
        return 1 / rank
    if rank > metric.cutoff:
        return 0.0
    return 1.0 if metric.kind == "HR" else 1 / math.log2(1 + rank)


@given(st.integers(0, 150), st.integers(0, 40))
def test_each_tie_rule_by_its_definition(greater, equal):
    counts = (np.array([greater]), np.array([equal]))
    places = range(1 + greater, 2 + greater + equal)
    rules = {"worst": places[-1:], "mean": places, "best": places[:1]}
    for ties, possible in rules.items():
        values = user_metrics(*counts, ALL, ties=ties)
        assert values.shape == (1, len(ALL))
        assert values.dtype == np.float64
        expected = [np.mean([by_definition(metric, rank) for rank in possible]) for metric in ALL]
        np.testing.assert_allclose(values[0], expected, rtol=1e-12)
        assert ranks(*counts, ties=ties)[0] == np.mean(possible)


def test_constant_scores_are_no_hits_or_chance():
    counts = (np.zeros(1, np.int64), np.full(1, 100))
    assert mean_metrics(*counts, metrics=["HR@10"]) == {"HR@10": 0.0}
    assert mean_metrics(*counts, metrics=["HR@10"], ties="mean") == {"HR@10": pytest.approx(10 / 101)}
    assert mean_metrics(*counts, metrics=["HR@10"], ties="best") == {"HR@10": 1.0}


def test_ir_measures_agrees():
    generator = np.random.default_rng(0)
    scores = generator.permuted(np.tile(np.arange(101.0), (200, 1)), axis=1)
    counts = ((scores[:, 1:] > scores[:, :1]).sum(axis=1), np.zeros(200, np.int64))
    relevant = [ir_measures.Qrel(str(user), "0", 1) for user in range(200)]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), float(scores[user, item]))
        for user, item in itertools.product(range(200), range(101))
    ]
    measures = {
        "MRR": ir_measures.RR,
        "HR@1": ir_measures.Success @ 1,
        "HR@10": ir_measures.Success @ 10,
        "NDCG@5": ir_measures.nDCG @ 5,
        "NDCG@10": ir_measures.nDCG @ 10,
    }
    expected = ir_measures.calc_aggregate(list(measures.values()), relevant, run)
    found = mean_metrics(*counts, metrics=list(measures))
    for name, measure in measures.items():
        assert found[name] == pytest.approx(expected[measure], rel=1e-9)


def test_columns_come_in_the_order_asked_for():
    counts = (np.array([0, 1, 7]), np.array([0, 0, 0]))
    names = ["NDCG@5", "HR@1", "MRR", "HR@5"]
    together = user_metrics(*counts, parse_metrics(names))
    for column, name in enumerate(names):
        np.testing.assert_array_equal(together[:, column], user_metrics(*counts, parse_metrics(name))[:, 0])


def test_means_add_one_after_the_other():
    values = np.random.default_rng(0).random((1000, 2)) ** 20
    total = np.zeros(2)
    for row in values:
        total += row
    np.testing.assert_array_equal(ordered_mean(values), total / 1000)


def test_intervals_are_percentiles_of_resampled_means():
    generator = np.random.default_rng(0)
    values = np.ascontiguousarray(generator.random((400, 2)))
    first, second = estimate(values, seed=1)
    assert first.low < first.value < first.high
    # The central limit theorem knows the width.
    width = 2 * 1.96 * values[:, 1].std() / math.sqrt(400)
    assert second.high - second.low == pytest.approx(width, rel=0.1)
    assert estimate(values, seed=1) == [first, second]
    assert estimate(values, seed=1, num_threads=1) == estimate(values, seed=1, num_threads=3)
    assert estimate(values, seed=2) != [first, second]


def test_names_are_read():
    assert parse_metrics(" mrr, hr@10,NDCG@3 ,HR@10") == (
        Metric("MRR", None),
        Metric("HR", 10),
        Metric("NDCG", 3),
    )
    assert tuple(metric.name for metric in parse_metrics(DEFAULT_METRICS)) == DEFAULT_METRICS


@pytest.mark.parametrize("name", ["", "MAP", "MRR@0", "HR", "HR@0", "HR@-1", "HR@x", "NDCG@", "HR@²"])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(ConfigError, match=r"unknown metric .* known are MRR, MRR@k, HR@k and NDCG@k"):
        parse_metrics(["MRR", name])
