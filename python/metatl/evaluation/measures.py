"""From ranks to an evaluation: metrics with intervals, corrected metrics, ties, slices, a row for each user.

All four ways of ranking (a run, scores, embeddings, ranked lists) end here, in an :class:`Evaluation`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import polars as pl

from metatl.common.arguments import did_you_mean
from metatl.data.frames import as_frame, is_frame
from metatl.data.user_attributes import attribute_of, with_user_ids
from metatl.evaluation.per_user_files import PerUserRecord, write_per_user
from metatl.evaluation.report.results import (
    BootstrapReport,
    CandidatesReport,
    EstimateReport,
    Figures,
    MetricsReport,
    SliceReport,
    TiesReport,
    UsersReport,
)
from metatl.exceptions import ArgumentTypeError, ConfigError
from metatl.metrics.corrected_metrics import ESTIMATORS, corrected_user_metrics
from metatl.metrics.equal_users import group_users
from metatl.metrics.names import TIE_RULES
from metatl.metrics.rank_metrics import (
    BOOTSTRAP_RESAMPLES,
    CONFIDENCE,
    Estimate,
    Metric,
    estimate,
    estimate_median,
    ordered_mean,
    ranks,
    user_metrics,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from metatl.data.candidates import CandidateSets
    from metatl.data.frames import FrameLike
    from metatl.evaluation.report.results import ListsReport
    from metatl.metrics.names import RankingName, TieRule
    from metatl.ranking.blocks import RankCounts

MOST_SLICES = 50
"""The most values that a column to slice by may have."""

ResultsT = TypeVar("ResultsT", bound=Figures)


@dataclass(frozen=True, eq=False)
class Ranking:
    """How the targets of B users compare with the items that they were ranked among.

    Attributes
    ----------
    counts : RankCounts
        (B,) each.
    compared : ndarray
        (B,) int64: items that each target was compared with.
    listed : ndarray or None
        (B,) bool: whether the target was ranked. A target that was not ranked scores 0. None where all
        targets were ranked.
    """

    counts: RankCounts
    compared: np.ndarray
    listed: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> Ranking:
        """Take some of the users, by index or by mask."""
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
    """The ranks of B users.

    Attributes
    ----------
    user_ids : polars.Series
        (B,) raw ids.
    sampled, full : Ranking or None
        Among sampled candidates, and among the whole catalogue.
    catalogue_negatives : ndarray or None
        (B,) int64: the number of items that the sampled negatives of each user were drawn from, uniformly;
        None where they were not drawn uniformly, or where this is not known.
    """

    user_ids: pl.Series
    sampled: Ranking | None = None
    full: Ranking | None = None
    catalogue_negatives: np.ndarray | None = None

    @property
    def rankings(self) -> dict[RankingName, Ranking]:
        """The rankings by name, without those that are None."""
        rankings: dict[RankingName, Ranking | None] = {"sampled": self.sampled, "full": self.full}
        return {name: ranking for name, ranking in rankings.items() if ranking is not None}

    def select(self, rows: np.ndarray) -> RankedUsers:
        """Take some of the users, by index or by mask."""
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
        The rank of a target among items with the same score.
    seed : int
        Seed of the bootstrap.
    num_threads : int or None
        Threads of the kernels.
    """

    metrics: tuple[Metric, ...]
    ties: TieRule = "worst"
    seed: int = 0
    num_threads: int | None = None


@dataclass(frozen=True, eq=False)
class Evaluation(Generic[ResultsT]):
    """The evaluation of one system: a summary, and the ranks of every user.

    :func:`metatl.compare_users` takes two or more of them.

    Attributes
    ----------
    results : Results or SourceResults
        The summary, as ``metatl-eval --json`` writes it: `Results` of a run, `SourceResults` of scores,
        embeddings or lists.
    system : str
        Name of the system.
    users : RankedUsers
        The ranks of the users.
    measures : Measures
        What was computed from them.
    dataset_fingerprint : str or None
        Fingerprint of the interactions before the split; None where it is not known.
    split_sha256 : str or None
        Digest of the settings of the split (`metatl.data.split.protocol_sha256`); None where it is not known.
    """

    results: ResultsT
    system: str
    users: RankedUsers
    measures: Measures
    dataset_fingerprint: str | None
    split_sha256: str | None

    @property
    def metrics(self) -> MetricsReport:
        """The means over users with their intervals, for each ranking."""
        return self.results.metrics

    @property
    def per_user(self) -> pl.DataFrame:
        """One row per user and ranking; see `metatl.evaluation.measures.user_frame`."""
        return user_frame(self.users, self.measures)

    @property
    def record(self) -> PerUserRecord:
        """What `per_user` was computed from: the system, the tie rule, the data and the candidates."""
        candidates = self.results.candidates
        return PerUserRecord(
            system=self.system,
            ties=self.measures.ties,
            metrics=[metric.name for metric in self.measures.metrics],
            candidates_sha256=None if candidates is None else candidates.sha256,
            dataset_fingerprint=self.dataset_fingerprint,
            split_sha256=self.split_sha256,
        )

    def write_per_user(self, path: str | os.PathLike[str]) -> None:
        """Write `per_user` and `record` to a Parquet file, as ``metatl-eval --per-user`` does.

        Parameters
        ----------
        path : str or path-like
            File to write; replaced if it exists.

        Raises
        ------
        OSError
            If the file cannot be written; the old file is kept then.
        """
        write_per_user(path, self.per_user, self.record)


def report_figures(
    users: RankedUsers,
    measures: Measures,
    *,
    left_out: dict[str, int],
    lists: ListsReport | None,
    candidates: CandidateSets | None,
    columns: Mapping[str, pl.Series],
    by: Sequence[str],
    attributes: FrameLike | None,
) -> dict[str, Any]:
    """Compute what every evaluation reports: the fields of `Figures`, without notes and timings.

    Parameters
    ----------
    users : RankedUsers
        At least one.
    measures : Measures
        What to compute.
    left_out : dict of str to int
        How many users or rows were left out, by reason.
    lists : ListsReport or None
        The report of the users' lists.
    candidates : CandidateSets or None
        The candidates, where there are any.
    columns, by, attributes : mapping of str to polars.Series, sequence of str, polars.DataFrame or None
        As in :func:`slices_by`.

    Returns
    -------
    dict of str to Any
        Keyword arguments of `Figures` and its subclasses.

    Raises
    ------
    ConfigError, DataError, InvalidArgumentError
        As :func:`slices_by`.
    """
    return {
        "metrics": measure(users, measures),
        "ties": measure_ties(users, measures),
        "lists": lists,
        "users": UsersReport(evaluated=len(users.user_ids), left_out=left_out),
        "slices": slices_by(users, by, columns, attributes, measures),
        "candidates": None
        if candidates is None
        else CandidatesReport(
            sha256=candidates.sha256, kind=candidates.kind, n=candidates.n, seed=candidates.seed
        ),
        "metatl_version": metadata.version("metatl"),
    }


def report_bootstrap(measures: Measures) -> BootstrapReport:
    """Report how the intervals are computed."""
    return BootstrapReport(resamples=BOOTSTRAP_RESAMPLES, confidence=CONFIDENCE, seed=measures.seed)


def measure(users: RankedUsers, measures: Measures) -> MetricsReport:
    """Compute the metrics of each ranking, and the corrected metrics.

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
    return MetricsReport(
        sampled=None if users.sampled is None else _measure_ranking(users.sampled, measures),
        corrected=_measure_corrected(users, measures),
        full=None if users.full is None else _measure_ranking(users.full, measures),
    )


def measure_ties(users: RankedUsers, measures: Measures) -> dict[str, TiesReport]:
    """Report how many targets have the score of another item, and the metrics under each tie rule.

    Parameters
    ----------
    users : RankedUsers
        At least one.
    measures : Measures
        What to compute.

    Returns
    -------
    dict of str to TiesReport
        For each ranking.
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
        (B,) the values to group by; users without a value form a group.
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
    known: Mapping[str, pl.Series],
    attributes: FrameLike | None,
    measures: Measures,
) -> list[SliceReport]:
    """Compute the metrics of the users grouped by each of several columns.

    Parameters
    ----------
    users : RankedUsers
        B users.
    by : sequence of str
        Names in `known` or columns of `attributes`.
    known : mapping of str to polars.Series
        (B,) each: columns that the evaluation itself provides.
    attributes : table or None
        ``user_id`` (raw) and further columns, one row per user; users without a row form a group.
    measures : Measures
        What to compute.

    Returns
    -------
    list of SliceReport
        Column by column.

    Raises
    ------
    ConfigError
        If a name is neither in `known` nor a column, or the column has too many values.
    DataError
        If `attributes` has no ``user_id``, or has a user twice.
    ArgumentTypeError
        If `attributes` is not a table.
    """
    if attributes is not None and not is_frame(attributes):
        raise ArgumentTypeError(
            f"attributes: found {type(attributes).__name__}, expected a table; "
            "metatl.data.user_attributes.read_attributes reads a file"
        )
    table = None if attributes is None else as_frame("attributes", attributes)
    slices = []
    for name in by:
        column = known.get(name)
        if column is None:
            column = _attribute(users.user_ids, name, known, table)
        slices += measure_slices(users, column, measures)
    return slices


def _attribute(
    user_ids: pl.Series, name: str, known: Mapping[str, pl.Series], attributes: pl.DataFrame | None
) -> pl.Series:
    columns = [] if attributes is None else [column for column in attributes.columns if column != "user_id"]
    if attributes is None or name not in columns:
        names = ", ".join([*known, *columns])
        expected = f"one of {names}" if names else "a column of the attributes, and there are none"
        raise ConfigError(f"by: found {name!r}, expected {expected}{did_you_mean(name, [*known, *columns])}")
    return attribute_of(user_ids, with_user_ids(attributes), name)


def quantile_groups(values: np.ndarray, name: str, groups: int = 4) -> pl.Series:
    """Cut users into groups of about equal size by a value; users with equal values stay together.

    Parameters
    ----------
    values : ndarray
        (B,) int64.
    name : str
        Name of the series.
    groups : int
        The largest number of groups.

    Returns
    -------
    polars.Series
        (B,) pl.Enum: the range of each user's group, such as `3–7`, in ascending order.
    """
    cuts = np.quantile(values, np.linspace(0, 1, groups + 1)[1:-1], method="inverted_cdf")
    groups_of_users = np.searchsorted(np.unique(cuts), values, side="left")
    numbers, indices = np.unique(groups_of_users, return_inverse=True)
    names = []
    for number in numbers:
        members = values[groups_of_users == number]
        low, high = int(members.min()), int(members.max())
        names.append(str(low) if low == high else f"{low}–{high}")
    return pl.Series(name, [names[index] for index in indices], dtype=pl.Enum(names))


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
    user_ranks = pl.Series(ranks(*counts, ties=measures.ties))
    if ranking.listed is not None:
        values[~ranking.listed] = 0.0
        user_ranks = user_ranks.zip_with(pl.Series(ranking.listed), pl.Series([None], dtype=pl.Float64))
    return pl.DataFrame(
        {
            "user_id": user_ids,
            "ranking": pl.Series([name], dtype=pl.String).new_from_index(0, len(user_ids)),
            "rank": user_ranks,
            "greater": counts.greater,
            "equal": counts.equal,
            **{metric.name: values[:, column] for column, metric in enumerate(measures.metrics)},
        }
    )


def _measure_ranking(ranking: Ranking, measures: Measures) -> dict[str, EstimateReport]:
    ranked = ranking.ranked
    (greater, equal, compared), counts = group_users(*ranked.counts, ranked.compared)
    values = user_metrics(greater, equal, measures.metrics, ties=measures.ties)
    if ranking.missed:
        # The rank of a target that is not in its list is not known, so there is no mean rank and no AUC.
        estimates = estimate(
            *_with_missed(values, counts, ranking), seed=measures.seed, num_threads=measures.num_threads
        )
        return _reports([metric.name for metric in measures.metrics], estimates)
    group_ranks = ranks(greater, equal, ties=measures.ties)
    # The share of the other items that rank below the target; 1 where there are no other items.
    area = 1 - (group_ranks - 1) / np.maximum(compared, 1)
    columns = np.ascontiguousarray(np.column_stack([values, area, group_ranks]))
    estimates = estimate(columns, counts, seed=measures.seed, num_threads=measures.num_threads)
    names = [*(metric.name for metric in measures.metrics), "AUC", "mean rank"]
    order = np.argsort(group_ranks, kind="stable")
    estimates.append(estimate_median(group_ranks[order], counts[order]))
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
    return {name: EstimateReport(**asdict(value)) for name, value in zip(names, estimates, strict=True)}
