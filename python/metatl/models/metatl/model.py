"""MetaTL: meta transitional learning for cold-start sequential recommendation.

Wang, Ding, Caverlee: Sequential Recommendation for Cold-start Users with Meta Transitional Learning, 2021.

One task, from its items to its loss (docs/method.md has all formulas):

1. The items i1 … iK of the support set form K - 1 pairs. The learner maps each pair to a transition (Eq. 1,
   `transition.OneLayer`); their mean is the user transition tr (Eq. 2).
2. The score of a pair h → t is s(h → t) = ‖h + tr - t‖²; likely pairs have low scores (`losses.Geometry`).
   The support loss compares each pair with negatives (Eq. 3, `support.pair_costs`, `losses.PairLoss`).
3. The inner loop takes gradient steps on the support loss (Eq. 4, `inner_loop.adapt`).
4. The query loss is the same loss for the pair iK → iK+1 after these steps (Eq. 5, `MetaTL.episode_loss`).
5. The outer loop minimises the sum over tasks (Eq. 6, `metatl.training.outer_loop`).

For a new user, steps 1 to 3 are the same, and each item p is ranked by -s(iK → p) (`MetaTL.encode`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from metatl.exceptions import ConfigError, InvalidArgumentError
from metatl.models.compilation import compile_function
from metatl.models.contract import NO_ITEM, Encoded, Overrides, Similarity
from metatl.models.dropout import dropout, dropout_factors
from metatl.models.metatl.config import PRESETS, MetaTLConfig
from metatl.models.metatl.inner_loop import Adapted, InnerLoop, adapt
from metatl.models.metatl.losses import Geometry, PairLoss, exclude
from metatl.models.metatl.support import Slots, Support
from metatl.models.metatl.transition import Mlp, OneLayer
from metatl.models.metatl.transition_encoder import TransitionEncoder
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
        The settings.
    num_items : int
        I, number of items in the catalogue.

    Notes
    -----
    A user with a single interaction has no pair and no transition. ``encode`` then uses the mean transition
    of the training users, a buffer that `set_mean_transition` computes; it is initially zero.
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
        """Initialise the item vectors, and the biases so that items rank by inner product.

        -‖q - x‖² / T + ‖x‖² / T ranks items as q·x does. The biases also include `trend_weight` times the
        trend.

        Parameters
        ----------
        vectors : Tensor
            (I, d) float32, the item vectors.
        trend : Tensor
            (I,) float32, the recent trend of each item.

        Returns
        -------
        float
            1, because the vectors are not scaled.
        """
        self.embedding.weight.copy_(vectors)
        if self.bias is not None:
            bias = vectors.square().sum(dim=1) / self.config.temperature + self.config.trend_weight * trend
            self.bias.copy_(bias.unsqueeze(1))
        return 1.0

    # --- Modes

    def after_evaluation(self) -> None:
        """Record that an evaluation took place.

        With ``freeze_after_first_evaluation`` the model then stays in evaluation mode. The record is part of
        the state dict, so it also holds after training resumes.
        """
        self.evaluated.fill_(1)
        self.train(self.training)

    def train(self, mode: bool = True) -> MetaTL:
        """Set the mode; with ``freeze_after_first_evaluation``, always evaluation after an evaluation."""
        if mode and self.config.freeze_after_first_evaluation and bool(self.evaluated):
            mode = False
        super().train(mode)
        return self

    # --- Training

    @property
    def row_tables(self) -> tuple[nn.Embedding, ...]:
        """The table of item vectors."""
        return (self.embedding,)

    @property
    def can_be_captured(self) -> bool:
        """True: the inner loop has a closed form, so each step runs the same kernels."""
        return True

    def compile_loss(self) -> None:
        """Compile the loss with torch.compile, except the row lookups, whose gradients may be sparse."""
        self._outer_objective = compile_function(self._outer_objective)  # type: ignore[method-assign]

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Compute the outer objective of a batch of tasks; see `episode_loss`."""
        return self.episode_loss(batch.items, batch.negatives, batch.shared_negatives, item_offsets)

    def before_evaluation(self, histories: Tensor) -> None:
        """Compute the mean transition, for users with one interaction; see `set_mean_transition`."""
        self.set_mean_transition(histories)

    def episode_loss(
        self,
        items: Tensor,
        negatives: Tensor,
        shared_negatives: Tensor,
        item_offsets: Tensor | None = None,
    ) -> Tensor:
        """Compute the outer objective of a batch of tasks (Eq. 5): the query loss after adaptation.

        With ``outer_adds_support_loss`` it includes L_S before adaptation.

        Parameters
        ----------
        items : Tensor
            (B, K + 1) int64: the support items i1 … iK and the target iK+1. ``NO_ITEM`` is padding: a zero
            vector that is not trained.
        negatives : Tensor
            (B, K, n) int64. [:, j] are the negatives of the pair (items[:, j], items[:, j + 1]); the last
            pair is the query.
        shared_negatives : Tensor
            (m,) int64, negatives of all tasks. The support loss also uses the first
            ``shared_support_negatives``. A negative that equals the positive of a pair is excluded for that
            pair.
        item_offsets : Tensor, optional
            (I, d) float32, added to the item vectors for these tasks. The offsets remove the influence of
            the tasks' users from the initial vectors
            (`metatl.models.item_start.spectral.cross_fitting`).

        Returns
        -------
        Tensor
            Scalar float32, the sum or mean over tasks.
        """
        flat = self._slots(
            torch.cat((items.reshape(-1), negatives.reshape(-1), shared_negatives)), item_offsets
        )
        return self._outer_objective(flat, items.shape, negatives.shape)

    def _outer_objective(self, flat: Slots, items_shape: torch.Size, negatives_shape: torch.Size) -> Tensor:
        """Compute the outer objective from flat slots: all items of the tasks, then all negatives."""
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
        """Divide flat slots into the support sets, the queries (B, 1 + n) and the shared negatives (m,)."""
        sizes = [items_shape.numel(), negatives_shape.numel()]
        sizes.append(flat.items.numel() - sum(sizes))
        in_tasks, in_pairs, common = flat.split(lambda part: torch.split(part, sizes))
        *sequence, target = in_tasks.reshape(items_shape).split(lambda part: part.unbind(1))
        own, query_own = in_pairs.reshape(negatives_shape).split(
            lambda part: torch.split(part, [items_shape[1] - 2, 1], dim=1)
        )
        support_count = self.config.shared_support_negatives
        support = Support(
            sequence,
            own if self.config.negatives else None,
            common.map(lambda part: part[:support_count]) if support_count else None,
        )
        query = target.map(lambda part: part.unsqueeze(1))
        if self.config.negatives:
            query = query.concatenate(query_own.map(lambda part: part[:, 0]))
        return support, query, common if self.config.shared_negatives else None

    def _query_loss(self, adapted: Adapted, query: Slots, common: Slots | None, geometry: Geometry) -> Tensor:
        """Compute L_Q (B,) of each task; `query` is target and own negatives (B, 1 + n), `common` is (m,)."""
        point = adapted.last + adapted.transition  # i_K + tr
        costs = geometry.of_offsets(point.unsqueeze(1) - adapted.rows_of(query), query.bias).cost
        target, negatives = torch.split(costs, [1, costs.shape[1] - 1], dim=1)
        if common is not None:
            if adapted.moves is None:
                common_costs = geometry.of_common(point.unsqueeze(0), common.rows, common.bias).cost[0]
            else:  # a task may have updated any of these rows, so each task has its own: (B, m, d)
                common = common.expand(point.shape[0])
                rows = adapted.rows_of(common)
                common_costs = geometry.of_common(point.unsqueeze(1), rows, common.bias).cost[:, 0]
            is_target = query.items[:, :1] == common.items
            common_costs = exclude(common_costs, is_target)
            negatives = torch.cat((negatives, common_costs), dim=1) if negatives.shape[1] else common_costs
        return self._pair_loss().values(target[:, 0], negatives)

    # --- Serving

    @property
    def similarity(self) -> Similarity:
        """Similarity of a query and an item vector: the negative distance."""
        return self.config.distance

    @property
    def support_negatives(self) -> int:
        """Number of negatives per user that ``encode`` needs: as in the support set of a training task."""
        if self.config.inner_steps == 0:
            return 0
        return self.config.shared_support_negatives + self.config.negatives * (self.config.k - 1)

    @property
    def item_table(self) -> Tensor:
        """(I, d) float32, one vector per item, without gradient."""
        return self.embedding.weight.detach()

    @property
    def item_bias(self) -> Tensor | None:
        """(I,) float32, bias · temperature: costs are distance / temperature - bias. None for no bias."""
        if self.bias is None:
            return None
        bias = self.bias.detach()[:, 0]
        if self.log_temperature is not None:
            return bias * self.log_temperature.detach().exp()
        return bias * self.config.temperature

    def query_encoder(self, *, num_threads: int | None = None) -> TransitionEncoder | None:
        """Return the encoder without torch, with the present weights; None if `encode` is needed.

        Parameters
        ----------
        num_threads : int, optional
            Threads of the kernels.
        """
        weight = self.embedding.weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            return None
        tensors = {name: tensor.numpy() for name, tensor in self.state_dict().items()}
        return TransitionEncoder.of(self.config, tensors, num_threads=num_threads)

    @torch.no_grad()
    def encode(self, histories: Tensor, negatives: Tensor | None = None) -> Encoded:
        """Adapt to users in evaluation mode and return their queries.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64, L ≥ 1, oldest item first. L may differ from the K of training. With L = 1 there is
            no inner step, and the query is i1 + the mean transition of the training users.
        negatives : Tensor, optional
            (B, `support_negatives`) int64, items outside each history. The first
            ``shared_support_negatives`` are negatives of all pairs; the others are distributed to the pairs
            by `deal`.

        Returns
        -------
        Encoded
            The queries, with overrides if the inner step updates embeddings.

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
        adapted = self._adapt_to(histories, negatives)
        return Encoded(adapted.last + adapted.transition, self._overrides(adapted))

    @torch.no_grad()
    def encode_any_length(self, histories: Tensor, negatives: Tensor | None) -> Tensor:
        """See :meth:`metatl.models.contract.EncodesAnyLength.encode_any_length`."""
        if self.config.inner_steps > 0 and self.config.adapt == "learner_and_embeddings":
            raise ConfigError(
                "adapt: found learner_and_embeddings, which changes item vectors for each user; an export "
                "has one item table, and needs adapt=transition or learner, or inner_steps=0"
            )
        adapted = self._adapt_to(histories, negatives)
        has_pairs = torch.ones_like(histories).sum(dim=1, keepdim=True) > 1
        return adapted.last + torch.where(has_pairs, adapted.transition, self.mean_transition)

    def _adapt_to(self, histories: Tensor, negatives: Tensor | None) -> Adapted:
        own, common = self._deal_negatives(histories, negatives)
        was_training = self.training
        self.eval()
        try:
            support = Support(
                self._slots(histories),
                None if own is None else self._slots(own),
                None if common is None else self._slots(common),
            )
            return adapt(self.learner, support, self._inner_loop(self._geometry(), serving=True))
        finally:
            self.train(was_training)

    def _deal_negatives(
        self, histories: Tensor, negatives: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Split negatives (B, N) into the own negatives of the pairs (B, S, n) and common ones (B, m)."""
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
        """Return the rows that the inner steps updated, once per item."""
        if adapted.items is None:
            return None
        items = adapted.items
        equal = items.unsqueeze(2) == items.unsqueeze(1)
        repeated = equal.tril(diagonal=-1).any(dim=2)
        distinct = items.masked_fill(repeated, NO_ITEM)
        return Overrides(distinct, adapted.rows_of(Slots(items, self.embedding(items.clamp(min=0)))))

    @torch.no_grad()
    def set_mean_transition(self, histories: Tensor) -> None:
        """Store the mean user transition of Eq. 2, before adaptation, for users with one interaction.

        Parameters
        ----------
        histories : Tensor
            (U, L) int64, L ≥ 2, interactions of the training users, oldest first.
        """
        was_training = self.training
        self.eval()
        try:
            total = torch.zeros_like(self.mean_transition)
            for block in torch.split(histories, 8192):
                support = Support(self._slots(block))
                total += self.learner(support.pairs()).mean(dim=1).sum(dim=0)
            self.mean_transition.copy_(total / histories.shape[0])
        finally:
            self.train(was_training)

    # --- Parts

    def _slots(self, items: Tensor, offsets: Tensor | None = None) -> Slots:
        """Look up the rows and biases of items of any shape; padding gets a zero row."""
        padded = self.config.released_windows
        ids = items.clamp(min=0) if padded else items
        if ids.device.type == "cuda":
            # The backward pass sorts ids to sum the gradients of equal items; int32 halves its passes.
            ids = ids.int()
        rows = self.embedding(ids)
        if offsets is not None:
            rows = rows + functional.embedding(ids, offsets)
        bias = None if self.bias is None else functional.embedding(ids, self.bias)[..., 0]
        keep = None
        if self.training and self.config.item_dropout > 0:
            if self.config.adapt == "learner_and_embeddings":
                # The factors are kept, because they scale the gradient of the table's row in the inner step.
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
            # The result for a user must not depend on the other users of the batch.
            support_reduction="mean"
            if serving and config.support_reduction == "batch_mean"
            else config.support_reduction,
            geometry=geometry,
            loss=self._pair_loss(),
        )
