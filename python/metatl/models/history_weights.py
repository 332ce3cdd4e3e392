"""Histories as rows of weighted items, for the systems that look their neighbours up."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def weigh_histories(histories: np.ndarray, recency: float, num_items: int) -> sp.csr_array:
    """Weigh the last item of each history 1, the one before it recency, then recency², and so on.

    Parameters
    ----------
    histories : ndarray
        (B, L) int64 with L ≥ 1, oldest item first.
    recency : float
        Above 0, at most 1.
    num_items : int
        I.

    Returns
    -------
    csr_array
        (B, I) float64; the weights of an item that a history holds more than once add up.
    """
    count, length = histories.shape
    weights = recency ** np.arange(length - 1, -1, -1, dtype=np.float64)
    users = np.repeat(np.arange(count), length)
    return sp.csr_array((np.tile(weights, count), (users, histories.ravel())), shape=(count, num_items))
