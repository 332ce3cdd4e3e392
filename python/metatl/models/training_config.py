"""Base classes of the configs of trained systems: the settings of the outer loop and shared settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from metatl.models.contract import EpisodeSettings
from metatl.models.preset_config import CheckedConfig, PresetConfig

if TYPE_CHECKING:
    from typing_extensions import Self

    from metatl.models.contract import SequenceSettings

NextItemLoss: TypeAlias = Literal["softmax", "binary", "bpr", "bpr_max", "top1_max"]


class TrainingConfig(CheckedConfig):
    """Settings of the outer loop; immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="The optimiser.")
    warmup_steps: int = Field(default=0, ge=0, description="Steps of the linear warm-up.")
    final_lr_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="The cosine schedule ends at this share of the peak rate; 1 keeps the rate constant.",
    )
    batch_size: int = Field(default=256, ge=1, description="Tasks or sequences per step.")
    max_steps: int = Field(default=1000, ge=1, description="Maximum number of training steps.")
    eval_every: int = Field(default=100, ge=1, description="Steps between validations.")
    patience: int = Field(
        default=10, ge=1, description="Training stops after this many validations without a better MRR."
    )

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate at the end of the warm-up."""
        raise NotImplementedError

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine decay until `max_steps`.

        Parameters
        ----------
        step : int
            Counted from 0.
        """
        peak = self.peak_learning_rate
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps))
        cosine = (1.0 + math.cos(math.pi * progress)) / 2
        return peak * (self.final_lr_share + (1.0 - self.final_lr_share) * cosine)


_RANDOM_START: dict[str, Any] = {"item_start": "random", "trend_weight": 0.0, "cross_fit_folds": 0}


class BaselineConfig(PresetConfig, TrainingConfig):
    """Base of the configs of all trained baselines. The defaults are those of ``tuned``."""

    lr: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    item_start: Literal["random", "spectral"] = Field(
        default="spectral",
        description=(
            "Initial item vectors: random, or computed from the co-occurrences of the training users, as for "
            "MetaTL (`metatl.models.item_start.spectral`)."
        ),
    )
    start_length: float = Field(
        default=1.0, gt=0, description='With `item_start="spectral"`: mean norm of the initial item vectors.'
    )
    trend_weight: float = Field(
        default=0.4,
        ge=0,
        description=(
            'With `item_start="spectral"`: each item bias starts as this weight times the recent trend of '
            "the item (`metatl.models.item_start.trends`)."
        ),
    )
    cross_fit_folds: int = Field(
        default=5,
        ge=0,
        description=(
            'With `item_start="spectral"`: number of user folds. A row of a batch uses item vectors that '
            "were computed without the fold of its user. With 0, all rows use the vectors computed from all "
            "users."
        ),
    )

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.item_start == "random" and (self.cross_fit_folds or self.trend_weight):
            raise ValueError("item_start: cross_fit_folds and trend_weight need 'spectral'; set them to 0")
        if self.cross_fit_folds == 1:
            raise ValueError(
                "cross_fit_folds: without its only fold no user is left; set it to 0, or to 2 or more"
            )
        return self

    @classmethod
    def paper_settings(cls) -> dict[str, Any]:
        """Return the fields of ``paper`` that differ from the defaults; items start at random."""
        return {**_RANDOM_START, **cls.paper}

    @property
    def peak_learning_rate(self) -> float:
        """Learning rate at the end of the warm-up."""
        return self.lr

    @property
    def sequences(self) -> SequenceSettings:
        """Settings of the training sequences."""
        raise NotImplementedError


class PairConfig(BaselineConfig):
    """Base of the configs of systems that train on single interactions or pairs."""

    loss: NextItemLoss = Field(
        default="softmax",
        description="Loss of a target and its negatives; see `metatl.models.next_item_losses`.",
    )
    negatives: int = Field(default=0, ge=0, description="Negatives of each interaction or pair.")
    shared_negatives: int = Field(default=512, ge=0, description="Negatives for the whole batch.")

    @model_validator(mode="after")
    def _check_negatives(self) -> Self:
        if self.negatives + self.shared_negatives == 0:
            raise ValueError(
                "negatives: the loss needs at least one; set negatives or shared_negatives to 1 or more"
            )
        return self


class EpisodeConfig(BaselineConfig):
    """Base of the configs of the meta-learned systems other than MetaTL."""

    k: int = Field(
        default=3,
        ge=1,
        description="K, number of interactions in the support set of a training task.",
    )
    first_order: bool = Field(
        default=False,
        description="Treat inner gradients as constants in the outer gradient (first-order MAML).",
    )
    loss: NextItemLoss = Field(
        default="softmax",
        description="Loss of a target and its negatives; see `metatl.models.next_item_losses`.",
    )
    negatives: int = Field(default=4, ge=1, description="Negatives of each interaction.")
    shared_negatives: int = Field(
        default=128, ge=0, description="Negatives for the queries of the whole batch."
    )
    window_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description=(
            "Share of tasks that are consecutive interactions; the others are random interactions in time "
            "order."
        ),
    )
    shuffle_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of tasks whose interactions are put in random order."
    )

    @property
    def episodes(self) -> EpisodeSettings:
        """Settings of the training tasks."""
        return EpisodeSettings(
            negatives=self.negatives,
            shared_negatives=self.shared_negatives,
            window_share=self.window_share,
            shuffle_share=self.shuffle_share,
        )
