"""BPR-MF against its formula, and folding in against an optimiser of its own."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from metatl.exceptions import ConfigError
from metatl.models import find_system
from metatl.models.bpr_mf import BPRMF, BPRMFConfig
from metatl.models.contract import NO_ITEM
from metatl.models.trainable import TensorBatch
from metatl.training.fit import configure
from property_settings import COSTLY_CASES

NUM_ITEMS, NUM_USERS, DIM = 12, 5, 4


@cache
def build(preset="paper", **changes):
    config = BPRMFConfig(**{**BPRMFConfig.preset(preset).model_dump(), "dim": DIM, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = BPRMF(config, NUM_ITEMS, NUM_USERS)
        torch.nn.init.normal_(model.bias)
        torch.nn.init.normal_(model.embedding.weight)
    return model.double()


ids = st.integers(0, NUM_ITEMS - 1)
interactions = st.lists(
    st.tuples(st.integers(0, NUM_USERS - 1), ids, st.booleans(), ids), min_size=1, max_size=5
)


@COSTLY_CASES
@given(interactions)
def test_the_loss_and_its_gradients_are_those_of_bpr(drawn):
    model = build()
    users = torch.tensor([user for user, *_ in drawn])
    # The last item of a stretch is the interaction; a stretch may have one item only.
    items = torch.tensor([[item, NO_ITEM] if alone else [0, item] for _, item, alone, _ in drawn])
    negatives = torch.tensor([negative for *_, negative in drawn])
    loss = model.training_loss(TensorBatch(users, items, negatives[:, None, None], torch.empty(0).long()))
    model.zero_grad()
    loss.backward()
    p, q = (table.weight.detach().numpy() for table in (model.users, model.embedding))
    b = model.bias.detach().numpy()
    expected, by_user, by_item, by_bias = 0.0, np.zeros_like(p), np.zeros_like(q), np.zeros_like(b)
    count, regularisation = len(drawn), model.config.regularisation
    for user, item, _, negative in drawn:
        margin = p[user] @ (q[item] - q[negative]) + b[item] - b[negative]
        expected += np.log1p(np.exp(-margin)) / count
        squares = sum((row**2).sum() for row in (p[user], q[item], q[negative]))
        expected += regularisation * (squares + b[item] ** 2 + b[negative] ** 2) / count
        missed = 1 / (1 + np.exp(margin))
        by_user[user] += (-missed * (q[item] - q[negative]) + 2 * regularisation * p[user]) / count
        for each, sign in ((item, -1), (negative, 1)):
            by_item[each] += (sign * missed * p[user] + 2 * regularisation * q[each]) / count
            by_bias[each] += (sign * missed + 2 * regularisation * b[each]) / count
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(model.users.weight.grad, by_user, atol=1e-12)
    np.testing.assert_allclose(model.embedding.weight.grad, by_item, atol=1e-12)
    np.testing.assert_allclose(model.bias.grad, by_bias, atol=1e-12)


@pytest.mark.parametrize("length", [1, 3])
def test_folding_in_ends_where_an_optimiser_does(length):
    model = build(fold_in_steps=4000, fold_in_rate=0.5, fold_in_regularisation=0.05)
    generator = torch.Generator().manual_seed(0)
    histories = torch.randint(NUM_ITEMS, (4, length), generator=generator)
    queries = model.encode(histories).queries.numpy()
    q, b = model.embedding.weight.detach().numpy(), model.bias.detach().numpy()

    for row in range(4):
        mine = histories[row].numpy()

        def criterion(p, mine=mine):
            margins = p @ (q[mine] - q.mean(axis=0)).T + b[mine] - b.mean()
            return np.log1p(np.exp(-margins)).mean() + 0.05 * (p @ p) / 2

        found = optimize.minimize(criterion, np.zeros(DIM), tol=1e-12)
        np.testing.assert_allclose(queries[row], found.x, atol=1e-4)


def test_the_order_of_a_history_plays_no_part():
    model = build()
    histories = torch.tensor([[1, 2, 3], [3, 1, 2]])
    queries = model.encode(histories).queries
    assert torch.allclose(queries[0], queries[1], atol=1e-12)


def test_settings_without_negatives_are_refused():
    settings = {"negatives": 0, "shared_negatives": 0}
    with pytest.raises(ConfigError, match="negatives: the loss needs at least one"):
        configure(find_system("bpr"), "tuned", settings, k=3)
