"""Configuration of MetaTL, and its presets."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from metatl.common.arguments import check_choice
from metatl.exceptions import ConfigError
from metatl.models.contract import EpisodeSettings
from metatl.models.training_config import TrainingConfig

Preset: TypeAlias = Literal["paper", "official", "tuned"]
Adapt: TypeAlias = Literal["transition", "learner", "learner_and_embeddings"]
SupportReduction: TypeAlias = Literal["sum", "mean", "batch_mean"]
Distance: TypeAlias = Literal["squared_l2", "l2"]
Loss: TypeAlias = Literal["margin", "softmax"]


class MetaTLConfig(TrainingConfig):
    """Settings of MetaTL; immutable, unknown fields are errors.

    The defaults are those of the preset ``tuned``. ``inner_steps=0`` gives MetaTL−−.
    """

    k: int = Field(
        default=3,
        ge=2,
        description="K, number of interactions in the support set of a training task.",
    )
    dim: int = Field(default=128, ge=1, description="d, dimension of the item vectors and transitions.")
    item_start: Literal["random", "spectral"] = Field(
        default="spectral",
        description=(
            "Initial item vectors: random, or computed from the co-occurrences of the training users "
            "(`metatl.models.item_start.spectral`). With `spectral`, item biases start at "
            "‖x‖² / temperature, so that the squared distance ranks items as the inner product does."
        ),
    )
    cross_fit_folds: int = Field(
        default=5,
        ge=0,
        description=(
            'With `item_start="spectral"`: number of user folds. A task uses item vectors that were '
            "computed without the fold of its user. With 0, all tasks use the vectors computed from all "
            "users. Training keeps one table per fold in memory."
        ),
    )
    trend_weight: float = Field(
        default=0.4,
        ge=0,
        description=(
            'With `item_start="spectral"`: this weight times the recent trend of an item is added to its '
            "initial bias (`metatl.models.item_start.trends`)."
        ),
    )
    init_scale: float = Field(
        default=0.1, gt=0, description="Standard deviation of the random initial item vectors."
    )
    learner: Literal["one_layer", "mlp"] = Field(
        default="one_layer",
        description="Transition learner: one layer as in Eq. 1, or three as in the released program.",
    )
    hidden: tuple[int, ...] = Field(
        default=(500, 200), description="Widths of the hidden layers of the `mlp`."
    )
    batch_norm: bool = Field(
        default=False, description="Batch norm over the pair axis after every layer of the `mlp`."
    )
    learner_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout after the hidden layers of the `mlp`."
    )
    transition_skip: tuple[float, float] | None = Field(
        default=(1.3, 0.0),
        description="Initial c₁, c₂ of the linear skip of the one-layer learner; see `OneLayer`.",
    )
    learner_bias: float = Field(
        default=-3.0,
        description="Initial b of the one-layer learner; at -3 the sigmoid is near 0 and the skip dominates.",
    )
    item_dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the item vectors of a task.")
    item_bias: bool = Field(default=True, description="Add a trained bias per item to its score.")
    distance: Distance = Field(
        default="squared_l2",
        description="Distance of the score: squared Euclidean as in the paper, or Euclidean.",
    )
    temperature: float = Field(
        default=60.0, gt=0, description="Initial temperature: costs are distance / temperature - bias."
    )
    learned_temperature: bool = Field(default=False, description="Train the temperature.")
    inner_steps: int = Field(
        default=1, ge=0, description="Gradient steps of the inner loop; 0 gives MetaTL−−."
    )
    inner_lr: float = Field(default=5.0, ge=0, description="α of Eq. 4, the inner learning rate.")
    learned_inner_lr: bool = Field(
        default=False, description='Train α, one rate per dimension; needs `adapt="transition"`.'
    )
    first_order: bool = Field(
        default=False,
        description="Treat inner gradients as constants in the outer gradient (first-order MAML).",
    )
    adapt: Adapt = Field(
        default="transition",
        description="What the inner step updates: tr, the learner, or the learner and the item vectors.",
    )
    support_reduction: SupportReduction = Field(
        default="mean",
        description=(
            "Reduction of the support loss over the pairs. `batch_mean` is the mean over the whole batch, as "
            "in the released program: its inner step in training is smaller, by the batch size, than at "
            "test time, where the batch is one user."
        ),
    )
    loss: Loss = Field(
        default="softmax",
        description="Loss of a pair: the margin loss of Eq. 3 and 5, or -log of the softmax at the positive.",
    )
    margin: float = Field(default=1.0, ge=0, description="γ of Eq. 3.")
    negatives: int = Field(default=0, ge=0, description="Number of sampled negatives for each pair.")
    shared_negatives: int = Field(
        default=512,
        ge=0,
        description="Number of uniformly sampled negatives that all tasks of a batch share.",
    )
    shared_support_negatives: int = Field(
        default=32,
        ge=0,
        description=(
            "Number of the shared negatives that the support loss also uses. At test time each user gets "
            "as many sampled negatives."
        ),
    )
    outer_adds_support_loss: bool = Field(
        default=False,
        description=(
            "Minimise L_Q + L_S instead of L_Q, as the released program does: it leaves the gradient of "
            "L_S in the gradient buffers."
        ),
    )
    outer_reduction: Literal["sum", "mean"] = Field(
        default="mean", description="Reduction of the outer loss over the tasks of a batch; Eq. 6 sums."
    )
    window_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description=(
            "Share of tasks that are K + 1 consecutive interactions; the others are K + 1 random "
            "interactions in time order."
        ),
    )
    released_windows: bool = Field(
        default=False,
        description="Cut windows as the released program does, which is wrong; see the episode sampler.",
    )
    shuffle_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of tasks whose K + 1 items are put in random order."
    )
    meta_lr: float = Field(
        default=2e-3, gt=0, description="β of Eq. 6, the outer learning rate at the peak of the schedule."
    )
    warmup_steps: int = Field(default=30, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)
    batch_size: int = Field(default=1024, ge=1)
    max_steps: int = Field(default=300, ge=1)
    eval_every: int = Field(default=50, ge=1)
    freeze_after_first_evaluation: bool = Field(
        default=False,
        description=(
            "Stay in evaluation mode after the first validation (no dropout, batch norm frozen), as the "
            "released program does."
        ),
    )

    @classmethod
    def preset(cls, name: Preset, **changes: Any) -> MetaTLConfig:
        """Return the config of a preset, with some fields changed.

        Parameters
        ----------
        name : {"paper", "official", "tuned"}
            ``paper`` implements Eq. 1 to 6 literally, ``official`` reproduces the released program, and
            ``tuned`` is the default.
        **changes : object
            Fields that differ from the preset.

        Raises
        ------
        ConfigError
            If there is no such preset.
        pydantic.ValidationError
            If a changed field is unknown, out of range or inconsistent with other fields.
        """
        check_choice("preset", name, PRESETS, ConfigError)
        return cls(**{**PRESETS[name], **changes})

    @model_validator(mode="after")
    def _check(self) -> MetaTLConfig:
        problems = (
            (
                self.learner == "one_layer" and self.batch_norm,
                "batch_norm: learner='one_layer' has no batch norm; set learner='mlp' or batch_norm=false",
            ),
            (
                self.learner == "one_layer" and self.learner_dropout > 0,
                "learner_dropout: it applies to learner='mlp' only; set it to 0",
            ),
            (
                self.learner == "mlp" and self.transition_skip is not None,
                "transition_skip: learner='mlp' has no skip; set transition_skip=null",
            ),
            (
                self.learner == "mlp" and not (self.hidden and min(self.hidden) >= 1),
                f"hidden: expected widths of at least 1, found {self.hidden}",
            ),
            (
                self.learner == "mlp" and self.adapt != "transition",
                "adapt: learner='mlp' takes adapt='transition' only",
            ),
            (
                self.item_start == "random" and self.cross_fit_folds > 0,
                "cross_fit_folds: random item vectors need no cross-fitting; set it to 0",
            ),
            (
                self.trend_weight > 0 and not (self.item_start == "spectral" and self.item_bias),
                "trend_weight: it needs item_start='spectral' and item_bias=true; set it to 0",
            ),
            (
                self.cross_fit_folds == 1,
                "cross_fit_folds: without its only fold no user is left; set it to 0, or to 2 or more",
            ),
            (
                self.learned_inner_lr and (self.adapt != "transition" or self.inner_steps == 0),
                "learned_inner_lr: rates per dimension need adapt='transition' and inner_steps of 1 or more",
            ),
            (
                self.loss == "margin" and (self.learned_temperature or self.temperature != 1.0),
                "temperature: loss='margin' has none; set temperature=1 and learned_temperature=false",
            ),
            (
                self.negatives + self.shared_negatives == 0,
                "negatives: a task needs at least one; set negatives or shared_negatives to 1 or more",
            ),
            (
                self.shared_support_negatives > self.shared_negatives,
                f"shared_support_negatives: expected at most shared_negatives={self.shared_negatives}",
            ),
            (
                self.uses_support_loss and self.negatives + self.shared_support_negatives == 0,
                "shared_support_negatives: the support loss needs at least one; set it or negatives above 0",
            ),
            (
                self.released_windows and self.window_share == 0,
                "released_windows: there are no windows with window_share=0",
            ),
            (
                self.learner == "mlp" and self.learner_bias != 0,
                "learner_bias: it applies to learner='one_layer' only; set it to 0",
            ),
        )
        for is_wrong, message in problems:
            if is_wrong:
                raise ValueError(message)
        return self

    @property
    def episodes(self) -> EpisodeSettings:
        """Settings of the training tasks."""
        return EpisodeSettings(
            negatives=self.negatives,
            shared_negatives=self.shared_negatives,
            window_share=self.window_share,
            shuffle_share=self.shuffle_share,
            released_windows=self.released_windows,
        )

    @property
    def uses_support_loss(self) -> bool:
        """Whether training computes the support loss."""
        return self.inner_steps > 0 or self.outer_adds_support_loss

    @property
    def peak_learning_rate(self) -> float:
        """Outer learning rate β at the end of the warm-up."""
        return self.meta_lr


_ONE_NEGATIVE_MARGIN: dict[str, Any] = {
    "item_start": "random",
    "cross_fit_folds": 0,
    "trend_weight": 0.0,
    "transition_skip": None,
    "learner_bias": 0.0,
    "item_dropout": 0.0,
    "item_bias": False,
    "temperature": 1.0,
    "learned_temperature": False,
    "loss": "margin",
    "margin": 1.0,
    "negatives": 1,
    "shared_negatives": 0,
    "shared_support_negatives": 0,
    "shuffle_share": 0.0,
    "warmup_steps": 0,
    "final_lr_share": 1.0,
    "batch_size": 1024,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Eq. 1 to 6 literally. The paper does not state its learning rates and its dimension.
    "paper": {
        **_ONE_NEGATIVE_MARGIN,
        "dim": 100,
        "distance": "squared_l2",
        "adapt": "learner_and_embeddings",
        "inner_lr": 0.01,
        "support_reduction": "sum",
        "outer_reduction": "sum",
        "window_share": 0.0,
        "optimizer": "sgd",
        "init_scale": 0.03,
        "meta_lr": 0.03,
        "final_lr_share": 0.05,
        "max_steps": 3000,
        "eval_every": 500,
    },
    # The released program, as observed.
    "official": {
        **_ONE_NEGATIVE_MARGIN,
        "dim": 100,
        "learner": "mlp",
        "hidden": (500, 200),
        "batch_norm": True,
        "learner_dropout": 0.5,
        "distance": "l2",
        "adapt": "transition",
        "init_scale": 0.016,
        "first_order": True,
        "inner_lr": 5.0,
        "support_reduction": "batch_mean",
        "outer_adds_support_loss": True,
        "window_share": 0.5,
        "released_windows": True,
        "meta_lr": 1e-3,
        "max_steps": 8000,
        "eval_every": 1000,
        "patience": 3,
        "freeze_after_first_evaluation": True,
    },
    "tuned": {},
}
