"""Dropout with fast random numbers on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

_LEVELS = 256


def dropout_factors(like: Tensor, probability: float) -> Tensor:
    """Draw dropout factors: 0 with the given probability, otherwise the constant that makes the mean 1.

    On a CPU torch draws one random number per element, serially: 9 ms for 600,000 elements, more than the
    rest of a training step. This function uses one random byte per element and draws eight bytes at a time,
    so it rounds the probability to a multiple of 1/256.

    Parameters
    ----------
    like : Tensor
        Tensor whose shape, dtype and device the factors take.
    probability : float
        In [0, 1).

    Returns
    -------
    Tensor
        The factors.
    """
    if like.device.type != "cpu":
        return functional.dropout(torch.ones_like(like), probability)
    dropped = min(round(probability * _LEVELS), _LEVELS - 1)
    draws = torch.empty((like.numel() + 7) // 8, dtype=torch.int64)
    draws.random_(torch.iinfo(torch.int64).min, None)
    kept = draws.view(torch.uint8)[: like.numel()] >= dropped
    return kept.view(like.shape).to(like.dtype).mul_(_LEVELS / (_LEVELS - dropped))


def dropout(features: Tensor, probability: float, *, training: bool) -> Tensor:
    """Multiply features of any shape by `dropout_factors` if `training`; otherwise return them unchanged."""
    if not training or probability == 0.0:
        return features
    if features.device.type != "cpu":
        return functional.dropout(features, probability)
    return features * dropout_factors(features, probability)
