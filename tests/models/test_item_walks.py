"""The walks of item-kNN, compared with the products of sparse matrices that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import metatl
from metatl import _metatl
from metatl.data.histories import Histories
from metatl.exceptions import InvalidArgumentError
from metatl.models.counting import SparseRows, invert
from metatl.models.item_knn import ItemKNN, ItemKNNConfig
from metatl.models.item_start.co_occurrences import scale_rows


def weigh(histories, recency, num_items):
    """Histories as rows of weights: 1 for the last item, then recency, recency², and so on."""
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    ages = histories.indptr[users + 1] - 1 - np.arange(len(users))
    return sp.csr_array((recency**ages, (users, histories.items)), shape=(len(histories), num_items))


def by_scipy(model, histories):
    config = model.config
    indptr, indices, values = model.matrix
    matrix = sp.csr_array((values, indices, indptr), shape=(model.num_items,) * 2)
    step = scale_rows(matrix, invert(matrix.sum(axis=1)))
    walk = weigh(histories, config.recency, model.num_items)
    walk = walk + config.second_step * (walk @ step)
    counts = model.item_counts
    return (walk @ matrix).toarray() + config.popularity * counts / max(int(counts.sum()), 1)


@pytest.mark.parametrize("preset", ["tuned", "paper"])
@pytest.mark.parametrize("limit", [0, 2048])
def test_scores_on_wines_are_those_of_scipy(preset, limit, monkeypatch):
    monkeypatch.setattr("metatl.models.item_knn._COMPOSED_ITEMS", limit)
    split = metatl.cold_start_split(metatl.datasets.xwines(), k=3)
    model = ItemKNN.fit(split.train, ItemKNNConfig.preset(preset))
    generator = np.random.default_rng(0)
    for length in (1, 3, 20):
        histories = Histories.from_matrix(generator.integers(0, model.num_items, (30, length)))
        np.testing.assert_allclose(model.score(histories), by_scipy(model, histories), rtol=1e-6, atol=1e-9)


def test_an_empty_matrix_scores_by_popularity():
    matrix = sp.csr_array((4, 4), dtype=np.float64)
    model = ItemKNN(ItemKNNConfig(), SparseRows.of(matrix), np.array([1, 0, 3, 4]))
    np.testing.assert_allclose(
        model.score(Histories.from_matrix(np.array([[0, 1]])))[0], 0.75 * np.array([1, 0, 3, 4]) / 8
    )


def walks(indptr=(0, 1, 2), indices=(1, 0), values=(1.0, 2.0), prior=(0.0, 0.0), **options):
    return _metatl.ItemWalks(
        np.array(indptr, np.int64),
        np.array(indices, np.int64),
        np.array(values, np.float64),
        prior=np.array(prior, np.float64),
        **{"recency": 0.5, "second_step": 1.0, "composed": True, **options},
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indptr": (0, 1, 3)}, "indptr: found"),
        ({"indptr": (0, 2, 1)}, "indptr: found"),
        ({"indptr": ()}, "indptr: found"),
        ({"indices": (1, 2)}, "indices: found 2 at position 1"),
        ({"values": (1.0,)}, "values: found 1 numbers, expected 2"),
    ],
)
@pytest.mark.parametrize("composed", [True, False])
def test_what_is_no_matrix_is_one_error(changes, message, composed):
    with pytest.raises(InvalidArgumentError, match=message):
        walks(composed=composed, **changes)


def test_what_is_no_history_is_one_error():
    made = walks()
    with pytest.raises(
        InvalidArgumentError, match="items: found 2 at position 0, expected items from 0 to 1"
    ):
        made.score(np.array([0, 1]), np.array([2]))
    with pytest.raises(InvalidArgumentError, match="prior: found 3 numbers, expected 2"):
        walks(prior=(0.0, 0.0, 0.0)).score(np.array([0, 1]), np.array([1]))
