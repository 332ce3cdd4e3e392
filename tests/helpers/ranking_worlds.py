"""Arguments of the ranking kernels, and reference scores in double precision."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass

import numpy as np
import pytest

from metatl import _metatl
from metatl.exceptions import InvalidArgumentError

SIMILARITIES = ("dot", "l2", "squared_l2")
SPECIAL = (math.nan, math.inf, -math.inf)


@contextlib.contextmanager
def level(name):
    """Force the kernels to use one instruction set."""
    before = os.environ.get("METATL_SIMD")
    os.environ["METATL_SIMD"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["METATL_SIMD"]
        else:
            os.environ["METATL_SIMD"] = before


def available_levels():
    with level("none"), pytest.raises(InvalidArgumentError, match="METATL_SIMD: found none") as refused:
        _metatl.rank_scores(np.zeros((1, 1), np.float32))
    return str(refused.value).rpartition(": ")[2].split(", ")


LEVELS = available_levels()


def concatenate(rows):
    return np.array([item for row in rows for item in row], np.int64)


@dataclass(frozen=True)
class World:
    """Arguments of the ranking kernels."""

    queries: np.ndarray
    table: np.ndarray
    similarity: str
    bias: np.ndarray | None
    overrides: tuple[np.ndarray, np.ndarray, np.ndarray] | None
    excluded: list[list[int]]
    targets: np.ndarray
    candidates: np.ndarray

    @property
    def num_items(self):
        return len(self.table)

    def excluded_arrays(self):
        indptr = np.cumsum([0, *map(len, self.excluded)], dtype=np.int64)
        return indptr, concatenate(self.excluded)

    def settings(self):
        return {"item_bias": self.bias, "similarity": self.similarity, "overrides": self.overrides}

    def rank_candidates(self, **threads):
        return _metatl.rank_candidates(
            self.queries, self.table, self.candidates, **self.settings(), **threads
        )

    def rank_catalogue(self, **threads):
        excluded = self.excluded_arrays()
        return _metatl.rank_catalogue(
            self.queries, self.table, self.targets, *excluded, **self.settings(), **threads
        )

    def top_n(self, n, **threads):
        excluded = self.excluded_arrays()
        return _metatl.top_n(self.queries, self.table, n, *excluded, **self.settings(), **threads)

    def score(self, user, item):
        row = self.table[item]
        if self.overrides is not None:
            indptr, items, rows = self.overrides
            for index in range(indptr[user], indptr[user + 1]):
                if items[index] == item:
                    row = rows[index]
        pairs = list(zip(self.queries[user].tolist(), row.tolist(), strict=True))
        if self.similarity == "dot":
            score = sum(q * e for q, e in pairs)
        else:
            score = sum((q - e) ** 2 for q, e in pairs)
            score = -math.sqrt(score) if self.similarity == "l2" else -score
        score = float(np.float32(score))
        return score if self.bias is None else float(np.float32(score + float(self.bias[item])))

    def scores(self):
        rows = [
            [self.score(user, item) for item in range(self.num_items)] for user in range(len(self.queries))
        ]
        return np.array(rows, np.float32).reshape(len(self.queries), self.num_items)


def make_world(seed, *, specials=0, similarity=None, sizes=None):
    """Draw a world of small integers; up to `specials` of its numbers are NaN or infinite."""
    rng = np.random.default_rng(seed)
    users, num_items, dim = sizes or (rng.integers(0, 15), rng.integers(1, 45), rng.integers(0, 7))

    def small(*shape):
        return rng.integers(-2, 3, shape).astype(np.float32)

    def distinct_items():
        return rng.permutation(num_items)[: rng.integers(0, min(num_items, 5) + 1)]

    overrides = None
    if rng.random() < 0.5:
        overridden = [distinct_items() for _ in range(users)]
        indptr = np.cumsum([0, *map(len, overridden)], dtype=np.int64)
        overrides = (indptr, np.concatenate([np.zeros(0, np.int64), *overridden]), small(indptr[-1], dim))
    world = World(
        queries=small(users, dim),
        table=small(num_items, dim),
        similarity=similarity or SIMILARITIES[rng.integers(3)],
        bias=small(num_items) if rng.random() < 0.5 else None,
        overrides=overrides,
        excluded=[rng.integers(0, num_items, rng.integers(0, 6)).tolist() for _ in range(users)],
        targets=rng.integers(0, num_items, users),
        candidates=rng.integers(0, num_items, (users, rng.integers(1, 12))),
    )
    arrays = [world.queries, world.table]
    arrays += [] if world.bias is None else [world.bias]
    arrays += [] if overrides is None else [overrides[2]]
    for _ in range(specials):
        array = arrays[rng.integers(len(arrays))]
        if array.size:
            array.flat[rng.integers(array.size)] = SPECIAL[rng.integers(3)]
    return world


def rough_world(seed, users, num_items, dim, similarity="dot"):
    """Draw a world of normally distributed numbers."""
    rng = np.random.default_rng(seed)
    overridden = np.stack([rng.permutation(num_items)[:3] for _ in range(users)]).reshape(-1)
    return World(
        queries=rng.normal(size=(users, dim)).astype(np.float32),
        table=rng.normal(size=(num_items, dim)).astype(np.float32),
        similarity=similarity,
        bias=rng.normal(size=num_items).astype(np.float32),
        overrides=(
            np.arange(users + 1) * 3,
            overridden,
            rng.normal(size=(users * 3, dim)).astype(np.float32),
        ),
        excluded=rng.integers(0, num_items, (users, 4)).tolist(),
        targets=rng.integers(0, num_items, users),
        candidates=rng.integers(0, num_items, (users, 101)),
    )


def arguments():
    """Valid arguments of each kernel, by its name."""
    queries, table = np.zeros((2, 3), np.float32), np.zeros((5, 3), np.float32)
    settings = {"item_bias": None, "similarity": "dot", "overrides": None}
    lists = {"excluded_indptr": np.array([0, 1, 1]), "excluded_items": np.array([4])}
    factors = {"queries": queries, "item_table": table}
    scores = {"scores": np.zeros((2, 5), np.float32)}
    targets = {"targets": np.array([0, 4])}
    return {
        "rank_candidates": {**factors, "candidates": np.zeros((2, 4), np.int64), **settings},
        "rank_catalogue": {**factors, **targets, **lists, **settings},
        "top_n": {**factors, "n": 2, **lists, **settings},
        "rank_scores": scores,
        "rank_score_matrix": {**scores, **targets, **lists},
        "top_n_scores": {**scores, "n": 2, **lists},
    }
