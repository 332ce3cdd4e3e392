"""Item-kNN against dictionaries and loops."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.data.histories import Histories
from metatl.models.item_knn import ItemKNN, ItemKNNConfig
from property_settings import COSTLY_CASES


def training_rows(sequences, num_items):
    lengths = [len(sequence) for sequence in sequences]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int64)
    counts = np.bincount(items, minlength=num_items)
    return SimpleNamespace(indptr=indptr, items=items, num_items=num_items, item_counts=counts)


def slow_similarities(sequences, num_items, config):
    """The definition, pair by pair."""
    counts = [sum(sequence.count(item) for sequence in sequences) for item in range(num_items)]
    weights = {}
    for sequence in sequences:
        for p, first in enumerate(sequence):
            for q, second in enumerate(sequence):
                distance = abs(p - q)
                if first == second or (config.window is not None and distance > config.window):
                    continue
                weight = len(sequence) ** -config.length_discount * distance**-config.distance_decay
                weights[first, second] = weights.get((first, second), 0.0) + weight
    similarity = {
        (first, second): weight
        / (counts[first] + config.shrinkage) ** config.history_exponent
        / (counts[second] + config.shrinkage) ** config.candidate_exponent
        for (first, second), weight in weights.items()
    }
    if config.neighbours is not None:
        for first in range(num_items):
            row = sorted((-value, second) for (item, second), value in similarity.items() if item == first)
            for _, second in row[config.neighbours :]:
                del similarity[first, second]
    scale = num_items / sum(similarity.values()) if similarity else 1.0
    return {pair: value * scale for pair, value in similarity.items()}, counts


def slow_scores(history, sequences, num_items, config):
    similarity, counts = slow_similarities(sequences, num_items, config)
    total = [
        sum(value for (item, _), value in similarity.items() if item == first) for first in range(num_items)
    ]
    start = [0.0] * num_items
    for age, item in enumerate(reversed(history)):
        start[item] += config.recency**age
    walk = list(start)
    for (first, second), value in similarity.items():
        walk[second] += config.second_step * start[first] * value / total[first]
    scores = [config.popularity * count / max(sum(counts), 1) for count in counts]
    for (first, second), value in similarity.items():
        scores[second] += walk[first] * value
    return scores


configs = st.builds(
    ItemKNNConfig,
    window=st.none() | st.integers(1, 4),
    distance_decay=st.sampled_from([0.0, 0.5, 1.0]),
    length_discount=st.sampled_from([0.0, 0.5]),
    history_exponent=st.sampled_from([0.0, 0.5, 0.7]),
    candidate_exponent=st.sampled_from([0.0, 0.5, 0.9]),
    shrinkage=st.sampled_from([0.0, 10.0]),
    neighbours=st.none() | st.integers(1, 3),
    recency=st.sampled_from([0.5, 1.0]),
    second_step=st.sampled_from([0.0, 4.0]),
    popularity=st.sampled_from([0.0, 0.5]),
)
sequences_of_items = st.lists(st.lists(st.integers(0, 6), max_size=7), min_size=1, max_size=6)
histories_of_items = st.lists(st.integers(0, 6), min_size=1, max_size=4)


@COSTLY_CASES
@given(sequences_of_items, histories_of_items, configs)
def test_scores_are_those_of_the_definition(sequences, history, config):
    # Rounding decides which of two equally near neighbours is kept where weights are not exact.
    if config.neighbours is not None:
        config = config.model_copy(
            update={
                "distance_decay": 0.0,
                "length_discount": 0.0,
                "history_exponent": 0.0,
                "candidate_exponent": 0.0,
            }
        )
    model = ItemKNN.fit(training_rows(sequences, 7), config)
    scores = model.score(Histories.from_matrix(np.array([history, history], dtype=np.int64)))
    assert scores.dtype == np.float32
    assert scores.shape == (2, 7)
    assert scores.flags.c_contiguous
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_allclose(scores[0], slow_scores(history, sequences, 7, config), rtol=1e-5, atol=1e-6)


def test_paper_is_the_cosine():
    sequences = [[0, 1, 2], [1, 2], [2, 3], [0, 3, 1]]
    purchases = np.zeros((4, 4))
    for user, sequence in enumerate(sequences):
        purchases[user, sequence] = 1
    norms = np.linalg.norm(purchases, axis=0)
    cosine = purchases.T @ purchases / np.outer(norms, norms)
    np.fill_diagonal(cosine, 0.0)
    model = ItemKNN.fit(training_rows(sequences, 4), ItemKNNConfig.preset("paper"))
    scores = model.score(Histories.from_matrix(np.array([[0, 1]])))[0]
    expected = cosine[0] + cosine[1]
    np.testing.assert_allclose(scores, expected * 4 / cosine.sum(), rtol=1e-6)


def test_tensors_that_are_no_matrix_of_the_items_are_refused():
    config = ItemKNNConfig()
    tensors = ItemKNN.fit(training_rows([[0, 1, 2]], 3), config).tensors()
    with pytest.raises(ValueError, match="item_counts"):
        ItemKNN.from_tensors(config, 4, tensors)
    with pytest.raises(ValueError, match="an index is outside the 3 columns"):
        ItemKNN.from_tensors(config, 3, {**tensors, "indices": tensors["indices"] + 1})


def test_presets():
    assert ItemKNNConfig.preset("tuned") == ItemKNNConfig()
    assert ItemKNNConfig.preset("paper").second_step == 0
