"""Evaluate the ranked lists of any model, such as TREC runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from metatl.common.forks import refuse_forked_child
from metatl.common.timings import Timings
from metatl.data.ids import find_ids
from metatl.evaluation.external.ranked_lists import read_lists, read_targets
from metatl.evaluation.external.source import ExternalSource, evaluate_source
from metatl.evaluation.measures import Measures, RankedUsers, Ranking
from metatl.exceptions import DataError
from metatl.metrics.names import DEFAULT_METRICS
from metatl.metrics.rank_metrics import parse_metrics
from metatl.ranking.blocks import RankCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.data.frames import FrameLike
    from metatl.evaluation.external.ranked_lists import ListsLike
    from metatl.evaluation.measures import Evaluation
    from metatl.evaluation.report.results import SourceResults
    from metatl.metrics.names import TieRule


def evaluate_lists(
    lists: ListsLike,
    targets: ListsLike,
    *,
    name: str | None = None,
    ties: TieRule = "worst",
    metrics: Sequence[str] | str = DEFAULT_METRICS,
    seed: int = 0,
    by: Sequence[str] = (),
    attributes: FrameLike | None = None,
    num_threads: int | None = None,
) -> Evaluation[SourceResults]:
    """Rank each user's target in the list that a model gave for the user.

    A target that is not in its list scores 0, and so does the target of a user without a list. Their ranks
    are not known; where there are any, the results have no mean rank, no median rank and no AUC.

    Parameters
    ----------
    lists : str, path or table
        Ranked lists; see `metatl.evaluation.external.ranked_lists.read_lists`.
    targets : str, path or table
        The item that each user chose; see `metatl.evaluation.external.ranked_lists.read_targets`. With a
        candidate file, the evaluation can be compared with others of the same data and split.
    name : str, optional
        Name of the system; the name of the file by default.
    ties : {"worst", "mean", "best"}
        The rank of a target among items with the same score.
    metrics : str or sequence of str
        Names of metrics.
    seed : int
        Seed of the bootstrap.
    by : sequence of str
        Columns of `attributes` to slice the users by.
    attributes : table, optional
        ``user_id`` (raw) and columns to slice by.
    num_threads : int, optional
        Threads of the kernels.

    Returns
    -------
    Evaluation
        The summary and the ranks of every user.

    Raises
    ------
    DataError
        If the lists or the targets cannot be read, or have no user in common.
    NotANumberError
        If scores are NaN.
    ConfigError
        If a metric or a column to slice by is unknown.
    """
    refuse_forked_child()
    measures = Measures(parse_metrics(metrics), ties, seed, num_threads)
    timings = Timings()
    with timings.stage("read"):
        rows, chosen = read_lists(lists), read_targets(targets)
    with timings.stage("rank"):
        ranking, without, strangers = _rank(rows, chosen.rows)
    given = {"lists": lists, "targets": targets}
    files = {part: str(file) for part, file in given.items() if isinstance(file, (str, os.PathLike))}
    source = ExternalSource(
        kind="lists",
        name=name,
        files=files,
        named_by="lists",
        left_out={"users with a list and no relevant item": strangers},
        protocol=chosen.candidates,
        notes=_notes(ranking, without),
    )
    users = RankedUsers(user_ids=chosen.rows["user_id"], full=ranking)
    return evaluate_source(source, users, measures, by=by, attributes=attributes, timings=timings)


def _rank(rows: pl.DataFrame, chosen: pl.DataFrame) -> tuple[Ranking, int, int]:
    """Rank each target in its list; also count the users without a list, and the lists of other users."""
    count = len(chosen)
    users = find_ids(chosen["user_id"], rows["user_id"])
    distinct = chosen["target"].unique(maintain_order=True)
    targets = find_ids(distinct, chosen["target"])
    is_target = (users >= 0) & (find_ids(distinct, rows["item_id"]) == targets[users])
    listed = pl.DataFrame({"user": users, "score": rows["score"], "is_target": is_target})
    strangers = int(rows["user_id"].filter(pl.Series(users < 0)).n_unique())
    listed = listed.filter(pl.col("user") >= 0)
    of_targets = listed.filter("is_target").select("user", pl.col("score").alias("target_score"))
    if of_targets["user"].is_duplicated().any():
        user = int(of_targets["user"].filter(of_targets["user"].is_duplicated())[0])
        raise DataError(
            f"lists: found the item {chosen['target'][user]!r} twice in the list of the user "
            f"{chosen['user_id'][user]!r}"
        )
    counted = (
        listed.join(of_targets, on="user", how="left")
        .group_by("user")
        .agg(
            (pl.col("score") > pl.col("target_score")).sum().cast(pl.Int64).alias("greater"),
            ((pl.col("score") == pl.col("target_score")) & ~pl.col("is_target"))
            .sum()
            .cast(pl.Int64)
            .alias("equal"),
            pl.len().cast(pl.Int64).alias("length"),
        )
    )
    if counted.is_empty():
        raise DataError("lists: found no list of any user who has a relevant item; check that the ids agree")
    greater, equal, length = (np.zeros(count, np.int64) for _ in range(3))
    in_list = np.zeros(count, bool)
    present = counted["user"].to_numpy()
    for name, values in (("greater", greater), ("equal", equal), ("length", length)):
        values[present] = counted[name].to_numpy()
    in_list[of_targets["user"].to_numpy()] = True
    ranking = Ranking(RankCounts(greater, equal), np.maximum(length - 1, 0), in_list)
    return ranking, count - len(counted), strangers


def _notes(ranking: Ranking, without: int) -> list[str]:
    notes = []
    if ranking.listed is not None and not ranking.listed.all():
        missed = int((~ranking.listed).sum())
        notes.append(
            f"{missed:,} targets are not in their lists and score 0; ranks beyond the end of a list are not "
            "known."
        )
    if without:
        notes.append(f"{without:,} users have no list and score 0.")
    return notes
