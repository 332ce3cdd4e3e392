"""The data of the benchmarks, and the fixture that records a figure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

import metatl
from metatl import _metatl
from sizes import DIM, NUM_ITEMS, NUM_USERS, K


@pytest.fixture
def measure(benchmark):
    """Time a call and record whose figure it is, of how many units of work.

    A group's metatl figure is compared with its peers' by `benches/summary.py`.
    """

    def run(call, *, work, system, units, unit, rounds=5):
        benchmark.group = work
        benchmark.extra_info.update(system=system, units=units, unit=unit)
        return benchmark.pedantic(call, rounds=rounds, warmup_rounds=1)

    return run


@dataclass(frozen=True)
class World:
    """Random interactions of the size of the paper's Electronics."""

    interactions: _metatl.Interactions
    indptr: np.ndarray
    items: np.ndarray
    rows: list[list[int]]
    sets: list[set[int]]


@pytest.fixture(scope="session")
def world():
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 26, NUM_USERS)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    popularity = 1 / np.arange(10, NUM_ITEMS + 10)
    items = generator.choice(NUM_ITEMS, indptr[-1], p=popularity / popularity.sum()).astype(np.int64)
    rows = [items[start:end].tolist() for start, end in itertools.pairwise(indptr)]
    return World(
        _metatl.Interactions(indptr, items, NUM_ITEMS), indptr, items, rows, [set(row) for row in rows]
    )


@dataclass(frozen=True)
class Vectors:
    """Random queries, items and candidates."""

    queries: np.ndarray
    table: np.ndarray
    candidates: np.ndarray
    targets: np.ndarray
    excluded_indptr: np.ndarray
    excluded_items: np.ndarray


@pytest.fixture(scope="session")
def vectors():
    generator = np.random.default_rng(1)
    users = 4096
    candidates = np.argsort(generator.random((users, 400), dtype=np.float32), axis=1)[:, :101] * 50
    excluded = np.sort(generator.integers(0, NUM_ITEMS, (users, K)), axis=1)
    return Vectors(
        generator.standard_normal((users, DIM), dtype=np.float32),
        generator.standard_normal((NUM_ITEMS, DIM), dtype=np.float32),
        np.ascontiguousarray(candidates, dtype=np.int64),
        generator.integers(0, NUM_ITEMS, users),
        np.arange(users + 1, dtype=np.int64) * K,
        np.ascontiguousarray(excluded.ravel()),
    )


@pytest.fixture(scope="session")
def large_split(world):
    """The random interactions under the protocol: about 20,000 users and items."""
    users = np.repeat(np.arange(NUM_USERS), np.diff(world.indptr))
    times = users * 1000 + np.arange(len(users)) % 1000
    frame = pl.DataFrame({"user_id": users, "item_id": world.items, "timestamp": times})
    return metatl.cold_start_split(metatl.Interactions.from_frame(frame), k=K, min_item_count=2)
