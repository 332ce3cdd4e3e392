"""Item-kNN: score an item by how similar it is to the items of the history.

Similarity is weighted co-occurrence in the training sequences. `paper` is the cosine item-kNN of Sarwar,
Karypis, Konstan and Riedl, *Item-based collaborative filtering recommendation algorithms*, WWW 2001, with the
pruned neighbour lists of Deshpande and Karypis, *Item-based top-N recommendation algorithms*, TOIS 2004.
`tuned` counts only items that stand close to each other in a sequence, divides by popularity more gently, and
also asks the neighbours' neighbours, as the random walks of Paudel, Christoffel, Newell and Bernstein
(RP3beta, TiiS 2017) do: on sparse data most candidates are no neighbour of any of three items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from metatl.models.history_weights import weigh_histories
from metatl.models.item_start.co_occurrences import co_occurrences, invert, scale_rows
from metatl.models.preset_config import PresetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metatl.data.interactions import Interactions


class ItemKNNConfig(PresetConfig):
    """Settings of item-kNN."""

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
            "Two items of a user co-occur if at most this many positions apart; None for any two items "
            "of a user."
        ),
    )
    distance_decay: float = Field(
        default=0.25, ge=0.0, description="Items d positions apart add d^-distance_decay."
    )
    length_discount: float = Field(
        default=0.5,
        ge=0.0,
        description=(
            "A user with n interactions adds n^-length_discount times as much: who rates everything "
            "says little."
        ),
    )
    history_exponent: float = Field(
        default=0.7,
        ge=0.0,
        description=(
            "Co-occurrence is divided by (count + shrinkage)^exponent of the history's item; 0.5 for both "
            "exponents without shrinkage is the cosine."
        ),
    )
    candidate_exponent: float = Field(
        default=0.9, ge=0.0, description="The same exponent for the candidate item."
    )
    shrinkage: float = Field(
        default=50.0,
        ge=0.0,
        description="Added to the counts, so that few observations make no strong neighbours.",
    )
    neighbours: int | None = Field(
        default=None,
        ge=1,
        description="How many of its most similar items each item keeps (ties by lower id); None for all.",
    )
    recency: float = Field(
        default=0.9,
        gt=0.0,
        le=1.0,
        description="The item before the last weighs this much less than the last, and so on.",
    )
    second_step: float = Field(
        default=4.0,
        ge=0.0,
        description="Weight of the neighbours' neighbours, next to the weight 1 of the neighbours.",
    )
    popularity: float = Field(
        default=0.75,
        ge=0.0,
        description=(
            "Weight of the item's share of all interactions, next to a history item's total "
            "similarity of about 1."
        ),
    )


class ItemKNN:
    """Weighted co-occurrence neighbours.

    With S the similarities scaled to a mean row sum of 1, P the same with every row summing to 1, x the
    weights of the history's items (recency^0 for the last, recency^1 before it, …) and q the items' shares of
    all interactions: score = (x + second_step · x P) S + popularity · q.

    Parameters
    ----------
    config : ItemKNNConfig
        The settings.
    similarity : csr_array
        (I, I) float64, S; rows are history items, columns candidates.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    def __init__(self, config: ItemKNNConfig, similarity: sp.csr_array, item_counts: np.ndarray) -> None:
        self.config = config
        self.similarity = similarity
        self.item_counts = item_counts
        self._step = scale_rows(similarity, invert(similarity.sum(axis=1)))
        self._prior = config.popularity * item_counts / max(int(item_counts.sum()), 1)

    @classmethod
    def fit(cls, train: Interactions, config: ItemKNNConfig) -> ItemKNN:
        """Count co-occurrences and turn them into similarities.

        Parameters
        ----------
        train : Interactions
            The training rows, each user's in time order.
        config : ItemKNNConfig
            The settings.
        """
        item_counts = train.item_counts
        weights = co_occurrences(
            train.indptr,
            train.items,
            train.num_items,
            window=config.window,
            distance_decay=config.distance_decay,
            length_discount=config.length_discount,
        )
        source = invert((item_counts + config.shrinkage) ** config.history_exponent)
        target = invert((item_counts + config.shrinkage) ** config.candidate_exponent)
        similarity = scale_rows(weights, source)
        similarity.data *= target[similarity.indices]
        if config.neighbours is not None:
            similarity = _keep_nearest(similarity, config.neighbours)
        total = similarity.sum()
        if total > 0:
            similarity.data *= train.num_items / total
        return cls(config, similarity, item_counts)

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.item_counts)

    def score(self, histories: np.ndarray) -> np.ndarray:
        """Score every item for histories of equal length.

        Parameters
        ----------
        histories : ndarray
            (B, L) int64 with L ≥ 1, oldest item first.

        Returns
        -------
        ndarray
            (B, I) float32, C-contiguous.
        """
        walk = weigh_histories(histories, self.config.recency, self.similarity.shape[0])
        if self.config.second_step > 0:
            walk = walk + self.config.second_step * (walk @ self._step)
        scores = (walk @ self.similarity).toarray()
        scores += self._prior
        answer: np.ndarray = scores.astype(np.float32)
        return answer

    def tensors(self) -> dict[str, np.ndarray]:
        """Give what a checkpoint must hold besides the settings."""
        return {
            "item_counts": self.item_counts,
            "indptr": self.similarity.indptr.astype(np.int64),
            "indices": self.similarity.indices.astype(np.int64),
            "similarity": self.similarity.data,
        }

    @classmethod
    def from_tensors(
        cls, config: ItemKNNConfig, num_items: int, tensors: Mapping[str, np.ndarray]
    ) -> ItemKNN:
        """Rebuild a model from its settings and ``tensors()``.

        Raises
        ------
        ValueError
            If the arrays are not a matrix and counts of that many items.
        """
        if tensors["item_counts"].shape != (num_items,):
            raise ValueError(f"item_counts has shape {tensors['item_counts'].shape}, expected ({num_items},)")
        parts = (tensors["similarity"], tensors["indices"], tensors["indptr"])
        similarity = sp.csr_array(parts, shape=(num_items, num_items))
        similarity.check_format(full_check=True)
        return cls(config, similarity, tensors["item_counts"])


def _keep_nearest(matrix: sp.csr_array, count: int) -> sp.csr_array:
    """Keep the largest `count` entries of each row, ties by lower column."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(order)) - matrix.indptr[rows]  # the sort leaves rows where they are
    kept = order[place < count]
    return sp.csr_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
