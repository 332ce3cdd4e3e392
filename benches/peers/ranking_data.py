"""The folder of arrays that `rankers.py` passes to the libraries' environment.

    user_vectors.npy  float32 (U, d)
    item_vectors.npy  float32 (I, d)
    indptr.npy        int64 (U + 1,): start of the items of each user
    seen.npy          int64 (N,): the users' items, ascending, none twice
    lists.npy         int64 (U, n): metatl's best items of each user
    targets.npy       int64 (U,): the item to look for in each list

This file needs only numpy, so it runs in every environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("user_vectors", "item_vectors", "indptr", "seen")


@dataclass(frozen=True)
class RankingData:
    """Vectors of users and items, and the seen items of each user."""

    user_vectors: np.ndarray
    item_vectors: np.ndarray
    indptr: np.ndarray
    seen: np.ndarray

    @classmethod
    def draw(cls, num_users: int, num_items: int, dim: int) -> RankingData:
        """Random vectors; up to 25 items a user, some far more popular than others."""
        generator = np.random.default_rng(0)
        lengths = generator.integers(5, 26, num_users)
        popularity = 1 / np.arange(10, num_items + 10)
        drawn = generator.choice(num_items, lengths.sum(), p=popularity / popularity.sum())
        users, seen = np.divmod(
            np.unique(np.repeat(np.arange(num_users), lengths) * num_items + drawn), num_items
        )
        vectors = [generator.standard_normal((count, dim), np.float32) for count in (num_users, num_items)]
        return cls(*vectors, np.searchsorted(users, np.arange(num_users + 1)), seen)

    @classmethod
    def load(cls, folder: Path) -> RankingData:
        return cls(*(np.load(folder / f"{name}.npy") for name in NAMES))

    def save(self, folder: Path) -> None:
        for name in NAMES:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @property
    def num_users(self) -> int:
        return len(self.user_vectors)

    @property
    def num_items(self) -> int:
        return len(self.item_vectors)

    @property
    def owners(self) -> np.ndarray:
        """The user (N,) of each item of `seen`."""
        return np.repeat(np.arange(self.num_users), np.diff(self.indptr))

    def has_seen(self, items: np.ndarray) -> np.ndarray:
        """Whether user b has seen the items of row b: bool, of the shape (U, n) of `items`."""
        rows = np.arange(self.num_users)[:, None] * self.num_items
        return np.isin(rows + items, self.owners * self.num_items + self.seen)
