"""Evaluate a fitted system on the test users of its cold-start split."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
import polars as pl

from metatl import datasets
from metatl.common.arguments import whole_number
from metatl.common.timings import Timings
from metatl.data.candidates import CANDIDATE_KINDS, CandidateSets, sample_candidate_sets
from metatl.data.histories import Histories
from metatl.data.interactions import Interactions
from metatl.data.split import protocol_sha256
from metatl.evaluation.measures import (
    Measures,
    RankedUsers,
    Ranking,
    measure,
    measure_ties,
    quantile_groups,
    slices_by,
    user_frame,
)
from metatl.evaluation.report.results import (
    BootstrapReport,
    CandidatesReport,
    DatasetReport,
    Figures,
    ListsReport,
    ModelReport,
    ProtocolReport,
    Results,
    UsersReport,
)
from metatl.exceptions import ConfigError, DataError, MissingFileError, NoNegativeError, RunError
from metatl.metrics.list_metrics import list_metrics
from metatl.metrics.rank_metrics import (
    BOOTSTRAP_RESAMPLES,
    CONFIDENCE,
    DEFAULT_METRICS,
    TieRule,
    mean_metrics,
    parse_metrics,
)
from metatl.ranking.rank import RankCounts, encode_blocks, rank_candidates

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from metatl.data.candidates import CandidateKind
    from metatl.data.split import ColdStartSplit
    from metatl.evaluation.external.score_files import ScoresLike
    from metatl.evaluation.report.results import SourceResults
    from metatl.models.contract import Model
    from metatl.ranking.item_tables import ItemFormat, ItemTable
    from metatl.runs.run_directory import Run

DEFAULT_TOP = 10
"""Items of the lists whose coverage and popularity are reported."""

ResultsT = TypeVar("ResultsT", bound=Figures)


@dataclass(frozen=True, eq=False)
class Evaluation(Generic[ResultsT]):
    """An evaluation, user by user.

    Attributes
    ----------
    results : Figures
        The summary: `Results` of a run, `SourceResults` of anything else.
    users : RankedUsers
        The users' ranks.
    measures : Measures
        What was computed.
    dataset_fingerprint : str or None
        Of the interactions that were split; None where ranked lists do not say.
    split_sha256 : str or None
        Of what they were split with (`metatl.data.split.protocol_sha256`); None likewise.
    """

    results: ResultsT
    users: RankedUsers
    measures: Measures
    dataset_fingerprint: str | None
    split_sha256: str | None

    @property
    def per_user(self) -> pl.DataFrame:
        """One row per test user and ranking; see `metatl.evaluation.measures.user_frame`."""
        return user_frame(self.users, self.measures)


class UserRanks(NamedTuple):
    """What ranking B users gives.

    Attributes
    ----------
    sampled : RankCounts or None
        Among the candidates.
    full : RankCounts
        In the catalogue.
    lists : ndarray or None
        (B, N) int64: the best items of each user besides those of the history; -1 where there are no more.
    """

    sampled: RankCounts | None
    full: RankCounts
    lists: np.ndarray | None


def parse_candidates(text: str) -> tuple[CandidateKind, int] | None:
    """Read what ``--candidates`` says.

    Parameters
    ----------
    text : str
        ``uniN`` for N uniform negatives, ``popN`` for N by popularity, ``full`` for the full catalogue alone.

    Returns
    -------
    tuple of str and int, or None
        The kind and N; None for ``full``.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    if text == "full":
        return None
    match = re.fullmatch(r"(uni|pop)([1-9]\d{0,8})", text)
    if match is None:
        raise ConfigError(
            f"candidates: found {text!r}, expected uniN or popN with N negatives, as in uni100, or full"
        )
    return CANDIDATE_KINDS[match[1]], int(match[2])


def candidate_metrics(model: Model, split: ColdStartSplit, sets: CandidateSets) -> dict[str, float]:
    """Rank the users of candidate sets; what a training chooses its weights by.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A model.
    split : ColdStartSplit
        The split.
    sets : CandidateSets
        Candidates of some of its users.

    Returns
    -------
    dict of str to float
        The means of the default metrics; ties count against the model.
    """
    return mean_metrics(*rank_candidates(model, split.histories(sets.users), sets.candidates))


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
    """Rank each user's target among candidates and in the full catalogue, encoding each history once.

    In the full catalogue a target meets every item that its user does not interact with, before or after: the
    items that candidates are drawn from.

    Parameters
    ----------
    model : FactorisedModel, PairwiseModel or ScoringModel
        A fitted model.
    split : ColdStartSplit
        The split.
    users : ndarray
        (B,) int64, indices of cold users.
    candidates : ndarray or None
        (B, 1 + n) int64, the target in column 0; None for the full catalogue alone.
    top : int
        N, items of each user's list; 0 for no lists.
    seed : int
        Seed of the support negatives, for models that use them.
    item_table : {"float32", "bf16", "int8"} or ItemTable
        What the model's item vectors are rounded to, or the table that was made of them once.
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
    top = min(top, split.num_items)
    targets = split.targets(users)
    excluded = Histories(split.cold.indptr, split.cold.items).select(users)
    shown = Histories.from_matrix(split.histories(users))
    sampled = None if candidates is None else _empty_counts(len(users))
    full = _empty_counts(len(users))
    lists = np.empty((len(users), top), np.int64) if top else None
    for rows, block in encode_blocks(
        model, shown, seed=seed, item_table=item_table, num_threads=num_threads, timings=timings
    ):
        if sampled is not None and candidates is not None:
            sampled.greater[rows], sampled.equal[rows] = block.rank_candidates(candidates[rows])
        full.greater[rows], full.equal[rows] = block.rank_catalogue(targets[rows], excluded.select(rows))
        if lists is not None:
            with timings.stage("lists"):
                lists[rows] = block.top_n(top, shown.select(rows)).items
    return UserRanks(sampled, full, lists)


def _empty_counts(count: int) -> RankCounts:
    return RankCounts(np.empty(count, np.int64), np.empty(count, np.int64))


def evaluate_users(
    run: Run,
    *,
    data: str | Path | Interactions | None = None,
    k: int | None = None,
    candidates: str = "uni100",
    seed: int = 0,
    ties: TieRule = "worst",
    metrics: Sequence[str] | str = DEFAULT_METRICS,
    top: int = DEFAULT_TOP,
    by: Sequence[str] = (),
    attributes: pl.DataFrame | None = None,
    item_table: ItemFormat = "float32",
    num_threads: int | None = None,
) -> Evaluation[Results]:
    """Evaluate a run on the test users of its split, and keep what came out for each of them.

    Parameters
    ----------
    run : Run
        A fitted system.
    data : str, Path or Interactions, optional
        The data that the run was fitted on, if it is not where the run says.
    k : int, optional
        Interactions that a test user shows; the run's own K by default.
    candidates : str
        ``uniN`` or ``popN`` for N negatives, uniform or by popularity, next to the full catalogue; ``full``
        for the full catalogue alone.
    seed : int
        Seed of the candidates, the support negatives and the bootstrap.
    ties : {"worst", "mean", "best"}
        Where a target stands among items with its score.
    metrics : str or sequence of str
        Names of metrics.
    top : int
        Items of the lists whose coverage and popularity are measured; 0 for none.
    by : sequence of str
        What to slice the users by: ``history_length``, ``item_popularity`` (of the target, in training, in
        quarters) or columns of `attributes`.
    attributes : polars.DataFrame, optional
        What is known of users: ``user_id`` (raw) and columns to slice by.
    item_table : {"float32", "bf16", "int8"}
        What the model's item vectors are rounded to.
    num_threads : int, optional
        Threads of the kernels.

    Returns
    -------
    Evaluation
        The results and the users' ranks.

    Raises
    ------
    ConfigError
        If an argument is unknown.
    InvalidArgumentError
        If `k` or `top` is no whole number or out of range, `attributes` is no table, or the item table is to
        be rounded, and the system has no item vectors.
    RunError
        If the data is not what the run was fitted on.
    DataError
        If the data cannot be read, or no test user has more than K interactions.
    NoNegativeError
        If there are fewer items than candidates.
    NotANumberError
        If a score is not a number.
    """
    if k is not None:
        k = whole_number("k", k, 1)
    top = whole_number("top", top, 0)
    measures = Measures(parse_metrics(metrics), ties, seed, num_threads)
    negatives = parse_candidates(candidates)
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
        results = Results(
            metrics=measure(users, measures),
            ties=measure_ties(users, measures),
            lists=_report_lists(run, split, ranked.lists),
            users=UsersReport(evaluated=len(split.test), left_out=split.dropped),
            slices=slices_by(users, by, _known_columns(run, split), attributes, measures),
            candidates=None if sets is None else _report_candidates(sets),
            dataset=_report_dataset(run, data, interactions, split),
            protocol=_report_protocol(run, split, ties, seed),
            model=_report_model(run, item_table),
            timings={},
            metatl_version=metadata.version("metatl"),
        )
    return Evaluation(
        results.model_copy(update={"timings": timings.seconds}),
        users,
        measures,
        results.dataset.fingerprint,
        protocol_sha256(split.protocol),
    )


def _ranked_users(split: ColdStartSplit, sets: CandidateSets | None, ranked: UserRanks) -> RankedUsers:
    # What a full ranking excludes is every item of the user; the target is one of them.
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
    """Give what a run knows of its test users, to slice them by."""
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


@overload
def evaluate(
    system: Run,
    candidates: str = ...,
    *,
    data: str | Path | Interactions | None = ...,
    k: int | None = ...,
    top: int = ...,
    seed: int = ...,
    ties: TieRule = ...,
    metrics: Sequence[str] | str = ...,
    by: Sequence[str] = ...,
    attributes: pl.DataFrame | None = ...,
    item_table: ItemFormat = ...,
    num_threads: int | None = ...,
) -> Results: ...


@overload
def evaluate(
    system: ScoresLike,
    candidates: CandidateSets | str | os.PathLike[str] | None = ...,
    *,
    name: str | None = ...,
    seed: int = ...,
    ties: TieRule = ...,
    metrics: Sequence[str] | str = ...,
    by: Sequence[str] = ...,
    attributes: pl.DataFrame | None = ...,
    num_threads: int | None = ...,
) -> SourceResults: ...


def evaluate(
    system: Run | ScoresLike,
    candidates: CandidateSets | str | os.PathLike[str] | None = None,
    **options: Any,
) -> Results | SourceResults:
    """Evaluate a run on the test users of its split, or scores of candidates that any model gave.

    Parameters
    ----------
    system : Run, str, path, ndarray, torch.Tensor, polars.DataFrame or pandas.DataFrame
        A run, or scores.
    candidates : optional
        For a run ``uniN``, ``popN`` or ``full``, ``uni100`` by default; for scores the candidates or their
        file.
    **options
        For a run those of :func:`evaluate_users`, for scores those of
        :func:`metatl.evaluation.external.evaluate_scores.evaluate_scores`; each raises what these raise.

    Returns
    -------
    Results or SourceResults
        Metrics with intervals, and what they were computed from: what `metatl-eval --json` writes.
    """
    from metatl.runs.run_directory import Run

    if isinstance(system, Run):
        chosen = "uni100" if candidates is None else candidates
        if not isinstance(chosen, str):
            raise ConfigError(f"candidates: found {type(chosen).__name__}, expected uniN, popN or full")
        return evaluate_users(system, candidates=chosen, **options).results
    from metatl.evaluation.external.evaluate_scores import evaluate_scores

    return evaluate_scores(system, candidates, **options).results


def _read_data(run: Run, data: str | Path | Interactions | None) -> Interactions:
    """Read the data and check that the run was fitted on it."""
    source = _recorded_data(run) if data is None else data
    interactions = source if isinstance(source, Interactions) else datasets.load(source, run.record.columns)
    if interactions.fingerprint != run.record.dataset_fingerprint:
        name = "the interactions" if isinstance(source, Interactions) else str(source)
        raise RunError(
            f"{name}: found data with fingerprint {interactions.fingerprint[:12]}, but the run was fitted on "
            f"{run.record.dataset_fingerprint[:12]}; give the same data with --data, or fit on this"
        )
    return interactions


def _recorded_data(run: Run) -> str:
    """Say where the data are that the run was fitted on."""
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
    """Split as the run did, perhaps with another K, and check that the items are those of the model."""
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


def _report_candidates(sets: CandidateSets) -> CandidatesReport:
    return CandidatesReport(sha256=sets.sha256, kind=sets.kind, n=sets.n, seed=sets.seed)


def _report_dataset(
    run: Run, data: str | Path | Interactions | None, interactions: Interactions, split: ColdStartSplit
) -> DatasetReport:
    source = run.record.data if data is None else None if isinstance(data, Interactions) else str(data)
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


def _report_protocol(run: Run, split: ColdStartSplit, ties: TieRule, seed: int) -> ProtocolReport:
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
        ties=ties,
        support_negatives_seed=seed,
        bootstrap=BootstrapReport(resamples=BOOTSTRAP_RESAMPLES, confidence=CONFIDENCE, seed=seed),
    )
