"""Popularity against counting."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from metatl.data.histories import Histories
from metatl.models.popularity import Popularity, PopularityConfig


def fitted(items, num_items):
    counts = np.bincount(np.array(items, dtype=np.int64), minlength=num_items)
    train = SimpleNamespace(item_counts=counts)
    return Popularity.fit(train, PopularityConfig.preset("tuned"))


def test_scores_are_training_counts():
    items = np.random.default_rng(0).integers(0, 20, size=500).tolist()
    counts = Counter(items)
    scores = fitted(items, 22).score(Histories.from_matrix(np.zeros((3, 2), dtype=np.int64)))
    assert scores.dtype == np.float32
    assert scores.flags.c_contiguous
    assert scores.tolist() == [[counts[item] for item in range(22)]] * 3


def test_tensors_of_another_catalogue_are_refused():
    model = fitted([0, 1, 1], 3)
    with pytest.raises(ValueError, match="item_counts"):
        Popularity.from_tensors(model.config, 4, model.tensors())
