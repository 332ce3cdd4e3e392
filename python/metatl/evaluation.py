"""Evaluate a fitted system on the test users of its cold-start split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from metatl import datasets
from metatl.candidates import CandidateSets, sample_candidate_sets
from metatl.exceptions import ConfigError, DataError, NoNegativeError, RunError
from metatl.histories import Histories
from metatl.interactions import Interactions
from metatl.metrics import (
    BOOTSTRAP_RESAMPLES,
    CONFIDENCE,
    DEFAULT_METRICS,
    Metric,
    TieRule,
    estimate,
    mean_metrics,
    parse_metrics,
    ranks,
    user_metrics,
)
from metatl.ranking import RankCounts, encode_blocks, rank_candidates
from metatl.report import (
    BootstrapReport,
    CandidatesReport,
    DatasetReport,
    EstimateReport,
    MetricsReport,
    ModelReport,
    ProtocolReport,
    Results,
)
from metatl.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from metatl.models.contract import Model
    from metatl.runs import Run
    from metatl.split import ColdStartSplit

CandidateKind = Literal["uniform", "popularity"]
_KINDS: dict[str, CandidateKind] = {"uni": "uniform", "pop": "popularity"}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An evaluation, user by user.

    Attributes
    ----------
    results : Results
        The summary, as in `results.json`.
    per_user : polars.DataFrame
        One row per test user and ranking: ``user_id`` (raw), ``ranking`` (``"sampled"`` or ``"full"``),
        ``rank``, ``greater``, ``equal`` and one column per metric.
    """

    results: Results
    per_user: pl.DataFrame


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
    return _KINDS[match[1]], int(match[2])


def candidate_metrics(model: Model, split: ColdStartSplit, sets: CandidateSets) -> dict[str, float]:
    """Rank the users of candidate sets; what a training chooses its weights by.

    Parameters
    ----------
    model : FactorisedModel or ScoringModel
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
    seed: int = 0,
    num_threads: int | None = None,
    timings: Timings | None = None,
) -> tuple[RankCounts | None, RankCounts]:
    """Rank each user's target among candidates and in the full catalogue, encoding each history once.

    In the full catalogue a target meets every item that its user does not interact with, before or after: the
    items that candidates are drawn from.

    Parameters
    ----------
    model : FactorisedModel or ScoringModel
        A fitted model.
    split : ColdStartSplit
        The split.
    users : ndarray
        (B,) int64, indices of cold users.
    candidates : ndarray or None
        (B, 1 + n) int64, the target in column 0; None for the full catalogue alone.
    seed : int
        Seed of the support negatives, for models that use them.
    num_threads : int, optional
        Threads of the kernels.
    timings : Timings, optional
        Gains the stages ``encode`` and ``rank``.

    Returns
    -------
    sampled : RankCounts or None
        Among the candidates.
    full : RankCounts
        In the catalogue.
    """
    targets = split.targets(users)
    excluded = Histories(split.cold.indptr, split.cold.items).select(users)
    sampled = None if candidates is None else _empty_counts(len(users))
    full = _empty_counts(len(users))
    for rows, block in encode_blocks(
        model, split.histories(users), seed=seed, num_threads=num_threads, timings=timings
    ):
        if sampled is not None and candidates is not None:
            sampled.greater[rows], sampled.equal[rows] = block.rank_candidates(candidates[rows])
        full.greater[rows], full.equal[rows] = block.rank_catalogue(targets[rows], excluded.select(rows))
    return sampled, full


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
    num_threads: int | None = None,
) -> Evaluation:
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
    RunError
        If the data is not what the run was fitted on.
    DataError
        If the data cannot be read, or no test user has more than K interactions.
    NoNegativeError
        If there are fewer items than candidates.
    NotANumberError
        If a score is not a number.
    """
    chosen = parse_metrics(metrics)
    negatives = parse_candidates(candidates)
    timings = Timings()
    with timings.stage("read"):
        interactions = _read_data(run, data)
    with timings.stage("split"):
        split = _split(run, interactions, k)
        users = split.test
    with timings.stage("candidates"):
        sets = None
        if negatives is not None:
            kind, n = negatives
            try:
                sets = sample_candidate_sets(split, users, n=n, kind=kind, seed=seed)
            except NoNegativeError as error:
                raise NoNegativeError(f"{error}; choose fewer candidates than {candidates}") from None
    sampled, full = rank_users(
        run.model,
        split,
        users,
        None if sets is None else sets.candidates,
        seed=seed,
        num_threads=num_threads,
        timings=timings,
    )
    rankings = {"full": full} if sampled is None else {"sampled": sampled, "full": full}
    with timings.stage("metrics"):
        values = {name: user_metrics(*counts, chosen, ties=ties) for name, counts in rankings.items()}
        user_ids = split.cold.user_ids[users]
        per_user = pl.concat(
            _user_frame(user_ids, name, rankings[name], chosen, values[name], ties) for name in rankings
        )
    with timings.stage("bootstrap"):
        estimates = {
            name: _report_estimates(chosen, part, seed, num_threads) for name, part in values.items()
        }
    results = Results(
        metrics=MetricsReport(sampled=estimates.get("sampled"), full=estimates["full"]),
        candidates=None if sets is None else _report_candidates(sets),
        dataset=_report_dataset(run, data, interactions, split),
        protocol=_report_protocol(run, split, ties, seed),
        model=ModelReport(
            name=run.record.model,
            preset=run.record.preset,
            config=run.record.config,
            seed=run.record.seed,
            run=None if run.path is None else str(run.path),
        ),
        timings=timings.seconds,
        metatl_version=metadata.version("metatl"),
    )
    return Evaluation(results, per_user)


def evaluate(
    run: Run,
    *,
    data: str | Path | Interactions | None = None,
    k: int | None = None,
    candidates: str = "uni100",
    seed: int = 0,
    ties: TieRule = "worst",
    metrics: Sequence[str] | str = DEFAULT_METRICS,
    num_threads: int | None = None,
) -> Results:
    """Evaluate a run on the test users of its split.

    Takes the arguments of :func:`evaluate_users` and raises what it raises.

    Returns
    -------
    Results
        Metrics with intervals, and what they were computed from: the content of `results.json`.
    """
    return evaluate_users(
        run,
        data=data,
        k=k,
        candidates=candidates,
        seed=seed,
        ties=ties,
        metrics=metrics,
        num_threads=num_threads,
    ).results


def _read_data(run: Run, data: str | Path | Interactions | None) -> Interactions:
    """Read the data and check that the run was fitted on it."""
    source = run.record.data if data is None else data
    if source is None:
        raise RunError("the run was fitted on interactions in memory; pass them as data")
    interactions = source if isinstance(source, Interactions) else datasets.load(source, run.record.columns)
    if interactions.fingerprint != run.record.dataset_fingerprint:
        name = "the interactions" if isinstance(source, Interactions) else str(source)
        raise RunError(
            f"{name}: found data with fingerprint {interactions.fingerprint[:12]}, but the run was fitted on "
            f"{run.record.dataset_fingerprint[:12]}; give the same data with --data, or fit on this"
        )
    return interactions


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


def _user_frame(
    user_ids: pl.Series,
    ranking: str,
    counts: RankCounts,
    metrics: Sequence[Metric],
    values: np.ndarray,
    ties: TieRule,
) -> pl.DataFrame:
    columns = {
        "user_id": user_ids,
        "ranking": pl.Series([ranking], dtype=pl.String).new_from_index(0, len(user_ids)),
        "rank": ranks(*counts, ties=ties),
        "greater": counts.greater,
        "equal": counts.equal,
    }
    return pl.DataFrame({**columns, **{metric.name: values[:, i] for i, metric in enumerate(metrics)}})


def _report_estimates(
    metrics: Sequence[Metric], values: np.ndarray, seed: int, num_threads: int | None
) -> dict[str, EstimateReport]:
    estimates = estimate(values, seed=seed, num_threads=num_threads)
    return {
        metric.name: EstimateReport(value=found.value, low=found.low, high=found.high)
        for metric, found in zip(metrics, estimates, strict=True)
    }


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
