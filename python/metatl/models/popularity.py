"""Popularity: the score of an item is its number of training interactions, for every user."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from metatl.models.counting import CountingModel, check_item_counts
from metatl.models.preset_config import PresetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metatl.data.histories import Histories
    from metatl.data.interactions import Interactions


class PopularityConfig(PresetConfig):
    """Settings of popularity: none."""

    system: ClassVar[str] = "popularity"


class Popularity(CountingModel):
    """The model.

    Parameters
    ----------
    config : PopularityConfig
        The settings.
    item_counts : ndarray
        (I,) int64, training interactions per item.
    """

    def __init__(self, config: PopularityConfig, item_counts: np.ndarray) -> None:
        super().__init__(item_counts)
        self.config = config
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

    def score(self, histories: Histories, *, num_threads: int | None = None) -> np.ndarray:  # noqa: ARG002
        """Score every item.

        Parameters
        ----------
        histories : Histories
            B rows. The items have no effect.
        num_threads : int, optional
            Unused.

        Returns
        -------
        ndarray
            (B, I) float32, C-contiguous; exact below 2²⁴ interactions per item.
        """
        return np.tile(self._scores, (len(histories), 1))

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays that a checkpoint stores in addition to the settings."""
        return {"item_counts": self.item_counts}

    @classmethod
    def from_tensors(
        cls, config: PopularityConfig, num_items: int, tensors: Mapping[str, np.ndarray]
    ) -> Popularity:
        """Rebuild a model from its settings and `tensors`.

        Raises
        ------
        ValueError
            If there is not one count per item.
        """
        return cls(config, check_item_counts(tensors["item_counts"], num_items))
