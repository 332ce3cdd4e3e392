"""The generator, and every kernel drawn with it, number by number.

The oracle is a generator of our own in plain Python, written from what was published: SplitMix64 (Steele
et al. 2014) for the state, xoshiro256++ (Blackman and Vigna 2018), and Lemire's bounded integers (2019). The
literal numbers pin what no oracle replays, so that a seed means the same in every release.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl import _metatl
from reference_generator import MASK, Generator, fold

EPISODES, NEGATIVES, CANDIDATES, SPLIT, SUPPORT_NEGATIVES, _, SHARED_NEGATIVES = range(1, 8)

words64 = st.integers(0, MASK)


def index(rows, num_items):
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return _metatl.Interactions(indptr, np.array([i for row in rows for i in row], np.int64), num_items)


ROWS = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9], [], [0, 1, 2, 3, 4, 5, 6, 7, 8]]


def test_words():
    generator = Generator(2021, NEGATIVES, 3, 7)
    assert [generator.word() for _ in range(4)] == [
        0xA96887E1F9638177,
        0x02C592B23DEEE3FD,
        0xB8D5F6B2094BE9BE,
        0x2B457E1C04987F30,
    ]


@given(st.integers(0, 200), words64, words64)
def test_random_order(count, seed, epoch):
    expected = list(range(count))
    Generator(seed, SPLIT, epoch, 0).shuffle(expected)
    assert _metatl.random_order(count, seed=seed, epoch=epoch).tolist() == expected


@given(st.integers(1, 2**63 - 1), words64, words64)
def test_bounded_integers(num_items, seed, step):
    # Shared negatives exclude nothing: they are the generator's integers below `num_items`.
    sampler = _metatl.EpisodeSampler(
        index([[0, 0]], num_items), k=1, negatives=0, shared_negatives=10, seed=seed
    )
    generator = Generator(seed, SHARED_NEGATIVES, step, 0)
    assert sampler.sample(step, 0)[3].tolist() == [generator.below(num_items) for _ in range(10)]


@given(words64, st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), max_size=5))
def test_support_negatives(seed, histories):
    array = np.array(histories, np.int64).reshape(-1, 3)
    drawn = _metatl.sample_support_negatives(array, 4, 10, seed=seed)
    for position, history in enumerate(histories):
        key = fold([len(history), *history])
        generator = Generator(seed, SUPPORT_NEGATIVES, 0, key)
        assert drawn[position].tolist() == [generator.outside(history, 10) for _ in range(4)]


@given(words64, words64, st.integers(11, 60), st.integers(0, 10), st.integers(0, 10))
def test_candidates(seed, epoch, num_items, count, target):
    users = [0, 1, 2, 3]
    count = min(count, num_items - 7)
    drawn = _metatl.sample_candidates(
        index(ROWS, num_items),
        np.array(users, np.int64),
        np.full(4, target, np.int64),
        count,
        seed=seed,
        epoch=epoch,
    )
    for user in users:
        generator = Generator(seed, CANDIDATES, epoch, user)
        excluded = {*ROWS[user], target}
        expected = []
        if len(excluded) + count > num_items // 2:
            rest = [item for item in range(num_items) if item not in excluded]
            for position in range(count):
                other = position + generator.below(len(rest) - position)
                rest[position], rest[other] = rest[other], rest[position]
            expected = rest[:count]
        else:
            while len(expected) < count:
                item = generator.below(num_items)
                if item not in excluded and item not in expected:
                    expected.append(item)
        assert drawn[user].tolist() == [target, *expected]


def expected_task(generator, rows, num_items, *, k, negatives, window_share, released, shuffle_share):
    eligible = [user for user, row in enumerate(rows) if len(row) > k]
    user = eligible[generator.below(len(eligible))]
    row = rows[user]
    padded = False
    if generator.happens(window_share):
        start = generator.below(len(row) - k)
        items = row[start : start + k + 1]
        if released:
            padded = start == 0
            support = [-1] * k if padded else row[start - 1 : start + k - 1]
            items = [*support, row[start + k]]
    else:
        chosen = []
        for filled in range(k + 1):
            left = [position for position in range(len(row)) if position not in chosen]
            chosen.append(left[generator.below(len(row) - filled)])
        items = [row[position] for position in sorted(chosen)]
    if not padded and generator.happens(shuffle_share):
        generator.shuffle(items)
    drawn = [[generator.outside(row, num_items) for _ in range(negatives)] for _ in range(k)]
    if padded:
        drawn[: k - 1] = [[-1] * negatives] * (k - 1)
    return user, items, drawn


shares = st.sampled_from([0.0, 0.3, 1.0])


@given(words64, words64, st.integers(1, 4), st.integers(0, 3), shares, st.booleans(), shares)
def test_episodes(seed, step, k, negatives, window_share, released, shuffle_share):
    sampler = _metatl.EpisodeSampler(
        index(ROWS, 12),
        k=k,
        negatives=negatives,
        shared_negatives=3,
        window_share=window_share,
        released_windows=released,
        shuffle_share=shuffle_share,
        seed=seed,
    )
    users, items, drawn, shared = sampler.sample(step, 5)
    for position in range(5):
        user, expected_items, expected_negatives = expected_task(
            Generator(seed, EPISODES, step, position),
            ROWS,
            12,
            k=k,
            negatives=negatives,
            window_share=window_share,
            released=released,
            shuffle_share=shuffle_share,
        )
        assert users[position] == user
        assert items[position].tolist() == expected_items
        assert drawn[position].tolist() == expected_negatives
    generator = Generator(seed, SHARED_NEGATIVES, step, 0)
    assert shared.tolist() == [generator.below(12) for _ in range(3)]


def test_weighted_draws_are_pinned():
    weights = np.array([5, 0, 1, 2, 30, 1, 1, 1, 2, 1, 1e-3, 7], np.float64)
    candidates = _metatl.sample_candidates(
        index(ROWS, 12),
        np.array([0, 1, 2], np.int64),
        np.array([5, 6, 9], np.int64),
        4,
        seed=2021,
        epoch=3,
        weights=weights,
    )
    assert candidates.tolist() == [[5, 2, 11, 8, 0], [6, 3, 4, 11, 8], [9, 4, 6, 11, 2]]


@pytest.mark.parametrize("stage", [EPISODES, NEGATIVES, CANDIDATES, SPLIT])
def test_neighbouring_keys_are_unrelated(stage):
    words = {
        Generator(seed, stage, epoch, i).word() for seed in range(8) for epoch in range(8) for i in range(8)
    }
    assert len(words) == 512
