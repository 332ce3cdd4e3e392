"""Candidate sets against sets of Python, and their files."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from datetime import datetime, timezone
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metatl import datasets
from metatl.candidates import CandidateSets, sample_candidate_sets
from metatl.exceptions import DataError, InvalidArgumentError, NoNegativeError
from metatl.interactions import Interactions
from metatl.split import cold_start_split


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


def same_candidates_for_shuffled_rows(seed, kind, exclude):
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


T = datetime(1970, 1, 1, 0, 16, 40, tzinfo=timezone.utc)
seeds = st.integers(0, 2**64 - 1)
kinds = st.sampled_from(["uniform", "popularity"])
exclusions = st.sampled_from(["all", "history"])


@settings(max_examples=1_000, deadline=None)
@given(seeds, kinds, exclusions)
def test_the_order_of_rows_with_distinct_times_changes_nothing(seed, kind, exclude):
    same_candidates_for_shuffled_rows(seed, kind, exclude)


@pytest.mark.slow
@settings(max_examples=100_000, deadline=None)
@given(seeds, kinds, exclusions)
def test_the_order_of_rows_with_distinct_times_changes_nothing_100_000(seed, kind, exclude):
    same_candidates_for_shuffled_rows(seed, kind, exclude)


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
        ({"kind": "other"}, "kind: found 'other', expected 'uniform' or 'popularity'"),
        ({"exclude": "none"}, "exclude: found 'none', expected 'all' or 'history'"),
        ({"seed": -1}, "seed"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            sample_candidate_sets(split, split.test, **options)
    with pytest.raises(InvalidArgumentError, match="users: found 0 to 2520, expected 0 to 2519"):
        sample_candidate_sets(split, np.array([0, 2_520]))
    with pytest.raises(InvalidArgumentError, match="users: found -1 to -1"):
        sample_candidate_sets(split, np.array([-1]))


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
    assert frame.columns == ["user_id", "target", "negatives"]
    items = split.item_ids.to_list()
    assert frame["user_id"].to_list() == split.cold.user_ids.gather(split.test).to_list()
    assert frame["target"].to_list() == [items[item] for item in sets.candidates[:, 0]]
    assert frame["negatives"].to_list() == [[items[item] for item in row] for row in sets.candidates[:, 1:]]
    record = json.loads(pl.read_parquet_metadata(path)["metatl.candidates"])
    assert record["sha256"] == sets.sha256
    assert record["protocol"]["seed"] == 7
    assert record["protocol"]["dataset_fingerprint"] == split.dataset_fingerprint
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
        {"change_rows": lambda frame: frame.drop("negatives")},
        {"change_record": lambda record: {**record, "protocol": {**record["protocol"], "seed": 1}}},
        {"change_record": lambda _: {"format_version": 1}},
        {"change_record": lambda record: record["protocol"]},
    ],
)
def test_a_changed_file_is_refused(tmp_path, split, change):
    path = tmp_path / "a.parquet"
    sample_candidate_sets(split, split.test, n=5).save(path)
    rewritten(path)
    assert CandidateSets.load(path, split).n == 5
    rewritten(path, **change)
    with pytest.raises(DataError, match=r"a\.parquet: found a damaged candidate file \(its SHA-256"):
        CandidateSets.load(path, split)


def test_other_files_are_refused(tmp_path, split):
    path = tmp_path / "a.parquet"
    with pytest.raises(DataError, match=r"a\.parquet: found no such file"):
        CandidateSets.load(path, split)
    path.write_bytes(b"PAR1" * 30)
    with pytest.raises(DataError, match="found a damaged candidate file"):
        CandidateSets.load(path, split)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="found a damaged candidate file"):
        CandidateSets.load(path, split)
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(DataError, match="found a Parquet file without metadata of metatl"):
        CandidateSets.load(path, split)
    sample_candidate_sets(split, split.test, n=5).save(path)
    rewritten(path, change_record=lambda record: {**record, "format_version": 2})
    with pytest.raises(DataError, match="found candidate format 2, expected 1"):
        CandidateSets.load(path, split)


def test_candidates_of_other_data_k_or_split_are_refused(tmp_path, wines, split):
    path = tmp_path / "a.parquet"
    sample_candidate_sets(split, split.test, n=5).save(path)
    with pytest.raises(DataError, match="found candidates for K = 3, expected 2"):
        CandidateSets.load(path, cold_start_split(wines, k=2))
    with pytest.raises(DataError, match="who is none of the split's"):
        CandidateSets.load(path, cold_start_split(wines, k=3, cutoff_quantile=0.9))
    fewer = wines.select_rows(np.arange(wines.num_interactions) != 0)
    with pytest.raises(DataError, match="found candidates for the data 7b737ab06157, expected"):
        CandidateSets.load(path, cold_start_split(fewer, k=3))
    # The items differ where unseen ones are kept, and with them some targets.
    kept = cold_start_split(wines, k=3, unseen_items="keep")
    sample_candidate_sets(kept, kept.test, n=300).save(path)
    with pytest.raises(DataError, match=r"found targets or items that are not the split's|who is none of"):
        CandidateSets.load(path, split)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, split):
    sets = sample_candidate_sets(split, split.test, n=5)
    with pytest.raises(FileNotFoundError) as caught:
        sets.save(tmp_path / "none" / "a.parquet")
    assert caught.value.filename == str(tmp_path / "none" / "a.parquet")
