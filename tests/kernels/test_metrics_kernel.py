"""Metrics against their definitions, a library, and the bootstrap against its distribution."""

from __future__ import annotations

import math
from fractions import Fraction

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError, NotANumberError

RULES = ("worst", "mean", "best")
CUTOFFS = [1, 3, 10, 50]

counts = st.integers(0, 120)


def ints(*values):
    return np.array(values, np.int64)


def possible_ranks(greater, equal, ties):
    ranks = range(1 + greater, 2 + greater + equal)
    return {"worst": ranks[-1:], "mean": ranks, "best": ranks[:1]}[ties]


@given(st.lists(st.tuples(counts, counts), max_size=5), st.lists(st.integers(1, 300), max_size=4))
def test_metrics_are_expectations_over_the_possible_ranks(users, cutoffs):
    greater, equal = (np.array([user[part] for user in users], np.int64) for part in (0, 1))
    for ties in RULES:
        found = _metatl.user_metrics(greater, equal, ties=ties, cutoffs=np.array(cutoffs, np.int64))
        mean_ranks = _metatl.ranks(greater, equal, ties=ties)
        assert found.shape == (len(users), 1 + 3 * len(cutoffs))
        assert found.dtype == mean_ranks.dtype == np.float64
        for row, mean_rank, user in zip(found, mean_ranks, users, strict=True):
            ranks = possible_ranks(*user, ties)
            hits = [[rank for rank in ranks if rank <= cutoff] for cutoff in cutoffs]
            expected = [
                float(sum(Fraction(1, rank) for rank in ranks) / len(ranks)),
                *(float(Fraction(len(hit), len(ranks))) for hit in hits),
                *(math.fsum(1 / math.log2(1 + rank) for rank in hit) / len(ranks) for hit in hits),
                *(float(sum((Fraction(1, rank) for rank in hit), Fraction()) / len(ranks)) for hit in hits),
            ]
            np.testing.assert_allclose(row, expected, rtol=1e-12)
            assert mean_rank == Fraction(sum(ranks), len(ranks))


def test_ir_measures_agrees_where_nothing_ties():
    rng = np.random.default_rng(0)
    users, width = 300, 101
    scores = rng.permuted(np.tile(np.arange(width, dtype=np.float32), (users, 1)), axis=1)
    greater, equal = _metatl.rank_scores(scores)
    assert not equal.any()
    relevant = [ir_measures.Qrel(str(user), "0", 1) for user in range(users)]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), float(scores[user, item]))
        for user in range(users)
        for item in range(width)
    ]
    measures = [
        ir_measures.RR,
        *(ir_measures.Success @ cutoff for cutoff in CUTOFFS),
        *(ir_measures.nDCG @ cutoff for cutoff in CUTOFFS),
        *(ir_measures.RR @ cutoff for cutoff in CUTOFFS),
    ]
    expected = np.full((users, len(measures)), np.nan)
    for value in ir_measures.iter_calc(measures, relevant, run):
        expected[int(value.query_id), measures.index(value.measure)] = value.value
    for ties in RULES:
        found = _metatl.user_metrics(greater, equal, ties=ties, cutoffs=np.array(CUTOFFS))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_million_ties_are_summed_exactly():
    for greater, equal in [(0, 10**6), (10**5, 10**6), (10**6, 5), (63, 2), (64, 1)]:
        found = _metatl.user_metrics(ints(greater), ints(equal), ties="mean", cutoffs=ints(1000, 10**6))
        ranks = np.arange(1 + greater, 2 + greater + equal, dtype=np.float64)
        gains = 1 / np.log2(1 + ranks)
        expected = [math.fsum(1 / ranks)]
        expected += [np.count_nonzero(ranks <= cutoff) for cutoff in (1000, 10**6)]
        expected += [math.fsum(gains[ranks <= cutoff]) for cutoff in (1000, 10**6)]
        expected += [math.fsum(1 / ranks[ranks <= cutoff]) for cutoff in (1000, 10**6)]
        np.testing.assert_allclose(found[0], np.array(expected) / len(ranks), rtol=1e-10)


def test_wrong_arguments_are_named():
    good = {"greater": ints(1, 2), "equal": ints(0, 0), "ties": "mean", "cutoffs": ints(1)}
    wrong = {
        "greater": [ints(-1, 0), np.zeros(2), np.zeros((2, 1), np.int64), [1, 2]],
        "equal": [ints(0), ints(0, -(2**63)), np.zeros(2, np.int32)],
        "ties": ["median", None, 1],
        "cutoffs": [ints(0), ints(-1), ints(2**62), np.ones(1)],
        "num_threads": [0, "2"],
    }
    for argument, values in wrong.items():
        for value in values:
            with pytest.raises(InvalidArgumentError, match=f"^{argument}: found .*, expected"):
                _metatl.user_metrics(**{**good, argument: value})
            if argument != "cutoffs":
                with pytest.raises(InvalidArgumentError, match=f"^{argument}: found .*, expected"):
                    _metatl.ranks(
                        **{**{key: good[key] for key in ("greater", "equal", "ties")}, argument: value}
                    )
    with pytest.raises(InvalidArgumentError, match=r"^values: found 0 numbers"):
        _metatl.bootstrap_means(np.zeros((0, 2)), resamples=3, seed=0)
    with pytest.raises(InvalidArgumentError, match=r"^values: "):
        _metatl.bootstrap_means(np.zeros((2, 2), np.float32), resamples=3, seed=0)
    for argument in ({"resamples": -1, "seed": 0}, {"resamples": 1, "seed": -1}):
        with pytest.raises(InvalidArgumentError, match=r"^(resamples|seed): found -1"):
            _metatl.bootstrap_means(np.zeros((2, 2)), **argument)
    with pytest.raises(NotANumberError, match=r"^values: found 2 NaN"):
        _metatl.bootstrap_means(np.array([[1.0, np.nan], [np.nan, 2]]), resamples=1, seed=0)
    with pytest.raises(MemoryError):
        _metatl.bootstrap_means(np.zeros((2, 2)), resamples=2**62, seed=0)


def test_bootstrap_means_have_the_right_spread():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=2000), np.ones(2000)], axis=1)
    means = _metatl.bootstrap_means(values, resamples=4000, seed=1)
    assert means.shape == (4000, 2)
    np.testing.assert_array_equal(means[:, 1], 1)
    # The mean of the means is the sample mean, their deviation the standard error (population formula).
    error = values[:, 0].std() / math.sqrt(2000)
    assert abs(means[:, 0].mean() - values[:, 0].mean()) < 5 * error / math.sqrt(4000)
    assert means[:, 0].std() == pytest.approx(error, rel=0.06)
    # Each resample draws with replacement: every user is left out of it with probability (1 - 1/B)^B.
    picked = _metatl.bootstrap_means(np.eye(50), resamples=4000, seed=2) * 50
    np.testing.assert_allclose(picked.sum(axis=1), 50)
    assert np.mean(picked == 0) == pytest.approx((1 - 1 / 50) ** 50, abs=0.005)
    np.testing.assert_allclose(picked.mean(axis=0), 1, atol=0.08)


def test_groups_are_drawn_as_their_users_are():
    rng = np.random.default_rng(0)
    counts = ints(1, 0, 700, 3, 40, 256)
    values = np.column_stack([rng.normal(size=6), np.ones(6)])
    means = _metatl.bootstrap_group_means(values, counts, resamples=4000, seed=1)
    alone = _metatl.bootstrap_means(np.repeat(values, counts, axis=0), resamples=4000, seed=1)
    np.testing.assert_array_equal(means[:, 1], 1)
    assert stats.ks_2samp(means[:, 0], alone[:, 0]).pvalue > 1e-3
    # The numbers of draws are multinomial: their means, variances and covariances are known.
    draws = _metatl.bootstrap_group_means(np.eye(6), counts, resamples=20_000, seed=2) * 1000
    np.testing.assert_allclose(draws.sum(axis=1), 1000)
    shares = counts / 1000
    expected = 1000 * (np.diag(shares) - np.outer(shares, shares))
    np.testing.assert_allclose(np.cov(draws.T), expected, atol=5.0)
    np.testing.assert_allclose(draws.mean(axis=0), counts, atol=0.6)


def test_group_counts_are_checked():
    values = np.ones((2, 1))
    for counts in (ints(1), ints(1, -1), ints(0, 0), ints(2**53, 1), np.ones(2, np.int32)):
        with pytest.raises(InvalidArgumentError, match=r"^counts: found .*, expected"):
            _metatl.bootstrap_group_means(values, counts, resamples=1, seed=0)
    with pytest.raises(NotANumberError, match=r"^values: found 1 NaN"):
        _metatl.bootstrap_group_means(values * [[1.0], [np.nan]], ints(1, 1), resamples=1, seed=0)


def test_the_bootstrap_of_groups_depends_on_the_seed_alone():
    values, counts = np.random.default_rng(0).random((500, 7)), np.arange(500)
    means = {
        _metatl.bootstrap_group_means(values, counts, resamples=300, seed=5, num_threads=threads).tobytes()
        for threads in (1, 2, 3, 8)
    }
    assert len(means) == 1
    other = _metatl.bootstrap_group_means(values, counts, resamples=300, seed=6)
    assert other.tobytes() not in means


def test_the_bootstrap_depends_on_the_seed_alone():
    values = np.random.default_rng(0).random((500, 7))
    means = {
        _metatl.bootstrap_means(values, resamples=300, seed=5, num_threads=threads).tobytes()
        for threads in (1, 2, 3, 8)
    }
    assert len(means) == 1
    assert _metatl.bootstrap_means(values, resamples=300, seed=6).tobytes() not in means
    first = _metatl.bootstrap_means(values, resamples=1, seed=5)
    np.testing.assert_array_equal(np.frombuffer(means.pop()).reshape(300, 7)[:1], first)


def test_metrics_are_the_same_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    greater, equal = rng.integers(0, 100, (2, 100_000))
    for ties in RULES:
        found = {
            _metatl.user_metrics(
                greater, equal, ties=ties, cutoffs=np.array(CUTOFFS), num_threads=threads
            ).tobytes()
            for threads in (1, 2, 3, 8)
        }
        assert len(found) == 1
