"""Episodes: the tasks that MetaTL, MeLU and MetaCF learn from.

A task is K+1 interactions of one training user in time order: (i_1 ... i_K, i_K+1). Its support is
the K-1 transitions i_1 -> i_2 ... i_K-1 -> i_K, its query the transition i_K -> i_K+1 (Sec. 3.2 of
Wang et al. 2021). Tasks are drawn in Rust (`metatl._metatl.EpisodeSampler`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metatl._metatl import EpisodeSampler

if TYPE_CHECKING:
    from metatl.data.interactions import Interactions
    from metatl.models.contract import EpisodeSettings

__all__ = ["EpisodeSampler", "episode_sampler"]


def episode_sampler(train: Interactions, settings: EpisodeSettings, *, k: int, seed: int) -> EpisodeSampler:
    """Build the sampler that a model asks for.

    Parameters
    ----------
    train
        The training users' interactions.
    settings
        Which tasks.
    k
        Interactions of a user that the model sees, K.
    seed
        Seed of the tasks.
    """
    return EpisodeSampler(train.index, k=k, seed=seed, **settings._asdict())
