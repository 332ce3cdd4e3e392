"""TransRec against its formula, and what a cold user gets."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metatl
from metatl.exceptions import ConfigError
from metatl.models import find_system
from metatl.models.trainable import TensorBatch
from metatl.models.transrec import TransRec, TransRecConfig
from metatl.ranking.rank import rank_candidates
from metatl.training.fit import configure
from planted_data import ring
from property_settings import COSTLY_CASES

NUM_ITEMS, NUM_USERS = 12, 5


@cache
def build(**changes):
    config = TransRecConfig(**{**TransRecConfig.preset("paper").model_dump(), "dim": 4, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = TransRec(config, NUM_ITEMS, NUM_USERS)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.8)
    return model.double()


def translation(model, user):
    """t, plus t_u where the user has one."""
    shared = model.translation.detach().numpy()
    if user is None or not model.config.user_translations:
        return shared
    return shared + model.user_translations.weight.detach().numpy()[user]


def score(model, user, previous, item):
    """β_j - ‖γ_i + t + t_u - γ_j‖² / temperature, points drawn into the unit ball if asked for."""

    def point(number):
        row = model.embedding.weight.detach().numpy()[number]
        return row / max(1.0, np.linalg.norm(row)) if model.config.unit_ball else row

    squared = ((point(previous) + translation(model, user) - point(item)) ** 2).sum()
    return model.bias.detach().numpy()[item] - squared / model.config.temperature


ids = st.integers(0, NUM_ITEMS - 1)
pairs = st.lists(st.tuples(st.integers(0, NUM_USERS - 1), ids, ids, ids), min_size=1, max_size=5)


@COSTLY_CASES
@given(pairs, st.booleans(), st.booleans(), st.sampled_from([0.5, 1.0, 3.0]))
def test_the_loss_is_sequential_bpr_with_a_penalty(drawn, unit_ball, user_translations, temperature):
    model = build(unit_ball=unit_ball, user_translations=user_translations, temperature=temperature)
    users, previous, targets, negatives = (torch.tensor(column) for column in zip(*drawn, strict=True))
    batch = TensorBatch(
        users, torch.stack((previous, targets), dim=1), negatives[:, None, None], torch.empty(0).long()
    )
    expected = 0.0
    bias = model.bias.detach().numpy()
    for user, before, target, negative in drawn:
        margin = score(model, user, before, target) - score(model, user, before, negative)
        penalty = bias[target] ** 2 + bias[negative] ** 2 + (translation(model, user) ** 2).sum()
        expected += (math.log1p(math.exp(-margin)) + 0.01 * penalty) / len(drawn)
    assert model.training_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@COSTLY_CASES
@given(pairs, st.lists(ids, min_size=1, max_size=4))
def test_the_softmax_leaves_out_a_shared_negative_that_is_the_target(drawn, shared):
    model = build(loss="softmax", negatives=0, shared_negatives=len(shared), regularisation=0.0)
    users, previous, targets, _ = (torch.tensor(column) for column in zip(*drawn, strict=True))
    batch = TensorBatch(
        users,
        torch.stack((previous, targets), dim=1),
        torch.empty(len(drawn), 1, 0).long(),
        torch.tensor(shared),
    )
    expected = 0.0
    for user, before, target, _ in drawn:
        others = [score(model, user, before, item) for item in shared if item != target]
        positive = score(model, user, before, target)
        total = math.exp(positive) + sum(map(math.exp, others))
        expected += (math.log(total) - positive) / len(drawn)
    assert model.training_loss(batch).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("unit_ball", [False, True])
def test_a_cold_user_is_ranked_by_the_shared_translation(unit_ball):
    model = build(unit_ball=unit_ball, temperature=1.7).float()
    histories = torch.tensor([[3, 1], [0, 7], [5, 5]])
    candidates = torch.tensor([[4, 2, 9, 10, 0, 11]] * 3)
    scores = [
        [score(model, None, row[-1], item) for item in candidates[0].tolist()] for row in histories.tolist()
    ]
    counts = rank_candidates(model, histories.numpy(), candidates.numpy())
    assert counts.greater.tolist() == [sum(other > row[0] for other in row[1:]) for row in scores]


@pytest.mark.parametrize("preset", ["paper", "tuned"])
def test_the_direction_of_a_ring_is_learned(preset):
    # In the paper's unit ball the ring needs more room than the real data, and a faster rate.
    config = {
        "dim": 16,
        "lr": 0.05,
        "max_steps": 300,
        "eval_every": 150,
        "shuffle_share": 0.0,
        "batch_size": 256,
    }
    if preset == "tuned":
        config |= {"item_dropout": 0.0, "shared_negatives": 64}
    else:
        config |= {"regularisation": 0.0, "unit_ball": False, "init_scale": 0.3, "user_translations": False}
    run = metatl.fit(ring(), model="transrec", preset=preset, config=config, device="cpu")
    evaluation = metatl.evaluate(run, data=ring())
    assert evaluation.metrics.sampled["MRR"].value > 0.95


def test_settings_without_negatives_are_refused():
    settings = {"negatives": 0, "shared_negatives": 0}
    with pytest.raises(ConfigError, match="negatives: the loss needs at least one"):
        configure(find_system("transrec"), "tuned", settings, k=3)
