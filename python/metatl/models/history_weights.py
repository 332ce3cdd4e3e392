"""Histories as sparse rows of item weights, for item-kNN and session kNN."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def weigh_histories(histories: np.ndarray, recency: float, num_items: int) -> sp.csr_array:
    """Weight the items of histories by recency: 1 for the last item, then recency, recency², and so on.

    Parameters
    ----------
    histories : ndarray
        (B, L) int64 with L ≥ 1, oldest item first.
    recency : float
        In (0, 1].
    num_items : int
        I, number of items in the catalogue.

    Returns
    -------
    csr_array
        (B, I) float64; the weights of repeated items add up.
    """
    count, length = histories.shape
    weights = recency ** np.arange(length - 1, -1, -1, dtype=np.float64)
    users = np.repeat(np.arange(count), length)
    return sp.csr_array((np.tile(weights, count), (users, histories.ravel())), shape=(count, num_items))
