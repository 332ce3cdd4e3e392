"""BPR-MF: matrix factorisation by Bayesian personalised ranking.

Rendle, Freudenthaler, Gantner, Schmidt-Thieme, *BPR: Bayesian personalized ranking from implicit feedback*,
UAI 2009. Users and items have vectors; the score of an item is the inner product plus the item's bias. The
order of a user's items has no effect.

A cold user has no vector and is folded in: a few gradient steps from zero minimise the same criterion on the
user's items, with the item vectors fixed. The single negative is the mean item of the catalogue. The
validation MRR of `tuned` on X-Wines, MovieTweetings and Amazon Sports is .267, .332, .321; thirty steps
against a hundred sampled negatives give .260, .331, .316 and take sixty times as long.

`paper`: one negative for each interaction, L2 regularisation.

`tuned`: item vectors that start from the co-occurrence graph, twice the dimension, a cosine schedule. A
softmax against shared negatives and dropout on the user's vector, which help the sequential systems, lower
the validation MRR on Amazon Sports from .30 to .22 (both with sampled negatives in the fold-in).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from metatl.models.contract import NO_ITEM, Encoded, SequenceSettings, Similarity
from metatl.models.dropout import dropout
from metatl.models.next_item_losses import next_item_loss
from metatl.models.trainable import TensorBatch, TrainableModel
from metatl.models.training_config import NextItemLoss, PairConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from typing_extensions import Self

    from metatl.data.interactions import Interactions


MOST_FOLDED_IN = 50
"""Latest items of a training user that its vector starts from, where training goes on from another run."""


class BPRMFConfig(PairConfig):
    """Settings of BPR-MF. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "bpr"
    paper: ClassVar[dict[str, Any]] = {
        "dim": 64,
        "init_scale": 0.1,
        "user_dropout": 0.0,
        "regularisation": 0.01,
        "loss": "bpr",
        "negatives": 1,
        "shared_negatives": 0,
        "lr": 1e-3,
        "warmup_steps": 0,
        "final_lr_share": 1.0,
        "max_steps": 20_000,
        "eval_every": 1000,
    }

    lr: float = Field(default=3e-3, gt=0)
    start_length: float = Field(default=1.5, gt=0)
    dim: int = Field(default=128, ge=1, description="d, dimension of the user and item vectors.")
    init_scale: float = Field(
        default=0.1, gt=0, description="Standard deviation of the random initial vectors."
    )
    user_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout on the user's vector in training."
    )
    regularisation: float = Field(
        default=0.01,
        ge=0,
        description="Weight of the squared norms of the vectors and biases of an interaction.",
    )
    loss: NextItemLoss = "bpr"
    negatives: int = Field(default=1, ge=0)
    shared_negatives: int = Field(default=0, ge=0)
    fold_in_steps: int = Field(default=4, ge=1, description="Gradient steps of the fold-in.")
    fold_in_rate: float = Field(default=2.0, gt=0, description="Learning rate of the fold-in.")
    fold_in_regularisation: float = Field(
        default=0.01, ge=0, description="Weight of the squared norm of the vector in the fold-in."
    )
    batch_size: int = Field(default=1024, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)
    max_steps: int = Field(default=3000, ge=1)
    eval_every: int = Field(default=300, ge=1)

    @property
    def sequences(self) -> SequenceSettings:
        """Settings of the training sequences: single interactions, drawn uniformly.

        A sequence has up to two items; the last one is the interaction.
        """
        return SequenceSettings(
            length=1,
            shortest=1,
            draw="row",
            negatives=self.negatives,
            shared_negatives=self.shared_negatives,
        )


class BPRMF(TrainableModel):
    """The model.

    Parameters
    ----------
    config : BPRMFConfig
        The settings.
    num_items : int
        I, number of items in the catalogue.
    num_users : int
        Number of training users.
    """

    tensors_of_rows: ClassVar[tuple[str, ...]] = ("users.weight",)

    config: BPRMFConfig

    def __init__(self, config: BPRMFConfig, num_items: int, num_users: int) -> None:
        super().__init__(config, num_items)
        self.embedding = nn.Embedding(num_items, config.dim)
        self.users = nn.Embedding(num_users, config.dim)
        for table in (self.embedding, self.users):
            nn.init.normal_(table.weight, std=config.init_scale)
        self.bias = nn.Parameter(torch.zeros(num_items))

    @classmethod
    def for_training(cls, config: BPRMFConfig, train: Interactions) -> Self:
        """Initialise a model for the users and items of the training rows."""
        return cls(config, train.num_items, train.num_users)

    @classmethod
    def from_tensors(cls, config: BPRMFConfig, num_items: int, tensors: Mapping[str, np.ndarray]) -> Self:
        """Rebuild a model from its settings and `tensors`.

        Raises
        ------
        RuntimeError
            If a name or shape does not match the model.
        """
        model = cls(config, num_items, len(tensors["users.weight"]))
        model.load_tensors(tensors)
        return model.eval()

    @torch.no_grad()
    def start_users(self, train: Interactions) -> None:
        """Fold in each training user with the latest items, `MOST_FOLDED_IN` at most."""
        lengths = np.minimum(train.lengths, MOST_FOLDED_IN)
        for length in np.unique(lengths):
            users = np.flatnonzero(lengths == length)
            rows = train.indptr[users + 1][:, None] + np.arange(-length, 0)
            queries = self.encode(torch.from_numpy(train.items[rows]).to(self.device)).queries
            self.users.weight[torch.from_numpy(users).to(self.device)] = queries

    @property
    def row_tables(self) -> tuple[nn.Embedding, ...]:
        """The table of user vectors."""
        return (self.users,)

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Compute the mean loss of the interactions; with ``loss="bpr"`` the negated BPR-Opt of Sec. 4.1."""
        config = self.config
        first, second = batch.items.unbind(1)
        target = torch.where(second == NO_ITEM, first, second)
        own = batch.negatives[:, 0]
        user = self.users(batch.users)
        query = dropout(user, config.user_dropout, training=self.training)
        table = self.item_vectors(item_offsets)
        rows, negative_rows = functional.embedding(target, table), functional.embedding(own, table)
        positive = (query * rows).sum(dim=1) + self.bias[target]
        negatives = [torch.einsum("bd,bnd->bn", query, negative_rows) + self.bias[own]]
        if batch.shared_negatives.numel():
            shared = batch.shared_negatives
            scores = functional.linear(query, functional.embedding(shared, table), self.bias[shared])
            negatives.append(scores.masked_fill(target.unsqueeze(1) == shared, -torch.inf))
        loss = next_item_loss(config.loss, positive, torch.cat(negatives, dim=1)).mean()
        if config.regularisation:
            penalty = user.square().sum(dim=1) + rows.square().sum(dim=1) + self.bias[target].square()
            penalty = penalty + negative_rows.square().sum(dim=(1, 2)) + self.bias[own].square().sum(dim=1)
            loss = loss + config.regularisation * penalty.mean()
        return loss

    # --- Serving

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
        """(I, d) float32, one vector per item, without gradient."""
        return self.embedding.weight.detach()

    @property
    def item_bias(self) -> Tensor:
        """(I,) float32, added to the score of each item."""
        return self.bias.detach()

    @torch.no_grad()
    def encode(self, histories: Tensor, negatives: Tensor | None = None) -> Encoded:  # noqa: ARG002
        """Fold in users: compute the vector p of each user by gradient steps from zero.

        The steps minimise the mean of -ln σ(p·(q_i - q̄) + b_i - b̄) over the user's items i, plus
        ``fold_in_regularisation`` times ‖p‖² / 2; q̄ and b̄ are the means over all items.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64 with L ≥ 1.
        negatives : Tensor, optional
            Unused.
        """
        config = self.config
        table = self.item_table
        rows = functional.embedding(histories, table - table.mean(dim=0))
        biases = (self.item_bias - self.item_bias.mean())[histories]
        users = table.new_zeros(len(histories), config.dim)
        for _ in range(config.fold_in_steps):
            missed = torch.sigmoid(-torch.einsum("bd,bld->bl", users, rows) - biases)
            ascent = torch.einsum("bl,bld->bd", missed / histories.shape[1], rows)
            users += config.fold_in_rate * (ascent - config.fold_in_regularisation * users)
        return Encoded(users, None)
