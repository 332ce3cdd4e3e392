"""Item vectors from the spectrum of the co-occurrence graph, and cross-fitting of these vectors.

In the leading eigenvectors of the degree-normalised co-occurrence matrix, items that share neighbours, or
neighbours of neighbours, are close to each other. On sparse data, gradient descent from random vectors does
not find such vectors, because it memorises single users first.

Training on top of these vectors leaks: they already contain the pairs that the training tasks predict.
`cross_fitting` therefore divides the users into folds and computes the vectors of each fold without the users
of that fold. A training task then uses vectors that do not depend on its own user, as is the case for a new
user.
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

# Chosen by the MRR of the vectors without training, in five-fold cross-validation on the training users of
# X-Wines, MovieTweetings and Amazon Sports.
WINDOW = 20
DISTANCE_DECAY = 0.6
LENGTH_DISCOUNT = 0.5
CROSS_FITTING_REVISION = 2
"""Increased when a change of the code changes the users or the vectors of cross-fitted training; see
`metatl.models.System.revision`."""

THRESHOLD = 0.9
"""This share of the smallest eigenvalue that is kept is subtracted from all eigenvalues."""
NORM_EXPONENT = 0.5
"""Each vector is divided by its norm to this power, which shortens the long vectors of popular items."""
ROOT_MEAN_SQUARE_NORM = 8.0

_OVERSAMPLING = 16
_ITERATIONS = 12


@dataclass(frozen=True, eq=False)
class Fold:
    """A fold of training users, and the change of the item vectors without them.

    Attributes
    ----------
    train : Interactions
        The rows of the fold's users.
    users : ndarray
        (U,) int64, the indices of these users among all training users.
    offsets : ndarray
        (I, d) float32, the vectors computed without these users, minus the vectors computed with all users.
    """

    train: Interactions
    users: NDArray[np.int64]
    offsets: NDArray[np.float32]


def spectral_vectors(train: Interactions, dim: int) -> NDArray[np.float32]:
    """Compute item vectors from co-occurrences.

    Let W be the co-occurrences, s their row sums and m the median of the row sums above 0. The leading
    eigenpairs (λ_j, v_j) of A_ij = W_ij / √((s_i + m)(s_j + m)) give the vector x_i of item i:
    x_ij = v_ij √(max(λ_j - 0.9 λ_d, 0) / λ_1), divided by √‖x_i‖. The term m prevents eigenvectors that
    consist of few rare items. Finally all vectors are scaled to a root mean square norm of 8.

    Parameters
    ----------
    train : Interactions
        The training rows, each user's in time order.
    dim : int
        d; if the catalogue has fewer items, the last columns are 0.

    Returns
    -------
    ndarray
        (I, d) float32; 0 for items without co-occurrences. Deterministic.
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
    """Compute the largest eigenvalues of a symmetric matrix and their eigenvectors.

    The method is subspace iteration from a fixed random start with a Rayleigh-Ritz step (Halko, Martinsson
    and Tropp, *Finding structure with randomness*, SIAM Review 2011). ARPACK is more precise than item
    vectors need, at many times the cost.

    Parameters
    ----------
    matrix : csr_array
        (I, I) float64, symmetric.
    count : int
        Number of eigenpairs, from 1 to I.

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
            # The small multiple of the identity separates λ from -λ.
            basis = np.linalg.qr(matrix @ basis + 0.1 * basis)[0]
        projected = basis.T @ (matrix @ basis)
        values, rotation = np.linalg.eigh((projected + projected.T) / 2)
        vectors = basis @ rotation
    order = np.argsort(-values, kind="stable")[:count]
    return values[order], vectors[:, order]


def cross_fitting(
    train: Interactions, vectors: NDArray[np.float32], folds: int, *, fewest_rows: int
) -> list[Fold]:
    """Divide the users into folds and compute the item vectors without the users of each fold.

    An eigenbasis is unique only up to a rotation, so the vectors of each fold are rotated onto those of all
    users (orthogonal Procrustes).

    Parameters
    ----------
    train : Interactions
        The training rows.
    vectors : ndarray
        (I, d) float32, `spectral_vectors` of all training rows.
    folds : int
        Number of folds; with fewer users, one fold per user.
    fewest_rows : int
        Users with fewer rows are in no fold, because tasks are not sampled from them.

    Returns
    -------
    list of Fold
        Empty if fewer than two users have enough rows.
    """
    eligible = np.flatnonzero(train.lengths >= fewest_rows)
    count = min(folds, len(eligible))
    if count < 2:  # noqa: PLR2004
        return []
    fold_of_user = np.full(train.num_users, -1)
    fold_of_user[eligible] = np.arange(len(eligible)) % count
    fold_of_row = fold_of_user[train.users]
    fitted = []
    for fold in range(count):
        is_inside = fold_of_row == fold
        without_fold = spectral_vectors(train.select_rows(~is_inside), vectors.shape[1])
        left, _, right = np.linalg.svd(without_fold.T @ vectors)
        users = np.flatnonzero(fold_of_user == fold)
        fitted.append(Fold(train.select_rows(is_inside), users, without_fold @ (left @ right) - vectors))
    return fitted
