"""Paired tests, corrections, effect sizes and rank correlations: against scipy, by hand, and by property."""

from __future__ import annotations

import statistics
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from metatl.exceptions import InvalidArgumentError, NotANumberError
from metatl.metrics.significance import (
    compare,
    effect_size,
    estimate_differences,
    holm,
    mean_interval,
    randomisation_p_values,
    rank_correlation,
)
from property_settings import COSTLY_CASES

# Reciprocal ranks among 101, the values that are compared in earnest: many are equal.
RECIPROCAL_RANKS = st.integers(1, 101).map(lambda rank: 1 / rank)
P_VALUES = st.lists(st.floats(0, 1), max_size=6)


def pairs(min_size=14, max_size=40):
    return st.lists(st.tuples(RECIPROCAL_RANKS, RECIPROCAL_RANKS), min_size=min_size, max_size=max_size).map(
        lambda rows: tuple(zip(*rows, strict=True))
    )


def test_by_hand():
    # Differences 1, 2, 3, 4: mean 2.5, s² = 5/3, standard error sqrt(5/12), t = 2.5 / .6455 = 3.873 on 3
    # degrees of freedom. All positive: of the 16 ways to give them signs 2 are as far from even.
    comparison = compare([2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0])
    assert comparison.difference == 2.5
    half = 3.182446305284263 * np.sqrt(5 / 12)
    assert (comparison.low, comparison.high) == pytest.approx((2.5 - half, 2.5 + half))
    assert comparison.t_p == pytest.approx(0.0304663, abs=1e-7)
    assert comparison.wilcoxon_p == pytest.approx(2 / 16)


def test_against_scipy():
    generator = np.random.default_rng(0)
    one = 1 / generator.integers(1, 102, 500)
    other = np.where(generator.random(500) < 0.5, one, 1 / generator.integers(1, 102, 500))
    comparison = compare(one, other)
    expected = stats.ttest_rel(one, other)
    assert comparison.t_p == pytest.approx(expected.pvalue)
    assert (comparison.low, comparison.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert comparison.wilcoxon_p == pytest.approx(stats.wilcoxon(one, other, zero_method="pratt").pvalue)


@COSTLY_CASES
@given(pairs(min_size=2, max_size=6))
def test_wilcoxon_is_the_share_of_signs_as_far_from_even(values):
    """Against all 2^B signs of the differences, by the definition."""
    one, other = map(np.array, values)
    differences = one - other
    assume(differences.any())
    ranks = stats.rankdata(abs(differences)) * (differences != 0)
    signs = np.array(list(product([-1, 1], repeat=len(ranks))))
    sums = abs(signs @ ranks)
    expected = np.mean(sums >= abs(np.sign(differences) @ ranks) - 1e-9)
    assert compare(one, other).wilcoxon_p == pytest.approx(expected)


@COSTLY_CASES
@given(pairs())
def test_the_order_of_the_two_turns_the_sign_and_nothing_else(values):
    one, other = values
    forward, backward = compare(one, other), compare(other, one)
    assert forward.difference == pytest.approx(-backward.difference, abs=1e-15)
    assert (forward.low, forward.high) == pytest.approx((-backward.high, -backward.low), abs=1e-12)
    assert forward.t_p == pytest.approx(backward.t_p)
    assert forward.wilcoxon_p == pytest.approx(backward.wilcoxon_p)
    assert forward.low <= forward.difference <= forward.high
    assert 0 <= forward.t_p <= 1
    assert 0 <= forward.wilcoxon_p <= 1


@COSTLY_CASES
@given(pairs())
def test_the_interval_holds_0_where_the_t_test_sees_nothing(values):
    comparison = compare(*values)
    assume(abs(comparison.t_p - 0.05) > 1e-9)
    assert (comparison.low <= 0 <= comparison.high) == (comparison.t_p > 0.05)


def test_no_difference_and_no_spread():
    same = compare([0.5, 0.25], [0.5, 0.25])
    assert (same.difference, same.low, same.high, same.t_p, same.wilcoxon_p) == (0, 0, 0, 1, 1)
    # 1.1 - 1 and 1.1 - 1: equal differences whose mean, once summed, need not be equal to them.
    apart = compare([1.1] * 3, [1.0] * 3)
    assert (apart.low, apart.high, apart.t_p) == (apart.difference, apart.difference, 0)
    assert apart.wilcoxon_p == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ([1.0, 2.0], [1.0], "shapes"),
        ([1.0], [2.0], "found 1 users"),
        ([1.0, np.nan], [1.0, 2.0], "not finite"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "shapes"),
    ],
)
def test_what_cannot_be_compared(one, other, message):
    with pytest.raises(InvalidArgumentError, match=message):
        compare(one, other)


# Eighths, whose sums are exact.
EIGHTHS = st.lists(st.tuples(*[st.integers(-8, 8).map(lambda n: n / 8)] * 2), min_size=1, max_size=6)


@given(EIGHTHS)
def test_randomisation_is_the_share_of_all_flips(rows):
    """Among all 2^B flips, by the definition; drawn flips stray from it by chance, at most so far."""
    differences = np.array(rows)
    signs = np.array(list(product([-1, 1], repeat=len(rows))))
    shares = np.mean(abs(signs @ differences) >= abs(differences.sum(axis=0)), axis=0)
    found = randomisation_p_values(differences, resamples=2_000, seed=1)
    # Beyond six standard errors of the drawn share, and the flip that is counted beside them.
    assert (abs(found - shares) <= 6 * np.sqrt(shares * (1 - shares) / 2_000) + 1 / 2_000).all()


def test_randomisation_never_leaves_no_doubt():
    assert randomisation_p_values(np.ones((200, 1)), resamples=999).tolist() == [1 / 1000]
    assert randomisation_p_values(np.zeros((200, 2)), resamples=999).tolist() == [1, 1]
    with pytest.raises(NotANumberError, match=r"^differences: found 1 NaN"):
        randomisation_p_values(np.array([[np.nan]]))


def test_randomisation_and_t_test_agree_on_many_users():
    generator = np.random.default_rng(0)
    differences = generator.normal(0.05, 1, (900, 5))
    p_values = [compare(column, np.zeros(900)).t_p for column in differences.T]
    np.testing.assert_allclose(randomisation_p_values(differences, seed=3), p_values, atol=0.02)


def test_intervals_of_differences_are_those_of_pairs():
    generator = np.random.default_rng(0)
    base = generator.normal(size=(800, 1))
    one, other = base + generator.normal(0.1, 0.2, (800, 2)), base
    estimates = estimate_differences(one, np.hstack([other, other]), resamples=4_000, seed=1)
    for column, found in zip((one - other).T, estimates, strict=True):
        theirs = stats.bootstrap(
            (column,), np.mean, n_resamples=4_000, method="percentile", rng=np.random.default_rng(2)
        ).confidence_interval
        assert found.value == pytest.approx(column.mean())
        # The users differ from each other far more than the systems do: their pairs make the intervals short.
        assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=0.002)
        assert found.high - found.low < 0.04
    with pytest.raises(InvalidArgumentError, match="shapes"):
        estimate_differences(one, one[:5])


def test_effect_size_by_hand():
    # Mean 2.5, s² = 5/3.
    assert effect_size([1.0, 2.0, 3.0, 4.0]) == pytest.approx(2.5 / np.sqrt(5 / 3))
    assert effect_size([0.0, 0.0]) == 0
    # 1.1 - 1: equal, and their mean is another float.
    assert effect_size([1.1 - 1] * 3) is None
    for wrong in ([1.0], [], [[1.0, 2.0]], [1.0, np.inf]):
        with pytest.raises(InvalidArgumentError, match=r"^differences: found"):
            effect_size(wrong)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=9))
def test_effect_size_is_that_of_exact_numbers(differences):
    assume(len(set(differences)) > 1)
    found = effect_size(differences)
    assert found == pytest.approx(statistics.mean(differences) / statistics.stdev(differences))
    # Neither the unit nor, but for the sign, the direction matters.
    assert effect_size([-difference / 8 for difference in differences]) == pytest.approx(-found)


def test_holm_by_hand():
    # Sorted: .01 · 4, .013 · 3 (raised to .04), .02 · 2 (raised to .04, and equal), .3 · 1.
    assert holm([0.3, 0.01, 0.02, 0.013]) == pytest.approx([0.3, 0.04, 0.04, 0.04])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    with pytest.raises(InvalidArgumentError, match=r"1\.5"):
        holm([0.1, 1.5])


@given(P_VALUES)
def test_holm_is_the_closure_of_bonferroni(p_values):
    """A test is rejected where every set of tests that holds it is, each by m · min p (Holm 1979)."""
    places = range(len(p_values))
    expected = [
        max(
            min(1.0, len(chosen) * min(p_values[other] for other in chosen))
            for size in range(1, len(p_values) + 1)
            for chosen in combinations(places, size)
            if place in chosen
        )
        for place in places
    ]
    assert holm(p_values) == pytest.approx(expected)


@given(P_VALUES)
def test_holm_keeps_the_order_and_lowers_nothing(p_values):
    corrected = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [corrected[place] for place in order] == sorted(corrected)


def test_the_interval_over_seeds_is_that_of_scipy():
    values = [0.31, 0.29, 0.33, 0.30, 0.32]
    mean, ends = mean_interval(values)
    assert mean == pytest.approx(0.31)
    assert ends == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval(0.95)))
    assert mean_interval([0.5]) == (0.5, None)


def test_rank_correlation_by_hand():
    # Of the 6 pairs of 4 systems one is turned: τ = (5 - 1) / 6; Σd² = 2: ρ = 1 - 6 · 2 / (4 · 15).
    found = rank_correlation([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 4.0, 3.0])
    assert found.kendall == pytest.approx(4 / 6)
    assert found.spearman == pytest.approx(0.8)
    turned = rank_correlation([0.1, 0.2], [2.0, 1.0])
    assert (turned.kendall, turned.spearman) == pytest.approx((-1, -1))


@pytest.mark.parametrize(("one", "other"), [([], []), ([0.1], [0.2]), ([0.1, 0.1], [0.2, 0.3])])
def test_no_order_no_correlation(one, other):
    assert rank_correlation(one, other) is None
