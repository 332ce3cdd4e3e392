"""The search spaces of `metatl tune`, one for each system.

A space holds the most important fields, with ranges well beyond the preset `tuned`. Other fields keep
the value of the preset. A system without a space cannot be tuned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Real:
    """A number from `low` to `high`, uniform or, with `log`, log-uniform."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Whole:
    """An integer from `low` to `high`, uniform or, with `log`, log-uniform."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[str | int | float | bool | None, ...]


Range: TypeAlias = "Real | Whole | OneOf"

_SEQUENCES: Mapping[str, Range] = {
    "lr": Real(3e-4, 3e-2, log=True),
    "dim": OneOf((32, 64, 128)),
    "max_length": OneOf((5, 10, 20, 50)),
    "start_length": Real(0.3, 5.0, log=True),
    "item_dropout": Real(0.0, 0.7),
    "shared_negatives": OneOf((0, 256, 512, 1024)),
    "shuffle_share": OneOf((0.0, 0.5, 1.0)),
    "max_steps": OneOf((400, 500, 600, 1000)),
}
"""The fields that all sequential baselines share."""

SEARCH_SPACES: Mapping[str, Mapping[str, Range]] = {
    "metatl": {
        "dim": OneOf((64, 128, 192)),
        "trend_weight": Real(0.0, 1.0),
        "temperature": Real(10.0, 200.0, log=True),
        "learner_bias": Real(-6.0, 0.0),
        "item_dropout": Real(0.0, 0.6),
        "inner_lr": Real(0.05, 20.0, log=True),
        "window_share": OneOf((0.0, 0.5, 1.0)),
        "shuffle_share": OneOf((0.0, 0.5, 1.0)),
        "meta_lr": Real(1e-4, 2e-2, log=True),
        "max_steps": OneOf((150, 300, 600)),
    },
    "knn": {
        "window": OneOf((2, 5, 10, 20, None)),
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
        "half_life": OneOf((None, 0.5, 1.0, 2.0)),
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
    "bpr": {
        "lr": Real(3e-4, 3e-2, log=True),
        "dim": OneOf((32, 64, 128)),
        "loss": OneOf(("bpr", "softmax")),
        "regularisation": Real(1e-4, 0.1, log=True),
        "user_dropout": Real(0.0, 0.7),
        "fold_in_rate": Real(0.1, 10.0, log=True),
        "fold_in_regularisation": Real(1e-4, 1.0, log=True),
        "max_steps": OneOf((1500, 3000, 6000)),
    },
    "transrec": {
        "lr": Real(3e-4, 3e-2, log=True),
        "dim": OneOf((32, 64, 128)),
        "start_length": Real(0.3, 5.0, log=True),
        "temperature": Real(0.1, 3.0, log=True),
        "item_dropout": Real(0.0, 0.7),
        "user_translations": OneOf((False, True)),
        "shuffle_share": OneOf((0.0, 0.5, 1.0)),
        "max_steps": OneOf((300, 600, 1500)),
    },
    "gru4rec": {
        **_SEQUENCES,
        "input_scale": Real(1.0, 12.0, log=True),
        "hidden": OneOf((64, 128, 256)),
        "state_dropout": Real(0.0, 0.7),
    },
    "tcn": {
        **_SEQUENCES,
        "input_scale": Real(1.0, 12.0, log=True),
        "kernel_size": Whole(2, 4),
        "dropout": Real(0.0, 0.7),
    },
    "sasrec": {
        **{
            name: values for name, values in _SEQUENCES.items() if name != "start_length"
        },  # its vectors start at random
        "blocks": OneOf((1, 2)),
        "heads": OneOf((1, 2)),
        "dropout": Real(0.0, 0.7),
    },
    "bert4rec": {
        **_SEQUENCES,
        "blocks": OneOf((1, 2)),
        "heads": OneOf((1, 2)),
        "dropout": Real(0.0, 0.5),
        "mask_share": Real(0.1, 0.7),
        "last_share": Real(0.0, 1.0),
    },
    "melu": {
        "lr": Real(3e-4, 3e-2, log=True),
        "dim": OneOf((64, 128)),
        "item_dropout": Real(0.0, 0.7),
        "inner_lr": Real(0.01, 1.0, log=True),
        "negatives": OneOf((1, 4, 16)),
        "shuffle_share": OneOf((0.0, 0.5, 1.0)),
        "max_steps": OneOf((300, 600, 1200)),
    },
    "metacf": {
        "lr": Real(3e-4, 3e-2, log=True),
        "dim": OneOf((32, 64, 128)),
        "layers": Whole(0, 3),
        "edge_share": Real(0.5, 1.0),
        "item_dropout": Real(0.0, 0.7),
        "inner_lr": Real(0.01, 1.0, log=True),
        "negatives": OneOf((1, 4, 8)),
        "shuffle_share": OneOf((0.0, 0.5, 1.0)),
        "max_steps": OneOf((150, 300, 600)),
    },
}
