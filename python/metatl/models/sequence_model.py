"""What the sequential baselines have in common: they read a sequence and rank what comes next at each place.

A subclass says how a sequence is read (`states`). The rest is here: item vectors, the losses and what the
contract of `metatl.models.contract` asks for. A cold user is no special case for these models: the history
is the sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from metatl.models.contract import NO_ITEM, Encoded, SequenceSettings, Similarity
from metatl.models.next_item_losses import NextItemLoss, next_item_loss
from metatl.models.trainable import TensorBatch, TrainableModel
from metatl.models.training_config import BaselineConfig

if TYPE_CHECKING:
    from torch import Tensor


class SequenceModelConfig(BaselineConfig):
    """What the settings of the sequential baselines have in common. The defaults are those of ``tuned``."""

    lr: float = Field(default=3e-3, gt=0)
    dim: int = Field(default=128, ge=1, description="d, of item vectors.")
    max_length: int = Field(
        default=10, ge=1, description="Items of a sequence that the model reads, the most recent ones."
    )
    init_scale: float = Field(default=0.02, gt=0, description="Standard deviation of initial item vectors.")
    item_dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Dropout on the item vectors that are read."
    )
    item_bias: bool = Field(default=True, description="A trained bias per item, added to its score.")
    tied: bool = Field(default=True, description="The vectors that are read are also those that are ranked.")
    loss: NextItemLoss = Field(default="softmax", description="See `next_item_loss`.")
    negatives: int = Field(
        default=0,
        ge=0,
        description="Negatives of each position; 0 with `shared_negatives` 0 ranks the whole catalogue.",
    )
    shared_negatives: int = Field(default=512, ge=0, description="Negatives that a batch shares.")
    popularity_exponent: float = Field(
        default=0.0,
        ge=0,
        description="Shared negatives are drawn in proportion to this power of their training interactions.",
    )
    batch_negatives: bool = Field(
        default=False,
        description="The targets of the other sequences at the same position are negatives too.",
    )
    score_penalty: float = Field(
        default=0.0, ge=0, description="Weight of the squared scores of negatives in `bpr_max`."
    )
    shuffle_share: float = Field(
        default=0.5, ge=0, le=1, description="Share of training sequences in random order."
    )

    @property
    def ranks_catalogue(self) -> bool:
        """Whether the loss compares a target with the whole catalogue."""
        return self.negatives + self.shared_negatives == 0 and not self.batch_negatives

    @property
    def sequences(self) -> SequenceSettings:
        """Users' rows, or windows of them."""
        return SequenceSettings(
            length=self.max_length,
            negatives=self.negatives,
            shared_negatives=self.shared_negatives,
            popularity_exponent=self.popularity_exponent,
            shuffle_share=self.shuffle_share,
        )


class SequenceModel(TrainableModel):
    """Base of the sequential baselines.

    Parameters
    ----------
    config : SequenceModelConfig
    num_items : int
        I, size of the catalogue.
    """

    config: SequenceModelConfig

    def __init__(self, config: SequenceModelConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.embedding = nn.Embedding(num_items, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.init_scale)
        self.output = self.embedding
        if not config.tied:
            self.output = nn.Embedding(num_items, config.dim)
            nn.init.normal_(self.output.weight, std=config.init_scale)
        self.bias = nn.Parameter(torch.zeros(num_items)) if config.item_bias else None

    # --- What a subclass says

    def states(self, rows: Tensor) -> Tensor:
        """Read sequences.

        Parameters
        ----------
        rows : Tensor
            (B, L, d), the vectors of the items, oldest first; anything after the end of a sequence.

        Returns
        -------
        Tensor
            (B, L, d). The state at a place depends on the rows up to it alone; states at places without
            an item mean nothing.
        """
        raise NotImplementedError

    # --- Training

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Mean loss over all places that have a next item."""
        rows = look_up(self.item_vectors(item_offsets), batch.items[:, :-1])
        output = self.output_vectors(item_offsets)
        return self.loss_at(
            self.states(rows), batch.items[:, 1:], batch.negatives, batch.shared_negatives, output
        )

    def output_vectors(self, item_offsets: Tensor | None) -> Tensor:
        """Vectors (I, d) that a batch ranks."""
        weight: Tensor = self.output.weight
        return weight if item_offsets is None else weight + item_offsets

    def loss_at(
        self, states: Tensor, targets: Tensor, negatives: Tensor, shared_negatives: Tensor, output: Tensor
    ) -> Tensor:
        """Mean loss over the places that have a target.

        Parameters
        ----------
        states : Tensor
            (B, L, d).
        targets : Tensor
            (B, L) int64, ``NO_ITEM`` where there is none.
        negatives : Tensor
            (B, L, n) int64.
        shared_negatives : Tensor
            (m,) int64.
        output : Tensor
            (I, d), the vectors that are ranked.
        """
        present = targets != NO_ITEM
        points, positives = states[present], targets[present]
        if self.config.ranks_catalogue:
            return functional.cross_entropy(functional.linear(points, output, self.bias), positives)
        scores = [self._score(points, negatives[present], output)]
        if shared_negatives.numel():
            bias = None if self.bias is None else self.bias[shared_negatives]
            shared = functional.linear(points, output[shared_negatives], bias)
            scores.append(shared.masked_fill(positives.unsqueeze(1) == shared_negatives, -torch.inf))
        if self.config.batch_negatives:
            scores.append(self._score_each_other(states, targets, present, output)[present])
        positive = self._score(points, positives.unsqueeze(1), output)[:, 0]
        others = torch.cat(scores, dim=1)
        # A place that is left without a negative says nothing.
        useful = (others > -torch.inf).any(dim=1)
        losses = next_item_loss(
            self.config.loss, positive[useful], others[useful], penalty=self.config.score_penalty
        )
        return losses.sum() / useful.sum().clamp(min=1)

    def _score(self, points: Tensor, items: Tensor, output: Tensor) -> Tensor:
        """Scores (n, m) of items (n, m), each for its own point (n, d)."""
        scores = torch.einsum("nd,nmd->nm", points, functional.embedding(items, output))
        return scores if self.bias is None else scores + self.bias[items]

    def _score_each_other(self, states: Tensor, targets: Tensor, present: Tensor, output: Tensor) -> Tensor:
        """Scores (B, L, B) of the targets that the sequences have at the same place; -inf where not one."""
        ids = targets.clamp(min=0)
        scores = torch.einsum("bld,cld->blc", states, functional.embedding(ids, output))
        if self.bias is not None:
            scores = scores + self.bias[ids].T
        no_negative = (targets.unsqueeze(2) == targets.T) | ~present.T
        return scores.masked_fill(no_negative, -torch.inf)

    # --- Serving

    @torch.no_grad()
    def start_items(self, vectors: Tensor, trend: Tensor) -> float:
        """Start all item vectors, read or ranked, from the given ones; see `TrainableModel.start_items`."""
        scale = super().start_items(vectors, trend)
        self.output.weight.copy_(self.embedding.weight)
        return scale

    @property
    def similarity(self) -> Similarity:
        """How a query meets an item vector."""
        return "dot"

    @property
    def support_negatives(self) -> int:
        """How many sampled items per user ``encode`` needs: none."""
        return 0

    @property
    def item_table(self) -> Tensor:
        """(I, d), one vector per item, without gradient."""
        return self.output.weight.detach()

    @property
    def item_bias(self) -> Tensor | None:
        """(I,), added to every score; None for no bias."""
        return None if self.bias is None else self.bias.detach()

    @torch.no_grad()
    def encode(self, histories: Tensor, negatives: Tensor | None = None) -> Encoded:  # noqa: ARG002
        """Read histories (B, L); the query is the state at the end. Always as in evaluation mode."""
        was_training = self.training
        self.eval()
        try:
            return Encoded(self.last_state(histories[:, -self.config.max_length :]), None)
        finally:
            self.train(was_training)

    def last_state(self, histories: Tensor) -> Tensor:
        """State (B, d) from which the item after a history (B, L) is ranked."""
        return self.states(look_up(self.embedding.weight, histories))[:, -1].contiguous()


def look_up(vectors: Tensor, items: Tensor) -> Tensor:
    """Vectors (..., d) of items (...); those of item 0 where there is none."""
    return functional.embedding(items.clamp(min=0), vectors)
