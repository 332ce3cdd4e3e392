"""Session kNN: training users whose sequences share items with the history vote for their other items.

`paper` is that of Jannach and Ludewig, *When recurrent neural networks meet the neighborhood for
session-based recommendation*, RecSys 2017: the cosine of the two sets of items, the 500 nearest, a vote each.
`tuned` takes the decays of STAN (Garg, Gupta, Malhotra, Vig and Shroff, *Sequence and time aware neighborhood
for session-based recommendations*, SIGIR 2019): later items of the history count more, and of a neighbour's
items those close to a shared one. It also divides the votes for popular items, and lets popularity decide
among items that nobody votes for. STAN's decay by the age of a neighbour is there, but `tuned` leaves it off:
it gained nothing on X-Wines, MovieTweetings or Amazon Sports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from metatl.models.history_weights import weigh_histories
from metatl.models.item_start.co_occurrences import invert
from metatl.models.preset_config import PresetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metatl.data.interactions import Interactions


class SessionKNNConfig(PresetConfig):
    """Settings of session kNN; the defaults are those of ``tuned``."""

    system: ClassVar[str] = "session-knn"
    paper: ClassVar[dict[str, Any]] = {
        "neighbours": 500,
        "recency": 1.0,
        "length_exponent": 0.5,
        "distance_decay": 0.0,
        "candidate_exponent": 0.0,
        "shrinkage": 0.0,
        "popularity": 0.0,
    }

    neighbours: int = Field(
        default=1000, ge=1, description="How many of the nearest training users vote (ties by lower user)."
    )
    recency: float = Field(
        default=0.8,
        gt=0.0,
        le=1.0,
        description="The item before the last weighs this much less than the last, and so on.",
    )
    length_exponent: float = Field(
        default=0.25,
        ge=0.0,
        description="A neighbour of n items is divided by n^length_exponent; 0.5 is the cosine.",
    )
    half_life: float | None = Field(
        default=None,
        gt=0.0,
        description=(
            "A neighbour's weight halves with each half_life of its age, the time from its last "
            "interaction to the last of all, in units of the median age; None for no decay."
        ),
    )
    distance_decay: float = Field(
        default=0.5,
        ge=0.0,
        description="An item d positions from the shared one gets d^-distance_decay of a neighbour's vote.",
    )
    candidate_exponent: float = Field(
        default=0.5,
        ge=0.0,
        description="Votes for an item are divided by (count + shrinkage)^candidate_exponent.",
    )
    shrinkage: float = Field(default=200.0, ge=0.0, description="Added to the counts.")
    popularity: float = Field(
        default=0.1,
        ge=0.0,
        description="Weight of the item's share of all interactions, next to votes that sum to 1.",
    )


class SessionKNN:
    """Votes of the nearest training users.

    A user u with the items of the history in common has the similarity w_u Σ recency^age over those, age 0
    for the last item of the history. Of the neighbours, each row j gets the similarity times
    max(|p_j - p_m|, 1)^-distance_decay, p_m the place of the shared item that the history has last. Votes
    divided by (count_j + shrinkage)^candidate_exponent are scaled to the sum 1, then popularity · share_j is
    added.

    Parameters
    ----------
    config : SessionKNNConfig
        The settings.
    indptr, items : ndarray
        (U + 1,) and (N,) int64, the rows of the training users.
    user_weights : ndarray
        (U,) float64, w.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    def __init__(
        self,
        config: SessionKNNConfig,
        indptr: np.ndarray,
        items: np.ndarray,
        user_weights: np.ndarray,
        item_counts: np.ndarray,
    ) -> None:
        self.config = config
        self.indptr = indptr
        self.items = items
        self.user_weights = user_weights
        self.item_counts = item_counts
        shape = (len(indptr) - 1, len(item_counts))
        owners = sp.csr_array((np.ones(len(items)), items, indptr), shape=shape, copy=True)
        owners.sum_duplicates()
        owners.data[:] = 1.0
        self._owners = owners.T.tocsr()
        self._discount = invert((item_counts + config.shrinkage) ** config.candidate_exponent)
        self._prior = config.popularity * item_counts / max(int(item_counts.sum()), 1)

    @classmethod
    def fit(cls, train: Interactions, config: SessionKNNConfig) -> SessionKNN:
        """Keep the training rows, and weigh their users.

        Parameters
        ----------
        train : Interactions
            The training rows, each user's in time order.
        config : SessionKNNConfig
            The settings.
        """
        lengths = np.diff(train.indptr)
        weights = np.maximum(lengths, 1) ** -config.length_exponent
        if config.half_life is not None and len(train.items) > 0:
            last = train.timestamps[np.maximum(train.indptr[1:] - 1, 0)]
            ages = (train.timestamps.max() - last).astype(np.float64)
            unit = float(np.median(ages))
            if unit > 0:
                weights = weights * np.exp2(-ages / (config.half_life * unit))
        counts = train.item_counts
        return cls(config, train.indptr, train.items, weights, counts)

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
        asked = weigh_histories(histories, self.config.recency, len(self.item_counts))
        similarities = (asked @ self._owners).tocsr()
        similarities.data *= self.user_weights[similarities.indices]
        scores = np.empty(asked.shape, dtype=np.float32)
        for row, history in enumerate(histories):
            place = slice(similarities.indptr[row], similarities.indptr[row + 1])
            votes = self._votes(history, similarities.indices[place], similarities.data[place])
            votes = votes * self._discount
            total = votes.sum()
            scores[row] = (votes / total if total > 0 else votes) + self._prior
        return scores

    def _votes(self, history: np.ndarray, users: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """Sum the votes (I,) of the nearest of some users."""
        nearest = np.lexsort((users, -similarities))[: self.config.neighbours]
        users, similarities = users[nearest], similarities[nearest]
        starts = self.indptr[users]
        lengths = self.indptr[users + 1] - starts
        voters = np.repeat(np.arange(len(users)), lengths)
        places = np.arange(len(voters)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        items = self.items[starts[voters] + places]
        votes = similarities[voters]
        if self.config.distance_decay > 0:
            shared = np.zeros(len(users), dtype=np.int64)
            for item in history:  # oldest first: later ones replace it
                is_shared = items == item
                shared[voters[is_shared]] = places[is_shared]
            distances = np.maximum(np.abs(places - shared[voters]), 1)
            votes = votes * distances**-self.config.distance_decay
        return np.bincount(items, weights=votes, minlength=len(self.item_counts))

    def tensors(self) -> dict[str, np.ndarray]:
        """Give what a checkpoint must hold besides the settings."""
        return {
            "item_counts": self.item_counts,
            "indptr": self.indptr,
            "items": self.items,
            "user_weights": self.user_weights,
        }

    @classmethod
    def from_tensors(
        cls, config: SessionKNNConfig, num_items: int, tensors: Mapping[str, np.ndarray]
    ) -> SessionKNN:
        """Rebuild a model from its settings and ``tensors()``.

        Raises
        ------
        ValueError
            If the arrays are not rows of users, weights and counts of that many items.
        """
        counts, weights, indptr = tensors["item_counts"], tensors["user_weights"], tensors["indptr"]
        if counts.shape != (num_items,):
            raise ValueError(f"item_counts has shape {counts.shape}, expected ({num_items},)")
        if weights.shape != (len(indptr) - 1,):
            raise ValueError(f"user_weights has shape {weights.shape}, expected ({len(indptr) - 1},)")
        rows = sp.csr_array(
            (np.ones(len(tensors["items"])), tensors["items"], indptr), shape=(len(weights), num_items)
        )
        rows.check_format(full_check=True)
        return cls(config, indptr, tensors["items"], weights, counts)
