"""The recommender: filters, scores, explanations and reloads, against plain lists of scored items."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metatl
from metatl import _metatl
from metatl.data.ids import find_ids, id_text
from metatl.exceptions import ArgumentTypeError, DataError, InvalidArgumentError, RunError
from metatl.serving.item_lookup import ItemLookup
from metatl.serving.raw_histories import look_up_histories
from planted_data import write_ring

ITEMS = 40
SMALL = {"dim": 8, "batch_size": 32, "max_steps": 4, "eval_every": 2, "shared_negatives": 16}
SYSTEMS = ("metatl", "knn", "markov", "session-knn", "popularity", "bpr")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = write_ring(folder / "ring.csv", 200, items=ITEMS)
    for model in SYSTEMS:
        config = {"metatl": {**SMALL, "shared_support_negatives": 8}, "bpr": {"dim": 8, "max_steps": 4}}
        metatl.fit(data, model=model, config=config.get(model, {}), out=folder / model, device="cpu")
    return folder


@pytest.fixture(scope="module", params=SYSTEMS)
def recommender(request, runs):
    return metatl.Recommender.load(runs / request.param)


@pytest.fixture(scope="module")
def one(runs):
    return metatl.Recommender.load(runs / "metatl")


def ids_of(recommender):
    return recommender.item_ids.to_list()


def listed(answer, user=0):
    return [(best.item_id, best.score) for best in answer[user]]


def expected_list(recommender, history, passes, top):
    """All items by their score, of which those that pass are kept."""
    ids = ids_of(recommender)
    known = [item for item in history if item in ids]
    if known:
        scores = recommender.scores([history], ids)[0]
    else:
        scores = recommender.run.item_counts.astype(np.float32)
    order = sorted(range(len(ids)), key=lambda item: (-scores[item], item))
    return [(ids[item], float(scores[item])) for item in order if passes(ids[item])][:top]


HISTORIES = [["i3", "i4", "i5"], ["i7"], [], ["unknown"], ["i1", "i2", "i1", "i39"]]


def test_lists_are_the_best_scores(recommender):
    answer = recommender.recommend(HISTORIES, 7)
    for user, history in enumerate(HISTORIES):
        expected = expected_list(recommender, history, lambda item, own=history: item not in own, 7)
        assert listed(answer, user) == expected
        assert listed(recommender.recommend([history], 7)) == expected


def test_items_of_the_history_may_come_again(recommender):
    answer = recommender.recommend(HISTORIES, ITEMS + 5, include_history=True)
    for user, history in enumerate(HISTORIES):
        assert listed(answer, user) == expected_list(recommender, history, lambda _: True, ITEMS)


@given(
    kind=st.sampled_from(["exclude", "allow", "candidates"]),
    form=st.sampled_from(["ids", "mask", "ids of users", "mask of users", "set", "series"]),
    seed=st.integers(0, 10**6),
    include_history=st.booleans(),
    top=st.integers(1, ITEMS + 3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filters_leave_out_what_they_name(recommender, kind, form, seed, include_history, top):
    generator = np.random.default_rng(seed)
    ids = ids_of(recommender)
    masks = generator.random((len(HISTORIES), len(ids))) < generator.random()
    if "users" not in form:
        masks[:] = masks[0]
    lists = [[item for item, chosen in zip(ids, mask, strict=True) if chosen] for mask in masks]
    filters = {
        "ids": [*lists[0], "no such item"],
        "set": set(lists[0]),
        "series": pl.Series(lists[0], dtype=pl.String),
        "mask": masks[0],
        "ids of users": [[*own, "no such item"] for own in lists],
        "mask of users": masks,
    }
    answer = recommender.recommend(HISTORIES, top, include_history=include_history, **{kind: filters[form]})
    for user, history in enumerate(HISTORIES):

        def passes(item, user=user, history=history):
            chosen = (item in lists[user]) != (kind == "exclude")
            return chosen and (include_history or item not in history)

        assert listed(answer, user) == expected_list(recommender, history, passes, top)


def test_filters_join(one):
    ids = ids_of(one)
    allow, exclude = ids[::2], [ids[::3], ids[:4]]
    answer = one.recommend([["i3"], []], ITEMS, allow=allow, exclude=exclude)
    for user, history in enumerate((["i3"], [])):

        def passes(item, user=user, history=history):
            return item in allow and item not in exclude[user] and item not in history

        assert listed(answer, user) == expected_list(one, history, passes, ITEMS)


def test_conditions_select_items(runs):
    ids = [f"i{number}" for number in range(ITEMS - 1, -1, -2)]
    table = pl.DataFrame(
        {"item_id": ids, "price": np.arange(len(ids)), "kind": ["cup", "plate"] * (len(ids) // 2)}
    )
    recommender = metatl.Recommender.load(runs / "metatl", items=table)
    assert recommender.items.columns == ["item_id", "price", "kind"]
    assert recommender.items["item_id"].to_list() == ids_of(recommender)
    of_item = dict(zip(ids, table.rows(named=True), strict=True))
    for where, passes in [
        ({"kind": "cup"}, lambda row: row["kind"] == "cup"),
        ({"kind": ["cup", "plate"], "price": 3}, lambda row: row["price"] == 3),
        (pl.col("price") > 5, lambda row: row["price"] > 5),
        (pl.lit(value=True), lambda _: True),
    ]:
        answer = recommender.recommend([["i3"]], ITEMS, where=where)
        everything = isinstance(where, pl.Expr) and where.meta.root_names() == []

        def chosen(item, passes=passes, everything=everything):
            return item != "i3" and (everything or (item in of_item and passes(of_item[item])))

        assert listed(answer) == expected_list(recommender, ["i3"], chosen, ITEMS)
    table.write_csv(runs / "items.csv")
    from_file = metatl.Recommender.load(runs / "metatl", items=runs / "items.csv")
    assert listed(from_file.recommend([["i3"]], where={"kind": "cup"})) == listed(
        recommender.recommend([["i3"]], where={"kind": "cup"})
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": np.ones(3, bool)}, r"exclude: found a mask of shape \(3,\), expected \(40,\)"),
        ({"allow": [["i1"]]}, "allow: found 1 lists, expected one list of ids, or 2"),
        ({"allow": ["i1"], "candidates": ["i2"]}, "candidates: found candidates and allow, expected one"),
        ({"where": {"kind": 1}}, "where: found a condition but no item table; load one with items="),
        ({"top": 0}, "top: found 0"),
        ({"exclude": "i1"}, "exclude: found str, expected a list of item ids"),
        ({"exclude": [["i1"], [["i2"]]]}, "exclude, id 1: found list as an item id"),
    ],
)
def test_what_does_not_fit_is_one_error(one, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        one.recommend([["i3"], ["i4"]], **options)


def test_item_tables_that_do_not_fit_are_refused(runs):
    with pytest.raises(DataError, match="'item_id': found 'i1' again, expected each item once"):
        metatl.Recommender.load(runs / "metatl", items=pl.DataFrame({"item_id": ["i1", "i1"]}))
    recommender = metatl.Recommender.load(runs / "metatl", items=pl.DataFrame({"item_id": ["i1"], "a": [1]}))
    with pytest.raises(InvalidArgumentError, match="where: found no column 'b' among 'item_id', 'a'"):
        recommender.recommend([["i3"]], where={"b": 1})
    with pytest.raises(InvalidArgumentError, match="where: found"):
        recommender.recommend([["i3"]], where=pl.col("b") == 1)
    with pytest.raises(InvalidArgumentError, match="where: found values of type Int64, expected true or"):
        recommender.recommend([["i3"]], where=pl.col("a"))
    with pytest.raises(ArgumentTypeError, match="where: found str, expected a polars expression"):
        recommender.recommend([["i3"]], where="a = 1")


def test_scores_of_unknown_items_and_users_are_nan(recommender):
    scores = recommender.scores([["i1", "i2"], ["unknown"], []], ["i5", "unknown", "i5"])
    assert scores.shape == (3, 3)
    assert np.isnan(scores[:, 1]).all()
    assert np.isnan(scores[1:]).all()
    assert scores[0, 0] == scores[0, 2]


def test_shares_add_up_to_the_score(recommender):
    for history in (["i3", "i4", "i5", "unknown"], ["i3"]):
        for item in ("i6", "i3", "i20"):
            explanation = recommender.explain(history, item)
            known = [one for one in history if one != "unknown"]
            assert [share.item_id for share in explanation.items] == known
            assert explanation.score == recommender.scores([history], [item])[0, 0]
            frame = explanation.frame()
            assert frame["share"].sum() == pytest.approx(explanation.score, abs=1e-4)
            assert frame.height == len(explanation.items) + len(explanation.transitions) + 2


def test_shares_of_metatl_are_those_of_the_formula(one):
    """Without the transitions' σ and the step, a share is what the item's vector adds to 2 q·(e - ē)."""
    arrays = one.run.encoder.arrays
    explanation = one.explain(["i3", "i4", "i5"], "i9")
    items = [ids_of(one).index(item) for item in ("i3", "i4", "i5", "i9")]
    rows = arrays.item_table[items].astype(float)
    direction = 2 * (rows[3] - arrays.item_table.mean(axis=0))
    heads, tails = arrays.learner.skip
    parts = [heads * rows[0] / 2, (heads + tails) * rows[1] / 2, rows[2] + tails * rows[2] / 2]
    assert [share.share for share in explanation.items] == pytest.approx([part @ direction for part in parts])
    assert len(explanation.transitions) == 2
    assert explanation.adaptation != 0


def test_what_cannot_be_explained_is_one_error(one):
    with pytest.raises(InvalidArgumentError, match="item: found 'unknown', expected an item of the run"):
        one.explain(["i3"], "unknown")
    with pytest.raises(InvalidArgumentError, match="history: found no known item"):
        one.explain(["unknown"], "i3")


def test_similar_items_are_others(recommender):
    answers = recommender.similar_items(["i3", "unknown", "i4"], 5)
    assert answers[1] == []
    for item, answer in (("i3", answers[0]), ("i4", answers[2])):
        assert len(answer) == 5
        assert item not in [best.item_id for best in answer]
        assert [best.score for best in answer] == sorted((best.score for best in answer), reverse=True)


def test_similarity_of_metatl_is_the_cosine(one):
    vectors = one.run.encoder.arrays.item_table.astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    item = ids_of(one).index("i3")
    cosines = vectors @ vectors[item]
    for best in one.similar_items(["i3"], 5)[0]:
        assert best.score == pytest.approx(cosines[ids_of(one).index(best.item_id)], abs=1e-5)


# --- Exchanging the run


def test_a_run_is_exchanged_while_it_answers(runs, tmp_path):
    path = tmp_path / "run"
    data, config = runs / "ring.csv", {**SMALL, "shared_support_negatives": 8}
    metatl.fit(data, config=config, out=path, device="cpu")
    recommender = metatl.Recommender.load(path, refresh=True)
    first = listed(recommender.recommend([["i3", "i4"]]))
    stop, wrong, answers = threading.Event(), [], set()

    def ask():
        while not stop.is_set():
            try:
                answers.add(tuple(listed(recommender.recommend([["i3", "i4"]]))))
            except Exception as error:  # noqa: BLE001, PERF203 (whatever it is, it is wrong)
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    metatl.fit(data, config=config, out=path, overwrite=True, seed=1, device="cpu")
    second = listed(metatl.Recommender.load(path).recommend([["i3", "i4"]]))
    for _ in range(200):
        if tuple(second) in answers:
            break
        stop.wait(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert first != second
    assert answers == {tuple(first), tuple(second)}


def test_reload_takes_another_run_or_keeps_this_one(runs, tmp_path):
    recommender = metatl.Recommender.load(runs / "metatl")
    before = listed(recommender.recommend([["i3"]]))
    with pytest.raises(RunError):
        recommender.reload(tmp_path / "none")
    assert listed(recommender.recommend([["i3"]])) == before
    recommender.reload(runs / "markov")
    assert recommender.run.record.model == "markov"
    assert listed(recommender.recommend([["i3"]])) == listed(
        metatl.Recommender.load(runs / "markov").recommend([["i3"]])
    )


def test_a_run_in_memory_answers_as_the_stored_one(runs):
    run = metatl.load_run(runs / "metatl")
    recommender = metatl.Recommender.of(run)
    stored = metatl.Recommender.load(runs / "metatl")
    assert listed(recommender.recommend([["i3", "i8"]])) == listed(stored.recommend([["i3", "i8"]]))
    assert listed(metatl.recommend(run, [["i3", "i8"]])) == listed(stored.recommend([["i3", "i8"]]))


@pytest.mark.parametrize("item_table", ["float32", "bf16", "int8"])
def test_rounded_tables_answer_nearly_the_same(runs, one, item_table):
    rounded = metatl.Recommender.load(runs / "metatl", item_table=item_table, threads=1)
    assert rounded.run.item_format == item_table
    scores = rounded.scores([["i3", "i8"]], ids_of(one))
    np.testing.assert_allclose(scores, one.scores([["i3", "i8"]], ids_of(one)), rtol=0.05, atol=0.05)


def test_systems_without_vectors_cannot_be_rounded(runs):
    with pytest.raises(InvalidArgumentError, match="item_table: expected float32"):
        metatl.Recommender.load(runs / "markov", item_table="bf16")


@pytest.mark.parametrize("model", ["metatl", "knn", "markov", "session-knn", "popularity"])
def test_torch_is_not_imported(runs, model):
    program = f"""
import sys, metatl
recommender = metatl.Recommender.load({str(runs / model)!r})
recommender.recommend([["i3", "i4"]], exclude=["i5"])
recommender.scores([["i3"]], ["i5"])
recommender.similar_items(["i3"])
recommender.explain(["i3", "i4"], "i5")
recommender.reload()
assert not {"torch", "scipy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# --- Ids


SPELLINGS = st.one_of(
    st.integers(-3, 12),
    st.integers(-(2**70), 2**70),
    st.sampled_from(
        ["1", " 7", "7.0", "007", "1e+01", "x", "", "-0", "9223372036854775808", 7.0, 2.5, True, None, "٣"]
    ),
    st.integers(0, 12).map(np.int64),
)


@given(
    st.one_of(
        st.lists(st.integers(-3, 12), min_size=1, unique=True).map(lambda ids: pl.Series(sorted(ids))),
        st.lists(
            st.sampled_from(["1", "7", "007", "x", "10", "True", "-3", "٣"]), min_size=1, unique=True
        ).map(lambda ids: pl.Series(ids).sort()),
    ),
    st.lists(SPELLINGS),
)
def test_lookup_finds_what_the_rule_of_ids_finds(item_ids, wanted):
    lookup = ItemLookup(item_ids)
    np.testing.assert_array_equal(lookup.find(wanted, str), find_ids(item_ids, wanted))


@given(
    st.sampled_from([pl.Series([-3, 0, 1, 7, 10]), pl.Series(["-3", "007", "1", "7", "x"])]),
    st.lists(st.lists(st.one_of(SPELLINGS, st.integers(-3, 12), st.sampled_from("17x")), max_size=4)),
    st.booleans(),
)
def test_many_lists_are_looked_up_like_each_id(item_ids, histories, in_tuples):
    histories = [tuple(row) if in_tuples else row for row in histories]
    known, unknown = look_up_histories(ItemLookup(item_ids), item_ids, histories)
    for row, history in enumerate(histories):
        found = find_ids(item_ids, history).tolist()
        assert known.items[known.indptr[row] : known.indptr[row + 1]].tolist() == [
            item for item in found if item >= 0
        ]
        lost = [id_text(value) for value, item in zip(history, found, strict=True) if item < 0]
        assert unknown[row] == tuple(lost)


def test_lists_of_other_types_are_left_to_the_rule():
    index = {7: 0, 9: 1}
    for lists in ([[7], {9}], [[7], [True]], [[7], [9.0]], [[7, "9"]], [range(7, 9)], [np.array([7])]):
        assert _metatl.look_up_ids(lists, index, texts=False) is None
    indptr, items = _metatl.look_up_ids([[9, 7], (), (8, 2**70)], index, texts=False)
    assert (indptr.tolist(), items.tolist()) == ([0, 2, 2, 4], [1, 0, -1, -1])
    assert _metatl.look_up_ids([["7"]], {"7": 3}, texts=True)[1].tolist() == [3]
    for wrong in ((([7],), index, False), ([[7]], [7], False), ([[7]], {7: "x"}, False)):
        with pytest.raises(TypeError):
            _metatl.look_up_ids(*wrong)


def test_large_catalogues_are_searched(monkeypatch):
    monkeypatch.setattr("metatl.serving.item_lookup._SMALL_CATALOGUE", 2)
    lookup = ItemLookup(pl.Series([3, 5, 9]))
    assert lookup.find([9, 4, 3, 2**62, -(2**63)], str).tolist() == [2, -1, 0, -1, -1]
    assert lookup.find([2**80, 3], str).tolist() == [-1, 0]
    assert lookup.find(["5.0", 5, " 9"], str).tolist() == [1, 1, 2]
    assert lookup.find([], str).tolist() == []
