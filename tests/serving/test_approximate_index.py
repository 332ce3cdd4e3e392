"""Approximate lists: nearly all of the exact best items, with the scores of the exact kernel."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import metatl
from metatl.common.timings import Timings
from metatl.data.histories import Histories
from metatl.exceptions import InvalidArgumentError
from metatl.ranking.encoders import ArrayEncoder
from metatl.ranking.item_tables import as_item_table
from metatl.serving import approximate_index, served_run
from metatl.serving.approximate_index import build_index
from metatl.serving.recommender import Recommender
from metatl.serving.served_run import ServedRun
from planted_data import write_ring

ITEMS, DIM = 6000, 16


class LastItem:
    """An encoder whose query is the vector of the last item."""

    inner_steps = 0

    def __init__(self, item_table, item_bias, similarity):
        self.item_table, self.item_bias, self.similarity = item_table, item_bias, similarity

    def encode(self, histories, *, seed, num_threads):  # noqa: ARG002
        return self.item_table[histories.items[histories.indptr[1:] - 1]]


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(60, DIM))
    rows = centres[generator.integers(60, size=ITEMS)] + 0.4 * generator.normal(size=(ITEMS, DIM))
    return rows.astype(np.float32), generator.normal(size=ITEMS).astype(np.float32)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(approximate_index, "SMALLEST_CATALOGUE", 1000)


def serve(vectors, similarity, *, with_bias=True, item_format="float32", approximate=True):
    table, bias = vectors
    arrays = LastItem(table, bias if with_bias else None, similarity)
    encoder = ArrayEncoder.of(arrays, as_item_table(table, item_format), 0, 1, Timings())
    counts = np.random.default_rng(1).integers(1, 50, size=ITEMS)
    index = build_index(encoder, counts) if approximate else None
    ids = pl.Series("item_id", np.arange(ITEMS))
    return Recommender(ServedRun(None, None, ids, counts, encoder, item_format, index))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("similarity", "with_bias", "item_format"),
    [
        ("squared_l2", True, "float32"),
        ("squared_l2", False, "bf16"),
        ("dot", True, "int8"),
        ("dot", False, "float32"),
        ("l2", False, "float32"),
    ],
)
def test_lists_are_nearly_the_exact_ones(vectors, similarity, with_bias, item_format):
    options = {"with_bias": with_bias, "item_format": item_format}
    approximate = serve(vectors, similarity, **options)
    exact = serve(vectors, similarity, **options, approximate=False)
    histories = np.random.default_rng(2).integers(ITEMS, size=(300, 3)).tolist()
    answers, expected = approximate.recommend(histories, 10), exact.recommend(histories, 10)
    hits = [len(set(one) & set(other)) / 10 for one, other in zip(answers.items, expected.items, strict=True)]
    assert approximate.run.index.recall >= approximate_index.TARGET_RECALL
    assert np.mean(hits) >= 0.95
    # The scores are those of the exact kernel, in its order.
    for history, row, scores in zip(histories[:20], answers.items, answers.scores, strict=False):
        np.testing.assert_array_equal(exact.scores([history], row.tolist())[0], scores)
        assert not set(row.tolist()) & set(history)
        assert (np.diff(scores) <= 0).all()
    # A user's list does not depend on the others.
    excluded = [[1], *(list(range(user, user + 60)) for user in range(1, 6))]
    together = approximate.recommend(histories[:6], 200, exclude=excluded)
    for user in range(6):
        alone = approximate.recommend(histories[user : user + 1], 200, exclude=[excluded[user]])
        np.testing.assert_array_equal(alone.items[0], together.items[user])


@pytest.mark.usefixtures("small")
def test_filters_hold(vectors):
    approximate, exact = serve(vectors, "squared_l2"), serve(vectors, "squared_l2", approximate=False)
    history = [[7, 8, 9]]
    best = [item.item_id for item in exact.recommend(history, 60)[0]]
    left = approximate.recommend(history, 10, exclude=best[:50])[0]
    assert not {item.item_id for item in left} & set(best[:50])
    assert len(left) == 10
    for filters in ({"allow": best[::3]}, {"candidates": [best[::7]]}):
        assert approximate.recommend(history, 10, **filters)[0] == exact.recommend(history, 10, **filters)[0]
    again = approximate.recommend(history, 10, include_history=True)[0]
    assert again[0].item_id == exact.recommend(history, 10, include_history=True)[0][0].item_id
    assert len(approximate.recommend(history, 500)[0]) == 500


@pytest.mark.usefixtures("small")
def test_a_distance_with_a_bias_is_refused(vectors):
    with pytest.raises(InvalidArgumentError, match=r"approximate: found the distance .* with an item bias"):
        serve(vectors, "l2")


@pytest.mark.usefixtures("small")
def test_an_index_proposes_distinct_items(vectors):
    index = serve(vectors, "dot").run.index
    proposed = index.propose(vectors[0][:50], np.full(50, 40))
    assert isinstance(proposed, Histories)
    for user in range(50):
        items = proposed.items[proposed.indptr[user] : proposed.indptr[user + 1]]
        assert len(items) == len(set(items.tolist())) <= 40


def test_where_it_is_not_offered(tmp_path, monkeypatch):
    data = write_ring(tmp_path / "ring.csv", 100, items=20)
    for model in ("metatl", "markov"):
        config = {"dim": 8, "max_steps": 2, "eval_every": 2} if model == "metatl" else {}
        metatl.fit(data, model=model, config=config, out=tmp_path / model, device="cpu")
    with pytest.raises(InvalidArgumentError, match="approximate: found a catalogue of 20 items, expected"):
        metatl.Recommender.load(tmp_path / "metatl", approximate=True)
    with pytest.raises(InvalidArgumentError, match="approximate: markov is not served from item vectors"):
        metatl.Recommender.load(tmp_path / "markov", approximate=True)
    # A reload builds the index anew.
    monkeypatch.setattr(approximate_index, "SMALLEST_CATALOGUE", 10)
    monkeypatch.setattr(served_run, "build_index", lambda *_: "an index")
    recommender = metatl.Recommender.load(tmp_path / "metatl", approximate=True)
    recommender.reload()
    assert recommender.run.index == "an index"
