"""Compare the systems of a grid: means with intervals, the best system, and tests against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from metatl.metrics.names import RANKINGS
from metatl.metrics.significance import (
    MIN_PAIRS,
    Comparison,
    RankCorrelation,
    compare,
    holm,
    mean_interval,
    rank_correlation,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from metatl.experiments.outcome import Outcome
    from metatl.metrics.names import RankingName


@dataclass(frozen=True)
class Score:
    """A metric of a system.

    Attributes
    ----------
    mean : float
        Over seeds.
    low, high : float
        The t interval over seeds; the bootstrap interval over users where there is one seed.
    seeds : int
        Number of seeds.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class AgainstBest:
    """The MRR of a system minus that of the best, over the test users.

    Attributes
    ----------
    comparison : Comparison
        The difference, its interval, and p-values of this test alone.
    t_p, wilcoxon_p : float
        The p-values with Holm's correction for the number of systems that are compared with the best.
    """

    comparison: Comparison
    t_p: float
    wilcoxon_p: float


@dataclass(frozen=True, eq=False)
class Standings:
    """The systems on one data set for one K, with their scores and tests.

    Attributes
    ----------
    dataset : str
        Name of the data set.
    k : int
        K.
    test_users : int
        Number of test users.
    scores : dict of str to dict of RankingName to dict of str to Score
        Row to ranking to metric to score; rows are in the order of the table.
    best : dict of RankingName to str
        Ranking to the row with the highest mean MRR; the first of equal rows.
    against_best : dict of RankingName to dict of str to AgainstBest
        Ranking to row to its difference from the best row, which is left out.
    orders : RankCorrelation or None
        How far the orders by sampled MRR and by full MRR agree; None where there is no order.
    """

    dataset: str
    k: int
    test_users: int
    scores: dict[str, dict[RankingName, dict[str, Score]]]
    best: dict[RankingName, str]
    against_best: dict[RankingName, dict[str, AgainstBest]]
    orders: RankCorrelation | None

    def mean(self, row: str, ranking: RankingName = "sampled", metric: str = "MRR") -> float:
        """Give a row's mean of a metric."""
        return self.scores[row][ranking][metric].mean

    def next_best(self, ranking: RankingName) -> str | None:
        """Name the second-best row; None where there is only one row."""
        others = [row for row in self.scores if row != self.best[ranking]]
        return max(others, key=lambda row: self.mean(row, ranking), default=None)


def standings(outcome: Outcome, dataset: str, k: int) -> Standings | None:
    """Compare all rows of a data set for one K.

    Parameters
    ----------
    outcome : Outcome
        The results of the grid.
    dataset : str
        Name of the data set.
    k : int
        K.

    Returns
    -------
    Standings or None
        None where no cell is finished.
    """
    results = outcome.results.filter(dataset=dataset, k=k)
    if results.is_empty():
        return None
    rows = results["row"].unique(maintain_order=True).to_list()
    scores: dict[str, dict[RankingName, dict[str, Score]]] = {
        row: {ranking: _scores(results.filter(row=row, ranking=ranking)) for ranking in RANKINGS}
        for row in rows
    }
    best: dict[RankingName, str] = {
        ranking: max(rows, key=lambda row: scores[row][ranking]["MRR"].mean) for ranking in RANKINGS
    }
    return Standings(
        dataset=dataset,
        k=k,
        test_users=results["test_users"][0],
        scores=scores,
        best=best,
        against_best={
            ranking: _against_best(outcome, dataset, k, rows, best[ranking], ranking) for ranking in RANKINGS
        },
        orders=rank_correlation(
            *([scores[row][ranking]["MRR"].mean for row in rows] for ranking in RANKINGS)
        ),
    )


def compare_rows(
    outcome: Outcome, dataset: str, k: int, one: str, other: str, ranking: RankingName
) -> Comparison | None:
    """Compare the MRR of two rows over the test users.

    The value of a user is the mean over the seeds that both rows have. Both rank the same candidates for each
    seed.

    Returns
    -------
    Comparison or None
        `one` minus `other`; None where they share no seed, or there are fewer than two users.
    """
    seeds = {
        row: {seed for (name, of, at, seed) in outcome.ranks if (name, of, at) == (dataset, row, k)}
        for row in (one, other)
    }
    shared = sorted(seeds[one] & seeds[other])
    if not shared:
        return None
    first, second = (
        np.mean([reciprocal_ranks(outcome.ranks[dataset, row, k, seed], ranking) for seed in shared], axis=0)
        for row in (one, other)
    )
    return compare(first, second) if len(first) >= MIN_PAIRS else None


def reciprocal_ranks(ranks: pl.DataFrame, ranking: RankingName) -> NDArray[np.float64]:
    """Give each test user's reciprocal rank, in the order of the users' ids."""
    return (1 / ranks.filter(pl.col("ranking") == ranking).sort("user_id")["rank"]).to_numpy()


def _scores(results: pl.DataFrame) -> dict[str, Score]:
    scores = {}
    for metric in results["metric"].unique(maintain_order=True):
        mine = results.filter(metric=metric)
        mean, ends = mean_interval(mine["value"].to_list())
        low, high = (mine["low"][0], mine["high"][0]) if ends is None else ends
        scores[metric] = Score(mean, low, high, len(mine))
    return scores


def _against_best(
    outcome: Outcome, dataset: str, k: int, rows: Sequence[str], best: str, ranking: RankingName
) -> dict[str, AgainstBest]:
    compared = {
        row: comparison
        for row in rows
        if row != best and (comparison := compare_rows(outcome, dataset, k, row, best, ranking)) is not None
    }
    t_ps = holm([comparison.t_p for comparison in compared.values()])
    wilcoxon_ps = holm([comparison.wilcoxon_p for comparison in compared.values()])
    return {
        row: AgainstBest(comparison, t_p, wilcoxon_p)
        for (row, comparison), t_p, wilcoxon_p in zip(compared.items(), t_ps, wilcoxon_ps, strict=True)
    }
