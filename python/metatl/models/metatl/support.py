"""Support sets of tasks, and the support loss (Eq. 3) with its derivatives in closed form.

Shape letters, here and in `metatl.models.metatl.inner_loop`: B tasks, K items of the support sequence,
S = K - 1 support pairs, n negatives of each pair, m negatives common to the pairs, d dimensions.
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
    """Slots of a batch that hold an item each; one item may occur in several.

    Attributes
    ----------
    items : Tensor
        (...) int64; ``NO_ITEM`` is padding.
    rows : Tensor
        (..., d), the items' vectors.
    bias : Tensor or None
        (...), the items' biases.
    keep : Tensor or None
        (..., d), the factors (dropout) by which the table's rows were multiplied to give `rows`. Needed only
        where embeddings are adapted; None means 1.
    """

    items: Tensor
    rows: Tensor
    bias: Tensor | None = None
    keep: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Slots:
        """Apply a function to every part; it reshapes or expands."""
        bias = None if self.bias is None else function(self.bias)
        keep = None if self.keep is None else function(self.keep)
        return Slots(function(self.items), function(self.rows), bias, keep)

    def split(self, function: Callable[[Tensor], Sequence[Tensor]]) -> list[Slots]:
        """Apply a function that splits a tensor to every part."""
        items, rows = function(self.items), function(self.rows)
        nothing = [None] * len(items)
        biases = nothing if self.bias is None else function(self.bias)
        keeps = nothing if self.keep is None else function(self.keep)
        return [Slots(*parts) for parts in zip(items, rows, biases, keeps, strict=True)]

    def in_shape(self, shape: Sequence[int]) -> Slots:
        """Flat slots (N,) in another shape."""
        return self.map(lambda part: part.view(*shape, *part.shape[1:]))

    def beside(self, other: Slots) -> Slots:
        """Slots (B, n) and others (B, m), both with or without bias and factors, as (B, n + m)."""

        def join(left: Tensor | None, right: Tensor | None) -> Tensor | None:
            return None if left is None or right is None else torch.cat((left, right), dim=1)

        return Slots(
            torch.cat((self.items, other.items), dim=1),
            torch.cat((self.rows, other.rows), dim=1),
            join(self.bias, other.bias),
            join(self.keep, other.keep),
        )

    def for_each_task(self, tasks: int) -> Slots:
        """Slots (m,) of a whole batch as slots (B, m) of each task."""
        return self.map(lambda part: part.expand(tasks, *part.shape))


class Support(NamedTuple):
    """The support sets of a batch of tasks.

    Attributes
    ----------
    sequence : sequence of Slots
        K times (B,): the items in time order; the support pairs are its neighbours.
    own : Slots or None
        (B, S, n) negatives of each pair.
    common : Slots or None
        (m,) negatives of every pair of the batch or (B, m) of every pair of a task. One that equals the
        tail of a pair does not count for that pair.
    """

    sequence: Sequence[Slots]
    own: Slots | None = None
    common: Slots | None = None

    @property
    def tasks(self) -> int:
        """B."""
        return self.sequence[0].items.shape[0]

    def pairs(self) -> Tensor:
        """Rows (B, S, 2, d) of head and tail of each support pair."""
        # One copy. Overlapping slices of (B, K, d) would cost the backward pass a zero-filled tensor each.
        rows = [slots.rows for slots in self.sequence]
        ends = [row for head_and_tail in itertools.pairwise(rows) for row in head_and_tail]
        stacked = torch.stack(ends, dim=1)
        return stacked.view(stacked.shape[0], -1, 2, stacked.shape[2])


class PairCosts(NamedTuple):
    """Offsets and costs of the support pairs and of their negatives, at one user transition."""

    points: Tensor
    """(B, S, d), head + tr."""
    tail_offsets: Tensor
    """(B, S, d)."""
    tails: Costs
    """(B, S)."""
    own_offsets: Tensor | None
    """(B, S, n, d)."""
    own: Costs | None
    """(B, S, n)."""
    common_rows: Tensor | None
    """(m, d) or (B, m, d)."""
    common: Costs | None
    """(B, S, m)."""
    negatives: Tensor
    """(B, S, n + m), all costs of negatives."""

    def losses(self, loss: PairLoss) -> Tensor:
        """Loss (B, S) of each support pair."""
        return loss.values(self.tails.cost, self.negatives)


class SupportGradients(NamedTuple):
    """Derivatives of the support loss through the score; those through the learner come on top.

    Attributes
    ----------
    points : Tensor
        (B, S, d), also of the heads and, summed over S, of tr.
    tails : Tensor
        (B, S, d).
    own : Tensor or None
        (B, S, n, d).
    common : Tensor or None
        (B, m, d).
    """

    points: Tensor
    tails: Tensor
    own: Tensor | None
    common: Tensor | None


def pair_costs(support: Support, pairs: Tensor, transition: Tensor, geometry: Geometry) -> PairCosts:
    """Compute s(i_h → i_t) = ‖i_h + tr - i_t‖² of every support pair, and of its negatives in place of i_t.

    Parameters
    ----------
    support : Support
        With negatives.
    pairs : Tensor
        (B, S, 2, d), its `Support.pairs`.
    transition : Tensor
        (B, d), the user transition tr.
    geometry : Geometry
    """
    sequence, own, common = support
    heads, tails = pairs.unbind(2)
    points = heads + transition.unsqueeze(1)
    tail_offsets = points - tails
    biases = [slots.bias for slots in sequence[1:] if slots.bias is not None]
    tail_costs = geometry.of_offsets(tail_offsets, torch.stack(biases, dim=1) if biases else None)
    negatives = []
    own_offsets = own_costs = common_costs = None
    if own is not None:
        own_offsets = points.unsqueeze(2) - own.rows
        own_costs = geometry.of_offsets(own_offsets, own.bias)
        negatives.append(own_costs.cost)
    if common is not None:
        common_costs = geometry.of_common(points, common.rows, common.bias)
        tail_items = torch.stack([slots.items for slots in sequence[1:]], dim=1)
        is_tail = tail_items.unsqueeze(-1) == common.items.unsqueeze(-2)
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
        From `pair_costs`.
    loss : PairLoss
    weight : float
        Of each pair in the support loss.
    of_rows : bool
        Whether the derivatives by tails and negatives are wanted; without them only `points` is meant.
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
