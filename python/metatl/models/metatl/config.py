"""Every choice that a MetaTL system makes, and the presets."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from metatl.exceptions import ConfigError
from metatl.models.contract import EpisodeSettings
from metatl.models.metatl.inner_loop import Adapt, SupportReduction  # noqa: TC001 (pydantic reads the annotations)
from metatl.models.metatl.losses import Distance, Loss  # noqa: TC001
from metatl.models.training_config import TrainingConfig

Preset: TypeAlias = Literal["paper", "official", "tuned"]


class MetaTLConfig(TrainingConfig):
    """Every choice that a MetaTL system makes; immutable, unknown fields are errors.

    The defaults are those of the preset ``tuned``. ``inner_steps=0`` gives MetaTL−−.
    """

    k: int = Field(
        default=3,
        ge=2,
        description="K, the number of interactions of a training task before the one to predict.",
    )
    dim: int = Field(default=128, ge=1, description="d, of items and transitions.")
    item_start: Literal["random", "spectral"] = Field(
        default="spectral",
        description=(
            "Item vectors start at random, or from the co-occurrences of the training users "
            "(`metatl.models.item_start.spectral`); then item biases start at ‖x‖² / temperature, so "
            "that the squared distance ranks as the inner product does."
        ),
    )
    cross_fit_folds: int = Field(
        default=5,
        ge=0,
        description=(
            'With `item_start="spectral"`: a task meets item vectors from which its user\'s fold was '
            "left out. 0 lets every task meet vectors that its own user has shaped. Training holds "
            "one table per fold."
        ),
    )
    trend_weight: float = Field(
        default=0.4,
        ge=0,
        description=(
            'With `item_start="spectral"`: item biases also start with this much of the item\'s recent '
            "trend (`metatl.models.item_start.trends`)."
        ),
    )
    init_scale: float = Field(
        default=0.1, gt=0, description="Standard deviation of random initial item vectors."
    )
    learner: Literal["one_layer", "mlp"] = Field(
        default="one_layer", description="Eq. 1, or the released program's three layers."
    )
    hidden: tuple[int, ...] = Field(default=(500, 200), description="Widths inside the `mlp`.")
    batch_norm: bool = Field(
        default=False, description="Batch norm over the pair axis after every layer of the `mlp`."
    )
    learner_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="After the hidden layers of the `mlp`."
    )
    transition_skip: tuple[float, float] | None = Field(
        default=(1.3, 0.0),
        description="Initial c₁, c₂ of a linear skip beside the one layer; see `OneLayer`.",
    )
    learner_bias: float = Field(
        default=-3.0,
        description=("Initial b of the one layer: -3 starts the sigmoid near 0, so that the skip decides."),
    )
    item_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout on the item vectors that a task gathers."
    )
    item_bias: bool = Field(default=True, description="A trained bias per item, added to its score.")
    distance: Distance = Field(
        default="squared_l2",
        description="Squared Euclidean distance as in the paper's score, or the distance itself.",
    )
    temperature: float = Field(
        default=60.0, gt=0, description="Initial temperature: costs are distance / temperature - bias."
    )
    learned_temperature: bool = Field(default=False, description="Train the temperature.")
    inner_steps: int = Field(
        default=1, ge=0, description="Gradient steps of the inner loop; 0 gives MetaTL−−."
    )
    inner_lr: float = Field(default=5.0, ge=0, description="Inner learning rate α of Eq. 4.")
    learned_inner_lr: bool = Field(
        default=False, description='Train α, one per dimension; with `adapt="transition"`.'
    )
    first_order: bool = Field(
        default=False, description="Treat inner gradients as constants in the outer gradient."
    )
    adapt: Adapt = Field(default="transition", description="What the inner step moves.")
    support_reduction: SupportReduction = Field(
        default="mean",
        description=(
            "Over the pairs of the support loss. The released program's mean runs over the whole "
            "batch, which makes its inner step smaller in training, by the batch size, than at test "
            "time, where the batch is one user."
        ),
    )
    loss: Loss = Field(default="softmax", description="Eq. 3 and 5, or -log of the softmax at the positive.")
    margin: float = Field(default=1.0, ge=0, description="γ of Eq. 3.")
    negatives: int = Field(default=0, ge=0, description="Negatives sampled for each pair.")
    shared_negatives: int = Field(
        default=512, ge=0, description="Negatives sampled uniformly for the whole batch, used by every task."
    )
    shared_support_negatives: int = Field(
        default=32,
        ge=0,
        description=(
            "How many of the shared negatives the support loss uses too. At test time each user gets "
            "as many of their own."
        ),
    )
    outer_adds_support_loss: bool = Field(
        default=False,
        description=(
            "Minimise L_Q + L_S instead of L_Q (the released program leaves the gradient of L_S in "
            "the buffers)."
        ),
    )
    outer_reduction: Literal["sum", "mean"] = Field(
        default="mean", description="Over the tasks of a batch. Eq. 6 sums."
    )
    window_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description=(
            "Share of tasks that are consecutive windows; the rest are K + 1 random interactions in "
            "time order."
        ),
    )
    released_windows: bool = Field(
        default=False,
        description="Cut the windows as the released program does, wrongly: see the episode sampler.",
    )
    shuffle_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of tasks whose K + 1 items are put in random order."
    )
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="The outer optimiser.")
    meta_lr: float = Field(
        default=2e-3, gt=0, description="Outer learning rate β of Eq. 6, at the peak of the schedule."
    )
    warmup_steps: int = Field(default=30, ge=0, description="Steps of linear warm-up.")
    final_lr_share: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="The cosine schedule ends at this share of `meta_lr`; 1 keeps the rate constant.",
    )
    batch_size: int = Field(default=1024, ge=1, description="Tasks per step.")
    max_steps: int = Field(default=300, ge=1, description="Outer steps at most.")
    eval_every: int = Field(default=50, ge=1, description="Steps between validations.")
    patience: int = Field(
        default=10, ge=1, description="Validations without a better MRR before training stops."
    )
    freeze_after_first_evaluation: bool = Field(
        default=False,
        description=(
            "Never return to training mode after the first validation (dropout off, batch norm "
            "frozen), as the released program does."
        ),
    )

    @classmethod
    def preset(cls, name: Preset, **changes: Any) -> MetaTLConfig:
        """Return a preset, with single fields changed.

        ``paper`` is Eq. 1 to 6 to the letter, ``official`` the released program's behaviour, ``tuned`` ours.

        Raises
        ------
        ConfigError
            If there is no such preset.
        pydantic.ValidationError
            If a changed field is unknown, out of range or at odds with others.
        """
        if name not in PRESETS:
            raise ConfigError(f"preset: found {name!r}, expected one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})

    @model_validator(mode="after")
    def _check(self) -> MetaTLConfig:
        problems = (
            (
                self.learner == "one_layer" and self.batch_norm,
                "batch_norm: the one-layer learner of Eq. 1 has none; set learner='mlp' or batch_norm=false",
            ),
            (
                self.learner == "one_layer" and self.learner_dropout > 0,
                "learner_dropout: it acts between the layers of learner='mlp' only; set it to 0",
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
                "cross_fit_folds: random vectors owe nothing to any user; set it to 0",
            ),
            (
                self.trend_weight > 0 and not (self.item_start == "spectral" and self.item_bias),
                "trend_weight: it needs item_start='spectral' and item_bias=true; set it to 0",
            ),
            (
                self.cross_fit_folds == 1,
                "cross_fit_folds: leaving out one fold of one leaves nobody; set 0, or 2 or more",
            ),
            (
                self.learned_inner_lr and (self.adapt != "transition" or self.inner_steps == 0),
                "learned_inner_lr: rates per dimension need adapt='transition' and inner_steps of 1 or more",
            ),
            (
                self.loss == "margin" and (self.learned_temperature or self.temperature != 1.0),
                "temperature: the margin loss has none; set temperature=1 and learned_temperature=false",
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
                "shared_support_negatives: the support loss needs it or negatives to be 1 or more",
            ),
            (
                self.released_windows and self.window_share == 0,
                "released_windows: there are no windows with window_share=0",
            ),
            (
                self.learner == "mlp" and self.learner_bias != 0,
                "learner_bias: it starts the one layer only; set it to 0",
            ),
        )
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)
        return self

    @property
    def episodes(self) -> EpisodeSettings:
        """The tasks to train on."""
        return EpisodeSettings(
            negatives=self.negatives,
            shared_negatives=self.shared_negatives,
            window_share=self.window_share,
            shuffle_share=self.shuffle_share,
            released_windows=self.released_windows,
        )

    @property
    def uses_support_loss(self) -> bool:
        """Whether a training task needs the support loss at all."""
        return self.inner_steps > 0 or self.outer_adds_support_loss

    @property
    def peak_learning_rate(self) -> float:
        """Outer rate β at the end of the warm-up."""
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
    # Eq. 1 to 6 to the letter. The paper leaves its rates and the dimension open.
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
