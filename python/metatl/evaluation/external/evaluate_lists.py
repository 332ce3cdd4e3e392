"""Evaluate the ranked lists of any model, such as TREC runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from metatl.common.timings import Timings
from metatl.evaluation.external.ranked_lists import read_lists, read_targets, same_ids
from metatl.evaluation.external.source import ExternalSource, evaluate_source
from metatl.evaluation.measures import Measures, RankedUsers, Ranking
from metatl.exceptions import DataError
from metatl.metrics.names import DEFAULT_METRICS
from metatl.metrics.rank_metrics import parse_metrics
from metatl.ranking.blocks import RankCounts

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    attributes: pl.DataFrame | None = None,
    num_threads: int | None = None,
) -> Evaluation[SourceResults]:
    """Rank each user's target in the list that a model gave for the user.

    A target that is not in its list scores 0, and so does the target of a user without a list. Their ranks
    are not known; where there are any, the results have no mean rank, no median rank and no AUC.

    Parameters
    ----------
    lists : str, path or polars.DataFrame
        Ranked lists; see `metatl.evaluation.external.ranked_lists.read_lists`.
    targets : str, path or polars.DataFrame
        The item that each user chose; see `metatl.evaluation.external.ranked_lists.read_targets`.
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
    attributes : polars.DataFrame, optional
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
    measures = Measures(parse_metrics(metrics), ties, seed, num_threads)
    timings = Timings()
    with timings.stage("read"):
        rows, chosen = same_ids(read_lists(lists), read_targets(targets))
    with timings.stage("rank"):
        ranking, without = _rank(rows, chosen)
    given = {"lists": lists, "targets": targets}
    files = {part: str(file) for part, file in given.items() if isinstance(file, (str, os.PathLike))}
    strangers = rows["user_id"].n_unique() - (len(chosen) - without)
    source = ExternalSource(
        kind="lists",
        name=name,
        files=files,
        named_by="lists",
        left_out={"users with a list and no relevant item": strangers},
        notes=_notes(ranking, without),
    )
    users = RankedUsers(user_ids=chosen["user_id"], full=ranking)
    return evaluate_source(source, users, measures, by=by, attributes=attributes, timings=timings)


def _rank(rows: pl.DataFrame, chosen: pl.DataFrame) -> tuple[Ranking, int]:
    """Rank each target in its list; also count the users without a list."""
    scored = chosen.join(
        rows.rename({"item_id": "target", "score": "target_score"}),
        on=["user_id", "target"],
        how="left",
        maintain_order="left",
    )
    level = pl.col("score") == pl.col("target_score")
    counted = (
        rows.join(scored, on="user_id", how="inner")
        .group_by("user_id")
        .agg(
            (pl.col("score") > pl.col("target_score")).sum().cast(pl.Int64).alias("greater"),
            (level & (pl.col("item_id") != pl.col("target"))).sum().cast(pl.Int64).alias("equal"),
            pl.len().cast(pl.Int64).alias("length"),
        )
    )
    ranked = scored.join(counted, on="user_id", how="left", maintain_order="left")
    without = ranked["length"].null_count()
    if without == len(ranked):
        raise DataError("lists: found no list of any user who has a relevant item; check that the ids agree")
    in_list = ranked["target_score"].is_not_null().to_numpy()
    greater, equal, length = (
        ranked[name].fill_null(0).to_numpy().astype(np.int64) for name in ("greater", "equal", "length")
    )
    return Ranking(RankCounts(greater, equal), np.maximum(length - 1, 0), in_list), without


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
