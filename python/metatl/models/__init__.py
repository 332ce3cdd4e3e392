"""The published systems, one file each, and the one table that names them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from metatl.exceptions import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel


Batches: TypeAlias = Literal["episodes", "sequences"]
"""What a system can be trained on by gradients: see `metatl.training.batches`."""


@dataclass(frozen=True)
class System:
    """Where a system lives and which presets it has.

    Attributes
    ----------
    name
        The name that commands take.
    title
        The name that tables print.
    module, model, config
        Module of the model, and the names of its model and config classes in it.
    presets
        Names of its presets; `tuned` is the default of every system.
    batches
        What it is trained on by gradients (:mod:`metatl.training.outer_loop`): `episodes` or `sequences`;
        None for a system that `fit` computes in one pass.
    compiles
        Whether torch.compile may fuse the kernels of its training steps.
    revision
        Raised when a change of the code changes its figures, so that those of older code, which experiments
        have kept, are not taken for its own.
    """

    name: str
    title: str
    module: str
    model: str
    config: str
    presets: tuple[str, ...]
    batches: Batches | None = None
    compiles: bool = False
    revision: int = 1

    def model_class(self) -> Any:
        """Import the model class; torch is loaded here and not before."""
        return getattr(importlib.import_module(self.module), self.model)

    def config_class(self) -> type[BaseModel]:
        """Import the config class."""
        config: type[BaseModel] = getattr(importlib.import_module(self.module), self.config)
        return config


SYSTEMS = {
    system.name: system
    for system in (
        System(
            "metatl",
            "MetaTL",
            "metatl.models.metatl.model",
            "MetaTL",
            "MetaTLConfig",
            ("paper", "official", "tuned"),
            batches="episodes",
            compiles=True,
        ),
        System(
            "popularity",
            "Popularity",
            "metatl.models.popularity",
            "Popularity",
            "PopularityConfig",
            ("tuned",),
        ),
        System(
            "knn",
            "Item-kNN",
            "metatl.models.item_knn",
            "ItemKNN",
            "ItemKNNConfig",
            ("paper", "tuned"),
        ),
        System(
            "session-knn",
            "Session kNN",
            "metatl.models.session_knn",
            "SessionKNN",
            "SessionKNNConfig",
            ("paper", "tuned"),
        ),
        System(
            "markov",
            "Markov chain",
            "metatl.models.markov_chain",
            "MarkovChain",
            "MarkovChainConfig",
            ("paper", "tuned"),
        ),
        System(
            "bpr",
            "BPR-MF",
            "metatl.models.bpr_mf",
            "BPRMF",
            "BPRMFConfig",
            ("paper", "tuned"),
            batches="sequences",
        ),
        System(
            "transrec",
            "TransRec",
            "metatl.models.transrec",
            "TransRec",
            "TransRecConfig",
            ("paper", "tuned"),
            batches="sequences",
        ),
        System(
            "gru4rec",
            "GRU4Rec",
            "metatl.models.gru4rec",
            "GRU4Rec",
            "GRU4RecConfig",
            ("paper", "tuned"),
            batches="sequences",
        ),
        System(
            "tcn",
            "TCN (NextItNet)",
            "metatl.models.nextitnet",
            "NextItNet",
            "NextItNetConfig",
            ("paper", "tuned"),
            batches="sequences",
        ),
        System(
            "sasrec",
            "SASRec",
            "metatl.models.sasrec",
            "SASRec",
            "SASRecConfig",
            ("paper", "tuned"),
            batches="sequences",
        ),
        System(
            "bert4rec",
            "BERT4Rec",
            "metatl.models.bert4rec",
            "BERT4Rec",
            "BERT4RecConfig",
            ("paper", "tuned"),
            batches="sequences",
        ),
        System(
            "melu",
            "MeLU",
            "metatl.models.melu",
            "MeLU",
            "MeLUConfig",
            ("paper", "tuned"),
            batches="episodes",
            revision=3,
        ),
        System(
            "metacf",
            "MetaCF",
            "metatl.models.metacf",
            "MetaCF",
            "MetaCFConfig",
            ("paper", "tuned"),
            batches="episodes",
            revision=2,
        ),
    )
}


def find_system(name: str, preset: str = "tuned") -> System:
    """Look a system up by name.

    Raises
    ------
    ConfigError
        If there is no system of that name, or it lacks the preset; the message lists those there are.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"model: found {name!r}, expected one of {', '.join(SYSTEMS)}")
    system = SYSTEMS[name]
    if preset not in system.presets:
        raise ConfigError(f"preset: {name} has no preset {preset!r}; it has {', '.join(system.presets)}")
    return system
