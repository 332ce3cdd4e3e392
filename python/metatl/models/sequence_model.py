"""Base of the sequential baselines: they read a sequence and predict the next item at each position.

A subclass defines how a sequence is read (`states`). The base holds the item vectors, the losses and the
interface of `metatl.models.contract`. Cold users need no special case: their history is the sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from metatl.models.contract import NO_ITEM, Encoded, SequenceSettings, Similarity
from metatl.models.next_item_losses import next_item_loss
from metatl.models.trainable import TensorBatch, TrainableModel
from metatl.models.training_config import BaselineConfig, NextItemLoss

if TYPE_CHECKING:
    from torch import Tensor


class SequenceModelConfig(BaselineConfig):
    """Base of the configs of the sequential baselines. The defaults are those of ``tuned``."""

    lr: float = Field(default=3e-3, gt=0)
    dim: int = Field(default=128, ge=1, description="d, dimension of the item vectors.")
    max_length: int = Field(
        default=10, ge=1, description="The model reads this many of the most recent items of a sequence."
    )
    init_scale: float = Field(
        default=0.02, gt=0, description="Standard deviation of the random initial item vectors."
    )
    item_dropout: float = Field(default=0.5, ge=0, lt=1, description="Dropout on the input item vectors.")
    item_bias: bool = Field(default=True, description="Add a trained bias per item to its score.")
    tied: bool = Field(default=True, description="Use one table for input and output item vectors.")
    loss: NextItemLoss = Field(
        default="softmax",
        description="Loss of a target and its negatives; see `metatl.models.next_item_losses`.",
    )
    negatives: int = Field(
        default=0,
        ge=0,
        description="Negatives of each position; with `shared_negatives` 0 too, the loss uses all items.",
    )
    shared_negatives: int = Field(default=512, ge=0, description="Negatives for the whole batch.")
    popularity_exponent: float = Field(
        default=0.0,
        ge=0,
        description=(
            "Shared negatives are drawn in proportion to their training interactions, raised to this power."
        ),
    )
    batch_negatives: bool = Field(
        default=False,
        description="Also use the targets of the other sequences at the same position as negatives.",
    )
    score_penalty: float = Field(
        default=0.0, ge=0, description="Weight of the squared scores of negatives in the loss `bpr_max`."
    )
    shuffle_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of training sequences whose items are put in random order.",
    )

    @property
    def ranks_catalogue(self) -> bool:
        """Whether the loss uses all items of the catalogue as negatives."""
        return self.negatives + self.shared_negatives == 0 and not self.batch_negatives

    @property
    def sequences(self) -> SequenceSettings:
        """Settings of the training sequences: all rows of a user, or a window."""
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
        The settings.
    num_items : int
        I, number of items in the catalogue.
    """

    item_tensors: ClassVar[tuple[str, ...]] = ("embedding.weight", "output.weight", "bias")

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

    # --- Defined by subclasses

    def states(self, rows: Tensor) -> Tensor:
        """Read sequences.

        Parameters
        ----------
        rows : Tensor
            (B, L, d) float, the vectors of the items, oldest first; padding rows have arbitrary values.

        Returns
        -------
        Tensor
            (B, L, d) float. The state at a position depends only on the rows up to that position. States at
            padding are undefined.
        """
        raise NotImplementedError

    # --- Training

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Compute the mean loss over all positions with a next item; see `TrainableModel.training_loss`."""
        rows = look_up(self.item_vectors(item_offsets), batch.items[:, :-1])
        output = self.output_vectors(item_offsets)
        return self.loss_at(
            self.states(rows), batch.items[:, 1:], batch.negatives, batch.shared_negatives, output
        )

    def output_vectors(self, item_offsets: Tensor | None) -> Tensor:
        """Return the output item vectors (I, d) of a batch, with its offsets."""
        weight: Tensor = self.output.weight
        return weight if item_offsets is None else weight + item_offsets

    def loss_at(
        self, states: Tensor, targets: Tensor, negatives: Tensor, shared_negatives: Tensor, output: Tensor
    ) -> Tensor:
        """Compute the mean loss over the positions that have a target.

        Parameters
        ----------
        states : Tensor
            (B, L, d) float.
        targets : Tensor
            (B, L) int64, ``NO_ITEM`` at positions without a target.
        negatives : Tensor
            (B, L, n) int64, negatives of each position.
        shared_negatives : Tensor
            (m,) int64, negatives of the whole batch.
        output : Tensor
            (I, d) float, the output item vectors.

        Returns
        -------
        Tensor
            Scalar float.
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
        # A position without any negative has no loss.
        useful = (others > -torch.inf).any(dim=1)
        losses = next_item_loss(
            self.config.loss, positive[useful], others[useful], penalty=self.config.score_penalty
        )
        return losses.sum() / useful.sum().clamp(min=1)

    def _score(self, points: Tensor, items: Tensor, output: Tensor) -> Tensor:
        """Return the scores (n, m) of items (n, m), row by row for the points (n, d)."""
        scores = torch.einsum("nd,nmd->nm", points, functional.embedding(items, output))
        return scores if self.bias is None else scores + self.bias[items]

    def _score_each_other(self, states: Tensor, targets: Tensor, present: Tensor, output: Tensor) -> Tensor:
        """Score the targets of all sequences at the same position: (B, L, B), -inf for non-negatives."""
        ids = targets.clamp(min=0)
        scores = torch.einsum("bld,cld->blc", states, functional.embedding(ids, output))
        if self.bias is not None:
            scores = scores + self.bias[ids].T
        excluded = (targets.unsqueeze(2) == targets.T) | ~present.T
        return scores.masked_fill(excluded, -torch.inf)

    # --- Serving

    @torch.no_grad()
    def start_items(self, vectors: Tensor, trend: Tensor) -> float:
        """Initialise the input and output item vectors; see `TrainableModel.start_items`."""
        scale = super().start_items(vectors, trend)
        self.output.weight.copy_(self.embedding.weight)
        return scale

    @property
    def similarity(self) -> Similarity:
        """Similarity of a query and an item vector: the inner product."""
        return "dot"

    @property
    def support_negatives(self) -> int:
        """Number of sampled negatives per user that ``encode`` needs: 0."""
        return 0

    @property
    def item_table(self) -> Tensor:
        """(I, d) float32, the output item vectors, without gradient."""
        return self.output.weight.detach()

    @property
    def item_bias(self) -> Tensor | None:
        """(I,) float32, added to the score of each item; None for no bias."""
        return None if self.bias is None else self.bias.detach()

    @torch.no_grad()
    def encode(self, histories: Tensor, negatives: Tensor | None = None) -> Encoded:  # noqa: ARG002
        """Encode users in evaluation mode. The query is the state after the last item.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64 with L ≥ 1, oldest item first. The last `max_length` items are read.
        negatives : Tensor, optional
            Unused.
        """
        was_training = self.training
        self.eval()
        try:
            return Encoded(self.last_state(histories[:, -self.config.max_length :]), None)
        finally:
            self.train(was_training)

    def last_state(self, histories: Tensor) -> Tensor:
        """Return the state (B, d) after the last item of histories (B, L) int64."""
        return self.states(look_up(self.embedding.weight, histories))[:, -1].contiguous()


def look_up(vectors: Tensor, items: Tensor) -> Tensor:
    """Gather the vectors (..., d) of items (...) int64 from (I, d); padding gets the vector of item 0."""
    return functional.embedding(items.clamp(min=0), vectors)
