"""Item vectors from the spectrum of the co-occurrence graph, and vectors that leave some users out.

The strongest eigenvectors of the degree-normalised co-occurrence matrix place items that share neighbours,
and neighbours' neighbours, close to each other. On sparse data a gradient method does not get there from
random vectors: it remembers single users first.

Who trains on top of such vectors meets a trap: they already contain the very pairs that the training tasks
ask for. `cross_fitting` therefore parts the users into folds and computes, for each fold, the vectors without
that fold's users. A task then sees vectors that its own user had no share in, and so does a new user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from metatl.models.item_start.co_occurrences import co_occurrences, scale_rows

if TYPE_CHECKING:
    import scipy.sparse as sp
    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions

# Chosen by the MRR of the vectors alone, without any training, on the training users of X-Wines,
# MovieTweetings and Amazon Sports: each fifth of them ranked with the vectors of the other four.
WINDOW = 20
DISTANCE_DECAY = 0.6
LENGTH_DISCOUNT = 0.5
CROSS_FITTING_REVISION = 2
"""Raised when a change of the code changes whom cross-fitted systems are trained on, and with what: see
`metatl.models.System.revision`."""

THRESHOLD = 0.9
"""Eigenvalues shrink by this share of the smallest one that is kept."""
NORM_EXPONENT = 0.5
"""Each vector is divided by its norm to this power: popular items have long vectors, this shortens them."""
ROOT_MEAN_SQUARE_NORM = 8.0

_OVERSAMPLING = 16
_ITERATIONS = 12


@dataclass(frozen=True, eq=False)
class Fold:
    """Some training users, and what item vectors lack without them.

    Attributes
    ----------
    train : Interactions
        The rows of the fold's users.
    users : ndarray
        (U,) int64: the number of each of them among all training users.
    offsets : ndarray
        (I, d) float32: the vectors computed without these users, minus the vectors of all.
    """

    train: Interactions
    users: NDArray[np.int64]
    offsets: NDArray[np.float32]


def spectral_vectors(train: Interactions, dim: int) -> NDArray[np.float32]:
    """Compute item vectors from co-occurrence.

    With W the co-occurrences, s their row sums and m the median of those above 0, the leading eigenpairs
    (λ_j, v_j) of A_ij = W_ij / √((s_i + m)(s_j + m)) give item i the vector x_i with
    x_ij = v_ij √(max(λ_j - 0.9 λ_d, 0) / λ_1), divided by √‖x_i‖. The sum m keeps rare items from
    eigenvectors of their own. In the end all are scaled to a root mean square norm of 8.

    Parameters
    ----------
    train : Interactions
        The training rows, each user's in time order.
    dim : int
        d; where the catalogue has fewer items, the last columns are 0.

    Returns
    -------
    ndarray
        (I, d) float32; 0 for items that co-occur with none. The same on every call.
    """
    weights = co_occurrences(
        train.indptr,
        train.items,
        train.num_items,
        window=WINDOW,
        distance_decay=DISTANCE_DECAY,
        length_discount=LENGTH_DISCOUNT,
    )
    sums = np.asarray(weights.sum(axis=1)).ravel()
    vectors = np.zeros((train.num_items, dim))
    if (sums > 0).any():
        scale = 1.0 / np.sqrt(sums + np.median(sums[sums > 0]))
        adjacency = scale_rows(weights, scale)
        adjacency.data *= scale[adjacency.indices]
        values, basis = leading_eigenpairs(adjacency, min(dim, train.num_items))
        gains = np.sqrt(np.maximum(values - THRESHOLD * max(values[-1], 0.0), 0.0) / values[0])
        vectors[:, : len(gains)] = basis * gains
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, 1.0) ** NORM_EXPONENT
        vectors *= ROOT_MEAN_SQUARE_NORM / np.sqrt(np.square(vectors).sum(axis=1).mean())
    return vectors.astype(np.float32)


def leading_eigenpairs(matrix: sp.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest eigenvalues of a symmetric matrix and their eigenvectors.

    Subspace iteration from a fixed random start with a Rayleigh-Ritz step (Halko, Martinsson and Tropp,
    *Finding structure with randomness*, SIAM Review 2011). ARPACK finds more digits than item vectors need,
    at many times the cost.

    Parameters
    ----------
    matrix : csr_array
        (I, I) float64, symmetric.
    count : int
        From 1 to I.

    Returns
    -------
    values : ndarray
        (count,) float64, descending.
    vectors : ndarray
        (I, count) float64, orthonormal columns.
    """
    size = matrix.shape[0]
    width = count + _OVERSAMPLING
    if width >= size:
        values, vectors = np.linalg.eigh(matrix.toarray())
    else:
        basis = np.linalg.qr(np.random.default_rng(0).standard_normal((size, width)))[0]
        for _ in range(_ITERATIONS):
            # The small multiple of the identity parts λ from -λ.
            basis = np.linalg.qr(matrix @ basis + 0.1 * basis)[0]
        small = basis.T @ (matrix @ basis)
        values, rotation = np.linalg.eigh((small + small.T) / 2)
        vectors = basis @ rotation
    order = np.argsort(-values, kind="stable")[:count]
    return values[order], vectors[:, order]


def cross_fitting(
    train: Interactions, vectors: NDArray[np.float32], folds: int, *, fewest_rows: int
) -> list[Fold]:
    """Part the users that tasks are drawn from into folds, each with the vectors that leave it out.

    An eigenbasis is arbitrary up to a rotation, so each fold's vectors are rotated onto those of all users
    (orthogonal Procrustes).

    Parameters
    ----------
    train : Interactions
        The training rows.
    vectors : ndarray
        (I, d) float32, `spectral_vectors` of all of them.
    folds : int
        How many; fewer where there are fewer users.
    fewest_rows : int
        Rows that a user needs to be drawn from.

    Returns
    -------
    list of Fold
        Empty where fewer than two users have enough rows.
    """
    eligible = np.flatnonzero(train.lengths >= fewest_rows)
    count = min(folds, len(eligible))
    if count < 2:  # noqa: PLR2004
        return []
    fold_of_user = np.full(train.num_users, -1)
    fold_of_user[eligible] = np.arange(len(eligible)) % count
    fold_of_row = fold_of_user[train.users]
    parts = []
    for fold in range(count):
        is_inside = fold_of_row == fold
        others = spectral_vectors(train.select_rows(~is_inside), vectors.shape[1])
        left, _, right = np.linalg.svd(others.T @ vectors)
        users = np.flatnonzero(fold_of_user == fold)
        parts.append(Fold(train.select_rows(is_inside), users, others @ (left @ right) - vectors))
    return parts
