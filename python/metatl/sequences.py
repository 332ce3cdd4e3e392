"""Sequences: the stretches of users' rows that the baselines train on.

They are drawn in Rust (`metatl._metatl.SequenceSampler`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metatl._metatl import SequenceSampler

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metatl.data.interactions import Interactions
    from metatl.models.contract import SequenceSettings

__all__ = ["SequenceSampler", "sequence_sampler"]


def sequence_sampler(
    train: Interactions,
    settings: SequenceSettings,
    *,
    seed: int,
    item_counts: NDArray[np.int64] | None = None,
) -> SequenceSampler:
    """Build the sampler that a model asks for.

    Parameters
    ----------
    train
        The training users' interactions, or a part of them.
    settings
        What a sequence is, and which negatives it comes with.
    seed
        Seed of the sequences.
    item_counts : ndarray, optional
        (I,) int64, training interactions of each item, for negatives by popularity; those in `train` by
        default.
    """
    weights = None
    if settings.popularity_exponent > 0:
        counts = train.item_counts if item_counts is None else item_counts
        weights = counts.astype(np.float64) ** settings.popularity_exponent
    return SequenceSampler(
        train.index,
        length=settings.length,
        shortest=settings.shortest,
        draw=settings.draw,
        negatives=settings.negatives,
        shared_negatives=settings.shared_negatives,
        shuffle_share=settings.shuffle_share,
        weights=weights,
        seed=seed,
    )
