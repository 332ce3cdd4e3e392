"""Transition learners: they map the two items of a pair to a transition vector (Eq. 1)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from metatl.models.dropout import dropout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class OneLayer(nn.Module):
    """The learner of Eq. 1, sigmoid(W [h; t] + b), plus an optional linear skip c₁ ⊙ h + c₂ ⊙ t.

    The output of the sigmoid lies in (0, 1)ᵈ. With the skip, a transition can have any direction. With
    c₁ = 1.3, c₂ = 0 and K = 3, the initial point i_K + tr is i₃ + 0.65 (i₁ + i₂): a weighted sum of the items
    of the history, as in an item-based neighbour model.

    Parameters
    ----------
    dim : int
        d, dimension of the item vectors.
    skip : tuple of float, optional
        Initial values of c₁ and c₂, trained per dimension as `skip` (2, d); None for no skip.
    bias : float
        Initial value of b.
    """

    def __init__(self, dim: int, skip: tuple[float, float] | None = None, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, 2 * dim))
        self.bias = nn.Parameter(torch.full((dim,), bias))
        nn.init.xavier_uniform_(self.weight)
        self.skip = nn.Parameter(torch.tensor(skip)[:, None].repeat(1, dim)) if skip is not None else None

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the transitions (B, S, d) of pairs (B, S, 2, d)."""
        transitions = torch.sigmoid(functional.linear(pairs.flatten(2), self.weight, self.bias))
        if self.skip is None:
            return transitions
        heads, tails = pairs.unbind(2)
        return torch.addcmul(torch.addcmul(transitions, self.skip[0], heads), self.skip[1], tails)


_MOMENTUM, _EPSILON = 0.1, 1e-5
"""Momentum of the running statistics, and the constant added to variances: the defaults of torch."""


class PairNorm(nn.Module):
    """Batch norm over the pair axis: each pair position has its own mean, variance, scale and offset.

    The statistics run over tasks and features. Positions are counted from the most recent pair, so that a
    shorter history uses the statistics of its positions. Pairs older than any pair in training use those of
    the oldest position.

    Parameters
    ----------
    pairs : int
        Number of support pairs of a training task.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, pairs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(pairs))
        self.bias = nn.Parameter(torch.zeros(pairs))
        self.register_buffer("running_mean", torch.zeros(pairs))
        self.register_buffer("running_var", torch.ones(pairs))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise features (B, S, f); the shape stays."""
        if self.training:
            if features.device.type == "cuda":
                return self._normalise_on_cuda(features)
            return functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, training=True
            )
        pairs, trained_pairs = features.shape[1], self.weight.shape[0]
        positions = torch.arange(trained_pairs - pairs, trained_pairs, device=features.device).clamp(min=0)
        scale = self.weight[positions] * torch.rsqrt(self.running_var[positions] + _EPSILON)
        offset = self.bias[positions] - self.running_mean[positions] * scale
        return features * scale.unsqueeze(-1) + offset.unsqueeze(-1)

    def _normalise_on_cuda(self, features: Tensor) -> Tensor:
        """Compute `functional.batch_norm` on CUDA, where its kernels use only one block per position."""
        variance, mean = torch.var_mean(features, dim=(0, 2), unbiased=False)
        with torch.no_grad():
            count = features.shape[0] * features.shape[2]
            self.running_mean.lerp_(mean, _MOMENTUM)
            self.running_var.lerp_(variance * (count / (count - 1)), _MOMENTUM)
        scale = self.weight * torch.rsqrt(variance + _EPSILON)
        return torch.addcmul((self.bias - mean * scale).unsqueeze(-1), features, scale.unsqueeze(-1))


class Mlp(nn.Module):
    """The learner of the released program: 2d → 500 → 200 → d with LeakyReLU, dropout and batch norm.

    Parameters
    ----------
    dim : int
        d, dimension of the item vectors.
    hidden : sequence of int
        Widths of the hidden layers.
    dropout : float
        Dropout probability after each hidden layer.
    pairs : int or None
        Number of support pairs of a training task, for `PairNorm` after each linear layer; None for no norm.
    """

    def __init__(self, dim: int, hidden: Sequence[int], dropout: float, pairs: int | None) -> None:
        super().__init__()
        widths = (2 * dim, *hidden, dim)
        self.dropout = dropout
        self.layers = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(
            nn.Identity() if pairs is None else PairNorm(pairs) for _ in range(len(widths) - 1)
        )
        for layer in self.layers:
            nn.init.xavier_normal_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the transitions (B, S, d) of pairs (B, S, 2, d)."""
        features = pairs.flatten(2)
        last = len(self.layers) - 1
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            features = norm(layer(features))
            if index < last:
                features = dropout(functional.leaky_relu(features), self.dropout, training=self.training)
        return features
