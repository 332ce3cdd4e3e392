"""Recommendations against sorting the scores of every item."""

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
from metatl.evaluation.evaluate_runs import rank_users
from metatl.exceptions import InvalidArgumentError
from metatl.ranking.recommend import MAX_HISTORY, find_names, recommend
from metatl.runs.run_directory import Run

ITEM_IDS = pl.Series([7, 9, 10, 100, 101, 205, 1000])
COUNTS = np.array([5, 5, 1, 9, 0, 2, 3])


class LastItemNeighbours:
    """Scores an item by how near its place is to the places of the history, the last one most."""

    num_items = len(ITEM_IDS)

    def score(self, histories):
        places = np.arange(len(ITEM_IDS))
        near = -np.abs(places - histories[:, :, None]).astype(np.float32)
        weights = np.arange(1, histories.shape[1] + 1, dtype=np.float32)
        return (near * weights[:, None]).sum(axis=1)


def run_of(model, item_ids=ITEM_IDS, data=None):
    record = SimpleNamespace(seed=0, data=data)
    return Run(None, record, None, model, item_ids, COUNTS)


RUN = run_of(LastItemNeighbours())
known_ids = st.sampled_from(ITEM_IDS.to_list())
unknown_ids = st.sampled_from([1, 8, 99999])


@given(st.lists(st.lists(st.one_of(known_ids, unknown_ids), max_size=6), max_size=6), st.integers(1, 9))
def test_answers_are_the_best_scores_outside_the_history(histories, top):
    answer = recommend(RUN, histories, top=top)
    assert len(answer) == len(histories)
    for user, history in enumerate(histories):
        places = [ITEM_IDS.to_list().index(item) for item in history if item in ITEM_IDS.to_list()]
        scores = RUN.model.score(np.array([places]))[0] if places else COUNTS
        allowed = [place for place in range(len(ITEM_IDS)) if place not in places]
        expected = sorted(allowed, key=lambda place: (-scores[place], place))[:top]
        assert [found.item_id for found in answer[user]] == [ITEM_IDS[place] for place in expected]
        assert [found.score for found in answer[user]] == [float(scores[place]) for place in expected]
        assert answer.basis(user) == ("history" if places else "popularity")
        assert answer.known_items[user] == len(places)
        assert answer.unknown_items[user] == tuple(
            str(item) for item in history if item not in ITEM_IDS.to_list()
        )


def test_ids_are_found_as_text_or_numbers():
    assert recommend(RUN, [["100", "7"]])[0] == recommend(RUN, [[100, 7]])[0]
    texts = run_of(LastItemNeighbours(), ITEM_IDS.cast(pl.String).sort())
    assert [found.item_id for found in recommend(texts, [[100]], top=2)[0]] == ["10", "1000"]


@pytest.mark.parametrize(
    "history", [np.array([100, 7]), torch.tensor([100, 7]), [100.0, 7.0], ["100", "7"], pl.Series([100, 7])]
)
def test_ids_are_read_as_they_come(history):
    run = run_of(LastItemNeighbours())
    expected = recommend(run, [[100, 7]], top=3)
    found = recommend(run, [history], top=3)
    assert found.unknown_items == ((),)
    assert np.array_equal(found.items, expected.items)


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
def test_what_is_no_list_of_lists_is_named(histories, named):
    with pytest.raises(InvalidArgumentError, match=named):
        recommend(run_of(LastItemNeighbours()), histories)


def test_only_the_last_items_count_but_none_is_recommended_again():
    item_ids = pl.Series(np.arange(200))
    seen_lengths = []

    class Recorder:
        num_items = 200

        def score(self, histories):
            seen_lengths.append(histories.shape[1])
            return np.tile(np.arange(200, dtype=np.float32), (len(histories), 1))

    run = replace(run_of(Recorder(), item_ids), item_counts=np.zeros(200, np.int64))
    answer = recommend(run, [list(range(199, 199 - MAX_HISTORY - 10, -1))], top=1)
    assert seen_lengths == [MAX_HISTORY]
    assert answer[0][0].item_id == 199 - MAX_HISTORY - 10


def test_the_table_of_answers():
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
def test_at_least_one_item_is_asked_for(top):
    with pytest.raises(InvalidArgumentError, match=f"top: found {top!r}, expected a whole number"):
        recommend(RUN, [[7]], top=top)


def test_a_path_is_no_run():
    with pytest.raises(InvalidArgumentError, match=r"run: found str, expected metatl\.Run; .*load_run"):
        recommend("runs/popularity", [[7]])


def test_wines_have_names():
    ids = pl.Series([100003, -1])
    names = find_names(run_of(None, data="wines"), ids)
    assert names.to_list() == ["Cabernet Sauvignon, Castellamare", None]
    assert find_names(run_of(None, data="other.csv"), ids) is None


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


def test_users_are_served_with_the_negatives_that_they_are_evaluated_with():
    interactions = metatl.datasets.xwines()
    settings = {"max_steps": 1, "eval_every": 1, "init_scale": 1.0}
    run = metatl.fit(interactions, preset="paper", seed=1, config=settings, device="cpu")
    split = metatl.cold_start_split(interactions, k=3)
    users = split.test[:200]
    evaluated = rank_users(run.model, split, users, None, top=5).lists
    histories = [[split.item_ids[int(item)] for item in row] for row in split.histories(users)]
    assert np.array_equal(metatl.recommend(run, histories, top=5).items, evaluated)
    # Others would give other answers.
    assert not np.array_equal(rank_users(run.model, split, users, None, top=5, seed=1).lists, evaluated)
