"""Losses, distances and their closed-form derivatives, against autograd and plain formulas."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metatl.models.metatl.losses import Geometry, PairLoss, add_products, exclude, safe_sqrt

KINDS = ["margin", "softmax"]
numbers = st.floats(-50, 50)


@given(kind=st.sampled_from(KINDS), positive=numbers, negatives=st.lists(numbers, min_size=1, max_size=6))
def test_value_equals_the_formula(kind, positive, negatives):
    found = PairLoss(kind, 1.5).values(
        torch.tensor(positive, dtype=torch.float64), torch.tensor(negatives, dtype=torch.float64)
    )
    if kind == "margin":
        expected = sum(max(0.0, 1.5 + positive - n) for n in negatives) / len(negatives)
    else:
        shift = min(positive, *negatives)
        shares = [math.exp(shift - c) for c in (positive, *negatives)]
        expected = math.log(sum(shares)) + positive - shift
    assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32),
    pairs=st.integers(1, 5),
    count=st.integers(1, 6),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_slopes_are_the_derivatives(kind, seed, pairs, count, scale):
    generator = torch.Generator().manual_seed(seed)
    positive = (torch.randn(pairs, dtype=torch.float64, generator=generator) * scale).requires_grad_()
    negatives = (torch.randn(pairs, count, dtype=torch.float64, generator=generator) * scale).requires_grad_()
    loss = PairLoss(kind, 1.5)
    values = loss.values(positive, negatives)
    expected = torch.autograd.grad(values.sum(), (positive, negatives), create_graph=True)
    found = loss.slopes(positive, negatives)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-13)
    if kind == "softmax":  # the slopes are differentiated by the outer loop: compare second derivatives too
        probe = torch.randn(pairs, count, dtype=torch.float64, generator=generator)
        second = [
            torch.autograd.grad((s[1] * probe).sum() + s[0].sum(), (positive, negatives), retain_graph=True)
            for s in (found, expected)
        ]
        for a, b in zip(*second, strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_excluded_negative_does_not_count(kind, dtype):
    loss = PairLoss(kind, 1.0)
    positive = torch.tensor([0.3, 40.0], dtype=dtype)
    negatives = torch.tensor([[0.5], [-3.0]], dtype=dtype, requires_grad=True)
    excluded = exclude(torch.tensor([[7.0], [-7.0]], dtype=dtype), torch.tensor([[True], [True]]))
    both = torch.cat((negatives, excluded), dim=1)
    share = 0.5 if kind == "margin" else 1.0  # the margin loss is a mean over the negatives' places
    assert torch.allclose(loss.values(positive, both), share * loss.values(positive, negatives))
    slopes = loss.slopes(positive, both)[1]
    assert torch.allclose(slopes[:, :1], share * loss.slopes(positive, negatives)[1])
    assert torch.equal(slopes[:, 1:], torch.zeros_like(excluded))
    alone = loss.values(positive, excluded)
    assert torch.equal(alone, torch.zeros_like(alone))
    loss.values(positive, both).sum().backward()
    assert torch.isfinite(negatives.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_huge_costs_stay_finite(kind):
    positive = torch.tensor([1e9, -1e9], requires_grad=True)
    negatives = torch.tensor([[-1e9, 0.0], [1e9, 3.0]], requires_grad=True)
    loss = PairLoss(kind, 1.0)
    value = loss.values(positive, negatives).sum() + sum(s.sum() for s in loss.slopes(positive, negatives))
    value.backward()
    for tensor in (value, positive.grad, negatives.grad):
        assert torch.isfinite(tensor).all()


def test_safe_sqrt_is_the_root_with_derivative_zero_at_zero():
    squared = torch.tensor([4.0, 0.0, -1e-12, 1e-30], dtype=torch.float64, requires_grad=True)
    roots = safe_sqrt(squared)
    assert torch.allclose(roots, torch.tensor([2.0, 0.0, 0.0, 1e-15], dtype=torch.float64))
    (slopes,) = torch.autograd.grad(roots.sum(), squared, create_graph=True)
    assert torch.allclose(slopes[:3], torch.tensor([0.25, 0.0, 0.0], dtype=torch.float64))
    (curvature,) = torch.autograd.grad(slopes.sum(), squared)
    assert torch.isfinite(curvature).all()


@given(
    distance=st.sampled_from(["squared_l2", "l2"]),
    seed=st.integers(0, 2**32),
    tasks=st.integers(1, 3),
    pairs=st.integers(1, 3),
    common=st.integers(1, 4),
    dim=st.integers(1, 5),
    per_task=st.booleans(),
    biased=st.booleans(),
    tempered=st.booleans(),
)
def test_common_rows_cost_what_their_offsets_cost(
    distance, seed, tasks, pairs, common, dim, per_task, biased, tempered
):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    points = draw(tasks, pairs, dim).requires_grad_()
    leading = (tasks, common) if per_task else (common,)
    rows = draw(*leading, dim).requires_grad_()
    bias = draw(*leading) if biased else None
    geometry = Geometry(distance, draw(1)[0].exp() if tempered else None)
    found = geometry.of_common(points, rows, bias)
    each = rows.expand(tasks, common, dim).unsqueeze(1)
    offsets = points.unsqueeze(2) - each
    expected = geometry.of_offsets(offsets, None if bias is None else bias.expand(tasks, common).unsqueeze(1))
    # ‖p‖² + ‖r‖² - 2 p·r is known to `rounding`; where p and r are close, its root and their slope to less.
    squares = points.square().sum(dim=-1).max() + rows.square().sum(dim=-1).max()
    rounding = 1e-15 * (1 + squares.item()) if distance == "l2" else 0.0
    closest = offsets.square().sum(dim=-1).min().item() + rounding + 1e-300
    assert torch.allclose(found.cost, expected.cost, rtol=0, atol=1e-11 + rounding / closest**0.5)
    gradients = [
        torch.autograd.grad(c.cost.sum(), (points, rows), retain_graph=True) for c in (found, expected)
    ]
    tolerance = 1e-9 + 10 * rounding / closest
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=tolerance)
    pull = torch.as_tensor(expected.pull, dtype=torch.float64).expand_as(expected.cost)
    by_points = (pull.unsqueeze(-1) * offsets).sum(dim=2)
    assert torch.allclose(by_points, gradients[0][0], rtol=0, atol=tolerance)


def test_a_point_on_its_row_has_no_gradient():
    offsets = torch.zeros(2, 3, requires_grad=True)
    costs = Geometry("l2").of_offsets(offsets, None)
    (gradient,) = torch.autograd.grad(costs.cost.sum(), offsets, create_graph=True)
    assert torch.equal(gradient, torch.zeros(2, 3))
    assert torch.equal(costs.pull, torch.zeros(2))


@pytest.mark.parametrize("per_task", [False, True])
@pytest.mark.parametrize("full_base", [False, True])
def test_add_products(per_task, full_base):
    left = torch.randn(2, 3, 4)
    right = torch.randn(2, 4, 5) if per_task else torch.randn(4, 5)
    base = torch.randn(2, 3, 5) if full_base else torch.randn(*((2, 1, 5) if per_task else (5,)))
    assert torch.allclose(add_products(base, left, right, scale=-2.0), base - 2.0 * left @ right, atol=1e-5)
