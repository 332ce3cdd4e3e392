"""First-order Markov chain: what comes next depends on the last item alone.

`paper` is the maximum likelihood chain that Rendle, Freudenthaler and Schmidt-Thieme, *Factorizing
personalized Markov chains for next-basket recommendation*, WWW 2010, start from: how often an item followed
the last one directly. `tuned` draws each row towards popularity (a Dirichlet prior: MacKay and Peto, *A
hierarchical Dirichlet language model*, 1995), because most pairs are never seen. It also counts pairs that
stand further apart, the less the further, and the reverse of a pair: where many rows share a time, their
order says little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from metatl.models.item_start.co_occurrences import co_occurrences
from metatl.models.preset_config import PresetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metatl.data.interactions import Interactions


class MarkovChainConfig(PresetConfig):
    """Settings of the chain; the defaults are those of ``tuned``."""

    system: ClassVar[str] = "markov"
    paper: ClassVar[dict[str, Any]] = {
        "window": 1,
        "distance_decay": 0.0,
        "length_discount": 0.0,
        "backward": 0.0,
        "smoothing": 0.0,
    }

    window: int = Field(
        default=20, ge=1, description="A pair counts if its items are at most this many positions apart."
    )
    distance_decay: float = Field(
        default=0.4, ge=0.0, description="Items d positions apart add d^-distance_decay."
    )
    length_discount: float = Field(
        default=0.25, ge=0.0, description="A user with n interactions adds n^-length_discount times as much."
    )
    backward: float = Field(
        default=1.0,
        ge=0.0,
        description=(
            "What a pair adds to the transition from its later item to its earlier one, next to 1 the "
            "other way."
        ),
    )
    smoothing: float = Field(
        default=100.0, ge=0.0, description="Weight of the popularity prior, in transitions."
    )


class MarkovChain:
    """Transition probabilities between items.

    With c_ij the weighted count of j after i and q_j the share of all interactions that j has:
    p(j | i) = (c_ij + smoothing · q_j) / (Σ_j c_ij + smoothing), and q_j itself where both terms are 0.

    Parameters
    ----------
    config : MarkovChainConfig
        The settings.
    transitions : csr_array
        (I, I) float64, c; rows are the items before.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    def __init__(self, config: MarkovChainConfig, transitions: sp.csr_array, item_counts: np.ndarray) -> None:
        self.config = config
        self.transitions = transitions
        self.item_counts = item_counts
        self._prior = item_counts / max(int(item_counts.sum()), 1)
        self._totals = np.asarray(transitions.sum(axis=1)).ravel()

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
        transitions = co_occurrences(
            train.indptr,
            train.items,
            train.num_items,
            window=config.window,
            distance_decay=config.distance_decay,
            length_discount=config.length_discount,
            backward=config.backward,
        )
        counts = train.item_counts
        return cls(config, transitions, counts)

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.item_counts)

    def score(self, histories: np.ndarray) -> np.ndarray:
        """Give the probability of every item as the next one.

        Parameters
        ----------
        histories : ndarray
            (B, L) int64 with L ≥ 1, oldest item first. Only the last item of each matters.

        Returns
        -------
        ndarray
            (B, I) float32, C-contiguous.
        """
        last = histories[:, -1]
        smoothing = self.config.smoothing
        mass = self._totals[last] + smoothing
        is_known = mass > 0
        scores = self.transitions[last].toarray()
        scores += smoothing * self._prior
        scores /= np.where(is_known, mass, 1.0)[:, None]
        scores[~is_known] = self._prior
        answer: np.ndarray = scores.astype(np.float32)
        return answer

    def tensors(self) -> dict[str, np.ndarray]:
        """Give what a checkpoint must hold besides the settings."""
        return {
            "item_counts": self.item_counts,
            "indptr": self.transitions.indptr.astype(np.int64),
            "indices": self.transitions.indices.astype(np.int64),
            "transitions": self.transitions.data,
        }

    @classmethod
    def from_tensors(
        cls, config: MarkovChainConfig, num_items: int, tensors: Mapping[str, np.ndarray]
    ) -> MarkovChain:
        """Rebuild a model from its settings and ``tensors()``.

        Raises
        ------
        ValueError
            If the arrays are not a matrix and counts of that many items.
        """
        if tensors["item_counts"].shape != (num_items,):
            raise ValueError(f"item_counts has shape {tensors['item_counts'].shape}, expected ({num_items},)")
        parts = (tensors["transitions"], tensors["indices"], tensors["indptr"])
        transitions = sp.csr_array(parts, shape=(num_items, num_items))
        transitions.check_format(full_check=True)
        return cls(config, transitions, tensors["item_counts"])
