"""Statistics of a data set under the protocol: the row of the paper's Table 1, and more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from metatl.data.split import part_by_arrival
from metatl.data.timestamps import to_datetime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from metatl.data.interactions import Interactions


@dataclass(frozen=True)
class Statistics:
    """Statistics of a data set after rare items are dropped.

    Attributes
    ----------
    num_users, num_items, num_interactions : int
        As in Table 1 of Wang et al. (2021).
    mean_length : float
        Interactions per user.
    cutoff : datetime.datetime
        T, in UTC.
    first, last : datetime.datetime
        The times of the earliest and of the latest interaction, in UTC.
    tie_share : float
        Share of adjacent rows of a user that have equal times.
    num_train_users : int
        Number of users who arrived before T and have enough rows before T.
    num_cold_users : dict of int to int
        For each K, the number of users who arrived at or after T and have more than K rows of items that
        are known in training.
    """

    num_users: int
    num_items: int
    num_interactions: int
    mean_length: float
    cutoff: datetime
    first: datetime
    last: datetime
    tie_share: float
    num_train_users: int
    num_cold_users: dict[int, int]


def statistics(
    interactions: Interactions,
    *,
    cutoff: date | None = None,
    cutoff_quantile: float = 0.75,
    min_item_count: int = 10,
    min_train_rows: int = 5,
    ks: Sequence[int] = (2, 3, 4),
) -> Statistics:
    """Describe a data set under the protocol of :func:`metatl.data.split.cold_start_split`.

    Parameters
    ----------
    interactions : Interactions
        The data set.
    cutoff, cutoff_quantile, min_item_count, min_train_rows
        See :func:`metatl.data.split.cold_start_split`.
    ks : sequence of int
        The values of K for which new users are counted.

    Returns
    -------
    Statistics
        The statistics.

    Raises
    ------
    InvalidArgumentError
        For an argument outside its range.
    DataError
        If no item is frequent enough.
    """
    arrivals = part_by_arrival(
        interactions,
        cutoff=cutoff,
        cutoff_quantile=cutoff_quantile,
        min_item_count=min_item_count,
        min_train_rows=min_train_rows,
    )
    filtered = arrivals.filtered
    return Statistics(
        num_users=filtered.num_users,
        num_items=filtered.num_items,
        num_interactions=filtered.num_interactions,
        mean_length=filtered.num_interactions / filtered.num_users,
        cutoff=to_datetime(arrivals.cutoff),
        first=to_datetime(int(filtered.timestamps.min())),
        last=to_datetime(int(filtered.timestamps.max())),
        tie_share=filtered.tie_share,
        num_train_users=arrivals.train.num_users,
        num_cold_users={k: int((arrivals.newcomers.lengths > k).sum()) for k in ks},
    )
