"""Episodes: the tasks that MetaTL, MeLU and MetaCF learn from.

A task is K+1 interactions of one training user in time order: (i_1 ... i_K, i_K+1). Its support is
the K-1 transitions i_1 -> i_2 ... i_K-1 -> i_K, its query the transition i_K -> i_K+1 (Sec. 3.2 of
Wang et al. 2021). Tasks are drawn in Rust (`metatl._metatl.EpisodeSampler`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from metatl._metatl import EpisodeSampler

if TYPE_CHECKING:
    from metatl.interactions import Interactions
    from metatl.models.metatl import MetaTLConfig

__all__ = ["EpisodeSampler", "episode_sampler"]


def episode_sampler(train: Interactions, config: MetaTLConfig, *, k: int, seed: int) -> EpisodeSampler:
    """Build the sampler that a config asks for.

    Parameters
    ----------
    train
        The training users' interactions.
    config
        Its `negatives`, `shared_negatives`, `window_share`, `released_windows` and `shuffle_share`.
    k
        Interactions of a user that the model sees, K.
    seed
        Seed of the tasks.
    """
    return EpisodeSampler(
        train.index,
        k=k,
        negatives=config.negatives,
        shared_negatives=config.shared_negatives,
        window_share=config.window_share,
        released_windows=config.released_windows,
        shuffle_share=config.shuffle_share,
        seed=seed,
    )
