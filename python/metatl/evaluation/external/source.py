"""The report of what somebody else made: scores, embeddings, lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from metatl.data.split import protocol_sha256
from metatl.evaluation.evaluate_runs import Evaluation
from metatl.evaluation.measures import Measures, RankedUsers, measure, measure_ties, slices_by
from metatl.evaluation.report.results import (
    BootstrapReport,
    CandidatesReport,
    ListsReport,
    SourceReport,
    SourceResults,
    UsersReport,
)
from metatl.metrics.rank_metrics import BOOTSTRAP_RESAMPLES, CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from metatl.common.timings import Timings
    from metatl.data.candidates import CandidateSets


@dataclass(frozen=True, eq=False)
class Source:
    """What is known of a source besides the ranks of its users.

    Attributes
    ----------
    kind : {"scores", "embeddings", "lists"}
        What was ranked.
    name : str or None
        What to call the system; the name of the file `named_by` where it is None.
    files : dict of str to str
        What was read, by its part.
    named_by : str
        The part whose file gives the name.
    left_out : dict of str to int
        What was left out on the way, by reason.
    columns : dict of str to polars.Series
        (B,) each: what is known of the users, to slice them by.
    candidates : CandidateSets or None
        The candidates, where there were any.
    lists : ListsReport or None
        Of the users' lists.
    notes : sequence of str
        What could not be checked, or was not computed.
    """

    kind: Literal["scores", "embeddings", "lists"]
    name: str | None
    files: dict[str, str]
    named_by: str
    left_out: dict[str, int]
    columns: dict[str, pl.Series] = field(default_factory=dict)
    candidates: CandidateSets | None = None
    lists: ListsReport | None = None
    notes: Sequence[str] = ()


def evaluate_source(
    source: Source,
    users: RankedUsers,
    measures: Measures,
    *,
    by: Sequence[str],
    attributes: pl.DataFrame | None,
    timings: Timings,
) -> Evaluation[SourceResults]:
    """Compute all figures of ranked users and put them into a report.

    Parameters
    ----------
    source : Source
        What was ranked.
    users : RankedUsers
        The ranks.
    measures : Measures
        What to compute.
    by : sequence of str
        What to slice the users by.
    attributes : polars.DataFrame or None
        What a caller knows of the users.
    timings : Timings
        Of the stages so far.

    Raises
    ------
    ConfigError
        If a column to slice by is unknown.
    DataError
        If `attributes` do not fit.
    """
    sets = source.candidates
    with timings.stage("metrics"):
        results = SourceResults(
            metrics=measure(users, measures),
            ties=measure_ties(users, measures),
            lists=source.lists,
            users=UsersReport(evaluated=len(users.user_ids), left_out=source.left_out),
            slices=slices_by(users, by, source.columns, attributes, measures),
            notes=list(source.notes),
            candidates=None
            if sets is None
            else CandidatesReport(sha256=sets.sha256, kind=sets.kind, n=sets.n, seed=sets.seed),
            source=SourceReport(
                kind=source.kind,
                name=source.name or Path(source.files.get(source.named_by, source.kind)).stem,
                files=source.files,
                ties=measures.ties,
                bootstrap=BootstrapReport(
                    resamples=BOOTSTRAP_RESAMPLES, confidence=CONFIDENCE, seed=measures.seed
                ),
            ),
            timings={},
            metatl_version=metadata.version("metatl"),
        )
    return Evaluation(
        results.model_copy(update={"timings": timings.seconds}),
        users,
        measures,
        None if sets is None else sets.dataset_fingerprint,
        None if sets is None else protocol_sha256(sets.split_protocol),
    )
