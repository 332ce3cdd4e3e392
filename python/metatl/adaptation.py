"""The inner loop: adapting to one user from the transitions of the user's support set (Eq. 2 to 4).

Training, evaluation and serving run this one loop.

Per-task copies of the learner's weights are never built for the one-layer learner. With t_j = σ(z_j), z_j = W x_j + b
and G = ∂L/∂tr, the gradient of the support loss by W is Σ_k δ_k x_kᵀ with δ_k = G ⊙ σ'(z_k) / |S|. After steps of
rate α a pair therefore sees z'_j = W x_j + b - α Σ_k δ_k (x_k·x_j + 1): a small Gram matrix in place of a weight
matrix per user. Every further step appends its δ and x. All of it is tensor algebra that autograd differentiates
once, so second-order MAML costs about as much as another forward pass.

Shape letters: B tasks, K items of the support sequence, S = K - 1 support pairs, n negatives of each pair, m negatives
common to the pairs, A slots = all places of the support that hold an item, d dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from metatl.losses import Costs, Geometry, PairLoss, excluded_cost
from metatl.models.contract import NO_ITEM
from metatl.models.transition import OneLayer

if TYPE_CHECKING:
    from torch import Tensor

Target: TypeAlias = Literal["transition", "learner", "learner_and_embeddings"]
Reduction: TypeAlias = Literal["sum", "mean", "batch_mean"]


class Slots(NamedTuple):
    """Places that hold an item each; one item may occur in several.

    Attributes
    ----------
    items : Tensor
        (...) int64; ``NO_ITEM`` is padding.
    rows : Tensor
        (..., d), the items' vectors.
    bias : Tensor or None
        (...), the items' biases.
    keep : Tensor or None
        (..., d), the factors (dropout) by which the table's rows were multiplied to give `rows`. Needed only where
        embeddings are adapted; None means 1.
    """

    items: Tensor
    rows: Tensor
    bias: Tensor | None = None
    keep: Tensor | None = None


class Support(NamedTuple):
    """The support sets of a batch of tasks.

    Attributes
    ----------
    sequence : Slots
        (B, K) items in time order; the support pairs are its neighbours.
    own : Slots or None
        (B, S, n) negatives of each pair.
    common : Slots or None
        (m,) negatives of every pair of the batch or (B, m) of every pair of a task. One that equals the tail of a
        pair does not count for that pair.
    """

    sequence: Slots
    own: Slots | None = None
    common: Slots | None = None


@dataclass(frozen=True)
class InnerLoop:
    """How the inner loop runs.

    Parameters
    ----------
    steps : int
        0 gives MetaTL−−.
    rate : float or Tensor
        α of Eq. 4; a tensor (d,) of learned rates where `target` is ``transition``.
    first_order : bool
        Treat the inner gradient as a constant in the outer one.
    target : {"transition", "learner", "learner_and_embeddings"}
        What steps: the user transition tr itself, the learner's parameters, or θ of Eq. 4. Item biases and the
        temperature never step.
    reduction : {"sum", "mean", "batch_mean"}
        Over the support pairs. ``batch_mean`` divides by the pairs of the whole batch, so that the step depends on
        the batch size: the released program's behaviour.
    geometry : Geometry
    loss : PairLoss
    """

    steps: int
    rate: float | Tensor
    first_order: bool
    target: Target
    reduction: Reduction
    geometry: Geometry
    loss: PairLoss

    def pair_weight(self, tasks: int, pairs: int) -> float:
        """Weight of a pair's loss in the support loss that the inner step descends."""
        return {"sum": 1.0, "mean": 1.0 / pairs, "batch_mean": 1.0 / (pairs * tasks)}[self.reduction]


class Adapted(NamedTuple):
    """What adaptation leaves behind.

    Attributes
    ----------
    transition : Tensor
        (B, d), the user transition tr after the inner steps.
    last : Tensor
        (B, d), the last item's vector after the inner steps.
    support_loss : Tensor or None
        (B,), before the first step, reduced over the pairs of the task (``batch_mean`` counts as a mean).
    items : Tensor or None
        (B, A) int64, the slots whose rows moved; None where embeddings do not adapt.
    moves : Tensor or None
        (B, A, d), how far each slot's gradient moved the table's row; the moves of equal items add up.
    """

    transition: Tensor
    last: Tensor
    support_loss: Tensor | None
    items: Tensor | None = None
    moves: Tensor | None = None

    def rows_of(self, slots: Slots) -> Tensor:
        """Rows (B, Q, d) of the slots (B, Q) with this task's moves; an item that did not move keeps its row."""
        if self.items is None or self.moves is None:
            return slots.rows
        moved = _same_item(slots.items, self.items, self.moves.dtype) @ self.moves
        return slots.rows + (moved if slots.keep is None else slots.keep * moved)


def adapt(learner: nn.Module, support: Support, inner: InnerLoop, *, with_loss: bool = False) -> Adapted:
    """Take the inner steps of a batch of tasks.

    Parameters
    ----------
    learner : OneLayer or another transition learner
        Learners other than `OneLayer` that step themselves get a copy of their weights per task (torch.func), and
        must not mix tasks (no batch norm).
    support : Support
        With at least two items in the sequence, and negatives if `inner.steps` > 0 or `with_loss`.
    inner : InnerLoop
    with_loss : bool
        Also return the support loss at θ, before any step.
    """
    if inner.target == "learner_and_embeddings" and support.common is not None:
        support = support._replace(common=_for_each_task(support.common, support.sequence.items.shape[0]))
    if inner.target == "transition" or (inner.steps == 0):
        return _adapt_transition(learner, support, inner, with_loss=with_loss)
    if isinstance(learner, OneLayer):
        return _adapt_one_layer(learner, support, inner, with_loss=with_loss)
    return _adapt_any_learner(learner, support, inner, with_loss=with_loss)


def _same_item(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where left (B, P) and right (B, Q) hold the same item, as (B, P, Q); padding equals nothing."""
    left = left.unsqueeze(-1)
    return ((left == right.unsqueeze(-2)) & (left != NO_ITEM)).to(dtype)


def _for_each_task(slots: Slots, tasks: int) -> Slots:
    """Slots (m,) of the whole batch as slots (B, m) of each task."""
    if slots.items.dim() == 2:  # noqa: PLR2004
        return slots
    return Slots(*(None if part is None else part.expand(tasks, *part.shape) for part in slots))  # type: ignore[arg-type]


# --- One pass over the support ----------------------------------------------------------------------------------


class _Pass(NamedTuple):
    """Offsets and costs of the support pairs at one tr; shapes (B, S, ...)."""

    points: Tensor
    tail_offsets: Tensor
    tails: Costs
    own_offsets: Tensor | None
    own: Costs | None
    common_rows: Tensor | None
    common: Costs | None
    negatives: Tensor  # (B, S, n + m) costs


class _Gradients(NamedTuple):
    """Derivatives of the support loss; those of rows through the score alone, not through the learner."""

    points: Tensor  # (B, S, d), also of the heads and, summed over S, of tr
    tails: Tensor  # (B, S, d)
    own: Tensor | None  # (B, S, n, d)
    common: Tensor | None  # (B, m, d)


def _run_pass(support: Support, transition: Tensor, geometry: Geometry) -> _Pass:
    """Cost of every support pair and of its negatives at the user transition (B, d)."""
    sequence, own, common = support
    points = sequence.rows[:, :-1] + transition.unsqueeze(1)
    tail_offsets = points - sequence.rows[:, 1:]
    tails = geometry.of_offsets(tail_offsets, None if sequence.bias is None else sequence.bias[:, 1:])
    negatives = []
    own_offsets = own_costs = common_costs = None
    if own is not None:
        own_offsets = points.unsqueeze(2) - own.rows
        own_costs = geometry.of_offsets(own_offsets, own.bias)
        negatives.append(own_costs.cost)
    if common is not None:
        common_costs = geometry.of_common(points, common.rows, common.bias)
        # (B, S, m): is this common negative the pair's own tail?
        positive = sequence.items[:, 1:].unsqueeze(-1) == common.items.unsqueeze(-2)
        negatives.append(common_costs.cost.masked_fill(positive, excluded_cost(points.dtype)))
    return _Pass(
        points,
        tail_offsets,
        tails,
        own_offsets,
        own_costs,
        None if common is None else common.rows,
        common_costs,
        negatives[0] if len(negatives) == 1 else torch.cat(negatives, dim=-1),
    )


def _gradients(pairs: _Pass, inner: InnerLoop, *, of_rows: bool) -> _Gradients:
    """Differentiate the support loss in closed form."""
    weight = inner.pair_weight(*pairs.points.shape[:2])
    tail_slope, slopes = inner.loss.slopes(pairs.tails.cost, pairs.negatives)
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
        pull = slopes[..., own_count:] * pairs.common.pull  # (B, S, m)
        of_point = of_point + pull.sum(dim=-1, keepdim=True) * pairs.points - pull @ pairs.common_rows
        if of_rows:
            of_common = (
                pull.sum(dim=1).unsqueeze(-1) * pairs.common_rows - pull.transpose(1, 2) @ pairs.points
            )
    return _Gradients(of_point, of_tail, of_own, of_common)


def _support_loss(pairs: _Pass, inner: InnerLoop) -> Tensor:
    """Support loss (B,) of each task."""
    values = inner.loss.values(pairs.tails.cost, pairs.negatives)
    return values.sum(dim=1) if inner.reduction == "sum" else values.mean(dim=1)


# --- Inner step on tr -------------------------------------------------------------------------------------------


def _adapt_transition(learner: nn.Module, support: Support, inner: InnerLoop, *, with_loss: bool) -> Adapted:
    rows = support.sequence.rows
    transition = learner(rows[:, :-1], rows[:, 1:]).mean(dim=1)
    loss = None
    if inner.steps == 0 and with_loss:
        loss = _support_loss(_run_pass(support, transition, inner.geometry), inner)
    for step in range(inner.steps):
        pairs = _run_pass(support, transition, inner.geometry)
        if step == 0 and with_loss:
            loss = _support_loss(pairs, inner)
        gradient = _gradients(pairs, inner, of_rows=False).points.sum(dim=1)
        transition = transition - inner.rate * (gradient.detach() if inner.first_order else gradient)
    return Adapted(transition, rows[:, -1], loss)


# --- Inner step on the one-layer learner, with or without the embeddings ----------------------------------------


class _LayerState:
    """A one-layer learner after some inner steps, without its weights: W and b shared, the steps in low rank."""

    def __init__(self, layer: OneLayer) -> None:
        self.layer = layer
        self.inputs: Tensor | None = None  # (B, R, 2d), x of all pairs of all steps so far
        self.deltas: Tensor | None = None  # (B, R, d), α δ of the same
        self.head_skip: Tensor | None = (
            layer.head_skip if layer.head_skip is None else layer.head_skip[None, None]
        )
        self.tail_skip: Tensor | None = (
            layer.tail_skip if layer.tail_skip is None else layer.tail_skip[None, None]
        )

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """σ(z) and transitions, (B, S, d) each, of pairs x = [h; t] (B, S, 2d)."""
        z = F.linear(inputs, self.layer.weight, self.layer.bias)
        if self.inputs is not None and self.deltas is not None:
            gram = inputs @ self.inputs.transpose(1, 2) + 1.0
            z = torch.baddbmm(z, gram, self.deltas, alpha=-1)
        activation = torch.sigmoid(z)
        if self.head_skip is None or self.tail_skip is None:
            return activation, activation
        heads, tails = inputs.chunk(2, dim=-1)
        return activation, activation + self.head_skip * heads + self.tail_skip * tails

    def delta(self, gradient: Tensor, activation: Tensor) -> Tensor:
        """δ (B, S, d), the derivative by z, from G = ∂L/∂tr (B, d)."""
        return (gradient / activation.shape[1]).unsqueeze(1) * (activation * (1.0 - activation))

    def backward(self, gradient: Tensor, delta: Tensor) -> Tensor:
        """Derivative by the pairs' inputs (B, S, 2d) through the learner."""
        of_inputs = delta @ self.layer.weight
        if self.inputs is not None and self.deltas is not None:
            of_inputs = torch.baddbmm(of_inputs, delta @ self.deltas.transpose(1, 2), self.inputs, alpha=-1)
        if self.head_skip is None or self.tail_skip is None:
            return of_inputs
        share = (gradient / delta.shape[1]).unsqueeze(1)
        return of_inputs + torch.cat((self.head_skip * share, self.tail_skip * share), dim=-1)

    def step(self, rate: float | Tensor, gradient: Tensor, delta: Tensor, inputs: Tensor) -> None:
        """θ ← θ - α ∇L for W, b and the skip."""
        delta = delta * rate
        self.inputs = inputs if self.inputs is None else torch.cat((self.inputs, inputs), dim=1)
        self.deltas = delta if self.deltas is None else torch.cat((self.deltas, delta), dim=1)
        if self.head_skip is not None and self.tail_skip is not None:
            heads, tails = inputs.mean(dim=1, keepdim=True).chunk(2, dim=-1)
            stepped = (gradient * rate).unsqueeze(1)
            self.head_skip = self.head_skip - stepped * heads
            self.tail_skip = self.tail_skip - stepped * tails


class _MovingRows:
    """The rows of the support's slots while the inner steps move the items that they hold."""

    def __init__(self, support: Support) -> None:
        tasks, self.length = support.sequence.items.shape
        parts = [support.sequence]
        if support.own is not None:
            parts.append(Slots(*(None if part is None else part.flatten(1, 2) for part in support.own)))  # type: ignore[arg-type]
        if support.common is not None:
            parts.append(support.common)
        self.support = support
        self.items = torch.cat([part.items for part in parts], dim=1)  # (B, A)
        self.start = torch.cat([part.rows for part in parts], dim=1)  # (B, A, d)
        keeps = [part.keep for part in parts if part.keep is not None]
        self.keep = torch.cat(keeps, dim=1) if keeps else None
        self.same = _same_item(self.items, self.items, self.start.dtype)
        self.own_end = self.length + (0 if support.own is None else support.own.items[0].numel())
        self.tasks = tasks
        self.moves: Tensor | None = None  # (B, A, d)

    def rows(self) -> Tensor:
        """Rows (B, A, d) of the slots with the moves made so far."""
        if self.moves is None:
            return self.start
        moved = self.same @ self.moves
        return self.start + (moved if self.keep is None else self.keep * moved)

    def arrange(self, rows: Tensor) -> Support:
        """Return the support with its slots' rows replaced by (B, A, d)."""
        sequence, own, common = self.support
        return Support(
            sequence._replace(rows=rows[:, : self.length]),
            None
            if own is None
            else own._replace(rows=rows[:, self.length : self.own_end].unflatten(1, own.items.shape[1:])),
            None if common is None else common._replace(rows=rows[:, self.own_end :]),
        )

    def step(self, rate: float | Tensor, gradient: Tensor) -> None:
        """Move every slot's item against the slot's gradient (B, A, d); equal items take each other's steps."""
        move = gradient * -rate
        if self.keep is not None:
            move = move * self.keep
        self.moves = move if self.moves is None else self.moves + move


def _slot_gradients(gradients: _Gradients, of_inputs: Tensor) -> Tensor:
    """Derivative by every slot's row (B, A, d), from the score and through the learner's inputs (B, S, 2d)."""
    of_heads, of_tails = of_inputs.chunk(2, dim=-1)
    sequence = F.pad(gradients.points + of_heads, (0, 0, 0, 1)) + F.pad(
        gradients.tails + of_tails, (0, 0, 1, 0)
    )
    parts = [sequence]
    if gradients.own is not None:
        parts.append(gradients.own.flatten(1, 2))
    if gradients.common is not None:
        parts.append(gradients.common)
    return torch.cat(parts, dim=1)


def _adapt_one_layer(layer: OneLayer, support: Support, inner: InnerLoop, *, with_loss: bool) -> Adapted:
    moving = _MovingRows(support) if inner.target == "learner_and_embeddings" else None
    state = _LayerState(layer)
    loss = None
    for step in range(inner.steps):
        rows = support.sequence.rows
        inputs = torch.cat((rows[:, :-1], rows[:, 1:]), dim=-1)
        activation, transitions = state.forward(inputs)
        pairs = _run_pass(support, transitions.mean(dim=1), inner.geometry)
        if step == 0 and with_loss:
            loss = _support_loss(pairs, inner)
        gradients = _gradients(pairs, inner, of_rows=moving is not None)
        gradient = gradients.points.sum(dim=1)
        delta = state.delta(gradient, activation)
        slot_gradient = (
            None if moving is None else _slot_gradients(gradients, state.backward(gradient, delta))
        )
        if inner.first_order:
            gradient, delta, inputs = gradient.detach(), delta.detach(), inputs.detach()
            slot_gradient = None if slot_gradient is None else slot_gradient.detach()
        state.step(inner.rate, gradient, delta, inputs)
        if moving is not None and slot_gradient is not None:
            moving.step(inner.rate, slot_gradient)
            support = moving.arrange(moving.rows())
    rows = support.sequence.rows
    _, transitions = state.forward(torch.cat((rows[:, :-1], rows[:, 1:]), dim=-1))
    transition = transitions.mean(dim=1)
    if moving is None:
        return Adapted(transition, rows[:, -1], loss)
    return Adapted(transition, rows[:, -1], loss, moving.items, moving.moves)


# --- Inner step on any other learner ----------------------------------------------------------------------------


def _adapt_any_learner(learner: nn.Module, support: Support, inner: InnerLoop, *, with_loss: bool) -> Adapted:
    """Step a learner that has no closed form: weights per task, one autograd pass per step.

    The sum of the tasks' losses has each task's gradient as its derivative by that task's weights.
    """
    tasks, length = support.sequence.items.shape
    weight = inner.pair_weight(tasks, length - 1)
    moving = _MovingRows(support) if inner.target == "learner_and_embeddings" else None
    run_tasks = vmap(
        lambda weights, heads, tails: functional_call(learner, weights, (heads[None], tails[None]))[0],
        randomness="different",
    )
    loss = None
    recorded = (
        torch.is_grad_enabled()
    )  # serving runs without a graph; the inner gradient needs one all the same

    def differentiable(value: Tensor) -> Tensor:
        return value if recorded and value.requires_grad else value.detach().requires_grad_()

    with torch.enable_grad():
        weights = {name: value.expand(tasks, *value.shape) for name, value in learner.named_parameters()}
        for step in range(inner.steps):
            weights = {name: differentiable(value) for name, value in weights.items()}
            by = list(weights.values())
            if moving is not None:
                by.append(differentiable(moving.rows()))
                support = moving.arrange(by[-1])
            rows = support.sequence.rows
            transition = run_tasks(weights, rows[:, :-1], rows[:, 1:]).mean(dim=1)
            pairs = _run_pass(support, transition, inner.geometry)
            if step == 0 and with_loss:
                loss = _support_loss(pairs, inner)
            total = inner.loss.values(pairs.tails.cost, pairs.negatives).sum() * weight
            gradients = torch.autograd.grad(
                total, by, create_graph=recorded and not inner.first_order, retain_graph=recorded
            )
            weights = {
                name: value - inner.rate * gradient
                for (name, value), gradient in zip(weights.items(), gradients, strict=False)
            }
            if moving is not None:
                moving.step(inner.rate, gradients[-1])
        if moving is not None:
            support = moving.arrange(moving.rows())
        rows = support.sequence.rows
        transition = run_tasks(weights, rows[:, :-1], rows[:, 1:]).mean(dim=1)
    last = rows[:, -1]
    if not recorded:
        transition, last = transition.detach(), last.detach()
    if moving is None:
        return Adapted(transition, last, loss)
    return Adapted(transition, last, loss, moving.items, moving.moves)
