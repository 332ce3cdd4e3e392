"""Figures of ranked users against plain numpy on every user."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metatl.evaluation.measures import (
    Measures,
    RankedUsers,
    Ranking,
    measure,
    measure_ties,
    quantile_groups,
    slices_by,
    user_frame,
)
from metatl.exceptions import ConfigError, DataError
from metatl.metrics.rank_metrics import estimate, estimate_median, parse_metrics, ranks, user_metrics
from metatl.ranking.blocks import RankCounts

METRICS = parse_metrics("MRR,HR@10,NDCG@10,MRR@5")
N = 100


def ranked(users=500, seed=0, ties=True, listed=None):
    generator = np.random.default_rng(seed)
    greater = np.minimum(generator.geometric(0.05, users) - 1, N)
    equal = np.minimum(generator.integers(0, 3, users) * ties, N - greater)
    compared = generator.integers(900, 904, users)
    full = RankCounts(np.minimum(greater * 9, compared), np.zeros(users, np.int64))
    return RankedUsers(
        user_ids=pl.Series("user_id", [f"u{user}" for user in range(users)]),
        sampled=Ranking(RankCounts(greater, equal), np.full(users, N), listed),
        full=Ranking(full, compared),
        catalogue_negatives=compared,
    )


@pytest.mark.parametrize("ties", ["worst", "mean", "best"])
def test_means_are_those_of_every_user(ties):
    users = ranked()
    report = measure(users, Measures(METRICS, ties))
    for found, ranking in ((report.sampled, users.sampled), (report.full, users.full)):
        values = user_metrics(*ranking.counts, METRICS, ties=ties)
        for metric, mean, error in zip(METRICS, values.mean(axis=0), stats.sem(values), strict=True):
            assert found[metric.name].value == pytest.approx(mean)
            assert found[metric.name].standard_error == pytest.approx(error)
            assert found[metric.name].low < mean < found[metric.name].high
        place = ranks(*ranking.counts, ties=ties)
        assert found["mean rank"].value == pytest.approx(place.mean())
        assert found["median rank"].value == np.median(place)
        assert found["AUC"].value == pytest.approx((1 - (place - 1) / ranking.compared).mean())
        half = found["MRR"].high - found["MRR"].low
        assert half == pytest.approx(2 * 1.96 * found["MRR"].standard_error, rel=0.15)


def test_the_area_under_the_curve_is_that_of_scikit_learn_s_definition():
    # AUC of one positive: the share of negatives below it, a level one counting as half.
    scores = np.random.default_rng(1).integers(0, 5, (200, 21)).astype(np.float32)
    greater = (scores[:, 1:] > scores[:, :1]).sum(axis=1)
    equal = (scores[:, 1:] == scores[:, :1]).sum(axis=1)
    users = RankedUsers(
        pl.Series("user_id", np.arange(200)), Ranking(RankCounts(greater, equal), np.full(200, 20))
    )
    found = measure(users, Measures(METRICS, "mean")).sampled["AUC"].value
    expected = [stats.mannwhitneyu(row[:1], row[1:]).statistic / 20 for row in scores]
    assert found == pytest.approx(np.mean(expected))


def test_the_corrected_metrics_are_there_where_the_catalogue_is_known():
    users = ranked()
    corrected = measure(users, Measures(METRICS)).corrected
    assert list(corrected) == ["unbiased_rank", "bias_variance"]
    for values in corrected.values():
        assert list(values) == [metric.name for metric in METRICS]
        assert all(found.standard_error > 0 for found in values.values())
    unknown = RankedUsers(users.user_ids, users.sampled)
    assert measure(unknown, Measures(METRICS)).corrected is None


def test_ties_are_counted_and_every_rule_is_told():
    users = ranked()
    reports = measure_ties(users, Measures(METRICS))
    assert reports["sampled"].share == pytest.approx((users.sampled.counts.equal > 0).mean())
    assert reports["full"].share == 0
    for ties, means in reports["sampled"].metrics.items():
        values = user_metrics(*users.sampled.counts, METRICS, ties=ties)
        assert means == {
            metric.name: pytest.approx(mean)
            for metric, mean in zip(METRICS, values.mean(axis=0), strict=True)
        }


def test_targets_that_are_not_listed_score_nothing():
    listed = np.random.default_rng(3).random(500) < 0.7
    users = ranked(listed=listed)
    values = user_metrics(*users.sampled.counts, METRICS) * listed[:, None]
    found = measure(users, Measures(METRICS)).sampled
    assert list(found) == [metric.name for metric in METRICS]
    for metric, mean in zip(METRICS, values.mean(axis=0), strict=True):
        assert found[metric.name].value == pytest.approx(mean)
    frame = user_frame(users, Measures(METRICS)).filter(pl.col("ranking") == "sampled")
    np.testing.assert_allclose(frame.select(metric.name for metric in METRICS).to_numpy(), values)
    assert frame["rank"].is_null().to_list() == (~listed).tolist()
    tied = measure_ties(users, Measures(METRICS))["sampled"]
    assert tied.share == pytest.approx(((users.sampled.counts.equal > 0) & listed).mean())
    assert tied.metrics["worst"]["MRR"] == pytest.approx(values[:, 0].mean())


def test_nobody_is_listed():
    users = ranked(listed=np.zeros(500, bool))
    assert measure(users, Measures(METRICS)).sampled["MRR"].value == 0
    assert measure_ties(users, Measures(METRICS))["sampled"].share == 0


def test_slices_are_the_metrics_of_their_users():
    users = ranked()
    attributes = pl.DataFrame(
        {"user_id": [f"u{user}" for user in range(0, 500, 2)], "country": ["FR", "IT"] * 125}
    )
    lengths = pl.Series("history_length", np.arange(500) % 3)
    slices = slices_by(
        users, ["country", "history_length"], {"history_length": lengths}, attributes, Measures(METRICS)
    )
    assert [(part.by, part.value) for part in slices] == [
        ("country", "FR"), ("country", "IT"), ("country", "none"),
        ("history_length", "0"), ("history_length", "1"), ("history_length", "2"),
    ]  # fmt: skip
    assert [part.users for part in slices] == [125, 125, 250, 167, 167, 166]
    mrr = user_metrics(*users.sampled.counts, METRICS)[:, 0]
    members = [np.arange(0, 500, 4), np.arange(2, 500, 4), np.arange(1, 500, 2)]
    members += [np.arange(place, 500, 3) for place in range(3)]
    for part, rows in zip(slices, members, strict=True):
        assert part.metrics.sampled["MRR"].value == pytest.approx(mrr[rows].mean())
        alone = measure(users.select(rows), Measures(METRICS))
        assert part.metrics == alone


def test_slices_that_cannot_be_made():
    users, measures = ranked(users=100), Measures(METRICS)
    attributes = pl.DataFrame({"user_id": ["u0", "u0"], "many": [1, 2]})
    with pytest.raises(ConfigError, match=r"^by: found 'country', expected one of history_length, many"):
        slices_by(users, ["country"], {"history_length": pl.Series([1])}, attributes, measures)
    with pytest.raises(DataError, match=r"^attributes: found the user 'u0' more than once"):
        slices_by(users, ["many"], {}, attributes, measures)
    with pytest.raises(DataError, match=r"^attributes: found no column 'user_id'"):
        slices_by(users, ["many"], {}, pl.DataFrame({"many": [1]}), measures)
    each = pl.DataFrame({"user_id": users.user_ids, "many": np.arange(100)})
    with pytest.raises(ConfigError, match=r"^by: found 100 values in 'many', expected at most 50"):
        slices_by(users, ["many"], {}, each, measures)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=80), st.integers(1, 6))
def test_quantile_groups_are_ranges_in_order(values, groups):
    found = quantile_groups(np.array(values, np.int64), "popularity", groups)
    assert found.name == "popularity"
    assert found.n_unique() <= groups
    parts = {}
    for value, name in zip(values, found.to_list(), strict=True):
        parts.setdefault(name, []).append(value)
    for name, mine in parts.items():
        assert name in (str(min(mine)), f"{min(mine)}–{max(mine)}")
    ordered = [parts[name] for name in found.unique().sort().to_list()]
    for lower, upper in itertools.pairwise(ordered):
        assert max(lower) < min(upper)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_groups_estimate_what_users_do(numbers):
    values = np.array(numbers, np.float64)
    distinct, counts = np.unique(values, return_counts=True)
    (grouped,) = estimate(distinct[:, None].copy(), counts)
    (alone,) = estimate(values[:, None].copy())
    assert grouped.value == pytest.approx(alone.value)
    assert grouped.standard_error == pytest.approx(alone.standard_error)
    median = estimate_median(distinct, counts)
    assert median.value == np.median(values)
    assert median.low <= median.value <= median.high


@pytest.mark.parametrize("users", [5, 6, 30, 101, 1000])
def test_the_interval_of_the_median_holds_it_often_enough(users):
    generator = np.random.default_rng(users)
    held = 0
    for _ in range(1000):
        values, counts = np.unique(generator.exponential(size=users), return_counts=True)
        found = estimate_median(values, counts)
        held += found.low <= np.log(2) <= found.high
    # At least 95 % by construction, short of it only where there are too few users for any interval.
    assert held >= 1000 * (0.93 if users > 5 else 0.90)
