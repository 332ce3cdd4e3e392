"""Recent trend of each item's popularity.

New users arrive after the training rows end, so the most recent popularity is closest to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions

PRIOR_COUNT = 2.0
"""Added to both counts of an item, so that a few rows do not make a trend."""


def popularity_trend(train: Interactions, until: int) -> NDArray[np.float32]:
    """Compare the recent popularity of each item with its overall popularity.

    trend_i = log((r_i + 2) / (n_i + 2)), where n_i counts the item's rows and r_i sums their weights
    2^(-age / h), scaled so that Σ r = Σ n. The half-life h is a third of the median age, so that it adapts
    to the time span of the data.

    Parameters
    ----------
    train : Interactions
        The training rows.
    until : int
        T, the end of the training rows, in microseconds since 1970-01-01 UTC; the age of a row is the time
        from the row to T.

    Returns
    -------
    ndarray
        (I,) float32, about 0 for items of steady popularity; all 0 if the median age is 0.
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
