"""Group the unsorted rows of a file by user, sorted by time, each item once."""

import numpy as np
import polars as pl
import pytest

from metatl import _metatl

ROWS = 1_000_000
NUM_USERS = 50_000
NUM_ITEMS = 20_000
WORK = "a million interactions put by user and time, repeats dropped"


@pytest.fixture(scope="module")
def columns():
    generator = np.random.default_rng(3)
    return (
        generator.integers(0, NUM_USERS, ROWS),
        generator.integers(0, NUM_ITEMS, ROWS),
        generator.integers(0, 2**40, ROWS),
    )


def by_polars(users, items, timestamps):
    rows = pl.DataFrame({"user": users, "item": items, "timestamp": timestamps})
    rows = rows.sort("user", "timestamp", maintain_order=True)
    return rows.filter((pl.col("user") * NUM_ITEMS + pl.col("item")).is_first_distinct())


def by_numpy(users, items, timestamps):
    order = np.lexsort((timestamps, users))
    first = np.unique((users * NUM_ITEMS + items)[order], return_index=True)[1]
    return order[np.sort(first)]


def test_grouping(measure, columns):
    def group():
        return _metatl.group_by_user(*columns, NUM_USERS, keep_repeats=False)

    indptr, items, timestamps = group()
    rows = by_polars(*columns)
    np.testing.assert_array_equal(np.repeat(np.arange(NUM_USERS), np.diff(indptr)), rows["user"].to_numpy())
    np.testing.assert_array_equal(items, rows["item"].to_numpy())
    np.testing.assert_array_equal(timestamps, rows["timestamp"].to_numpy())
    np.testing.assert_array_equal(items, columns[1][by_numpy(*columns)])
    measure(group, work=WORK, system="metatl", units=ROWS, unit="interactions")


@pytest.mark.parametrize(("name", "call"), [("polars", by_polars), ("numpy", by_numpy)])
def test_grouping_peers(measure, columns, name, call):
    measure(lambda: call(*columns), work=WORK, system=name, units=ROWS, unit="interactions")
