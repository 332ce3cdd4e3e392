"""Coverage and popularity of lists against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.metrics.list_metrics import list_metrics

ITEMS = 12


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(
            st.tuples(
                st.lists(st.integers(-1, ITEMS - 1), min_size=n, max_size=n), st.integers(-1, ITEMS - 1)
            ),
            min_size=1,
            max_size=8,
        )
    ),
    st.lists(st.integers(0, 9), min_size=ITEMS, max_size=ITEMS),
)
def test_lists_are_measured_as_defined(users, counts):
    lists, targets = (np.array(part, np.int64) for part in zip(*users, strict=True))
    found = list_metrics(lists, targets, np.array(counts, np.int64))
    shown = [item for items, _ in users for item in items if item >= 0]
    chosen = [target for _, target in users if target >= 0]
    assert found.n == len(users[0][0])
    assert found.coverage == len(set(shown)) / ITEMS
    popularity = sum(counts[item] for item in shown) / len(shown) if shown else 0
    assert found.popularity == pytest.approx(popularity)
    wanted = sum(counts[item] for item in chosen) / len(chosen) if chosen else 0
    assert found.popularity_bias == (pytest.approx(popularity / wanted) if wanted else None)


def test_the_same_popular_items_for_everybody():
    counts = np.array([10, 10, 1, 1, 1, 1])
    lists, targets = np.tile([0, 1], (5, 1)), np.array([2, 3, 4, 5, 2])
    found = list_metrics(lists, targets, counts)
    assert found.coverage == pytest.approx(2 / 6)
    assert found.popularity_bias == 10
