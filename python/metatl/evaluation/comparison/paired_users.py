"""The same users under several systems, side by side, so that each user's values can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl

from metatl.common.arguments import check_choice, check_type
from metatl.common.forks import refuse_forked_child
from metatl.data.ids import normalise
from metatl.evaluation.measures import Evaluation
from metatl.evaluation.per_user_files import PER_USER_RANKINGS, PerUserRecord
from metatl.exceptions import ArgumentTypeError, DataError, InvalidArgumentError
from metatl.metrics.rank_metrics import parse_metrics
from metatl.metrics.significance import MIN_PAIRS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

PerUser: TypeAlias = tuple[PerUserRecord, pl.DataFrame]
"""The values of every user of one system, as `metatl.evaluation.per_user_files.read_per_user` reads them."""
Comparable: TypeAlias = Evaluation[Any] | PerUser
"""An evaluation in memory, or read from a per-user file."""


@dataclass(frozen=True, eq=False)
class PairedUsers:
    """Metrics of the same users under several systems.

    Attributes
    ----------
    baseline : PerUserRecord
        The record of the first system; the others have the same candidates, data and tie rule.
    systems : tuple of str
        The names of all systems, the baseline first.
    rankings : tuple of str
        The rankings.
    metrics : tuple of str
        The metrics.
    user_ids : mapping of str to polars.Series
        For each ranking the raw ids (B,) of its users, in ascending order.
    values : mapping of (str, str) to ndarray
        For each system and ranking (B, M) float64, C-contiguous, in the order of `user_ids` and `metrics`.
    """

    baseline: PerUserRecord
    systems: tuple[str, ...]
    rankings: tuple[str, ...]
    metrics: tuple[str, ...]
    user_ids: Mapping[str, pl.Series]
    values: Mapping[tuple[str, str], NDArray[np.float64]]

    def differences(self, system: str, ranking: str) -> NDArray[np.float64]:
        """Subtract the baseline's values from a system's: (B, M) float64, positive where the system wins."""
        return self.values[system, ranking] - self.values[self.systems[0], ranking]


def pair_users(
    evaluations: Sequence[Comparable],
    *,
    metrics: Sequence[str] | str | None = None,
    ranking: str | None = None,
) -> PairedUsers:
    """Put the users of several evaluations side by side.

    Parameters
    ----------
    evaluations : sequence of Evaluation or (PerUserRecord, polars.DataFrame)
        Two or more, the baseline first; the systems have different names.
    metrics : str or sequence of str, optional
        Names of metrics; by default the metrics that all evaluations have.
    ranking : {"sampled", "full", "corrected"}, optional
        The ranking; by default every ranking that all evaluations have.

    Returns
    -------
    PairedUsers
        The order of the users does not depend on the order of the rows in the evaluations.

    Raises
    ------
    InvalidArgumentError
        If one is not an evaluation, there are fewer than two, or two systems have the same name.
    ConfigError
        If the name of a metric is not known.
    DataError
        If an evaluation lacks a metric or the ranking, or if two of them differ in their users, data, split,
        tie rule or, where candidates are ranked, candidates.
    """
    refuse_forked_child()
    values_of_users = _values_of_users(evaluations)
    records = [record for record, _ in values_of_users]
    systems = tuple(record.system for record in records)
    if len(systems) < 2:  # noqa: PLR2004
        raise InvalidArgumentError(
            f"evaluations: found {len(systems)}, expected at least 2: a baseline and what is compared with it"
        )
    if len(set(systems)) < len(systems):
        raise InvalidArgumentError(
            f"evaluations: found the systems {', '.join(systems)}, expected different names"
        )
    rankings = _shared_rankings(values_of_users, ranking)
    for record in records[1:]:
        _check_same_test(records[0], record, sampled=rankings != ("full",))
    chosen = _shared_metrics(records, metrics)
    user_ids: dict[str, pl.Series] = {}
    values: dict[tuple[str, str], NDArray[np.float64]] = {}
    for name in rankings:
        frames = _by_user([frame.filter(pl.col("ranking") == name) for _, frame in values_of_users])
        user_ids[name] = frames[0]["user_id"]
        if len(user_ids[name]) < MIN_PAIRS:
            raise DataError(
                f"{systems[0]}: found {len(user_ids[name])} users in the ranking {name!r}, "
                f"expected at least {MIN_PAIRS}"
            )
        for system, frame in zip(systems, frames, strict=True):
            _check_same_users((systems[0], user_ids[name]), (system, frame["user_id"]), name)
            values[system, name] = np.column_stack([frame[metric].to_numpy() for metric in chosen])
    return PairedUsers(records[0], systems, rankings, chosen, user_ids, values)


def _by_user(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Write the ids of all frames by one rule, and sort the rows by them."""
    ids = [normalise(frame["user_id"]) for frame in frames]
    if len({column.dtype for column in ids}) > 1:
        ids = [column.cast(pl.String) for column in ids]
    return [
        frame.with_columns(column.alias("user_id")).sort("user_id")
        for frame, column in zip(frames, ids, strict=True)
    ]


def user_differences(paired: PairedUsers) -> pl.DataFrame:
    """List what each user gains or loses when a system replaces the baseline.

    Parameters
    ----------
    paired : PairedUsers
        The users.

    Returns
    -------
    polars.DataFrame
        One row per system but the baseline, ranking and user: ``user_id`` (raw), ``system``, ``ranking`` and
        one Float64 column per metric, the system's value minus the baseline's.
    """
    return pl.concat(
        pl.DataFrame(
            {
                "user_id": paired.user_ids[ranking],
                **dict(zip(paired.metrics, paired.differences(system, ranking).T, strict=True)),
            }
        ).select(
            "user_id",
            pl.lit(system).alias("system"),
            pl.lit(ranking).alias("ranking"),
            pl.exclude("user_id"),
        )
        for system in paired.systems[1:]
        for ranking in paired.rankings
    )


def extreme_users(
    differences: pl.DataFrame, metric: str, *, count: int = 10
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Find the users who gain and who lose most by a metric.

    Parameters
    ----------
    differences : polars.DataFrame
        The result of :func:`user_differences`, or some of its rows.
    metric : str
        Name of the metric.
    count : int
        The number of users of each kind, for each system and ranking.

    Returns
    -------
    gainers : polars.DataFrame
        Rows of users who gain, by system and ranking; the largest gain first, equal gains by user id.
    losers : polars.DataFrame
        Rows of users who lose, in the same form; the largest loss first.

    Raises
    ------
    InvalidArgumentError
        If the metric is not one of the columns.
    """
    check_choice("metric", metric, differences.columns[3:])
    groups = differences.partition_by("system", "ranking", maintain_order=True) or [differences]
    gainers, losers = (
        pl.concat(
            group.filter(change > 0).sort(change, "user_id", descending=[True, False]).head(count)
            for group in groups
        )
        for change in (pl.col(metric), -pl.col(metric))
    )
    return gainers, losers


def _values_of_users(evaluations: Sequence[Comparable]) -> list[PerUser]:
    """Give the record and the frame of each evaluation."""
    expected = (
        "an evaluation, as metatl.evaluate returns it, or a record and a frame, as "
        "metatl.evaluation.per_user_files.read_per_user(path) returns them"
    )
    check_type("evaluations", evaluations, (list, tuple), f"a list; each entry {expected}")
    values: list[PerUser] = []
    for index, entry in enumerate(evaluations):
        if isinstance(entry, Evaluation):
            values.append((entry.record, entry.per_user))
            continue
        is_pair = isinstance(entry, (list, tuple)) and len(entry) == 2  # noqa: PLR2004
        if not (is_pair and isinstance(entry[0], PerUserRecord) and isinstance(entry[1], pl.DataFrame)):
            raise ArgumentTypeError(
                f"evaluations[{index}]: found {type(entry).__name__}, expected {expected}"
            )
        values.append((entry[0], entry[1]))
    return values


def _shared_rankings(evaluations: Sequence[PerUser], ranking: str | None) -> tuple[str, ...]:
    if ranking is not None:
        check_choice("ranking", ranking, PER_USER_RANKINGS)
    rankings = {record.system: set(frame["ranking"].unique()) for record, frame in evaluations}
    shared = tuple(name for name in PER_USER_RANKINGS if all(name in names for names in rankings.values()))
    if ranking is None and shared:
        return shared
    if ranking in shared:
        return (ranking,)
    wanted = "a ranking that all have" if ranking is None else f"the ranking {ranking!r} in each"
    listed = "; ".join(
        f"{system} has {', '.join(sorted(names)) or 'none'}" for system, names in rankings.items()
    )
    raise DataError(f"{listed}; expected {wanted}")


def _shared_metrics(records: Sequence[PerUserRecord], metrics: Sequence[str] | str | None) -> tuple[str, ...]:
    if metrics is None:
        shared = tuple(
            metric for metric in records[0].metrics if all(metric in record.metrics for record in records)
        )
        if not shared:
            raise DataError("found no metric that all evaluations have, expected at least 1")
        return shared
    chosen = tuple(metric.name for metric in parse_metrics(metrics))
    for record in records:
        for metric in chosen:
            if metric not in record.metrics:
                raise DataError(
                    f"{record.system}: found no metric {metric!r}, only {', '.join(record.metrics)}; "
                    "evaluate again with it"
                )
    return chosen


def _check_same_test(baseline: PerUserRecord, other: PerUserRecord, *, sampled: bool) -> None:
    """Check that two systems took the same test."""
    names = f"{baseline.system} and {other.system}"
    if baseline.dataset_fingerprint != other.dataset_fingerprint:
        raise DataError(
            f"{names}: found the data {_short(baseline.dataset_fingerprint)} and "
            f"{_short(other.dataset_fingerprint)} (fingerprints), expected the same; "
            "evaluate both on one"
        )
    splits = (baseline.split_sha256, other.split_sha256)
    if None not in splits and splits[0] != splits[1]:
        raise DataError(
            f"{names}: found the splits {_short(splits[0])} and {_short(splits[1])} (SHA-256 of K, the "
            "cutoff and the like), expected the same; evaluate both with the same K and split"
        )
    if baseline.ties != other.ties:
        raise DataError(
            f"{names}: found the tie rules {baseline.ties} and {other.ties}, expected the same; "
            "evaluate both with the same --ties"
        )
    if sampled and baseline.candidates_sha256 != other.candidates_sha256:
        raise DataError(
            f"{names}: found the candidates {_short(baseline.candidates_sha256)} and "
            f"{_short(other.candidates_sha256)} (SHA-256), expected the same; evaluate both with the same "
            "--candidates and --seed, or compare the full ranking alone"
        )


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else digest[:12]


def _check_same_users(baseline: tuple[str, pl.Series], other: tuple[str, pl.Series], ranking: str) -> None:
    (name, mine), (other_name, theirs) = baseline, other
    if mine.equals(theirs):
        return
    only_mine = int((~mine.is_in(theirs.implode())).sum())
    only_theirs = int((~theirs.is_in(mine.implode())).sum())
    raise DataError(
        f"{name} and {other_name}: found {only_mine} users only in {name} and {only_theirs} only in "
        f"{other_name} in the ranking {ranking!r}, expected the same users; evaluate both with the same split"
    )
