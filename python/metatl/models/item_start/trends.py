"""How the popularity of items has moved lately: new users arrive after the training rows end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions

PRIOR_COUNT = 2.0
"""Added to both counts of an item, so that a handful of rows makes no trend."""


def popularity_trend(train: Interactions, until: int) -> NDArray[np.float32]:
    """Compare the recent popularity of each item with its popularity at all times.

    trend_i = log((r_i + 2) / (n_i + 2)) with n_i the item's rows and r_i its rows weighted by 2^(-age / h),
    scaled so that Σ r = Σ n. h is a third of the median age, so that the trend follows the pace of the data.

    Parameters
    ----------
    train : Interactions
        The training rows.
    until : int
        T in microseconds since 1970-01-01 UTC: the end of the training rows, from which ages are counted.

    Returns
    -------
    ndarray
        (I,) float32, about 0 for steady items; all 0 where the ages give no pace.
    """
    ages = (until - train.timestamps).astype(np.float64)
    half_life = float(np.median(ages)) / 3 if len(ages) else 0.0
    if half_life <= 0:
        return np.zeros(train.num_items, dtype=np.float32)
    weights = np.exp2(-ages / half_life)
    counts = train.item_counts
    recent = np.bincount(train.items, weights=weights, minlength=train.num_items)
    recent *= counts.sum() / weights.sum()
    return np.log((recent + PRIOR_COUNT) / (counts + PRIOR_COUNT)).astype(np.float32)
