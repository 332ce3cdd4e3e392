"""MetaTL's inner loop: adapting to one user from the transitions of the user's support set (Eq. 2 to 4).

Training, evaluation and serving run this one loop.

Per-task copies of the learner's weights are never built for the one-layer learner. With t_j = σ(z_j),
z_j = W x_j + b and G = ∂L/∂tr, the gradient of the support loss by W is Σ_k δ_k x_kᵀ, where
δ_k = G ⊙ σ'(z_k) / S. After steps of rate α a pair therefore sees z'_j = W x_j + b - α Σ_k δ_k (x_k·x_j + 1):
a small Gram matrix in place of a weight matrix per user. Every further step appends its δ and x. All of it is
tensor algebra that autograd differentiates once, so second-order MAML costs about as much as another forward
pass.

Shape letters are those of `metatl.models.metatl.support`; A counts all slots of a support: its sequence and
its negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional

from metatl.models.contract import NO_ITEM
from metatl.models.metatl.support import Slots, Support, SupportGradients, run_pass, support_gradients
from metatl.models.metatl.transition import OneLayer

if TYPE_CHECKING:
    from torch import Tensor

    from metatl.models.metatl.losses import Geometry, PairLoss

Target: TypeAlias = Literal["transition", "learner", "learner_and_embeddings"]
Reduction: TypeAlias = Literal["sum", "mean", "batch_mean"]


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
        What steps: the user transition tr itself, the learner's parameters, or both these and the item
        vectors, the θ of Eq. 4. Item biases and the temperature never step.
    reduction : {"sum", "mean", "batch_mean"}
        Over the support pairs. ``batch_mean`` divides by the pairs of the whole batch, so that the step
        depends on the batch size: the released program's behaviour.
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

    def reduce(self, losses: Tensor) -> Tensor:
        """Losses of the pairs (B, S) to the task's support loss (B,); here ``batch_mean`` is a mean."""
        return losses.sum(dim=1) if self.reduction == "sum" else losses.mean(dim=1)


class Adapted(NamedTuple):
    """What adaptation leaves behind.

    Attributes
    ----------
    transition : Tensor
        (B, d), the user transition tr after the inner steps.
    last : Tensor
        (B, d), the last item's vector after the inner steps.
    support_loss : Tensor or None
        (B,), before the first step.
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
        """Return the rows (B, Q, d) of slots (B, Q) after this task's moves."""
        if self.items is None or self.moves is None:
            return slots.rows
        same = _same_item(slots.items, self.items, self.moves.dtype)
        return _moved(slots.rows, slots.keep, same, self.moves)


def adapt(learner: nn.Module, support: Support, inner: InnerLoop, *, with_loss: bool = False) -> Adapted:
    """Take the inner steps of a batch of tasks.

    Parameters
    ----------
    learner : OneLayer or another transition learner
        Learners other than `OneLayer` that step themselves get a copy of their weights per task
        (torch.func), and must not mix tasks (no batch norm).
    support : Support
        With at least two items in the sequence, and negatives if `inner.steps` > 0 or `with_loss`.
    inner : InnerLoop
    with_loss : bool
        Also return the support loss at θ, before any step.
    """
    if inner.steps == 0 or inner.target == "transition":
        return _adapt_transition(learner, support, inner, with_loss=with_loss)
    if isinstance(learner, OneLayer):
        return _adapt_one_layer(learner, support, inner, with_loss=with_loss)
    return _adapt_any_learner(learner, support, inner, with_loss=with_loss)


# --- Inner step on tr


def _adapt_transition(learner: nn.Module, support: Support, inner: InnerLoop, *, with_loss: bool) -> Adapted:
    pairs = support.pairs()
    weight = inner.pair_weight(*pairs.shape[:2])
    transition = learner(pairs).mean(dim=1)
    loss = None
    if inner.steps == 0 and with_loss:
        loss = inner.reduce(run_pass(support, pairs, transition, inner.geometry).losses(inner.loss))
    for step in range(inner.steps):
        passed = run_pass(support, pairs, transition, inner.geometry)
        if step == 0 and with_loss:
            loss = inner.reduce(passed.losses(inner.loss))
        gradient = support_gradients(passed, inner.loss, weight, of_rows=False).points.sum(dim=1)
        transition = transition - inner.rate * (gradient.detach() if inner.first_order else gradient)
    return Adapted(transition, support.sequence[-1].rows, loss)


# --- Inner step on the one-layer learner, with or without the embeddings
# -------------------------------------


def _adapt_one_layer(layer: OneLayer, support: Support, inner: InnerLoop, *, with_loss: bool) -> Adapted:
    moving = _MovingRows(support) if inner.target == "learner_and_embeddings" else None
    support = support if moving is None else moving.support
    state = _LayerState(layer)
    loss = None
    pairs = support.pairs()
    weight = inner.pair_weight(*pairs.shape[:2])
    for step in range(inner.steps):
        activation, transitions = state.forward(pairs)
        passed = run_pass(support, pairs, transitions.mean(dim=1), inner.geometry)
        if step == 0 and with_loss:
            loss = inner.reduce(passed.losses(inner.loss))
        gradients = support_gradients(passed, inner.loss, weight, of_rows=moving is not None)
        gradient = gradients.points.sum(dim=1)
        delta = state.delta(gradient, activation)
        if moving is not None:
            by_slot = moving.slot_gradients(gradients, state.backward(gradient, delta))
            moving.step(inner.rate, by_slot.detach() if inner.first_order else by_slot)
        if inner.first_order:
            state.step(inner.rate, gradient.detach(), delta.detach(), pairs.detach())
        else:
            state.step(inner.rate, gradient, delta, pairs)
        if moving is not None:
            support = moving.arrange(moving.rows())
            pairs = support.pairs()
    _, transitions = state.forward(pairs)
    transition, last = transitions.mean(dim=1), support.sequence[-1].rows
    if moving is None:
        return Adapted(transition, last, loss)
    return Adapted(transition, last, loss, moving.items, moving.moves)


class _LayerState:
    """A one-layer learner after some inner steps: W and b as they were, the steps in low rank."""

    def __init__(self, layer: OneLayer) -> None:
        self.layer = layer
        self.inputs: Tensor | None = None  # (B, R, 2d), x of all pairs of all steps so far
        self.deltas: Tensor | None = None  # (B, R, d), α δ of the same
        self.skip = None if layer.skip is None else layer.skip[None]  # (1 or B, 2, d)

    def forward(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """σ(z) and transitions, (B, S, d) each, of pairs (B, S, 2, d)."""
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
        """δ (B, S, d), the derivative by z, from G = ∂L/∂tr (B, d)."""
        return (gradient / activation.shape[1]).unsqueeze(1) * (activation - activation.square())

    def backward(self, gradient: Tensor, delta: Tensor) -> Tensor:
        """Return the derivative (B, S, 2, d) by the pairs' rows through the learner."""
        of_inputs = delta @ self.layer.weight
        if self.inputs is not None and self.deltas is not None:
            of_inputs = torch.baddbmm(of_inputs, delta @ self.deltas.transpose(1, 2), self.inputs, alpha=-1)
        of_pairs = of_inputs.view(*of_inputs.shape[:2], 2, -1)
        if self.skip is None:
            return of_pairs
        return of_pairs + (self.skip * (gradient / delta.shape[1]).unsqueeze(1)).unsqueeze(1)

    def step(self, rate: float | Tensor, gradient: Tensor, delta: Tensor, pairs: Tensor) -> None:
        """θ ← θ - α ∇L for W, b and the skip."""
        delta = delta * rate
        inputs = pairs.flatten(2)
        self.inputs = inputs if self.inputs is None else torch.cat((self.inputs, inputs), dim=1)
        self.deltas = delta if self.deltas is None else torch.cat((self.deltas, delta), dim=1)
        if self.skip is not None:
            self.skip = self.skip - (gradient * rate).unsqueeze(1) * pairs.mean(dim=1)


class _MovingRows:
    """The rows of the support's slots while the inner steps move the items that they hold."""

    def __init__(self, support: Support) -> None:
        if support.common is not None and support.common.items.dim() == 1:
            support = support._replace(common=support.common.for_each_task(support.tasks))
        parts = [slots.change(lambda part: part.unsqueeze(1)) for slots in support.sequence]
        if support.own is not None:
            parts.append(support.own.change(lambda part: part.flatten(1, 2)))
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
        """Rows (B, A, d) of the slots with the moves made so far."""
        if self.moves is None:
            return self.start
        return _moved(self.start, self.keep, self.same, self.moves)

    def arrange(self, rows: Tensor) -> Support:
        """Return the support with its slots' rows replaced by (B, A, d)."""
        sequence, own, common = self.support
        parts = torch.split(rows, self.sizes, dim=1)
        return Support(
            [slots._replace(rows=part[:, 0]) for slots, part in zip(sequence, parts, strict=False)],
            None if own is None else own._replace(rows=parts[len(sequence)].view(own.rows.shape)),
            None if common is None else common._replace(rows=parts[-1]),
        )

    def slot_gradients(self, through_score: SupportGradients, through_learner: Tensor) -> Tensor:
        """Return the derivative (B, A, d) by every slot's row; the learner's part is (B, S, 2, d)."""
        heads, tails = through_learner.unbind(2)
        heads, tails = heads + through_score.points, tails + through_score.tails
        # Item i is the head of pair i and the tail of pair i - 1.
        parts = [functional.pad(heads, (0, 0, 0, 1)) + functional.pad(tails, (0, 0, 1, 0))]
        if through_score.own is not None:
            parts.append(through_score.own.flatten(1, 2))
        if through_score.common is not None:
            parts.append(through_score.common)
        return torch.cat(parts, dim=1)

    def step(self, rate: float | Tensor, gradient: Tensor) -> None:
        """Move every slot's item against the slot's gradient (B, A, d); equal items move together."""
        move = gradient * -rate
        if self.keep is not None:
            move = move * self.keep
        self.moves = move if self.moves is None else self.moves + move


def _same_item(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """1 where left (B, P) and right (B, Q) hold the same item: (B, P, Q). Padding equals nothing."""
    left = left.unsqueeze(-1)
    return ((left == right.unsqueeze(-2)) & (left != NO_ITEM)).to(dtype)


def _moved(rows: Tensor, keep: Tensor | None, same: Tensor, moves: Tensor) -> Tensor:
    """Rows (B, P, d) after the moves (B, A, d) of the slots that hold the same item (B, P, A)."""
    if keep is None:
        return torch.baddbmm(rows, same, moves)
    return torch.addcmul(rows, keep, same @ moves)


# --- Inner step on any other learner


def _adapt_any_learner(learner: nn.Module, support: Support, inner: InnerLoop, *, with_loss: bool) -> Adapted:
    """Step a learner that has no closed form: weights per task, one autograd pass per step.

    The sum of the tasks' losses has each task's gradient as its derivative by that task's weights.
    """
    moving = _MovingRows(support) if inner.target == "learner_and_embeddings" else None
    support = support if moving is None else moving.support
    tasks = support.tasks
    weight = inner.pair_weight(tasks, len(support.sequence) - 1)
    run_tasks = vmap(
        lambda weights, pairs: functional_call(learner, weights, (pairs[None],))[0], randomness="different"
    )
    recorded = (
        torch.is_grad_enabled()
    )  # serving runs without a graph; the inner gradient needs one all the same

    def differentiable(value: Tensor) -> Tensor:
        return value if recorded and value.requires_grad else value.detach().requires_grad_()

    loss = None
    with torch.enable_grad():
        weights = {name: value.expand(tasks, *value.shape) for name, value in learner.named_parameters()}
        for step in range(inner.steps):
            weights = {name: differentiable(value) for name, value in weights.items()}
            by = list(weights.values())
            if moving is not None:
                by.append(differentiable(moving.rows()))
                support = moving.arrange(by[-1])
            pairs = support.pairs()
            passed = run_pass(support, pairs, run_tasks(weights, pairs).mean(dim=1), inner.geometry)
            losses = passed.losses(inner.loss)
            if step == 0 and with_loss:
                loss = inner.reduce(losses)
            gradients = torch.autograd.grad(
                losses.sum() * weight,
                by,
                create_graph=recorded and not inner.first_order,
                retain_graph=recorded,
            )
            weights = {
                name: value - inner.rate * gradient
                for (name, value), gradient in zip(weights.items(), gradients, strict=False)
            }
            if moving is not None:
                moving.step(inner.rate, gradients[-1])
                support = moving.arrange(moving.rows())
        transition = run_tasks(weights, support.pairs()).mean(dim=1)
    last = support.sequence[-1].rows
    if not recorded:
        transition, last = transition.detach(), last.detach()
    if moving is None:
        return Adapted(transition, last, loss)
    return Adapted(transition, last, loss, moving.items, moving.moves)
