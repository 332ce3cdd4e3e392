"""The trend of items against its definition."""

from types import SimpleNamespace

import numpy as np
import pytest

from metatl.models.item_start.trends import popularity_trend


def rows(items, ages, num_items):
    return SimpleNamespace(
        items=np.array(items),
        timestamps=1_000 - np.array(ages, dtype=np.int64),
        num_items=num_items,
        item_counts=np.bincount(items, minlength=num_items),
    )


def test_the_trend_is_that_of_the_definition():
    items, ages = [0, 0, 1, 1, 2], [30, 60, 10, 20, 90]
    half_life = 30 / 3
    weights = [2 ** (-age / half_life) for age in ages]
    scale = 5 / sum(weights)
    recent = [sum(w for w, i in zip(weights, items, strict=True) if i == item) * scale for item in range(4)]
    counts = [2, 2, 1, 0]
    expected = [np.log((r + 2) / (n + 2)) for r, n in zip(recent, counts, strict=True)]
    assert popularity_trend(rows(items, ages, 4), 1_000) == pytest.approx(expected, rel=1e-5)


def test_an_item_of_late_rises_and_one_of_old_falls():
    trend = popularity_trend(rows([0] * 50 + [1] * 50, [1] * 50 + [100] * 50, 3), 1_000)
    assert trend[0] > 0 > trend[1]
    assert trend[2] == 0


def test_rows_of_one_moment_have_no_trend():
    assert not popularity_trend(rows([0, 1, 1], [0, 0, 0], 2), 1_000).any()
    assert not popularity_trend(rows([], [], 2), 1_000).any()
