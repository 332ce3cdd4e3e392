"""The evaluation of an external system: one that gives scores, embeddings or ranked lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from metatl.data.split import protocol_sha256
from metatl.evaluation.measures import Evaluation, report_bootstrap, report_figures
from metatl.evaluation.report.results import SourceReport, SourceResults

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from metatl.common.timings import Timings
    from metatl.data.candidates import CandidateSets
    from metatl.data.frames import FrameLike
    from metatl.evaluation.measures import Measures, RankedUsers
    from metatl.evaluation.report.results import ListsReport


@dataclass(frozen=True, eq=False)
class ExternalSource:
    """What an external system gave, without the ranks of its users.

    Attributes
    ----------
    kind : {"scores", "embeddings", "lists"}
        What was ranked.
    name : str or None
        Name of the system; None for the name of the file `named_by`.
    files : dict of str to str
        The files that were read, by their role.
    named_by : str
        The role of the file that gives the name.
    left_out : dict of str to int
        How many users were left out, by reason.
    columns : dict of str to polars.Series
        (B,) each: columns to slice the users by.
    candidates : CandidateSets or None
        The candidates that were ranked; None where there are none.
    protocol : CandidateSets or None
        The candidates whose users and targets were taken, where others were ranked.
    lists : ListsReport or None
        The report of the users' lists.
    notes : sequence of str
        What could not be checked or computed.
    """

    kind: Literal["scores", "embeddings", "lists"]
    name: str | None
    files: dict[str, str]
    named_by: str
    left_out: dict[str, int]
    columns: dict[str, pl.Series] = field(default_factory=dict)
    candidates: CandidateSets | None = None
    protocol: CandidateSets | None = None
    lists: ListsReport | None = None
    notes: Sequence[str] = ()


def evaluate_source(
    source: ExternalSource,
    users: RankedUsers,
    measures: Measures,
    *,
    by: Sequence[str],
    attributes: FrameLike | None,
    timings: Timings,
) -> Evaluation[SourceResults]:
    """Evaluate the ranked users of an external system.

    Parameters
    ----------
    source : ExternalSource
        What was ranked.
    users : RankedUsers
        The ranks.
    measures : Measures
        What to compute.
    by : sequence of str
        Columns to slice the users by.
    attributes : table or None
        ``user_id`` (raw) and columns to slice by.
    timings : Timings
        The stages so far; gains the stage ``metrics``.

    Returns
    -------
    Evaluation
        The summary and the ranks of every user.

    Raises
    ------
    ConfigError
        If a column to slice by is unknown.
    DataError
        If `attributes` has no ``user_id``, or has a user twice.
    """
    sets = source.candidates or source.protocol
    with timings.stage("metrics"):
        figures = report_figures(
            users,
            measures,
            left_out=source.left_out,
            lists=source.lists,
            candidates=source.candidates,
            columns=source.columns,
            by=by,
            attributes=attributes,
        )
    name = source.name or Path(source.files.get(source.named_by, source.kind)).stem
    results = SourceResults(
        **figures,
        notes=list(source.notes),
        source=SourceReport(
            kind=source.kind,
            name=name,
            files=source.files,
            ties=measures.ties,
            bootstrap=report_bootstrap(measures),
        ),
        timings=timings.seconds,
    )
    return Evaluation(
        results=results,
        system=name,
        users=users,
        measures=measures,
        dataset_fingerprint=None if sets is None else sets.dataset_fingerprint,
        split_sha256=None if sets is None else protocol_sha256(sets.split_protocol),
    )
