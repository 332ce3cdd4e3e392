"""Episodes: which tasks are drawn, how often, and the thread that draws them ahead."""

import itertools
import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError, NoNegativeError

SIGNIFICANCE = 1e-6

seeds = st.integers(0, 2**64 - 1)
shares = st.sampled_from([0.0, 0.25, 1.0])
# Items of a row are distinct here, so that a task tells which rows it is made of.
rows_of_items = st.lists(st.lists(st.integers(0, 14), max_size=10, unique=True), min_size=1, max_size=6)


def index(rows, num_items):
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return _metatl.Interactions(indptr, np.array([i for row in rows for i in row], np.int64), num_items)


def sampler(rows, num_items=15, **settings):
    return _metatl.EpisodeSampler(index(rows, num_items), **{"negatives": 1, "seed": 0, **settings})


def agrees(counts, probabilities):
    counts = np.asarray(counts)
    expected = np.asarray(probabilities) * counts.sum()
    return stats.chisquare(counts, expected).pvalue > SIGNIFICANCE


@given(rows_of_items, st.integers(1, 5), st.integers(0, 3), shares, shares, seeds, seeds)
def test_a_task_is_made_of_rows_of_its_user(rows, k, negatives, window_share, shuffle_share, seed, step):
    assume(any(len(row) > k for row in rows))
    users, items, drawn, shared = sampler(
        rows,
        k=k,
        negatives=negatives,
        shared_negatives=4,
        window_share=window_share,
        shuffle_share=shuffle_share,
        seed=seed,
    ).sample(step, 8)
    assert (users.shape, items.shape) == ((8,), (8, k + 1))
    assert (drawn.shape, shared.shape) == ((8, k, negatives), (4,))
    assert {array.dtype for array in (users, items, drawn, shared)} == {np.dtype(np.int64)}
    assert ((shared >= 0) & (shared < 15)).all()
    for user, task, task_negatives in zip(users, items.tolist(), drawn, strict=True):
        row = rows[user]
        positions = [row.index(item) for item in task]
        assert len(set(positions)) == k + 1
        if shuffle_share == 0:
            assert positions == sorted(positions)
        if window_share == 1:
            assert max(positions) - min(positions) == k
        assert set(task_negatives.ravel().tolist()) <= set(range(15)) - set(row)


@given(rows_of_items, st.integers(1, 5), seeds)
def test_a_released_window_skips_the_row_before_the_target(rows, k, seed):
    assume(any(len(row) > k for row in rows))
    users, items, negatives, _ = sampler(
        rows,
        k=k,
        negatives=2,
        window_share=1.0,
        released_windows=True,
        shuffle_share=0.0,
        seed=seed,
    ).sample(0, 8)
    for user, task, task_negatives in zip(users, items.tolist(), negatives, strict=True):
        row = rows[user]
        target = row.index(task[k])
        assert target >= k
        assert (task_negatives[k - 1] >= 0).all()
        if target == k:
            assert task[:k] == [-1] * k
            assert (task_negatives[: k - 1] == -1).all()
        else:
            assert task[:k] == row[target - k - 1 : target - 1]
            assert (task_negatives >= 0).all()


def test_users_with_enough_rows_are_equally_likely():
    rows = [[0], [0, 1, 2], [], [1, 2, 3, 4], [2, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
    users, *_ = sampler(rows, k=2, negatives=0).sample(1, 300_000)
    counts = np.bincount(users, minlength=6)
    assert (counts[[0, 2, 4]] == 0).all()
    assert agrees(counts[[1, 3, 5]], np.full(3, 1 / 3))


def tasks_by_rows(items):
    """How often each tuple of rows was drawn, for a user whose row `p` holds item `p`."""
    found, counts = np.unique(items, axis=0, return_counts=True)
    return dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True))


@pytest.mark.parametrize(("length", "k"), [(5, 3), (6, 3), (9, 3), (7, 1), (8, 6)])
def test_sets_of_rows_are_equally_likely(length, k):
    _, items, _, _ = sampler([list(range(length))], k=k, seed=2).sample(1, 200_000)
    counts = tasks_by_rows(items)
    sets = list(itertools.combinations(range(length), k + 1))
    assert set(counts) == set(sets)
    assert agrees([counts[rows] for rows in sets], np.full(len(sets), 1 / len(sets)))


def test_windows_are_equally_likely():
    _, items, _, _ = sampler([list(range(9))], k=3, window_share=1.0).sample(1, 200_000)
    counts = tasks_by_rows(items)
    windows = [(start, start + 1, start + 2, start + 3) for start in range(6)]
    assert set(counts) == set(windows)
    assert agrees([counts[rows] for rows in windows], np.full(6, 1 / 6))


def test_released_windows_are_equally_likely():
    _, items, _, _ = sampler([list(range(9))], k=3, window_share=1.0, released_windows=True).sample(
        1, 200_000
    )
    counts = tasks_by_rows(items)
    windows = [(-1, -1, -1, 3), *((p - 4, p - 3, p - 2, p) for p in range(4, 9))]
    assert set(counts) == set(windows)
    assert agrees([counts[rows] for rows in windows], np.full(6, 1 / 6))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_of_windows_is_the_one_asked_for(share):
    _, items, _, _ = sampler([list(range(10))], k=3, window_share=share).sample(1, 200_000)
    consecutive = (np.diff(items, axis=1) == 1).all(axis=1).sum()
    # Random rows happen to be consecutive in 7 of 210 cases.
    probability = share + (1 - share) * 7 / math.comb(10, 4)
    assert stats.binomtest(int(consecutive), 200_000, probability).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_share_of_shuffled_tasks_is_the_one_asked_for(share):
    _, items, _, _ = sampler([list(range(10))], k=3, window_share=0.5, shuffle_share=share).sample(1, 200_000)
    orders = tasks_by_rows(np.argsort(np.argsort(items, axis=1), axis=1))
    permutations = list(itertools.permutations(range(4)))
    probabilities = np.full(24, share / 24)
    probabilities[0] += 1 - share
    assert agrees([orders[order] for order in permutations], probabilities)


def test_negatives_and_shared_negatives_are_uniform():
    source = sampler([[0, 3, 3, 5], [1, 2, 3, 4]], num_items=9, k=3, negatives=3, shared_negatives=200_000)
    users, _, drawn, shared = source.sample(1, 100_000)
    for user, left in ((0, [1, 2, 4, 6, 7, 8]), (1, [0, 5, 6, 7, 8])):
        counts = np.bincount(drawn[users == user].ravel(), minlength=9)
        assert counts.sum() == counts[left].sum()
        assert agrees(counts[left], np.full(len(left), 1 / len(left)))
    assert agrees(np.bincount(shared, minlength=9), np.full(9, 1 / 9))


def test_a_batch_is_a_function_of_seed_and_step():
    rows = [list(range(12))] * 3
    first, second = sampler(rows, k=3, seed=1), sampler(rows, k=3, seed=1)
    assert all((a == b).all() for a, b in zip(first.sample(5, 64), second.sample(5, 64), strict=True))
    # A longer batch begins with the tasks of the shorter one.
    assert (first.sample(5, 64)[1] == first.sample(5, 200)[1][:64]).all()
    drawn = {
        sampler(rows, k=3, seed=seed).sample(step, 64)[1].tobytes() for seed in range(9) for step in range(9)
    }
    assert len(drawn) == 81


def test_repeats_count_as_rows():
    _, items, _, _ = sampler([[4, 4, 4, 4]], k=3).sample(0, 10)
    assert (items == 4).all()


def test_a_user_with_all_items_but_one_has_a_negative():
    _, _, negatives, _ = sampler([[0, 1, 2, 3]], num_items=5, k=3, negatives=4).sample(0, 10)
    assert (negatives == 4).all()


def test_a_user_with_all_items_is_left_out_if_negatives_are_wanted():
    rows, full = [[0, 1, 2, 3], [3, 2, 1, 5, 0], [4, 4, 1, 0]], [5, 4, 3, 2, 1, 0]
    for step in range(9):
        with_full = sampler([*rows, full], num_items=6, k=3, seed=1).sample(step, 64)
        without = sampler(rows, num_items=6, k=3, seed=1).sample(step, 64)
        assert [part.tobytes() for part in with_full] == [part.tobytes() for part in without]
    users, *_ = sampler([full, *rows], num_items=6, k=3).sample(0, 64)
    assert set(users.tolist()) == {1, 2, 3}


def test_only_users_with_all_items_are_an_error_if_negatives_are_wanted():
    with pytest.raises(NoNegativeError, match="user 1: found 0 items"):
        sampler([[0], [3, 2, 1, 0]], num_items=4, k=3)
    users, *_ = sampler([[0], [3, 2, 1, 0]], num_items=4, k=3, negatives=0).sample(0, 4)
    assert (users == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k: found 0, expected at least 1"),
        ({"k": 5}, r"interactions: found at most 5 rows per user, expected a user with at least k \+ 1 = 6"),
        ({"window_share": 1.5}, "window_share: found 1.5, expected a number from 0 to 1"),
        ({"window_share": math.nan}, "window_share: found NaN, expected a number from 0 to 1"),
        ({"shuffle_share": -0.1}, "shuffle_share: found -0.1, expected a number from 0 to 1"),
        ({"shuffle_share": "half"}, "shuffle_share: found 'half', expected a number"),
        ({"negatives": -1}, "negatives: found -1, expected an integer"),
        ({"seed": -1}, "seed: found -1, expected an integer"),
        ({"num_threads": 0}, "num_threads: found 0, expected an integer from 1 to 1024"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(InvalidArgumentError, match=message):
        sampler([[0, 1, 2, 3, 4], []], **{"k": 3, **settings})


@pytest.fixture
def source():
    return sampler([list(range(12)), [1, 2, 3, 4]], k=3, negatives=2, shared_negatives=5, window_share=0.5)


def same(batch, other):
    return all((a == b).all() and a.shape == b.shape for a, b in zip(batch, other, strict=True))


@pytest.mark.parametrize("depth", [1, 4, 100])
def test_prefetched_batches_are_the_sampled_ones(source, depth):
    with source.prefetch(7, 33, depth) as batches:
        for step, batch in zip(range(7, 40), batches):  # noqa: B905  # endless
            assert same(batch, source.sample(step, 33))


def test_prefetched_batches_own_their_arrays(source):
    with source.prefetch(0, 4) as batches:
        first = next(batches)
        kept = [array.copy() for array in first]
        for _ in range(20):
            next(batches)
    del batches
    assert same(first, kept)
    for array in first:
        array[...] = -5


def test_closing_a_prefetcher_ends_it(source):
    batches = source.prefetch(0, 4)
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []


def test_closing_wakes_a_thread_that_waits_for_a_batch():
    # One batch takes much longer than the wait below: tasks of 3,000 rows.
    slow = sampler([list(range(4000))], num_items=5000, k=3000, negatives=0)
    batches = slow.prefetch(0, 20_000)
    got = []
    reader = threading.Thread(target=lambda: got.extend(batches))
    reader.start()
    time.sleep(0.1)
    batches.close()
    reader.join(timeout=5)
    assert not reader.is_alive()
    assert got == []


def test_dropping_a_prefetcher_stops_its_thread(source):
    def threads():
        names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
        return sum(name.startswith("metatl-batches") for name in names)

    prefetchers = [source.prefetch(0, 64, 1) for _ in range(20)]
    deadline = time.monotonic() + 10
    while threads() < 20 and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread takes its name when it starts
    assert threads() == 20
    del prefetchers
    assert threads() == 0


def test_several_threads_share_a_prefetcher(source):
    seen, lock = [], threading.Lock()

    def read(batches):
        for _ in range(25):
            batch = next(batches)
            with lock:
                seen.append(batch[1].tobytes())

    with source.prefetch(0, 16, 2) as batches:
        readers = [threading.Thread(target=read, args=(batches,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert sorted(seen) == sorted(source.sample(step, 16)[1].tobytes() for step in range(100))


def test_the_last_step_is_the_last_batch(source):
    assert len(list(source.prefetch(2**64 - 2, 4))) == 2


@pytest.mark.parametrize("depth", [0, -1, 2**40, 1.5])
def test_a_depth_out_of_range_is_an_error(source, depth):
    with pytest.raises(InvalidArgumentError, match="depth: found"):
        source.prefetch(0, 4, depth)
