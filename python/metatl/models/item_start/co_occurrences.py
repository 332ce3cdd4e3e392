"""Which items occur together in the sequences of the training users, and how strongly."""

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
    """Sum the weights of all pairs of a user's items in the window, without the diagonal.

    Two items d places apart in the row of a user with n interactions add d^-distance_decay ·
    n^-length_discount to the entry (earlier, later), and `backward` times that to (later, earlier).

    Parameters
    ----------
    indptr : ndarray
        (U + 1,) int64; user u owns places ``indptr[u]:indptr[u + 1]`` of `items`.
    items : ndarray
        (N,) int64, each user's in time order.
    num_items : int
        I.
    window : int or None
        Largest distance that counts; None for any.
    distance_decay, length_discount : float
        Exponents, 0 or more.
    backward : float
        Weight of a pair in reverse.

    Returns
    -------
    csr_array
        (I, I) float64, without stored zeros; symmetric where `backward` is 1.
    """
    lengths = np.diff(indptr)
    user_weights = np.repeat(np.maximum(lengths, 1) ** -length_discount, lengths)
    if window is None and distance_decay == 0 and backward == 1:
        # The same sum as a product; a user with thousands of items would need as many passes below.
        rows = sp.csr_array((np.ones(len(items)), items, indptr), shape=(len(lengths), num_items))
        weighted = sp.csr_array((user_weights, items, indptr), shape=rows.shape)
        total = (rows.T @ weighted).tocsr()
        total.setdiag(0.0)
        total.eliminate_zeros()
        return total
    row_ends = np.repeat(indptr[1:], lengths)
    places = np.arange(len(items))
    longest = int(lengths.max(initial=0)) - 1
    reach = longest if window is None else min(window, longest)
    total = sp.csr_array((num_items, num_items), dtype=np.float64)
    # One pass per distance keeps memory at the size of the data, however long the longest user is.
    for distance in range(1, reach + 1):
        first = places[places + distance < row_ends]
        first = first[items[first] != items[first + distance]]
        weights = user_weights[first] * float(distance) ** -distance_decay
        pair = (items[first], items[first + distance])
        total = total + sp.csr_array((weights, pair), shape=total.shape)
    both: sp.csr_array = (total + backward * total.T).tocsr()
    both.eliminate_zeros()
    return both


def scale_rows(matrix: sp.csr_array, factors: np.ndarray) -> sp.csr_array:
    """Multiply each row by its factor."""
    scaled: sp.csr_array = matrix.copy()
    scaled.data *= np.repeat(factors, np.diff(matrix.indptr))
    return scaled


def invert(values: np.ndarray) -> np.ndarray:
    """Invert, with 0 for 0: what never occurs has no neighbours."""
    inverse: np.ndarray = np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)
    return inverse
