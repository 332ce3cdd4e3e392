"""Paired comparisons of two systems over the same users: tests, intervals, effect sizes, corrections.

All systems rank the same candidates for the same users, so the tests use the difference of the two values of
each user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError
from metatl.metrics.rank_metrics import CONFIDENCE, Estimate, estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

MIN_PAIRS = 2
RESAMPLES = 10_000
POWER = 0.8
"""The power that studies are usually planned for: Cohen 1988, section 2.4."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two systems over the same users.

    Attributes
    ----------
    difference, low, high : float
        Mean of the paired differences, and the ends of its t interval.
    t_p : float
        p-value of the paired t test, two-sided.
    wilcoxon_p : float
        p-value of the signed-rank test, two-sided.
    """

    difference: float
    low: float
    high: float
    t_p: float
    wilcoxon_p: float


def compare(one: ArrayLike, other: ArrayLike, *, confidence: float = CONFIDENCE) -> Comparison:
    """Compare two systems by a metric of the same users.

    The paired t test asks whether the mean difference is 0. The signed-rank test of Wilcoxon, *Individual
    comparisons by ranking methods*, Biometrics Bulletin 1945, asks whether the differences are symmetric
    about 0. Differences of 0, which are frequent in rankings, are ranked with the others and then dropped
    (Pratt, *Remarks on zeros and ties in the Wilcoxon signed rank procedures*, JASA 1959).

    Parameters
    ----------
    one, other : array_like
        (B,) float64 with B ≥ 2: the values of the two systems, in the same order of users.
    confidence : float
        Confidence level of the interval.

    Returns
    -------
    Comparison
        `one` minus `other`. If all differences are 0, both p-values are 1. If they are equal but not 0, the
        p-value of the t test is 0.

    Raises
    ------
    InvalidArgumentError
        If the lengths differ, there are fewer than two users, or a value is not finite.

    Examples
    --------
    >>> comparison = compare([1.0, 0.5, 1.0, 0.25], [0.5, 0.5, 0.5, 0.2])
    >>> round(comparison.difference, 4), round(comparison.t_p, 3)
    (0.2625, 0.152)
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise InvalidArgumentError(
            f"values: found shapes {first.shape} and {second.shape}, expected one (B,)"
        )
    differences = first - second
    if len(differences) < MIN_PAIRS:
        raise InvalidArgumentError(f"values: found {len(differences)} users, expected at least {MIN_PAIRS}")
    if not np.isfinite(differences).all():
        raise InvalidArgumentError("values: found one that is not finite")
    mean = float(differences.mean())
    # The rounded mean of equal floats may differ from them, and the standard deviation would not be 0.
    if (differences == differences[0]).all():
        mean = float(differences[0])
        t_p = 1.0 if mean == 0 else 0.0
        return Comparison(mean, mean, mean, t_p, _wilcoxon_p(differences))
    error = float(differences.std(ddof=1)) / np.sqrt(len(differences))
    freedom = len(differences) - 1
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    t_p = float(2 * stats.t.sf(abs(mean / error), freedom))
    return Comparison(mean, mean - half, mean + half, t_p, _wilcoxon_p(differences))


def _wilcoxon_p(differences: NDArray[np.float64]) -> float:
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def randomisation_p_values(
    differences: NDArray[np.float64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    num_threads: int | None = None,
) -> NDArray[np.float64]:
    """Test by randomisation whether the signs of paired differences can be chance.

    Fisher, *The Design of Experiments*, 1935: if two systems are equally good, the sign of each user's
    difference is random. The p-value is the share of sign flips whose sum is at least as far from 0 as the
    observed sum. The flips are drawn at random, and the identity counts as one of them, so that no p-value
    is 0: it is (1 + c) / (1 + resamples) for c such flips (Phipson and Smyth, *Permutation p-values should
    never be zero*, 2010).

    Parameters
    ----------
    differences : ndarray
        (B, M) float64 with B ≥ 1, C-contiguous: one row per user, one column per metric. A flip changes the
        sign of whole rows.
    resamples : int
        Number of flips.
    seed : int
        Seed of the flips.
    num_threads : int, optional
        Threads of the kernel.

    Returns
    -------
    ndarray
        (M,) float64, two-sided; the same for any number of threads.

    Raises
    ------
    NotANumberError
        If a difference is NaN.
    InvalidArgumentError
        If the shape or the dtype is not as above, or a difference is infinite.

    Examples
    --------
    >>> bool(randomisation_p_values(np.ones((12, 1)))[0] < 0.005)
    True
    """
    counts = _metatl.sign_flip_counts(differences, resamples=resamples, seed=seed, num_threads=num_threads)
    return (1 + counts) / (1 + resamples)


def estimate_differences(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    num_threads: int | None = None,
) -> list[Estimate]:
    """Average paired differences, with percentile intervals from resampling the users.

    A resample draws users, each with both values.

    Parameters
    ----------
    one, other : ndarray
        (B, M) float64 with B ≥ 1: one row per user, in the same order, and one column per metric.
    resamples : int
        Number of resamples.
    seed : int
        Seed of the resampling.
    num_threads : int, optional
        Threads of the kernel.

    Returns
    -------
    list of Estimate
        Of `one` minus `other`, one per column.

    Raises
    ------
    InvalidArgumentError
        If the shapes differ.
    NotANumberError
        If a difference is NaN.
    """
    if one.shape != other.shape:
        raise InvalidArgumentError(f"values: found shapes {one.shape} and {other.shape}, expected one (B, M)")
    differences = np.ascontiguousarray(one - other)
    return estimate(differences, seed=seed, resamples=resamples, num_threads=num_threads)


def detectable_difference(
    half_width: float, users: int, *, confidence: float = CONFIDENCE, power: float = POWER
) -> float:
    """Compute the smallest true difference that a paired t test is likely to detect.

    The test detects a difference δ with this power where δ = (t_{(1 + confidence) / 2} + t_{power}) · s/√B
    with s the standard deviation of the differences and both quantiles of B − 1 degrees of freedom (Bloom,
    *Minimum detectable effects*, Evaluation Review 1995).

    Parameters
    ----------
    half_width : float
        Half the width of the t interval of the paired differences, t_{(1 + confidence) / 2} · s/√B.
    users : int
        B ≥ 2, the number of users.
    confidence : float
        Confidence level of the interval; the test rejects at level 1 − confidence.
    power : float
        Probability that the test rejects, between 0 and 1.

    Returns
    -------
    float
        The difference, in the unit of `half_width`.

    Examples
    --------
    >>> round(detectable_difference(0.0196, 100_000), 4)
    0.028
    """
    interval, seen = (float(stats.t.ppf(level, users - 1)) for level in ((1 + confidence) / 2, power))
    return half_width * (interval + seen) / interval


def effect_size(differences: ArrayLike) -> float | None:
    """Measure a mean difference in standard deviations of the differences.

    Cohen's d_z (*Statistical Power Analysis for the Behavioral Sciences*, 1988, section 2.3): the mean of the
    paired differences over their standard deviation, with B − 1 in the denominator. It does not grow with
    the number of users, as t = d_z · √B does.

    Parameters
    ----------
    differences : array_like
        (B,) float64 with B ≥ 2: paired differences.

    Returns
    -------
    float or None
        0 if all differences are 0; None if they are equal but not 0.

    Raises
    ------
    InvalidArgumentError
        If there are fewer than two differences, or one is not finite.

    Examples
    --------
    >>> effect_size([1.0, 2.0, 3.0])
    2.0
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or len(values) < MIN_PAIRS:
        raise InvalidArgumentError(
            f"differences: found shape {values.shape}, expected (B,) with at least {MIN_PAIRS}"
        )
    if not np.isfinite(values).all():
        raise InvalidArgumentError("differences: found one that is not finite")
    # The rounded mean of equal floats may differ from them, and the standard deviation would not be 0.
    if (values == values[0]).all():
        return 0.0 if values[0] == 0 else None
    return float(values.mean() / values.std(ddof=1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests.

    Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 1979:
    the smallest of m p-values is multiplied by m, the next by m − 1, and so on; the results are made
    non-decreasing. Rejecting the tests whose result is below a level keeps the probability of any false
    rejection below that level, whatever the dependence between the tests.

    Parameters
    ----------
    p_values : sequence of float
        One for each test.

    Returns
    -------
    list of float
        The corrected p-values, in the same order.

    Raises
    ------
    InvalidArgumentError
        If one is not in [0, 1].

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if not 0 <= p_values[index] <= 1:
            raise InvalidArgumentError(f"p_values: found {p_values[index]}, expected values from 0 to 1")
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def mean_interval(
    values: Sequence[float], *, confidence: float = CONFIDENCE
) -> tuple[float, tuple[float, float] | None]:
    """Average values over seeds, with a t interval.

    Parameters
    ----------
    values : sequence of float
        One for each seed.
    confidence : float
        Confidence level of the interval.

    Returns
    -------
    mean : float
        Their mean.
    ends : tuple of float, or None
        The ends of the interval; None for a single value.
    """
    mean = float(np.mean(values))
    if len(values) < MIN_PAIRS:
        return mean, None
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return mean, (mean - half, mean + half)


@dataclass(frozen=True)
class RankCorrelation:
    """How far two orders of the same systems agree: 1 for the same order, −1 for the reverse order.

    Attributes
    ----------
    kendall : float
        Kendall's τ_b.
    spearman : float
        Spearman's ρ.
    """

    kendall: float
    spearman: float


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> RankCorrelation | None:
    """Compare the orders that two measurements give to the same systems.

    Parameters
    ----------
    one, other : sequence of float
        The values of the systems by the two measurements.

    Returns
    -------
    RankCorrelation or None
        None if there are fewer than two systems, or one measurement gives all systems the same value.
    """
    if len(set(one)) < MIN_PAIRS or len(set(other)) < MIN_PAIRS:
        return None
    return RankCorrelation(
        kendall=float(stats.kendalltau(one, other).statistic),
        spearman=float(stats.spearmanr(one, other).statistic),
    )
