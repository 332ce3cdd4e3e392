"""Negatives: never an item of the user, and every other item as often as it should be."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError, NoNegativeError

LARGE = 10_000_000
# A right sampler fails one of these tests once in a million times; a seed that passes always passes.
SIGNIFICANCE = 1e-6

ids = st.integers(0, 11)
rows_of_items = st.lists(st.lists(ids, max_size=14), min_size=1, max_size=6)
seeds = st.integers(0, 2**64 - 1)


def index(rows, num_items):
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return _metatl.Interactions(indptr, np.array([i for row in rows for i in row], np.int64), num_items)


def users_of(rows):
    return np.arange(len(rows), dtype=np.int64)


def agrees(counts, weights):
    """Pearson's chi-square test of counts against probabilities proportional to weights."""
    counts, weights = np.asarray(counts), np.asarray(weights, np.float64)
    assert counts[weights == 0].sum() == 0
    counts, weights = counts[weights > 0], weights[weights > 0]
    return stats.chisquare(counts, weights * (counts.sum() / weights.sum())).pvalue > SIGNIFICANCE


def episode_negatives(rows, num_items, negatives, *, batch=1, seed=0, step=0):
    """Negatives of tasks of two items: (batch, negatives), and the users that they are drawn for."""
    sampler = _metatl.EpisodeSampler(index(rows, num_items), k=1, negatives=negatives, seed=seed)
    users, _, drawn, _ = sampler.sample(step, batch)
    return users, drawn[:, 0]


def weighted_negatives(row, weights, *, draws, seed):
    """One negative by weight for each of many users with the same row, each of whom has a generator."""
    rows = _metatl.Interactions(
        np.arange(draws + 1) * len(row), np.tile(np.array(row, np.int64), draws), len(weights)
    )
    users = np.arange(draws)
    settings = {"seed": seed, "weights": weights, "exclude_target": False}
    return _metatl.sample_candidates(rows, users, np.zeros(draws, np.int64), 1, **settings)[:, 1]


@given(rows_of_items, st.integers(0, 8), seeds, seeds)
def test_a_negative_is_never_an_item_of_the_user(rows, count, seed, step):
    assume(all(len(set(row)) < 12 for row in rows))
    assume(any(len(row) > 1 for row in rows))
    users, drawn = episode_negatives(rows, 12, count, batch=6, seed=seed, step=step)
    assert drawn.shape == (6, count)
    assert drawn.dtype == np.int64
    for user, negatives in zip(users, drawn, strict=True):
        assert set(negatives) <= set(range(12)) - set(rows[user])


@given(rows_of_items, st.lists(st.sampled_from([0.0, 1.0, 1e-9, 1e9]), min_size=12, max_size=12), seeds)
def test_a_weighted_negative_has_weight_and_is_never_an_item_of_the_user(rows, weights, seed):
    possible = {item for item in range(12) if weights[item] > 0}
    assume(all(possible - set(row) for row in rows))
    drawn = _metatl.sample_candidates(
        index(rows, 12),
        users_of(rows),
        np.zeros(len(rows), np.int64),
        1,
        seed=seed,
        weights=np.array(weights),
        exclude_target=False,
    )
    for row, negative in zip(rows, drawn[:, 1], strict=True):
        assert negative in possible - set(row)


def test_uniform_negatives_are_uniform():
    row = [0, 7, 3, 9, 10, 11, 11, 63, 99]
    _, drawn = episode_negatives([row], 100, LARGE // 1000, batch=1000, seed=1)
    weights = np.ones(100)
    weights[row] = 0
    assert agrees(np.bincount(drawn.ravel(), minlength=100), weights)


def test_weighted_negatives_follow_their_weights():
    row = [0, 7, 3, 3, 9]
    weights = np.arange(100.0) ** 2
    drawn = weighted_negatives(row, weights, draws=1_000_000, seed=2)
    weights[row] = 0
    assert agrees(np.bincount(drawn, minlength=100), weights)


@pytest.mark.parametrize("heavy", [1e3, 1e9, 1e100])
def test_weighted_negatives_follow_their_weights_beside_a_row_that_has_nearly_all_of_it(heavy):
    # Rejection would take `heavy` draws per negative.
    weights = np.arange(100.0) + 1
    weights[42] = heavy * weights.sum()
    drawn = weighted_negatives([42, 5], weights, draws=100_000, seed=3)
    weights[[42, 5]] = 0
    assert agrees(np.bincount(drawn, minlength=100), weights)


def test_draws_of_one_row_are_independent():
    # Pairs of successive negatives are uniform over the pairs.
    _, drawn = episode_negatives([[2, 5]], 10, 2, batch=100_000, seed=4)
    weights = np.ones((10, 10))
    weights[[2, 5]] = weights[:, [2, 5]] = 0
    assert agrees(np.bincount(drawn @ [10, 1], minlength=100), weights.ravel())


@pytest.mark.parametrize("num_items", [1, 2, 3, 64, 1000])
def test_a_user_with_all_items_but_one_gets_that_one(num_items):
    for left in {0, num_items // 2, num_items - 1}:
        row = [item for item in range(num_items) if item != left]
        user = np.zeros(1, np.int64)
        drawn = [
            _metatl.sample_candidates(
                index([row], num_items), user, user, 1, seed=5, weights=weights, exclude_target=False
            )[:, 1:]
            for weights in (None, np.ones(num_items))
        ]
        if row:
            # An item twice, so that there are two rows for a task.
            drawn.append(episode_negatives([[*row, row[0]]], num_items, 3, batch=2, seed=5)[1])
            history = np.array([row], np.int64)
            drawn.append(_metatl.sample_support_negatives(history, 3, num_items, seed=5))
        assert all((negatives == left).all() for negatives in drawn)


@pytest.mark.parametrize("num_items", [1, 2, 3, 64, 1000])
def test_a_user_with_all_items_is_an_error(num_items):
    everything = list(range(num_items))
    one = np.ones(1, np.int64)
    for weights in (None, np.ones(num_items)):
        with pytest.raises(NoNegativeError, match=r"user 1: found 0 items .* expected at least 1"):
            _metatl.sample_candidates(
                index([[0], everything], num_items),
                one,
                one - 1,
                1,
                seed=5,
                weights=weights,
                exclude_target=False,
            )
    with pytest.raises(NoNegativeError, match=r"user 1: found 0 items .* expected at least 1"):
        episode_negatives([[0], [*everything, 0]], num_items, 1)
    with pytest.raises(NoNegativeError, match="user 0: found 0 items"):
        _metatl.sample_support_negatives(np.arange(num_items)[None], 1, num_items, seed=5)


def test_a_user_with_all_items_that_have_weight_is_an_error():
    weights = np.array([1.0, 0.0, 2.0, 0.0])
    with pytest.raises(NoNegativeError, match="user 0: found 0 items"):
        weighted_negatives([0, 2], weights, draws=1, seed=5)


def test_the_first_user_without_a_negative_is_named():
    interactions = index([[0], [0, 1], [1], [0, 1]], 2)
    users = np.array([0, 2] * 40_000 + [3] + [1] * 40_000, np.int64)
    for threads in (1, 2, 3, 8):
        with pytest.raises(NoNegativeError, match="user 3"):
            _metatl.sample_candidates(
                interactions,
                users,
                np.zeros_like(users),
                1,
                seed=5,
                exclude_target=False,
                num_threads=threads,
            )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"weights: found 2 weights, expected one for each of the 3 items"),
        ([1.0, -1.0, 2.0], r"weights: found -1 at position 1, expected finite numbers"),
        ([1.0, 1.0, np.nan], r"weights: found NaN at position 2, expected finite numbers"),
        ([np.inf, 1.0, 1.0], r"weights: found inf at position 0, expected finite numbers"),
        ([0.0, 0.0, 0.0], r"weights: found a sum of 0, expected a positive, finite sum"),
        ([1e308, 1e308, 1e308], r"weights: found a sum of inf, expected a positive, finite sum"),
    ],
)
def test_weights_that_cannot_be_drawn_from_are_errors(weights, message):
    user = np.zeros(1, np.int64)
    with pytest.raises(InvalidArgumentError, match=message):
        _metatl.sample_candidates(index([[0]], 3), user, user, 1, seed=5, weights=np.array(weights))


def test_an_unknown_user_is_an_error():
    for user in (-1, 2):
        with pytest.raises(InvalidArgumentError, match=f"users: found {user} at position 1"):
            _metatl.sample_candidates(
                index([[0], [1]], 3), np.array([0, user]), np.zeros(2, np.int64), 1, seed=5
            )


def test_steps_and_seeds_draw_anew():
    drawn = {
        episode_negatives([[0, 0]], 1000, 8, batch=4, seed=seed, step=step)[1].tobytes()
        for seed in range(10)
        for step in range(10)
    }
    assert len(drawn) == 100


@given(st.lists(st.lists(ids, min_size=3, max_size=3), min_size=1, max_size=6), seeds)
def test_support_negatives_do_not_depend_on_the_batch(histories, seed):
    together = _metatl.sample_support_negatives(np.array(histories, np.int64), 6, 12, seed=seed)
    for history, negatives in zip(histories, together, strict=True):
        alone = _metatl.sample_support_negatives(np.array([history], np.int64), 6, 12, seed=seed)
        assert (alone[0] == negatives).all()
        assert set(negatives).isdisjoint(history)


def test_support_negatives_are_uniform():
    # Many different histories, as each has one generator: items 0 to 9 in all orders, 3 at a time.
    histories = np.stack(np.unravel_index(np.arange(1000), (10, 10, 10)), axis=1)
    drawn = _metatl.sample_support_negatives(histories, 1000, 30, seed=6)
    assert agrees(np.bincount(drawn[drawn >= 10], minlength=30)[10:], np.ones(20))


def test_a_history_needs_items_that_exist():
    with pytest.raises(InvalidArgumentError, match="histories: found rows without items"):
        _metatl.sample_support_negatives(np.empty((3, 0), np.int64), 2, 5, seed=1)
    for item in (-1, 5):
        with pytest.raises(InvalidArgumentError, match=f"histories: found {item} at position 3"):
            _metatl.sample_support_negatives(np.array([[0, 1], [2, item]]), 2, 5, seed=1)
