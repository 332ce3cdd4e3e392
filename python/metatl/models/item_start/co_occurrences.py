"""Weighted co-occurrences of items in the sequences of the training users."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def co_occurrences(
    indptr: np.ndarray,
    items: np.ndarray,
    num_items: int,
    *,
    window: int | None,
    distance_decay: float,
    length_discount: float,
    backward: float = 1.0,
) -> sp.csr_array:
    """Sum the weights of all pairs of a user's items within the window, without the diagonal.

    Two items at distance d in the sequence of a user with n interactions add
    d^-distance_decay · n^-length_discount to the entry (earlier, later), and `backward` times that to the
    entry (later, earlier).

    Parameters
    ----------
    indptr : ndarray
        (U + 1,) int64; the items of user u are ``items[indptr[u]:indptr[u + 1]]``.
    items : ndarray
        (N,) int64, each user's in time order.
    num_items : int
        I, number of items in the catalogue.
    window : int or None
        Largest distance of a pair; None for any distance.
    distance_decay, length_discount : float
        Exponents, 0 or more.
    backward : float
        Weight of the reverse of a pair.

    Returns
    -------
    csr_array
        (I, I) float64, without stored zeros; symmetric if `backward` is 1.
    """
    lengths = np.diff(indptr)
    user_weights = np.repeat(np.maximum(lengths, 1) ** -length_discount, lengths)
    if window is None and distance_decay == 0 and backward == 1:
        # The same sum as one matrix product. The loop below needs one pass per distance, which is thousands
        # for a user with thousands of items.
        rows = sp.csr_array((np.ones(len(items)), items, indptr), shape=(len(lengths), num_items))
        weighted = sp.csr_array((user_weights, items, indptr), shape=rows.shape)
        total = (rows.T @ weighted).tocsr()
        total.setdiag(0.0)
        total.eliminate_zeros()
        return total
    row_ends = np.repeat(indptr[1:], lengths)
    indices = np.arange(len(items))
    longest = int(lengths.max(initial=0)) - 1
    reach = longest if window is None else min(window, longest)
    total = sp.csr_array((num_items, num_items), dtype=np.float64)
    # One pass per distance: memory stays proportional to the data, whatever the longest sequence.
    for distance in range(1, reach + 1):
        first = indices[indices + distance < row_ends]
        first = first[items[first] != items[first + distance]]
        weights = user_weights[first] * float(distance) ** -distance_decay
        pair = (items[first], items[first + distance])
        total = total + sp.csr_array((weights, pair), shape=total.shape)
    both: sp.csr_array = (total + backward * total.T).tocsr()
    both.eliminate_zeros()
    return both


def scale_rows(matrix: sp.csr_array, factors: np.ndarray) -> sp.csr_array:
    """Multiply each row of a matrix by its factor.

    Parameters
    ----------
    matrix : csr_array
        (n, m) float64.
    factors : ndarray
        (n,) float64.

    Returns
    -------
    csr_array
        (n, m) float64, a copy.
    """
    scaled: sp.csr_array = matrix.copy()
    scaled.data *= np.repeat(factors, np.diff(matrix.indptr))
    return scaled
