"""Is one system better than another, and by how much? Paired tests over users, corrected for their number.

All systems rank the same candidates for the same users, so that a user's two values belong together and the
test looks at their difference.
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
"""The chance of seeing a difference that a study is usually planned for: Cohen 1988, section 2.4."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two systems over the same users.

    Attributes
    ----------
    difference, low, high
        Mean of the paired differences, and the ends of its t interval.
    t_p
        p-value of the paired t test, two-sided.
    wilcoxon_p
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
    about 0; users without a difference, of whom a ranking has many, take part in the ranking of the
    differences and in nothing else (Pratt, *Remarks on zeros and ties in the Wilcoxon signed rank
    procedures*, JASA 1959).

    Parameters
    ----------
    one, other
        (B,) values of one system and of the other, the same user in the same place, B ≥ 2.
    confidence
        Of the interval.

    Returns
    -------
    Comparison
        Of `one` minus `other`. Where no user differs both p-values are 1; where all differ by the same, the t
        test leaves no doubt and its p-value is 0.

    Raises
    ------
    InvalidArgumentError
        If the two have other lengths than each other, fewer than two users, or values that are not finite.

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
    # The mean of equal floats can be off by a rounding, which would pass for a spread.
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

    Fisher, *The Design of Experiments*, 1935: were two systems alike, each user's difference could as well
    have had the other sign. The p-value is the share of sign flips that leave the sum at least as far from
    0 as it is. Flips are drawn at random, and the one that turns no sign is counted with them, so that no
    p-value is 0: (1 + c) / (1 + resamples) for c of them (Phipson and Smyth, *Permutation p-values should
    never be zero*, 2010).

    Parameters
    ----------
    differences
        (B, M) float64 with B ≥ 1, C-contiguous: one row per user, one column per metric. A flip turns a
        user's row as a whole.
    resamples
        Number of flips.
    seed
        Seed of the flips.
    num_threads
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
        For another shape or dtype, no row, or differences that are not finite.

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

    A resample draws users, and with a user both of their values: the pairs stay together.

    Parameters
    ----------
    one, other
        (B, M) float64 with B ≥ 1: one row per user, the same user in the same row, one column per metric.
    resamples
        How often the users are drawn again.
    seed
        Seed of the resampling.
    num_threads
        Threads of the kernel.

    Returns
    -------
    list of Estimate
        Of `one` minus `other`, one per column.

    Raises
    ------
    InvalidArgumentError
        If the two have other shapes than each other.
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
    """Compute the smallest true difference that a paired t test is likely to see.

    The test sees a difference δ with the stated power where δ = (t_{(1 + confidence) / 2} + t_{power}) · s/√B
    with s the standard deviation of the differences and both quantiles of B − 1 degrees of freedom (Bloom,
    *Minimum detectable effects*, Evaluation Review 1995): a smaller one is more likely to be missed.

    Parameters
    ----------
    half_width
        Half the width of the t interval of the paired differences, t_{(1 + confidence) / 2} · s/√B.
    users
        B ≥ 2, how many there are.
    confidence
        Of the interval, and of the test: it rejects at 1 − confidence.
    power
        The chance of seeing the difference, between 0 and 1.

    Returns
    -------
    float
        In the unit of `half_width`.

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
    differences
        (B,) paired differences, B ≥ 2.

    Returns
    -------
    float or None
        0 where no user differs; None where all differ by the same, which has no spread to be measured in.

    Raises
    ------
    InvalidArgumentError
        If there are fewer than two differences, or some that are not finite.

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
    # The mean of equal floats can be off by a rounding, which would pass for a spread.
    if (values == values[0]).all():
        return 0.0 if values[0] == 0 else None
    return float(values.mean() / values.std(ddof=1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests.

    Holm, *A simple sequentially rejective multiple test procedure*, Scandinavian Journal of Statistics 1979:
    the smallest of m p-values is multiplied by m, the next by m − 1, and so on; none falls below one before
    it. Rejecting where the result is below a level keeps the chance of any false rejection below the level,
    however the tests depend on each other.

    Parameters
    ----------
    p_values
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
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if not 0 <= p_values[place] <= 1:
            raise InvalidArgumentError(f"p_values: found {p_values[place]}, expected values from 0 to 1")
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that few of the rejections are false.

    Benjamini and Hochberg, *Controlling the false discovery rate*, Journal of the Royal Statistical Society B
    1995: the largest of m p-values stays, the next is multiplied by m / (m − 1), the one of rank r by m / r;
    none rises above one after it. Rejecting where the result is below a level keeps the expected share of
    false rejections among all of them below the level, for tests that are independent or depend on each
    other positively. Holm's correction, which bounds the chance of even one, is stricter.

    Parameters
    ----------
    p_values
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
    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    corrected = [0.0] * len(p_values)
    smallest = 1.0
    places = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, place in reversed(list(enumerate(places, start=1))):
        if not 0 <= p_values[place] <= 1:
            raise InvalidArgumentError(f"p_values: found {p_values[place]}, expected values from 0 to 1")
        smallest = min(smallest, p_values[place] * len(p_values) / rank)
        corrected[place] = smallest
    return corrected


def mean_interval(
    values: Sequence[float], *, confidence: float = CONFIDENCE
) -> tuple[float, tuple[float, float] | None]:
    """Average values over seeds, with a t interval.

    Parameters
    ----------
    values
        One for each seed.
    confidence
        Of the interval.

    Returns
    -------
    mean : float
        Their mean.
    ends : tuple of float, or None
        The ends of the interval; None for a single value, which says nothing of its spread.
    """
    mean = float(np.mean(values))
    if len(values) < MIN_PAIRS:
        return mean, None
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return mean, (mean - half, mean + half)


@dataclass(frozen=True)
class RankCorrelation:
    """How far two orders of the same systems agree: 1 for the same order, −1 for the reverse.

    Attributes
    ----------
    kendall
        Kendall's τ_b.
    spearman
        Spearman's ρ.
    """

    kendall: float
    spearman: float


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> RankCorrelation | None:
    """Compare the orders that two measurements give to the same systems.

    Parameters
    ----------
    one, other
        A value of each system by one measurement and by the other.

    Returns
    -------
    RankCorrelation or None
        None where one of the two gives no order: fewer than two systems, or all with the same value.
    """
    if len(set(one)) < MIN_PAIRS or len(set(other)) < MIN_PAIRS:
        return None
    return RankCorrelation(
        kendall=float(stats.kendalltau(one, other).statistic),
        spearman=float(stats.spearmanr(one, other).statistic),
    )
