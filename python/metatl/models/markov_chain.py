"""First-order Markov chain: the next item depends on the last item only.

`paper` is the maximum likelihood chain from which Rendle, Freudenthaler and Schmidt-Thieme, *Factorizing
personalized Markov chains for next-basket recommendation*, WWW 2010, start: it counts how often an item
directly follows another. `tuned` smooths each row towards popularity (a Dirichlet prior: MacKay and Peto, *A
hierarchical Dirichlet language model*, 1995), because most pairs never occur. It also counts pairs at larger
distances, with smaller weights, and the reverse of each pair, because many rows share a timestamp and their
order carries little information.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from metatl.models.counting import ItemMatrixModel, SparseRows
from metatl.models.preset_config import PresetConfig

if TYPE_CHECKING:
    from metatl.data.histories import Histories
    from metatl.data.interactions import Interactions


class MarkovChainConfig(PresetConfig):
    """Settings of the Markov chain. The defaults are those of ``tuned``."""

    system: ClassVar[str] = "markov"
    paper: ClassVar[dict[str, Any]] = {
        "window": 1,
        "distance_decay": 0.0,
        "length_discount": 0.0,
        "backward": 0.0,
        "smoothing": 0.0,
    }

    window: int = Field(
        default=20, ge=1, description="Largest distance, in positions, of the two items of a pair."
    )
    distance_decay: float = Field(
        default=0.4, ge=0.0, description="A pair at distance d has the weight d^-distance_decay."
    )
    length_discount: float = Field(
        default=0.25,
        ge=0.0,
        description="The pairs of a user with n interactions are weighted by n^-length_discount.",
    )
    backward: float = Field(
        default=1.0,
        ge=0.0,
        description=(
            "Weight of a pair in the transition from its later to its earlier item; the forward transition "
            "has the weight 1."
        ),
    )
    smoothing: float = Field(
        default=100.0, ge=0.0, description="Weight of the popularity prior, as a number of transitions."
    )


class MarkovChain(ItemMatrixModel):
    """Transition probabilities between items.

    Let c_ij be the weighted count of j after i, and q_j the share of item j in all interactions. Then
    p(j | i) = (c_ij + smoothing · q_j) / (Σ_j c_ij + smoothing), or q_j if the denominator is 0.

    Parameters
    ----------
    config : MarkovChainConfig
        The settings.
    matrix : SparseRows
        (I, I), c; rows are the earlier items.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    matrix_name: ClassVar[str] = "transitions"

    def __init__(self, config: MarkovChainConfig, matrix: SparseRows, item_counts: np.ndarray) -> None:
        super().__init__(config, matrix, item_counts)
        self._prior = item_counts / max(int(item_counts.sum()), 1)
        rows = np.repeat(np.arange(self.num_items), matrix.lengths)
        self._totals = np.bincount(rows, weights=matrix.values, minlength=self.num_items)

    @classmethod
    def fit(cls, train: Interactions, config: MarkovChainConfig) -> MarkovChain:
        """Count the transitions of the training users.

        Parameters
        ----------
        train : Interactions
            The training rows, each user's in time order.
        config : MarkovChainConfig
            The settings.
        """
        from metatl.models.item_start.co_occurrences import co_occurrences

        transitions = co_occurrences(
            train.indptr,
            train.items,
            train.num_items,
            window=config.window,
            distance_decay=config.distance_decay,
            length_discount=config.length_discount,
            backward=config.backward,
        )
        return cls(config, SparseRows.of(transitions), train.item_counts)

    def score(self, histories: Histories, *, num_threads: int | None = None) -> np.ndarray:  # noqa: ARG002
        """Return the probability that each item comes next.

        Parameters
        ----------
        histories : Histories
            B rows of at least one item, oldest first. Only the last item of each history is used.
        num_threads : int, optional
            Unused.

        Returns
        -------
        ndarray
            (B, I) float32, C-contiguous.
        """
        last = histories.items[histories.indptr[1:] - 1]
        smoothing = self.config.smoothing
        mass = self._totals[last] + smoothing
        is_known = mass > 0
        lengths, starts = self.matrix.lengths[last], self.matrix.indptr[last]
        users = np.repeat(np.arange(len(last)), lengths)
        entries = np.arange(len(users)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        scores = np.zeros((len(last), self.num_items))
        scores[users, self.matrix.indices[entries]] = self.matrix.values[entries]
        scores += smoothing * self._prior
        scores /= np.where(is_known, mass, 1.0)[:, None]
        scores[~is_known] = self._prior
        answer: np.ndarray = scores.astype(np.float32)
        return answer
