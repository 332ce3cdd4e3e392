"""Metrics of the recommended lists of all users: catalogue coverage and popularity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ListMetrics:
    """Metrics of the top-N lists of a set of users.

    Attributes
    ----------
    n : int
        N, the length of the lists.
    coverage : float
        Share of the catalogue that is in at least one list.
    popularity : float
        Mean number of training interactions of a recommended item.
    popularity_bias : float or None
        `popularity` divided by the same mean over the targets: above 1 the recommended items are more popular
        than the items that users chose. None if no target has a training interaction.
    """

    n: int
    coverage: float
    popularity: float
    popularity_bias: float | None


def list_metrics(lists: np.ndarray, targets: np.ndarray, item_counts: np.ndarray) -> ListMetrics:
    """Compute the metrics of lists.

    Parameters
    ----------
    lists : ndarray
        (B, N) int64, the items recommended to each user; -1 where a list is shorter.
    targets : ndarray
        (B,) int64, the item that each user chose next; -1 if it is not in the catalogue.
    item_counts : ndarray
        (I,) int64, training interactions of each item of the catalogue.

    Returns
    -------
    ListMetrics
        Over all items of all lists.
    """
    recommended = lists[lists >= 0]
    coverage = np.count_nonzero(np.bincount(recommended, minlength=len(item_counts))) / len(item_counts)
    popularity = float(item_counts[recommended].mean()) if len(recommended) else 0.0
    known = targets[targets >= 0]
    chosen = float(item_counts[known].mean()) if len(known) else 0.0
    return ListMetrics(
        n=lists.shape[1],
        coverage=coverage,
        popularity=popularity,
        popularity_bias=popularity / chosen if chosen else None,
    )
