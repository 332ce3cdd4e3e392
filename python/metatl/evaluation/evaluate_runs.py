"""Evaluate a fitted system on the test users of its cold-start split."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from metatl import datasets
from metatl.common.arguments import check_type, whole_number
from metatl.common.timings import Timings
from metatl.data.candidates import sample_candidate_sets
from metatl.data.histories import Histories
from metatl.data.interactions import Interactions
from metatl.data.split import protocol_sha256
from metatl.evaluation.measures import (
    Evaluation,
    Measures,
    RankedUsers,
    Ranking,
    quantile_groups,
    report_bootstrap,
    report_figures,
)
from metatl.evaluation.report.results import DatasetReport, ListsReport, ModelReport, ProtocolReport, Results
from metatl.evaluation.report.tables import system_name
from metatl.evaluation.user_ranks import UserRanks, rank_blocks
from metatl.exceptions import ConfigError, DataError, MissingFileError, NoNegativeError, RunError
from metatl.metrics.list_metrics import list_metrics
from metatl.metrics.names import CANDIDATE_KINDS, DEFAULT_METRICS, DEFAULT_TOP
from metatl.metrics.rank_metrics import parse_metrics
from metatl.ranking.rank import encode_blocks
from metatl.runs.run_directory import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatl.data.candidates import CandidateSets
    from metatl.data.frames import FrameLike
    from metatl.data.split import ColdStartSplit
    from metatl.metrics.names import CandidateKind, TieRule
    from metatl.models.contract import Model
    from metatl.ranking.item_tables import ItemFormat, ItemTable


def parse_candidates(text: str) -> tuple[CandidateKind, int] | None:
    """Parse the name of a kind of candidates.

    Parameters
    ----------
    text : str
        ``uniN`` for N uniform negatives, ``popN`` for N by popularity, ``full`` for no candidates.

    Returns
    -------
    tuple of str and int, or None
        The kind and N; None for ``full``.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    check_type("candidates", text, str, "uniN or popN with N negatives, as in uni100, or full")
    if text == "full":
        return None
    match = re.fullmatch(r"(uni|pop)([1-9]\d{0,8})", text)
    if match is None:
        raise ConfigError(
            f"candidates: found {text!r}, expected uniN or popN with N negatives, as in uni100, or full"
        )
    return CANDIDATE_KINDS[match[1]], int(match[2])


def rank_users(
    model: Model,
    split: ColdStartSplit,
    users: np.ndarray,
    candidates: np.ndarray | None,
    *,
    top: int = 0,
    seed: int = 0,
    item_table: ItemFormat | ItemTable = "float32",
    num_threads: int | None = None,
    timings: Timings | None = None,
) -> UserRanks:
    """Rank each user's target among its candidates and among all items; encode each history once.

    Among all items the target is compared with every item that its user does not interact with, before or
    after. These are the items that candidates are drawn from.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    split : ColdStartSplit
        The split.
    users : ndarray
        (B,) int64, indices of cold users.
    candidates : ndarray or None
        (B, 1 + n) int64, the target in column 0; None to rank among all items only.
    top : int
        N, the length of each user's list; 0 for no lists.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        The format that the model's item vectors are rounded to, or their table.
    num_threads : int, optional
        Threads of the kernels.
    timings : Timings, optional
        Gains the stages ``encode``, ``rank`` and ``lists``.

    Returns
    -------
    UserRanks
        One entry per user.
    """
    timings = timings or Timings()
    histories = Histories.from_matrix(split.histories(users))
    return rank_blocks(
        encode_blocks(
            model, histories, seed=seed, item_table=item_table, num_threads=num_threads, timings=timings
        ),
        targets=split.targets(users),
        candidates=candidates,
        own_items=Histories(split.cold.indptr, split.cold.items).select(users),
        histories=histories,
        top=min(top, split.num_items),
        timings=timings,
    )


def evaluate(
    run: Run,
    candidates: str = "uni100",
    *,
    data: str | Path | FrameLike | Interactions | None = None,
    k: int | None = None,
    name: str | None = None,
    seed: int = 0,
    ties: TieRule = "worst",
    metrics: Sequence[str] | str = DEFAULT_METRICS,
    top: int = DEFAULT_TOP,
    by: Sequence[str] = (),
    attributes: FrameLike | None = None,
    item_table: ItemFormat = "float32",
    num_threads: int | None = None,
) -> Evaluation[Results]:
    """Evaluate a run on the test users of its split.

    Parameters
    ----------
    run : Run
        A fitted system, as :func:`metatl.fit` and :func:`metatl.load_run` return it.
    candidates : str
        ``uniN`` or ``popN`` to rank among N negatives, uniform or by popularity, and among all items;
        ``full`` to rank among all items only.
    data : str, Path or Interactions, optional
        The data that the run was fitted on, if the file is not at the path that the run has recorded.
    k : int, optional
        K, the number of interactions in a test user's history; the run's own K by default.
    name : str, optional
        Name of the system in comparisons and per-user files; its model and preset by default.
    seed : int
        Seed of the candidates, the support negatives and the bootstrap.
    ties : {"worst", "mean", "best"}
        The rank of a target among items with the same score.
    metrics : str or sequence of str
        Names of metrics.
    top : int
        Length of the lists whose coverage and popularity are reported; 0 for no lists.
    by : sequence of str
        Columns to slice the users by: ``history_length``, ``item_popularity`` (training interactions of the
        target, in quarters) or columns of `attributes`.
    attributes : table, optional
        ``user_id`` (raw) and columns to slice by.
    item_table : {"float32", "bf16", "int8"}
        The format that the model's item vectors are rounded to.
    num_threads : int, optional
        Threads of the kernels.

    Returns
    -------
    Evaluation
        The summary and the ranks of every user.

    Raises
    ------
    ConfigError
        If `candidates`, a metric or a column to slice by is unknown.
    InvalidArgumentError
        If `run` is not a run, `k` or `top` is not a whole number or out of range, `attributes` is not a
        table, or `item_table` is a rounded format and the system has no item vectors.
    RunError
        If the data is not the data that the run was fitted on, or the run is fitted on every row.
    DataError
        If the data cannot be read, or no test user has more than K interactions.
    NoNegativeError
        If there are fewer items than candidates.
    NotANumberError
        If a score is NaN.
    """
    check_type("run", run, Run, "a run, as metatl.fit returns it; metatl.evaluate_scores evaluates scores")
    if k is not None:
        k = whole_number("k", k, 1)
    top = whole_number("top", top, 0)
    measures = Measures(parse_metrics(metrics), ties, seed, num_threads)
    negatives = parse_candidates(candidates)
    if run.record.refit:
        raise RunError(
            f"{'the run' if run.path is None else run.path}: found a run that is fitted on every row, so "
            "nobody is left whom it has not seen; evaluate one that is fitted with the same settings, "
            "without --all-data, --no-validation or an update"
        )
    timings = Timings()
    with timings.stage("read"):
        interactions = _read_data(run, data)
    with timings.stage("split"):
        split = _split(run, interactions, k)
    with timings.stage("candidates"):
        sets = None
        if negatives is not None:
            kind, n = negatives
            try:
                sets = sample_candidate_sets(split, split.test, n=n, kind=kind, seed=seed)
            except NoNegativeError as error:
                raise NoNegativeError(f"{error}; choose fewer candidates than {candidates}") from None
    ranked = rank_users(
        run.model,
        split,
        split.test,
        None if sets is None else sets.candidates,
        top=top,
        seed=seed,
        item_table=item_table,
        num_threads=num_threads,
        timings=timings,
    )
    with timings.stage("metrics"):
        users = _ranked_users(split, sets, ranked)
        figures = report_figures(
            users,
            measures,
            left_out=split.dropped,
            lists=_report_lists(run, split, ranked.lists),
            candidates=sets,
            columns=_known_columns(run, split),
            by=by,
            attributes=attributes,
        )
    results = Results(
        **figures,
        dataset=_report_dataset(run, data, interactions, split),
        protocol=_report_protocol(run, split, measures),
        model=_report_model(run, item_table),
        timings=timings.seconds,
    )
    return Evaluation(
        results=results,
        system=system_name(results) if name is None else name,
        users=users,
        measures=measures,
        dataset_fingerprint=interactions.fingerprint,
        split_sha256=protocol_sha256(split.protocol),
    )


def _ranked_users(split: ColdStartSplit, sets: CandidateSets | None, ranked: UserRanks) -> RankedUsers:
    # All items of the user are excluded, and the target is one of them.
    others = split.num_items - split.cold.distinct_items[split.test]
    sampled = None
    if sets is not None and ranked.sampled is not None:
        sampled = Ranking(ranked.sampled, np.full(len(others), sets.n))
    return RankedUsers(
        user_ids=split.cold.user_ids[split.test],
        sampled=sampled,
        full=Ranking(ranked.full, others),
        catalogue_negatives=others if sets is not None and sets.kind == "uniform" else None,
    )


def _known_columns(run: Run, split: ColdStartSplit) -> dict[str, pl.Series]:
    """Columns that a run provides to slice its test users by."""
    popularity = run.item_counts[split.targets(split.test)]
    return {
        "history_length": pl.Series("history_length", np.full(len(split.test), split.k)),
        "item_popularity": quantile_groups(popularity, "item_popularity"),
    }


def _report_lists(run: Run, split: ColdStartSplit, lists: np.ndarray | None) -> ListsReport | None:
    if lists is None:
        return None
    return ListsReport(**asdict(list_metrics(lists, split.targets(split.test), run.item_counts)))


def _report_model(run: Run, item_table: ItemFormat) -> ModelReport:
    return ModelReport(
        name=run.record.model,
        preset=run.record.preset,
        config=run.record.config,
        seed=run.record.seed,
        run=None if run.path is None else str(run.path),
        item_table=item_table,
    )


def _read_data(run: Run, data: str | Path | FrameLike | Interactions | None) -> Interactions:
    """Read the data and check that the run was fitted on it."""
    source = _recorded_data(run) if data is None else data
    interactions = source if isinstance(source, Interactions) else datasets.load(source, **run.record.reading)
    if interactions.fingerprint != run.record.dataset_fingerprint:
        name = str(source) if isinstance(source, (str, Path)) else "the interactions"
        raise RunError(
            f"{name}: found data with fingerprint {interactions.fingerprint[:12]}, but the run was fitted on "
            f"{run.record.dataset_fingerprint[:12]}; give the same data with --data, or fit on this"
        )
    return interactions


def _recorded_data(run: Run) -> str:
    """Give the path of the data that the run was fitted on."""
    data = run.record.data
    if data is None:
        name = "the run" if run.path is None else f"{run.path}: the run"
        raise RunError(
            f"{name} was fitted on interactions in memory; give them as data, or a file with --data"
        )
    if data != datasets.BUNDLED and not Path(data).exists():
        raise MissingFileError(
            "found no such file, which the run was fitted on; say with --data where it is now", file=data
        )
    return data


def _split(run: Run, interactions: Interactions, k: int | None) -> ColdStartSplit:
    """Split as the run did, or with another K, and check that the items are those of the model."""
    settings = run.record.split if k is None else run.record.split.model_copy(update={"k": k})
    split = settings.split(interactions)
    if not split.train.item_ids.equals(run.item_ids):
        raise RunError(
            f"the split has {split.train.num_items} items that are not the {len(run.item_ids)} of the run; "
            "fit again"
        )
    if settings.k == run.record.split.k and split.fingerprint != run.record.split_fingerprint:
        raise RunError("the split differs from the one that the run was fitted on; fit again")
    if len(split.test) == 0:
        raise DataError(f"found no test user with more than {settings.k} interactions; choose a smaller K")
    return split


def _report_dataset(
    run: Run,
    data: str | Path | FrameLike | Interactions | None,
    interactions: Interactions,
    split: ColdStartSplit,
) -> DatasetReport:
    source = run.record.data if data is None else str(data) if isinstance(data, (str, Path)) else None
    return DatasetReport(
        source=source,
        fingerprint=interactions.fingerprint,
        users=interactions.num_users,
        items=interactions.num_items,
        interactions=interactions.num_interactions,
        tie_share=interactions.tie_share,
        train_users=split.train.num_users,
        test_users=len(split.test),
        catalogue=split.train.num_items,
    )


def _report_protocol(run: Run, split: ColdStartSplit, measures: Measures) -> ProtocolReport:
    settings = run.record.split
    return ProtocolReport(
        k=split.k,
        cutoff=split.cutoff,
        min_item_count=settings.min_item_count,
        min_train_rows=settings.min_train_rows,
        unseen_items=settings.unseen_items,
        validation_share=settings.validation_share,
        split_seed=settings.split_seed,
        split_fingerprint=split.fingerprint,
        ties=measures.ties,
        support_negatives_seed=measures.seed,
        bootstrap=report_bootstrap(measures),
    )
