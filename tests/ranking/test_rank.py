"""Ranking of factorised and scoring models, compared with scores by the formula."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from full_ranking import rank_catalogue
from metatl.common.timings import Timings
from metatl.exceptions import InvalidArgumentError, NotANumberError
from metatl.models.contract import Encoded, Overrides
from metatl.ranking.rank import encode_blocks, rank_candidates, top_n
from property_settings import COSTLY_CASES
from ragged_rows import ragged

NUM_ITEMS = 30
DIM = 3


class Translation:
    """Query = last item + the sum of the negatives; small integers, so that scores tie exactly."""

    def __init__(self, similarity, *, biased, overridden, negatives=0):
        generator = np.random.default_rng(0)
        self.similarity = similarity
        self.support_negatives = negatives
        self.item_table = torch.from_numpy(generator.integers(-1, 2, (NUM_ITEMS, DIM)).astype(np.float32))
        self.item_bias = (
            torch.from_numpy(generator.integers(0, 2, NUM_ITEMS).astype(np.float32)) if biased else None
        )
        self.overridden = overridden

    def encode(self, histories, negatives):
        assert (negatives is None) == (self.support_negatives == 0)
        queries = self.item_table[histories[:, -1]]
        if negatives is not None:
            queries = queries + self.item_table[negatives].sum(dim=1)
        if not self.overridden:
            return Encoded(queries, None)
        # The first and the last item of a history get an override; a single item gets one.
        items = histories[:, [0, -1]].clone()
        items[items[:, 0] == items[:, 1], 1] = -1
        return Encoded(queries, Overrides(items, self.item_table[items.clamp(min=0)] + 1.0))

    def scores(self, history, negatives=None):
        table = self.item_table.numpy().astype(np.float64)
        query = table[history[-1]] + (0 if negatives is None else table[negatives].sum(axis=0))
        if self.overridden:
            for item in {history[0], history[-1]}:
                table[item] += 1.0
        squared = ((table - query) ** 2).sum(axis=1)
        scores = {"dot": table @ query, "l2": -np.sqrt(squared), "squared_l2": -squared}[self.similarity]
        return scores if self.item_bias is None else scores + self.item_bias.numpy()


class Scorer:
    """A scoring model with the scores of a translation."""

    def __init__(self):
        self.translation = Translation("dot", biased=True, overridden=False)
        self.num_items = NUM_ITEMS

    def score(self, histories, *, num_threads=None):  # noqa: ARG002
        rows = np.split(histories.items, histories.indptr[1:-1])
        return np.stack([self.translation.scores(history) for history in rows]).astype(np.float32)

    def scores(self, history):
        return self.translation.scores(history)


class Case(NamedTuple):
    model: object
    rows: list[list[int]]


items = st.integers(0, NUM_ITEMS - 1)
rows_of_items = st.lists(st.lists(items, min_size=1, max_size=5), min_size=1, max_size=8)
factorised = st.builds(
    Translation, st.sampled_from(["dot", "squared_l2"]), biased=st.booleans(), overridden=st.booleans()
)
models = st.one_of(factorised, st.builds(Scorer))


def count(scores, target, others):
    return (
        sum(scores[item] > scores[target] for item in others),
        sum(scores[item] == scores[target] for item in others),
    )


@COSTLY_CASES
@given(models, rows_of_items, st.data())
def test_counts_and_lists_agree_with_the_formula(model, rows, data):
    histories = ragged(rows)
    rectangle = st.lists(items, min_size=6, max_size=6)
    candidates = data.draw(st.lists(rectangle, min_size=len(rows), max_size=len(rows)))
    candidates = np.array(candidates, dtype=np.int64)
    excluded = data.draw(st.lists(st.lists(items, max_size=5), min_size=len(rows), max_size=len(rows)))
    sampled = rank_candidates(model, histories, candidates)
    full = rank_catalogue(model, histories, candidates[:, 0].copy(), ragged(excluded))
    best = top_n(model, histories, NUM_ITEMS, ragged(excluded))
    for user, history in enumerate(rows):
        scores = model.scores(history)
        target, *others = candidates[user].tolist()
        assert (sampled.greater[user], sampled.equal[user]) == count(scores, target, others)
        catalogue = [item for item in range(NUM_ITEMS) if item not in excluded[user] and item != target]
        assert (full.greater[user], full.equal[user]) == count(scores, target, catalogue)
        allowed = [item for item in range(NUM_ITEMS) if item not in excluded[user]]
        expected = sorted(allowed, key=lambda item: (-scores[item], item))
        assert best.items[user].tolist() == expected + [-1] * (NUM_ITEMS - len(expected))
        np.testing.assert_allclose(best.scores[user][: len(expected)], scores[expected], rtol=1e-6)
        assert np.all(best.scores[user][len(expected) :] == -np.inf)


def test_l2_agrees_with_the_formula():
    model = Translation("l2", biased=False, overridden=True)
    rows = [[1, 2, 3], [4], [5, 6]]
    best = top_n(model, ragged(rows), 10, ragged([[], [], []]))
    for user, history in enumerate(rows):
        np.testing.assert_allclose(best.scores[user], np.sort(model.scores(history))[::-1][:10], atol=1e-5)


def test_support_negatives_depend_only_on_the_history_and_the_seed():
    model = Translation("squared_l2", biased=False, overridden=False, negatives=4)
    generator = np.random.default_rng(1)
    histories = generator.integers(0, NUM_ITEMS, size=(50, 3))
    nothing = ragged([[]] * 50)
    together = top_n(model, histories, 5, nothing, seed=3)
    one = ragged([[]])
    for user, history in enumerate(histories):
        alone = top_n(model, history[None], 5, one, seed=3)
        np.testing.assert_array_equal(alone.items[0], together.items[user])
        np.testing.assert_array_equal(alone.scores[0], together.scores[user])
    assert not np.array_equal(top_n(model, histories, 5, nothing, seed=4).scores, together.scores)


@pytest.mark.parametrize("model", [Translation("dot", biased=True, overridden=True), Scorer()])
def test_results_do_not_depend_on_the_blocks(model, monkeypatch):
    generator = np.random.default_rng(2)
    rows = [
        generator.integers(0, NUM_ITEMS, size=length).tolist() for length in generator.integers(1, 6, size=40)
    ]
    candidates = generator.integers(0, NUM_ITEMS, size=(40, 11))
    whole = rank_candidates(model, ragged(rows), candidates)

    monkeypatch.setattr("metatl.ranking.encoders.ENCODE_BLOCK_ITEMS", 7)
    monkeypatch.setattr("metatl.ranking.encoders.SCORE_BLOCK_BYTES", 4 * NUM_ITEMS * 3)
    blocks = list(encode_blocks(model, ragged(rows)))
    assert len(blocks) > 10
    again = rank_candidates(model, ragged(rows), candidates)
    np.testing.assert_array_equal(again.greater, whole.greater)
    np.testing.assert_array_equal(again.equal, whole.equal)


def test_stages_are_timed():
    timings = Timings()
    model = Translation("dot", biased=False, overridden=False)
    rank_candidates(model, np.array([[1, 2]]), np.array([[3, 4]]), timings=timings)
    assert list(timings.seconds) == ["encode", "rank"]
    assert all(seconds > 0 for seconds in timings.seconds.values())


@pytest.mark.parametrize("model", [Translation("dot", biased=False, overridden=False), Scorer()])
@pytest.mark.parametrize(
    ("rows", "candidates", "message"),
    [
        ([[1], []], [[1, 2], [1, 2]], "histories: row 1 is empty"),
        ([[1]], [[1, 2], [1, 2]], "candidates: found 2 rows, expected 1"),
        ([[NUM_ITEMS]], [[1, 2]], "histories: found item 30, expected 0 to 29"),
        ([[-1]], [[1, 2]], "histories: found item -1"),
        ([[1]], [[1, -1]], "candidates"),
        ([[1]], [[1, NUM_ITEMS]], "candidates"),
    ],
)
def test_bad_arguments_are_errors_that_name_them(model, rows, candidates, message):
    with pytest.raises(InvalidArgumentError, match=message):
        rank_candidates(model, ragged(rows), np.array(candidates))


def test_a_nan_score_of_any_candidate_is_an_error():
    for slot in range(4):
        model = Scorer()
        scores = np.arange(NUM_ITEMS, dtype=np.float32)
        scores[slot] = np.nan
        model.score = lambda histories, scores=scores, **_: np.tile(scores, (len(histories), 1))
        with pytest.raises(NotANumberError, match="1"):
            rank_candidates(model, np.array([[5]]), np.arange(4)[None])
        with pytest.raises(NotANumberError, match="1"):
            rank_catalogue(model, np.array([[5]]), np.array([2]), ragged([[7]]))
