"""Candidate sets against sets of Python, and their files."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl import datasets
from metatl.data.candidates import CandidateSets, sample_candidate_sets
from metatl.data.interactions import Interactions
from metatl.data.split import cold_start_split
from metatl.exceptions import DataError, InvalidArgumentError, NoNegativeError
from ragged_rows import ragged


def interactions_of(rows, repeats="first"):
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return Interactions.from_frame(frame, repeats=repeats)


@pytest.fixture(scope="module")
def wines():
    return datasets.xwines()


@pytest.fixture(scope="module")
def split(wines):
    return cold_start_split(wines, k=3)


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_negatives_are_distinct_items_that_the_user_never_had(split, kind):
    sets = sample_candidate_sets(split, split.test, kind=kind)
    assert sets.candidates.shape == (len(split.test), 101)
    assert sets.candidates.dtype == np.int64
    for user, row in zip(split.test, sets.candidates, strict=True):
        items = split.cold.items[split.cold.indptr[user] : split.cold.indptr[user + 1]].tolist()
        assert row[0] == items[split.k]
        assert len(set(row)) == 101
        assert not set(row[1:].tolist()) & set(items)
        assert 0 <= row.min() <= row.max() < split.num_items


def test_the_released_rule_excludes_the_history_only(split):
    sets = sample_candidate_sets(split, split.test, exclude="history", n=400)
    histories = split.histories(split.test)
    own_target = later = 0
    for user, history, row in zip(split.test, histories, sets.candidates, strict=True):
        items = split.cold.items[split.cold.indptr[user] : split.cold.indptr[user + 1]].tolist()
        negatives = set(row[1:].tolist())
        assert row[0] == items[split.k]
        assert len(negatives) == 400
        assert not negatives & set(history.tolist())
        own_target += row[0] in negatives
        later += bool(negatives & set(items[split.k + 1 :]))
    # 400 of 793 items that are not in the history: the target is among them about every second time.
    assert 0.4 < own_target / len(split.test) < 0.6
    assert later > 0


def test_popularity_follows_training_counts(split):
    uniform = sample_candidate_sets(split, split.test)
    popular = sample_candidate_sets(split, split.test, kind="popularity")
    counts = split.train.item_counts
    assert counts[popular.candidates[:, 1:]].mean() > 1.5 * counts[uniform.candidates[:, 1:]].mean()


def test_items_without_training_rows_are_no_popular_negatives(wines):
    split = cold_start_split(wines, k=3, unseen_items="keep")
    assert (split.train.item_counts == 0).any()
    sets = sample_candidate_sets(split, split.test, kind="popularity")
    assert (split.train.item_counts[sets.candidates[:, 1:]] > 0).all()


def test_a_row_depends_on_the_split_the_user_and_the_seed_only(split, wines):
    sets = sample_candidate_sets(split, split.test)
    some = split.test[::7].copy()
    assert (sample_candidate_sets(split, some).candidates == sets.candidates[::7]).all()
    reversed_sets = sample_candidate_sets(split, split.test[::-1].copy())
    assert (reversed_sets.candidates[::-1] == sets.candidates).all()
    for num_threads in (1, 2, 3, 8):
        again = sample_candidate_sets(split, split.test, num_threads=num_threads)
        assert again.sha256 == sets.sha256
    hashes = {
        sets.sha256,
        sample_candidate_sets(split, split.test, seed=1).sha256,
        sample_candidate_sets(split, split.test, n=99).sha256,
        sample_candidate_sets(split, split.test, kind="popularity").sha256,
        sample_candidate_sets(split, split.test, exclude="history").sha256,
        sample_candidate_sets(split, some).sha256,
    }
    assert len(hashes) == 6
    other_k = cold_start_split(wines, k=2)
    user = next(iter(set(split.cold.user_ids.gather(split.test)) & set(other_k.cold.user_ids)))
    rows = [
        sample_candidate_sets(part, part.cold.find_users([user])).candidates[0, 1:]
        for part in (split, other_k)
    ]
    assert set(rows[0]) != set(rows[1])


T = datetime(1970, 1, 1, 0, 16, 40, tzinfo=timezone.utc)


@given(
    st.integers(0, 2**64 - 1), st.sampled_from(["uniform", "popularity"]), st.sampled_from(["all", "history"])
)
def test_the_order_of_rows_with_distinct_times_changes_nothing(seed, kind, exclude):
    random = Random(seed)  # noqa: S311 (test data)
    # Distinct times: the order of the rows says nothing. Half of the users arrive after T.
    times = iter(random.sample(range(1_000), 100))
    rows = [
        (user, item, 1_000 * (user % 2) + next(times))
        for user in range(random.randint(2, 7))
        for item in random.sample(range(12), random.randint(3, 11))
    ]
    shuffled = random.sample(rows, len(rows))
    repeats = random.choice(["first", "all"])
    split, other_split = (
        cold_start_split(
            interactions_of(table, repeats),
            k=2,
            cutoff=T,
            min_item_count=1,
            min_train_rows=1,
            unseen_items="keep",
        )
        for table in (rows, shuffled)
    )
    users = np.arange(split.cold.num_users)
    options = {"n": 2, "kind": kind, "exclude": exclude}
    try:
        sets = sample_candidate_sets(split, users, **options)
    except NoNegativeError as error:
        message = re.escape(str(error))
        with pytest.raises(NoNegativeError, match=message):
            sample_candidate_sets(other_split, users, **options)
        return
    other = sample_candidate_sets(other_split, users, **options)
    assert other.sha256 == sets.sha256
    assert (other.candidates == sets.candidates).all()
    for user, row in zip(users, sets.candidates.tolist(), strict=True):
        items = split.cold.items[split.cold.indptr[user] : split.cold.indptr[user + 1]].tolist()
        assert row[0] == items[2]
        assert not set(row[1:]) & set(items if exclude == "all" else items[:2])
        assert len(set(row[1:])) == 2
        begin, end = sets.later.indptr[user : user + 2]
        later = sets.later.items[begin:end].tolist()
        assert later == [item for item in dict.fromkeys(items[3:]) if item not in items[:3]]
        assert exclude == "history" or not set(row[1:]) & set(later)
        assert sets.negatives_in_catalogue[user] == split.num_items - len(set(items))


def test_every_negative_is_about_as_frequent(split):
    # 1,764 users with 100 of 796 items: an item is drawn 222 times, give or take 14, less for its owners.
    negatives = sample_candidate_sets(split, split.test).candidates[:, 1:]
    owners = Counter(split.cold.items.tolist())
    counts = Counter(negatives.ravel().tolist())
    rare = [counts[item] for item in range(split.num_items) if owners[item] < 20]
    assert len(rare) > 100
    assert min(rare) > 222 - 5 * 14
    assert max(rare) < 222 + 5 * 14


def test_too_few_items_and_bad_arguments(split):
    with pytest.raises(NoNegativeError, match="796"):
        sample_candidate_sets(split, split.test, n=796)
    for options, message in [
        ({"n": 0}, "n: found 0"),
        ({"n": 2.5}, "n: found 2.5, expected a whole number of at least 1"),
        ({"kind": "other"}, "kind: found 'other', expected one of uniform, popularity"),
        ({"exclude": "none"}, "exclude: found 'none', expected one of all, history"),
        ({"seed": -1}, "seed"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            sample_candidate_sets(split, split.test, **options)
    with pytest.raises(InvalidArgumentError, match="users: found 0 to 2520, expected 0 to 2519"):
        sample_candidate_sets(split, np.array([0, 2_520]))
    with pytest.raises(InvalidArgumentError, match="users: found -1 to -1"):
        sample_candidate_sets(split, np.array([-1]))
    with pytest.raises(InvalidArgumentError, match="users: found list, expected a 1-d array of int64"):
        sample_candidate_sets(split, [0, 1])
    with pytest.raises(InvalidArgumentError, match="users: found a 2-d array of int32, expected a 1-d array"):
        sample_candidate_sets(split, np.zeros((2, 2), np.int32))
    with pytest.raises(InvalidArgumentError, match=r"split: found Interactions, expected metatl\.Cold"):
        sample_candidate_sets(split.cold, split.test)


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_saving_and_loading(tmp_path, split, kind):
    path = tmp_path / "candidates.parquet"
    sets = sample_candidate_sets(split, split.test, n=20, kind=kind, seed=7)
    sets.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded = CandidateSets.load(path, split)
    assert (loaded.candidates == sets.candidates).all()
    assert (loaded.users == sets.users).all()
    assert loaded.protocol == sets.protocol
    assert loaded.sha256 == sets.sha256
    # What is in the file, without us.
    frame = pl.read_parquet(path)
    assert frame.columns == ["user_id", "history", "target", "negatives", "later"]
    items = split.item_ids.to_list()
    assert frame["user_id"].to_list() == split.cold.user_ids.gather(split.test).to_list()
    assert frame["target"].to_list() == [items[item] for item in sets.candidates[:, 0]]
    assert frame["negatives"].to_list() == [[items[item] for item in row] for row in sets.candidates[:, 1:]]
    record = json.loads(pl.read_parquet_metadata(path)["metatl.candidates"])
    assert record["sha256"] == sets.sha256
    assert record["format_version"] == 2
    assert record["protocol"] == {
        "k": 3, "kind": kind, "n": 20, "seed": 7, "exclude": "all", "users": "test", "split": split.protocol,
    }  # fmt: skip
    assert record["dataset_fingerprint"] == split.dataset_fingerprint
    assert record["num_items"] == split.num_items
    assert record["dropped"] == split.dropped
    for user, history, later in zip(split.test, frame["history"], frame["later"], strict=True):
        own = split.cold.items[split.cold.indptr[user] : split.cold.indptr[user + 1]].tolist()
        assert history.to_list() == [items[item] for item in own[:3]]
        assert later.to_list() == [items[item] for item in own[4:]]
    assert repr(loaded) == f"CandidateSets(1764 users, 20 {kind} negatives, k=3, seed=7)"


def test_ids_of_text_are_saved_as_they_are(tmp_path):
    rows = [(f"u{user}", f"0{item}", 100 * user + item) for user in range(8) for item in range(user % 3 + 3)]
    split = cold_start_split(
        interactions_of([*rows, ("u0", "09", 5)]),
        k=2,
        cutoff_quantile=0.5,
        min_item_count=1,
        min_train_rows=1,
    )
    sets = sample_candidate_sets(split, np.arange(split.cold.num_users), n=1)
    sets.save(tmp_path / "a.parquet")
    loaded = CandidateSets.load(tmp_path / "a.parquet", split)
    assert loaded.sha256 == sets.sha256
    assert (loaded.candidates == sets.candidates).all()


def test_no_users(tmp_path, split):
    sets = sample_candidate_sets(split, split.test[:0])
    sets.save(tmp_path / "a.parquet")
    loaded = CandidateSets.load(tmp_path / "a.parquet", split)
    assert loaded.candidates.shape == (0, 101)
    assert loaded.sha256 == sets.sha256


def rewritten(path, change_rows=lambda frame: frame, change_record=lambda record: record):
    """Write the file again with other content under the metadata that it had."""
    record = json.loads(pl.read_parquet_metadata(path)["metatl.candidates"])
    content = io.BytesIO()
    metadata = {"metatl.candidates": json.dumps(change_record(record))}
    change_rows(pl.read_parquet(path)).write_parquet(content, metadata=metadata)
    path.write_bytes(content.getvalue())


@pytest.mark.parametrize(
    "change",
    [
        {"change_rows": lambda frame: frame.with_columns(target=pl.col("target").reverse())},
        {"change_rows": lambda frame: frame.with_columns(user_id=pl.col("user_id") + 1)},
        {"change_rows": lambda frame: frame.with_columns(negatives=pl.col("negatives").list.reverse())},
        {"change_rows": lambda frame: frame.head(10)},
        {"change_rows": lambda frame: frame.with_columns(history=pl.col("history").list.reverse())},
        {"change_rows": lambda frame: frame.with_columns(later=pl.col("later").reverse())},
        {"change_rows": lambda frame: frame.with_columns(later=pl.col("later").list.slice(1))},
        {"change_record": lambda record: {**record, "protocol": {**record["protocol"], "seed": 1}}},
        {"change_record": lambda record: {**record, "num_items": record["num_items"] + 1}},
        {"change_record": lambda record: {**record, "dropped": {}}},
        {"change_record": lambda record: {**record, "dataset_fingerprint": "0"}},
    ],
)
def test_a_changed_file_is_refused(tmp_path, split, change):
    path = tmp_path / "a.parquet"
    sample_candidate_sets(split, split.test, n=5).save(path)
    rewritten(path)
    assert CandidateSets.load(path, split).n == 5
    rewritten(path, **change)
    for split_or_none in (split, None):
        with pytest.raises(DataError, match=r"a\.parquet: found a damaged candidate file \(its SHA-256"):
            CandidateSets.load(path, split_or_none)


def protocol_with(**changes):
    return lambda record: {**record, "protocol": {**record["protocol"], **changes}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"change_rows": lambda frame: frame.drop("later")},
            "found no column 'later' among 'user_id', 'hist",
        ),
        (
            {"change_rows": lambda frame: frame.with_columns(target=pl.col("target").cast(pl.Int32))},
            ", column 'target': found values of type Int32, expected raw ids",
        ),
        (
            {"change_rows": lambda frame: frame.with_columns(target=pl.col("target").cast(pl.String))},
            ", column 'history': found values of type List(Int64), expected raw ids",
        ),
        (
            {"change_rows": lambda frame: frame.with_columns(user_id=None)},
            ", column 'user_id': found values of type Null, expected raw ids",
        ),
        (
            {
                "change_rows": lambda frame: frame.with_columns(
                    target=pl.col("target").replace(7, None).shift(1)
                )
            },
            ", column 'target': found a row without a value",
        ),
        (
            {
                "change_rows": lambda frame: frame.with_columns(
                    later=pl.col("later").list.eval(pl.element().shift())
                )
            },
            ", column 'later': found a row without a value",
        ),
        (
            {"change_rows": lambda frame: frame.with_columns(negatives=pl.col("negatives").list.slice(1))},
            ", column 'negatives': found a list of another length, expected 5 items",
        ),
        (
            {"change_rows": lambda frame: frame.with_columns(history=pl.col("history").list.slice(1))},
            ", column 'history': found a list of another length, expected 3 items",
        ),
        (
            {"change_record": lambda _: {"format_version": 1}},
            ": found candidate format 1, expected 2; sample",
        ),
        ({"change_record": lambda _: {"format_version": "9" * 99}}, ": found candidate format '9999"),
        (
            {"change_record": lambda record: record["protocol"]},
            "its metadata are not the JSON that metatl writes",
        ),
        ({"change_record": lambda _: [1]}, "its metadata are not the JSON that metatl writes"),
        ({"change_record": lambda _: {"format_version": 2}}, "its metadata have no usable protocol"),
        ({"change_record": protocol_with(k=0)}, "its metadata have no usable protocol.k"),
        ({"change_record": protocol_with(n="5")}, "its metadata have no usable protocol.n"),
        ({"change_record": protocol_with(users="all")}, "its metadata have no usable protocol.users"),
        ({"change_record": protocol_with(more=1)}, "its metadata have no usable protocol.more"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, split, change, message):
    path = tmp_path / "a.parquet"
    sample_candidate_sets(split, split.test, n=5).save(path)
    rewritten(path, **change)
    for split_or_none in (split, None):
        with pytest.raises(DataError) as caught:
            CandidateSets.load(path, split_or_none)
        assert str(caught.value).startswith(str(path))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path, split):
    path = tmp_path / "a.parquet"
    with pytest.raises(DataError, match=r"a\.parquet: found no such file"):
        CandidateSets.load(path, split)
    path.write_bytes(b"PAR1" * 30)
    with pytest.raises(DataError, match="found a damaged Parquet file"):
        CandidateSets.load(path, split)
    path.write_text("user_id,target\n1,2\n")
    with pytest.raises(DataError, match="found no Parquet, expected a file that starts with PAR1"):
        CandidateSets.load(path, split)
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(DataError, match=r"a\.parquet: found no column 'user_id' among 'a'"):
        CandidateSets.load(path, split)
    sample_candidate_sets(split, split.test, n=5).save(path)
    pl.read_parquet(path).write_parquet(path)
    with pytest.raises(DataError, match="found a Parquet file without metadata of metatl"):
        CandidateSets.load(path, split)


def test_a_forged_catalogue_is_refused(tmp_path, split):
    sets = sample_candidate_sets(split, split.test, n=5)
    replace(sets, num_items=10).save(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="items, expected at most the catalogue's 10"):
        CandidateSets.load(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="found targets or items that are not those of the split"):
        CandidateSets.load(tmp_path / "a.parquet", split)
    replace(sets, later=ragged([[]] * len(sets.users))).save(tmp_path / "a.parquet")
    assert CandidateSets.load(tmp_path / "a.parquet").later.items.tolist() == []
    with pytest.raises(DataError, match="found targets or items that are not those of the split"):
        CandidateSets.load(tmp_path / "a.parquet", split)


def raw_rows(sets):
    """What the users of candidate sets have, as lists of raw ids."""
    items = sets.item_ids.to_list()
    for row, user in enumerate(sets.user_ids.to_list()):
        history, later = (
            [items[item] for item in part.items[part.indptr[row] : part.indptr[row + 1]].tolist()]
            for part in (sets.histories, sets.later)
        )
        yield user, history, [items[item] for item in sets.candidates[row].tolist()], later


def test_loading_without_the_split(tmp_path, split):
    path = tmp_path / "a.parquet"
    sets = sample_candidate_sets(split, split.test, n=1)
    sets.save(path)
    loaded = CandidateSets.load(path)
    assert loaded.sha256 == sets.sha256
    assert loaded.users.tolist() == list(range(1_764))
    assert list(raw_rows(loaded)) == list(raw_rows(sets))
    ids = {item for _, *lists in raw_rows(sets) for part in lists for item in part}
    assert loaded.item_ids.to_list() == sorted(ids)
    assert loaded.num_items == 796
    assert loaded.part == "test"
    loaded.save(tmp_path / "b.parquet")
    assert (tmp_path / "b.parquet").read_bytes() == path.read_bytes()
    own = [796 - len({*history, target, *later}) for _, history, (target, _), later in raw_rows(sets)]
    for read in (sets, loaded):
        assert read.negatives_in_catalogue.tolist() == own
        assert read.negatives_in_catalogue.dtype == np.int64


def test_which_users_of_the_split(split):
    parts = {
        "test": split.test,
        "validation": split.validation,
        None: split.test[::-1].copy(),
    }
    for part, users in parts.items():
        assert sample_candidate_sets(split, users, n=1).part == part
    assert sample_candidate_sets(split, split.test[:0], n=1).part is None


def test_what_is_taken_again_is_excluded_once(tmp_path):
    rows = [(f"t{user}", item, user) for user in range(3) for item in range(1, 11)]
    # The history is 1, 2, the target 1: a repeat. Later come the target, an item of the history, 3 twice, 4.
    rows += [("c", item, 100 + place) for place, item in enumerate([1, 2, 1, 1, 3, 2, 4, 3])]
    rows += [("d", item, 200 + place) for place, item in enumerate([5, 6, 7])]
    cutoff = datetime(1970, 1, 1, 0, 1, tzinfo=timezone.utc)
    split = cold_start_split(interactions_of(rows, "all"), k=2, cutoff=cutoff, min_item_count=1)
    sets = sample_candidate_sets(split, np.arange(2), n=3)
    (_, history, (target, *negatives), later), other = raw_rows(sets)
    assert (history, target, later) == ([1, 2], 1, [3, 4])
    assert not set(negatives) & {1, 2, 3, 4}
    assert other[3] == []
    assert sets.negatives_in_catalogue.tolist() == [6, 7]
    sets.save(tmp_path / "a.parquet")
    assert pl.read_parquet(tmp_path / "a.parquet")["later"].to_list() == [[3, 4], []]
    for split_or_none in (None, split):
        assert list(raw_rows(CandidateSets.load(tmp_path / "a.parquet", split_or_none))) == list(
            raw_rows(sets)
        )


def checked_lists(seed, num_users, exclude):
    """Sample for random users, check every list against the raw rows, and count the lists."""
    random = np.random.default_rng(seed)
    num_items, n = int(random.integers(8, 40)), int(random.integers(1, 3))
    length = int(random.integers(3, 6))
    items = np.argsort(random.random((num_users, num_items)), axis=1)[:, :length]
    users = np.repeat(np.arange(num_users), length)
    frame = pl.DataFrame(
        {
            "user_id": users,
            "item_id": items.ravel(),
            "timestamp": 10 * users + random.permutation(len(users)) % 7,
        }
    )
    split = cold_start_split(
        Interactions.from_frame(frame),
        k=2,
        cutoff_quantile=0.1,
        min_item_count=1,
        min_train_rows=1,
        seed=seed,
    )
    sets = sample_candidate_sets(split, np.arange(split.cold.num_users), n=n, seed=seed, exclude=exclude)
    raw_users = np.repeat(sets.user_ids.to_numpy(), n)
    raw_items = sets.item_ids.to_numpy()
    negatives = raw_items[sets.candidates[:, 1:]]
    history = raw_items[sets.histories.items]
    if exclude == "all":
        own = num_items * users + items.ravel()
    else:
        own = num_items * np.repeat(sets.user_ids.to_numpy(), 2) + history
    assert not np.isin(num_items * raw_users + negatives.ravel(), own).any()
    assert (np.diff(np.sort(negatives, axis=1), axis=1) > 0).all()
    if exclude == "all":
        assert (np.diff(np.sort(sets.candidates, axis=1), axis=1) > 0).all()
        later = (
            num_items * np.repeat(sets.user_ids.to_numpy(), sets.later.lengths) + raw_items[sets.later.items]
        )
        assert np.isin(later, own).all()
        assert (sets.negatives_in_catalogue == split.num_items - 3 - sets.later.lengths).all()
    return len(sets.users)


@pytest.mark.parametrize("exclude", ["all", "history"])
def test_100_000_lists_have_neither_repeats_nor_items_of_their_users(exclude):
    assert sum(checked_lists(seed, 5_000, exclude) for seed in range(24)) >= 100_000


@pytest.mark.slow
@pytest.mark.parametrize("exclude", ["all", "history"])
def test_1_000_000_lists_have_neither_repeats_nor_items_of_their_users(exclude):
    assert sum(checked_lists(seed, 20_000, exclude) for seed in range(100, 160)) >= 1_000_000


def test_candidates_of_other_data_k_or_split_are_refused(tmp_path, wines, split):
    path = tmp_path / "a.parquet"
    sample_candidate_sets(split, split.test, n=5).save(path)
    with pytest.raises(DataError, match="found candidates for K = 3, expected 2"):
        CandidateSets.load(path, cold_start_split(wines, k=2))
    with pytest.raises(DataError, match="who is not in the split"):
        CandidateSets.load(path, cold_start_split(wines, k=3, cutoff_quantile=0.9))
    fewer = wines.select_rows(np.arange(wines.num_interactions) != 0)
    with pytest.raises(DataError, match="found candidates for the data 7b737ab06157, expected"):
        CandidateSets.load(path, cold_start_split(fewer, k=3))
    # The items differ where unseen ones are kept, and with them some targets.
    kept = cold_start_split(wines, k=3, unseen_items="keep")
    sample_candidate_sets(kept, kept.test, n=300).save(path)
    with pytest.raises(DataError, match=r"found targets or items that are not those of|who is not in"):
        CandidateSets.load(path, split)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, split):
    sets = sample_candidate_sets(split, split.test, n=5)
    with pytest.raises(FileNotFoundError) as caught:
        sets.save(tmp_path / "none" / "a.parquet")
    assert caught.value.filename == str(tmp_path / "none" / "a.parquet")


def test_the_bytes_of_a_file_do_not_depend_on_threads(tmp_path):
    for threads in ("1", "2"):
        program = (
            "from metatl.cli.metatl_eval.candidates import candidates; "
            f"candidates(['wines', '-o', '{threads}.parquet'])"
        )
        environment = {**os.environ, "METATL_NUM_THREADS": threads, "POLARS_MAX_THREADS": threads}
        command = [sys.executable, "-c", program]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_the_bytes_of_a_file_do_not_depend_on_the_order_of_rows(tmp_path, kind):
    random = Random(0)  # noqa: S311 (test data)
    times = iter(random.sample(range(1_000_000), 20_000))
    rows = [
        (f"u{user}", f"i{item}", 1_000_000 * (user % 2) + next(times))
        for user in range(2_000)
        for item in random.sample(range(60), random.randint(1, 10))
    ]
    contents = set()
    for _ in range(4):
        split = cold_start_split(interactions_of(rows), k=2, min_train_rows=1, cutoff_quantile=0.5)
        sample_candidate_sets(split, split.test, n=20, kind=kind).save(tmp_path / "a.parquet")
        contents.add((tmp_path / "a.parquet").read_bytes())
        random.shuffle(rows)
    assert len(contents) == 1
