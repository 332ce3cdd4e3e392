"""MetaTL: meta transitional learning for cold-start sequential recommendation.

Names are imported when they are first used, so that `import metatl` is quick and only what trains or
runs a network loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metatl import datasets, exceptions
    from metatl.data.candidates import CandidateSets, sample_candidate_sets
    from metatl.data.interactions import Interactions
    from metatl.data.readers.interaction_files import read_interactions
    from metatl.data.split import ColdStartSplit, cold_start_split
    from metatl.evaluation.comparison.paired_comparison import compare_users
    from metatl.evaluation.evaluate_runs import evaluate
    from metatl.evaluation.external.evaluate_embeddings import evaluate_embeddings
    from metatl.evaluation.external.evaluate_lists import evaluate_lists
    from metatl.evaluation.external.evaluate_scores import evaluate_scores
    from metatl.ranking.item_tables import ItemTable
    from metatl.runs.run_directory import Run, SplitSettings, load_run
    from metatl.serving.export import export
    from metatl.serving.recommender import Recommender, recommend
    from metatl.training.fit import fit
    from metatl.training.update import update

    __version__: str

_MODULES = {
    "CandidateSets": "metatl.data.candidates",
    "ColdStartSplit": "metatl.data.split",
    "Interactions": "metatl.data.interactions",
    "ItemTable": "metatl.ranking.item_tables",
    "Recommender": "metatl.serving.recommender",
    "Run": "metatl.runs.run_directory",
    "SplitSettings": "metatl.runs.run_directory",
    "cold_start_split": "metatl.data.split",
    "compare_users": "metatl.evaluation.comparison.paired_comparison",
    "evaluate": "metatl.evaluation.evaluate_runs",
    "evaluate_embeddings": "metatl.evaluation.external.evaluate_embeddings",
    "evaluate_lists": "metatl.evaluation.external.evaluate_lists",
    "evaluate_scores": "metatl.evaluation.external.evaluate_scores",
    "export": "metatl.serving.export",
    "fit": "metatl.training.fit",
    "load_run": "metatl.runs.run_directory",
    "read_interactions": "metatl.data.readers.interaction_files",
    "recommend": "metatl.serving.recommender",
    "sample_candidate_sets": "metatl.data.candidates",
    "update": "metatl.training.update",
}

__all__ = [
    "CandidateSets",
    "ColdStartSplit",
    "Interactions",
    "ItemTable",
    "Recommender",
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
    "export",
    "fit",
    "load_run",
    "read_interactions",
    "recommend",
    "sample_candidate_sets",
    "update",
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
