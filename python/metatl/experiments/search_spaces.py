"""Where `metatl tune` looks for settings: a table for each system.

A space holds the fields that matter and ranges that reach well beyond the preset `tuned`. What it leaves out
stays as in the preset. A system that is not here has nothing to tune.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Real:
    """A number from `low` to `high`; by its logarithm where the range spans magnitudes."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[str | int | float | bool | None, ...]


Range: TypeAlias = "Real | Whole | Choice"

SEARCH_SPACES: Mapping[str, Mapping[str, Range]] = {
    "metatl": {
        "dim": Choice((64, 128, 192)),
        "trend_weight": Real(0.0, 1.0),
        "temperature": Real(10.0, 200.0, log=True),
        "learner_bias": Real(-6.0, 0.0),
        "item_dropout": Real(0.0, 0.6),
        "inner_lr": Real(0.05, 20.0, log=True),
        "window_share": Choice((0.0, 0.5, 1.0)),
        "shuffle_share": Choice((0.0, 0.5, 1.0)),
        "meta_lr": Real(1e-4, 2e-2, log=True),
        "max_steps": Choice((150, 300, 600)),
    },
    "knn": {
        "window": Choice((2, 5, 10, 20, None)),
        "distance_decay": Real(0.0, 1.5),
        "length_discount": Real(0.0, 1.0),
        "history_exponent": Real(0.3, 1.0),
        "candidate_exponent": Real(0.3, 1.0),
        "shrinkage": Real(1.0, 500.0, log=True),
        "recency": Real(0.4, 1.0),
        "second_step": Real(0.0, 8.0),
        "popularity": Real(0.0, 2.0),
    },
    "session-knn": {
        "neighbours": Whole(50, 4000, log=True),
        "recency": Real(0.4, 1.0),
        "length_exponent": Real(0.0, 1.0),
        "half_life": Choice((None, 0.5, 1.0, 2.0)),
        "distance_decay": Real(0.0, 1.5),
        "candidate_exponent": Real(0.0, 1.0),
        "shrinkage": Real(1.0, 500.0, log=True),
        "popularity": Real(0.0, 1.0),
    },
    "markov": {
        "window": Whole(1, 50, log=True),
        "distance_decay": Real(0.0, 1.5),
        "length_discount": Real(0.0, 1.0),
        "backward": Real(0.0, 1.5),
        "smoothing": Real(1.0, 1000.0, log=True),
    },
}
