"""Losses of the next item, from the scores of the positive and its negatives; higher scores are better.

References
----------
He and McAuley 2016 and Kang and McAuley 2018 (binary cross-entropy); Rendle et al. 2009 (BPR); Hidasi and
Karatzoglou, *Recurrent neural networks with top-k gains for session-based recommendations*, CIKM 2018
(TOP1-max and BPR-max).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from metatl.models.training_config import NextItemLoss


def next_item_loss(
    kind: NextItemLoss, positive: Tensor, negatives: Tensor, *, penalty: float = 0.0
) -> Tensor:
    """Compute the loss of each positive and its negatives.

    Parameters
    ----------
    kind : {"softmax", "binary", "bpr", "bpr_max", "top1_max"}
        The loss.
    positive : Tensor
        (n,) float, scores of the positives.
    negatives : Tensor
        (n, m) float, scores of the negatives; -inf excludes a negative. Each row needs at least one finite
        score.
    penalty : float
        Weight of the squared scores in ``bpr_max`` (λ in Eq. 14 of Hidasi and Karatzoglou).

    Returns
    -------
    Tensor
        (n,) float.
    """
    counts = negatives > -torch.inf
    if kind == "softmax":
        # -log softmax = log(1 + exp(logsumexp(s⁻) - s⁺))
        return functional.softplus(torch.logsumexp(negatives, dim=1) - positive)
    share = counts.sum(dim=1).to(negatives.dtype).reciprocal()
    # A finite score in place of -inf keeps the (zero) gradient of an excluded negative from being NaN.
    negatives = negatives.masked_fill(~counts, 0.0)
    margin = positive.unsqueeze(1) - negatives
    if kind == "binary":
        return functional.softplus(-positive) + share * (functional.softplus(negatives) * counts).sum(dim=1)
    if kind == "bpr":
        return share * (functional.softplus(-margin) * counts).sum(dim=1)
    weights = torch.softmax(negatives.masked_fill(~counts, -torch.inf), dim=1)
    if kind == "top1_max":
        return (weights * (torch.sigmoid(-margin) + torch.sigmoid(negatives.square()))).sum(dim=1)
    log_weights = torch.log_softmax(negatives.masked_fill(~counts, -torch.inf), dim=1)
    log_chance = functional.logsigmoid(margin) + log_weights.masked_fill(~counts, -torch.inf)
    return -torch.logsumexp(log_chance, dim=1) + penalty * (weights * negatives.square()).sum(dim=1)
