"""From ranks to figures: metrics with intervals, corrected metrics, ties, slices and each user's row.

Whatever ranked the users (a run, a file of scores, embeddings, lists), what follows is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np
import polars as pl

from metatl.common.arguments import check_type
from metatl.data.user_attributes import refuse_repeated_users
from metatl.evaluation.report.results import EstimateReport, MetricsReport, SliceReport, TiesReport
from metatl.exceptions import ConfigError, DataError
from metatl.metrics.corrected_metrics import ESTIMATORS, corrected_user_metrics
from metatl.metrics.equal_users import group_users
from metatl.metrics.rank_metrics import (
    Estimate,
    Metric,
    TieRule,
    estimate,
    estimate_median,
    ordered_mean,
    ranks,
    user_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.ranking.blocks import RankCounts

RankingName: TypeAlias = Literal["sampled", "full"]

TIE_RULES: tuple[TieRule, ...] = ("worst", "mean", "best")
MOST_SLICES = 50
"""Slices by a column with more values than this would say nothing."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """How the targets of B users compare with what they were ranked among.

    Attributes
    ----------
    counts : RankCounts
        (B,) each.
    compared : ndarray
        (B,) int64: items that each target was compared with.
    listed : ndarray or None
        (B,) bool: whether the target was ranked at all; one that was not scores 0. None where all were.
    """

    counts: RankCounts
    compared: np.ndarray
    listed: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> Ranking:
        """Take some of the users, by number or by mask."""
        counts = type(self.counts)(self.counts.greater[rows], self.counts.equal[rows])
        return Ranking(counts, self.compared[rows], None if self.listed is None else self.listed[rows])

    @property
    def missed(self) -> int:
        """How many targets were not ranked."""
        return 0 if self.listed is None else int((~self.listed).sum())

    @property
    def ranked(self) -> Ranking:
        """The users whose target was ranked."""
        return self if self.listed is None else self.select(self.listed)


@dataclass(frozen=True, eq=False)
class RankedUsers:
    """What is known of B users once they have been ranked.

    Attributes
    ----------
    user_ids : polars.Series
        (B,) raw ids.
    sampled, full : Ranking or None
        Among sampled candidates, and among the whole catalogue.
    catalogue_negatives : ndarray or None
        (B,) int64: items of the catalogue that the sampled negatives of each user were drawn from,
        uniformly; None where they were not, or where nobody knows.
    """

    user_ids: pl.Series
    sampled: Ranking | None = None
    full: Ranking | None = None
    catalogue_negatives: np.ndarray | None = None

    @property
    def rankings(self) -> dict[RankingName, Ranking]:
        """The rankings that there are, by name."""
        both: dict[RankingName, Ranking | None] = {"sampled": self.sampled, "full": self.full}
        return {name: ranking for name, ranking in both.items() if ranking is not None}

    def select(self, rows: np.ndarray) -> RankedUsers:
        """Take some of the users, by number or by mask."""
        return RankedUsers(
            user_ids=self.user_ids.filter(rows) if rows.dtype == bool else self.user_ids.gather(rows),
            sampled=None if self.sampled is None else self.sampled.select(rows),
            full=None if self.full is None else self.full.select(rows),
            catalogue_negatives=None if self.catalogue_negatives is None else self.catalogue_negatives[rows],
        )


@dataclass(frozen=True)
class Measures:
    """What to compute.

    Attributes
    ----------
    metrics : tuple of Metric
        Functions of the rank.
    ties : {"worst", "mean", "best"}
        Where a target stands among items with its score.
    seed : int
        Seed of the bootstrap.
    num_threads : int or None
        Threads of the kernels.
    """

    metrics: tuple[Metric, ...]
    ties: TieRule = "worst"
    seed: int = 0
    num_threads: int | None = None


def measure(users: RankedUsers, measures: Measures) -> MetricsReport:
    """Compute the metrics of each ranking that there is, and the corrected ones.

    Parameters
    ----------
    users : RankedUsers
        At least one.
    measures : Measures
        What to compute.

    Returns
    -------
    MetricsReport
        Means with intervals.
    """
    found = {name: _measure_ranking(ranking, measures) for name, ranking in users.rankings.items()}
    return MetricsReport(
        sampled=found.get("sampled"), corrected=_measure_corrected(users, measures), full=found.get("full")
    )


def measure_ties(users: RankedUsers, measures: Measures) -> dict[str, TiesReport]:
    """Tell how many targets are level with another item, and what each tie rule would say.

    Parameters
    ----------
    users : RankedUsers
        At least one.
    measures : Measures
        What to compute.

    Returns
    -------
    dict of str to TiesReport
        For each ranking that there is.
    """
    reports = {}
    for name, ranking in users.rankings.items():
        (greater, equal), counts = group_users(*ranking.ranked.counts)
        means = {}
        for ties in TIE_RULES:
            values = user_metrics(greater, equal, measures.metrics, ties=ties)
            pairs = zip(measures.metrics, ordered_mean(*_with_missed(values, counts, ranking)), strict=True)
            means[ties] = {metric.name: float(mean) for metric, mean in pairs}
        share = float(counts[equal > 0].sum() / (counts.sum() + ranking.missed))
        reports[str(name)] = TiesReport(share=share, metrics=means)
    return reports


def measure_slices(users: RankedUsers, column: pl.Series, measures: Measures) -> list[SliceReport]:
    """Compute the metrics of each group of users.

    Parameters
    ----------
    users : RankedUsers
        B users.
    column : polars.Series
        (B,) what groups them; users without a value are a group of their own.
    measures : Measures
        What to compute.

    Returns
    -------
    list of SliceReport
        In the order of the values.

    Raises
    ------
    ConfigError
        If there are more than `MOST_SLICES` values.
    """
    values = column.unique().sort(nulls_last=True)
    if len(values) > MOST_SLICES:
        raise ConfigError(
            f"by: found {len(values):,} values in {column.name!r}, expected at most {MOST_SLICES}; "
            "group them first"
        )
    slices = []
    for value in values.to_list():
        members = (column.is_null() if value is None else column == value).to_numpy().astype(bool)
        part = users.select(members)
        text = "none" if value is None else str(value)
        report = measure(part, measures)
        slices.append(SliceReport(by=column.name, value=text, users=int(members.sum()), metrics=report))
    return slices


def slices_by(
    users: RankedUsers,
    by: Sequence[str],
    known: dict[str, pl.Series],
    attributes: pl.DataFrame | None,
    measures: Measures,
) -> list[SliceReport]:
    """Compute the metrics of the users grouped by each of several columns.

    Parameters
    ----------
    users : RankedUsers
        B users.
    by : sequence of str
        Names in `known` or columns of `attributes`.
    known : dict of str to polars.Series
        (B,) each: what the evaluation itself knows of the users.
    attributes : polars.DataFrame or None
        ``user_id`` (raw) and further columns, one row a user; users without a row are a group of their own.
    measures : Measures
        What to compute.

    Returns
    -------
    list of SliceReport
        Column by column.

    Raises
    ------
    ConfigError
        If a name is neither known nor a column, or has too many values.
    DataError
        If `attributes` has no ``user_id``, or a user twice.
    InvalidArgumentError
        If `attributes` is no polars.DataFrame.
    """
    if attributes is not None:
        check_type(
            "attributes",
            attributes,
            pl.DataFrame,
            "a polars.DataFrame; metatl.data.user_attributes.read_attributes reads a file",
        )
    slices = []
    for name in by:
        column = known.get(name)
        if column is None:
            column = _attribute(users.user_ids, name, known, attributes)
        slices += measure_slices(users, column, measures)
    return slices


def _attribute(
    user_ids: pl.Series, name: str, known: dict[str, pl.Series], attributes: pl.DataFrame | None
) -> pl.Series:
    columns = [] if attributes is None else [column for column in attributes.columns if column != "user_id"]
    if attributes is None or name not in columns:
        there = ", ".join([*known, *columns])
        expected = f"one of {there}" if there else "a column of the attributes, and there are none"
        raise ConfigError(f"by: found {name!r}, expected {expected}")
    if "user_id" not in attributes.columns:
        raise DataError(f"attributes: found no column 'user_id' among {', '.join(columns)}")
    refuse_repeated_users(attributes)
    wanted = pl.DataFrame({"user_id": user_ids})
    if wanted["user_id"].dtype != attributes["user_id"].dtype:
        raise DataError(
            f"attributes: found user ids of type {attributes['user_id'].dtype}, "
            f"expected {wanted['user_id'].dtype}"
        )
    return wanted.join(attributes, on="user_id", how="left", maintain_order="left")[name]


def quantile_groups(values: np.ndarray, name: str, groups: int = 4) -> pl.Series:
    """Cut users into groups of about equal size by a number of theirs; equal numbers stay together.

    Parameters
    ----------
    values : ndarray
        (B,) int64.
    name : str
        Of the series.
    groups : int
        How many, at most.

    Returns
    -------
    polars.Series
        (B,) an ordered enumeration of ranges, such as `3–7`.
    """
    cuts = np.quantile(values, np.linspace(0, 1, groups + 1)[1:-1], method="inverted_cdf")
    numbers = np.searchsorted(np.unique(cuts), values, side="left")
    names = []
    for number in np.unique(numbers):
        mine = values[numbers == number]
        low, high = int(mine.min()), int(mine.max())
        names.append(str(low) if low == high else f"{low}–{high}")
    positions = np.searchsorted(np.unique(numbers), numbers)
    return pl.Series(name, [names[position] for position in positions], dtype=pl.Enum(names))


def user_frame(users: RankedUsers, measures: Measures) -> pl.DataFrame:
    """Give each user's ranks and metrics.

    Parameters
    ----------
    users : RankedUsers
        B users.
    measures : Measures
        What to compute.

    Returns
    -------
    polars.DataFrame
        One row per user and ranking: ``user_id`` (raw), ``ranking`` (``"sampled"`` or ``"full"``), ``rank``,
        ``greater``, ``equal`` and one column per metric. ``rank`` is null where the target was not ranked.
    """
    return pl.concat(_ranking_frame(users.user_ids, *item, measures) for item in users.rankings.items())


def _ranking_frame(
    user_ids: pl.Series, name: RankingName, ranking: Ranking, measures: Measures
) -> pl.DataFrame:
    counts = ranking.counts
    values = user_metrics(*counts, measures.metrics, ties=measures.ties)
    places = pl.Series(ranks(*counts, ties=measures.ties))
    if ranking.listed is not None:
        values[~ranking.listed] = 0.0
        places = places.zip_with(pl.Series(ranking.listed), pl.Series([None], dtype=pl.Float64))
    return pl.DataFrame(
        {
            "user_id": user_ids,
            "ranking": pl.Series([name], dtype=pl.String).new_from_index(0, len(user_ids)),
            "rank": places,
            "greater": counts.greater,
            "equal": counts.equal,
            **{metric.name: values[:, place] for place, metric in enumerate(measures.metrics)},
        }
    )


def _measure_ranking(ranking: Ranking, measures: Measures) -> dict[str, EstimateReport]:
    ranked = ranking.ranked
    (greater, equal, compared), counts = group_users(*ranked.counts, ranked.compared)
    values = user_metrics(greater, equal, measures.metrics, ties=measures.ties)
    if ranking.missed:
        # Where a target is not ranked, nobody knows how far down it is.
        estimates = estimate(
            *_with_missed(values, counts, ranking), seed=measures.seed, num_threads=measures.num_threads
        )
        return _reports([metric.name for metric in measures.metrics], estimates)
    found = ranks(greater, equal, ties=measures.ties)
    # The share of the others that rank below the target; where there are none, it is at the top.
    area = 1 - (found - 1) / np.maximum(compared, 1)
    columns = np.ascontiguousarray(np.column_stack([values, area, found]))
    estimates = estimate(columns, counts, seed=measures.seed, num_threads=measures.num_threads)
    names = [*(metric.name for metric in measures.metrics), "AUC", "mean rank"]
    order = np.argsort(found, kind="stable")
    estimates.append(estimate_median(found[order], counts[order]))
    return _reports([*names, "median rank"], estimates)


def _with_missed(values: np.ndarray, counts: np.ndarray, ranking: Ranking) -> tuple[np.ndarray, np.ndarray]:
    """Append the users whose target was not ranked: a group with 0 in every metric."""
    if not ranking.missed:
        return values, counts
    zeros = np.zeros((1, values.shape[1]))
    return np.concatenate([values, zeros]), np.append(counts, ranking.missed)


def _measure_corrected(users: RankedUsers, measures: Measures) -> dict[str, dict[str, EstimateReport]] | None:
    if users.sampled is None or users.catalogue_negatives is None:
        return None
    counts = users.sampled.counts
    (greater, equal, populations), numbers = group_users(*counts, users.catalogue_negatives)
    n = int(users.sampled.compared[0])
    reports = {}
    for estimator in ESTIMATORS:
        values = corrected_user_metrics(
            greater,
            equal,
            measures.metrics,
            n=n,
            populations=populations,
            ties=measures.ties,
            estimator=estimator,
        )
        estimates = estimate(values, numbers, seed=measures.seed, num_threads=measures.num_threads)
        names = [metric.name for metric in measures.metrics]
        reports[cast("str", estimator)] = _reports(names, estimates)
    return reports


def _reports(names: Sequence[str], estimates: Sequence[Estimate]) -> dict[str, EstimateReport]:
    return {
        name: EstimateReport(
            value=found.value, low=found.low, high=found.high, standard_error=found.standard_error
        )
        for name, found in zip(names, estimates, strict=True)
    }
