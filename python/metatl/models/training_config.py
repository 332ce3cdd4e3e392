"""How long, how fast and on how much at a time a system trains: what all trained systems have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from metatl.models.contract import EpisodeSettings
from metatl.models.next_item_losses import NextItemLoss  # noqa: TC001 (pydantic reads the annotation)
from metatl.models.preset_config import CheckedConfig, PresetConfig

if TYPE_CHECKING:
    from typing_extensions import Self

    from metatl.models.contract import SequenceSettings


class TrainingConfig(CheckedConfig):
    """Settings of the outer loop; immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="The optimiser.")
    warmup_steps: int = Field(default=0, ge=0, description="Steps of linear warm-up.")
    final_lr_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="The cosine schedule ends at this share of the peak rate; 1 keeps the rate constant.",
    )
    batch_size: int = Field(default=256, ge=1, description="Tasks, or sequences, per step.")
    max_steps: int = Field(default=1000, ge=1, description="Training steps at most.")
    eval_every: int = Field(default=100, ge=1, description="Steps between validations.")
    patience: int = Field(
        default=10, ge=1, description="Validations without a better MRR before training stops."
    )

    @property
    def peak_learning_rate(self) -> float:
        """The rate at the end of the warm-up."""
        raise NotImplementedError

    def learning_rate(self, step: int) -> float:
        """Rate of a step, counted from 0: linear warm-up, then a cosine that ends at `max_steps`."""
        peak = self.peak_learning_rate
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps))
        cosine = (1.0 + math.cos(math.pi * progress)) / 2
        return peak * (self.final_lr_share + (1.0 - self.final_lr_share) * cosine)


_RANDOM_START: dict[str, Any] = {"item_start": "random", "trend_weight": 0.0, "cross_fit_folds": 0}


class BaselineConfig(PresetConfig, TrainingConfig):
    """What the settings of all trained baselines have in common. The defaults are those of ``tuned``."""

    lr: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    item_start: Literal["random", "spectral"] = Field(
        default="spectral",
        description=(
            "Item vectors start at random, or from the co-occurrences of the training users, as "
            "MetaTL's do (`metatl.models.item_start.spectral`)."
        ),
    )
    start_length: float = Field(
        default=1.0, gt=0, description='With `item_start="spectral"`: the mean length of the vectors.'
    )
    trend_weight: float = Field(
        default=0.4,
        ge=0,
        description=(
            'With `item_start="spectral"`: item biases start with this much of the item\'s recent '
            "trend (`metatl.models.item_start.trends`)."
        ),
    )
    cross_fit_folds: int = Field(
        default=5,
        ge=0,
        description=(
            'With `item_start="spectral"`: a row of a batch meets item vectors from which its user\'s '
            "fold was left out. 0 lets every row meet vectors that its own user has shaped."
        ),
    )

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.item_start == "random" and (self.cross_fit_folds or self.trend_weight):
            raise ValueError("item_start: cross_fit_folds and trend_weight need 'spectral'; set them to 0")
        if self.cross_fit_folds == 1:
            raise ValueError(
                "cross_fit_folds: leaving out one fold of one leaves nobody; set 0, or 2 or more"
            )
        return self

    @classmethod
    def paper_settings(cls) -> dict[str, Any]:
        """Fields of ``paper`` that differ from the defaults; no paper starts from our graph."""
        return {**_RANDOM_START, **cls.paper}

    @property
    def peak_learning_rate(self) -> float:
        """The rate at the end of the warm-up."""
        return self.lr

    @property
    def sequences(self) -> SequenceSettings:
        """What the system trains on."""
        raise NotImplementedError


class PairConfig(BaselineConfig):
    """What the settings of systems that train on single interactions or pairs have in common."""

    loss: NextItemLoss = Field(
        default="softmax",
        description="The loss of a target among its negatives: see `metatl.models.next_item_losses`.",
    )
    negatives: int = Field(default=0, ge=0, description="Negatives of each interaction, or pair.")
    shared_negatives: int = Field(default=512, ge=0, description="Negatives that a batch shares.")

    @model_validator(mode="after")
    def _check_negatives(self) -> Self:
        if self.negatives + self.shared_negatives == 0:
            raise ValueError("negatives: the loss needs some; set negatives or shared_negatives above 0")
        return self


class EpisodeConfig(BaselineConfig):
    """What the settings of meta-learned systems beside MetaTL have in common."""

    k: int = Field(
        default=3,
        ge=1,
        description="K, the number of interactions of a training task before the one to predict.",
    )
    first_order: bool = Field(
        default=False, description="Treat inner gradients as constants in the outer gradient."
    )
    loss: NextItemLoss = Field(
        default="softmax",
        description="The loss of a target among its negatives: see `metatl.models.next_item_losses`.",
    )
    negatives: int = Field(default=4, ge=1, description="Negatives of each interaction.")
    shared_negatives: int = Field(
        default=128, ge=0, description="Negatives that the queries of a batch share."
    )
    window_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description=(
            "Share of tasks that are consecutive windows; the rest are random interactions in time order."
        ),
    )
    shuffle_share: float = Field(default=1.0, ge=0, le=1, description="Share of tasks in random order.")

    @property
    def episodes(self) -> EpisodeSettings:
        """The tasks to train on."""
        return EpisodeSettings(
            negatives=self.negatives,
            shared_negatives=self.shared_negatives,
            window_share=self.window_share,
            shuffle_share=self.shuffle_share,
        )
