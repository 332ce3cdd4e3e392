"""The published systems, one file each, and `SYSTEMS`, the table of all of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from metatl.common.arguments import check_choice, did_you_mean
from metatl.exceptions import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel


Batches: TypeAlias = Literal["episodes", "sequences"]
"""Kind of training batch of a system that is trained by gradients; see `metatl.training.batches`."""


@dataclass(frozen=True)
class System:
    """A system: its names, classes and presets.

    Attributes
    ----------
    name : str
        Name on the command line.
    title : str
        Name in tables.
    module : str
        Module of the model class and the config class.
    model, config : str
        Names of these two classes.
    config_module : str or None
        Module of the config class; None for that of the model class.
    query_encoder : str or None
        Module and class of the encoder without torch, as in `metatl.models.metatl.x:Encoder`; None if the
        model class itself does without torch, or has no such encoder.
    presets : tuple of str
        Names of the presets; `tuned` is the default of every system.
    batches : {"episodes", "sequences"} or None
        Kind of training batch (:mod:`metatl.training.outer_loop`); None for a system that `fit` computes in
        one pass.
    compiles : bool
        Whether torch.compile can fuse the kernels of the training steps.
    revision : int
        Increased when a change of the code changes the figures of the system. Experiments then recompute
        the figures that they stored with an older revision.
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
    config_module: str | None = None
    query_encoder: str | None = None

    def model_class(self) -> Any:
        """Import the model class. This also imports torch if the model uses it."""
        return getattr(importlib.import_module(self.module), self.model)

    def config_class(self) -> type[BaseModel]:
        """Import the config class."""
        module = importlib.import_module(self.config_module or self.module)
        config: type[BaseModel] = getattr(module, self.config)
        return config

    def query_encoder_class(self) -> Any:
        """Import the class of the encoder without torch; None if there is none."""
        if self.query_encoder is None:
            return None
        module, _, name = self.query_encoder.partition(":")
        return getattr(importlib.import_module(module), name)


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
            config_module="metatl.models.metatl.config",
            query_encoder="metatl.models.metatl.transition_encoder:TransitionEncoder",
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
    """Look up a system by name.

    Parameters
    ----------
    name : str
        A key of `SYSTEMS`.
    preset : str
        A preset that the system must have.

    Returns
    -------
    System
        The entry of the table.

    Raises
    ------
    ConfigError
        If no system has that name, or the system has no such preset; the message lists the valid names.
    """
    check_choice("model", name, SYSTEMS, ConfigError)
    system = SYSTEMS[name]
    if preset not in system.presets:
        raise ConfigError(
            f"preset: {name} has no preset {preset!r}; it has {', '.join(system.presets)}"
            f"{did_you_mean(preset, system.presets)}"
        )
    return system
