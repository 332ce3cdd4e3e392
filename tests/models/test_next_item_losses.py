"""The losses of the next item against their formulas, one negative at a time in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metatl.models.next_item_losses import next_item_loss

KINDS = ["softmax", "binary", "bpr", "bpr_max", "top1_max"]
scores = st.floats(-5, 5)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def by_formula(kind, positive, negatives, penalty):
    """One positive among the negatives that count."""
    total = sum(math.exp(score) for score in negatives)
    weights = [math.exp(score) / total for score in negatives]
    if kind == "softmax":
        return -math.log(math.exp(positive) / (math.exp(positive) + total))
    if kind == "binary":
        mean = sum(-math.log(1 - sigmoid(score)) for score in negatives) / len(negatives)
        return -math.log(sigmoid(positive)) + mean
    if kind == "bpr":
        return sum(-math.log(sigmoid(positive - score)) for score in negatives) / len(negatives)
    if kind == "bpr_max":
        chance = sum(w * sigmoid(positive - score) for w, score in zip(weights, negatives, strict=True))
        squares = sum(w * score**2 for w, score in zip(weights, negatives, strict=True))
        return -math.log(chance) + penalty * squares
    return sum(
        w * (sigmoid(score - positive) + sigmoid(score**2))
        for w, score in zip(weights, negatives, strict=True)
    )


@given(
    st.sampled_from(KINDS),
    scores,
    st.lists(st.tuples(scores, st.booleans()), min_size=1, max_size=6),
    st.floats(0, 2),
)
def test_a_loss_is_its_formula_over_the_negatives_that_count(kind, positive, drawn, penalty):
    drawn[0] = (drawn[0][0], True)
    counting = [score for score, counts in drawn if counts]
    negatives = torch.tensor(
        [[score if counts else -math.inf for score, counts in drawn]], dtype=torch.float64
    ).requires_grad_()
    at = torch.tensor([positive], dtype=torch.float64, requires_grad=True)
    loss = next_item_loss(kind, at, negatives, penalty=penalty)
    assert loss.item() == pytest.approx(by_formula(kind, positive, counting, penalty), rel=1e-9, abs=1e-12)
    loss.sum().backward()
    # By differences: the positive first, then each negative that counts.
    step = 1e-6
    slope = (
        by_formula(kind, positive + step, counting, penalty)
        - by_formula(kind, positive - step, counting, penalty)
    ) / (2 * step)
    assert at.grad.item() == pytest.approx(slope, rel=1e-4, abs=1e-7)
    places = [place for place, (_, counts) in enumerate(drawn) if counts]
    for number, place in enumerate(places):
        up, down = ([*counting] for _ in range(2))
        up[number] += step
        down[number] -= step
        slope = (by_formula(kind, positive, up, penalty) - by_formula(kind, positive, down, penalty)) / (
            2 * step
        )
        assert negatives.grad[0, place].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)
    assert all(negatives.grad[0, place] == 0 for place, (_, counts) in enumerate(drawn) if not counts)


@pytest.mark.parametrize("kind", KINDS)
def test_large_scores_give_finite_losses_and_gradients(kind):
    positive = torch.tensor([300.0, -300.0], requires_grad=True)
    negatives = torch.tensor([[-300.0, 300.0], [300.0, -torch.inf]], requires_grad=True)
    loss = next_item_loss(kind, positive, negatives, penalty=1.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(positive.grad).all()
    assert torch.isfinite(negatives.grad).all()
