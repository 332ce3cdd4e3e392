"""Metrics of one relevant item per user: reciprocal rank, hit rate, NDCG.

From the counts of a ranking (`metatl.ranking.RankCounts`) and a tie rule to one value per user, and from
these to means in a fixed order with bootstrap intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from metatl import _metatl
from metatl.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

TieRule: TypeAlias = Literal["worst", "mean", "best"]
"""Where the target stands among items with its score: last, anywhere with equal chance, first."""

DEFAULT_METRICS = ("MRR", "HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10")
BOOTSTRAP_RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metric:
    """A metric that a user's rank determines.

    With rank the place of the target, counted from 1: MRR is 1/rank, uncut; HR@k is 1 if rank ≤ k, else 0;
    NDCG@k is 1/log2(1 + rank) if rank ≤ k, else 0. Under the tie rule ``mean`` each is its expectation over
    random tie breaking.

    Attributes
    ----------
    kind : {"MRR", "HR", "NDCG"}
        The formula.
    cutoff : int or None
        k; None for MRR.
    """

    kind: Literal["MRR", "HR", "NDCG"]
    cutoff: int | None

    @property
    def name(self) -> str:
        """The usual way to write it, such as ``HR@10``."""
        return self.kind if self.cutoff is None else f"{self.kind}@{self.cutoff}"


@dataclass(frozen=True)
class Estimate:
    """A mean over users and its bootstrap interval.

    Attributes
    ----------
    value, low, high : float
        The mean and the ends of its 95 % percentile interval.
    """

    value: float
    low: float
    high: float


def parse_metrics(names: Sequence[str] | str) -> tuple[Metric, ...]:
    """Read the names of metrics.

    Parameters
    ----------
    names : str or sequence of str
        Such as ``"MRR,HR@10"`` or ``["MRR", "HR@10"]``; case does not matter.

    Returns
    -------
    tuple of Metric
        In the order given, repetitions dropped.

    Raises
    ------
    ConfigError
        If a name is not known; the message says which are.
    """
    given = names.split(",") if isinstance(names, str) else names
    return tuple(dict.fromkeys(_parse_metric(name) for name in given))


def _parse_metric(name: str) -> Metric:
    kind, at, cutoff = name.strip().upper().partition("@")
    if kind == "MRR" and not at:
        return Metric("MRR", None)
    if kind in ("HR", "NDCG") and cutoff.isdecimal() and int(cutoff) >= 1:
        return Metric("HR" if kind == "HR" else "NDCG", int(cutoff))
    raise ConfigError(
        f"unknown metric {name.strip()!r}; known are MRR, HR@k and NDCG@k with k = 1, 2, …, as in HR@10"
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
    values = _metatl.user_metrics(greater, equal, ties=ties, cutoffs=np.array(cutoffs, np.int64))
    columns = ["MRR", *(f"HR@{cutoff}" for cutoff in cutoffs), *(f"NDCG@{cutoff}" for cutoff in cutoffs)]
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
    return _metatl.ranks(greater, equal, ties=ties)


def ordered_mean(values: np.ndarray) -> np.ndarray:
    """Average over users, adding them up one after the other.

    ``ndarray.mean`` groups the terms as suits the processor; the last digits of a result should not depend on
    it.

    Parameters
    ----------
    values : ndarray
        (B, M) float64 with B ≥ 1.

    Returns
    -------
    ndarray
        (M,) float64.
    """
    return np.asarray(np.add.accumulate(values, axis=0)[-1] / len(values))


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
    values: np.ndarray, *, seed: int = 0, resamples: int = BOOTSTRAP_RESAMPLES, num_threads: int | None = None
) -> list[Estimate]:
    """Average over users, with percentile intervals from resampling the users.

    Parameters
    ----------
    values : ndarray
        (B, M) float64 with B ≥ 1, C-contiguous: one row per user, one column per metric.
    seed : int
        Seed of the resampling.
    resamples : int
        How often the users are drawn again.
    num_threads : int, optional
        Threads of the kernel.

    Returns
    -------
    list of Estimate
        One per column.
    """
    means = _metatl.bootstrap_means(values, resamples=resamples, seed=seed, num_threads=num_threads)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    return [
        Estimate(float(value), float(lower), float(upper))
        for value, lower, upper in zip(ordered_mean(values), low, high, strict=True)
    ]
