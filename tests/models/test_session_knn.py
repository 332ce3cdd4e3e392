"""Session kNN against loops over users, items and places."""

from __future__ import annotations

import statistics
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.data.histories import Histories
from metatl.models.session_knn import SessionKNN, SessionKNNConfig
from property_settings import COSTLY_CASES

NUM_ITEMS = 7


def training_rows(sequences, last_times=None):
    """Each user's rows end at the given time, a second apart."""
    last_times = last_times or [100 * user for user in range(len(sequences))]
    indptr = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    times = [
        last - len(sequence) + place + 1
        for last, sequence in zip(last_times, sequences, strict=True)
        for place in range(len(sequence))
    ]
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int64)
    return SimpleNamespace(
        indptr=indptr,
        items=items,
        timestamps=np.array(times, dtype=np.int64),
        num_items=NUM_ITEMS,
        item_counts=np.bincount(items, minlength=NUM_ITEMS),
    )


def slow_scores(history, sequences, last_times, config):
    """The definition, a user at a time."""
    counts = [sum(sequence.count(item) for sequence in sequences) for item in range(NUM_ITEMS)]
    ages = [max(last_times) - last for last in last_times]
    unit = statistics.median(ages)
    weight_of = {}
    for age, item in enumerate(reversed(history)):
        weight_of[item] = weight_of.get(item, 0.0) + config.recency**age
    found = []
    for user, sequence in enumerate(sequences):
        similarity = sum(weight_of.get(item, 0.0) for item in set(sequence))
        similarity *= len(sequence) ** -config.length_exponent
        if config.half_life is not None and unit > 0:
            similarity *= 2 ** (-ages[user] / (config.half_life * unit))
        if similarity > 0:
            found.append((-similarity, user))
    votes = [0.0] * NUM_ITEMS
    for similarity, user in sorted(found)[: config.neighbours]:
        sequence = sequences[user]
        latest = next(item for item in reversed(history) if item in sequence)
        shared = max(place for place, item in enumerate(sequence) if item == latest)
        for place, item in enumerate(sequence):
            votes[item] += -similarity * max(abs(place - shared), 1) ** -config.distance_decay
    for item, count in enumerate(counts):
        smoothed = (count + config.shrinkage) ** config.candidate_exponent
        votes[item] = votes[item] / smoothed if smoothed > 0 else 0.0
    total = sum(votes) or 1.0
    return [
        vote / total + config.popularity * count / max(sum(counts), 1)
        for vote, count in zip(votes, counts, strict=True)
    ]


configs = st.builds(
    SessionKNNConfig,
    neighbours=st.just(100),
    recency=st.sampled_from([0.5, 1.0]),
    length_exponent=st.sampled_from([0.0, 0.5, 1.0]),
    half_life=st.none() | st.sampled_from([0.5, 2.0]),
    distance_decay=st.sampled_from([0.0, 0.5, 1.0]),
    candidate_exponent=st.sampled_from([0.0, 0.5]),
    shrinkage=st.sampled_from([0.0, 10.0]),
    popularity=st.sampled_from([0.0, 0.5]),
)
# Rounding decides which of two equally near neighbours votes where similarities are not exact.
exact_configs = st.builds(
    SessionKNNConfig,
    neighbours=st.integers(1, 4),
    recency=st.sampled_from([0.5, 1.0]),
    length_exponent=st.just(0.0),
    distance_decay=st.sampled_from([0.0, 1.0]),
)
users = st.lists(
    st.tuples(st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=7), st.integers(0, 1000)),
    min_size=1,
    max_size=6,
)
histories = st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=4)


@COSTLY_CASES
@given(users, histories, configs | exact_configs)
def test_scores_are_those_of_the_definition(users, history, config):
    sequences, last_times = [sequence for sequence, _ in users], [last for _, last in users]
    model = SessionKNN.fit(training_rows(sequences, last_times), config)
    scores = model.score(Histories.from_matrix(np.array([history, history], dtype=np.int64)))
    assert scores.dtype == np.float32
    assert scores.flags.c_contiguous
    expected = slow_scores(history, sequences, last_times, config)
    np.testing.assert_allclose(scores, [expected, expected], rtol=1e-5, atol=1e-6)


def test_paper_is_the_cosine_of_the_sets():
    sequences = [[0, 1, 2], [1, 3], [4, 5]]
    model = SessionKNN.fit(training_rows(sequences), SessionKNNConfig.preset("paper"))
    scores = model.score(Histories.from_matrix(np.array([[0, 1]])))[0]
    first, second = 2 / np.sqrt(3), 1 / np.sqrt(2)  # each is √2 times the cosine
    expected = np.array([first, first + second, first, second, 0, 0, 0])
    np.testing.assert_allclose(scores, expected / expected.sum(), rtol=1e-6)


def test_recent_neighbours_weigh_more():
    config = SessionKNNConfig(half_life=1.0, popularity=0.0)
    model = SessionKNN.fit(training_rows([[0, 1], [0, 2], [0, 3]], [0, 100, 200]), config)
    scores = model.score(Histories.from_matrix(np.array([[0]])))[0]
    assert scores[1] < scores[2] < scores[3]
    assert scores[2] == pytest.approx(scores[3] / 2)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("item_counts", lambda array: array[1:], "item_counts"),
        ("user_weights", lambda array: array[1:], "user_weights"),
        ("items", lambda array: array + NUM_ITEMS, "an index is outside the 7 columns"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name, change, message):
    config = SessionKNNConfig()
    tensors = SessionKNN.fit(training_rows([[0, 1, 2], [3]]), config).tensors()
    with pytest.raises(ValueError, match=message):
        SessionKNN.from_tensors(config, NUM_ITEMS, {**tensors, name: change(tensors[name])})


def test_tuned_is_the_default():
    assert SessionKNNConfig.preset("tuned") == SessionKNNConfig()
