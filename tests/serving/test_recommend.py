"""Recommendations, compared with sorting the scores of all items."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metatl
from metatl.data.histories import Histories
from metatl.evaluation.evaluate_runs import rank_users
from metatl.exceptions import InvalidArgumentError
from metatl.runs.run_directory import Run
from metatl.serving.recommendations import find_names
from metatl.serving.recommender import MAX_HISTORY, recommend

ITEM_IDS = pl.Series([7, 9, 10, 100, 101, 205, 1000])
COUNTS = np.array([5, 5, 1, 9, 0, 2, 3])


class LastItemNeighbours:
    """Scores an item by how close its index is to those of the history; later ones weigh more."""

    num_items = len(ITEM_IDS)

    def score(self, histories, *, num_threads=None):  # noqa: ARG002
        rows = np.split(histories.items, histories.indptr[1:-1])
        return np.concatenate([self.score_one(row[None]) for row in rows])

    def score_one(self, histories):
        items = np.arange(len(ITEM_IDS))
        closeness = -np.abs(items - histories[:, :, None]).astype(np.float32)
        weights = np.arange(1, histories.shape[1] + 1, dtype=np.float32)
        return (closeness * weights[:, None]).sum(axis=1)


def run_of(model, item_ids=ITEM_IDS, data=None):
    record = SimpleNamespace(seed=0, data=data)
    return Run(None, record, None, model, item_ids, COUNTS)


RUN = run_of(LastItemNeighbours())
known_ids = st.sampled_from(ITEM_IDS.to_list())
unknown_ids = st.sampled_from([1, 8, 99999])


@given(st.lists(st.lists(st.one_of(known_ids, unknown_ids), max_size=6), max_size=6), st.integers(1, 9))
def test_users_get_the_best_items_outside_the_history(histories, top):
    answer = recommend(RUN, histories, top=top)
    assert len(answer) == len(histories)
    for user, history in enumerate(histories):
        items = [ITEM_IDS.to_list().index(raw) for raw in history if raw in ITEM_IDS.to_list()]
        scores = RUN.model.score(Histories.from_matrix(np.array([items])))[0] if items else COUNTS
        allowed = [item for item in range(len(ITEM_IDS)) if item not in items]
        expected = sorted(allowed, key=lambda item: (-scores[item], item))[:top]
        assert [best.item_id for best in answer[user]] == [ITEM_IDS[item] for item in expected]
        assert [best.score for best in answer[user]] == [float(scores[item]) for item in expected]
        assert answer.basis(user) == ("history" if items else "popularity")
        assert answer.known_items[user] == len(items)
        assert answer.unknown_items[user] == tuple(
            str(raw) for raw in history if raw not in ITEM_IDS.to_list()
        )


def test_ids_match_as_text_or_numbers():
    assert recommend(RUN, [["100", "7"]])[0] == recommend(RUN, [[100, 7]])[0]
    texts = run_of(LastItemNeighbours(), ITEM_IDS.cast(pl.String).sort())
    assert [best.item_id for best in recommend(texts, [[100]], top=2)[0]] == ["10", "1000"]


@pytest.mark.parametrize(
    "history", [np.array([100, 7]), torch.tensor([100, 7]), [100.0, 7.0], ["100", "7"], pl.Series([100, 7])]
)
def test_histories_may_be_lists_arrays_tensors_or_series(history):
    run = run_of(LastItemNeighbours())
    expected = recommend(run, [[100, 7]], top=3)
    answer = recommend(run, [history], top=3)
    assert answer.unknown_items == ((),)
    assert np.array_equal(answer.items, expected.items)


@pytest.mark.parametrize(
    ("histories", "named"),
    [
        ("100,7", "histories: found str"),
        (["100,7"], r"histories\[0\]: found str"),
        ([[7], 100], r"histories\[1\]: found int"),
        (pl.DataFrame({"user_id": [1]}), "histories: found DataFrame"),
        ({"u": [7]}, "histories: found dict"),
        ([{7, 100}], r"histories\[0\]: found set, .* oldest first"),
    ],
)
def test_histories_that_are_not_lists_of_lists_are_errors(histories, named):
    with pytest.raises(InvalidArgumentError, match=named):
        recommend(run_of(LastItemNeighbours()), histories)


def test_the_model_sees_the_last_items_but_none_is_recommended_again():
    item_ids = pl.Series(np.arange(200))
    seen_lengths = []

    class Recorder:
        num_items = 200

        def score(self, histories, *, num_threads=None):  # noqa: ARG002
            seen_lengths.extend(histories.lengths.tolist())
            return np.tile(np.arange(200, dtype=np.float32), (len(histories), 1))

    run = replace(run_of(Recorder(), item_ids), item_counts=np.zeros(200, np.int64))
    answer = recommend(run, [list(range(199, 199 - MAX_HISTORY - 10, -1))], top=1)
    assert seen_lengths == [MAX_HISTORY]
    assert answer[0][0].item_id == 199 - MAX_HISTORY - 10


def test_frame_has_one_row_per_item():
    frame = recommend(RUN, [[100, 5], []], top=2).frame(pl.Series(["ann", "bob"]))
    assert frame.to_dict(as_series=False) == {
        "user_id": ["ann", "ann", "bob", "bob"],
        "rank": [1, 2, 1, 2],
        "item_id": [10, 101, 100, 7],
        "score": [-1.0, -1.0, 9.0, 5.0],
        "basis": ["history", "history", "popularity", "popularity"],
        "unknown_items": [1, 1, 0, 0],
    }
    everything = recommend(RUN, [ITEM_IDS.to_list()])
    assert everything[0] == []
    assert len(everything.frame()) == 0
    assert len(recommend(RUN, []).frame()) == 0


@pytest.mark.parametrize("top", [0, "3", 2.5, None, True])
def test_top_must_be_a_positive_whole_number(top):
    with pytest.raises(InvalidArgumentError, match=f"top: found {top!r}, expected a whole number"):
        recommend(RUN, [[7]], top=top)


def test_a_path_is_not_a_run():
    with pytest.raises(InvalidArgumentError, match=r"run: found str, expected metatl\.Run; .*load_run"):
        recommend("runs/popularity", [[7]])


def test_wines_have_names():
    ids = pl.Series([100003, -1])
    names = find_names(run_of(None, data="wines").record, ids)
    assert names.to_list() == ["Cabernet Sauvignon, Castellamare", None]
    assert find_names(run_of(None, data="other.csv").record, ids) is None


@pytest.fixture(scope="module", params=["knn", "metatl"])
def wine_run(request):
    small = {"dim": 8, "batch_size": 64, "max_steps": 10, "eval_every": 10, "warmup_steps": 5}
    return metatl.fit(
        "wines", model=request.param, config=small if request.param == "metatl" else {}, device="cpu"
    )


def test_interactions_are_answered_user_by_user(wine_run, tmp_path):
    path = tmp_path / "visitors.csv"
    ids = wine_run.item_ids.to_list()
    path.write_text(f"user,item,timestamp\nb,{ids[3]},2\nb,{ids[5]},1\na,{ids[8]},1\nc,999999999,1\n")
    interactions = metatl.read_interactions(path)
    answer = recommend(wine_run, interactions, top=3)
    assert interactions.user_ids.to_list() == ["a", "b", "c"]
    assert answer[1] == recommend(wine_run, [[ids[5], ids[3]]], top=3)[0]
    assert [answer.basis(user) for user in range(3)] == ["history", "history", "popularity"]
    assert answer.unknown_items == ((), (), ("999999999",))


def test_recommend_uses_the_support_negatives_of_the_evaluation():
    interactions = metatl.datasets.xwines()
    settings = {"max_steps": 1, "eval_every": 1, "init_scale": 1.0}
    run = metatl.fit(interactions, preset="paper", seed=1, config=settings, device="cpu")
    split = metatl.cold_start_split(interactions, k=3)
    users = split.test[:200]
    evaluated = rank_users(run.model, split, users, None, top=5).lists
    histories = [[split.item_ids[int(item)] for item in row] for row in split.histories(users)]
    assert np.array_equal(metatl.recommend(run, histories, top=5).items, evaluated)
    # Other support negatives give other items.
    assert not np.array_equal(rank_users(run.model, split, users, None, top=5, seed=1).lists, evaluated)
