"""Candidate sets: the target, then distinct negatives in the order of an exact draw without replacement."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError, NoNegativeError

SIGNIFICANCE = 1e-6

seeds = st.integers(0, 2**64 - 1)
items20 = st.integers(0, 19)
rows_of_items = st.lists(st.lists(items20, max_size=18), min_size=1, max_size=5)


def index(rows, num_items):
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return _metatl.Interactions(indptr, np.array([i for row in rows for i in row], np.int64), num_items)


def sequences(weights, count):
    """The probability of each sequence of successive draws without replacement, by enumeration."""
    known = {}
    for sequence in itertools.permutations(range(len(weights)), count):
        left, probability = sum(weights), 1.0
        for item in sequence:
            probability *= weights[item] / left if left else 0.0
            left -= weights[item]
        if probability > 0:
            known[sequence] = probability
    return known


def agrees(drawn, expected):
    """Pearson's chi-square test of drawn sequences against their probabilities."""
    base = 1 + max(max(sequence) for sequence in expected)
    powers = base ** np.arange(drawn.shape[1])
    codes = {int(np.dot(sequence, powers)): probability for sequence, probability in expected.items()}
    found, counts = np.unique(drawn @ powers, return_counts=True)
    assert set(found.tolist()) <= set(codes)
    counts = dict(zip(found.tolist(), counts.tolist(), strict=True))
    means = np.array(list(codes.values())) * len(drawn)
    assert means.min() > 5
    return stats.chisquare([counts.get(code, 0) for code in codes], means).pvalue > SIGNIFICANCE


@given(rows_of_items, st.data(), st.integers(0, 20), st.booleans(), seeds)
def test_candidates_are_distinct_and_new_to_the_user(rows, data, count, exclude_target, seed):
    targets = data.draw(st.lists(items20, min_size=len(rows), max_size=len(rows)))
    excluded = [
        {*row, *([target] if exclude_target else [])} for row, target in zip(rows, targets, strict=True)
    ]
    arguments = (index(rows, 20), np.arange(len(rows)), np.array(targets), count)
    short = [user for user, items in enumerate(excluded) if 20 - len(items) < count]
    if short:
        available = 20 - len(excluded[short[0]])
        message = rf"user {short[0]}: found {available} items .* expected at least {count}$"
        with pytest.raises(NoNegativeError, match=message):
            _metatl.sample_candidates(*arguments, seed=seed, exclude_target=exclude_target)
        return
    drawn = _metatl.sample_candidates(*arguments, seed=seed, exclude_target=exclude_target)
    assert drawn.shape == (len(rows), 1 + count)
    assert drawn.dtype == np.int64
    for target, items, candidates in zip(targets, excluded, drawn.tolist(), strict=True):
        assert candidates[0] == target
        assert len(set(candidates[1:])) == count
        assert items.isdisjoint(candidates[1:])


@given(
    rows_of_items,
    st.lists(st.sampled_from([0.0, 1e-30, 1.0, 1e30]), min_size=20, max_size=20),
    st.integers(1, 20),
    seeds,
)
def test_weighted_candidates_are_distinct_and_have_weight(rows, weights, count, seed):
    possible = [
        {item for item in range(20) if weights[item] > 0} - {*row, user} for user, row in enumerate(rows)
    ]
    users = np.arange(len(rows))
    arguments = (index(rows, 20), users, users, count)
    if not any(weights):
        with pytest.raises(InvalidArgumentError, match="a sum of 0"):
            _metatl.sample_candidates(*arguments, seed=seed, weights=np.array(weights))
        return
    short = [user for user, items in enumerate(possible) if len(items) < count]
    if short:
        message = rf"user {short[0]}: found {len(possible[short[0]])} items"
        with pytest.raises(NoNegativeError, match=message):
            _metatl.sample_candidates(*arguments, seed=seed, weights=np.array(weights))
        return
    drawn = _metatl.sample_candidates(*arguments, seed=seed, weights=np.array(weights))
    for items, candidates in zip(possible, drawn.tolist(), strict=True):
        assert len(set(candidates[1:])) == count
        assert set(candidates[1:]) <= items


def test_a_set_of_a_small_share_of_the_catalogue_is_uniform():
    # One row per user, all alike, because a user has one generator. Few candidates: drawn by rejection.
    rows = np.tile([1, 3, 3], 200_000)
    interactions = _metatl.Interactions(np.arange(0, len(rows) + 1, 3), rows, 13)
    users = np.arange(200_000)
    drawn = _metatl.sample_candidates(interactions, users, np.full(200_000, 4), 2, seed=1)
    weights = [0.0 if item in {1, 3, 4} else 1.0 for item in range(13)]
    assert agrees(drawn[:, 1:], sequences(weights, 2))


def test_a_set_of_a_large_share_of_the_catalogue_is_uniform():
    rows = np.tile([1, 3, 3], 200_000)
    interactions = _metatl.Interactions(np.arange(0, len(rows) + 1, 3), rows, 9)
    users = np.arange(200_000)
    drawn = _metatl.sample_candidates(interactions, users, np.full(200_000, 4), 4, seed=2)
    weights = [0.0 if item in {1, 3, 4} else 1.0 for item in range(9)]
    assert agrees(drawn[:, 1:], sequences(weights, 4))


@pytest.mark.parametrize("heavy", [3.0, 1e4, 1e12])
def test_a_weighted_set_is_a_successive_draw(heavy):
    # The heavier the fourth item, the more draws hit it again; then the rest comes from a tree.
    weights = np.array([3.0, 1.0, 2.0, heavy, 5.0, 0.0, 9.0])
    users = np.arange(200_000)
    interactions = _metatl.Interactions(np.arange(200_001), np.full(200_000, 6), 7)
    drawn = _metatl.sample_candidates(
        interactions, users, np.full(200_000, 1), 3, seed=3, weights=weights, num_threads=2
    )
    weights[[6, 1]] = 0
    expected = sequences(weights.tolist(), 3)
    # Sequences that are too rare to test are merged away by leaving the heavy item out of the order.
    if heavy > 100:
        light = np.array([[item for item in row if item != 3] for row in drawn[:20_000, 1:].tolist()])
        weights[3] = 0
        drawn, expected = light, sequences(weights.tolist(), 2)
        assert agrees(drawn, expected)
    else:
        assert agrees(drawn[:, 1:], expected)


def test_a_row_depends_on_its_user_and_not_on_the_batch():
    rng = np.random.default_rng(0)
    interactions = _metatl.Interactions(np.arange(0, 3001, 3), rng.integers(0, 500, 3000), 500)
    users, targets = np.arange(1000), rng.integers(0, 500, 1000)
    for weights in (None, rng.random(500)):
        everyone = _metatl.sample_candidates(interactions, users, targets, 20, seed=4, weights=weights)
        some = rng.permutation(1000)[:77]
        subset = _metatl.sample_candidates(interactions, some, targets[some], 20, seed=4, weights=weights)
        assert (subset == everyone[some]).all()
        alone = _metatl.sample_candidates(
            interactions, some[:1], targets[some[:1]], 20, seed=4, weights=weights
        )
        assert (alone == everyone[some[:1]]).all()


def test_epochs_and_seeds_draw_anew():
    interactions, one = index([[0]], 1000), np.zeros(1, np.int64)
    drawn = {
        _metatl.sample_candidates(interactions, one, one, 8, seed=seed, epoch=epoch).tobytes()
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(drawn) == 100


@pytest.mark.parametrize("num_items", [2**17 - 1, 2**17, 2**17 + 1, 2**31 - 1, 2**31, 2**31 + 1, 2**62])
def test_catalogues_of_any_size(num_items):
    rows = [[0, num_items - 1], [num_items // 2]]
    target = np.array([num_items - 2, 1])
    drawn = _metatl.sample_candidates(index(rows, num_items), np.arange(2), target, 100_000, seed=5)
    for row, candidates in zip(rows, drawn, strict=True):
        negatives = set(candidates[1:].tolist())
        assert len(negatives) == 100_000
        assert negatives.isdisjoint([*row, candidates[0]])
        assert 0 <= min(negatives) < num_items * 0.01
        assert num_items * 0.99 < max(negatives) < num_items


def test_targets_must_be_items_one_per_user():
    interactions = index([[0], [1]], 3)
    with pytest.raises(
        InvalidArgumentError, match="targets: found 1 targets, expected one for each of the 2"
    ):
        _metatl.sample_candidates(interactions, np.arange(2), np.zeros(1, np.int64), 1, seed=1)
    for target in (-1, 3):
        with pytest.raises(InvalidArgumentError, match=f"targets: found {target} at position 1"):
            _metatl.sample_candidates(interactions, np.arange(2), np.array([0, target]), 1, seed=1)
    with pytest.raises(InvalidArgumentError, match="users: found 2 at position 0, expected ids from 0 to 1"):
        _metatl.sample_candidates(interactions, np.full(1, 2), np.zeros(1, np.int64), 1, seed=1)
