"""MetaCF: fast adaptation for cold-start collaborative filtering with meta-learning, on NGCF.

Wei, Wu, Li, Wang, Zeng, Guo, Zhang, Cheng, *Fast adaptation for cold-start collaborative filtering with
meta-learning*, ICDM 2020; Wang, He, Wang, Feng, Chua, *Neural graph collaborative filtering*, SIGIR 2019.
The graph network propagates vectors between users and items. The user of a task is a node whose neighbours
are the K items of the support set; its initial vector is their mean. The vectors of these items take a
gradient step on the user's support set, at learned rates. Training adjusts initial vectors, rates and graph
layers so that the adapted user ranks the query high. A cold user is treated as a training task.

Each step samples a new graph (dynamic subgraph sampling): a share of the edges of the training users who are
not in the batch, so that the user of a task is as new to the graph as a cold user. Adaptation changes the
user's own copies of the item vectors. Ranking uses the item vectors of the graph, so all users share one item
table. An item of the support set is scored for the user without that item. The K items of a support set share
K - 1 sets of negatives, because the K-th set of a task belongs to the query.

`paper`: BPR with one negative, three layers.

`tuned`: softmax against negatives for the whole batch, item biases, items that start from the co-occurrence
graph, and no graph layer. Without graph layers this is MetaCF on FISM, the other model that the paper adapts.
On Amazon Sports one layer lowered the validation MRR from .329 to .315.
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
    dim: int = Field(
        default=128, ge=1, description="d, dimension of the user and item vectors in each layer."
    )
    layers: int = Field(default=0, ge=0, description="Number of layers of the graph network.")
    edge_share: float = Field(
        default=0.9, gt=0, le=1, description="Share of the edges that the graph of a step keeps."
    )
    init_scale: float = Field(
        default=0.1, gt=0, description="Standard deviation of the random initial item vectors."
    )
    item_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout on the item vectors of the support set."
    )
    item_bias: bool = Field(default=True, description="Add a trained bias per item to its score.")
    inner_steps: int = Field(default=1, ge=0, description="Gradient steps of the inner loop.")
    inner_lr: float = Field(
        default=0.1,
        gt=0,
        description="Initial inner learning rate; the rates are trained, one per dimension.",
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
        The settings.
    num_items : int
        I, number of items in the catalogue.
    edge_users, edge_items : Tensor, optional
        (E,) int64, the edges of the graph in training; a model that only serves needs none.
    """

    tensors_of_rows: ClassVar[tuple[str, ...]] = ("item_layers", "item_degrees")

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
        no_edges = torch.empty(0, dtype=torch.int64)
        self.register_buffer("edge_users", no_edges if edge_users is None else edge_users, persistent=False)
        self.register_buffer("edge_items", no_edges if edge_items is None else edge_items, persistent=False)
        self.embedding = nn.Embedding(num_items, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.init_scale)
        self.own = nn.ParameterList(torch.empty(config.dim, config.dim) for _ in range(config.layers))
        self.interaction = nn.ParameterList(torch.empty(config.dim, config.dim) for _ in range(config.layers))
        for weight in (*self.own, *self.interaction):
            nn.init.xavier_uniform_(weight)
        self.bias = nn.Parameter(torch.zeros(num_items)) if config.item_bias else None
        # The rates are the softplus of this parameter, so they stay positive.
        start = math.log(math.expm1(config.inner_lr))
        self.inner_rates = nn.Parameter(torch.full((config.dim,), start))
        # Serving needs the item vectors of each layer and the number of users of each item.
        self.register_buffer("item_layers", torch.zeros(config.layers + 1, num_items, config.dim))
        self.register_buffer("item_degrees", torch.ones(num_items))

    @classmethod
    def for_training(cls, config: MetaCFConfig, train: Interactions) -> Self:
        """Initialise a model whose graph has the training rows as edges."""
        return cls(config, train.num_items, torch.tensor(train.users), torch.tensor(train.items))

    # --- The graph

    def propagate(
        self, edge_users: Tensor, edge_items: Tensor, item_offsets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Propagate the initial vectors along edges.

        Parameters
        ----------
        edge_users, edge_items : Tensor
            (E,) int64, the edges of the graph.
        item_offsets : Tensor, optional
            (I, d) float, added to the initial item vectors.

        Returns
        -------
        item_layers : Tensor
            (layers + 1, I, d) float, the item vectors before the first layer and after each layer.
        item_degrees : Tensor
            (I,) float, number of edges of each item, at least 1.
        """
        table = self.item_vectors(item_offsets)
        item_degrees = torch.bincount(edge_items, minlength=self.num_items).clamp(min=1).to(table.dtype)
        if self.config.layers == 0:
            return table.unsqueeze(0), item_degrees
        num_users = int(edge_users.max()) + 1 if len(edge_users) else 1
        user_degrees = torch.bincount(edge_users, minlength=num_users).clamp(min=1).to(table.dtype)
        users, items = user_degrees[edge_users], item_degrees[edge_items]

        def adjacency(values: Tensor) -> Tensor:
            # The ids come from interactions, so they are within bounds.
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
        """Apply a layer of NGCF (its Eq. 3 to 5) to nodes (..., d) and their neighbours' sums (..., d)."""
        messages = functional.linear(own + received, self.own[layer])
        messages = messages + functional.linear(received * own, self.interaction[layer])
        return functional.leaky_relu(messages, 0.2)

    # --- A user

    def represent(self, rows: Tensor, later_layers: Tensor, degrees: Tensor) -> Tensor:
        """Compute the vector of a user from the user's items.

        Parameters
        ----------
        rows : Tensor
            (n, d) float, the user's copies of the initial item vectors.
        later_layers : Tensor
            (layers, n, d) float, the item vectors after each layer.
        degrees : Tensor
            (n,) float, number of edges of each item.

        Returns
        -------
        Tensor
            ((layers + 1) d,) float, the concatenated vectors of all layers.
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
        """Take the inner steps of users and compute their vectors.

        Parameters
        ----------
        support : Tensor
            (B, K) int64.
        negatives : Tensor
            (B, K, n) int64, negatives of each item. With n = 0 there is no step.
        item_layers, item_degrees : Tensor
            The return values of `propagate`.
        training : bool
            Apply dropout to the item vectors.

        Returns
        -------
        Tensor
            (B, (layers + 1) d) float.
        """
        config, length = self.config, support.shape[1]
        rows = dropout(item_layers[0][support], config.item_dropout, training=training)
        later = item_layers[1:][:, support].transpose(0, 1)
        degrees = item_degrees[support]
        table = item_layers.transpose(0, 1).flatten(1)
        positive, against = table[support], table[negatives]
        others = [[index for index in range(length) if index != left_out] for left_out in range(length)]

        def support_loss(
            rows: Tensor, later: Tensor, degrees: Tensor, positive: Tensor, against: Tensor
        ) -> Tensor:
            users = torch.stack(
                [self.represent(rows[kept], later[:, kept], degrees[kept]) for kept in others]
            )
            scores = (users * positive).sum(dim=1)
            return next_item_loss(config.loss, scores, torch.einsum("kd,knd->kn", users, against)).mean()

        # The support loss needs at least two items, because an item is scored for the others, and negatives.
        steps = config.inner_steps if length > 1 and negatives.shape[2] else 0
        for _ in range(steps):
            slopes = vmap(grad(support_loss))(rows, later, degrees, positive, against)
            if config.first_order:
                slopes = slopes.detach()
            rows = rows - functional.softplus(self.inner_rates) * slopes
        users: Tensor = vmap(self.represent)(rows, later, degrees)
        return users

    # --- Training

    def training_loss(self, batch: TensorBatch, item_offsets: Tensor | None = None) -> Tensor:
        """Compute the mean query loss of the adapted users; see `TrainableModel.training_loss`."""
        # Without layers the edges have no effect.
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
        """Sample the edges of a step: a share of the edges of the users who are not in the batch.

        Parameters
        ----------
        users : Tensor
            (B,) int64, the users of the batch.

        Returns
        -------
        Tensor
            (E,) bool, true for sampled edges.
        """
        absent = torch.isin(self.edge_users, users, invert=True)
        if self.config.edge_share == 1.0:
            return absent
        return absent & (torch.rand(len(absent), device=absent.device) < self.config.edge_share)

    @torch.no_grad()
    def before_evaluation(self, histories: Tensor) -> None:  # noqa: ARG002
        """Store the item vectors of the graph with all edges, for serving."""
        item_layers, item_degrees = self.propagate(self.edge_users, self.edge_items)
        self.item_layers.copy_(item_layers)
        self.item_degrees.copy_(item_degrees)

    # --- Serving

    @property
    def similarity(self) -> Similarity:
        """Similarity of a query and an item vector: the inner product."""
        return "dot"

    @property
    def support_negatives(self) -> int:
        """Number of negatives per user that ``encode`` needs: as in the support set of a training task."""
        return self.config.negatives * (self.config.k - 1) if self.config.inner_steps else 0

    @property
    def item_table(self) -> Tensor:
        """(I, (layers + 1) d) float32, the concatenated item vectors of all layers, without gradient."""
        return self.item_layers.transpose(0, 1).flatten(1)

    @property
    def item_bias(self) -> Tensor | None:
        """(I,) float32, added to the score of each item; None for no bias."""
        return None if self.bias is None else self.bias.detach()

    @torch.no_grad()
    def encode(self, histories: Tensor, negatives: Tensor | None = None) -> Encoded:
        """Adapt to users and compute their vectors, without dropout.

        Parameters
        ----------
        histories : Tensor
            (B, L) int64 with L ≥ 1. L may differ from the K of training; with L = 1 there is no inner step.
        negatives : Tensor, optional
            (B, `support_negatives`) int64, distributed to the items by `deal`.

        Returns
        -------
        Encoded
            The user vectors, without overrides.

        Raises
        ------
        InvalidArgumentError
            If negatives are needed and are None or have another shape.
        """
        own = self._deal(histories, negatives)
        users = self.adapt(histories, own, self.item_layers, self.item_degrees, training=False)
        return Encoded(users, None)

    def _deal(self, histories: Tensor, negatives: Tensor | None) -> Tensor:
        if self.support_negatives == 0:
            return histories.unsqueeze(2)[:, :, :0]
        negatives = check_negatives(negatives, histories.shape[0], self.support_negatives)
        return deal(negatives, histories.shape[1], self.config.negatives)

    def encode_any_length(self, histories: Tensor, negatives: Tensor | None) -> Tensor:
        """See :meth:`metatl.models.contract.EncodesAnyLength.encode_any_length`.

        In the inner step, a product with a matrix of ones without the diagonal sums over the other items.
        """
        config, length = self.config, histories.shape[1]
        own = self._deal(histories, negatives)
        rows, later = self.item_layers[0][histories], self.item_layers[1:][:, histories]
        inverse_roots = self.item_degrees[histories].rsqrt().unsqueeze(2)
        table = self.item_layers.transpose(0, 1).flatten(1)
        positive, against = table[histories], table[own]
        has_others = torch.ones_like(histories).sum(dim=1)[:, None, None] > 1
        all_items = rows.new_ones(1, length)
        other_items = 1 - torch.eye(length, dtype=rows.dtype, device=rows.device)

        def vectors(rows: Tensor, of_users: Tensor, count: int) -> Tensor:
            """Return vectors (B, u, (layers + 1) d); the user of row u has `count` items, 1 in (u, K)."""
            user, received = of_users @ rows / count, rows
            layers = [user]
            for layer in range(config.layers):
                user = self._layer(layer, user, of_users @ (inverse_roots * received) / count**0.5)
                received = later[layer]
                layers.append(user)
            return torch.cat(layers, dim=2)

        for _ in range(config.inner_steps if self.support_negatives else 0):
            with torch.enable_grad():
                rows = rows.detach().requires_grad_()
                users = vectors(rows, other_items, length - 1)
                scores = (users * positive).sum(dim=2).flatten()
                others = torch.einsum("bkd,bknd->bkn", users, against).flatten(0, 1)
                # The mean of each user's support set; the users do not depend on each other.
                loss = next_item_loss(config.loss, scores, others).sum() / length
                (slopes,) = torch.autograd.grad(loss, rows)
            stepped = rows.detach() - functional.softplus(self.inner_rates) * slopes
            rows = torch.where(has_others, stepped, rows.detach())
        return vectors(rows, all_items, length)[:, 0]
