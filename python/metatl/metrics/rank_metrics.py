"""Metrics of one relevant item per user: reciprocal rank, hit rate, NDCG, and the rank itself.

The counts of a ranking and a tie rule give one value per user; the values give means, summed in a fixed
order, with bootstrap intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from scipy import special

from metatl import _metatl
from metatl.common.arguments import check_choice, did_you_mean
from metatl.exceptions import ConfigError
from metatl.metrics.names import DEFAULT_METRICS, TIE_RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.metrics.names import TieRule

BOOTSTRAP_RESAMPLES = 1000
CONFIDENCE = 0.95

GROUP_COST = 6
"""Drawing the count of one group of users costs about as much as drawing this many single users."""


@dataclass(frozen=True)
class Metric:
    """A metric that a user's rank determines.

    With the rank of the target counted from 1, MRR is 1/rank for every rank; MRR@k is 1/rank, HR@k is 1 and
    NDCG@k is 1/log2(1 + rank), all three if rank ≤ k, else 0. Under the tie rule ``mean`` each is its
    expectation over random tie breaking.

    Attributes
    ----------
    kind : {"MRR", "HR", "NDCG"}
        The formula.
    cutoff : int or None
        k; None for the uncut MRR.
    """

    kind: Literal["MRR", "HR", "NDCG"]
    cutoff: int | None

    @property
    def name(self) -> str:
        """The usual notation, such as ``HR@10``."""
        return self.kind if self.cutoff is None else f"{self.kind}@{self.cutoff}"


@dataclass(frozen=True)
class Estimate:
    """A mean over users and its bootstrap interval.

    Attributes
    ----------
    value, low, high : float
        The mean and the ends of its 95 % percentile interval.
    standard_error : float
        Standard deviation over users, divided by the root of their number; 0 for a single user.
    """

    value: float
    low: float
    high: float
    standard_error: float


def parse_metrics(names: Sequence[str] | str) -> tuple[Metric, ...]:
    """Parse the names of metrics.

    Parameters
    ----------
    names : str or sequence of str
        Such as ``"MRR,HR@10"`` or ``["MRR", "HR@10"]``; case does not matter.

    Returns
    -------
    tuple of Metric
        In the given order, without repetitions.

    Raises
    ------
    ConfigError
        If there is no name, or a name is not known; the message lists the known names.
    """
    given = names
    if isinstance(names, str):
        given = names.split(",")
    elif isinstance(names, Iterable):
        given = list(names)
    if not (isinstance(given, list) and given and all(isinstance(name, str) for name in given)):
        raise ConfigError(f"metrics: found {names!r}, expected names of metrics, as in ['MRR', 'HR@10']")
    return tuple(dict.fromkeys(_parse_metric(name) for name in given))


def _parse_metric(name: str) -> Metric:
    kind, at, cutoff = name.strip().upper().partition("@")
    if kind == "MRR" and not at:
        return Metric("MRR", None)
    if kind in ("HR", "NDCG", "MRR") and cutoff.isdecimal() and 1 <= int(cutoff) < 2**63:
        return Metric(cast("Literal['MRR', 'HR', 'NDCG']", kind), int(cutoff))
    hint = did_you_mean(name.strip(), [f"{known}{at}{cutoff}" for known in ("MRR", "HR", "NDCG")])
    raise ConfigError(
        f"unknown metric {name.strip()!r}; known are MRR, MRR@k, HR@k and NDCG@k with k = 1, 2, …, "
        f"as in HR@10{hint}"
    )


def user_metrics(
    greater: np.ndarray, equal: np.ndarray, metrics: Sequence[Metric], *, ties: TieRule = "worst"
) -> np.ndarray:
    """Compute each user's metrics.

    Parameters
    ----------
    greater, equal : ndarray
        (B,) int64, the two arrays of ``RankCounts``.
    metrics : sequence of Metric
        M metrics.
    ties : {"worst", "mean", "best"}
        The tie rule.

    Returns
    -------
    ndarray
        (B, M) float64, C-contiguous.
    """
    cutoffs = sorted({metric.cutoff for metric in metrics if metric.cutoff is not None})
    check_choice("ties", ties, TIE_RULES)
    values = _metatl.user_metrics(greater, equal, ties=ties, cutoffs=np.array(cutoffs, np.int64))
    columns = ["MRR", *(f"{kind}@{cutoff}" for kind in ("HR", "NDCG", "MRR") for cutoff in cutoffs)]
    return np.ascontiguousarray(values[:, [columns.index(metric.name) for metric in metrics]])


def ranks(greater: np.ndarray, equal: np.ndarray, *, ties: TieRule = "worst") -> np.ndarray:
    """Compute each user's rank.

    Parameters
    ----------
    greater, equal : ndarray
        (B,) int64, the two arrays of ``RankCounts``.
    ties : {"worst", "mean", "best"}
        The tie rule: 1 + greater + equal, 1 + greater + equal/2, 1 + greater.

    Returns
    -------
    ndarray
        (B,) float64.
    """
    check_choice("ties", ties, TIE_RULES)
    return _metatl.ranks(greater, equal, ties=ties)


def ordered_mean(values: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Average over users, summing them one after the other.

    The order in which ``ndarray.mean`` sums depends on the processor, and so do the last digits of its
    result.

    Parameters
    ----------
    values : ndarray
        (B, M) float64 with B ≥ 1.
    counts : ndarray, optional
        (B,) int64: the number of users of each row; 1 by default.

    Returns
    -------
    ndarray
        (M,) float64.
    """
    if counts is None:
        return np.asarray(np.add.accumulate(values, axis=0)[-1] / len(values))
    return np.asarray(np.add.accumulate(values * counts[:, None], axis=0)[-1] / counts.sum())


def mean_metrics(
    greater: np.ndarray,
    equal: np.ndarray,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    ties: TieRule = "worst",
) -> dict[str, float]:
    """Average metrics over users.

    Parameters
    ----------
    greater, equal : ndarray
        (B,) int64, the two arrays of ``RankCounts``.
    metrics : sequence of str
        Names of metrics.
    ties : {"worst", "mean", "best"}
        The tie rule.

    Returns
    -------
    dict of str to float
        One mean per metric.
    """
    chosen = parse_metrics(metrics)
    means = ordered_mean(user_metrics(greater, equal, chosen, ties=ties))
    return {metric.name: float(mean) for metric, mean in zip(chosen, means, strict=True)}


def estimate(
    values: np.ndarray,
    counts: np.ndarray | None = None,
    *,
    seed: int = 0,
    resamples: int = BOOTSTRAP_RESAMPLES,
    num_threads: int | None = None,
) -> list[Estimate]:
    """Average over users, with percentile intervals from resampling the users (Efron 1979).

    Parameters
    ----------
    values : ndarray
        (B, M) float64 with B ≥ 1, C-contiguous: one row per user, one column per metric.
    counts : ndarray, optional
        (B,) int64: the number of users of each row (see `metatl.metrics.equal_users`); 1 by default.
    seed : int
        Seed of the resampling.
    resamples : int
        Number of resamples.
    num_threads : int, optional
        Threads of the kernel.

    Returns
    -------
    list of Estimate
        One per column.
    """
    users = len(values) if counts is None else int(counts.sum())
    if counts is not None and len(counts) * GROUP_COST > users:
        values, counts = np.repeat(values, counts, axis=0), None
    if counts is None:
        means = _metatl.bootstrap_means(values, resamples=resamples, seed=seed, num_threads=num_threads)
    else:
        means = _metatl.bootstrap_group_means(
            values, counts, resamples=resamples, seed=seed, num_threads=num_threads
        )
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    average = ordered_mean(values, counts)
    spread = ordered_mean((values - average) ** 2, counts) / max(users - 1, 1)
    return [
        Estimate(*(float(number) for number in numbers))
        for numbers in zip(average, low, high, np.sqrt(spread), strict=True)
    ]


def estimate_median(values: np.ndarray, counts: np.ndarray) -> Estimate:
    """Find the median over users, with an interval of order statistics that holds for any distribution.

    The number of users below the median is binomial with probability 1/2, so the l-th and u-th smallest
    values enclose the median with probability of at least 95 % if l and u are quantiles of that number.

    Parameters
    ----------
    values : ndarray
        (G,) float64 with G ≥ 1, ascending.
    counts : ndarray
        (G,) int64: the number of users with each value, at least 1.

    Returns
    -------
    Estimate
        The standard error is that of a normal distribution with an interval of the same width.
    """
    ends = np.cumsum(counts)
    users = int(ends[-1])

    def smallest(rank: int) -> float:
        return float(values[np.searchsorted(ends, rank, side="right")])

    # With very few users even the interval from the smallest to the largest value covers less than 95 %.
    outside = max(0, math.floor(float(special.bdtrik((1 - CONFIDENCE) / 2, users, 0.5))))
    low, high = smallest(outside), smallest(users - 1 - outside)
    middle = (smallest((users - 1) // 2) + smallest(users // 2)) / 2
    quantile = float(special.ndtri((1 + CONFIDENCE) / 2))
    return Estimate(middle, low, high, (high - low) / (2 * quantile))
