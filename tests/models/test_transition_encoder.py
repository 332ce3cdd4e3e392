"""The encoder without torch computes what `MetaTL.encode` computes, for every setting that it supports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metatl import _metatl
from metatl.common.timings import Timings
from metatl.data.histories import Histories
from metatl.exceptions import InvalidArgumentError, NoNegativeError
from metatl.models.metatl.config import MetaTLConfig
from metatl.models.metatl.model import MetaTL
from metatl.models.metatl.transition_encoder import TransitionEncoder
from metatl.ranking.encoders import ArrayEncoder, make_encoder
from metatl.ranking.rank import top_n

ITEMS = 60
LEVELS = ("avx512", "avx2", "neon", "scalar")


def fitted(**changes):
    """A model whose parameters are all of the size that training gives them."""
    config = MetaTLConfig(**{"dim": 24, "shared_negatives": 8, "shared_support_negatives": 8, **changes})
    torch.manual_seed(0)
    model = MetaTL(config, ITEMS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in ("log_temperature", "inner_rates"):
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.mean_transition.normal_()
    return model.eval()


def in_torch(model, history, seed):
    row = np.array([history])
    count = model.support_negatives
    negatives = None
    if count and len(history) > 1:
        negatives = torch.from_numpy(_metatl.sample_support_negatives(row, count, ITEMS, seed=seed))
    return model.encode(torch.from_numpy(row), negatives).queries.numpy()[0]


MARGIN = {
    "loss": "margin",
    "temperature": 1.0,
    "item_start": "random",
    "cross_fit_folds": 0,
    "trend_weight": 0.0,
}
SETTINGS = [
    {},
    {"inner_steps": 0},
    {"inner_steps": 4, "inner_lr": 1.5},
    {"learned_temperature": True},
    {"learned_inner_lr": True, "inner_lr": 0.3},
    {"support_reduction": "sum"},
    {"support_reduction": "batch_mean"},
    {"transition_skip": None, "learner_bias": 0.0},
    {"distance": "l2"},
    {"item_bias": False, "trend_weight": 0.0},
    {"negatives": 3, "shared_support_negatives": 0, "k": 4},
    {"negatives": 2, "shared_support_negatives": 5},
    {**MARGIN, "inner_lr": 0.05},
    {**MARGIN, "distance": "l2", "negatives": 1, "shared_negatives": 0, "shared_support_negatives": 0},
    {"dim": 7},
    {"dim": 130},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
@pytest.mark.parametrize("level", LEVELS)
def test_queries_are_those_of_torch(changes, level, monkeypatch):
    monkeypatch.setenv("METATL_SIMD", level)
    model = fitted(**changes)
    try:
        encoder = model.query_encoder()
    except InvalidArgumentError:
        pytest.skip("this processor has no such instructions")
    generator = np.random.default_rng(1)
    rows = [generator.integers(0, ITEMS, length) for length in range(1, 51)]
    histories = Histories(np.cumsum([0, *map(len, rows)]), np.concatenate(rows))
    expected = np.stack([in_torch(model, row, 5) for row in rows])
    scale = np.abs(expected).max()
    for terms in (encoder.terms, None):
        arrays = TransitionEncoder(**{**vars(encoder), "terms": terms})
        queries = arrays.encode(histories, seed=5, num_threads=None)
        np.testing.assert_allclose(queries, expected, rtol=0, atol=1e-5 * scale)
        for threads in (1, 3):
            np.testing.assert_array_equal(arrays.encode(histories, seed=5, num_threads=threads), queries)


@given(
    st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_user_does_not_depend_on_the_others(rows, seed):
    encoder = fitted().query_encoder()
    histories = Histories(np.cumsum([0, *map(len, rows)]), np.concatenate(rows))
    together = encoder.encode(histories, seed=seed, num_threads=None)
    for row, query in zip(rows, together, strict=True):
        alone = encoder.encode(Histories.from_matrix(np.array([row])), seed=seed, num_threads=None)
        np.testing.assert_array_equal(alone[0], query)


def test_ranking_uses_it_and_finds_the_items_that_torch_finds():
    model = fitted()
    generator = np.random.default_rng(2)
    histories = Histories.from_matrix(generator.integers(0, ITEMS, (200, 3)))
    encoder = make_encoder(model, seed=0, item_table="float32", num_threads=None, timings=Timings())
    assert isinstance(encoder, ArrayEncoder)
    best = top_n(model, histories, 10, histories)
    queries = np.stack([in_torch(model, row, 0) for row in histories.items.reshape(-1, 3)])
    table, bias = model.item_table.numpy().astype(float), model.item_bias.numpy()
    for row, query, items, scores in zip(
        histories.items.reshape(-1, 3), queries, best.items, best.scores, strict=True
    ):
        expected = -((query - table) ** 2).sum(axis=1) + bias
        expected[row] = -np.inf
        np.testing.assert_allclose(scores, np.sort(expected)[::-1][:10], rtol=1e-5)
        np.testing.assert_allclose(expected[items], scores, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"adapt": "learner"},
        {"adapt": "learner_and_embeddings"},
        {"learner": "mlp", "hidden": (8,), "transition_skip": None, "learner_bias": 0.0},
    ],
)
def test_other_settings_need_torch(changes):
    assert fitted(**changes).query_encoder() is None


def test_models_of_other_types_need_torch():
    assert fitted().double().query_encoder() is None


def test_what_cannot_be_encoded_is_one_error():
    encoder = fitted().query_encoder()
    empty = Histories(np.array([0, 1, 1]), np.array([3]))
    with pytest.raises(InvalidArgumentError, match="histories: found row 1 without items"):
        encoder.encode(empty, seed=0, num_threads=None)
    with pytest.raises(InvalidArgumentError, match=r"items: found 60 at position 1, expected items from 0"):
        encoder.encode(Histories.from_matrix(np.array([[0, ITEMS]])), seed=0, num_threads=None)
    everything = Histories.from_matrix(np.arange(ITEMS)[None])
    with pytest.raises(NoNegativeError, match="user 0"):
        encoder.encode(everything, seed=0, num_threads=None)
    without_steps = fitted(inner_steps=0)
    query = without_steps.query_encoder().encode(everything, seed=0, num_threads=None)
    np.testing.assert_allclose(query[0], in_torch(without_steps, np.arange(ITEMS), 0), atol=1e-4)


def build_and_encode(config, tensors):
    encoder = TransitionEncoder.of(config, tensors)
    return encoder.encode(Histories.from_matrix(np.array([[0, 1]])), seed=0, num_threads=None)


@pytest.mark.parametrize("tensor", ["learner.weight", "mean_transition", "bias", "inner_rates"])
def test_tensors_of_other_shapes_are_refused(tensor):
    model = fitted(learned_inner_lr=True)
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    build_and_encode(model.config, tensors)
    tensors[tensor] = np.zeros((3, 3), np.float32)
    with pytest.raises(InvalidArgumentError):
        build_and_encode(model.config, tensors)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_lists_of_ten_thousand_histories_are_those_of_torch(level, monkeypatch):
    monkeypatch.setenv("METATL_SIMD", level)
    torch.manual_seed(0)
    items = 800
    model = MetaTL(MetaTLConfig(inner_steps=2), items)
    with torch.no_grad():
        model.embedding.weight.normal_()
        model.bias.normal_()
        model.mean_transition.normal_()
    model.eval()
    try:
        encoder = model.query_encoder()
    except InvalidArgumentError:
        pytest.skip("this processor has no such instructions")
    generator = np.random.default_rng(0)
    table = model.item_table.numpy().astype(float)
    bias = model.item_bias.numpy()
    for length in range(1, 51):
        rows = generator.integers(0, items, (200, length))
        negatives = _metatl.sample_support_negatives(rows, model.support_negatives, items, seed=0)
        expected = model.encode(torch.from_numpy(rows), torch.from_numpy(negatives)).queries.numpy()
        histories = Histories.from_matrix(rows)
        queries = encoder.encode(histories, seed=0, num_threads=None)
        scores, found = (
            2 * q @ table.T - (table**2).sum(axis=1) - (q**2).sum(axis=1)[:, None] + bias
            for q in (expected.astype(float), queries.astype(float))
        )
        np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-5 * np.abs(scores).max())
        lists = [np.argsort(-values, axis=1, kind="stable")[:, :10] for values in (scores, found)]
        for row in np.flatnonzero((lists[0] != lists[1]).any(axis=1)):
            # Only items whose scores are equal to 1e-5 may change places.
            np.testing.assert_allclose(scores[row, lists[1][row]], scores[row, lists[0][row]], rtol=1e-5)
