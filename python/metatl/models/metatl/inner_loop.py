"""MetaTL's inner loop: adapt to a user by gradient descent on the user's own transitions (Eq. 1 to 4).

Training, evaluation and serving run the same loop. `adapt` sets what the inner step updates:

``transition``
    The user transition tr: tr' = tr - α ∂L_S/∂tr. The presets `tuned` and `official` use it.
``learner``
    W and b of the one-layer learner.
``learner_and_embeddings``
    W, b and the item vectors: the θ of Eq. 4. The preset `paper` uses it.

The loop never builds a copy of W for each task. With t_j = σ(z_j), z_j = W x_j + b and G = ∂L_S/∂tr, the
gradient of the support loss is Σ_k δ_k x_kᵀ by W and Σ_k δ_k by b, where δ_k = G ⊙ σ'(z_k) / S. After a step
of rate α, the learner computes for any pair j

    z'_j = W x_j + b - α Σ_k δ_k (x_k·x_j + 1).

This needs the small Gram matrix of the pairs instead of a weight matrix per user. Each further step appends
its δ and x. Autograd differentiates these expressions once, so second-order MAML costs about as much as
another forward pass.

The shape letters are those of `metatl.models.metatl.support`; A is the number of slots of a support set: its
sequence and its negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from metatl.models.contract import NO_ITEM
from metatl.models.metatl.support import Slots, Support, SupportGradients, pair_costs, support_gradients
from metatl.models.metatl.transition import Mlp, OneLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from metatl.models.metatl.config import Adapt, SupportReduction
    from metatl.models.metatl.losses import Geometry, PairLoss
    from metatl.models.metatl.support import PairCosts


@dataclass(frozen=True)
class InnerLoop:
    """Settings of the inner loop, named as in `MetaTLConfig`.

    Parameters
    ----------
    inner_steps : int
        Number of gradient steps; 0 gives MetaTL−−.
    inner_lr : float or Tensor
        α of Eq. 4. With ``adapt="transition"`` it can be a (d,) float tensor of learned rates.
    first_order : bool
        Treat the inner gradient as a constant in the outer gradient.
    adapt : {"transition", "learner", "learner_and_embeddings"}
        What the steps update. They never update item biases or the temperature.
    support_reduction : {"sum", "mean", "batch_mean"}
        Reduction of the loss over the support pairs. ``batch_mean`` divides by the pairs of the whole batch,
        as the released program does, so that the step depends on the batch size.
    geometry : Geometry
        Computes costs from vectors.
    loss : PairLoss
        Computes the loss of a pair from costs.
    """

    inner_steps: int
    inner_lr: float | Tensor
    first_order: bool
    adapt: Adapt
    support_reduction: SupportReduction
    geometry: Geometry
    loss: PairLoss

    def pair_weight(self, tasks: int, pairs: int) -> float:
        """Return the weight of each pair in the support loss of the inner step."""
        return {"sum": 1.0, "mean": 1.0 / pairs, "batch_mean": 1.0 / (pairs * tasks)}[self.support_reduction]

    def support_loss(self, costs: PairCosts) -> Tensor:
        """Compute L_S (B,) of Eq. 3 from the costs of the pairs; ``batch_mean`` is treated as ``mean``."""
        losses = costs.losses(self.loss)
        return losses.sum(dim=1) if self.support_reduction == "sum" else losses.mean(dim=1)


class Adapted(NamedTuple):
    """The result of adaptation.

    Attributes
    ----------
    transition : Tensor
        (B, d) float, the user transition tr after the inner steps.
    last : Tensor
        (B, d) float, the vector of the last item after the inner steps.
    support_loss : Tensor or None
        (B,) float, the support loss before the first step.
    items : Tensor or None
        (B, A) int64, the items of the slots; None if embeddings do not adapt.
    moves : Tensor or None
        (B, A, d) float, the update of the item's table row from each slot. The updates of slots with the same
        item add up.
    """

    transition: Tensor
    last: Tensor
    support_loss: Tensor | None
    items: Tensor | None = None
    moves: Tensor | None = None

    def rows_of(self, slots: Slots) -> Tensor:
        """Return the rows (B, Q, d) of slots (B, Q) after the updates of their task."""
        if self.items is None or self.moves is None:
            return slots.rows
        same = _same_item(slots.items, self.items, self.moves.dtype)
        return _moved(slots.rows, slots.keep, same, self.moves)


def adapt(learner: OneLayer | Mlp, support: Support, inner: InnerLoop, *, with_loss: bool = False) -> Adapted:
    """Take the inner steps of a batch of tasks.

    Parameters
    ----------
    learner : OneLayer or Mlp
        The transition learner. Only `OneLayer` can be updated by the inner steps.
    support : Support
        Needs at least two items in the sequence, and negatives if `inner.inner_steps` > 0 or `with_loss`.
    inner : InnerLoop
        Settings of the inner loop.
    with_loss : bool
        Also return the support loss at θ, before the first step.

    Returns
    -------
    Adapted
        The adapted user transitions and item vectors.
    """
    if inner.inner_steps > 0 and inner.adapt != "transition" and isinstance(learner, OneLayer):
        return _adapt_learner(learner, support, inner, with_loss=with_loss)
    return _adapt_transition(learner, support, inner, with_loss=with_loss)


# --- The inner step updates tr


def _adapt_transition(
    learner: OneLayer | Mlp, support: Support, inner: InnerLoop, *, with_loss: bool
) -> Adapted:
    pairs = support.pairs()
    weight = inner.pair_weight(*pairs.shape[:2])
    # Eq. 1: t_j = σ(W [i_j; i_j+1] + b). Eq. 2: tr = 1/S Σ_j t_j.
    transition = learner(pairs).mean(dim=1)
    loss = None
    if inner.inner_steps == 0 and with_loss:
        loss = inner.support_loss(pair_costs(support, pairs, transition, inner.geometry))
    for step in range(inner.inner_steps):
        # Eq. 3: L_S = Σ_j [γ + s(i_j → i_j+1) - s(i_j → negative)]₊ with s(h → t) = ‖h + tr - t‖².
        costs = pair_costs(support, pairs, transition, inner.geometry)
        if step == 0 and with_loss:
            loss = inner.support_loss(costs)
        gradient = support_gradients(costs, inner.loss, weight, of_rows=False).points.sum(dim=1)
        # Eq. 4 for θ = tr: tr' = tr - α ∂L_S/∂tr.
        transition = transition - inner.inner_lr * (gradient.detach() if inner.first_order else gradient)
    return Adapted(transition, support.last_rows, loss)


# --- The inner step updates the one-layer learner, with or without the item vectors


def _adapt_learner(layer: OneLayer, support: Support, inner: InnerLoop, *, with_loss: bool) -> Adapted:
    moving = _MovingRows(support) if inner.adapt == "learner_and_embeddings" else None
    support = support if moving is None else moving.support
    state = _LayerState(layer)
    loss = None
    pairs = support.pairs()
    weight = inner.pair_weight(*pairs.shape[:2])
    for step in range(inner.inner_steps):
        # Eq. 1 and 2 with the learner and the item vectors after the previous steps.
        activation, transitions = state.forward(pairs)
        # Eq. 3.
        costs = pair_costs(support, pairs, transitions.mean(dim=1), inner.geometry)
        if step == 0 and with_loss:
            loss = inner.support_loss(costs)
        gradients = support_gradients(costs, inner.loss, weight, of_rows=moving is not None)
        gradient = gradients.points.sum(dim=1)  # G = ∂L_S/∂tr
        delta = state.delta(gradient, activation)  # δ = ∂L_S/∂z
        # Eq. 4: θ' = θ - α ∇L_S for the item vectors, then for W and b.
        if moving is not None:
            by_slot = moving.slot_gradients(gradients, state.backward(gradient, delta))
            moving.step(inner.inner_lr, by_slot.detach() if inner.first_order else by_slot)
        if inner.first_order:
            state.step(inner.inner_lr, gradient.detach(), delta.detach(), pairs.detach())
        else:
            state.step(inner.inner_lr, gradient, delta, pairs)
        if moving is not None:
            support = moving.arrange(moving.rows())
            pairs = support.pairs()
    # Eq. 2 with θ': the adapted user transition.
    _, transitions = state.forward(pairs)
    transition, last = transitions.mean(dim=1), support.last_rows
    if moving is None:
        return Adapted(transition, last, loss)
    return Adapted(transition, last, loss, moving.items, moving.moves)


class _LayerState:
    """A one-layer learner after inner steps: the initial W and b, and the steps as a low-rank update."""

    def __init__(self, layer: OneLayer) -> None:
        self.layer = layer
        self.inputs: Tensor | None = None  # (B, R, 2d), x of the pairs of all previous steps
        self.deltas: Tensor | None = None  # (B, R, d), α δ of these pairs
        self.skip = None if layer.skip is None else layer.skip[None]  # (1 or B, 2, d)

    def forward(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Return σ(z) and the transitions, (B, S, d) each, of pairs (B, S, 2, d)."""
        inputs = pairs.flatten(2)
        z = functional.linear(inputs, self.layer.weight, self.layer.bias)
        if self.inputs is not None and self.deltas is not None:
            gram = inputs @ self.inputs.transpose(1, 2) + 1.0
            z = torch.baddbmm(z, gram, self.deltas, alpha=-1)
        activation = torch.sigmoid(z)
        if self.skip is None:
            return activation, activation
        return activation, activation + (self.skip.unsqueeze(1) * pairs).sum(dim=2)

    def delta(self, gradient: Tensor, activation: Tensor) -> Tensor:
        """Return δ (B, S, d), the derivative by z, from G = ∂L/∂tr (B, d)."""
        return (gradient / activation.shape[1]).unsqueeze(1) * (activation - activation.square())

    def backward(self, gradient: Tensor, delta: Tensor) -> Tensor:
        """Return the derivative (B, S, 2, d) by the rows of the pairs, through the learner."""
        of_inputs = delta @ self.layer.weight
        if self.inputs is not None and self.deltas is not None:
            of_inputs = torch.baddbmm(of_inputs, delta @ self.deltas.transpose(1, 2), self.inputs, alpha=-1)
        of_pairs = of_inputs.view(*of_inputs.shape[:2], 2, -1)
        if self.skip is None:
            return of_pairs
        return of_pairs + (self.skip * (gradient / delta.shape[1]).unsqueeze(1)).unsqueeze(1)

    def step(self, inner_lr: float | Tensor, gradient: Tensor, delta: Tensor, pairs: Tensor) -> None:
        """Update W, b and the skip: θ ← θ - α ∇L_S."""
        delta = delta * inner_lr
        inputs = pairs.flatten(2)
        self.inputs = inputs if self.inputs is None else torch.cat((self.inputs, inputs), dim=1)
        self.deltas = delta if self.deltas is None else torch.cat((self.deltas, delta), dim=1)
        if self.skip is not None:
            self.skip = self.skip - (gradient * inner_lr).unsqueeze(1) * pairs.mean(dim=1)


class _MovingRows:
    """The rows of the support slots while the inner steps update their items."""

    def __init__(self, support: Support) -> None:
        if support.common is not None and support.common.items.dim() == 1:
            support = support._replace(common=support.common.expand(support.tasks))
        parts = [slots.map(lambda part: part.unsqueeze(1)) for slots in _each(support)]
        if support.own is not None:
            parts.append(support.own.map(lambda part: part.flatten(1, 2)))
        if support.common is not None:
            parts.append(support.common)
        self.support = support
        self.sizes = [part.items.shape[1] for part in parts]
        self.items = torch.cat([part.items for part in parts], dim=1)  # (B, A)
        self.start = torch.cat([part.rows for part in parts], dim=1)  # (B, A, d)
        keeps = [part.keep for part in parts if part.keep is not None]
        self.keep = torch.cat(keeps, dim=1) if keeps else None
        self.same = _same_item(self.items, self.items, self.start.dtype)
        self.moves: Tensor | None = None  # (B, A, d)

    def rows(self) -> Tensor:
        """Return the rows (B, A, d) of the slots after the previous updates."""
        if self.moves is None:
            return self.start
        return _moved(self.start, self.keep, self.same, self.moves)

    def arrange(self, rows: Tensor) -> Support:
        """Return the support set with its rows replaced by rows (B, A, d)."""
        _, own, common = self.support
        sequence = _each(self.support)
        parts = torch.split(rows, self.sizes, dim=1)
        return Support(
            [slots._replace(rows=part[:, 0]) for slots, part in zip(sequence, parts, strict=False)],
            None if own is None else own._replace(rows=parts[len(sequence)].view(own.rows.shape)),
            None if common is None else common._replace(rows=parts[-1]),
        )

    def slot_gradients(self, through_score: SupportGradients, through_learner: Tensor) -> Tensor:
        """Return the derivative (B, A, d) by the row of each slot; `through_learner` is (B, S, 2, d)."""
        heads, tails = through_learner.unbind(2)
        heads, tails = heads + through_score.points, tails + through_score.tails
        # Item i is the head of pair i and the tail of pair i - 1.
        parts = [functional.pad(heads, (0, 0, 0, 1)) + functional.pad(tails, (0, 0, 1, 0))]
        if through_score.own is not None:
            parts.append(through_score.own.flatten(1, 2))
        if through_score.common is not None:
            parts.append(through_score.common)
        return torch.cat(parts, dim=1)

    def step(self, inner_lr: float | Tensor, gradient: Tensor) -> None:
        """Add the updates from the gradients (B, A, d) of the slots; slots with the same item share them."""
        move = gradient * -inner_lr
        if self.keep is not None:
            move = move * self.keep
        self.moves = move if self.moves is None else self.moves + move


def _each(support: Support) -> Sequence[Slots]:
    sequence = support.sequence
    return sequence.split(lambda part: part.unbind(1)) if isinstance(sequence, Slots) else sequence


def _same_item(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 1 where left (B, P) and right (B, Q) hold the same item, else 0: (B, P, Q). Padding gives 0."""
    left = left.unsqueeze(-1)
    return ((left == right.unsqueeze(-2)) & (left != NO_ITEM)).to(dtype)


def _moved(rows: Tensor, keep: Tensor | None, same: Tensor, moves: Tensor) -> Tensor:
    """Add the moves (B, A, d) of the slots with the same item to rows (B, P, d); `same` is (B, P, A)."""
    if keep is None:
        return torch.baddbmm(rows, same, moves)
    return torch.addcmul(rows, keep, same @ moves)
