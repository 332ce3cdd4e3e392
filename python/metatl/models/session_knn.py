"""Session kNN: training users who share items with the history vote for their other items.

`paper` is the method of Jannach and Ludewig, *When recurrent neural networks meet the neighborhood for
session-based recommendation*, RecSys 2017: the cosine of the two item sets, the 500 nearest neighbours, one
vote per neighbour and item. `tuned` adds the decays of STAN (Garg, Gupta, Malhotra, Vig and Shroff, *Sequence
and time aware neighborhood for session-based recommendations*, SIGIR 2019): later items of the history weigh
more, and so do a neighbour's items that are close to a shared item. It also divides the votes by the
popularity of the item, and ranks items without votes by popularity. `half_life` is STAN's decay by the age of
a neighbour. `tuned` does not use it, because it gained nothing on X-Wines, MovieTweetings or Amazon Sports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from metatl.models.counting import CountingModel, SparseRows, check_item_counts, invert
from metatl.models.preset_config import PresetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metatl.data.histories import Histories
    from metatl.data.interactions import Interactions


class SessionKNNConfig(PresetConfig):
    """Settings of session kNN. The defaults are those of ``tuned``."""

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
        default=1000, ge=1, description="Number of nearest training users that vote (ties by lower user)."
    )
    recency: float = Field(
        default=0.8,
        gt=0.0,
        le=1.0,
        description="Weight of an item of the history, relative to the item after it.",
    )
    length_exponent: float = Field(
        default=0.25,
        ge=0.0,
        description="The similarity of a user of n items is divided by n^length_exponent; 0.5 is the cosine.",
    )
    half_life: float | None = Field(
        default=None,
        gt=0.0,
        description=(
            "The weight of a neighbour halves with each half_life of its age: the time from its last "
            "interaction to the last one in the data, divided by the median age. None for no decay."
        ),
    )
    distance_decay: float = Field(
        default=0.5,
        ge=0.0,
        description="An item at distance d from the shared item gets d^-distance_decay of the vote.",
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
        description="Weight of the item's share of all interactions; the votes sum to 1.",
    )


class SessionKNN(CountingModel):
    """Votes of the nearest training users.

    The similarity of user u to the history is w_u Σ recency^age over the shared items; the last item of the
    history has age 0. Each neighbour gives each of its rows j the vote
    similarity · max(|p_j - p_m|, 1)^-distance_decay, where p_j is the position of row j and p_m that of the
    shared item that comes last in the history. The votes are divided by
    (count_j + shrinkage)^candidate_exponent and scaled to the sum 1; then popularity · share_j is added.

    Parameters
    ----------
    config : SessionKNNConfig
        The settings.
    indptr, items : ndarray
        (U + 1,) and (N,) int64; the items of user u are ``items[indptr[u]:indptr[u + 1]]``.
    user_weights : ndarray
        (U,) float64, w, the weights of the users.
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
        super().__init__(item_counts)
        self.config = config
        self.indptr = indptr
        self.items = items
        self.user_weights = user_weights
        # The users of each item, once each: pairs of an item and a user as one number, in order.
        num_users = max(1, len(indptr) - 1)
        owners = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        of_items = np.unique(items * num_users + owners)
        self._users = of_items % num_users
        self._first_users = np.searchsorted(of_items, np.arange(len(item_counts) + 1) * num_users)
        self._discount = invert((item_counts + config.shrinkage) ** config.candidate_exponent)
        self._prior = config.popularity * item_counts / max(int(item_counts.sum()), 1)

    @classmethod
    def fit(cls, train: Interactions, config: SessionKNNConfig) -> SessionKNN:
        """Store the training rows and compute the weights of the users.

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
        return cls(config, train.indptr, train.items, weights, train.item_counts)

    def score(self, histories: Histories, *, num_threads: int | None = None) -> np.ndarray:  # noqa: ARG002
        """Score every item for histories of any lengths.

        Parameters
        ----------
        histories : Histories
            B rows of at least one item, oldest first.
        num_threads : int, optional
            Unused.

        Returns
        -------
        ndarray
            (B, I) float32, C-contiguous.
        """
        scores = np.empty((len(histories), self.num_items), dtype=np.float32)
        for row, history in enumerate(np.split(histories.items, histories.indptr[1:-1])):
            votes = self._votes(history, *self._neighbours(history)) * self._discount
            total = votes.sum()
            scores[row] = (votes / total if total > 0 else votes) + self._prior
        return scores

    def _neighbours(self, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the users (n,) who share an item with a history, and their similarities (n,)."""
        ages = np.arange(len(history) - 1, -1, -1, dtype=np.float64)
        shared, position = np.unique(history, return_inverse=True)
        weights = np.bincount(position, weights=self.config.recency**ages)
        lists = [self._users[self._first_users[item] : self._first_users[item + 1]] for item in shared]
        users, column = np.unique(np.concatenate(lists), return_inverse=True)
        sums = np.bincount(column, weights=np.repeat(weights, [len(one) for one in lists]))
        return users, sums * self.user_weights[users]

    def _votes(self, history: np.ndarray, users: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """Return the summed votes (I,) of the nearest among users (n,) with similarities (n,)."""
        nearest = np.lexsort((users, -similarities))[: self.config.neighbours]
        users, similarities = users[nearest], similarities[nearest]
        starts = self.indptr[users]
        lengths = self.indptr[users + 1] - starts
        voters = np.repeat(np.arange(len(users)), lengths)
        positions = np.arange(len(voters)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        items = self.items[starts[voters] + positions]
        votes = similarities[voters]
        if self.config.distance_decay > 0:
            shared_positions = np.zeros(len(users), dtype=np.int64)
            for item in history:  # oldest first, so that the last shared item of the history remains
                is_shared = items == item
                shared_positions[voters[is_shared]] = positions[is_shared]
            distances = np.maximum(np.abs(positions - shared_positions[voters]), 1)
            votes = votes * distances**-self.config.distance_decay
        return np.bincount(items, weights=votes, minlength=self.num_items)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays that a checkpoint stores in addition to the settings."""
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
        """Rebuild a model from its settings and `tensors`.

        Raises
        ------
        ValueError
            If the arrays are not the rows and weights of U users and the counts of I items.
        """
        item_counts = check_item_counts(tensors["item_counts"], num_items)
        weights, indptr = tensors["user_weights"], tensors["indptr"]
        if weights.shape != (len(indptr) - 1,):
            raise ValueError(f"user_weights has shape {weights.shape}, expected ({len(indptr) - 1},)")
        SparseRows(indptr, tensors["items"], np.ones(len(tensors["items"]))).check(len(weights), num_items)
        return cls(config, indptr, tensors["items"], weights, item_counts)
