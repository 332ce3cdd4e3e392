"""What an evaluation reports: `results.json`, its JSON schema, and a table for people."""

from __future__ import annotations

import json
from datetime import datetime  # noqa: TC003 (pydantic reads it)
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

SCHEMA_FILE = "docs/results.schema.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EstimateReport(_Part):
    """A mean over test users with the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


class MetricsReport(_Part):
    """The metrics by name, ranked among sampled candidates and in the full catalogue."""

    sampled: dict[str, EstimateReport] | None = Field(description="null where candidates were not asked for")
    full: dict[str, EstimateReport]


class CandidatesReport(_Part):
    """The negatives that each target is ranked among."""

    sha256: str
    kind: Literal["uniform", "popularity"]
    n: int
    seed: int


class DatasetReport(_Part):
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


class BootstrapReport(_Part):
    """How the intervals were computed."""

    resamples: int
    confidence: float
    seed: int


class ProtocolReport(_Part):
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
    ties: Literal["worst", "mean", "best"]
    full_excludes: str = "every other item that the user interacts with, before or after the target"
    support_negatives_seed: int
    bootstrap: BootstrapReport


class ModelReport(_Part):
    """The system that was evaluated."""

    name: str
    preset: str
    config: dict[str, Any]
    seed: int
    run: str | None = Field(description="the run directory; null for a system that was fitted without one")


class Results(_Part):
    """The content of `results.json`."""

    metrics: MetricsReport
    candidates: CandidatesReport | None = Field(
        description="null where only the full catalogue was asked for"
    )
    dataset: DatasetReport
    protocol: ProtocolReport
    model: ModelReport
    timings: dict[str, float] = Field(description="seconds of each stage")
    metatl_version: str


def results_schema() -> str:
    """Give the JSON schema of `results.json`, as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Results.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_results(path: Path, results: Results) -> None:
    """Write `results.json` in one step; a file that was there stays as it was unless all went well.

    Parameters
    ----------
    path : Path
        The file to write.
    results : Results
        Its content.

    Raises
    ------
    OSError
        If it cannot be written, for example on a full disk.
    """
    from metatl.files import replace_file

    with replace_file(path) as temporary:
        temporary.write_text(results.model_dump_json(indent=2) + "\n", encoding="utf-8")


def results_table(results: Results) -> RenderableType:
    """Lay the results out for a terminal.

    Parameters
    ----------
    results : Results
        An evaluation.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    columns = {"all items": results.metrics.full}
    if results.metrics.sampled is not None and results.candidates is not None:
        columns = {
            f"{results.candidates.n} {results.candidates.kind} negatives": results.metrics.sampled,
            **columns,
        }
    table = Table(
        title=f"{results.model.name} ({results.model.preset}), {results.dataset.test_users:,} test users"
    )
    table.add_column("metric")
    for name in columns:
        table.add_column(f"{name}\n[95 % interval]", justify="right")
    for metric in results.metrics.full:
        cells = (
            f"{part[metric].value:.4f} [{part[metric].low:.4f}, {part[metric].high:.4f}]"
            for part in columns.values()
        )
        table.add_row(metric, *(Text(cell) for cell in cells))
    stages = " · ".join(f"{stage} {seconds:.2f} s" for stage, seconds in results.timings.items())
    protocol = results.protocol
    settings = f"K = {protocol.k}, T = {protocol.cutoff:%Y-%m-%d}, ties {protocol.ties}"
    return Group(table, Text(settings), Text(stages))
