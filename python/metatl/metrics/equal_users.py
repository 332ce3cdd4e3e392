"""Users who are alike in what is measured are counted once: ranks among 101 candidates make 101 groups."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_COUNTED_KEYS = 2**20


class UserGroups(NamedTuple):
    """Groups of users.

    Attributes
    ----------
    columns : tuple of ndarray
        For each column (G,) int64: its value in each group; groups ascend by the first column, then the
        second and so on.
    counts : ndarray
        (G,) int64, users of each group, at least 1.
    """

    columns: tuple[np.ndarray, ...]
    counts: np.ndarray


def group_users(*columns: np.ndarray) -> UserGroups:
    """Group users by what they have in common.

    Parameters
    ----------
    *columns : ndarray
        (B,) int64 each, at least 0, and small enough for the product of their ranges to fit into 63
        bits.

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
        found = np.flatnonzero(numbers)
        counts = numbers[found]
    else:
        found, counts = np.unique(keys, return_counts=True)
    parts = []
    for values in reversed(ranges):
        found, part = np.divmod(found, values)
        parts.append(part)
    return UserGroups(tuple(reversed(parts)), counts)
