"""Sequences: which stretches of rows are drawn, how often, and with which negatives."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError, NoNegativeError

SIGNIFICANCE = 1e-6

seeds = st.integers(0, 2**64 - 1)
# Items of a row are distinct here, so that a sequence tells which rows it is made of.
rows_of_items = st.lists(st.lists(st.integers(0, 14), max_size=10, unique=True), min_size=1, max_size=6)


def index(rows, num_items):
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return _metatl.Interactions(indptr, np.array([i for row in rows for i in row], np.int64), num_items)


def sampler(rows, num_items=15, **settings):
    return _metatl.SequenceSampler(index(rows, num_items), **{"negatives": 0, "seed": 0, **settings})


def agrees(counts, probabilities):
    counts = np.asarray(counts)
    expected = np.asarray(probabilities) * counts.sum()
    return stats.chisquare(counts, expected).pvalue > SIGNIFICANCE


def possible(row, length, shortest, draw):
    """Every sequence that a user can give, by the definition."""
    if draw == "user":
        taken = min(len(row), length + 1)
        return [row[start : start + taken] for start in range(len(row) - taken + 1)]
    return [row[max(0, end - length - 1) : end] for end in range(shortest, len(row) + 1)]


@given(
    rows_of_items,
    st.integers(1, 8),
    st.integers(1, 3),
    st.sampled_from(["user", "row"]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 3),
    seeds,
    seeds,
)
def test_a_sequence_is_a_stretch_of_its_users_rows(
    rows, length, shortest, draw, shuffle_share, negatives, seed, step
):
    shortest = min(shortest, length + 1)
    assume(any(len(row) >= shortest for row in rows))
    users, items, drawn, shared = sampler(
        rows,
        length=length,
        shortest=shortest,
        draw=draw,
        negatives=negatives,
        shared_negatives=4,
        shuffle_share=shuffle_share,
        seed=seed,
    ).sample(step, 8)
    assert (users.shape, items.shape) == ((8,), (8, length + 1))
    assert (drawn.shape, shared.shape) == ((8, length, negatives), (4,))
    assert {array.dtype for array in (users, items, drawn, shared)} == {np.dtype(np.int64)}
    assert ((shared >= 0) & (shared < 15)).all()
    for user, places, own in zip(users, items.tolist(), drawn, strict=True):
        row = rows[user]
        taken = length + 1 - places.count(-1)
        sequence = places[:taken]
        assert places[taken:] == [-1] * (length + 1 - taken)
        sequences = possible(row, length, shortest, draw)
        if shuffle_share == 0:
            assert sequence in sequences
        else:
            assert sorted(sequence) in [sorted(each) for each in sequences]
        assert set(own.ravel().tolist()) <= set(range(15)) - set(row)


@pytest.mark.parametrize("draw", ["user", "row"])
@pytest.mark.parametrize(("length", "shortest"), [(1, 1), (1, 2), (2, 2), (3, 1), (9, 2)])
def test_sequences_are_as_likely_as_they_should_be(draw, length, shortest):
    rows = [[0, 1, 2, 3, 4], [], [5], [6, 7, 8], list(range(9, 15))]
    users, items, _, _ = sampler(rows, length=length, shortest=shortest, draw=draw).sample(1, 200_000)
    found, counts = np.unique(np.column_stack((users, items)), axis=0, return_counts=True)
    expected = {}
    eligible = [user for user, row in enumerate(rows) if len(row) >= shortest]
    total = sum(len(rows[user]) - shortest + 1 for user in eligible)
    for user in eligible:
        sequences = possible(rows[user], length, shortest, draw)
        for sequence in sequences:
            key = (user, *sequence, *[-1] * (length + 1 - len(sequence)))
            expected[key] = 1 / total if draw == "row" else 1 / len(eligible) / len(sequences)
    assert set(map(tuple, found.tolist())) == set(expected)
    assert agrees(counts, [expected[tuple(key)] for key in found.tolist()])


def test_the_share_of_shuffled_sequences_is_the_one_asked_for():
    _, items, _, _ = sampler([[0, 1, 2]], length=4, shuffle_share=0.6).sample(1, 200_000)
    found, counts = np.unique(items, axis=0, return_counts=True)
    assert (found[:, 3:] == -1).all()
    probabilities = np.full(6, 0.1)
    probabilities[0] += 0.4  # the rows' own order comes first
    assert agrees(counts, probabilities)


def test_negatives_are_uniform_at_every_place():
    users, items, drawn, _ = sampler([[0, 3, 3, 5], [1, 2]], num_items=9, length=4, negatives=2).sample(
        1, 50_000
    )
    assert (items[users == 1][:, 2:] == -1).all()
    for user, left in ((0, [1, 2, 4, 6, 7, 8]), (1, [0, 3, 4, 5, 6, 7, 8])):
        for place in range(4):
            counts = np.bincount(drawn[users == user, place].ravel(), minlength=9)
            assert counts.sum() == counts[left].sum()
            assert agrees(counts[left], np.full(len(left), 1 / len(left)))


def test_shared_negatives_follow_their_weights():
    rows = [[0, 1, 2]]
    *_, uniform = sampler(rows, num_items=4, length=2, shared_negatives=200_000).sample(1, 1)
    assert agrees(np.bincount(uniform, minlength=4), np.full(4, 1 / 4))
    weights = np.array([1.0, 0.0, 2.5, 0.5])
    *_, drawn = sampler(rows, num_items=4, length=2, shared_negatives=200_000, weights=weights).sample(1, 1)
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    assert agrees(counts[[0, 2, 3]], weights[[0, 2, 3]] / 4)


def test_a_batch_is_a_function_of_seed_and_step():
    rows = [list(range(12))] * 3
    first, second = (sampler(rows, length=3, negatives=2, seed=1) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first.sample(5, 64), second.sample(5, 64), strict=True))
    assert (first.sample(5, 64)[1] == first.sample(5, 200)[1][:64]).all()
    drawn = {
        sampler(rows, length=3, seed=seed).sample(step, 64)[1].tobytes()
        for seed in range(9)
        for step in range(9)
    }
    assert len(drawn) == 81


def test_prefetched_batches_are_the_sampled_ones():
    source = sampler([list(range(12)), [1, 2]], length=5, negatives=2, shared_negatives=3, draw="row")
    with source.prefetch(7, 33) as batches:
        for step, batch in zip(range(7, 40), batches):  # noqa: B905  # endless
            for array, other in zip(batch, source.sample(step, 33), strict=True):
                assert array.shape == other.shape
                assert (array == other).all()


@pytest.mark.parametrize("draw", ["user", "row"])
def test_a_user_with_all_items_is_left_out_if_negatives_are_wanted(draw):
    rows, full = [[0, 1, 2, 3], [3, 2, 1, 5, 0], [4, 4, 1, 0]], [5, 4, 3, 2, 1, 0]
    settings = {"num_items": 6, "length": 3, "negatives": 2, "draw": draw}
    for step in range(9):
        with_full = sampler([*rows, full], **settings).sample(step, 64)
        without = sampler(rows, **settings).sample(step, 64)
        assert [part.tobytes() for part in with_full] == [part.tobytes() for part in without]
    users, *_ = sampler([full, *rows], **settings).sample(0, 64)
    assert set(users.tolist()) == {1, 2, 3}


def test_only_users_with_all_items_are_an_error_if_negatives_are_wanted():
    with pytest.raises(NoNegativeError, match="user 1: found 0 items"):
        sampler([[0], [3, 2, 1, 0]], num_items=4, length=3, negatives=1)
    users, *_ = sampler([[0], [3, 2, 1, 0]], num_items=4, length=3).sample(0, 4)
    assert (users == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length: found 0, expected at least 1"),
        ({"shortest": 0}, r"shortest: found 0, expected at least 1 and at most length \+ 1 = 4"),
        ({"shortest": 5}, r"shortest: found 5, expected at least 1 and at most length \+ 1 = 4"),
        (
            {"length": 9, "shortest": 6},
            "interactions: found at most 5 rows per user, expected a user with at least shortest = 6 rows",
        ),
        ({"draw": "window"}, "draw: found 'window', expected 'user' or 'row'"),
        ({"draw": 1}, "draw: found 1, expected"),
        ({"shuffle_share": math.nan}, "shuffle_share: found NaN, expected a number from 0 to 1"),
        ({"negatives": -1}, "negatives: found -1, expected an integer"),
        ({"weights": np.ones(4)}, "weights: found 4 weights, expected one for each of the 15 items"),
        ({"weights": np.full(15, -1.0)}, "weights: found -1 at position 0, expected finite numbers"),
        ({"weights": np.ones(15, np.float32)}, "weights: found .*float32.*, expected"),
        ({"seed": -1}, "seed: found -1, expected an integer"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(InvalidArgumentError, match=message):
        sampler([[0, 1, 2, 3, 4], []], **{"length": 3, **settings})
