"""Histories as sparse rows of item weights, for item-kNN and session kNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from metatl.data.histories import Histories


def weigh_histories(histories: Histories, recency: float, num_items: int) -> sp.csr_array:
    """Weight the items of histories by recency: 1 for the last item, then recency, recency², and so on.

    Parameters
    ----------
    histories : Histories
        B rows, oldest item first.
    recency : float
        In (0, 1].
    num_items : int
        I, number of items in the catalogue.

    Returns
    -------
    csr_array
        (B, I) float64; the weights of repeated items add up.
    """
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    ages = histories.indptr[users + 1] - 1 - np.arange(len(users))
    weights = recency ** ages.astype(np.float64)
    return sp.csr_array((weights, (users, histories.items)), shape=(len(histories), num_items))
