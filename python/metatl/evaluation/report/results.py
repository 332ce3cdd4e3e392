"""The results of an evaluation as written to JSON, and their schema."""

from __future__ import annotations

import json
from datetime import datetime  # noqa: TC003 (pydantic reads it)
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from metatl.metrics.names import CandidateKind, TieRule  # noqa: TC001 (pydantic reads them)
from metatl.ranking.item_tables import ItemFormat  # noqa: TC001 (pydantic reads it)

if TYPE_CHECKING:
    from pathlib import Path


class StrictReport(BaseModel):
    """A part of a report: it cannot be changed, and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EstimateReport(StrictReport):
    """A mean over test users with the ends of its bootstrap interval, or a median with its interval."""

    value: float
    low: float
    high: float
    standard_error: float | None = Field(default=None, description="of the value, over users")


class MetricsReport(StrictReport):
    """The metrics by name, for each way of ranking."""

    sampled: dict[str, EstimateReport] | None = Field(
        default=None, description="among sampled candidates; null where there were none"
    )
    corrected: dict[str, dict[str, EstimateReport]] | None = Field(
        default=None,
        description="by estimator: what the sampled ranks say of the metrics in the full catalogue; null "
        "where negatives were not uniform or the catalogue is not known",
    )
    full: dict[str, EstimateReport] | None = Field(
        default=None, description="in the full catalogue; null where that was not ranked"
    )


class TiesReport(StrictReport):
    """Items with the target's score."""

    share: float = Field(description="share of users whose target is level with another item")
    metrics: dict[TieRule, dict[str, float]] = Field(description="means under each tie rule")


class ListsReport(StrictReport):
    """The recommended lists of all users."""

    n: int = Field(description="items of a list")
    coverage: float = Field(description="share of the catalogue that is in at least one list")
    popularity: float | None = Field(
        description="mean training interactions of a recommended item; null if they are unknown"
    )
    popularity_bias: float | None = Field(
        description="that mean over the mean of the items that the users chose; above 1 is more popular"
    )


class UsersReport(StrictReport):
    """Who was evaluated."""

    evaluated: int
    left_out: dict[str, int] = Field(description="what was left out on the way, by reason")


class SliceReport(StrictReport):
    """The metrics of some of the users."""

    by: str
    value: str
    users: int
    metrics: MetricsReport


class CandidatesReport(StrictReport):
    """The negatives that each target is ranked among."""

    sha256: str
    kind: CandidateKind
    n: int
    seed: int


class DatasetReport(StrictReport):
    """The interactions that were evaluated on."""

    source: str | None = Field(
        description="file or name of the bundled data; null for interactions in memory"
    )
    fingerprint: str
    users: int
    items: int
    interactions: int
    tie_share: float = Field(description="share of neighbouring rows of a user with equal time")
    train_users: int
    test_users: int = Field(description="the users that were evaluated")
    catalogue: int = Field(description="the items that the full ranking ranks")


class BootstrapReport(StrictReport):
    """How the intervals were computed."""

    resamples: int
    confidence: float
    seed: int


class ProtocolReport(StrictReport):
    """What was done, so that it can be done again."""

    k: int
    cutoff: datetime
    min_item_count: int
    min_train_rows: int
    unseen_items: Literal["drop", "keep"]
    validation_share: float
    split_seed: int
    split_fingerprint: str
    users: Literal["test"] = "test"
    ties: TieRule
    full_excludes: str = "every other item that the user interacts with, before or after the target"
    support_negatives_seed: int
    bootstrap: BootstrapReport


class ModelReport(StrictReport):
    """The system that was evaluated."""

    name: str
    preset: str
    config: dict[str, Any]
    seed: int
    run: str | None = Field(description="the run directory; null for a system that was fitted without one")
    item_table: ItemFormat = Field(
        default="float32", description="what the item vectors were rounded to for ranking"
    )


class SourceReport(StrictReport):
    """What was evaluated where it is not a run of ours."""

    kind: Literal["scores", "embeddings", "lists"]
    name: str = Field(description="what tables call the system")
    files: dict[str, str] = Field(description="what was read, by its part")
    ties: TieRule
    bootstrap: BootstrapReport


class Figures(StrictReport):
    """What every evaluation reports, whatever was evaluated."""

    metrics: MetricsReport
    ties: dict[str, TiesReport] = Field(default={}, description="by ranking")
    lists: ListsReport | None = Field(default=None, description="null where no lists were made")
    users: UsersReport | None = None
    slices: list[SliceReport] = []
    notes: list[str] = Field(default=[], description="what could not be checked, or was not computed")
    candidates: CandidatesReport | None = Field(
        default=None, description="null where no candidates were sampled"
    )
    timings: dict[str, float] = Field(description="seconds of each stage")
    metatl_version: str


class Results(Figures):
    """The evaluation of a run."""

    dataset: DatasetReport
    protocol: ProtocolReport
    model: ModelReport


class SourceResults(Figures):
    """The evaluation of scores, embeddings or lists that somebody else made."""

    source: SourceReport


def results_schema() -> str:
    """Give the JSON schema of the files that evaluations write, as text."""
    either: TypeAdapter[Results | SourceResults] = TypeAdapter(Results | SourceResults)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **either.json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_results(path: Path, results: Figures) -> None:
    """Write an evaluation as JSON, in one step; an old file is kept if writing fails.

    Parameters
    ----------
    path : Path
        The file to write.
    results : Figures
        Its content.

    Raises
    ------
    OSError
        If it cannot be written, for example on a full disk.
    """
    from metatl.common.files import replace_file

    with replace_file(path) as temporary:
        temporary.write_text(results.model_dump_json(indent=2) + "\n", encoding="utf-8")
