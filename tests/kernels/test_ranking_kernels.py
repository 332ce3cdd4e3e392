"""Ranking kernels against scores computed one by one in double precision.

Inputs are small integers: their scores are exact in float32 and tie often, so every tie is really a tie.
Roots and sums with a bias are rounded to float32, as the kernels round them.
"""

from __future__ import annotations

import itertools
import math
import os
import resource
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError, NotANumberError
from ranking_worlds import (
    LEVELS,
    SIMILARITIES,
    SPECIAL,
    arguments,
    concatenate,
    level,
    make_world,
    rough_world,
)

seeds = st.integers(0, 2**32 - 1)
worlds = st.builds(make_world, seeds, specials=st.sampled_from([0, 0, 0, 1, 3]))
levels = st.sampled_from(LEVELS)


class Expected:
    """Results by definition, and the NaN met on the way."""

    def __init__(self):
        self.nan = 0

    def compare(self, target, others):
        self.nan += sum(map(math.isnan, [target, *others]))
        return sum(score > target for score in others), sum(score == target for score in others)

    def comparisons(self, rows):
        counts = [self.compare(target, others) for target, others in rows]
        return tuple(np.array(counts, np.int64).reshape(-1, 2).T)

    def of_candidates(self, scores, candidates):
        chosen = [
            [row[item] for item in items] for row, items in zip(scores.tolist(), candidates, strict=True)
        ]
        return self.comparisons([(row[0], row[1:]) for row in chosen])

    def of_catalogue(self, scores, targets, excluded):
        rows = []
        for row, target, left_out in zip(scores.tolist(), targets, excluded, strict=True):
            others = [item for item in range(len(row)) if item != target and item not in left_out]
            rows.append((row[target], [row[item] for item in others]))
        return self.comparisons(rows)

    def top_n(self, scores, n, excluded):
        best = np.full((len(scores), n), -1, np.int64)
        best_scores = np.full((len(scores), n), -math.inf, np.float32)
        for user, (row, left_out) in enumerate(zip(scores.tolist(), excluded, strict=True)):
            items = [item for item in range(len(row)) if item not in left_out]
            self.nan += sum(math.isnan(row[item]) for item in items)
            items = sorted(items, key=lambda item: (-row[item], item))[:n]
            best[user, : len(items)] = items
            best_scores[user, : len(items)] = [row[item] for item in items]
        return best, best_scores


def check(call, expect):
    """Compare a kernel with its definition: the same arrays, or an error that counts the same NaN."""
    expected = Expected()
    arrays = expect(expected)
    if expected.nan:
        with pytest.raises(NotANumberError, match=f"^scores: found {expected.nan} NaN, expected none$"):
            call()
        return
    found = call()
    assert len(found) == len(arrays)
    for ours, theirs in zip(found, arrays, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@given(worlds, levels)
def test_rank_candidates_agrees_with_the_definition(world, name):
    scores = world.scores()
    with level(name):
        check(world.rank_candidates, lambda expected: expected.of_candidates(scores, world.candidates))


@given(worlds, levels)
def test_rank_catalogue_agrees_with_the_definition(world, name):
    scores = world.scores()
    with level(name):
        check(
            world.rank_catalogue,
            lambda expected: expected.of_catalogue(scores, world.targets, world.excluded),
        )


@given(worlds, levels, st.integers(0, 60))
def test_top_n_agrees_with_the_definition(world, name, n):
    scores = world.scores()
    with level(name):
        check(lambda: world.top_n(n), lambda expected: expected.top_n(scores, n, world.excluded))


@given(seeds, st.sampled_from([0, 0, 1, 4]), levels, st.integers(0, 60))
def test_score_matrices_agree_with_the_definition(seed, specials, name, n):
    rng = np.random.default_rng(seed)
    shape = rng.integers(0, 6), rng.integers(1, 60)
    scores = rng.integers(-2, 3, shape).astype(np.float32)
    for _ in range(specials if scores.size else 0):
        scores.flat[rng.integers(scores.size)] = SPECIAL[rng.integers(3)]
    excluded = [rng.integers(0, shape[1], rng.integers(0, 9)).tolist() for _ in range(shape[0])]
    targets = rng.integers(0, shape[1], shape[0])
    lists = np.cumsum([0, *map(len, excluded)], dtype=np.int64), concatenate(excluded)
    everything = [range(shape[1])] * shape[0]
    with level(name):
        check(
            lambda: _metatl.rank_scores(scores), lambda expected: expected.of_candidates(scores, everything)
        )
        check(
            lambda: _metatl.rank_score_matrix(scores, targets, *lists),
            lambda expected: expected.of_catalogue(scores, targets, excluded),
        )
        check(
            lambda: _metatl.top_n_scores(scores, n, *lists),
            lambda expected: expected.top_n(scores, n, excluded),
        )


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_nan_and_infinity_in_every_slot(name, similarity):
    users, num_items, dim = 2, 4, 3
    plain = make_world(3, similarity=similarity, sizes=(users, num_items, dim))
    indptr = np.array([0, 1, 2])
    plain = replace(
        plain,
        bias=np.array([1, 0, -1, 2], np.float32),
        overrides=(indptr, np.array([1, 3]), np.ones((2, dim), np.float32)),
        excluded=[[2], [0, 2]],
        targets=np.array([0, 3]),
        candidates=np.array([[0, 1, 3], [3, 2, 2]]),
    )
    slots = [
        ("queries", users * dim),
        ("table", num_items * dim),
        ("bias", num_items),
        ("overrides", 2 * dim),
    ]
    with level(name):
        for (field, size), special in itertools.product(slots, SPECIAL):
            for slot in range(size):
                array = plain.overrides[2] if field == "overrides" else getattr(plain, field)
                array = array.copy()
                array.flat[slot] = special
                value = (*plain.overrides[:2], array) if field == "overrides" else array
                world = replace(plain, **{field: value})
                scores = world.scores()
                check(world.rank_candidates, lambda e, s=scores, w=world: e.of_candidates(s, w.candidates))
                check(
                    world.rank_catalogue,
                    lambda e, s=scores, w=world: e.of_catalogue(s, w.targets, w.excluded),
                )
                check(lambda w=world: w.top_n(3), lambda e, s=scores, w=world: e.top_n(s, 3, w.excluded))


@example(316039, 1, "l2")  # two vectors that nearly coincide
@given(seeds, st.integers(0, 130), st.sampled_from(SIMILARITIES))
def test_levels_agree_with_double_precision(seed, dim, similarity):
    world = rough_world(seed, 2, 40, dim, similarity)
    exact, error = np.empty((2, 40)), np.empty((2, 40))
    epsilon = np.finfo(np.float32).eps
    for user in range(2):
        table = world.table.astype(np.float64)
        places = slice(3 * user, 3 * user + 3)
        table[world.overrides[1][places]] = world.overrides[2][places]
        query = world.queries[user].astype(np.float64)
        squares = ((table - query) ** 2).sum(axis=1)
        exact[user] = {"dot": table @ query, "l2": -np.sqrt(squares), "squared_l2": -squares}[similarity]
        # Rounding is relative to the terms, |q|² + |e|² for the distances …
        error[user] = (dim + 8) * epsilon * ((table**2).sum(axis=1) + (query**2).sum())
        if similarity == "l2":
            # … and the root of what nearly cancels makes it larger.
            error[user] = np.sqrt(squares + error[user]) - np.sqrt(np.maximum(squares - error[user], 0))
    if similarity != "l2":
        # The bound is that of the worst case, which sums of many terms do not come near.
        error = np.minimum(error, 1e-5 * (1 + 2 * np.abs(exact).max()))
    exact += world.bias
    error += epsilon * (np.abs(exact) + np.abs(world.bias))
    for name in LEVELS:
        with level(name):
            items, scores = world.top_n(40)
        for user in range(2):
            kept = items[user] >= 0
            assert set(items[user][kept]) == set(range(40)) - set(world.excluded[user])
            ranked = items[user][kept]
            assert (np.abs(scores[user][kept] - exact[user][ranked]) <= error[user][ranked]).all()


def test_the_same_bytes_on_any_number_of_threads():
    shapes = [(3000, 500, 20), (5, 30_000, 24)]
    for (users, num_items, dim), similarity in itertools.product(shapes, SIMILARITIES):
        world = rough_world(0, users, num_items, dim, similarity)
        scores = np.ascontiguousarray(world.table[: num_items // 3 * 3].reshape(3, -1))
        lists = np.zeros(4, np.int64), np.zeros(0, np.int64)
        kernels = [
            world.rank_candidates,
            world.rank_catalogue,
            lambda world=world, **threads: world.top_n(10, **threads),
            lambda scores=scores, **threads: _metatl.rank_scores(scores, **threads),
            lambda scores=scores, lists=lists, **threads: _metatl.rank_score_matrix(
                scores, np.arange(3), *lists, **threads
            ),
            lambda scores=scores, lists=lists, **threads: _metatl.top_n_scores(scores, 9, *lists, **threads),
        ]
        for kernel in kernels:
            results = {
                tuple(array.tobytes() for array in kernel(num_threads=threads)) for threads in (1, 2, 3, 8)
            }
            assert len(results) == 1


def test_a_query_is_ranked_the_same_in_any_company():
    world = rough_world(1, 40, 300, 17, "l2")
    together = world.rank_catalogue(), world.top_n(7)
    indptr, items, rows = world.overrides
    for user in range(40):
        places = slice(indptr[user], indptr[user + 1])
        alone = replace(
            world,
            queries=world.queries[user : user + 1],
            overrides=(np.array([0, 3]), items[places], rows[places]),
            excluded=world.excluded[user : user + 1],
            targets=world.targets[user : user + 1],
        )
        for ours, theirs in zip((alone.rank_catalogue(), alone.top_n(7)), together, strict=True):
            for one, many in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one[0], many[user])


def test_constant_scores_tie_with_everything():
    table = np.full((500, 10), 0.1, np.float32)
    queries = np.full((3, 10), 0.7, np.float32)
    settings = {"item_bias": None, "overrides": None}
    candidates = np.arange(303).reshape(3, 101)
    nothing = np.zeros(4, np.int64), np.zeros(0, np.int64)
    for similarity, name in itertools.product(SIMILARITIES, LEVELS):
        with level(name):
            greater, equal = _metatl.rank_candidates(
                queries, table, candidates, similarity=similarity, **settings
            )
            assert (greater.tolist(), equal.tolist()) == ([0] * 3, [100] * 3)
            greater, equal = _metatl.rank_catalogue(
                queries, table, np.arange(3), *nothing, similarity=similarity, **settings
            )
            assert (greater.tolist(), equal.tolist()) == ([0] * 3, [499] * 3)
        for ties, hit_rate in {"worst": 0, "mean": 10 / 101, "best": 1}.items():
            metrics = _metatl.user_metrics(
                np.zeros(3, np.int64), np.full(3, 100), ties=ties, cutoffs=np.array([10])
            )
            assert metrics[:, 1].tolist() == [hit_rate] * 3


def test_no_matrix_of_users_by_items_is_held():
    users = num_items = 25_000
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(users, 1)).astype(np.float32)
    table = rng.normal(size=(num_items, 1)).astype(np.float32)
    settings = {"item_bias": None, "similarity": "dot", "overrides": None}
    nothing = np.zeros(users + 1, np.int64), np.zeros(0, np.int64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _metatl.rank_catalogue(queries, table, np.arange(users), *nothing, **settings)
    _metatl.top_n(queries, table, 10, *nothing, **settings)
    # The matrix would have 2.5 GB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


EDGES = (-1, 5, 2**31 - 1, 2**31, 2**31 + 1, 2**63 - 1, -(2**63))
WRONG = {
    "queries": [np.zeros((2, 3)), np.zeros(3, np.float32), np.zeros((3, 2), np.float32).T, [[0.0]], None],
    "item_table": [
        np.zeros((5, 2), np.float32),
        np.zeros((5, 3), np.float16),
        np.zeros((10, 3), np.float32)[::2],
    ],
    "candidates": [
        np.zeros((2, 0), np.int64),
        np.zeros((3, 4), np.int64),
        np.zeros((2, 4), np.int32),
        *(np.array([[0, 1], [2, item]]) for item in EDGES),
    ],
    "targets": [
        np.zeros(3, np.int64),
        np.zeros((2, 1), np.int64),
        np.zeros(2),
        *(np.array([0, item]) for item in EDGES),
    ],
    "excluded_indptr": [
        np.array([0, 1]),
        np.array([0, 1, 1, 1]),
        np.array([0, 2, 1]),
        np.array([1, 1, 1]),
        np.array([0, 0, 0]),
        np.array([0, -1, 1]),
        np.array([0, 1, 2**62]),
        np.zeros(0, np.int64),
    ],
    "excluded_items": [*(np.array([item]) for item in EDGES), np.array([0], np.int32)],
    "item_bias": [np.zeros(4, np.float32), np.zeros(5), np.zeros((5, 1), np.float32), 1.0],
    "similarity": ["cosine", "", "DOT", None, 1],
    "overrides": [(), (1, 2), [1, 2, 3], (np.array([0, 0, 0]), np.zeros(0, np.int64)), "abc"],
    "overrides[0]": [(np.array([0, 1]), np.array([1]), np.zeros((1, 3), np.float32)), (None,) * 3],
    "overrides[1]": [
        (np.array([0, 2, 2]), np.array([1, 1]), np.zeros((2, 3), np.float32)),
        *((np.array([0, 1, 1]), np.array([item]), np.zeros((1, 3), np.float32)) for item in EDGES),
    ],
    "overrides[2]": [
        (np.array([0, 1, 1]), np.array([1]), np.zeros((2, 3), np.float32)),
        (np.array([0, 1, 1]), np.array([1]), np.zeros((1, 2), np.float32)),
        (np.array([0, 1, 1]), np.array([1]), np.zeros((1, 3))),
    ],
    "n": [-1, 1.5, "2", None],
    "scores": [np.zeros((2, 5)), np.zeros(5, np.float32), np.asfortranarray(np.zeros((2, 5), np.float32))],
    "num_threads": [0, -1, 1.5, 2**40],
}


@pytest.mark.parametrize("kernel", arguments())
def test_a_wrong_argument_is_named(kernel):
    call = getattr(_metatl, kernel)
    right = {**arguments()[kernel], "num_threads": None}
    call(**right)
    for argument, values in WRONG.items():
        name = argument.partition("[")[0]
        if name not in right:
            continue
        for value in values:
            named = argument.replace("[", r"\[").replace("]", r"\]")
            with pytest.raises(InvalidArgumentError, match=f"^{named}: found .*, expected"):
                call(**{**right, name: value})


def test_nothing_to_rank_is_fine():
    settings = {"item_bias": None, "similarity": "l2", "overrides": None}
    none, lists = np.zeros(0, np.int64), (np.zeros(1, np.int64), np.zeros(0, np.int64))
    for num_items, dim in itertools.product((0, 5), (0, 3)):
        queries, table = np.zeros((0, dim), np.float32), np.zeros((num_items, dim), np.float32)
        for counts in (
            _metatl.rank_candidates(queries, table, np.zeros((0, 7), np.int64), **settings),
            _metatl.rank_catalogue(queries, table, none, *lists, **settings),
            _metatl.rank_score_matrix(np.zeros((0, num_items), np.float32), none, *lists),
            _metatl.rank_scores(np.zeros((0, num_items), np.float32)),
        ):
            assert [array.shape for array in counts] == [(0,), (0,)]
        for best in (
            _metatl.top_n(queries, table, 4, *lists, **settings),
            _metatl.top_n_scores(np.zeros((0, num_items), np.float32), 4, *lists),
        ):
            assert [array.shape for array in best] == [(0, 4), (0, 4)]
    two = np.zeros(3, np.int64), np.zeros(0, np.int64)
    no_items = np.zeros((0, 3), np.float32)
    for best in (
        _metatl.top_n(np.zeros((2, 3), np.float32), no_items, 2, *two, **settings),
        _metatl.top_n_scores(np.zeros((2, 0), np.float32), 2, *two),
    ):
        assert best[0].tolist() == [[-1, -1]] * 2
        assert best[1].tolist() == [[-math.inf] * 2] * 2
    with pytest.raises(InvalidArgumentError, match=r"^scores: found 0 columns, expected at least 1"):
        _metatl.rank_scores(np.zeros((2, 0), np.float32))
    with pytest.raises(InvalidArgumentError, match=r"^targets: found 0 .*, expected no items"):
        _metatl.rank_score_matrix(np.zeros((2, 0), np.float32), np.zeros(2, np.int64), *two)


def test_a_result_too_large_for_memory_is_an_error():
    for kernel in ("top_n", "top_n_scores"):
        for n in (2**40, 2**62, 2**63 - 1):
            with pytest.raises(MemoryError):
                getattr(_metatl, kernel)(**{**arguments()[kernel], "n": n})


# Each runs for seconds if nothing stops it.
LONG_CALLS = {
    "many lists": lambda rows: _metatl.rank_candidates(
        rows(5000, 4096), rows(500, 4096), np.zeros((5000, 8000), np.int64), **LONG_SETTINGS
    ),
    "many queries": lambda rows: _metatl.rank_catalogue(
        rows(30_000, 64), rows(60_000, 64), np.zeros(30_000, np.int64), *no_lists(30_000), **LONG_SETTINGS
    ),
    "many items": lambda rows: _metatl.top_n(
        rows(500, 64), rows(2_000_000, 64), 10, *no_lists(500), **LONG_SETTINGS
    ),
}
LONG_SETTINGS = {"item_bias": None, "similarity": "dot", "overrides": None, "num_threads": 1}


def no_lists(queries):
    return np.zeros(queries + 1, np.int64), np.zeros(0, np.int64)


@pytest.mark.parametrize("name", LONG_CALLS)
def test_ctrl_c_answers_within_200_milliseconds(name):
    shapes = {}

    def rows(*shape):
        return shapes.setdefault(shape, np.zeros(shape, np.float32))

    delays = []
    # The best of three: the machine may have other things to do.
    for _ in range(3):
        sent = []

        def interrupt(sent=sent):
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(0.2, interrupt)
        timer.start()
        ended = None
        try:
            LONG_CALLS[name](rows)
            ended = "by itself"
            # The interrupt still comes, and must not hit the tests that follow.
            timer.join()
        except KeyboardInterrupt:
            delays.append(time.perf_counter() - sent[0])
        timer.join()
        assert ended is None
    assert min(delays) < 0.2
