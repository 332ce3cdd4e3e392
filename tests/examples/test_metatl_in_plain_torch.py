"""The example's MetaTL against the package's, in float64: two programs of the same equations."""

import importlib.util
from pathlib import Path

import pytest
import torch

from metatl.models.metatl.model import MetaTL, MetaTLConfig

ITEMS, TASKS, DIM = 12, 40, 8  # so few items that a task repeats them, and draws its own items as negatives
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parents[2] / "examples" / "metatl_in_plain_torch.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def paper(k, steps, **changes):
    """Return the package's model with items far enough apart that some margins hold and others do not."""
    torch.manual_seed(k)
    config = MetaTLConfig.preset("paper", k=k, inner_steps=steps, dim=DIM, **changes)
    model = MetaTL(config, ITEMS).double()
    torch.nn.init.normal_(model.embedding.weight, std=0.3)
    torch.nn.init.normal_(model.learner.bias, std=0.3)
    return model


def theta_of(example, model):
    """Copy the package's parameters."""
    return example.Theta(
        *(
            value.detach().clone().requires_grad_()
            for value in (model.learner.weight, model.learner.bias, model.embedding.weight)
        )
    )


def draw(*shape, seed):
    return torch.randint(ITEMS, shape, generator=torch.Generator().manual_seed(seed))


def test_the_settings_are_those_of_the_preset(example):
    config = MetaTLConfig.preset("paper")
    assert (config.k, config.dim, config.init_scale) == (example.K, example.DIM, example.INIT_SCALE)
    assert (config.margin, config.inner_lr) == (example.GAMMA, example.ALPHA)
    assert (config.meta_lr, config.meta_lr * config.final_lr_share) == (example.BETA, example.BETA / 20)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_loss_and_gradients_are_the_packages(example, monkeypatch, k, steps, rate):
    monkeypatch.setattr(example, "ALPHA", rate)
    model = paper(k, steps, inner_lr=rate)
    items, negatives = draw(TASKS, k + 1, seed=1), draw(TASKS, k, seed=2)
    items[0] = 5  # one item throughout, and as its own negative
    negatives[0] = 5
    items[1, -1] = items[1, 0]  # the target is in the support
    negatives[2, 0] = items[2, 1]  # the negative of a pair is its tail,
    negatives[3, 0] = items[3, 0]  # or its head,
    negatives[4, -1] = negatives[4, 0]  # and the query's is the support's
    expected = model.episode_loss(items, negatives.unsqueeze(-1), torch.empty(0, dtype=torch.int64))
    expected.backward()

    theta = theta_of(example, model)
    loss = example.outer_loss(theta, items, negatives, steps)
    loss.backward()

    torch.testing.assert_close(loss, expected, **TOLERANCE)
    torch.testing.assert_close(theta.W.grad, model.learner.weight.grad, **TOLERANCE)
    torch.testing.assert_close(theta.b.grad, model.learner.bias.grad, **TOLERANCE)
    torch.testing.assert_close(theta.items.grad, model.embedding.weight.grad, **TOLERANCE)
    assert theta.W.grad.abs().max() > 0.01
    if steps:  # the inner step is in both, and what it changes is far above the tolerance
        assert abs(example.outer_loss(theta, items, negatives, 0) - loss) > 1e-3


@pytest.mark.parametrize("steps", [1, 2])
def test_a_new_user_gets_the_packages_scores(example, steps):
    k = 4
    model = paper(k, steps)
    histories, negatives = draw(TASKS, k, seed=3), draw(TASKS, k - 1, seed=4)
    candidates = torch.arange(ITEMS).expand(TASKS, ITEMS)

    encoded = model.encode(histories, negatives)
    rows = model.item_table.expand(TASKS, -1, -1).clone()
    for user, (moved, vectors) in enumerate(zip(*encoded.overrides, strict=True)):
        present = moved >= 0
        rows[user, moved[present]] = vectors[present]
    expected = (encoded.queries.unsqueeze(1) - rows).square().sum(dim=2)

    theta = theta_of(example, model)
    scores = torch.vmap(lambda *user: example.candidate_scores(theta, *user, steps))(
        histories, negatives, candidates
    )
    torch.testing.assert_close(scores.detach(), expected, **TOLERANCE)
    # Without the moved item vectors the scores would be others.
    unmoved = (encoded.queries.unsqueeze(1) - model.item_table).square().sum(dim=2)
    assert (scores - unmoved).abs().max() > 1e-3
