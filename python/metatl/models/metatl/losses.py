"""Distances and losses of pairs, with the derivatives that the inner loop needs.

The score of a pair is the distance between a *point* (head + user transition) and an item vector. The losses
use *costs*: distance / temperature - item bias; lower is better. The inner step computes the derivative of
the support loss in closed form. So the outer gradient needs only first-order autograd, for any number of
inner steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from metatl.models.metatl.config import Distance, Loss


class Costs(NamedTuple):
    """Costs and a factor of their derivatives.

    Attributes
    ----------
    cost : Tensor
        Float, of any shape.
    pull : Tensor or float
        The derivative of the cost by the point is ``pull * (point - row)``, and by the row it is
        ``-pull * (point - row)``.
    """

    cost: Tensor
    pull: Tensor | float


def safe_sqrt(squared: Tensor) -> Tensor:
    """Return the square root of a float tensor, with value and derivative 0 for inputs of 0 or less.

    Rounding can make a squared distance negative. ‖x‖ has no gradient at x = 0; 0 is a sub-gradient.
    """
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1).sqrt(), 0)


def _reciprocal(length: Tensor) -> Tensor:
    """Return 1 / length, with value and derivative 0 where the length is 0."""
    positive = length > 0
    return torch.where(positive, torch.where(positive, length, 1).reciprocal(), 0)


@dataclass(frozen=True)
class Geometry:
    """Computes costs from vectors.

    Parameters
    ----------
    distance : {"squared_l2", "l2"}
        ‖u‖² as in the paper's score, or ‖u‖ as in the released program.
    inverse_temperature : Tensor or float, optional
        Scalar; None means 1 and skips the multiplication.
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
        """Compute costs from offsets.

        Parameters
        ----------
        offsets : Tensor
            (..., d) float, point - row.
        bias : Tensor or None
            (...) float, the biases of the items.

        Returns
        -------
        Costs
            Of shape (...).
        """
        return self._finish(offsets.square().sum(dim=-1), bias)

    def of_common(self, points: Tensor, rows: Tensor, bias: Tensor | None) -> Costs:
        """Compute the costs of all points against rows that the batch, or each task, shares.

        ‖p - r‖² = ‖p‖² + ‖r‖² - 2 p·r takes one matrix product and no (B, P, m, d) tensor. The rounding error
        is relative to ‖p‖² + ‖r‖², so ‖p - r‖ and its derivative lose digits if p and r nearly coincide.

        Parameters
        ----------
        points : Tensor
            (B, P, d) float.
        rows : Tensor
            (m, d) float for the batch, or (B, m, d) for each task.
        bias : Tensor or None
            (m,) or (B, m) float, the biases of the items.

        Returns
        -------
        Costs
            Of shape (B, P, m).
        """
        squared_points = points.square().sum(dim=-1, keepdim=True)
        squared_rows = rows.square().sum(dim=-1)
        if self.distance == "squared_l2":
            # Terms of the row alone are computed once per row, not once per (point, row).
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
    """Return base + scale · left @ right, where all tasks may share `right`.

    Parameters
    ----------
    base : Tensor
        Float; broadcasts to (B, P, y).
    left : Tensor
        (B, P, x) float.
    right : Tensor
        (x, y) or (B, x, y) float.
    scale : float
        Factor of the product.

    Returns
    -------
    Tensor
        (B, P, y) float.
    """
    if right.dim() == 2:  # noqa: PLR2004
        products = torch.addmm(
            base.flatten(0, 1) if base.dim() == left.dim() else base, left.flatten(0, 1), right, alpha=scale
        )
        return products.view(*left.shape[:2], right.shape[1])
    return torch.baddbmm(base, left, right, alpha=scale)


def _against_rows(points: Tensor, rows: Tensor, of_row: Tensor) -> Tensor:
    """Return points · rowsᵀ + of_row (B, P, m).

    The inputs are points (B, P, d), rows (m, d) or (B, m, d), and of_row (m,) or (B, m).
    """
    base = of_row if rows.dim() == 2 else of_row.unsqueeze(1)  # noqa: PLR2004
    return add_products(base, points, rows.transpose(-2, -1))


def exclude(costs: Tensor, excluded: Tensor) -> Tensor:
    """Exclude negatives: raise their costs so that their loss terms and derivatives are 0.

    Parameters
    ----------
    costs : Tensor
        (..., n) float, costs of negatives.
    excluded : Tensor
        Bool, true for excluded negatives; broadcasts to (..., n).

    Returns
    -------
    Tensor
        (..., n) float.
    """
    # A finite cost avoids NaN. Addition runs and differentiates faster than a masked fill.
    return torch.add(costs, excluded, alpha=torch.finfo(costs.dtype).max / 4)


@dataclass(frozen=True)
class PairLoss:
    """The loss of a pair, from the costs of the positive and its negatives.

    ``margin`` is the mean over negatives of [γ + c⁺ - c⁻]₊; with one negative it is a term of Eq. 3.
    ``softmax`` is -log of the softmax of -cost at the positive. The term of a negative excluded by `exclude`
    is 0; the mean of ``margin`` still counts it.

    Parameters
    ----------
    loss : {"margin", "softmax"}
        Kind of loss.
    margin : float
        γ, used by ``margin`` only.
    """

    loss: Loss
    margin: float = 1.0

    def values(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """Compute the loss of each pair.

        Parameters
        ----------
        positive : Tensor
            (...) float, costs of the positives.
        negatives : Tensor
            (..., n) float with n ≥ 1, costs of the negatives.

        Returns
        -------
        Tensor
            (...) float.
        """
        if self.loss == "margin":
            return functional.relu(self.margin + positive.unsqueeze(-1) - negatives).mean(dim=-1)
        # -log softmax = log(1 + exp(c⁺ + logsumexp(-c⁻)))
        return -functional.logsigmoid(-positive - torch.logsumexp(-negatives, dim=-1))

    def slopes(self, positive: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the derivatives of `values` by its arguments. They are differentiable themselves.

        At the kink of the margin loss the derivative is 0, as in autograd.

        Parameters
        ----------
        positive : Tensor
            (...) float, costs of the positives.
        negatives : Tensor
            (..., n) float with n ≥ 1, costs of the negatives.

        Returns
        -------
        positive_slope : Tensor
            (...) float.
        negative_slopes : Tensor
            (..., n) float.
        """
        if self.loss == "margin":
            active = (self.margin + positive.unsqueeze(-1) - negatives > 0).to(positive.dtype)
            shares = active / negatives.shape[-1]
            return shares.sum(dim=-1), -shares
        log_negatives = torch.logsumexp(-negatives, dim=-1)
        missed = torch.sigmoid(positive + log_negatives)  # 1 - the positive's share of the softmax
        return missed, -missed.unsqueeze(-1) * torch.softmax(-negatives, dim=-1)
