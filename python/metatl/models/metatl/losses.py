"""Distances and losses of a transition, with the derivatives that the inner loop needs.

A pair is scored by the distance between a *point* (head + user transition) and an item's vector. A loss
works on *costs*: distance / temperature - item bias; small is good. The inner step takes the derivative of
the support loss in closed form. That keeps the graph of the outer gradient first order in autograd, however
many inner steps there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

Distance: TypeAlias = Literal["squared_l2", "l2"]
Loss: TypeAlias = Literal["margin", "softmax"]


class Costs(NamedTuple):
    """Costs and how they grow with the point.

    Attributes
    ----------
    cost : Tensor
        Any shape.
    pull : Tensor or float
        The derivative of the cost by the point is ``pull * (point - row)``; by the row it is the negative
        of that.
    """

    cost: Tensor
    pull: Tensor | float


def safe_sqrt(squared: Tensor) -> Tensor:
    """Square root whose derivative at 0 (and below, where rounding may lead) is 0.

    ‖x‖ has no gradient at x = 0; 0 is one of its sub-gradients.
    """
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1).sqrt(), 0)


def _reciprocal(length: Tensor) -> Tensor:
    """1 / length, and 0 with derivative 0 where the length is 0."""
    positive = length > 0
    return torch.where(positive, torch.where(positive, length, 1).reciprocal(), 0)


@dataclass(frozen=True)
class Geometry:
    """From vectors to costs.

    Parameters
    ----------
    distance : {"squared_l2", "l2"}
        ‖u‖² as in the paper's score, or ‖u‖ as in the released program.
    inverse_temperature : Tensor or float, optional
        Scalar; None means 1 and costs nothing.
    """

    distance: Distance
    inverse_temperature: Tensor | float | None = None

    def _finish(self, squared: Tensor, bias: Tensor | None) -> Costs:
        scale = self.inverse_temperature
        pull: Tensor | float
        if self.distance == "squared_l2":
            cost = squared if scale is None else squared * scale
            pull = 2.0 if scale is None else 2.0 * scale
        else:
            length = safe_sqrt(squared)
            inverse = _reciprocal(length)
            cost = length if scale is None else length * scale
            pull = inverse if scale is None else inverse * scale
        return Costs(cost if bias is None else cost - bias, pull)

    def of_offsets(self, offsets: Tensor, bias: Tensor | None) -> Costs:
        """Costs from differences point - row.

        Parameters
        ----------
        offsets : Tensor
            (..., d).
        bias : Tensor or None
            (...), the items' biases.
        """
        return self._finish(offsets.square().sum(dim=-1), bias)

    def of_common(self, points: Tensor, rows: Tensor, bias: Tensor | None) -> Costs:
        """Costs of every point against rows that all points of the batch, or of the task, have in common.

        ‖p - r‖² = ‖p‖² + ‖r‖² - 2 p·r: one matrix product; no (B, P, m, d) tensor. Rounding weighs against
        ‖p‖² + ‖r‖², so that the root, ‖p - r‖, and its derivative lose digits where p and r nearly coincide.

        Parameters
        ----------
        points : Tensor
            (B, P, d).
        rows : Tensor
            (m, d) for the batch or (B, m, d) for each task.
        bias : Tensor or None
            (m,) or (B, m).

        Returns
        -------
        Costs
            Of shape (B, P, m).
        """
        squared_points = points.square().sum(dim=-1, keepdim=True)
        squared_rows = rows.square().sum(dim=-1)
        if self.distance == "squared_l2":
            # Everything that depends on the row alone enters once per row, not once per (point, row).
            scale = self.inverse_temperature
            of_row = squared_rows if scale is None else squared_rows * scale
            if bias is not None:
                of_row = of_row - bias
            of_point = squared_points if scale is None else squared_points * scale
            pull = 2.0 if scale is None else 2.0 * scale
            return Costs(_against_rows(points * -pull, rows, of_row) + of_point, pull)
        squared = _against_rows(points * -2.0, rows, squared_rows) + squared_points
        return self._finish(squared, None if bias is None else bias.unsqueeze(-2))


def add_products(base: Tensor, left: Tensor, right: Tensor, *, scale: float = 1.0) -> Tensor:
    """Return base + scale · left @ right, where `right` may be common to the batch.

    Parameters
    ----------
    base : Tensor
        Broadcasts to (B, P, y).
    left : Tensor
        (B, P, x).
    right : Tensor
        (x, y) or (B, x, y).
    scale : float
    """
    if right.dim() == 2:  # noqa: PLR2004
        products = torch.addmm(
            base.flatten(0, 1) if base.dim() == left.dim() else base, left.flatten(0, 1), right, alpha=scale
        )
        return products.view(*left.shape[:2], right.shape[1])
    return torch.baddbmm(base, left, right, alpha=scale)


def _against_rows(points: Tensor, rows: Tensor, of_row: Tensor) -> Tensor:
    """Points · rowsᵀ + of_row: (B, P, m) from (B, P, d), (m, d) or (B, m, d), and (m,) or (B, m)."""
    base = of_row if rows.dim() == 2 else of_row.unsqueeze(1)  # noqa: PLR2004
    return add_products(base, points, rows.transpose(-2, -1))


def exclude(costs: Tensor, excluded: Tensor) -> Tensor:
    """Raise the costs of some negatives so high that their terms of a loss, and the derivatives, are 0.

    Parameters
    ----------
    costs : Tensor
        (..., n).
    excluded : Tensor
        bool, of the same shape or one that broadcasts to it.
    """
    # Finite, so that no NaN can arise; and a sum, which runs and differentiates faster than a masked fill.
    return torch.add(costs, excluded, alpha=torch.finfo(costs.dtype).max / 4)


@dataclass(frozen=True)
class PairLoss:
    """The loss of one positive among its negatives, from costs.

    ``margin``: mean over negatives of [γ + c⁺ - c⁻]₊, which is a term of Eq. 3 where there is one negative.
    ``softmax``: -log of the softmax of -cost at the positive. The term of a negative that `exclude` marked
    is 0; the mean of ``margin`` still counts it.

    Parameters
    ----------
    loss : {"margin", "softmax"}
    margin : float
        γ; read by ``margin`` only.
    """

    loss: Loss
    margin: float = 1.0

    def values(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """Loss of each pair.

        Parameters
        ----------
        positive : Tensor
            (...), costs of the positives.
        negatives : Tensor
            (..., n) with n ≥ 1, costs of the negatives.

        Returns
        -------
        Tensor
            (...).
        """
        if self.loss == "margin":
            return functional.relu(self.margin + positive.unsqueeze(-1) - negatives).mean(dim=-1)
        # -log softmax = log(1 + exp(c⁺ + logsumexp(-c⁻)))
        return -functional.logsigmoid(-positive - torch.logsumexp(-negatives, dim=-1))

    def slopes(self, positive: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiate `values` by its arguments; the result is differentiable itself.

        At the kink of the margin loss the derivative is 0, as autograd has it.

        Returns
        -------
        positive_slope : Tensor
            (...).
        negative_slopes : Tensor
            (..., n).
        """
        if self.loss == "margin":
            active = (self.margin + positive.unsqueeze(-1) - negatives > 0).to(positive.dtype)
            shares = active / negatives.shape[-1]
            return shares.sum(dim=-1), -shares
        log_negatives = torch.logsumexp(-negatives, dim=-1)
        missed = torch.sigmoid(positive + log_negatives)  # 1 - the positive's share of the softmax
        return missed, -missed.unsqueeze(-1) * torch.softmax(-negatives, dim=-1)
