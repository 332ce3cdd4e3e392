"""MetaCF against dense matrices and plain autograd, one user at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metatl.exceptions import InvalidArgumentError
from metatl.models.metacf import MetaCF, MetaCFConfig
from metatl.models.next_item_losses import next_item_loss
from metatl.models.trainable import TensorBatch

NUM_ITEMS, NUM_USERS = 15, 9


def build(**changes):
    config = MetaCFConfig(
        **{
            **MetaCFConfig.preset("paper").model_dump(),
            "dim": 4,
            "layers": 2,
            "edge_share": 1.0,
            "negatives": 2,
            "inner_lr": 0.3,
            **changes,
        }
    )
    generator = torch.Generator().manual_seed(7)
    edges = torch.randperm(NUM_USERS * NUM_ITEMS, generator=generator)[:40].sort().values
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = MetaCF(config, NUM_ITEMS, edges // NUM_ITEMS, edges % NUM_ITEMS)
        torch.nn.init.normal_(model.embedding.weight)
        if model.bias is not None:
            torch.nn.init.normal_(model.bias)
    return model.double()


def layer(model, number, own, received):
    """NGCF's Eq. 3 to 5 for one node."""
    summed = model.own[number] @ (own + received) + model.interaction[number] @ (received * own)
    return torch.where(summed > 0, summed, 0.2 * summed)


def plain_layers(model, edge_users, edge_items):
    """Vectors of the items in every layer, node by node."""
    table = model.embedding.weight
    edges = list(zip(edge_users.tolist(), edge_items.tolist(), strict=True))
    items_of = {user: [i for u, i in edges if u == user] for user in range(NUM_USERS)}
    users_of = {item: [u for u, i in edges if i == item] for item in range(NUM_ITEMS)}
    of_items = list(table)
    of_users = {user: table[own].mean(dim=0) for user, own in items_of.items() if own}
    layers = [torch.stack(of_items)]
    zero = torch.zeros_like(table[0])
    for number in range(model.config.layers):
        to_users = {
            user: sum(of_items[i] / (len(items_of[user]) * len(users_of[i])) ** 0.5 for i in items_of[user])
            for user in of_users
        }
        to_items = [
            sum((of_users[u] / (len(items_of[u]) * len(users_of[i])) ** 0.5 for u in users_of[i]), zero)
            for i in range(NUM_ITEMS)
        ]
        of_users = {user: layer(model, number, of_users[user], to_users[user]) for user in of_users}
        of_items = [layer(model, number, of_items[i], to_items[i]) for i in range(NUM_ITEMS)]
        layers.append(torch.stack(of_items))
    degrees = [max(1.0, len(users_of[i])) for i in range(NUM_ITEMS)]
    return torch.stack(layers), torch.tensor(degrees, dtype=torch.float64)


def plain_user(model, rows, items, layers, degrees):
    user, received, parts = rows.mean(dim=0), rows, []
    parts.append(user)
    for number in range(model.config.layers):
        total = sum(received[place] / (len(items) * degrees[item]) ** 0.5 for place, item in enumerate(items))
        user = layer(model, number, user, total)
        received = [layers[number + 1][item] for item in items]
        parts.append(user)
    return torch.cat(parts)


def plain_adaptation(model, items, negatives, layers, degrees):
    config = model.config
    table = layers.transpose(0, 1).flatten(1)
    rows = layers[0][items]
    for _ in range(config.inner_steps if len(items) > 1 else 0):
        losses = []
        for place, item in enumerate(items):
            kept = [other for other in range(len(items)) if other != place]
            user = plain_user(model, rows[kept], [items[other] for other in kept], layers, degrees)
            against = torch.stack([user @ table[negative] for negative in negatives[place % len(negatives)]])
            losses.append(next_item_loss(config.loss, (user @ table[item])[None], against[None]))
        (slope,) = torch.autograd.grad(torch.cat(losses).mean(), rows, create_graph=True)
        rates = torch.log1p(torch.exp(model.inner_rates))
        rows = rows - rates * (slope.detach() if config.first_order else slope)
    return plain_user(model, rows, items, layers, degrees)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_vectors_pass_along_the_edges_as_in_ngcf(layers):
    model = build(layers=layers)
    item_layers, degrees = model.propagate(model.edge_users, model.edge_items)
    expected, expected_degrees = plain_layers(model, model.edge_users, model.edge_items)
    assert torch.allclose(item_layers, expected, atol=1e-12)
    assert torch.equal(degrees, expected_degrees)


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize(("loss", "item_bias"), [("bpr", False), ("softmax", True)])
@pytest.mark.parametrize(("inner_steps", "first_order"), [(0, False), (1, False), (1, True), (2, False)])
def test_loss_and_gradients_are_those_of_one_task_at_a_time(
    length, loss, item_bias, inner_steps, first_order
):
    model = build(
        loss=loss,
        item_bias=item_bias,
        inner_steps=inner_steps,
        first_order=first_order,
        shared_negatives=3,
        k=length,
    )
    generator = torch.Generator().manual_seed(1)
    items = torch.stack([torch.randperm(NUM_ITEMS, generator=generator)[: length + 1] for _ in range(3)])
    negatives = torch.randint(NUM_ITEMS, (3, length, 2), generator=generator)
    shared = torch.tensor([int(items[0, -1]), 3, 7])
    users = torch.tensor([4, 0, 4])
    value = model.training_loss(TensorBatch(users, items, negatives, shared))
    # The users of the batch are not in the graph.
    kept = (model.edge_users != 4) & (model.edge_users != 0)
    layers, degrees = plain_layers(model, model.edge_users[kept], model.edge_items[kept])
    table = layers.transpose(0, 1).flatten(1)
    losses = []
    for task, own in zip(items.tolist(), negatives.tolist(), strict=True):
        user = plain_adaptation(model, task[:-1], own[:-1], layers, degrees)
        others = [item for item in [*own[-1], *shared.tolist()] if item != task[-1]]
        scores = table[[task[-1], *others]] @ user
        if item_bias:
            scores = scores + model.bias[[task[-1], *others]]
        losses.append(next_item_loss(loss, scores[:1], scores[None, 1:]))
    expected = torch.cat(losses).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    parameters = list(model.parameters())
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    by_hand = torch.autograd.grad(expected, parameters, allow_unused=True)
    for gradient, other in zip(found, by_hand, strict=True):
        assert (gradient is None) == (other is None)
        assert gradient is None or torch.allclose(gradient, other, atol=1e-10)


@pytest.mark.parametrize("k", [2, 3])
def test_the_query_meets_negatives_that_no_inner_step_has_seen(k, monkeypatch):
    model, seen = build(k=k), []

    def adapt(support, negatives, *graph, training):
        seen.append(negatives)
        return MetaCF.adapt(model, support, negatives, *graph, training=training)

    monkeypatch.setattr(model, "adapt", adapt)
    items, own = torch.arange(k + 1)[None], torch.arange(4, 4 + 2 * k).view(1, k, 2)
    other = own.clone()
    other[:, -1] = torch.tensor([13, 14])
    nothing = torch.empty(0, dtype=torch.int64)
    losses = [
        model.training_loss(TensorBatch(torch.zeros(1, dtype=torch.int64), items, negatives, nothing))
        for negatives in (own, other)
    ]
    assert losses[0] != losses[1]
    assert torch.equal(seen[0], seen[1])
    # Training and serving give an item equally many, and deal alike.
    served = own[:, :-1].flatten(1)
    assert served.shape[1] == model.support_negatives
    model.encode(items[:, :-1], served)
    assert torch.equal(seen[2], seen[0])
    assert seen[0].shape == (1, k, 2)


def test_a_cold_user_meets_the_whole_graph():
    model = build(item_bias=True)
    model.before_evaluation(torch.empty(0))
    layers, degrees = plain_layers(model, model.edge_users, model.edge_items)
    assert torch.allclose(model.item_table, layers.transpose(0, 1).flatten(1), atol=1e-12)
    histories = torch.tensor([[3, 1, 5], [0, 7, 9]])
    negatives = torch.arange(8).view(2, 4)
    queries = model.encode(histories, negatives).queries
    for query, history, own in zip(queries, histories.tolist(), negatives.view(2, 2, 2), strict=True):
        expected = plain_adaptation(model, history, own.tolist(), layers, degrees)
        assert torch.allclose(query, expected, atol=1e-12)


def test_without_layers_no_edge_is_looked_at():
    model = build(layers=0)
    model.sample_edges = None
    items, negatives = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[[5, 6], [7, 8], [9, 10]]])
    batch = TensorBatch(torch.tensor([0]), items, negatives, torch.tensor([], dtype=torch.int64))
    assert torch.isfinite(model.training_loss(batch))


def test_a_share_of_the_edges_of_the_other_users_is_kept():
    config = MetaCFConfig(edge_share=0.7)
    users = torch.arange(100).repeat_interleave(1000)
    model = MetaCF(config, NUM_ITEMS, users, torch.zeros_like(users))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kept = model.sample_edges(torch.tensor([3, 50]))
    counts = np.bincount(users[kept], minlength=100)
    assert counts[[3, 50]].tolist() == [0, 0]
    assert counts.sum() == pytest.approx(0.7 * 98_000, rel=0.01)


@pytest.mark.parametrize("negatives", [None, torch.zeros(1, 5).long()])
def test_missing_negatives_are_an_error(negatives):
    with pytest.raises(InvalidArgumentError, match=r"negatives: found .*, expected shape \(1, 4\)"):
        build().encode(torch.zeros(1, 2).long(), negatives)
