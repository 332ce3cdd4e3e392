"""The Markov chain against counting pairs in dictionaries."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.data.histories import Histories
from metatl.models.markov_chain import MarkovChain, MarkovChainConfig
from property_settings import COSTLY_CASES

NUM_ITEMS = 7


def training_rows(sequences):
    indptr = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int64)
    counts = np.bincount(items, minlength=NUM_ITEMS)
    return SimpleNamespace(indptr=indptr, items=items, num_items=NUM_ITEMS, item_counts=counts)


def slow_probabilities(last, sequences, config):
    """The definition, pair by pair."""
    counts = Counter(item for sequence in sequences for item in sequence)
    prior = [counts[item] / max(counts.total(), 1) for item in range(NUM_ITEMS)]
    row = [0.0] * NUM_ITEMS
    for sequence in sequences:
        for earlier, first in enumerate(sequence):
            for later in range(earlier + 1, min(earlier + config.window, len(sequence) - 1) + 1):
                second = sequence[later]
                weight = (
                    len(sequence) ** -config.length_discount * (later - earlier) ** -config.distance_decay
                )
                if first != second:
                    row[second] += weight * (first == last)
                    row[first] += config.backward * weight * (second == last)
    mass = sum(row) + config.smoothing
    if mass == 0:
        return prior
    return [(weight + config.smoothing * share) / mass for weight, share in zip(row, prior, strict=True)]


configs = st.builds(
    MarkovChainConfig,
    window=st.integers(1, 4),
    distance_decay=st.sampled_from([0.0, 0.5, 1.0]),
    length_discount=st.sampled_from([0.0, 0.5]),
    backward=st.sampled_from([0.0, 0.5, 1.0]),
    smoothing=st.sampled_from([0.0, 1.5]),
)
sequences_of_items = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=7), min_size=1, max_size=6)
histories_of_items = st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=4)


@COSTLY_CASES
@given(sequences_of_items, histories_of_items, configs)
def test_probabilities_are_those_of_the_definition(sequences, history, config):
    model = MarkovChain.fit(training_rows(sequences), config)
    scores = model.score(Histories.from_matrix(np.array([history, history], dtype=np.int64)))
    assert scores.dtype == np.float32
    assert scores.flags.c_contiguous
    expected = slow_probabilities(history[-1], sequences, config)
    np.testing.assert_allclose(scores, [expected, expected], rtol=1e-5, atol=1e-7)


def test_paper_counts_what_follows_directly():
    model = MarkovChain.fit(
        training_rows([[0, 1, 2], [0, 1], [0, 3], [4, 0]]), MarkovChainConfig.preset("paper")
    )
    assert model.score(Histories.from_matrix(np.array([[5, 0]])))[0] == pytest.approx(
        [0, 2 / 3, 0, 1 / 3, 0, 0, 0]
    )


def test_after_an_item_that_nothing_followed_comes_the_prior():
    config = MarkovChainConfig(smoothing=0.0, window=1, backward=0.0)
    model = MarkovChain.fit(training_rows([[0, 1], [0, 2]]), config)
    assert model.score(Histories.from_matrix(np.array([[1]])))[0] == pytest.approx(
        [0.5, 0.25, 0.25, 0, 0, 0, 0]
    )


def test_tensors_of_another_catalogue_are_refused():
    config = MarkovChainConfig()
    model = MarkovChain.fit(training_rows([[0, 1, 2, 3], [1, 2], [2, 3, 4]]), config)
    with pytest.raises(ValueError, match="item_counts"):
        MarkovChain.from_tensors(config, NUM_ITEMS + 1, model.tensors())


def test_tuned_is_the_default():
    assert MarkovChainConfig.preset("tuned") == MarkovChainConfig()
