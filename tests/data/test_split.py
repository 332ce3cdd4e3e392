"""The cold-start split against an implementation with dictionaries and lists."""

from __future__ import annotations

import json
import math
import pickle
import re
from datetime import date, datetime, timedelta, timezone
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl import datasets
from metatl._metatl import random_order
from metatl.data.interactions import Interactions
from metatl.data.split import cold_start_split
from metatl.exceptions import ConfigError, DataError, InvalidArgumentError
from metatl.runs.run_directory import SplitSettings


@st.composite
def tables(draw):
    """Rows of a few users who start at some time and go on in steps; a step of 0 ties all their rows."""
    rows = []
    for user in range(draw(st.integers(4, 7))):
        start, step = 6 * (user % 3) + draw(st.integers(0, 6)), draw(st.integers(0, 3))
        items = draw(st.lists(st.integers(0, 7), min_size=4, max_size=7))
        rows += [(user, item, start + step * place) for place, item in enumerate(items)]
    return rows


arguments = st.fixed_dictionaries(
    {
        "k": st.integers(1, 3),
        "cutoff_quantile": st.sampled_from([0.5, 0.3, 0.75, 0.0, 1.0]),
        "min_item_count": st.integers(1, 3),
        "min_train_rows": st.integers(1, 3),
        "unseen_items": st.sampled_from(["drop", "keep"]),
        "validation_share": st.sampled_from([0.0, 0.3, 0.9]),
        "seed": st.integers(0, 3),
    }
)


def interactions_of(rows, repeats="first"):
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return Interactions.from_frame(frame, repeats=repeats)


def oracle(rows, options):  # noqa: C901 (the whole protocol, in one place to be read at once)
    """The protocol, step by step, on rows (user, item, time) without repeats; None where a part is empty."""
    counts = {}
    for _, item, _ in rows:
        counts[item] = counts.get(item, 0) + 1
    histories = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        if counts[item] >= options["min_item_count"]:
            histories.setdefault(user, []).append((item, time))
    if not histories:
        return None
    first = sorted(history[0][1] for history in histories.values())
    cutoff = first[math.floor(options["cutoff_quantile"] * (len(first) - 1))]
    train, newcomers = {}, {}
    for user, history in histories.items():
        if history[0][1] < cutoff:
            before = [item for item, time in history if time < cutoff]
            if len(before) >= options["min_train_rows"]:
                train[user] = before
        else:
            newcomers[user] = [item for item, _ in history]
    if not train:
        return None
    catalogue = {item for history in histories.values() for item, _ in history}
    if options["unseen_items"] == "drop":
        catalogue = {item for items in train.values() for item in items}
    newcomers = {user: [item for item in items if item in catalogue] for user, items in newcomers.items()}
    order = sorted(user for user, items in newcomers.items() if items)
    order = [order[place] for place in random_order(len(order), seed=options["seed"])]
    order = [user for user in order if len(newcomers[user]) > options["k"]]
    if not order:
        return None
    size = min(round(options["validation_share"] * len(order)), len(order) - 1)
    return {
        "cutoff": cutoff * 1_000_000,
        "items": sorted(catalogue),
        "train": train,
        "cold": {user: newcomers[user] for user in order},
        "validation": set(order[:size]),
        "test": set(order[size:]),
    }


def as_lists(interactions):
    items = interactions.item_ids.gather(interactions.items).to_list()
    return {
        user: items[begin:end]
        for user, begin, end in zip(
            interactions.user_ids.to_list(), interactions.indptr[:-1], interactions.indptr[1:], strict=True
        )
    }


def without_repeats(rows):
    kept = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        kept.setdefault((user, item), time)
    return [(user, item, time) for (user, item), time in kept.items()]


@given(tables(), arguments)
def test_against_dictionaries_and_lists(rows, settings_of_split):
    interactions = interactions_of(rows)
    expected = oracle(without_repeats(rows), settings_of_split)
    if expected is None:
        with pytest.raises(DataError):
            cold_start_split(interactions, **settings_of_split)
        return
    split = cold_start_split(interactions, **settings_of_split)
    assert split.cutoff_timestamp == expected["cutoff"]
    assert split.item_ids.to_list() == expected["items"]
    assert split.train.item_ids is split.cold.item_ids
    assert as_lists(split.train) == expected["train"]
    assert as_lists(split.cold) == expected["cold"]
    users = split.cold.user_ids
    assert set(users.gather(split.validation)) == expected["validation"]
    assert set(users.gather(split.test)) == expected["test"]
    k = settings_of_split["k"]
    histories, targets = split.histories(split.test), split.targets(split.test)
    assert histories.shape == (len(split.test), k)
    for user, history, target in zip(users.gather(split.test), histories, targets, strict=True):
        items = [*split.item_ids.gather(history), split.item_ids[int(target)]]
        assert items == expected["cold"][user][: k + 1]
    long = {user: items for user, items in expected["train"].items() if len(items) >= k}
    assert split.train_histories().shape == (len(long), k)
    for history, (_, items) in zip(split.train_histories(), sorted(long.items()), strict=True):
        assert split.item_ids.gather(history).to_list() == items[:k]


@given(st.integers(0, 2**64 - 1), arguments)
def test_the_order_of_rows_with_distinct_times_changes_nothing(seed, settings_of_split):
    random = Random(seed)  # noqa: S311 (test data)
    # Distinct times: the order of the rows says nothing.
    times = iter(random.sample(range(1_000), 100))
    rows = [
        (user, random.randrange(8), 300 * (user % 3) + next(times))
        for user in range(random.randint(3, 8))
        for _ in range(random.randint(3, 9))
    ]
    shuffled = random.sample(rows, len(rows))
    repeats = random.choice(["first", "all"])
    first, second = interactions_of(rows, repeats), interactions_of(shuffled, repeats)
    assert first.fingerprint == second.fingerprint
    try:
        split = cold_start_split(first, **settings_of_split)
    except DataError as error:
        message = re.escape(str(error))
        with pytest.raises(DataError, match=message):
            cold_start_split(second, **settings_of_split)
        return
    other = cold_start_split(second, **settings_of_split)
    assert other.fingerprint == split.fingerprint
    assert other.dropped == split.dropped
    assert other.test.tolist() == split.test.tolist()


@pytest.fixture(scope="module")
def wines():
    return datasets.xwines()


@pytest.mark.parametrize(("k", "num_cold"), [(2, 2_528), (3, 2_520), (4, 2_497)])
def test_the_bundled_wines(wines, k, num_cold):
    split = cold_start_split(wines, k=k)
    assert split.cutoff.date() == date(2017, 12, 9)
    assert (split.train.num_users, split.train.num_interactions, split.num_items) == (4_917, 49_392, 796)
    assert split.cold.num_users == num_cold
    assert len(split.validation) == round(0.3 * num_cold)
    assert sorted([*split.validation, *split.test]) == list(range(num_cold))
    for part in (split.validation, split.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    # Nobody is on both sides, nothing leaks over the cutoff, every item was seen in training.
    assert not set(split.train.user_ids) & set(split.cold.user_ids)
    assert split.train.timestamps.max() < split.cutoff_timestamp <= split.cold.first_timestamps.min()
    assert split.train.lengths.min() >= 5
    assert split.cold.lengths.min() > k
    assert (split.train.item_counts > 0).all()
    # Every row is accounted for.
    dropped = split.dropped
    rows = split.train.num_interactions + dropped["interactions with rare items"]
    rows += dropped["interactions of training users after the cutoff"]
    rows += dropped["interactions of new users with unseen items"]
    assert rows < wines.num_interactions


def test_validation_users_stay_on_their_side_for_another_k(wines):
    sides = {}
    for k in (2, 3, 4):
        split = cold_start_split(wines, k=k)
        sides[k] = set(split.cold.user_ids.gather(split.validation))
    assert len(sides[2] & sides[4]) > 0.95 * len(sides[4])


def test_another_seed_gives_other_validation_users(wines):
    first, second = (cold_start_split(wines, k=3, seed=seed) for seed in (0, 1))
    assert set(first.validation) != set(second.validation)
    assert first.train.fingerprint == second.train.fingerprint
    assert first.fingerprint != second.fingerprint
    assert cold_start_split(wines, k=3).fingerprint == first.fingerprint


def test_a_cutoff_as_date_and_as_datetime(wines):
    split = cold_start_split(wines, k=3, cutoff=date(2018, 1, 1))
    assert split.cutoff == datetime(2018, 1, 1, tzinfo=timezone.utc)
    assert split.cutoff_timestamp <= split.cold.first_timestamps.min()
    zone = timezone(timedelta(hours=1))
    other = cold_start_split(wines, k=3, cutoff=datetime(2018, 1, 1, 1, tzinfo=zone))
    assert other.fingerprint == split.fingerprint
    assert split.protocol["cutoff"] == "2018-01-01T00:00:00+00:00"
    assert split.protocol["cutoff_quantile"] is None


def test_unseen_means_unseen_by_the_users_who_train():
    # Item 9 is known to user 3 only, who has too few rows to train, and to user 0 after the cutoff only.
    rows = [(0, 1, 0), (0, 2, 1), (0, 9, 50), (3, 9, 2), (4, 9, 20), (4, 1, 21), (4, 2, 22)]
    options = {"k": 1, "min_item_count": 1, "min_train_rows": 2, "cutoff": date(1970, 1, 1)}
    options["cutoff"] = datetime(1970, 1, 1, 0, 0, 10, tzinfo=timezone.utc)
    split = cold_start_split(interactions_of(rows), **options)
    assert split.item_ids.to_list() == [1, 2]
    assert as_lists(split.cold) == {4: [1, 2]}
    assert split.dropped["items unseen in training"] == 1
    assert split.dropped["interactions of new users with unseen items"] == 1
    assert split.dropped["training users with too few rows"] == 1
    kept = cold_start_split(interactions_of(rows), unseen_items="keep", **options)
    assert kept.item_ids.to_list() == [1, 2, 9]
    assert as_lists(kept.cold) == {4: [9, 1, 2]}
    assert as_lists(kept.train) == {0: [1, 2]}


def test_a_user_with_one_row_is_never_cold():
    rows = [(user, item, 10 * user + item) for user in range(4) for item in range(3)] + [(9, 0, 99)]
    split = cold_start_split(
        interactions_of(rows), k=1, min_item_count=1, min_train_rows=1, cutoff_quantile=0.5
    )
    assert 9 not in split.cold.user_ids.to_list()
    assert split.dropped["new users with too few rows"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 500}, r"none of the \d+ users .* k = 500 .* the longest has \d+; choose a smaller k"),
        ({"cutoff": date(2030, 1, 1)}, "no user with a known item arrives at or after T = 2030-01-01"),
        ({"cutoff": date(2000, 1, 1)}, "no user has 5 interactions before T = 2000-01-01; choose a later"),
        ({"cutoff_quantile": 0.0}, "no user has 5 interactions before T"),
        ({"min_train_rows": 10_000}, "no user has 10000 interactions before T"),
        ({"min_item_count": 10**6}, r"no item has 1000000 interactions, the most frequent has \d+"),
    ],
)  # fmt: skip
def test_empty_parts_say_what_to_change(wines, options, message):
    with pytest.raises(DataError, match=message):
        cold_start_split(wines, **{"k": 3, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k: found 0, expected a whole number of at least 1"),
        ({"k": 2.5}, "k: found 2.5, expected a whole number of at least 1"),
        ({"k": True}, "k: found True, expected a whole number of at least 1"),
        ({"k": "3"}, "k: found '3', expected a whole number of at least 1"),
        ({"cutoff": "2020-01-01"}, "cutoff: found str, expected a date or datetime"),
        ({"cutoff_quantile": 1.5}, "cutoff_quantile: found 1.5"),
        ({"cutoff_quantile": float("nan")}, "cutoff_quantile: found nan"),
        ({"min_item_count": 0}, "min_item_count: found 0"),
        ({"min_train_rows": 0}, "min_train_rows: found 0"),
        ({"min_item_count": 9.5}, "min_item_count: found 9.5, expected a whole number"),
        ({"min_train_rows": None}, "min_train_rows: found None, expected a whole number"),
        ({"unseen_items": "ignore"}, "unseen_items: found 'ignore', expected 'drop' or 'keep'"),
        ({"validation_share": 1.0}, "validation_share: found 1.0, expected at least 0 and below 1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_arguments_out_of_range_are_named(wines, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        cold_start_split(wines, **{"k": 3, **options})


def test_a_path_is_no_interactions():
    with pytest.raises(InvalidArgumentError, match=r"interactions: found str, expected metatl\.Interactions"):
        cold_start_split("wines.csv", k=3)


def test_a_numpy_integer_is_a_whole_number(wines):
    split = cold_start_split(wines, k=np.int64(3), min_item_count=np.int32(10))
    assert split.fingerprint == cold_start_split(wines, k=3).fingerprint
    assert json.loads(json.dumps(split.protocol)) == cold_start_split(wines, k=3).protocol


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"k": 0}, InvalidArgumentError, "k: found 0, expected a whole number of at least 1"),
        ({"k": True}, InvalidArgumentError, "k: found True, expected a whole number of at least 1"),
        ({"k": "3"}, InvalidArgumentError, "k: found '3', expected a whole number of at least 1"),
        (
            {"split_seed": -1},
            InvalidArgumentError,
            "split_seed: found -1, expected a whole number of at least 0",
        ),
        ({"seed": 1}, ConfigError, "split: there is no setting 'seed'; there are k, cutoff, .*, split_seed"),
        ({"cutoff": "x"}, ConfigError, "cutoff: found 'x', expected a date, as in 2020-12-31"),
        ({"cutoff": 2020}, InvalidArgumentError, "cutoff: found int, expected a date"),
        (
            {"cutoff_quantile": "0.5"},
            ConfigError,
            "cutoff_quantile: found '0.5', expected a number",
        ),
        (
            {"validation_share": True},
            ConfigError,
            "validation_share: found True, expected a number",
        ),
        (
            {"unseen_items": "ignore"},
            ConfigError,
            "unseen_items: found 'ignore', expected one of 'drop' or 'keep'",
        ),
    ],
)
def test_settings_that_cannot_be_are_named_in_one_line(fields, error, message):
    with pytest.raises(error, match=f"^{message}") as caught:
        SplitSettings(**fields)
    assert "\n" not in str(caught.value)


def test_settings_are_read_back_from_json():
    made = SplitSettings(k=np.int64(4), cutoff=date(2017, 1, 2), validation_share=0)
    assert SplitSettings.model_validate(json.loads(made.model_dump_json())) == made


def test_pickling_and_showing(wines):
    split = cold_start_split(wines, k=3)
    copy = pickle.loads(pickle.dumps(split))  # noqa: S301 (our own bytes)
    assert copy.fingerprint == split.fingerprint
    assert "k=3, cutoff=2017-12-09, train users=4917, validation users=756, test users=1764" in repr(copy)
