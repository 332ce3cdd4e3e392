"""MetaTL: meta transitional learning for cold-start sequential recommendation.

Names are imported when they are first used, so that `import metatl` is quick and only what trains or
runs a network loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metatl import datasets, exceptions
    from metatl.candidates import CandidateSets, sample_candidate_sets
    from metatl.evaluation import evaluate
    from metatl.fitting import fit
    from metatl.interactions import Interactions
    from metatl.readers import read_interactions
    from metatl.recommendation import recommend
    from metatl.runs import Run, SplitSettings, load_run
    from metatl.split import ColdStartSplit, cold_start_split

_MODULES = {
    "CandidateSets": "metatl.candidates",
    "ColdStartSplit": "metatl.split",
    "Interactions": "metatl.interactions",
    "Run": "metatl.runs",
    "SplitSettings": "metatl.runs",
    "cold_start_split": "metatl.split",
    "evaluate": "metatl.evaluation",
    "fit": "metatl.fitting",
    "load_run": "metatl.runs",
    "read_interactions": "metatl.readers",
    "recommend": "metatl.recommendation",
    "sample_candidate_sets": "metatl.candidates",
}

__all__ = [
    "CandidateSets",
    "ColdStartSplit",
    "Interactions",
    "Run",
    "SplitSettings",
    "cold_start_split",
    "datasets",
    "evaluate",
    "exceptions",
    "fit",
    "load_run",
    "read_interactions",
    "recommend",
    "sample_candidate_sets",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name in ("datasets", "exceptions"):
        return importlib.import_module(f"metatl.{name}")
    raise AttributeError(f"module 'metatl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
