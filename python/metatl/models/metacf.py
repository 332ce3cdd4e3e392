"""MetaCF: fast adaptation for cold-start collaborative filtering with meta-learning, on NGCF.

Wei, Wu, Li, Wang, Zeng, Guo, Zhang, Cheng, *Fast adaptation for cold-start collaborative filtering with
meta-learning*, ICDM 2020; Wang, He, Wang, Feng, Chua, *Neural graph collaborative filtering*, SIGIR 2019.
Vectors are passed along the graph of users and items. A user of a task is a node that knows the K items of
the support and nothing else; its initial vector is their mean. The vectors of these items take a gradient
step on the user's own support, at learned rates; initial vectors, rates and graph layers are trained so
that the adapted user ranks the query well. A cold user is what a training task is.

Each step samples its graph anew (dynamic subgraph sampling): a share of the edges of the training users who
are not in the batch, so that a task's user is as new to the graph as a cold one. What adapts is what a user
holds of the items; the items that are ranked keep the vectors of the graph, so that one table serves all
users. An item of the support is scored for the user without it. The K items of a support share K - 1 sets of
negatives, for the K-th set of a task is the query's alone.

`paper`: BPR with one negative, three layers. `tuned`: softmax against negatives that a batch shares, item
biases, items that start from the co-occurrence graph, and no graph layer, which is MetaCF on FISM, the other
model that its paper adapts: on Amazon Sports a layer lowered validation MRR (.329 without, .315 with one).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional

from metatl.models.contract import Encoded, Similarity
from metatl.models.dropout import dropout
from metatl.models.next_item_losses import next_item_loss
from metatl.models.support_negatives import check_negatives, deal, divide
from metatl.models.trainable import TensorBatch, TrainableModel
from metatl.models.training_config import EpisodeConfig

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from metatl.data.interactions import Interactions


class MetaCFConfig(EpisodeConfig):
    """Settings of MetaCF. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "metacf"
    paper: ClassVar[dict[str, Any]] = {
        "dim": 64,
        "layers": 3,
        "edge_share": 0.9,
        "item_dropout": 0.0,
        "item_bias": False,
        "loss": "bpr",
        "negatives": 1,
        "shared_negatives": 0,
        "window_share": 0.0,
        "shuffle_share": 0.0,
        "lr": 1e-3,
        "warmup_steps": 0,
        "final_lr_share": 1.0,
        "max_steps": 5_000,
        "eval_every": 500,
    }

    lr: float = Field(default=2e-3, gt=0)
    start_length: float = Field(default=1.5, gt=0)
    dim: int = Field(default=128, ge=1, description="d, of users and items in each layer.")
    layers: int = Field(default=0, ge=0, description="Layers of the graph network.")
    edge_share: float = Field(
        default=0.9, gt=0, le=1, description="Share of the edges that a step's graph keeps."
    )
    init_scale: float = Field(default=0.1, gt=0, description="Standard deviation of initial item vectors.")
    item_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout on the item vectors of the support."
    )
    item_bias: bool = Field(default=True, description="A trained bias per item, added to its score.")
    inner_steps: int = Field(default=1, ge=0, description="Gradient steps of a user's item vectors.")
    inner_lr: float = Field(
        default=0.1, gt=0, description="Initial inner learning rate; rates are trained, one per dimension."
    )
    negatives: int = Field(default=8, ge=1)
    shared_negatives: int = Field(default=512, ge=0)
    batch_size: int = Field(default=512, ge=1)
    warmup_steps: int = Field(default=30, ge=0)
    final_lr_share: float = Field(default=0.02, ge=0, le=1)
    max_steps: int = Field(default=300, ge=1)
    eval_every: int = Field(default=50, ge=1)


class MetaCF(TrainableModel):
    """The model.

    Parameters
    ----------
    config : MetaCFConfig
    num_items : int
        I, size of the catalogue.
    edge_users, edge_items : Tensor
        (E,) int64, the interactions that training passes vectors along; a model that only serves needs none.
    """

    config: MetaCFConfig
    edge_users: Tensor
    edge_items: Tensor
    item_layers: Tensor
    item_degrees: Tensor

    def __init__(
        self,
        config: MetaCFConfig,
        num_items: int,
        edge_users: Tensor | None = None,
        edge_items: Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        nothing = torch.empty(0, dtype=torch.int64)
        self.register_buffer("edge_users", nothing if edge_users is None else edge_users, persistent=False)
        self.register_buffer("edge_items", nothing if edge_items is None else edge_items, persistent=False)
        self.embedding = nn.Embedding(num_items, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.init_scale)
        self.own = nn.ParameterList(torch.empty(config.dim, config.dim) for _ in range(config.layers))
        self.interaction = nn.ParameterList(torch.empty(config.dim, config.dim) for _ in range(config.layers))
        for weight in (*self.own, *self.interaction):
            nn.init.xavier_uniform_(weight)
        self.bias = nn.Parameter(torch.zeros(num_items)) if config.item_bias else None
        # Rates stay positive: they are the softplus of this.
        start = math.log(math.expm1(config.inner_lr))
        self.inner_rates = nn.Parameter(torch.full((config.dim,), start))
        # What serving needs of the graph: the items' vectors in each layer, and how many users each item has.
        self.register_buffer("item_layers", torch.zeros(config.layers + 1, num_items, config.dim))
        self.register_buffer("item_degrees", torch.ones(num_items))

    @classmethod
    def for_training(cls, config: MetaCFConfig, train: Interactions) -> Self:
        """Initialise a model for training rows."""
        return cls(config, train.num_items, torch.tensor(train.users), torch.tensor(train.items))

    # --- The graph

    def propagate(
        self, edge_users: Tensor, edge_items: Tensor, item_offsets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pass vectors along edges, from the initial ones.

        Parameters
        ----------
        edge_users, edge_items : Tensor
            (E,) int64.
        item_offsets : Tensor, optional
            (I, d), added to the initial item vectors.

        Returns
        -------
        item_layers : Tensor
            (layers + 1, I, d), the items' vectors before and after each layer.
        item_degrees : Tensor
            (I,), edges of each item, at least 1.
        """
        table = self.item_vectors(item_offsets)
        item_degrees = torch.bincount(edge_items, minlength=self.num_items).clamp(min=1).to(table.dtype)
        if self.config.layers == 0:
            return table.unsqueeze(0), item_degrees
        num_users = int(edge_users.max()) + 1 if len(edge_users) else 1
        user_degrees = torch.bincount(edge_users, minlength=num_users).clamp(min=1).to(table.dtype)
        users, items = user_degrees[edge_users], item_degrees[edge_items]

        def adjacency(values: Tensor) -> Tensor:
            # The edges are interactions: their ids are within bounds.
            return torch.sparse_coo_tensor(
                torch.stack((edge_users, edge_items)),
                values,
                (num_users, self.num_items),
                check_invariants=False,
            )

        means, laplacian = adjacency(1.0 / users), adjacency((users * items).rsqrt())
        of_items, of_users = table, torch.sparse.mm(means, table)
        layers = [of_items]
        for layer in range(self.config.layers):
            to_users = torch.sparse.mm(laplacian, of_items)
            to_items = torch.sparse.mm(laplacian.t(), of_users)
            of_users, of_items = (
                self._layer(layer, of_users, to_users),
                self._layer(layer, of_items, to_items),
            )
            layers.append(of_items)
        return torch.stack(layers), item_degrees

    def _layer(self, layer: int, own: Tensor, received: Tensor) -> Tensor:
        """One layer of NGCF (its Eq. 3 to 5): nodes (..., d) and the sum of their neighbours' vectors."""
        messages = functional.linear(own + received, self.own[layer])
        messages = messages + functional.linear(received * own, self.interaction[layer])
        return functional.leaky_relu(messages, 0.2)

    # --- A user

    def represent(self, rows: Tensor, later_layers: Tensor, degrees: Tensor) -> Tensor:
        """Vector of a user who knows some items.

        Parameters
        ----------
        rows : Tensor
            (n, d), the user's own version of the items' initial vectors.
        later_layers : Tensor
            (layers, n, d), the items' vectors after each layer.
        degrees : Tensor
            (n,), edges of each item.

        Returns
        -------
        Tensor
            ((layers + 1) d,), the vectors of all layers, one after the other.
        """
        weights = (degrees * len(rows)).rsqrt().unsqueeze(1)
        user, received = rows.mean(dim=0), rows
        layers = [user]
        for layer in range(self.config.layers):
            user = self._layer(layer, user, (weights * received).sum(dim=0))
            received = later_layers[layer]
            layers.append(user)
        return torch.cat(layers)

    def adapt(
        self, support: Tensor, negatives: Tensor, item_layers: Tensor, item_degrees: Tensor, *, training: bool
    ) -> Tensor:
        """Let users take their steps, and represent them.

        Parameters
        ----------
        support : Tensor
            (B, K) int64.
        negatives : Tensor
            (B, K, n) int64.
        item_layers, item_degrees : Tensor
            As from `propagate`.
        training : bool
            Whether item vectors drop out.

        Returns
        -------
        Tensor
            (B, (layers + 1) d).
        """
        config, length = self.config, support.shape[1]
        rows = dropout(item_layers[0][support], config.item_dropout, training=training)
        later = item_layers[1:][:, support].transpose(0, 1)
        degrees = item_degrees[support]
        table = item_layers.transpose(0, 1).flatten(1)
        positive, against = table[support], table[negatives]
        others = [[place for place in range(length) if place != left_out] for left_out in range(length)]

        def support_loss(
            rows: Tensor, later: Tensor, degrees: Tensor, positive: Tensor, against: Tensor
        ) -> Tensor:
            users = torch.stack(
                [self.represent(rows[kept], later[:, kept], degrees[kept]) for kept in others]
            )
            scores = (users * positive).sum(dim=1)
            return next_item_loss(config.loss, scores, torch.einsum("kd,knd->kn", users, against)).mean()

        # A single item has no other to be scored for; without negatives there is nothing to score it against.
        steps = config.inner_steps if length > 1 and negatives.shape[2] else 0
        for _ in range(steps):
            slopes = vmap(grad(support_loss))(rows, later, degrees, positive, against)
            if config.first_order:
                slopes = slopes.detach()
            rows = rows - functional.softplus(self.inner_rates) * slopes
        represented: Tensor = vmap(self.represent)(rows, later, degrees)
        return represented

    # --- Training

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Mean loss of the queries of the adapted users."""
        # Without layers nothing passes along the edges.
        kept = self.sample_edges(batch.users) if self.config.layers else slice(0)
        item_layers, item_degrees = self.propagate(self.edge_users[kept], self.edge_items[kept], item_offsets)
        support, target = batch.items[:, :-1], batch.items[:, -1]
        supporting, own = divide(batch.negatives)
        users = self.adapt(support, supporting, item_layers, item_degrees, training=self.training)
        table = item_layers.transpose(0, 1).flatten(1)
        shared = batch.shared_negatives
        positive = (users * table[target]).sum(dim=1)
        scores = torch.cat((torch.einsum("bd,bnd->bn", users, table[own]), users @ table[shared].T), dim=1)
        negatives = torch.cat((own, shared.expand(len(own), -1)), dim=1)
        if self.bias is not None:
            positive, scores = positive + self.bias[target], scores + self.bias[negatives]
        scores = scores.masked_fill(negatives == target.unsqueeze(1), -torch.inf)
        return next_item_loss(self.config.loss, positive, scores).mean()

    def sample_edges(self, users: Tensor) -> Tensor:
        """Choose the edges of a step: (E,) bool, a share of those of all users but the given."""
        absent = torch.isin(self.edge_users, users, invert=True)
        if self.config.edge_share == 1.0:
            return absent
        return absent & (torch.rand(len(absent), device=absent.device) < self.config.edge_share)

    @torch.no_grad()
    def before_evaluation(self, histories: Tensor) -> None:  # noqa: ARG002
        """Pass vectors along all edges: what cold users meet."""
        item_layers, item_degrees = self.propagate(self.edge_users, self.edge_items)
        self.item_layers.copy_(item_layers)
        self.item_degrees.copy_(item_degrees)

    # --- Serving

    @property
    def similarity(self) -> Similarity:
        """How a query meets an item vector."""
        return "dot"

    @property
    def support_negatives(self) -> int:
        """Negatives per user that ``encode`` takes: as many as a training task's support has."""
        return self.config.negatives * (self.config.k - 1) if self.config.inner_steps else 0

    @property
    def item_table(self) -> Tensor:
        """(I, (layers + 1) d), the vectors of all layers, without gradient."""
        return self.item_layers.transpose(0, 1).flatten(1)

    @property
    def item_bias(self) -> Tensor | None:
        """(I,), added to every score; None for no bias."""
        return None if self.bias is None else self.bias.detach()

    @torch.no_grad()
    def encode(self, histories: Tensor, negatives: Tensor | None = None) -> Encoded:
        """Adapt to users and represent them; always as in evaluation mode.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64. L need not be the K of training; with L = 1 there is nothing to adapt to.
        negatives : Tensor
            (B, `support_negatives`) int64, dealt to the items in turn.

        Raises
        ------
        InvalidArgumentError
            If the negatives are not there.
        """
        own = histories.unsqueeze(2)[:, :, :0]
        if self.support_negatives:
            negatives = check_negatives(negatives, len(histories), self.support_negatives)
            own = deal(negatives, histories.shape[1], self.config.negatives)
        users = self.adapt(histories, own, self.item_layers, self.item_degrees, training=False)
        return Encoded(users, None)
