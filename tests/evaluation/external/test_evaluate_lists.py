"""Ranked lists against two libraries, and the files that they come in."""

from __future__ import annotations

import ir_measures
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.evaluation.external.evaluate_lists import evaluate_lists
from metatl.evaluation.external.evaluate_scores import evaluate_scores
from metatl.evaluation.external.ranked_lists import read_lists, read_targets
from metatl.exceptions import DataError, NotANumberError

METRICS = "MRR,HR@1,HR@5,NDCG@5,MRR@5"
MEASURES = [
    ir_measures.RR,
    ir_measures.Success @ 1,
    ir_measures.Success @ 5,
    ir_measures.nDCG @ 5,
    ir_measures.RR @ 5,
]


def by_library(lists, targets):
    """The measures of each user by ir_measures, users in the order of the targets."""
    relevant = [ir_measures.Qrel(user, item, 1) for user, item in targets.rows()]
    run = [ir_measures.ScoredDoc(user, item, score) for user, item, score in lists.rows()]
    values = np.zeros((len(targets), len(MEASURES)))
    places = {user: place for place, user in enumerate(targets["user_id"].to_list())}
    for found in ir_measures.iter_calc(MEASURES, relevant, run):
        values[places[found.query_id], MEASURES.index(found.measure)] = found.value
    return values


def random_lists(seed, users=8, length=7):
    """Lists without ties of some users, and targets of others; some are in both, some targets in no list."""
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        items = generator.permutation(12)[: int(generator.integers(1, length))]
        scores = generator.permutation(100)[: len(items)].astype(float)
        rows += [(f"u{user}", f"i{item}", score) for item, score in zip(items, scores, strict=True)]
    lists = pl.DataFrame(rows, schema=["user_id", "item_id", "score"], orient="row")
    owners = generator.permutation(users + 2)[: users - 1]
    targets = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in owners],
            "target": [f"i{item}" for item in generator.integers(0, 12, len(owners))],
        }
    )
    return lists, targets


@given(st.integers(0, 2**32))
def test_every_user_scores_as_in_the_library(seed):
    lists, targets = random_lists(seed)
    frame = evaluate_lists(lists, targets, metrics=METRICS).per_user
    assert frame["user_id"].equals(targets["user_id"])
    np.testing.assert_allclose(
        frame.select(METRICS.split(",")).to_numpy(), by_library(lists, targets), rtol=1e-12
    )


def trec(tmp_path, lists, targets):
    run, qrels = tmp_path / "run.txt", tmp_path / "qrels.txt"
    lines = [f"{user} Q0 {item} 0 {score}\tmine" for user, item, score in lists.rows()]
    run.write_text("\n".join(lines) + "\n\n")
    lines = [f"{user} 0 {item} 1" for user, item in targets.rows()]
    lines += [f"{user}  0  never 0" for user in targets["user_id"]]
    qrels.write_text("\n".join(lines))
    return run, qrels


def test_every_form_of_lists_gives_the_same(tmp_path):
    lists, targets = random_lists(4, users=60)
    expected = evaluate_lists(lists, targets).results
    ranked = lists.with_columns(rank=pl.col("score").rank(descending=True).over("user_id").cast(pl.Int64))
    lists.write_parquet(tmp_path / "scores.parquet")
    ranked.drop("score").write_parquet(tmp_path / "ranks.parquet")
    targets.write_parquet(tmp_path / "targets.parquet")
    run, qrels = trec(tmp_path, lists, targets)
    for given_lists, given_targets in (
        (run, qrels),
        (tmp_path / "scores.parquet", tmp_path / "targets.parquet"),
        (tmp_path / "ranks.parquet", qrels),
        (ranked, targets),
    ):
        found = evaluate_lists(given_lists, given_targets).results
        assert found.metrics == expected.metrics
        assert found.notes == expected.notes
        assert found.users == expected.users
    assert evaluate_lists(run, qrels).results.source.name == "run"
    assert any("are not in their lists" in note for note in expected.notes)
    assert any("have no list" in note for note in expected.notes)
    assert "AUC" not in expected.metrics.full


def test_lists_that_hold_every_target_have_ranks():
    lists = pl.DataFrame(
        {"user_id": [1, 1, 1, 2, 2], "item_id": [10, 11, 12, 10, 11], "score": [3.0, 2.0, 2.0, 1.0, 5.0]}
    )
    targets = pl.DataFrame({"user_id": [2, 1], "target": [11, 11]})
    evaluation = evaluate_lists(lists, targets, metrics="MRR")
    assert evaluation.per_user["rank"].to_list() == [1, 3]
    assert evaluation.results.metrics.full["mean rank"].value == 2
    assert evaluation.results.ties["full"].share == 0.5
    assert evaluate_lists(lists, targets, metrics="MRR", ties="best").per_user["rank"].to_list() == [1, 2]
    assert evaluate_lists(lists, targets, metrics="MRR", ties="mean").per_user["rank"].to_list() == [1, 2.5]


def test_numbers_in_a_file_meet_numbers_in_a_table(tmp_path):
    (tmp_path / "run.txt").write_text("1 Q0 10 1 2.5 x\n1 Q0 11 2 1.5 x\n")
    targets = pl.DataFrame({"user_id": [1], "target": [11]})
    assert evaluate_lists(tmp_path / "run.txt", targets).per_user["rank"].to_list() == [2]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("", "found an empty file, expected lines of user_id Q0 item_id rank score tag"),
        ("u1 Q0 i1 1 0.5 x\nu1 Q0 i2 2\n", "line 2: found 4 fields, expected 6"),
        ("\nu1 Q0 i1 1 high x\n", "line 2, column 'score': found 'high', expected a number"),
        ("u1 Q0 i1 1 0.5 x\nu1 Q0 i1 2 0.4 x\n", "found the item 'i1' twice in the list of the user 'u1'"),
    ],
)
def test_broken_runs_are_named_in_one_line(run, message, tmp_path):
    (tmp_path / "run.txt").write_text(run)
    with pytest.raises(DataError, match=message) as caught:
        read_lists(tmp_path / "run.txt")
    assert str(caught.value).startswith(str(tmp_path / "run.txt"))


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("", "found an empty file"),
        ("u1 0 i1\n", "line 1: found 3 fields, expected 4"),
        ("u1 0 i1 yes\n", "column 'relevance': found 'yes'"),
        ("u1 0 i1 0\n", "found no relevant item"),
        ("u1 0 i1 1\nu1 0 i2 1\n", "found more than one relevant item of the user 'u1'"),
    ],
)
def test_broken_qrels_are_named_in_one_line(qrels, message, tmp_path):
    (tmp_path / "qrels.txt").write_text(qrels)
    with pytest.raises(DataError, match=message):
        read_targets(tmp_path / "qrels.txt")


def test_tables_that_do_not_fit():
    lists = pl.DataFrame({"user_id": ["u1", "u1"], "item_id": ["i1", "i2"], "score": [1.0, 2.0]})
    for table, message in (
        (lists.drop("item_id"), "found no column 'item_id' among 'user_id', 'score'"),
        (lists.drop("score"), "found neither 'score' nor 'rank'"),
        (lists.with_columns(score=pl.lit("high")), "row 1, column 'score': found 'high', expected a"),
        (lists.with_columns(score=pl.lit(None, pl.Float64)), "row 1, column 'score': found nothing"),
        (lists.with_columns(rank=pl.Series([1, 2])), "found a higher score at rank 2 than before it"),
    ):
        with pytest.raises(DataError, match=message):
            read_lists(table)
    with pytest.raises(NotANumberError, match="score: found 1 NaN in 2 scores, the first for user "):
        read_lists(lists.with_columns(score=pl.Series([1.0, float("nan")]), rank=pl.Series([1, 2])))
    with pytest.raises(DataError, match="check that the ids agree"):
        evaluate_lists(lists, pl.DataFrame({"user_id": ["x"], "target": ["i1"]}))
    with pytest.raises(DataError, match="found no such file"):
        read_lists("none.txt")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "run.txt").write_bytes(b"u1 Q0 i1 1 0.5 \xff\n")
    with pytest.raises(DataError, match="line 1: found the byte 0xff, expected UTF-8 text"):
        read_lists(tmp_path / "run.txt")


@pytest.fixture(scope="module")
def ten_thousand():
    """Scores of 21 items by 10,000 users without a tie, and an item that each of them chose."""
    users, width = 10_000, 21
    generator = np.random.default_rng(11)
    scores = generator.permuted(np.tile(np.arange(width, dtype=np.float32), (users, 1)), axis=1)
    names = [f"u{user:05}" for user in range(users)]
    items = [f"i{item}" for item in range(width)]
    lists = pl.DataFrame(
        {
            "user_id": np.repeat(names, width),
            "item_id": np.tile(items, users),
            "score": scores.ravel().astype(np.float64),
        }
    )
    places = generator.integers(0, width, users)
    targets = pl.DataFrame({"user_id": names, "target": np.array(items)[places]})
    return scores, places, lists, targets


def test_ten_thousand_users_score_as_in_the_library(ten_thousand):
    scores, places, lists, targets = ten_thousand
    columns = METRICS.split(",")
    found = evaluate_lists(lists, targets, metrics=METRICS).per_user.select(columns).to_numpy()
    np.testing.assert_allclose(found, by_library(lists, targets), rtol=1e-12)
    # The same as rows of scores with the target in front.
    front = np.take_along_axis(scores, places[:, None], axis=1)
    others = scores[np.arange(scores.shape[1]) != places[:, None]].reshape(len(scores), -1)
    rows = np.concatenate([front, others], axis=1)
    by_scores = evaluate_scores(rows, metrics=METRICS).per_user
    np.testing.assert_array_equal(by_scores.select(columns).to_numpy(), found)


@pytest.mark.slow  # The library compiles itself at its first call, which takes a minute.
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_users_score_as_in_another_library(ten_thousand):
    import ranx

    _, _, lists, targets = ten_thousand
    found = evaluate_lists(lists, targets, metrics=METRICS).per_user
    qrels = ranx.Qrels({user: {target: 1} for user, target in targets.rows()})
    run = {}
    for user, item, score in lists.rows():
        run.setdefault(user, {})[item] = score
    measures = {
        "mrr": "MRR",
        "hit_rate@1": "HR@1",
        "hit_rate@5": "HR@5",
        "ndcg@5": "NDCG@5",
        "mrr@5": "MRR@5",
    }
    expected = ranx.evaluate(qrels, ranx.Run(run), list(measures), return_mean=False)
    assert list(qrels.keys()) == targets["user_id"].to_list()
    for measure, metric in measures.items():
        np.testing.assert_allclose(found[metric].to_numpy(), expected[measure], rtol=1e-6)
