"""Corrected sampled metrics: against the closed form in fractions, exact sums, and simulated systems."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import comb, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metatl.exceptions import InvalidArgumentError
from metatl.metrics import corrected_metrics
from metatl.metrics.corrected_metrics import (
    DEFAULT_GAMMA,
    MAX_TABLES,
    corrected_table,
    corrected_user_metrics,
    metric_of_ranks,
)
from metatl.metrics.rank_metrics import Metric, user_metrics
from property_settings import COSTLY_CASES

MRR, MRR_AT_10 = Metric("MRR", None), Metric("MRR", 10)
HR_AT_1, HR_AT_10, NDCG_AT_10 = Metric("HR", 1), Metric("HR", 10), Metric("NDCG", 10)
METRICS = (HR_AT_1, HR_AT_10, NDCG_AT_10, MRR, MRR_AT_10)
METRIC = st.builds(Metric, st.sampled_from(["HR", "NDCG", "MRR"]), st.one_of(st.none(), st.integers(1, 12)))


def plain_metric(metric: Metric, rank: float) -> float:
    if metric.cutoff is not None and rank > metric.cutoff:
        return 0.0
    return {"HR": 1.0, "NDCG": 1 / log2(1 + rank), "MRR": 1 / rank}[metric.kind]


def closed_form(metric: Metric, n: int, population: int, gamma: float) -> list[Fraction]:
    """((1 − γ) Aᵀ P A + γ diag(c))⁻¹ Aᵀ P M, in fractions, by elimination."""
    ranks = range(1, population + 2)
    chances = [
        [
            Fraction(comb(rank - 1, hits) * comb(population - rank + 1, n - hits), comb(population, n))
            for hits in range(n + 1)
        ]
        for rank in ranks
    ]
    values = [Fraction(plain_metric(metric, rank)) for rank in ranks]
    weight, gamma = Fraction(1, population + 1), Fraction(gamma)
    rows = []
    for i in range(n + 1):
        row = [(1 - gamma) * weight * sum(p[i] * p[j] for p in chances) for j in range(n + 1)]
        row[i] += gamma * weight * sum(p[i] for p in chances)
        rows.append([*row, weight * sum(p[i] * value for p, value in zip(chances, values, strict=True))])
    for i in range(n + 1):
        rows[i] = [entry / rows[i][i] for entry in rows[i]]
        for j in range(n + 1):
            if j != i:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[-1] for row in rows]


@lru_cache
def chances_of(n: int, population: int) -> np.ndarray:
    """p(s | r), (N + 1, n + 1), from scipy."""
    beaten = np.arange(population + 1)[:, None]
    return stats.hypergeom.pmf(np.arange(n + 1)[None], population, beaten, n)


@lru_cache
def full_values(population: int) -> np.ndarray:
    return np.array([[plain_metric(metric, rank) for metric in METRICS] for rank in range(1, population + 2)])


def bias_and_variance(table: np.ndarray, n: int, population: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared bias and variance of each metric's estimate, averaged over all ranks."""
    chances = chances_of(n, population)
    means = chances @ table
    squared_bias = ((means - full_values(population)) ** 2).mean(axis=0)
    return squared_bias, (chances @ table**2 - means**2).mean(axis=0)


def plain_table(n: int) -> np.ndarray:
    """What is usually reported: the metric of the sampled rank."""
    return full_values(n)


@given(
    METRIC,
    st.integers(1, 4).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, 8))),
    st.sampled_from([0.0, 0.001, 0.01, 0.25, 1.0]) | st.floats(0, 1),
)
def test_against_the_closed_form_in_fractions(metric, sizes, gamma):
    n, population = sizes
    expected = [float(value) for value in closed_form(metric, n, population, gamma)]
    found = corrected_table([metric], n, population, gamma=gamma)
    assert found.shape == (n + 1, 1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("n", "population"), [(10, 40), (20, 50)])
def test_against_the_closed_form_where_it_is_ill_conditioned(n, population):
    for gamma in (0.01, 1e-6):
        expected = [float(value) for value in closed_form(HR_AT_10, n, population, gamma)]
        found = corrected_table([HR_AT_10], n, population, gamma=gamma)[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@given(METRIC, st.integers(1, 60), st.sampled_from(["bias_variance", "unbiased_rank"]), st.floats(0, 1))
def test_with_all_negatives_sampled_the_estimate_is_the_metric(metric, n, estimator, gamma):
    expected = [plain_metric(metric, rank) for rank in range(1, n + 2)]
    np.testing.assert_allclose(
        corrected_table([metric], n, n, estimator, gamma)[:, 0], expected, rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize(("n", "population"), [(1, 1), (3, 50), (100, 1000), (120, 123)])
def test_unbiased_rank_has_the_rank_as_its_mean(n, population):
    # 1 / MRR is the rank that the estimator puts in the place of the true one.
    estimated = 1 / corrected_table([MRR], n, population, "unbiased_rank")[:, 0]
    np.testing.assert_allclose(chances_of(n, population) @ estimated, np.arange(1, population + 2), rtol=1e-9)


def test_unbiased_rank_by_hand():
    # N = 10, n = 2: the sampled ranks 1, 2, 3 stand for 1, 6, 11.
    table = corrected_table([HR_AT_10, NDCG_AT_10, MRR], 2, 10, "unbiased_rank")
    np.testing.assert_allclose(table, [[1, 1, 1], [1, 1 / log2(7), 1 / 6], [0, 0, 1 / 11]])


@given(
    METRIC,
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, 300))),
    st.floats(1e-4, 1),
)
@COSTLY_CASES
def test_on_uniform_ranks_the_mean_is_that_of_the_metric(metric, sizes, gamma):
    """Uniform ranks give uniform sampled ranks, of which the table must keep the mean."""
    n, population = sizes
    expected = np.mean([plain_metric(metric, rank) for rank in range(1, population + 2)])
    assert corrected_table([metric], n, population, gamma=gamma).mean() == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([0.001, 0.01, 0.1, 1.0]))
@COSTLY_CASES
def test_no_other_table_has_less_bias_and_variance(seed, gamma):
    """By exact sums over the hypergeometric, for all ranks alike."""
    n, population = 20, 200
    table = corrected_table(METRICS, n, population, gamma=gamma)
    bias, variance = bias_and_variance(table, n, population)
    other = table + np.random.default_rng(seed).normal(0, 1e-3, table.shape)
    other_bias, other_variance = bias_and_variance(other, n, population)
    assert (bias + gamma * variance < other_bias + gamma * other_variance).all()


@pytest.mark.parametrize(("n", "population"), [(10, 100), (20, 400), (100, 1000)])
def test_gamma_0_has_the_smallest_bias(n, population):
    bias, _ = bias_and_variance(corrected_table(METRICS, n, population, gamma=0), n, population)
    for other in (plain_table(n), corrected_table(METRICS, n, population, "unbiased_rank")):
        assert (bias < bias_and_variance(other, n, population)[0]).all()
    # numpy's solver, which leaves out what float64 cannot carry by a limit of its own.
    solved = np.linalg.lstsq(chances_of(n, population), full_values(population))[0]
    assert (np.sqrt(bias) < 3 * np.sqrt(bias_and_variance(solved, n, population)[0]) + 1e-6).all()


@pytest.mark.parametrize(("n", "population"), [(10, 100), (100, 1000)])
def test_gamma_trades_bias_for_variance(n, population):
    found = [
        bias_and_variance(corrected_table(METRICS, n, population, gamma=gamma), n, population)
        for gamma in (0.001, 0.01, 0.1, 1.0)
    ]
    for (bias, variance), (more_bias, less_variance) in pairwise(found):
        assert (bias < more_bias).all()
        assert (variance > less_variance).all()


@pytest.mark.parametrize("n", [1, 30, 400])
def test_the_quadrature_is_as_good_as_adding_up_every_rank(n, monkeypatch):
    metrics = [*METRICS, Metric("HR", 20_000), Metric("NDCG", 31_234), Metric("MRR", 49_990)]
    quick = corrected_table(metrics, n, 50_000)
    monkeypatch.setattr(corrected_metrics, "EXACT_RANKS", 50_001)
    np.testing.assert_allclose(quick, corrected_table(metrics, n, 50_000), rtol=0, atol=1e-9)


def test_ten_million_negatives_against_sums_in_closed_form():
    n, population = 1000, 10**7
    means = corrected_table([HR_AT_1, MRR], n, population, gamma=1)
    # Only rank 1 counts, and its sampled rank is 1 for sure.
    np.testing.assert_allclose(means[:, 0], [(n + 1) / (population + 1), *[0] * n], rtol=1e-10, atol=1e-18)
    # Over all s the mean of 1/r is the harmonic number of N + 1 over N + 1.
    harmonic = np.log(population + 1) + np.euler_gamma + 0.5 / (population + 1)
    assert means[:, 1].mean() == pytest.approx(harmonic / (population + 1), rel=1e-10)
    table = corrected_table([HR_AT_1, MRR], n, population)
    np.testing.assert_allclose(table.mean(axis=0), means.mean(axis=0), rtol=1e-8)


def test_whole_ranks_have_the_metrics_of_the_kernel():
    metrics = [HR_AT_1, HR_AT_10, NDCG_AT_10, Metric("NDCG", 50), MRR]
    beaten = np.arange(100)
    expected = user_metrics(beaten, np.zeros(100, np.int64), metrics)
    found = np.column_stack([metric_of_ranks(metric, 1.0 + beaten) for metric in metrics])
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_ranks_between_two_whole_ones():
    ranks = np.array([9.99, 10.0, 10.01])
    np.testing.assert_array_equal(metric_of_ranks(HR_AT_10, ranks), [1, 1, 0])
    np.testing.assert_allclose(metric_of_ranks(MRR_AT_10, ranks), [1 / 9.99, 0.1, 0])


@lru_cache
def table_of(n: int, population: int, estimator: str) -> list[list[float]]:
    return corrected_table(METRICS, n, population, estimator).tolist()


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 8), st.sampled_from([8, 9, 31])), min_size=1, max_size=6
    ),
    st.sampled_from(["worst", "mean", "best"]),
    st.sampled_from(["bias_variance", "unbiased_rank"]),
)
def test_users_get_the_rows_that_ties_leave_possible(users, ties, estimator):
    n = 8
    users = [(greater, min(equal, n - greater), population) for greater, equal, population in users]
    greater, equal, populations = (np.array(column) for column in zip(*users, strict=True))
    found = corrected_user_metrics(
        greater, equal, METRICS, n=n, populations=populations, ties=ties, estimator=estimator
    )
    assert found.shape == (len(users), len(METRICS))
    assert found.flags.c_contiguous
    for values, (above, beside, population) in zip(found, users, strict=True):
        table = table_of(n, population, estimator)
        rows = {"worst": [above + beside], "best": [above], "mean": range(above, above + beside + 1)}[ties]
        expected = [sum(table[row][column] for row in rows) / len(rows) for column in range(len(METRICS))]
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9)


@given(st.integers(1, 60), st.integers(100, 3000), st.integers(0, 3000), st.integers(0, 2**32))
def test_users_share_few_tables_and_none_is_far_off(count, smallest, spread, seed):
    populations = np.random.default_rng(seed).integers(smallest, smallest + spread + 1, count)
    sizes, size_of_user = corrected_metrics._table_sizes(populations)
    assert len(sizes) <= MAX_TABLES
    assert populations.min() <= sizes.min() <= sizes.max() <= populations.max()
    if len(np.unique(populations)) <= MAX_TABLES:
        np.testing.assert_array_equal(sizes[size_of_user], populations)
    # Half an item more, for sizes are whole.
    allowed = populations * (populations.max() / populations.min()) ** (1 / 16) + 0.5 - populations
    assert (abs(sizes[size_of_user] - populations) <= allowed).all()


def test_sharing_tables_changes_a_mean_by_far_less_than_its_error():
    generator = np.random.default_rng(0)
    n, count = 100, 3000
    populations = generator.integers(950, 1000, count)
    greater = np.minimum(generator.geometric(0.03, count) - 1, n)
    shared = corrected_user_metrics(greater, np.zeros(count, np.int64), METRICS, n=n, populations=populations)
    tables = {size: corrected_table(METRICS, n, size) for size in set(populations.tolist())}
    own = np.array([tables[size][place] for size, place in zip(populations.tolist(), greater, strict=True)])
    assert len(tables) > MAX_TABLES
    assert (abs(shared.mean(axis=0) - own.mean(axis=0)) < 0.02 * stats.sem(own)).all()


def mixture(families: tuple[str, ...], generator: np.random.Generator, population: int) -> np.ndarray:
    """A distribution of full ranks: up to three parts with random weights."""
    ranks = np.arange(1, population + 2)
    parts = []
    for family in generator.choice(families, generator.integers(1, 4)):
        if family == "uniform":
            part = np.ones(population + 1)
        elif family == "geometric":
            part = np.exp(-ranks / (population * np.exp(generator.uniform(np.log(0.02), np.log(0.5)))))
        elif family == "power law, flat at first":
            part = (ranks + population * generator.uniform(0.02, 0.2)) ** -generator.uniform(0.5, 2)
        elif family == "power law":
            part = ranks ** -generator.uniform(1, 2)
        else:
            part = np.zeros(population + 1)
            part[generator.integers(0, generator.choice([3, 30, population]))] = 1
        parts.append(part / part.sum())
    return generator.dirichlet(np.ones(len(parts))) @ np.array(parts)


def simulate(families: tuple[str, ...], *, n=100, population=1000, users=1000, systems=200) -> dict:
    """How often is the estimate within two standard errors of the metric? A share for each metric."""
    generator = np.random.default_rng(0)
    ranks = np.arange(1, population + 2)
    full, greater = [], []
    for _ in range(systems):
        chances = mixture(families, generator, population)
        full.append(chances @ full_values(population))
        drawn = generator.choice(ranks, users, p=chances)
        greater.append(generator.hypergeometric(drawn - 1, population - drawn + 1, n))
    tables = {
        "plain": plain_table(n),
        "unbiased_rank": corrected_table(METRICS, n, population, "unbiased_rank"),
        "bias_variance": corrected_table(METRICS, n, population),
    }
    shares = {}
    for name, table in tables.items():
        values = [table[counts] for counts in greater]
        shares[name] = np.mean(
            [abs(v.mean(axis=0) - truth) <= 2 * stats.sem(v) for v, truth in zip(values, full, strict=True)],
            axis=0,
        )
    return shares


SMOOTH = ("uniform", "geometric", "power law, flat at first")


def test_smooth_distributions_are_within_two_standard_errors():
    """Smooth: next to no change within N/n = 10 ranks."""
    shares = simulate(SMOOTH)
    assert (shares["bias_variance"] >= 0.9).all()
    # The usual figure is never near.
    assert (shares["plain"] <= 0.05).all()


def test_steep_and_planted_distributions_are_not():
    """What happens among the first N/n ranks cannot be seen; docs/evaluation.md says so."""
    shares = simulate((*SMOOTH, "power law", "planted"))
    assert (shares["bias_variance"] < 0.9).all()
    assert (shares["bias_variance"] > shares["plain"]).all()


def test_the_top_two_ranks_cannot_be_told_apart():
    """Rank 1 or rank 2: HR@1 is 1 or 0; the sampled ranks, and so the estimates, are nearly the same."""
    n, population = 100, 10_000
    chances = stats.hypergeom.pmf(np.arange(n + 1)[None], population, np.arange(2)[:, None], n)
    first, second = chances @ corrected_table([HR_AT_1], n, population)[:, 0]
    assert abs(first - second) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n: found 0, expected at least 1"),
        ({"population": 4}, "population: found 4, expected at least n = 5 negatives"),
        ({"gamma": -0.1}, "gamma: found -0.1, expected 0 to 1"),
        ({"gamma": float("nan")}, "gamma: found nan, expected 0 to 1"),
        ({"estimator": "best"}, "estimator: found 'best', expected 'bias_variance' or 'unbiased_rank'"),
    ],
)
def test_a_table_says_which_argument_is_wrong(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        corrected_table([MRR], **{"n": 5, "population": 10, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"populations": [10, 4]}, "populations: found 4 negatives for user 1, expected at least n = 5"),
        ({"populations": [10]}, "populations: found 1 for 2 and 2 counts, expected one a user"),
        ({"greater": [0, 6]}, "greater, equal: found 0 to 6, expected 0 to n = 5"),
        ({"greater": [0, 3], "equal": [0, 3]}, "greater, equal: found 0 to 6, expected 0 to n = 5"),
        ({"greater": [0, -1]}, "greater, equal: found -1 to 0, expected 0 to n = 5"),
        ({"ties": "first"}, "ties: found 'first', expected 'worst', 'mean' or 'best'"),
    ],
)
def test_users_metrics_say_which_argument_is_wrong(arguments, message):
    arrays = {"greater": [0, 1], "equal": [0, 0], "populations": [10, 10]}
    given_arrays = {name: np.array(arguments.get(name, value)) for name, value in arrays.items()}
    with pytest.raises(InvalidArgumentError, match=message):
        corrected_user_metrics(
            given_arrays["greater"],
            given_arrays["equal"],
            [MRR],
            n=5,
            populations=given_arrays["populations"],
            ties=arguments.get("ties", "worst"),
        )


def test_the_default_is_the_papers():
    assert DEFAULT_GAMMA == 0.01
    np.testing.assert_array_equal(
        corrected_table([MRR], 20, 200), corrected_table([MRR], 20, 200, "bias_variance", 0.01)
    )
