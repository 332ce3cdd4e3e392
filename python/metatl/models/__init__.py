"""The published systems, one file each, and the one table that names them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metatl.exceptions import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel


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
    trained
        Whether it is trained by episodes (:mod:`metatl.training`) or computed in one pass by `fit`.
    """

    name: str
    title: str
    module: str
    model: str
    config: str
    presets: tuple[str, ...]
    trained: bool

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
            "metatl.models.metatl",
            "MetaTL",
            "MetaTLConfig",
            ("paper", "official", "tuned"),
            trained=True,
        ),
        System(
            "popularity",
            "Popularity",
            "metatl.models.popularity",
            "Popularity",
            "PopularityConfig",
            ("tuned",),
            trained=False,
        ),
        System(
            "knn",
            "Item-kNN",
            "metatl.models.item_knn",
            "ItemKNN",
            "ItemKNNConfig",
            ("paper", "tuned"),
            trained=False,
        ),
        System(
            "session-knn",
            "Session kNN",
            "metatl.models.session_knn",
            "SessionKNN",
            "SessionKNNConfig",
            ("paper", "tuned"),
            trained=False,
        ),
        System(
            "markov",
            "Markov chain",
            "metatl.models.markov_chain",
            "MarkovChain",
            "MarkovChainConfig",
            ("paper", "tuned"),
            trained=False,
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
