"""Evaluate the scores that any model gives to candidates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from metatl import _metatl
from metatl.common.forks import refuse_forked_child
from metatl.common.timings import Timings
from metatl.data.candidates import CandidateSets
from metatl.evaluation.external.score_files import open_scores
from metatl.evaluation.external.source import ExternalSource, evaluate_source
from metatl.evaluation.measures import Measures, RankedUsers, Ranking, quantile_groups
from metatl.exceptions import ConfigError, NotANumberError
from metatl.metrics.names import DEFAULT_METRICS
from metatl.metrics.rank_metrics import parse_metrics
from metatl.ranking.blocks import RankCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from metatl.data.frames import FrameLike
    from metatl.data.interactions import Interactions
    from metatl.evaluation.external.score_blocks import Scores
    from metatl.evaluation.external.score_files import ScoresLike
    from metatl.evaluation.measures import Evaluation
    from metatl.evaluation.report.results import SourceResults
    from metatl.metrics.names import TieRule

UNCHECKED = (
    "No candidates were given. These were not checked: column 0 is the target, the negatives are distinct, "
    "no negative is the target or an item of the user, and how the negatives were drawn."
)


def evaluate_scores(
    scores: ScoresLike,
    candidates: CandidateSets | str | os.PathLike[str] | None = None,
    *,
    train: Interactions | None = None,
    name: str | None = None,
    ties: TieRule = "worst",
    metrics: Sequence[str] | str = DEFAULT_METRICS,
    seed: int = 0,
    by: Sequence[str] = (),
    attributes: FrameLike | None = None,
    num_threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation[SourceResults]:
    """Rank the target of each user among its candidates by scores that a model gave.

    Parameters
    ----------
    scores : str, path, ndarray, torch.Tensor or table
        (B, 1 + n) floats or integers, a row for each user in the order of the candidates' rows, the target's
        score first; they are ranked in their own precision. Or pairs, see
        `metatl.evaluation.external.score_files`.
    candidates : CandidateSets, str or path, optional
        The candidates, or their file. If None, column 0 is ranked among the other columns, and the results
        note what could not be checked.
    train : Interactions, optional
        Rows of the training users, to count how often each target occurs in them.
    name : str, optional
        Name of the system; the name of the file by default.
    ties : {"worst", "mean", "best"}
        The rank of a target among items with the same score.
    metrics : str or sequence of str
        Names of metrics.
    seed : int
        Seed of the bootstrap.
    by : sequence of str
        Columns to slice the users by: ``history_length``, ``item_popularity`` (how often the target occurs
        in `train`, in quarters) or columns of `attributes`.
    attributes : table, optional
        ``user_id`` (raw) and columns to slice by.
    num_threads : int, optional
        Threads of the kernels.
    on_progress : callable, optional
        Called with the number of users that are ranked, and the number of all users.

    Returns
    -------
    Evaluation
        The summary and the ranks of every user.

    Raises
    ------
    DataError
        If scores or candidates cannot be read, or do not fit each other.
    NotANumberError
        If scores are NaN; the message counts them.
    ConfigError
        If a metric or a column to slice by is unknown, or `train` is given without candidates.
    """
    refuse_forked_child()
    measures = Measures(parse_metrics(metrics), ties, seed, num_threads)
    if train is not None and candidates is None:
        raise ConfigError("train: found interactions, but no candidates whose targets they could count")
    timings = Timings()
    with timings.stage("read"):
        sets, files = read_candidates(candidates)
        opened = open_scores(scores, sets)
    name_in_errors = "scores"
    if isinstance(scores, (str, os.PathLike)):
        files["scores"] = str(scores)
        name_in_errors = f"{scores}: scores"
    with timings.stage("rank"):
        counts = _rank(opened, name_in_errors, num_threads, on_progress)
    source = ExternalSource(
        kind="scores",
        name=name,
        files=files,
        named_by="scores",
        left_out={} if sets is None else sets.dropped,
        columns=_known_columns(sets, train),
        candidates=sets,
        notes=[*(() if sets is not None else (UNCHECKED,)), *opened.notes],
    )
    users = _ranked_users(sets, counts, opened.columns - 1)
    return evaluate_source(source, users, measures, by=by, attributes=attributes, timings=timings)


def read_candidates(
    candidates: CandidateSets | str | os.PathLike[str] | None,
) -> tuple[CandidateSets | None, dict[str, str]]:
    """Give candidates, read from their file if need be, and the file for the report."""
    if candidates is None or isinstance(candidates, CandidateSets):
        return candidates, {}
    return CandidateSets.load(candidates), {"candidates": str(candidates)}


def known_columns(sets: CandidateSets | None) -> dict[str, pl.Series]:
    """Columns that candidates provide to slice their users by."""
    return {} if sets is None else {"history_length": pl.Series("history_length", sets.histories.lengths)}


def _known_columns(sets: CandidateSets | None, train: Interactions | None) -> dict[str, pl.Series]:
    columns = known_columns(sets)
    if sets is not None and train is not None:
        targets = train.find_items(sets.item_ids.gather(sets.candidates[:, 0]))
        counts = np.where(targets >= 0, train.item_counts[targets], 0)
        columns["item_popularity"] = quantile_groups(counts, "item_popularity")
    return columns


def population(sets: CandidateSets) -> np.ndarray | None:
    """Count the items (B,) that each user's negatives were drawn from, where they were drawn uniformly."""
    if sets.kind != "uniform" or sets.exclude != "all":
        return None
    return sets.negatives_in_catalogue


def _rank(
    scores: Scores,
    name: str,
    num_threads: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> RankCounts:
    greater, equal = np.empty(scores.rows, np.int64), np.empty(scores.rows, np.int64)
    not_numbers, first = 0, None
    for start, block in scores.blocks():
        rows = slice(start, start + len(block))
        try:
            greater[rows], equal[rows] = _rank_block(block, num_threads)
        except NotANumberError:
            nan_entries = np.argwhere(np.isnan(block))
            not_numbers += len(nan_entries)
            if first is None:
                first = f"row {start + nan_entries[0, 0]:,}, column {nan_entries[0, 1]}"
        if on_progress is not None:
            on_progress(rows.stop, scores.rows)
    if not_numbers:
        raise NotANumberError(
            f"{name}: found {not_numbers:,} NaN in {scores.rows * scores.columns:,} scores, the first in "
            f"{first} (counted from 0), expected none"
        )
    return RankCounts(greater, equal)


def _rank_block(block: np.ndarray, num_threads: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Count the negatives above and level with each target, in the precision of the scores."""
    if block.dtype == np.float32:
        return _metatl.rank_scores(block, num_threads=num_threads)
    if block.dtype.kind == "f" and np.isnan(block).any():
        raise NotANumberError("scores")
    target, negatives = block[:, :1], block[:, 1:]
    return (negatives > target).sum(axis=1), (negatives == target).sum(axis=1)


def _ranked_users(sets: CandidateSets | None, counts: RankCounts, n: int) -> RankedUsers:
    rows = len(counts.greater)
    return RankedUsers(
        user_ids=pl.Series("user_id", np.arange(rows)) if sets is None else sets.user_ids,
        sampled=Ranking(counts, np.full(rows, n)),
        catalogue_negatives=None if sets is None else population(sets),
    )
