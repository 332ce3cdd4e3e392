"""Call kernels with arguments that are wrong in one to three places: `python hostile_calls.py SEED SECONDS`.

A call must end with a typed error that names an argument, or with the same result on one thread and on three.
The process ends with an exception where one does neither, or panics. Otherwise it prints the counts as JSON.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from metatl import _metatl
from metatl.exceptions import MetatlError

if TYPE_CHECKING:
    from collections.abc import Callable

ITEMS, USERS = 12, 6

# Numbers between these and the others would be sizes of results that fit into memory, and take it.
SMALL = (0, 1, 2, 3, 5, 12, 13, 64)
HUGE = (2**50, 2**53 + 1, 2**60, 2**61, 2**62, 2**63 - 2, 2**63 - 1)
NO_SIZES = (-1, -(2**31), -(2**63), 2**63, 2**64 - 1, 2**64, 10**30)
NO_NUMBERS = (None, "3", b"3", 1.5, np.nan, np.inf, np.float64(2), 2j, [1], (), {}, object(), np.zeros(2))
NUMBERS_OF_THREADS = (1, 2, 3, 0, -1, 10**9, 1025, 2**64, 1.5, "2", None)
SHARES = (
    0.0,
    1.0,
    0.5,
    -0.0,
    -0.1,
    1.1,
    np.nan,
    np.inf,
    -np.inf,
    1e-320,
    2**70,
    "half",
    None,
    np.float32(0.5),
)
TEXTS = ("", "dot", "l2", "squared_l2", "mean", "worst", "row", "user", "dot\0", "☃", "\ud800", "x" * 999, 7)
IDS = (-1, 0, ITEMS - 1, ITEMS, ITEMS + 1, 2**31, 2**62, 2**63 - 1, -(2**63))
NUMBERS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, 1e-45, -1.0)

BY_PYO3 = {"composed", "interactions", "keep_repeats", "exclude_target", "released_windows"}
"""Arguments whose type the binding checks by itself, with a plain `TypeError`."""


def of_another_type(array: np.ndarray, draw: random.Random) -> Any:
    types = ["i4", "u8", "f4", "f8", "f2", "?", "O", ">i8", "c16", "i1", "u2", "M8[s]"]
    others = [None, [1], "array", 3, object(), np.array(3), np.ma.masked_array(array)]
    return draw.choice([array.astype(draw.choice(types)), draw.choice(others)])


def of_another_shape(array: np.ndarray, draw: random.Random) -> Any:
    shapes = [(0,), (0, 0), (len(array), 0), (0, 2**50), (0, 3), (2**20, 0), (1,), (1, 1)]
    shorter = array[: draw.randrange(len(array) + 1)].copy()
    longer = np.concatenate([array, array[:1]])
    others = [array[None], array.ravel(), array[..., None], np.zeros(draw.choice(shapes), array.dtype)]
    return draw.choice([shorter, longer, *others])


def in_other_memory(array: np.ndarray, draw: random.Random) -> Any:
    misaligned = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    misaligned[...] = array
    views = [array[::-1], array[::2], np.asfortranarray(array), array.T, np.repeat(array, 2)[::2]]
    return draw.choice([*views, misaligned])


def with_other_values(array: np.ndarray, draw: random.Random) -> Any:
    changed = array.copy()
    if changed.size:
        values: Any = NUMBERS
        if array.dtype.kind != "f":
            limits = np.iinfo(array.dtype)
            values = [value for value in IDS if limits.min <= value <= limits.max]
        for _ in range(draw.choice((1, 1, 2, changed.size))):
            changed.flat[draw.randrange(changed.size)] = draw.choice(values)
    return changed


WRONG_ARRAYS = (of_another_type, of_another_shape, in_other_memory, with_other_values, with_other_values)


def wrong_tuple(arrays: tuple[np.ndarray, ...], draw: random.Random) -> Any:
    parts: list[Any] = list(arrays)
    index = draw.randrange(len(parts))
    parts[index] = draw.choice(WRONG_ARRAYS)(parts[index], draw)
    return draw.choice([tuple(parts), tuple(parts), tuple(parts), tuple(parts[:-1]), parts, None])


def wrong(name: str, value: Any, draw: random.Random) -> Any:
    """Return another value for an argument."""
    if isinstance(value, np.ndarray):
        return draw.choice(WRONG_ARRAYS)(value, draw)
    if isinstance(value, tuple):
        return wrong_tuple(value, draw)
    numbers = [*SMALL, *NO_SIZES, *NO_NUMBERS]
    by_name = {
        "num_threads": NUMBERS_OF_THREADS,
        "window_share": SHARES,
        "shuffle_share": SHARES,
        "resamples": numbers,  # many of them take for ever, and are no error
        "steps": numbers,
        "interactions": (None, 3, "interactions"),
    }
    by_type = {
        str: TEXTS,
        bool: (True, False, None, 1, "yes"),
        int: [*numbers, *HUGE],
        float: [*numbers, *NUMBERS],
    }
    return draw.choice(by_name.get(name) or by_type[type(value)])


def kernels() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Return each kernel and arguments that it takes."""
    rng = np.random.default_rng(0)
    rows = np.arange(USERS + 1) * 4
    items = np.concatenate([rng.choice(ITEMS, 4, replace=False) for _ in range(USERS)])
    index = _metatl.Interactions(rows, items, ITEMS)
    queries = rng.normal(size=(USERS, 5)).astype(np.float32)
    table = rng.normal(size=(ITEMS, 5)).astype(np.float32)
    excluded = {
        "excluded_indptr": np.arange(USERS + 1) * 2,
        "excluded_items": rng.integers(0, ITEMS, 2 * USERS),
    }
    targets, users = rng.integers(0, ITEMS, USERS), np.arange(USERS)
    moved = (
        np.arange(USERS + 1),
        rng.integers(0, ITEMS, USERS),
        rng.normal(size=(USERS, 5)).astype(np.float32),
    )
    scoring = {"item_bias": table[:, 0].copy(), "similarity": "l2", "overrides": moved, "num_threads": 1}
    scores = {"scores": rng.normal(size=(USERS, ITEMS)).astype(np.float32)}
    values = rng.normal(size=(USERS, 3))
    weights = rng.random(ITEMS) + 0.1

    def episodes(step: Any, batch_size: Any, **settings: Any) -> Any:
        return _metatl.EpisodeSampler(index, **settings).sample(step, batch_size)

    def sequences(step: Any, batch_size: Any, **settings: Any) -> Any:
        return _metatl.SequenceSampler(index, **settings).sample(step, batch_size)

    def prefetched(start_step: Any, batch_size: Any, depth: Any, **settings: Any) -> Any:
        with _metatl.SequenceSampler(index, **settings).prefetch(start_step, batch_size, depth) as batches:
            return next(batches)

    def interactions(**arguments: Any) -> Any:
        made = _metatl.Interactions(**arguments)
        return made.num_users, made.num_items, made.num_interactions

    batch = {
        "step": 1,
        "batch_size": 4,
        "negatives": 2,
        "shared_negatives": 3,
        "shuffle_share": 0.5,
        "seed": 1,
    }
    sequence = {**batch, "length": 3, "shortest": 2, "draw": "user", "weights": weights, "num_threads": 1}
    prefetch = {name: value for name, value in sequence.items() if name != "step"}
    ranked = {"queries": queries, "item_table": table}
    tables = {
        "float32": table,
        "bf16": _metatl.round_to_bf16(table),
        "int8": _metatl.round_to_int8(table),
    }
    called: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "Interactions": (
            interactions,
            {"indptr": rows, "items": items, "num_items": ITEMS, "num_threads": 1},
        ),
        "group_by_user": (
            _metatl.group_by_user,
            {"users": items % USERS, "items": items, "timestamps": items[::-1].copy(), "num_users": USERS}
            | {"keep_repeats": False, "num_threads": 1},
        ),
        "sample_candidates": (
            _metatl.sample_candidates,
            {"interactions": index, "users": users, "targets": targets, "count": 3, "seed": 1, "epoch": 2}
            | {"weights": weights, "exclude_target": True, "num_threads": 1},
        ),
        "sample_support_negatives": (
            _metatl.sample_support_negatives,
            {
                "histories": items.reshape(USERS, 4),
                "count": 3,
                "num_items": ITEMS,
                "seed": 1,
                "num_threads": 1,
            },
        ),
        "EpisodeSampler": (
            episodes,
            {**batch, "k": 3, "window_share": 0.5, "released_windows": True, "num_threads": 1},
        ),
        "SequenceSampler": (sequences, sequence),
        "BatchPrefetcher": (prefetched, {**prefetch, "start_step": 1, "depth": 2}),
        "random_order": (_metatl.random_order, {"count": 9, "seed": 1, "epoch": 2}),
        "rank_scores": (_metatl.rank_scores, {**scores, "num_threads": 1}),
        "rank_score_matrix": (
            _metatl.rank_score_matrix,
            {**scores, "targets": targets, **excluded, "num_threads": 1},
        ),
        "top_n_scores": (_metatl.top_n_scores, {**scores, "n": 4, **excluded, "num_threads": 1}),
        "round_to_bf16": (_metatl.round_to_bf16, {"item_table": table, "num_threads": 1}),
        "round_to_int8": (_metatl.round_to_int8, {"item_table": table, "num_threads": 1}),
        "user_metrics": (
            _metatl.user_metrics,
            {
                "greater": targets,
                "equal": users,
                "ties": "mean",
                "cutoffs": np.array([5, 10]),
                "num_threads": 1,
            },
        ),
        "ranks": (_metatl.ranks, {"greater": targets, "equal": users, "ties": "mean", "num_threads": 1}),
        "bootstrap_means": (
            _metatl.bootstrap_means,
            {"values": values, "resamples": 4, "seed": 1, "num_threads": 1},
        ),
        "bootstrap_group_means": (
            _metatl.bootstrap_group_means,
            {"values": values, "counts": users + 1, "resamples": 4, "seed": 1, "num_threads": 1},
        ),
        "sign_flip_counts": (
            _metatl.sign_flip_counts,
            {"differences": values, "resamples": 4, "seed": 1, "num_threads": 1},
        ),
    }
    for name, numbers in tables.items():
        of_table = {**ranked, "item_table": numbers}
        candidates = rng.integers(0, ITEMS, (USERS, 4))
        called[f"rank_candidates, {name}"] = (
            _metatl.rank_candidates,
            {**of_table, "candidates": candidates, **scoring},
        )
        called[f"rank_catalogue, {name}"] = (
            _metatl.rank_catalogue,
            {**of_table, "targets": targets, **excluded, **scoring},
        )
        called[f"top_n, {name}"] = (
            _metatl.top_n,
            {**of_table, "n": 4, **excluded, "allowed": (weights > 0).astype(np.uint8), **scoring},
        )
        called[f"top_n_of, {name}"] = (
            _metatl.top_n_of,
            {**of_table, "n": 4, "candidates_indptr": rows, "candidates": items, **excluded, **scoring},
        )
        called[f"PanelTable, {name}"] = (panels, {"item_table": numbers, "num_threads": 1})
    called.update(transitions(table, rows, items, rng))
    for composed in (True, False):
        called[f"ItemWalks, {composed}"] = (
            walks,
            {
                "indptr": np.arange(ITEMS + 1),
                "indices": rng.permutation(ITEMS),
                "values": weights,
                "recency": 0.5,
                "second_step": 1.5,
                "prior": weights,
                "composed": composed,
                "histories": rows,
                "items": items,
                "num_threads": 1,
            },
        )
    return called


def walks(histories: Any, items: Any, num_threads: Any, **settings: Any) -> Any:
    """The scores of walks along a matrix."""
    made = _metatl.ItemWalks(**settings, num_threads=num_threads)
    return made.score(histories, items, num_threads=num_threads)


def panels(item_table: Any, num_threads: Any) -> Any:
    """The scores of an arranged table."""
    arranged = _metatl.PanelTable(item_table, num_threads=num_threads)
    first = item_table[0] if isinstance(item_table, tuple) else item_table
    query, nothing = np.ones((1, first.shape[1]), np.float32), np.zeros(0, np.int64)
    settings = {"item_bias": None, "similarity": "dot", "overrides": None, "num_threads": 1}
    return _metatl.top_n(query, arranged, 3, np.zeros(2, np.int64), nothing, **settings)


def transitions(
    table: np.ndarray, rows: np.ndarray, items: np.ndarray, rng: np.random.Generator
) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    dimension = table.shape[1]

    def numbers(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    weights = {name: numbers(dimension, dimension) for name in ("head_weight", "tail_weight")}
    vectors = {name: numbers(dimension) for name in ("bias", "first_skip", "second_skip")}
    learner = {"item_table": table, **weights, **vectors, "num_threads": 1}

    def parts(given: dict[str, Any]) -> tuple[Any, ...]:
        skip = given.pop("first_skip"), given.pop("second_skip")
        return given.pop("head_weight"), given.pop("tail_weight"), given.pop("bias"), skip

    def tabulate(item_table: Any, num_threads: Any, **given: Any) -> Any:
        return _metatl.tabulate_transitions(item_table, parts(given), num_threads=num_threads)

    def encode(indptr: Any, items: Any, item_table: Any, mean_transition: Any, **given: Any) -> Any:
        learner = parts(given)
        terms = given.pop("heads"), given.pop("tails")
        inner = tuple(given.pop(name) for name in inner_loop)
        return _metatl.encode_transitions(
            indptr, items, item_table, learner, inner, mean_transition, terms=terms, **given
        )

    inner_loop = {"steps": 2, "rates": numbers(dimension), "inverse_temperature": 0.1, "mean": True}
    inner_loop |= {"margin": 1.0, "common": 2, "own": 1, "own_drawn": 2}
    heads, tails = tabulate(**learner)
    encoded = {
        **learner,
        **inner_loop,
        "indptr": rows,
        "items": items,
        "mean_transition": numbers(dimension),
        "heads": heads,
        "tails": tails,
        "item_bias": numbers(len(table)),
        "similarity": "l2",
        "seed": 1,
    }
    return {"tabulate_transitions": (tabulate, learner), "encode_transitions": (encode, encoded)}


def as_bytes(results: Any) -> list[Any]:
    results = results if isinstance(results, tuple) else (results,)
    return [(part.shape, part.tobytes()) if isinstance(part, np.ndarray) else part for part in results]


def main(seed: int, seconds: float) -> None:
    faulthandler.enable()
    draw, outcomes = random.Random(seed), Counter[str]()  # noqa: S311 (no secret)
    called = kernels()
    for call, arguments in called.values():
        call(**arguments)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        name = draw.choice(list(called))
        call, right = called[name]
        changed = draw.sample(list(right), min(len(right), draw.choice((1, 1, 1, 2, 3))))
        arguments = {**right, **{other: wrong(other, right[other], draw) for other in changed}}
        try:
            results = as_bytes(call(**arguments))
        except (MetatlError, MemoryError) as error:
            outcomes[type(error).__name__] += 1
        except TypeError:
            if not BY_PYO3 & set(changed):
                raise
            outcomes["TypeError"] += 1
        except BaseException:
            print(name, {other: arguments[other] for other in changed}, file=sys.stderr)  # noqa: T201
            raise
        else:
            outcomes["returned"] += 1
            if "num_threads" in right and as_bytes(call(**{**arguments, "num_threads": 3})) != results:
                raise AssertionError(f"{name}: another result on three threads for {changed}")
    print(json.dumps(outcomes))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
