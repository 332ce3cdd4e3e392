"""TransRec: translation-based recommendation.

He, Kang, McAuley, *Translation-based recommendation*, RecSys 2017. Items are points and users are
translations: the item after i is near γ_i + t + t_u, and the score of item j is β_j - d(γ_i + t + t_u, γ_j).
The translation of a user is a global t plus the user's own t_u, which starts at zero. Cold users have no t_u
and use t, as the paper proposes for users without training data.

`paper`: sequential BPR with one negative, squared L2 distance, item points inside the unit ball, L2
regularisation of the biases and translations.

`tuned`: softmax against negatives for the whole batch, a temperature, unconstrained item points that start
from the co-occurrence graph, dropout, pairs in random order, a cosine schedule.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from metatl.models.contract import Encoded, SequenceSettings, Similarity
from metatl.models.dropout import dropout
from metatl.models.next_item_losses import next_item_loss
from metatl.models.trainable import TensorBatch, TrainableModel
from metatl.models.training_config import PairConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor
    from typing_extensions import Self

    from metatl.data.interactions import Interactions


class TransRecConfig(PairConfig):
    """Settings of TransRec. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "transrec"
    paper: ClassVar[dict[str, Any]] = {
        "dim": 10,
        "init_scale": 1 / math.sqrt(10),
        "unit_ball": True,
        "temperature": 1.0,
        "item_dropout": 0.0,
        "user_translations": True,
        "regularisation": 0.01,
        "loss": "bpr",
        "negatives": 1,
        "shared_negatives": 0,
        "shuffle_share": 0.0,
        "lr": 1e-3,
        "warmup_steps": 0,
        "final_lr_share": 1.0,
        "max_steps": 20_000,
        "eval_every": 1000,
    }

    lr: float = Field(default=3e-3, gt=0)
    dim: int = Field(default=128, ge=1, description="d, dimension of the item points and translations.")
    init_scale: float = Field(
        default=0.1, gt=0, description="Standard deviation of the random initial item points."
    )
    unit_ball: bool = Field(default=False, description="Project item points into the unit ball.")
    temperature: float = Field(default=0.3, gt=0, description="Scores are bias - distance / temperature.")
    item_dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Dropout on the point of the previous item."
    )
    user_translations: bool = Field(
        default=False, description="Train a translation t_u for each user in addition to the global t."
    )
    regularisation: float = Field(
        default=0.0, ge=0, description="Weight of the squared biases and translations of a pair."
    )
    shuffle_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of pairs whose items are put in random order."
    )
    batch_size: int = Field(default=1024, ge=1)
    warmup_steps: int = Field(default=100, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)
    max_steps: int = Field(default=600, ge=1)
    eval_every: int = Field(default=100, ge=1)

    @property
    def sequences(self) -> SequenceSettings:
        """Settings of the training sequences: pairs of consecutive items, drawn uniformly."""
        return SequenceSettings(
            length=1,
            draw="row",
            negatives=self.negatives,
            shared_negatives=self.shared_negatives,
            shuffle_share=self.shuffle_share,
        )


class TransRec(TrainableModel):
    """The model.

    Parameters
    ----------
    config : TransRecConfig
        The settings.
    num_items : int
        I, number of items in the catalogue.
    num_users : int
        Number of training users, each with its own translation.
    """

    tensors_of_rows: ClassVar[tuple[str, ...]] = ("user_translations.weight",)

    config: TransRecConfig

    def __init__(self, config: TransRecConfig, num_items: int, num_users: int) -> None:
        super().__init__(config, num_items)
        self.embedding = nn.Embedding(num_items, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.init_scale)
        self.bias = nn.Parameter(torch.zeros(num_items))
        self.translation = nn.Parameter(torch.zeros(config.dim))
        self.user_translations = nn.Embedding(num_users if config.user_translations else 0, config.dim)
        nn.init.zeros_(self.user_translations.weight)

    @classmethod
    def for_training(cls, config: TransRecConfig, train: Interactions) -> Self:
        """Initialise a model for the users and items of the training rows."""
        return cls(config, train.num_items, train.num_users)

    @classmethod
    def from_tensors(cls, config: TransRecConfig, num_items: int, tensors: Mapping[str, np.ndarray]) -> Self:
        """Rebuild a model from its settings and `tensors`.

        Raises
        ------
        RuntimeError
            If a name or shape does not match the model.
        """
        model = cls(config, num_items, len(tensors["user_translations.weight"]))
        model.load_tensors(tensors)
        return model.eval()

    def _into_ball(self, points: Tensor) -> Tensor:
        if not self.config.unit_ball:
            return points
        inside: Tensor = points / points.norm(dim=-1, keepdim=True).clamp(min=1.0)
        return inside

    @property
    def row_tables(self) -> tuple[nn.Embedding, ...]:
        """The table of the users' translations."""
        return (self.user_translations,)

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Compute the mean loss of the pairs of consecutive items; see `TrainableModel.training_loss`."""
        config = self.config
        previous, target = batch.items.unbind(1)
        table = self._into_ball(self.item_vectors(item_offsets))
        start = dropout(functional.embedding(previous, table), config.item_dropout, training=self.training)
        translation = self.translation
        if config.user_translations:
            translation = translation + self.user_translations(batch.users)
        points = start + translation
        positive = self.scores(points, target.unsqueeze(1), table)[:, 0]
        negatives = [self.scores(points, batch.negatives[:, 0], table)]
        if batch.shared_negatives.numel():
            shared = self.scores(points, batch.shared_negatives, table)
            is_target = target.unsqueeze(1) == batch.shared_negatives
            negatives.append(shared.masked_fill(is_target, -torch.inf))
        loss = next_item_loss(config.loss, positive, torch.cat(negatives, dim=1)).mean()
        if config.regularisation:
            penalty = self.bias[target].square() + self.bias[batch.negatives[:, 0]].square().sum(dim=1)
            penalty = penalty + translation.square().sum(dim=-1)
            loss = loss + config.regularisation * penalty.mean()
        return loss

    def scores(self, points: Tensor, items: Tensor, table: Tensor) -> Tensor:
        """Score items at translated points.

        Parameters
        ----------
        points : Tensor
            (B, d) float, translated points.
        items : Tensor
            (B, n) int64 for each point, or (m,) int64 for all points.
        table : Tensor
            (I, d) float, item points.

        Returns
        -------
        Tensor
            (B, n) or (B, m) float.
        """
        rows = functional.embedding(items, table)
        squared = points.square().sum(dim=1, keepdim=True) + rows.square().sum(dim=-1)
        products = (
            functional.linear(points, rows) if items.dim() == 1 else torch.einsum("bd,bnd->bn", points, rows)
        )
        return self.bias[items] - (squared - 2 * products) / self.config.temperature

    # --- Serving

    @property
    def similarity(self) -> Similarity:
        """Similarity of a query and an item point: the negative squared L2 distance."""
        return "squared_l2"

    @property
    def support_negatives(self) -> int:
        """Number of sampled negatives per user that ``encode`` needs: 0."""
        return 0

    @property
    def item_table(self) -> Tensor:
        """(I, d) float32, one point per item, without gradient."""
        return self._into_ball(self.embedding.weight.detach())

    @property
    def item_bias(self) -> Tensor:
        """(I,) float32, added to the negative squared distance of each item."""
        return self.bias.detach() * self.config.temperature

    @torch.no_grad()
    def encode(self, histories: Tensor, negatives: Tensor | None = None) -> Encoded:  # noqa: ARG002
        """Translate the point of the last item by t.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64 with L ≥ 1, oldest item first.
        negatives : Tensor, optional
            Unused.
        """
        return Encoded(self.item_table[histories[:, -1]] + self.translation, None)
