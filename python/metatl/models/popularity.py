"""Popularity: every user gets the items that most training interactions went to."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from metatl.models.preset_config import PresetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metatl.data.interactions import Interactions


class PopularityConfig(PresetConfig):
    """Popularity has nothing to set."""

    system: ClassVar[str] = "popularity"


class Popularity:
    """Scores an item by how many training interactions it has, whoever asks.

    Parameters
    ----------
    config : PopularityConfig
        The settings.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    def __init__(self, config: PopularityConfig, item_counts: np.ndarray) -> None:
        self.config = config
        self.item_counts = item_counts
        self._scores = item_counts.astype(np.float32)

    @classmethod
    def fit(cls, train: Interactions, config: PopularityConfig) -> Popularity:
        """Count the training interactions of each item.

        Parameters
        ----------
        train : Interactions
            The training rows.
        config : PopularityConfig
            The settings.
        """
        return cls(config, train.item_counts)

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.item_counts)

    def score(self, histories: np.ndarray) -> np.ndarray:
        """Score every item.

        Parameters
        ----------
        histories : ndarray
            (B, L) int64. Only B matters.

        Returns
        -------
        ndarray
            (B, I) float32, C-contiguous; exact below 2²⁴ interactions per item.
        """
        return np.tile(self._scores, (len(histories), 1))

    def tensors(self) -> dict[str, np.ndarray]:
        """Give what a checkpoint must hold besides the settings."""
        return {"item_counts": self.item_counts}

    @classmethod
    def from_tensors(
        cls, config: PopularityConfig, num_items: int, tensors: Mapping[str, np.ndarray]
    ) -> Popularity:
        """Rebuild a model from its settings and ``tensors()``.

        Raises
        ------
        ValueError
            If there is not one count per item.
        """
        if tensors["item_counts"].shape != (num_items,):
            raise ValueError(f"item_counts has shape {tensors['item_counts'].shape}, expected ({num_items},)")
        return cls(config, tensors["item_counts"])
