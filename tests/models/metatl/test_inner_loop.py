"""The inner loop against a reference that writes Eq. 1 to 6 down and leaves derivatives to torch.func."""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call, grad, grad_and_value, vmap

from metatl.models.metatl.inner_loop import InnerLoop, adapt
from metatl.models.metatl.losses import Geometry, PairLoss
from metatl.models.metatl.model import MetaTL, MetaTLConfig
from metatl.models.metatl.support import Slots, Support
from metatl.models.metatl.transition import OneLayer
from property_settings import COSTLY_CASES

LEARNER = "learner."
TABLE = "embedding.weight"
SECOND_ORDER = False  # the value of first_order


def reference_transition(params, rows, config, learner):
    """Eq. 1 and 2 for one task: rows (K, d) to tr (d,)."""
    heads, tails = rows[:-1], rows[1:]
    pairs = torch.stack((heads, tails), dim=1)
    if config.learner == "mlp":
        weights = {name.removeprefix(LEARNER): p for name, p in params.items() if name.startswith(LEARNER)}
        return functional_call(learner, weights, (pairs[None],))[0].mean(0)
    inputs = torch.cat((heads, tails), dim=1)
    transitions = torch.sigmoid(inputs @ params["learner.weight"].T + params["learner.bias"])
    if config.transition_skip is not None:
        transitions = transitions + params["learner.skip"][0] * heads + params["learner.skip"][1] * tails
    return transitions.mean(0)


def reference_costs(params, point, items, rows, config):
    """Distance / temperature - bias of items (n,) with rows (n, d)."""
    squared = ((point - rows) ** 2).sum(1)
    costs = squared if config.distance == "squared_l2" else squared.sqrt()
    costs = costs / (params["log_temperature"].exp() if config.learned_temperature else config.temperature)
    if config.item_bias:
        costs = costs - params["bias"][items, 0]
    return costs


def reference_pair_loss(costs, excluded, config):
    """Loss of one pair: the positive's cost first; excluded negatives contribute nothing."""
    cost, negatives = costs[0], costs[1:]
    if config.loss == "margin":
        return torch.where(excluded, 0.0, torch.relu(config.margin + cost - negatives)).mean()
    # By torch's own softmax: an inner step may drive all costs so far out that their exponentials are 0.
    logits = torch.cat((-cost[None], torch.where(excluded, -torch.inf, -negatives)))
    return -torch.log_softmax(logits, dim=0)[0]


def reference_query(theta, point, positive, negatives, common, config, factors=1.0):
    """Loss of a pair at a point: positive (1,), its own negatives (n,), common ones (m,)."""
    items = torch.cat((positive, negatives, common))
    costs = reference_costs(theta, point, items, theta[TABLE][items] * factors, config)
    excluded = torch.cat((torch.zeros_like(negatives, dtype=torch.bool), common == positive))
    return reference_pair_loss(costs, excluded, config)


def reference_adapted(params, history, negatives, common, config, learner, divisor, keep=None):  # noqa: C901
    """Eq. 2 to 4 for one task: history (K,), negatives (S, n), common (m,).

    Returns the adapted parameters, tr, the last item's row and the sum of the pairs' losses before the
    first step.
    """
    k = history.shape[0]

    def sequence_rows(theta):
        rows = theta[TABLE][history]
        return rows if keep is None else rows * keep["sequence"]

    def support_loss(theta, tr):
        rows = sequence_rows(theta)
        losses = []
        for j in range(k - 1):
            factors = 1.0
            if keep is not None:
                factors = torch.cat((keep["sequence"][j + 1 : j + 2], keep["own"][j], keep["common"]))
            tail = history[j + 1 : j + 2]
            losses.append(reference_query(theta, rows[j] + tr, tail, negatives[j], common, config, factors))
        return torch.stack(losses).sum()

    def user_transition(theta):
        return reference_transition(theta, sequence_rows(theta), config, learner)

    def constant(value):
        return value.detach() if config.first_order else value

    theta = dict(params)
    tr = user_transition(theta)
    before = support_loss(theta, tr) if negatives.numel() + common.numel() else None
    rate = params["inner_rates"] if config.learned_inner_lr else config.inner_lr
    for _ in range(config.inner_steps):
        if config.adapt == "transition":
            tr = tr - rate * constant(grad(lambda t: support_loss(params, t) / divisor)(tr))
            continue
        stepping = {n for n in theta if n.startswith(LEARNER)}
        if config.adapt == "learner_and_embeddings":
            stepping.add(TABLE)

        def loss_of(moving, fixed):
            full = {**fixed, **moving}
            return support_loss(full, user_transition(full)) / divisor

        moving = {n: theta[n] for n in stepping}
        fixed = {n: theta[n] for n in theta if n not in stepping}
        gradient = grad(loss_of)(moving, fixed)
        theta = {**fixed, **{n: moving[n] - rate * constant(gradient[n]) for n in moving}}
        tr = user_transition(theta)
    return theta, tr, sequence_rows(theta)[-1], before


def reference_task_loss(params, items, negatives, shared, config, learner, tasks, keep=None):
    """Outer loss of one task: items (K + 1,), negatives (K, n), shared (m,)."""
    k = items.shape[0] - 1
    divisor = {"sum": 1, "mean": k - 1, "batch_mean": (k - 1) * tasks}[config.support_reduction]
    common = shared[: config.shared_support_negatives]
    theta, tr, last, support = reference_adapted(
        params, items[:k], negatives[: k - 1], common, config, learner, divisor, keep
    )
    loss = reference_query(theta, last + tr, items[k:], negatives[k - 1], shared, config)
    if config.outer_adds_support_loss:
        loss = loss + support / (1 if config.support_reduction == "sum" else k - 1)
    return loss


def reference_loss(params, items, negatives, shared, config, learner):
    """Eq. 5 over the batch."""
    tasks = items.shape[0]
    losses = vmap(
        lambda i, n: reference_task_loss(params, i, n, shared, config, learner, tasks), randomness="error"
    )(items, negatives)
    return losses.sum() if config.outer_reduction == "sum" else losses.mean()


def assert_close(found, expected, what):
    scale = max(1.0, expected.abs().max().item())
    error = (found - expected).abs().max().item()
    assert error <= 1e-10 * scale, f"{what}: differs by {error} at scale {scale}"


@st.composite
def configs(draw):
    learner = draw(st.sampled_from(["one_layer", "one_layer", "one_layer", "mlp"]))
    adapt_what = "transition"
    if learner == "one_layer":
        adapt_what = draw(st.sampled_from(["transition", "learner", "learner_and_embeddings"]))
    steps = draw(st.integers(0, 3))
    loss = draw(st.sampled_from(["margin", "softmax"]))
    shared = draw(st.integers(0, 4))
    supporting = draw(st.integers(0, shared))
    return MetaTLConfig(
        k=draw(st.integers(2, 6)),
        dim=draw(st.integers(1, 6)),
        learner=learner,
        hidden=(4, 3),
        transition_skip=draw(st.sampled_from([None, (0.5, -0.5)])) if learner == "one_layer" else None,
        learner_bias=0.0,
        item_start="random",
        cross_fit_folds=0,
        trend_weight=0.0,
        item_bias=draw(st.booleans()),
        distance=draw(st.sampled_from(["squared_l2", "l2"])),
        temperature=1.0 if loss == "margin" else draw(st.sampled_from([1.0, 0.4])),
        learned_temperature=loss == "softmax" and draw(st.booleans()),
        inner_steps=steps,
        inner_lr=draw(st.sampled_from([0.02, 0.1])),
        learned_inner_lr=adapt_what == "transition" and steps > 0 and draw(st.booleans()),
        first_order=draw(st.booleans()),
        adapt=adapt_what,
        support_reduction=draw(st.sampled_from(["sum", "mean", "batch_mean"])),
        loss=loss,
        margin=draw(st.sampled_from([0.3, 1.0, 5.0])),
        negatives=draw(st.integers(1 if supporting == 0 else 0, 3)),
        shared_negatives=shared,
        shared_support_negatives=supporting,
        outer_adds_support_loss=draw(st.booleans()),
        outer_reduction=draw(st.sampled_from(["sum", "mean"])),
    )


def random_model(config, num_items, seed):
    generator = torch.Generator().manual_seed(seed)
    model = MetaTL(config, num_items).double().eval()
    for name, parameter in model.named_parameters():
        # Steps of rate 0.5 in a row may throw a task so far that rounding alone moves its loss by 1e-9.
        scale = 0.1 if name == "inner_rates" else 0.5
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
    return model, generator


def random_tasks(config, num_items, generator, tasks):
    def draw(*shape):
        return torch.randint(num_items, shape, generator=generator)

    return draw(tasks, config.k + 1), draw(tasks, config.k, config.negatives), draw(config.shared_negatives)


@contextmanager
def least_separation():
    """Note the least ‖p - r‖² / (‖p‖² + ‖r‖²) of `Geometry.of_common`, whose root loses digits near 0."""
    least = [1.0]
    of_common = Geometry.of_common

    def noting(geometry, points, rows, bias):
        offsets = points.detach().unsqueeze(-2) - rows.detach().unsqueeze(-3)
        squares = points.detach().square().sum(-1)[..., None] + rows.detach().square().sum(-1).unsqueeze(-2)
        least[0] = min(least[0], (offsets.square().sum(-1) / squares).min().item())
        return of_common(geometry, points, rows, bias)

    with mock.patch.object(Geometry, "of_common", noting):
        yield least


def check_against_reference(config, num_items, tasks, seed):
    # So few items that the support, its negatives and the query hold the same items again and again.
    model, generator = random_model(config, num_items, seed)
    batch = random_tasks(config, num_items, generator, tasks)
    params = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradients, expected = grad_and_value(reference_loss)(params, *batch, config, model.learner)
    with least_separation() as least:
        loss = model.episode_loss(*batch)
    if config.distance == "l2" and least[0] < 1e-5:
        return
    assert_close(loss.detach(), expected, "loss")
    loss.backward()
    for name, parameter in model.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert_close(found, gradients[name], f"gradient of {name}")


@given(config=configs(), num_items=st.integers(2, 14), tasks=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_value_and_outer_gradients_equal_torch_func(config, num_items, tasks, seed):
    check_against_reference(config, num_items, tasks, seed)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("k", [2, 3, 6])
def test_the_paper_equals_torch_func(k, steps):
    config = MetaTLConfig.preset("paper", k=k, inner_steps=steps, dim=8, margin=3.0, inner_lr=0.05)
    check_against_reference(config, 20, 5, seed=k + steps)


def test_the_released_programs_objective_equals_torch_func():
    config = MetaTLConfig.preset("official", dim=8, hidden=(7, 5), batch_norm=False)
    check_against_reference(config, 20, 5, seed=3)


@COSTLY_CASES
@given(config=configs(), seed=st.integers(0, 2**32))
def test_outer_gradient_equals_finite_differences(config, seed):
    if config.first_order:  # then the outer gradient is not the derivative of the loss, by design
        config = config.model_copy(update={"first_order": False})
    model, generator = random_model(config, 14, seed)
    batch = random_tasks(config, 14, generator, 2)
    model.episode_loss(*batch).backward()
    step = 1e-6
    parameters = [p for p in model.parameters() if p.grad is not None]
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    slope = sum((p.grad * v).sum().item() for p, v in zip(parameters, directions, strict=True))
    start = [p.detach().clone() for p in parameters]

    def loss_at(distance):
        with torch.no_grad():
            for p, p0, v in zip(parameters, start, directions, strict=True):
                p.copy_(p0 + distance * v)
        return model.episode_loss(*batch).item()

    here, ahead, behind = loss_at(0.0), loss_at(step), loss_at(-step)
    forward, backward = (ahead - here) / step, (here - behind) / step
    # A kink of the hinge or of a distance within the step spoils the slope on its own side only: the gradient
    # lies between the two, which differ by rounding and curvature where there is none.
    tolerance = 1e-5 * max(1.0, abs(slope))
    assert min(forward, backward) - tolerance <= slope <= max(forward, backward) + tolerance


def test_dropped_embeddings_still_share_one_row():
    """A slot's gradient reaches its item's row through the slot's own dropout factors."""
    config = MetaTLConfig.preset(
        "paper", k=4, dim=5, negatives=2, shared_negatives=3, shared_support_negatives=3, inner_steps=2
    )
    config = config.model_copy(update={"inner_lr": 0.05, "loss": "softmax"})
    generator = torch.Generator().manual_seed(1)
    items = torch.randint(6, (1, 5), generator=generator)
    negatives = torch.randint(6, (1, 4, 2), generator=generator)
    shared = torch.randint(6, (3,), generator=generator)
    table = torch.randn(6, 5, dtype=torch.float64, generator=generator) * 0.5
    layer = OneLayer(5).double()

    def factors(*shape):
        return torch.bernoulli(torch.full((*shape, 5), 0.5, dtype=torch.float64), generator=generator) * 2

    keep = {"sequence": factors(4), "own": factors(4, 2), "common": factors(3)}
    params = {TABLE: table, **{LEARNER + n: p.detach() for n, p in layer.named_parameters()}}
    # The reference's query uses whole rows (no factors) for the target and its negatives.
    expected = reference_task_loss(params, items[0], negatives[0], shared, config, None, 1, keep)

    support = Support(
        [
            Slots(items[:, j], table[items[:, j]] * keep["sequence"][j], None, keep["sequence"][None, j])
            for j in range(4)
        ],
        Slots(negatives[:, :3], table[negatives[:, :3]] * keep["own"][:3], None, keep["own"][None, :3]),
        Slots(shared, table[shared] * keep["common"], None, keep["common"]),
    )
    loss = PairLoss("softmax")
    geometry = Geometry("squared_l2")
    inner = InnerLoop(2, 0.05, SECOND_ORDER, "learner_and_embeddings", "sum", geometry, loss)
    adapted = adapt(layer, support, inner)
    query = torch.cat((items[:, 4:], negatives[:, 3], shared[None]), dim=1)
    rows = adapted.rows_of(Slots(query, table[query]))
    costs = geometry.of_offsets((adapted.last + adapted.transition).unsqueeze(1) - rows, None).cost
    costs = costs.masked_fill(
        torch.cat((torch.zeros(1, 3, dtype=torch.bool), shared[None] == items[:, 4:]), 1), 1e300
    )
    assert_close(loss.values(costs[:, 0], costs[:, 1:]).sum(), expected, "loss")


@COSTLY_CASES
@given(config=configs(), length=st.integers(2, 7), seed=st.integers(0, 2**32), users=st.integers(1, 3))
def test_serving_ranks_by_the_adapted_costs(config, length, seed, users):
    """Query, table, bias and overrides give -temperature · cost of every item, for any length of history."""
    num_items = 9
    model, generator = random_model(config, num_items, seed)
    params = {name: p.detach().clone() for name, p in model.named_parameters()}
    histories = torch.randint(num_items, (users, length), generator=generator)
    negatives = torch.randint(num_items, (users, model.support_negatives), generator=generator)
    encoded = model.encode(histories, negatives)
    supporting = config.shared_support_negatives if config.inner_steps else 0
    count = config.negatives if config.inner_steps else 0
    for user in range(users):
        common, dealt = negatives[user, :supporting], negatives[user, supporting:].tolist()
        own = [[dealt[(j * count + i) % len(dealt)] for i in range(count)] for j in range(length - 1)]
        own = torch.tensor(own, dtype=torch.int64).view(length - 1, count)
        divisor = 1 if config.support_reduction == "sum" else length - 1
        theta, tr, last, _ = reference_adapted(
            params, histories[user], own, common, config, model.learner, divisor
        )
        costs = reference_costs(theta, last + tr, torch.arange(num_items), theta[TABLE], config)
        temperature = params["log_temperature"].exp() if config.learned_temperature else config.temperature

        table = model.item_table.clone()
        if encoded.overrides is not None:
            items = encoded.overrides.items[user]
            present = items >= 0
            assert len(items[present].unique()) == present.sum()
            table[items[present]] = encoded.overrides.rows[user, present]
        scores = -((encoded.queries[user] - table) ** 2).sum(1)
        if model.similarity == "l2":
            scores = -(-scores).sqrt()
        if model.item_bias is not None:
            scores = scores + model.item_bias
        assert_close(scores, (-costs * temperature).detach(), "scores")
    alone = model.encode(histories[:1], negatives[:1])
    assert_close(alone.queries, encoded.queries[:1], "query of a user alone")
