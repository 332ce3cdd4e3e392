"""Grouping users against counting them one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metatl.metrics.equal_users import group_users

rows = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 2**20), st.integers(0, 3)), min_size=1, max_size=60
)


@given(rows)
def test_groups_are_the_distinct_users(users):
    columns = [np.array(column, np.int64) for column in zip(*users, strict=True)]
    groups = group_users(*columns)
    found = list(zip(*(column.tolist() for column in groups.columns), strict=True))
    assert found == sorted(set(users))
    assert dict(zip(found, groups.counts.tolist(), strict=True)) == Counter(users)


def test_few_and_many_values_are_grouped_alike():
    generator = np.random.default_rng(0)
    small = generator.integers(0, 100, 10_000)
    counted, sorted_ = group_users(small, small // 3), group_users(small, small // 3 + 2**30)
    np.testing.assert_array_equal(counted.counts, sorted_.counts)
    np.testing.assert_array_equal(counted.columns[0], sorted_.columns[0])
    np.testing.assert_array_equal(counted.columns[1] + 2**30, sorted_.columns[1])


def test_nobody_makes_no_group():
    groups = group_users(np.empty(0, np.int64), np.empty(0, np.int64))
    assert [len(column) for column in groups.columns] == [0, 0]
    assert len(groups.counts) == 0
