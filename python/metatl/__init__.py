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
    from metatl.comparison.paired_comparison import compare_users
    from metatl.evaluation import evaluate
    from metatl.external.embedding_evaluation import evaluate_embeddings
    from metatl.external.list_evaluation import evaluate_lists
    from metatl.external.score_evaluation import evaluate_scores
    from metatl.fitting import fit
    from metatl.interactions import Interactions
    from metatl.item_tables import ItemTable
    from metatl.readers.interaction_files import read_interactions
    from metatl.recommendation import recommend
    from metatl.runs import Run, SplitSettings, load_run
    from metatl.split import ColdStartSplit, cold_start_split

    __version__: str

_MODULES = {
    "CandidateSets": "metatl.candidates",
    "ColdStartSplit": "metatl.split",
    "Interactions": "metatl.interactions",
    "ItemTable": "metatl.item_tables",
    "Run": "metatl.runs",
    "SplitSettings": "metatl.runs",
    "cold_start_split": "metatl.split",
    "compare_users": "metatl.comparison.paired_comparison",
    "evaluate": "metatl.evaluation",
    "evaluate_embeddings": "metatl.external.embedding_evaluation",
    "evaluate_lists": "metatl.external.list_evaluation",
    "evaluate_scores": "metatl.external.score_evaluation",
    "fit": "metatl.fitting",
    "load_run": "metatl.runs",
    "read_interactions": "metatl.readers.interaction_files",
    "recommend": "metatl.recommendation",
    "sample_candidate_sets": "metatl.candidates",
}

__all__ = [
    "CandidateSets",
    "ColdStartSplit",
    "Interactions",
    "ItemTable",
    "Run",
    "SplitSettings",
    "cold_start_split",
    "compare_users",
    "datasets",
    "evaluate",
    "evaluate_embeddings",
    "evaluate_lists",
    "evaluate_scores",
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
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("metatl")
    raise AttributeError(f"module 'metatl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
