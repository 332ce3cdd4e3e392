"""MetaTL: meta transitional learning for cold-start sequential recommendation (Wang, Ding, Caverlee; SIGIR 2021).

A user's few interactions i1 … iK give K - 1 transitions; their mean tr is what the user does next to any item (Eq. 1
and 2). A pair is scored by the distance of i_h + tr and i_t. Before the next item is ranked, the parameters take a
few gradient steps on the user's own transitions (Eq. 3 and 4), and the outer loop trains for the result (Eq. 5, 6).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.nn import functional

from metatl.adaptation import Adapted, InnerLoop, Reduction, Target, adapt
from metatl.losses import Distance, Geometry, Loss, PairLoss, excluded_cost
from metatl.models.contract import NO_ITEM, Encoded, Overrides, Similarity
from metatl.models.dropout import dropout, dropout_factors
from metatl.models.transition import Mlp, OneLayer
from metatl.support import Slots, Support

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor

Preset: TypeAlias = Literal["paper", "official", "tuned"]


class MetaTLConfig(BaseModel):
    """Every choice that a MetaTL system makes; immutable, unknown fields are errors.

    The defaults are those of the preset ``tuned``. ``inner_steps=0`` gives MetaTL−−.

    Parameters
    ----------
    k : int
        K, the number of interactions of a training task before the one to predict.
    dim : int
        d, of items and transitions.
    init_scale : float
        Standard deviation of the initial item vectors.
    learner : {"one_layer", "mlp"}
        Eq. 1, or the released program's three layers.
    hidden : tuple of int
        Widths inside the ``mlp``.
    batch_norm : bool
        Batch norm over the pair axis after every layer of the ``mlp``.
    learner_dropout : float
        After the hidden layers of the ``mlp``.
    transition_skip : tuple of float, optional
        Initial c₁, c₂ of a linear skip beside the one layer; see `OneLayer`.
    item_dropout : float
        Dropout on the item vectors that a task gathers.
    item_bias : bool
        A trained bias per item, added to its score.
    distance : {"squared_l2", "l2"}
    temperature : float
        Initial temperature: costs are distance / temperature - bias.
    learned_temperature : bool
    inner_steps : int
    inner_lr : float
        α.
    learned_inner_lr : bool
        Train α, one per dimension; with ``adapt="transition"``.
    first_order : bool
        Treat inner gradients as constants in the outer gradient.
    adapt : {"transition", "learner", "learner_and_embeddings"}
        What the inner step moves.
    support_reduction : {"sum", "mean", "batch_mean"}
        Over the pairs of the support loss. The released program's mean runs over the whole batch, which makes its
        inner step smaller in training, by the batch size, than at test time, where the batch is one user.
    loss : {"margin", "softmax"}
    margin : float
        γ.
    negatives : int
        Negatives sampled for each pair.
    shared_negatives : int
        Negatives sampled uniformly for the whole batch, used by every task.
    shared_support_negatives : int
        How many of the shared negatives the support loss uses too. At test time each user gets as many of their own.
    outer_adds_support_loss : bool
        Minimise L_Q + L_S instead of L_Q (the released program leaves the gradient of L_S in the buffers).
    outer_reduction : {"sum", "mean"}
        Over the tasks of a batch. Eq. 6 sums.
    window_share : float
        Share of tasks that are consecutive windows; the rest are K + 1 random interactions in time order.
    released_windows : bool
        Cut the windows as the released program does, wrongly: see the episode sampler.
    shuffle_share : float
        Share of tasks whose K + 1 items are put in random order.
    optimizer : {"adam", "sgd"}
    meta_lr : float
        β, the peak of the schedule.
    warmup_steps : int
        Steps of linear warm-up.
    final_lr_share : float
        The cosine schedule ends at this share of `meta_lr`; 1 keeps the rate constant.
    batch_size : int
        Tasks per step.
    max_steps : int
    eval_every : int
        Steps between validations.
    patience : int
        Validations without a better MRR before training stops.
    freeze_after_first_evaluation : bool
        Never return to training mode after the first validation (dropout off, batch norm frozen), as the released
        program does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    k: int = Field(default=3, ge=2)
    dim: int = Field(default=128, ge=1)
    init_scale: float = Field(default=0.1, gt=0)
    learner: Literal["one_layer", "mlp"] = "one_layer"
    hidden: tuple[int, ...] = (500, 200)
    batch_norm: bool = False
    learner_dropout: float = Field(default=0.0, ge=0, lt=1)
    transition_skip: tuple[float, float] | None = (0.5, -0.5)
    item_dropout: float = Field(default=0.5, ge=0, lt=1)
    item_bias: bool = True
    distance: Distance = "squared_l2"
    temperature: float = Field(default=1.0, gt=0)
    learned_temperature: bool = True
    inner_steps: int = Field(default=1, ge=0)
    inner_lr: float = Field(default=0.1, ge=0)
    learned_inner_lr: bool = False
    first_order: bool = False
    adapt: Target = "transition"
    support_reduction: Reduction = "mean"
    loss: Loss = "softmax"
    margin: float = Field(default=1.0, ge=0)
    negatives: int = Field(default=0, ge=0)
    shared_negatives: int = Field(default=512, ge=0)
    shared_support_negatives: int = Field(default=32, ge=0)
    outer_adds_support_loss: bool = False
    outer_reduction: Literal["sum", "mean"] = "mean"
    window_share: float = Field(default=0.5, ge=0, le=1)
    released_windows: bool = False
    shuffle_share: float = Field(default=0.5, ge=0, le=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    meta_lr: float = Field(default=1e-2, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)
    batch_size: int = Field(default=1024, ge=1)
    max_steps: int = Field(default=1500, ge=1)
    eval_every: int = Field(default=250, ge=1)
    patience: int = Field(default=10, ge=1)
    freeze_after_first_evaluation: bool = False

    @classmethod
    def preset(cls, name: Preset, **changes: Any) -> MetaTLConfig:  # noqa: ANN401
        """Return a preset, with single fields changed.

        ``paper`` is Eq. 1 to 6 to the letter, ``official`` the released program's behaviour, ``tuned`` ours.
        """
        if name not in PRESETS:
            raise ValueError(f"preset: found {name!r}, expected one of {', '.join(PRESETS)}")
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
                self.adapt != "transition" and self.batch_norm and self.inner_steps > 0,
                f"adapt={self.adapt!r}: batch norm mixes the users of a batch, so a user has no gradient of their"
                " own by the learner; set batch_norm=false or adapt='transition'",
            ),
            (
                self.learned_inner_lr and (self.adapt != "transition" or self.inner_steps == 0),
                "learned_inner_lr: rates per dimension belong to adapt='transition' with inner_steps of 1 or more",
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
                f"shared_support_negatives: found {self.shared_support_negatives}, expected at most"
                f" shared_negatives={self.shared_negatives}",
            ),
            (
                self.uses_support_loss and self.negatives + self.shared_support_negatives == 0,
                "shared_support_negatives: the support loss needs at least one negative; set negatives or"
                " shared_support_negatives to 1 or more",
            ),
            (
                self.released_windows and self.window_share == 0,
                "released_windows: there are no windows with window_share=0",
            ),
        )
        for wrong, message in problems:
            if wrong:
                raise ValueError(message)
        return self

    @property
    def uses_support_loss(self) -> bool:
        """Whether a training task needs the support loss at all."""
        return self.inner_steps > 0 or self.outer_adds_support_loss

    def learning_rate(self, step: int) -> float:
        """Outer rate β of a step, counted from 0: linear warm-up, then a cosine to its final share at `max_steps`."""
        if step < self.warmup_steps:
            return self.meta_lr * (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps))
        cosine = (1.0 + math.cos(math.pi * progress)) / 2
        return self.meta_lr * (self.final_lr_share + (1.0 - self.final_lr_share) * cosine)


_ONE_NEGATIVE_MARGIN: dict[str, Any] = {
    "transition_skip": None,
    "item_dropout": 0.0,
    "item_bias": False,
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
        "meta_lr": 0.01,
        "max_steps": 8000,
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
        "first_order": True,
        "inner_lr": 5.0,
        "support_reduction": "batch_mean",
        "outer_adds_support_loss": True,
        "window_share": 0.5,
        "released_windows": True,
        "meta_lr": 1e-3,
        "max_steps": 8000,
        "eval_every": 1000,
        "freeze_after_first_evaluation": True,
    },
    "tuned": {},
}


class MetaTL(nn.Module):
    """The model: item vectors, a transition learner, and the inner loop that adapts them to a user.

    Parameters
    ----------
    config : MetaTLConfig
    num_items : int
        I, size of the catalogue.

    Notes
    -----
    A user with a single interaction has no pair and hence no transition. ``encode`` then uses the mean transition of
    the training users, a buffer that `set_mean_transition` fills; before that it is zero.
    """

    mean_transition: Tensor
    evaluated: Tensor

    def __init__(self, config: MetaTLConfig, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.num_items = num_items
        self.embedding = nn.Embedding(num_items, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.init_scale)
        self.learner: OneLayer | Mlp
        if config.learner == "one_layer":
            self.learner = OneLayer(config.dim, config.transition_skip)
        else:
            pairs = config.k - 1 if config.batch_norm else None
            self.learner = Mlp(config.dim, config.hidden, config.learner_dropout, pairs)
        self.bias = nn.Parameter(torch.zeros(num_items, 1)) if config.item_bias else None
        self.log_temperature = (
            nn.Parameter(torch.tensor(math.log(config.temperature))) if config.learned_temperature else None
        )
        self.inner_rates = (
            nn.Parameter(torch.full((config.dim,), config.inner_lr)) if config.learned_inner_lr else None
        )
        self.register_buffer("mean_transition", torch.zeros(config.dim))
        self.register_buffer("evaluated", torch.zeros((), dtype=torch.bool))

    # --- Saving -------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, np.ndarray]:
        """Give a copy of what a checkpoint must hold besides the settings."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Put back what `tensors` gave.

        Raises
        ------
        RuntimeError
            If names or shapes are not those of this model.
        """
        self.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})

    @classmethod
    def from_tensors(cls, config: MetaTLConfig, num_items: int, tensors: Mapping[str, np.ndarray]) -> MetaTL:
        """Rebuild a model from its settings and `tensors`.

        Raises
        ------
        RuntimeError
            If names or shapes are not those of such a model.
        """
        model = cls(config, num_items)
        model.load_tensors(tensors)
        return model.eval()

    # --- Modes --------------------------------------------------------------------------------------------------

    def after_evaluation(self) -> None:
        """Tell the model that training has been interrupted by an evaluation.

        With ``freeze_after_first_evaluation`` the model stays in evaluation mode from then on. The fact is part of
        the state dict, so a resumed training knows it.
        """
        self.evaluated.fill_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> MetaTL:
        """Set training mode, unless the released program's freeze is on and an evaluation has been."""
        if mode and self.config.freeze_after_first_evaluation and bool(self.evaluated):
            mode = False
        super().train(mode)
        return self

    # --- Training -----------------------------------------------------------------------------------------------

    def episode_loss(self, items: Tensor, negatives: Tensor, shared_negatives: Tensor) -> Tensor:
        """Outer objective of a batch of tasks (Eq. 5): the query loss after adaptation, plus L_S where configured.

        Parameters
        ----------
        items : Tensor
            (B, K + 1) int64: i1 … iK, and iK+1 to predict. ``NO_ITEM`` is padding: a zero vector that is not
            trained.
        negatives : Tensor
            (B, K, n) int64; [:, j] belong to the pair (items[:, j], items[:, j + 1]), the last to the query pair.
        shared_negatives : Tensor
            (m,) int64, for all tasks. The first ``shared_support_negatives`` also serve the support. One that equals
            the positive of a pair does not count for that pair.

        Returns
        -------
        Tensor
            Scalar, the sum or mean over tasks.
        """
        flat = self._slots(torch.cat((items.reshape(-1), negatives.reshape(-1), shared_negatives)))
        in_tasks, in_pairs, common = flat.divide(
            lambda part: part.split((items.numel(), negatives.numel(), shared_negatives.numel()))
        )
        *sequence, target = in_tasks.change(lambda part: part.unflatten(0, items.shape)).divide(
            lambda part: part.unbind(1)
        )
        own, query_own = in_pairs.change(lambda part: part.unflatten(0, negatives.shape)).divide(
            lambda part: part.split((items.shape[1] - 2, 1), dim=1)
        )
        supporting = self.config.shared_support_negatives
        support = Support(
            sequence,
            own if self.config.negatives else None,
            common.change(lambda part: part[:supporting]) if supporting else None,
        )
        query = target.change(lambda part: part.unsqueeze(1))
        if self.config.negatives:
            query = query.beside(query_own.change(lambda part: part[:, 0]))
        geometry = self._geometry()
        inner = self._inner_loop(geometry)
        adapted = adapt(self.learner, support, inner, with_loss=self.config.outer_adds_support_loss)
        loss = self._query_loss(adapted, query, common if self.config.shared_negatives else None, geometry)
        if adapted.support_loss is not None:
            loss = loss + adapted.support_loss
        return loss.sum() if self.config.outer_reduction == "sum" else loss.mean()

    def _query_loss(self, adapted: Adapted, query: Slots, common: Slots | None, geometry: Geometry) -> Tensor:
        """L_Q (B,) of each task, from its target and own negatives (B, 1 + n) and the common negatives (m,)."""
        point = adapted.last + adapted.transition
        costs = geometry.of_offsets(point.unsqueeze(1) - adapted.rows_of(query), query.bias).cost
        target, negatives = costs.split((1, costs.shape[1] - 1), dim=1)
        if common is not None:
            if adapted.moves is None:
                common_costs = geometry.of_common(point.unsqueeze(0), common.rows, common.bias).cost[0]
            else:  # a task may have moved any of them: rows (B, m, d)
                common = common.for_each_task(point.shape[0])
                rows = adapted.rows_of(common)
                common_costs = geometry.of_common(point.unsqueeze(1), rows, common.bias).cost[:, 0]
            is_target = query.items[:, :1] == common.items
            common_costs = common_costs.masked_fill(is_target, excluded_cost(costs.dtype))
            negatives = torch.cat((negatives, common_costs), dim=1) if negatives.shape[1] else common_costs
        return self._pair_loss().values(target[:, 0], negatives)

    # --- Serving ------------------------------------------------------------------------------------------------

    @property
    def similarity(self) -> Similarity:
        """How ``encode``'s queries meet `item_table`."""
        return self.config.distance

    @property
    def support_negatives(self) -> int:
        """Negatives per user that ``encode`` takes: what a training task's support has, for K interactions."""
        if self.config.inner_steps == 0:
            return 0
        return self.config.shared_support_negatives + self.config.negatives * (self.config.k - 1)

    @property
    def item_table(self) -> Tensor:
        """(I, d) item vectors, without gradient."""
        return self.embedding.weight.detach()

    @property
    def item_bias(self) -> Tensor | None:
        """(I,) what an item's bias adds to -distance: costs are distance / temperature - bias."""
        if self.bias is None:
            return None
        bias = self.bias.detach()[:, 0]
        if self.log_temperature is not None:
            return bias * self.log_temperature.detach().exp()
        return bias * self.config.temperature

    @torch.no_grad()
    def encode(self, histories: Tensor, negatives: Tensor | None = None) -> Encoded:
        """Adapt to users and return what ranks the catalogue for them; always as in evaluation mode.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64, L ≥ 1, oldest first. L need not be the K of training. With L = 1 there is nothing to adapt
            to, and the query is i1 + the mean transition of the training users.
        negatives : Tensor, optional
            (B, `support_negatives`) int64, items that each user has not interacted with. The first
            ``shared_support_negatives`` meet every pair, the others are dealt to the pairs in turn.

        Returns
        -------
        Encoded
            Overrides are present where the inner step moves embeddings.

        Raises
        ------
        ValueError
            If a shape is not as above.
        """
        if histories.dim() != 2 or histories.shape[1] < 1:  # noqa: PLR2004
            raise ValueError(f"histories: found shape {tuple(histories.shape)}, expected (B, L) with L >= 1")
        if histories.shape[1] == 1:
            return Encoded(self.embedding(histories[:, 0]) + self.mean_transition, None)
        own, common = self._deal_negatives(histories, negatives)
        was_training = self.training
        self.eval()
        try:
            support = Support(
                self._slots(histories).divide(lambda part: part.unbind(1)),
                None if own is None else self._slots(own),
                None if common is None else self._slots(common),
            )
            adapted = adapt(self.learner, support, self._inner_loop(self._geometry(), serving=True))
        finally:
            self.train(was_training)
        return Encoded(adapted.last + adapted.transition, self._overrides(adapted))

    def _deal_negatives(
        self, histories: Tensor, negatives: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Split a user's negatives (B, N) into the pairs' own (B, S, n) and the common ones (B, m)."""
        expected = self.support_negatives
        if expected == 0:
            return None, None
        found = None if negatives is None else tuple(negatives.shape)
        if negatives is None or found != (histories.shape[0], expected):
            raise ValueError(f"negatives: found {found}, expected shape {(histories.shape[0], expected)}")
        common = negatives[:, : self.config.shared_support_negatives]
        own = None
        if self.config.negatives:
            pairs = histories.shape[1] - 1
            dealt = torch.arange(pairs * self.config.negatives, device=negatives.device)
            dealt = common.shape[1] + dealt % (expected - common.shape[1])
            own = negatives[:, dealt].view(-1, pairs, self.config.negatives)
        return own, common if common.shape[1] else None

    def _overrides(self, adapted: Adapted) -> Overrides | None:
        """Rows that the inner steps moved, once per item."""
        if adapted.items is None:
            return None
        items = adapted.items
        equal = items.unsqueeze(2) == items.unsqueeze(1)
        repeated = equal.tril(diagonal=-1).any(dim=2)
        distinct = items.masked_fill(repeated, NO_ITEM)
        return Overrides(distinct, adapted.rows_of(Slots(items, self.embedding(items.clamp(min=0)))))

    @torch.no_grad()
    def set_mean_transition(self, histories: Tensor) -> None:
        """Store the mean user transition (Eq. 2, before adaptation), the answer for users with one interaction.

        Parameters
        ----------
        histories : Tensor
            (U, L) int64, L ≥ 2: interactions of the training users, oldest first.
        """
        was_training = self.training
        self.eval()
        try:
            total = torch.zeros_like(self.mean_transition)
            for block in histories.split(8192):
                support = Support(self._slots(block).divide(lambda part: part.unbind(1)))
                total += self.learner(support.pairs()).mean(dim=1).sum(dim=0)
            self.mean_transition.copy_(total / histories.shape[0])
        finally:
            self.train(was_training)

    # --- Parts --------------------------------------------------------------------------------------------------

    def _slots(self, items: Tensor) -> Slots:
        """Gather rows and biases of items of any shape; padding gets a zero row."""
        padded = self.config.released_windows
        ids = items.clamp(min=0) if padded else items
        rows = self.embedding(ids)
        bias = None if self.bias is None else functional.embedding(ids, self.bias)[..., 0]
        keep = None
        if self.training and self.config.item_dropout > 0:
            if self.config.adapt == "learner_and_embeddings":
                # Embeddings that adapt need the factors themselves: they scale the gradient of the table's row.
                keep = dropout_factors(rows, self.config.item_dropout)
                rows = rows * keep
            else:
                rows = dropout(rows, self.config.item_dropout, training=True)
        if padded:
            present = items != NO_ITEM
            rows = rows * present.unsqueeze(-1)
            bias = None if bias is None else bias * present
        return Slots(items, rows, bias, keep)

    def _geometry(self) -> Geometry:
        if self.log_temperature is not None:
            return Geometry(self.config.distance, torch.exp(-self.log_temperature))
        fixed = self.config.temperature
        return Geometry(self.config.distance, None if fixed == 1.0 else 1.0 / fixed)

    def _pair_loss(self) -> PairLoss:
        return PairLoss(self.config.loss, self.config.margin)

    def _inner_loop(self, geometry: Geometry, *, serving: bool = False) -> InnerLoop:
        config = self.config
        return InnerLoop(
            steps=config.inner_steps,
            rate=config.inner_lr if self.inner_rates is None else self.inner_rates,
            first_order=config.first_order,
            target=config.adapt,
            # Serving answers a user at a time, whatever batch carries the user.
            reduction="mean"
            if serving and config.support_reduction == "batch_mean"
            else config.support_reduction,
            geometry=geometry,
            loss=self._pair_loss(),
        )
