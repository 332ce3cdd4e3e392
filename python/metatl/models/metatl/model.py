"""MetaTL: meta transitional learning for cold-start sequential recommendation.

Wang, Ding, Caverlee: Sequential Recommendation for Cold-start Users with Meta Transitional Learning, 2021.

One task, from its items to its loss (docs/method.md has the formulas in full):

1. The items i1 … iK of the support give K - 1 pairs. The learner maps each pair to a transition (Eq. 1,
   `transition.OneLayer`); their mean is the user transition tr (Eq. 2).
2. A pair h → t has the score s(h → t) = ‖h + tr - t‖², small for a likely one (`losses.Geometry`). The
   support loss compares each pair with negatives (Eq. 3, `support.pair_costs`, `losses.PairLoss`).
3. The inner loop descends the support loss (Eq. 4, `inner_loop.adapt`).
4. The query loss is the same loss of the pair iK → iK+1 after that step (Eq. 5, `MetaTL.episode_loss`).
5. The outer loop minimises the sum over tasks (Eq. 6, `metatl.training.outer_loop`).

A new user gets the same steps 1 to 3, and every item p is ranked by -s(iK → p) (`MetaTL.encode`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from metatl.exceptions import InvalidArgumentError
from metatl.models.compilation import compile_function
from metatl.models.contract import NO_ITEM, Encoded, Overrides, Similarity
from metatl.models.dropout import dropout, dropout_factors
from metatl.models.metatl.config import PRESETS, MetaTLConfig
from metatl.models.metatl.inner_loop import Adapted, InnerLoop, adapt
from metatl.models.metatl.losses import Geometry, PairLoss, exclude
from metatl.models.metatl.support import Slots, Support
from metatl.models.metatl.transition import Mlp, OneLayer
from metatl.models.support_negatives import check_negatives, deal
from metatl.models.trainable import TensorBatch, TrainableModel

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PRESETS", "MetaTL", "MetaTLConfig"]


class MetaTL(TrainableModel):
    """The model: item vectors, a transition learner, and the inner loop that adapts them to a user.

    Parameters
    ----------
    config : MetaTLConfig
    num_items : int
        I, size of the catalogue.

    Notes
    -----
    A user with a single interaction has no pair and hence no transition. ``encode`` then uses the mean
    transition of the training users, a buffer that `set_mean_transition` fills; before that it is zero.
    """

    config: MetaTLConfig
    mean_transition: Tensor
    evaluated: Tensor

    def __init__(self, config: MetaTLConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.embedding = nn.Embedding(num_items, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.init_scale)
        self.learner: OneLayer | Mlp
        if config.learner == "one_layer":
            self.learner = OneLayer(config.dim, config.transition_skip, config.learner_bias)
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

    @torch.no_grad()
    def start_items(self, vectors: Tensor, trend: Tensor) -> float:
        """Start the item vectors from given ones, and the biases so that items rank by inner product.

        -‖q - x‖² / T + ‖x‖² / T ranks as q·x does. The biases also get their share of the trend.

        Parameters
        ----------
        vectors : Tensor
            (I, d).
        trend : Tensor
            (I,).

        Returns
        -------
        float
            1: the vectors are taken as they are.
        """
        self.embedding.weight.copy_(vectors)
        if self.bias is not None:
            bias = vectors.square().sum(dim=1) / self.config.temperature + self.config.trend_weight * trend
            self.bias.copy_(bias.unsqueeze(1))
        return 1.0

    # --- Modes

    def after_evaluation(self) -> None:
        """Tell the model that training has been interrupted by an evaluation.

        With ``freeze_after_first_evaluation`` the model stays in evaluation mode from then on. The fact is
        part of the state dict, so a resumed training knows it.
        """
        self.evaluated.fill_(1)
        self.train(self.training)

    def train(self, mode: bool = True) -> MetaTL:
        """Set training mode, unless the released program's freeze is on and an evaluation has been."""
        if mode and self.config.freeze_after_first_evaluation and bool(self.evaluated):
            mode = False
        super().train(mode)
        return self

    # --- Training

    @property
    def row_tables(self) -> tuple[nn.Embedding, ...]:
        """The item vectors."""
        return (self.embedding,)

    @property
    def can_be_captured(self) -> bool:
        """True: the inner loop is in closed form, the same kernels at every step."""
        return True

    def compile_loss(self) -> None:
        """Have torch.compile fuse what follows the gathering of rows; their gradients may be sparse."""
        self._outer_objective = compile_function(self._outer_objective)  # type: ignore[method-assign]

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Outer objective of a batch of tasks; see `episode_loss`."""
        return self.episode_loss(batch.items, batch.negatives, batch.shared_negatives, item_offsets)

    def before_evaluation(self, histories: Tensor) -> None:
        """Learn the answer after one interaction; see `set_mean_transition`."""
        self.set_mean_transition(histories)

    def episode_loss(
        self,
        items: Tensor,
        negatives: Tensor,
        shared_negatives: Tensor,
        item_offsets: Tensor | None = None,
    ) -> Tensor:
        """Outer objective of a batch of tasks (Eq. 5): the query loss after adaptation.

        With ``outer_adds_support_loss`` L_S, before adaptation, comes on top.

        Parameters
        ----------
        items : Tensor
            (B, K + 1) int64: i1 … iK, and iK+1 to predict. ``NO_ITEM`` is padding: a zero vector that is not
            trained.
        negatives : Tensor
            (B, K, n) int64; [:, j] belong to the pair (items[:, j], items[:, j + 1]), the last to the query
            pair.
        shared_negatives : Tensor
            (m,) int64, for all tasks. The first ``shared_support_negatives`` also serve the support. One
            that equals the positive of a pair does not count for that pair.
        item_offsets : Tensor, optional
            (I, d), added to the item vectors for these tasks: what the vectors would be without their users
            (`metatl.models.item_start.spectral.cross_fitting`).

        Returns
        -------
        Tensor
            Scalar, the sum or mean over tasks.
        """
        flat = self._slots(
            torch.cat((items.reshape(-1), negatives.reshape(-1), shared_negatives)), item_offsets
        )
        return self._outer_objective(flat, items.shape, negatives.shape)

    def _outer_objective(self, flat: Slots, items_shape: torch.Size, negatives_shape: torch.Size) -> Tensor:
        """Outer objective from the slots of all tasks, followed by those of all negatives."""
        support, query, common = self._divide(flat, items_shape, negatives_shape)
        geometry = self._geometry()
        inner = self._inner_loop(geometry)
        # Eq. 1 to 4: transitions, tr, support loss, inner step.
        adapted = adapt(self.learner, support, inner, with_loss=self.config.outer_adds_support_loss)
        # Eq. 5: the query loss of each task after its inner step.
        loss = self._query_loss(adapted, query, common, geometry)
        if adapted.support_loss is not None:
            loss = loss + adapted.support_loss
        # Eq. 6 sums over tasks; the optimiser takes the step.
        return loss.sum() if self.config.outer_reduction == "sum" else loss.mean()

    def _divide(
        self, flat: Slots, items_shape: torch.Size, negatives_shape: torch.Size
    ) -> tuple[Support, Slots, Slots | None]:
        """Divide slots into supports, queries (B, 1 + n) and negatives that all queries share (m,)."""
        sizes = [items_shape.numel(), negatives_shape.numel()]
        sizes.append(flat.items.numel() - sum(sizes))
        in_tasks, in_pairs, common = flat.split(lambda part: torch.split(part, sizes))
        *sequence, target = in_tasks.in_shape(items_shape).split(lambda part: part.unbind(1))
        own, query_own = in_pairs.in_shape(negatives_shape).split(
            lambda part: torch.split(part, [items_shape[1] - 2, 1], dim=1)
        )
        supporting = self.config.shared_support_negatives
        support = Support(
            sequence,
            own if self.config.negatives else None,
            common.map(lambda part: part[:supporting]) if supporting else None,
        )
        query = target.map(lambda part: part.unsqueeze(1))
        if self.config.negatives:
            query = query.beside(query_own.map(lambda part: part[:, 0]))
        return support, query, common if self.config.shared_negatives else None

    def _query_loss(self, adapted: Adapted, query: Slots, common: Slots | None, geometry: Geometry) -> Tensor:
        """L_Q (B,) of each task: target and own negatives are (B, 1 + n), common negatives (m,)."""
        point = adapted.last + adapted.transition  # i_K + tr
        costs = geometry.of_offsets(point.unsqueeze(1) - adapted.rows_of(query), query.bias).cost
        target, negatives = torch.split(costs, [1, costs.shape[1] - 1], dim=1)
        if common is not None:
            if adapted.moves is None:
                common_costs = geometry.of_common(point.unsqueeze(0), common.rows, common.bias).cost[0]
            else:  # a task may have moved any of them: rows (B, m, d)
                common = common.for_each_task(point.shape[0])
                rows = adapted.rows_of(common)
                common_costs = geometry.of_common(point.unsqueeze(1), rows, common.bias).cost[:, 0]
            is_target = query.items[:, :1] == common.items
            common_costs = exclude(common_costs, is_target)
            negatives = torch.cat((negatives, common_costs), dim=1) if negatives.shape[1] else common_costs
        return self._pair_loss().values(target[:, 0], negatives)

    # --- Serving

    @property
    def similarity(self) -> Similarity:
        """How ``encode``'s queries meet `item_table`."""
        return self.config.distance

    @property
    def support_negatives(self) -> int:
        """Negatives per user that ``encode`` takes: as many as a training task's support has."""
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
            (B, L) int64, L ≥ 1, oldest first. L need not be the K of training. With L = 1 there is nothing
            to adapt to, and the query is i1 + the mean transition of the training users.
        negatives : Tensor, optional
            (B, `support_negatives`) int64, items that each user has not interacted with. The first
            ``shared_support_negatives`` meet every pair, the others are dealt to the pairs in turn.

        Returns
        -------
        Encoded
            Overrides are present where the inner step moves embeddings.

        Raises
        ------
        InvalidArgumentError
            If a shape is not as above.
        """
        if histories.dim() != 2 or histories.shape[1] < 1:  # noqa: PLR2004
            raise InvalidArgumentError(
                f"histories: found shape {tuple(histories.shape)}, expected (B, L) with L >= 1"
            )
        if histories.shape[1] == 1:
            return Encoded(self.embedding(histories[:, 0]) + self.mean_transition, None)
        own, common = self._deal_negatives(histories, negatives)
        was_training = self.training
        self.eval()
        try:
            support = Support(
                self._slots(histories).split(lambda part: part.unbind(1)),
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
        negatives = check_negatives(negatives, histories.shape[0], expected)
        common = negatives[:, : self.config.shared_support_negatives]
        own = None
        if self.config.negatives:
            rest = negatives[:, common.shape[1] :]
            own = deal(rest, histories.shape[1] - 1, self.config.negatives)
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
        """Store the mean user transition of Eq. 2, before adaptation: the answer after one interaction.

        Parameters
        ----------
        histories : Tensor
            (U, L) int64, L ≥ 2: interactions of the training users, oldest first.
        """
        was_training = self.training
        self.eval()
        try:
            total = torch.zeros_like(self.mean_transition)
            for block in torch.split(histories, 8192):
                support = Support(self._slots(block).split(lambda part: part.unbind(1)))
                total += self.learner(support.pairs()).mean(dim=1).sum(dim=0)
            self.mean_transition.copy_(total / histories.shape[0])
        finally:
            self.train(was_training)

    # --- Parts

    def _slots(self, items: Tensor, offsets: Tensor | None = None) -> Slots:
        """Gather rows and biases of items of any shape; padding gets a zero row."""
        padded = self.config.released_windows
        ids = items.clamp(min=0) if padded else items
        if ids.device.type == "cuda":
            ids = ids.int()  # half the passes of the sort that sums the gradients of equal items
        rows = self.embedding(ids)
        if offsets is not None:
            rows = rows + functional.embedding(ids, offsets)
        bias = None if self.bias is None else functional.embedding(ids, self.bias)[..., 0]
        keep = None
        if self.training and self.config.item_dropout > 0:
            if self.config.adapt == "learner_and_embeddings":
                # Embeddings that adapt need the factors themselves: they scale the gradient of the table's
                # row.
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
            inner_steps=config.inner_steps,
            inner_lr=config.inner_lr if self.inner_rates is None else self.inner_rates,
            first_order=config.first_order,
            adapt=config.adapt,
            # Serving answers a user at a time, whatever batch carries the user.
            support_reduction="mean"
            if serving and config.support_reduction == "batch_mean"
            else config.support_reduction,
            geometry=geometry,
            loss=self._pair_loss(),
        )
