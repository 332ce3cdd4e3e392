"""Call kernels while another thread writes to their arrays: `python writing_threads.py SECONDS KERNEL …`.

The process ends with an exception or a signal where a kernel panics, returns an id that does not exist, or
reads out of bounds. Otherwise it prints a line of JSON for each kernel: how often it returned or raised.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from metatl import _metatl
from metatl.exceptions import MetatlError

if TYPE_CHECKING:
    from collections.abc import Callable

USERS, ITEMS, DIMENSION = 40, 6000, 24
WRONG_IDS = (2**33, 2**40, -(2**40), 2**63 - 1, -(2**63), -1, ITEMS)
WRONG_NUMBERS = (np.nan, np.inf, -np.inf, 3e38, -1.0)


class Case(NamedTuple):
    """A call of a kernel.

    Attributes
    ----------
    arrays : list of ndarray
        What the other thread writes to.
    call : callable
        Calls the kernel with these arrays; returns its results.
    bounds : tuple of int or None
        For each result, the number of things that its ids count; None where it holds no ids.
    """

    arrays: list[np.ndarray]
    call: Callable[[], tuple[np.ndarray, ...]]
    bounds: tuple[int | None, ...]


def ranking_case(kernel: str, *, table: str = "float32", overridden: bool = False) -> Case:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(USERS, DIMENSION)).astype(np.float32)
    items = rng.normal(size=(ITEMS, DIMENSION)).astype(np.float32)
    bias = rng.normal(size=ITEMS).astype(np.float32)
    arrays = [queries, bias]
    item_table: Any = items
    if table == "bf16":
        item_table = _metatl.round_to_bf16(items)
    elif table == "int8":
        item_table = _metatl.round_to_int8(items)
    arrays += item_table if isinstance(item_table, tuple) else [item_table]
    overrides = None
    if overridden:
        overrides = (
            np.arange(USERS + 1) * 3,
            np.concatenate([rng.choice(ITEMS, 3, replace=False) for _ in range(USERS)]),
            rng.normal(size=(3 * USERS, DIMENSION)).astype(np.float32),
        )
        arrays += overrides
    settings: dict[str, Any] = {
        # Without a bias no other check of an id follows the vector kernels.
        "item_bias": bias if overridden else None,
        "similarity": "l2" if overridden else "dot",
        "overrides": overrides,
        "num_threads": 1,
    }
    if kernel == "rank_candidates":
        candidates = rng.integers(0, ITEMS, (USERS, 5001))
        return Case(
            # Three times: the ids are what matters most.
            [*arrays, candidates, candidates, candidates],
            lambda: _metatl.rank_candidates(queries, item_table, candidates, **settings),
            (5001, 5001),
        )
    excluded = np.arange(USERS + 1) * 20, rng.integers(0, ITEMS, USERS * 20)
    targets = rng.integers(0, ITEMS, USERS)
    if kernel == "rank_catalogue":
        return Case(
            [*arrays, *excluded, targets, targets],
            lambda: _metatl.rank_catalogue(queries, item_table, targets, *excluded, **settings),
            (ITEMS, ITEMS),
        )
    if kernel == "top_n_of":
        candidates = np.arange(USERS + 1) * 50, rng.integers(0, ITEMS, USERS * 50)
        return Case(
            [*arrays, *excluded, *candidates, candidates[1]],
            lambda: _metatl.top_n_of(queries, item_table, 10, *candidates, *excluded, **settings),
            (ITEMS, None),
        )
    if kernel == "PanelTable":
        return Case(
            [*arrays, *excluded],
            lambda: _metatl.top_n(
                queries, _metatl.PanelTable(item_table, num_threads=1), 10, *excluded, **settings
            ),
            (ITEMS, None),
        )
    allowed = rng.integers(0, 2, ITEMS).astype(np.uint8)
    return Case(
        [*arrays, *excluded, allowed],
        lambda: _metatl.top_n(queries, item_table, 10, *excluded, allowed=allowed, **settings),
        (ITEMS, None),
    )


def transitions_case(kernel: str) -> Case:
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    table, skip = numbers(ITEMS, DIMENSION), (numbers(DIMENSION), numbers(DIMENSION))
    learner = (numbers(DIMENSION, DIMENSION), numbers(DIMENSION, DIMENSION), numbers(DIMENSION), skip)
    inner = (1, numbers(DIMENSION), 0.1, True, None, 8, 1, 2)
    bias, mean = numbers(ITEMS), numbers(DIMENSION)
    arrays = [table, *learner[:3], *skip]
    if kernel == "tabulate_transitions":
        call = partial(_metatl.tabulate_transitions, table, learner, num_threads=1)
        return Case(arrays, call, (None, None))
    indptr, items = np.arange(USERS + 1) * 4, rng.integers(0, ITEMS, USERS * 4)
    terms = _metatl.tabulate_transitions(table, learner)
    return Case(
        [*arrays, *terms, inner[1], bias, mean, indptr, items, items],
        lambda: (
            _metatl.encode_transitions(
                indptr,
                items,
                table,
                learner,
                inner,
                mean,
                terms=terms,
                item_bias=bias,
                similarity="squared_l2",
                seed=0,
                num_threads=1,
            ),
        ),
        (None,),
    )


def score_case(kernel: str) -> Case:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5 * USERS, ITEMS)).astype(np.float32)
    excluded = np.arange(5 * USERS + 1) * 20, rng.integers(0, ITEMS, 100 * USERS)
    targets = rng.integers(0, ITEMS, 5 * USERS)
    calls: dict[str, Callable[[], tuple[np.ndarray, ...]]] = {
        "rank_scores": lambda: _metatl.rank_scores(scores, num_threads=1),
        "rank_score_matrix": lambda: _metatl.rank_score_matrix(scores, targets, *excluded, num_threads=1),
        "top_n_scores": lambda: _metatl.top_n_scores(scores, 10, *excluded, num_threads=1),
    }
    arrays = [scores] if kernel == "rank_scores" else [scores, *excluded, targets]
    return Case(arrays, calls[kernel], (ITEMS, None if kernel == "top_n_scores" else ITEMS))


def interactions_case() -> Case:
    rng = np.random.default_rng(0)
    indptr, items = np.arange(5001) * 20, rng.integers(0, ITEMS, 100_000)

    def call() -> tuple[np.ndarray, ...]:
        index = _metatl.Interactions(indptr, items, ITEMS, num_threads=1)
        batch = _metatl.EpisodeSampler(index, k=3, negatives=2, seed=0, num_threads=1).sample(0, 200)
        return batch[:3]

    return Case([indptr, items], call, (5000, ITEMS, ITEMS))


def grouping_case() -> Case:
    rng = np.random.default_rng(0)
    rows = 200_000
    users, items, times = rng.integers(0, 5000, rows), rng.integers(0, ITEMS, rows), np.arange(rows)
    return Case(
        [users, users, items, times],
        lambda: _metatl.group_by_user(users, items, times, 5000, keep_repeats=True, num_threads=1),
        (rows + 1, None, None),
    )


def index_of_users() -> _metatl.Interactions:
    rng = np.random.default_rng(0)
    return _metatl.Interactions(np.arange(5001) * 20, rng.integers(0, ITEMS, 100_000), ITEMS)


def candidates_case(*, weighted: bool) -> Case:
    rng = np.random.default_rng(0)
    index, users, targets = index_of_users(), np.arange(5000), rng.integers(0, ITEMS, 5000)
    weights = rng.random(ITEMS) + 0.01 if weighted else None
    return Case(
        [users, targets] if weights is None else [users, targets, weights],
        lambda: (
            _metatl.sample_candidates(index, users, targets, 50, seed=0, weights=weights, num_threads=1),
        ),
        (ITEMS,),
    )


def support_case() -> Case:
    histories = np.random.default_rng(0).integers(0, ITEMS, (20_000, 5))
    return Case(
        [histories],
        lambda: (_metatl.sample_support_negatives(histories, 8, ITEMS, seed=0, num_threads=1),),
        (ITEMS,),
    )


def walks_case(*, composed: bool) -> Case:
    rng = np.random.default_rng(0)
    size = 300
    indptr, indices = np.arange(size + 1) * 20, rng.integers(0, size, size * 20)
    values, prior = rng.random(size * 20), rng.random(size)
    rows, items = np.arange(USERS + 1) * 4, rng.integers(0, size, USERS * 4)

    def call() -> tuple[np.ndarray, ...]:
        walks = _metatl.ItemWalks(
            indptr,
            indices,
            values,
            recency=0.9,
            second_step=1.0,
            prior=prior,
            composed=composed,
            num_threads=1,
        )
        return (walks.score(rows, items, num_threads=1),)

    return Case([indptr, indices, indices, values, prior, rows, items], call, (None,))


def sequences_case() -> Case:
    index, weights = index_of_users(), np.random.default_rng(0).random(ITEMS) + 0.01

    def call() -> tuple[np.ndarray, ...]:
        settings: dict[str, Any] = {"length": 5, "negatives": 1, "shared_negatives": 1000}
        return _metatl.SequenceSampler(index, weights=weights, seed=0, **settings).sample(0, 50)

    return Case([weights], call, (5000, ITEMS, ITEMS, ITEMS))


def metrics_case(kernel: str) -> Case:
    rng = np.random.default_rng(0)
    greater, equal, cutoffs = rng.integers(0, 50, 50_000), rng.integers(0, 3, 50_000), np.array([5, 10, 20])
    calls: dict[str, Callable[[], tuple[np.ndarray, ...]]] = {
        "user_metrics": lambda: (
            _metatl.user_metrics(greater, equal, ties="mean", cutoffs=cutoffs, num_threads=1),
        ),
        "ranks": lambda: (_metatl.ranks(greater, equal, ties="mean"),),
    }
    return Case([greater, equal, cutoffs], calls[kernel], (None,))


def resamples_case(kernel: str) -> Case:
    rng = np.random.default_rng(0)
    values, counts = rng.normal(size=(3000, 3)), rng.integers(1, 50, 3000)
    settings: dict[str, Any] = {"resamples": 64, "seed": 0, "num_threads": 1}
    calls: dict[str, Callable[[], tuple[np.ndarray, ...]]] = {
        "bootstrap_means": lambda: (_metatl.bootstrap_means(values, **settings),),
        "bootstrap_group_means": lambda: (_metatl.bootstrap_group_means(values, counts, **settings),),
        "sign_flip_counts": lambda: (_metatl.sign_flip_counts(values, **settings),),
    }
    return Case([values, counts], calls[kernel], (None,))


def rounding_case(kernel: str) -> Case:
    table = np.random.default_rng(0).normal(size=(20_000, 24)).astype(np.float32)
    calls: dict[str, Callable[[], tuple[np.ndarray, ...]]] = {
        "round_to_bf16": lambda: (_metatl.round_to_bf16(table, num_threads=1),),
        "round_to_int8": lambda: _metatl.round_to_int8(table, num_threads=1),
    }
    return Case([table], calls[kernel], (None,) * len(calls[kernel]()))


AT_EVERY_LEVEL: dict[str, Callable[[], Case]] = {
    "rank_candidates": lambda: ranking_case("rank_candidates"),
    "rank_candidates, bf16": lambda: ranking_case("rank_candidates", table="bf16"),
    "rank_candidates, int8, overrides": lambda: ranking_case(
        "rank_candidates", table="int8", overridden=True
    ),
    "rank_candidates, overrides": lambda: ranking_case("rank_candidates", overridden=True),
    "rank_catalogue": lambda: ranking_case("rank_catalogue"),
    "rank_catalogue, int8, overrides": lambda: ranking_case("rank_catalogue", table="int8", overridden=True),
    "top_n, overrides": lambda: ranking_case("top_n", overridden=True),
    "top_n_of": lambda: ranking_case("top_n_of", overridden=True),
    "PanelTable": lambda: ranking_case("PanelTable"),
    "PanelTable, int8": lambda: ranking_case("PanelTable", table="int8"),
    "encode_transitions": lambda: transitions_case("encode_transitions"),
    "tabulate_transitions": lambda: transitions_case("tabulate_transitions"),
    "rank_scores": lambda: score_case("rank_scores"),
    "rank_score_matrix": lambda: score_case("rank_score_matrix"),
    "top_n_scores": lambda: score_case("top_n_scores"),
}
"""Kernels with code of their own for each vector level."""

AT_ONE_LEVEL: dict[str, Callable[[], Case]] = {
    "Interactions": interactions_case,
    "group_by_user": grouping_case,
    "sample_candidates": lambda: candidates_case(weighted=False),
    "sample_candidates, weights": lambda: candidates_case(weighted=True),
    "sample_support_negatives": support_case,
    "ItemWalks": lambda: walks_case(composed=False),
    "ItemWalks, composed": lambda: walks_case(composed=True),
    "SequenceSampler": sequences_case,
    "user_metrics": lambda: metrics_case("user_metrics"),
    "ranks": lambda: metrics_case("ranks"),
    "bootstrap_means": lambda: resamples_case("bootstrap_means"),
    "bootstrap_group_means": lambda: resamples_case("bootstrap_group_means"),
    "sign_flip_counts": lambda: resamples_case("sign_flip_counts"),
    "round_to_bf16": lambda: rounding_case("round_to_bf16"),
    "round_to_int8": lambda: rounding_case("round_to_int8"),
}


def wrong_copies(array: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return what the thread writes: other right values, and wrong ones everywhere or here and there."""
    copies = [rng.permutation(array.ravel()).reshape(array.shape)]
    if array.dtype == np.int64:
        values: tuple[float, ...] = WRONG_IDS
    elif array.dtype.kind == "f":
        values = WRONG_NUMBERS
    else:
        limits = np.iinfo(array.dtype)
        values = (limits.min, limits.max)
    for value in values:
        copies.append(np.full_like(array, value))
        some = array.copy()
        some[rng.random(array.shape) < 1 / 16] = value
        copies.append(some)
    return copies


def write(arrays: list[np.ndarray], stop: threading.Event) -> None:
    """Write to one array after the other, and each time its own values again."""
    own = [array.copy() for array in arrays]
    wrong = [wrong_copies(array, np.random.default_rng(1)) for array in arrays]
    draw = random.Random(1)  # noqa: S311 (no secret)
    while not stop.is_set():
        index = draw.randrange(len(arrays))
        for values in (draw.choice(wrong[index]), own[index]):
            arrays[index][...] = values
            # Right values for longer than wrong ones, so that most calls get past their checks.
            time.sleep(draw.random() * (1e-3 if values is own[index] else 1e-5))


def check_ids(results: tuple[np.ndarray, ...], bounds: tuple[int | None, ...]) -> None:
    """Check that all ids of the results exist."""
    for result, bound in zip(results, bounds, strict=True):
        if bound is not None and result.size and not (-1 <= result.min() <= result.max() < bound):
            raise AssertionError(f"found {result.min()} to {result.max()}, expected ids below {bound}")


def call_under_a_writing_thread(case: Case, seconds: float) -> Counter[str]:
    """Call a kernel for some seconds under a writing thread, and then once more without one."""
    expected = case.call()
    stop, outcomes = threading.Event(), Counter[str]()
    writer = threading.Thread(target=write, args=(case.arrays, stop), daemon=True)
    writer.start()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        try:
            results = case.call()
        except (MetatlError, MemoryError) as error:  # noqa: PERF203 (every call may fail)
            outcomes[type(error).__name__] += 1
        else:
            check_ids(results, case.bounds)
            outcomes["returned"] += 1
    stop.set()
    writer.join()
    for result, was in zip(case.call(), expected, strict=True):
        np.testing.assert_array_equal(result, was)
    return outcomes


def main(seconds: float, names: list[str]) -> None:
    faulthandler.enable()
    for name in names:
        print(name, file=sys.stderr, flush=True)  # noqa: T201 (the last name is that of the kernel that failed)
        case = {**AT_EVERY_LEVEL, **AT_ONE_LEVEL}[name]()
        print(json.dumps([name, call_under_a_writing_thread(case, seconds)]))  # noqa: T201


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
