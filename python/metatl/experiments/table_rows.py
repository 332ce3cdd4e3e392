"""The rows of the tables: which systems are compared, and with which settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from metatl.models import SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metatl.models import System

Budget: TypeAlias = Literal["smoke", "paper", "tuned"]

SMOKE_STEPS = 20
"""Steps of a training under the budget `smoke`: enough to prove that everything runs."""


@dataclass(frozen=True, eq=False)
class Row:
    """A system, a preset, and the fields that differ from it.

    Attributes
    ----------
    title : str
        The name in tables, unique in each table.
    model, preset : str
        As `metatl train` takes them.
    config : mapping of str to Any
        Fields of the system's config that differ from the preset.
    published : str or None
        The row of the paper's Table 2 or Figure 2 that it is compared with; None for other systems.
    """

    title: str
    model: str
    preset: str
    config: Mapping[str, Any] = field(default_factory=dict)
    published: str | None = None


KNN = "Item-kNN"
PAPER = "MetaTL `paper`"
OFFICIAL = "MetaTL `official`"
PAPER_WITHOUT_STEP = "MetaTL−− `paper`"
UNTRAINED = "MetaTL−− `tuned`, untrained"
WITHOUT_STEP = "MetaTL−− `tuned`"
TUNED = "MetaTL `tuned`"

SIMPLE = ("popularity", "markov", "session-knn", "knn")
"""The simple systems, which tables list first, from the weakest to the strongest."""

# The titles of systems whose names in Table 2 differ.
_PUBLISHED_AS = {"BPR": "BPR-MF", "NextItNet": "TCN", "TCN (NextItNet)": "TCN"}


def table_rows(budget: Budget) -> list[Row]:
    """List every system under a budget: simple ones, the paper's, MetaTL's own rows.

    Parameters
    ----------
    budget : Budget
        `paper` takes the preset `paper` of each system that has one, `tuned` the preset `tuned` and the other
        presets of MetaTL; `smoke` the rows of `tuned`, trained for a few steps.
    """
    systems = [SYSTEMS[name] for name in SIMPLE]
    systems += [system for name, system in SYSTEMS.items() if name not in (*SIMPLE, "metatl")]
    if budget == "paper":
        rows = [_row(system, "paper" if "paper" in system.presets else "tuned") for system in systems]
        return [
            *rows,
            Row(OFFICIAL, "metatl", "official"),
            Row(PAPER_WITHOUT_STEP, "metatl", "paper", {"inner_steps": 0}, published="MetaTL−−"),
            Row(PAPER, "metatl", "paper", published="MetaTL"),
        ]
    rows = [
        *(_row(system, "tuned") for system in systems),
        Row(PAPER, "metatl", "paper"),
        Row(OFFICIAL, "metatl", "official"),
        # One step with a tiny rate: the spectral initialisation without training.
        Row(UNTRAINED, "metatl", "tuned", {"inner_steps": 0, "max_steps": 1, "meta_lr": 1e-9}),
        Row(WITHOUT_STEP, "metatl", "tuned", {"inner_steps": 0}, published="MetaTL−−"),
        Row(TUNED, "metatl", "tuned", published="MetaTL"),
    ]
    return [smoke_row(row) for row in rows] if budget == "smoke" else rows


def smoke_row(row: Row) -> Row:
    """Shorten the training of a row to a few steps."""
    if "max_steps" not in SYSTEMS[row.model].config_class().model_fields:
        return row
    return Row(row.title, row.model, row.preset, {"max_steps": SMOKE_STEPS, **row.config}, row.published)


def published_title(system: System) -> str:
    """Give the name of a system in the paper."""
    return _PUBLISHED_AS.get(system.title, system.title)


def _row(system: System, preset: str) -> Row:
    return Row(system.title, system.name, preset, published=published_title(system))
