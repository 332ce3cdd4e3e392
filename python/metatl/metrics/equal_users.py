"""Groups of users with equal values, which are computed once: 101 candidates give 101 groups at most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_COUNTED_KEYS = 2**20


class UserGroups(NamedTuple):
    """Groups of users.

    Attributes
    ----------
    columns : tuple of ndarray
        For each column (G,) int64: its value in each group. Groups are sorted by the first column, then by
        the second and so on.
    counts : ndarray
        (G,) int64, users of each group, at least 1.
    """

    columns: tuple[np.ndarray, ...]
    counts: np.ndarray


def group_users(*columns: np.ndarray) -> UserGroups:
    """Group users with equal values.

    Parameters
    ----------
    *columns : ndarray
        (B,) int64 each, at least 0; the product of their ranges fits into 63 bits.

    Returns
    -------
    UserGroups
        The distinct rows of the columns.
    """
    ranges = [int(column.max(initial=0)) + 1 for column in columns]
    keys = np.zeros(len(columns[0]), np.int64)
    for column, values in zip(columns, ranges, strict=True):
        keys *= values
        keys += column
    if int(np.prod([float(values) for values in ranges])) <= _COUNTED_KEYS:
        numbers = np.bincount(keys)
        distinct = np.flatnonzero(numbers)
        counts = numbers[distinct]
    else:
        distinct, counts = np.unique(keys, return_counts=True)
    values_of_groups = []
    for values in reversed(ranges):
        distinct, column = np.divmod(distinct, values)
        values_of_groups.append(column)
    return UserGroups(tuple(reversed(values_of_groups)), counts)
