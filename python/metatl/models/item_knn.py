"""Item-kNN: the score of an item is its similarity to the items of the history.

Similarity is weighted co-occurrence in the training sequences. `paper` is the cosine item-kNN of Sarwar,
Karypis, Konstan and Riedl, *Item-based collaborative filtering recommendation algorithms*, WWW 2001, with the
pruned neighbour lists of Deshpande and Karypis, *Item-based top-N recommendation algorithms*, TOIS 2004.
`tuned` counts only pairs of items that are close in a sequence and shrinks the normalisation by popularity.
It also uses the neighbours of neighbours, as the random walks of Paudel, Christoffel, Newell and Bernstein
(RP3beta, TiiS 2017) do, because on sparse data most candidates are not a neighbour of any of three items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from metatl import _metatl
from metatl.models.counting import ItemMatrixModel, SparseRows, invert
from metatl.models.preset_config import PresetConfig

if TYPE_CHECKING:
    import scipy.sparse as sp

    from metatl.data.histories import Histories
    from metatl.data.interactions import Interactions


_COMPOSED_ITEMS = 2048
"""Largest catalogue in which the two steps of a walk are written out as one row for each item: 32 MiB."""


class ItemKNNConfig(PresetConfig):
    """Settings of item-kNN. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "knn"
    paper: ClassVar[dict[str, Any]] = {
        "window": None,
        "distance_decay": 0.0,
        "length_discount": 0.0,
        "history_exponent": 0.5,
        "candidate_exponent": 0.5,
        "shrinkage": 0.0,
        "neighbours": 20,
        "recency": 1.0,
        "second_step": 0.0,
        "popularity": 0.0,
    }

    window: int | None = Field(
        default=10,
        ge=1,
        description=(
            "Two items of a user co-occur if they are at most this many positions apart; None for any "
            "distance."
        ),
    )
    distance_decay: float = Field(
        default=0.25, ge=0.0, description="A pair at distance d has the weight d^-distance_decay."
    )
    length_discount: float = Field(
        default=0.5,
        ge=0.0,
        description=(
            "The pairs of a user with n interactions are weighted by n^-length_discount, because the pairs "
            "of very active users carry little information."
        ),
    )
    history_exponent: float = Field(
        default=0.7,
        ge=0.0,
        description=(
            "Co-occurrence is divided by (count + shrinkage)^history_exponent of the item of the history. "
            "Both exponents 0.5 and shrinkage 0 give the cosine."
        ),
    )
    candidate_exponent: float = Field(default=0.9, ge=0.0, description="The same exponent for the candidate.")
    shrinkage: float = Field(
        default=50.0,
        ge=0.0,
        description="Added to the counts, so that rare items do not become strong neighbours.",
    )
    neighbours: int | None = Field(
        default=None,
        ge=1,
        description="Number of most similar items that each item keeps (ties by lower id); None for all.",
    )
    recency: float = Field(
        default=0.9,
        gt=0.0,
        le=1.0,
        description="Weight of an item of the history, relative to the item after it.",
    )
    second_step: float = Field(
        default=4.0,
        ge=0.0,
        description="Weight of the neighbours of neighbours; neighbours have the weight 1.",
    )
    popularity: float = Field(
        default=0.75,
        ge=0.0,
        description=(
            "Weight of the item's share of all interactions. The similarities of an item of the history "
            "sum to about 1."
        ),
    )


class ItemKNN(ItemMatrixModel):
    """Similarities of items from weighted co-occurrence.

    score = (x + second_step · x P) S + popularity · q, where S holds the similarities, scaled to a mean row
    sum of 1; P is S with each row scaled to the sum 1; x holds the weights of the items of the history
    (recency⁰ for the last, recency¹ for the one before, …); and q holds the items' shares of all
    interactions.

    Parameters
    ----------
    config : ItemKNNConfig
        The settings.
    matrix : SparseRows
        (I, I), S; rows are items of the history, columns are candidates.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    matrix_name: ClassVar[str] = "similarity"

    def __init__(self, config: ItemKNNConfig, matrix: SparseRows, item_counts: np.ndarray) -> None:
        super().__init__(config, matrix, item_counts)
        self._walks = _metatl.ItemWalks(
            matrix.indptr,
            matrix.indices,
            matrix.values,
            recency=config.recency,
            second_step=config.second_step,
            prior=config.popularity * item_counts / max(int(item_counts.sum()), 1),
            composed=config.second_step > 0 and self.num_items <= _COMPOSED_ITEMS,
        )

    @classmethod
    def fit(cls, train: Interactions, config: ItemKNNConfig) -> ItemKNN:
        """Count co-occurrences and compute similarities from them.

        Parameters
        ----------
        train : Interactions
            The training rows, each user's in time order.
        config : ItemKNNConfig
            The settings.
        """
        from metatl.models.item_start.co_occurrences import co_occurrences, scale_rows

        item_counts = train.item_counts
        weights = co_occurrences(
            train.indptr,
            train.items,
            train.num_items,
            window=config.window,
            distance_decay=config.distance_decay,
            length_discount=config.length_discount,
        )
        history_factors = invert((item_counts + config.shrinkage) ** config.history_exponent)
        candidate_factors = invert((item_counts + config.shrinkage) ** config.candidate_exponent)
        similarity = scale_rows(weights, history_factors)
        similarity.data *= candidate_factors[similarity.indices]
        if config.neighbours is not None:
            similarity = _keep_nearest(similarity, config.neighbours)
        total = similarity.sum()
        if total > 0:
            similarity.data *= train.num_items / total
        return cls(config, SparseRows.of(similarity), item_counts)

    def score(self, histories: Histories, *, num_threads: int | None = None) -> np.ndarray:
        """Score every item for histories of any lengths.

        Parameters
        ----------
        histories : Histories
            B rows of at least one item, oldest first.
        num_threads : int, optional
            Threads of the kernel.

        Returns
        -------
        ndarray
            (B, I) float32, C-contiguous.
        """
        return self._walks.score(histories.indptr, histories.items, num_threads=num_threads)


def _keep_nearest(matrix: sp.csr_array, count: int) -> sp.csr_array:
    """Keep the largest `count` entries of each row, ties by lower column."""
    import scipy.sparse as sp

    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rank = np.arange(len(order)) - matrix.indptr[rows]  # `order` sorts within rows, so `rows` is unchanged
    kept = order[rank < count]
    return sp.csr_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
