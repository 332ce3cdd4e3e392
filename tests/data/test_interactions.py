"""Interactions against plain Python lists and dictionaries."""

from __future__ import annotations

import pickle
from decimal import Decimal
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatl.data.interactions import Interactions
from metatl.exceptions import DataError, InvalidArgumentError

rows_with_ties = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from("abcde"), st.integers(0, 5)), min_size=1, max_size=30
)


def table(rows):
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def expected_rows(rows, repeats):
    """The oracle: each user's (item, microseconds), in time order, input order between equal times."""
    histories = {}
    for user, item, time in sorted(rows, key=lambda row: (row[0], row[2])):
        history = histories.setdefault(user, [])
        if repeats == "all" or all(item != other for other, _ in history):
            history.append((item, time * 1_000_000))
    return histories


def as_rows(interactions):
    items = interactions.item_ids.to_list()
    return {
        user: [
            (items[item], int(time))
            for item, time in zip(
                interactions.items[begin:end], interactions.timestamps[begin:end], strict=True
            )
        ]
        for user, begin, end in zip(
            interactions.user_ids.to_list(), interactions.indptr[:-1], interactions.indptr[1:], strict=True
        )
    }


@given(rows_with_ties, st.sampled_from(["first", "all"]))
def test_rows_are_sorted_stably_and_repeats_are_dropped(rows, repeats):
    interactions = Interactions.from_frame(table(rows), repeats=repeats)
    expected = expected_rows(rows, repeats)
    assert as_rows(interactions) == expected
    assert interactions.user_ids.to_list() == sorted(expected)
    assert interactions.item_ids.to_list() == sorted({item for _, item, _ in rows})
    for array in (interactions.indptr, interactions.items, interactions.timestamps):
        assert array.dtype == np.int64
        assert array.flags.c_contiguous
    lengths = [len(history) for history in expected.values()]
    assert interactions.lengths.tolist() == [lengths[place] for place in np.argsort(list(expected))]
    assert interactions.num_interactions == sum(lengths)
    assert interactions.item_counts.sum() == sum(lengths)
    neighbours = [
        first[1] == second[1] for history in expected.values() for first, second in pairwise(history)
    ]
    assert interactions.tie_share == (sum(neighbours) / len(neighbours) if neighbours else 0)


@given(rows_with_ties, st.data())
def test_selecting_rows_and_items(rows, data):
    interactions = Interactions.from_frame(table(rows), repeats="all")
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    chosen = interactions.select_rows(kept)
    flat = [(user, *row) for user, history in as_rows(interactions).items() for row in history]
    expected = {}
    for keep, (user, *row) in zip(kept, flat, strict=True):
        if keep:
            expected.setdefault(user, []).append(tuple(row))
    assert as_rows(chosen) == expected
    assert chosen.item_ids is interactions.item_ids
    size = interactions.num_items
    items = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    chosen = interactions.select_items(items)
    names = {name for name, keep in zip(interactions.item_ids.to_list(), items, strict=True) if keep}
    left = {u: [row for row in history if row[0] in names] for u, history in as_rows(interactions).items()}
    assert as_rows(chosen) == {user: history for user, history in left.items() if history}
    assert chosen.item_ids.to_list() == sorted(names)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([3, 1, 2], [1, 2, 3]),
        (["3", "1", "20"], [1, 3, 20]),
        (["3", "1", "007"], ["007", "1", "3"]),
        (["3", "1", "+2"], ["+2", "1", "3"]),
        (["-3", "0", "12"], [-3, 0, 12]),
        (["-0", "0", "1"], ["-0", "0", "1"]),
        (["3", "1", "9223372036854775808"], ["1", "3", "9223372036854775808"]),
        (["b", "ä", "B"], ["B", "b", "ä"]),
        (["NA", "null", "nan"], ["NA", "nan", "null"]),
        ([3.0, 1.0, 2.0], [1, 2, 3]),
        ([3.5, 1.0, 2.0], ["1.0", "2.0", "3.5"]),
        ([True, False, True], ["false", "true"]),
        ([Decimal(3), Decimal(1), Decimal(2)], [1, 2, 3]),
        (pl.Series([2**64 - 1, 0, 1], dtype=pl.UInt64), ["0", "1", "18446744073709551615"]),
        (pl.Series([3, 1, 2], dtype=pl.Int8), [1, 2, 3]),
        (pl.Series(["b", "a", "c"], dtype=pl.Categorical), ["a", "b", "c"]),
        (pl.Series([b"b", b"a", b"c"]), ["a", "b", "c"]),
    ],
)
def test_ids_of_any_type(ids, expected):
    frame = pl.DataFrame({"user_id": ids, "item_id": [1, 2, 3], "timestamp": [1, 2, 3]})
    interactions = Interactions.from_frame(frame)
    assert interactions.user_ids.to_list() == expected
    assert interactions.user_ids.dtype == (pl.Int64 if isinstance(expected[0], int) else pl.String)
    frame = pl.DataFrame({"user_id": [1, 1, 1], "item_id": ids, "timestamp": [1, 2, 3]})
    assert Interactions.from_frame(frame).item_ids.to_list() == expected


@pytest.mark.parametrize(
    ("column", "values", "row", "message"),
    [
        ("user_id", [1, None], 2, "found nothing, expected an id"),
        ("item_id", ["a", ""], 2, "found nothing, expected an id"),
        ("item_id", [1.0, float("nan")], 2, "found NaN, expected an id"),
        ("item_id", [b"a", b"\xff"], 2, r"found b'\\xff', expected UTF-8"),
        ("user_id", [[1], [2]], None, r"found values of type List\(Int64\), expected integers or text"),
        ("user_id", [None, None], 1, "found nothing, expected an id"),
        ("timestamp", ["1", "soon"], 2, "found 'soon', expected seconds since 1970"),
        ("timestamp", [None, None], 1, "found nothing, expected seconds"),
    ],
)
def test_what_cannot_be_used_is_named_by_row_and_column(column, values, row, message):
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "timestamp": [1, 2]})
    with pytest.raises(DataError, match=message) as caught:
        Interactions.from_frame(frame.with_columns(pl.Series(column, values)))
    assert (caught.value.row, caught.value.column) == (row, column)


def test_a_missing_column_and_an_empty_table():
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "when": [1]})
    with pytest.raises(DataError, match="no timestamp column among 'user_id', 'item_id', 'when'"):
        Interactions.from_frame(frame)
    with pytest.raises(DataError, match="no column 'time' among 'user_id', 'item_id', 'when'"):
        Interactions.from_frame(frame, timestamp_column="time")
    assert Interactions.from_frame(frame, timestamp_column="when").num_users == 1
    with pytest.raises(DataError, match="found no rows"):
        Interactions.from_frame(frame.clear(), timestamp_column="when")


def test_an_unknown_rule_for_repeats_is_refused():
    with pytest.raises(InvalidArgumentError, match="repeats: found 'last', expected one of first, all"):
        Interactions.from_frame(table([(1, "a", 1)]), repeats="last")


def test_the_fingerprint_is_that_of_the_content():
    rows = [(1, "a", 1), (1, "b", 2), (2, "a", 3)]
    fingerprint = Interactions.from_frame(table(rows)).fingerprint
    assert Interactions.from_frame(table(rows[::-1])).fingerprint == fingerprint
    others = [
        [(1, "a", 1), (1, "b", 2), (2, "b", 3)],
        [(1, "a", 1), (1, "b", 2), (2, "a", 4)],
        [(1, "a", 1), (1, "b", 2), (3, "a", 3)],
        [(1, "a", 1), (2, "b", 2), (2, "a", 3)],
        [(1, "a", 1), (1, "c", 2), (2, "a", 3)],
        [(1, "ab", 1), (1, "b", 2), (2, "ab", 3)],
    ]
    found = {Interactions.from_frame(table(other)).fingerprint for other in others}
    assert len(found | {fingerprint}) == len(others) + 1


def test_the_fingerprint_does_not_change_between_releases():
    rows = [(1, "a", 1), (1, "ä", 2), (2, "a", 3)]
    assert Interactions.from_frame(table(rows)).fingerprint == (
        "77175439ad336ea98a836c4d065d7dd78c9ccf263311f7af4a5713b7aeccfc5d"
    )


def outcome(frame):
    try:
        return Interactions.from_frame(frame).fingerprint
    except DataError as error:
        return str(error)


@given(st.lists(st.sampled_from(["1", "7", "-3", "10", "01", "b", "a", "", None]), min_size=1, max_size=6))
def test_categories_are_numbered_as_text_is(ids):
    text = pl.DataFrame(
        {"user_id": ids, "item_id": ids[::-1], "timestamp": range(len(ids))},
        schema_overrides={"user_id": pl.String, "item_id": pl.String},
    )
    assert outcome(text.cast({"user_id": pl.Categorical, "item_id": pl.Categorical})) == outcome(text)


def test_ids_are_found_as_text():
    interactions = Interactions.from_frame(table([(10, "a", 1), (20, "b", 2)]))
    assert interactions.find_users([20, "10", "010", "x", 10]).tolist() == [1, 0, -1, -1, 0]
    assert interactions.find_items(pl.Series(["b", "c"])).tolist() == [1, -1]
    assert interactions.find_items([]).tolist() == []
    assert interactions.find_items([]).dtype == np.int64


def test_arrays_are_read_only_and_the_callers_stay_writable():
    indptr, items, times = np.array([0, 1]), np.array([0]), np.array([5])
    interactions = Interactions(pl.Series([1]), pl.Series([1]), indptr, items, times)
    with pytest.raises(ValueError, match="read-only"):
        interactions.items[0] = 1
    items[0] = 0


def test_pickling_drops_what_can_be_built_again():
    interactions = Interactions.from_frame(table([(1, "a", 1), (2, "b", 2)]))
    assert interactions.index.num_users == 2
    copy = pickle.loads(pickle.dumps(interactions))  # noqa: S301 (our own bytes)
    assert copy.fingerprint == interactions.fingerprint
    assert copy.index.num_items == 2
    assert repr(copy) == "Interactions(2 of 2 users with 2 items)"
