"""MeLU against plain autograd, one user at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import metatl
from full_ranking import rank_catalogue
from metatl.common.timings import Timings
from metatl.data.histories import Histories
from metatl.exceptions import InvalidArgumentError
from metatl.models.melu import MeLU, MeLUConfig
from metatl.models.next_item_losses import next_item_loss
from metatl.models.trainable import TensorBatch
from metatl.ranking.rank import encode_blocks, rank_candidates, top_n

NUM_ITEMS = 20


def build(**changes):
    config = MeLUConfig(
        **{
            **MeLUConfig.preset("paper").model_dump(),
            "dim": 4,
            "hidden": (6, 5),
            "negatives": 2,
            "inner_lr": 0.3,
            **changes,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = MeLU(config, NUM_ITEMS)
        torch.nn.init.normal_(model.embedding.weight)
    return model.double()


def plain_scores(layers, user, items, *, similarity):
    scores = []
    for item in items:
        features = torch.cat((user, item))
        for weight, bias in layers[:-1]:
            features = torch.relu(weight @ features + bias)
        score = (layers[-1][0] @ features + layers[-1][1])[0]
        scores.append(score + user @ item if similarity else score)
    return torch.stack(scores)


def plain_adaptation(model, history, negatives):
    """The user's layers after the steps on the support, each item scored for the mean of the others.

    Items for which no set of negatives is left get those of the first ones.
    """
    config = model.config
    layers = [(layer.weight, layer.bias) for layer in model.linears()]
    rows = model.embedding.weight[history]
    for _ in range(config.inner_steps if len(negatives) else 0):
        losses = []
        for place in range(len(history)):
            others = [row for other, row in enumerate(rows) if other != place]
            user = torch.stack(others).mean(dim=0) if others else torch.zeros_like(rows[0])
            positive = plain_scores(layers, user, rows[place][None], similarity=config.similarity)
            own = model.embedding.weight[negatives[place % len(negatives)]]
            against = plain_scores(layers, user, own, similarity=config.similarity)
            losses.append(next_item_loss(config.loss, positive, against[None]))
        flat = [tensor for layer in layers for tensor in layer]
        slopes = torch.autograd.grad(torch.cat(losses).mean(), flat, create_graph=True)
        flat = [
            tensor - config.inner_lr * (slope.detach() if config.first_order else slope)
            for tensor, slope in zip(flat, slopes, strict=True)
        ]
        layers = list(zip(flat[::2], flat[1::2], strict=True))
    return rows.mean(dim=0), layers


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("loss", ["binary", "softmax"])
@pytest.mark.parametrize("similarity", [False, True])
@pytest.mark.parametrize("inner_steps", [0, 1, 2])
@pytest.mark.parametrize("first_order", [False, True])
def test_loss_and_gradients_are_those_of_one_task_at_a_time(
    length, loss, similarity, inner_steps, first_order
):
    model = build(
        loss=loss,
        similarity=similarity,
        inner_steps=inner_steps,
        first_order=first_order,
        shared_negatives=3,
        k=length,
    )
    generator = torch.Generator().manual_seed(1)
    items = torch.randint(NUM_ITEMS, (4, length + 1), generator=generator)
    negatives = torch.randint(NUM_ITEMS, (4, length, 2), generator=generator)
    shared = torch.tensor([int(items[0, -1]), 3, 7])
    batch = TensorBatch(torch.arange(4), items, negatives, shared)
    loss_value = model.training_loss(batch)
    gradients = torch.autograd.grad(loss_value, list(model.parameters()))
    losses = []
    for task, own in zip(items, negatives, strict=True):
        user, layers = plain_adaptation(model, task[:-1], own[:-1])
        target = int(task[-1])
        others = [item for item in [*own[-1].tolist(), *shared.tolist()] if item != target]
        scores = plain_scores(layers, user, model.embedding.weight[[target, *others]], similarity=similarity)
        losses.append(next_item_loss(loss, scores[:1], scores[None, 1:]))
    expected = torch.cat(losses).mean()
    assert loss_value.item() == pytest.approx(expected.item(), rel=1e-10)
    for gradient, by_hand in zip(
        gradients, torch.autograd.grad(expected, list(model.parameters())), strict=True
    ):
        assert torch.allclose(gradient, by_hand, atol=1e-10)


@pytest.mark.parametrize("k", [2, 3])
def test_the_query_meets_negatives_that_no_local_update_has_seen(k, monkeypatch):
    model, seen = build(k=k), []

    def local_update(support, negatives):
        seen.append(negatives)
        return MeLU.local_update(model, support, negatives)

    monkeypatch.setattr(model, "local_update", local_update)
    items, own = torch.arange(k + 1)[None], torch.arange(4, 4 + 2 * k).view(1, k, 2)
    other = own.clone()
    other[:, -1] = torch.tensor([18, 19])
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
    model.adapt(items[:, :-1], served)
    assert torch.equal(seen[2], seen[0])
    assert seen[0].shape == (1, k, 2, model.config.dim)


def test_ranking_scores_each_user_with_layers_of_their_own():
    model = build(similarity=True).float()
    histories = np.array([[3, 1, 5], [0, 7, 9], [5, 6, 2]])
    candidates = np.array([[4, 2, 12, 10, 13, 11]] * 3)
    drawn = torch.from_numpy(
        metatl._metatl.sample_support_negatives(histories, model.support_negatives, NUM_ITEMS, seed=4)
    )
    scores = []
    for history, own in zip(torch.from_numpy(histories), drawn, strict=True):
        user, layers = plain_adaptation(model, history, own.view(2, 2))
        scores.append(plain_scores(layers, user, model.embedding.weight, similarity=True).detach().numpy())
    sampled = rank_candidates(model, histories, candidates, seed=4)
    assert sampled.greater.tolist() == [(row[candidates[0, 1:]] > row[4]).sum() for row in scores]
    excluded = Histories.from_matrix(histories)
    full = rank_catalogue(model, histories, candidates[:, 0], excluded, seed=4)
    best = top_n(model, histories, 4, excluded, seed=4)
    for user, row in enumerate(scores):
        left = [item for item in range(NUM_ITEMS) if item not in histories[user]]
        assert full.greater[user] == sum(row[item] > row[4] for item in left)
        assert best.items[user].tolist() == sorted(left, key=lambda item: -row[item])[:4]


def test_the_catalogue_is_scored_once_for_all_rankings():
    model = build().float()
    calls = []
    score_pairs = model.score_pairs
    model.score_pairs = lambda adapted, items: calls.append(items.shape) or score_pairs(adapted, items)
    histories, timings = np.array([[3, 1, 5], [0, 7, 9]]), Timings()
    for rows, block in encode_blocks(model, histories, timings=timings):
        excluded = Histories.from_matrix(histories[rows])
        block.rank_catalogue(histories[rows, 0].copy(), excluded)
        block.top_n(4, excluded)
    assert calls == [(2, NUM_ITEMS)]


@pytest.mark.parametrize("negatives", [None, torch.zeros(1, 5).long()])
def test_missing_negatives_are_an_error(negatives):
    with pytest.raises(InvalidArgumentError, match=r"negatives: found .*, expected shape \(1, 4\)"):
        build().adapt(torch.zeros(1, 2).long(), negatives)
