"""Support sets of tasks, and the support loss (Eq. 3) with its derivatives in closed form.

Shape letters, here and in `metatl.models.metatl.inner_loop`: B tasks, K items of the support sequence,
S = K - 1 support pairs, n negatives of each pair, m common negatives of all pairs, d dimensions.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch

from metatl.models.metatl.losses import Costs, Geometry, PairLoss, add_products, exclude

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


class Slots(NamedTuple):
    """Slots of a batch. Each slot holds an item; several slots may hold the same item.

    Attributes
    ----------
    items : Tensor
        (...) int64, padded with ``NO_ITEM``.
    rows : Tensor
        (..., d) float, the vectors of the items.
    bias : Tensor or None
        (...) float, the biases of the items.
    keep : Tensor or None
        (..., d) float, the dropout factors: `rows` are the rows of the item table times these factors. Set
        only if embeddings adapt; None means 1.
    """

    items: Tensor
    rows: Tensor
    bias: Tensor | None = None
    keep: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Slots:
        """Apply a function that reshapes, slices or expands a tensor to each attribute."""
        bias = None if self.bias is None else function(self.bias)
        keep = None if self.keep is None else function(self.keep)
        return Slots(function(self.items), function(self.rows), bias, keep)

    def split(self, function: Callable[[Tensor], Sequence[Tensor]]) -> list[Slots]:
        """Apply a function that splits a tensor to each attribute, and return one Slots per part."""
        items, rows = function(self.items), function(self.rows)
        absent = [None] * len(items)
        biases = absent if self.bias is None else function(self.bias)
        keeps = absent if self.keep is None else function(self.keep)
        return [Slots(*parts) for parts in zip(items, rows, biases, keeps, strict=True)]

    def reshape(self, shape: Sequence[int]) -> Slots:
        """Reshape flat slots (N,) to a shape."""
        return self.map(lambda part: part.view(*shape, *part.shape[1:]))

    def concatenate(self, other: Slots) -> Slots:
        """Concatenate these slots (B, n) and others (B, m) to (B, n + m).

        The result has a bias, or dropout factors, if both have them.
        """

        def join(left: Tensor | None, right: Tensor | None) -> Tensor | None:
            return None if left is None or right is None else torch.cat((left, right), dim=1)

        return Slots(
            torch.cat((self.items, other.items), dim=1),
            torch.cat((self.rows, other.rows), dim=1),
            join(self.bias, other.bias),
            join(self.keep, other.keep),
        )

    def expand(self, tasks: int) -> Slots:
        """Expand the slots (m,) of a batch to (B, m), the same slots for each task."""
        return self.map(lambda part: part.expand(tasks, *part.shape))


class Support(NamedTuple):
    """The support sets of a batch of tasks.

    Attributes
    ----------
    sequence : sequence of Slots, or Slots
        K slots of shape (B,), the items in time order; consecutive items are the support pairs. Or the same
        as one Slots (B, K), for histories without gradient: nothing then depends on K in Python.
    own : Slots or None
        (B, S, n), the negatives of each pair.
    common : Slots or None
        (m,), negatives of all pairs of the batch, or (B, m), negatives of all pairs of each task. A negative
        that equals the tail of a pair is excluded for that pair.
    """

    sequence: Sequence[Slots] | Slots
    own: Slots | None = None
    common: Slots | None = None

    @property
    def tasks(self) -> int:
        """B, number of tasks."""
        first = self.sequence if isinstance(self.sequence, Slots) else self.sequence[0]
        return first.items.shape[0]

    @property
    def last_rows(self) -> Tensor:
        """(B, d) float, the vectors of the last items."""
        if isinstance(self.sequence, Slots):
            return self.sequence.rows[:, -1]
        return self.sequence[-1].rows

    def pairs(self) -> Tensor:
        """Return the rows (B, S, 2, d) of the head and the tail of each support pair."""
        if isinstance(self.sequence, Slots):
            return torch.stack((self.sequence.rows[:, :-1], self.sequence.rows[:, 1:]), dim=2)
        # This makes one copy. With overlapping slices of (B, K, d), the backward pass would fill a tensor
        # with zeros for each slice.
        rows = [slots.rows for slots in self.sequence]
        ends = [row for head_and_tail in itertools.pairwise(rows) for row in head_and_tail]
        stacked = torch.stack(ends, dim=1)
        return stacked.view(stacked.shape[0], -1, 2, stacked.shape[2])

    def tail_items(self) -> Tensor:
        """Return the items (B, S) int64 of the tails."""
        if isinstance(self.sequence, Slots):
            return self.sequence.items[:, 1:]
        return torch.stack([slots.items for slots in self.sequence[1:]], dim=1)

    def tail_biases(self) -> Tensor | None:
        """Return the biases (B, S) float of the tails; None for no bias."""
        if isinstance(self.sequence, Slots):
            return None if self.sequence.bias is None else self.sequence.bias[:, 1:]
        biases = [slots.bias for slots in self.sequence[1:] if slots.bias is not None]
        return torch.stack(biases, dim=1) if biases else None


class PairCosts(NamedTuple):
    """Offsets and costs of the support pairs and of their negatives, for a given user transition.

    Attributes
    ----------
    points : Tensor
        (B, S, d) float, head + tr.
    tail_offsets : Tensor
        (B, S, d) float, point - tail.
    tails : Costs
        (B, S), costs of the tails.
    own_offsets : Tensor or None
        (B, S, n, d) float, point - negative.
    own : Costs or None
        (B, S, n), costs of the pair's own negatives.
    common_rows : Tensor or None
        (m, d) or (B, m, d) float, vectors of the common negatives.
    common : Costs or None
        (B, S, m), costs of the common negatives.
    negatives : Tensor
        (B, S, n + m) float, costs of all negatives.
    """

    points: Tensor
    tail_offsets: Tensor
    tails: Costs
    own_offsets: Tensor | None
    own: Costs | None
    common_rows: Tensor | None
    common: Costs | None
    negatives: Tensor

    def losses(self, loss: PairLoss) -> Tensor:
        """Return the loss (B, S) of each support pair."""
        return loss.values(self.tails.cost, self.negatives)


class SupportGradients(NamedTuple):
    """Derivatives of the support loss through the score, without those through the learner.

    Attributes
    ----------
    points : Tensor
        (B, S, d) float, by the points; the same by the heads, and summed over S by tr.
    tails : Tensor
        (B, S, d) float, by the tails.
    own : Tensor or None
        (B, S, n, d) float, by the pairs' own negatives.
    common : Tensor or None
        (B, m, d) float, by the common negatives.
    """

    points: Tensor
    tails: Tensor
    own: Tensor | None
    common: Tensor | None


def pair_costs(support: Support, pairs: Tensor, transition: Tensor, geometry: Geometry) -> PairCosts:
    """Compute s(i_h → i_t) = ‖i_h + tr - i_t‖² for each support pair, and for negatives in place of i_t.

    Parameters
    ----------
    support : Support
        Must have negatives.
    pairs : Tensor
        (B, S, 2, d) float, `Support.pairs` of `support`.
    transition : Tensor
        (B, d) float, the user transition tr.
    geometry : Geometry
        Computes costs from vectors.

    Returns
    -------
    PairCosts
        Offsets and costs of the pairs and their negatives.
    """
    _, own, common = support
    heads, tails = pairs.unbind(2)
    points = heads + transition.unsqueeze(1)
    tail_offsets = points - tails
    tail_costs = geometry.of_offsets(tail_offsets, support.tail_biases())
    negatives = []
    own_offsets = own_costs = common_costs = None
    if own is not None:
        own_offsets = points.unsqueeze(2) - own.rows
        own_costs = geometry.of_offsets(own_offsets, own.bias)
        negatives.append(own_costs.cost)
    if common is not None:
        common_costs = geometry.of_common(points, common.rows, common.bias)
        is_tail = support.tail_items().unsqueeze(-1) == common.items.unsqueeze(-2)
        negatives.append(exclude(common_costs.cost, is_tail))
    return PairCosts(
        points,
        tail_offsets,
        tail_costs,
        own_offsets,
        own_costs,
        None if common is None else common.rows,
        common_costs,
        negatives[0] if len(negatives) == 1 else torch.cat(negatives, dim=-1),
    )


def support_gradients(pairs: PairCosts, loss: PairLoss, weight: float, *, of_rows: bool) -> SupportGradients:
    """Differentiate the support loss of Eq. 3, weight · Σ losses of the pairs, through the score.

    Parameters
    ----------
    pairs : PairCosts
        Return value of `pair_costs`.
    loss : PairLoss
        Loss of a pair.
    weight : float
        Weight of each pair in the support loss.
    of_rows : bool
        Also compute the derivatives by tails and negatives. If false, use only `points` of the result.

    Returns
    -------
    SupportGradients
        The derivatives.
    """
    tail_slope, slopes = loss.slopes(pairs.tails.cost, pairs.negatives)
    if weight != 1.0:
        tail_slope, slopes = tail_slope * weight, slopes * weight
    of_point = (tail_slope * pairs.tails.pull).unsqueeze(-1) * pairs.tail_offsets
    of_tail = -of_point if of_rows else of_point
    of_own = of_common = None
    own_count = 0
    if pairs.own is not None and pairs.own_offsets is not None:
        own_count = pairs.own_offsets.shape[2]
        weighted = (slopes[..., :own_count] * pairs.own.pull).unsqueeze(-1) * pairs.own_offsets
        of_point = of_point + (weighted.squeeze(2) if own_count == 1 else weighted.sum(dim=2))
        of_own = -weighted if of_rows else None
    if pairs.common is not None and pairs.common_rows is not None:
        pull = (slopes[..., own_count:] if own_count else slopes) * pairs.common.pull  # (B, S, m)
        of_point = torch.addcmul(of_point, pull.sum(dim=-1, keepdim=True), pairs.points)
        of_point = add_products(of_point, pull, pairs.common_rows, scale=-1.0)
        if of_rows:
            of_common = pull.sum(dim=1).unsqueeze(-1) * pairs.common_rows
            of_common = torch.baddbmm(of_common, pull.transpose(1, 2), pairs.points, alpha=-1)
    return SupportGradients(of_point, of_tail, of_own, of_common)
