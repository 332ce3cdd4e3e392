"""Metrics of the full catalogue, estimated from ranks among a few sampled negatives.

Krichene and Rendle, *On sampled metrics for item recommendation*, KDD 2020: a metric of the rank among
sampled candidates is not the metric of the rank in the catalogue, not even on average. They replace it by
another function of the sampled rank, chosen so that it is close to the metric of the full rank.

A user's target has rank r among N + 1 items, N of which are negatives. Only its rank s among n of them,
drawn without replacement, is seen. Of the r − 1 negatives that beat the target s − 1 are drawn, a
hypergeometric number. (The paper draws with replacement; the number is binomial then, and the two agree for
N much larger than n.) An estimator is a table of n + 1 values, one for each s.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from scipy.linalg import eigh_tridiagonal

from metatl.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from metatl.metrics.names import TieRule
    from metatl.metrics.rank_metrics import Metric

Estimator: TypeAlias = Literal["bias_variance", "unbiased_rank"]
ESTIMATORS: tuple[Estimator, ...] = ("unbiased_rank", "bias_variance")
"""`unbiased_rank` estimates the rank first; `bias_variance` trades the bias against the variance."""

DEFAULT_GAMMA = 0.01
"""The paper's weight of the variance; docs/evaluation.md says what simulations find for others."""

MAX_TABLES = 8
"""The most tables of one call; each user takes the table of the nearest population."""

EXACT_RANKS = 4096
"""The number of best and of worst ranks that are always summed one by one."""

_QUADRATURE_NODES = 16
_ROW_BLOCK = 1024
# Of a component with this eigenvalue 1e-9, its root, is left in the mean over sampled ranks: with γ = 0 its
# rounding error of 1e-15 becomes a bias of 1e-6, and of smaller ones soon more than there is to gain.
_SMALLEST_EIGENVALUE = 1e-18

_GAINS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "HR": np.ones_like,
    "MRR": np.reciprocal,
    "NDCG": lambda ranks: 1 / np.log2(1 + ranks),
}


def metric_of_ranks(metric: Metric, ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate a metric at ranks that need not be integers.

    Parameters
    ----------
    metric : Metric
        HR@k is 1, NDCG@k is 1/log2(1 + rank) and MRR@k is 1/rank where rank ≤ k, else 0; without a cutoff
        k is infinite.
    ranks : ndarray
        float64 of any shape, at least 1.

    Returns
    -------
    ndarray
        float64 of the same shape.
    """
    gains = _GAINS[metric.kind](ranks)
    return gains if metric.cutoff is None else np.where(ranks <= metric.cutoff, gains, 0.0)


def corrected_table(
    metrics: Sequence[Metric],
    n: int,
    population: int,
    estimator: Estimator = "bias_variance",
    gamma: float = DEFAULT_GAMMA,
) -> NDArray[np.float64]:
    """Tabulate the estimate of each metric for each rank among sampled candidates.

    `unbiased_rank` evaluates the metric at 1 + N (s − 1) / n, whose mean is the rank r.

    `bias_variance` is the table that minimises the mean over r of (mean − metric)² + γ variance, both of the
    estimate given r, where all ranks weigh the same. Krichene and Rendle give it in closed form: with
    A[r, s] = p(s | r), P(r) = 1/(N+1) and c(s) = Σ_r P(r) p(s | r) it is
    ((1 − γ) Aᵀ P A + γ diag(c))⁻¹ Aᵀ P M. For equal weights and draws without replacement we need no solver,
    for the eigenvectors of Aᵀ P A are known: see :func:`_filter_posterior_means`. γ = 1 gives the mean of the
    metric over the ranks that s leaves possible; γ = 0 the smallest bias, at a variance that makes it
    useless unless n is close to N. For γ = 0 components that float64 cannot carry, those of which less than
    1e-9 is left in the sampled rank, are left out.

    Parameters
    ----------
    metrics : sequence of Metric
        M metrics.
    n : int
        Sampled negatives, n ≥ 1.
    population : int
        N, the negatives that they are drawn from, N ≥ n. Beyond 16,384 the sum over ranks in the middle is
        replaced by a quadrature, which is off by less than 1e-9 for the three kinds of metric.
    estimator : {"bias_variance", "unbiased_rank"}
        The estimator.
    gamma : float
        γ of `bias_variance`, from 0 to 1; `unbiased_rank` ignores it.

    Returns
    -------
    ndarray
        (n + 1, M) float64; row s − 1 holds the estimates for a target of rank s.

    Raises
    ------
    InvalidArgumentError
        If an argument is outside its range.

    Examples
    --------
    If all negatives are sampled, the estimate is the metric:

    >>> from metatl.metrics.rank_metrics import Metric
    >>> corrected_table([Metric("MRR", None)], n=3, population=3)[:, 0].round(4).tolist()
    [1.0, 0.5, 0.3333, 0.25]

    If a third of them are sampled, the first of four need not be the first of ten:

    >>> corrected_table([Metric("MRR", None)], 3, 9, "unbiased_rank")[:, 0].round(4).tolist()
    [1.0, 0.25, 0.1429, 0.1]
    """
    if n < 1:
        raise InvalidArgumentError(f"n: found {n}, expected at least 1")
    if population < n:
        raise InvalidArgumentError(f"population: found {population}, expected at least n = {n} negatives")
    if not 0 <= gamma <= 1:
        raise InvalidArgumentError(f"gamma: found {gamma}, expected 0 to 1")
    if estimator == "unbiased_rank":
        ranks = 1 + population * np.arange(n + 1) / n
        return np.column_stack([metric_of_ranks(metric, ranks) for metric in metrics])
    if estimator == "bias_variance":
        return _filter_posterior_means(_posterior_means(metrics, n, population), population, gamma)
    raise InvalidArgumentError(f"estimator: found {estimator!r}, expected 'bias_variance' or 'unbiased_rank'")


def corrected_user_metrics(
    greater: NDArray[np.int64],
    equal: NDArray[np.int64],
    metrics: Sequence[Metric],
    *,
    n: int,
    populations: NDArray[np.int64],
    ties: TieRule = "worst",
    estimator: Estimator = "bias_variance",
    gamma: float = DEFAULT_GAMMA,
) -> NDArray[np.float64]:
    """Estimate each user's metrics in the catalogue from the counts among sampled negatives.

    The estimate of a single user can be below 0 or above 1; only the mean over users is meaningful.

    Where users have more than eight different populations N, eight sizes are used, evenly spaced on a
    logarithmic scale, and each user takes the nearest. N is then off by at most a factor of
    (largest / smallest)^(1/16): by 0.6 % where they differ by 10 %.

    Parameters
    ----------
    greater, equal : ndarray
        (B,) int64, the two arrays of ``RankCounts`` among n sampled negatives.
    metrics : sequence of Metric
        M metrics.
    n : int
        Sampled negatives per user.
    populations : ndarray
        (B,) int64: N of each user, the number of items that the negatives are drawn from. Under the protocol
        it is the number of items that the user does not interact with.
    ties : {"worst", "mean", "best"}
        The rank of the target among negatives with the same score; under ``mean`` an estimate is the mean
        over these ranks.
    estimator, gamma : Estimator, float
        As in :func:`corrected_table`.

    Returns
    -------
    ndarray
        (B, M) float64, C-contiguous.

    Raises
    ------
    InvalidArgumentError
        If the arrays differ in length, a population is less than n, or an argument is outside its range.
    """
    if not len(greater) == len(equal) == len(populations):
        raise InvalidArgumentError(
            f"populations: found {len(populations)} for {len(greater)} and {len(equal)} counts, "
            "expected one a user"
        )
    if len(populations) > 0 and populations.min() < n:
        user = int(np.argmin(populations))
        raise InvalidArgumentError(
            f"populations: found {populations[user]} negatives for user {user}, expected at least n = {n}"
        )
    first, last = greater, greater + equal
    if len(greater) > 0:
        low, high = min(greater.min(), equal.min()), last.max()
        if low < 0 or high > n:
            raise InvalidArgumentError(f"greater, equal: found {low} to {high}, expected 0 to n = {n}")
    if ties == "worst":
        first = last
    elif ties == "best":
        last = first
    elif ties != "mean":
        raise InvalidArgumentError(f"ties: found {ties!r}, expected 'worst', 'mean' or 'best'")
    sizes, size_of_user = _table_sizes(populations)
    values = np.empty((len(greater), len(metrics)))
    for index, size in enumerate(sizes):
        table = corrected_table(metrics, n, int(size), estimator, gamma)
        users = size_of_user == index
        values[users] = _mean_rows(table, first[users], last[users])
    return values


def _mean_rows(
    table: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Average the rows first to last, both included, of a table."""
    values = table[first]
    several = np.flatnonzero(last > first)
    sums = np.concatenate([np.zeros((1, table.shape[1])), np.add.accumulate(table, axis=0)])
    counts = (last - first + 1)[several, None]
    values[several] = (sums[last[several] + 1] - sums[first[several]]) / counts
    return values


def _table_sizes(populations: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose at most `MAX_TABLES` sizes, and the index of the size of each user."""
    sizes, size_of_user = np.unique(populations, return_inverse=True)
    if len(sizes) <= MAX_TABLES:
        return sizes, size_of_user
    # The middles of equal parts of a logarithmic scale: every population is within half a part of one.
    edges = np.linspace(np.log(sizes[0]), np.log(sizes[-1]), 2 * MAX_TABLES + 1)
    middles = np.rint(np.exp(edges[1::2])).astype(np.int64)
    parts = (np.log(populations) - edges[0]) / (edges[2] - edges[0])
    return middles, np.minimum(parts.astype(np.int64), MAX_TABLES - 1)


def _filter_posterior_means(means: NDArray[np.float64], population: int, gamma: float) -> NDArray[np.float64]:
    """Turn the means of the metrics given s into the table of least bias and variance.

    Let G = r − 1 be uniform on 0 … N and J = s − 1 hypergeometric given G. Then J is uniform on 0 … n, so
    that c(s) = 1/(n+1). The factorial moments E[J (J−1) … (J−d+1) | G] = G (G−1) … (G−d+1) · (n)_d / (N)_d
    show that E[· | G] maps polynomials of degree d in J to such in G; the reverse holds for E[· | J].
    Orthogonal polynomials of the uniform weight, the discrete Chebyshev polynomials, are therefore mapped to
    each other, and they diagonalise Aᵀ P A. The eigenvalues follow from the leading coefficients:
    λ_d = Π_{i=1…d} (n + 1 − i)(N + 1 + i) / ((n + 1 + i)(N + 1 − i)).

    In this basis the closed form divides component d of the posterior means by (1 − γ) λ_d + γ.
    """
    n = len(means) - 1
    degrees = np.arange(1, n + 1)
    ratios = (n + 1 - degrees) / (n + 1 + degrees) * ((population + 1 + degrees) / (population + 1 - degrees))
    eigenvalues = np.concatenate([[1.0], np.cumprod(ratios)])
    # An underflow of the smallest is as good as any other value below the limit.
    kept = (eigenvalues >= _SMALLEST_EIGENVALUE) | (gamma > 0)
    basis = _chebyshev_basis(n + 1)[kept]
    components = (basis @ means) / ((1 - gamma) * eigenvalues[kept] + gamma)[:, None]
    return np.asarray(basis.T @ components)


@lru_cache(maxsize=1)
def _chebyshev_basis(points: int) -> NDArray[np.float64]:
    """Orthonormal polynomials on 0 … points − 1, a row for each degree."""
    _, polynomials = eigh_tridiagonal(*_chebyshev_recurrence(points, points))
    # An eigenvector has no sign of its own; the polynomial of degree 0 is positive.
    return np.asarray(polynomials * np.sign(polynomials[0]))


def _posterior_means(metrics: Sequence[Metric], n: int, population: int) -> NDArray[np.float64]:
    """Average the metrics over r given s, all r alike: E[M(r) | s], (n + 1, M)."""
    means = np.zeros((n + 1, len(metrics)))
    cutoffs = sorted(metric.cutoff for metric in metrics if metric.cutoff is not None)
    total = _log_binomials(np.array([float(population)]), n)[0, -1]
    for beaten, weights in _rank_blocks(population, n, cutoffs):
        logs = _log_binomials(beaten, n) + _log_binomials(population - beaten, n)[:, ::-1] - total
        values = np.column_stack([metric_of_ranks(metric, 1 + beaten) for metric in metrics])
        means += np.exp(logs).T @ (weights[:, None] * values)
    # Each s has the chance 1/(n+1), each r the weight 1/(N+1).
    return means * ((n + 1) / (population + 1))


def _log_binomials(tops: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Logarithms of the binomial coefficients of `tops` over 0 … n, a row for each top."""
    # Factor by factor: a difference of log-gammas of ten million keeps only eight digits.
    steps = np.arange(n)
    factors = np.maximum(tops[:, None] - steps, 0.0) / (steps + 1)
    with np.errstate(divide="ignore"):
        logs = np.log(factors)
    return np.concatenate([np.zeros((len(tops), 1)), np.cumsum(logs, axis=1)], axis=1)


def _rank_blocks(
    population: int, n: int, cutoffs: Sequence[int]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield values of r − 1 and their weights; sums over them stand for sums over 0 … N.

    Both ends are there in full. Between them come blocks that end at each cutoff, no wider than a share of
    their distance from the ends and of the spread of r given s; within one the summand is smooth, and Gauss'
    quadrature for sums is exact for polynomials up to degree 31.
    """
    end = min(max(EXACT_RANKS, 4 * n), (population + 1) // 2)
    edges = _block_edges(population, n, end, cutoffs) if population + 1 > 2 * end else [end]
    for start, stop in ((0, edges[0]), (edges[-1], population + 1)):
        for row in range(start, stop, _ROW_BLOCK):
            beaten = np.arange(row, min(row + _ROW_BLOCK, stop), dtype=np.float64)
            yield beaten, np.ones_like(beaten)
    for start, stop in pairwise(edges):
        yield _gauss_sum(start, stop)


def _block_edges(population: int, n: int, end: int, cutoffs: Sequence[int]) -> list[int]:
    # On the scale of angles, N sin²(angle / 2), r given s has a spread of about 1/√n wherever it lies.
    angles = np.linspace(0, np.pi, 4 * int(np.sqrt(n)) + 8)
    doublings = end * 2.0 ** np.arange(1, np.log2(population / end))
    inner = np.concatenate([population * np.sin(angles / 2) ** 2, doublings, population - doublings, cutoffs])
    first, last = end, population + 1 - end
    whole = np.unique(np.rint(inner).astype(np.int64))
    return [first, *(int(edge) for edge in whole[(whole > first) & (whole < last)]), last]


def _gauss_sum(start: int, stop: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights for a sum over start … stop − 1."""
    size = stop - start
    if size <= _QUADRATURE_NODES:
        nodes = np.arange(start, stop, dtype=np.float64)
        return nodes, np.ones_like(nodes)
    offsets, vectors = eigh_tridiagonal(*_chebyshev_recurrence(size, _QUADRATURE_NODES))
    return np.asarray(start + offsets), np.asarray(size * vectors[0] ** 2)


def _chebyshev_recurrence(points: int, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Diagonal and off-diagonal of the Jacobi matrix of the discrete Chebyshev polynomials.

    They are orthogonal for equal weights on 0 … points − 1. For size = points the eigenvalues are these
    points, and row d of the orthogonal matrix of eigenvectors is the polynomial of degree d on them; for a
    smaller size they are the nodes of Gauss' quadrature (Golub and Welsch, *Calculation of Gauss quadrature
    rules*, Mathematics of Computation 1969).
    """
    degrees = np.arange(1.0, size)
    off_diagonal = degrees / 2 * np.sqrt((points**2 - degrees**2) / (4 * degrees**2 - 1))
    return np.full(size, (points - 1) / 2), off_diagonal
